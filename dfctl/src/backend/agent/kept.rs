//! What of something is in the cache, and what is kept there, off the wire.

use dfs_peer::targets;
use dfs_proto::node;

use super::{cached_task, entry_kind, missing, view_message};
use crate::backend::Failure;
use crate::backend::kept::{
    CachedEntry, CachedTree, ImageHere, Named, PinState, PinnedTree, ReadsInfo,
};

/// Most entries that an answer may have, most bytes of a name, most tasks behind a tree, and most pins.
const MAX_ENTRIES: usize = 10_000;
const MAX_NAME: usize = 255;
const MAX_TASKS: usize = 257;
const MAX_PINS: usize = 1_024;
/// Most images.
const MAX_IMAGES: usize = 4_096;

pub(super) fn named(named: &Named) -> node::Named {
    match named {
        Named::Within { dir, path } => {
            node::Named { dir: dir.clone(), path: path.clone().into(), ..node::Named::default() }
        }
        Named::Target { target, view, path } => node::Named {
            target: Some(targets::to_wire(target)),
            view: view_message(*view),
            path: path.clone().into(),
            ..node::Named::default()
        },
    }
}

pub(super) fn tree(message: node::CachedReply) -> Result<CachedTree, Failure> {
    if message.entries.len() > MAX_ENTRIES || message.tasks.len() > MAX_TASKS {
        return Err(missing("cached.entries"));
    }
    Ok(CachedTree {
        url: dfs_model::redact(&message.url),
        whole: entry(message.whole.ok_or_else(|| missing("cached.whole"))?)?,
        entries: message.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        entries_in_all: message.entries_in_all,
        tasks: message.tasks.into_iter().map(cached_task).collect::<Result<_, _>>()?,
    })
}

fn entry(message: node::CachedEntry) -> Result<CachedEntry, Failure> {
    let kind = entry_kind(message.kind()).ok_or_else(|| missing("cached.kind"))?;
    if message.name.len() > MAX_NAME {
        return Err(missing("cached.name"));
    }
    Ok(CachedEntry {
        name: message.name.to_vec(),
        kind,
        files: message.files,
        bytes: message.bytes,
        cached: message.cached_bytes.min(message.bytes),
        pinned: message.pinned,
        last_read_ms: message.last_read_unix_ms,
    })
}

pub(super) fn images(messages: Vec<node::ImageHere>) -> Result<Vec<ImageHere>, Failure> {
    if messages.len() > MAX_IMAGES {
        return Err(missing("images"));
    }
    let image = |message: node::ImageHere| {
        Ok(ImageHere {
            url: dfs_model::redact(&message.url),
            digest: message.digest,
            manifest: message.manifest,
            platform: Some(message.platform).filter(|platform| !platform.is_empty()),
            whole: entry(message.whole.ok_or_else(|| missing("image.whole"))?)?,
            mounts: message.mounts,
        })
    };
    messages.into_iter().map(image).collect()
}

pub(super) fn pins(messages: Vec<node::PinnedTree>) -> Result<Vec<PinnedTree>, Failure> {
    if messages.len() > MAX_PINS {
        return Err(missing("pins"));
    }
    messages.into_iter().map(pin).collect()
}

pub(super) fn pin(message: node::PinnedTree) -> Result<PinnedTree, Failure> {
    let state = match message.state() {
        node::PinState::Fetching => PinState::Fetching,
        node::PinState::Waiting => PinState::Waiting,
        node::PinState::Whole => PinState::Whole,
        node::PinState::Failed => PinState::Failed,
        node::PinState::Unspecified => return Err(missing("pin.state")),
    };
    Ok(PinnedTree {
        id: message.id.to_vec(),
        url: dfs_model::redact(&message.url),
        files: message.files,
        bytes: message.bytes,
        cached: message.cached_bytes.min(message.bytes),
        state,
        why: message.why,
        since_ms: message.since_unix_ms,
    })
}

pub(super) fn reads(message: node::ReadsInfo) -> ReadsInfo {
    ReadsInfo {
        reads: message.reads,
        bytes: message.bytes,
        waits: message.waits,
        stalls: message.stalls,
        errors: message.errors,
        waiting: message.waiting,
        wait_p50_us: message.wait_p50_us,
        wait_p99_us: message.wait_p99_us,
        unseen: message.unseen,
    }
}
