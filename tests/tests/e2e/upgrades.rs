//! An agent whose program is another file by the time that it is replaced or dies: what an update of a package leaves.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dfs_tests::{Binaries, Body, Fault, Origin, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::own::{Of, Own, running};
use crate::support::{Expected, Place, all, binary, dfctl_at, reading};

/// Long enough to have a content file of its own.
const LARGE: u64 = (9 << 20) + 17;

/// A program that is installed where a test can replace it, and the agent that was started from it.
struct Installed {
    program: PathBuf,
    own: Own,
}

impl Installed {
    fn new() -> Self {
        let place = Place::new();
        let program = place.dir("programs").join("dfs-fuse");
        fs::copy(binary("dfs-fuse"), &program).unwrap();
        let programs = Binaries::in_dir(program.parent().unwrap());
        Self { own: Own::start_of(&programs, place), program }
    }

    /// Puts another file in its place, as a package manager does: it is written beside it and renamed over it.
    fn update(&self) -> u64 {
        let next = self.program.with_extension("new");
        fs::copy(&self.program, &next).unwrap();
        // Not the same bytes either.
        File::options().append(true).open(&next).unwrap().write_all(b"\n").unwrap();
        fs::rename(&next, &self.program).unwrap();
        fs::metadata(&self.program).unwrap().ino()
    }
}

/// The file that a process runs.
fn program_of(pid: Pid) -> u64 {
    fs::metadata(format!("/proc/{}/exe", pid.as_raw_nonzero())).unwrap().ino()
}

/// Kills a holder; the one that the agent starts in its place.
fn successor_of(own: &Own, holder: Pid) -> Pid {
    kill_process(holder, Signal::KILL).unwrap();
    let other = || own.holder().filter(|other| *other != holder);
    let found = wait::find("there is another holder", wait::PATIENCE, other).unwrap();
    wait::until("it serves the agent", || own.log().contains("there is another one")).unwrap();
    found
}

/// Kills the agent while a read waits; what the next one runs.
fn read_on_after_a_kill(own: &Own, origin: &Origin, body: &Body, path: &Path) -> u64 {
    let gate = origin.inject(Fault::gate().on("/d/next"));
    let reader = reading(path);
    gate.wait_struck(1).unwrap();
    let killed = own.agent();
    kill_process(killed, Signal::KILL).unwrap();
    wait::until("it is gone", || !running(&own.data, Of::Agents).contains(&killed)).unwrap();
    gate.wait_struck(2).unwrap();
    gate.lift();
    assert!(reader.join().unwrap().unwrap() == all(body));
    program_of(own.agent())
}

fn origin_of(bodies: [&Body; 2]) -> Origin {
    let origin = Origin::of("/d/first", bodies[0].clone()).unwrap();
    origin.put("/d/next", bodies[1].clone());
    origin
}

#[test]
fn a_new_version_goes_on_with_what_the_old_one_had_in_every_lane() {
    for lane in ["fuse", "passthrough", "kernel"] {
        println!("by the lane {lane}");
        let installed = Installed::new();
        let own = &installed.own;
        let bodies = [1, 2].map(|seed| Body::noise(seed, LARGE));
        let origin = origin_of(bodies.each_ref());
        let (dir, _guard) = own.mount_in(lane, &origin.url("/d/"));
        assert_eq!(own.shown(&dir).unwrap()["lane"], lane);
        let gate = origin.inject(Fault::gate().on("/d/first"));
        let reader = reading(&dir.join("first"));
        gate.wait_struck(1).unwrap();
        let (old, holder) = (program_of(own.agent()), own.holder().unwrap());
        let new = installed.update();
        assert_ne!(old, new);
        let said = dfctl_at(&own.socket, &["upgrade", "--format", "json"]).done().json().unwrap();
        assert_eq!(said["mounts"], 1, "{said}");
        assert_eq!(program_of(own.agent()), new);
        assert!(!reader.is_finished(), "who reads learns nothing of it");
        gate.wait_struck(2).unwrap();
        gate.lift();
        assert!(reader.join().unwrap().unwrap() == all(&bodies[0]));
        assert_eq!(own.shown(&dir).unwrap()["lane"], lane);
        // An old holder serves the new agent, and starts the next one.
        assert_eq!(program_of(holder), old);
        let next = read_on_after_a_kill(own, &origin, &bodies[1], &dir.join("next"));
        assert_eq!((next, own.holder()), (new, Some(holder)));
        assert!(!own.log().contains("is taken away"), "{}", own.log());
    }
}

#[test]
fn a_holder_of_the_new_version_keeps_what_an_agent_of_the_old_one_has() {
    for lane in ["fuse", "passthrough"] {
        println!("by the lane {lane}");
        let installed = Installed::new();
        let own = &installed.own;
        let bodies = [1, 2].map(|seed| Body::noise(seed, LARGE));
        let origin = origin_of(bodies.each_ref());
        let (dir, _guard) = own.mount_in(lane, &origin.url("/d/"));
        assert!(reading(&dir.join("first")).join().unwrap().unwrap() == all(&bodies[0]));
        let (agent, old) = (own.agent(), program_of(own.agent()));
        let new = installed.update();
        // Nobody has replaced the agent, and its holder dies.
        let holder = successor_of(own, own.holder().unwrap());
        assert_eq!((program_of(holder), program_of(agent)), (new, old));
        let next = read_on_after_a_kill(own, &origin, &bodies[1], &dir.join("next"));
        assert_eq!((next, own.holder()), (new, Some(holder)));
        assert_eq!(own.shown(&dir).unwrap()["lane"], lane);
    }
}
