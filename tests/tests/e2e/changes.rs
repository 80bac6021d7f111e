//! Files that change or go away at the origin while a snapshot of their directory is in use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dfs_tests::process::{Process, Said};
use dfs_tests::{Body, Cluster, Fault, Origin};
use rustix::io::Errno;

use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, binaries, until};

const CHANGED: &str = "a-changed";
const DELETED: &str = "a-deleted";

/// Files so small that many share a group.
fn small_files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = (0..60).map(|number| format!("d{}/{number:02}", number % 4));
    let names = names.chain([CHANGED.to_owned(), DELETED.to_owned()]);
    let files = names.enumerate().map(|(at, name)| (name, noise(at as u64, 500 + at * 311)));
    let files: BTreeMap<_, _> = files.collect();
    files.iter().for_each(|(name, bytes)| trees::put(&root.join(name), bytes));
    files
}

/// Every file but the two reads right; these fail and say of themselves why.
fn assert_only_two_fail(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let read = fs::read(dir.join(name));
        if name != CHANGED && name != DELETED {
            assert!(read.unwrap_or_else(|error| panic!("{name}: {error}")) == *bytes, "{name}");
            continue;
        }
        let error = read.expect_err("it is another file now");
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{name}");
        let why = xattr::get(dir.join(name), "user.dfs.error").unwrap().unwrap();
        let why = String::from_utf8(why).unwrap();
        assert!(why.contains(name) && why.contains("origin changed"), "{why}");
    }
}

#[test]
fn a_file_that_has_just_changed_is_not_said_to_be_as_it_is_there() {
    let place = Place::new();
    let source = place.path("file");
    trees::put(&source, b"before");
    let origin = Origin::of("/f", Body::bytes(&b"before"[..])).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let get = |url: &str, out: &Path, more: &[&str]| {
        agent.dfctl(&[&["get", url, "-o", out.to_str().unwrap()], more].concat())
    };
    let (file, url) = (source.to_str().unwrap(), origin.url("/f"));
    let [of_file, of_url] = ["of-file", "of-url"].map(|name| place.path(name));
    get(file, &of_file, &[]).done();
    get(&url, &of_url, &[]).done();
    trees::put(&source, b"after it");
    origin.put("/f", Body::bytes(&b"after it"[..]));
    get(file, &of_file, &[]).fails(1, "DFS-1101");
    // What was known is told as what it is, as long as it is kept.
    let said = get(&url, &of_url, &[]);
    match said.code {
        9 => assert!(said.text().contains("seconds ago (--fresh asks the origin now)")),
        _ => drop(said.fails(1, "DFS-1101")),
    }
    get(&url, &of_url, &["--fresh"]).fails(1, "DFS-1101");
    get(&url, &of_url, &["--fresh", "--force"]).done();
    assert_eq!(fs::read(&of_url).unwrap(), b"after it");
    let said = get(&url, &of_url, &["--fresh"]).exits(9).text();
    assert!(said.contains("as it was") && !said.contains("seconds ago"), "{said}");
}

#[test]
fn a_changed_and_a_deleted_file_fail_alone_on_every_node() {
    let place = Place::new();
    let source = place.dir("source");
    let files = small_files(&source);
    let origin = Origin::of_directory(&source).unwrap();
    // The snapshot is the same one for who asks later.
    let config = place.path("cluster.toml");
    fs::write(&config, "[scheduler]\nresolve-cache = \"10m\"\n").unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), place.root(), &extra).unwrap();
    let agents = ["a", "b", "c"].map(|name| Agent::of(&cluster, &place, name));
    let url = origin.url("/");
    let late = Agent::of(&cluster, &place, "late");
    // As `get -r` looks at it.
    let dir = place.dir("mount-late");
    late.guard(&dir);
    late.dfctl(&["mount", "--as", "tree", &url, dir.to_str().unwrap()]).done();
    let mounts = agents
        .each_ref()
        .map(|agent| agent.mount(&url, place.path(&format!("mount-{}", agent.node.name()))));
    // As `get -r` will ask for it.
    agents[0].dfctl(&["stat", "--as", "tree", &url]).done();
    trees::put(&source.join(CHANGED), &noise(1000, 700));
    fs::remove_file(source.join(DELETED)).unwrap();

    let out = place.path("out");
    let words = ["get", "-r", &url, "-o", out.to_str().unwrap()];
    let said = late.dfctl(&words).fails(8, "DFS-1108");
    let missing = |name: &String| !out.join(name).exists();
    let missing: Vec<&String> = files.keys().filter(|name| missing(name)).collect();
    assert_eq!(missing, [CHANGED, DELETED], "{}", said.stderr);
    for (name, bytes) in files.iter().filter(|(name, _)| !missing.contains(name)) {
        assert!(fs::read(out.join(name)).unwrap() == *bytes, "{name}");
    }
    for name in [CHANGED, DELETED] {
        assert!(said.stderr.contains(&format!("!{name}")), "{}", said.stderr);
    }

    std::thread::scope(|scope| {
        for dir in &mounts {
            scope.spawn(|| assert_only_two_fail(dir, &files));
        }
    });
}

#[test]
fn what_a_listing_names_and_the_origin_does_not_give_is_named_and_the_rest_is_there() {
    let place = Place::new();
    let source = place.dir("source");
    for name in ["a", "open/b", "open/lost", "closed/c", "gone/d"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 70_000));
    }
    let origin = Origin::of_directory(&source).unwrap();
    let faults = [
        origin.inject(Fault::status(403).on("/closed/")),
        origin.inject(Fault::status(404).on("/gone/")),
        origin.inject(Fault::status(404).on("/open/lost")),
    ];
    let agent = Agent::solo(&place, "agent");
    let url = origin.url("/");
    let told = |said: &Said, names: &[&str]| {
        for name in ["closed", "gone", "open/lost"] {
            let line = format!("{name} of {url} is missing");
            assert_eq!(said.stderr.contains(&line), names.contains(&name), "{}", said.stderr);
        }
    };

    let said = agent.dfctl(&["ls", "-r", "--format", "name", &url]).fails(8, "DFS-1108");
    assert_eq!(said.text().lines().collect::<Vec<_>>(), ["a", "closed", "gone", "open", "open/b"]);
    told(&said, &["closed", "gone", "open/lost"]);
    assert!(
        said.stderr.contains("status 403") && said.stderr.contains("not found"),
        "{}",
        said.stderr
    );
    // What is not below is not spoken of, nor is what is whole a failure.
    let said = agent.dfctl(&["ls", &format!("{url}!open")]).fails(8, "DFS-1108");
    assert!(said.stderr.contains("open/lost") && !said.stderr.contains("closed"));

    let out = place.path("out");
    let get = ["get", "-r", &url, "-o", out.to_str().unwrap()];
    told(&agent.dfctl(&get).fails(8, "DFS-1108"), &["closed", "gone", "open/lost"]);
    assert_eq!(trees::names(&out.join("open")), ["b"]);
    let excluding = ["--exclude", "closed", "--exclude", "gone", "--exclude", "lost"];
    assert_eq!(
        agent.dfctl(&[&get[..], &excluding].concat()).code,
        9,
        "all that is wanted is there"
    );

    let dir = agent.mount(&url, place.dir("mount"));
    assert!(fs::read(dir.join("open/b")).unwrap() == fs::read(source.join("open/b")).unwrap());
    assert_eq!(fs::metadata(dir.join("closed")).unwrap().permissions().mode() & 0o777, 0);
    assert!(faults.iter().all(|fault| fault.struck() > 0), "every fault struck");
}

const REFUSED: &str = "d1/21";

/// Three nodes read a tree at once through a cluster, of which the origin does not give one file.
fn three_nodes_read_all_but_one(fault: Fault, why: &str) {
    let place = Place::new();
    let source = place.dir("source");
    let origin = Origin::of_directory(&source).unwrap();
    let mut files = small_files(&source);
    let large = noise(99, 24 << 20);
    trees::put(&source.join("large"), &large);
    files.insert("large".to_owned(), large);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b", "c"].map(|name| Agent::of(&cluster, &place, name));
    let mounts = agents.each_ref().map(|agent| {
        agent.mount(&origin.url("/"), place.path(&format!("mount-{}", agent.node.name())))
    });
    let refused = origin.inject(fault.on(&format!("/{REFUSED}")).method("GET"));
    let before = origin.counters().body_bytes;
    std::thread::scope(|scope| {
        for dir in &mounts {
            scope.spawn(|| {
                for (name, bytes) in &files {
                    let read = fs::read(dir.join(name));
                    if name == REFUSED {
                        let error = read.expect_err("the origin does not give it");
                        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
                        let said = xattr::get(dir.join(name), "user.dfs.error").unwrap().unwrap();
                        let said = String::from_utf8(said).unwrap();
                        assert!(said.contains(why), "{said}");
                    } else {
                        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
                        assert!(read == *bytes, "{name}");
                    }
                }
            });
        }
    });
    assert!(refused.struck() > 0, "it was asked for");
    let content: usize = files.values().map(Vec::len).sum();
    let copies = (origin.counters().body_bytes - before) as f64 / content as f64;
    assert!(copies <= 1.05, "{copies} copies left the origin");
    refused.lift();
    // Not for ever: past the store until the hole is forgotten.
    for dir in &mounts {
        let reads = || fs::read(dir.join(REFUSED)).is_ok_and(|read| read == files[REFUSED]);
        until("it reads again", reads);
    }
}

#[test]
fn a_file_that_the_origin_forbids_fails_alone_on_every_node() {
    three_nodes_read_all_but_one(Fault::status(403), "not permitted");
}

#[test]
fn a_file_that_the_origin_never_delivers_fails_alone_on_every_node() {
    three_nodes_read_all_but_one(Fault::status(503), "given up after");
}

#[test]
fn an_origin_that_turns_everybody_away_is_asked_by_the_seed_alone() {
    let place = Place::new();
    let source = place.dir("source");
    // Few enough to lie in one group.
    let files: BTreeMap<_, _> = (0..3).map(|n| (format!("f{n}"), noise(n, 3000))).collect();
    files.iter().for_each(|(name, bytes)| trees::put(&source.join(name), bytes));
    let origin = Origin::of_directory(&source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    // However long the seed takes on a busy machine.
    let config = place.path("node.toml");
    fs::write(&config, "patience-seconds = 600\n").unwrap();
    let patient = ["--config", config.to_str().unwrap()];
    let agents = ["a", "b", "c"].map(|name| Agent::of_with(&cluster, &place, name, &patient));
    let mounts = agents.each_ref().map(|agent| {
        agent.mount(&origin.url("/"), place.path(&format!("mount-{}", agent.node.name())))
    });
    let asked = |process: &Process, kind: &str| {
        process.metric(&format!("dfs_{kind}_source_requests_total")).unwrap() as u64
    };
    let by_nodes = || agents.iter().map(|agent| asked(agent.node.process(), "node")).sum::<u64>();
    let by_seed = || asked(cluster.process(), "seed");
    let before = (by_nodes(), by_seed());
    let overload = origin.inject(Fault::status(503).method("GET"));
    std::thread::scope(|scope| {
        for dir in &mounts {
            scope.spawn(|| {
                let error = fs::read(dir.join("f1")).expect_err("the origin gives nothing");
                assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
                let said = xattr::get(dir.join("f1"), "user.dfs.error").unwrap().unwrap();
                let said = String::from_utf8(said).unwrap();
                assert!(said.contains("given up after"), "{said}");
            });
        }
    });
    let turned_away = overload.struck();
    assert_eq!((by_nodes(), by_seed()), (before.0, before.1 + turned_away), "the seed alone");
    let attempts = 6 * files.len() as u64;
    let reads = mounts.len() as u64;
    assert!((attempts..=attempts * reads).contains(&turned_away), "{turned_away} requests");
    overload.lift();
    // From the seed, or from a node that the scheduler lets read the origin after so many failures.
    for dir in &mounts {
        for (name, bytes) in &files {
            assert!(fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
        }
    }
}
