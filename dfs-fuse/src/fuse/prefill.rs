//! Gives the page cache whole groups after small random reads, and small files before they are read.
//!
//! A 4 KiB read costs a request; the 60 KiB around it are verified and at hand, so storing them spares
//! the next fifteen. Of who reads small files one after the other the next ones are stored ([`Files`]).
//! A store waits for pages that other reads hold, so it has threads of its own which nobody waits for: those reads are
//! answered by the session's threads and the runtime. The one that waits has nothing open but the device ([`Telling`]).

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dfs_model::{ByteRange, GROUP_BYTES};
use parking_lot::Mutex;

use super::SMALL_READ;
use super::answer::with_buffer;
use super::files::Files;
use super::notices::Telling;
use crate::core::{Core, NodeId};
use crate::tree::{Attr, Kind};

/// Offers that may wait; more are dropped.
const QUEUE: usize = 256;

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(super) struct Prefill {
    files: Mutex<Files>,
    queue: SyncSender<Offer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Offer {
    Group {
        node: NodeId,
        group: u64,
    },
    /// Whole, where they are small files.
    Files(Vec<NodeId>),
}

impl Prefill {
    pub(super) fn start(core: Arc<Core>, telling: Telling) -> io::Result<Self> {
        let (queue, offers) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("dfs-prefill".to_owned())
            .spawn(move || store_all(&core, &telling, &offers))?;
        Ok(Self { files: Mutex::default(), queue })
    }

    /// Stores the group around `offset`, if there is time.
    pub(super) fn offer(&self, node: NodeId, offset: u64) {
        // A full queue means the store cannot keep up: then it is no help, and nothing is lost.
        let _ = self.queue.try_send(Offer::Group { node, group: offset / GROUP_BYTES });
    }

    /// Stores the files that follow, if this small one was one of several read in order.
    pub(super) fn was_read(&self, file: NodeId) {
        let next = self.files.lock().observe(file);
        if !next.is_empty() {
            let _ = self.queue.try_send(Offer::Files(next));
        }
    }
}

fn store_all(core: &Core, telling: &Telling, offers: &Receiver<Offer>) {
    let mut last = None;
    while let Ok(offer) = offers.recv() {
        match &offer {
            _ if last.as_ref() == Some(&offer) => {}
            Offer::Group { node, group } => {
                store(core, telling, *node, ByteRange::at(group * GROUP_BYTES, GROUP_BYTES));
            }
            Offer::Files(files) => {
                // What is none, or was taken for a file, the kernel does not know.
                for file in files {
                    let Ok(Attr { kind: Kind::File, size, .. }) = core.attr(*file) else {
                        continue;
                    };
                    if (1..=SMALL_READ as u64).contains(&size) {
                        store(core, telling, *file, ByteRange::new(0, size));
                    }
                }
            }
        }
        last = Some(offer);
    }
}

/// Stores bytes of a file, at most a group, if they are here.
fn store(core: &Core, telling: &Telling, node: NodeId, range: ByteRange) {
    with_buffer(range.len() as usize, |bytes| {
        let Ok(Some(filled)) = core.peek(node, range.start, bytes) else { return };
        // Refused when the kernel has forgotten the inode or the mount is gone: both need nothing.
        let _ = telling.store(node, range.start, &bytes[..filled]);
    });
}
