//! nydusd: an image in its own format, from a directory or from a registry; nothing fetched ahead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfs_tests::Origin;
use serde_json::{Value, json};

use crate::run::{Failure, failed, run};

/// What it takes; no package of Debian has them.
pub const PROGRAMS: [&str; 2] = ["nydusd", "nydus-image"];

/// What an image's blobs are in at a registry.
const REPOSITORY: &str = "nydus";

/// An image: names in one file, content in others.
pub struct Image {
    /// Names.
    pub bootstrap: PathBuf,
    blobs: PathBuf,
}

/// How its content is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// As it moves over a link.
    Zstd,
}

impl Image {
    /// An image of `root`, in `dir`, made when it is not there yet.
    pub fn of(root: &Path, dir: &Path, packing: Packing) -> Result<Self, Failure> {
        let (bootstrap, blobs) = (dir.join("nydus-names"), dir.join("nydus-blobs"));
        if !bootstrap.exists() {
            fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
            let packing = match packing {
                Packing::None => "none",
                Packing::Zstd => "zstd",
            };
            let mut create = Command::new("nydus-image");
            create.args(["create", "--log-level", "error", "--compressor", packing]);
            create.arg("--bootstrap").arg(&bootstrap).arg("--blob-dir").arg(&blobs).arg(root);
            run(create.stdout(Stdio::null()))?;
        }
        Ok(Self { bootstrap, blobs })
    }

    /// Has an origin serve its content as a registry does.
    pub fn serve(&self, origin: &Origin) -> Result<(), Failure> {
        for entry in fs::read_dir(&self.blobs).map_err(failed(&self.blobs))? {
            let path = entry.map_err(failed(&self.blobs))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let at = format!("/v2/{REPOSITORY}/blobs/sha256:{name}");
            origin.put(&at, dfs_tests::Body::File(path));
        }
        Ok(())
    }

    /// Shows it on `dir`, from where it was made.
    pub fn local(&self, work: &Path, dir: &Path) -> Result<Command, Failure> {
        let backend = json!({"type": "localfs", "config": {"dir": self.blobs}});
        nydusd(&self.bootstrap, &backend, work, dir)
    }
}

/// Shows an image on `dir` whose names are in `bootstrap`, and whose content a registry has.
pub fn remote(
    bootstrap: &Path,
    origin: &Origin,
    work: &Path,
    dir: &Path,
) -> Result<Command, Failure> {
    let host = origin.address().to_string();
    let config = json!({"scheme": "http", "host": host, "repo": REPOSITORY});
    nydusd(bootstrap, &json!({"type": "registry", "config": config}), work, dir)
}

/// It runs until its mount is gone.
fn nydusd(bootstrap: &Path, backend: &Value, work: &Path, dir: &Path) -> Result<Command, Failure> {
    let (config, cache) = (work.join("nydusd.json"), work.join("cache"));
    fs::create_dir_all(&cache).map_err(failed(&cache))?;
    let cache = json!({"type": "blobcache", "config": {"work_dir": cache}});
    let text = json!({
        "device": {"backend": backend, "cache": cache},
        "mode": "direct",
        "digest_validate": false,
        "enable_xattr": true,
        "fs_prefetch": {"enable": false},
    });
    fs::write(&config, text.to_string()).map_err(failed(&config))?;
    let mut command = Command::new("nydusd");
    // It would take more files than a container may have.
    command.args(["--log-level", "error", "--rlimit-nofile", "0", "--config"]).arg(&config);
    command.arg("--bootstrap").arg(bootstrap).arg("--mountpoint").arg(dir);
    Ok(command)
}
