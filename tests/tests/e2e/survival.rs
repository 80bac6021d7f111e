//! Mounts whose agent dies: whoever reads goes on once there is another one, whoever kept the mount until then.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dfs_proto::common;
use dfs_proto::node::MountRequest;
use dfs_proto::node::node_client::NodeClient;
use dfs_tests::process::Said;
use dfs_tests::wait::{PATIENCE, find};
use dfs_tests::{Binaries, Body, Fault, Mount, Node, Origin, Owned, wait};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::support::own::{Of, Own, running};
use crate::support::{
    Agent, Expected, NOBODY, Place, Running, Tmpfs, all, binaries, binary, dfctl_at, is_mounted,
    reading, reading_with, secluded,
};

const MIB: u64 = 1 << 20;

/// A holder of the machine's.
pub struct Holder {
    process: Owned,
    pub socket: PathBuf,
    log: PathBuf,
}

impl Holder {
    pub fn start(place: &Place, patience: u32) -> Self {
        Self::starting(place, patience, &[])
    }

    /// One that starts an agent itself.
    fn starting(place: &Place, patience: u32, agent: &[&str]) -> Self {
        let (socket, log) = (place.path("holder.sock"), place.path("holder.log"));
        let process = start_holder(&binaries(), &socket, &log, patience, agent);
        wait::until("the holder listens", || socket.exists()).unwrap();
        Self { process, socket, log }
    }

    pub fn agent(&self, place: &Place) -> Agent {
        Agent::solo_with(place, "agent", &["--holder", self.socket.to_str().unwrap()])
    }

    fn pid(&self) -> u64 {
        self.process.child.id().into()
    }

    fn told(&self, what: &str) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches(what).count()
    }
}

fn start_holder(
    binaries: &Binaries,
    socket: &Path,
    log: &Path,
    patience: u32,
    agent: &[&str],
) -> Owned {
    let mut command = binaries.command("dfs-fuse").unwrap();
    let output = File::options().create(true).append(true).open(log).unwrap();
    command.arg("holder").arg("--socket").arg(socket);
    command.args(["--patience-seconds", &patience.to_string(), "--"]).args(agent);
    command.stdout(Stdio::null()).stderr(output);
    Owned::start(&mut command).unwrap()
}

fn survival(agent: &Agent, dir: &Path) -> serde_json::Value {
    agent.shown(dir).unwrap()["survival"].clone()
}

#[allow(unsafe_code)]
pub fn map(path: &Path) -> memmap2::Mmap {
    let file = File::open(path).unwrap();
    // SAFETY: files of a mount never change and are never cut short.
    unsafe { memmap2::Mmap::map(&file) }.unwrap()
}

#[test]
fn sixty_four_readers_go_on_when_their_agent_is_killed() {
    sixty_four_readers("fuse");
}

#[test]
fn sixty_four_readers_go_on_where_the_kernel_reads_whole_files_itself() {
    sixty_four_readers("passthrough");
}

fn sixty_four_readers(lane: &str) {
    let place = Place::new();
    let body = Body::noise(1, 48 * MIB + 5);
    let bytes = all(&body);
    let origin = Origin::of("/d/f", body).unwrap();
    for name in 0..100 {
        origin.put(&format!("/d/many/{name}"), Body::noise(name, 10_000));
    }
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount_in(lane, &origin.url("/d/"), place.dir("mount"));
    assert_eq!(agent.shown(&dir).unwrap()["lane"], lane);
    assert_eq!(survival(&agent, &dir)["kept_by"], holder.pid());
    // A directory half read, and a file mapped and touched once.
    let mut listing = fs::read_dir(dir.join("many")).unwrap();
    let mut names: Vec<_> = listing.by_ref().take(10).map(|one| one.unwrap().file_name()).collect();
    let mapped = map(&dir.join("f"));
    assert_eq!(mapped[7], bytes[7]);

    let pace = origin.inject(Fault::pace(16 * MIB).on("/d/f"));
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for reader in 0..64_u64 {
            let (done, over, bytes, path) = (&done, &over, &bytes, dir.join("f"));
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut at = reader.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut buffer = vec![0; 70_000];
                while !over.load(Ordering::Relaxed) {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(reader);
                    let offset = (at >> 16) as usize % bytes.len();
                    let read = file.read_at(&mut buffer, offset as u64).unwrap();
                    assert!(buffer[..read] == bytes[offset..offset + read], "at {offset}");
                    assert!(read == buffer.len() || offset + read == bytes.len());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ends = scope.spawn(|| {
            // However the test ends, its readers do.
            let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
            for _ in 0..3 {
                let before = done.load(Ordering::Relaxed);
                wait::until("readers are at work", || {
                    done.load(Ordering::Relaxed) > before + 64 && pace.struck() > 0
                })
                .unwrap();
                agent.kill();
                agent.start_again();
            }
            // One that is told to end leaves whatever it has not answered, too.
            let before = done.load(Ordering::Relaxed);
            wait::until("readers are at work", || done.load(Ordering::Relaxed) > before + 64)
                .unwrap();
            agent.terminate();
            agent.start_again();
            let after = done.load(Ordering::Relaxed);
            wait::until("all readers go on", || done.load(Ordering::Relaxed) > after + 128)
                .unwrap();
        });
        ends.join().unwrap();
    });
    names.extend(listing.map(|one| one.unwrap().file_name()));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100);
    assert!(mapped[..] == bytes[..]);
    assert_eq!(holder.told("an agent is served"), 5);
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_read_that_was_blocked_when_its_agent_died_is_answered_by_the_next_one() {
    let place = Place::new();
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let reader = reading(&dir.join("f"));
    gate.wait_struck(1).unwrap();
    agent.kill();
    // The next one dies as soon as it has been given the mount, before it can answer anything.
    let served = holder.told("an agent is served");
    let process = agent.node.process_mut();
    let restarted = thread::scope(|scope| {
        let killing = scope.spawn(|| {
            wait::until("the next agent has the mount", || {
                holder.told("an agent is served") > served
            })
            .unwrap();
            let pid = announced_or_running(&place);
            kill_process(pid, Signal::KILL).unwrap();
        });
        let restarted = process.restart();
        killing.join().unwrap();
        restarted
    });
    drop(restarted);
    let struck = gate.struck();
    agent.start_again();
    gate.wait_struck(struck + 1).unwrap();
    assert!(!reader.is_finished());
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == all(&body));
}

/// The agent that runs on the data directory of the test.
fn announced_or_running(place: &Place) -> Pid {
    let data = place.path("agent");
    let found = find("an agent runs", PATIENCE, || running(&data, Of::Agents).pop());
    found.unwrap()
}

#[test]
fn an_agent_that_is_killed_again_and_again_is_started_again_by_its_own_holder() {
    killed_again_and_again("fuse", 200);
}

#[test]
fn an_agent_is_killed_again_and_again_while_files_are_opened_in_either_way() {
    killed_again_and_again("passthrough", 100);
}

/// `KILLS=n` kills it as often.
fn killed_again_and_again(lane: &str, kills: u64) {
    let kills: u64 = std::env::var("KILLS").map_or(kills, |kills| kills.parse().unwrap());
    let own = Own::start(Place::new());
    let body = Body::noise(1, 8 * MIB);
    let bytes = all(&body);
    let origin = Origin::of("/d/f", body).unwrap();
    let (dir, _guard) = own.mount_in(lane, &origin.url("/d/"));
    let (reads, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (reads, over, bytes, path) = (&reads, &over, &bytes, dir.join("f"));
        scope.spawn(move || {
            let (mut at, mut buffer) = (1_u64, vec![0; 300_000]);
            while !over.load(Ordering::Relaxed) {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let offset = (at >> 20) as usize % bytes.len();
                // Opened anew each time, and its pages given up: the agent is asked.
                let file = File::open(&path).unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                let read = file.read_at(&mut buffer, offset as u64).unwrap();
                assert!(buffer[..read] == bytes[offset..offset + read]);
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        for kill in 0..kills {
            let (agent, before) = (own.agent(), reads.load(Ordering::Relaxed));
            wait::until("reads go on", || reads.load(Ordering::Relaxed) > before).unwrap();
            // Now and then at any instant of its start, too.
            if kill % 4 != 0 {
                wait::until("it listens", || {
                    own.log().matches("\"started\"").count() as u64 > kill / 4
                })
                .unwrap();
            }
            kill_process(agent, Signal::KILL).unwrap();
            wait::until("it is gone", || !running(&own.data, Of::Agents).contains(&agent)).unwrap();
        }
        let after = reads.load(Ordering::Relaxed);
        wait::until("reads go on", || reads.load(Ordering::Relaxed) > after + 3).unwrap();
    });
    // It ends with its last mount taken away, and so does its holder.
    wait::until("it answers", || dfctl_at(&own.socket, &["mounts"]).code == 0).unwrap();
    kill_process(own.agent(), Signal::TERM).unwrap();
    wait::until("both are gone", || {
        own.holder().is_none() && running(&own.data, Of::Agents).is_empty()
    })
    .unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "it is not mounted any more");
}

#[test]
fn a_holder_that_dies_has_a_successor_that_knows_all_it_knew() {
    let own = Own::start(Place::new());
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let first = own.holder().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    wait::until("there is another one", || own.holder().is_some_and(|holder| holder != first))
        .unwrap();
    wait::until("it serves the agent", || own.log().contains("there is another one")).unwrap();
    let agent = own.agent();
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let reader = reading(&dir.join("f"));
    gate.wait_struck(1).unwrap();
    kill_process(agent, Signal::KILL).unwrap();
    gate.wait_struck(2).unwrap();
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == all(&body));
}

#[test]
fn where_agent_and_holder_die_at_once_the_mount_is_dead_and_can_be_cleared_away() {
    let own = Own::start(Place::new());
    let origin = Origin::of("/d/f", Body::noise(1, 1000)).unwrap();
    let (dir, guard) = own.mount(&origin.url("/d/"));
    for pid in [own.holder().unwrap(), own.agent()] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    wait::until("the mount is dead", || {
        fs::metadata(dir.join("f")).is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
    })
    .unwrap();
    // Where nobody else's are taken away with it.
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" > /dev/null; cat /proc/self/mountinfo", "--"]);
    command.arg(binary("dfctl")).arg("--socket").arg(&own.socket).args(["doctor", "--fix"]);
    let left = Said::by(&mut secluded(own.place.root(), &command)).unwrap().text();
    assert!(left.contains(" / ") && !left.contains(dir.to_str().unwrap()), "{left}");
    assert!(guard.is_mounted());
}

#[test]
fn an_agent_that_is_told_to_end_leaves_its_mounts_to_the_next_one_where_the_machine_keeps_them() {
    let place = Place::new();
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let reader = reading(&dir.join("f"));
    gate.wait_struck(1).unwrap();
    agent.terminate();
    assert!(!reader.is_finished(), "who reads learns nothing of it");
    agent.start_again();
    gate.wait_struck(2).unwrap();
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == all(&body));
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    // What is over is not kept.
    agent.kill();
    wait::until("nothing is kept", || holder.told("\"the agent is gone\"") == 2).unwrap();
    agent.start_again();
    assert!(agent.shown(&dir).is_none());
}

#[test]
fn what_nobody_comes_for_is_taken_away_and_who_waits_gets_an_error() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 3 * MIB)).unwrap();
    let holder = Holder::start(&place, 1);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let reader = reading(&dir.join("f"));
    gate.wait_struck(1).unwrap();
    agent.kill();
    assert!(reader.join().unwrap().is_none());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "it is not mounted any more");
    // The holder is there for the next one.
    gate.lift();
    agent.start_again();
    agent.dfctl(&["mount", &origin.url("/d/"), dir.to_str().unwrap()]).done();
    assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), 3 * MIB);
}

#[test]
fn mounts_survive_however_long_the_name_of_the_data_directory_is() {
    let own = Own::start_in(Place::new(), &"d".repeat(150));
    let body = Body::noise(1, MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let first = own.agent();
    kill_process(first, Signal::KILL).unwrap();
    assert!(reading(&dir.join("f")).join().unwrap().unwrap() == all(&body));
    assert_ne!(own.agent(), first);
}

#[test]
fn an_agent_that_cannot_be_started_or_says_nothing_is_given_up() {
    for (agent, told) in [("/nonexistent/dfs-fuse", 3), ("/bin/false", 3), ("/bin/cat", 1)] {
        let place = Place::new();
        let origin = Origin::of("/d/f", Body::noise(1, 3 * MIB)).unwrap();
        // What it is started with keeps it waiting.
        let waits = place.path("waits");
        assert!(Command::new("mkfifo").arg(&waits).status().unwrap().success());
        let holder = Holder::starting(&place, 2, &[agent, waits.to_str().unwrap()]);
        let mut first = holder.agent(&place);
        let dir = first.mount(&origin.url("/d/"), place.dir("mount"));
        let gate = origin.inject(Fault::gate().on("/d/f"));
        let reader = reading(&dir.join("f"));
        gate.wait_struck(1).unwrap();
        first.kill();
        assert!(reader.join().unwrap().is_none());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "it is not mounted any more");
        let attempts =
            holder.told("no agent can be started") + holder.told("the agent is started again");
        assert!(attempts >= told, "{agent}: {attempts}");
        // Who still waits waits no longer.
        let nobody = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
        let end = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&waits);
        end.map_or_else(nobody, drop);
    }
}

#[test]
fn a_mount_that_nobody_serves_is_taken_away_lazily_at_once() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 3 * MIB)).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    agent.kill();
    let umount =
        |words: &[&str]| agent.dfctl(&[&["umount"], words, &[dir.to_str().unwrap()]].concat());
    let said = umount(&[]).fails(1, "DFS-5105");
    assert!(said.stderr.contains("umount --lazy"), "{}", said.stderr);
    // Who would mount there is told, too, and waits for nobody.
    let there =
        [dir.to_str().unwrap(), &*place.path("mount/d").display().to_string()].map(str::to_owned);
    for there in there {
        let words = ["mount", &origin.url("/d/"), &there];
        let said = agent.dfctl(&words).fails(1, "DFS-5105");
        let hint = format!("umount --lazy {}\n", dir.display());
        assert!(said.stderr.contains(&hint), "{there}: {}", said.stderr);
    }
    umount(&["--lazy"]).done();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    agent.start_again();
    assert!(agent.shown(&dir).is_none());
}

#[test]
fn a_file_where_a_holder_is_to_listen_is_left_alone() {
    let place = Place::new();
    let file = place.path("file");
    fs::write(&file, "mine").unwrap();
    let mut command = binaries().command("dfs-fuse").unwrap();
    let said = Said::by(command.arg("holder").arg("--socket").arg(&file)).unwrap();
    assert!(
        said.code == 1 && said.stderr.contains("there is a file of this name"),
        "{}",
        said.stderr
    );
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_mount_that_ends_while_no_agent_is_there_is_forgotten() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1000)).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    agent.kill();
    dfs_tests::cluster::detach(&dir);
    agent.start_again();
    assert!(agent.log().matches("earlier agent's mount").count() == 0, "{}", agent.log());
    assert!(agent.shown(&dir).is_none());
}

#[test]
fn the_next_agent_needs_neither_the_origin_nor_the_credentials_for_what_is_here() {
    let place = Place::new();
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    origin.put("/d/g", body.clone());
    let secret = origin.inject(Fault::require_authorization("Bearer t0p-secret"));
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = place.dir("mount");
    agent.guard(&dir);
    let header = ["-H", "Authorization: Bearer t0p-secret"];
    let words = ["mount", &origin.url("/d/"), dir.to_str().unwrap()];
    agent.dfctl(&[&words[..], &header[..]].concat()).done();
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
    // What is missing is fetched with what the one before was told, which nobody wrote to a disk.
    agent.kill();
    agent.start_again();
    assert!(fs::read(dir.join("g")).unwrap() == all(&body));
    let written =
        Command::new("grep").args(["-ral", "t0p-secret"]).arg(place.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&written.stdout), "");
    assert!(secret.struck() == 0 || origin.log().iter().all(|logged| logged.status != 401));
    agent.kill();
    drop(origin);
    agent.start_again();
    for name in ["f", "g"] {
        rustix::fs::fadvise(
            File::open(dir.join(name)).unwrap(),
            0,
            None,
            rustix::fs::Advice::DontNeed,
        )
        .unwrap();
        assert!(fs::read(dir.join(name)).unwrap() == all(&body));
    }
}

#[test]
fn an_agent_is_replaced_and_who_reads_learns_nothing_of_it() {
    let own = Own::start(Place::new());
    // Without anything mounted, too.
    let before = own.agent();
    dfctl_at(&own.socket, &["upgrade"]).done();
    assert_ne!(own.agent(), before);
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let reader = reading(&dir.join("f"));
    gate.wait_struck(1).unwrap();
    let before = own.agent();
    let said = dfctl_at(&own.socket, &["upgrade", "--format", "json"]).done().json().unwrap();
    assert_eq!(said["mounts"], 1);
    assert_eq!(said["before"]["pid"], before.as_raw_nonzero().get());
    assert_eq!(said["after"]["pid"], own.agent().as_raw_nonzero().get());
    assert!(!reader.is_finished());
    gate.wait_struck(2).unwrap();
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == all(&body));
    assert!(!own.log().contains("WARN"), "{}", own.log());
}

#[test]
fn an_agent_whose_mounts_would_die_is_not_replaced() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let said = agent.dfctl(&["upgrade"]).fails(1, "DFS-4126");
    assert!(said.stderr.contains("--holder off"), "{}", said.stderr);
    assert_eq!(survival(&agent, &dir)["kept_by"], serde_json::Value::Null);
}

#[test]
fn where_nothing_is_sent_again_reads_under_way_fail_once_and_later_ones_go_on() {
    let place = Place::new();
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/1", body.clone()).unwrap();
    origin.put("/d/2", body.clone());
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let off = ("DFS_RESEND".into(), "off".into());
    agent.node.process_mut().program_mut().environment.push(off);
    agent.start_again();
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let listed = agent.dfctl(&["mounts"]).done();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("reads under way fail if the agent dies"), "{listed}");
    assert_eq!(survival(&agent, &dir)["resends"], false);
    for name in ["1", "2"] {
        let gate = origin.inject(Fault::gate().on(&format!("/d/{name}")));
        let file = dir.join(name);
        // The kernel reads ahead for this one, and once more where that fails; for that one it asks what is read.
        let cached = reading(&file);
        let input = format!("if={}", file.display());
        let mut direct = Command::new("dd");
        let direct = reading_with(direct.args([&*input, "bs=64K", "skip=40", "iflag=direct"]));
        gate.wait_struck(2).unwrap();
        agent.kill();
        // Before there is another agent.
        assert!(direct.join().unwrap().is_none());
        assert!(!cached.is_finished());
        gate.lift();
        agent.start_again();
        assert!(cached.join().unwrap().unwrap() == all(&body));
    }
}

#[test]
fn a_user_who_is_not_root_has_mounts_that_survive_too() {
    let place = Place::new();
    place.open_to_others();
    let (data, dir) = (place.dir("data"), place.dir("mount"));
    for dir in [&data, &dir] {
        std::os::unix::fs::chown(dir, Some(NOBODY), Some(65_534)).unwrap();
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let socket = data.join("agent.sock");
    let (data_dir, words) = (data.clone(), Vec::new());
    let own = Own { data: data_dir, socket: socket.clone(), words, place };
    let programs = others_programs(&own.place);
    let log = File::create(own.place.path("agent.log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", AS_NOBODY, "agent"]);
    command.arg(own.place.path("fuse")).arg(programs.join("dfs-fuse"));
    command.arg("--data-dir").arg(&data).arg("--socket").arg(&socket);
    command.args(["--port-pieces", "0", "--port-metrics", "0"]);
    let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    thread::spawn(move || child.wait());
    wait::until("the agent listens", || socket.exists()).unwrap();
    let _guard = Mount::guard(&dir);
    // As somebody who sees what the agent mounts.
    let beside = |of: Pid| {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &of.as_raw_nonzero().to_string(), "setpriv"]);
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.env("HOME", "/nonexistent");
        command
    };
    let mut mounting = beside(own.agent());
    mounting.arg(programs.join("dfctl")).arg("--socket").arg(&socket);
    Said::by(mounting.args(["mount", &origin.url("/d/")]).arg(&dir)).unwrap().done();
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let mut reader = beside(own.holder().unwrap());
    let reader = reading_with(reader.arg("cat").arg(dir.join("f")));
    gate.wait_struck(1).unwrap();
    kill_process(own.agent(), Signal::KILL).unwrap();
    gate.wait_struck(2).unwrap();
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == all(&body));
}

/// Where the device is open to users as udev makes it.
const AS_NOBODY: &str = r#"
    mknod "$1" c 10 229
    chmod 666 "$1"
    mount --bind "$1" /dev/fuse
    shift
    exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent "$@"
"#;

/// Our programs where others may run them.
fn others_programs(place: &Place) -> PathBuf {
    let dir = place.dir("programs");
    for name in ["dfctl", "dfs-fuse"] {
        fs::copy(binary(name), dir.join(name)).unwrap();
    }
    dir
}

#[test]
fn a_second_agent_is_not_given_what_the_first_one_has() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1000)).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    for is_dead in [false, true] {
        if is_dead {
            agent.kill();
        }
        let words = ["--holder", holder.socket.to_str().unwrap()];
        let mut other = Node::spawn(&binaries(), place.root(), "other", None, &words).unwrap();
        let ended = other.process_mut().wait_ended(PATIENCE).unwrap();
        assert!(!ended.success());
        assert!(other.process().log().contains("each has its own"), "{}", other.process().log());
    }
    agent.start_again();
    assert_eq!(fs::read(dir.join("f")).unwrap().len(), 1000);
}

#[test]
fn what_was_taken_away_lazily_goes_on_beside_what_is_mounted_there_now() {
    let place = Place::new();
    let (old, new) = (Body::noise(1, 3 * MIB), Body::noise(2, 2 * MIB));
    let origin = Origin::of("/old/f", old.clone()).unwrap();
    origin.put("/new/f", new.clone());
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/old/"), place.dir("mount"));
    // A process that has the old one's file open, and reads it when it is told.
    let mut reader = Command::new("sh");
    reader.args(["-c", "exec < \"$1\"; read -r _ < \"$2\"; exec cat", "sh"]);
    let go = place.path("go");
    assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
    reader.arg(dir.join("f")).arg(&go);
    let reader = reading_with(&mut reader);
    wait::until("the file is open", || {
        let said = agent.dfctl(&["umount", dir.to_str().unwrap()]);
        if said.code == 0 {
            // Too early: nobody had it open yet.
            agent.dfctl(&["mount", &origin.url("/old/"), dir.to_str().unwrap()]).done();
        }
        said.code != 0
    })
    .unwrap();
    agent.dfctl(&["umount", "--lazy", dir.to_str().unwrap()]).done();
    agent.dfctl(&["mount", &origin.url("/new/"), dir.to_str().unwrap()]).done();
    for _ in 0..2 {
        agent.kill();
        agent.start_again();
    }
    assert!(fs::read(dir.join("f")).unwrap() == all(&new));
    fs::write(&go, "go\n").unwrap();
    assert!(reader.join().unwrap().unwrap() == all(&old));
    assert_eq!(agent.shown(&dir).unwrap()["url"], origin.url("/new/"));
}

#[test]
fn an_agent_whose_cache_is_emptied_goes_on_with_its_mounts() {
    let place = Place::new();
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let said = agent.dfctl(&["cache", "gc", "--target", "0"]);
    assert!([0, 9].contains(&said.code), "{}", said.stderr);
    agent.kill();
    agent.start_again();
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
}

#[test]
fn a_full_disk_keeps_no_agent_from_going_on() {
    let place = Place::new();
    let bodies = [1, 2, 3].map(|seed| Body::noise(seed, 3 * MIB));
    let origin = Origin::start().unwrap();
    for (name, body) in bodies.iter().enumerate() {
        origin.put(&format!("/d/{name}"), body.clone());
    }
    let disk = Tmpfs::mount(place.dir("disk"), 24 * MIB);
    let holder = Holder::start(&place, 300);
    let words = ["--holder", holder.socket.to_str().unwrap()];
    let mut node = Node::spawn(&binaries(), disk.path(), "agent", None, &words).unwrap();
    node.wait_ready().unwrap();
    let mut agent = Agent::around(node);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    assert!(fs::read(dir.join("0")).unwrap() == all(&bodies[0]));
    let full = File::create(disk.path().join("others")).unwrap();
    let page = [0; 4096];
    let end = (0..).find_map(|at| full.write_all_at(&page, at * 4096).err()).unwrap();
    assert_eq!(end.kind(), io::ErrorKind::StorageFull);
    agent.kill();
    agent.start_again();
    for (name, body) in bodies.iter().enumerate() {
        assert!(fs::read(dir.join(name.to_string())).unwrap() == all(body));
    }
}

#[test]
fn a_holder_that_hangs_stops_nobody_and_is_there_again_when_it_goes_on() {
    let own = Own::start(Place::new());
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let holder = own.holder().unwrap();
    kill_process(holder, Signal::STOP).unwrap();
    let second = own.place.dir("second");
    let _second = Mount::guard(&second);
    let said =
        dfctl_at(&own.socket, &["mount", &origin.url("/d/"), second.to_str().unwrap()]).done();
    assert!(said.stderr.contains("the holder does not answer"), "{}", said.stderr);
    kill_process(holder, Signal::CONT).unwrap();
    let is_served = || own.log().contains("there is another one");
    wait::until("the agent is served again", is_served).unwrap();
    dfctl_at(&own.socket, &["mounts"]).done();
    kill_process(own.agent(), Signal::KILL).unwrap();
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
}

#[test]
fn an_agent_that_waits_for_a_holder_that_hangs_is_stopped_in_order_all_the_same() {
    let own = Own::start(Place::new());
    let origin = Origin::of("/d/f", Body::noise(1, MIB)).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let (agent, holder) = (own.agent(), own.holder().unwrap());
    kill_process(holder, Signal::STOP).unwrap();
    let second = own.place.dir("second");
    let _second = Mount::guard(&second);
    let words = ["mount", &origin.url("/d/"), second.to_str().unwrap()];
    let mut command = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
    command.arg("--socket").arg(&own.socket).args(words);
    let mounting = Running::start(command);
    wait::until("the holder is asked to keep it", || is_mounted(&second)).unwrap();
    kill_process(agent, Signal::TERM).unwrap();
    wait::until("it ends", || running(&own.data, Of::Agents).is_empty()).unwrap();
    assert!(!is_mounted(&dir) && !is_mounted(&second), "{}", own.log());
    drop(mounting);
    kill_process(holder, Signal::CONT).unwrap();
}

#[test]
fn signals_that_ask_for_something_else_end_neither_an_agent_nor_its_holder() {
    let own = Own::start(Place::new());
    let body = Body::noise(1, MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let both = [own.agent(), own.holder().unwrap()];
    // Whoever was ended would have taken it, too.
    let has_taken = |pid: Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status
            .lines()
            .all(|line| !line.starts_with("ShdPnd:") || line.ends_with("0000000000000000"))
    };
    let others = [Signal::ALARM, Signal::IO, Signal::PROF, Signal::VTALARM, Signal::POWER];
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2].into_iter().chain(others) {
        both.iter().for_each(|pid| kill_process(*pid, signal).unwrap());
        let have = || both.iter().all(|pid| has_taken(*pid));
        wait::until("both have taken it", have).unwrap();
    }
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
    assert_eq!([own.agent(), own.holder().unwrap()], both, "{}", own.log());
    assert!(own.log().contains("SIGHUP changes nothing"), "{}", own.log());
}

#[test]
fn whoever_asks_an_agent_that_is_on_its_way_back_waits_for_it_and_starts_no_other_one() {
    let own = Own::start_with_its_socket(Place::new());
    let origin = Origin::of("/d/f", Body::noise(1, MIB)).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let agent = own.agent();
    kill_process(agent, Signal::KILL).unwrap();
    wait::until("it is dead", || running(&own.data, Of::Agents).iter().all(|pid| *pid != agent))
        .unwrap();
    let listed = dfctl_at(&own.socket, &["mounts", "--format", "json"]).done().json().unwrap();
    assert!(listed["items"][0]["dir"] == dir.to_str().unwrap(), "{listed}");
}

#[test]
fn whoever_mounts_while_the_agent_is_killed_gets_the_mount_from_the_next_one() {
    const MOUNTS: usize = 10;
    let own = Own::start(Place::new());
    let origin = Origin::of("/d/f", Body::noise(1, MIB)).unwrap();
    let url = origin.url("/d/");
    // For its sake the agent is started again, whenever it is killed.
    let _first = own.mount(&url);
    let dirs = (0..MOUNTS).map(|number| own.place.dir(&format!("mount-{number}")));
    let mounts: Vec<_> = dirs.map(|dir| (Mount::guard(&dir), dir)).collect();
    for (number, (mount, dir)) in mounts.iter().enumerate() {
        let agent = own.agent();
        wait::until("it answers", || UnixStream::connect(&own.socket).is_ok()).unwrap();
        let words = ["mount", &url, "--cache-quota", "64MiB", dir.to_str().unwrap()];
        let said = thread::scope(|threads| {
            let asking = threads.spawn(|| dfctl_at(&own.socket, &words));
            // Every other one after it was made, and mostly before anybody was told.
            while number % 2 == 1 && !mount.is_mounted() && !asking.is_finished() {
                thread::yield_now();
            }
            kill_process(agent, Signal::KILL).unwrap();
            asking.join().unwrap()
        });
        said.done();
        let quota = &own.shown(dir).unwrap()["cache_quota_bytes"];
        assert_eq!(*quota, 64 * MIB, "{}", own.log());
        wait::until("another one is there", || own.agent() != agent).unwrap();
    }
    for (_, dir) in &mounts {
        assert!(fs::read(dir.join("f")).unwrap() == all(&Body::noise(1, MIB)));
    }
}

#[tokio::test]
async fn what_one_agent_mounted_for_a_command_the_next_one_has_mounted_for_it() {
    let own = Own::start(Place::new());
    let origin = Origin::of("/d/f", Body::noise(1, MIB)).unwrap();
    let dir = own.place.dir("mount");
    let _guard = Mount::guard(&dir);
    let mount = async |command: u8| {
        let channel = dfs_service::net::grpc_local_channel(&own.socket, None);
        let request = MountRequest {
            target: Some(common::Target { url: origin.url("/d/"), ..Default::default() }),
            dir: dir.to_str().unwrap().to_owned(),
            lane: "auto".to_owned(),
            command: vec![command; 16].into(),
            ..MountRequest::default()
        };
        NodeClient::new(channel).mount(request).await.map(|made| made.into_inner().device)
    };
    let (made, first) = (mount(1).await.unwrap(), own.agent());
    kill_process(first, Signal::KILL).unwrap();
    wait::until("the next one is there", || own.agent() != first).unwrap();
    wait::until("it answers", || UnixStream::connect(&own.socket).is_ok()).unwrap();
    assert!(made.contains(':'), "its device is {made}");
    assert_eq!(mount(1).await.unwrap(), made);
    assert_eq!(mount(2).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn an_agent_whose_socket_another_one_took_goes_on_with_its_mounts() {
    let own = Own::start(Place::new());
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let (dir, _guard) = own.mount(&origin.url("/d/"));
    let (agent, holder) = (own.agent(), own.holder().unwrap());
    kill_process(holder, Signal::STOP).unwrap();
    kill_process(agent, Signal::KILL).unwrap();
    wait::until("it is dead", || running(&own.data, Of::Agents).is_empty()).unwrap();
    // Somebody finds that nobody answers, and starts one.
    let data = own.place.dir("other");
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = binaries().command("dfs-fuse").unwrap();
    command.arg("--data-dir").arg(&data).arg("--socket").arg(&own.socket);
    command.args(["--holder", "off", "--port-pieces", "0", "--port-metrics", "0"]);
    let log = File::create(own.place.path("other.log")).unwrap();
    let other = Owned::start(command.stdout(Stdio::null()).stderr(log)).unwrap();
    wait::until("it answers", || dfctl_at(&own.socket, &["mounts"]).code == 0).unwrap();
    kill_process(holder, Signal::CONT).unwrap();
    assert!(reading(&dir.join("f")).join().unwrap().unwrap() == all(&body));
    assert!(own.log().contains("its mounts go on"), "{}", own.log());
    // Once the other one is gone it can be asked again.
    drop(other);
    wait::until("it is asked again", || {
        let said = dfctl_at(&own.socket, &["mounts", "--format", "name"]);
        said.text().contains(dir.to_str().unwrap())
    })
    .unwrap();
}

#[test]
fn an_agent_that_fails_at_its_start_leaves_its_mounts_to_the_next_one() {
    let place = Place::new();
    let body = Body::noise(1, 3 * MIB);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    agent.kill();
    // After it was given the mounts it finds that it cannot say where it listens.
    let announced = agent.data().join("run.json");
    let _ = fs::remove_file(&announced);
    fs::create_dir_all(announced.join("in the way")).unwrap();
    assert!(agent.node.process_mut().restart().is_err());
    fs::remove_dir_all(&announced).unwrap();
    agent.start_again();
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
}
