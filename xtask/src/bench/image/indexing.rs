//! How fast the layers of an image are read for what is in them, with nothing on the way: from a layout on this machine to a
//! mount, by an agent that has nothing. Beside it who unpacks them into a directory, and who does nothing but unpack.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use dfs_tests::{Binaries, Node};

use crate::bench::row::{Row, median};
use crate::bench::{Bench, measure};
use crate::image::Image;
use crate::run::{Failure, failed, run, said};

/// How layers are packed: a name, what a blob of it begins with, and what unpacks it.
const PACKINGS: [(&str, &[u8], &str); 2] =
    [("gzip", &[0x1f, 0x8b], "gzip"), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd], "zstd")];

/// Bytes of tars for each second, run by run.
pub fn rows(bench: &Bench, binaries: &Binaries, image: &Image) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (packing, begins, program) in PACKINGS {
        let layout = packed(bench, image, packing)?;
        let layers = layers(&layout, begins)?;
        let bytes = unpacked(program, &layers)?;
        let mut subjects = vec![("dfs", Vec::new()), (program, Vec::new())];
        if packing == "gzip" {
            subjects.push(("umoci", Vec::new()));
        }
        for number in 1..=bench.runs {
            for (subject, seen) in &mut subjects {
                bench.interrupt.check()?;
                let took = match *subject {
                    "dfs" => mounted(bench, binaries, &layout)?,
                    "umoci" => unpacked_by_umoci(bench, &layout)?,
                    program => {
                        let mut unpack = Command::new(program);
                        unpack.arg("-dc").args(&layers).stdout(Stdio::null());
                        measure::wall(&mut unpack)?.as_secs_f64()
                    }
                };
                let rate = bytes / took / 1e6;
                bench.says(&format!(
                    "{number}/{} index of {packing} {subject} {rate:.0} MB/s",
                    bench.runs
                ));
                seen.push(rate);
            }
        }
        rows.extend(subjects.into_iter().map(|(subject, seen)| Row {
            row: format!("P9.image.index.{packing}"),
            subject,
            value: median(&seen),
            unit: "MB/s of tar",
            goal: None,
            runs: seen.len(),
        }));
    }
    Ok(rows)
}

/// The image with its layers packed so.
fn packed(bench: &Bench, image: &Image, packing: &str) -> Result<PathBuf, Failure> {
    if packing == "gzip" {
        return Ok(image.layout.clone());
    }
    let layout = bench.fresh_dir("packed")?.join("layout");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--insecure-policy", "--dest-compress-format", packing]);
    skopeo.arg(format!("oci:{}:1", image.layout.display()));
    run(skopeo.arg(format!("oci:{}:1", layout.display())))?;
    Ok(layout)
}

/// The blobs that begin as layers do.
fn layers(layout: &Path, begins: &[u8]) -> Result<Vec<PathBuf>, Failure> {
    let blobs = layout.join("blobs/sha256");
    let mut found = Vec::new();
    for entry in fs::read_dir(&blobs).map_err(failed(&blobs))? {
        let path = entry.map_err(failed(&blobs))?.path();
        let mut first = vec![0; begins.len()];
        let mut file = File::open(&path).map_err(failed(&path))?;
        if file.read_exact(&mut first).is_ok() && first == begins {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Failure::Other(format!("no such layers in {}", layout.display())));
    }
    Ok(found)
}

/// Bytes of their tars.
fn unpacked(program: &str, layers: &[PathBuf]) -> Result<f64, Failure> {
    let mut count = Command::new("sh");
    count.args(["-c", "\"$0\" -dc \"$@\" | wc -c", program]).args(layers);
    let told = said(&mut count)?;
    told.trim().parse().map_err(|_| Failure::Other(format!("wc says '{told}'")))
}

fn mounted(bench: &Bench, binaries: &Binaries, layout: &Path) -> Result<f64, Failure> {
    let work = bench.fresh_dir("index")?;
    let agent = Node::start(binaries, &work, "agent", None)?;
    let begun = Instant::now();
    let _mount = agent.mount(&format!("oci-layout:{}:1", layout.display()), &work.join("root"))?;
    Ok(begun.elapsed().as_secs_f64())
}

fn unpacked_by_umoci(bench: &Bench, layout: &Path) -> Result<f64, Failure> {
    let work = bench.fresh_dir("umoci")?;
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", &format!("{}:1", layout.display())]).arg(work.join("bundle"));
    Ok(measure::wall(&mut umoci)?.as_secs_f64())
}
