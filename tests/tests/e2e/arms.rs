//! Strategies beside each other in one cluster, and what is told of them.

use std::collections::BTreeMap;
use std::fs;

use dfs_model::{CanonicalUrl, RouteKey, TaskKey};
use dfs_tests::{Body, Cluster, Origin};
use serde_json::Value;

use crate::support::{Agent, Expected, Place, all, binaries, until};

const KIB: u64 = 1 << 10;

/// Tasks of each arm.
const TASKS: usize = 3;

/// Half of all tasks are decided about by another strategy.
fn halved(place: &Place) -> Cluster {
    let config = place.path("cluster.toml");
    let arms = "[scheduler.arms]\nnear = { strategy = \"seed004+\", share = \"50%\" }\n";
    fs::write(&config, arms).unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    Cluster::start_with(&binaries(), place.root(), &extra).unwrap()
}

/// The arm that a URL is drawn into, as any program can tell.
fn arm_of(url: &str) -> &'static str {
    let key = RouteKey::of(TaskKey::PUBLIC, &CanonicalUrl::parse(url).unwrap());
    if key.drawn_of(10_000) < 5_000 { "near" } else { "default" }
}

/// Paths at the origin, so many of each arm, the first of each long enough to be led by leases.
fn some_of_each(origin: &Origin) -> Vec<String> {
    let mut chosen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut names = (0..).map(|n: u32| format!("/f{n}"));
    while ["near", "default"].iter().any(|arm| chosen.get(arm).map_or(0, Vec::len) < TASKS) {
        let path = names.next().unwrap();
        let of_arm = chosen.entry(arm_of(&origin.url(&path))).or_default();
        if of_arm.len() < TASKS {
            let length = if of_arm.is_empty() { 6 << 20 } else { 300 * KIB };
            origin.put(&path, Body::noise(7, length));
            of_arm.push(path);
        }
    }
    chosen.into_values().flatten().collect()
}

fn get(agent: &Agent, origin: &Origin, path: &str, place: &Place) {
    let output = place.path(&format!("out-{}", agent.node.name()));
    let _ = fs::remove_file(&output);
    agent.dfctl(&["get", &origin.url(path), "-o", output.to_str().unwrap()]).done();
    let wanted = if fs::metadata(&output).unwrap().len() > KIB << 10 { 6 << 20 } else { 300 * KIB };
    assert!(fs::read(&output).unwrap() == all(&Body::noise(7, wanted)), "{path}");
}

/// What `dfctl scheduler compare` says to programs, by arm.
fn compared(agent: &Agent) -> BTreeMap<String, Value> {
    let words = ["scheduler", "compare", "--format", "json"];
    let said = agent.dfctl(&words).done().json().unwrap();
    assert_eq!(said["kind"], "arms", "{said}");
    let arms = said["items"].as_array().unwrap().iter();
    arms.map(|arm| (arm["arm"].as_str().unwrap().to_owned(), arm.clone())).collect()
}

/// Waits until each arm has heard of so many results of so many tasks.
fn heard(agent: &Agent, tasks: usize, hosts: usize) -> BTreeMap<String, Value> {
    let has_all = |arm: &Value, measure: &str| {
        let result = &arm["results"][measure];
        (&result["urls"], &result["n"]) == (&tasks.into(), &(tasks * hosts).into())
    };
    until("all results are in", || {
        let arms = compared(agent);
        let measures = ["failed", "completion_ms", "source_bytes", "crossed_bytes"];
        arms.len() == 2
            && arms.values().all(|arm| measures.iter().all(|measure| has_all(arm, measure)))
    });
    compared(agent)
}

/// The arm and the strategy of a task, as the scheduler says.
fn told_arm(agent: &Agent, origin: &Origin, path: &str) -> Option<(String, String)> {
    let said = agent.dfctl(&["why", &origin.url(path), "--format", "json"]);
    let said = (said.code == 0).then(|| said.json().unwrap())?;
    let text = |key: &str| said["items"][0][key].as_str().unwrap_or_default().to_owned();
    Some((text("arm"), text("strategy")))
}

fn expected(origin: &Origin, path: &str) -> (String, String) {
    let arm = arm_of(&origin.url(path));
    let strategy = if arm == "near" { "seed004+" } else { "swarm" };
    (arm.to_owned(), strategy.to_owned())
}

#[test]
fn arms_divide_the_tasks_and_their_results_are_compared() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let paths = some_of_each(&origin);
    let mut cluster = halved(&place);
    cluster.keep_ports().unwrap();
    let agents = ["a", "b"].map(|name| Agent::of(&cluster, &place, name));
    for (path, agent) in paths.iter().flat_map(|path| agents.iter().map(move |one| (path, one))) {
        get(agent, &origin, path, &place);
    }
    let arms = heard(&agents[0], TASKS, agents.len());
    let near = &arms["near"];
    assert_eq!((&near["strategy"], &near["share"]), (&"seed004+".into(), &0.5.into()), "{near}");
    assert_eq!(arms["default"]["strategy"], "swarm");
    // The seed read every task once, for two hosts.
    let once = (6 * (KIB << 10) + 2 * 300 * KIB) as f64 / (TASKS * agents.len()) as f64;
    for (name, arm) in &arms {
        let results = &arm["results"];
        assert_eq!(results["failed"]["mean"], 0.0, "{name}: {arm}");
        let source = results["source_bytes"]["mean"].as_f64().unwrap();
        assert!((source - once).abs() < 1.0, "{name}: {source}, not {once}");
        let took = &results["completion_ms"];
        assert!(took["mean"].as_f64() >= Some(1.0) && took["p95"].as_f64() > Some(0.0), "{arm}");
        assert!(took["low"].as_f64() <= took["high"].as_f64(), "{arm}");
    }
    assert_eq!(near["results"]["failed"]["difference"]["significant"], Value::Null, "{near}");
    let page = agents[0].dfctl(&["scheduler", "compare"]).done().text();
    assert!(page.contains("too few: 3 of 10 URLs"), "{page}");
    let metric = "dfs_scheduler_arm_results_total{arm=\"near\",result=\"success\"}";
    assert_eq!(cluster.process().metric(metric).unwrap(), (TASKS * agents.len()) as f64);
    let moved = "dfs_scheduler_arm_moved_bytes_total{arm=\"near\",from=\"source\"}";
    let moved = cluster.process().metric(moved).unwrap();
    assert_eq!(moved, once * (TASKS * agents.len()) as f64);
    agents[0].dfctl(&["scheduler", "compare", "--against", "far"]).fails(2, "DFS-1001");
    for path in &paths {
        assert_eq!(told_arm(&agents[0], &origin, path).unwrap(), expected(&origin, path));
    }

    cluster.process_mut().kill();
    cluster.process_mut().restart().unwrap();
    // What hosts announce again is in the arm that it was in; what came of it before is forgotten.
    for path in &paths {
        until("the task is known again", || {
            told_arm(&agents[0], &origin, path) == Some(expected(&origin, path))
        });
    }
    let late = Agent::of(&cluster, &place, "late");
    paths.iter().for_each(|path| get(&late, &origin, path, &place));
    heard(&late, TASKS, 1);
}

#[test]
fn reads_that_wait_are_counted_and_a_cluster_without_arms_has_one() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(8, 700 * KIB)).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let node = Agent::of(&cluster, &place, "node");
    let dir = node.mount(&origin.url("/d/"), place.path("mount"));
    assert!(fs::read(dir.join("f")).unwrap() == all(&Body::noise(8, 700 * KIB)));
    until("the scheduler has heard that a read waited", || {
        let arms = compared(&node);
        let blocked = &arms["default"]["results"]["blocked_us"];
        arms.len() == 1 && blocked["n"].as_u64() > Some(0) && blocked["mean"].as_f64() > Some(0.0)
    });
    let said = node.dfctl(&["scheduler", "compare"]).done();
    assert!(said.stderr.contains("no arms are configured"), "{}", said.stderr);
    let alone = Agent::solo(&place, "alone");
    alone.dfctl(&["scheduler", "compare"]).fails(5, "DFS-4119");
}

#[test]
fn shares_beyond_all_tasks_are_refused_in_one_line() {
    let place = Place::new();
    let config = place.path("cluster.toml");
    let arms = "[scheduler.arms]\n\
                a = { strategy = \"random\", share = \"60%\" }\n\
                b = { strategy = \"seed004\", share = \"60%\" }\n";
    fs::write(&config, arms).unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    let refused = Cluster::start_with(&binaries(), place.root(), &extra).unwrap_err().to_string();
    assert!(refused.contains("120% together, beyond 100%"), "{refused}");
}
