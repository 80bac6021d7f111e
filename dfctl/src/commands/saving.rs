//! What every command does that saves files of a tree into a directory: names that are safe there, directories
//! that are made, part files that stay for a later run.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::backend::{Entry, ReadStream};
use crate::codes;
use crate::commands::get::single::damaged;
use crate::commands::get::sinks::IntoPart;
use crate::error::CliError;
use crate::outdir::{OutDir, UnsafePath, elements};
use crate::output::progress::Progress;
use crate::part::{PartFile, whole_of};
use crate::transfer::{Terms, TransferError, pump};

/// A part file that is left for a later run, and told of, unless it is taken out.
pub struct Filling<'t> {
    /// It.
    pub part: Option<PartFile>,
    /// Those that were left.
    pub left: &'t RefCell<Vec<PathBuf>>,
}

impl Filling<'_> {
    /// Takes what is missing of it. What was there before counts only if all of it together is the content.
    pub async fn fill(
        &mut self,
        stream: ReadStream,
        (terms, progress): (&Terms<'_>, &RefCell<Progress<'_>>),
        path: &Path,
        failed: impl FnOnce(TransferError) -> CliError,
    ) -> Result<(), CliError> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let resumed = part.resumed();
        let mut sink = IntoPart { part, origin: 0, is_whole: false };
        let received = match pump(stream, &mut sink, terms, progress).await {
            Ok(received) => received,
            Err(error) => {
                let error = failed(error);
                return Err(match self.leave() {
                    Some(part) => error.because(format!("a part is in {}", part.display())),
                    None => error,
                });
            }
        };
        if let (Some(blake3), true) = (received.blake3, resumed > 0) {
            let read =
                part.blake3().map_err(|error| CliError::output("read back", path, &error))?;
            if read != blake3 {
                self.part.take().into_iter().for_each(PartFile::remove);
                return Err(damaged(path));
            }
        }
        Ok(())
    }

    /// Leaves it; says where, if there is anything worth it.
    pub fn leave(&mut self) -> Option<PathBuf> {
        let path = self.part.take()?.keep()?;
        self.left.borrow_mut().push(path.clone());
        Some(path)
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A path relative to what was named; none of what lies elsewhere.
pub fn below<'p>(prefix: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    match prefix {
        [] => Some(path),
        prefix => path.strip_prefix(prefix)?.strip_prefix(b"/"),
    }
}

/// Failures after which going on with the next file makes no sense.
pub fn is_final(error: &CliError) -> bool {
    [&codes::INTERRUPTED, &codes::NO_SPACE, &codes::AGENT_LOST].contains(&error.code)
}

fn leads_outside(error: &io::Error) -> bool {
    // Opening a link, or something below one, as a directory beneath the root.
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::LOOP | Errno::XDEV))
        || error.get_ref().is_some_and(|inner| inner.is::<UnsafePath>())
}

/// The directory part of a path.
pub fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

/// The last element of an entry's path, if the whole path is one that a directory can hold.
pub fn name_of<'e>(entry: &'e Entry, path: &Path) -> Result<&'e OsStr, CliError> {
    let refused =
        || CliError::new(&codes::UNSAFE_NAME, format!("will not write to {}", path.display()));
    let elements = elements(&entry.path).map_err(|error| refused().caused_by(&error))?;
    elements.last().map(|name| OsStr::from_bytes(name)).ok_or_else(refused)
}

/// The directory at `path` below `root`, made where it is missing.
pub fn directory(root: &OutDir, path: &[u8]) -> Result<OutDir, CliError> {
    root.make(path).map_err(|error| refused(root, path, "make directory", &error))
}

/// Why something at `path` below `root` cannot be done.
pub fn refused(root: &OutDir, path: &[u8], action: &str, error: &io::Error) -> CliError {
    let shown = root.path_of(OsStr::from_bytes(path));
    if leads_outside(error) {
        let what = format!("will not write to {}", shown.display());
        return CliError::new(&codes::UNSAFE_NAME, what)
            .because("a name or symbolic link on the way leads outside of the directory");
    }
    CliError::output(action, &shown, error)
}

/// The same of a file, which must not have the name of a part file or of a draft of one.
pub fn file_name_of<'e>(entry: &'e Entry, path: &Path) -> Result<&'e OsStr, CliError> {
    let name = name_of(entry, path)?;
    if whole_of(name.as_bytes()).is_some() {
        let what = format!("will not write to {}", path.display());
        return Err(
            CliError::new(&codes::UNSAFE_NAME, what).because("its name is that of a part file")
        );
    }
    Ok(name)
}
