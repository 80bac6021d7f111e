//! Making a pin whole, and seeing to it that it stays so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_model::{ByteRange, ByteSize, Priority};
use dfs_peer::engine::Task;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::Verify;
use dfs_peer::{error_chain, targets};
use dfs_service::Backoff;
use dfs_source::Asking;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{Pin, State, pin_tasks};
use crate::agent::content::SpaceContent;
use crate::agent::filling::{self, Ended, Filling, News};
use crate::agent::mounts::MountTableError;
use crate::agent::needs::Needs;
use crate::agent::{Agent, CallError};

/// How soon, and how late, what could not be had is tried again.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(300) };

/// How often it is looked whether what was whole still is.
const LOOK: Duration = Duration::from_secs(60);

/// How long it may take to open what a pin is about.
const OPENED: Duration = Duration::from_secs(60);

/// What is evicted at least where there is no room for a pin.
const ROOM: ByteSize = ByteSize(32 << 20);

/// How an attempt at making a pin whole ended.
#[derive(Debug)]
enum Attempt {
    Whole,
    /// There is no room for the rest of it.
    Full,
    Later(String),
    Lost(String),
}

impl Attempt {
    /// Whether it is worth staying for what is missing.
    fn may_come(&self) -> bool {
        matches!(self, Self::Full | Self::Later(_))
    }
}

/// How long a pin is left alone after an attempt: longer and longer while that fails. Knows no clock.
#[derive(Debug, Default)]
struct Pauses {
    /// In a row.
    failures: u32,
}

impl Pauses {
    fn after(&mut self, attempt: &Attempt) -> Duration {
        self.failures = match attempt {
            Attempt::Later(_) => self.failures.saturating_add(1),
            // Whoever had room got on.
            Attempt::Whole | Attempt::Full => 0,
            Attempt::Lost(_) => self.failures,
        };
        match attempt {
            Attempt::Whole => LOOK,
            Attempt::Full => filling::ROOM,
            Attempt::Later(_) => AGAIN.after(self.failures),
            Attempt::Lost(_) => AGAIN.max,
        }
    }

    /// Somebody wanted it tried at once.
    fn begin_anew(&mut self) {
        self.failures = 0;
    }
}

/// What is fetched for a pin.
struct Fill<'a> {
    pin: &'a Pin,
    agent: &'a Agent,
    content: Arc<SpaceContent>,
    /// Why the last of it could not be had.
    why: Mutex<Option<String>>,
}

#[async_trait]
impl Filling for Fill<'_> {
    fn content(&self) -> Option<Arc<SpaceContent>> {
        (!self.pin.lifted.is_cancelled()).then(|| Arc::clone(&self.content))
    }

    fn priority(&self) -> Priority {
        Priority::Background
    }

    async fn makes_room(&self) {
        // Where nothing can go it waits for room.
        let _ = self.agent.host().engine.evict(Some(ROOM)).await;
    }

    fn says(&self, news: News) {
        self.pin.say(match news {
            News::Fetching => State::Fetching,
            News::Waiting(why) => {
                *self.why.lock() = Some(why.clone());
                State::Waiting(why)
            }
        });
    }
}

impl Pin {
    /// Makes it whole, and again when it is not any more. Ends when it is lifted.
    pub(super) async fn keep(self: Arc<Self>, agent: &Agent) {
        let keeping = async {
            let mut pauses = Pauses::default();
            loop {
                // An agent that ends when it is idle goes on until this is whole.
                let busy = agent.enter();
                // Nobody waits for room with a turn that others could have.
                let attempt = match agent.pins().turns.acquire().await {
                    Ok(_turn) => Box::pin(self.attempt(agent)).await,
                    Err(_) => return,
                };
                let pause = pauses.after(&attempt);
                let _busy = attempt.may_come().then_some(busy);
                self.take_note(attempt);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.again.notified() => pauses.begin_anew(),
                }
            }
        };
        self.lifted.run_until_cancelled(keeping).await;
    }

    fn take_note(&self, attempt: Attempt) {
        self.say(match attempt {
            Attempt::Whole => {
                // Its files need not be open.
                self.progress.lock().opened = None;
                State::Whole
            }
            Attempt::Full => State::Waiting(filling::NO_ROOM.to_owned()),
            Attempt::Later(why) => State::Waiting(why),
            Attempt::Lost(why) => State::Failed(why),
        });
    }

    async fn attempt(&self, agent: &Agent) -> Attempt {
        let needs = self.progress.lock().needs.clone();
        // One that was let go of half is kept as before, until that works.
        if let Some(needs) = &needs
            && self.keeps_tasks(agent).await.is_ok()
            && is_here(agent, needs).await
        {
            return Attempt::Whole;
        }
        let opened = match timeout(OPENED, self.open(agent)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(why)) => return Attempt::Later(why),
            Err(_) => return Attempt::Later("it could not be opened in time".to_owned()),
        };
        match self.fill(agent, &opened).await {
            Ok(attempt) => attempt,
            Err(error) => Attempt::Later(error_chain(&error)),
        }
    }

    /// With the credentials of who asked for it; after a restart with the agent's own.
    async fn open(&self, agent: &Agent) -> Result<OpenArtifact, String> {
        let opened = self.progress.lock().opened.clone();
        if let Some(opened) = opened.filter(|opened| opened.tasks.iter().all(Task::is_open)) {
            return Ok(opened);
        }
        let shown = self.shown();
        let target = targets::from_wire(shown.target.clone()).map_err(|error| error.to_string())?;
        let target = agent.complete(&target, Asking::Own).await;
        let target = target.map_err(|error| error_chain(&*error))?;
        let opened = agent.open_shown(&target, shown).await;
        let opened = opened.map_err(|error| error_chain(&error))?;
        self.progress.lock().opened = Some(opened.clone());
        Ok(opened)
    }

    async fn fill(&self, agent: &Agent, opened: &OpenArtifact) -> Result<Attempt, CallError> {
        let needs = self.needs(agent, opened).await?;
        let content = Arc::new(
            SpaceContent::of(opened, None, Verify::Arrivals).map_err(MountTableError::from)?,
        );
        if let Some(index) = &opened.index {
            let length = index.task.length().unwrap_or(0);
            index.task.ensure(ByteRange::new(0, length), Priority::Background).await?;
        }
        let fill = Fill { pin: self, agent, content, why: Mutex::default() };
        let filled = filling::fill(&fill, needs.places.clone()).await;
        let why = fill.why.into_inner();
        Ok(match filled.lost {
            Some(why) => Attempt::Lost(why),
            None if filled.ended == Ended::Full => Attempt::Full,
            None if filled.ended == Ended::Through && filled.later.is_empty() => {
                match is_here(agent, &needs).await {
                    true => Attempt::Whole,
                    false => Attempt::Later("some of it is gone again".to_owned()),
                }
            }
            None => Attempt::Later(why.unwrap_or_else(|| "it could not be had".to_owned())),
        })
    }

    /// What it needs; its tasks are pinned then, also where the process died before they were.
    async fn needs(&self, agent: &Agent, opened: &OpenArtifact) -> Result<Arc<Needs>, CallError> {
        let known = self.progress.lock().needs.clone();
        let path = self.shown().path.to_vec();
        let opened = opened.clone();
        let looking = tokio::task::spawn_blocking(move || match known {
            Some(needs) => Ok(needs),
            None => Needs::of(&opened, &path).map(Arc::new),
        });
        let needs = looking.await.map_err(|_| MountTableError::Stopping)??;
        self.progress.lock().needs = Some(Arc::clone(&needs));
        self.keeps_tasks(agent).await?;
        Ok(needs)
    }

    /// Has its tasks pinned, those that are not any more included.
    async fn keeps_tasks(&self, agent: &Agent) -> Result<(), CallError> {
        // Under the lock under which it would be lifted.
        let _alone = agent.pins().changing.lock().await;
        match self.lifted.is_cancelled() {
            true => Ok(()),
            false => pin_tasks(agent.host().engine.store(), self),
        }
    }
}

async fn is_here(agent: &Agent, needs: &Arc<Needs>) -> bool {
    let (engine, needs) = (agent.host().engine.clone(), Arc::clone(needs));
    let looking = tokio::task::spawn_blocking(move || needs.here(&engine) == needs.bytes());
    looking.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Attempt {
        Attempt::Later("the origin is away".to_owned())
    }

    #[test]
    fn what_cannot_be_had_is_tried_less_and_less_often_until_it_can_or_somebody_asks() {
        let mut pauses = Pauses::default();
        let mut seconds = |attempt: Attempt| pauses.after(&attempt).as_secs();
        let doubled: Vec<_> = (0..10).map(|_| seconds(later())).collect();
        assert_eq!(doubled, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(
            seconds(Attempt::Lost(String::new())),
            300,
            "it is for ever, as far as is known"
        );
        assert_eq!(seconds(later()), 300);
        // What got on begins anew, also where there was no room for all of it.
        assert_eq!(seconds(Attempt::Full), filling::ROOM.as_secs());
        assert_eq!(seconds(later()), 2);
        assert_eq!((seconds(Attempt::Whole), seconds(later())), (LOOK.as_secs(), 2));
        assert_eq!(seconds(later()), 4);
        pauses.begin_anew();
        assert_eq!(pauses.after(&later()).as_secs(), 2);
        pauses.failures = u32::MAX;
        assert_eq!(pauses.after(&later()), AGAIN.max);
    }
}
