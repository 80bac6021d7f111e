//! Machines on links of their own: the links are as narrow as they should be, machines can be lost and come back, and
//! nothing of it is left behind.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use dfs_model::Rate;
use dfs_tests::process::Said;
use dfs_tests::testbed::{Fleet, Idcs, Layout, Machine, Role};
use dfs_tests::{Body, Testbed};

use crate::support::{Expected, Place, all, binaries, runs, until};

const MIB: u64 = 1 << 20;
const LINK: Rate = Rate(20_000_000 / 8);

/// A curl on a machine.
fn curl_on(machine: &Machine, url: &str) -> Said {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "-o", "/dev/null", "--connect-timeout", "2", url]);
    machine.inside(|| Said::by(&mut curl)).unwrap()
}

/// The names of namespaces that there are.
fn namespaces() -> Vec<String> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The links that this process sees.
fn links() -> String {
    Said::by(Command::new("ip").args(["-o", "link"])).unwrap().ok().unwrap().text()
}

#[test]
fn a_crowd_on_narrow_links_has_its_file_and_the_origin_sends_it_once() {
    let place = Place::new();
    let testbed = Testbed::build(&Layout::flat(3, LINK)).unwrap();
    let body = Body::noise(1, 2 * MIB + 13);
    let origin = testbed.start_origin(0).unwrap();
    origin.put("/file", body.clone());
    let mut fleet = Fleet::start(&testbed, &binaries(), place.root()).unwrap();
    let url = origin.url("/file");
    std::thread::scope(|scope| {
        for node in fleet.nodes() {
            let (url, out, body) = (&url, place.path(&format!("{}.out", node.name())), &body);
            scope.spawn(move || {
                node.dfctl(["get", url, "-o", out.to_str().unwrap()]).unwrap().done();
                assert!(fs::read(out).unwrap() == all(body), "wrong bytes");
            });
        }
    });
    let sent = origin.counters().body_bytes;
    assert!((2 * MIB..3 * MIB).contains(&sent), "{sent}");
    let seed = testbed.machine("seed1").unwrap();
    assert!(seed.traffic().unwrap().received > 2 * MIB, "its link has carried the file");
    assert!(seed.shaped().unwrap().held > 0, "and what it sent on was held back");

    let source = testbed.first(Role::Origin).unwrap();
    let (before, carried) = (source.shaped().unwrap(), source.traffic().unwrap());
    assert_eq!(curl_on(testbed.machine("node1").unwrap(), &url).code, 0);
    let after = source.shaped().unwrap();
    assert!(after.held > before.held && after.bytes > before.bytes + 2 * MIB, "{after:?}");
    assert!((source.traffic().unwrap() - carried).sent > 2 * MIB);

    let ours: Vec<_> =
        testbed.machines().iter().map(|machine| machine.namespace().to_owned()).collect();
    assert!(ours.iter().all(|name| namespaces().contains(name)));
    let pids: Vec<_> = fleet.pids().iter().map(u32::to_string).collect();
    assert!(pids.iter().all(|pid| runs(pid)));
    drop(fleet);
    drop(origin);
    drop(testbed);
    assert!(!ours.iter().any(|name| namespaces().contains(name)));
    let links = links();
    assert!(!links.contains("node1") && !links.contains("seed1"), "{links}");
    assert!(!pids.iter().any(|pid| runs(pid)));
}

#[test]
fn machines_are_lost_and_come_back() {
    let place = Place::new();
    let testbed = Testbed::build(&Layout::flat(2, LINK)).unwrap();
    let origin = testbed.start_origin(0).unwrap();
    origin.put("/file", Body::noise(1, MIB));
    origin.put("/small", Body::noise(1, 1000));
    let url = origin.url("/file");
    let node = testbed.machine("node1").unwrap();

    assert_eq!(curl_on(node, &url).code, 0);
    testbed.unplug("node1").unwrap();
    assert_ne!(curl_on(node, &url).code, 0);
    testbed.plug("node1").unwrap();
    until("its link is up again", || curl_on(node, &url).code == 0);
    let small = origin.url("/small");
    testbed.slow("node1", Rate(LINK.0 / 100)).unwrap();
    assert_eq!(node.shaped().unwrap().rate, Rate(LINK.0 / 100));
    assert_eq!(curl_on(node, &small).code, 0);
    testbed.restore("node1").unwrap();
    assert_eq!(node.shaped().unwrap().rate, LINK);
    assert_eq!(curl_on(node, &small).code, 0);
    assert!(testbed.unplug("node9").is_err());

    let mut fleet = Fleet::start(&testbed, &binaries(), place.root()).unwrap();
    let get = |fleet: &Fleet<'_>, out: &Path| {
        fleet.nodes()[1].dfctl(["get", &url, "-o", out.to_str().unwrap()]).unwrap().done();
    };
    fleet.freeze("node1").unwrap();
    get(&fleet, &place.path("one"));
    fleet.thaw("node1").unwrap();
    for name in ["node1", "scheduler", "seed1", "manager"] {
        fleet.kill(name).unwrap();
        assert!(fleet.part(name).unwrap().1.has_ended().is_some(), "{name}");
        fleet.restart(name).unwrap();
        fleet.wait_connected().unwrap();
    }
    get(&fleet, &place.path("two"));
    assert!(fleet.kill("node9").is_err());
}

#[test]
fn data_centres_are_behind_their_uplinks() {
    let idcs = Some(Idcs { count: 2, uplink: Rate(LINK.0 / 2) });
    let testbed = Testbed::build(&Layout { idcs, ..Layout::flat(4, LINK) }).unwrap();
    let origin = testbed.start_origin(0).unwrap();
    origin.put("/file", Body::noise(1, MIB));
    for machine in testbed.machines() {
        let said = curl_on(machine, &origin.url("/file"));
        assert_eq!(said.code, 0, "{}: {}", machine.name(), said.stderr);
    }
    let addresses: Vec<Ipv4Addr> = testbed.machines().iter().map(Machine::address).collect();
    assert_eq!(addresses.len(), 7);
    assert!(Testbed::build(&Layout { idcs, ..Layout::flat(1, LINK) }).is_err());
}

#[test]
fn what_a_data_centre_wants_crosses_its_uplink_about_once() {
    let (place, length) = (Place::new(), 12 * MIB + 17);
    let idcs = Some(Idcs { count: 2, uplink: LINK });
    let testbed = Testbed::build(&Layout { idcs, ..Layout::flat(8, Rate(3 * LINK.0)) }).unwrap();
    let body = Body::noise(1, length);
    let origin = testbed.start_origin(0).unwrap();
    origin.put("/file", body.clone());
    let fleet = Fleet::start(&testbed, &binaries(), place.root()).unwrap();
    let before = [0, 1].map(|idc| testbed.uplink_traffic(idc).unwrap());
    std::thread::scope(|scope| {
        for node in fleet.nodes() {
            let (url, out) = (origin.url("/file"), place.path(&format!("{}.out", node.name())));
            let body = &body;
            scope.spawn(move || {
                node.dfctl(["get", &url, "-o", out.to_str().unwrap()]).unwrap().done();
                assert!(fs::read(out).unwrap() == all(body), "wrong bytes");
            });
        }
    });
    for (idc, before) in before.into_iter().enumerate() {
        let carried = testbed.uplink_traffic(idc).unwrap() - before;
        let copies = carried.received as f64 / length as f64;
        // A machine that is short of processors has some of it sent again; 1.5 and more come where nothing keeps the way
        // in from being leased several times over.
        assert!((1.0..=1.3).contains(&copies), "{copies} copies came into data centre {idc}");
    }
    assert!(origin.counters().body_bytes as f64 <= 1.05 * length as f64);
}
