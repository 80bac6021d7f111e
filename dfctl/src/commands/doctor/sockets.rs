//! Sockets on which nobody listens any more.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dfs_fuse::holder;
use rustix::process::geteuid;

use super::Finding;
use super::mending::{Step, is_left};
use crate::codes;
use crate::output::printable;
use crate::settings::Settings;

/// Looks where agents and their holders usually listen, and in the data directory. Blocks.
pub(super) fn look(settings: &Settings, data_dir: Option<&Path>) -> Vec<Finding> {
    let own = geteuid();
    let user = (!own.is_root()).then_some(own.as_raw());
    let mut sockets = settings.usual_sockets(user);
    sockets.push(settings.own_socket());
    sockets.extend(data_dir.into_iter().flat_map(in_dir));
    sockets.sort();
    sockets.dedup();
    // An agent that has a holder is on its way back.
    if data_dir.is_some_and(holder::is_there) {
        return Vec::new();
    }
    let is_ours = |socket: &Path| {
        let found = socket.symlink_metadata();
        found.is_ok_and(|found| {
            found.file_type().is_socket() && (own.is_root() || found.uid() == own.as_raw())
        })
    };
    let left = sockets.into_iter().filter(|socket| is_ours(socket) && is_left(socket));
    left.map(finding).collect()
}

fn in_dir(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.map(|entry| entry.path()).collect()
}

fn finding(socket: PathBuf) -> Finding {
    let shown = printable(&socket.display().to_string());
    let text = format!("nobody listens on {shown} any more: its process was killed");
    let finding = Finding::warn("sockets", &codes::LEFT_SOCKET, text);
    finding.hint("dfctl doctor --fix").mended_by(vec![Step::Socket(socket)])
}
