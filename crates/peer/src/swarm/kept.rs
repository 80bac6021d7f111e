//! The last member list, on disk: a host that is started while no manager can be reached goes on with it.
//!
//! Whoever it names shows a certificate all the same. It is as good as none when it cannot be read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dfs_proto::convert;
use dfs_proto::manager::MemberList;

/// The format, before the list.
const MAGIC: &[u8] = b"dfs members 1\n";

/// Largest list that is read: ten thousand members have less.
const MOST: u64 = 16 << 20;

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct KeptList {
    path: PathBuf,
}

impl KeptList {
    /// In the directory of a process.
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("members") }
    }

    /// What was kept last, by whatever process.
    pub fn load(&self) -> Option<MemberList> {
        let bytes = match fs::metadata(&self.path) {
            Ok(found) if found.len() <= MOST => fs::read(&self.path).ok()?,
            Ok(_) | Err(_) => return None,
        };
        convert::decode_members(bytes.strip_prefix(MAGIC)?).ok()
    }

    /// Keeps a list. Where that fails the one before stays; the next start then has that.
    pub fn save(&self, list: &MemberList) {
        if let Err(error) = self.write(list) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the member list is not kept");
        }
    }

    fn write(&self, list: &MemberList) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        fs::write(&draft, [MAGIC, &convert::encode_members(list)].concat())?;
        fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_what_is_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptList::in_dir(dir.path());
        assert_eq!(kept.load(), None);
        let list = MemberList { version: 7, ..MemberList::default() };
        kept.save(&list);
        assert_eq!(kept.load(), Some(list));
        let path = dir.path().join("members");
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0xFF);
        for damaged in [&bytes[..], b"", &bytes[1..]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(kept.load(), None);
        }
    }
}
