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
    /// 4 KiB anywhere, by one reader.
    Random,
    /// 4 KiB anywhere, by eight.
    RandomBy8,
    /// The whole file in order, mapped.
    Mapped,
}

/// All of them.
pub const LOADS: [Load; 4] = [Load::Sequential, Load::Random, Load::RandomBy8, Load::Mapped];

impl Load {
    /// In the names of rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequential => "seq",
            Self::Random => "r4k",
            Self::RandomBy8 => "r4k8",
            Self::Mapped => "mmap",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Sequential => &["--rw=read", "--bs=1M", "--ioengine=psync"],
            Self::Random => &["--rw=randread", "--bs=4k", "--ioengine=psync", SECONDS],
            Self::RandomBy8 => {
                &["--rw=randread", "--bs=4k", "--ioengine=psync", "--numjobs=8", SECONDS]
            }
            Self::Mapped => &["--rw=read", "--bs=1M", "--ioengine=mmap"],
        }
    }

    /// Reads `path` this way; gives bytes per second.
    pub fn run(self, path: &Path) -> Result<f64, Failure> {
        let mut fio = Command::new("fio");
        fio.args(["--name=read", "--readonly", "--thread", "--invalidate=0", "--group_reporting"]);
        fio.args(["--output-format=json", "--randrepeat=0"]).args(self.arguments());
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
