//! P10: an uncompressed tar on this machine becomes a mount; beside it `mkfs.erofs` that makes an index of it.

use std::fs;
use std::process::Command;

use dfs_tests::Node;

use super::super::{measure, write_noise};
use super::{Bench, row, timed};
use crate::bench::row::{Goal, Row};
use crate::prepare;
use crate::run::{Failure, failed, run};

/// Files in the archive, and bytes of each.
const FILES: u64 = 2000;
const BYTES: u64 = 512 << 10;

/// Measures run by run, subject by subject.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    prepare::packages(prepare::FOR_TESTS)?;
    let work = bench.fresh_dir("tar")?;
    let tree = work.join("tree");
    bench.says("making an archive");
    for file in 0..FILES {
        let dir = tree.join(format!("d{}", file / 100));
        fs::create_dir_all(&dir).map_err(|error| Failure::Other(error.to_string()))?;
        write_noise(&dir.join(file.to_string()), BYTES)?;
    }
    let archive = work.join("tree.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&work).arg("tree"))?;
    let bytes = fs::metadata(&archive).map_err(failed(&archive))?.len() as f64;
    let url = format!("file://{}", archive.display());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 1..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("archive {run}/{}", bench.runs));
        let agent = Node::start(&bench.binaries, &bench.fresh_dir("agent")?, "agent", None)?;
        let dir = bench.path("agent").join("mnt");
        let (mount, took) = timed(|| Ok(agent.mount(&url, &dir)?))?;
        ours.push(bytes / took.as_secs_f64() / 1e9);
        drop(mount);
        let mut mkfs = prepare::mkfs_erofs()?;
        mkfs.arg("--tar=i").arg(bench.path("agent").join("index")).arg(&archive);
        theirs.push(bytes / measure::wall(&mut mkfs)?.as_secs_f64() / 1e9);
    }
    Ok(vec![
        row("P10.tar", "dfs", &ours, "GB/s to mounted", Some(Goal::AtLeast(1.0))),
        row("P10.tar", "mkfs.erofs", &theirs, "GB/s to an index", None),
    ])
}
