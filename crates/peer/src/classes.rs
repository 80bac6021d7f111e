//! The class of a failure: what a person can do about it, in a word that travels with a gRPC status where its code
//! says too little. A seed names it to the nodes, a node agent to `dfctl`.

use dfs_artifact::ResolveError;
use dfs_artifact::image::ManifestError;
use dfs_artifact::rafs::RafsError;
use dfs_artifact::resolve::ImageError;
use dfs_artifact::tar::TarError;
use dfs_artifact::zip::ZipError;
use dfs_source::SourceError;

/// The metadata in which a seed names the class.
pub const CLASS: &str = "dfs-class";

/// What an origin did, or what it turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing there.
    NotFound,
    /// It wants credentials.
    Unauthenticated,
    /// It refuses.
    NotPermitted,
    /// It has another version now.
    OriginChanged,
    /// Nothing came in time.
    TimedOut,
    /// More than the limits allow, whenever it is asked.
    TooLarge,
    /// This cannot be done with it.
    Unsupported,
    /// The question makes no sense.
    BadRequest,
    /// It sends on without end, or to what is not the web.
    Redirects,
    /// It answers something else than was asked.
    BadAnswer,
    /// It does not do what was asked, whenever it is asked.
    Declined,
    /// What is packed does not unpack.
    BrokenArchive,
    /// A directory where a file was wanted.
    IsTree,
    /// A file where a directory was wanted.
    NotTree,
    /// Any other failure of it, or of the way to it.
    SourceFailed,
}

impl Class {
    /// Every one.
    pub const ALL: [Self; 15] = [
        Self::NotFound,
        Self::Unauthenticated,
        Self::NotPermitted,
        Self::OriginChanged,
        Self::TimedOut,
        Self::TooLarge,
        Self::Unsupported,
        Self::BadRequest,
        Self::Redirects,
        Self::BadAnswer,
        Self::Declined,
        Self::BrokenArchive,
        Self::IsTree,
        Self::NotTree,
        Self::SourceFailed,
    ];

    /// The word that travels.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Unauthenticated => "unauthenticated",
            Self::NotPermitted => "not-permitted",
            Self::OriginChanged => "origin-changed",
            Self::TimedOut => "timed-out",
            Self::TooLarge => "too-large",
            Self::Unsupported => "unsupported",
            Self::BadRequest => "bad-request",
            Self::Redirects => "redirects",
            Self::BadAnswer => "bad-answer",
            Self::Declined => "declined",
            Self::BrokenArchive => "broken-archive",
            Self::IsTree => "is-tree",
            Self::NotTree => "not-tree",
            Self::SourceFailed => "source-failed",
        }
    }

    /// The one of this name; none where a later version named it.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The class of what an origin did.
    pub fn of_source(error: &SourceError) -> Self {
        match error {
            SourceError::NotFound { .. } => Self::NotFound,
            SourceError::NotPermitted { status: Some(401), .. } => Self::Unauthenticated,
            SourceError::NotPermitted { .. } => Self::NotPermitted,
            SourceError::Changed { .. } | SourceError::Contradictory { .. } => Self::OriginChanged,
            SourceError::Timeout { .. } | SourceError::Stalled { .. } => Self::TimedOut,
            SourceError::TooLarge { .. } => Self::TooLarge,
            SourceError::Unsupported { .. }
            | SourceError::Unreadable { .. }
            | SourceError::ReadOnly { .. }
            | SourceError::RangeIgnored { .. } => Self::Unsupported,
            SourceError::Url(_) => Self::BadRequest,
            SourceError::Redirect { .. } => Self::Redirects,
            SourceError::Damaged { .. } => Self::BrokenArchive,
            // A file of this machine is none that can be asked again in another way.
            SourceError::Malformed { attempt, .. } if attempt.url.starts_with("file:") => {
                Self::SourceFailed
            }
            SourceError::Malformed { .. } | SourceError::Encoded { .. } => Self::BadAnswer,
            // Each attempt may have failed for a reason that stays.
            SourceError::Unavailable { cause, .. } => Self::of_source(cause),
            SourceError::Status { .. } if !error.is_transient() => Self::Declined,
            SourceError::Status { .. }
            | SourceError::Unreachable { .. }
            | SourceError::Truncated { .. }
            | SourceError::Tls { .. }
            | SourceError::Exists { .. }
            | SourceError::Io { .. }
            | SourceError::Setup { .. } => Self::SourceFailed,
        }
    }

    /// The class of what a URL turned out to be.
    pub fn of_resolution(error: &ResolveError) -> Self {
        match error {
            ResolveError::Source(error) => Self::of_source(error),
            ResolveError::IsDirectory(_) => Self::IsTree,
            ResolveError::NoTree(_) => Self::NotTree,
            ResolveError::Tar { source, .. } => Self::of_tar(source),
            ResolveError::Zip { source, .. } => match source {
                ZipError::NoDirectory | ZipError::Corrupt { .. } => Self::BrokenArchive,
                ZipError::Split | ZipError::Overlap { .. } | ZipError::TooMuch(_) => {
                    Self::Unsupported
                }
            },
            ResolveError::Image { source, .. } => Self::of_image(source),
            ResolveError::LengthUnknown(_)
            | ResolveError::Parts { .. }
            | ResolveError::Tree { .. }
            | ResolveError::Plan { .. }
            | ResolveError::Write { .. }
            | ResolveError::Index { .. } => Self::Unsupported,
        }
    }

    fn of_tar(error: &TarError) -> Self {
        match error {
            TarError::Corrupt { .. } | TarError::Truncated { .. } => Self::BrokenArchive,
            TarError::Unsupported { .. } | TarError::TooMuch(_) => Self::Unsupported,
        }
    }

    fn of_image(error: &ImageError) -> Self {
        match error {
            ImageError::Tar { source, .. } => Self::of_tar(source),
            ImageError::Document(
                ManifestError::Form { .. }
                | ManifestError::Length { .. }
                | ManifestError::Mismatch(_)
                | ManifestError::Config(_)
                | ManifestError::Ambiguous
                | ManifestError::Neither,
            )
            | ImageError::OtherLayer { .. }
            | ImageError::Length { .. } => Self::BadAnswer,
            ImageError::Document(_)
            | ImageError::Platform(_)
            | ImageError::Depth
            | ImageError::Write { .. }
            | ImageError::Read { .. }
            | ImageError::Merge(_)
            | ImageError::NoImage
            | ImageError::NoLayers => Self::Unsupported,
            ImageError::FewerLayers { .. } => Self::NotFound,
            ImageError::Rafs(error) => Self::of_rafs(error),
        }
    }

    fn of_rafs(error: &RafsError) -> Self {
        match error {
            RafsError::Tar(error) => Self::of_tar(error),
            RafsError::Unpack(_)
            | RafsError::NoBootstrap
            | RafsError::NotRafs(_)
            | RafsError::Corrupt(_)
            | RafsError::Image(_)
            | RafsError::Tree(_)
            | RafsError::Chunks(_)
            | RafsError::Short { .. } => Self::BrokenArchive,
            RafsError::TooLong { .. }
            | RafsError::Version(_)
            | RafsError::Unsupported(_)
            | RafsError::Elsewhere(_) => Self::Unsupported,
        }
    }

    /// The class of what a seed, or the scheduler for it, said of the origin: of a transfer that failed there is no more
    /// than the words.
    pub fn of_words(words: &str) -> Self {
        let told = [
            ("the compressed stream is taken for a bomb", Self::Unsupported),
            ("the compressed stream is", Self::BrokenArchive),
            ("the origin redirects more than", Self::Redirects),
            ("the origin answers with another range than was asked", Self::BadAnswer),
            ("the origin answered status 408", Self::SourceFailed),
            ("the origin answered status 42", Self::SourceFailed),
            ("the origin answered status 4", Self::Declined),
            ("the origin answers 206 without a sound Content-Range", Self::BadAnswer),
        ];
        let found = told.into_iter().find(|(part, _)| words.contains(part));
        found.map_or(Self::SourceFailed, |(_, class)| class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_known_by_its_name() {
        for class in Class::ALL {
            assert_eq!(Class::of_name(class.name()), Some(class));
        }
        assert_eq!(Class::of_name("from-a-later-version"), None);
        let words = "given up: the origin redirects more than 10 times";
        assert_eq!(Class::of_words(words), Class::Redirects);
        let bomb = "the compressed stream is taken for a bomb: 1 MiB unfold to more than 1 GiB";
        assert_eq!(Class::of_words(bomb), Class::Unsupported);
        assert_eq!(Class::of_words("no route"), Class::SourceFailed);
        let status = |status| Class::of_words(&format!("x: the origin answered status {status}"));
        assert_eq!([status(400), status(410)], [Class::Declined; 2]);
        assert_eq!([status(408), status(429), status(503)], [Class::SourceFailed; 3]);
    }
}
