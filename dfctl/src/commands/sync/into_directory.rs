//! Steps of a plan in a directory of this machine: files through part files that are renamed when they are whole,
//! nothing outside of the directory, whatever stands in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_model::Rate;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::Run;
use super::item::Item;
use super::plan::Action;
use crate::backend::{Delivery, EntryKind};
use crate::codes;
use crate::commands::get::single::{cannot_open, cannot_place};
use crate::commands::inside::interrupted;
use crate::commands::saving::{Filling, directory, file_name_of, name_of, parent_of, refused};
use crate::error::CliError;
use crate::outdir::{OutDir, Replace};
use crate::part::Identity;
use crate::transfer::{Terms, TransferError};

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It is done.
    Yes,
    /// A directory stands in its way, which may be about to be deleted.
    Later,
}

impl Run<'_> {
    /// Makes a directory; a file in its way that is to be deleted goes first.
    pub fn make(&self, root: &OutDir, path: &[u8]) -> Result<(), CliError> {
        let made = directory(root, path);
        if made.is_ok() || !self.deletes {
            return made.map(drop);
        }
        let (dir, name) = (directory(root, parent_of(path))?, last_of(path));
        let failed = |error: Errno| refused(root, path, "replace", &error.into());
        match kind_of(&dir, name) {
            Some(FileType::Directory) | None => made.map(drop),
            Some(_) => {
                rustix::fs::unlinkat(dir.fd(), name, AtFlags::empty()).map_err(failed)?;
                directory(root, path).map(drop)
            }
        }
    }

    /// Gets a file.
    pub async fn file(
        &self,
        root: &OutDir,
        number: u64,
        (action, item): (Action, &Item),
    ) -> Result<Done, CliError> {
        let (entry, path) = (&item.entry, path_of(root, item));
        let name = file_name_of(entry, &path)?;
        let dir = directory(root, parent_of(&entry.path))?;
        if kind_of(&dir, name) == Some(FileType::Directory) {
            return Ok(Done::Later);
        }
        let content = self.origin.identity(item);
        let identity = Identity { content, start: 0, length: Some(entry.length) };
        let part = self.context.open_part(Arc::new(dir), name, identity, Some(entry), None);
        let part = part.map_err(|error| cannot_open(error, &path))?;
        let mut filling = Filling { part: Some(part), left: &self.left };
        self.fill(number, item, &mut filling, &path).await?;
        let Some(part) = filling.part.take() else { return Ok(Done::Yes) };
        let replace = if action == Action::New { Replace::Never } else { Replace::Always };
        part.finish(Some(entry), replace).map_err(|unplaced| match unplaced.error.kind() {
            io::ErrorKind::AlreadyExists => {
                unplaced.kept.iter().for_each(|part| {
                    // Nobody will ever take it up.
                    let _ = std::fs::remove_file(part);
                });
                has_come(&path)
            }
            _ => cannot_place(&unplaced, &path),
        })?;
        Ok(Done::Yes)
    }

    /// Gets what is missing of a part file.
    async fn fill(
        &self,
        number: u64,
        item: &Item,
        filling: &mut Filling<'_>,
        path: &Path,
    ) -> Result<(), CliError> {
        let Some(part) = &mut filling.part else { return Ok(()) };
        let resumed = part.resumed();
        let delivery = Delivery::File { file: part.file(), origin: 0 };
        let stream = self.origin.read(item, resumed, delivery);
        self.progress.borrow_mut().moved(resumed);
        let expected = item.entry.length - resumed;
        let terms = Terms {
            file: number,
            task: None,
            expected: Some(expected),
            limit: None::<Rate>,
            interrupted: &self.context.interrupted,
        };
        let failed = |error| self.failed(item, error);
        filling.fill(stream, (&terms, &self.progress), path, failed).await
    }

    /// Why a transfer ended, said of the file.
    pub fn failed(&self, item: &Item, error: TransferError) -> CliError {
        match error {
            TransferError::Sink(error) => error,
            TransferError::Interrupted => interrupted(),
            TransferError::Backend(failure) => {
                CliError::backend("sync", &self.name_in_source(item), failure)
            }
        }
    }

    /// Makes a symbolic link, or makes it anew.
    pub fn link(&self, root: &OutDir, item: &Item, replace: Replace) -> Result<Done, CliError> {
        let path = path_of(root, item);
        let name = name_of(&item.entry, &path)?;
        let dir = directory(root, parent_of(&item.entry.path))?;
        if kind_of(&dir, name) == Some(FileType::Directory) {
            return Ok(Done::Later);
        }
        let made = dir.symlink(name, &item.entry, replace);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => has_come(&path),
            _ => CliError::output("write", &path, &error),
        })?;
        Ok(Done::Yes)
    }

    /// Gives what is there the permissions and time of the source's.
    pub fn touch(&self, root: &OutDir, item: &Item) -> Result<(), CliError> {
        let path = path_of(root, item);
        let failed = |error: &io::Error| refused(root, &item.entry.path, "finish", error);
        if item.is_directory() {
            let dir = root.enter(&item.entry.path).map_err(|error| failed(&error))?;
            return match self.is_dressed(&dir, item) {
                true => Ok(()),
                false => dir.dress(&item.entry).map_err(|error| failed(&error)),
            };
        }
        let dir = root.enter(parent_of(&item.entry.path)).map_err(|error| failed(&error))?;
        let name = name_of(&item.entry, &path)?;
        let touched = match item.entry.kind {
            EntryKind::Symlink => dir.symlink(name, &item.entry, Replace::Never),
            _ => dir.dress_file(name, &item.entry),
        };
        touched.map_err(|error| failed(&error))
    }

    /// Whether a directory has the permissions and the time already.
    fn is_dressed(&self, dir: &OutDir, item: &Item) -> bool {
        let Ok(status) = rustix::fs::fstat(dir.fd()) else { return false };
        let same_mode = status.st_mode & 0o777 == item.entry.mode & 0o777 | 0o700;
        let time = (status.st_mtime, u32::try_from(status.st_mtime_nsec).unwrap_or(0));
        same_mode && self.destination.has_time_of(item, time)
    }

    /// Removes what the source does not have; whether it was there. A directory that still holds something stays.
    pub fn remove(&self, root: &OutDir, item: &Item) -> Result<bool, CliError> {
        let failed = |error: &io::Error| refused(root, &item.entry.path, "delete", error);
        let dir = match root.enter(parent_of(&item.entry.path)) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(&error)),
        };
        if item.is_part_of().is_some() {
            let swept = crate::part::sweep(&dir, last_of(&item.entry.path));
            return swept.map_err(|error| failed(&error));
        }
        let flags = if item.is_directory() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(dir.fd(), last_of(&item.entry.path), flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            // It gave way to a directory of the source meanwhile.
            Err(Errno::ISDIR) => Ok(false),
            Err(error) => Err(failed(&error.into())),
        }
    }
}

/// What came to stand under a new name meanwhile, or another name that is the same here, stays.
fn has_come(path: &Path) -> CliError {
    CliError::new(
        &codes::TARGET_EXISTS,
        format!("{} has come to be there meanwhile", path.display()),
    )
    .because("somebody made it, or two names of the source are one name here")
}

fn path_of(root: &OutDir, item: &Item) -> PathBuf {
    root.path_of(OsStr::from_bytes(&item.entry.path))
}

/// The last element of a path.
pub fn last_of(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
}

fn kind_of(dir: &OutDir, name: &OsStr) -> Option<FileType> {
    let status = rustix::fs::statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(status.st_mode))
}
