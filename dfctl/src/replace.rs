//! A small file of the user's, put in place of the one before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Puts `bytes` in place of `file`, whole or not at all, permitted and owned as the one before; where there was none, with
/// `mode`. They are written as `draft`, beside it; where something has that name, it is left alone.
pub fn replace(file: &Path, draft: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let fresh = File::options().write(true).create_new(true).mode(mode).open(draft)?;
    let placed = fill(&fresh, file, bytes).and_then(|()| fs::rename(draft, file));
    if placed.is_err() {
        // It may have been removed by somebody else, which is as good.
        let _ = fs::remove_file(draft);
    }
    placed
}

fn fill(mut fresh: &File, like: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Ok(old) = fs::metadata(like) {
        // Only root can, and has to: else the file is root's from now on.
        let _ = fchown(fresh, Some(old.uid()), Some(old.gid()));
        fresh.set_permissions(old.permissions())?;
    }
    fresh.write_all(bytes)?;
    fresh.sync_all()
}
