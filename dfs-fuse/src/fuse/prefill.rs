//! Gives the page cache whole groups after small random reads.
//!
//! A 4 KiB read costs a request; the 60 KiB around it are verified and at hand, so storing them spares
//! the next fifteen. A store waits for pages that other reads hold, so it has a thread of its own which
//! nobody waits for: those reads are answered by the session's threads and the runtime.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dfs_model::GROUP_BYTES;
use fuser::{INodeNo, Notifier};

use super::answer::with_buffer;
use crate::core::{Core, NodeId};

/// Offers that may wait; more are dropped.
const QUEUE: usize = 256;

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(super) struct Prefill {
    queue: SyncSender<Offer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offer {
    node: NodeId,
    group: u64,
}

impl Prefill {
    pub(super) fn start(core: Arc<Core>, notifier: Notifier) -> io::Result<Self> {
        let (queue, offers) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("dfs-prefill".to_owned())
            .spawn(move || store_all(&core, &notifier, &offers))?;
        Ok(Self { queue })
    }

    /// Stores the group around `offset`, if there is time.
    pub(super) fn offer(&self, node: NodeId, offset: u64) {
        // A full queue means the store cannot keep up: then it is no help, and nothing is lost.
        let _ = self.queue.try_send(Offer { node, group: offset / GROUP_BYTES });
    }
}

fn store_all(core: &Core, notifier: &Notifier, offers: &Receiver<Offer>) {
    let mut last = None;
    while let Ok(offer) = offers.recv() {
        if last.replace(offer) == Some(offer) {
            continue;
        }
        let offset = offer.group * GROUP_BYTES;
        with_buffer(GROUP_BYTES as usize, |group| {
            let Ok(Some(filled)) = core.peek(offer.node, offset, group) else { return };
            // Refused when the kernel has forgotten the inode or the mount is gone: both need nothing.
            let _ = notifier.store(INodeNo(offer.node.raw()), offset, &group[..filled]);
        });
    }
}
