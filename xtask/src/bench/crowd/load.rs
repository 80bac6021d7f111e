//! What a crowd costs this machine: processor time of the programs, and how busy all of it was.

use std::collections::BTreeMap;
use std::fs;
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
    fn time_of_all_processors_is_read() {
        let text = "cpu  10 1 20 60 5 0 3 1 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(Ticks::read(text), Some(Ticks { total: 100, idle: 65, softirq: 3 }));
        assert_eq!(Ticks::read("cpu  1 2 3\n"), None);
        assert!(Ticks::now().is_ok());
    }
}
