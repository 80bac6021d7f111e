//! What a process costs: wall time, processor time, memory, as the kernel accounts for them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::run::{Failure, failed, line};

/// How often memory is looked at; the high-water mark itself misses nothing but the last moment.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Ticks in a second of what /proc tells: part of the kernel's contract.
pub const TICKS: u64 = 100;

/// What a command cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// User and system, of all its threads.
    pub cpu: Duration,
    /// The most that was resident, in bytes.
    pub rss: u64,
}

/// Runs a command to its good end; what it prints is dropped, unless it fails.
pub fn run(command: &mut Command) -> Result<Cost, Failure> {
    observed(command, follow)
}

/// How long a command takes to its good end, where a look at its memory now and then would take as long.
pub fn wall(command: &mut Command) -> Result<Duration, Failure> {
    observed(command, |child, begun| {
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok()?;
        Some(begun.elapsed())
    })
}

/// Runs a command to its good end; what is seen of it on the way.
fn observed<T>(
    command: &mut Command,
    look: impl FnOnce(&Child, Instant) -> Option<T>,
) -> Result<T, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let spawned = command.spawn();
    let failed = |end: String| Failure::Program { line: line(command), end };
    let mut child = spawned.map_err(|error| failed(format!("could not be started: {error}")))?;
    let measured = look(&child, begun);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // Complaints that are not text are not needed.
        let _ = stderr.read_to_string(&mut said);
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("ended with {status}\n{}", said.trim())));
    }
    measured.ok_or_else(|| failed("could not be measured".to_owned()))
}

/// Follows a child until it has ended, and leaves it to be reaped.
fn follow(child: &Child, begun: Instant) -> Option<Cost> {
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
    let mut rss = 0;
    loop {
        rss = peak_rss(child.id()).unwrap_or(0).max(rss);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(pid), options).ok()?.is_some() {
            let wall = begun.elapsed();
            // A child that has ended and is not reaped still has its account.
            return Some(Cost { wall, cpu: cpu(child.id())?, rss });
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Processor time of a process so far, user and system.
pub fn cpu(pid: u32) -> Option<Duration> {
    times(&pid.to_string(), 11)
}

/// Processor time of all commands of this process that have been waited for.
pub fn children_cpu() -> Option<Duration> {
    times("self", 13)
}

/// User and system time, which begin at this field after the name.
fn times(process: &str, at: usize) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(at);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// The most that was resident so far, in bytes.
pub fn peak_rss(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// What is resident now, in bytes.
pub fn rss(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// What is resident now and the process's own: no file could give it back. In bytes.
pub fn own_memory(pid: u32) -> Option<u64> {
    memory(pid, "RssAnon:")
}

fn memory(pid: u32, which: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Fills the page cache with so many bytes, in large pages as in small ones, and frees it.
pub fn use_memory(at: &Path, size: u64) -> Result<(), Failure> {
    let mut file = File::create(at).map_err(failed(at))?;
    let block = vec![0; 1 << 20];
    for _ in 0..size.div_ceil(block.len() as u64) {
        file.write_all(&block).map_err(failed(at))?;
    }
    fs::remove_file(at).map_err(failed(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_measured_and_its_failure_told() {
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let cost = run(Command::new("sh").args(["-c", busy])).unwrap();
        assert!(cost.cpu > Duration::ZERO && cost.rss > 0 && cost.wall > Duration::ZERO);
        assert!(wall(Command::new("sleep").arg("0.05")).unwrap() >= Duration::from_millis(50));
        let failed = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(failed.to_string().contains("why"), "{failed}");
    }
}
