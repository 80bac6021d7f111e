//! Who is at the other end of the agent's socket, and what that user may ask of it.
//!
//! The agent acts with its own rights, so whoever it belongs to, and root, may ask for anything. Members of
//! the socket's group may read what its cache and the origins give them, and mount on directories of
//! their own; what others have mounted, and the cache that all share, are not theirs to take away.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dfs_model::TaskKey;
use dfs_peer::opener::OpenArtifact;
use dfs_source::{Asking, Credentials, LocalUser, Target};
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use super::CallError;
use crate::core::Owner;
use crate::mount::{Privileges, User};

/// A number that no user has.
const NOBODY: u32 = u32::MAX;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// This process's own user, or root.
    Owner,
    /// Another user, by number.
    Other(u32),
}

impl Asker {
    /// Who sent `request`. Inside one process there is no socket, and no other user; one whom the kernel
    /// does not name is nobody.
    pub fn of<T>(request: &Request<T>) -> Self {
        let Some(connection) = request.extensions().get::<UdsConnectInfo>() else {
            return Self::Owner;
        };
        Self::user(connection.peer_cred.map_or(NOBODY, |cred| cred.uid()))
    }

    /// For whom alone a mount is made: the user who sent `request`.
    pub fn user_of<T>(request: &Request<T>) -> User {
        let Some(connection) = request.extensions().get::<UdsConnectInfo>() else {
            return User::of_this_process();
        };
        let of = |cred: tokio::net::unix::UCred| User { uid: cred.uid(), gid: cred.gid() };
        connection.peer_cred.map_or(User { uid: NOBODY, gid: NOBODY }, of)
    }

    /// Where what is open as `handle` in the process that sent `request` is found, if it may be used: with the agent's
    /// rights, so by who has them anyhow.
    pub fn handle<T>(request: &Request<T>, handle: u32) -> Option<PathBuf> {
        let connection = request.extensions().get::<UdsConnectInfo>()?;
        let pid = connection.peer_cred.filter(|_| Self::of(request) == Self::Owner)?.pid()?;
        Some(PathBuf::from(format!("/proc/{pid}/fd/{handle}")))
    }

    fn user(uid: u32) -> Self {
        let own = uid == rustix::process::geteuid().as_raw() || uid == 0;
        if own { Self::Owner } else { Self::Other(uid) }
    }

    /// Whose keys may be used: those of this process are its own user's.
    pub fn asking(self) -> Asking {
        match self {
            Self::Owner => Asking::Own,
            Self::Other(_) => Asking::Other,
        }
    }

    /// What `user`, who asks, means by a target: this machine's files are read for others with their own
    /// rights. Who they are is established here, and by nobody's word.
    pub fn names(self, target: Target, user: User) -> Target {
        if self == Self::Owner || !target.url.lies_here() {
            return target;
        }
        target.with_credentials(Credentials::User(LocalUser { uid: user.uid, gid: user.gid }))
    }

    /// Mounting uses this process's rights: others may do so only where they could have put the files
    /// themselves. Said early, before any origin is asked; what counts is [`mounts_on_own`](Self::mounts_on_own). Blocks.
    pub fn may_mount_on(self, dir: &Path) -> Result<(), CallError> {
        let Self::Other(uid) = self else { return Ok(()) };
        if std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == uid) {
            return Ok(());
        }
        let why = format!("{} is not a directory of yours: mount on one that is", dir.display());
        Err(CallError::NotPermitted(why))
    }

    /// Refuses powers over a mount that a user may not hand out: to show files as others', or ones that do what only root's
    /// do.
    pub fn may_show_as(self, own: User, shown: Owner, powers: Privileges) -> Result<(), CallError> {
        let Self::Other(_) = self else { return Ok(()) };
        let refused = |why: &str| Err(CallError::NotPermitted(why.to_owned()));
        if powers == Privileges::Effective {
            return refused("suid and dev are for the agent's own user");
        }
        let is_own = shown.uid.is_none_or(|uid| uid == own.uid)
            && shown.gid.is_none_or(|gid| gid == own.gid);
        if is_own {
            Ok(())
        } else {
            refused("uid= and gid= are your own, or the agent's own user gives them")
        }
    }

    /// Whose directory the mount point must be at the moment of the mount, where that matters.
    pub fn mounts_on_own(self) -> Option<u32> {
        match self {
            Self::Owner => None,
            Self::Other(uid) => Some(uid),
        }
    }

    /// Whether this user may be told what is kept of a task. What was fetched with credentials is not told to
    /// those who have shown none.
    pub fn may_see(self, key: &TaskKey) -> bool {
        self == Self::Owner || key.domain == TaskKey::PUBLIC
    }

    /// Whether this user may be told what `whose` has mounted: what comes of no credentials is no secret, the
    /// rest is for whom it was made.
    pub fn may_see_mount(self, whose: Self, opened: &OpenArtifact) -> bool {
        let index = opened.index.as_ref().map(|index| &index.task);
        let mut tasks = opened.tasks.iter().chain(index);
        self.may_undo(whose) || tasks.all(|task| self.may_see(&task.info().key))
    }

    /// Whether this user may take away what `whose` made.
    pub fn may_undo(self, whose: Self) -> bool {
        self == Self::Owner || self == whose
    }

    /// What is evicted, removed, or kept from eviction is everybody's.
    pub fn may_evict(self) -> Result<(), CallError> {
        if self == Self::Owner {
            return Ok(());
        }
        let why =
            "the cache is shared: only the agent's own user and root say by hand what it keeps";
        Err(CallError::NotPermitted(why.to_owned()))
    }

    /// Who replaces the agent does so for everybody.
    pub fn may_replace(self) -> Result<(), CallError> {
        if self == Self::Owner {
            return Ok(());
        }
        let why = "only the agent's own user and root replace it";
        Err(CallError::NotPermitted(why.to_owned()))
    }

    /// Hashing costs everybody's disk and processor, and tells of all that is kept.
    pub fn may_verify(self) -> Result<(), CallError> {
        if self == Self::Owner {
            return Ok(());
        }
        let why = "the cache is shared: only the agent's own user and root have it verified";
        Err(CallError::NotPermitted(why.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_user_made_another_may_not_undo() {
        let (ann, bob) = (Asker::Other(1), Asker::Other(2));
        for whose in [Asker::Owner, ann, bob] {
            assert!(Asker::Owner.may_undo(whose));
            assert_eq!(ann.may_undo(whose), whose == ann);
        }
        assert!(Asker::Owner.may_evict().is_ok() && ann.may_evict().is_err());
        assert!(Asker::Owner.may_verify().is_ok() && ann.may_verify().is_err());
    }

    #[test]
    fn the_agents_user_and_root_own_it_and_nobody_else_does() {
        assert_eq!(Asker::user(0), Asker::Owner);
        assert_eq!(Asker::user(rustix::process::geteuid().as_raw()), Asker::Owner);
        assert_eq!(Asker::user(NOBODY), Asker::Other(NOBODY));
        assert_eq!(Asker::of(&Request::new(())), Asker::Owner);
    }

    #[test]
    fn another_user_names_files_as_that_user_and_mounts_on_directories_of_their_own() {
        let file = Target::parse("/etc/hostname").unwrap();
        let web = Target::parse("https://h/f").unwrap();
        let other = Asker::Other(NOBODY);
        let user = User { uid: NOBODY, gid: NOBODY };
        let own = Credentials::User(LocalUser { uid: NOBODY, gid: NOBODY });
        assert_eq!(other.names(file.clone(), user).credentials, own);
        assert!(other.names(web, user).credentials.is_none());
        assert!(Asker::Owner.names(file, user).credentials.is_none());
        let dir = std::env::temp_dir();
        assert!(other.may_mount_on(&dir).is_err() && Asker::Owner.may_mount_on(&dir).is_ok());
    }
}
