//! Mounts that follow their target: they switch whole, and whoever has something open keeps what it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dfs_tests::process::{FreeAddress, Said};
use dfs_tests::{Body, Bucket, Cluster, Fault, Mount, Origin};
use rustix::fs::{Advice, Mode, OFlags, fadvise};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use crate::full::on_disk;
use crate::support::own::{Of, Own, running};
use crate::support::readers::Ends;
use crate::support::trees::noise;
use crate::support::{Agent, Expected, Place, all, binaries, dfctl_at, until};
use crate::survival::{Holder, map};

const MIB: u64 = 1 << 20;

/// Seldom enough that no test sees a look that it has not asked for.
const SELDOM: &str = "--follow=1d";

fn follow(agent: &Agent, how: &str, url: &str, dir: PathBuf) -> PathBuf {
    agent.guard(&dir);
    agent.dfctl(&["mount", how, url, dir.to_str().unwrap()]).done();
    dir
}

/// Whether the mount shows another version by that.
fn refresh(agent: &Agent, dir: &Path) -> bool {
    let said = agent.dfctl(&["mounts", "--refresh", dir.to_str().unwrap(), "--format", "json"]);
    said.done().json().unwrap()["switched"].as_bool().unwrap()
}

fn followed(agent: &Agent, dir: &Path) -> serde_json::Value {
    let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let mounts = listed["items"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["dir"] == dir.to_str().unwrap());
    mount.unwrap()["follow"].clone()
}

/// What the agent answers now, and not what the kernel remembers.
fn read_anew(file: &File) -> io::Result<Vec<u8>> {
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn put(origin: &Origin, path: &str, text: &str) {
    origin.put(path, Body::bytes(text.as_bytes().to_vec()));
}

/// A directory of files that change, and of files that do not.
fn origin() -> (Origin, Vec<u8>) {
    let origin = Origin::start().unwrap();
    let kept = Body::noise(7, 9 * MIB + 3);
    let bytes = all(&kept);
    origin.put("/d/kept", kept);
    for name in ["a", "pair/a", "pair/b", "pair/deep/er/c"] {
        put(&origin, &format!("/d/{name}"), "first");
    }
    put(&origin, "/d/gone/away", "first");
    put(&origin, "/d/pair/same", "the same");
    for number in 0..300 {
        put(&origin, &format!("/d/many/{number:03}"), "one of many");
    }
    (origin, bytes)
}

fn change(origin: &Origin) {
    for name in ["a", "pair/a", "pair/b", "pair/deep/er/c"] {
        put(origin, &format!("/d/{name}"), "and the second");
    }
    put(origin, "/d/pair/new", "new");
    put(origin, "/d/many/new", "new");
    origin.remove("/d/gone/away");
}

#[test]
fn a_mount_switches_whole_and_whoever_has_something_open_keeps_it() {
    let place = Place::new();
    let (origin, kept) = origin();
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    let file = |name: &str| File::open(dir.join(name)).unwrap();
    // All of it is here, and known to the kernel.
    assert!(fs::read(dir.join("kept")).unwrap() == kept);
    for name in ["a", "pair/a", "pair/b", "pair/deep/er/c", "gone/away"] {
        assert_eq!(text(&dir.join(name)), "first");
    }
    assert_eq!(text(&dir.join("pair/same")), "the same");
    for name in ["pair/new", "many/new", "other"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    names(&dir.join("many")).iter().for_each(|name| drop(text(&dir.join("many").join(name))));
    let before = ["kept", "pair", "pair/same", "pair/a"].map(|name| ino(&dir.join(name)));
    let open = ["a", "pair/a", "pair/deep/er/c", "kept"].map(file);
    let mapped = map(&dir.join("pair/b"));
    let mut listing = fs::read_dir(dir.join("many")).unwrap();
    let mut listed: BTreeSet<_> =
        listing.by_ref().take(10).map(|e| e.unwrap().file_name()).collect();

    change(&origin);
    assert_eq!(text(&dir.join("a")), "first", "nobody has looked");
    origin.reset_counters();
    assert!(refresh(&agent, &dir), "it shows another version");
    assert!(!refresh(&agent, &dir), "and no other one");
    // The kernel has the pages of what is the same.
    let asked = agent.metric("dfs_node_read_bytes_total");
    assert!(fs::read(dir.join("kept")).unwrap() == kept);
    assert_eq!(agent.metric("dfs_node_read_bytes_total"), asked);

    for name in ["a", "pair/a", "pair/b", "pair/deep/er/c"] {
        assert_eq!(text(&dir.join(name)), "and the second", "{name}");
    }
    assert_eq!([text(&dir.join("pair/new")), text(&dir.join("many/new"))], ["new", "new"]);
    assert!(fs::metadata(dir.join("gone")).is_err(), "nothing is in it any more");
    assert_eq!(
        names(&dir.join("pair")),
        ["a", "b", "deep", "new", "same"].map(String::from).into()
    );
    // What is open is what it was, from the agent too.
    for file in &open[..3] {
        assert_eq!(read_anew(file).unwrap(), b"first");
    }
    assert_eq!(mapped[..], b"first"[..]);
    listed.extend(listing.map(|entry| entry.unwrap().file_name()));
    assert_eq!(listed.len(), 300, "a listing that was begun is of what it began with");
    assert!(!listed.contains(std::ffi::OsStr::new("new")));
    // What is the same is the same inode, and came once.
    let after = ["kept", "pair", "pair/same", "pair/a"].map(|name| ino(&dir.join(name)));
    assert_eq!(after[..3], before[..3]);
    assert_ne!(after[3], before[3]);
    assert!(read_anew(&open[3]).unwrap() == kept);
    let counters = origin.counters();
    assert_eq!(counters.paths["/d/kept"].body_bytes, 0);
    let state = followed(&agent, &dir);
    assert_eq!((&state["switches"], &state["earlier_versions"]), (&1.into(), &1.into()), "{state}");
    assert_eq!(agent.metric("dfs_node_follow_switches_total"), 1);
    let shown = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let from_origin = shown["items"][0]["ledger"]["source"].as_u64().unwrap();
    assert!(from_origin >= kept.len() as u64, "{shown}: it is counted since it was mounted");
    // Who closes it lets it go.
    drop((open, mapped));
    until("the earlier version is let go", || followed(&agent, &dir)["earlier_versions"] == 0);
}

fn ino(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn whoever_walks_while_a_mount_switches_never_sees_an_earlier_version_after_a_later_one() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let show = |version: u64| {
        for name in ["a", "b", "in/a", "in/deep/b"] {
            put(&origin, &format!("/d/{name}"), &format!("{version:06}"));
        }
    };
    show(0);
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    let read = |name: &str| text(&dir.join(name)).parse::<u64>().unwrap();
    let all = || ["a", "b", "in/a", "in/deep/b"].map(read);
    all();
    let (over, walks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for order in [["a", "b"], ["b", "a"], ["in/a", "in/deep/b"], ["in/deep/b", "a"]] {
            let (over, walks, read) = (&over, &walks, &read);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let [first, then] = order.map(read);
                    assert!(first <= then, "{order:?}: {first}, then {then}");
                    walks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _over = Ends(&over);
        for version in 1..=20 {
            // Of an earlier version nothing is missing, so nobody finds out that it is gone.
            show(version);
            assert!(refresh(&agent, &dir));
            assert_eq!(all(), [version; 4]);
            let before = walks.load(Ordering::Relaxed);
            until("walks go on", || walks.load(Ordering::Relaxed) > before + 20);
        }
    });
}

#[test]
fn a_mount_looks_by_itself_and_again_after_its_origin_failed() {
    let place = Place::new();
    let (origin, _) = origin();
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, "--follow=1s", &origin.url("/d/"), place.dir("mount"));
    assert_eq!(text(&dir.join("a")), "first");
    change(&origin);
    until("the mount follows", || text(&dir.join("a")) == "and the second");
    let down = origin.inject(Fault::status(503).on("/d/"));
    until("it is said", || followed(&agent, &dir)["failed"].is_string());
    let state = followed(&agent, &dir);
    assert!(state["failing_since"].is_string(), "{state}");
    assert!(state["failed"].as_str().unwrap().contains("503"), "{state}");
    assert!(down.struck() > 0 && agent.metric("dfs_node_follow_failures_total") > 0);
    assert_eq!(text(&dir.join("a")), "and the second", "it goes on with what it has");
    let said = agent.dfctl(&["mounts", "--refresh", dir.to_str().unwrap()]).exits(5);
    assert!(said.stderr.contains("503"), "{}", said.stderr);
    down.lift();
    put(&origin, "/d/a", "third");
    until("it looks again", || text(&dir.join("a")) == "third");
    assert!(followed(&agent, &dir)["failed"].is_null());
}

#[test]
fn whoever_reads_what_is_gone_at_the_origin_has_the_mount_look_at_once() {
    let place = Place::new();
    let (origin, _) = origin();
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    origin.put("/d/kept", Body::noise(8, 9 * MIB));
    assert!(fs::read(dir.join("kept")).is_err(), "that version cannot be had any more");
    until("it is the next one", || {
        fs::read(dir.join("kept")).is_ok_and(|b| b.len() as u64 == 9 * MIB)
    });
}

/// A mount that follows, of an agent whose mounts somebody keeps.
struct Kept {
    agent: Agent,
    dir: PathBuf,
    origin: Origin,
    /// What is in the file of this name.
    kept: Vec<u8>,
    _holder: Holder,
    _place: Place,
}

impl Kept {
    /// One of which that file and these have been read.
    fn with(read: &[&str]) -> Self {
        let place = Place::new();
        let (origin, kept) = origin();
        let holder = Holder::start(&place, 300);
        let agent = holder.agent(&place);
        let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
        assert!(fs::read(dir.join("kept")).unwrap() == kept);
        for name in read {
            text(&dir.join(name));
        }
        Self { agent, dir, origin, kept, _holder: holder, _place: place }
    }
}

#[test]
fn the_next_agent_answers_for_both_versions_and_goes_on_following() {
    let Kept { _place, _holder, kept, origin, dir, mut agent } =
        Kept::with(&["a", "pair/a", "pair/b", "pair/same", "gone/away"]);
    let open = ["a", "pair/a", "gone/away"].map(|name| File::open(dir.join(name)).unwrap());
    let same = ["kept", "pair/same"].map(|name| File::open(dir.join(name)).unwrap());
    let mapped = map(&dir.join("pair/b"));
    change(&origin);
    assert!(refresh(&agent, &dir));
    let second = File::open(dir.join("a")).unwrap();
    assert_eq!(text(&dir.join("pair/a")), "and the second");

    let check = || {
        for file in &open {
            assert_eq!(read_anew(file).unwrap(), b"first");
        }
        assert!(read_anew(&same[0]).unwrap() == kept);
        assert_eq!(read_anew(&same[1]).unwrap(), b"the same");
        assert_eq!(read_anew(&second).unwrap(), b"and the second");
        assert_eq!(mapped[..], b"first"[..]);
    };
    agent.kill();
    agent.start_again();
    check();
    assert_eq!(text(&dir.join("a")), "and the second");
    assert_eq!(text(&dir.join("pair/new")), "new");
    assert!(fs::metadata(dir.join("gone")).is_err());
    let state = followed(&agent, &dir);
    assert_eq!((&state["switches"], &state["earlier_versions"]), (&1.into(), &1.into()), "{state}");

    // It does not know what the kernel knows, and switches all the same.
    put(&origin, "/d/a", "third");
    put(&origin, "/d/pair/deep/er/c", "third");
    assert!(refresh(&agent, &dir));
    check();
    assert_eq!([text(&dir.join("a")), text(&dir.join("pair/deep/er/c"))], ["third", "third"]);
    assert_eq!(text(&dir.join("pair/a")), "and the second");
    agent.kill();
    agent.start_again();
    check();
    put(&origin, "/d/pair/a", "third");
    assert!(refresh(&agent, &dir));
    check();
    assert_eq!(text(&dir.join("pair/a")), "third");
    assert_eq!(followed(&agent, &dir)["switches"], 3);
}

#[test]
fn the_first_switch_of_the_next_agent_has_the_kernel_forget_only_what_changed() {
    let Kept { _place, _holder, kept, origin, dir, mut agent } =
        Kept::with(&["pair/a", "pair/same", "pair/deep/er/c"]);
    // As whoever is in it, or has mounted something on it.
    let within = ["pair", "pair/deep/er"].map(|name| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir.join(name), flags, Mode::empty()).unwrap()
    });
    let read_in = |dir: &OwnedFd, name: &str| {
        let file = rustix::fs::openat(dir, name, OFlags::RDONLY, Mode::empty()).unwrap();
        String::from_utf8(read_anew(&file.into()).unwrap()).unwrap()
    };
    let before = ["kept", "pair", "pair/same", "pair/deep/er"].map(|name| ino(&dir.join(name)));
    // A machine short of memory would forget it by itself.
    let pages = map(&dir.join("kept"));
    pages.lock().unwrap();
    agent.kill();
    agent.start_again();
    put(&origin, "/d/pair/a", "and the second");
    put(&origin, "/d/pair/deep/er/new", "new");
    assert!(refresh(&agent, &dir));
    assert_eq!(read_in(&within[0], "a"), "and the second", "who is in it sees what is there");
    assert_eq!(read_in(&within[1], "new"), "new");
    assert_eq!(text(&dir.join("pair/a")), "and the second");
    let after = ["kept", "pair", "pair/same", "pair/deep/er"].map(|name| ino(&dir.join(name)));
    assert_eq!(after, before);
    // The kernel has the pages of what is the same.
    let asked = agent.metric("dfs_node_read_bytes_total");
    assert!(fs::read(dir.join("kept")).unwrap() == kept);
    assert_eq!(agent.metric("dfs_node_read_bytes_total"), asked);
    // And again, with what has moved.
    agent.kill();
    agent.start_again();
    put(&origin, "/d/pair/a", "third");
    assert!(refresh(&agent, &dir));
    assert_eq!(read_in(&within[0], "a"), "third");
    assert_eq!(ino(&dir.join("pair/same")), before[2]);
    let asked = agent.metric("dfs_node_read_bytes_total");
    assert!(fs::read(dir.join("kept")).unwrap() == kept);
    assert_eq!(agent.metric("dfs_node_read_bytes_total"), asked);
}

#[test]
fn a_part_that_is_gone_stays_and_comes_back() {
    let place = Place::new();
    let (origin, _) = origin();
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &format!("{}!gone", origin.url("/d/")), place.dir("mount"));
    assert_eq!(text(&dir.join("away")), "first");
    change(&origin);
    let said = agent.dfctl(&["mounts", "--refresh", dir.to_str().unwrap()]).exits(3);
    assert!(said.stderr.contains("gone"), "{}", said.stderr);
    assert_eq!(text(&dir.join("away")), "first");
    assert!(followed(&agent, &dir)["failed"].as_str().unwrap().contains("gone"));
    put(&origin, "/d/gone/away", "second");
    assert!(refresh(&agent, &dir));
    assert_eq!(text(&dir.join("away")), "second");
}

#[test]
fn one_file_is_followed_too_and_what_follows_is_read_through_the_agent() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 9 * MIB)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    agent.guard(&dir);
    let words = ["mount", "--lane", "passthrough", "-o", "follow=1d", &origin.url("/f")];
    let said = agent.dfctl(&[&words[..], &[dir.to_str().unwrap()]].concat()).done();
    assert!(
        said.text().contains("lane fuse") && said.text().contains("every 1 d"),
        "{}",
        said.text()
    );
    let first = File::open(dir.join("f")).unwrap();
    let bytes = read_anew(&first).unwrap();
    origin.put("/f", Body::noise(2, 5 * MIB));
    assert!(refresh(&agent, &dir));
    assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), 5 * MIB);
    assert!(fs::read(dir.join("f")).unwrap() == all(&Body::noise(2, 5 * MIB)));
    assert!(read_anew(&first).unwrap() == bytes);
}

#[test]
fn a_directory_is_not_followed_from_within_itself() {
    let place = Place::new();
    let source = place.dir("source");
    fs::write(source.join("f"), "x").unwrap();
    let within = place.dir("source/within");
    let agent = Agent::solo(&place, "agent");
    let url = format!("file://{}/", source.display());
    let mount =
        |how: &[&str]| agent.dfctl(&[&["mount"], how, &[&url, within.to_str().unwrap()]].concat());
    let refused = mount(&["--follow"]).exits(2);
    assert!(refused.stderr.contains("lies within what is followed"), "{}", refused.stderr);
    agent.guard(&within);
    mount(&[]).done();
    assert_eq!(text(&within.join("f")), "x");
}

#[test]
fn a_mount_that_follows_nothing_says_so() {
    let place = Place::new();
    let (origin, _) = origin();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let said = agent.dfctl(&["mounts", "--refresh", dir.to_str().unwrap()]).exits(2);
    assert!(said.stderr.contains("DFS-5109"), "{}", said.stderr);
    let often = agent.dfctl(&["mount", "--follow=1ms", "https://h/d/", "/mnt"]).exits(2);
    assert!(often.stderr.contains("every 1 s at most"), "{}", often.stderr);
}

#[test]
fn those_of_a_cluster_look_once_for_all() {
    let place = Place::new();
    let (origin, _) = origin();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["one", "two", "three"].map(|name| Agent::of(&cluster, &place, name));
    let dirs: Vec<_> = agents
        .iter()
        .zip(["mount-1", "mount-2", "mount-3"])
        .map(|(agent, dir)| follow(agent, "--follow=4s", &origin.url("/d/"), place.dir(dir)))
        .collect();
    dirs.iter().for_each(|dir| assert_eq!(text(&dir.join("a")), "first"));
    origin.reset_counters();
    change(&origin);
    for dir in &dirs {
        until("each follows", || text(&dir.join("a")) == "and the second");
    }
    // What is new came once for all of them.
    let counters = origin.counters();
    assert_eq!(counters.paths["/d/a"].body_bytes, "and the second".len() as u64);
}

#[test]
fn what_one_node_of_a_cluster_has_just_looked_at_the_others_do_not_ask_the_origin() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    put(&origin, "/d/a", "first");
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["one", "two", "three", "four"].map(|name| Agent::of(&cluster, &place, name));
    let dirs: Vec<_> = agents
        .iter()
        .map(|agent| {
            let dir = place.dir(&format!("mount-{}", agent.node.name()));
            follow(agent, "--follow=1s", &origin.url("/d/"), dir)
        })
        .collect();
    origin.reset_counters();
    assert!(!refresh(&agents[0], &dirs[0]));
    let each = origin.counters().paths["/d/"].requests;
    origin.reset_counters();
    let mut seen = BTreeSet::new();
    until("they have looked often", || {
        for (agent, dir) in agents.iter().zip(&dirs) {
            let looked = followed(agent, dir)["looked_at"].to_string();
            seen.insert((agent.node.name().to_owned(), looked));
        }
        seen.len() > 40
    });
    let asked = origin.counters().paths["/d/"].requests / each;
    // Times are told in whole seconds: there were more looks.
    assert!(asked > 0 && asked < 27, "{asked} times for more than 36 looks");
}

#[test]
fn what_a_mount_switched_to_is_what_is_shown_while_its_origin_is_away() {
    let (place, address) = (Place::new(), FreeAddress::new().unwrap());
    let show = |text: &str| {
        let origin = Origin::start_at(address.at()).unwrap();
        put(&origin, "/d/a", text);
        origin
    };
    let origin = show("first");
    let mut agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    assert_eq!(text(&dir.join("a")), "first");
    put(&origin, "/d/a", "and the second");
    assert!(refresh(&agent, &dir));
    assert_eq!(text(&dir.join("a")), "and the second");
    let there = dir.to_str().unwrap();
    agent.dfctl(&["umount", there]).done();
    let url = origin.url("/d/");
    agent.kill();
    drop(origin);
    agent.start_again();
    let said = agent.dfctl(&["mount", SELDOM, &url, there]).done();
    assert!(said.stderr.contains("away"), "{said:?}");
    assert_eq!(text(&dir.join("a")), "and the second");
    let away = || {
        let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
        listed["items"][0]["away"].clone()
    };
    assert!(!away().is_null());
    let _origin = show("and the second");
    refresh(&agent, &dir);
    assert!(away().is_null(), "it is there again");
}

/// Files that lie side by side in the cache, more of them than share one place there.
fn small(count: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..count).map(|number| (format!("s/{number:04}"), noise(number as u64, 6000 + number % 9000)))
}

fn site_of_small() -> Origin {
    let origin = Origin::start().unwrap();
    for (name, bytes) in small(400) {
        origin.put(&format!("/d/{name}"), Body::bytes(bytes));
    }
    origin
}

/// One changes, one goes, and so many come that the others lie elsewhere.
fn change_few(origin: &Origin) {
    put(origin, "/d/s/0007", "another");
    origin.remove("/d/s/0008");
    for (name, bytes) in small(800).skip(400) {
        origin.put(&format!("/d/{name}"), Body::bytes(bytes));
    }
}

/// Reads what is the same in both versions, as the agent has it.
fn assert_same(dir: &Path) {
    for (name, bytes) in small(400).filter(|(name, _)| !has_changed(name)) {
        let read = read_anew(&File::open(dir.join(&name)).unwrap()).unwrap();
        assert!(read == bytes, "{name}");
    }
}

fn has_changed(name: &str) -> bool {
    ["0003", "0007", "0008"].iter().any(|changed| name.ends_with(changed))
}

/// Bytes that the origin sent of what is the same in both versions.
fn sent_again(origin: &Origin) -> u64 {
    let counters = origin.counters();
    let same =
        |path: &str| small(400).any(|(name, _)| path == format!("/d/{name}") && !has_changed(path));
    let sent = counters.paths.iter().filter(|(path, _)| same(path));
    sent.map(|(_, counters)| counters.body_bytes).sum()
}

#[test]
fn small_files_that_are_the_same_are_not_fetched_again_wherever_they_lie_by_now() {
    let place = Place::new();
    let origin = site_of_small();
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    assert_same(&dir);
    origin.reset_counters();
    // A version that nobody reads is no gap.
    put(&origin, "/d/s/0003", "between");
    assert!(refresh(&agent, &dir));
    change_few(&origin);
    assert!(refresh(&agent, &dir));
    assert_same(&dir);
    assert_eq!(sent_again(&origin), 0);
    assert_eq!(text(&dir.join("s/0003")), "between");
    assert_eq!(text(&dir.join("s/0007")), "another");
    assert!(fs::metadata(dir.join("s/0008")).is_err());
    for (name, bytes) in small(800).skip(400) {
        assert!(fs::read(dir.join(&name)).unwrap() == bytes, "{name}");
    }
    // Nobody takes the copies for what the origin sent.
    let new: usize = small(800).skip(400).map(|(_, bytes)| bytes.len()).sum();
    let read = agent.metric("dfs_node_source_bytes_total");
    let first: usize = small(400).map(|(_, bytes)| bytes.len()).sum();
    let most = (first + new) as u64 * 3;
    assert!(read < most, "{read} of at most {most}");
}

#[test]
fn what_was_damaged_on_the_way_to_the_next_version_is_fetched_again() {
    let place = Place::new();
    let origin = site_of_small();
    let agent = Agent::solo(&place, "agent");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    assert_same(&dir);
    let mut damaged = 0;
    for content in walk(&agent.data().join("tasks")).filter(|path| path.ends_with("content")) {
        let bytes = fs::read(&content).unwrap();
        let (_, victim) = small(400).nth(100).unwrap();
        if let Some(at) = bytes.windows(100).position(|window| window == &victim[..100]) {
            let file = File::options().write(true).open(&content).unwrap();
            file.write_all_at(b"damaged", at as u64 + 50).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    change_few(&origin);
    origin.reset_counters();
    assert!(refresh(&agent, &dir));
    assert_same(&dir);
    let sent = sent_again(&origin);
    assert!(sent > 0 && sent < 100_000, "{sent} bytes: what shares a group with it, and no more");
}

fn walk(dir: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    Box::new(entries.flat_map(|path| match path.is_dir() {
        true => walk(&path),
        false => Box::new(std::iter::once(path)) as Box<dyn Iterator<Item = PathBuf>>,
    }))
}

#[test]
fn a_node_of_a_cluster_takes_what_is_the_same_from_itself() {
    let place = Place::new();
    let origin = site_of_small();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "node");
    let dir = follow(&agent, SELDOM, &origin.url("/d/"), place.dir("mount"));
    assert_same(&dir);
    let before = agent.metric("dfs_node_taken_bytes_total");
    change_few(&origin);
    origin.reset_counters();
    assert!(refresh(&agent, &dir));
    assert_same(&dir);
    let came = agent.metric("dfs_node_taken_bytes_total") - before;
    // The index, and groups that what is the same shares with what is not.
    assert!(came < before / 2, "{came} bytes came again of {before}");
}

#[test]
fn a_bucket_is_followed_and_only_what_changed_is_asked_for() {
    let place = Place::new();
    let store = Bucket::garage(place.root()).unwrap();
    let file = |bytes: &[u8]| {
        let path = place.path("file");
        fs::write(&path, bytes).unwrap();
        path
    };
    for (name, bytes) in small(20) {
        store.put(&format!("tree/{name}"), &file(&bytes)).unwrap();
    }
    store.put("tree/large", &file(&noise(5, 9 << 20))).unwrap();
    let keys = store.lock().unwrap();
    let agent = Agent::solo(&place, "agent");
    let dfctl = |words: &[&str]| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
        Said::by(command.args(words)).unwrap()
    };
    let dir = place.dir("mount");
    agent.guard(&dir);
    dfctl(&["mount", SELDOM, &store.url("tree/"), dir.to_str().unwrap()]).done();
    let check = || {
        for (name, bytes) in small(20).filter(|(name, _)| name != "s/0007") {
            assert!(read_anew(&File::open(dir.join(&name)).unwrap()).unwrap() == bytes, "{name}");
        }
        let large = File::open(dir.join("large")).unwrap();
        assert!(read_anew(&large).unwrap() == noise(5, 9 << 20));
    };
    check();
    let old = File::open(dir.join("s/0007")).unwrap();
    store.put("tree/s/0007", &file(b"another")).unwrap();
    store.put("tree/new", &file(b"new")).unwrap();
    let asked = store.requests("GET /lab/tree/");
    assert!(refresh(&agent, &dir));
    check();
    assert_eq!([text(&dir.join("s/0007")), text(&dir.join("new"))], ["another", "new"]);
    assert_eq!(store.requests("GET /lab/tree/") - asked, 2);
    let (_, first) = small(20).nth(7).unwrap();
    let said = read_anew(&old);
    assert!(said.is_err() || said.unwrap() == first, "never bytes of another version");
}

#[test]
fn a_mount_that_follows_keeps_to_its_quota_over_its_versions() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let agent = Agent::solo(&place, "agent");
    let show = |version: u64| {
        for name in 0..3 {
            origin.put(&format!("/d/{name}"), Body::noise(10 * version + name, 24 * MIB));
        }
    };
    show(0);
    let dir = place.dir("mount");
    agent.guard(&dir);
    let words = ["mount", SELDOM, "--cache-quota", "64MiB", &origin.url("/d/")];
    agent.dfctl(&[&words[..], &[dir.to_str().unwrap()]].concat()).done();
    let (old, first) = (File::open(dir.join("0")).unwrap(), all(&Body::noise(0, 24 * MIB)));
    assert!(read_anew(&old).unwrap() == first);
    for version in 0..3 {
        if version > 0 {
            show(version);
            assert!(refresh(&agent, &dir));
        }
        for name in 0..3 {
            let bytes = all(&Body::noise(10 * version + name, 24 * MIB));
            let file = File::open(dir.join(name.to_string())).unwrap();
            assert!(read_anew(&file).unwrap() == bytes, "{name} of {version}");
        }
    }
    let shown = || agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    until("what is shown is within the quota", || {
        shown()["items"][0]["cached_bytes"].as_u64().unwrap() <= 64 * MIB
    });
    assert!(agent.metric("dfs_node_quota_freed_bytes_total") > 0);
    assert_eq!(followed(&agent, &dir)["earlier_versions"], 1, "somebody has something of it open");
    let said = read_anew(&old);
    assert!(said.is_err() || said.unwrap() == first, "what is left of it is what it was");
    assert!(on_disk(&agent.data().join("tasks")) < 3 * 72 * MIB);
}

#[test]
fn an_agent_is_killed_again_and_again_while_its_mount_switches() {
    let kills: u64 = std::env::var("KILLS").map_or(20, |kills| kills.parse().unwrap());
    let own = Own::start(Place::new());
    let origin = Origin::start().unwrap();
    let name = |number: u64| format!("s/{:03}", number % 200);
    let show = |version: u64| {
        for number in 0..200 {
            put(&origin, &format!("/d/{}", name(number)), &format!("{version:06}"));
        }
    };
    show(0);
    let dir = own.place.dir("mount");
    let _guard = Mount::guard(&dir);
    let there = dir.to_str().unwrap();
    let dfctl = |words: &[&str]| dfctl_at(&own.socket, words);
    dfctl(&["mount", SELDOM, &origin.url("/d/"), there]).done();
    let (over, walks, looks) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let (over, walks, looks, dfctl, show, dir) = (&over, &walks, &looks, &dfctl, &show, &dir);
        for walker in 0..4 {
            scope.spawn(move || {
                let mut at = walker * 50;
                while !over.load(Ordering::Relaxed) {
                    at += 1;
                    match fs::read(dir.join(name(at))) {
                        Ok(read) => assert_eq!(read.len(), 6),
                        // It was another one at the origin before anybody had read this one.
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()))
                        }
                    }
                    walks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                show(1 + looks.load(Ordering::Relaxed));
                looks.fetch_add(1, Ordering::Relaxed);
                // Whether it lives so long or not.
                dfctl(&["mounts", "--refresh", there]);
            }
        });
        let _over = Ends(over);
        for kill in 0..kills {
            let agent = own.agent();
            let (walked, looked) = (walks.load(Ordering::Relaxed), looks.load(Ordering::Relaxed));
            until("it is looked up", || looks.load(Ordering::Relaxed) > looked + 1);
            // At one instant or another of a switch.
            let some = kill.wrapping_mul(6_364_136_223_846_793_005) >> 54;
            until("walks go on", || walks.load(Ordering::Relaxed) > walked + some);
            kill_process(agent, Signal::KILL).unwrap();
            until("it is gone", || !running(&own.data, Of::Agents).contains(&agent));
        }
        let walked = walks.load(Ordering::Relaxed);
        until("walks go on", || walks.load(Ordering::Relaxed) > walked + 200);
    });
    // Whatever was told to whom meanwhile, in the end nobody is shown anything but the last version.
    dfctl(&["mounts", "--refresh", there]).done();
    let last = format!("{:06}", looks.load(Ordering::Relaxed));
    for number in 0..200 {
        assert_eq!(text(&dir.join(name(number))), last, "{number}");
    }
    dfctl(&["umount", there]).done();
}
