//! Writes what is generated from the programs themselves: manual pages, shell completions and
//! references; or says what of it is not up to date. Started by `cargo xtask gen`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod commands;
mod completions;
mod configuration;
mod man;
mod reference;

/// Directories that hold nothing but what is generated: what is no longer made is taken away.
const OWNED: [&str; 3] = ["man", "completions", "docs/reference"];

/// Files by their path in the checkout.
type Pages = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Parser)]
#[command(name = "cargo xtask gen")]
struct Args {
    /// Top of the checkout
    root: PathBuf,
    /// Only say what is not up to date
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) if args.check => {
            eprintln!("not up to date; run `cargo xtask gen`:");
            stale.iter().for_each(|path| eprintln!("  {}", path.display()));
            ExitCode::FAILURE
        }
        Ok(written) => {
            written.iter().for_each(|path| println!("{}", path.display()));
            ExitCode::SUCCESS
        }
        Err((path, error)) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes what differs, unless that is only to be told; gives its paths.
fn run(args: &Args) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let pages = pages(&args.root)?;
    let mut stale = Vec::new();
    for (path, content) in &pages {
        let real = args.root.join(path);
        if fs::read(&real).is_ok_and(|found| found == *content) {
            continue;
        }
        stale.push(path.clone());
        if args.check {
            continue;
        }
        let parent = real.parent().unwrap_or(&args.root);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&real, content))
            .map_err(|error| (path.clone(), error))?;
    }
    for path in left_over(&args.root, &pages) {
        if !args.check {
            fs::remove_file(args.root.join(&path)).map_err(|error| (path.clone(), error))?;
        }
        stale.push(path);
    }
    Ok(stale)
}

fn pages(root: &Path) -> Result<Pages, (PathBuf, io::Error)> {
    let mut pages = Pages::new();
    for program in commands::programs() {
        pages.extend(man::pages(&program).map_err(|error| (PathBuf::from("man"), error))?);
        pages.extend(completions::scripts(&program));
    }
    let reference = Path::new("docs/reference");
    pages.insert(reference.join("cli.md"), reference::cli().into_bytes());
    pages.insert(reference.join("codes.md"), reference::codes().into_bytes());
    pages.insert(reference.join("metrics.md"), reference::metrics().into_bytes());
    pages.insert(reference.join("configuration.md"), configuration::page(root)?.into_bytes());
    Ok(pages)
}

/// Files in the directories of the generated that nothing generates.
fn left_over(root: &Path, pages: &Pages) -> Vec<PathBuf> {
    let entries = OWNED.iter().filter_map(|dir| Some((dir, fs::read_dir(root.join(dir)).ok()?)));
    let paths = entries.flat_map(|(dir, entries)| {
        entries.flatten().map(move |entry| Path::new(dir).join(entry.file_name()))
    });
    paths.filter(|path| !pages.contains_key(path)).collect()
}
