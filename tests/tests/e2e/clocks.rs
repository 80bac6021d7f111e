//! Clocks that are set while everything runs: forwards by an hour, back by ten years, and right again.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use dfs_tests::{Binaries, Body, Cluster, Fault, Node, Origin};

use crate::support::{Agent, Expected, Place, all, services_started_by, until};

const MIB: u64 = 1 << 20;

/// What services believe the time is.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn new(place: &Place) -> Self {
        let clock = Self { file: place.path("clock") };
        clock.set("+0");
        clock
    }

    /// From now on it is off by so much.
    fn set(&self, off: &str) {
        fs::write(&self.file, off).unwrap();
    }

    /// Programs that go by it. How much time has passed is what it is.
    fn programs(&self, place: &Place) -> Binaries {
        let library = fs::read_dir("/usr/lib").unwrap().find_map(|dir| {
            let library = dir.unwrap().path().join("faketime/libfaketime.so.1");
            library.exists().then_some(library)
        });
        let library = library.expect("libfaketime is needed, `cargo xtask test` installs it");
        let (library, file) = (library.display(), self.file.display());
        services_started_by(place, |program| {
            format!(
                "export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={file} FAKETIME_NO_CACHE=1\n\
                 export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1\n\
                 exec {program} \"$@\""
            )
        })
    }
}

#[test]
fn a_clock_that_is_set_costs_no_lease_no_copy_and_nothing_that_is_fresh() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let clock = Clock::new(&place);
    let programs = clock.programs(&place);
    let cluster = Cluster::start(&programs, place.root()).unwrap();
    let at = cluster.address().unwrap();
    let agents = ["a", "b"]
        .map(|name| Agent::around(Node::start(&programs, place.root(), name, Some(at)).unwrap()));
    let mut sent = 0;
    for (number, off) in ["+1h", "-10y", "+0"].into_iter().enumerate() {
        let body = Body::noise(number as u64, 24 * MIB + 5);
        let path = format!("/{number}");
        origin.put(&path, body.clone());
        let pace = origin.inject(Fault::pace(24 * MIB).on(&path));
        let url = origin.url(&path);
        std::thread::scope(|scope| {
            let getting = scope.spawn(|| agents[0].dfctl(&["cat", &url]).done());
            origin.wait_in_flight(&path, 2 * MIB).unwrap();
            clock.set(off);
            assert!(getting.join().unwrap().stdout == all(&body), "{off}");
        });
        assert!(pace.struck() > 0);
        assert!(agents[1].dfctl(&["cat", &url]).done().stdout == all(&body), "{off}");
        sent += body.length().unwrap();
        assert_eq!(origin.counters().body_bytes, sent, "one copy, {off}");
    }
}

#[test]
fn what_was_just_read_is_not_evicted_because_the_clock_went_back() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let clock = Clock::new(&place);
    let programs = clock.programs(&place);
    let room = ["--capacity", "64MiB"];
    let mut node = Node::spawn(&programs, place.root(), "a", None, &room).unwrap();
    node.wait_ready().unwrap();
    let agent = Agent::around(node);
    let get = |number: u64| {
        let body = Body::noise(number, 8 * MIB);
        origin.put(&format!("/{number}"), body.clone());
        let said = agent.dfctl(&["cat", &origin.url(&format!("/{number}"))]).done();
        assert!(said.stdout == all(&body));
    };
    (0..4).for_each(get);
    clock.set("-10y");
    get(4);
    let fetched = origin.counters().body_bytes;
    // More than there is room for: something must go.
    (5..15).for_each(get);
    assert_eq!(origin.counters().body_bytes, fetched + 80 * MIB);
    until("something was evicted", || {
        let listed = agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        listed["items"].as_array().unwrap().len() < 8
    });
    (11..15).for_each(get);
    assert_eq!(origin.counters().body_bytes, fetched + 80 * MIB, "what came last is still here");
}

#[test]
fn readers_of_a_mount_do_not_notice_a_clock_that_is_set_by_a_year() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let clock = Clock::new(&place);
    let programs = clock.programs(&place);
    let agent = Agent::around(Node::start(&programs, place.root(), "a", None).unwrap());
    let body = Body::noise(1, 24 * MIB + 5);
    let bytes = all(&body);
    origin.put("/d/f", body);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let pace = origin.inject(Fault::pace(8 * MIB).on("/d/f"));
    let third = bytes.len() / 3 + 1;
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (path, bytes) = (dir.join("f"), &bytes);
            scope.spawn(move || {
                let file = fs::File::open(path).unwrap();
                let mut buffer = vec![0; 100_000 + reader];
                for at in (0..bytes.len()).step_by(buffer.len()) {
                    let read = file.read_at(&mut buffer, at as u64).unwrap();
                    assert!(buffer[..read] == bytes[at..at + read], "at {at}");
                    assert!(read == buffer.len() || at + read == bytes.len());
                }
            });
        }
        for (number, off) in ["+1y", "-1y", "+0"].into_iter().enumerate() {
            let sent = (number * third + 1) as u64;
            origin.wait_counters("some is read", |counted| counted.body_bytes >= sent).unwrap();
            clock.set(off);
            agent.dfctl(&["mounts"]).done();
        }
    });
    assert!(pace.struck() > 0);
    assert_eq!(origin.counters().body_bytes, bytes.len() as u64, "one copy");
}
