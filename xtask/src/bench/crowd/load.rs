//! What a crowd costs this machine: processor time of the programs, and how busy all of it was.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use crate::bench::measure::{TICKS, children_cpu, cpu};
use crate::run::Failure;

/// What it cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Of the programs, user and system.
    pub cpu: Duration,
    /// What the kernel did for the links, on nobody's account.
    pub softirq: Duration,
    /// The share of all processors' time in which they had work.
    pub busy: f64,
}

/// Looks before and after.
pub struct Meter {
    machine: Ticks,
    processes: BTreeMap<u32, Duration>,
    ended: Duration,
}

impl Meter {
    /// From now on, of these processes and of commands that are waited for.
    pub fn start(pids: &[u32]) -> Result<Self, Failure> {
        let processes = pids.iter().filter_map(|pid| Some((*pid, cpu(*pid)?))).collect();
        Ok(Self { machine: Ticks::now()?, processes, ended: children_cpu().unwrap_or_default() })
    }

    /// Up to now; these processes may have been started meanwhile.
    pub fn stop(&self, pids: &[u32]) -> Result<Load, Failure> {
        let machine = Ticks::now()?;
        let before = |pid| self.processes.get(&pid).copied().unwrap_or_default();
        let of_processes: Duration =
            pids.iter().filter_map(|pid| Some(cpu(*pid)?.saturating_sub(before(*pid)))).sum();
        let of_commands = children_cpu().unwrap_or_default().saturating_sub(self.ended);
        let total = machine.total - self.machine.total;
        let idle = machine.idle - self.machine.idle;
        let softirq = machine.softirq - self.machine.softirq;
        Ok(Load {
            cpu: of_processes + of_commands,
            softirq: Duration::from_millis(softirq * 1000 / TICKS),
            busy: 1.0 - idle as f64 / total.max(1) as f64,
        })
    }
}

/// What is touched at a time.
const CHUNK: usize = 64 << 20;

/// Touches so many bytes of memory, but no more than half of what is available, and lets them go. In a virtual machine
/// the first touch of a page is work of the host, several times what it costs to write to it: 11 µs against 1.5 were seen.
/// Who comes first would pay for those who come later.
pub fn touch_memory(bytes: u64) {
    let all = usize::try_from(bytes.min(available() / 2)).unwrap_or(usize::MAX);
    let chunks: Vec<Vec<u8>> = (0..all / CHUNK).map(|_| vec![1; CHUNK]).collect();
    drop(black_box(chunks));
}

/// Bytes that may be had without swapping; none where the system does not tell.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// Time of all processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    total: u64,
    idle: u64,
    softirq: u64,
}

impl Ticks {
    fn now() -> Result<Self, Failure> {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::read(&text).ok_or_else(|| Failure::Other("/proc/stat cannot be read".to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        // user nice system idle iowait irq softirq steal; what guests took is in user already.
        let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        let [_, _, _, idle, iowait, _, softirq, _] = *ticks else { return None };
        Some(Self { total: ticks.iter().sum(), idle: idle + iowait, softirq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_touched_as_far_as_there_is_some() {
        assert!(available() > 0);
        touch_memory(1);
        touch_memory(CHUNK as u64 + 1);
    }

    #[test]
    fn time_of_all_processors_is_read() {
        let text = "cpu  10 1 20 60 5 0 3 1 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(Ticks::read(text), Some(Ticks { total: 100, idle: 65, softirq: 3 }));
        assert_eq!(Ticks::read("cpu  1 2 3\n"), None);
        assert!(Ticks::now().is_ok());
    }
}
