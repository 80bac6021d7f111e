//! Everything that can go wrong between here and an origin.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{ByteRange, CanonicalUrl, UrlError};

/// A cause further down; shared, so that one failure can be told to all who waited for it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// What was asked of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What is it?
    Stat,
    /// Its bytes: a range, or all.
    Read(Option<ByteRange>),
    /// What lies below it?
    List,
    /// Take these bytes.
    Write,
    /// Forget it.
    Delete,
    /// Make another of it without its bytes passing here.
    Copy,
}

/// What was attempted on what; printed as in `read bytes 0..10 of https://host/x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was asked.
    pub action: Action,
    /// Where, as it may be shown.
    pub url: Arc<str>,
}

impl Attempt {
    /// An attempt at `url`, which is kept as it is shown.
    pub fn new(action: Action, url: &CanonicalUrl) -> Self {
        Self { action, url: url.to_string().into() }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Stat => write!(f, "stat {}", self.url),
            Action::Read(None) => write!(f, "read {}", self.url),
            Action::Read(Some(range)) => write!(f, "read bytes {range} of {}", self.url),
            Action::List => write!(f, "list {}", self.url),
            Action::Write => write!(f, "write {}", self.url),
            Action::Delete => write!(f, "delete {}", self.url),
            Action::Copy => write!(f, "copy to {}", self.url),
        }
    }
}

/// Why an origin did not give what was asked of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// Nothing there.
    #[error("cannot {attempt}: not found")]
    NotFound {
        /// What was attempted.
        attempt: Attempt,
    },
    /// The origin refuses; an HTTP status, or `None` from a file system.
    #[error("cannot {attempt}: {}", refused(*status, reason.as_deref()))]
    NotPermitted {
        /// What was attempted.
        attempt: Attempt,
        /// The HTTP status: 401, 403, 407.
        status: Option<u16>,
        /// The origin's own words, where it has some.
        reason: Option<Arc<str>>,
    },
    /// The origin has another version than the pinned one.
    #[error("origin changed: cannot {attempt}: {detail}")]
    Changed {
        /// What was attempted.
        attempt: Attempt,
        /// What differs.
        detail: String,
    },
    /// An answer with a status that is neither success nor told by another variant.
    #[error("cannot {attempt}: the origin answered status {status}")]
    Status {
        /// What was attempted.
        attempt: Attempt,
        /// The HTTP status.
        status: u16,
        /// When the origin wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No connection, or it broke before an answer.
    #[error("cannot {attempt}: no answer from the origin")]
    Unreachable {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// Given up after several attempts; the cause is the last one's.
    #[error("cannot {attempt}: given up after {}", after(*attempts, *retry_after))]
    Unavailable {
        /// What was attempted.
        attempt: Attempt,
        /// How often.
        attempts: u32,
        /// When the origin wants to be asked again.
        retry_after: Option<Duration>,
        /// Why the last one failed.
        #[source]
        cause: Box<SourceError>,
    },
    /// Connecting, or the answer, took too long.
    #[error("cannot {attempt}: no answer within {}", seconds(*limit))]
    Timeout {
        /// What was attempted.
        attempt: Attempt,
        /// The limit that was passed.
        limit: Duration,
    },
    /// The answer began and then no byte came.
    #[error("cannot {attempt}: stalled, no byte for {}", seconds(*limit))]
    Stalled {
        /// What was attempted.
        attempt: Attempt,
        /// The limit that was passed.
        limit: Duration,
    },
    /// The pinned version by its tag, and of another length than it has: [`Self::Changed`] if it goes on to be.
    #[error("cannot {attempt}: the origin contradicts itself: {detail}, by the same ETag")]
    Contradictory {
        /// What was attempted.
        attempt: Attempt,
        /// What differs.
        detail: String,
    },
    /// The answer ended before its last byte.
    #[error("cannot {attempt}: cut off after {received} bytes")]
    Truncated {
        /// What was attempted.
        attempt: Attempt,
        /// Bytes that had come by then.
        received: u64,
        /// Why, where the connection broke.
        #[source]
        cause: Option<Cause>,
    },
    /// The origin sends the whole content whatever range is asked; the version is the pinned one.
    #[error("cannot {attempt}: the origin ignores ranges, it can only be read whole")]
    RangeIgnored {
        /// What was attempted.
        attempt: Attempt,
    },
    /// The certificate or the handshake is wrong; never retried.
    #[error("cannot {attempt}: the connection is not secure")]
    Tls {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// More than the limits allow.
    #[error("cannot {attempt}: more than {limit} {what}")]
    TooLarge {
        /// What was attempted.
        attempt: Attempt,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The answer makes no sense, or the question did not.
    #[error("cannot {attempt}: {reason}")]
    Malformed {
        /// What was attempted.
        attempt: Attempt,
        /// What is wrong.
        reason: String,
    },
    /// What is packed in the content does not unpack: asked again, it is the same.
    #[error("cannot {attempt}: {reason}")]
    Damaged {
        /// What was attempted.
        attempt: Attempt,
        /// What is wrong.
        reason: String,
    },
    /// What is packed in the content is packed in a way that is not read here, or needs a password.
    #[error("cannot {attempt}: {reason}")]
    Unreadable {
        /// What was attempted.
        attempt: Attempt,
        /// In which way.
        reason: String,
    },
    /// The answer is compressed although that was refused: its bytes are not the content's.
    #[error(
        "cannot {attempt}: the origin sends it with Content-Encoding '{encoding}' although asked for plain bytes"
    )]
    Encoded {
        /// What was attempted.
        attempt: Attempt,
        /// The origin's word.
        encoding: String,
    },
    /// A redirect that is not followed: too many, or to something that is not the web.
    #[error("cannot {attempt}: {reason}")]
    Redirect {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        reason: String,
    },
    /// This kind of origin is only read.
    #[error("cannot {attempt}: {scheme}:// origins are read-only here")]
    ReadOnly {
        /// What was attempted.
        attempt: Attempt,
        /// The URL's scheme.
        scheme: String,
    },
    /// Something is there already, and was to be left alone.
    #[error("cannot {attempt}: there is one already")]
    Exists {
        /// What was attempted.
        attempt: Attempt,
    },
    /// No adapter for this scheme.
    #[error("no source for '{scheme}://' (known: {known})")]
    Unsupported {
        /// The URL's scheme.
        scheme: String,
        /// The schemes that are known.
        known: String,
    },
    /// Not a URL that dfs can take.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A file system said no.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
    /// A source cannot be set up as configured.
    #[error("cannot set up a source: {what}")]
    Setup {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        cause: Cause,
    },
}

fn refused(status: Option<u16>, reason: Option<&str>) -> String {
    match (reason, status) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(status)) => format!("not permitted (status {status})"),
        (None, None) => "not permitted".to_owned(),
    }
}

fn after(attempts: u32, retry_after: Option<Duration>) -> String {
    let tried = format!("{attempts} attempt{}", if attempts == 1 { "" } else { "s" });
    match retry_after.map(|wait| wait.as_secs()) {
        Some(wait @ 120..) => {
            format!("{tried}: the origin wants to be left alone for {} min", wait.div_ceil(60))
        }
        Some(wait @ 1..) => format!("{tried}: the origin wants to be left alone for {wait} s"),
        _ => tried,
    }
}

fn seconds(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

/// The attempt in an error, as the error is given: shared or to be changed.
macro_rules! attempt_of {
    ($error:expr) => {
        match $error {
            SourceError::NotFound { attempt }
            | SourceError::NotPermitted { attempt, .. }
            | SourceError::Changed { attempt, .. }
            | SourceError::Status { attempt, .. }
            | SourceError::Unreachable { attempt, .. }
            | SourceError::Unavailable { attempt, .. }
            | SourceError::Timeout { attempt, .. }
            | SourceError::Stalled { attempt, .. }
            | SourceError::Contradictory { attempt, .. }
            | SourceError::Truncated { attempt, .. }
            | SourceError::RangeIgnored { attempt }
            | SourceError::Tls { attempt, .. }
            | SourceError::TooLarge { attempt, .. }
            | SourceError::Malformed { attempt, .. }
            | SourceError::Damaged { attempt, .. }
            | SourceError::Unreadable { attempt, .. }
            | SourceError::Encoded { attempt, .. }
            | SourceError::Redirect { attempt, .. }
            | SourceError::ReadOnly { attempt, .. }
            | SourceError::Exists { attempt }
            | SourceError::Io { attempt, .. } => Some(attempt),
            SourceError::Unsupported { .. } | SourceError::Url(_) | SourceError::Setup { .. } => {
                None
            }
        }
    };
}

impl SourceError {
    /// What cannot be set up, and why.
    pub(crate) fn setup(
        what: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Setup { what: what.into(), cause: Arc::new(cause) }
    }

    /// Whether the origin said nothing at all.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// Whether asking again, later, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => is_transient_status(*status),
            Self::Unavailable { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Stalled { .. }
            | Self::Contradictory { .. }
            | Self::Truncated { .. } => true,
            Self::NotFound { .. }
            | Self::NotPermitted { .. }
            | Self::Changed { .. }
            | Self::RangeIgnored { .. }
            | Self::Tls { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Damaged { .. }
            | Self::Unreadable { .. }
            | Self::Encoded { .. }
            | Self::Redirect { .. }
            | Self::ReadOnly { .. }
            | Self::Exists { .. }
            | Self::Unsupported { .. }
            | Self::Url(_)
            | Self::Io { .. }
            | Self::Setup { .. } => false,
        }
    }

    /// What was attempted on what; `None` where nothing was asked of an origin yet.
    pub fn attempt(&self) -> Option<&Attempt> {
        attempt_of!(self)
    }

    /// The same for another attempt that came to nothing for the same cause.
    pub fn of(mut self, attempt: &Attempt) -> Self {
        if let Some(own) = attempt_of!(&mut self) {
            own.clone_from(attempt);
        }
        match self {
            Self::Unavailable { attempt: own, attempts, retry_after, cause } => {
                let cause = Box::new(cause.of(attempt));
                Self::Unavailable { attempt: own, attempts, retry_after, cause }
            }
            other => other,
        }
    }

    /// When the origin wants to be asked again, where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

/// 408, 425, 429 and what a server blames itself for, except "not implemented" and "version not
/// supported".
fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
        || (500..600).contains(&status) && !matches!(status, 501 | 505)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_was_attempted_and_no_secret() {
        let url = CanonicalUrl::parse("https://h/x?v=1&X-Amz-Signature=abcd&Token=t0").unwrap();
        let attempt = Attempt::new(Action::Read(Some(ByteRange::new(0, 9))), &url);
        let text = SourceError::NotFound { attempt }.to_string();
        assert_eq!(
            text,
            "cannot read bytes 0..9 of https://h/x?v=1&X-Amz-Signature=<redacted>&Token=<redacted>: not found"
        );
    }

    #[test]
    fn who_gives_up_says_for_how_long_the_origin_wants_to_be_left_alone() {
        let told = |attempts, wait: Option<u64>| after(attempts, wait.map(Duration::from_secs));
        assert_eq!(told(1, None), "1 attempt");
        assert_eq!(told(6, Some(0)), "6 attempts");
        assert_eq!(told(1, Some(119)), "1 attempt: the origin wants to be left alone for 119 s");
        assert_eq!(told(2, Some(121)), "2 attempts: the origin wants to be left alone for 3 min");
    }

    #[test]
    fn only_what_may_pass_is_transient() {
        let url = CanonicalUrl::parse("https://h/x").unwrap();
        let attempt = Attempt::new(Action::Stat, &url);
        let status =
            |status| SourceError::Status { attempt: attempt.clone(), status, retry_after: None };
        for transient in [408, 425, 429, 500, 502, 503, 504] {
            assert!(status(transient).is_transient(), "{transient}");
        }
        for lasting in [400, 405, 409, 418, 501] {
            assert!(!status(lasting).is_transient(), "{lasting}");
        }
        assert!(std::mem::size_of::<SourceError>() <= 128);
    }
}
