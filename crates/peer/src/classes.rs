//! The class of a failure: what a person can do about it, in a word that travels with a gRPC status where its code
//! says too little. A seed names it to the nodes, a node agent to `dfctl`.

use dfs_artifact::ResolveError;
use dfs_artifact::tar::TarError;
use dfs_artifact::zip::ZipError;
use dfs_source::SourceError;

/// The metadata in which a seed names the class.
pub const CLASS: &str = "dfs-class";

/// The classes of what origins do.
const OF_ORIGINS: [&str; 13] = [
    "not-found",
    "unauthenticated",
    "not-permitted",
    "origin-changed",
    "timed-out",
    "limit",
    "unsupported",
    "bad-request",
    "redirects",
    "bad-answer",
    BROKEN_ARCHIVE,
    "is-tree",
    "not-tree",
];

/// What is packed does not unpack.
const BROKEN_ARCHIVE: &str = "broken-archive";

/// Any other failure of an origin, or of the way to it.
pub const SOURCE_FAILED: &str = "source-failed";

/// The class of this name, where it is one of an origin's that this version knows.
pub fn known(name: &str) -> Option<&'static str> {
    OF_ORIGINS.into_iter().find(|known| *known == name)
}

/// The class of what an origin did.
pub fn of_source(error: &SourceError) -> &'static str {
    match error {
        SourceError::NotFound { .. } => "not-found",
        SourceError::NotPermitted { status: Some(401), .. } => "unauthenticated",
        SourceError::NotPermitted { .. } => "not-permitted",
        SourceError::Changed { .. } => "origin-changed",
        SourceError::Timeout { .. } | SourceError::Stalled { .. } => "timed-out",
        SourceError::TooLarge { .. } => "limit",
        SourceError::Unsupported { .. }
        | SourceError::ReadOnly { .. }
        | SourceError::RangeIgnored { .. } => "unsupported",
        SourceError::Url(_) => "bad-request",
        SourceError::Redirect { .. } => "redirects",
        SourceError::Damaged { .. } => BROKEN_ARCHIVE,
        // A file of this machine is none that can be asked again in another way.
        SourceError::Malformed { attempt, .. } if attempt.url.starts_with("file:") => SOURCE_FAILED,
        SourceError::Malformed { .. } | SourceError::Encoded { .. } => "bad-answer",
        // Each attempt may have failed for a reason that stays.
        SourceError::Unavailable { cause, .. } => of_source(cause),
        SourceError::Status { .. }
        | SourceError::Unreachable { .. }
        | SourceError::Truncated { .. }
        | SourceError::Tls { .. }
        | SourceError::Exists { .. }
        | SourceError::Io { .. }
        | SourceError::Setup { .. } => SOURCE_FAILED,
    }
}

/// The class of what a URL turned out to be.
pub fn of_resolution(error: &ResolveError) -> &'static str {
    match error {
        ResolveError::Source(error) => of_source(error),
        ResolveError::IsDirectory(_) => "is-tree",
        ResolveError::NoTree(_) => "not-tree",
        ResolveError::Tar { source, .. } => match source {
            TarError::Corrupt { .. } | TarError::Truncated { .. } => BROKEN_ARCHIVE,
            TarError::Unsupported { .. } | TarError::TooMuch(_) => "unsupported",
        },
        ResolveError::Zip { source, .. } => match source {
            ZipError::NoDirectory | ZipError::Corrupt { .. } => BROKEN_ARCHIVE,
            ZipError::Split | ZipError::Overlap { .. } | ZipError::TooMuch(_) => "unsupported",
        },
        ResolveError::LengthUnknown(_)
        | ResolveError::Parts { .. }
        | ResolveError::Tree { .. }
        | ResolveError::Plan { .. }
        | ResolveError::Write { .. }
        | ResolveError::Index { .. } => "unsupported",
    }
}

/// The class of what a seed, or the scheduler for it, said of the origin: of a transfer that failed there is no more
/// than the words.
pub fn of_words(words: &str) -> &'static str {
    const TOLD: [(&str, &str); 4] = [
        ("the compressed stream is", BROKEN_ARCHIVE),
        ("the origin redirects more than", "redirects"),
        ("the origin answers with another range than was asked", "bad-answer"),
        ("the origin answers 206 without a sound Content-Range", "bad-answer"),
    ];
    let told = TOLD.iter().find(|(part, _)| words.contains(part));
    told.map_or(SOURCE_FAILED, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use dfs_model::CanonicalUrl;
    use dfs_source::{Action, Attempt};

    use super::*;

    #[test]
    fn what_a_seed_names_is_known_to_a_node() {
        let url = CanonicalUrl::parse("https://h/x").unwrap();
        let attempt = Attempt::new(Action::Stat, &url);
        let reason = String::new();
        let damaged = SourceError::Damaged { attempt: attempt.clone(), reason };
        let denied = SourceError::NotPermitted { attempt, status: Some(401), reason: None };
        let cut = TarError::Truncated { at: 0 };
        for class in [
            of_source(&damaged),
            of_source(&denied),
            of_resolution(&ResolveError::NoTree(url.clone())),
            of_resolution(&ResolveError::Tar { url: url.clone(), source: cut }),
            of_resolution(&ResolveError::Zip { url, source: ZipError::Split }),
            of_words("given up: the origin redirects more than 10 times"),
        ] {
            assert_eq!(known(class), Some(class));
        }
        assert_eq!(known(SOURCE_FAILED), None, "the code says as much");
        assert_eq!(known("from-a-later-version"), None);
    }
}
