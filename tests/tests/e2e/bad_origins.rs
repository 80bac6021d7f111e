//! Bad days of an origin, while a crowd takes what it has: everybody ends with the right bytes or with one clear error,
//! and nobody with some of one version and some of another.

use std::fs;
use std::path::PathBuf;

use dfs_tests::origin::Injected;
use dfs_tests::testbed::{Fate, Filter, Layout, Links, Way, Whom};
use dfs_tests::{Body, Fault, Testbed};

use crate::support::crowd::{Crowd, LINK, NODES};
use crate::support::{Running, all};

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 2 * MIB + 17;
/// Of an answer, when what is wrong begins: less than anybody asks for at a time.
const SOME: u64 = 50_000;

/// What is wrong with the origin of one file, and how many copies of the file that may cost.
type Case = (&'static str, fn() -> Vec<Fault>, f64);

/// What passes: everybody has the file in the end.
const PASSING: [Case; 7] = [
    (
        "error",
        || vec![Fault::reset_after(SOME).times(1), Fault::status(500).after(1).times(3)],
        1.5,
    ),
    (
        "busy",
        || vec![Fault::cut_after(SOME).times(1), Fault::retry_after(429, 1).after(1).times(2)],
        1.5,
    ),
    ("hangs", || vec![Fault::stall_after(SOME).times(1)], 3.1),
    ("short", || vec![Fault::cut_after(SOME).times(3)], 2.5),
    ("longer", || vec![Fault::length_off(1000).method("GET").times(2)], 3.1),
    ("shorter", || vec![Fault::length_off(-1000).method("GET").times(2)], 3.1),
    (
        "whole",
        || vec![Fault::cut_after(SOME).times(1), Fault::ignore_range().after(1).times(2)],
        3.1,
    ),
];

/// One node gets one path into a file of its own.
fn get(crowd: &Crowd<'_>, at: usize, path: &str) -> (Running, PathBuf) {
    let node = &crowd.fleet.nodes()[at];
    let output = crowd.place.path(&format!("{}{}", node.name(), path.replace('/', "-")));
    let mut command = node.dfctl_command().unwrap();
    let url = crowd.origin.url(path);
    command.args(["get", &url, "--force", "-o", output.to_str().unwrap()]);
    (Running::start(command), output)
}

fn each(crowd: &Crowd<'_>, path: &str) -> Vec<(Running, PathBuf)> {
    (0..NODES).map(|at| get(crowd, at, path)).collect()
}

fn testbed() -> Testbed {
    Testbed::build(&Layout { links: Links::Plain, ..Layout::flat(NODES, LINK) }).unwrap()
}

#[test]
fn whatever_passes_at_an_origin_a_crowd_has_its_files() {
    let testbed = testbed();
    let crowd = Crowd::on(&testbed);
    let path = |name: &str| format!("/{name}");
    let pace = crowd.origin.inject(Fault::pace(4 * MIB));
    let mut faults = Vec::new();
    for (seed, (name, wrong, _)) in PASSING.iter().enumerate() {
        crowd.origin.put(&path(name), Body::noise(seed as u64, LENGTH));
        let injected: Vec<Injected> =
            wrong().into_iter().map(|one| crowd.origin.inject(one.on(&path(name)))).collect();
        faults.push(injected);
    }
    let getting: Vec<_> = PASSING.iter().map(|(name, ..)| each(&crowd, &path(name))).collect();
    faults.iter().flatten().for_each(|fault| fault.wait_struck(1).unwrap());
    assert!(pace.struck() > 0);
    for (seed, ((name, _, most), crowd_of_it)) in PASSING.iter().zip(getting).enumerate() {
        let wanted = all(&Body::noise(seed as u64, LENGTH));
        for (running, output) in crowd_of_it {
            let said = running.wait();
            assert_eq!(said.code, 0, "{name}: {}", said.stderr);
            assert!(fs::read(output).unwrap() == wanted, "{name}: wrong bytes");
        }
        let cost = crowd.origin.counters().path(&path(name));
        let copies = cost.body_bytes as f64 / LENGTH as f64;
        assert!(copies <= *most, "{name}: {copies} copies");
    }
}

/// What it says is one error, with the code of one.
fn assert_is_clear(name: &str, said: &str, codes: &[&str]) {
    assert!(codes.iter().any(|code| said.contains(code)), "{name}: {said}");
    assert_eq!(said.matches("DFS-").count(), 1, "{name}: {said}");
}

#[test]
fn what_changes_or_goes_in_the_middle_is_told_to_everybody_and_never_mixed() {
    let testbed = testbed();
    let crowd = Crowd::on(&testbed);
    let (old, new) = (Body::noise(1, LENGTH), Body::noise(2, LENGTH));
    let origin = &crowd.origin;
    for path in ["/changes", "/goes-round"] {
        origin.put(path, old.clone());
    }
    // Some of the first version is on its way, and what is asked for next comes of the second one.
    origin.inject(Fault::cut_after(SOME).times(1).on("/changes"));
    let gate = origin.inject(Fault::gate().after(1).method("GET").on("/changes"));
    let cut = origin.inject(Fault::cut_after(SOME).on("/goes-round"));
    let changing = each(&crowd, "/changes");
    let going_round = each(&crowd, "/goes-round");
    gate.wait_struck(1).unwrap();
    cut.wait_struck(1).unwrap();
    // Nobody comes to the end of it between the two.
    let around = origin.inject(Fault::around().on("/goes-round"));
    cut.lift();
    origin.put("/changes", new.clone());
    gate.lift();
    for (running, output) in changing {
        let said = running.wait();
        match said.code {
            0 => {
                let got = fs::read(output).unwrap();
                assert!(got == all(&old) || got == all(&new), "a mixture of versions");
            }
            _ => assert_is_clear("changed", &said.stderr, &["DFS-2106"]),
        }
    }
    for (running, output) in going_round {
        let said = running.wait();
        match said.code {
            0 => assert!(fs::read(output).unwrap() == all(&old)),
            _ => assert_is_clear("round", &said.stderr, &["DFS-2112"]),
        }
    }
    assert!(around.struck() > 0, "nobody was sent round");
    around.lift();
    for (path, wanted) in [("/changes", &new), ("/goes-round", &old)] {
        for (running, output) in each(&crowd, path) {
            let said = running.wait();
            assert_eq!(said.code, 0, "{path}: {}", said.stderr);
            assert!(fs::read(output).unwrap() == all(wanted), "{path}");
        }
    }
}

#[test]
fn without_its_origin_a_crowd_has_what_one_of_it_has_and_is_told_what_nobody_has() {
    let testbed = testbed();
    let mut crowd = Crowd::on(&testbed);
    let body = Body::noise(3, LENGTH);
    crowd.origin.put("/held", body.clone());
    let (running, output) = get(&crowd, 0, "/held");
    assert_eq!(running.wait().code, 0);
    assert!(fs::read(output).unwrap() == all(&body));
    let before = crowd.origin.counters();
    // The seed has it too: it goes with the origin.
    crowd.fleet.kill("seed1").unwrap();
    let (whom, way, percent, fate) = (Whom::Anybody, Way::In, 100, Fate::Reset);
    testbed.filter("origin", Some(&Filter { whom, way, percent, fate })).unwrap();
    let held = each(&crowd, "/held");
    let nowhere = each(&crowd, "/nowhere");
    for (running, output) in held {
        let said = running.wait();
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(fs::read(output).unwrap() == all(&body));
    }
    for (running, output) in nowhere {
        let said = running.wait();
        assert_eq!(said.code, 5, "{}", said.stderr);
        assert_is_clear("nowhere", &said.stderr, &["DFS-2104"]);
        assert!(!output.exists());
    }
    assert!(testbed.struck("origin").unwrap() > 0, "nobody asked it");
    assert_eq!(crowd.origin.counters(), before, "nothing reached it");
}
