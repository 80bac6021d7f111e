//! From a descriptor to a session that can be run, also where another process had one before.
//!
//! The library begins every session by answering the kernel's first request. For a mount that an earlier process has
//! served that request was answered long ago: it is given one through a socket, whose place the kernel's descriptor
//! then takes. Requests that the earlier process had taken and not answered are sent again by the kernel when it is
//! told to (Linux 6.9). An older kernel fails them when the descriptor through which they were taken is closed; so
//! there a process takes them through one of its own, which closes when it dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use fuser::{Config, InitFlags, Session, SessionACL};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Adapter, Direct, PrefillSlot};

/// `FUSE_INIT`.
const INIT: u32 = 26;

/// The version spoken to the library: the first with resending.
const VERSION: (u32, u32) = (7, 40);

/// `FUSE_NOTIFY_RESEND`, where an answer has its error.
const NOTIFY_RESEND: i32 = 7;

/// What kernel and process agreed upon at the beginning of a mount: a later process must keep to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed(u64);

impl Agreed {
    /// As it was recorded.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// To be recorded.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether the kernel can be told of files that it reads by itself.
    pub fn passes(self) -> bool {
        self.0 & InitFlags::FUSE_PASSTHROUGH.bits() != 0
    }

    /// Whether the kernel sends again what a process has taken and not answered.
    pub fn resends(self) -> bool {
        self.0 & InitFlags::FUSE_HAS_RESEND.bits() != 0
    }
}

impl From<InitFlags> for Agreed {
    fn from(flags: InitFlags) -> Self {
        Self(flags.bits())
    }
}

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// With the mount.
    Mount,
    /// Where another process ended.
    TakenOver(Agreed),
}

/// A session that waits to be run.
pub(crate) struct Began {
    pub session: Session<Adapter>,
    pub prefill: PrefillSlot,
    pub agreed: Agreed,
    direct: Arc<OnceLock<Direct>>,
}

impl Began {
    /// Has files opened through `direct`.
    pub fn pass_to(&self, direct: Direct) {
        // Nobody has before: a session begins once.
        let _ = self.direct.set(direct);
    }
}

/// Begins to serve the mount behind `device`.
pub(crate) fn begin(
    adapter: Adapter,
    device: &OwnedFd,
    threads: usize,
    beginning: Beginning,
) -> io::Result<Began> {
    // The kernel lets in whom the mount is for; the library knows only this process's own user.
    let acl = SessionACL::All;
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // All threads read the one descriptor, so that another process can take it over.
    config.clone_fd = false;
    let prefill = adapter.prefill();
    let (known, direct) = (Arc::clone(&adapter.agreed), adapter.direct());
    let (session, agreed) = match beginning {
        Beginning::Mount => {
            let session = Session::from_fd(adapter, device.try_clone()?, acl, config)?;
            (session, known.get().copied().unwrap_or(Agreed(0)))
        }
        Beginning::TakenOver(agreed) => {
            let (ours, theirs) = pair()?;
            rustix::io::write(&ours, &first_request(agreed))?;
            let session = Session::from_fd(adapter, theirs, acl, config)?;
            put_in_place(device.as_fd(), &session)?;
            (session, agreed)
        }
    };
    match (agreed.resends(), beginning) {
        (true, Beginning::TakenOver(_)) => resend(device.as_fd())?,
        (true, Beginning::Mount) => {}
        (false, _) => put_in_place(another(device.as_fd())?.as_fd(), &session)?,
    }
    Ok(Began { session, prefill, agreed, direct })
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The kernel's first request of a mount, as if it offered what was agreed upon and no more.
fn first_request(agreed: Agreed) -> Vec<u8> {
    let flags = agreed.bits() | InitFlags::FUSE_INIT_EXT.bits();
    let read_ahead = crate::core::MAX_READ as u32;
    let body = [VERSION.0, VERSION.1, read_ahead, flags as u32, (flags >> 32) as u32];
    let mut request = Vec::with_capacity(40 + 64);
    // Length, operation; number, node; user, group, process; nothing more.
    request.extend([40 + 64, INIT].map(u32::to_ne_bytes).as_flattened());
    request.extend([1_u64, 0].map(u64::to_ne_bytes).as_flattened());
    request.extend([0_u32; 4].map(u32::to_ne_bytes).as_flattened());
    request.extend(body.map(u32::to_ne_bytes).as_flattened());
    request.resize(40 + 64, 0);
    request
}

/// Lets the kernel send again what was taken and not answered.
fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut notice = Vec::with_capacity(16);
    notice.extend(16_u32.to_ne_bytes());
    notice.extend(NOTIFY_RESEND.to_ne_bytes());
    notice.extend(0_u64.to_ne_bytes());
    rustix::io::write(device, &notice)?;
    Ok(())
}

/// Lets `session` go on with another descriptor in place of its own.
#[allow(unsafe_code)]
fn put_in_place(descriptor: BorrowedFd<'_>, session: &Session<Adapter>) -> io::Result<()> {
    let place = session.as_fd().as_raw_fd();
    // SAFETY: both descriptors are borrowed and so stay open for the call. The session owns `place` before and
    // after: its number does not change, and nobody has begun to read from it.
    let placed = unsafe { libc::dup3(descriptor.as_raw_fd(), place, libc::O_CLOEXEC) };
    if placed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Another descriptor of the same mount, with requests of its own.
#[allow(unsafe_code)]
fn another(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
    const CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
    let new: File = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let mut number = device.as_raw_fd() as u32;
    // SAFETY: both descriptors are open for the call, and the kernel reads one number through the pointer.
    let cloned = unsafe { libc::ioctl(new.as_raw_fd(), CLONE, &raw mut number) };
    if cloned < 0 { Err(io::Error::last_os_error()) } else { Ok(new.into()) }
}
