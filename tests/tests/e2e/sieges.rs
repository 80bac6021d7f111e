//! Somebody opens connections by the thousand and says nothing of use: whoever has something to say is served all the
//! same, and what the silent cost is bounded and soon given back.

use dfs_tests::Testbed;
use dfs_tests::process::Process;
use dfs_tests::testbed::{Fleet, Layout, Links, Machine};

use crate::support::crowd::{Crowd, LINK};
use crate::support::siege::{Door, Manner, Pace, Siege};
use crate::support::until;

const EACH: usize = 2000;
const NODES: usize = 4;
/// Fifty at a time come again at each door.
const SELDOM: Pace = Pace::Some(50);
const MIB: f64 = 1_048_576.0;

/// Of those who say nothing a listener keeps so many at most.
const SILENT: f64 = 512.0;
/// MiB that one of them takes at most, greeted or not.
const WORTH: f64 = 96.0 / 1024.0;

/// The first bytes of a greeting by TLS, and no more of it.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEAD: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ";
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

const TLS: &[Manner] = &[Manner::Silent, Manner::Says(HELLO), Manner::Drips(HELLO)];
const HTTP2: &[Manner] = &[
    Manner::Silent,
    Manner::Says(PREFACE),
    Manner::Says(PREFACE_AND_SETTINGS),
    Manner::Drips(PREFACE),
];
const HTTP1: &[Manner] = &[Manner::Silent, Manner::Drips(HEAD), Manner::TakesNothing(REQUEST)];
const PIECES: &[Manner] = &[Manner::Silent];

/// Each listener of these processes, as its metrics call it.
const BESIEGED: [(&str, &[&str]); 4] = [
    ("manager", &["grpc"]),
    ("scheduler", &["grpc"]),
    ("seed1", &["grpc", "pieces", "metrics"]),
    ("node1", &["pieces", "local"]),
];

/// Whether somebody on another machine can come to this listener.
fn is_reached(listener: &str, links: Links) -> bool {
    listener != "metrics" || links == Links::Plain
}

fn manners(listener: &str, links: Links) -> &'static [Manner] {
    match (listener, links) {
        ("local", _) | ("grpc", Links::Plain) => HTTP2,
        ("metrics", _) => HTTP1,
        (_, Links::Tls) => TLS,
        (_, Links::Plain) => PIECES,
    }
}

fn number((machine, process): (&Machine, &mut Process), metric: &str) -> f64 {
    machine.inside(|| process.metric(metric)).unwrap()
}

fn connections(fleet: &mut Fleet<'_>, of: &str, listener: &str, state: &str) -> f64 {
    let metric = format!("dfs_connections{{listener=\"{listener}\",state=\"{state}\"}}");
    number(fleet.part(of).unwrap(), &metric)
}

fn besieged(links: Links, pace: Pace) {
    let testbed = Testbed::build(&Layout { links, ..Layout::flat(NODES + 1, LINK) }).unwrap();
    let mut crowd = Crowd::on(&testbed);
    let listeners: Vec<(&str, &str)> = BESIEGED
        .iter()
        .flat_map(|(of, all)| all.iter().map(move |listener| (*of, *listener)))
        .filter(|(_, listener)| is_reached(listener, links))
        .collect();
    let doors: Vec<_> = listeners
        .iter()
        .map(|(of, listener)| {
            let door = match *listener {
                "local" => Door::Unix(crowd.fleet.nodes()[0].socket().to_owned()),
                _ => Door::Tcp(crowd.fleet.part(of).unwrap().1.address(listener).unwrap()),
            };
            (door, manners(listener, links))
        })
        .collect();
    let burden = |fleet: &mut Fleet<'_>, of: &str| {
        ["process_open_fds", "process_resident_memory_bytes"]
            .map(|metric| number(fleet.part(of).unwrap(), metric))
    };
    let before = BESIEGED.map(|(of, _)| burden(&mut crowd.fleet, of));

    let besieger = testbed.machine("node5").unwrap();
    let siege = besieger.inside(|| Ok(Siege::lay(doors, EACH, pace).unwrap())).unwrap();
    let mut takers = crowd.take_each(0..NODES);
    crowd.wait_middle(testbed.machine("node2").unwrap(), &mut takers);
    for (of, listener) in &listeners {
        // The piece plane ends links itself that do not greet, and who is sent a page takes it, or its kernel does.
        let by_others = *listener == "metrics" || (*listener == "pieces" && links == Links::Plain);
        let most = EACH as f64 - SILENT;
        until(&format!("others say nothing at {listener} of {of}, and are sent away"), || {
            let silent = connections(&mut crowd.fleet, of, listener, "silent");
            let ended = ["pushed-out", "too-many", "silent"].map(|reason| {
                let labels = format!("{{listener=\"{listener}\",reason=\"{reason}\"}}");
                let metric = format!("dfs_connections_ended_total{labels}");
                number(crowd.fleet.part(of).unwrap(), &metric)
            });
            assert!(silent <= SILENT, "{silent} at {listener} of {of}");
            silent > 0.0 && (by_others || ended.iter().sum::<f64>() >= most)
        });
    }
    for ((of, all), [files, memory]) in BESIEGED.iter().zip(before) {
        let [files_now, memory_now] = burden(&mut crowd.fleet, of);
        let most = all.len() as f64 * SILENT + 200.0;
        assert!(files_now <= files + most, "{of}: {files} files open, then {files_now}");
        let more = (memory_now - memory) / MIB;
        let most = all.len() as f64 * SILENT * WORTH + 16.0;
        assert!(more < most, "{of}: {more} MiB more");
    }
    crowd.have_it(takers, 1.05);
    // They are still there, and lose their places.
    siege.rest();
    for (of, listener) in &listeners {
        until(&format!("{listener} of {of} has its places back"), || {
            connections(&mut crowd.fleet, of, listener, "silent") <= 1.0
        });
    }
    drop(siege);
}

#[test]
fn thousands_who_do_not_greet_keep_nobody_out() {
    besieged(Links::Tls, SELDOM);
}

#[test]
fn thousands_who_greet_and_ask_nothing_keep_nobody_out() {
    besieged(Links::Plain, SELDOM);
}

#[test]
fn thousands_who_come_again_as_soon_as_they_are_closed_keep_nobody_out() {
    besieged(Links::Tls, Pace::AtOnce);
}
