//! What exactly of an artifact is to be read, and which version of it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use dfs_model::TaskId;

use super::ReadOptions;
use crate::backend::{Backend, Entry, EntryKind, Failure, FailureClass, ReadRequest, View};
use crate::codes;
use crate::commands::inside::{answer, entry_at};
use crate::context::Context;
use crate::error::CliError;
use crate::locator::Locator;

/// One file, or a range of it.
pub struct Wanted {
    /// Names the version for a part file.
    pub content: String,
    /// The task it must be of.
    pub task: Option<TaskId>,
    /// The bytes.
    pub request: ReadRequest,
    /// Bytes of the result, where known.
    pub length: Option<u64>,
    /// Whether the result is the whole content.
    pub whole: bool,
    /// Its entry, inside a tree or on this machine.
    pub entry: Option<Entry>,
}

impl Wanted {
    /// Asks the backend what the locator names.
    pub async fn find(
        context: &Context,
        backend: &dyn Backend,
        locator: &Locator,
        options: &ReadOptions,
        verb: &str,
    ) -> Result<Self, CliError> {
        let found = answer(context, find(backend, locator, options)).await?;
        let wanted = found.map_err(|failure| CliError::backend(verb, &locator.shown(), failure))?;
        wanted.narrowed(locator, options)
    }

    fn narrowed(mut self, locator: &Locator, options: &ReadOptions) -> Result<Self, CliError> {
        let Some(range) = options.range else { return Ok(self) };
        if let Some(length) = self.length.filter(|length| range.start >= *length) {
            let what = format!(
                "cannot get bytes {}-{} of {}: it has {length}",
                range.start,
                range.end - 1,
                locator.shown()
            );
            return Err(CliError::new(&codes::BAD_RANGE, what));
        }
        let end = self.length.map_or(range.end, |length| range.end.min(length));
        self.whole = range.start == 0 && self.length == Some(end);
        self.length = self.length.map(|_| end - range.start);
        self.request.start = range.start;
        self.request.end = Some(end);
        Ok(self)
    }
}

async fn find(
    backend: &dyn Backend,
    locator: &Locator,
    options: &ReadOptions,
) -> Result<Wanted, Failure> {
    let Some(path) = &locator.inner else {
        let artifact = backend.open(&locator.target, View::File, options.purpose(locator)).await?;
        let task = artifact.tasks.first();
        return Ok(Wanted {
            content: task.map(|task| task.id.to_string()).unwrap_or_default(),
            task: task.map(|task| task.id),
            request: options.request(locator, None),
            length: task.and_then(|task| task.length),
            whole: true,
            entry: of_this_machine(locator),
        });
    };
    let artifact = backend.open(&locator.target, View::Tree, options.purpose(locator)).await?;
    let entry = entry_at(backend, locator, path).await?;
    let unsupported = |message| Err(Failure::new(FailureClass::Unsupported, message));
    match entry.kind {
        EntryKind::File => {}
        EntryKind::Directory => {
            return Err(Failure::new(FailureClass::IsTree, "it is a directory"));
        }
        EntryKind::Symlink => {
            let to = String::from_utf8_lossy(&entry.link_target);
            return unsupported(format!("it is a symbolic link to {to}"));
        }
        EntryKind::Other => return unsupported("it is not a regular file".to_owned()),
    }
    Ok(Wanted {
        content: member_identity(artifact.index.as_ref().map(|index| index.id), path),
        task: None,
        request: options.request(locator, Some(path.clone())),
        length: Some(entry.length),
        whole: true,
        entry: Some(entry),
    })
}

/// What a file of this machine has beside its content; nothing where it is no file of this machine.
fn of_this_machine(locator: &Locator) -> Option<Entry> {
    let path = locator.local_path()?;
    let status = std::fs::metadata(&path).ok().filter(Metadata::is_file)?;
    Some(Entry {
        path: path.file_name()?.as_encoded_bytes().to_vec(),
        kind: EntryKind::File,
        length: status.len(),
        mode: status.mode(),
        mtime: (status.mtime(), u32::try_from(status.mtime_nsec()).unwrap_or(0)),
        uid: status.uid(),
        gid: status.gid(),
        link_target: Vec::new(),
    })
}

/// Names one version of a file inside a tree: the tree's index pins it.
pub fn member_identity(index: Option<TaskId>, path: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(index.as_ref().map_or(&[][..], |index| index.as_bytes()));
    hasher.update(path);
    hasher.finalize().to_hex().to_string()
}
