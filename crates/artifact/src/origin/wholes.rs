//! Members of an origin that knows no ranges, kept for a while after they were read whole, so that the other
//! parts of them do not cost the origin another copy.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dfs_source::SourceError;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Bytes kept for one space.
const KEPT: u64 = 32 << 20;

/// Bodies of members by URL, the oldest dropped first; each is read once however many ask.
#[derive(Default)]
pub(super) struct Wholes {
    needed: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bodies: HashMap<String, Arc<OnceCell<Bytes>>>,
    order: VecDeque<(String, u64)>,
    bytes: u64,
}

impl Wholes {
    /// The largest member that is kept, in bytes.
    pub(super) const LARGEST: u64 = 8 << 20;

    /// Whether the origin showed that it knows no ranges.
    pub(super) fn are_needed(&self) -> bool {
        self.needed.load(Ordering::Relaxed)
    }

    /// The origin showed that it knows no ranges.
    pub(super) fn need(&self) {
        self.needed.store(true, Ordering::Relaxed);
    }

    /// The body of the member at `url`, `length` bytes long: kept, or read now.
    pub(super) async fn get(
        &self,
        url: &str,
        length: u64,
        read: impl Future<Output = Result<Bytes, SourceError>>,
    ) -> Result<Bytes, SourceError> {
        let cell = self.kept.lock().cell(url, length);
        cell.get_or_try_init(|| read).await.cloned()
    }
}

impl Kept {
    fn cell(&mut self, url: &str, length: u64) -> Arc<OnceCell<Bytes>> {
        if let Some(cell) = self.bodies.get(url) {
            return Arc::clone(cell);
        }
        self.bytes += length;
        self.order.push_back((url.to_owned(), length));
        while self.bytes > KEPT
            && let Some((oldest, length)) = self.order.pop_front()
        {
            self.bodies.remove(&oldest);
            self.bytes -= length;
        }
        let cell = Arc::new(OnceCell::new());
        self.bodies.insert(url.to_owned(), Arc::clone(&cell));
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_is_read_once_while_it_is_kept_and_memory_is_bounded() {
        let wholes = Wholes::default();
        let length = Wholes::LARGEST;
        let body = |_| async { Ok(Bytes::from_static(b"x")) };
        for round in 0..2 {
            wholes
                .get("a", length, async {
                    assert_eq!(round, 0);
                    body(()).await
                })
                .await
                .unwrap();
        }
        for other in ["b", "c", "d", "e"] {
            wholes.get(other, length, body(())).await.unwrap();
        }
        assert!(wholes.kept.lock().bytes <= KEPT);
        assert!(!wholes.kept.lock().bodies.contains_key("a"));
    }
}
