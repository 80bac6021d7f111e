//! The last member list, on disk: a host that is started while no manager can be reached goes on with it.
//!
//! Whoever it names shows a certificate all the same. It is as good as none when it cannot be read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_proto::convert;
use dfs_proto::manager::{MemberList, Role};
use parking_lot::Mutex;

/// The format, before the list.
const MAGIC: &[u8] = b"dfs members 1\n";

/// Largest list that is read: ten thousand members have less.
const MOST: u64 = 16 << 20;

/// Where it is kept; clones are the same place. In a process several keep what they hear there.
#[derive(Debug, Clone)]
pub struct KeptList {
    path: PathBuf,
    /// The list that this process has kept last, by its cluster and version. Whoever writes holds it.
    last: Arc<Mutex<(Vec<u8>, u64)>>,
}

impl KeptList {
    /// In the directory of a process.
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("members"), last: Arc::default() }
    }

    /// What was kept last, by whatever process.
    pub fn load(&self) -> Option<MemberList> {
        let bytes = match fs::metadata(&self.path) {
            Ok(found) if found.len() <= MOST => fs::read(&self.path).ok()?,
            Ok(_) | Err(_) => return None,
        };
        convert::decode_members(bytes.strip_prefix(MAGIC)?).ok()
    }

    /// Keeps a list. Where that fails the one before stays; the next start then has that. It also stays where it is
    /// newer, or this one lacks those that nobody can go on without: after a manager's restart they join one by one.
    pub fn save(&self, list: &MemberList) {
        let mut last = self.last.lock();
        let (cluster, version) = &*last;
        let is_older = *cluster == list.cluster_id && list.version < *version;
        if is_older || !is_whole(list) {
            return;
        }
        match self.write(list) {
            Ok(()) => *last = (list.cluster_id.to_vec(), list.version),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the member list is not kept");
            }
        }
    }

    fn write(&self, list: &MemberList) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(&[MAGIC, &convert::encode_members(list)].concat())?;
        // A name that outlives the power must not lead to nothing.
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn is_whole(list: &MemberList) -> bool {
    let has = |role| list.members.iter().any(|member| member.role() == role);
    has(Role::Scheduler) && has(Role::Seed)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use dfs_proto::manager::Member;

    use super::*;

    fn list(version: u64, roles: &[Role]) -> MemberList {
        let member = |role: &Role| Member { role: (*role).into(), ..Member::default() };
        let members = roles.iter().map(member).collect();
        MemberList { version, members, ..MemberList::default() }
    }

    #[test]
    fn what_is_kept_is_read_and_what_is_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptList::in_dir(dir.path());
        assert_eq!(kept.load(), None);
        let list = list(7, &[Role::Scheduler, Role::Seed]);
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

    #[test]
    fn what_lacks_somebody_or_is_older_is_not_kept_in_place_of_what_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptList::in_dir(dir.path());
        let whole = |version| list(version, &[Role::Seed, Role::Scheduler, Role::Scheduler]);
        kept.save(&whole(7));
        for lacking in [&[][..], &[Role::Seed], &[Role::Scheduler], &[Role::Scheduler, Role::Node]]
        {
            kept.save(&list(8, lacking));
            assert_eq!(kept.load(), Some(whole(7)), "{lacking:?}");
        }
        kept.save(&whole(6));
        assert_eq!(kept.load(), Some(whole(7)));
        let other = MemberList { cluster_id: vec![1].into(), ..whole(1) };
        kept.save(&other);
        assert_eq!(kept.load(), Some(other), "another cluster counts anew");
    }

    #[test]
    fn of_many_who_keep_it_at_a_time_the_last_list_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptList::in_dir(dir.path());
        thread::scope(|scope| {
            for first in 1..=4 {
                let kept = kept.clone();
                let versions = (first..=40).step_by(4);
                scope.spawn(move || {
                    for version in versions {
                        kept.save(&list(version, &[Role::Scheduler, Role::Seed]));
                        assert!(kept.load().is_some(), "it is torn");
                    }
                });
            }
        });
        assert_eq!(kept.load().map(|list| list.version), Some(40));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
