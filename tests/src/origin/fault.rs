//! Faults: what an origin does wrong, to whom, and how often it has done so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::Head;
use super::state::Shared;
use crate::Failure;
use crate::wait::PATIENCE;

/// Something an origin does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Answers this status, with `Retry-After` where seconds are given.
    Status(u16, Option<u32>),
    /// Answers 401 unless `Authorization` is this.
    RequireAuthorization(String),
    /// Resets the connection once this many bytes of a longer body were written.
    ResetAfter(u64),
    /// Goes silent after this many bytes of a longer body, until lifted.
    StallAfter(u64),
    /// Ends a longer body, and the connection, after this many bytes.
    CutAfter(u64),
    /// Announces bodies so many bytes longer or shorter than they are, and ends the connection behind them.
    LengthOff(i64),
    /// Sends whoever asks to where they are.
    Around,
    /// Holds every answer back, until lifted.
    Gate,
    /// Holds every answer back for so long: the way to it is long.
    Late(Duration),
    /// Answers ranges with everything.
    IgnoreRange,
    /// Tells no length and knows no ranges (chunked).
    NoLength,
    /// Marks its ETags as weak.
    WeakEtag,
    /// Sends neither ETag nor Last-Modified.
    NoValidator,
    /// Sends bodies at this many bytes a second, all together.
    Pace(u64),
}

/// A fault to inject: what is wrong, and which requests it is for.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(super) wrong: Wrong,
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    pub(super) times: Option<u64>,
    pub(super) after: u64,
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self { wrong, path: None, method: None, times: None, after: 0 }
    }
}

impl Fault {
    /// Answers this status.
    pub fn status(code: u16) -> Self {
        Wrong::Status(code, None).into()
    }

    /// Answers this status and asks to come back after these seconds.
    pub fn retry_after(code: u16, seconds: u32) -> Self {
        Wrong::Status(code, Some(seconds)).into()
    }

    /// Answers 401 unless `Authorization` is `value`.
    pub fn require_authorization(value: &str) -> Self {
        Wrong::RequireAuthorization(value.to_owned()).into()
    }

    /// Resets the connection after this many bytes of a longer body.
    pub fn reset_after(bytes: u64) -> Self {
        Wrong::ResetAfter(bytes).into()
    }

    /// Goes silent after this many bytes of a longer body, until lifted.
    pub fn stall_after(bytes: u64) -> Self {
        Wrong::StallAfter(bytes).into()
    }

    /// Ends a longer body, and the connection, after this many bytes.
    pub fn cut_after(bytes: u64) -> Self {
        Wrong::CutAfter(bytes).into()
    }

    /// Announces bodies so many bytes longer or shorter than they are.
    pub fn length_off(bytes: i64) -> Self {
        Wrong::LengthOff(bytes).into()
    }

    /// Redirects whoever asks to where they are.
    pub fn around() -> Self {
        Wrong::Around.into()
    }

    /// Holds every answer back, until lifted.
    pub fn gate() -> Self {
        Wrong::Gate.into()
    }

    /// Holds every answer back for so long.
    pub fn late(time: Duration) -> Self {
        Wrong::Late(time).into()
    }

    /// Answers ranges with everything.
    pub fn ignore_range() -> Self {
        Wrong::IgnoreRange.into()
    }

    /// Tells no length and knows no ranges.
    pub fn no_length() -> Self {
        Wrong::NoLength.into()
    }

    /// Marks its ETags as weak.
    pub fn weak_etag() -> Self {
        Wrong::WeakEtag.into()
    }

    /// Sends neither ETag nor Last-Modified.
    pub fn no_validator() -> Self {
        Wrong::NoValidator.into()
    }

    /// Sends bodies at this many bytes a second, all answers together.
    pub fn pace(bytes_per_second: u64) -> Self {
        Wrong::Pace(bytes_per_second).into()
    }

    /// Only for this path, as it stands in the URL without escapes.
    pub fn on(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Only for this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only this often; for ever when not said.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Only once so many bytes of the path have been sent.
    pub fn after(mut self, bytes: u64) -> Self {
        self.after = bytes;
        self
    }

    fn is_for(&self, head: &Head) -> bool {
        let path = self.path.as_ref().is_none_or(|path| path.as_bytes() == head.path);
        path && self.method.as_ref().is_none_or(|method| *method == head.method)
    }
}

/// A fault at work; it stays when this is dropped.
#[derive(Debug, Clone)]
pub struct Injected {
    pub(super) shared: Arc<Shared>,
    pub(super) number: usize,
}

impl Injected {
    /// How often it struck.
    pub fn struck(&self) -> u64 {
        self.shared.lock().rules[self.number].struck
    }

    /// Waits until it struck so often.
    pub fn wait_struck(&self, times: u64) -> Result<(), Failure> {
        let what = format!("the fault has struck {times} times");
        self.shared.wait(&what, PATIENCE, |state| state.rules[self.number].struck >= times)
    }

    /// Ends it: what it held goes on, nothing more is struck.
    pub fn lift(&self) {
        self.shared.change(|state| state.rules[self.number].lifted = true);
    }
}

/// A fault and its history.
#[derive(Debug)]
pub struct Rule {
    pub fault: Fault,
    pub struck: u64,
    pub lifted: bool,
    /// When a paced byte may be sent next.
    next: Instant,
}

impl Rule {
    pub fn new(fault: Fault) -> Self {
        Self { fault, struck: 0, lifted: false, next: Instant::now() }
    }

    /// Whether it may strike this request, for a path of which so many bytes have been sent.
    pub fn applies(&self, head: &Head, sent: u64) -> bool {
        let left = self.fault.times.is_none_or(|times| self.struck < times);
        left && !self.lifted && sent >= self.fault.after && self.fault.is_for(head)
    }

    /// Books `bytes` at the rate, and says when they may be sent.
    pub fn book(&mut self, bytes: u64, rate: u64) -> Instant {
        let at = self.next.max(Instant::now());
        self.next = at + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        at
    }
}
