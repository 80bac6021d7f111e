//! Many small files: few calls, few requests, whoever has them.

use std::fs;
use std::path::Path;

use dfs_tests::{Cluster, Fault, Origin};
use serde_json::Value;

use crate::support::ledger::Account;
use crate::support::site::Site;
use crate::support::trees;
use crate::support::{Agent, Place, binaries};

const FILES: usize = 500;

/// A directory of small files; gives its bytes.
fn small_files(root: &Path) -> u64 {
    let length = |number: usize| 1024 + number * 7919 % (15 << 10);
    for number in 0..FILES {
        let path = root.join(format!("d{}/file {number}", number / 100));
        trees::put(&path, &trees::noise(number as u64 + 1, length(number)));
    }
    (0..FILES).map(|number| length(number) as u64).sum()
}

fn get(agent: &Agent, origin: &Origin, out: &Path) -> Account {
    Account::of(&ledger(agent, origin, out))
}

fn ledger(agent: &Agent, origin: &Origin, out: &Path) -> Value {
    let url = origin.url("/");
    let words = ["get", "-r", &url, "-o", out.to_str().unwrap(), "--format", "json"];
    let said = agent.dfctl(&words);
    let saved = said.json().unwrap();
    assert_eq!(saved["files"], FILES, "{saved}");
    saved["ledger"].clone()
}

#[test]
fn each_request_for_a_file_is_told_also_where_many_files_are_got_in_one_call() {
    let place = Place::new();
    let source = place.dir("source");
    small_files(&source);
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let told = ledger(&agent, &origin, &place.path("out"));
    let pages = 1 + FILES.div_ceil(100) as u64;
    assert_eq!(told["source_requests"], origin.counters().method("GET") - pages, "{told}");
    let again = ledger(&agent, &origin, &place.path("again"));
    assert_eq!(again["source_requests"], 0, "{again}");
}

#[test]
fn small_files_leave_the_origin_once_and_the_next_node_has_them_from_its_neighbour() {
    let place = Place::new();
    let source = place.dir("source");
    let bytes = small_files(&source);
    let origin = Origin::of_directory(&source).unwrap();
    let mut site = Site::start(&place);
    let agents = ["a", "b"].map(|name| site.agent(&place, name));
    let (first, next) = (place.path("first"), place.path("next"));

    let account = get(&agents[0], &origin, &first);
    trees::assert_same(&first, &source);
    assert_eq!(account, Account { seed: bytes, ..Account::default() });
    let (counters, files) = (origin.counters(), FILES as u64);
    assert_eq!(counters.body_bytes, bytes, "one copy");
    // A file that lies across the end of what is read at a time is asked for in two parts; few do.
    let (pages, parted) = (1 + files.div_ceil(100), files / 20);
    let gets = counters.method("GET");
    assert!(gets <= files + pages + parted, "{gets} GETs of {files} files: {:?}", counters.methods);

    // Nobody else is left who has them.
    site.seed.kill();
    let account = get(&agents[1], &origin, &next);
    trees::assert_same(&next, &source);
    assert_eq!(account, Account { peers: bytes, ..Account::default() });
    assert_eq!(origin.counters().body_bytes, bytes, "the origin sends nothing again");
    assert_eq!(get(&agents[1], &origin, &place.path("again")).cache, bytes);
}

#[test]
fn small_files_that_the_origin_refuses_are_named_and_the_others_are_saved() {
    let place = Place::new();
    let source = place.dir("source");
    small_files(&source);
    let origin = Origin::of_directory(&source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "a");
    let refused = ["d1/file 107", "d2/file 200"];
    let refuse = |path| Fault::status(403).on(&format!("/{path}")).method("GET");
    let faults = refused.map(|path| origin.inject(refuse(path)));
    let (url, out) = (origin.url("/"), place.path("out"));
    let said = agent.dfctl(&["get", "-r", &url, "-o", out.to_str().unwrap()]);
    assert_eq!(said.code, 8, "{}", said.stderr);
    assert!(said.stderr.contains("2 entries"), "{}", said.stderr);
    for (path, fault) in refused.iter().zip(faults) {
        assert!(fault.struck() > 0 && said.stderr.contains(path), "{}", said.stderr);
        fs::remove_file(source.join(path)).unwrap();
    }
    trees::assert_same(&out, &source);
}
