//! Mounts of dfs in the kernel's table, and whether anybody still serves them.

use std::time::Duration;

use dfs_fuse::mount::{MountEntry, is_dead, mounts};
use rustix::process::geteuid;

use super::inside::answer;
use crate::context::Context;
use crate::error::CliError;

/// A mount whose agent lives answers well within. They are asked at once: all have the same time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How a mount is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By an agent that answers.
    Live,
    /// Its agent is gone.
    Dead,
    /// Its agent does not answer.
    Silent,
}

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
            (mount, tokio::task::spawn_blocking(move || is_dead(&dir)))
        })
        .collect();
    let until = tokio::time::Instant::now() + ANSWER_WITHIN;
    let mut found = Vec::new();
    for (mount, asking) in asked {
        let served = match answer(context, tokio::time::timeout_at(until, asking)).await? {
            Ok(Ok(true)) => Served::Dead,
            Ok(_) => Served::Live,
            Err(_) => Served::Silent,
        };
        found.push((mount, served));
    }
    Ok(found)
}
