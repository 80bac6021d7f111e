//! Origins that refuse, break, change, stall or lie: right bytes, or one clear error.

use std::fs;
use std::os::unix::fs::FileExt;

use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Cluster, Fault, Origin};

use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, all, binaries, is_mounted, until};

const MIB: u64 = 1 << 20;

#[test]
fn what_is_not_there_is_not_found() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = origin.url("/missing/f");
    let dir = place.dir("mount");
    for words in [
        &["get", &url, "-o", place.path("out").to_str().unwrap()][..],
        &["cat", &url],
        &["stat", &url],
        &["ls", &url],
        &["get", "-r", &origin.url("/missing/"), "-o", place.path("out").to_str().unwrap()],
        &["mount", &url, dir.to_str().unwrap()],
    ] {
        let said = agent.dfctl(words).fails(3, "DFS-2101");
        assert!(said.stderr.contains(&origin.url("/missing")), "{words:?}: {}", said.stderr);
    }
    assert!(origin.counters().statuses[&404] >= 6, "the origin was asked every time");
    assert!(!place.path("out").exists() && !is_mounted(&dir));
}

#[test]
fn what_is_forbidden_is_not_permitted() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, MIB)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    let out = place.path("out");
    for (status, code) in [(403, "DFS-2103"), (401, "DFS-2102")] {
        let fault = origin.inject(Fault::status(status));
        let get = ["get", &origin.url("/f"), "-o", out.to_str().unwrap()];
        agent.dfctl(&get).fails(4, code);
        agent.dfctl(&["mount", &origin.url("/"), dir.to_str().unwrap()]).fails(4, code);
        assert!(fault.struck() >= 2);
        fault.lift();
    }
    assert!(!out.exists() && !is_mounted(&dir));
}

#[test]
fn credentials_open_what_needs_them_and_only_for_who_has_them() {
    let place = Place::new();
    let body = Body::noise(2, MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let locked = origin.inject(Fault::require_authorization("Basic dXNlcjpwYXNz"));
    let agent = Agent::solo(&place, "agent");
    agent.dfctl(&["cat", &origin.url("/f")]).fails(4, "DFS-2102");
    let opened = origin.url("/f").replace("http://", "http://user:pass@");
    let said = agent.dfctl(&["get", &opened, "-o", "-"]).done();
    assert!(said.stdout == all(&body));
    assert!(locked.struck() >= 1);
    // What one asker's credentials brought is not handed to another asker.
    agent.dfctl(&["cat", &origin.url("/f")]).fails(4, "DFS-2102");
    let listed = agent.dfctl(&["task", "ls", "--format", "json"]);
    assert!(!listed.text().contains("pass") && !agent.log().contains("user:pass"));
}

#[test]
fn a_burst_of_errors_costs_only_time() {
    let place = Place::new();
    let body = Body::noise(3, 3 * MIB + 5);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let heads = origin.inject(Fault::status(500).method("HEAD").times(2));
    let gets = origin.inject(Fault::status(503).method("GET").times(3));
    let said = agent.dfctl(&["get", &origin.url("/f"), "-o", "-"]).done();
    assert!(said.stdout == all(&body));
    assert_eq!((heads.struck(), gets.struck()), (2, 3));
    assert_eq!(origin.counters().body_bytes, body.length().unwrap(), "nothing is fetched twice");
}

#[test]
fn an_answer_that_contradicts_its_origin_is_asked_for_again() {
    let place = Place::new();
    let body = Body::noise(4, MIB + 5);
    let origin = Origin::of("/f", body.clone()).unwrap();
    for off in [1000, -1000] {
        let agent = Agent::solo(&place, &format!("agent{off}"));
        let fault = origin.inject(Fault::length_off(off).method("GET").times(2));
        let said = agent.dfctl(&["get", &origin.url("/f"), "-o", "-"]).done();
        assert!(said.stdout == all(&body), "{off}");
        assert_eq!(fault.struck(), 2, "{off}");
    }
}

#[test]
fn an_origin_that_only_fails_is_given_up_with_its_answer() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(4, MIB)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let fault = origin.inject(Fault::status(500));
    let out = place.path("out");
    let words = ["get", &origin.url("/f"), "-o", out.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(5, "DFS-2104");
    assert!(said.stderr.contains("500"), "{}", said.stderr);
    assert!(fault.struck() > 1 && !out.exists());
}

#[test]
fn an_origin_that_nobody_listens_at_is_a_network_error() {
    let place = Place::new();
    let closed = dfs_tests::process::FreeAddress::new().unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let url = format!("http://{}/f", closed.at());
    let said = agent.dfctl(&["get", &url, "-o", out.to_str().unwrap()]).fails(5, "DFS-2104");
    assert!(said.stderr.contains("refused"), "{}", said.stderr);
    assert!(!out.exists());
}

#[test]
fn a_body_that_is_cut_off_goes_on_where_it_ended() {
    let place = Place::new();
    let body = Body::noise(5, 10 * MIB + 17);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let fault = origin.inject(Fault::reset_after(700_000).times(4));
    let said = agent.dfctl(&["get", &origin.url("/f"), "-o", "-"]).done();
    assert!(said.stdout == all(&body));
    assert_eq!(fault.struck(), 4);
    // A reset throws away what was on the way: the buffers of a connection at most, each time.
    let sent = origin.counters().body_bytes;
    assert!(sent <= body.length().unwrap() + 4 * 700_000, "{sent}");
}

#[test]
fn a_line_that_cuts_every_answer_short_gets_on_all_the_same() {
    let place = Place::new();
    let body = Body::noise(5, 900_000);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let cuts = origin.inject(Fault::reset_after(100_000));
    let said = agent.dfctl(&["get", &origin.url("/f"), "-o", "-"]).done();
    assert!(said.stdout == all(&body));
    assert!(cuts.struck() > 6, "more often than one attempt is repeated: {}", cuts.struck());
}

#[test]
fn a_file_that_changes_between_two_reads_of_a_mount_is_an_error_and_never_a_mixture() {
    let place = Place::new();
    let (old, new) = (Body::noise(6, 40 * MIB), Body::noise(7, 40 * MIB));
    let origin = Origin::of("/d/f", old.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let file = fs::File::open(dir.join("f")).unwrap();
    let mut first = vec![0; 100_000];
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(first == old.read(0, 100_000).unwrap());
    origin.put("/d/f", new.clone());
    let before = origin.counters().method("GET");
    let error = file.read_at(&mut [0; 4096], 39 * MIB).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(origin.counters().method("GET") > before, "the origin was asked");
    let why = xattr::get(dir.join("f"), "user.dfs.error").unwrap().unwrap();
    let why = String::from_utf8(why).unwrap();
    assert!(why.contains("origin changed"), "{why}");
    // What is here is still what it was; a new mount shows the new version.
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(first == old.read(0, 100_000).unwrap());
    let other = Agent::solo(&place, "other");
    let dir = other.mount(&origin.url("/d/"), place.dir("new"));
    assert!(fs::read(dir.join("f")).unwrap() == all(&new));
}

#[test]
fn a_file_that_changes_during_a_get_is_told_and_the_next_get_has_the_new_version() {
    let place = Place::new();
    // Longer than what is asked for at the beginning: some of it is asked for after the change.
    let (old, new) = (Body::noise(8, 90 * MIB), Body::noise(9, 90 * MIB));
    let origin = Origin::of("/f", old).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    let stall = origin.inject(Fault::stall_after(MIB));
    let getting = agent.dfctl_start(&words);
    stall.wait_struck(1).unwrap();
    origin.put("/f", new.clone());
    stall.lift();
    let said = getting.wait().fails(5, "DFS-2106");
    assert!(stall.struck() > 0);
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        0,
        "nothing of a gone version is left: {}",
        said.stderr
    );
    agent.dfctl(&words).done();
    assert!(fs::read(&output).unwrap() == all(&new));
}

#[test]
fn weak_and_missing_validators_still_never_mix_lengths() {
    let place = Place::new();
    let body = Body::noise(10, 5 * MIB + 1);
    for (name, fault) in [("weak", Fault::weak_etag()), ("none", Fault::no_validator())] {
        let origin = Origin::of("/d/f", body.clone()).unwrap();
        let fault = origin.inject(fault);
        let agent = Agent::solo(&place, name);
        assert!(agent.dfctl(&["cat", &origin.url("/d/f")]).done().stdout == all(&body), "{name}");
        let dir = agent.mount(&origin.url("/d/"), place.dir(&format!("mount-{name}")));
        assert!(fs::read(dir.join("f")).unwrap() == all(&body), "{name}");
        assert!(fault.struck() > 0);
    }
}

#[test]
fn a_server_without_ranges_is_read_once_from_the_beginning_to_the_end() {
    let place = Place::new();
    let body = Body::noise(11, 6 * MIB + 3);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let fault = origin.inject(Fault::ignore_range());
    let agent = Agent::solo(&place, "agent");
    let range = agent.dfctl(&["get", &origin.url("/d/f"), "-o", "-", "--range", "5000000-5000099"]);
    assert!(range.done().stdout == body.read(5_000_000, 5_000_100).unwrap());
    assert!(agent.dfctl(&["cat", &origin.url("/d/f")]).done().stdout == all(&body));
    assert!(fault.struck() > 0);
    let sent = origin.counters().body_bytes;
    assert!(sent <= 2 * body.length().unwrap(), "{sent}");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
}

#[test]
fn a_server_without_lengths_is_read_to_its_end() {
    let place = Place::new();
    for length in [0, 1, 65_536, 3 * MIB + 7] {
        let body = Body::noise(12 + length, length);
        let origin = Origin::of("/f", body.clone()).unwrap();
        let fault = origin.inject(Fault::no_length());
        let agent = Agent::solo(&place, &format!("agent-{length}"));
        let out = place.path(&format!("out-{length}"));
        agent.dfctl(&["get", &origin.url("/f"), "-o", out.to_str().unwrap()]).done();
        assert!(fs::read(&out).unwrap() == all(&body), "{length}");
        assert!(fault.struck() > 0);
        // What a mount shows has a length.
        let dir = place.dir("mount");
        agent.dfctl(&["mount", &origin.url("/f"), dir.to_str().unwrap()]).fails(1, "DFS-2107");
        assert!(!is_mounted(&dir));
    }
}

#[test]
fn what_has_no_length_is_given_as_it_comes() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "joined")];
    for (number, agent) in agents.iter().enumerate() {
        let (path, body) = (format!("/{number}"), Body::noise(17, 3 * MIB + 7));
        origin.put(&path, body.clone());
        let fault = origin.inject(Fault::no_length().on(&path));
        let stall = origin.inject(Fault::stall_after(2_500_000).on(&path));
        let reading = agent.dfctl_start(&["cat", &origin.url(&path)]);
        let out = place.path(&format!("out-{number}"));
        let get = ["get", &origin.url(&path), "-o", out.to_str().unwrap()];
        let getting = agent.dfctl_start(&get);
        let part = out.with_extension("dfs-part");
        // Alone every whole group, the others by the MiB.
        let least = [38 * 65_536, 2 * MIB][number];
        until("what is there is given", || reading.stdout().len() as u64 >= least);
        let got = || fs::metadata(&part).map_or(0, |status| status.len());
        until("it is in the part file too", || got() >= MIB);
        stall.wait_struck(1).unwrap();
        assert!(fault.struck() > 0);
        stall.lift();
        assert!(reading.wait().done().stdout == all(&body), "agent {number}");
        getting.wait().done();
        assert!(fs::read(&out).unwrap() == all(&body), "agent {number}");
    }
}

#[test]
fn what_has_no_length_is_read_in_ranges_and_past_a_full_cache() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let room = ["--capacity", "64MiB"];
    let agents = [
        Agent::solo_with(&place, "alone", &room),
        Agent::of_with(&cluster, &place, "joined", &room),
    ];
    for (number, agent) in agents.iter().enumerate() {
        let length = 3 * MIB + 7;
        let (path, body) = (format!("/{number}"), Body::noise(18, length));
        origin.put(&path, body.clone());
        let fault = origin.inject(Fault::no_length());
        let url = origin.url(&path);
        let range = |range: &str| agent.dfctl(&["cat", &url, "--range", range]);
        let wanted = |from, to| body.read(from, to).unwrap();
        assert!(range("2000000-2000099").done().stdout == wanted(2_000_000, 2_000_100));
        assert!(range("3145000-9000000").done().stdout == wanted(3_145_000, length));
        range("3145735-3145740").fails(2, "DFS-2110");
        range("9000000-9000001").fails(2, "DFS-2110");
        // By now its length is known; of this one it is not.
        let (path, body) = (format!("/large-{number}"), Body::noise(19, 90 * MIB + 70_001));
        origin.put(&path, body.clone());
        let read = agent.dfctl(&["cat", &origin.url(&path)]).done();
        assert!(read.stdout == all(&body), "agent {number}");
        let (path, out) = (format!("/far-{number}"), place.path("out"));
        origin.put(&path, body.clone());
        let far = agent.dfctl(&["cat", &origin.url(&path), "--range", "80000000-94371800"]).done();
        assert!(far.stdout == body.read(80_000_000, 94_371_801).unwrap(), "agent {number}");
        let (path, words) = (format!("/got-{number}"), ["-o", out.to_str().unwrap(), "--force"]);
        origin.put(&path, body.clone());
        agent.dfctl(&[&["get", &origin.url(&path)][..], &words].concat()).done();
        assert!(fs::read(&out).unwrap() == all(&body), "agent {number}");
        assert!(fault.struck() > 0);
        fault.lift();
    }
}

#[test]
fn a_stream_of_everything_goes_no_further_than_its_readers_want() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(20, 1024 * MIB)).unwrap();
    let fault = origin.inject(Fault::no_length());
    let agent = Agent::solo(&place, "agent");
    let reading = agent.dfctl_start(&["cat", &origin.url("/f"), "--limit", "1MiB"]);
    until("something is given", || reading.stdout().len() as u64 >= MIB);
    reading.kill();
    // It is given up some time after its last reader has gone.
    origin.wait_idle(PATIENCE).unwrap();
    assert!(fault.struck() > 0);
    // What is read ahead, and what lies in sockets.
    let sent = origin.counters().body_bytes;
    assert!(sent <= 128 * MIB, "{sent}");
}

#[test]
fn nothing_without_a_length_comes_from_the_seed_as_anything_else_does() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    origin.put("/empty", Body::bytes(Vec::new()));
    let fault = origin.inject(Fault::no_length());
    let (url, out) = (origin.url("/empty"), place.path("out"));
    let got = agent.dfctl(&["get", &url, "-o", out.to_str().unwrap(), "--format", "json"]);
    let ledger = &got.done().json().unwrap()["ledger"];
    assert_eq!(ledger["source_requests"], 0, "{ledger}");
    assert_eq!(fs::read(&out).unwrap(), b"");
    agent.dfctl(&["cat", &url, "--range", "0-9"]).fails(2, "DFS-2110");
    assert!(fault.struck() > 0);
}

#[test]
fn an_origin_that_stalls_is_named_as_what_is_waited_for_and_asked_again() {
    let place = Place::new();
    let body = Body::noise(13, 4 * MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let stall = origin.inject(Fault::stall_after(500_000).times(1));
    let out = place.path("out");
    let words = ["get", &origin.url("/f"), "-o", out.to_str().unwrap(), "--progress", "json"];
    let getting = agent.dfctl_start(&words);
    stall.wait_struck(1).unwrap();
    origin.wait_in_flight("/f", 500_000).unwrap();
    until("the progress says what it waits for", || getting.stderr().contains("waiting"));
    // Nobody lifts the stall: the connection is given up, the rest asked for on another one.
    getting.wait().done();
    assert!(fs::read(&out).unwrap() == all(&body));
    let sent = origin.counters().body_bytes;
    assert!(sent <= body.length().unwrap() + MIB, "{sent}");
}

#[test]
fn a_mount_of_a_stalled_origin_ends_every_read_and_unmounts() {
    let place = Place::new();
    let body = Body::noise(14, 4 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let mut agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let stall = origin.inject(Fault::gate().on("/d/f"));
    let path = dir.join("f");
    let reader = std::thread::spawn(move || fs::read(path));
    stall.wait_struck(1).unwrap();
    agent.terminate();
    // By the agent, or by the kernel when the agent's end of the mount closes.
    let error = reader.join().unwrap().unwrap_err();
    let errors = [rustix::io::Errno::IO, rustix::io::Errno::CONNABORTED].map(|e| e.raw_os_error());
    assert!(error.raw_os_error().is_some_and(|number| errors.contains(&number)), "{error}");
    assert!(!is_mounted(&dir));
}

#[test]
fn one_bad_file_of_a_directory_does_not_hide_the_others() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    let origin = Origin::of_directory(&source).unwrap();
    let gone = origin.inject(Fault::status(404).on("/own/large.bin").method("GET"));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/"), place.dir("mount"));
    let error = fs::read(dir.join("own/large.bin")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(gone.struck() > 0);
    let why = xattr::get(dir.join("own/large.bin"), "user.dfs.error").unwrap();
    assert!(why.is_some_and(|why| String::from_utf8_lossy(&why).contains("not found")));
    assert!(
        fs::read(dir.join("shared/four.bin")).unwrap()
            == fs::read(source.join("shared/four.bin")).unwrap()
    );
    gone.lift();
    // The next read finds it again, and the reason is forgotten.
    until("the file is back", || fs::read(dir.join("own/large.bin")).is_ok());
    trees::assert_same(&dir, &source);
    assert_eq!(xattr::get(dir.join("own/large.bin"), "user.dfs.error").unwrap(), None);
}

#[test]
fn a_mount_shows_one_moment_of_a_directory() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("a"), &noise(1, 100_000));
    trees::put(&source.join("b"), &noise(2, 9_000_000));
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/"), place.dir("mount"));
    fs::remove_file(source.join("a")).unwrap();
    trees::put(&source.join("c"), &noise(3, 100_000));
    let names: Vec<_> = trees::names(&dir);
    assert_eq!(names, ["a", "b"]);
    assert!(fs::read(dir.join("b")).unwrap() == noise(2, 9_000_000));
    assert!(fs::read(dir.join("a")).is_err(), "it is gone at the origin, and nobody made it up");
}

#[test]
fn a_command_asks_once_what_a_tree_is_also_without_an_agent() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    for number in 0..5 {
        origin.put(&format!("/d/{number}"), Body::noise(number, 10_000));
    }
    let agent = Agent::solo(&place, "agent");
    let asked = || origin.counters().paths["/d/"].requests;
    let out = place.path("out");
    let words = ["get", "-r", &origin.url("/d/"), "-o", out.to_str().unwrap()];
    agent.dfctl(&words).done();
    let once = asked();
    let data = place.path("alone");
    let alone = ["--force", "--solo", "--data-dir", data.to_str().unwrap()];
    agent.dfctl(&[&words[..], &alone].concat()).done();
    assert_eq!(asked(), once * 2);
    // One question is a HEAD and the page.
    assert!(once <= 2, "{once} requests for one listing");
}
