//! fio: one way of reading a file, as a figure.

use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;
use serde_json::Value;

use crate::run::Failure;

/// Random reads end after this many seconds, or when the whole file has been read.
const SECONDS: &str = "--runtime=2";

/// A way of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The whole file in order, 1 MiB at a time.
    Sequential,
    /// So many KiB anywhere, by so many readers.
    Random { kib: u32, jobs: u32 },
    /// The whole file in order, mapped, by so many processes.
    Mapped { jobs: u32 },
}

/// What hot and full mounts are read with.
pub const LOADS: [Load; 6] = [
    Load::Sequential,
    Load::Random { kib: 4, jobs: 1 },
    Load::Random { kib: 4, jobs: 8 },
    Load::Random { kib: 128, jobs: 1 },
    Load::Random { kib: 128, jobs: 8 },
    Load::Mapped { jobs: 1 },
];

impl Load {
    /// In the names of rows.
    pub fn name(self) -> String {
        let by = |jobs: u32| if jobs == 1 { String::new() } else { format!("x{jobs}") };
        match self {
            Self::Sequential => "seq".to_owned(),
            Self::Random { kib, jobs } => format!("r{kib}k{}", by(jobs)),
            Self::Mapped { jobs } => format!("mmap{}", by(jobs)),
        }
    }

    fn arguments(self, fio: &mut Command) {
        match self {
            Self::Sequential => fio.args(["--rw=read", "--bs=1M", "--ioengine=psync", "--thread"]),
            Self::Random { kib, jobs } => fio
                .args(["--rw=randread", "--ioengine=psync", "--thread", SECONDS])
                .args([format!("--bs={kib}k"), format!("--numjobs={jobs}")]),
            // Who maps a file says nothing of how it reads: with the hint, a FUSE mount is read page by page.
            Self::Mapped { jobs } => fio
                .args(["--rw=read", "--bs=1M", "--ioengine=mmap", "--fadvise_hint=0"])
                .arg(format!("--numjobs={jobs}")),
        };
    }

    /// Reads `path` this way; gives bytes per second.
    pub fn run(self, path: &Path) -> Result<f64, Failure> {
        let mut fio = Command::new("fio");
        fio.args(["--name=read", "--readonly", "--invalidate=0", "--group_reporting"]);
        fio.args(["--output-format=json", "--randrepeat=0"]);
        self.arguments(&mut fio);
        fio.arg(format!("--filename={}", path.display()));
        let said = Said::by(&mut fio)?.ok()?;
        let text = said.text();
        // Notes may stand before the object.
        let json = text.find('{').map_or("", |start| &text[start..]);
        let report: Value = serde_json::from_str(json)
            .map_err(|error| Failure::Other(format!("fio printed no JSON: {error}")))?;
        let rate = report["jobs"][0]["read"]["bw_bytes"].as_f64().filter(|rate| *rate > 0.0);
        rate.ok_or_else(|| Failure::Other(format!("fio read nothing of {}", path.display())))
    }
}
