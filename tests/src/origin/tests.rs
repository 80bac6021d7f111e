use std::process::{Command, Output};

use super::*;

fn curl(arguments: &[&str]) -> Output {
    Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn ranges_heads_and_tags_are_those_of_the_protocol() {
    let body = Body::noise(1, 300_000);
    let origin = Origin::of("/a b", body.clone()).unwrap();
    let url = origin.url("/a b");
    assert_eq!(curl(&[&url]).stdout, body.read(0, 300_000).unwrap());
    assert_eq!(curl(&["-r", "5-270000", &url]).stdout, body.read(5, 270_001).unwrap());
    let head = String::from_utf8(curl(&["-I", &url]).stdout).unwrap();
    assert!(head.contains("Content-Length: 300000") && head.contains("ETag: \"v1-493e0\""));
    let outdated = curl(&["-r", "0-0", "-H", "If-Range: \"other\"", &url]);
    assert_eq!(outdated.stdout.len(), 300_000);
    assert_eq!(code(&curl(&["-f", "-r", "300000-", &url])), 22);
    let counters = origin.counters();
    assert_eq!((counters.requests, counters.method("HEAD")), (5, 1));
    assert_eq!(counters.body_bytes, 300_000 + 269_996 + 300_000);
    assert_eq!(counters.path("/a b").requests, 5);
    assert_eq!(counters.statuses[&416], 1);
    assert_eq!(origin.log()[1].range.as_deref(), Some("bytes=5-270000"));
}

#[test]
fn faults_strike_as_often_as_they_should() {
    let origin = Origin::of("/f", Body::noise(1, 1000)).unwrap();
    let url = origin.url("/f");
    let busy = origin.inject(Fault::retry_after(503, 7).times(2));
    assert!(String::from_utf8(curl(&["-I", &url]).stdout).unwrap().contains("Retry-After: 7"));
    assert_eq!(code(&curl(&["-f", &url])), 22);
    assert_eq!(curl(&["-f", &url]).stdout.len(), 1000);
    assert_eq!(busy.struck(), 2);
    let reset = origin.inject(Fault::reset_after(100).on("/f").times(1));
    assert_ne!(code(&curl(&[&url])), 0);
    assert_eq!(reset.struck(), 1);
    assert_eq!(code(&curl(&[&url])), 0);
    let locked = origin.inject(Fault::require_authorization("Basic dTpw"));
    assert_eq!(code(&curl(&["-f", &url])), 22);
    assert_eq!(curl(&["-f", "-u", "u:p", &url]).stdout.len(), 1000);
    assert_eq!(locked.struck(), 1);
    locked.lift();
    assert_eq!(curl(&["-f", &url]).stdout.len(), 1000);
}

#[test]
fn what_is_held_goes_on_when_it_is_lifted() {
    let origin = Origin::of("/f", Body::noise(1, 1_000_000)).unwrap();
    let url = origin.url("/f");
    let stall = origin.inject(Fault::stall_after(123_456));
    let held = thread::spawn(move || curl(&[&url]));
    stall.wait_struck(1).unwrap();
    origin.wait_in_flight("/f", 123_456).unwrap();
    assert_eq!(origin.in_flight()[0].left, 1_000_000 - 123_456);
    stall.lift();
    assert_eq!(held.join().unwrap().stdout.len(), 1_000_000);
    origin.wait_idle(PATIENCE).unwrap();

    let gate = origin.inject(Fault::gate());
    let url = origin.url("/f");
    let held = thread::spawn(move || curl(&[&url]));
    gate.wait_struck(1).unwrap();
    let before = origin.counters().body_bytes;
    gate.lift();
    assert_eq!(held.join().unwrap().stdout.len(), 1_000_000);
    // It is counted once it is written: whoever reads may be faster.
    origin.wait_idle(PATIENCE).unwrap();
    assert_eq!(origin.counters().body_bytes, before + 1_000_000);
}

#[test]
fn an_origin_ends_with_what_it_holds() {
    let origin = Origin::of("/f", Body::noise(1, 1 << 40)).unwrap();
    let stall = origin.inject(Fault::stall_after(0));
    let url = origin.url("/f");
    let held = thread::spawn(move || curl(&[&url]));
    stall.wait_struck(1).unwrap();
    drop(origin);
    assert_ne!(code(&held.join().unwrap()), 0);
}

#[test]
fn a_body_can_come_without_its_length_and_at_a_pace() {
    let origin = Origin::of("/f", Body::noise(3, 50_000)).unwrap();
    let pace = origin.inject(Fault::pace(1_000_000));
    let endless = origin.inject(Fault::no_length());
    let output = curl(&["-i", "-r", "0-5", &origin.url("/f")]).stdout;
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("Transfer-Encoding: chunked") && !text.contains("Content-Length"));
    assert!(output.ends_with(&Body::noise(3, 50_000).read(0, 50_000).unwrap()));
    assert!(pace.struck() >= 1 && endless.struck() == 1);
}

#[test]
fn an_answer_can_come_late() {
    let origin = Origin::of("/f", Body::noise(3, 1000)).unwrap();
    let late = origin.inject(Fault::late(Duration::from_millis(60)));
    let begun = std::time::Instant::now();
    assert_eq!(curl(&[&origin.url("/f")]).stdout.len(), 1000);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert_eq!(late.struck(), 1);
    origin.inject(Fault::late(Duration::from_secs(3600)).on("/f"));
    let held = thread::spawn({
        let url = origin.url("/f");
        move || curl(&[&url])
    });
    origin.wait_counters("it is asked again", |counters| counters.requests == 2).unwrap();
    drop(origin);
    assert_ne!(code(&held.join().unwrap()), 0);
}
