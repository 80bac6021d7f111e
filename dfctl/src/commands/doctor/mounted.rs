//! Mounts of dfs: whether somebody still serves them.

use dfs_fuse::mount::MountEntry;

use super::{Finding, Fix, shown};
use crate::codes;
use crate::commands::served::{Served, theirs};
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
