//! Who is at the other end of a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::{Pid, Uid};

/// A process, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub user: Uid,
    /// `None` where it has no number here: it is in a container that is not below this one.
    pub pid: Option<Pid>,
}

/// Who made the connection, or listened for it.
#[allow(unsafe_code)]
pub(super) fn peer_of(socket: impl AsFd) -> io::Result<Peer> {
    const LENGTH: libc::socklen_t = size_of::<libc::ucred>() as libc::socklen_t;
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = LENGTH;
    let descriptor = socket.as_fd().as_raw_fd();
    let (place, size) = ((&raw mut peer).cast(), &raw mut length);
    // SAFETY: the descriptor is open for the call, and the kernel writes no more than `length` bytes to `peer`.
    let told =
        unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_PEERCRED, place, size) };
    if told < 0 {
        return Err(io::Error::last_os_error());
    }
    if length != LENGTH {
        return Err(io::Error::other("the kernel does not say who is at the other end"));
    }
    Ok(Peer { user: Uid::from_raw(peer.uid), pid: Pid::from_raw(peer.pid) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn this_process_is_at_the_other_end_of_its_own_socket() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = Peer { user: rustix::process::geteuid(), pid: Some(rustix::process::getpid()) };
        assert_eq!(peer_of(&one).unwrap(), own);
    }
}
