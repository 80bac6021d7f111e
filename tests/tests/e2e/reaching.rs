//! A cluster that is named by its address: what is said where nobody, or somebody else, is there.

use std::fs;
use std::path::Path;

use dfs_tests::process::FreeAddress;
use dfs_tests::{Body, Cluster, Mount, Origin};

use crate::support::{Agent, Expected, Place, binaries, dfctl_at, is_mounted, until};

/// What the agent that lives in `data` announced, as long as it runs.
fn announced(data: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(data.join("run.json")).ok()?).ok()
}

/// Ends the agent that a mount started in `data`.
fn end_agent(data: &Path) {
    let pid = announced(data).unwrap()["pid"].as_u64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it has gone", || announced(data).is_none());
}

#[test]
fn a_mount_without_the_cluster_is_not_given_to_an_agent_that_is_in_it() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::bytes(b"content".to_vec())).unwrap();
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let member = Agent::of(&cluster, &place, "member");
    let (dir, url) = (place.dir("mount"), origin.url("/d/"));
    let words = ["--solo", "mount", &url, dir.to_str().unwrap()];
    let said = member.dfctl(&words).fails(2, "DFS-4112");
    assert!(said.stderr.contains("--data-dir DIR"), "{}", said.stderr);
    assert_eq!(origin.counters().requests, 0);
    let alone = Agent::solo(&place, "alone");
    alone.dfctl(&words).done();
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"content");
    alone.dfctl(&["umount", dir.to_str().unwrap()]).done();
}

#[test]
fn a_mount_in_a_cluster_that_is_not_there_starts_nothing_and_says_who_is_there() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let (data, dir) = (place.path("data"), place.dir("mount"));
    let _guard = Mount::guard(&dir);
    let web = origin.url("/").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let free = FreeAddress::new().unwrap();
    let nobody = free.at().to_string();
    let by_name = format!("localhost:{}", nobody.rsplit_once(':').unwrap().1);
    for (cluster, why) in [
        (&*web, "a web server answers there"),
        ("no-such-host.invalid:4000", "no-such-host.invalid"),
        (&nobody, "connection refused"),
        (&by_name, "connection refused"),
    ] {
        let socket = place.path("agent.sock");
        let url = origin.url("/d/");
        let words = ["--data-dir", data.to_str().unwrap(), "--cluster", cluster];
        let mount = ["mount", &url, dir.to_str().unwrap()];
        let said = dfctl_at(&socket, &[&words[..], &mount].concat()).fails(5, "DFS-4119");
        let because = said.stderr.lines().find(|line| line.contains("because")).unwrap();
        assert!(because.contains(why), "{}", said.stderr);
        assert!(said.stderr.contains(cluster) && said.stderr.contains("--solo"), "{}", said.stderr);
        let waited = said.stderr.contains(&format!("waiting for the cluster {cluster}"));
        // Resolvers take their time to know of no such name.
        let is_name = cluster.starts_with("no-such-host");
        assert!(is_name || waited == (why == "connection refused"), "{}", said.stderr);
        assert!(announced(&data).is_none() && !is_mounted(&dir), "something was started");
    }
    assert_eq!(origin.counters().body_bytes, 0, "the cluster was gone around");
}

#[test]
fn who_says_solo_mounts_without_the_cluster_that_is_configured() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let (socket, data, dir) = (place.path("agent.sock"), place.path("data"), place.dir("mount"));
    let _guard = Mount::guard(&dir);
    let free = FreeAddress::new().unwrap();
    let nobody = free.at().to_string();
    let words = ["--solo", "--data-dir", data.to_str().unwrap(), "--cluster", &nobody];
    let mount = ["mount", &origin.url("/d/"), dir.to_str().unwrap()];
    dfctl_at(&socket, &[&words[..], &mount].concat()).done();
    assert_eq!(fs::read(dir.join("f")).unwrap().len(), 1_000);
    dfctl_at(&socket, &["umount", dir.to_str().unwrap()]).done();
    end_agent(&data);
}

#[test]
fn a_cluster_is_named_by_its_host_wherever_it_is_named() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 100_000)).unwrap();
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let port = cluster.address().unwrap().port();
    let (by_name, by_number) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let (data, dir) = (place.path("data"), place.dir("mount"));
    let _guard = Mount::guard(&dir);
    let agent = place.path("agent.sock");
    let dfctl = |words: &[&str]| {
        dfctl_at(&agent, &[&["--data-dir", data.to_str().unwrap()], words].concat())
    };
    let url = origin.url("/d/");
    dfctl(&["mount", "--cluster", &by_name, &url, dir.to_str().unwrap()]).done();
    // The agent knows it by its name; it is the same one by its number.
    for named in [&by_name, &by_number] {
        dfctl(&["ls", "--cluster", named, &url]).done();
        let status = dfctl_at(&agent, &["cluster", "status", "--cluster", named]).done();
        assert!(status.text().contains(named), "{}", status.text());
    }
    dfctl(&["ls", "--cluster", "localhost:1", &url]).fails(2, "DFS-4112");
    dfctl(&["cluster", "status"]).fails(3, "DFS-4107");
    dfctl(&["umount", dir.to_str().unwrap()]).done();
    end_agent(&data);
    // Without an agent the command itself takes part.
    let alone = place.path("alone");
    let mut command = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
    let words = ["cat", "--cluster", &by_name, &origin.url("/d/f"), "--data-dir"];
    command.env_remove("DFS_SOCKET").args(words).arg(&alone);
    let said = dfs_tests::process::Said::by(&mut command).unwrap().done();
    assert_eq!(said.stdout.len(), 100_000);
}

#[test]
fn an_agent_whose_clusters_name_cannot_be_looked_up_works_without_it_and_says_so() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 1_000)).unwrap();
    let agent = Agent::solo_with(&place, "agent", &["--cluster", "no-such-host.invalid:4000"]);
    until("the agent warns", || {
        let log = agent.log();
        let is_of_the_name = |line: &str| line.contains("WARN") && line.contains("is looked up");
        log.lines().any(|line| is_of_the_name(line) && line.contains("no-such-host.invalid"))
    });
    assert_eq!(agent.dfctl(&["cat", &origin.url("/f")]).done().stdout.len(), 1_000);
}

#[test]
fn an_agent_whose_cluster_is_away_says_so_in_its_log_and_again_when_it_is_back() {
    let place = Place::new();
    let mut cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    cluster.keep_ports().unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let at = cluster.address().unwrap().to_string();
    cluster.process_mut().kill();
    let warned = |log: &str| {
        let line = log.lines().find(|line| line.contains("the cluster is not reached"))?.to_owned();
        Some(line)
    };
    until("the agent warns", || warned(&agent.log()).is_some());
    let line = warned(&agent.log()).unwrap();
    assert!(line.contains("WARN") && line.contains("connection refused"), "{line}");
    assert!(line.contains(&at), "{line}");
    cluster.process_mut().restart().unwrap();
    until("it is back", || agent.log().contains("the cluster is reached"));
}
