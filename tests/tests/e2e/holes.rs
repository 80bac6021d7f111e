//! The lane `kernel` of what is not all here: whoever reads waits for the bytes, or gets an error. Nobody ever reads a hole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use dfs_tests::{Body, Fault, Mount, Origin, wait};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::own::{Of, Own, running};
use crate::support::readers::Readers;
use crate::support::{Agent, Expected, Place, dfctl_at, trees};

const MIB: u64 = 1 << 20;

/// Bytes of one read of [`Readers`].
const READ: usize = 60_000;

/// Bytes of which none is zero: a hole is seen wherever it is.
pub fn solid(seed: u64, length: u64) -> Vec<u8> {
    let mut bytes = Body::noise(seed, length).read(0, length).unwrap();
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = 1);
    bytes
}

/// A listing of one large file, and of some small ones.
fn origin_of(large: &[u8]) -> Origin {
    let origin = Origin::of("/d/large", Body::bytes(large)).unwrap();
    for number in 0..5 {
        origin.put(&format!("/d/small/{number}"), Body::bytes(solid(number, 3_000 + number)));
    }
    origin
}

fn lane_of(own: &Own, dir: &Path) -> String {
    own.shown(dir).unwrap()["lane"].as_str().unwrap().to_owned()
}

/// Mounts in the lane, and sees that it has it.
fn mount(own: &Own, url: &str) -> (PathBuf, Mount) {
    let (dir, guard) = own.mount_in("kernel", url);
    let mount = own.shown(&dir).unwrap();
    assert_eq!(mount["lane"], "kernel", "{mount}");
    (dir, guard)
}

/// An agent that mounts 20 MiB without a zero in the lane, the bytes, their origin and where they are shown.
fn shown_as_it_comes() -> (Own, Vec<u8>, Origin, PathBuf, Mount) {
    let own = Own::start(Place::new());
    let bytes = solid(1, 20 * MIB);
    let origin = origin_of(&bytes);
    let (dir, guard) = mount(&own, &origin.url("/d/"));
    (own, bytes, origin, dir, guard)
}

/// One piece of a file, read by a thread of its own.
fn reading_at(path: &Path, offset: u64, length: usize) -> JoinHandle<io::Result<Vec<u8>>> {
    let path = path.to_owned();
    thread::spawn(move || {
        let mut bytes = vec![0; length];
        File::open(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    })
}

/// Whether the kernel shows anything on a directory.
fn is_shown(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// Whether it is the kernel itself that shows it.
fn is_by_kernel(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut of_dir = table.lines().filter(|line| line.split(' ').nth(4) == dir.to_str());
    of_dir.any(|line| line.contains(" - erofs "))
}

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn a_tree_that_is_shown_by_the_kernel_as_it_comes_is_the_same_entry_by_entry() {
    let own = Own::start(Place::new());
    let (source, file) = (own.place.dir("source"), own.place.path("tree.tar"));
    trees::varied(&source);
    trees::rich(&source);
    fs::write(source.join("large"), solid(3, 20 * MIB)).unwrap();
    fs::write(source.join("larger"), solid(4, 40 * MIB)).unwrap();
    let tar = Command::new("tar").arg("-C").arg(&source).arg("-cf").arg(&file).arg(".").status();
    assert!(tar.unwrap().success());
    let origin = Origin::of("/tree.tar", Body::File(file)).unwrap();
    let (dir, _guard) = mount(&own, &origin.url("/tree.tar"));
    assert!(own.shown(&dir).unwrap()["survival"]["kept_by"].is_u64());

    // What is touched comes, and little else.
    let before = origin.counters().body_bytes;
    let touched = reading_at(&dir.join("larger"), 30 * MIB, 5_000).join().unwrap().unwrap();
    assert!(touched == solid(4, 40 * MIB)[30 * MIB as usize..][..5_000]);
    let came = origin.counters().body_bytes - before;
    assert!((1..MIB).contains(&came), "{came}");

    trees::assert_same(&dir, &source);
    trees::assert_same_attributes(&dir, &source);
    // Once all of it is here nobody is needed any more.
    wait::until("it needs nobody", || own.shown(&dir).unwrap()["survival"]["independent"] == true)
        .unwrap();
    drop(origin);
    for pid in [own.holder(), Some(own.agent())].into_iter().flatten() {
        kill(pid);
    }
    trees::assert_same(&dir, &source);
}

/// Whether the kernel asks a process about any file before it is read.
fn is_asked(pid: Pid) -> bool {
    let fdinfo = fs::read_dir(format!("/proc/{}/fdinfo", pid.as_raw_nonzero())).unwrap();
    let facts = fdinfo.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    facts
        .flat_map(|facts| facts.lines().map(str::to_owned).collect::<Vec<_>>())
        .any(|line| line.starts_with("fanotify ino:"))
}

/// Goes on with a process at the end, however that comes.
struct GoesOn(Pid);

impl Drop for GoesOn {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn whoever_was_asked_about_when_the_last_byte_came_reads_on() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let holder = own.holder().unwrap();
    kill_process(holder, Signal::STOP).unwrap();
    let goes_on = GoesOn(holder);
    // It is asked about, and nobody hears of it.
    let large = reading_at(&dir.join("large"), 5 * MIB, 5_000);
    let small = reading_at(&dir.join("small/3"), 0, 3_000);
    wait::until("they wait", || waiting_readers() == 2).unwrap();
    // The agent brings it for another reason.
    dfctl_at(&own.socket, &["cache", "pin", &origin.url("/d/")]).done();
    wait::until("the kernel asks no more", || !is_asked(own.agent())).unwrap();
    drop(goes_on);
    assert!(large.join().unwrap().unwrap() == bytes[5 * MIB as usize..][..5_000]);
    assert!(small.join().unwrap().unwrap() == solid(3, 3_003)[..3_000]);
    wait::until("it needs nobody", || own.shown(&dir).unwrap()["survival"]["independent"] == true)
        .unwrap();
}

/// Threads of this process that wait for the answer of who is asked about a file.
fn waiting_readers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let waits = threads.filter_map(|thread| fs::read_to_string(thread.join("wchan")).ok());
    waits.filter(|what| what == "fanotify_handle_event").count()
}

/// `KILLS=n` kills it as often.
#[test]
fn readers_of_an_agent_that_is_killed_again_and_again_read_on() {
    let kills: u64 = std::env::var("KILLS").map_or(12, |kills| kills.parse().unwrap());
    let own = Own::start(Place::new());
    // More than comes in that time, and it ends within a page.
    let bytes = solid(1, (4 * kills).max(48) * MIB + 17);
    let origin = origin_of(&bytes);
    let (dir, _guard) = mount(&own, &origin.url("/d/"));
    let pace = origin.inject(Fault::pace(4 * MIB).on("/d/large"));
    let readers = Readers::of(vec![(dir.join("large"), &bytes)], READ);
    thread::scope(|scope| {
        let _ends = readers.begin(scope, 0..64);
        for _ in 0..kills {
            readers.wait_for(20);
            let agent = own.agent();
            kill(agent);
            wait::until("it is gone", || !running(&own.data, Of::Agents).contains(&agent)).unwrap();
        }
        let answers = || dfctl_at(&own.socket, &["mounts"]).code == 0;
        wait::until("the next agent answers", answers).unwrap();
        assert!(is_asked(own.agent()), "all of it is here: the last ones were killed for nothing");
        pace.lift();
        readers.wait_for(200);
    });
    assert_eq!(readers.failed(), 0);
    assert!(pace.struck() > 0);
    assert!(fs::read(dir.join("large")).unwrap() == bytes);
    // As it was before, with what came meanwhile.
    assert_eq!(lane_of(&own, &dir), "kernel");
    for number in 0..5 {
        let small = fs::read(dir.join(format!("small/{number}"))).unwrap();
        assert!(small == solid(number, 3_000 + number));
    }
}

#[test]
fn a_read_that_waited_when_its_agent_was_killed_is_answered_by_the_next_one() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let large = dir.join("large");
    let readers: Vec<_> = (0..8).map(|at| reading_at(&large, at * 2 * MIB + 5, 100_000)).collect();
    gate.wait_struck(1).unwrap();
    for _ in 0..3 {
        let (agent, struck) = (own.agent(), gate.struck());
        kill(agent);
        gate.wait_struck(struck + 1).unwrap();
    }
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    gate.lift();
    for (at, reader) in readers.into_iter().enumerate() {
        let read = reader.join().unwrap().unwrap();
        assert!(read == bytes[at * 2 * MIB as usize + 5..][..100_000], "{at}");
    }
}

#[test]
fn where_the_holder_dies_the_mount_is_taken_away_and_nobody_reads_a_hole() {
    let own = Own::start(Place::new());
    let bytes = solid(1, 48 * MIB);
    let origin = origin_of(&bytes);
    for round in 0..5 {
        let (dir, _guard) = mount(&own, &origin.url("/d/"));
        let gate = origin.inject(Fault::gate().on("/d/large"));
        let readers = Readers::of(vec![(dir.join("large"), &bytes)], READ);
        // One that has it open all the time, and reads on after it was taken away.
        let open = File::open(dir.join("large")).unwrap();
        thread::scope(|scope| {
            let _ends = readers.begin(scope, round * 8..round * 8 + 8);
            gate.wait_struck(1).unwrap();
            kill(own.holder().unwrap());
            wait::until("it is taken away", || !is_shown(&dir)).unwrap();
            let failed = readers.failed();
            wait::until("who waited got an error", || readers.failed() >= failed + 8).unwrap();
        });
        let mut buffer = vec![0; 4096];
        fadvise(&open, 0, None, Advice::DontNeed).unwrap();
        for at in 0..bytes.len() / MIB as usize {
            match open.read_exact_at(&mut buffer, at as u64 * MIB) {
                Ok(()) => assert!(buffer == bytes[at * MIB as usize..][..4096], "at {at} MiB"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(5), "{error}"),
            }
        }
        assert!(own.shown(&dir).is_none());
        gate.lift();
    }
    assert_eq!(fs::read_dir(own.data.join("mounts")).unwrap().count(), 0);
}

/// All who have a hold on what is guarded die, none before the others.
fn kill_all(own: &Own) {
    let all = [own.second_holder(), own.holder().unwrap(), own.agent()];
    all.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    all.into_iter().for_each(kill);
}

#[test]
fn what_lost_agent_and_holder_is_taken_away_by_the_next_agent_before_it_does_anything() {
    let own = Own::start(Place::new());
    let origin = origin_of(&solid(1, 20 * MIB));
    let (dir, _guard) = mount(&own, &origin.url("/d/"));
    kill_all(&own);
    own.start_again();
    wait::until("it is taken away", || !is_shown(&dir)).unwrap();
    assert!(own.log().contains("lost its agent and its holder"));
    assert!(own.shown(&dir).is_none());
}

/// What is done to a file.
type Blow<'a> = &'a dyn Fn(&Path);

#[test]
fn what_was_written_down_of_a_mount_need_not_be_there_for_it_to_be_taken_away() {
    let own = Own::start(Place::new());
    let origin = origin_of(&solid(1, 20 * MIB));
    let pipe = |path: &Path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let blows: [(&str, Blow); 5] = [
        ("gone", &|_| {}),
        ("empty", &|path| fs::write(path, "").unwrap()),
        ("of a later format", &|path| fs::write(path, [8, 99]).unwrap()),
        ("a directory", &|path| fs::create_dir_all(path.join("in")).unwrap()),
        ("a pipe", &pipe),
    ];
    for (what, blow) in blows {
        let (dir, _guard) = mount(&own, &origin.url("/d/"));
        kill_all(&own);
        let records = fs::read_dir(own.data.join("mounts")).unwrap();
        for record in records.map(|record| record.unwrap().path()).filter(|path| path.is_file()) {
            fs::remove_file(&record).unwrap();
            blow(&record);
        }
        own.start_again();
        wait::until(what, || !is_shown(&dir)).unwrap();
        // The agent is as good as ever.
        assert!(own.shown(&dir).is_none(), "{what}");
    }
}

#[test]
fn what_nobody_guards_and_cannot_be_taken_away_is_tried_again_by_the_next_agent() {
    let own = Own::start(Place::new());
    let origin = origin_of(&solid(1, 20 * MIB));
    let (dir, _guard) = mount(&own, &origin.url("/d/"));
    let run = |words: &[&str]| {
        let done = Command::new(words[0]).args(&words[1..]).arg(&dir).status().unwrap();
        assert!(done.success(), "{words:?}");
    };
    // Something else is mounted over it.
    run(&["mount", "-t", "tmpfs", "dfs-e2e"]);
    let all = [own.second_holder(), own.holder().unwrap(), own.agent()];
    all.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    all.iter().for_each(|pid| kill(*pid));
    own.start_again();
    wait::until("it is said", || own.log().contains("a mount could not be taken away")).unwrap();
    assert!(is_by_kernel(&dir));
    run(&["umount"]);
    kill(own.agent());
    own.start_again();
    wait::until("it is taken away", || !is_shown(&dir)).unwrap();
}

#[test]
fn where_agent_and_holder_die_at_once_nobody_reads_a_hole_either() {
    let (own, _bytes, origin, dir, _guard) = shown_as_it_comes();
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let waiting = reading_at(&dir.join("large"), 5 * MIB, 10_000);
    gate.wait_struck(1).unwrap();
    let open = File::open(dir.join("large")).unwrap();
    let agent = own.agent();
    for pid in [own.holder().unwrap(), agent] {
        kill(pid);
    }
    let failed = waiting.join().unwrap().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
    wait::until("it is taken away", || !is_shown(&dir)).unwrap();
    let failed = open.read_exact_at(&mut [0], 9 * MIB).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
}

#[test]
fn a_second_holder_that_dies_is_replaced() {
    let (own, bytes, _origin, dir, _guard) = shown_as_it_comes();
    let first = own.second_holder();
    kill(first);
    wait::until("there is another one", || own.second_holder() != first).unwrap();
    let read = reading_at(&dir.join("large"), 5 * MIB, 10_000).join().unwrap().unwrap();
    assert!(read == bytes[5 * MIB as usize..][..10_000]);
    let open = File::open(dir.join("large")).unwrap();
    let agent = own.agent();
    for pid in [own.holder().unwrap(), agent] {
        kill(pid);
    }
    wait::until("it is taken away", || !is_shown(&dir)).unwrap();
    let failed = open.read_exact_at(&mut [0], 9 * MIB).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
}

#[test]
fn a_holder_that_hangs_longer_than_it_is_waited_for_loses_no_mount() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let read = |at: u64| reading_at(&dir.join("large"), at * MIB, 10_000);
    let expected = |at: u64| &bytes[(at * MIB) as usize..][..10_000];
    assert!(read(1).join().unwrap().unwrap() == expected(1));
    let holder = own.holder().unwrap();
    kill_process(holder, Signal::STOP).unwrap();
    let waiting = read(12);
    // The agent has something to say to it, and gives it up.
    let beside = own.place.dir("beside");
    let _beside = Mount::guard(&beside);
    dfctl_at(&own.socket, &["mount", &origin.url("/d/"), beside.to_str().unwrap()]).done();
    kill_process(holder, Signal::CONT).unwrap();
    assert!(waiting.join().unwrap().unwrap() == expected(12));
    assert!(is_by_kernel(&dir));
    assert!(own.log().contains("hung, and goes on"), "{}", own.log());
    assert_eq!(own.holder(), Some(holder));
    // It is guarded as before, also without this agent.
    kill(own.agent());
    assert!(read(9).join().unwrap().unwrap() == expected(9));
    for pid in [own.holder().unwrap(), own.agent()] {
        kill(pid);
    }
    wait::until("it is taken away", || !is_shown(&dir)).unwrap();
}

#[test]
fn where_the_origin_is_gone_a_read_fails_and_succeeds_once_it_is_back() {
    let (_own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let away = origin.inject(Fault::status(404).on("/d/large"));
    let failed = reading_at(&dir.join("large"), 9 * MIB, 10_000).join().unwrap().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
    assert!(away.struck() > 0);
    away.lift();
    wait::until("it can be read", || {
        let read = reading_at(&dir.join("large"), 9 * MIB, 10_000).join().unwrap();
        read.is_ok_and(|read| read == bytes[9 * MIB as usize..][..10_000])
    })
    .unwrap();
}

#[test]
fn a_mount_is_taken_away_while_readers_wait_and_they_are_served_to_the_end() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let reader = reading_at(&dir.join("large"), 5 * MIB, 10_000);
    gate.wait_struck(1).unwrap();
    let umount = |words: &[&str]| {
        dfctl_at(&own.socket, &[&["umount"], words, &[dir.to_str().unwrap()]].concat())
    };
    umount(&[]).fails(1, "DFS-5105");
    umount(&["--lazy"]).done();
    assert!(!is_shown(&dir) && !reader.is_finished());
    // Also by an agent that has never seen its name.
    let struck = gate.struck();
    kill(own.agent());
    gate.wait_struck(struck + 1).unwrap();
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == bytes[5 * MIB as usize..][..10_000]);
    // Nothing is left of it.
    wait::until("nothing is written down of it", || {
        fs::read_dir(own.data.join("mounts")).unwrap().count() == 0
    })
    .unwrap();
}

#[test]
fn without_an_agent_a_mount_is_taken_away_and_who_waits_is_served_by_the_next_one() {
    let place = Place::new();
    let holder = crate::survival::Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let bytes = solid(1, 20 * MIB);
    let origin = origin_of(&bytes);
    let dir = agent.mount_in("kernel", &origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let reader = reading_at(&dir.join("large"), 5 * MIB, 10_000);
    gate.wait_struck(1).unwrap();
    agent.kill();
    dfctl_at(agent.socket(), &["umount", "--lazy", dir.to_str().unwrap()]).done();
    assert!(!is_shown(&dir) && !reader.is_finished());
    gate.lift();
    agent.start_again();
    assert!(reader.join().unwrap().unwrap() == bytes[5 * MIB as usize..][..10_000]);
}

#[test]
fn whoever_waits_for_an_agent_that_does_not_come_gets_an_error_and_the_mount_is_taken_away() {
    let place = Place::new();
    let holder = crate::survival::Holder::start(&place, 1);
    let mut agent = holder.agent(&place);
    let origin = origin_of(&solid(1, 20 * MIB));
    let dir = agent.mount_in("kernel", &origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let reader = reading_at(&dir.join("large"), 5 * MIB, 10_000);
    gate.wait_struck(1).unwrap();
    agent.kill();
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert!(!is_shown(&dir));
    gate.lift();
    agent.start_again();
}

/// What the next agent has instead of the cache from which the kernel reads.
struct Elsewhere {
    words: &'static [&'static str],
    /// Whether the directory of the one before is gone.
    is_moved: bool,
    why: &'static str,
}

#[test]
fn an_agent_whose_cache_lies_elsewhere_takes_the_mount_away_and_nobody_reads_a_hole() {
    let other_files = "other files than the kernel reads";
    let layered = &["--cache-medium", "layered", "--cache-memory", "64MiB"];
    let memory = &["--cache-medium", "memory", "--cache-memory", "64MiB"];
    for Elsewhere { words, is_moved, why } in [
        Elsewhere { words: layered, is_moved: false, why: "a cache that is not layered" },
        Elsewhere { words: memory, is_moved: false, why: other_files },
        Elsewhere { words: &[], is_moved: true, why: other_files },
    ] {
        println!("{words:?}, {is_moved}");
        let place = Place::new();
        let holder = crate::survival::Holder::start(&place, 300);
        let mut first = holder.agent(&place);
        let bytes = solid(1, 20 * MIB);
        let origin = origin_of(&bytes);
        let dir = place.dir("mount");
        let _guard = Mount::guard(&dir);
        let (url, at) = (origin.url("/d/"), dir.to_str().unwrap());
        dfctl_at(first.socket(), &["mount", "--lane", "kernel", &url, at]).done();
        assert!(is_by_kernel(&dir));
        let gate = origin.inject(Fault::gate().on("/d/large"));
        let waiting = reading_at(&dir.join("large"), 5 * MIB, 10_000);
        gate.wait_struck(1).unwrap();
        let open = File::open(dir.join("large")).unwrap();
        first.kill();
        if is_moved {
            fs::rename(first.data(), place.path("moved")).unwrap();
        }
        // Whoever fetches it can have it.
        gate.lift();
        let with_holder = [&["--holder", holder.socket.to_str().unwrap()], words].concat();
        let second = Agent::solo_with(&place, "agent", &with_holder);
        let failed = waiting.join().unwrap().unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
        wait::until("it is taken away", || !is_shown(&dir)).unwrap();
        let failed = open.read_exact_at(&mut [0; 100], 9 * MIB).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
        assert!(second.log().contains(why), "{}", second.log());
        // The new cache is as good as any.
        dfctl_at(second.socket(), &["mount", "--lane", "fuse", &url, at]).done();
        assert!(fs::read(dir.join("large")).unwrap() == bytes);
    }
}

#[test]
fn an_agent_that_ends_takes_the_mount_away_and_who_has_files_open_gets_errors_and_no_holes() {
    let (own, _bytes, _origin, dir, _guard) = shown_as_it_comes();
    let open = File::open(dir.join("large")).unwrap();
    let (agent, holder) = (own.agent(), own.holder().unwrap());
    for pid in [agent, holder] {
        kill_process(pid, Signal::TERM).unwrap();
    }
    wait::until("the agent is gone", || running(&own.data, Of::Agents).is_empty()).unwrap();
    assert!(!is_shown(&dir));
    let mut byte = [0];
    let error = open.read_exact_at(&mut byte, 9 * MIB).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    // It is there as long as anybody could read a hole.
    assert_eq!(own.holder(), Some(holder));
    drop(open);
    wait::until("the holder is gone", || own.holder().is_none()).unwrap();
}

#[test]
fn who_had_files_open_when_the_agent_ended_reads_on_beside_a_new_mount_once_there_is_another_one() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let open = File::open(dir.join("large")).unwrap();
    kill_process(own.agent(), Signal::TERM).unwrap();
    own.start_again();
    let (dir, _guard) = mount(&own, &origin.url("/d/"));
    for (at, from) in (0..20).map(|at| (at * MIB, at % 2 == 0)) {
        let again = File::open(dir.join("large")).unwrap();
        let mut read = vec![0; 10_000];
        let file = if from { &open } else { &again };
        file.read_exact_at(&mut read, at).unwrap();
        assert!(read == bytes[at as usize..][..10_000], "at {at}");
    }
}

#[test]
fn an_agent_is_replaced_while_a_read_waits() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let reader = reading_at(&dir.join("large"), 5 * MIB, 10_000);
    gate.wait_struck(1).unwrap();
    let said = dfctl_at(&own.socket, &["upgrade", "--format", "json"]).done().json().unwrap();
    assert_eq!(said["mounts"], 1, "{said}");
    gate.wait_struck(2).unwrap();
    assert!(!reader.is_finished());
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == bytes[5 * MIB as usize..][..10_000]);
    assert!(!own.log().contains("WARN"), "{}", own.log());
}

#[test]
fn what_is_mapped_comes_as_it_is_touched_also_while_the_agent_is_killed() {
    let own = Own::start(Place::new());
    let bytes = solid(1, 30 * MIB + 5);
    let origin = origin_of(&bytes);
    let pace = origin.inject(Fault::pace(10 * MIB).on("/d/large"));
    let (dir, _guard) = mount(&own, &origin.url("/d/"));
    let file = File::open(dir.join("large")).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: files of a mount never change and are never cut short.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|part| {
                let (mapped, bytes) = (&mapped, &bytes);
                scope.spawn(move || {
                    let from = part * bytes.len() / 4;
                    let to = (part + 1) * bytes.len() / 4;
                    assert!(mapped[from..to] == bytes[from..to], "part {part}");
                })
            })
            .collect();
        pace.wait_struck(1).unwrap();
        kill(own.agent());
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_reader_that_is_killed_while_it_waits_ends_at_once_and_is_in_nobodys_way() {
    let (own, bytes, origin, dir, _guard) = shown_as_it_comes();
    let gate = origin.inject(Fault::gate().on("/d/large"));
    let mut cat = Command::new("cat").arg(dir.join("large")).stdout(Stdio::null()).spawn().unwrap();
    gate.wait_struck(1).unwrap();
    cat.kill().unwrap();
    cat.wait().unwrap();
    // While nobody is there, too.
    kill(own.agent());
    let mut cat = Command::new("cat").arg(dir.join("large")).stdout(Stdio::null()).spawn().unwrap();
    gate.wait_struck(2).unwrap();
    cat.kill().unwrap();
    cat.wait().unwrap();
    gate.lift();
    assert!(fs::read(dir.join("large")).unwrap() == bytes);
    dfctl_at(&own.socket, &["umount", dir.to_str().unwrap()]).done();
}

#[test]
fn whoever_is_killed_in_whatever_order_nobody_reads_a_hole() {
    // `SEED=n` tries another order.
    let seed: u64 = std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let own = Own::start(Place::new());
    let bytes = solid(1, 64 * MIB);
    let origin = origin_of(&bytes);
    let pace = origin.inject(Fault::pace(4 * MIB).on("/d/large"));
    let dir = own.place.dir("mount");
    let _guard = Mount::guard(&dir);
    let url = origin.url("/d/");
    let mounted = || {
        // Where both died nobody starts another agent.
        let has_agent = || !running(&own.data, Of::Agents).is_empty();
        if own.holder().is_none() && !has_agent() {
            own.start_again();
        }
        let at = dir.to_str().unwrap();
        wait::until("the kernel shows it", || {
            // Without an agent dfctl would start one of another kind.
            if has_agent() && !is_by_kernel(&dir) {
                // In another lane, where the holder had just died.
                dfctl_at(&own.socket, &["umount", "--lazy", at]);
                dfctl_at(&own.socket, &["mount", "--lane", "kernel", &url, at]);
            }
            is_by_kernel(&dir)
        })
        .unwrap();
    };
    mounted();
    let readers = Readers::of(vec![(dir.join("large"), &bytes)], READ);
    let mut killed = BTreeSet::new();
    thread::scope(|scope| {
        let _ends = readers.begin(scope, seed..seed + 8);
        let mut dice = seed;
        for _ in 0..16 {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            readers.wait_for((dice >> 33) % 12);
            // The holder seldom: the agent is what dies.
            let is_holder = (dice >> 40).is_multiple_of(3);
            let victim =
                if is_holder { own.holder() } else { running(&own.data, Of::Agents).pop() };
            if let Some(victim) = victim.filter(|_| own.holder().is_some()) {
                kill(victim);
                killed.insert(is_holder);
            }
            let is_whole = || own.log().contains("it needs nobody");
            if is_holder {
                wait::until("it is taken away", || !is_by_kernel(&dir) || is_whole()).unwrap();
            }
            if is_whole() {
                break;
            }
            mounted();
        }
        pace.lift();
        readers.wait_for(20);
    });
    assert_eq!(killed.len(), 2, "agents and holders were killed");
}
