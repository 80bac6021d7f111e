//! Mounts of dfs: whether somebody still serves them.

use std::time::Duration;

use dfs_fuse::mount::{MountEntry, is_dead, mounts};
use rustix::process::geteuid;

use super::{Finding, Fix, shown};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{counted, quoted_path};

/// A mount whose agent lives answers well within.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Looks at every mount that is this user's affair.
pub(super) async fn look(context: &Context) -> Result<Vec<Finding>, CliError> {
    let own = geteuid();
    let theirs = |mount: &MountEntry| {
        mount.is_ours() && (own.is_root() || mount.user.is_none_or(|user| user == own.as_raw()))
    };
    let ours: Vec<_> = mounts().unwrap_or_default().into_iter().filter(theirs).collect();
    let (mut findings, mut live) = (Vec::new(), 0);
    for mount in ours {
        let dir = mount.dir.clone();
        let asking = tokio::task::spawn_blocking(move || is_dead(&dir));
        match answer(context, tokio::time::timeout(ANSWER_WITHIN, asking)).await? {
            Ok(Ok(true)) => findings.push(dead(mount)),
            Ok(_) => live += 1,
            Err(_) => findings.push(silent(&mount)),
        }
    }
    if live > 0 || findings.is_empty() {
        let text = match live {
            0 => "nothing is mounted".to_owned(),
            live => format!("{}, served", counted(live, "mount", "mounts")),
        };
        findings.insert(0, Finding::ok("mounts", text));
    }
    Ok(findings)
}

fn dead(mount: MountEntry) -> Finding {
    let text = format!("dead mount {}: its agent is gone", shown(&mount.dir));
    let next = format!("dfctl doctor --fix      or: dfctl umount {}", quoted_path(&mount.dir));
    Finding::fail("mounts", &codes::STALE_MOUNT, text).hint(next).mended_by(Fix::Unmount(mount))
}

fn silent(mount: &MountEntry) -> Finding {
    let text = format!("the agent of the mount {} does not answer", shown(&mount.dir));
    let next = format!("dfctl umount --lazy {}", quoted_path(&mount.dir));
    Finding::fail("mounts", &codes::AGENT_SILENT, text).hint(next)
}
