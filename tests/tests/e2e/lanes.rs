//! Lanes: by which way the kernel reads a mount, and that nobody who reads can tell.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use dfs_model::GROUP_BYTES;
use dfs_tests::{Body, Fault, Origin, wait};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::lanes::is_read_without;
use crate::support::own::{Of, Own, running};
use crate::support::trees;
use crate::support::{Agent, Expected, Place, all, dfctl_at};
use crate::survival::Holder;

const MIB: u64 = 1 << 20;

/// Long enough to have a content file of its own.
const LARGE: u64 = 9 * MIB + 17;

/// A listing of one large file and some small ones.
fn origin_of(large: &Body) -> Origin {
    let origin = Origin::of("/d/large", large.clone()).unwrap();
    for number in 0..5 {
        origin.put(&format!("/d/small/{number}"), Body::noise(number, 3_000 + number));
    }
    origin
}

/// Lane and reason, as `dfctl mounts` says.
fn lane(socket: &Path, dir: &Path) -> (String, String) {
    let listed = dfctl_at(socket, &["mounts", "--format", "json"]).done().json().unwrap();
    let mounts = listed["items"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["dir"] == dir.to_str().unwrap()).unwrap();
    let text = |key: &str| mount[key].as_str().unwrap().to_owned();
    (text("lane"), text("lane_reason"))
}

/// Whether the agent has a mount there; the machine's table has those of other tests, too.
fn has_mount(socket: &Path, dir: &Path) -> bool {
    let listed = dfctl_at(socket, &["mounts", "--format", "json"]).done().json().unwrap();
    listed["items"].as_array().unwrap().iter().any(|mount| mount["dir"] == dir.to_str().unwrap())
}

#[test]
fn a_part_of_a_tree_has_the_lane_that_is_right_for_what_is_shown_of_it() {
    let place = Place::new();
    let origin = origin_of(&Body::noise(1, LARGE));
    // More than half of all is in no file of its own.
    for number in 0..30 {
        origin.put(&format!("/e/small/{number}"), Body::noise(number, MIB));
    }
    origin.put("/e/large", Body::noise(2, LARGE));
    let agent = Agent::solo(&place, "agent");
    let lane_of = |url: String, name: &str| {
        let dir = agent.mount(&url, place.dir(name));
        lane(agent.socket(), &dir)
    };
    assert_eq!(lane_of(origin.url("/d/"), "d").0, "passthrough");
    let (lane, why) = lane_of(format!("{}!small", origin.url("/d/")), "d-small");
    assert!(lane == "fuse" && why.contains("needs large files"), "{lane}: {why}");
    let (lane, why) = lane_of(origin.url("/e/"), "e");
    assert!(lane == "fuse" && why.contains("less than half"), "{lane}: {why}");
    let (lane, why) = lane_of(format!("{}!large", origin.url("/e/")), "e-large");
    assert_eq!((&*lane, &*why), ("passthrough", "1 file directly once whole"));
}

#[test]
fn a_whole_file_is_read_by_the_kernel_itself() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let pid = Pid::from_raw(agent.node.process().pid() as i32).unwrap();
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let (lane, why) = lane(agent.socket(), &dir);
    assert_eq!((&*lane, &*why), ("passthrough", "1 file directly once whole"));

    let first = File::open(dir.join("large")).unwrap();
    let mut read = vec![0; bytes.len()];
    first.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes);
    // While that is open others are opened the same way.
    let second = File::open(dir.join("large")).unwrap();
    assert!(!is_read_without(pid, &second, &bytes));
    drop((first, second));
    wait::until("the kernel has said that both are closed", || {
        is_read_without(pid, &File::open(dir.join("large")).unwrap(), &bytes)
    })
    .unwrap();

    // A mapping, a program that reads in its own way, and small files beside it.
    #[allow(unsafe_code)]
    // SAFETY: files of a mount never change and are never cut short.
    let mapped = unsafe { memmap2::Mmap::map(&File::open(dir.join("large")).unwrap()) }.unwrap();
    assert!(mapped[..] == bytes[..]);
    let copied = place.path("copy");
    assert!(Command::new("cp").arg(dir.join("large")).arg(&copied).status().unwrap().success());
    assert!(fs::read(copied).unwrap() == bytes);
    for number in 0..5 {
        let small = all(&Body::noise(number, 3_000 + number));
        assert!(fs::read(dir.join(format!("small/{number}"))).unwrap() == small);
    }
    let denied = File::options().write(true).open(dir.join("large")).unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // What is read like that is in use.
    let id = dfctl_at(agent.socket(), &["task", "ls", "--format", "json"]).done().json().unwrap();
    let tasks = id["items"].as_array().unwrap();
    assert!(tasks.iter().all(|task| task["in_use"] == true), "{id}");
}

#[test]
fn opens_of_both_ways_outlive_the_agent_that_answered_them() {
    let own = Own::start(Place::new());
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let other = Body::noise(2, LARGE);
    origin.put("/d/other", other.clone());
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    assert_eq!(lane(&own.socket, &dir).0, "passthrough");
    let (large, slow) = (dir.join("large"), dir.join("other"));
    assert!(fs::read(&large).unwrap() == bytes);
    let direct = wait::find("it is read directly", wait::PATIENCE, || {
        let file = File::open(&large).unwrap();
        is_read_without(own.agent(), &file, &bytes).then_some(file)
    })
    .unwrap();
    // Open through the agent: not all of it is here.
    let cached = File::open(&slow).unwrap();
    let mut some = [0; 100];
    cached.read_exact_at(&mut some, 5 * MIB).unwrap();

    for _ in 0..3 {
        let killed = own.agent();
        kill_process(killed, Signal::KILL).unwrap();
        // Nobody is needed for this one, whether or not there is an agent.
        let mut read = vec![0; bytes.len()];
        direct.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes);
        wait::until("it is gone", || !running(&own.data, Of::Agents).contains(&killed)).unwrap();
        // Opened again by the next one: directly, and through it, since it does not know who has it open.
        assert!(is_read_without(own.agent(), &File::open(&large).unwrap(), &bytes));
        assert!(fs::read(&slow).unwrap() == all(&other));
        let again = File::open(&slow).unwrap();
        let mut read = vec![0; LARGE as usize];
        again.read_exact_at(&mut read, 0).unwrap();
        assert!(read == all(&other));
        fadvise(&cached, 0, None, Advice::DontNeed).unwrap();
        cached.read_exact_at(&mut some, 7 * MIB).unwrap();
        assert!(some == all(&other)[7 * MIB as usize..][..100]);
    }
}

#[test]
fn a_file_whose_bytes_come_while_it_is_read_is_never_passed_too_early() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let pace = origin.inject(Fault::pace(8 * MIB).on("/d/large"));
    thread::scope(|scope| {
        for reader in 0..8_u64 {
            let (bytes, path) = (&bytes, dir.join("large"));
            scope.spawn(move || {
                let (mut at, mut buffer) = (reader, vec![0; 50_000]);
                for _ in 0..300 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(reader | 1);
                    let offset = (at >> 20) as usize % (bytes.len() - buffer.len());
                    let file = File::open(&path).unwrap();
                    file.read_exact_at(&mut buffer, offset as u64).unwrap();
                    assert!(buffer[..] == bytes[offset..offset + buffer.len()], "at {offset}");
                }
            });
        }
    });
    assert!(pace.struck() > 0);
}

/// A directory on an overlay; gone when this is dropped.
struct Overlay(PathBuf);

impl Overlay {
    fn over(lower: &Path, place: &Place) -> Self {
        let [upper, work, dir] = ["upper", "work", "merged"].map(|name| place.dir(name));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&dir);
        assert!(mount.status().unwrap().success());
        Self(dir)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn where_files_cannot_be_passed_a_mount_has_the_next_lane_and_says_why() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let overlay = Overlay::over(&place.dir("lower"), &place);
    let stacked = Agent::solo_in(&overlay.0, "stacked");
    let dir = stacked.mount(&origin.url("/d/"), place.dir("stacked"));
    let (which, why) = lane(stacked.socket(), &dir);
    assert_eq!(which, "fuse");
    assert!(why.contains("overlay"), "{why}");
    assert!(fs::read(dir.join("large")).unwrap() == bytes);
    assert!(fs::read(dir.join("large")).unwrap() == bytes);

    let agent = Agent::solo(&place, "agent");
    let mounted = |name: &str, url: &str, words: &[&str]| {
        let dir = place.dir(name);
        agent.guard(&dir);
        let said = agent.dfctl(&[&["mount", url, dir.to_str().unwrap()], words].concat()).done();
        (lane(agent.socket(), &dir), said.text())
    };
    let url = origin.url("/d/");
    let ((which, why), _) = mounted("asked", &url, &["--lane", "fuse"]);
    assert_eq!((&*which, &*why), ("fuse", "as asked"));
    let ((which, why), said) =
        mounted("small", &format!("{url}small/"), &["--lane", "passthrough"]);
    assert_eq!(which, "fuse");
    assert!(said.contains(&format!("lane fuse ({why})")), "{said}");
    assert!(why.contains("needs large files"), "{why}");
}

#[test]
fn an_overlay_lies_on_a_mount_whose_files_are_passed() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("lower"));
    assert_eq!(lane(agent.socket(), &dir).0, "passthrough");
    let overlay = Overlay::over(&dir, &place);
    for _ in 0..2 {
        assert!(fs::read(overlay.0.join("large")).unwrap() == bytes);
    }
    // Copied up, which reads it through the lower layer.
    let upper = File::options().append(true).open(overlay.0.join("large")).unwrap();
    std::io::Write::write_all(&mut &upper, b"more").unwrap();
    assert_eq!(upper.metadata().unwrap().len(), LARGE + 4);
    drop(upper);
    assert!(fs::read(overlay.0.join("large")).unwrap()[..bytes.len()] == bytes[..]);
    assert!(fs::read(dir.join("large")).unwrap() == bytes);
}

/// A tree in a tar at an origin.
fn packed(place: &Place) -> (PathBuf, Origin) {
    let (source, file) = (place.dir("source"), place.path("tree.tar"));
    trees::varied(&source);
    trees::rich(&source);
    let tar = Command::new("tar").arg("-C").arg(&source).arg("-cf").arg(&file).arg(".").status();
    assert!(tar.unwrap().success());
    (source, Origin::of("/tree.tar", Body::File(file)).unwrap())
}

#[test]
fn what_is_here_as_a_whole_is_shown_by_the_kernel_without_an_agent() {
    let place = Place::new();
    let (source, origin) = packed(&place);
    let mut agent = Agent::solo(&place, "agent");
    let url = origin.url("/tree.tar");
    let dir = agent.mount_in("kernel", &url, place.dir("mount"));
    let (which, why) = lane(agent.socket(), &dir);
    assert_eq!(which, "fuse");
    assert!(why.starts_with("kernel needs all of it to be here, or a holder"), "{why}");
    trees::assert_same(&dir, &source);
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();

    let dir = agent.mount_in("kernel", &url, dir);
    assert_eq!(lane(agent.socket(), &dir), ("kernel".into(), "as asked".into()));
    let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    assert_eq!(listed["items"][0]["survival"]["independent"], true, "{listed}");
    let again = agent.dfctl(&["mount", &url, dir.to_str().unwrap()]);
    again.fails(2, "DFS-5102");
    let is_right = || {
        trees::assert_same(&dir, &source);
        trees::assert_same_attributes(&dir, &source);
    };
    is_right();
    drop(origin);
    agent.kill();
    is_right();

    // The next agent knows it, and keeps what it shows.
    agent.start_again();
    assert_eq!(lane(agent.socket(), &dir).0, "kernel");
    agent.dfctl(&["cache", "gc", "--target", "0"]).exits(9);
    is_right();
    // So it is replaced by another one.
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert!(!has_mount(agent.socket(), &dir));
    agent.dfctl(&["cache", "gc", "--target", "0"]).done();
    assert_eq!(agent.cached(fs::metadata(place.path("tree.tar")).unwrap().len()), 0);
}

#[test]
fn the_kernel_shows_files_to_their_last_byte_where_their_content_ends_within_a_page() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    let is_right = || {
        assert!(fs::read(dir.join("large")).unwrap() == bytes);
        for number in 0..5 {
            let small = all(&Body::noise(number, 3_000 + number));
            assert!(fs::read(dir.join(format!("small/{number}"))).unwrap() == small);
        }
    };
    agent.mount(&origin.url("/d/"), dir.clone());
    is_right();
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    agent.mount_in("kernel", &origin.url("/d/"), dir.clone());
    assert_eq!(lane(agent.socket(), &dir).0, "kernel");
    is_right();
}

fn read_small(dir: &Path) {
    for number in 0..5 {
        fs::read(dir.join(format!("small/{number}"))).unwrap();
    }
}

/// All that comes of an open file until it says that there is no more.
fn read_to_its_end_of(file: &File) -> Vec<u8> {
    let mut read = vec![0; LARGE as usize + 4096];
    let mut at = 0;
    while let length @ 1.. = file.read_at(&mut read[at..], at as u64).unwrap() {
        at += length;
    }
    read.truncate(at);
    read
}

/// What a program reads that does not ask how long it is.
fn read_to_its_end(path: &Path) -> Vec<u8> {
    read_to_its_end_of(&File::open(path).unwrap())
}

#[test]
fn a_file_ends_with_its_content_in_every_lane_whatever_others_had_before() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let (kernel, other) = (place.dir("kernel"), place.dir("other"));
    let mount = |lane: &str, dir: &PathBuf| {
        agent.mount_in(lane, &origin.url("/d/"), dir.clone());
        assert!(read_to_its_end(&dir.join("large")) == bytes);
        read_small(dir);
        self::lane(agent.socket(), dir)
    };
    let umount = |dir: &Path| agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    // All of it is here: the kernel needs nobody.
    mount("fuse", &other);
    umount(&other);

    // While one of the kernel's is there no file is passed, and the other way round.
    assert_eq!(mount("kernel", &kernel).0, "kernel");
    let (lane, why) = mount("passthrough", &other);
    assert!(lane == "fuse" && why.contains("another mount has the kernel read"), "{lane}: {why}");
    umount(&other);
    umount(&kernel);

    assert_eq!(mount("passthrough", &other).0, "passthrough");
    assert!(read_to_its_end(&other.join("large")) == bytes);
    let (lane, why) = mount("kernel", &kernel);
    assert!(lane != "kernel" && why.contains("another mount has the kernel read"), "{lane}: {why}");
    assert!(read_to_its_end(&other.join("large")) == bytes);
    umount(&other);
    umount(&kernel);
    assert_eq!(mount("kernel", &kernel).0, "kernel");
}

#[test]
fn what_the_kernel_shows_to_somebody_is_in_use_after_its_mount_was_taken_away() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let (kernel, other) = (place.dir("kernel"), place.dir("other"));
    let mount = |lane: &str, dir: &PathBuf| {
        agent.mount_in(lane, &origin.url("/d/"), dir.clone());
        assert!(fs::read(dir.join("large")).unwrap() == bytes);
        read_small(dir);
        self::lane(agent.socket(), dir)
    };
    let umount = |how: &[&str], dir: &Path| {
        agent.dfctl(&[&["umount"], how, &[dir.to_str().unwrap()]].concat()).done()
    };
    // All of it is here, and the kernel asks nobody.
    mount("fuse", &other);
    umount(&[], &other);
    assert_eq!(mount("kernel", &kernel).0, "kernel");
    let open = File::open(kernel.join("large")).unwrap();
    umount(&["--lazy"], &kernel);

    // One of another lane would have the file end where the kernel does not read it to its end.
    assert_eq!(mount("passthrough", &other).0, "fuse");
    fadvise(&open, 0, None, Advice::DontNeed).unwrap();
    let mut read = vec![0; bytes.len()];
    open.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes);
    umount(&[], &other);
    drop(open);
    wait::until("nobody uses it any more", || {
        let lane = mount("passthrough", &other).0;
        umount(&[], &other);
        lane == "passthrough"
    })
    .unwrap();
}

#[test]
fn what_somebody_has_open_of_a_mount_of_an_earlier_agent_stays_as_it_is() {
    for (lane, other_lane) in [("kernel", "passthrough"), ("passthrough", "kernel")] {
        let place = Place::new();
        let body = Body::noise(1, LARGE);
        let (bytes, origin) = (all(&body), origin_of(&body));
        let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
        let (dir, other, url) = (place.dir("mount"), place.dir("other"), origin.url("/d/"));
        let umount = |agent: &Agent, how: &[&str], dir: &Path| {
            agent.dfctl(&[&["umount"], how, &[dir.to_str().unwrap()]].concat()).done()
        };
        // All of it is here.
        agent.mount_in("fuse", &url, other.clone());
        assert!(fs::read(other.join("large")).unwrap() == bytes);
        read_small(&other);
        umount(&agent, &[], &other);
        agent.mount_in(lane, &url, dir.clone());
        assert_eq!(self::lane(agent.socket(), &dir).0, lane);
        let open = File::open(dir.join("large")).unwrap();
        let as_it_is = || {
            fadvise(&open, 0, None, Advice::DontNeed).unwrap();
            read_to_its_end_of(&open) == bytes
        };
        assert!(as_it_is());
        umount(&agent, &["--lazy"], &dir);
        agent.kill();
        agent.start_again();
        assert!(as_it_is(), "{lane}: nobody need answer");

        // Nobody has told this agent.
        agent.mount_in(other_lane, &url, other.clone());
        let (got, why) = self::lane(agent.socket(), &other);
        assert!(as_it_is(), "{lane}, beside one of {other_lane}: {why}");
        assert!(
            got != other_lane && why.contains("another mount has the kernel read"),
            "{got}: {why}"
        );
        assert!(fs::read(other.join("large")).unwrap() == bytes);
        umount(&agent, &[], &other);
        let removed = || agent.dfctl(&["cache", "rm", "--yes", &url]).code == 0;
        wait::until("this agent does not use it", removed).unwrap();
        assert!(as_it_is(), "{lane}: it was removed");
        drop(open);
        agent.mount_in("fuse", &url, other.clone());
        assert!(fs::read(other.join("large")).unwrap() == bytes);
        umount(&agent, &[], &other);
    }
}

#[test]
fn damage_to_what_the_kernel_shows_by_itself_is_mended_at_once() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    for lane in ["fuse", "kernel"] {
        let dir = agent.mount_in(lane, &origin.url("/d/"), place.dir(lane));
        let path = dir.join("large");
        assert_eq!(self::lane(agent.socket(), &dir).0, lane);
        assert!(fs::read(&path).unwrap() == bytes);
        read_small(&dir);
        let forget = || fadvise(File::open(&path).unwrap(), 0, None, Advice::DontNeed).unwrap();
        let damage = |at: u64| {
            let content = content_of(
                agent.data(),
                if lane == "kernel" { LARGE.next_multiple_of(65_536) } else { LARGE },
            );
            let file = File::options().write(true).open(content).unwrap();
            file.write_all_at(&[!bytes[at as usize]], at).unwrap();
            forget();
            assert!(fs::read(&path).unwrap() != bytes, "nobody has looked at it yet");
        };
        damage(5_000_000);
        let verify = || agent.dfctl(&["cache", "verify"]);
        match lane {
            // Who reads it waits for it; what was read before is forgotten.
            "fuse" => drop(verify().fails(6, "DFS-3104")),
            _ => drop(verify().done()),
        }
        assert!(fs::read(&path).unwrap() == bytes, "{lane}");

        // What could not be had then is what the next one repairs.
        damage(1_000_000);
        let away = origin.inject(Fault::status(404).on("/d/large"));
        verify().fails(6, "DFS-3104");
        away.lift();
        agent.dfctl(&["cache", "verify", "--repair"]).done();
        assert!(fs::read(&path).unwrap() == bytes, "{lane}");
        agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    }
}

#[test]
fn a_mount_of_the_kernels_that_ends_while_no_agent_is_there_is_forgotten() {
    let place = Place::new();
    let (source, origin) = packed(&place);
    let mut agent = Agent::solo(&place, "agent");
    let url = origin.url("/tree.tar");
    let dir = agent.mount(&url, place.dir("mount"));
    trees::assert_same(&dir, &source);
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    let dir = agent.mount_in("kernel", &url, dir);
    assert_eq!(lane(agent.socket(), &dir).0, "kernel");
    agent.kill();
    // Without an agent it is taken away all the same.
    dfctl_at(agent.socket(), &["umount", dir.to_str().unwrap()]).done();
    agent.start_again();
    assert!(!has_mount(agent.socket(), &dir));
    assert_eq!(fs::read_dir(agent.data().join("mounts")).unwrap().count(), 0);

    // By whoever else, while the agent is there.
    let dir = agent.mount_in("kernel", &url, dir);
    assert!(Command::new("umount").arg(&dir).status().unwrap().success());
    wait::until("the agent has noticed", || !has_mount(agent.socket(), &dir)).unwrap();
}

#[test]
fn damage_that_is_found_in_a_file_that_is_passed_is_mended_before_it_is_opened_again() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let agent = Agent::solo(&place, "agent");
    let pid = Pid::from_raw(agent.node.process().pid() as i32).unwrap();
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let path = dir.join("large");
    assert!(fs::read(&path).unwrap() == bytes);
    wait::until("it is read directly", || {
        is_read_without(pid, &File::open(&path).unwrap(), &bytes)
    })
    .unwrap();
    let content = content_of(agent.data(), LARGE);
    let file = File::options().write(true).open(content).unwrap();
    file.write_all_at(&[!bytes[5_000_000]], 5_000_000).unwrap();
    assert!(fs::read(&path).unwrap() != bytes, "nobody has looked at it yet");

    let gate = origin.inject(Fault::gate().on("/d/large"));
    agent.dfctl(&["cache", "verify"]).exits(6);
    assert!(File::open(&path).is_err(), "what is wrong is not shown any more");
    gate.wait_struck(1).unwrap();
    let why = xattr::get(&path, "user.dfs.error").unwrap().unwrap();
    assert!(String::from_utf8(why).unwrap().contains("damaged"));
    gate.lift();
    wait::until("it is right again", || fs::read(&path).is_ok_and(|read| read == bytes)).unwrap();
    assert!(is_read_without(pid, &File::open(&path).unwrap(), &bytes));
    assert_eq!(xattr::get(&path, "user.dfs.error").unwrap(), None);
}

#[test]
fn where_each_read_is_verified_nobody_sees_what_has_rotted() {
    let place = Place::new();
    let body = Body::noise(1, LARGE);
    let (bytes, origin) = (all(&body), origin_of(&body));
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = place.dir("mount");
    let there = dir.to_str().unwrap();
    agent.guard(&dir);
    agent.dfctl(&["mount", "--verify-reads", &origin.url("/d/"), there]).done();
    assert_eq!(lane(agent.socket(), &dir), ("fuse".into(), "every read is verified".into()));
    let path = dir.join("large");
    assert!(fs::read(&path).unwrap() == bytes);
    let said = agent.dfctl(&["mounts", there]).done();
    assert!(said.text().contains("verified at each read"), "{}", said.text());
    // The next agent goes on with that, however much has rotted of what is read at once.
    for at in [5_000_000, 1_000_000] {
        let file = File::options().write(true).open(content_of(agent.data(), LARGE)).unwrap();
        for at in (0..8).map(|group| at + group * GROUP_BYTES) {
            file.write_all_at(&[!bytes[at as usize]], at).unwrap();
        }
        fadvise(File::open(&path).unwrap(), 0, None, Advice::DontNeed).unwrap();
        let sent = || origin.counters().paths["/d/large"].body_bytes;
        let before = sent();
        assert!(fs::read(&path).unwrap() == bytes, "{at}");
        let again = sent() - before;
        assert!((8 * GROUP_BYTES..2 * MIB).contains(&again), "{again} bytes were fetched again");
        agent.kill();
        agent.start_again();
    }
}

/// The one content file of this length.
fn content_of(data: &Path, length: u64) -> PathBuf {
    let shelves = fs::read_dir(data.join("tasks")).unwrap();
    let tasks = shelves.flat_map(|shelf| fs::read_dir(shelf.unwrap().path()).unwrap());
    let mut contents = tasks.map(|task| task.unwrap().path().join("content"));
    contents.find(|content| content.metadata().is_ok_and(|of| of.len() == length)).unwrap()
}
