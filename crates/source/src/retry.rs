//! The one way to try again: jittered exponential backoff, bounded by attempts and by time.
//!
//! [`Retry`] decides without clock or randomness of its own; [`Retrier`] adds the clock of the
//! runtime (which tests pause) and a source of chance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Counters, SourceError};

/// How often and how long to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// Longest pause before the second attempt; doubles with every further one.
    pub base: Duration,
    /// Longest pause of all, unless the origin asks for more.
    pub cap: Duration,
    /// No attempt begins later than this after the first, or after the last progress.
    pub total: Duration,
    /// The same of a first question, as long as the origin has answered nothing at all: somebody waits to hear that it
    /// is not there.
    pub unanswered: Duration,
    /// Longest that one attempt counts for: it is silent no longer without an end. A process that was stopped
    /// meanwhile has not tried.
    pub attempt: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(250),
            cap: Duration::from_secs(10),
            total: Duration::from_secs(60),
            unanswered: Duration::from_secs(15),
            attempt: Duration::from_secs(30),
        }
    }
}

/// Bytes that must have come, over however many attempts, for their count to begin anew: a bad line gets on, and
/// an origin that sends one byte per connection does not.
const PROGRESS_BYTES: u64 = dfs_model::GROUP_BYTES;

/// Where one operation stands in its policy.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    policy: RetryPolicy,
    /// Time of the attempts that failed, and between them.
    spent: Duration,
    /// When the attempt began.
    since: Instant,
    failures: u32,
    progress: u64,
    /// Whether it is a first question, and nothing was answered yet.
    unanswered: bool,
}

impl Retry {
    pub fn new(policy: RetryPolicy, now: Instant) -> Self {
        Self {
            policy,
            spent: Duration::ZERO,
            since: now,
            failures: 0,
            progress: 0,
            unanswered: false,
        }
    }

    /// The same for a first question.
    pub fn unanswered(self) -> Self {
        Self { unanswered: true, ..self }
    }

    /// Bytes came.
    pub fn progress(&mut self, bytes: usize, now: Instant) {
        self.progress += bytes as u64;
        if self.progress >= PROGRESS_BYTES {
            *self = Self::new(self.policy, now);
        }
    }

    /// An attempt failed: how long to wait before the next, or `None` to give up. `chance` lies in
    /// 0..1.
    pub fn failed(
        &mut self,
        retry_after: Option<Duration>,
        now: Instant,
        chance: f64,
    ) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.policy.attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(self.failures - 1);
        let ceiling = self.policy.base.saturating_mul(doubled).min(self.policy.cap);
        let backoff = ceiling.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        // What the origin asked for is the least; the jitter on top keeps a herd from coming back
        // as one.
        let pause = retry_after.map_or(backoff, |asked| asked.saturating_add(backoff));
        let tried = now.saturating_duration_since(self.since).min(self.policy.attempt);
        self.spent = self.spent.saturating_add(tried).saturating_add(pause);
        let next = now.checked_add(pause);
        let total = if self.unanswered { self.policy.unanswered } else { self.policy.total };
        self.since = next.filter(|_| self.spent <= total)?;
        Some(pause)
    }
}

/// Gives each operation its [`Retry`], and waits for it.
#[derive(Clone)]
pub(crate) struct Retrier {
    pub policy: RetryPolicy,
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    pub counters: Arc<Counters>,
}

impl Retrier {
    pub fn new(policy: RetryPolicy, counters: Arc<Counters>) -> Self {
        Self { policy, chance: Arc::new(rand::random::<f64>), counters }
    }

    pub fn begin(&self) -> Retry {
        Retry::new(self.policy, Instant::now())
    }

    /// Waits until `error` may be forgotten, or returns what to tell the caller.
    pub async fn pause(&self, retry: &mut Retry, error: SourceError) -> Result<(), SourceError> {
        if !error.is_transient() {
            return Err(error);
        }
        retry.unanswered &= error.is_silence();
        let retry_after = error.retry_after();
        let Some(pause) = retry.failed(retry_after, Instant::now(), (self.chance)()) else {
            return Err(given_up(error, retry.failures));
        };
        tracing::debug!(%error, ?pause, "trying again");
        self.counters.retry();
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Runs `operation` until it succeeds, fails for good or the policy ends.
    pub async fn run<T, F>(&self, operation: impl FnMut() -> F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        self.run_as(self.begin(), operation).await
    }

    /// The same with a question that comes before anything else: what there is.
    pub async fn ask<T, F>(&self, question: impl FnMut() -> F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        self.run_as(self.begin().unanswered(), question).await
    }

    async fn run_as<T, F>(
        &self,
        mut retry: Retry,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => self.pause(&mut retry, error).await?,
            }
        }
    }
}

fn given_up(error: SourceError, attempts: u32) -> SourceError {
    // There are servers whose tags do not follow what they name.
    if let SourceError::Contradictory { attempt, detail } = error {
        return SourceError::Changed { attempt, detail };
    }
    let Some(attempt) = error.attempt().cloned() else { return error };
    let retry_after = error.retry_after();
    SourceError::Unavailable { attempt, attempts, retry_after, cause: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use dfs_model::CanonicalUrl;
    use proptest::prelude::*;

    use super::*;
    use crate::{Action, Attempt};

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            base: SECOND,
            cap: 3 * SECOND,
            total: 60 * SECOND,
            unanswered: 15 * SECOND,
            attempt: 30 * SECOND,
        }
    }

    fn status(status: u16, retry_after: Option<Duration>) -> SourceError {
        let url = CanonicalUrl::parse("http://h/").unwrap();
        SourceError::Status { attempt: Attempt::new(Action::Stat, &url), status, retry_after }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_what_there_is_hears_soon_that_nobody_answers_and_later_that_one_is_busy() {
        let retrier =
            Retrier { policy: policy(), chance: Arc::new(|| 1.0), counters: Arc::default() };
        let silent = || async {
            tokio::time::sleep(10 * SECOND).await;
            let url = CanonicalUrl::parse("http://h/").unwrap();
            let attempt = Attempt::new(Action::Stat, &url);
            Err::<(), _>(SourceError::Unreachable { attempt, cause: Arc::new(std::fmt::Error) })
        };
        let begun = Instant::now();
        retrier.ask(silent).await.unwrap_err();
        assert_eq!(begun.elapsed(), 21 * SECOND);
        let begun = Instant::now();
        retrier.run(silent).await.unwrap_err();
        assert_eq!(begun.elapsed(), (4 * 10 + 1 + 2 + 3) * SECOND, "what is under way waits on");
        let busy = || async {
            tokio::time::sleep(10 * SECOND).await;
            Err::<(), _>(status(503, None))
        };
        let begun = Instant::now();
        retrier.ask(busy).await.unwrap_err();
        assert_eq!(begun.elapsed(), (4 * 10 + 1 + 2 + 3) * SECOND);
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_end() {
        let now = Instant::now();
        let mut retry = Retry::new(policy(), now);
        let pauses: Vec<_> = (0..4).map(|_| retry.failed(None, now, 1.0)).collect();
        assert_eq!(pauses, [Some(SECOND), Some(2 * SECOND), Some(3 * SECOND), None]);
        let mut retry = Retry::new(policy(), now);
        assert_eq!(retry.failed(None, now, 0.0), Some(SECOND / 2));
    }

    #[test]
    fn an_origin_is_never_asked_earlier_than_it_wants_nor_after_the_time_is_up() {
        let now = Instant::now();
        let mut retry = Retry::new(policy(), now);
        let pause = retry.failed(Some(20 * SECOND), now, 0.0).unwrap();
        assert!(pause >= 20 * SECOND);
        assert_eq!(retry.failed(Some(60 * SECOND), now, 0.0), None);
        let mut retry = Retry::new(policy(), now);
        let pause = retry.failed(None, now + 30 * SECOND, 0.0).unwrap();
        assert_eq!(retry.failed(None, now + pause + 60 * SECOND, 0.0), None);
    }

    #[test]
    fn who_was_stopped_tries_again_however_long_that_was() {
        let now = Instant::now();
        let mut retry = Retry::new(policy(), now);
        assert!(retry.failed(None, now + 3600 * SECOND, 1.0).is_some());
    }

    #[test]
    fn progress_begins_the_count_anew_and_a_trickle_does_not() {
        let now = Instant::now();
        let mut retry = Retry::new(policy(), now);
        for _ in 0..10 {
            assert!(retry.failed(None, now, 0.0).is_some());
            retry.progress(PROGRESS_BYTES as usize, now);
        }
        for _ in 0..3 {
            assert!(retry.failed(None, now, 0.0).is_some());
            retry.progress(1, now);
        }
        assert!(retry.failed(None, now, 0.0).is_none());
    }

    #[test]
    fn what_comes_in_small_parts_is_progress_too() {
        let now = Instant::now();
        let mut retry = Retry::new(policy(), now);
        for _ in 0..20 {
            assert!(retry.failed(None, now, 0.0).is_some());
            retry.progress(PROGRESS_BYTES as usize / 3 + 1, now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_errors_is_outlived_and_each_retry_counted() {
        let counters = Arc::new(Counters::default());
        let retrier =
            Retrier { chance: Arc::new(|| 0.5), ..Retrier::new(policy(), counters.clone()) };
        let tries = Cell::new(0);
        let result = retrier
            .run(|| {
                tries.set(tries.get() + 1);
                let answer = if tries.get() < 3 { Err(status(503, None)) } else { Ok(tries.get()) };
                async move { answer }
            })
            .await;
        assert_eq!(result.unwrap(), 3);
        assert_eq!(counters.snapshot().retries, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_tells_attempts_cause_and_when_to_come_back() {
        let retrier = Retrier::new(policy(), Arc::default());
        let error =
            retrier.run(|| async { Err::<(), _>(status(429, Some(SECOND))) }).await.unwrap_err();
        let SourceError::Unavailable { attempts: 4, retry_after, cause, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(retry_after, Some(SECOND));
        assert!(matches!(*cause, SourceError::Status { status: 429, .. }));
        let error = retrier.run(|| async { Err::<(), _>(status(418, None)) }).await.unwrap_err();
        assert!(matches!(error, SourceError::Status { status: 418, .. }));
    }

    proptest! {
        #[test]
        fn every_operation_ends(chances in proptest::collection::vec(0.0..1.0, 10), after in 0u64..100) {
            let begin = Instant::now();
            let mut now = begin;
            let mut retry = Retry::new(policy(), now);
            let mut attempts = 1;
            for chance in chances {
                let Some(pause) = retry.failed(Some(Duration::from_secs(after)), now, chance) else { break };
                now += pause;
                attempts += 1;
            }
            prop_assert!(attempts <= policy().attempts);
            prop_assert!(now - begin <= policy().total);
        }
    }
}
