//! A mount that is there, by whomever it is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::switch::Switcher;
use super::table::MountEntry;
use super::unmount::{Detach, UnmountError, unmount};
use crate::core::Core;
use crate::fuse::Notices;
use crate::holder::InKeeping;

/// How long an unmount waits for the kernel to let go.
const LET_GO: Duration = Duration::from_secs(10);

/// A mount being served. Dropping it takes the mount away, lazily if it is in use.
#[derive(Debug)]
pub struct Mounted {
    pub(super) dir: PathBuf,
    /// What the kernel calls it.
    pub(super) entry: Option<MountEntry>,
    pub(super) ended: CancellationToken,
    pub(super) survival: Survival,
    pub(super) serving: Serving,
    /// Fires when it needs no process any more, where it did at first.
    pub(super) whole: Option<CancellationToken>,
}

/// By whom a mount is served.
#[derive(Debug)]
pub(super) enum Serving {
    /// By this process.
    Here {
        core: Arc<Core>,
        /// Closes when it has ended.
        session: Receiver<()>,
        /// Whether the kernel reads files by itself.
        passed: Passed,
        /// Tells the kernel what to forget.
        notices: Option<Notices>,
    },
    /// By the kernel alone.
    ByKernel,
}

/// Whether the kernel reads whole files by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// It does.
    Through,
    /// It was not to.
    Unasked,
    /// It was to, and will not: why.
    Refused(String),
}

/// What becomes of a mount when the process dies that serves it.
#[derive(Debug, Clone)]
pub enum Survival {
    /// It goes on once there is another one, and so do those who wait; where the kernel does not send again what was
    /// asked already (before Linux 6.9), each of these gets one error.
    Kept {
        /// By whom.
        by: Arc<InKeeping>,
        /// Whether the kernel sends again what was asked and not answered.
        resends: bool,
    },
    /// It needs no process.
    Independent,
    /// It dies, too.
    Dies {
        /// Why, where it was to be kept.
        why: Option<String>,
    },
}

/// How an unmount ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// Nobody uses it any more; its threads have ended.
    Ended,
    /// The name is free, but an open file or another mount namespace still uses it.
    StillServed,
}

impl Mounted {
    /// The mount point, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `major:minor` that its files show, where it has a name.
    pub fn device(&self) -> Option<&str> {
        self.entry.as_ref().map(|entry| &*entry.device).filter(|device| !device.is_empty())
    }

    /// Fires when the mount is gone and no longer used, whoever unmounted it.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Whether it has a name: one that was taken away lazily is served until its last user leaves.
    pub fn has_name(&self) -> bool {
        self.entry.is_some()
    }

    /// Whether the kernel reads files by itself of what this process serves.
    pub fn passed(&self) -> &Passed {
        match &self.serving {
            Serving::Here { passed, .. } => passed,
            Serving::ByKernel => &Passed::Unasked,
        }
    }

    /// What has it show other snapshots; only this process can.
    pub fn switcher(&self) -> Option<Switcher> {
        let Serving::Here { core, notices: Some(notices), .. } = &self.serving else { return None };
        let kept = match &self.survival {
            Survival::Kept { by, .. } => Some(Arc::clone(by)),
            Survival::Independent | Survival::Dies { .. } => None,
        };
        Some(Switcher { core: Arc::clone(core), notices: notices.clone(), kept })
    }

    /// What becomes of it when this process dies.
    pub fn survival(&self) -> &Survival {
        static INDEPENDENT: Survival = Survival::Independent;
        match &self.whole {
            Some(whole) if whole.is_cancelled() => &INDEPENDENT,
            _ => &self.survival,
        }
    }

    /// Leaves it to the next process, which its holder gives it to: nothing is unmounted, and who waits goes on
    /// waiting.
    pub fn leave(self) {
        if let Serving::Here { core, .. } = &self.serving {
            core.leave();
        }
        std::mem::forget(self);
    }

    /// Takes the mount away and waits until the kernel has let go of it.
    ///
    /// [`UnmountError::Busy`] when it is in use and `detach` is [`Detach::WhenUnused`]; the mount then
    /// goes on as before. With [`Detach::Lazily`] the name is freed at once and users go on.
    pub fn unmount(&mut self, detach: Detach) -> Result<Unmounted, UnmountError> {
        self.detach(detach)?;
        let Serving::Here { core, session, .. } = &self.serving else {
            // Who still reads it needs nobody.
            self.ended.cancel();
            return Ok(Unmounted::Ended);
        };
        let wait = match detach {
            Detach::WhenUnused => LET_GO,
            Detach::Lazily | Detach::Remains => Duration::ZERO,
        };
        match session.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => Ok(Unmounted::StillServed),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                core.stop();
                Ok(Unmounted::Ended)
            }
        }
    }

    /// Unmounts unless it has been done already: what else is mounted there now is not ours.
    fn detach(&self, detach: Detach) -> Result<(), UnmountError> {
        let Some(entry) = self.entry.as_ref().filter(|_| !self.ended.is_cancelled()) else {
            return Ok(());
        };
        match unmount(entry, detach) {
            Err(UnmountError::NotMounted(_)) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Serving::Here { core, .. } = &self.serving {
            core.stop();
        }
        if let Survival::Kept { by, .. } = &self.survival {
            // Who still uses it learns that nobody serves it.
            by.end();
        }
        if let Err(error) = self.detach(Detach::Lazily) {
            tracing::error!(dir = %self.dir.display(), %error, "a mount could not be taken away");
        }
    }
}
