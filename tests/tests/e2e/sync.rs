//! `dfctl sync`: only what changed moves, nothing is lost or deleted by mistake, and a kill costs what was in flight.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use dfs_tests::process::Said;
use dfs_tests::{Body, Bucket, Fault, Origin};

use crate::support::trees::{self, names, noise};
use crate::support::{Agent, Expected, Place, binary, until};

/// What stands at a place, as `Synced` counts it.
pub fn counted(said: &Said, field: &str) -> u64 {
    said.json().unwrap()[field].as_u64().unwrap_or_else(|| panic!("no {field}: {}", said.text()))
}

/// A `dfctl` of nobody's agent, whose data lies in `place`.
pub fn alone(place: &Place) -> Command {
    let mut command = Command::new(binary("dfctl"));
    command.arg("--solo").arg("--data-dir").arg(place.dir("own"));
    command
}

/// Syncs, of nobody's agent.
pub fn sync(place: &Place, words: &[&str]) -> Said {
    Said::by(alone(place).arg("sync").args(words)).unwrap()
}

#[test]
fn a_listing_is_synced_and_synced_again_for_nothing_and_one_change_moves_alone() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    // Before what is in `shared/`, although `shared` is before it.
    trees::put(&source.join("shared-aside"), b"aside");
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let words = ["sync", &origin.url("/"), out.to_str().unwrap(), "--format", "json"];
    let said = agent.dfctl(&words).done();
    trees::assert_same(&out, &source);
    let files = trees::walk(&source).values().filter(|found| found.is_file()).count() as u64;
    assert_eq!((counted(&said, "copied"), counted(&said, "unchanged")), (files, 0));

    origin.reset_counters();
    let inode = fs::metadata(out.join("one")).unwrap().ino();
    let said = agent.dfctl(&words);
    assert_eq!((said.code, counted(&said, "copied")), (9, 0), "{}", said.stderr);
    assert_eq!(origin.counters().body_bytes, 0, "its listing and nothing else");

    let changed = source.join("shared/four.bin");
    trees::put(&changed, &noise(99, 4_000_000));
    // Listings tell seconds: one of the same length is another only if it is of another second.
    let later = SystemTime::now() + Duration::from_secs(3600);
    fs::File::options().write(true).open(&changed).unwrap().set_modified(later).unwrap();
    origin.reset_counters();
    let said = agent.dfctl(&words).done();
    assert_eq!((counted(&said, "copied"), counted(&said, "bytes")), (1, 4_000_000));
    trees::assert_same(&out, &source);
    assert_eq!(fs::metadata(out.join("one")).unwrap().ino(), inode, "the others are as they were");
    let sent = origin.counters().body_bytes;
    assert!((4_000_000..4_200_000).contains(&sent), "{sent}");
}

#[test]
fn a_directory_keeps_links_modes_and_times_and_gives_up_what_the_source_does_not_have() {
    let place = Place::new();
    let (source, out) = (place.dir("source"), place.dir("out"));
    trees::rich(&source);
    fs::create_dir(source.join("empty")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n!");
    trees::put(&source.join(odd), b"odd");
    // What stands there in other shapes.
    trees::put(&out.join("gone/deep/file"), b"x");
    trees::put(&out.join("data"), b"a file where a directory goes");
    fs::create_dir_all(out.join("bin/hello/deep")).unwrap();
    symlink("/etc", out.join("bin/true")).unwrap();
    let (from, to) = (source.to_str().unwrap(), out.to_str().unwrap());

    sync(&place, &["--delete", from, to]).fails(2, "DFS-1109");
    assert!(out.join("gone/deep/file").exists());
    let before = trees::walk(&out);
    let dry = sync(&place, &["--delete", "--dry-run", from, to]).done();
    assert!(trees::walk(&out) == before, "it said what it would do and did nothing");
    for line in [
        "delete             gone/deep/file",
        "delete             gone/",
        "mkdir              empty/",
    ] {
        assert!(dry.text().contains(line), "no '{line}' in\n{}", dry.text());
    }
    sync(&place, &["--delete", "--yes", from, to]).done();
    trees::assert_same(&out, &source);
    for name in ["bin/hello", "data/private", "data/a.bin", "empty"] {
        let of = |root: &Path| {
            let status = fs::metadata(root.join(name)).unwrap();
            (status.permissions().mode(), status.mtime(), status.mtime_nsec())
        };
        assert_eq!(of(&out), of(&source), "{name}");
    }
    assert_eq!(sync(&place, &["--delete", "--yes", from, to]).code, 9);
    // Permissions alone cost no bytes; --checksum sees what length and time do not tell.
    let private = source.join("data/private");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o640)).unwrap();
    let said = sync(&place, &["--format", "json", from, to]).done();
    assert_eq!((counted(&said, "touched"), counted(&said, "copied")), (1, 0));
    let time = fs::metadata(&private).unwrap().modified().unwrap();
    trees::put(&private, b"for the owner 0nly\n");
    fs::File::options().write(true).open(&private).unwrap().set_modified(time).unwrap();
    assert_eq!(sync(&place, &[from, to]).code, 9);
    let said = sync(&place, &["--checksum", "--format", "json", from, to]).done();
    assert_eq!(counted(&said, "copied"), 1);
    trees::assert_same(&out, &source);
}

#[test]
fn nothing_leads_out_of_the_destination_and_neither_place_lies_in_the_other() {
    let place = Place::new();
    let (source, out, outside) = (place.dir("source"), place.dir("out"), place.dir("outside"));
    trees::put(&source.join("dir/file"), b"new");
    trees::put(&source.join("other"), b"fine");
    trees::put(&outside.join("file"), b"not yours");
    symlink(&outside, out.join("dir")).unwrap();
    let (from, to) = (source.to_str().unwrap(), out.to_str().unwrap());
    let said = sync(&place, &[from, to]).fails(8, "DFS-1106");
    assert!(said.stderr.contains("dir"), "{}", said.stderr);
    assert_eq!(fs::read(out.join("other")).unwrap(), b"fine");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"not yours");
    assert_eq!(names(&outside), ["file"]);
    // The link is what the source does not have: it goes, and what it led to stays.
    sync(&place, &["--delete", "-y", from, to]).done();
    trees::assert_same(&out, &source);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"not yours");

    let within = source.join("dir/new");
    sync(&place, &[from, within.to_str().unwrap()]).fails(2, "DFS-1110");
    sync(&place, &[source.join("dir").to_str().unwrap(), from]).fails(2, "DFS-1110");
    sync(&place, &[from, "https://host/dir/"]).fails(1, "DFS-2107");
}

#[test]
fn a_hole_in_the_listing_keeps_everything_from_being_deleted() {
    let place = Place::new();
    let source = place.dir("source");
    for name in ["a", "hidden/b", "c"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 10_000));
    }
    let origin = Origin::of_directory(&source).unwrap();
    let out = place.path("out");
    let words = ["--delete", "--yes", &origin.url("/"), out.to_str().unwrap()];
    sync(&place, &words).done();
    fs::remove_file(source.join("c")).unwrap();
    let closed = origin.inject(Fault::status(403).on("/hidden/"));
    let said = sync(&place, &words).fails(8, "DFS-1108");
    assert!(closed.struck() > 0 && said.stderr.contains("nothing is deleted"), "{}", said.stderr);
    assert!(out.join("hidden/b").exists() && out.join("c").exists());
    closed.lift();
    sync(&place, &words).done();
    trees::assert_same(&out, &source);
    // A source that is empty is more often one that is not there.
    let nothing = place.dir("nothing");
    let said = sync(&place, &["--delete", "-y", nothing.to_str().unwrap(), words[3]]);
    said.fails(8, "DFS-1108");
    assert!(out.join("a").exists());
}

#[test]
fn a_killed_run_is_taken_up_by_the_next() {
    let place = Place::new();
    let (small, large) = (noise(1, 100_000), noise(2, 12 << 20));
    let source = place.dir("source");
    trees::put(&source.join("a"), &small);
    trees::put(&source.join("large"), &large);
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let slow = origin.inject(Fault::pace(4 << 20).on("/large"));
    let running = agent.dfctl_start(&["sync", &origin.url("/"), out.to_str().unwrap()]);
    let part = out.join("large.dfs-part");
    until("a part of the large file is there", || {
        out.join("a").exists()
            && fs::metadata(&part).is_ok_and(|part| part.blocks() * 512 > 2 << 20)
    });
    running.kill();
    assert!(slow.struck() > 0 && !out.join("large").exists());
    slow.lift();
    origin.reset_counters();
    agent.dfctl(&["sync", &origin.url("/"), out.to_str().unwrap()]).done();
    trees::assert_same(&out, &source);
    assert_eq!(names(&out), ["a", "large"], "no part is left");
    assert!(origin.counters().body_bytes < 12 << 20, "what was here was used");
}

#[test]
fn a_bucket_takes_only_what_changed_and_is_asked_for_its_listing_alone() {
    let place = Place::new();
    let store = Bucket::moto(place.root()).unwrap();
    // Any will do here: that signatures are right is shown where stores check them.
    takes_only_what_changed(&place, &store, ["any", "any"]);
}

#[test]
fn garage_takes_only_what_changed_and_is_asked_for_its_listing_alone() {
    let place = Place::new();
    let store = Bucket::garage(place.root()).unwrap();
    let keys = store.lock().unwrap();
    takes_only_what_changed(&place, &store, [&keys.id, &keys.secret]);
}

fn takes_only_what_changed(place: &Place, store: &Bucket, [id, secret]: [&str; 2]) {
    let source = place.dir("source");
    for name in ["a", "a-b", "sub/c", "sub/d e"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 30_000));
    }
    trees::put(&source.join("large"), &noise(9, 9 << 20));
    symlink("a", source.join("link")).unwrap();
    let to = store.url("copy/");
    let run = |words: &[&str]| {
        let mut command = alone(place);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        Said::by(command.arg("sync").args(words)).unwrap()
    };
    let from = source.to_str().unwrap();
    let said = run(&["--format", "json", from, &to]).done();
    assert_eq!((counted(&said, "copied"), counted(&said, "left_out")), (5, 1));
    assert!(said.stderr.contains("1 symbolic link"), "{}", said.stderr);
    let puts = store.requests("PUT /lab/copy/");

    let said = run(&["--delete", "--yes", "--format", "json", from, &to]);
    assert_eq!((said.code, counted(&said, "unchanged")), (9, 5), "{}", said.stderr);
    assert_eq!((store.requests("PUT /lab/copy/"), store.requests("HEAD ")), (puts, 0));

    // Of the same length, and older than the upload.
    let changed = source.join("sub/c");
    trees::put(&changed, &noise(77, 30_000));
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&changed).unwrap().set_modified(old).unwrap();
    fs::remove_file(source.join("a-b")).unwrap();
    assert_eq!(counted(&run(&["--format", "json", from, &to]).done(), "copied"), 1);
    assert_eq!(store.requests("PUT /lab/copy/"), puts + 1);
    assert_eq!(store.requests("DELETE "), 0);
    let said = run(&["--delete", "-y", "--format", "json", from, &to]).done();
    assert_eq!((counted(&said, "copied"), counted(&said, "deleted")), (0, 1));
    assert_eq!(store.requests("DELETE /lab/copy/a-b"), 1);

    // Another machine remembers nothing: it asks the store for the times it was told.
    fs::remove_dir_all(place.path("own/sync")).unwrap();
    let heads = store.requests("HEAD ");
    assert_eq!(run(&[from, &to]).code, 9);
    assert_eq!(store.requests("HEAD ") - heads, 4);

    let back = place.path("back");
    run(&[&to, back.to_str().unwrap()]).done();
    fs::remove_file(source.join("link")).unwrap();
    trees::assert_same(&back, &source);
}

#[test]
fn a_file_that_changes_under_the_run_is_named_and_the_others_are_there() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let source = place.dir("source");
    trees::put(&source.join("steady"), &noise(1, 50_000));
    origin.show("/", &source);
    origin.put("/moving", Body::bytes(noise(2, 6 << 20)));
    trees::put(&source.join("moving"), &noise(2, 6 << 20));
    let held = origin.inject(Fault::gate().on("/moving").method("GET"));
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let running = agent.dfctl_start(&["sync", &origin.url("/"), out.to_str().unwrap()]);
    held.wait_struck(1).unwrap();
    origin.put("/moving", Body::bytes(noise(3, 6 << 20)));
    held.lift();
    let said = running.wait().fails(8, "DFS-1108");
    assert!(said.stderr.contains("moving"), "{}", said.stderr);
    assert_eq!(fs::read(out.join("steady")).unwrap(), noise(1, 50_000));
    assert!(!out.join("moving").exists());
}
