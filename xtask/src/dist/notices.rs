//! Whose work the programs are linked with, and under which licences: names and their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::PROGRAMS;
use crate::run::{Failure, failed, said};
use crate::workspace::cargo;

/// The text that goes with the programs. Packages that share a licence's very text share it here.
pub fn text() -> Result<String, Failure> {
    let (homes, linked) = (homes()?, linked()?);
    let mut list = String::from("dfs is linked with these packages:\n\n");
    let mut texts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for package in &linked {
        let Some(home) = homes.get(package) else { continue };
        let _ = writeln!(list, "  {package}: {}", home.licence);
        for text in licence_texts(&home.path)? {
            texts.entry(text).or_default().insert(package);
        }
    }
    for (text, names) in texts {
        let names: Vec<_> = names.into_iter().collect();
        let _ = write!(list, "\n\n──── {}\n\n{}\n", names.join(", "), text.trim_end());
    }
    Ok(list)
}

struct Home {
    path: PathBuf,
    licence: String,
}

/// `name version` of all that is linked in and not our own.
fn linked() -> Result<BTreeSet<String>, Failure> {
    let mut command = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"])?;
    for program in PROGRAMS {
        command.args(["--package", program]);
    }
    let text = said(&mut command)?;
    // Ours have a path behind them, and what was told before an asterisk.
    Ok(text
        .lines()
        .filter(|line| !line.contains("(/"))
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, version)| format!("{name} {}", version.split(' ').next().unwrap_or_default()))
        .collect())
}

fn homes() -> Result<BTreeMap<String, Home>, Failure> {
    let mut command = cargo(&["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&said(&mut command)?)
        .map_err(|error| Failure::Other(format!("cargo metadata is not JSON: {error}")))?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let home = |package: Value| {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let path = PathBuf::from(text("manifest_path"));
        let path = path.parent().unwrap_or(Path::new("/")).to_owned();
        (format!("{} {}", text("name"), text("version")), Home { path, licence: text("license") })
    };
    Ok(packages.into_iter().map(home).collect())
}

/// What lies at the top of a package and is called like a licence.
fn licence_texts(dir: &Path) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_licence =
            ["LICENSE", "LICENCE", "COPYING", "NOTICE"].iter().any(|start| name.starts_with(start));
        if is_licence && path.is_file() {
            texts.push(String::from_utf8_lossy(&fs::read(&path).map_err(failed(&path))?).into());
        }
    }
    Ok(texts)
}
