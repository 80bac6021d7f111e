//! What readers of a mount touch first, and that the next mount of the same has it before they ask.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use dfs_tests::wait::{self, until};
use dfs_tests::{Body, Cluster, Fault, Mount, Origin};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::support::own::{Of, Own, running};
use crate::support::{Agent, Expected, Place, binaries, dfctl_at};

const MIB: u64 = 1 << 20;

/// The order in which a run reads twelve files of 256 KiB, and files that it leaves.
const READ: [u64; 12] = [7, 3, 11, 0, 9, 5, 1, 10, 2, 8, 4, 6];
const LEFT: std::ops::Range<u64> = 12..40;
const LENGTH: u64 = 256 << 10;

fn name(file: u64) -> String {
    format!("f{file:02}")
}

/// A directory of files, each large enough to have groups of its own.
fn origin() -> Origin {
    let origin = Origin::start().unwrap();
    for file in (0..12).chain(LEFT) {
        origin.put(&format!("/d/{}", name(file)), Body::noise(file, LENGTH));
    }
    origin
}

fn read(dir: &Path, files: &[u64]) {
    for file in files {
        assert_eq!(fs::read(dir.join(name(*file))).unwrap().len() as u64, LENGTH);
    }
}

/// A few bytes at each of these places of a file: random access, without read-ahead.
fn peek(file: &Path, places: impl IntoIterator<Item = u64>) {
    let file = File::open(file).unwrap();
    places.into_iter().for_each(|at| file.read_exact_at(&mut [0; 16], at).unwrap());
}

/// What `dfctl mounts` says of the one mount's prefetching.
fn prefetch(agent: &Agent) -> Value {
    let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let dir = |mount: &&Value| mount["prefetch"]["mode"].is_string() && mount["state"] != "dead";
    listed["items"].as_array().unwrap().iter().find(dir).unwrap()["prefetch"].clone()
}

fn shown(agent: &Agent, of: &str) -> Value {
    agent.dfctl(&["trace", "show", of, "--format", "json"]).done().json().unwrap()
}

fn unmount(agent: &Agent, dir: &Path) {
    // Whoever lists mounts looks into it for a moment.
    until("it is unmounted", || agent.dfctl(&["umount", dir.to_str().unwrap()]).code == 0).unwrap();
}

/// Mounts with further words.
fn mount_with(agent: &Agent, url: &str, dir: PathBuf, words: &[&str]) -> PathBuf {
    agent.guard(&dir);
    agent.dfctl(&[&["mount", url, dir.to_str().unwrap()], words].concat()).done();
    dir
}

/// The files in the order in which the origin was asked for them.
fn asked(origin: &Origin) -> Vec<u64> {
    let mut files: Vec<u64> = Vec::new();
    for request in origin.log().iter().filter(|request| request.method == "GET") {
        let number = request.path.strip_prefix("/d/f").and_then(|number| number.parse().ok());
        files.extend(number.filter(|file| !files.contains(file)));
    }
    files
}

/// A profile of one run that reads [`READ`], as a file.
fn exported(place: &Place, origin: &Origin) -> PathBuf {
    let agent = Agent::solo(place, "first");
    let dir = agent.mount(&origin.url("/d/"), place.dir("first-mount"));
    read(&dir, &READ);
    let file = place.path("exported");
    let words = ["trace", "export", "-o", file.to_str().unwrap(), dir.to_str().unwrap()];
    agent.dfctl(&words).done();
    unmount(&agent, &dir);
    file
}

/// Where the requests for a file begin, in their order.
fn ranges_asked(origin: &Origin) -> Vec<u64> {
    let ranges = origin.log().into_iter().filter_map(|request| request.range);
    ranges
        .filter_map(|range| range.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok())
        .collect()
}

#[test]
fn the_next_mount_asks_in_the_order_of_the_last_before_anybody_reads() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 64 * MIB)).unwrap();
    let url = origin.url("/d/");
    // Here and there in a file, in an order that is not that of the file.
    let order: Vec<u64> = (0..48).map(|turn| turn * 29 % 48 * MIB).collect();
    let first = Agent::solo(&place, "first");
    let dir = first.mount(&url, place.dir("first-mount"));
    peek(&dir.join("f"), order.iter().copied());
    let file = place.path("exported");
    let words = ["trace", "export", "-o", file.to_str().unwrap(), dir.to_str().unwrap()];
    first.dfctl(&words).done();
    unmount(&first, &dir);
    // Another machine, with nothing but the profile.
    let agent = Agent::solo(&place, "second");
    let applied = agent.dfctl(&["trace", "apply", file.to_str().unwrap(), &url]).done();
    assert!(applied.text().contains("of 1 run"), "{}", applied.text());
    origin.reset_counters();
    let dir = agent.mount(&url, place.dir("mount"));
    until("what the profile says is here", || prefetch(&agent)["state"] == "done").unwrap();
    let asked = ranges_asked(&origin);
    assert_eq!(asked.len(), order.len(), "no more and no less: {asked:?}");
    // Some are asked for at a time, and one may take long to arrive.
    let turn = |at: &u64| asked.iter().position(|asked| asked == at).unwrap();
    let displaced: usize = order.iter().enumerate().map(|(own, at)| turn(at).abs_diff(own)).sum();
    assert!(displaced < 4 * order.len(), "{displaced}: {asked:?}");
    let before = origin.counters().requests;
    peek(&dir.join("f"), order.iter().copied());
    assert_eq!(origin.counters().requests, before, "all of it was here");
    let prefetch = prefetch(&agent);
    assert_eq!((&prefetch["hit_rate"], &prefetch["coverage"]), (&1.0.into(), &1.0.into()));
    assert_eq!(prefetch["fetched_bytes"], 48 * 65_536);
    let listed = agent.dfctl(&["mounts"]).done().text();
    assert!(listed.contains("3.0 MiB, 100 % read"), "{listed}");
}

#[test]
fn runs_are_merged_and_told_by_file() {
    let place = Place::new();
    let origin = origin();
    let agent = Agent::solo(&place, "agent");
    let (url, dir) = (origin.url("/d/"), place.dir("mount"));
    for odd in [20, 21, 22] {
        agent.mount(&url, dir.clone());
        read(&dir, &[odd, 7, 3]);
        unmount(&agent, &dir);
    }
    let profile = shown(&agent, &url);
    assert_eq!((&profile["runs"], &profile["files"]), (&3.into(), &5.into()), "{profile}");
    let first = profile["first"].as_array().unwrap();
    let files: Vec<_> = first.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(files[..2], ["f07", "f03"], "what all runs wanted comes first");
    assert_eq!((&first[0]["touched"], &first[4]["touched"]), (&3.into(), &1.into()));
    // All of it is in the cache: a mount has nothing to fetch.
    origin.reset_counters();
    agent.mount(&url, dir.clone());
    until("it looked", || prefetch(&agent)["state"] == "done").unwrap();
    assert_eq!((prefetch(&agent)["runs"].clone(), asked(&origin)), (3.into(), vec![]));
    assert_eq!(shown(&agent, &format!("{url}!f07"))["runs"], 0, "a part of it is another matter");
}

#[test]
fn nothing_is_fetched_ahead_where_nobody_wants_it_and_all_where_all_is_wanted() {
    let place = Place::new();
    let origin = origin();
    let file = exported(&place, &origin);
    let agent = Agent::solo(&place, "second");
    let (url, dir) = (origin.url("/d/"), place.dir("mount"));
    agent.dfctl(&["trace", "apply", file.to_str().unwrap(), &url]).done();
    origin.reset_counters();
    mount_with(&agent, &url, dir.clone(), &["--prefetch", "off"]);
    read(&dir, &[30]);
    assert_eq!(prefetch(&agent)["mode"], "off");
    assert_eq!(asked(&origin), [30]);
    unmount(&agent, &dir);
    // The profile first, although it has another run by now, then all the rest.
    mount_with(&agent, &url, dir.clone(), &["--prefetch", "all"]);
    until("all of it is here", || prefetch(&agent)["state"] == "done").unwrap();
    let order = asked(&origin);
    assert_eq!(order.len(), 40, "{order:?}");
    let last = order[1..].iter().rposition(|file| READ.contains(file)).unwrap();
    assert!(last < READ.len() + 4, "the profile comes first: {order:?}");
    drop(origin);
    read(&dir, &(0..40).collect::<Vec<_>>());
    let listed = agent.dfctl(&["mounts"]).done().text();
    assert!(listed.contains("complete: works offline"), "{listed}");
}

#[test]
fn nothing_more_is_fetched_ahead_for_a_mount_that_is_taken_away() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 256 * MIB)).unwrap();
    origin.put("/small", Body::noise(2, 1000));
    let agent = Agent::solo(&place, "agent");
    let pace = origin.inject(Fault::pace(16 * MIB).on("/d/f"));
    let words = ["--prefetch", "all"];
    let dir = mount_with(&agent, &origin.url("/d/"), place.dir("mount"), &words);
    origin.wait_in_flight("/d/f", MIB).unwrap();
    unmount(&agent, &dir);
    // What was under way may come to its end; from then on it comes as fast as anybody takes it.
    origin.wait_idle(wait::PATIENCE).unwrap();
    let sent = origin.counters().body_bytes;
    assert!(sent < 128 * MIB, "{sent} bytes came before and after");
    pace.lift();
    agent.dfctl(&["cat", &origin.url("/small")]).done();
    origin.wait_idle(wait::PATIENCE).unwrap();
    assert_eq!(origin.counters().body_bytes, sent + 1000);
    // It was given up and not lost: the next mount wants the rest of it.
    mount_with(&agent, &origin.url("/d/"), dir, &words);
    until("all of it is here", || prefetch(&agent)["state"] == "done").unwrap();
    let came = origin.counters().body_bytes - 1000;
    assert!(came <= 256 * MIB + 16 * MIB, "{came} bytes for one file");
}

#[test]
fn a_profile_that_readers_prove_wrong_is_left() {
    let place = Place::new();
    let length = 512 * MIB;
    let origin = Origin::of("/d/f", Body::noise(1, length)).unwrap();
    let url = origin.url("/d/");
    let first = Agent::solo(&place, "first");
    let dir = first.mount(&url, place.dir("first-mount"));
    // The upper half, far apart.
    peek(&dir.join("f"), (256..512).map(|at| at * MIB));
    let file = place.path("exported");
    let words = ["trace", "export", "-o", file.to_str().unwrap(), dir.to_str().unwrap()];
    first.dfctl(&words).done();
    unmount(&first, &dir);
    let agent = Agent::solo(&place, "second");
    agent.dfctl(&["trace", "apply", file.to_str().unwrap(), &url]).done();
    // Slow enough for readers to tell.
    let pace = origin.inject(Fault::pace(2 * MIB).on("/d/f"));
    let dir = agent.mount(&url, place.dir("mount"));
    pace.wait_struck(1).unwrap();
    // Many readers at a time, so that what is fetched ahead does not take most of the way.
    thread::scope(|scope| {
        for reader in 0..10 {
            let file = dir.join("f");
            scope.spawn(move || peek(&file, (0..10).map(|at| (at * 10 + reader) * MIB)));
        }
    });
    until("the profile is left", || prefetch(&agent)["state"] == "misled").unwrap();
    let fetched = prefetch(&agent)["fetched_bytes"].as_u64().unwrap();
    assert!(fetched < 256 * 65_536, "{fetched}");
    let listed = agent.dfctl(&["mounts"]).done().text();
    assert!(listed.contains("the profile is wrong"), "{listed}");
    // What was read is another run: the next mount knows it.
    unmount(&agent, &dir);
    assert_eq!(shown(&agent, &url)["runs"], 2);
}

#[test]
fn a_reader_is_served_before_what_is_fetched_ahead() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 64 * MIB)).unwrap();
    let url = origin.url("/d/");
    let first = Agent::solo(&place, "first");
    let dir = first.mount(&url, place.dir("first-mount"));
    peek(&dir.join("f"), (32..64).map(|at| at * MIB));
    let file = place.path("exported");
    let words = ["trace", "export", "-o", file.to_str().unwrap(), dir.to_str().unwrap()];
    first.dfctl(&words).done();
    unmount(&first, &dir);
    let agent = Agent::solo(&place, "second");
    agent.dfctl(&["trace", "apply", file.to_str().unwrap(), &url]).done();
    origin.reset_counters();
    // What is fetched ahead hangs.
    let gate = origin.inject(Fault::gate().on("/d/f").method("GET").times(4));
    let dir = agent.mount(&url, place.dir("mount"));
    gate.wait_struck(4).unwrap();
    // In no order that could be foreseen.
    let wanted: Vec<u64> = (0..16).map(|at| at * 7 % 16 * 2 * MIB).collect();
    peek(&dir.join("f"), wanted.iter().copied());
    // One that hangs is not told as answered.
    let asked = ranges_asked(&origin);
    let ahead: Vec<_> = asked.iter().filter(|at| !wanted.contains(at)).collect();
    assert!(wanted.iter().all(|at| asked.contains(at)) && ahead.len() <= 4, "{asked:?}");
    let waits = prefetch(&agent);
    assert_eq!((&waits["state"], &waits["hit_bytes"]), (&"fetching".into(), &0.into()), "{waits}");
    gate.lift();
    until("the rest comes", || prefetch(&agent)["state"] == "done").unwrap();
    assert_eq!(prefetch(&agent)["fetched_bytes"], 32 * 65_536);
}

#[test]
fn what_was_read_outlives_a_kill_and_the_mount_goes_on_as_it_was_made() {
    let origin = origin();
    let own = Own::start(Place::new());
    let dfctl = |words: &[&str]| dfctl_at(&own.socket, words);
    let known = |of: &str| dfctl(&["trace", "show", of, "--format", "json"]).done().json().unwrap();
    let (url, dir) = (origin.url("/d/"), own.place.dir("mount"));
    let (mounted, _guard) = (dir.to_str().unwrap(), Mount::guard(&dir));
    dfctl(&["mount", "--prefetch", "off", &url, mounted]).done();
    read(&dir, &READ);
    let profiles = own.data.join("profiles");
    // Under its own name, and not as the draft of it.
    let is_profile = |name: OsString| !name.to_string_lossy().contains('.');
    let is_written = || {
        let mut found = fs::read_dir(&profiles).into_iter().flatten();
        found.any(|file| is_profile(file.unwrap().file_name()))
    };
    until("it is written down", is_written).unwrap();
    let before = own.agent();
    kill_process(before, Signal::KILL).unwrap();
    until("there is another agent", || {
        dfctl(&["mounts"]).code == 0 && !running(&own.data, Of::Agents).contains(&before)
    })
    .unwrap();
    let profile = known(mounted);
    assert_eq!((&profile["runs"], &profile["files"]), (&1.into(), &12.into()), "{profile}");
    assert_eq!(profile["first"][0]["path"], "f07");
    let listed = dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let mut mounts = listed["items"].as_array().unwrap().iter();
    let mount = mounts.find(|mount| mount["dir"] == mounted).unwrap();
    assert_eq!(mount["prefetch"]["mode"], "off");
    read(&dir, &[30]);
    dfctl(&["umount", mounted]).done();
    let profile = known(&url);
    assert_eq!(
        (&profile["runs"], &profile["files"]),
        (&1.into(), &13.into()),
        "one run: {profile}"
    );
}

#[test]
fn the_cluster_tells_a_node_what_others_read_of_what_is_public() {
    let place = Place::new();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let origin = origin();
    origin.put("/p/f", Body::noise(1, LENGTH));
    let agents = ["one", "other"].map(|name| Agent::of(&cluster, &place, name));
    let (public, private) = (origin.url("/d/"), origin.url("/p/"));
    let secret = ["-H", "Authorization: secret"];
    // The one reads both, what nobody else is told first.
    let dir = mount_with(&agents[0], &private, place.dir("one-private"), &secret);
    fs::read(dir.join("f")).unwrap();
    unmount(&agents[0], &dir);
    let dir = agents[0].mount(&public, place.dir("one-public"));
    read(&dir, &READ);
    unmount(&agents[0], &dir);
    assert_eq!(shown(&agents[0], &public)["runs"], 1);
    // The other has never seen either.
    let dir = place.dir("other-public");
    until("the cluster knows", || {
        mount_with(&agents[1], &public, dir.clone(), &[]);
        let prefetch = prefetched(&agents[1]);
        unmount(&agents[1], &dir);
        prefetch["runs"] == 1 && prefetch["fetched_bytes"] == READ.len() as u64 * LENGTH
    })
    .unwrap();
    mount_with(&agents[1], &private, place.dir("other-private"), &secret);
    assert_eq!(prefetched(&agents[1])["runs"], 0);
}

#[test]
fn a_mount_that_was_made_while_no_cluster_answered_hears_what_others_read_once_one_does() {
    let place = Place::new();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let (origin, names) = (origin(), ["one", "witness", "other"]);
    let [one, witness, other] = names.map(|name| Agent::of(&cluster, &place, name));
    let (url, dir) = (origin.url("/d/"), place.dir("mount"));
    one.mount(&url, dir.clone());
    read(&dir, &READ);
    unmount(&one, &dir);
    until("the cluster knows", || {
        witness.mount(&url, dir.clone());
        let prefetch = prefetched(&witness);
        unmount(&witness, &dir);
        prefetch["runs"] == 1
    })
    .unwrap();
    cluster.process().freeze();
    other.mount(&url, dir.clone());
    assert_eq!(
        (&prefetched(&other)["runs"], &prefetch(&other)["state"]),
        (&0.into(), &"idle".into())
    );
    cluster.process().thaw();
    until("it was told", || prefetch(&other)["runs"] == 1).unwrap();
    let prefetch = prefetched(&other);
    assert_eq!(prefetch["fetched_bytes"], READ.len() as u64 * LENGTH, "{prefetch}");
}

/// What was fetched, once all is that is to be.
fn prefetched(agent: &Agent) -> Value {
    until("it is through", || matches!(prefetch(agent)["state"].as_str(), Some("done" | "idle")))
        .unwrap();
    prefetch(agent)
}

#[test]
fn a_command_is_recorded_by_itself() {
    let place = Place::new();
    let origin = origin();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let mounted = dir.to_str().unwrap();
    let tool = format!("cat {0}/f07 {0}/f03 | wc -c", dir.display());
    let recorded = agent.dfctl(&["trace", "record", mounted, "--", "sh", "-c", &tool]).done();
    assert!(recorded.text().contains("512.0 KiB in 2 files, of 1 run"), "{}", recorded.text());
    assert!(recorded.stderr.contains("524288"), "{}", recorded.stderr);
    read(&dir, &[20]);
    agent.dfctl(&["trace", "record", mounted]).done();
    let profile = shown(&agent, mounted);
    assert_eq!((&profile["runs"], &profile["files"]), (&2.into(), &3.into()));
    agent.dfctl(&["trace", "record", "/nonexistent"]).fails(3, "DFS-5103");
}

#[test]
fn a_file_that_is_no_profile_of_it_is_refused_and_what_was_known_stays() {
    let place = Place::new();
    let origin = origin();
    let file = exported(&place, &origin);
    let agent = Agent::solo(&place, "second");
    let url = origin.url("/d/");
    let good = fs::read(&file).unwrap();
    let apply = |bytes: &[u8], url: &str| {
        fs::write(&file, bytes).unwrap();
        agent.dfctl(&["trace", "apply", file.to_str().unwrap(), url])
    };
    apply(&good, &url).done();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let endless = [&good[..], &vec![7; 3 << 20]].concat();
    for bad in [&b"#!/bin/sh\n"[..], &[], &damaged, &good[..good.len() - 1], &endless] {
        let said = apply(bad, &url).fails(2, "DFS-5108");
        assert_eq!(said.stderr.matches("error:").count(), 1, "{}", said.stderr);
    }
    // Of another version, and of something else.
    origin.put("/d/f07", Body::noise(77, LENGTH));
    origin.put("/e/f", Body::noise(1, LENGTH));
    apply(&good, &origin.url("/e/")).fails(2, "DFS-5108");
    assert_eq!(shown(&agent, &url)["runs"], 1, "what was known stays");
    agent.dfctl(&["trace", "show", &origin.url("/nothing/")]).exits(3);
}
