//! Compressed tars of the usual compressors, against the tars in them.

use std::fs;
use std::path::Path;
use std::process::Command;

use dfs_artifact::{ResolveError, View};
use dfs_model::{ByteRange, Transform};

use crate::import::assert_same;
use crate::seen::{artifact, part, run, seen, space, work};

fn shell(script: &str, arguments: &[&Path]) {
    run(Command::new("sh").args(["-c", script, "sh"]).args(arguments));
}

#[test]
fn every_way_to_compress_a_tar_shows_the_tar() {
    let ways = [
        ("gzip -c \"$1\" > \"$2\"", Transform::Gunzip),
        // Members one behind the other, and the padding of a tape.
        (
            "head -c 700 \"$1\" | gzip > \"$2\"; tail -c +701 \"$1\" | gzip -1 >> \"$2\"; \
             head -c 5000 /dev/zero >> \"$2\"",
            Transform::Gunzip,
        ),
        ("zstd -q -c \"$1\" > \"$2\"", Transform::Unzstd),
        (
            "head -c 700 \"$1\" | zstd -q > \"$2\"; tail -c +701 \"$1\" | zstd -q --long=27 >> \"$2\"",
            Transform::Unzstd,
        ),
    ];
    let (_work, dir, tar) = work();
    for number in 0..30 {
        fs::write(dir.join(format!("file-{number}")), vec![number; 100 * usize::from(number)])
            .unwrap();
    }
    fs::write(dir.join("large"), vec![9; 3 << 20]).unwrap();
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&dir).arg("."));
    let plain = seen(&tar);
    for (way, transform) in ways {
        let packed = tar.with_extension("no-name-that-tells");
        shell(way, &[&tar, &packed]);
        let shown = artifact(&packed).unwrap();
        assert_eq!(shown.view, View::Tree);
        assert_eq!(shown.tasks[0].key.transform, transform);
        assert_eq!(shown.tasks[0].length, Some(tar.metadata().unwrap().len()));
        let whole = fs::read(&tar).unwrap();
        assert!(space(&shown, 0).unwrap() == whole);
        for range in [0..1, 5000..70_000, 1_000_000..2_500_000] {
            let asked = Some(ByteRange::new(range.start as u64, range.end as u64));
            assert!(part(&shown, 0, asked).unwrap() == whole[range]);
        }
        assert_same(&plain, &seen(&packed));
    }
}

#[test]
fn a_compressed_file_that_is_no_tar_is_no_tree() {
    let (_work, dir, file) = work();
    fs::write(dir.join("text"), vec![b'x'; 5000]).unwrap();
    shell("gzip -c \"$1\" > \"$2\"", &[&dir.join("text"), &file]);
    assert!(matches!(artifact(&file), Err(ResolveError::NoTree(_))));
}

fn noise() -> Vec<u8> {
    (0..200_000u32)
        .flat_map(|at| blake3::hash(&at.to_le_bytes()).as_bytes()[..4].to_vec())
        .collect()
}

#[test]
fn a_compressed_tar_that_begins_with_what_hardly_compresses_is_a_tree() {
    for pack in ["gzip -c", "zstd -q -c", "zstd -q -19 -c"] {
        let (_work, dir, file) = work();
        // What does not compress at all a compressor leaves as it is, and gives at once.
        let digits: Vec<u8> = noise().iter().map(|byte| byte >> 2).collect();
        fs::write(dir.join("noise"), digits).unwrap();
        shell(&format!("tar -C \"$1\" -c noise | {pack} > \"$2\""), &[&dir, &file]);
        assert_eq!(artifact(&file).unwrap().view, View::Tree, "{pack}");
    }
}

#[test]
fn a_stream_that_is_cut_off_gives_no_tree() {
    let (_work, dir, file) = work();
    fs::write(dir.join("noise"), noise()).unwrap();
    shell("tar -C \"$1\" -c . | gzip > \"$2\"", &[&dir, &file]);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 20]).unwrap();
    let said = artifact(&file).unwrap_err().to_string();
    assert!(said.contains("the compressed stream is cut off"), "{said}");
}

#[test]
fn a_bomb_is_named_as_one() {
    let (_work, _dir, file) = work();
    // A sparse file of 2 GiB packs into some hundred thousand bytes.
    shell(
        "truncate -s 2G \"$1/zeros\"; tar -C \"$1\" -c zeros | zstd -q > \"$2\"",
        &[&_dir, &file],
    );
    let said = artifact(&file).unwrap_err().to_string();
    assert!(said.contains("is taken for a bomb"), "{said}");
}
