//! Numbers that every process has: its version, memory, open files and processor time.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Metrics;

crate::metrics! {
    /// What the kernel says about this process.
    pub struct ProcessMetrics("process") {
        /// Memory resident now.
        resident_memory: Gauge[Bytes],
        /// File descriptors open now.
        open_fds: Gauge[Count],
        /// Threads now.
        threads: Gauge[Count],
        /// Processor time used, user and system, in whole seconds.
        cpu: Gauge[Seconds],
        /// When the process started, since 1970.
        start_time: Gauge[Seconds],
    }
}

impl ProcessMetrics {
    pub(super) fn install(metrics: &mut Metrics) {
        let process = Self::register(metrics);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        process.start_time.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        metrics.before_scrape(move || process.sample());
    }

    /// Reads `/proc/self`; what cannot be read keeps its last value.
    fn sample(&self) {
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(kib) = field(&status, "VmRSS:") {
                self.resident_memory.set(kib.saturating_mul(1024));
            }
            if let Some(threads) = field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        self.cpu.set(used.tv_sec);
    }
}

fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_its_files() {
        let mut metrics = Metrics::default();
        let process = ProcessMetrics::register(&mut metrics);
        process.sample();
        assert!(process.resident_memory.get() > 1 << 20);
        assert!(process.open_fds.get() >= 3);
        assert!(process.threads.get() >= 1);
    }
}
