//! Content files that are open already and are not to be opened anew.
//!
//! Who opens a file that the kernel asks somebody about before each read would be asked about himself when he writes what
//! was asked for, and wait for it. A descriptor from before the kernel was told to ask is never asked about.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parking_lot::Mutex;

/// A file, whatever it is called.
type Inode = (u64, u64);

fn inode(of: &Metadata) -> Inode {
    (of.dev(), of.ino())
}

/// The files, shared by whoever lends them and the store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lent(Arc<Mutex<HashMap<Inode, Loan>>>);

#[derive(Debug)]
struct Loan {
    file: Arc<File>,
    /// How often it was lent and not taken back.
    times: usize,
}

impl Lent {
    /// Lends a file: whoever opens the same from now on is given this one.
    pub fn lend(&self, file: File) -> io::Result<()> {
        let inode = inode(&file.metadata()?);
        let mut files = self.0.lock();
        let loan = files.entry(inode).or_insert_with(|| Loan { file: Arc::new(file), times: 0 });
        loan.times += 1;
        Ok(())
    }

    /// It can be opened as any other again, once everybody who lent it has said so. Who was given it keeps it.
    pub fn take_back(&self, file: &File) -> io::Result<()> {
        let inode = inode(&file.metadata()?);
        let mut files = self.0.lock();
        if let Some(loan) = files.get_mut(&inode) {
            loan.times -= 1;
            if loan.times == 0 {
                files.remove(&inode);
            }
        }
        Ok(())
    }

    /// The one that was lent of what lies at a place, where there is one.
    pub(super) fn of(&self, there: &Metadata) -> Option<io::Result<File>> {
        let file = Arc::clone(&self.0.lock().get(&inode(there))?.file);
        Some(file.try_clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_lent_until_everybody_has_taken_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        fs::write(&path, b"x").unwrap();
        let (lent, there) = (Lent::default(), fs::metadata(&path).unwrap());
        assert!(lent.of(&there).is_none());
        let file = File::open(&path).unwrap();
        lent.lend(file.try_clone().unwrap()).unwrap();
        lent.lend(File::open(&path).unwrap()).unwrap();
        lent.take_back(&file).unwrap();
        assert!(lent.of(&there).is_some());
        lent.take_back(&file).unwrap();
        assert!(lent.of(&there).is_none());
        // What was never lent is nobody's.
        lent.take_back(&file).unwrap();
    }

    #[test]
    fn another_file_of_the_same_name_is_not_the_one_that_was_lent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        fs::write(&path, b"x").unwrap();
        let lent = Lent::default();
        lent.lend(File::open(&path).unwrap()).unwrap();
        fs::write(dir.path().join("new"), b"y").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(lent.of(&fs::metadata(&path).unwrap()).is_none());
    }
}
