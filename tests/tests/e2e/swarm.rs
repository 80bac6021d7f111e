//! Several nodes and one origin that pays once.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use dfs_tests::{Body, Cluster, Fault, Origin};

use crate::support::ledger::{Account, assert_adds_up};
use crate::support::trees;
use crate::support::{Agent, Expected, Place, binaries};

const MIB: u64 = 1 << 20;

/// At most this many copies may leave the origin.
const COPIES: f64 = 1.05;

fn agents(cluster: &Cluster, place: &Place, names: &[&str]) -> Vec<Agent> {
    names.iter().map(|name| Agent::of(cluster, place, name)).collect()
}

/// Does the same on every agent at once, and gives what came of it.
fn at_once<T: Send>(agents: &[Agent], work: impl Fn(&Agent) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = agents.iter().map(|agent| scope.spawn(move || work(agent))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn three_nodes_read_a_directory_at_once_and_the_origin_sends_it_once() {
    let place = Place::new();
    let source = place.dir("source");
    let content = trees::varied(&source);
    let files = trees::walk(&source).values().filter(|found| found.is_file()).count() as u64;
    let origin = Origin::of_directory(&source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b", "c"]);
    at_once(&agents, |agent| {
        let dir =
            agent.mount(&origin.url("/"), place.path(&format!("mount-{}", agent.node.name())));
        trees::assert_same(&dir, &source);
    });
    let counters = origin.counters();
    let copies = counters.body_bytes as f64 / content as f64;
    assert!(copies <= COPIES, "{copies} copies left the origin");
    // One for each file, and one for the directory itself.
    assert!(
        counters.method("HEAD") <= files + 1,
        "{} stats of {files} files",
        counters.method("HEAD")
    );
    assert_adds_up(&origin, Some(&cluster), &agents.iter().collect::<Vec<_>>());
    for agent in &agents {
        let account = Account::of_mount(agent);
        assert_eq!((account.source, account.cache), (0, 0), "{}: {account:?}", agent.node.name());
        // Members begin at blocks: what lies between them is moved and is nobody's.
        assert_eq!(account.total(), content, "{account:?}");
    }
}

#[test]
fn three_nodes_get_one_large_file_at_once_and_the_origin_sends_it_once() {
    let place = Place::new();
    let body = Body::noise(1, 96 * MIB + 12_345);
    let length = body.length().unwrap();
    let origin = Origin::of("/model.bin", body.clone()).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b", "c"]);
    let accounts = at_once(&agents, |agent| get(agent, &origin, "/model.bin", &place));
    let expected = digest(&body);
    for (agent, (account, output)) in agents.iter().zip(&accounts) {
        assert!(blake3::hash(&fs::read(output).unwrap()) == expected, "{}", agent.node.name());
        assert_eq!((account.total(), account.source), (length, 0), "{account:?}");
    }
    let peers: u64 = accounts.iter().map(|(account, _)| account.peers).sum();
    assert!(peers > 0, "nobody took anything from a neighbour: {accounts:?}");
    let copies = origin.counters().body_bytes as f64 / length as f64;
    assert!(copies <= COPIES, "{copies} copies left the origin");
    assert_eq!(origin.counters().method("HEAD"), 1, "one stat for all");
    assert_adds_up(&origin, Some(&cluster), &agents.iter().collect::<Vec<_>>());
}

/// Gets a path of the origin into a file of the agent's own; gives the account.
fn get(agent: &Agent, origin: &Origin, path: &str, place: &Place) -> (Account, PathBuf) {
    let output = place.path(&format!("out-{}", agent.node.name()));
    let url = origin.url(path);
    let words = ["get", &url, "-o", output.to_str().unwrap(), "--format", "json"];
    let said = agent.dfctl(&words).done().json().unwrap();
    (Account::of(&said["ledger"]), output)
}

fn digest(body: &Body) -> blake3::Hash {
    let length = body.length().unwrap();
    let mut hasher = blake3::Hasher::new();
    for start in (0..length).step_by(MIB as usize) {
        hasher.update(&body.read(start, (start + MIB).min(length)).unwrap());
    }
    hasher.finalize()
}

#[test]
fn a_node_that_comes_late_takes_everything_from_the_swarm() {
    let place = Place::new();
    let body = Body::noise(2, 24 * MIB + 1);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let early = agents(&cluster, &place, &["a", "b", "c"]);
    at_once(&early, |agent| get(agent, &origin, "/f", &place));
    let before = origin.counters();
    let late = Agent::of(&cluster, &place, "late");
    let (account, output) = get(&late, &origin, "/f", &place);
    assert!(blake3::hash(&fs::read(output).unwrap()) == digest(&body));
    assert_eq!((account.source, account.seed + account.peers), (0, body.length().unwrap()));
    assert_eq!(origin.counters(), before, "the origin was not asked for anything");
    // The second time nobody is asked.
    let wire = late.metric("dfs_node_taken_bytes_total");
    let (again, _) = {
        fs::remove_file(place.path("out-late")).unwrap();
        get(&late, &origin, "/f", &place)
    };
    assert_eq!(again, Account { cache: body.length().unwrap(), ..Account::default() });
    assert_eq!(late.metric("dfs_node_taken_bytes_total"), wire);
}

#[test]
fn tiny_files_and_ranges_cost_the_origin_one_copy_too() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let lengths = [0, 1, 4_096, 4_097, 65_536, 65_537];
    for length in lengths {
        origin.put(&format!("/f{length}"), Body::noise(length, length));
    }
    let range = Body::noise(99, 32 * MIB);
    origin.put("/range", range.clone());
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b", "c"]);
    at_once(&agents, |agent| {
        for length in lengths {
            let said = agent.dfctl(&["cat", &origin.url(&format!("/f{length}"))]).done();
            assert!(
                said.stdout == Body::noise(length, length).read(0, length).unwrap(),
                "{length}"
            );
        }
        let url = origin.url("/range");
        let said = agent.dfctl(&["get", &url, "-o", "-", "--range", "20000000-20099999"]).done();
        assert!(said.stdout == range.read(20_000_000, 20_100_000).unwrap());
    });
    let counters = origin.counters();
    for length in lengths {
        let sent = counters.path(&format!("/f{length}")).body_bytes;
        assert_eq!(sent, length, "of /f{length}");
    }
    let sent = counters.path("/range").body_bytes;
    assert!(sent <= 8 * MIB, "{sent} bytes for a range of 100 000");
    assert_adds_up(&origin, Some(&cluster), &agents.iter().collect::<Vec<_>>());
}

#[test]
fn a_tiny_file_comes_with_the_answer_to_what_it_is() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    for length in [4_096, 4_097] {
        origin.put(&format!("/f{length}"), Body::noise(length, length));
    }
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let tasks = || cluster.process().metric("dfs_scheduler_tasks").unwrap();
    for agent in agents(&cluster, &place, &["a", "b"]) {
        let (account, output) = get(&agent, &origin, "/f4096", &place);
        assert!(fs::read(output).unwrap() == Body::noise(4_096, 4_096).read(0, 4_096).unwrap());
        assert_eq!(account, Account { seed: 4_096, ..Account::default() });
        assert_eq!(tasks(), 0.0, "nobody registered for it");
        assert_eq!(origin.counters().path("/f4096").requests, 2, "one look and one read in all");
    }
    let late = Agent::of(&cluster, &place, "late");
    late.dfctl(&["cat", &origin.url("/f4097")]).done();
    assert_eq!(tasks(), 1.0);
    assert_adds_up(&origin, Some(&cluster), &[&late]);
}

#[test]
fn an_archive_behind_a_url_is_a_tree_on_every_node() {
    let place = Place::new();
    let source = place.dir("source");
    trees::rich(&source);
    trees::varied(&source.join("varied"));
    let tar = place.path("tree.tar");
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&source).arg(".").status();
    assert!(packed.unwrap().success());
    let length = fs::metadata(&tar).unwrap().len();
    let origin = Origin::of("/tree.tar", Body::File(tar)).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b"]);
    at_once(&agents, |agent| {
        let name = agent.node.name();
        let dir = agent.mount(&origin.url("/tree.tar"), place.path(&format!("mount-{name}")));
        trees::assert_same(&dir, &source);
        trees::assert_same_attributes(&dir, &source);
    });
    let copies = origin.counters().body_bytes as f64 / length as f64;
    assert!(copies <= COPIES, "{copies} copies left the origin");
    assert_adds_up(&origin, Some(&cluster), &agents.iter().collect::<Vec<_>>());
    for agent in &agents {
        assert_eq!(Account::of_mount(agent).source, 0);
    }
}

#[test]
fn what_the_origin_refuses_the_swarm_refuses_in_the_same_words() {
    let place = Place::new();
    let origin = Origin::of("/forbidden", Body::noise(3, MIB)).unwrap();
    let forbidden = origin.inject(Fault::status(403).on("/forbidden"));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b"]);
    let dir = place.dir("mount");
    for agent in &agents {
        agent.dfctl(&["cat", &origin.url("/missing")]).fails(3, "DFS-2101");
        agent.dfctl(&["cat", &origin.url("/forbidden")]).fails(4, "DFS-2103");
        agent.dfctl(&["mount", &origin.url("/none/"), dir.to_str().unwrap()]).fails(3, "DFS-2101");
    }
    assert!(forbidden.struck() > 0);
    assert_eq!(origin.counters().body_bytes, 0);
}

#[test]
fn a_burst_of_errors_reaches_no_node() {
    let place = Place::new();
    let body = Body::noise(4, 12 * MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let errors = origin.inject(Fault::status(500).times(3));
    let resets = origin.inject(Fault::reset_after(MIB).times(2));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b", "c"]);
    for (account, output) in at_once(&agents, |agent| get(agent, &origin, "/f", &place)) {
        assert!(fs::read(output).unwrap() == body.read(0, 12 * MIB).unwrap());
        assert_eq!(account.source, 0);
    }
    assert_eq!((errors.struck(), resets.struck()), (3, 2));
}

#[test]
fn a_change_of_the_origin_reaches_every_node_as_such() {
    let place = Place::new();
    let (old, new) = (Body::noise(5, 90 * MIB), Body::noise(6, 90 * MIB));
    let origin = Origin::of("/d/f", old.clone()).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = agents(&cluster, &place, &["a", "b"]);
    let files = at_once(&agents, |agent| {
        let dir = place.path(&format!("mount-{}", agent.node.name()));
        let file = agent.mount(&origin.url("/d/"), dir).join("f");
        let mut first = vec![0; 100_000];
        File::open(&file).unwrap().read_exact_at(&mut first, 0).unwrap();
        assert!(first == old.read(0, 100_000).unwrap());
        file
    });
    origin.put("/d/f", new);
    for path in files {
        let error = File::open(&path).unwrap().read_at(&mut [0; 4096], 80 * MIB).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        let why = xattr::get(&path, "user.dfs.error").unwrap().unwrap();
        let why = String::from_utf8(why).unwrap();
        assert!(why.contains("origin changed"), "{why}");
    }
}

#[test]
fn what_a_seed_finds_out_is_said_as_an_agent_alone_says_it() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("a/b"), b"b");
    trees::put(&source.join("plain"), b"plain");
    let origin = Origin::of_directory(&source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let alone = Agent::solo(&place, "alone");
    let node = Agent::of(&cluster, &place, "node");
    let (tree, plain) = (origin.url("/"), origin.url("/plain"));
    let out = place.path("out");
    let out = out.to_str().unwrap();
    for agent in [&alone, &node] {
        let said = agent.dfctl(&["stat", &tree, "--format", "json"]).done();
        assert_eq!(said.json().unwrap()["view"], "tree", "{}", said.text());
        agent.dfctl(&["get", &origin.url("/a/"), "-o", out]).fails(2, "DFS-2108");
        agent.dfctl(&["get", "-r", &plain, "-o", out]).fails(2, "DFS-2109");
    }
    let _locked = origin.inject(Fault::require_authorization("Basic dXNlcjpwYXNz"));
    for agent in [&alone, &node] {
        agent.dfctl(&["stat", &origin.url("/locked")]).fails(4, "DFS-2102");
    }
}
