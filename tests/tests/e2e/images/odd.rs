//! What some writers write and few readers think of.

use super::*;

#[test]
fn oddities_of_tars_are_read_as_others_read_them() {
    let scene = Scene::new();
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(200));
    let dir = format!("{}/", "d".repeat(90));
    let mut tar = Tar::default();
    for entry in [
        Entry::dir("./"),
        Entry::dir("./usr/").owner(3, 4),
        Entry::file("./usr/prefixed", b"with a prefix"),
        Entry::dir(&dir),
        Entry::file("short", b"a long name").pax("path", long.as_bytes()),
        Entry::file("usr/owned", b"by many").pax("uid", b"3000000").pax("gid", b"4000000"),
        Entry::file("usr/dated", b"to the nanosecond").pax("mtime", b"1600000000.123456789"),
        Entry::file("usr/old", b"before the epoch").pax("mtime", b"-5"),
        Entry::file("usr/twice", b"first"),
        Entry::file("usr/twice", b"second, and longer").mode(0o600),
        Entry::dir("usr/again/").mode(0o700),
        Entry::file("usr/again/kept", b"kept"),
        Entry::dir("usr/again/").mode(0o750).owner(5, 6),
        Entry::file("usr/set", b"set-id").mode(0o6755),
        Entry::dir("tmp/").mode(0o1777),
        Entry::symlink("usr/nowhere", "../../../../nowhere"),
        Entry::symlink("usr/away", "/etc/passwd"),
        Entry::fifo("usr/pipe").mode(0o600),
        Entry::char_device("usr/null", (1, 3)).mode(0o666),
        Entry::block_device("usr/high", (259, 1_000_000)),
        Entry::file("usr/noted", b"noted")
            .xattr("user.plain", b"value")
            .xattr("user.with.dots and spaces", b"\0\xff=\n"),
        Entry::file("usr/able", b"able").mode(0o755).xattr(
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        Entry::file("usr/first-name", b"several names"),
        Entry::hard_link("usr/second-name", "./usr/first-name"),
        Entry::hard_link("./usr/third-name", "/usr/first-name"),
        Entry::file("usr/\u{fc}nic\u{f6}de \u{1f980}", b"of many bytes"),
    ] {
        tar.add(&entry);
    }
    tar.gnu_long(b'L', &format!("{dir}{}", "g".repeat(180)));
    tar.add(&Entry::file("cut off", b"named by GNU"));
    tar.gnu_long(b'K', &"t/".repeat(120));
    tar.add(&Entry::symlink("usr/far", "cut off"));
    let layout = scene.image("odd", &[tar.end()]);
    scene.compare(&layout, "odd");
}

#[test]
fn what_a_global_header_says_goes_for_all_that_follow() {
    let scene = Scene::new();
    // What unpacks the twin knows no such headers: there each entry says it.
    let (mut tar, mut twin) = (Tar::default(), Tar::default());
    let said = [("comment", "of a commit"), ("uid", "77"), ("mtime", "1500000000.5")];
    let before = Entry::file("before", b"before").owner(1, 2);
    tar.add(&before);
    twin.add(&before);
    tar.global(&said);
    for entry in [
        Entry::dir("d/"),
        Entry::file("d/after", b"after"),
        Entry::file("d/own", b"own").pax("uid", b"78"),
    ] {
        tar.add(&entry);
        let says_own = entry.pax.iter().any(|(name, _)| name == "uid");
        let entry = if says_own { entry } else { entry.pax("uid", b"77") };
        twin.add(&entry.pax("mtime", b"1500000000.5"));
    }
    let layout = scene.image("global", &[tar.end()]);
    let twin = scene.image("twin", &[twin.end()]);
    let shown = entries::walk(&scene.mount(&layout, "global"));
    let unpacked = entries::walk(&twin.unpacked(&scene.place.path("bundle-twin")));
    let unpacked = entries::but_for_dates_of_unpacking(unpacked, &shown, i64::MAX);
    entries::assert_same(&shown, &unpacked, Holes::Unsaid);
}

#[test]
fn files_with_holes_are_as_long_as_they_say() {
    let scene = Scene::new();
    let tree = scene.place.dir("sparse");
    let file = fs::File::create(tree.join("holes")).unwrap();
    for at in [0_u64, 300_000, 1_000_000, 4_999_999] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", at).unwrap();
    }
    file.set_len(6_000_001).unwrap();
    fs::File::create(tree.join("nothing-but-a-hole")).unwrap().set_len(2_000_000).unwrap();
    for (number, format) in [("0", "pax"), ("1", "pax"), ("2", "gnu")].iter().enumerate() {
        let tar = scene.place.path(&format!("sparse-{number}.tar"));
        let mut command = Command::new("tar");
        command.args(["--create", "--sparse", &format!("--format={}", format.1)]);
        if format.1 == "pax" {
            command.arg(format!("--sparse-version={}.0", format.0));
        }
        command.arg("--file").arg(&tar).arg("--directory").arg(&tree).arg(".");
        assert!(command.status().unwrap().success());
        let name = format!("sparse-{number}");
        let layout = scene.image(&name, &[fs::read(tar).unwrap()]);
        let dir = scene.mount(&layout, &name);
        let (shown, source) = (entries::walk(&dir), entries::walk(&tree));
        for path in ["holes", "nothing-but-a-hole"] {
            let content = |tree: &std::collections::BTreeMap<PathBuf, entries::Seen>| {
                let content = tree[Path::new(path)].content().unwrap();
                (content.length, content.digest)
            };
            assert_eq!(content(&shown), content(&source), "{name} {path}");
        }
    }
}

#[test]
fn a_tar_that_ends_without_its_marks_is_whole() {
    let scene = Scene::new();
    let whole = |entries: &[Entry]| {
        let mut tar = Tar::default();
        entries.iter().for_each(|entry| tar.add(entry));
        tar.cut()
    };
    let base = whole(&[Entry::dir("d/"), Entry::file("d/last", &[7; 70_000])]);
    // Of the last file nothing fills up its record.
    let mut cut = whole(&[Entry::file("short", &[8; 100_001])]);
    cut.truncate(512 + 100_001);
    let layout = scene.image("unmarked", &[base, cut]);
    let dir = scene.mount(&layout, "unmarked");
    assert!(fs::read(dir.join("d/last")).unwrap() == [7; 70_000]);
    assert!(fs::read(dir.join("short")).unwrap() == [8; 100_001]);
    let empty = scene.image("empty", &[Vec::new(), Tar::of(&[])]);
    let dir = scene.mount(&empty, "empty");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

#[test]
fn a_hard_link_may_come_before_what_it_names() {
    let scene = Scene::new();
    let base = Tar::of(&[Entry::file("taken", b"taken")]);
    let over = Tar::of(&[
        Entry::hard_link("early", "late"),
        Entry::hard_link("taken", "late"),
        Entry::hard_link("of-early", "early"),
        Entry::file("late", b"late"),
    ]);
    let layout = scene.image("early", &[base, over]);
    let dir = scene.mount(&layout, "early");
    for name in ["early", "taken", "of-early", "late"] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), b"late", "{name}");
    }
    use std::os::unix::fs::MetadataExt;
    let node = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    assert!(["early", "taken", "of-early"].iter().all(|name| node(name) == node("late")));
}

#[test]
fn an_attribute_without_a_value_is_there() {
    let scene = Scene::new();
    let noted = Entry::file("noted", b"noted").xattr("user.empty", b"");
    let dir = scene.mount(&scene.image("noted", &[Tar::of(&[noted])]), "noted");
    assert_eq!(xattr::get(dir.join("noted"), "user.empty").unwrap(), Some(Vec::new()));
}
