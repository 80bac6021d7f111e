//! Agents with less of something than what they do takes, memory, files, threads: they tell who has to wait or do
//! without, and go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Node, Origin};

use crate::support::disk::Disk;
use crate::support::{Agent, Expected, Place, services_started_by, until};

const MIB: u64 = 1 << 20;

/// A control group with one limit; it goes with its test.
pub struct Group {
    pub dir: PathBuf,
}

impl Group {
    pub fn new(controller: &str, limits: &[(&str, &str)]) -> Self {
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

    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.dir.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy until the last process in it is gone.
        let _ = dfs_tests::wait::until("the group is empty", || fs::remove_dir(&self.dir).is_ok());
    }
}

/// An agent with a line of shell before it, whose data lies below `dir`.
pub fn agent(place: &Place, dir: &Path, before: &str) -> Agent {
    let programs = services_started_by(place, |agent| format!("{before}\nexec {agent} \"$@\""));
    Agent::around(Node::start(&programs, dir, "a", None).unwrap())
}

#[test]
fn an_agent_with_little_memory_reads_what_is_larger() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let limits = [("memory.limit_in_bytes", "100663296"), ("memory.max", "100663296")];
    let group = Group::new("memory", &limits);
    let body = Body::noise(5, 256 * MIB);
    origin.put("/large", body.clone());
    let agent = agent(&place, place.root(), &group.enter());
    let mount = agent.mount(&origin.url("/large"), place.path("mount"));
    let read = fs::read(mount.join("large")).unwrap();
    assert_eq!(read.len() as u64, 256 * MIB);
    for at in (0..256 * MIB).step_by(16 << 20) {
        let expected = body.read(at, at + MIB).unwrap();
        assert!(read[at as usize..][..MIB as usize] == expected, "wrong bytes at {at}");
    }
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

/// Of what there is too little: what `/proc` lists of the agent, and from how many on it has no more.
struct Scarce {
    what: &'static str,
    enough: usize,
}

/// Reads as many files at once; what each said. What keeps them from being served is lifted once all that is scarce
/// is taken.
fn crowd(
    agent: &Agent,
    urls: impl Iterator<Item = String>,
    scarce: &Scarce,
    lift: impl FnOnce() + Send,
) -> Vec<Said> {
    let listed = format!("/proc/{}/{}", agent.node.process().pid(), scarce.what);
    let mut most = 0;
    let all_is_taken = || {
        most = most.max(fs::read_dir(&listed).map_or(0, Iterator::count));
        most >= scarce.enough
    };
    thread::scope(|scope| {
        let reads: Vec<_> =
            urls.map(|url| scope.spawn(move || agent.dfctl(&["cat", &url]))).collect();
        let shortage = dfs_tests::wait::until("there is a shortage", all_is_taken);
        lift();
        let said = reads.into_iter().map(|read| read.join().unwrap()).collect();
        shortage.unwrap();
        said
    })
}

fn assert_told(said: &Said, bytes: &[u8]) {
    if said.code == 0 {
        assert!(said.stdout == bytes, "wrong bytes");
    } else {
        assert!(said.stderr.contains("error: ") && said.stderr.contains("DFS-"), "{said:?}");
        assert!(bytes.starts_with(&said.stdout), "wrong bytes before an error");
    }
}

const FILES: u64 = 40;

fn body(file: u64) -> Body {
    Body::noise(file, 200_000)
}

fn origin() -> Origin {
    let origin = Origin::start().unwrap();
    (0..FILES).for_each(|file| origin.put(&format!("/{file}"), body(file)));
    origin
}

fn crowds_are_served_or_told(
    agent: &Agent,
    origin: &Origin,
    scarce: &Scarce,
    lift: impl FnOnce() + Send,
) {
    let place = Place::new();
    let url = |file: u64| origin.url(&format!("/{file}"));
    let bytes = |file| body(file).read(0, 200_000).unwrap();
    let said = crowd(agent, (0..FILES).map(url), scarce, lift);
    (0..).zip(&said).for_each(|(file, said)| assert_told(said, &bytes(file)));
    assert!(said.iter().any(|said| said.code == 0), "nobody was served: {:?}", said[0]);
    // Alone each is served, and a mount once threads have ended.
    for file in 0..FILES {
        let said = agent.dfctl(&["cat", &url(file)]).done();
        assert!(said.stdout == bytes(file), "{file}");
    }
    let dir = place.dir("mount");
    until("there is a mount", || {
        let said = agent.dfctl(&["mount", &url(3), dir.to_str().unwrap()]);
        assert!(said.code == 0 || said.stderr.contains("DFS-4109"), "{said:?}");
        said.code == 0
    });
    assert!(fs::read(dir.join("3")).unwrap() == bytes(3));
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

#[test]
fn an_agent_with_few_files_serves_a_crowd_or_says_why_not_and_goes_on() {
    let (place, origin) = (Place::new(), origin());
    let agent = agent(&place, place.root(), "ulimit -n 64");
    let gate = origin.inject(Fault::gate().method("GET"));
    let scarce = Scarce { what: "fd", enough: 62 };
    crowds_are_served_or_told(&agent, &origin, &scarce, || gate.lift());
}

#[test]
fn an_agent_with_few_threads_serves_a_crowd_or_says_why_not_and_goes_on() {
    let (place, origin) = (Place::new(), origin());
    let group = Group::new("pids", &[("pids.max", "24")]);
    let disk = Disk::new(&place);
    let agent = agent(&place, disk.path(), &group.enter());
    let frozen = disk.freeze();
    // Half of them for calls that block, and those that work.
    let scarce = Scarce { what: "task", enough: 14 };
    crowds_are_served_or_told(&agent, &origin, &scarce, || drop(frozen));
}

#[test]
fn an_agent_with_few_files_takes_away_all_that_it_mounted() {
    let (place, origin) = (Place::new(), origin());
    let agent = agent(&place, place.root(), "ulimit -n 64");
    let url = |file: u64| origin.url(&format!("/{file}"));
    let dir = |file: u64| place.dir(&format!("on-{file}")).to_str().unwrap().to_owned();
    let mounts = |file| agent.dfctl(&["mount", &url(file), &dir(file)]);
    let refused = (0..FILES).find(|file| {
        let said = mounts(*file);
        assert!(said.code == 0 || said.stderr.contains("DFS-4109"), "{said:?}");
        said.code != 0
    });
    let refused = refused.expect("files run out");
    assert!(refused > 0, "nothing could be mounted");
    for file in 0..refused {
        assert_eq!(fs::read(Path::new(&dir(file)).join(file.to_string())).unwrap().len(), 200_000);
    }
    for file in (0..refused).rev() {
        agent.dfctl(&["umount", &dir(file)]).done();
    }
    assert_eq!(mounts(refused).done().code, 0);
    agent.dfctl(&["umount", &dir(refused)]).done();
}
