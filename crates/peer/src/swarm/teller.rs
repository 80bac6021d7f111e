//! Tells one scheduler what lies here: names when it is this host's turn, and all of what somebody wants.
//!
//! Of what is not under way a scheduler is told the name alone, and only by whose turn has come: however much ten
//! thousand hosts hold, one that has just started hears it at its own pace.

use std::sync::Arc;
use std::vec::IntoIter;

use dfs_model::{HostId, TaskId, TaskKey};
use dfs_proto::scheduler::host_message::Kind as Up;
use dfs_proto::scheduler::{HostMessage, Names};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Holdings, Members, messages, route_of};

/// Turns that wait for their names: a scheduler gives one at a time.
const TURNS: usize = 2;

/// Tasks that wait to be told of; of more the scheduler hears nothing, and orders a seed.
const ASKED: usize = 4096;

/// Where questions go.
pub(super) struct Teller {
    turns: mpsc::Sender<usize>,
    asked: mpsc::Sender<TaskId>,
}

/// Who is told, and of what.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) scheduler: HostId,
    pub(super) holdings: Arc<dyn Holdings>,
    pub(super) members: watch::Receiver<Arc<Members>>,
    /// The way to the scheduler.
    pub(super) messages: mpsc::Sender<HostMessage>,
}

/// Whether a scheduler is the one to be told of a key.
pub(super) fn is_responsible(members: &Members, scheduler: HostId, key: &TaskKey) -> bool {
    members.scheduler_for(&route_of(key)).is_some_and(|(id, _)| id == scheduler)
}

impl Teller {
    /// Answers until `stop`. Who is asked for a task does not wait for a long list of names.
    pub(super) fn start(told: Told, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let (turns, their_turns) = mpsc::channel(TURNS);
        let (asked, for_these) = mpsc::channel(ASKED);
        let naming = names(told.clone(), tracker.clone(), their_turns);
        tracker.spawn(stop.clone().run_until_cancelled_owned(naming));
        tracker.spawn(stop.run_until_cancelled_owned(holdings(told, tracker.clone(), for_these)));
        Self { turns, asked }
    }

    /// It is this host's turn to name so many.
    pub(super) fn is_asked_for_names(&self, most: usize) {
        if self.turns.try_send(most).is_err() {
            tracing::debug!("a scheduler gives turns faster than they are used");
        }
    }

    /// Somebody wants a task.
    pub(super) fn is_asked_for(&self, task: TaskId) {
        if self.asked.try_send(task).is_err() {
            tracing::debug!("a scheduler asks for more than can be told");
        }
    }
}

/// Names that are still to be told, as long as those who are told are these.
struct Rest {
    members: Arc<Members>,
    names: IntoIter<TaskId>,
}

/// Names so many in each turn, until nobody gives any or the process stops.
async fn names(told: Told, tracker: TaskTracker, mut turns: mpsc::Receiver<usize>) {
    let mut rest: Option<Rest> = None;
    while let Some(most) = turns.recv().await {
        let members = Arc::clone(&told.members.borrow());
        let mut now = match rest.take().filter(|rest| Arc::ptr_eq(&rest.members, &members)) {
            Some(rest) => rest,
            None => match list(&told, &tracker, members).await {
                Some(all) => all,
                None => return,
            },
        };
        let named = now.names.by_ref().take(most.max(1));
        let task_ids: Vec<u8> = named.flat_map(|id| *id.as_bytes()).collect();
        let more = now.names.len() > 0;
        rest = more.then_some(now);
        let said = messages::up(Up::Names(Names { task_ids: task_ids.into(), more }));
        if told.messages.send(said).await.is_err() {
            return;
        }
    }
}

/// All that the scheduler is to be told of; none when the process is stopping.
async fn list(told: &Told, tracker: &TaskTracker, members: Arc<Members>) -> Option<Rest> {
    let (holdings, scheduler) = (Arc::clone(&told.holdings), told.scheduler);
    let listing = tracker.spawn_blocking(move || {
        let names = holdings.names(&|key| is_responsible(&members, scheduler, key));
        Rest { members, names: names.into_iter() }
    });
    listing.await.ok()
}

/// Says of each task what is held of it, or that it is nothing.
async fn holdings(told: Told, tracker: TaskTracker, mut asked: mpsc::Receiver<TaskId>) {
    while let Some(task) = asked.recv().await {
        let holdings = Arc::clone(&told.holdings);
        let held = tracker.spawn_blocking(move || holdings.held(&[task]).pop());
        let Ok(held) = held.await else { return };
        let said = held.map_or_else(|| messages::lacks(&task), |held| messages::up(Up::Held(held)));
        if told.messages.send(said).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::scheduler;

    use super::*;

    /// Holds so many tasks.
    struct Many(u8);

    impl Holdings for Many {
        fn held(&self, tasks: &[TaskId]) -> Vec<scheduler::Held> {
            let held = tasks.iter().filter(|id| id.as_bytes()[0] < self.0);
            held.map(|_| scheduler::Held::default()).collect()
        }

        fn names(&self, _: &dyn Fn(&TaskKey) -> bool) -> Vec<TaskId> {
            (0..self.0).map(|n| TaskId::from_bytes([n; 32])).collect()
        }
    }

    #[tokio::test]
    async fn it_names_so_many_in_a_turn_and_begins_anew_when_others_are_to_be_told() {
        let (messages, mut told) = mpsc::channel(1);
        let (list, members) = watch::channel(Arc::new(Members::default()));
        let told_of = Told {
            scheduler: HostId::from_bytes([1; 16]),
            holdings: Arc::new(Many(5)),
            members,
            messages,
        };
        let stop = CancellationToken::new();
        let teller = Teller::start(told_of, &TaskTracker::new(), stop.clone());
        let mut named = async || {
            teller.is_asked_for_names(2);
            match told.recv().await.unwrap().kind.unwrap() {
                Up::Names(names) => (names.task_ids.len() / 32, names.task_ids[0], names.more),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(named().await, (2, 0, true));
        assert_eq!(named().await, (2, 2, true));
        list.send_replace(Arc::new(Members::default()));
        assert_eq!(named().await, (2, 0, true));
        assert_eq!(named().await, (2, 2, true));
        assert_eq!(named().await, (1, 4, false));
        assert_eq!(named().await, (2, 0, true));
        stop.cancel();
    }

    #[tokio::test]
    async fn who_is_asked_for_what_is_not_held_says_so_and_does_not_leave() {
        let (messages, mut told) = mpsc::channel(1);
        let (_list, members) = watch::channel(Arc::new(Members::default()));
        let scheduler = HostId::from_bytes([1; 16]);
        let told_of = Told { scheduler, holdings: Arc::new(Many(5)), members, messages };
        let stop = CancellationToken::new();
        let teller = Teller::start(told_of, &TaskTracker::new(), stop.clone());
        for (number, is_held) in [(4, true), (5, false)] {
            teller.is_asked_for(TaskId::from_bytes([number; 32]));
            let said = told.recv().await.unwrap().kind.unwrap();
            assert_eq!(matches!(said, Up::Held(_)), is_held, "{said:?}");
            assert_eq!(matches!(said, Up::Lacks(_)), !is_held, "{said:?}");
        }
        stop.cancel();
    }
}
