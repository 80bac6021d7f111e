//! The processes of the demo: one cluster, some nodes, a mount on each. All of it goes when this
//! is dropped, and at once on a signal.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use dfs_tests::cluster::detach;
use dfs_tests::{Binaries, Cluster, Mount, Node};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt::Interrupt;
use crate::run::{Failure, failed};

/// A node, where it mounts, and the guard of the mount.
pub struct Place {
    /// The agent.
    pub node: Node,
    /// Its mount point.
    pub dir: PathBuf,
    _mount: Mount,
}

/// What runs.
pub struct Stage {
    // Dropped in this order: mounts go with their nodes before the cluster does.
    /// The nodes.
    pub places: Vec<Place>,
    /// The cluster.
    pub cluster: Cluster,
    /// From the start of the first agent to that of the last.
    pub spread: Duration,
    /// Until all were ready.
    pub ready: Duration,
}

impl Stage {
    /// Starts the cluster, and then all nodes at once.
    pub fn start(
        binaries: &Binaries,
        work: &Path,
        nodes: usize,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let cluster = Cluster::start(binaries, work)?;
        gone_on_signal(interrupt, cluster.process().pid(), None);
        interrupt.check()?;
        let address = cluster.address()?;
        let begun = Instant::now();
        let mut places = Vec::new();
        for number in 1..=nodes {
            let name = format!("node{number}");
            let dir = work.join("mnt").join(&name);
            std::fs::create_dir_all(&dir).map_err(failed(&dir))?;
            let node = Node::spawn(binaries, work, &name, Some(address), &[])?;
            gone_on_signal(interrupt, node.process().pid(), Some(dir.clone()));
            let mount = Mount::guard(&dir);
            places.push(Place { node, dir, _mount: mount });
        }
        let spread = begun.elapsed();
        for place in &mut places {
            place.node.wait_ready()?;
        }
        interrupt.check()?;
        Ok(Self { places, cluster, spread, ready: begun.elapsed() })
    }

    /// Mounts on every node at once.
    pub fn mount(&self, url: &str) -> Result<(), Failure> {
        thread::scope(|scope| {
            let mounting: Vec<_> = self
                .places
                .iter()
                .map(|place| {
                    scope.spawn(move || {
                        let dir = place.dir.as_os_str();
                        place.node.dfctl(["mount".as_ref(), url.as_ref(), dir])?.ok()
                    })
                })
                .collect();
            for thread in mounting {
                let said = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                said?;
            }
            Ok(())
        })
    }

    /// Names and mount points.
    pub fn dirs(&self) -> Vec<(String, PathBuf)> {
        let places = self.places.iter();
        places.map(|place| (place.node.name().to_owned(), place.dir.clone())).collect()
    }
}

/// A process and its mount go at once on a signal, so that nothing waits for them.
fn gone_on_signal(interrupt: &Interrupt, pid: u32, mount: Option<PathBuf>) {
    interrupt.on_signal(move || {
        if let Some(dir) = &mount {
            detach(dir);
        }
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    });
}
