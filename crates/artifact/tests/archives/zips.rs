//! Zips of Info-ZIP and Python against `unzip`, and hostile ones made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_artifact::erofs::Kind;
use dfs_artifact::{Index, OriginRecipe, ResolveError};
use dfs_model::ByteRange;

use crate::import::{assert_same, seen_by_kernel};
use crate::seen::{Tree, artifact, part, python, run, seen, space, without_directories, work};

/// What `unzip` makes of a zip.
fn unpacked(file: &Path) -> Tree {
    let out = tempfile::tempdir().unwrap();
    let mut unzip = Command::new("unzip");
    unzip.env("TZ", "UTC").args(["-q", "-X", "-K"]).arg(file).arg("-d").arg(out.path());
    // 1 is a warning, as of bytes in front of the zip.
    let status = unzip.output().unwrap().status;
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    without_directories(seen_by_kernel(out.path()))
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn things(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::create_dir(dir.join("empty-directory")).unwrap();
    for number in 0..100u32 {
        let text = format!("{number} ").repeat(number as usize * 7);
        fs::write(dir.join(format!("a/small-{number}")), text).unwrap();
    }
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("a/b/deflates"), b"one line\n".repeat(200_000)).unwrap();
    fs::write(dir.join("a/long"), b"another line\n".repeat(1_000_000)).unwrap();
    fs::write(dir.join("noise"), noise(3 << 20)).unwrap();
    fs::write(dir.join("run.sh"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(dir.join("empty"), Some(1234), Some(70_000)).unwrap();
    symlink("a/b/deflates", dir.join("link")).unwrap();
    symlink("/absolute", dir.join("dangling")).unwrap();
    for path in ["a/b", "a", "empty-directory"] {
        run(Command::new("touch").args(["-d", "@1600000000"]).arg(dir.join(path)));
    }
}

fn zip(dir: &Path, file: &Path, options: &[&str]) {
    let mut zip = Command::new("zip");
    run(zip.current_dir(dir).args(["-q", "-r", "-y"]).args(options).arg(file).arg("."));
}

/// Links have the time of their unpacking.
fn without_link_times(mut tree: Tree) -> Tree {
    for seen in tree.values_mut().filter(|seen| seen.meta.mode == 0o777 && seen.bytes.is_none()) {
        seen.meta.mtime = Default::default();
    }
    tree
}

fn assert_as_unpacked(file: &Path) {
    let shown = without_directories(seen(file));
    assert_same(&without_link_times(unpacked(file)), &without_link_times(shown));
}

#[test]
fn zips_of_info_zip_read_as_they_unpack() {
    for options in [&["-6"][..], &["-0"], &["-9", "-X"], &["-fz"], &["-Z", "store"]] {
        let (_work, dir, file) = work();
        things(&dir);
        let file = file.with_extension("zip");
        zip(&dir, &file, options);
        assert_as_unpacked(&file);
    }
}

#[test]
fn a_zip_behind_a_program_and_one_that_was_streamed_read_as_they_unpack() {
    let (_work, dir, file) = work();
    things(&dir);
    fs::remove_file(dir.join("link")).unwrap();
    fs::remove_file(dir.join("dangling")).unwrap();
    // Written without going back: lengths and sums stand behind the members.
    let script = "cd \"$1\" && { echo '#!/bin/sh'; head -c 100000 /dev/zero; zip -q -r - . | cat; } > \"$2\"";
    run(Command::new("sh").args(["-c", script, "sh"]).args([&dir, &file]));
    assert_as_unpacked(&file);
    run(Command::new("zip").args(["-q", "-A"]).arg(&file));
    assert_as_unpacked(&file);
}

#[test]
fn zips_of_python_read_as_python_reads_them() {
    let program = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED, allowZip64=True) as zip:
    zip.writestr('plain.txt', 'text' * 1000)
    zip.writestr('gr\\u00fcn/\\u65e5\\u672c.txt', 'unicode')
    with zip.open(zipfile.ZipInfo('large'), 'w', force_zip64=True) as member:
        member.write(b'zip64' * 100000)
    zip.writestr(zipfile.ZipInfo('stored'), b's' * 200000, zipfile.ZIP_STORED)
    zip.writestr('again', 'old')
    zip.writestr('again', 'new')
";
    let (_work, _dir, file) = work();
    python(program, &[&file]);
    let expected: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("plain.txt", b"text".repeat(1000)),
        ("grün/日本.txt", b"unicode".to_vec()),
        ("large", b"zip64".repeat(100_000)),
        ("stored", vec![b's'; 200_000]),
        ("again", b"new".to_vec()),
    ]);
    let seen = seen(&file);
    let files: Vec<_> = seen.iter().filter(|(_, seen)| seen.bytes.is_some()).collect();
    assert_eq!(files.len(), expected.len());
    for (path, content) in expected {
        let digest = Some(*blake3::hash(&content).as_bytes());
        assert_eq!(seen[Path::new(path)].bytes, digest, "{path}");
    }
}

#[test]
fn stored_members_at_blocks_lie_in_the_zip_itself() {
    let (_work, _dir, file) = work();
    let content = noise(100_000);
    // The name fills the header up to a block.
    let name = "n".repeat(512 - 30);
    let zip = made(&[Member::stored(&name, &content), Member::stored("odd", &content)]);
    fs::write(&file, &zip).unwrap();
    let shown = artifact(&file).unwrap();
    assert!(matches!(shown.tasks[0].origin, OriginRecipe::Url { .. }));
    assert!(matches!(shown.tasks[1].origin, OriginRecipe::Parts { .. }));
    let index = Index::parse(shown.index.unwrap().bytes.to_vec()).unwrap();
    let image = index.image();
    let place = |name: &str| {
        let nid = image.lookup(image.root(), name.as_bytes()).unwrap();
        let extent = nid.and_then(|nid| image.extent(nid, 0).unwrap()).unwrap();
        (extent.space, extent.offset)
    };
    let long_name = &name[..255.min(name.len())];
    assert!(image.lookup(image.root(), long_name.as_bytes()).unwrap().is_none());
    assert_eq!(place("odd").0, Some(1));
}

#[test]
fn any_range_of_a_space_is_what_all_of_it_has_there() {
    let (_work, dir, file) = work();
    things(&dir);
    let file = file.with_extension("zip");
    zip(&dir, &file, &["-1"]);
    let shown = artifact(&file).unwrap();
    for number in 0..shown.tasks.len() {
        let whole = space(&shown, number).unwrap();
        let length = whole.len();
        for (start, end) in [(0, 1), (1, 700), (length / 3, length / 2), (length - 1, length)] {
            let asked = Some(ByteRange::new(start as u64, end as u64));
            assert!(part(&shown, number, asked).unwrap() == whole[start..end], "{start}..{end}");
        }
    }
}

/// A member of a zip made by hand; every number can lie.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    packed: Vec<u8>,
    length: u32,
    sum: u32,
    method: u16,
    flags: u16,
    system: u8,
    attributes: u32,
}

impl Member {
    fn stored(name: &str, content: &[u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        Self {
            name: name.into(),
            packed: content.to_vec(),
            length: content.len() as u32,
            sum: crc.sum(),
            method: 0,
            flags: 0,
            system: 3,
            attributes: 0o100_644 << 16,
        }
    }

    fn deflated(name: &str, content: &[u8]) -> Self {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        Self { packed: encoder.finish().unwrap(), method: 8, ..Self::stored(name, content) }
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = [self.flags.to_le_bytes(), self.method.to_le_bytes()].concat();
        fields.extend([0, 0, 0x21, 0]);
        for number in [self.sum, self.packed.len() as u32, self.length] {
            fields.extend(number.to_le_bytes());
        }
        fields.extend([(self.name.len() as u16).to_le_bytes(), [0, 0]].concat());
        fields
    }
}

/// A zip of these members.
fn made(members: &[Member]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let at = zip.len() as u32;
        zip.extend([&b"PK\x03\x04\x14\0"[..], &member.fields(), &member.name].concat());
        zip.extend(&member.packed);
        directory.extend([&b"PK\x01\x02\x14"[..], &[member.system, 20, 0]].concat());
        directory.extend([&member.fields()[..], &[0; 6]].concat());
        directory.extend([member.attributes.to_le_bytes(), at.to_le_bytes()].concat());
        directory.extend(&member.name);
    }
    let (at, length) = (zip.len() as u32, directory.len() as u32);
    zip.extend(directory);
    let count = (members.len() as u16).to_le_bytes();
    zip.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count].concat());
    zip.extend([&length.to_le_bytes()[..], &at.to_le_bytes(), &[0, 0]].concat());
    zip
}

/// Paths of a zip, with the bytes of files or why they cannot be read.
fn read(zip: &[u8]) -> BTreeMap<PathBuf, Result<Vec<u8>, String>> {
    let (_work, _dir, file) = work();
    fs::write(&file, zip).unwrap();
    let shown = artifact(&file).unwrap();
    let index = Index::parse(shown.index.as_ref().unwrap().bytes.to_vec()).unwrap();
    let image = index.image();
    let files = image.walk().map(Result::unwrap).filter(|visit| visit.kind == Kind::File);
    let bytes = |nid| -> Result<Vec<u8>, String> {
        let length = image.attr(nid).unwrap().size as usize;
        let Some(extent) = image.extent(nid, 0).unwrap() else { return Ok(Vec::new()) };
        let space = space(&shown, usize::from(extent.space.unwrap()));
        let space = space.map_err(|error| error.to_string())?;
        Ok(space[extent.offset as usize..][..length].to_vec())
    };
    files.map(|visit| (String::from_utf8(visit.path).unwrap().into(), bytes(visit.nid))).collect()
}

fn said(zip: &[u8], name: &str) -> String {
    read(zip).remove(Path::new(name)).unwrap().unwrap_err()
}

#[test]
fn members_that_cannot_be_read_are_listed_and_say_why() {
    let content = b"some text".repeat(100);
    let good = Member::deflated("good", &content);
    let bad = |name: &str| Member { name: name.into(), ..good.clone() };
    let encrypted = Member { flags: 1, ..bad("encrypted") };
    let lzma = Member { method: 14, ..bad("lzma") };
    let longer = Member { length: 100_000_000, ..bad("longer") };
    for (member, why) in
        [(encrypted.clone(), "is encrypted"), (lzma, "method 14"), (longer, "is not as long as")]
    {
        let zip = made(&[good.clone(), member.clone()]);
        let files = read(&zip);
        assert_eq!(files[Path::new("good")].as_deref(), Ok(&content[..]));
        let name = String::from_utf8(member.name).unwrap();
        assert!(said(&zip, &name).contains(why), "{name}: {}", said(&zip, &name));
    }
}

#[test]
fn members_that_are_not_what_the_directory_says_are_refused_when_read() {
    let content = b"some text".repeat(100);
    let good = Member::deflated("bad", &content);
    let long = Member::deflated("bad", &b"a long text".repeat(1_000_000));
    for (member, why) in [
        (Member { sum: 1, ..good.clone() }, "does not match its checksum"),
        (Member { sum: 1, ..long }, "does not match its checksum"),
        (Member { sum: 1, ..Member::stored("bad", &content) }, "does not match its checksum"),
        (Member { length: 899, ..good.clone() }, "is not as long as"),
        (Member { length: 901, ..good.clone() }, "is not as long as"),
        (Member { packed: vec![0xff; 50], ..good }, "make no sense"),
    ] {
        let why_not = said(&made(&[member]), "bad");
        assert!(why_not.contains(why), "{why_not}");
    }
}

#[test]
fn names_that_leave_the_zip_are_left_out_and_planted_links_are_not_followed() {
    let link = |name: &str, to: &str| Member {
        attributes: 0o120_777 << 16,
        ..Member::stored(name, to.as_bytes())
    };
    let zip = made(&[
        Member::stored("../climbs", b"1"),
        Member::stored("/absolute", b"2"),
        link("up", "../.."),
        Member::stored("up/planted", b"3"),
        Member { system: 0, attributes: 0, ..Member::stored("dos\\path", b"4") },
        Member { system: 0, attributes: 1, name: b"gr\x81n".to_vec(), ..Member::stored("", b"5") },
    ]);
    let names: Vec<_> = read(&zip).into_keys().collect();
    let expected = ["absolute", "dos/path", "grün"].map(PathBuf::from);
    assert_eq!(names, expected);
}

#[test]
fn overlapping_members_are_taken_for_a_bomb() {
    let mut zip = made(&[Member::deflated("kernel", &[0; 100_000]), Member::stored("b", b"2")]);
    // The second line names the first member too.
    let line = zip.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    zip[line + 42..line + 46].fill(0);
    let (_work, _dir, file) = work();
    fs::write(&file, zip).unwrap();
    let refused = artifact(&file).unwrap_err();
    let ResolveError::Zip { source, .. } = refused else { panic!("{refused}") };
    assert!(source.to_string().contains("taken for a bomb"), "{source}");
}

#[test]
fn a_zip_that_is_cut_off_or_split_is_no_tree() {
    let zip = made(&[Member::stored("a", b"1")]);
    let (_work, _dir, file) = work();
    fs::write(&file, &zip[..zip.len() - 10]).unwrap();
    let refused = artifact(&file).unwrap_err();
    assert!(matches!(refused, ResolveError::Zip { .. }), "{refused}");
}
