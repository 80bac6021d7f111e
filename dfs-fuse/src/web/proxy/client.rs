//! Who asks the proxy, and which addresses they may be led to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use dfs_source::{Reach, any_origin};
use rustix::io::Errno;

/// Any one does to ask for the way.
const PORT: u16 = 9;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub from: SocketAddr,
}

impl Client {
    /// Whether it is of this machine, and can reach by itself what only this machine can.
    pub fn is_ours(self) -> bool {
        self.from.ip().to_canonical().is_loopback()
    }

    pub fn reach(self) -> Reach {
        Reach::only(if self.is_ours() { any_origin } else { beyond_this_machine })
    }
}

/// What others may be led to.
pub(super) fn beyond_this_machine(ip: IpAddr) -> bool {
    any_origin(ip) && !is_of_this_machine(ip)
}

/// Whether an address is one of this machine's: who goes there from here comes from there too. Nothing is sent for it. Where that
/// cannot be found out it is.
pub(super) fn is_of_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let anywhere: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    if ip.is_loopback() {
        return true;
    }
    let socket = match UdpSocket::bind((anywhere, 0)) {
        Ok(socket) => socket,
        // A machine without IPv6 has no such address.
        Err(error) => return error.raw_os_error() != Some(Errno::AFNOSUPPORT.raw_os_error()),
    };
    // No way leads there: nobody is led there either.
    socket.connect((ip, PORT)).is_ok() && socket.local_addr().is_ok_and(|own| own.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_not_led_to_this_machine() {
        let client = |from: &str| Client { from: from.parse().unwrap() };
        let (ours, theirs) = (client("[::ffff:127.0.0.1]:1"), client("10.0.0.1:1"));
        for ip in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let ip = ip.parse().unwrap();
            assert!((ours.reach().named)(ip) && !(theirs.reach().named)(ip), "{ip}");
        }
        for ip in ["169.254.169.254", "0.0.0.0", "fe80::1"] {
            let ip = ip.parse().unwrap();
            assert!(!(ours.reach().named)(ip) && !(theirs.reach().named)(ip), "{ip}");
        }
        // Of no machine: for documents.
        assert!((theirs.reach().named)("198.51.100.7".parse().unwrap()));
    }
}
