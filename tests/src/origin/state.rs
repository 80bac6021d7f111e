//! What all connections of an origin share: the site, the faults, the counts, under one lock whose
//! every change wakes whoever waits.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::fault::Rule;
use super::request::Head;
use super::site::Site;
use crate::Failure;

/// Requests that are remembered one by one.
const LOG_ENTRIES: usize = 100_000;

/// Exact counts since the start or the last [`super::Origin::reset_counters`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken.
    pub connections: u64,
    /// Heads of requests read.
    pub requests: u64,
    /// Requests by method.
    pub methods: BTreeMap<String, u64>,
    /// Answers begun, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes of files written to connections.
    pub body_bytes: u64,
    /// Bytes of index pages written to connections.
    pub listing_bytes: u64,
    /// The same by path.
    pub paths: BTreeMap<String, PathCounters>,
}

/// Counts of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Heads of requests read.
    pub requests: u64,
    /// Bytes of the file written to connections.
    pub body_bytes: u64,
}

impl Counters {
    /// Requests of this method.
    pub fn method(&self, method: &str) -> u64 {
        self.methods.get(method).copied().unwrap_or(0)
    }

    /// Counts of this path.
    pub fn path(&self, path: &str) -> PathCounters {
        self.paths.get(path).cloned().unwrap_or_default()
    }
}

/// An answer with a body that is being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Of which path.
    pub path: String,
    /// Bytes written so far.
    pub sent: u64,
    /// Bytes still to be written.
    pub left: u64,
}

/// A request as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its method.
    pub method: String,
    /// Its path, without escapes.
    pub path: String,
    /// Its `Range` header.
    pub range: Option<String>,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
    /// The answer's status.
    pub status: u16,
    /// Who asked; nobody of whom it is not known any more.
    pub from: Option<IpAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    pub site: Site,
    pub rules: Vec<Rule>,
    pub counters: Counters,
    pub in_flight: BTreeMap<u64, InFlight>,
    pub log: Vec<Logged>,
    pub stopping: bool,
    pub connections: Vec<Weak<TcpStream>>,
    answers: u64,
}

impl State {
    /// Counts a request.
    pub fn requested(&mut self, head: &Head) {
        self.counters.requests += 1;
        *self.counters.methods.entry(head.method.clone()).or_default() += 1;
        self.counters.paths.entry(head.shown_path()).or_default().requests += 1;
    }

    /// Counts an answer.
    pub fn answered(&mut self, head: &Head, status: u16, from: Option<IpAddr>) {
        *self.counters.statuses.entry(status).or_default() += 1;
        if self.log.len() < LOG_ENTRIES {
            self.log.push(Logged {
                method: head.method.clone(),
                path: head.shown_path(),
                range: head.header("range").map(str::to_owned),
                authorization: head.header("authorization").map(str::to_owned),
                status,
                from,
            });
        }
    }

    /// Begins a body; gives its number.
    pub fn begin(&mut self, path: String, left: u64) -> u64 {
        self.answers += 1;
        self.in_flight.insert(self.answers, InFlight { path, sent: 0, left });
        self.answers
    }

    /// Counts bytes of a body.
    pub fn sent(&mut self, number: u64, bytes: u64) {
        self.counters.body_bytes += bytes;
        let Some(answer) = self.in_flight.get_mut(&number) else { return };
        answer.sent += bytes;
        answer.left = answer.left.saturating_sub(bytes);
        self.counters.paths.entry(answer.path.clone()).or_default().body_bytes += bytes;
    }

    /// Bytes that have been sent of what is asked for.
    pub fn sent_of(&self, head: &Head) -> u64 {
        self.counters.path(&head.shown_path()).body_bytes
    }

    /// Strikes with a rule, unless it has struck often enough by now.
    pub fn strike(&mut self, number: usize, head: &Head) -> bool {
        let sent = self.sent_of(head);
        let rule = &mut self.rules[number];
        let applies = rule.applies(head, sent);
        rule.struck += u64::from(applies);
        applies
    }
}

/// The state, its lock and its bell.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// Looks, without changing anything.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and wakes whoever waits.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `condition` holds.
    pub fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&State) -> bool,
    ) -> Result<(), Failure> {
        let (guard, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| !condition(state))
            .unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        if timeout.timed_out() {
            return Err(Failure::new(format!("waited {limit:?} in vain until {what}")));
        }
        Ok(())
    }

    /// Waits until `deadline` at most, or until something changed.
    pub fn rest(&self, deadline: Instant) {
        let state = self.lock();
        let left = deadline.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner));
    }
}
