//! Network namespaces with names, as `ip netns` has them: what is started inside one, and what is left of it when it
//! goes.
//!
//! Names tell who made them: `dfs-tb-PID-NUMBER-MACHINE`. Those of a process that is gone are taken away by the next
//! testbed.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::thread;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Failure;
use crate::process::is_left_over;
use crate::wait;

const NAMES: &str = "/run/netns";
const PREFIX: &str = "dfs-tb";

/// One of ours; it goes, with every process inside, when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
    id: Id,
}

/// What the kernel tells one namespace from another by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    fn of(path: &Path) -> Option<Self> {
        let status = fs::metadata(path).ok()?;
        Some(Self { device: status.dev(), inode: status.ino() })
    }
}

impl Namespace {
    /// Makes those of these names.
    pub fn make(names: &[String]) -> Result<Vec<Self>, Failure> {
        let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        let made = batch("ip", None, &lines);
        let opened: Result<Vec<_>, _> = names.iter().map(|name| Self::open(name)).collect();
        if let Err(failure) = made.and(opened.as_ref().map(drop).map_err(|_| unopened(names))) {
            names.iter().for_each(|name| remove_name(name));
            return Err(failure);
        }
        opened
    }

    fn open(name: &str) -> Result<Self, Failure> {
        let path = path_of(name);
        let failed = || Failure::of(format!("cannot open {}", path.display()));
        let file = File::open(&path).map_err(failed())?;
        let status = file.metadata().map_err(failed())?;
        let id = Id { device: status.dev(), inode: status.ino() };
        Ok(Self { name: name.to_owned(), file: file.into(), id })
    }

    /// Its name for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does something on a thread inside: what it starts and the sockets that it makes are inside, too, and stay there.
    pub fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let entered = || {
            self.enter()?;
            work()
        };
        let done = thread::scope(|scope| scope.spawn(entered).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread inside, for good.
    pub fn enter(&self) -> Result<(), Failure> {
        let entered =
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
        let failed = Failure::of(format!("cannot enter the network namespace {}", self.name));
        entered.map_err(|errno| failed(errno.into()))
    }

    /// Sets what `/proc/sys/net` has of it; what this kernel does not have is left out.
    pub fn set(&self, settings: &[(&str, &str)]) -> Result<(), Failure> {
        self.inside(|| {
            for (name, value) in settings {
                let path = Path::new("/proc/sys/net").join(name);
                if path.exists() {
                    let failed = Failure::of(format!("cannot set {}", path.display()));
                    fs::write(&path, value).map_err(failed)?;
                }
            }
            Ok(())
        })
    }

    /// Has `ip` or `tc` do these lines inside.
    pub fn batch(&self, program: &str, lines: &str) -> Result<(), Failure> {
        batch(program, Some(&self.name), lines)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        end_processes(&[self.id]);
        remove_name(&self.name);
    }
}

/// Ends whatever runs inside some namespaces, as long as they are there: numbers are given to others later.
#[derive(Debug, Clone)]
pub struct Reaper {
    namespaces: Vec<(Weak<File>, Id)>,
}

impl Reaper {
    /// Of these.
    pub fn of<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>) -> Self {
        let namespaces = namespaces.into_iter();
        Self { namespaces: namespaces.map(|one| (Arc::downgrade(&one.file), one.id)).collect() }
    }

    /// Kills them, and waits until they are gone.
    pub fn reap(&self) {
        // Held open meanwhile.
        let held: Vec<_> =
            self.namespaces.iter().filter_map(|(file, id)| Some((file.upgrade()?, *id))).collect();
        end_processes(&held.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    }
}

/// Names of namespaces for one testbed.
pub fn prefix(pid: u32, number: usize) -> String {
    format!("{PREFIX}-{pid}-{number}-")
}

/// Takes away what testbeds have left whose processes are gone.
pub fn remove_leftovers() {
    let listed = fs::read_dir(NAMES).into_iter().flatten().flatten();
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| is_left_over(name, PREFIX)) {
        end_processes(Id::of(&path_of(&name)).as_slice());
        remove_name(&name);
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

fn unopened(names: &[String]) -> Failure {
    Failure::new(format!("not all of {} are there: root may make namespaces", names.join(" ")))
}

/// The kernel keeps a namespace, with its links, as long as it has a name or a process.
fn remove_name(name: &str) {
    let path = path_of(name);
    // It may be half made, or gone.
    let _ = unmount(&path, UnmountFlags::DETACH);
    let _ = fs::remove_file(&path);
}

/// Processes in any of these namespaces. Threads of this one that have entered do not make it one of them.
fn inside(ids: &[Id]) -> Vec<Pid> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = rustix::process::getpid();
    numbers
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
            Id::of(Path::new(&path)).is_some_and(|id| ids.contains(&id))
        })
        .collect()
}

fn end_processes(ids: &[Id]) {
    // Each look may find what those of the last one had just started.
    let gone = wait::until("the processes of the testbed are gone", || {
        let left = inside(ids);
        for pid in &left {
            // It may have ended by itself.
            let _ = kill_process(*pid, Signal::KILL);
        }
        left.is_empty()
    });
    // Dropping goes on: the name goes, and the kernel takes the rest when the last process is gone.
    drop(gone);
}

/// Has `ip` or `tc` do these lines, in a namespace or outside of all.
fn batch(program: &str, namespace: Option<&str>, lines: &str) -> Result<(), Failure> {
    let failed = || Failure::of(format!("cannot run {program}"));
    let mut command = Command::new(program);
    command.args(namespace.iter().flat_map(|name| ["-n", *name]));
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed())?;
    if let Some(mut input) = child.stdin.take() {
        // One that has ended says why below.
        let _ = input.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!(
        "{program} in {}: {}",
        namespace.unwrap_or("no namespace"),
        said.trim()
    )))
}
