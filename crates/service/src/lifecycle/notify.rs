//! Telling systemd (or whoever set `NOTIFY_SOCKET`) how the process fares: one datagram.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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
        Some(socket) if !socket.is_empty() => {
            send(&socket, state).map_err(|source| NotifyError { socket: socket.clone(), source })
        }
        _ => Ok(()),
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
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
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&listener), b"READY=1");

        let name = format!("dfs-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(received(&listener), b"STOPPING=1");
    }

    #[test]
    fn a_socket_that_nobody_reads_is_an_error() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1").is_err());
    }
}
