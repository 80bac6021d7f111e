//! A gRPC status as a failure.

use dfs_peer::classes::Class;
use serde::{Deserialize, Serialize};

use super::{Code, Failure, FailureClass, Status};

/// Most bytes of details that are looked at.
const MAX_DETAILS: usize = 16 * 1024;

/// What an agent may put into the details of a status, as JSON: the finer class and the causes, outermost first.
/// A class this version does not know, or no details at all, leaves the status code to decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Kebab-case name of a [`FailureClass`], as in `origin-changed`.
    pub class: String,
    /// The causes.
    pub because: Vec<String>,
}

const CLASSES: &[(&str, FailureClass)] = &[
    ("not-found", FailureClass::NotFound),
    ("no-path", FailureClass::NoPath),
    ("unauthenticated", FailureClass::Unauthenticated),
    ("not-permitted", FailureClass::NotPermitted),
    ("agent-refused", FailureClass::AgentRefused),
    ("source-failed", FailureClass::SourceFailed),
    ("redirects", FailureClass::Redirects),
    ("bad-answer", FailureClass::BadAnswer),
    ("declined", FailureClass::Declined),
    ("broken-archive", FailureClass::BrokenArchive),
    ("no-cluster", FailureClass::NoCluster),
    ("no-seed-space", FailureClass::NoSeedSpace),
    ("timed-out", FailureClass::TimedOut),
    ("origin-changed", FailureClass::OriginChanged),
    ("corrupt", FailureClass::Corrupt),
    ("no-space", FailureClass::NoSpace),
    ("limit", FailureClass::Limit),
    ("too-large", FailureClass::TooLarge),
    ("unsupported", FailureClass::Unsupported),
    ("is-tree", FailureClass::IsTree),
    ("not-tree", FailureClass::NotTree),
    ("bad-request", FailureClass::BadRequest),
    ("bad-range", FailureClass::BadRange),
    ("not-mounted", FailureClass::NotMounted),
    ("mount-dir", FailureClass::MountDir),
    ("mount-busy", FailureClass::MountBusy),
    ("mount-carries", FailureClass::MountCarries),
    ("mount-covered", FailureClass::MountCovered),
    ("mount-failed", FailureClass::MountFailed),
    ("not-following", FailureClass::NotFollowing),
    ("no-task", FailureClass::NoTask),
    ("cache-failed", FailureClass::CacheFailed),
    ("task-in-use", FailureClass::TaskInUse),
    ("task-pinned", FailureClass::TaskPinned),
    ("task-kept", FailureClass::TaskKept),
    ("pin-too-large", FailureClass::PinTooLarge),
    ("not-handed-over", FailureClass::NotHandedOver),
    ("bad-profile", FailureClass::BadProfile),
];

impl FailureClass {
    /// What an origin did.
    pub fn of_origin(class: Class) -> Self {
        named(class.name()).unwrap_or(Self::SourceFailed)
    }
}

fn named(class: &str) -> Option<FailureClass> {
    CLASSES.iter().find(|(name, _)| *name == class).map(|(_, class)| *class)
}

/// What a status means to a person.
pub(super) fn failure(status: Status) -> Failure {
    let details = details(status.details());
    let class = named(&details.class).unwrap_or_else(|| by_code(&status));
    let message = match status.message() {
        "" => status.code().description().to_owned(),
        _ if class == FailureClass::AgentLost => {
            "the connection to the node agent broke".to_owned()
        }
        _ if class == FailureClass::AgentSilent => "the node agent does not answer".to_owned(),
        message => message.to_owned(),
    };
    let mut failure = Failure { class, message, because: details.because };
    if class == FailureClass::AgentLost && !status.message().is_empty() {
        failure = failure.because(status.message());
    }
    failure
}

fn details(bytes: &[u8]) -> Details {
    if bytes.is_empty() || bytes.len() > MAX_DETAILS {
        return Details::default();
    }
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn by_code(status: &Status) -> FailureClass {
    // A status made on this side of the socket has the transport's error as its source.
    let of_transport = std::error::Error::source(status);
    // The transport has no other name for a ping that nobody answered.
    let mut causes = std::iter::successors(of_transport, |error| error.source());
    let is_silent = causes.any(|error| error.to_string().contains("timed out"));
    match status.code() {
        _ if is_silent => FailureClass::AgentSilent,
        _ if of_transport.is_some() => FailureClass::AgentLost,
        Code::NotFound => FailureClass::NotFound,
        Code::Unauthenticated => FailureClass::Unauthenticated,
        Code::PermissionDenied => FailureClass::NotPermitted,
        Code::Unavailable => FailureClass::SourceFailed,
        Code::DeadlineExceeded => FailureClass::TimedOut,
        Code::Aborted => FailureClass::OriginChanged,
        Code::DataLoss => FailureClass::Corrupt,
        Code::ResourceExhausted => FailureClass::Limit,
        Code::Unimplemented => FailureClass::Unsupported,
        Code::InvalidArgument => FailureClass::BadRequest,
        Code::OutOfRange => FailureClass::BadRange,
        Code::FailedPrecondition => FailureClass::Unsupported,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::AlreadyExists | Code::Internal => {
            FailureClass::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_an_origin_is_known() {
        for class in Class::ALL {
            assert!(named(class.name()).is_some(), "{class:?}");
        }
    }

    #[test]
    fn details_win_over_the_code_and_unknown_ones_do_not() {
        let with = |json: &str| {
            failure(Status::with_details(
                Code::FailedPrecondition,
                "no",
                json.as_bytes().to_vec().into(),
            ))
        };
        let known = with(r#"{"class":"is-tree","because":["it is a listing"],"new":1}"#);
        assert_eq!(known.class, FailureClass::IsTree);
        assert_eq!(known.because, ["it is a listing"]);
        for unknown in [r#"{"class":"from-the-future"}"#, "{", "\u{0}"] {
            assert_eq!(with(unknown).class, FailureClass::Unsupported);
        }
    }

    #[test]
    fn a_code_alone_is_enough() {
        let class = |code| failure(Status::new(code, "x")).class;
        assert_eq!(class(Code::NotFound), FailureClass::NotFound);
        assert_eq!(class(Code::Aborted), FailureClass::OriginChanged);
        assert_eq!(class(Code::DataLoss), FailureClass::Corrupt);
        assert_eq!(failure(Status::new(Code::Internal, "")).message, "Internal error");
    }
}
