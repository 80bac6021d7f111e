//! Making a pin whole, and seeing to it that it stays so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_model::{ByteRange, ByteSize, Priority};
use dfs_peer::engine::Task;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::{error_chain, targets};
use dfs_source::Asking;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::room::Needs;
use super::{Pin, State, pin_tasks};
use crate::agent::content::SpaceContent;
use crate::agent::filling::{self, Ended, Filling, News};
use crate::agent::mounts::MountTableError;
use crate::agent::{Agent, CallError};

/// How soon, and how late, what could not be had is tried again.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(300);

/// How often it is looked whether what was whole still is.
const LOOK: Duration = Duration::from_secs(60);

/// How long it may take to open what a pin is about.
const OPENED: Duration = Duration::from_secs(60);

/// What is evicted at least where there is no room for a pin.
const ROOM: ByteSize = ByteSize(32 << 20);

/// How an attempt at making a pin whole ended.
enum Attempt {
    Whole,
    Later(String),
    Lost(String),
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
            let mut pause = SOONEST;
            loop {
                // An agent that ends when it is idle goes on until this is whole.
                let busy = agent.enter();
                let attempt = match agent.pins().turns.acquire().await {
                    Ok(_turn) => Box::pin(self.attempt(agent)).await,
                    Err(_) => return,
                };
                let wait = match attempt {
                    Attempt::Whole => {
                        self.whole();
                        pause = SOONEST;
                        drop(busy);
                        LOOK
                    }
                    Attempt::Later(why) => {
                        self.say(State::Waiting(why));
                        let wait = pause;
                        pause = (pause * 2).min(LATEST);
                        wait
                    }
                    Attempt::Lost(why) => {
                        self.say(State::Failed(why));
                        drop(busy);
                        LATEST
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.again.notified() => pause = SOONEST,
                }
            }
        };
        self.lifted.run_until_cancelled(keeping).await;
    }

    fn whole(&self) {
        let mut progress = self.progress.lock();
        progress.state = State::Whole;
        // Its files need not be open.
        progress.opened = None;
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
        let content = Arc::new(SpaceContent::of(opened, None).map_err(MountTableError::from)?);
        if let Some(index) = &opened.index {
            let length = index.task.length().unwrap_or(0);
            index.task.ensure(ByteRange::new(0, length), Priority::Background).await?;
        }
        let fill = Fill { pin: self, agent, content, why: Mutex::default() };
        let filled = filling::fill(&fill, needs.places.clone()).await;
        let why = fill.why.into_inner();
        Ok(match filled.lost {
            Some(why) => Attempt::Lost(why),
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
