//! Hosts name what they hold when their turn has come: a scheduler that has just started is not told everything by
//! everybody at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Hosts that name what they hold at a time.
pub const TURNS: usize = 8;

/// Names in one turn: 128 KiB.
pub const MOST_NAMES: u32 = 4096;

/// How long a turn is: who does not answer by then has had it.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The host is asked.
    Ask,
    /// It has not answered, and is asked no more before it says again that there is something.
    Late,
}

/// One host's place among those who have something to name.
#[derive(Debug)]
pub struct Naming {
    turns: Arc<Semaphore>,
    state: State,
}

#[derive(Debug)]
enum State {
    Nothing,
    Waits,
    Asked { _turn: OwnedSemaphorePermit, until: Instant },
}

impl Naming {
    /// A host that has nothing to name yet.
    pub fn new(turns: Arc<Semaphore>) -> Self {
        Self { turns, state: State::Nothing }
    }

    /// It has said whether there is something to name, or named it.
    pub fn said(&mut self, more: bool) {
        self.state = match more {
            true => State::Waits,
            false => State::Nothing,
        };
    }

    /// Waits until something is to be done. Nothing is lost when this is dropped.
    pub async fn step(&mut self) -> Step {
        match &self.state {
            State::Nothing => std::future::pending().await,
            State::Waits => {
                let turn = Arc::clone(&self.turns).acquire_owned().await;
                // Closed only with the process.
                let Ok(turn) = turn else { return std::future::pending().await };
                let until = Instant::now() + TURN_WITHIN;
                self.state = State::Asked { _turn: turn, until };
                Step::Ask
            }
            State::Asked { until, .. } => {
                tokio::time::sleep_until(*until).await;
                self.state = State::Nothing;
                Step::Late
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_one_after_the_other_and_end() {
        let turns = Arc::new(Semaphore::new(1));
        let mut first = Naming::new(Arc::clone(&turns));
        let mut second = Naming::new(turns);
        assert_eq!(first.step().now_or_never(), None, "it has nothing");
        first.said(true);
        second.said(true);
        assert_eq!(first.step().await, Step::Ask);
        assert_eq!(second.step().now_or_never(), None);
        first.said(true);
        assert_eq!(second.step().await, Step::Ask, "one turn each");
        assert_eq!(first.step().now_or_never(), None);
        assert_eq!(second.step().await, Step::Late);
        assert_eq!(first.step().await, Step::Ask);
        first.said(false);
        assert_eq!(first.step().now_or_never(), None);
        assert_eq!(second.step().now_or_never(), None, "who was late says so again first");
    }
}
