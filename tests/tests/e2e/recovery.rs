//! Crashes and liars in the middle of transfers: latency, never a wrong byte, and nothing paid for twice.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Cluster, Fault, Node, Origin};

use crate::support::ledger::Account;
use crate::support::trees::noise;
use crate::support::{Agent, Expected, Place, Running, all, binaries, is_mounted, until};

const MIB: u64 = 1 << 20;

/// Starts to get a path of the origin into a file of the agent's own.
fn start_get(agent: &Agent, origin: &Origin, path: &str, place: &Place) -> (Running, PathBuf) {
    let output = place.path(&format!("out-{}", agent.node.name()));
    let url = origin.url(path);
    let words = ["get", &url, "-o", output.to_str().unwrap(), "--format", "json"];
    (agent.dfctl_start(&words), output)
}

/// A cluster whose seed sends no faster than this.
fn slow_seed(place: &Place, rate: &str) -> Cluster {
    let config = place.path("cluster.toml");
    fs::write(&config, format!("[seed]\nupload-rate = \"{rate}\"\n")).unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    Cluster::start_with(&binaries(), place.root(), &extra).unwrap()
}

fn seed_metric(cluster: &Cluster, name: &str) -> u64 {
    cluster.process().metric(&format!("dfs_seed_{name}")).unwrap() as u64
}

/// Waits until the origin has ended what it was sending to whom is no more.
fn settled(origin: &Origin) -> u64 {
    origin.wait_idle(PATIENCE).unwrap();
    origin.counters().body_bytes
}

#[test]
fn a_killed_agent_fetches_nothing_again_that_it_had_verified() {
    let place = Place::new();
    let body = Body::noise(1, 64 * MIB + 3);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(24 * MIB));
    let mut agent = Agent::solo(&place, "agent");
    let (getting, output) = start_get(&agent, &origin, "/f", &place);
    until("a part is verified", || agent.cached(length) >= 12 * MIB);
    origin.wait_in_flight("/f", 1).unwrap();
    let verified = agent.cached(length);
    agent.kill();
    let said = getting.wait().fails(5, "DFS-4103");
    assert!(!output.exists(), "{}", said.stderr);
    let before = settled(&origin);
    assert!(before < length && pace.struck() > 0);
    pace.lift();
    agent.start_again();
    assert!(agent.cached(length) >= verified, "what was verified is still here");
    let (getting, output) = start_get(&agent, &origin, "/f", &place);
    getting.wait().done();
    assert!(fs::read(&output).unwrap() == all(&body));
    let again = origin.counters().body_bytes - before;
    assert!(again <= length - verified, "{again} bytes after {verified} of {length} were verified");
}

#[test]
fn a_killed_node_of_a_swarm_takes_only_the_rest_again() {
    let place = Place::new();
    let body = Body::noise(11, 48 * MIB);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let stall = origin.inject(Fault::stall_after(6 * MIB));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let mut agents: Vec<_> = ["a", "b"].map(|name| Agent::of(&cluster, &place, name)).into();
    let mut getting: Vec<_> =
        agents.iter().map(|agent| start_get(agent, &origin, "/f", &place)).collect();
    until("both have a part", || agents.iter().all(|agent| agent.cached(length) > 8 * MIB));
    let verified = agents[0].cached(length);
    agents[0].kill();
    assert!(origin.counters().body_bytes < length && stall.struck() > 0);
    getting.remove(0).0.wait().fails(5, "DFS-4103");
    stall.lift();
    let (other, output) = getting.remove(0);
    other.wait().done();
    assert!(fs::read(output).unwrap() == all(&body), "its neighbour notices nothing");
    agents[0].start_again();
    let (getting, output) = start_get(&agents[0], &origin, "/f", &place);
    getting.wait().done();
    assert!(fs::read(output).unwrap() == all(&body));
    let taken = agents[0].metric("dfs_node_taken_bytes_total");
    assert!(taken <= length - verified, "{taken} taken after {verified} of {length} were verified");
    assert_eq!(agents[0].metric("dfs_node_source_bytes_total"), 0);
    assert_eq!(origin.counters().body_bytes, length, "one copy");
}

#[test]
fn a_killed_agent_ends_its_mounts_readers_and_the_next_mount_has_the_bytes() {
    let place = Place::new();
    let body = Body::noise(2, 48 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let mut agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let stall = origin.inject(Fault::stall_after(3 * MIB));
    let path = dir.join("f");
    let reader = std::thread::spawn(move || fs::read(path));
    stall.wait_struck(1).unwrap();
    origin.wait_in_flight("/d/f", 3 * MIB).unwrap();
    agent.kill();
    assert!(reader.join().unwrap().is_err(), "a reader is told, not left hanging");
    let before = settled(&origin);
    stall.lift();
    agent.start_again();
    let dir = agent.mount(&origin.url("/d/"), place.dir("again"));
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
    let sent = origin.counters().body_bytes;
    assert!(sent <= before + body.length().unwrap(), "{before} before, {sent} in all");
}

/// Flags of a node that does not lose patience however slowly a cluster comes back on a busy machine: that
/// the scheduler sends nobody to the origin is what is looked at, not how long a restart takes.
fn patient(place: &Place) -> [String; 2] {
    let file = place.path("patient.toml");
    fs::write(&file, "patience-seconds = 60\n").unwrap();
    ["--config".to_owned(), file.display().to_string()]
}

#[test]
fn a_killed_cluster_that_comes_back_goes_on_where_it_was() {
    let place = Place::new();
    let body = Body::noise(3, 72 * MIB + 5);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(20 * MIB));
    let mut cluster = Cluster::start(&binaries(), place.root()).unwrap();
    cluster.keep_ports().unwrap();
    let patient = patient(&place);
    let agents: Vec<_> = ["a", "b", "c"]
        .map(|name| Agent::of_with(&cluster, &place, name, &[&patient[0], &patient[1]]))
        .into();
    let getting: Vec<_> =
        agents.iter().map(|agent| start_get(agent, &origin, "/f", &place)).collect();
    until("every node has a part", || agents.iter().all(|agent| agent.cached(length) > 4 * MIB));
    origin.wait_in_flight("/f", 1).unwrap();
    // Beside the bytes the disk holds what proves them, and what is being written counts before it is there.
    let used = seed_metric(&cluster, "store_used_bytes").min(length);
    let verified = used.saturating_sub(MIB + MIB / 4);
    cluster.process_mut().kill();
    let before = settled(&origin);
    assert!(before < length && pace.struck() > 0, "{before} of {length}");
    pace.lift();
    cluster.process_mut().restart().unwrap();
    for (getting, output) in getting {
        getting.wait().done();
        assert!(fs::read(output).unwrap() == all(&body));
    }
    let again = origin.counters().body_bytes - before;
    assert!(again <= length - verified, "{again} bytes after {verified} of {length} were verified");
}

#[test]
fn what_lies_with_a_node_is_found_by_a_cluster_that_has_lost_all_it_had() {
    let place = Place::new();
    let body = Body::noise(31, 12 * MIB + 5);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let mut cluster = Cluster::start(&binaries(), place.root()).unwrap();
    cluster.keep_ports().unwrap();
    let mut holder = Agent::of(&cluster, &place, "holder");
    let (getting, _) = start_get(&holder, &origin, "/f", &place);
    getting.wait().done();
    cluster.process_mut().kill();
    // It takes part in nothing any more: all that is there lies in its store.
    holder.start_again();
    fs::remove_dir_all(place.path("cluster/seed/tasks")).unwrap();
    cluster.process_mut().restart().unwrap();
    let shelved = || cluster.process().metric("dfs_scheduler_shelved").unwrap();
    until("the holder has named it", || shelved() == 1.0);
    assert_eq!(cluster.process().metric("dfs_scheduler_tasks").unwrap(), 0.0);
    let before = origin.counters().body_bytes;
    let late = Agent::of(&cluster, &place, "late");
    let (getting, output) = start_get(&late, &origin, "/f", &place);
    let said = getting.wait().done().json().unwrap();
    let account = Account::of(&said["ledger"]);
    assert!(fs::read(output).unwrap() == all(&body));
    assert_eq!(account, Account { peers: length, ..Account::default() });
    assert_eq!(origin.counters().body_bytes, before, "the origin paid once");
}

#[test]
fn a_cluster_that_forgot_the_credentials_reads_with_those_of_the_nodes_that_ask() {
    let place = Place::new();
    let body = Body::noise(6, 24 * MIB + 7);
    let length = body.length().unwrap();
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let door = origin.inject(Fault::require_authorization("Basic dXNlcjpwYXNz"));
    let mut cluster = Cluster::start(&binaries(), place.root()).unwrap();
    cluster.keep_ports().unwrap();
    let patient = patient(&place);
    let agents = ["a", "b"].map(|name| {
        let agent = Agent::of_with(&cluster, &place, name, &[&patient[0], &patient[1]]);
        let url = origin.url("/d/").replace("http://", "http://user:pass@");
        let dir = agent.mount(&url, place.path(&format!("mount-{name}")));
        (agent, dir)
    });
    let mut first = vec![0; MIB as usize];
    File::open(agents[0].1.join("f")).unwrap().read_exact_at(&mut first, 0).unwrap();
    assert!(first == all(&body)[..MIB as usize]);
    cluster.process_mut().kill();
    let before = settled(&origin);
    assert!(before < length / 2, "{before} of {length} were read already");
    cluster.process_mut().restart().unwrap();
    for (_, dir) in &agents {
        assert!(fs::read(dir.join("f")).unwrap() == all(&body));
    }
    assert_eq!(door.struck(), 0, "nobody asked without credentials");
    let sent = origin.counters().body_bytes;
    assert!(sent as f64 <= 1.05 * length as f64, "{sent} bytes of {length} left the origin");
    agents[1].0.dfctl(&["cat", &format!("{}!f", origin.url("/d/"))]).fails(4, "DFS-2102");
    assert!(door.struck() > 0, "the origin does ask who reads");
}

#[test]
fn with_the_cluster_gone_a_node_reads_on_from_what_it_has_and_then_from_the_origin() {
    let place = Place::new();
    let body = Body::noise(4, 40 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let mut cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let file = File::open(dir.join("f")).unwrap();
    let mut first = vec![0; MIB as usize];
    file.read_exact_at(&mut first, 0).unwrap();
    cluster.process_mut().kill();
    let before = settled(&origin);
    let held = agent.dfctl(&["mounts", "--format", "json"]).json().unwrap();
    let held = held["items"][0]["cached_bytes"].as_u64().unwrap();
    assert!(held >= MIB && held < body.length().unwrap(), "{held}");
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(first == body.read(0, MIB).unwrap());
    assert_eq!(origin.counters().body_bytes, before, "what is here is read without anybody");
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
    let account = Account::of_mount(&agent);
    assert!(account.source > 0 && account.seed > 0, "{account:?}");
    let again = origin.counters().body_bytes - before;
    assert!(again <= body.length().unwrap() - held, "{again} after {held}");
    // What nobody has resolved yet is resolved without the cluster too.
    origin.put("/new", Body::noise(5, MIB));
    let said = agent.dfctl(&["cat", &origin.url("/new")]).done();
    assert!(said.stdout == all(&Body::noise(5, MIB)));
}

#[test]
fn a_parent_that_dies_in_the_middle_costs_latency_only() {
    let place = Place::new();
    let body = Body::noise(6, 48 * MIB);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let cluster = slow_seed(&place, "12MiB/s");
    let mut parent = Agent::of_with(&cluster, &place, "parent", &["--upload-rate", "12MiB/s"]);
    let (getting, _) = start_get(&parent, &origin, "/f", &place);
    getting.wait().done();
    let before = origin.counters();
    let child = Agent::of_with(&cluster, &place, "child", &["--log", "info,dfs_peer=debug"]);
    let (getting, output) = start_get(&child, &origin, "/f", &place);
    until("the child takes from the parent", || parent.metric("dfs_node_served_bytes_total") > MIB);
    assert!(child.cached(length) < length, "the transfer is under way");
    parent.kill();
    let said = getting.wait().done().json().unwrap();
    assert!(fs::read(&output).unwrap() == all(&body));
    let account = Account::of(&said["ledger"]);
    assert!(account.peers > 0 && account.peers < length && account.seed > 0, "{account:?}");
    assert_eq!(account.total(), length);
    // It noticed by itself, or was told by whoever leases.
    let log = child.log();
    let has_noticed = ["a parent did not deliver", "a lease came to nothing"]
        .iter()
        .any(|word| log.contains(word));
    assert!(has_noticed, "the child noticed nothing");
    assert_eq!(origin.counters(), before, "the seed has everything: the origin is not asked");
}

#[test]
fn a_parent_that_hangs_in_the_middle_costs_latency_only() {
    let place = Place::new();
    let body = Body::noise(7, 32 * MIB);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let cluster = slow_seed(&place, "12MiB/s");
    let parent = Agent::of_with(&cluster, &place, "parent", &["--upload-rate", "12MiB/s"]);
    let (getting, _) = start_get(&parent, &origin, "/f", &place);
    getting.wait().done();
    let before = origin.counters();
    let child = Agent::of(&cluster, &place, "child");
    let (getting, output) = start_get(&child, &origin, "/f", &place);
    until("the child takes from the parent", || parent.metric("dfs_node_served_bytes_total") > MIB);
    assert!(child.cached(length) < length, "the transfer is under way");
    parent.node.process().freeze();
    getting.wait().done();
    assert!(fs::read(&output).unwrap() == all(&body));
    assert_eq!(origin.counters(), before, "the seed has everything: the origin is not asked");
    parent.node.process().thaw();
}

#[test]
fn a_parent_that_sends_wrong_bytes_is_dropped_and_the_reader_never_notices() {
    let place = Place::new();
    let body = Body::noise(8, 32 * MIB);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let cluster = slow_seed(&place, "12MiB/s");
    let liar = Agent::of(&cluster, &place, "liar");
    let (getting, _) = start_get(&liar, &origin, "/f", &place);
    getting.wait().done();
    let spoilt = spoil(liar.data(), length);
    let before = origin.counters();
    let victim = Agent::of_with(&cluster, &place, "victim", &["--log", "info,dfs_peer=debug"]);
    let (getting, output) = start_get(&victim, &origin, "/f", &place);
    let said = getting.wait().done().json().unwrap();
    assert!(fs::read(&output).unwrap() == all(&body), "after {spoilt} groups were spoilt");
    assert_eq!(Account::of(&said["ledger"]).peers, 0, "nothing of the liar was kept: {said}");
    assert!(liar.metric("dfs_node_served_bytes_total") > 0, "the liar was asked");
    assert!(victim.log().contains("BadDigest"), "and found out");
    let blacklisted = "dfs_scheduler_decisions_total{decision=\"blacklist\"}";
    until("the scheduler knows", || {
        cluster.process().metric(blacklisted).is_ok_and(|times| times > 0.0)
    });
    // Who comes later is not even sent there.
    let lied = liar.metric("dfs_node_served_bytes_total");
    let later = Agent::of(&cluster, &place, "later");
    let (getting, output) = start_get(&later, &origin, "/f", &place);
    getting.wait().done();
    assert!(fs::read(&output).unwrap() == all(&body));
    assert_eq!(liar.metric("dfs_node_served_bytes_total"), lied);
    assert_eq!(origin.counters(), before, "the seed has everything: the origin is not asked");
}

/// Changes one byte in every 64 KiB of the content of the one task of this length that an agent keeps.
pub fn spoil(data: &Path, length: u64) -> u64 {
    let file = contents(data).into_iter().find(|path| fs::metadata(path).unwrap().len() == length);
    let file = File::options().read(true).write(true).open(file.unwrap()).unwrap();
    let mut spoilt = 0;
    for at in (100..length).step_by(65_536) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        spoilt += 1;
    }
    spoilt
}

/// The content files below a data directory.
pub fn contents(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&path));
        } else if path.file_name().is_some_and(|name| name == "content") {
            found.push(path);
        }
    }
    found
}

#[test]
fn bytes_that_rot_on_the_disk_are_found_by_verify_and_fetched_again() {
    let place = Place::new();
    let body = Body::noise(9, 4 * MIB);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    agent.dfctl(&["cat", &origin.url("/f")]).done();
    agent.dfctl(&["cache", "verify"]).done();
    spoil(agent.data(), length);
    agent.dfctl(&["cache", "verify"]).fails(6, "DFS-3104");
    let said = agent.dfctl(&["cat", &origin.url("/f")]).done();
    assert!(said.stdout == all(&body));
    assert_eq!(origin.counters().body_bytes, 2 * length, "all of it was bad, all of it came again");
}

#[test]
fn a_frozen_cluster_delays_nobody_for_ever() {
    let place = Place::new();
    let bytes = noise(10, 9_000_000);
    let origin = Origin::of("/d/f", Body::bytes(bytes.clone())).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    cluster.process().freeze();
    let path = dir.join("f");
    let read = std::thread::spawn(move || fs::read(path));
    assert!(read.join().unwrap().unwrap() == bytes);
    assert!(Account::of_mount(&agent).source > 0, "the origin helped");
    assert!(is_mounted(&dir));
    cluster.process().thaw();
}

#[test]
fn an_agent_that_never_met_its_cluster_reads_the_origin_itself() {
    let place = Place::new();
    let body = Body::noise(3, 300_000);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let nobody = dfs_tests::process::FreeAddress::new().unwrap();
    let node = Node::spawn(&binaries(), place.root(), "a", Some(nobody.at()), &[]).unwrap();
    let agent = Agent::around(node);
    until("it answers", || agent.dfctl(&["mounts"]).code == 0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| agent.dfctl(&["cat", &origin.url("/f")]).done());
        until("it has gone to the origin", || reading.is_finished());
        assert!(reading.join().unwrap().stdout == all(&body));
    });
}
