//! Whether a scheduler that takes its time over answers lives: asked once for all questions that are out to it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use dfs_model::HostId;
use dfs_proto::scheduler;
use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tonic::transport::Channel;

/// How long a scheduler may take over an answer until it is asked whether it lives, and to say so. More than a moment: who
/// takes one that is only busy for dead asks the origin itself, and so do all others.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(2);
const LIVES_WITHIN: Duration = Duration::from_secs(5);

/// Ends when a scheduler says nothing any more; it is asked as long as anybody waits.
pub(super) type Silence = Shared<BoxFuture<'static, ()>>;

/// A scheduler, where it is.
type Place = (HostId, SocketAddr);

/// The schedulers that are listened to.
#[derive(Default)]
pub(super) struct Silences(Mutex<HashMap<Place, WeakShared<BoxFuture<'static, ()>>>>);

impl Silences {
    /// The one of a scheduler that somebody waits for already, or that `begin` makes.
    pub(super) fn of(
        &self,
        scheduler: Place,
        begin: impl FnOnce() -> BoxFuture<'static, ()>,
    ) -> Silence {
        let mut silences = self.0.lock();
        let is_waited_for = |silence: &Silence| silence.peek().is_none();
        let known = silences.get(&scheduler).and_then(WeakShared::upgrade);
        if let Some(known) = known.filter(is_waited_for) {
            return known;
        }
        silences.retain(|_, silence| silence.upgrade().is_some());
        let silence = begin().shared();
        silences.extend(silence.downgrade().map(|silence| (scheduler, silence)));
        silence
    }
}

/// Ends when a scheduler says nothing any more. An answer may take its time, as its seed asks the origin; a question
/// about nothing is refused at once by whoever lives.
pub(super) async fn silence(mut client: SchedulerClient<Channel>) {
    loop {
        tokio::time::sleep(ASKED_AGAIN_AFTER).await;
        let nothing = client.resolve(scheduler::ResolveRequest::default());
        if tokio::time::timeout(LIVES_WITHIN, nothing).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_a_scheduler_ask_once_whether_it_lives() {
        let (silences, begun) = (Silences::default(), Cell::new(0));
        let (ends, _) = watch::channel(false);
        let of = |number: u8| {
            let at = SocketAddr::from(([127, 0, 0, 1], 4000 + u16::from(number)));
            silences.of((HostId::from_bytes([number; 16]), at), || {
                begun.set(begun.get() + 1);
                let mut ends = ends.subscribe();
                async move { ends.wait_for(|ends| *ends).await.map(drop).unwrap_or_default() }
                    .boxed()
            })
        };
        let (first, second, other) = (of(1), of(1), of(2));
        assert_eq!(begun.get(), 2);
        drop(first);
        assert!(second.clone().ptr_eq(&of(1)), "it goes on for those who are left");
        ends.send_replace(true);
        tokio::join!(second.clone(), other);
        ends.send_replace(false);
        let again = of(1);
        assert_eq!(begun.get(), 3, "one that fell silent may be back");
        drop((again, second));
        assert!(of(1).peek().is_none() && begun.get() == 4, "nobody waited any more");
        assert_eq!(silences.0.lock().len(), 1);
    }
}
