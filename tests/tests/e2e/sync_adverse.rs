//! `dfctl sync` where things go wrong: kills, full and closed disks, names that lead elsewhere, what others do
//! meanwhile.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Body, Bucket, Fault, Mount, Origin};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::support::trees::{self, names, noise};
use crate::support::{Expected, Place, Running, Tmpfs, as_nobody, binary, typed_at, until};
use crate::sync::{alone, counted, sync};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The time of what stands at `path` itself.
fn time(path: &Path) -> (i64, i64) {
    let status = fs::symlink_metadata(path).unwrap();
    (status.mtime(), status.mtime_nsec())
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn links_keep_their_own_times_also_where_they_replace_something() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.dir("out"));
    for (number, name) in ["link", "other", "file"].iter().enumerate() {
        symlink(format!("nowhere {name}"), source.join(name)).unwrap();
        set_time(&source.join(name), 1_000_000_000 + number as i64, 7);
    }
    // What stands there already: another link, a file.
    symlink("elsewhere", out.join("other")).unwrap();
    trees::put(&out.join("file"), b"a file");
    let words = ["--format", "json", text(&source), text(&out)];
    let said = sync(&place, &words).done();
    assert_eq!(said.json().unwrap()["links"], 3);
    trees::assert_same(&out, &source);
    for name in ["link", "other", "file"] {
        assert_eq!(time(&out.join(name)), time(&source.join(name)), "{name}");
    }
    assert_eq!(sync(&place, &words).code, 9);
    set_time(&source.join("link"), 5, 5);
    assert_eq!(counted(&sync(&place, &words).done(), "touched"), 1);
    assert_eq!(time(&out.join("link")), (5, 5));
    assert_eq!(sync(&place, &words).code, 9);
}

#[test]
fn a_change_below_a_second_is_seen_where_both_sides_keep_it() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.dir("out"));
    let words = ["--format", "json", text(&source), text(&out)];
    let file = source.join("file");
    // The first has nothing below the second, as if the destination kept none.
    for (nanos, bytes) in [(0, b"one"), (1, b"two"), (500_000_000, b"six")] {
        trees::put(&file, bytes);
        set_time(&file, 1_700_000_000, nanos);
        assert_eq!(counted(&sync(&place, &words).done(), "copied"), 1, "{nanos}");
        assert_eq!(fs::read(out.join("file")).unwrap(), bytes);
        assert_eq!(sync(&place, &words).code, 9);
    }
    // What has the same time and length is the same, but for who reads it.
    trees::put(&file, b"ten");
    set_time(&file, 1_700_000_000, 500_000_000);
    assert_eq!(sync(&place, &words).code, 9);
    assert_eq!(counted(&sync(&place, &[&["--checksum"], &words[..]].concat()).done(), "copied"), 1);
    assert_eq!(fs::read(out.join("file")).unwrap(), b"ten");
}

#[test]
fn part_files_are_nobodys_content_and_stale_ones_go_with_what_is_deleted() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.path("out"));
    let large = noise(1, 12 << 20);
    trees::put(&source.join("large"), &large);
    let origin = Origin::of_directory(&source).unwrap();
    let from = origin.url("/");
    let slow = origin.inject(Fault::pace(4 << 20).on("/large"));
    let mut command = alone(&place);
    command.arg("sync").args([&from[..], text(&out)]);
    let running = Running::start(command);
    let part = out.join("large.dfs-part");
    until("a part of it is there", || {
        fs::metadata(&part).is_ok_and(|part| part.blocks() * 512 > 2 << 20)
    });
    running.kill();
    assert!(slow.struck() > 0);
    slow.lift();
    // Of files that the source does not have.
    trees::put(&out.join("gone.dfs-part"), b"stale");
    trees::put(&out.join("dir/deep.dfs-part.77"), b"stale draft");
    trees::put(&source.join("here"), b"here");

    let dry = sync(&place, &["--delete", "--dry-run", &from, text(&out)]).done().text();
    for stale in ["gone.dfs-part", "dir/deep.dfs-part.77"] {
        assert!(dry.contains(&format!("delete             {stale}\n")), "{dry}");
    }
    assert!(!dry.contains("large.dfs-part"), "it is taken up: {dry}");
    // Onwards goes only what is whole.
    let on = place.path("on");
    let said = sync(&place, &[text(&out), text(&on)]);
    assert!(said.stderr.contains("3 part files of unfinished transfers"), "{}", said.stderr);
    assert!(names(&on).iter().all(|name| !name.contains("part")), "{:?}", names(&on));

    sync(&place, &[&from, text(&out)]).done();
    assert_eq!(fs::read(out.join("large")).unwrap(), large);
    assert!(out.join("gone.dfs-part").exists(), "nothing is deleted unasked");
    // Of a file that is there as it should be; and one that somebody writes, which is theirs.
    trees::put(&out.join("here.dfs-part"), b"stale");
    let held = File::create(out.join("busy.dfs-part")).unwrap();
    held.lock().unwrap();
    sync(&place, &["--delete", "--yes", &from, text(&out)]).done();
    assert_eq!(names(&out), ["busy.dfs-part", "here", "large"]);
    drop(held);
    sync(&place, &["--delete", "--yes", &from, text(&out)]).done();
    trees::assert_same(&out, &source);
}

#[test]
fn what_a_transfer_left_in_the_source_is_named_and_deletes_nothing() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.dir("out"));
    for name in ["both.dfs-part", "draft.dfs-part.7", "file"] {
        trees::put(&source.join(name), name.as_bytes());
    }
    trees::put(&out.join("both.dfs-part"), b"of another transfer");
    trees::put(&out.join("stale.dfs-part"), b"stale");
    // Where a link goes now, a file was on its way.
    trees::put(&out.join("link.dfs-part"), b"of a file");
    symlink("elsewhere", out.join("link")).unwrap();
    symlink("file", source.join("link")).unwrap();
    let said = sync(&place, &["--delete", "--yes", text(&source), text(&out)]).done();
    assert!(said.stderr.contains("2 part files of unfinished transfers"), "{}", said.stderr);
    assert_eq!(names(&out), ["both.dfs-part", "file", "link"]);
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("file"));
}

#[test]
fn an_upload_that_a_kill_cut_off_is_never_seen_and_is_taken_back() {
    let place = Place::new();
    let large = noise(1, 64 << 20);
    let origin = Origin::of("/d/large", Body::bytes(large.clone())).unwrap();
    let store = Bucket::moto(place.root()).unwrap();
    let run = |words: &[&str]| {
        let mut command = alone(&place);
        command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any");
        command.arg("sync").args(words);
        command
    };
    let (from, to) = (origin.url("/d/"), store.url("copy/"));
    let slow = origin.inject(Fault::pace(4 << 20).on("/d/large"));
    let parts = "PUT /lab/copy/large?partNumber=";
    let running = Running::start(run(&[&from, &to]));
    until("two parts are there", || store.requests(parts) >= 2);
    assert_eq!(store.unfinished().unwrap(), 1);
    // While it lives it is nobody else's: this one copies something else to the same place.
    let aside = place.dir("aside");
    trees::put(&aside.join("small"), b"small");
    Said::by(&mut run(&[text(&aside), &to])).unwrap().done();
    assert_eq!(store.unfinished().unwrap(), 1);
    running.kill();
    assert!(slow.struck() > 0 && store.keys().unwrap() == ["copy/small"], "nothing half");
    slow.lift();

    // Another place is not looked into, and a dry run does nothing.
    Said::by(&mut run(&[text(&aside), &store.url("else/")])).unwrap().done();
    Said::by(&mut run(&["--dry-run", &from, &to])).unwrap().done();
    assert_eq!(store.unfinished().unwrap(), 1);
    let said = Said::by(&mut run(&[&from, &to])).unwrap().done();
    assert!(said.stderr.contains("took back 1 upload"), "{}", said.stderr);
    assert_eq!(store.unfinished().unwrap(), 0);
    let back = place.path("back");
    Said::by(&mut run(&[&to, text(&back)])).unwrap().done();
    assert!(fs::read(back.join("large")).unwrap() == large);
    let said = Said::by(&mut run(&[&from, &to])).unwrap();
    assert!(said.code == 9 && !said.stderr.contains("took back"), "{}", said.stderr);
}

#[test]
fn patterns_say_what_is_anybodys_business_on_both_sides() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.path("out"));
    for name in
        ["a.txt", "a.log", "cache/deep/c.txt", "d/cache", "d/e.txt", "d/e/f.txt", "d/e/g.log"]
    {
        trees::put(&source.join(name), name.as_bytes());
    }
    let synced = |words: &[&str]| {
        let _ = fs::remove_dir_all(&out);
        sync(&place, &[words, &[text(&source), text(&out)]].concat()).done();
        let walked = trees::walk(&out).into_iter().filter(|(_, found)| found.is_file());
        let mut files: Vec<_> = walked.map(|(path, _)| text(&path).to_owned()).collect();
        files.sort();
        files
    };
    // A name anywhere; the exclusion wins, also over what lies below it.
    let left = synced(&["--exclude", "cache", "--exclude", "*.log"]);
    assert_eq!(left, ["a.txt", "d/e.txt", "d/e/f.txt"]);
    assert_eq!(synced(&["--include", "*.txt", "--exclude", "/cache"]).len(), 3);
    assert_eq!(synced(&["--include", "*.log", "--exclude", "g.*"]), ["a.log"]);
    // Whole paths, one level or any.
    assert_eq!(synced(&["--include", "d/*.txt"]), ["d/e.txt"]);
    assert_eq!(synced(&["--include", "d/**/*.txt"]).len(), 2);
    assert_eq!(synced(&["--include", "/cache/"]), ["cache/deep/c.txt"]);
    assert_eq!(synced(&["--exclude", "d/**"]).len(), 3);
    sync(&place, &["--include", "a[", text(&source), text(&out)]).fails(2, "DFS-1001");

    // What is excluded stays where it is, whatever it is; so does what no --include names.
    for name in ["cache/own", "x/cache/own", "old.log", "x/old.txt"] {
        trees::put(&out.join(name), b"mine");
    }
    let words = ["--delete", "--yes", "--exclude", "cache", "--exclude", "*.log"];
    sync(&place, &[&words, &[text(&source), text(&out)][..]].concat()).done();
    assert!(out.join("cache/own").exists() && out.join("x/cache/own").exists());
    assert!(out.join("old.log").exists() && !out.join("x/old.txt").exists());
    trees::put(&out.join("x/old.txt"), b"mine");
    trees::put(&out.join("x/old.bin"), b"mine");
    let words = ["--delete", "--yes", "--include", "*.txt"];
    sync(&place, &[&words, &[text(&source), text(&out)][..]].concat()).done();
    assert!(!out.join("x/old.txt").exists() && out.join("x/old.bin").exists());
}

#[test]
fn what_stays_because_it_is_excluded_is_told_where_it_is_in_the_way() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.dir("out"));
    trees::put(&source.join("d"), b"a file");
    trees::put(&out.join("d/keep.log"), b"mine");
    let said = sync(&place, &[text(&source), text(&out)]).fails(8, "DFS-1108");
    assert!(said.stderr.contains("a directory has the name"), "{}", said.stderr);
    let words = ["--delete", "--yes", "--exclude", "*.log", text(&source), text(&out)];
    let said = sync(&place, &words).fails(8, "DFS-1108");
    assert!(said.stderr.contains("a directory has the name"), "{}", said.stderr);
    assert_eq!(fs::read(out.join("d/keep.log")).unwrap(), b"mine");
}

#[test]
fn what_is_to_be_deleted_is_asked_for_at_a_terminal_and_nowhere_else() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.dir("out"));
    trees::put(&source.join("new"), b"new");
    for number in 0..7 {
        trees::put(&out.join(format!("old {number}")), b"old");
    }
    let said = sync(&place, &["--delete", text(&source), text(&out)]).fails(2, "DFS-1109");
    for told in ["nobody is there to be asked", text(&out), "--yes", "--dry-run"] {
        assert!(said.stderr.contains(told), "no '{told}' in {}", said.stderr);
    }
    assert!(!out.join("new").exists(), "nothing was done");
    let line = format!(
        "{} --solo --data-dir {} sync --delete {} {}; echo ended with $?",
        binary("dfctl").display(),
        place.dir("own").display(),
        source.display(),
        out.display()
    );
    let nobody = place.path("no.sock");
    let no = typed_at(&line, &nobody, &["n"]);
    let asked = format!("delete 7 entries of {}/? [y/N]", out.display());
    for told in ["  delete  old 0", "… and 2 more", &asked, "nothing was done", "ended with 9"] {
        assert!(no.contains(told), "no '{told}' in {no}");
    }
    assert!(out.join("old 0").exists() && !out.join("new").exists());
    let yes = typed_at(&line, &nobody, &["yes"]);
    assert!(yes.contains("7 deleted") && yes.contains("ended with 0"), "{yes}");
    trees::assert_same(&out, &source);
    // Where nothing is to be deleted nobody is asked anything.
    let unasked = typed_at(&line, &nobody, &[]);
    assert!(unasked.contains("ended with 9") && !unasked.contains("[y/N]"), "{unasked}");
}

#[test]
fn the_destination_is_the_one_that_was_named() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("file"), b"new");
    let precious = place.dir("out");
    trees::put(&precious.join("precious"), b"precious");
    // A new directory, with a name that inside a URL would mean another.
    for name in ["out!new", "out?new", "out#new", "out%2Fnew", "out\n!"] {
        let to = place.path(name);
        sync(&place, &["--delete", "--yes", text(&source), text(&to)]).done();
        trees::assert_same(&to, &source);
    }
    assert_eq!(names(&precious), ["precious"]);
    // Behind a link, `..` is above where it leads, as for every other program.
    fs::create_dir_all(place.path("real/deep")).unwrap();
    symlink("real/deep", place.path("link")).unwrap();
    let to = place.path("link/../out");
    sync(&place, &["--delete", "--yes", text(&source), text(&to)]).done();
    trees::assert_same(&place.path("real/out"), &source);
    assert_eq!(names(&precious), ["precious"]);
    // Relative to a directory whose name is no text.
    let here = place.root().join(OsStr::from_bytes(b"\xff"));
    trees::put(&here.join("from/file"), b"new");
    let run = Said::by(alone(&place).current_dir(&here).args(["sync", "from", "to"])).unwrap();
    run.done();
    trees::assert_same(&here.join("to"), &here.join("from"));
}

fn bind(from: &Path, to: &Path) -> Mount {
    let mount = Mount::guard(to);
    let bound = Command::new("mount").arg("--bind").args([from, to]).status().unwrap();
    assert!(bound.success());
    mount
}

#[test]
fn a_mount_hides_from_nobody_that_one_place_lies_in_the_other() {
    let place = Place::new();
    let (source, bound) = (place.dir("source"), place.dir("bound"));
    trees::put(&source.join("sub/file"), b"file");
    let _mount = bind(&source.join("sub"), &bound);
    let new = bound.join("new");
    for (from, to) in [(&source, &bound), (&source, &new), (&bound, &source)] {
        sync(&place, &["--delete", "--yes", text(from), text(to)]).fails(2, "DFS-1110");
    }
    assert_eq!(names(&source.join("sub")), ["file"]);
    // The destination is seen in the source.
    let (other, out) = (place.dir("other"), place.dir("out"));
    fs::create_dir(other.join("seen")).unwrap();
    let _seen = bind(&out, &other.join("seen"));
    sync(&place, &[text(&other), text(&out)]).fails(2, "DFS-1110");
    sync(&place, &[text(&out), text(&other)]).fails(2, "DFS-1110");
    // What is bound beside them is nobody's business.
    sync(&place, &[text(&bound), text(&out)]).done();
    trees::assert_same(&out, &source.join("sub"));
}

#[test]
fn a_disk_that_is_closed_or_full_is_told_once_and_what_is_there_stays() {
    let place = Place::new();
    let source = place.dir("source");
    for number in 0..20 {
        trees::put(&source.join(number.to_string()), &noise(number, 200_000));
    }
    let disk = Tmpfs::mount(place.dir("disk"), 2 << 20);
    let out = disk.path().join("out");
    let words = [text(&source), text(&out)];
    let said = sync(&place, &words).fails(7, "DFS-1104");
    assert!(said.stderr.matches("error:").count() == 1, "{}", said.stderr);
    assert!(said.stderr.contains("make room there"), "{}", said.stderr);
    let whole = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.ends_with(".dfs-part")
            || fs::read(path).unwrap() == fs::read(source.join(name)).unwrap()
    };
    let there = || fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    assert!(there().count() > 1 && there().all(|path| whole(&path)));
    disk.resize(16 << 20);
    sync(&place, &words).done();
    trees::assert_same(&out, &source);

    fs::remove_file(source.join("7")).unwrap();
    trees::put(&source.join("new"), b"new");
    trees::put(&source.join("newer"), b"newer");
    let closed = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status();
    assert!(closed.unwrap().success());
    let said = sync(&place, &[&["--delete", "--yes"], &words[..]].concat()).fails(4, "DFS-1103");
    assert!(said.stderr.matches("error:").count() == 1, "{}", said.stderr);
    assert!(out.join("7").exists());
    // Where there is nothing to do it may be closed.
    let same = place.dir("same");
    sync(&place, &[text(&out), text(&same)]).done();
    sync(&place, &[text(&same), text(&out)]).exits(9);
}

#[test]
fn what_is_no_file_or_may_not_be_read_is_named_and_hinders_nothing_else() {
    let place = Place::new();
    place.open_to_others();
    let (source, out) = (place.dir("source"), place.dir("out"));
    let own = place.dir("own of nobody");
    trees::put(&source.join("fine"), b"fine");
    trees::put(&source.join("closed/file"), b"x");
    trees::put(&source.join("secret"), b"secret");
    let long = "x".repeat(255);
    trees::put(&source.join(&long), b"long");
    let made = Command::new("mkfifo").arg(source.join("pipe\nof mine")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    for (name, mode) in [("closed", 0o000), ("secret", 0o000)] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for dir in [&source, &out, &own] {
        std::os::unix::fs::chown(dir, Some(65534), Some(65534)).unwrap();
    }
    let run = || {
        let mut command = as_nobody(&binary("dfctl"));
        command.arg("--solo").arg("--data-dir").arg(&own).arg("sync");
        Said::by(command.args(["--delete", "--yes", text(&source), text(&out)])).unwrap()
    };
    trees::put(&out.join("old"), b"old");
    let said = run().fails(8, "DFS-1108");
    for name in ["closed", "secret", "pipe\\nof mine", "socket"] {
        assert!(said.stderr.contains(name), "no {name} in {}", said.stderr);
    }
    assert_eq!(fs::read(out.join("fine")).unwrap(), b"fine");
    assert_eq!(fs::read(out.join(&long)).unwrap(), b"long");
    assert!(out.join("old").exists(), "nothing is deleted while something is not known");
    // A copy that may not be read any more gets its permissions back.
    fs::set_permissions(out.join("fine"), fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::chown(out.join("fine"), Some(65534), Some(65534)).unwrap();
    run().fails(8, "DFS-1108");
    assert_eq!(fs::metadata(out.join("fine")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn two_at_once_into_one_place_leave_it_whole() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.path("out"));
    for number in 0..300 {
        trees::put(&source.join(format!("{}/{number}", number % 7)), &noise(number, 20_000));
    }
    symlink("0/0", source.join("link")).unwrap();
    let start = || {
        let mut command = alone(&place);
        command.args(["sync", "--delete", "--yes", text(&source), text(&out)]);
        Running::start(command)
    };
    let runs = [start(), start(), start()];
    for run in runs {
        let said = run.wait();
        assert!([0, 8, 9].contains(&said.code), "{}: {}", said.code, said.stderr);
        assert!(!said.stderr.contains("panic"), "{}", said.stderr);
    }
    // Whoever came second to a name said so, and the next finds nothing half-done.
    let said = sync(&place, &["--delete", "--yes", text(&source), text(&out)]);
    assert!([0, 9].contains(&said.code), "{}", said.stderr);
    trees::assert_same(&out, &source);
}

#[test]
fn a_link_swapped_in_during_the_run_leads_nobody_out() {
    let place = Place::new();
    let source = place.dir("source");
    let (out, outside) = (place.dir("out"), place.dir("outside"));
    let origin = Origin::start().unwrap();
    for name in ["a", "dir/held", "dir/z"] {
        trees::put(&source.join(name), name.as_bytes());
    }
    origin.show("/", &source);
    let held = origin.inject(Fault::gate().on("/dir/held").method("GET"));
    let mut command = alone(&place);
    command.args(["sync", &origin.url("/"), text(&out)]);
    let running = Running::start(command);
    held.wait_struck(1).unwrap();
    until("the directory is there", || out.join("dir").exists());
    fs::rename(out.join("dir"), out.join("away")).unwrap();
    symlink(&outside, out.join("dir")).unwrap();
    held.lift();
    let said = running.wait();
    assert!([0, 8].contains(&said.code), "{}", said.stderr);
    assert_eq!(names(&outside), [""; 0], "{}", said.stderr);
}

#[test]
fn a_file_that_grows_or_goes_during_the_run_is_named_and_taken_by_the_next() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.path("out"));
    let origin = Origin::start().unwrap();
    for name in ["goes", "grows", "stays"] {
        trees::put(&source.join(name), &noise(1, 100_000));
    }
    origin.show("/", &source);
    let words = ["sync", &origin.url("/"), text(&out)];
    let gates = ["/goes", "/grows"].map(|path| origin.inject(Fault::gate().on(path).method("GET")));
    let mut command = alone(&place);
    command.args(words);
    let running = Running::start(command);
    // They were listed as they are.
    gates.iter().for_each(|gate| gate.wait_struck(1).unwrap());
    let grown = File::options().write(true).open(source.join("grows")).unwrap();
    grown.write_all_at(b"more", 100_000).unwrap();
    fs::remove_file(source.join("goes")).unwrap();
    gates.iter().for_each(|gate| gate.lift());
    let said = running.wait().fails(8, "DFS-1108");
    assert!(said.stderr.contains("goes") && said.stderr.contains("grows"), "{}", said.stderr);
    assert_eq!(names(&out), ["stays"]);
    sync(&place, &words[1..]).done();
    trees::assert_same(&out, &source);
}

#[test]
fn twenty_thousand_files_are_synced_and_looked_at_again() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.path("out"));
    for number in 0..20_000 {
        fs::write(source.join(number.to_string()), b"").unwrap();
    }
    let words = ["--format", "json", text(&source), text(&out)];
    assert_eq!(counted(&sync(&place, &words).done(), "copied"), 20_000);
    let said = sync(&place, &words);
    assert_eq!((said.code, counted(&said, "unchanged")), (9, 20_000));
}
