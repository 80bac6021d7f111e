//! A seed's failures as gRPC status: the code says what a node may do next.

use dfs_artifact::ResolveError;
use dfs_peer::classes::{CLASS, Class};
use dfs_peer::engine::ReadError;
use dfs_peer::error_chain;
use dfs_peer::opener::OpenUrlError;
use dfs_source::SourceError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The status that says `error`.
pub fn status_of(error: &OpenUrlError) -> Status {
    let code = match error {
        OpenUrlError::Resolve(ResolveError::Source(source)) | OpenUrlError::Source(source) => {
            source_code(source)
        }
        OpenUrlError::Resolve(_) => Code::InvalidArgument,
        OpenUrlError::Fetch(read) => read_code(read),
        OpenUrlError::Malformed(_) => Code::InvalidArgument,
        OpenUrlError::Open(error) if error.is_too_long() => Code::Unimplemented,
        OpenUrlError::Index(_) | OpenUrlError::OtherIndex(_) => Code::DataLoss,
        // The seed itself: its disk, its end.
        OpenUrlError::Swarm(_) | OpenUrlError::Open(_) => Code::Unavailable,
    };
    let mut status = Status::new(code, error_chain(error));
    if let Some(class) = class_of(error) {
        status.metadata_mut().insert(CLASS, MetadataValue::from_static(class.name()));
    }
    status
}

/// What a code cannot say; the node tells it as its own. What the seed itself suffers is none of that.
fn class_of(error: &OpenUrlError) -> Option<Class> {
    match error {
        OpenUrlError::Resolve(error) => Some(Class::of_resolution(error)),
        OpenUrlError::Source(error) => Some(Class::of_source(error)),
        OpenUrlError::Fetch(ReadError::Source(error)) => Some(Class::of_source(error)),
        OpenUrlError::Open(error) if error.is_too_long() => Some(Class::Unsupported),
        _ => None,
    }
}

fn source_code(error: &SourceError) -> Code {
    match error {
        SourceError::NotFound { .. } => Code::NotFound,
        SourceError::NotPermitted { .. } => Code::PermissionDenied,
        SourceError::Changed { .. } => Code::FailedPrecondition,
        SourceError::Unsupported { .. } => Code::Unimplemented,
        // Not Unavailable: that means the seed itself, and would send every node to the origin.
        _ => Code::Unknown,
    }
}

fn read_code(error: &ReadError) -> Code {
    match error {
        ReadError::NotFound(_) => Code::NotFound,
        ReadError::NotPermitted(_) => Code::PermissionDenied,
        ReadError::OriginChanged(_) => Code::FailedPrecondition,
        ReadError::Source(source) => source_code(source),
        ReadError::Store(_) | ReadError::Sign(_) | ReadError::Closing(_) => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// Whether another seed may know better.
pub(crate) fn is_the_seeds_own(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Internal
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
    )
}
