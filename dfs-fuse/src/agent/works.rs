//! Calls under way, and what they change.
//!
//! Whoever called may leave at any moment: then its call is dropped where it waits. What only looks ends there. What
//! changes something runs in here, to its end: nothing stays half done, and nothing is lost on its way back. The process
//! gives it a moment before its mounts end.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::MountTableError;

/// How long what is under way may take where the process ends; what takes longer ends with its runtime.
const ENDED: Duration = Duration::from_secs(3);

/// See the module. Copies are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Works {
    /// How many calls and works are under way, for those who end an idle agent.
    busy: watch::Sender<usize>,
    tracker: TaskTracker,
}

/// A call or a work under way.
pub struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy -= 1);
    }
}

impl Works {
    /// Something is under way until this is dropped.
    pub fn enter(&self) -> Busy {
        self.busy.send_modify(|busy| *busy += 1);
        Busy(self.busy.clone())
    }

    /// How many are under way, to be followed.
    pub fn busy(&self) -> watch::Receiver<usize> {
        self.busy.subscribe()
    }

    /// Runs what changes something to its end, also where nobody waits for that any more.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, MountTableError> {
        let busy = self.enter();
        let work = self.tracker.spawn(async move {
            let done = work.await;
            drop(busy);
            done
        });
        work.await.map_err(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => MountTableError::Stopping,
        })
    }

    /// Waits a moment for the end of what is under way.
    pub async fn end(&self) {
        self.tracker.close();
        if timeout(ENDED, self.tracker.wait()).await.is_err() {
            let left = self.tracker.len();
            tracing::warn!(left, "what was asked of this agent ends with it, half done");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::poll;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_changes_something_is_done_also_where_who_asked_has_left() {
        let (works, told, done) =
            (Works::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (hears, tells) = (Arc::clone(&told), Arc::clone(&done));
        let mut call = Box::pin(works.to_the_end(async move {
            hears.notified().await;
            tells.notify_one();
        }));
        assert!(poll!(&mut call).is_pending());
        drop(call);
        assert_eq!(*works.busy().borrow(), 1, "whoever ends an idle agent waits for it");
        told.notify_one();
        done.notified().await;
        works.end().await;
        assert_eq!(*works.busy().borrow(), 0);
    }

    #[tokio::test]
    async fn who_stays_is_told_how_it_went() {
        let works = Works::default();
        assert_eq!(works.to_the_end(async { 7 }).await.unwrap(), 7);
        assert_eq!(*works.busy().borrow(), 0);
    }
}
