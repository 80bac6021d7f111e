//! The agent's failures as gRPC status: the one place where they become codes. The details carry, as JSON,
//! a finer class and the causes; `dfctl` turns them into exit codes and hints.

use std::io;
use std::sync::Arc;

use dfs_artifact::erofs::FormatError;
use dfs_model::{ByteSize, TaskId};
use dfs_peer::classes::{CLASS, Class};
use dfs_peer::engine::{OpenError, ReadError};
use dfs_peer::opener::OpenUrlError;
use dfs_peer::store::StoreError;
use dfs_peer::swarm::SwarmError;
use dfs_source::SourceError;
use serde::Serialize;
use tonic::{Code, Status};

use super::follow::FollowError;
use super::mounts::MountTableError;
use crate::mount::{MountError, UnmountError};
use crate::trace::ProfileError;

/// Anything a call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Opening the artifact.
    #[error(transparent)]
    Open(#[from] Arc<OpenUrlError>),
    /// Reading it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Looking into its index.
    #[error("the index is corrupt")]
    Index(#[from] FormatError),
    /// Mounting.
    #[error(transparent)]
    Mount(#[from] MountTableError),
    /// Having a mount show what its target names now.
    #[error(transparent)]
    Follow(#[from] Arc<FollowError>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such path inside the artifact.
    #[error("there is no '{0}' in it")]
    NoPath(String),
    /// A directory where a file was wanted.
    #[error("it is a directory")]
    IsTree,
    /// A file where a directory was wanted.
    #[error("it is not a directory")]
    NotTree,
    /// A range that the content does not have.
    #[error("the content ends at byte {0}")]
    BadRange(u64),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// Nothing is kept of such a task.
    #[error("nothing is kept of task {0}")]
    NoTask(TaskId),
    /// A task that a pin of a tree needs.
    #[error("task {} is kept for the pin of {keeper}: `dfctl cache unpin {keeper}` lets go of all of it", .task.short())]
    KeptForPin {
        /// Which task.
        task: TaskId,
        /// What is pinned.
        keeper: String,
    },
    /// More than can be kept.
    #[error("{}", too_large(*.needs, *.others, *.room))]
    TooLargeToPin {
        /// Bytes that it takes.
        needs: u64,
        /// Bytes that are kept for others already.
        others: u64,
        /// Bytes that the cache has room for in all.
        room: u64,
    },
    /// As many pins as there may be.
    #[error("there are {0} pins: no more are taken")]
    TooManyPins(usize),
    /// The indexes of layers are with the seeds.
    #[error("an agent in a cluster keeps no indexes of layers: the seeds do")]
    NotAlone,
    /// It cannot be written down.
    #[error("the pin cannot be written to the data directory")]
    PinNotKept(#[source] io::Error),
    /// The agent works alone.
    #[error("this node takes part in no cluster")]
    NoCluster,
    /// No scheduler answers.
    #[error("the cluster is not reached: {0}")]
    Swarm(String),
    /// The caller may not.
    #[error("{0}")]
    NotPermitted(String),
    /// The agent cannot be replaced without loss.
    #[error("{0}")]
    NotHandedOver(String),
    /// What was given is not a prefetch profile, or not one that can be used.
    #[error(transparent)]
    BadProfile(#[from] ProfileError),
    /// A prefetch profile about something else.
    #[error("it is about something else, or about another version of it")]
    OtherProfile,
    /// It cannot be written down.
    #[error("the profile cannot be written to the data directory")]
    ProfileNotKept(#[source] io::Error),
}

fn too_large(needs: u64, others: u64, room: u64) -> String {
    let (needs, room) = (ByteSize(needs), ByteSize(room));
    match others {
        0 => format!("it takes {needs}, and the cache has room for {room}"),
        others => {
            let others = ByteSize(others);
            format!(
                "it takes {needs}, and the cache has room for {room}, of which {others} are pinned already"
            )
        }
    }
}

impl CallError {
    /// Whether it may be that what is known of the target is not so any more.
    pub fn is_of_another_version(&self) -> bool {
        match self {
            Self::NoPath(_) | Self::BadRange(_) => true,
            Self::Read(error) => match error {
                ReadError::OriginChanged(_) | ReadError::NotFound(_) => true,
                ReadError::PastEnd { .. } => true,
                ReadError::Source(error) => matches!(
                    error.as_ref(),
                    SourceError::Changed { .. } | SourceError::NotFound { .. }
                ),
                _ => false,
            },
            _ => false,
        }
    }
}

#[derive(Serialize)]
struct Details {
    class: &'static str,
    because: Vec<String>,
}

/// The status that says `error`.
pub fn status_of(error: &CallError) -> Status {
    let (code, class) = classify(error);
    let mut because = Vec::new();
    let message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if text != message && because.last() != Some(&text) {
            because.push(text);
        }
        cause = error.source();
    }
    let details = serde_json::to_vec(&Details { class, because }).unwrap_or_default();
    Status::with_details(code, message, details.into())
}

fn classify(error: &CallError) -> (Code, &'static str) {
    match error {
        CallError::Open(error) => open_class(error),
        CallError::Read(error) => read_class(error),
        CallError::Index(_) => (Code::DataLoss, "corrupt"),
        CallError::Mount(error) => mount_class(error),
        CallError::Follow(error) => match &**error {
            FollowError::Open(error) => open_class(error),
            FollowError::Late => of_origin(Class::TimedOut),
            FollowError::Mount(error) => mount_class(error),
            FollowError::Switch(_) => (Code::FailedPrecondition, "mount-failed"),
        },
        CallError::Store(error) => store_class(error),
        CallError::NotAlone => (Code::Unimplemented, "unsupported"),
        CallError::NoPath(_) => (Code::NotFound, "no-path"),
        CallError::IsTree => (Code::FailedPrecondition, "is-tree"),
        CallError::NotTree => (Code::FailedPrecondition, "not-tree"),
        CallError::BadRange(_) => (Code::OutOfRange, "bad-range"),
        CallError::BadRequest(_) => (Code::InvalidArgument, "bad-request"),
        CallError::Swarm(_) => (Code::Unavailable, "no-cluster"),
        CallError::NoCluster => (Code::FailedPrecondition, "no-cluster"),
        CallError::NotPermitted(_) => (Code::PermissionDenied, "agent-refused"),
        CallError::BadProfile(_) | CallError::OtherProfile => {
            (Code::InvalidArgument, "bad-profile")
        }
        CallError::ProfileNotKept(_) => (Code::Internal, "cache-failed"),
        CallError::NotHandedOver(_) => (Code::FailedPrecondition, "not-handed-over"),
        CallError::NoTask(_) => (Code::NotFound, "no-task"),
        CallError::KeptForPin { .. } => (Code::FailedPrecondition, "task-kept"),
        CallError::TooLargeToPin { .. } => (Code::ResourceExhausted, "pin-too-large"),
        CallError::TooManyPins(_) => (Code::ResourceExhausted, "limit"),
        CallError::PinNotKept(_) => (Code::Internal, "cache-failed"),
    }
}

/// The class of a URL that could not be opened, as it is told.
pub(super) fn class_of(error: &OpenUrlError) -> &'static str {
    open_class(error).1
}

fn open_class(error: &OpenUrlError) -> (Code, &'static str) {
    match error {
        OpenUrlError::Resolve(error) => of_origin(Class::of_resolution(error)),
        OpenUrlError::Source(error) => of_origin(Class::of_source(error)),
        OpenUrlError::Swarm(SwarmError::Refused(status)) => refused_class(status),
        OpenUrlError::Swarm(_) => of_origin(Class::SourceFailed),
        OpenUrlError::Malformed(_) => (Code::Internal, "source-failed"),
        OpenUrlError::Fetch(error) => read_class(error),
        OpenUrlError::Index(_) | OpenUrlError::OtherIndex(_) => (Code::DataLoss, "corrupt"),
        OpenUrlError::Open(OpenError::Store { source, .. }) => store_class(source),
        OpenUrlError::Open(OpenError::Closing) => of_origin(Class::SourceFailed),
    }
}

/// A class of what the origin did, with its code.
fn of_origin(class: Class) -> (Code, &'static str) {
    let code = match class {
        Class::NotFound => Code::NotFound,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::NotPermitted => Code::PermissionDenied,
        Class::OriginChanged => Code::Aborted,
        Class::TimedOut => Code::DeadlineExceeded,
        Class::TooLarge => Code::ResourceExhausted,
        Class::Unsupported => Code::Unimplemented,
        Class::BadRequest => Code::InvalidArgument,
        Class::IsTree | Class::NotTree => Code::FailedPrecondition,
        Class::Redirects
        | Class::BadAnswer
        | Class::Declined
        | Class::BrokenArchive
        | Class::SourceFailed => Code::Unavailable,
    };
    (code, class.name())
}

/// What the scheduler or the seed said; see the seed's own table.
fn refused_class(status: &Status) -> (Code, &'static str) {
    let named = status.metadata().get(CLASS).and_then(|class| class.to_str().ok());
    if named == Some("no-space") {
        return (Code::ResourceExhausted, "no-seed-space");
    }
    if let Some(class) = named.and_then(Class::of_name) {
        return of_origin(class);
    }
    match status.code() {
        Code::NotFound => (Code::NotFound, "not-found"),
        Code::PermissionDenied | Code::Unauthenticated => (Code::PermissionDenied, "not-permitted"),
        Code::FailedPrecondition => (Code::Aborted, "origin-changed"),
        Code::DataLoss => (Code::DataLoss, "corrupt"),
        Code::Unimplemented => (Code::Unimplemented, "unsupported"),
        Code::DeadlineExceeded => (Code::DeadlineExceeded, "timed-out"),
        _ => of_origin(Class::of_words(status.message())),
    }
}

fn read_class(error: &ReadError) -> (Code, &'static str) {
    match error {
        ReadError::OriginChanged(_) => (Code::Aborted, "origin-changed"),
        ReadError::NotFound(_) => (Code::NotFound, "not-found"),
        ReadError::NotPermitted(_) => (Code::PermissionDenied, "not-permitted"),
        ReadError::Source(error) => of_origin(Class::of_source(error)),
        ReadError::Swarm(words) => of_origin(Class::of_words(words)),
        ReadError::Closing(_) => of_origin(Class::SourceFailed),
        ReadError::Store(error) => store_class(error),
        ReadError::Sign(_) => (Code::Internal, "internal"),
        ReadError::Timeout { .. } => (Code::DeadlineExceeded, "timed-out"),
        ReadError::PastEnd { .. } => (Code::OutOfRange, "bad-range"),
    }
}

fn store_class(error: &StoreError) -> (Code, &'static str) {
    match error {
        StoreError::NoSpace { .. } => (Code::ResourceExhausted, "no-space"),
        StoreError::Missing { .. } | StoreError::Gone(_) => (Code::NotFound, "not-found"),
        StoreError::InUse { .. } => (Code::FailedPrecondition, "task-in-use"),
        StoreError::Io { .. } if error.is_out_of_files() => (Code::ResourceExhausted, "limit"),
        StoreError::Io { .. } => (Code::Internal, "cache-failed"),
        StoreError::TooLong { .. } => of_origin(Class::Unsupported),
        // One stream of it was longer than another.
        StoreError::Length { .. } => of_origin(Class::OriginChanged),
        StoreError::Pinned(_) => (Code::FailedPrecondition, "task-pinned"),
        _ => (Code::Internal, "internal"),
    }
}

fn mount_class(error: &MountTableError) -> (Code, &'static str) {
    match error {
        error if error.is_for_want_of_resources() => (Code::ResourceExhausted, "limit"),
        MountTableError::NoTree => (Code::FailedPrecondition, "not-tree"),
        MountTableError::NoPath(_) => (Code::NotFound, "no-path"),
        MountTableError::Tree(_) => (Code::DataLoss, "corrupt"),
        MountTableError::Content(error) => read_class(error),
        MountTableError::NoQuota(_) => (Code::FailedPrecondition, "mount-failed"),
        MountTableError::Mount(error) => match error {
            MountError::NoDirectory(_)
            | MountError::NotADirectory(_)
            | MountError::AlreadyMounted { .. }
            | MountError::HidesOwnData(_)
            | MountError::FollowsItself(_)
            | MountError::Dead(_)
            | MountError::Unreadable { .. } => (Code::FailedPrecondition, "mount-dir"),
            MountError::NotTheirs(_) => (Code::PermissionDenied, "agent-refused"),
            _ => (Code::FailedPrecondition, "mount-failed"),
        },
        MountTableError::Unmount(UnmountError::Busy(_)) => (Code::FailedPrecondition, "mount-busy"),
        MountTableError::Unmount(UnmountError::Carries { .. }) => {
            (Code::FailedPrecondition, "mount-carries")
        }
        MountTableError::Unmount(UnmountError::Covered(_)) => {
            (Code::FailedPrecondition, "mount-covered")
        }
        MountTableError::Unmount(_) => (Code::FailedPrecondition, "mount-failed"),
        MountTableError::NotMounted(_) => (Code::NotFound, "not-mounted"),
        MountTableError::NotYours(_) => (Code::PermissionDenied, "agent-refused"),
        MountTableError::NotFollowing(_) => (Code::FailedPrecondition, "not-following"),
        MountTableError::Nodes(_) => (Code::FailedPrecondition, "mount-failed"),
        MountTableError::Stopping => (Code::Unavailable, "internal"),
    }
}
