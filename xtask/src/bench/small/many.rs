//! P6: a tree of many small files behind nginx: to a first node of a cluster that knows nothing of it, to a next one
//! while seed and first node have everything, and by those who ask the origin file by file. Whole commands are
//! measured, their start and the listing included; the others are spared the listing.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::{Cluster, Node};

use super::super::measure::{self, Cost};
use super::super::server::{Scheme, Server};
use super::super::write_noise;
use super::{Bench, row};
use crate::bench::row::{Goal, Row};
use crate::run::{Failure, failed, run};

/// The smallest file, and what none reaches.
const LENGTHS: (u64, u64) = (1 << 10, 16 << 10);

/// Files in a directory.
const PER_DIRECTORY: u64 = 100;

/// Files that the others ask for at a time.
const AT_ONCE: &str = "16";

/// The files, and who has them.
struct Tree {
    root: PathBuf,
    paths: Vec<String>,
    bytes: u64,
    url: String,
}

#[derive(Default)]
struct Figures {
    origin: Vec<Cost>,
    peers: Vec<Cost>,
    curl: Vec<Cost>,
    aria2: Vec<Cost>,
}

/// Measures run by run, subject by subject.
pub fn measure(bench: &Bench, files: u64) -> Result<Vec<Row>, Failure> {
    bench.says(&format!("making {files} small files"));
    let (root, paths, bytes) = make(bench, files)?;
    let server = Server::start(&root, &bench.fresh_dir("nginx")?, &bench.interrupt)?;
    let tree = Tree { root, paths, bytes, url: server.url(Scheme::Http, "") };
    let mut figures = Figures::default();
    for run in 0..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("many small files {run}/{}", bench.runs));
        // The first run warms everybody up and is not counted.
        let mut unused = Figures::default();
        let counted = if run == 0 { &mut unused } else { &mut figures };
        through_a_cluster(bench, &tree, counted)?;
        counted.curl.push(fetched(bench, &tree, curl)?);
        counted.aria2.push(fetched(bench, &tree, aria2)?);
    }
    Ok(rows(&figures, files))
}

fn rows(figures: &Figures, files: u64) -> Vec<Row> {
    let all = files as f64;
    let rate = |costs: &[Cost]| -> Vec<f64> {
        costs.iter().map(|cost| all / cost.wall.as_secs_f64()).collect()
    };
    let cpu = |costs: &[Cost]| -> Vec<f64> {
        costs.iter().map(|cost| cost.cpu.as_secs_f64() / all * 1e6).collect()
    };
    let goal = Some(Goal::AtLeast(2000.0));
    let rate_row = |name, subject, costs, goal| row(name, subject, &rate(costs), "files/s", goal);
    vec![
        rate_row("P6.many.peers", "dfs", &figures.peers, goal),
        row("P6.many.peers.cpu", "dfs", &cpu(&figures.peers), "µs a file (dfctl)", None),
        rate_row("P6.many.origin", "dfs", &figures.origin, None),
        rate_row("P6.many.origin", "curl", &figures.curl, None),
        rate_row("P6.many.origin", "aria2", &figures.aria2, None),
    ]
}

/// The first node and the next one of a fresh cluster.
fn through_a_cluster(bench: &Bench, tree: &Tree, figures: &mut Figures) -> Result<(), Failure> {
    let work = bench.fresh_dir("many")?;
    let cluster = Cluster::start(&bench.binaries, &work)?;
    let at = cluster.address()?;
    let node = |name| Node::start(&bench.binaries, &work, name, Some(at));
    let (first, next) = (node("first")?, node("next")?);
    figures.origin.push(get(bench, tree, &first)?);
    figures.peers.push(get(bench, tree, &next)?);
    Ok(())
}

fn get(bench: &Bench, tree: &Tree, node: &Node) -> Result<Cost, Failure> {
    fetched(bench, tree, |tree, out| {
        let mut command = node.dfctl_command()?;
        command.args(["-q", "get", "-r", &tree.url, "-o"]).arg(out);
        Ok(command)
    })
}

fn curl(tree: &Tree, out: &Path) -> Result<Command, Failure> {
    let list = tree.paths.iter().fold(String::new(), |mut list, path| {
        let (url, out) = (&tree.url, out.display());
        let _ = writeln!(list, "url = \"{url}{path}\"\noutput = \"{out}/{path}\"");
        list
    });
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "--noproxy", "*", "--create-dirs", "--parallel", "--parallel-max", AT_ONCE]);
    curl.arg("--config").arg(write_list(tree, "curl", &list)?);
    Ok(curl)
}

fn aria2(tree: &Tree, out: &Path) -> Result<Command, Failure> {
    let list = tree.paths.iter().fold(String::new(), |mut list, path| {
        let _ = writeln!(list, "{}{path}\n  out={path}", tree.url);
        list
    });
    let mut aria2 = Command::new("aria2c");
    aria2.args(["-q", "--file-allocation=none", "--no-conf", "-j", AT_ONCE, "-d"]).arg(out);
    aria2.arg("-i").arg(write_list(tree, "aria2", &list)?);
    Ok(aria2)
}

fn write_list(tree: &Tree, name: &str, list: &str) -> Result<PathBuf, Failure> {
    let path = tree.root.with_file_name(format!("{name}.list"));
    fs::write(&path, list).map_err(failed(&path))?;
    Ok(path)
}

/// Gets the tree and compares it. As much memory as it takes is used and given free before: what the next one who
/// needs it pays for that is not the subject's.
fn fetched(
    bench: &Bench,
    tree: &Tree,
    command: impl FnOnce(&Tree, &Path) -> Result<Command, Failure>,
) -> Result<Cost, Failure> {
    bench.interrupt.check()?;
    measure::use_memory(&bench.path("memory"), 4 * tree.bytes)?;
    let out = bench.path("out");
    let cost = measure::run(&mut command(tree, &out)?)?;
    run(Command::new("diff").arg("-r").arg(&tree.root).arg(&out))?;
    fs::remove_dir_all(&out).map_err(failed(&out))?;
    Ok(cost)
}

fn make(bench: &Bench, files: u64) -> Result<(PathBuf, Vec<String>, u64), Failure> {
    let root = bench.fresh_dir("root")?;
    let (mut paths, mut bytes) = (Vec::new(), 0);
    for number in 0..files {
        let dir = format!("d{}", number / PER_DIRECTORY);
        fs::create_dir_all(root.join(&dir)).map_err(failed(&root))?;
        // Any length between, each as often as another.
        let length = LENGTHS.0 + number * 7919 % (LENGTHS.1 - LENGTHS.0);
        let path = format!("{dir}/file-{number}");
        write_noise(&root.join(&path), length)?;
        paths.push(path);
        bytes += length;
    }
    Ok((root, paths, bytes))
}
