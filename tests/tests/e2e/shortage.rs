//! Agents with less memory than what they read takes: they go on.

use std::fs;
use std::path::{Path, PathBuf};

use dfs_tests::{Body, Node, Origin};

use crate::support::{Agent, Place, agent_started_by};

const MIB: u64 = 1 << 20;

/// A control group with one limit; it goes with its test.
struct Group {
    dir: PathBuf,
}

impl Group {
    fn new(controller: &str, limits: &[(&str, &str)]) -> Self {
        let base = Path::new("/sys/fs/cgroup");
        let versions = [base.join(controller), base.to_owned()];
        let base = versions.into_iter().find(|dir| dir.join("cgroup.procs").exists());
        let name = format!("dfs-{}-{:?}", std::process::id(), std::thread::current().id());
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let group = Self { dir: base.expect("control groups").join(name) };
        fs::create_dir(&group.dir).unwrap();
        let known = |file: &&(&str, &str)| group.dir.join(file.0).exists();
        let (file, value) = limits.iter().find(known).expect("the controller");
        fs::write(group.dir.join(file), value).unwrap();
        group
    }

    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.dir.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy until the last process in it is gone.
        let _ = dfs_tests::wait::until("the group is empty", || fs::remove_dir(&self.dir).is_ok());
    }
}

#[test]
fn an_agent_with_little_memory_reads_what_is_larger() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let limits = [("memory.limit_in_bytes", "100663296"), ("memory.max", "100663296")];
    let group = Group::new("memory", &limits);
    let body = Body::noise(5, 256 * MIB);
    origin.put("/large", body.clone());
    let programs =
        agent_started_by(&place, |agent| format!("{}\nexec {agent} \"$@\"", group.enter()));
    let agent = Agent::around(Node::start(&programs, place.root(), "a", None).unwrap());
    let mount = agent.mount(&origin.url("/large"), place.path("mount"));
    let read = fs::read(mount.join("large")).unwrap();
    assert_eq!(read.len() as u64, 256 * MIB);
    for at in (0..256 * MIB).step_by(16 << 20) {
        let expected = body.read(at, at + MIB).unwrap();
        assert!(read[at as usize..][..MIB as usize] == expected, "wrong bytes at {at}");
    }
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
