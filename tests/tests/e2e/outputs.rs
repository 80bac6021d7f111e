//! What `get` leaves behind: the right file, or a named part file, or nothing; never anything outside.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use sha2::Digest as _;

use crate::support::canned::Canned;
use crate::support::trees::{self, names, noise};
use crate::support::{Agent, Expected, Place, Running, Tmpfs, binaries, binary, until};
use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Origin};

/// What an empty directory holds.
const NOTHING: [&str; 0] = [];

#[test]
fn a_digest_that_matches_is_said_and_one_that_does_not_leaves_nothing() {
    let place = Place::new();
    let bytes = noise(1, 1_500_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let (url, out) = (origin.url("/f"), place.dir("out"));
    let get = |digest: &str| {
        let output = out.join("f");
        agent.dfctl(&["get", &url, "-o", output.to_str().unwrap(), "--digest", digest])
    };
    for wrong in ["sha256", "blake3"] {
        let said = get(&format!("{wrong}:{}", "0".repeat(64))).fails(6, "DFS-3101");
        assert!(said.stderr.contains("got "), "{}", said.stderr);
        assert_eq!(names(&out), NOTHING, "after {wrong}");
    }
    let sha256: String = sha2::Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert!(get(&format!("sha256:{sha256}")).done().text().contains("sha256 matches"));
    assert!(fs::read(out.join("f")).unwrap() == bytes);
    // The same again has nothing to do; with another digest what exists is not touched.
    assert_eq!(get(&format!("blake3:{}", blake3::hash(&bytes))).code, 9);
    get(&format!("sha256:{}", "0".repeat(64))).fails(1, "DFS-1101");
    assert!(fs::read(out.join("f")).unwrap() == bytes);
    let streamed = agent.dfctl(&["get", &url, "-o", "-", "--digest", &format!("sha256:{sha256}")]);
    assert!(streamed.done().stdout == bytes);
}

#[test]
fn what_has_come_is_in_the_output_before_what_comes_earlier_in_it() {
    let place = Place::new();
    let bytes = noise(8, 12_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = origin.url("/f");
    agent.dfctl(&["cat", &url, "--range", "6000000-11999999"]).done();
    let gate = origin.inject(Fault::gate().method("GET"));
    let out = place.dir("out");
    let output = out.join("f");
    let getting = agent.dfctl_start(&["get", &url, "-o", output.to_str().unwrap()]);
    gate.wait_struck(1).unwrap();
    let part = out.join("f.dfs-part");
    let has = |range: std::ops::Range<usize>| {
        let (mut there, at) = (vec![0; range.len()], range.start as u64);
        let read = File::open(&part).and_then(|part| part.read_exact_at(&mut there, at));
        read.is_ok() && there == bytes[range]
    };
    until("the second half is there", || has(6_100_000..12_000_000));
    assert!(!has(0..10_000), "the first is not");
    gate.lift();
    assert_eq!(getting.wait().code, 0);
    assert!(fs::read(&output).unwrap() == bytes);
}

#[test]
fn a_file_that_says_it_is_empty_and_is_not_is_refused() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let get = ["get", "/proc/version", "-o", out.to_str().unwrap()];
    let said = agent.dfctl(&get);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("it says that it is empty and is not"), "{}", said.stderr);
    // Nor is a directory of such files one of empty ones.
    let tree = place.path("tree");
    let words = ["get", "-r", "/proc/sys/net/core", "-o", tree.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(5, "DFS-2104");
    assert!(said.stderr.contains("copy them with cp first"), "{}", said.stderr);
    assert!(!out.exists());
    let empty = place.path("empty");
    fs::write(&empty, "").unwrap();
    agent.dfctl(&["get", empty.to_str().unwrap(), "-o", out.to_str().unwrap()]).done();
    assert_eq!(fs::read(&out).unwrap(), b"");
}

#[test]
fn a_file_of_this_machine_keeps_its_permissions_and_time_and_gains_no_rights() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let (source, out) = (place.dir("source"), place.dir("out"));
    for mode in [0o600, 0o640, 0o755, 0o4755, 0o2711, 0o400] {
        let (file, output) = (source.join(format!("{mode:o}")), out.join(format!("{mode:o}")));
        fs::write(&file, noise(u64::from(mode), 10_000)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        agent.dfctl(&["get", file.to_str().unwrap(), "-o", output.to_str().unwrap()]).done();
        let (is, was) = (fs::metadata(&output).unwrap(), fs::metadata(&file).unwrap());
        assert_eq!(is.permissions().mode() & 0o7777, mode & 0o777, "of {mode:o}");
        assert_eq!((is.mtime(), is.mtime_nsec()), (was.mtime(), was.mtime_nsec()), "of {mode:o}");
    }
    // It is closed to others from the beginning.
    let (large, output) = (source.join("large"), out.join("large"));
    fs::write(&large, noise(7, 4 << 20)).unwrap();
    fs::set_permissions(&large, fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["get", large.to_str().unwrap(), "-o", output.to_str().unwrap()];
    let getting = agent.dfctl_start(&[&words[..], &["--limit", "1MiB/s"]].concat());
    let part = out.join("large.dfs-part");
    until("it is being written", || fs::metadata(&part).is_ok_and(|part| part.len() > 0));
    assert_eq!(fs::metadata(&part).unwrap().permissions().mode() & 0o777, 0o600);
    getting.interrupt();
    // What comes from elsewhere is as any new file is.
    let origin = Origin::of("/f", Body::noise(1, 1_000)).unwrap();
    agent.dfctl(&["get", &origin.url("/f"), "-o", out.join("f").to_str().unwrap()]).done();
    let fresh = out.join("fresh");
    fs::write(&fresh, "").unwrap();
    assert_eq!(fs::metadata(out.join("f")).unwrap().mode(), fs::metadata(fresh).unwrap().mode());
}

#[test]
fn the_standard_output_by_any_name_gets_the_content_and_nothing_else() {
    let place = Place::new();
    let bytes = noise(3, 100_000);
    let file = place.path("f");
    fs::write(&file, &bytes).unwrap();
    let agent = Agent::solo(&place, "agent");
    let link = place.path("link");
    symlink("/dev/stdout", &link).unwrap();
    for output in ["-", "/dev/stdout", "/proc/self/fd/1", link.to_str().unwrap()] {
        let words = ["get", file.to_str().unwrap(), "--force", "-o", output];
        let said = agent.dfctl(&words).done();
        assert!(said.stdout == bytes, "{output}");
        // Where that is a file, it is written and not replaced.
        let target = place.path("target");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo before >\"$0\"; exec \"$@\" >>\"$0\""]).arg(&target);
        shell.arg(binary("dfctl")).arg("--socket").arg(agent.socket()).args(words);
        Said::by(&mut shell).unwrap().done();
        assert!(fs::read(&target).unwrap() == [b"before\n", &bytes[..]].concat(), "{output}");
    }
    assert!(link.is_symlink());
}

#[test]
fn ranges_and_streams_are_exactly_the_bytes_asked_for() {
    let place = Place::new();
    let bytes = noise(2, 5_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = origin.url("/f");
    for (from, to) in [(0, 0), (65_535, 65_536), (1_000_000, 1_999_999), (4_999_999, 9_999_999)] {
        let range = format!("{from}-{to}");
        let said = agent.dfctl(&["get", &url, "-o", "-", "--range", &range]).done();
        assert!(said.stdout == bytes[from..bytes.len().min(to + 1)], "{range}");
    }
    agent.dfctl(&["get", &url, "-o", "-", "--range", "5000000-5000001"]).fails(2, "DFS-2110");
    assert!(agent.dfctl(&["cat", &url]).done().stdout == bytes);
    assert!(
        origin.counters().body_bytes <= bytes.len() as u64,
        "what is here is not fetched again"
    );
}

#[test]
fn a_disk_that_is_too_small_is_told_at_once_and_the_file_comes_when_there_is_room() {
    let place = Place::new();
    let bytes = noise(3, 6_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let disk = Tmpfs::mount(place.dir("disk"), 2 << 20);
    let output = disk.path().join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(7, "DFS-1104");
    assert!(said.stderr.contains(words[3]) && said.stderr.contains("-o PATH"), "{}", said.stderr);
    assert_eq!(names(disk.path()), NOTHING);
    disk.resize(16 << 20);
    agent.dfctl(&words).done();
    assert!(fs::read(&output).unwrap() == bytes);
}

#[test]
fn a_disk_that_fills_up_on_the_way_leaves_a_named_part_file_to_go_on_from() {
    let place = Place::new();
    let bytes = noise(4, 24_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let disk = Tmpfs::mount(place.dir("disk"), 32 << 20);
    let output = disk.path().join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    let pace = origin.inject(Fault::pace(16 << 20));
    let getting = agent.dfctl_start(&words);
    until("some of it is written", || disk.path().join("f.dfs-part").exists());
    fs::write(disk.path().join("another"), vec![1; 24 << 20]).unwrap();
    let said = getting.wait().fails(7, "DFS-1104");
    assert!(said.stderr.contains("f.dfs-part"), "the part file is named: {}", said.stderr);
    for part in ["make room", "goes on from there", "-o"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert_eq!(names(disk.path()), ["another", "f.dfs-part"]);
    fs::remove_file(disk.path().join("another")).unwrap();
    assert!(pace.struck() > 0);
    pace.lift();
    agent.dfctl(&words).done();
    assert!(fs::read(&output).unwrap() == bytes);
    assert_eq!(names(disk.path()), ["f"]);
}

#[test]
fn a_cache_without_room_for_a_file_passes_it_on() {
    let place = Place::new();
    let bytes = noise(5, 6_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let disk = Tmpfs::mount(place.dir("disk"), 3 << 20);
    let agent = Agent::solo_in(disk.path(), "agent");
    let out = place.dir("out");
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    agent.dfctl(&words).done();
    assert!(fs::read(&output).unwrap() == bytes);
    assert!(agent.dfctl(&["cat", &origin.url("/f")]).done().stdout == bytes);
}

#[test]
fn a_cache_without_room_for_anything_is_told_as_such() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::bytes(noise(5, 6_000_000))).unwrap();
    let disk = Tmpfs::mount(place.dir("disk"), 3 << 20);
    let agent = Agent::solo_in(disk.path(), "agent");
    let filler = fs::write(disk.path().join("filler"), vec![1; 3 << 20]);
    assert_eq!(filler.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let output = place.dir("out").join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(7, "DFS-4114");
    let disk = disk.path().to_str().unwrap();
    for part in [&format!("no space left in {disk}/"), "make room on its disk", "--capacity"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert!(!output.exists());
    let source = place.dir("source");
    fs::write(source.join("f"), noise(5, 6_000_000)).unwrap();
    let packed = Command::new("tar").args(["-C", source.to_str().unwrap(), "-cz", "."]).output();
    origin.put("/t.tar.gz", Body::bytes(packed.unwrap().stdout));
    // It is the disk, and not the origin, also where an archive is unpacked for its index.
    agent.dfctl(&["ls", &origin.url("/t.tar.gz")]).fails(7, "DFS-4114");
    let filler = File::options().write(true).open(Path::new(disk).join("filler")).unwrap();
    filler.set_len(1 << 20).unwrap();
    // With room for an index, though not for the archive, there is one.
    let listed = agent.dfctl(&["ls", &origin.url("/t.tar.gz")]).done();
    assert!(String::from_utf8_lossy(&listed.stdout).ends_with(" f\n"), "{listed:?}");
    fs::write(Path::new(disk).join("filler"), vec![1; 3 << 20]).unwrap_err();
    agent.dfctl(&["version"]).done();
    let said =
        agent.dfctl(&["--solo", "--data-dir", disk, "cat", &origin.url("/f")]).fails(7, "DFS-4114");
    for part in [disk, "the same command with --data-dir DIR"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}

#[test]
fn a_killed_get_goes_on_from_its_part_file() {
    let place = Place::new();
    let bytes = noise(6, 40_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    kill_after_the_first_mark(&agent, &origin.url("/f"), &out, bytes.len());
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap(), "--format", "json"];
    let said = agent.dfctl(&words).done().json().unwrap();
    assert!(said["kept_bytes"].as_u64().unwrap() >= 1 << 20, "{said}");
    assert!(fs::read(&output).unwrap() == bytes);
    assert_eq!(names(&out), ["f"]);
    assert_eq!(origin.counters().body_bytes, bytes.len() as u64, "nothing is fetched twice");
}

#[test]
fn what_another_hand_changed_in_a_part_file_is_got_again() {
    let place = Place::new();
    let bytes = noise(12, 40_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    for (way, next) in [("agent", &[][..]), ("alone", &["--solo"])] {
        let out = place.dir(&format!("out-{way}"));
        kill_after_the_first_mark(&agent, &origin.url("/f"), &out, bytes.len());
        let part = fs::File::options().write(true).open(out.join("f.dfs-part")).unwrap();
        part.write_all_at(b"another hand", 500_000).unwrap();
        let output = out.join("f");
        let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap(), "--format", "json"];
        let said = agent.dfctl(&[&words[..], next].concat()).done();
        assert!(said.stderr.contains("f.dfs-part was changed or damaged"), "{}", said.stderr);
        assert_eq!(said.json().unwrap()["kept_bytes"], 0, "{way}");
        assert!(fs::read(&output).unwrap() == bytes, "{way}");
    }
}

#[test]
fn a_killed_get_without_an_agent_is_gone_on_with_by_any_other() {
    let place = Place::new();
    let bytes = noise(11, 40_000_000);
    let agent = Agent::solo(&place, "agent");
    let data = place.dir("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let data = ["--data-dir", data.to_str().unwrap()];
    for (way, next) in [("agent", &[][..]), ("alone", &["--solo"])] {
        let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
        let pace = origin.inject(Fault::pace(4 << 20));
        let out = place.dir(&format!("out-{way}"));
        let (url, output) = (origin.url("/f"), out.join("f"));
        let words = [&["get", &url, "-o", output.to_str().unwrap()], &data[..]].concat();
        let getting = agent.dfctl_start(&[&words[..], &["--solo"]].concat());
        let part = out.join("f.dfs-part");
        until("it is in the cache of the command too", || {
            fs::metadata(&part).is_ok_and(|part| part.nlink() == 2)
        });
        getting.kill();
        assert_eq!(fs::metadata(&part).unwrap().nlink(), 2, "also when that is dead");
        pace.lift();
        let other = place.path(&format!("other-{way}"));
        let elsewhere = ["--data-dir", other.to_str().unwrap(), "--solo"];
        let said = agent.dfctl(&[&words[..4], &elsewhere].concat()).fails(1, "DFS-1102");
        for told in ["that was killed", "with the --data-dir of", "rm /"] {
            assert!(said.stderr.contains(told), "{told}: {}", said.stderr);
        }
        agent.dfctl(&[&words[..], next].concat()).done();
        assert!(fs::read(&output).unwrap() == bytes, "{way}");
        assert_eq!(names(&out), ["f"], "{way}");
    }
}

/// Kills a slow get of `url` into `out` once its part file says how far it is, which it does every 16 MiB.
fn kill_after_the_first_mark(agent: &Agent, url: &str, out: &Path, length: usize) {
    let output = out.join("f");
    let getting =
        agent.dfctl_start(&["get", url, "-o", output.to_str().unwrap(), "--limit", "20MiB/s"]);
    let part = out.join("f.dfs-part");
    until("a mark counts bytes", || marked(&part, length) > 0);
    getting.kill();
    assert_eq!(names(out), ["f.dfs-part"]);
}

/// How far a part file of `length` bytes says that it is, in the mark behind its content.
fn marked(part: &Path, length: usize) -> u64 {
    let Ok(bytes) = fs::read(part) else { return 0 };
    let mark = bytes.get(length..).and_then(|mark| std::str::from_utf8(mark).ok());
    let mark = mark.and_then(|mark| serde_json::from_str(mark.strip_prefix("dfs-part 2 ")?).ok());
    mark.and_then(|mark: serde_json::Value| mark["done"].as_u64()).unwrap_or(0)
}

#[test]
fn an_interrupted_get_says_how_to_go_on() {
    let place = Place::new();
    let bytes = noise(7, 20_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    let slowly = [&words[..], &["--limit", "4MiB/s"]].concat();
    let getting = agent.dfctl_start(&slowly);
    let part = out.join("f.dfs-part");
    until("bytes are written", || fs::metadata(&part).is_ok_and(|meta| meta.blocks() > 4096));
    let said = getting.interrupt().fails(130, "DFS-1130");
    let told = ["f.dfs-part", "goes on from there"];
    assert!(told.iter().all(|words| said.stderr.contains(words)), "{}", said.stderr);
    agent.dfctl(&words).done();
    assert!(fs::read(&output).unwrap() == bytes);
}

#[test]
fn what_came_in_the_first_moment_is_kept_without_an_agent_too() {
    let place = Place::new();
    let bytes = noise(8, 20_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let stalls = origin.inject(Fault::stall_after(300_000));
    let output = place.path("f");
    let get = || {
        let mut get = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
        get.args(["--solo", "--data-dir"]).arg(place.path("data"));
        get.args(["get", &origin.url("/f"), "--format", "json", "--progress", "json", "-o"]);
        get.arg(&output);
        get
    };
    let getting = Running::start(get());
    let came = |line: &str| {
        let event = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
        event["bytes"].as_u64().unwrap_or(0)
    };
    // Far less than is waited for at a time.
    until("some of it came", || getting.stderr().lines().any(|line| came(line) > 0));
    assert!(getting.stderr().lines().all(|line| came(line) <= 300_000));
    let said = getting.interrupt().fails(130, "DFS-1130");
    assert!(said.stderr.contains("goes on from there"), "{}", said.stderr);
    stalls.lift();
    let saved = Said::by(&mut get()).unwrap().done().json().unwrap();
    assert!(saved["kept_bytes"].as_u64() > Some(0), "{saved}");
    assert!(fs::read(&output).unwrap() == bytes);
}

#[test]
fn a_get_into_a_pipe_ends_at_the_first_interrupt_also_when_nobody_reads() {
    let place = Place::new();
    let content = noise(7, 3_000_000);
    let origin = Origin::of("/f", Body::bytes(content.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let words = ["get", &origin.url("/f"), "-o", pipe.to_str().unwrap()];
    let opening = |getting: &crate::support::Running| {
        let tasks = format!("/proc/{}/task", getting.pid());
        let waits = |task: fs::DirEntry| fs::read_to_string(task.path().join("wchan"));
        let mut tasks = fs::read_dir(tasks).unwrap().flatten().map(waits);
        tasks.any(|at| at.is_ok_and(|at| at.contains("wait_for_partner") || at.contains("fifo")))
    };
    let getting = agent.dfctl_start(&words);
    until("it waits for a reader", || opening(&getting));
    getting.interrupt().fails(130, "DFS-1130");
    assert_eq!(origin.counters().body_bytes, 0);

    let getting = agent.dfctl_start(&words);
    let mut reader = fs::File::open(&pipe).unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut reader, &mut first).unwrap();
    getting.interrupt().fails(130, "DFS-1130");
    // With what is left in the pipe.
    drop(reader);

    let getting = agent.dfctl_start(&words);
    let bytes = fs::read(&pipe).unwrap();
    getting.wait().done();
    assert!(bytes == content);
}

#[test]
fn what_appeared_meanwhile_is_not_replaced_and_what_was_got_is_named() {
    let place = Place::new();
    let bytes = noise(12, 8_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap(), "--format", "json"];
    let pace = origin.inject(Fault::pace(8 << 20));
    let getting = agent.dfctl_start(&words);
    until("it is written", || out.join("f.dfs-part").exists());
    fs::write(&output, "mine").unwrap();
    let said = getting.wait().fails(1, "DFS-1101");
    assert!(pace.struck() > 0);
    for part in ["appeared meanwhile", "f.dfs-part", "--force"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert_eq!(fs::read(&output).unwrap(), b"mine");
    let said = agent.dfctl(&[&words[..], &["--force"]].concat()).done().json().unwrap();
    assert_eq!(said["kept_bytes"], 8_000_000, "{said}");
    assert!(fs::read(&output).unwrap() == bytes);
    assert_eq!(names(&out), ["f"]);
}

#[test]
fn a_part_file_that_somebody_cuts_off_is_an_error_and_no_output() {
    let place = Place::new();
    let bytes = noise(13, 24_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    let output = out.join("f");
    let data = place.path("data");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    for alone in [&[][..], &["--solo", "--data-dir", data.to_str().unwrap()]] {
        let words = [&words[..], &["--limit", "16MiB/s"], alone].concat();
        let getting = agent.dfctl_start(&words);
        let part = out.join("f.dfs-part");
        until("bytes are written", || fs::metadata(&part).is_ok_and(|meta| meta.blocks() > 4096));
        fs::File::options().write(true).open(&part).unwrap().set_len(100).unwrap();
        let said = getting.wait().fails(6, "DFS-3103");
        assert!(said.stderr.contains("cut off"), "{}", said.stderr);
        assert_eq!(names(&out), NOTHING);
    }
    agent.dfctl(&words).done();
    assert!(fs::read(&output).unwrap() == bytes);
}

#[test]
fn an_interrupted_get_of_a_tree_names_every_part_file_and_promises_nothing_without_one() {
    let place = Place::new();
    let source = place.dir("source");
    for name in ["a", "b"] {
        trees::put(&source.join(name), &noise(14, 20_000_000));
    }
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let words = ["get", "-r", &origin.url("/"), "-o", out.to_str().unwrap()];
    let getting = agent.dfctl_start(&[&words[..], &["--limit", "16MiB/s"]].concat());
    until("both are written", || {
        ["a.dfs-part", "b.dfs-part"]
            .iter()
            .all(|name| fs::metadata(out.join(name)).is_ok_and(|meta| meta.blocks() > 1024))
    });
    let said = getting.interrupt().fails(130, "DFS-1130");
    for part in ["out/a.dfs-part", "out/b.dfs-part", "goes on from there"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    agent.dfctl(&words).done();
    trees::assert_same(&out, &source);

    let disk = Tmpfs::mount(place.dir("disk"), 1 << 20);
    let out = disk.path().join("out");
    let words = ["get", "-r", &origin.url("/"), "-o", out.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(7, "DFS-1104");
    assert!(!said.stderr.contains("goes on from there"), "{}", said.stderr);
    assert!(said.stderr.contains("-o PATH"), "{}", said.stderr);
}

#[test]
fn two_gets_of_one_output_are_kept_apart() {
    let place = Place::new();
    let bytes = noise(10, 20_000_000);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    let first = agent.dfctl_start(&[&words[..], &["--limit", "10MiB/s"]].concat());
    until("the first writes", || out.join("f.dfs-part").exists());
    agent.dfctl(&words).fails(1, "DFS-1105");
    first.wait().done();
    assert!(fs::read(&output).unwrap() == bytes);
    assert_eq!(names(&out), ["f"]);
}

#[test]
fn a_part_file_of_another_version_is_not_gone_on_from() {
    let place = Place::new();
    let (old, new) = (noise(8, 40_000_000), noise(9, 40_000_000));
    let origin = Origin::of("/f", Body::bytes(old.clone())).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.dir("out");
    kill_after_the_first_mark(&agent, &origin.url("/f"), &out, old.len());
    origin.put("/f", Body::bytes(new.clone()));
    // This agent may remember the old version for some seconds.
    let other = Agent::solo(&place, "other");
    let output = out.join("f");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap(), "--format", "json"];
    let said = other.dfctl(&words).done().json().unwrap();
    assert_eq!(said["kept_bytes"], 0, "{said}");
    assert!(fs::read(&output).unwrap() == new);
}

#[test]
fn a_whole_tree_is_got_and_nothing_is_done_the_second_time() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let words = ["get", "-r", &origin.url("/"), "-o", out.to_str().unwrap()];
    agent.dfctl(&words).done();
    trees::assert_same(&out, &source);
    assert_eq!(agent.dfctl(&words).code, 9);
    fs::write(out.join("one"), b"?").unwrap();
    fs::remove_file(out.join("group")).unwrap();
    let said = agent.dfctl(&words).fails(8, "DFS-1108");
    assert!(said.stderr.contains("DFS-1101"), "what differs is named: {}", said.stderr);
    assert_eq!(fs::read(out.join("one")).unwrap(), b"?", "what differs is not replaced");
    let force = [&words[..], &["--force"]].concat();
    agent.dfctl(&force).done();
    trees::assert_same(&out, &source);
}

#[test]
fn names_that_lead_outside_are_never_written() {
    let place = Place::new();
    let page = r#"<html><head><title>Index of /evil/</title></head><body><h1>Index of /evil/</h1><pre>
<a href="../">../</a>
<a href="../outside">outside</a>
<a href="..%2foutside">x</a>
<a href="%2e%2e/outside">x</a>
<a href="/outside">x</a>
<a href="%2fetc%2fpasswd">x</a>
<a href="//127.0.0.1/outside">x</a>
<a href="good">good</a>
</pre></body></html>"#;
    let origin = Canned::serve(vec![
        ("/evil/", "text/html", page),
        ("/evil/good", "application/octet-stream", "good"),
        ("/outside", "application/octet-stream", "bad"),
    ]);
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("dir");
    let out = dir.join("out");
    let get = ["get", "-r", &origin.url("/evil/"), "-o", out.to_str().unwrap()];
    let said = agent.dfctl(&get).fails(8, "DFS-1108");
    assert!(said.stderr.contains("%2Fetc%2Fpasswd of"), "{}", said.stderr);
    assert!(said.stderr.contains("its name is none that a file can have"), "{}", said.stderr);
    assert!(origin.asked().contains(&"/evil/".to_owned()));
    assert_eq!(names(&dir), ["out"]);
    assert_eq!(names(&dir.join("out")), ["good"]);
}

#[test]
fn an_archive_cannot_write_through_its_own_links_or_outside() {
    let place = Place::new();
    let victim = place.dir("victim");
    trees::put(&victim.join("file"), b"precious");
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("dir");
    for (name, script) in [
        // A link to elsewhere, then a file of the same name as a directory below it.
        (
            "through-a-link",
            "ln -s VICTIM d; tar -cf T d; rm d; mkdir d; echo bad > d/file; tar -rf T d/file",
        ),
        ("upwards", "echo bad > f; tar -cf T -P --transform 's,^f$,../victim/file,' f"),
        ("absolute", "echo bad > f; tar -cf T -P --transform 's,^f$,VICTIM/file,' f"),
    ] {
        let work = place.dir(name);
        let tar = work.join("t.tar");
        let script = script.replace("VICTIM", victim.to_str().unwrap()).replace('T', "t.tar");
        let made = Command::new("sh").args(["-ec", &script]).current_dir(&work).status().unwrap();
        assert!(made.success(), "{name}");
        let url = format!("file://{}", tar.display());
        let out = dir.join(name);
        let said = agent.dfctl(&["get", "-r", &url, "-o", out.to_str().unwrap()]);
        assert!(
            said.code == 0 || said.stderr.contains("DFS-"),
            "{name}: {} {}",
            said.code,
            said.stderr
        );
        assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious", "{name}");
        assert_eq!(names(&victim), ["file"], "{name}");
    }
}

#[test]
fn a_link_planted_in_the_output_is_not_followed() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("d/file"), b"new");
    trees::put(&source.join("e"), b"new too");
    let victim = place.dir("victim");
    trees::put(&victim.join("file"), b"precious");
    let out = place.dir("out");
    symlink(&victim, out.join("d")).unwrap();
    symlink(victim.join("file"), out.join("e")).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = format!("file://{}/", source.display());
    for force in [&[][..], &["--force"]] {
        let words = [&["get", "-r", &url, "-o", out.to_str().unwrap()][..], force].concat();
        let said = agent.dfctl(&words).fails(8, "DFS-1108");
        assert!(said.stderr.contains("DFS-1106"), "{}", said.stderr);
        assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious");
        assert_eq!(names(&victim), ["file"]);
    }
    assert_eq!(fs::read(out.join("e")).unwrap(), b"new too", "--force replaces the link itself");
}
