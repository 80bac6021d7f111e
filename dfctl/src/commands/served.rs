//! Mounts of dfs in the kernel's table, and whether anybody still serves them.

use std::time::Duration;

pub use dfs_fuse::mount::Served;
use dfs_fuse::mount::{MountEntry, mounts, served};
use rustix::process::geteuid;

use super::inside::answer;
use crate::context::Context;
use crate::error::CliError;

/// A mount whose agent lives answers well within. They are asked at once: all have the same time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Every mount that is this user's affair, in the order they were made.
pub async fn theirs(context: &Context) -> Result<Vec<(MountEntry, Served)>, CliError> {
    let own = geteuid();
    let theirs = |mount: &MountEntry| {
        mount.is_ours() && (own.is_root() || mount.user.is_none_or(|user| user == own.as_raw()))
    };
    let asked: Vec<_> = mounts()
        .unwrap_or_default()
        .into_iter()
        .filter(theirs)
        .map(|mount| {
            let dir = mount.dir.clone();
            (mount, tokio::task::spawn_blocking(move || served(&dir, ANSWER_WITHIN)))
        })
        .collect();
    let mut found = Vec::new();
    for (mount, asking) in asked {
        // It ends early only with the process.
        found.push((mount, answer(context, asking).await?.unwrap_or(Served::Live)));
    }
    Ok(found)
}
