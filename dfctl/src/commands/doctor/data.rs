//! Where dfs keeps its data: whether it may, how much room there is, and whether blocks can be shared.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use dfs_fuse::agent::inside;
use dfs_model::ByteSize;
use dfs_service::data_dir::{DataDir, DataDirError, private_dir};
use dfs_service::process::Fault;
use dfs_service::tls::Credentials;

use super::machine::list_command;
use super::mending::Step;
use super::{Finding, blocking};
use crate::codes;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{counted, quoted_path, when};

/// Less room than this is little.
const LITTLE: u64 = 1 << 30;
/// With less than this nothing is kept: the smallest cache there may be.
const NONE: u64 = 64 << 20;

/// There is no place for data.
fn nowhere(error: &CliError) -> Finding {
    let text = format!("{}: {}", error.what, error.because.join(": "));
    let finding = Finding::fail("data", &codes::DATA_DIR, text);
    finding.hint(error.hint.clone().unwrap_or_default())
}

/// All checks of this file. `of_the_agent` is where a running agent of this user keeps its data.
pub(super) async fn look(
    context: &Context,
    of_the_agent: Option<PathBuf>,
) -> Result<Vec<Finding>, CliError> {
    let settings = &context.settings;
    let (dir, solo) =
        match (of_the_agent.map_or_else(|| settings.agent_dir(), Ok), settings.solo_dir()) {
            (Ok(dir), Ok(solo)) => (dir, solo),
            (Err(error), _) | (_, Err(error)) => return Ok(vec![nowhere(&error)]),
        };
    blocking(context, move || {
        let mut findings = directory(&dir);
        findings.push(leftovers(&solo));
        findings.extend(certificate(&dir));
        findings
    })
    .await
}

/// The certificate of a machine that has joined a cluster.
fn certificate(dir: &Path) -> Option<Finding> {
    let again =
        "dfctl cluster join-token, where the manager runs; then here: dfs-fuse --join JOIN-TOKEN";
    let failed =
        |text: String| Finding::fail("certificate", &codes::JOIN_REFUSED, text).hint(again);
    Some(match Credentials::load(dir) {
        Ok(kept) => {
            let left = kept?.remaining();
            match left.is_zero() {
                true => failed("the certificate of this machine has expired".to_owned()),
                false => {
                    let text =
                        format!("the certificate of this machine lasts {}", when::rough(left));
                    Finding::ok("certificate", text + ", and is renewed before")
                }
            }
        }
        Err(error) => failed(error.to_string()),
    })
}

fn directory(dir: &Path) -> Vec<Finding> {
    let there = dir.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(dir);
    // One that is not there yet is made as it must be.
    if there == dir
        && let Err(error) = private_dir(dir)
    {
        let finding = match error.fault() {
            Fault::NotPermitted => {
                Finding::fail("data directory", &codes::DATA_DENIED, error.to_string())
            }
            _ => Finding::fail("data directory", &codes::DATA_DIR, error.to_string()),
        };
        let finding = finding.hint(list_command(dir));
        return vec![match &error {
            // What an agent worked in is nobody's home.
            DataDirError::Open { .. } if DataDir::was_taken(dir) => {
                let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
                finding.mended_by(vec![Step::Mode(real, 0o700)])
            }
            _ => finding,
        }];
    }
    let file = match tempfile::tempfile_in(there) {
        Ok(file) => file,
        Err(error) => return vec![unwritable(dir, there, &error)],
    };
    let text = match there == dir {
        true => format!("data directory {}", dir.display()),
        false => format!("data directory {}: it will be made", dir.display()),
    };
    let mut findings = vec![Finding::ok("data directory", text)];
    findings.extend(room(there));
    findings.push(sharing(there, &file));
    findings
}

fn unwritable(dir: &Path, there: &Path, error: &io::Error) -> Finding {
    let text = format!("nothing can be written in {}: {error}", there.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Finding::fail("data directory", &codes::DATA_DENIED, text)
            .hint(list_command(there));
    }
    let next = format!("findmnt -T {}", quoted_path(dir));
    Finding::fail("data directory", &codes::DATA_DIR, text).hint(next)
}

fn room(dir: &Path) -> Option<Finding> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let text = format!("{} free for {}", ByteSize(free), dir.display());
    let finding = match free {
        ..NONE => Finding::fail("room", &codes::LITTLE_ROOM, text),
        NONE..LITTLE => Finding::warn("room", &codes::LITTLE_ROOM, text),
        _ => return Some(Finding::ok("room", text)),
    };
    Some(finding.hint(format!("df -h {}      or: dfctl cache gc", quoted_path(dir))))
}

/// Tried, not guessed by the kind of file system: many can, some only as they were made.
fn sharing(dir: &Path, file: &File) -> Finding {
    use std::os::unix::fs::FileExt;
    let shared = file.write_all_at(&[1; 4096], 0).and_then(|()| {
        let other = tempfile::tempfile_in(dir)?;
        Ok(rustix::fs::ioctl_ficlone(&other, file)?)
    });
    match shared {
        Ok(()) => {
            Finding::ok("reflink", "the data directory's file system shares blocks (reflink)")
        }
        Err(_) => Finding::warn(
            "reflink",
            &codes::NO_REFLINK,
            "the data directory's file system has no reflinks: `get` copies out of the cache",
        ),
    }
}

fn leftovers(solo: &Path) -> Finding {
    let left = inside::abandoned(solo).len() as u64;
    if left == 0 {
        return Finding::ok("leftovers", "no killed command left anything behind");
    }
    let number = counted(left, "killed command", "killed commands");
    let text = format!("{number} left files behind in {}", solo.display());
    Finding::warn("leftovers", &codes::LEFTOVERS, text)
        .hint("dfctl doctor --fix")
        .mended_by(vec![Step::Sweep(solo.to_owned())])
}
