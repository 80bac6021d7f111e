//! Mounts of dfs: whether somebody still serves them.

use std::path::Path;

use dfs_fuse::agent::is_written_down;
use dfs_fuse::mount::{MountEntry, mounts};

use super::memory::Waiting;
use super::mending::Step;
use super::{Finding, blocking, shown};
use crate::codes;
use crate::commands::served::{Served, theirs};
use crate::commands::within::take_away;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{counted, quoted_path};

/// Looks at every mount that is this user's affair.
pub(super) async fn look(context: &Context) -> Result<Vec<Finding>, CliError> {
    let (mut findings, mut live) = (Vec::new(), 0);
    for (mount, served) in theirs(context).await? {
        match served {
            Served::Live => live += 1,
            Served::Dead => findings.push(dead(mount)),
            Served::Silent => findings.push(silent(&mount)),
        }
    }
    findings.extend(blocking(context, unknown).await?);
    if live > 0 || findings.is_empty() {
        let text = match live {
            0 => "nothing is mounted".to_owned(),
            live => format!("{}, served", counted(live, "mount", "mounts")),
        };
        findings.insert(0, Finding::ok("mounts", text));
    }
    Ok(findings)
}

/// Mounts of the lane kernel that are written down nowhere: no agent will ever take them up. Blocks.
fn unknown() -> Vec<Finding> {
    let mut table = mounts().unwrap_or_default();
    table.retain(|mount| mount.is_by_kernel() && mount.root == Path::new("/"));
    // Whose data directory cannot be looked into are another user's.
    table.retain(|mount| is_written_down(mount).is_ok_and(|is_known| !is_known));
    table.into_iter().map(left).collect()
}

fn left(mount: MountEntry) -> Finding {
    let text =
        format!("no agent knows of the mount {}: what it shows may be evicted", shown(&mount.dir));
    let next = format!("dfctl doctor --fix      or: dfctl umount {}", quoted_path(&mount.dir));
    let finding = Finding::warn("mounts", &codes::LEFT_MOUNT, text);
    finding.hint(next).mended_by(vec![Step::Unmount(mount)])
}

fn dead(mount: MountEntry) -> Finding {
    let text = format!("dead mount {}: its agent is gone", shown(&mount.dir));
    let next = take_away(&mount.dir);
    Finding::fail("mounts", &codes::STALE_MOUNT, text).hint(next).mended_by(vec![Step::Bury(mount)])
}

/// Whether one of what was found waits for its agent.
pub(super) fn waiting(findings: &[Finding]) -> Waiting {
    let is_silent = |finding: &Finding| {
        finding.code.is_some_and(|code| std::ptr::eq(code, &codes::AGENT_SILENT))
    };
    if findings.iter().any(is_silent) { Waiting::Some } else { Waiting::None }
}

fn silent(mount: &MountEntry) -> Finding {
    let text = format!("the agent of the mount {} does not answer", shown(&mount.dir));
    let next = format!("dfctl umount --lazy {}", quoted_path(&mount.dir));
    Finding::fail("mounts", &codes::AGENT_SILENT, text).hint(next)
}
