//! What a mount needs to outlive its agent, in the hands of somebody who does not die with the agent.
//!
//! Of each mount are kept the descriptor through which the kernel sends its requests and a [`Record`] of what it
//! shows; both in memory only. A later agent takes them over ([`crate::mount::resume`]): what the earlier one had
//! not answered is sent again, and who has files open does not notice. The holder is a small process that the agent
//! starts and that starts the agent again ([`own`]), one of the machine's, outside of the agent's container, or systemd.
//! Where that process dies, the agent starts another; where both die at once, the mounts are dead.

mod address;
mod own;
mod packet;
mod peer;
pub mod process;
mod record;
mod supervision;
mod systemd;

use std::fmt::Debug;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

pub use own::{Own, Starting, socket_in};
pub use packet::Then;
pub use record::{FORMAT as RECORD_FORMAT, Record};
pub use systemd::Systemd;

/// Who keeps mounts. Calls block for as long as it takes to answer.
pub trait Holder: Debug + Send + Sync + 'static {
    /// What an earlier agent left with it. Nothing where nobody has left anything.
    fn take_over(&self) -> io::Result<Vec<Kept>>;

    /// The agent goes on with all that it was given.
    fn ready(&self) -> io::Result<()>;

    /// Has it keep a mount.
    fn keep(&self, kept: Kept) -> io::Result<()>;

    /// A mount is over.
    fn let_go(&self, name: &str) -> io::Result<()>;

    /// The agent ends by itself.
    fn farewell(&self, then: Then) -> io::Result<()>;

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

impl Kept {
    /// Another hold on the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (device, record) = (self.device.try_clone()?, self.record.try_clone()?);
        Ok(Self { name: self.name.clone(), device, record })
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
}

impl InKeeping {
    /// It is over: nothing is to be taken over any more.
    pub fn end(&self) {
        if let Err(error) = self.holder.let_go(&self.name) {
            // It sees by itself that the kernel has let go.
            tracing::debug!(name = self.name, %error, "the holder was not told of a mount's end");
        }
    }
}
