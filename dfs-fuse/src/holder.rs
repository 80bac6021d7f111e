//! What a mount needs to outlive its agent, in the hands of somebody who does not die with the agent.
//!
//! Of each mount are kept the descriptor through which the kernel sends its requests and a [`Record`] of what it
//! shows; both in memory only. A later agent takes them over ([`crate::mount::resume`]): what the earlier one had
//! not answered is sent again, and who has files open does not notice. The holder is a small process that the agent
//! starts and that starts the agent again ([`own`]), one of the machine's, outside of the agent's container, or systemd.
//! Where that process dies the agent starts another, which keeps all but guarded mounts: these end with it (decision 0028).
//! Where both die at once, the mounts are dead.

mod address;
mod gate;
mod guarded;
mod own;
pub(crate) mod packet;
mod peer;
pub mod process;
mod record;
pub mod second;
mod supervision;
mod systemd;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

pub use own::{Own, Starting, socket_in};
pub use packet::Then;
pub use record::{FORMAT as RECORD_FORMAT, Record};
pub use systemd::{Moved, Systemd};

use crate::fanotify::Group;

/// Who keeps mounts. Calls block for as long as it takes to answer.
pub trait Holder: Debug + Send + Sync + 'static {
    /// What an earlier agent left with it. Nothing where nobody has left anything.
    fn take_over(&self) -> io::Result<Left>;

    /// The agent goes on with all that it was given.
    fn ready(&self) -> io::Result<()>;

    /// Has it keep a mount.
    fn keep(&self, kept: Kept) -> io::Result<()>;

    /// A mount is over, or needs nobody any more.
    fn let_go(&self, name: &str) -> io::Result<()>;

    /// Why it cannot guard mounts whose reads wait for bytes, where it cannot.
    fn cannot_guard(&self) -> Option<&'static str>;

    /// Has it guard one: the end of a line at which it tells of reads ([`packet::Wanted`]) and hears how they end. The line
    /// closes when the holder is gone, or takes the agent for gone.
    fn guard(&self, guard: Guard) -> io::Result<OwnedFd>;

    /// Another line of one that it guards, where the one before was closed and it is there all the same: as where it hung so
    /// long that it was not waited for. It tells of all reads again that wait.
    fn line(&self, name: &str) -> Option<OwnedFd>;

    /// Nobody fetches anything for a guarded mount any more: its reads fail until nobody uses it.
    fn close(&self, name: &str) -> io::Result<()>;

    /// The agent ends by itself.
    fn farewell(&self, then: Then) -> io::Result<()>;

    /// This process is about to end: nobody waits for longer than a moment for an answer any more. Blocks for that moment
    /// where somebody does.
    fn hurry(&self) {}

    /// Whether mounts stay with it when the agent is told to end now, for the next one that somebody starts.
    fn outlives_a_stop(&self) -> bool;

    /// Its process, while there is one.
    fn pid(&self) -> Option<u32>;
}

/// A mount as it is kept.
#[derive(Debug)]
pub struct Kept {
    /// Names it among the mounts of its agent, for as long as it is there.
    pub name: String,
    /// The kernel's end of it.
    pub device: OwnedFd,
    /// What it shows.
    pub record: Record,
}

/// A mount whose reads wait for bytes, as it is guarded: the kernel shows it, and asks before it reads.
#[derive(Debug)]
pub struct Guard {
    /// Names it as [`Kept::name`] does.
    pub name: String,
    /// Where the kernel asks.
    pub(crate) group: Group,
    /// Can be read once nobody uses the mount any more.
    pub ended: OwnedFd,
    /// What it shows, and of which spaces the files are.
    pub record: Record,
    /// The files that the kernel asks about, opened before it did.
    pub contents: Vec<File>,
}

impl Guard {
    /// Another hold on the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            group: self.group.try_clone()?,
            ended: self.ended.try_clone()?,
            record: self.record.try_clone()?,
            contents: self.contents.iter().map(File::try_clone).collect::<io::Result<_>>()?,
        })
    }

    /// As it goes with a message.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let own = [self.group.as_fd(), self.ended.as_fd(), self.record.as_fd()];
        own.into_iter().chain(self.contents.iter().map(File::as_fd)).collect()
    }

    /// As it came with one.
    fn of(name: String, descriptors: impl IntoIterator<Item = OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        Some(Self {
            name,
            group: Group::from_descriptor(descriptors.next()?),
            ended: descriptors.next()?,
            record: Record::from_descriptor(descriptors.next()?),
            contents: descriptors.map(File::from).collect(),
        })
    }
}

/// A guarded mount that an earlier agent left.
#[derive(Debug)]
pub struct LeftGuard {
    /// It.
    pub guard: Guard,
    /// The line to its holder, as of [`Holder::guard`].
    pub line: OwnedFd,
}

/// What an earlier agent left.
#[derive(Debug, Default)]
pub struct Left {
    /// Mounts whose requests come to an agent.
    pub kept: Vec<Kept>,
    /// Mounts whose reads wait for bytes.
    pub guarded: Vec<LeftGuard>,
}

impl Kept {
    /// Another hold on the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (device, record) = (self.device.try_clone()?, self.record.try_clone()?);
        Ok(Self { name: self.name.clone(), device, record })
    }

    /// As it goes with a message.
    fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.device.as_fd(), self.record.as_fd()]
    }
}

/// Whether the agent whose data lies in `data_dir` has a holder: one that died comes back.
pub fn is_there(data_dir: &Path) -> bool {
    process::connection_to(&socket_in(data_dir)).is_ok()
}

/// Whether the kernel has let go of the mount behind a descriptor: nobody uses it any more.
pub(crate) fn is_gone(device: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::from_borrowed_fd(device, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A poll that fails tells nothing.
    poll(&mut asked, Some(&now)).is_ok()
        && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

/// A mount in its holder's hands. Dropping this leaves it there.
#[derive(Debug)]
pub struct InKeeping {
    /// Whose.
    pub holder: Arc<dyn Holder>,
    /// What it is called there.
    pub name: String,
    /// What it shows.
    pub record: Record,
    /// What of it is kept.
    pub what: InKeepingIs,
}

/// What is kept of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InKeepingIs {
    /// The kernel's requests.
    Requests,
    /// Reads that wait for bytes.
    Reads,
}

impl InKeeping {
    /// It is over: nothing is to be taken over any more.
    pub fn end(&self) {
        let told = match self.what {
            InKeepingIs::Requests => self.holder.let_go(&self.name),
            // Who still uses it must not see what is not there.
            InKeepingIs::Reads => self.holder.close(&self.name),
        };
        if let Err(error) = told {
            // It sees by itself that the kernel has let go.
            tracing::debug!(name = self.name, %error, "the holder was not told of a mount's end");
        }
    }
}
