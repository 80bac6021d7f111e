//! Tells one scheduler what lies here: names when it is this host's turn, and all of what somebody wants.
//!
//! Of what is not under way a scheduler is told the name alone, and only by whose turn has come: however much ten
//! thousand hosts hold, one that has just started hears it at its own pace.

use std::sync::Arc;
use std::vec::IntoIter;

use dfs_model::{HostId, TaskId, TaskKey};
use dfs_proto::convert;
use dfs_proto::scheduler::host_message::Kind as Up;
use dfs_proto::scheduler::{HostMessage, NameHeld, Names, Recall};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Holdings, Members, messages, route_of};

/// Questions that wait for their answer; of more the scheduler hears nothing, and asks others.
const QUESTIONS: usize = 256;

/// What a scheduler wants to know.
pub(super) enum Question {
    /// Names of what is held here.
    Names(NameHeld),
    /// What is held of one task.
    Recall(Recall),
}

/// Where questions go.
#[derive(Clone)]
pub(super) struct Teller(mpsc::Sender<Question>);

/// What answers are made of.
pub(super) struct Sources {
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
    /// Answers until `stop`.
    pub(super) fn start(sources: Sources, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let (questions, mut asked) = mpsc::channel(QUESTIONS);
        let mut telling = Telling { sources, tracker: tracker.clone(), names: None };
        tracker.spawn(stop.run_until_cancelled_owned(async move {
            while let Some(question) = asked.recv().await {
                let Some(answer) = telling.answer(question).await else { return };
                if telling.sources.messages.send(answer).await.is_err() {
                    return;
                }
            }
        }));
        Self(questions)
    }

    /// Has a question answered.
    pub(super) fn ask(&self, question: Question) {
        if self.0.try_send(question).is_err() {
            tracing::debug!("a scheduler asks more than can be answered");
        }
    }
}

/// Names that are still to be told, as long as those who are told are these.
struct Rest {
    members: Arc<Members>,
    names: IntoIter<TaskId>,
}

struct Telling {
    sources: Sources,
    tracker: TaskTracker,
    names: Option<Rest>,
}

impl Telling {
    /// `None` when the process is stopping.
    async fn answer(&mut self, question: Question) -> Option<HostMessage> {
        match question {
            Question::Names(turn) => self.names(turn.most as usize).await,
            Question::Recall(recall) => self.recall(recall).await,
        }
    }

    async fn names(&mut self, most: usize) -> Option<HostMessage> {
        let members = Arc::clone(&self.sources.members.borrow());
        let rest = self.names.take().filter(|rest| Arc::ptr_eq(&rest.members, &members));
        let mut rest = match rest {
            Some(rest) => rest,
            None => self.list(members).await?,
        };
        let named = rest.names.by_ref().take(most.max(1));
        let task_ids: Vec<u8> = named.flat_map(|id| *id.as_bytes()).collect();
        let more = rest.names.len() > 0;
        self.names = more.then_some(rest);
        Some(messages::up(Up::Names(Names { task_ids: task_ids.into(), more })))
    }

    async fn list(&self, members: Arc<Members>) -> Option<Rest> {
        let (holdings, scheduler) = (Arc::clone(&self.sources.holdings), self.sources.scheduler);
        let listing = self.tracker.spawn_blocking(move || {
            let names = holdings.names(&|key| is_responsible(&members, scheduler, key));
            Rest { members, names: names.into_iter() }
        });
        listing.await.ok()
    }

    async fn recall(&self, recall: Recall) -> Option<HostMessage> {
        let Ok(id) = convert::task_id(&recall.task_id) else {
            return Some(messages::leave_of(&recall.task_id));
        };
        let holdings = Arc::clone(&self.sources.holdings);
        let held = self.tracker.spawn_blocking(move || holdings.held(&[id]).pop());
        let held = held.await.ok()?;
        Some(
            held.map_or_else(
                || messages::leave_of(id.as_bytes()),
                |held| messages::up(Up::Held(held)),
            ),
        )
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
        let sources = Sources {
            scheduler: HostId::from_bytes([1; 16]),
            holdings: Arc::new(Many(5)),
            members,
            messages,
        };
        let stop = CancellationToken::new();
        let teller = Teller::start(sources, &TaskTracker::new(), stop.clone());
        let mut named = async || {
            teller.ask(Question::Names(NameHeld { most: 2 }));
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
    async fn who_is_asked_for_what_is_not_held_leaves() {
        let (messages, mut told) = mpsc::channel(1);
        let (_list, members) = watch::channel(Arc::new(Members::default()));
        let scheduler = HostId::from_bytes([1; 16]);
        let sources = Sources { scheduler, holdings: Arc::new(Many(5)), members, messages };
        let stop = CancellationToken::new();
        let teller = Teller::start(sources, &TaskTracker::new(), stop.clone());
        for (number, is_held) in [(4, true), (5, false)] {
            let task_id = vec![number; 32].into();
            teller.ask(Question::Recall(Recall { task_id }));
            let said = told.recv().await.unwrap().kind.unwrap();
            assert_eq!(matches!(said, Up::Held(_)), is_held, "{said:?}");
            assert_eq!(matches!(said, Up::Leave(_)), !is_held, "{said:?}");
        }
        stop.cancel();
    }
}
