//! Who asks the proxy, and which addresses they may be led to.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use dfs_source::{Reach, any_origin};

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

/// Whether an address is one of this machine's: nobody else can listen there.
pub(super) fn is_of_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
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
