//! Telling systemd (or whoever set `NOTIFY_SOCKET`) how the process fares: one datagram.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

/// Most descriptors that go with a state.
const DESCRIPTORS: usize = 2;

/// Why the service manager was not told.
#[derive(Debug, thiserror::Error)]
#[error("cannot send to NOTIFY_SOCKET {socket:?}")]
pub struct NotifyError {
    /// The value of the variable.
    pub socket: std::ffi::OsString,
    /// Why not.
    pub source: io::Error,
}

/// Sends `state` (`READY=1`, `STOPPING=1`, …) if somebody listens for it.
pub fn notify(state: &str) -> Result<(), NotifyError> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => notify_at(&socket, state, &[])
            .map_err(|source| NotifyError { socket: socket.clone(), source }),
        _ => Ok(()),
    }
}

/// Sends `state` to who listens on `socket`, a path or `@` and an abstract name, with at most two descriptors.
pub fn notify_at(socket: &OsStr, state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(socket.as_bytes())?,
    };
    let own = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let parts = [IoSlice::new(state.as_bytes())];
    sendmsg_addr(&own, &address, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    fn received(listener: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    #[test]
    fn a_state_reaches_a_socket_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        notify_at(path.as_os_str(), "READY=1", &[]).unwrap();
        assert_eq!(received(&listener), b"READY=1");

        let name = format!("dfs-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        notify_at(OsStr::new(&format!("@{name}")), "STOPPING=1", &[]).unwrap();
        assert_eq!(received(&listener), b"STOPPING=1");
    }

    #[test]
    fn a_socket_that_nobody_reads_is_an_error() {
        assert!(notify_at(OsStr::new("/nonexistent/notify"), "READY=1", &[]).is_err());
    }
}
