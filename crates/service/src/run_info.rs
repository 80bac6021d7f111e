//! `<data>/run.json`: which process works on a data directory, and where it can be reached.
//!
//! The file appears whole or not at all and goes with a clean exit. One left by a crash is
//! recognised: its process is gone, or another one has got its number.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::private_file::{self, Outlives};

const FILE_NAME: &str = "run.json";
/// More than any honest file needs.
const MAX_BYTES: u64 = 64 * 1024;

/// What a process says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Its number.
    pub pid: u32,
    /// When the kernel started it, in clock ticks since boot: tells it from a later process with
    /// the same number.
    pub pid_started: u64,
    /// What it is: `agent`, `cluster`, …
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// Addresses by what they serve: `grpc`, `pieces`, `metrics`, ….
    pub addresses: BTreeMap<String, String>,
    /// Its Unix socket.
    pub socket: Option<PathBuf>,
    /// When it started, in seconds since 1970.
    pub started: u64,
}

/// What a data directory says about its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Nobody worked on it, or left cleanly.
    Absent,
    /// This process works on it.
    Running(RunInfo),
    /// This process did, and ended without leaving.
    Stale(RunInfo),
}

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunInfoError {
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not what a process writes.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A written announcement; taken back when this is dropped.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
    info: RunInfo,
}

impl RunInfo {
    /// About this process, with no addresses yet.
    pub fn of_this_process(role: &str, version: &str) -> Self {
        let pid = std::process::id();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            pid,
            pid_started: started_ticks(pid).unwrap_or(0),
            role: role.to_owned(),
            version: version.to_owned(),
            addresses: BTreeMap::new(),
            socket: None,
            started: now.as_secs(),
        }
    }

    /// Adds where `service` can be reached.
    pub fn with_address(mut self, service: &str, address: impl ToString) -> Self {
        self.addresses.insert(service.to_owned(), address.to_string());
        self
    }

    /// Adds its socket.
    pub fn with_socket(mut self, socket: &Path) -> Self {
        self.socket = Some(socket.to_owned());
        self
    }

    /// Writes the file into `data_dir`, in place of whatever is there.
    pub fn announce(self, data_dir: &Path) -> Result<Announcement, RunInfoError> {
        let path = data_dir.join(FILE_NAME);
        let failed = |source| RunInfoError::Io { action: "write", path: path.clone(), source };
        let text = serde_json::to_vec_pretty(&self)
            .map_err(|source| RunInfoError::Damaged { path: path.clone(), source })?;
        let replace = || private_file::replace(&path, &text, Outlives::Process);
        let replaced = match replace() {
            // What an earlier process has announced is worth its room on a full disk.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                fs::remove_file(&path).and_then(|()| replace())
            }
            other => other,
        };
        replaced.map_err(failed)?;
        Ok(Announcement { path, info: self })
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        started_ticks(self.pid).is_some_and(|ticks| ticks == self.pid_started)
    }

    /// Reads the file of `data_dir`.
    pub fn read(data_dir: &Path) -> Result<RunState, RunInfoError> {
        let path = data_dir.join(FILE_NAME);
        let failed = |source| RunInfoError::Io { action: "read", path: path.clone(), source };
        let read = private_file::read(&path, MAX_BYTES).map_err(failed)?;
        let Some(text) = read else { return Ok(RunState::Absent) };
        let info: Self = serde_json::from_slice(&text)
            .map_err(|source| RunInfoError::Damaged { path, source })?;
        Ok(if info.is_running() { RunState::Running(info) } else { RunState::Stale(info) })
    }
}

impl Announcement {
    /// What was announced.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // The directory may be gone, or a successor may have announced itself.
        let ours = fs::read(&self.path)
            .ok()
            .and_then(|text| serde_json::from_slice::<RunInfo>(&text).ok())
            .is_some_and(|info| info == self.info);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// When the kernel started a process, in clock ticks since boot: field 22 of `/proc/<pid>/stat`; `None` when
/// there is no such process.
pub(crate) fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn announce(dir: &Path) -> Announcement {
        RunInfo::of_this_process("agent", "1.2.3")
            .with_address("pieces", "127.0.0.1:4001")
            .with_socket(Path::new("/run/dfs/agent.sock"))
            .announce(dir)
            .unwrap()
    }

    #[test]
    fn an_announcement_is_read_back_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunInfo::read(dir.path()).unwrap(), RunState::Absent);
        let announcement = announce(dir.path());
        let info = announcement.info().clone();
        assert_eq!(info.addresses["pieces"], "127.0.0.1:4001");
        assert_eq!(RunInfo::read(dir.path()).unwrap(), RunState::Running(info));
        drop(announcement);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_process_that_is_gone_leaves_a_stale_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        let mut info = RunInfo::of_this_process("agent", "1");
        info.pid = child.id();
        child.wait().unwrap();
        let announcement = info.clone().announce(dir.path()).unwrap();
        assert_eq!(RunInfo::read(dir.path()).unwrap(), RunState::Stale(info));
        drop(announcement);
    }

    #[test]
    fn a_number_given_to_another_process_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let mut info = RunInfo::of_this_process("agent", "1");
        info.pid_started += 1;
        let _announcement = info.clone().announce(dir.path()).unwrap();
        assert_eq!(RunInfo::read(dir.path()).unwrap(), RunState::Stale(info));
    }

    #[test]
    fn a_successor_keeps_its_file_when_the_predecessor_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let first = announce(dir.path());
        let second = RunInfo::of_this_process("agent", "2").announce(dir.path()).unwrap();
        drop(first);
        let state = RunInfo::read(dir.path()).unwrap();
        assert_eq!(state, RunState::Running(second.info().clone()));
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        assert!(matches!(RunInfo::read(dir.path()), Err(RunInfoError::Damaged { .. })));
    }
}
