//! Clusters whose connections are protected: who joins gets a certificate, who has none gets nothing, and
//! certificates are renewed under way. On loopback, where it has to be asked for; on addresses of their own the
//! machines of the testbed do the same.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use dfs_tests::cluster::{Way, join_token, part_by};
use dfs_tests::process::Said;
use dfs_tests::{Body, Cluster, Fault, Node, Origin, Process};

use crate::support::ledger::Account;
use crate::support::site::visitor;
use crate::support::{Agent, Expected, Place, Running, all, binaries, until};

const MIB: u64 = 1 << 20;

/// How long a process may take to say no and end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with certificates in one process.
fn cluster(place: &Place, extra: &[&str]) -> Cluster {
    Cluster::start_with(&binaries(), place.root(), &[&["--tls"], extra].concat()).unwrap()
}

fn token(place: &Place, role: &str) -> String {
    join_token(&binaries(), &place.path("cluster"), role, 1).unwrap()
}

/// A node that joins with this token.
fn joining(place: &Place, name: &str, token: &str) -> Node {
    let way = Some(Way::Join(token.to_owned()));
    Node::spawn_by(&binaries(), place.root(), name, way, &[]).unwrap()
}

fn joined(place: &Place, name: &str) -> Agent {
    let mut node = joining(place, name, &token(place, "node"));
    node.wait_ready().unwrap();
    Agent::around(node)
}

/// What a node that was not let in says, and its exit code.
fn refused(place: &Place, name: &str, token: &str) -> (i32, String) {
    let mut node = joining(place, name, token);
    let status = node.process_mut().wait_ended(PATIENCE).unwrap();
    (status.code().unwrap_or(-1), node.process().log())
}

/// What somebody answers to `words`, who may also just hang up.
fn answer(at: SocketAddr, words: &[u8]) -> Vec<u8> {
    // The tests are no part of the programs, whose dialer is the one that connects.
    #[allow(clippy::disallowed_methods)]
    let mut stream = std::net::TcpStream::connect(at).unwrap();
    let mut answer = Vec::new();
    // Whoever hangs up says no in another way.
    let _ = stream.write_all(words).and_then(|()| stream.read_to_end(&mut answer));
    answer
}

#[test]
fn machines_that_joined_share_a_file_and_others_get_nothing() {
    let place = Place::new();
    let body = Body::noise(11, 4 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let cluster = cluster(&place, &[]);
    let at = cluster.address().unwrap();
    let agents = ["a", "b"].map(|name| joined(&place, name));
    for agent in &agents {
        let out = place.path(&format!("{}.out", agent.node.name()));
        agent.dfctl(&["get", &origin.url("/d/f"), "-o", out.to_str().unwrap()]).done();
        assert!(fs::read(&out).unwrap() == all(&body), "wrong bytes");
    }
    let sent = origin.counters().body_bytes;
    assert!(sent <= length + length / 20, "one copy and little more: {sent}");
    let dir = agents[1].mount(&origin.url("/d/"), place.dir("mount"));
    assert!(fs::read(dir.join("f")).unwrap() == all(&body), "wrong bytes");
    for agent in &agents {
        assert_eq!(agent.metric("dfs_node_source_bytes_total"), 0);
    }
    let said = agents[0].dfctl(&["why", &origin.url("/d/f"), "--format", "json"]).done();
    let peers = said.json().unwrap()["items"][0]["peers"].clone();
    let is_there = |name| peers.as_array().unwrap().iter().any(|peer| peer["node"] == name);
    assert!(is_there("a") && is_there("b"), "{peers}");

    // A client of HTTP/2, and one of the piece plane, that do not speak TLS: an alert is all they hear.
    let pieces = cluster.process().address("pieces").unwrap();
    let of_node = agents[0].node.process().address("pieces").unwrap();
    for (at, words) in [
        (at, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]),
        (pieces, &[0; 64][..]),
        (of_node, &[0; 64][..]),
    ] {
        let heard = answer(at, words);
        assert!(matches!(heard[..], [] | [21, 3, ..]), "{heard:?}");
    }

    // And our own commands, without a certificate.
    let out = place.path("stranger.out");
    let mut stranger = visitor(&place, at, "stranger");
    stranger.args(["get", &origin.url("/d/f"), "-o"]).arg(&out);
    let said = Said::by(&mut stranger).unwrap().fails(5, "DFS-4119");
    assert!(said.stderr.contains("join the cluster first"), "{}", said.stderr);
    assert!(!out.exists());
    let said = Said::by(visitor(&place, at, "stranger").args(["top", "--once"])).unwrap();
    said.fails(5, "DFS-4119");
}

#[test]
fn a_command_without_an_agent_is_a_guest_of_the_machine_that_joined() {
    let place = Place::new();
    let body = Body::noise(12, MIB + 9);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let cluster = cluster(&place, &[]);
    let at = cluster.address().unwrap();
    joined(&place, "own").terminate();
    let out = place.path("out");
    let mut guest = visitor(&place, at, "own");
    guest.args(["get", &origin.url("/f"), "-o"]).arg(&out);
    let said = Said::by(&mut guest).unwrap().done();
    assert!(said.stderr.contains("a peer of"), "{}", said.stderr);
    assert!(fs::read(&out).unwrap() == all(&body), "wrong bytes");
    assert_eq!(origin.counters().body_bytes, MIB + 9);
    // Of what it looks at in the cluster it is one of the cluster, too.
    let page = Said::by(visitor(&place, at, "own").args(["top", "--once"])).unwrap().done().text();
    assert!(page.contains(&origin.url("/f")[..20]), "{page}");
}

#[test]
fn a_token_is_good_for_one_machine_and_for_its_time_and_its_role() {
    let place = Place::new();
    let mut cluster = cluster(&place, &[]);
    let one = token(&place, "node");
    let mut first = joining(&place, "first", &one);
    first.wait_ready().unwrap();
    let (code, log) = refused(&place, "second", &one);
    assert!(code == 4 && log.contains("used already") && log.contains("DFS-4121"), "{code}\n{log}");
    assert!(log.contains("dfctl cluster join-token"), "{log}");

    let (code, log) = refused(&place, "third", &token(&place, "seed"));
    assert!(code == 4 && log.contains("for a seed, not for a node"), "{code}\n{log}");

    let mut short = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
    short.args(["cluster", "join-token", "-q", "--ttl", "1ms", "--data-dir"]);
    let short = Said::by(short.arg(place.path("cluster"))).unwrap().done().text();
    let (code, log) = refused(&place, "fourth", short.trim());
    assert!(code == 4 && log.contains("has expired"), "{code}\n{log}");

    let (code, log) = refused(&place, "fifth", &one[..one.len() - 2]);
    assert!(code == 2 && log.contains("not whole"), "{code}\n{log}");
    assert!(!log.contains(&one[5..one.len() - 2]), "it prints what may be a secret\n{log}");

    // The one that has joined comes back with the same words, and the token is not in the way.
    first.process_mut().restart().unwrap();
    // A manager that comes back has the same authority, and knows which tokens were used.
    cluster.keep_ports().unwrap();
    cluster.process_mut().restart().unwrap();
    let (code, log) = refused(&place, "sixth", &one);
    assert!(code == 4 && log.contains("used already"), "{code}\n{log}");
    let mode = |path: &str| fs::metadata(place.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("cluster/authority.json"), 0o600);
    assert_eq!(mode("first/certificate.json"), 0o600);
}

#[test]
fn of_two_machines_with_one_token_exactly_one_gets_in() {
    let place = Place::new();
    let _cluster = cluster(&place, &[]);
    let one = token(&place, "node");
    let mut both = ["a", "b"].map(|name| joining(&place, name, &one));
    until("one is in and the other is not", || {
        let ended = both.iter_mut().filter_map(|node| node.process_mut().has_ended()).count();
        let has_joined = |name| place.path(name).join("certificate.json").exists();
        assert!(ended < 2, "nobody got in");
        ended == 1 && (has_joined("a") || has_joined("b"))
    });
    assert_ne!(
        place.path("a/certificate.json").exists(),
        place.path("b/certificate.json").exists()
    );
}

#[test]
fn a_cluster_on_loopback_has_no_tokens_and_says_how_it_gets_some() {
    let place = Place::new();
    let _cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let mut asking = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
    asking.args(["cluster", "join-token", "--data-dir"]).arg(place.path("cluster"));
    let said = Said::by(&mut asking).unwrap().fails(2, "DFS-4123");
    assert!(said.stderr.contains("--listen"), "{}", said.stderr);
    assert!(!place.path("cluster/authority.json").exists());
}

/// When the certificate that is kept in `dir` ends.
fn ends(dir: &Path) -> u64 {
    let text = fs::read(dir.join("certificate.json")).unwrap_or_default();
    let kept: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    kept["validity"]["not-after-ms"].as_u64().unwrap_or(0)
}

#[test]
fn certificates_are_renewed_while_a_transfer_goes_on() {
    let place = Place::new();
    let body = Body::noise(13, 24 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let config = place.path("cluster.toml");
    fs::write(&config, "[members]\ncertificate-lifetime = \"9s\"\n").unwrap();
    let cluster = cluster(&place, &["--config", config.to_str().unwrap()]);
    let agent = joined(&place, "a");
    let pace = origin.inject(Fault::pace(MIB));
    let out = place.path("out");
    let url = origin.url("/f");
    let getting = agent.dfctl_start(&["get", &url, "-o", out.to_str().unwrap()]);
    pace.wait_struck(1).unwrap();
    let first = ends(agent.data());
    let mut seen = vec![first];
    until("the node's certificate was renewed twice", || {
        let now = ends(agent.data());
        if now != 0 && seen.last() != Some(&now) {
            seen.push(now);
        }
        seen.len() > 2
    });
    assert!(origin.counters().body_bytes < length, "the transfer was under way all the time");
    // What was there at the beginning has expired, and who comes now is let in by what is there now.
    until("the first certificate is over", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_millis() as u64 > first
    });
    let late = joined(&place, "late");
    let small = Body::noise(14, MIB);
    origin.put("/small", small.clone());
    pace.lift();
    getting.wait().done();
    assert!(fs::read(&out).unwrap() == all(&body), "wrong bytes");
    let late_out = place.path("late.out");
    late.dfctl(&["get", &origin.url("/small"), "-o", late_out.to_str().unwrap()]).done();
    assert!(fs::read(&late_out).unwrap() == all(&small), "wrong bytes");
    assert!(cluster.process().metric("dfs_manager_certificates_total").unwrap() >= 4.0);
    assert!(origin.counters().body_bytes <= length + length / 20 + 2 * MIB);
}

#[test]
fn a_guest_that_stays_long_has_another_certificate() {
    let place = Place::new();
    let body = Body::noise(17, 24 * MIB + 9);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let config = place.path("cluster.toml");
    fs::write(&config, "[members]\ncertificate-lifetime = \"6s\"\n").unwrap();
    let mut cluster = cluster(&place, &["--config", config.to_str().unwrap()]);
    let at = cluster.address().unwrap();
    let _agent = joined(&place, "a");
    let pace = origin.inject(Fault::pace(MIB));
    let out = place.path("out");
    let mut guest = visitor(&place, at, "a");
    guest.args(["get", &origin.url("/f"), "--format", "json", "-o"]).arg(&out);
    let getting = Running::start(guest);
    pace.wait_struck(1).unwrap();
    let began = std::time::Instant::now();
    until("its first certificate is over", || began.elapsed().as_secs() > 6);
    assert!(origin.counters().body_bytes < length / 2, "too late");
    // Whoever was connected has to show a certificate again.
    cluster.keep_ports().unwrap();
    cluster.process_mut().restart().unwrap();
    pace.lift();
    let said = getting.wait().done();
    assert!(fs::read(&out).unwrap() == all(&body), "wrong bytes");
    let account = Account::of(&said.json().unwrap()["ledger"]);
    assert_eq!(account.source, 0, "{account:?}");
}

#[test]
fn a_node_goes_on_without_its_manager_and_says_when_its_certificate_is_over() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(15, MIB)).unwrap();
    let config = place.path("cluster.toml");
    fs::write(&config, "[members]\ncertificate-lifetime = \"6s\"\n").unwrap();
    let mut cluster = cluster(&place, &["--config", config.to_str().unwrap()]);
    let mut agent = joined(&place, "a");
    let url = origin.url("/f");
    let get = |agent: &Agent, name: &str| {
        agent.dfctl(&["get", &url, "-o", place.path(name).to_str().unwrap()]).done()
    };
    get(&agent, "before");
    cluster.process_mut().kill();
    until("it says that its certificate is over", || agent.log().contains("has expired"));
    assert!(agent.log().contains("--join JOIN-TOKEN"), "{}", agent.log());
    get(&agent, "after");
    // It comes back with what it holds, too.
    agent.kill();
    agent.node.process_mut().program_mut().arguments.retain(|word| {
        let word = word.to_string_lossy();
        word != "--join" && !word.starts_with("dfs1-")
    });
    agent.start_again();
    get(&agent, "again");
    assert_eq!(origin.counters().body_bytes, MIB, "what is here stays usable");
}

#[test]
fn roles_of_their_own_join_with_tokens_of_theirs() {
    let place = Place::new();
    let body = Body::noise(16, 2 * MIB + 9);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let start = |name: &str, role: &str, way: Option<Way>, extra: &[&str]| {
        let program = part_by(place.root(), name, role, way, extra).unwrap();
        Process::start(&binaries(), program).unwrap()
    };
    let manager = start("cluster", "manager", None, &["--tls"]);
    let join = |role: &str| Some(Way::Join(token(&place, role)));
    let mut scheduler = start("scheduler", "scheduler", join("scheduler"), &[]);
    scheduler.keep_ports(&["grpc"]).unwrap();
    let _seed = start("seed", "seed", join("seed"), &[]);
    until("the manager knows both", || {
        manager.metric("dfs_manager_members").is_ok_and(|members| members >= 2.0)
    });
    let agent = joined(&place, "node");
    let get = |name: &str| {
        let out = place.path(name);
        agent.dfctl(&["get", &origin.url("/f"), "-o", out.to_str().unwrap()]).done();
        assert!(fs::read(&out).unwrap() == all(&body), "wrong bytes");
    };
    get("first");
    assert_eq!(agent.metric("dfs_node_source_bytes_total"), 0);
    scheduler.restart().unwrap();
    get("second");

    // A token of a node makes nobody a scheduler.
    let program = part_by(place.root(), "false", "scheduler", join("node"), &[]).unwrap();
    let mut other = Process::spawn(&binaries(), program).unwrap();
    let status = other.wait_ended(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(4), "{}", other.log());
    assert!(other.log().contains("--role scheduler"), "{}", other.log());
}

#[test]
fn a_process_without_a_certificate_neither_listens_for_others_nor_dials_them() {
    let place = Place::new();
    let listening = Node::spawn(
        &binaries(),
        place.root(),
        "a",
        None,
        &["--listen", "0.0.0.0", "--advertise", "192.0.2.1:4001"],
    );
    let mut listening = listening.unwrap();
    let status = listening.process_mut().wait_ended(PATIENCE).unwrap();
    let log = listening.process().log();
    assert!(status.code() == Some(2) && log.contains("--join JOIN-TOKEN"), "{status}\n{log}");
    let mut reaching = visitor(&place, "192.0.2.1:4000".parse().unwrap(), "b");
    reaching.args(["cat", "http://192.0.2.1/f"]);
    Running::start(reaching).wait().fails(5, "DFS-4119");
}
