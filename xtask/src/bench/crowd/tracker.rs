//! A tracker of one torrent: whoever announces itself is told who else has.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::bencode::Value;
use crate::run::Failure;

/// How soon a peer asks again, in seconds.
const INTERVAL: u64 = 30;
/// A peer that is silent for so long is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running tracker; it ends when this is dropped.
pub struct Tracker {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    peers: Peers,
    serving: Option<JoinHandle<()>>,
}

/// Who has announced itself, and how many bytes it lacks.
type Peers = Arc<Mutex<BTreeMap<SocketAddrV4, u64>>>;

impl Tracker {
    /// Listens on a free port of this address.
    pub fn start(ip: Ipv4Addr) -> Result<Self, Failure> {
        let failed = |error| Failure::Other(format!("cannot start a tracker: {error}"));
        let listener = Arc::new(TcpListener::bind((ip, 0)).map_err(failed)?);
        let address = listener.local_addr().map_err(failed)?;
        let peers = Peers::default();
        let (taking, known) = (Arc::clone(&listener), Arc::clone(&peers));
        let serve = move || {
            while let Ok((stream, from)) = taking.accept() {
                // Who hangs up half-way comes again.
                let _ = answer(&stream, from, &known);
            }
        };
        let serving = thread::Builder::new().name("tracker".to_owned()).spawn(serve);
        Ok(Self { listener, address, peers, serving: Some(serving.map_err(failed)?) })
    }

    /// What goes into a torrent.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// Whether somebody has announced that it has everything.
    pub fn has_a_seed(&self) -> bool {
        lock(&self.peers).values().any(|left| *left == 0)
    }

    /// Knows nobody again.
    pub fn forget(&self) {
        lock(&self.peers).clear();
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        // Wakes whoever waits in accept.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

fn lock(peers: &Peers) -> MutexGuard<'_, BTreeMap<SocketAddrV4, u64>> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: &TcpStream, from: SocketAddr, peers: &Peers) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = match (Announcement::read(&request), from) {
        (Some(announcement), SocketAddr::V4(from)) => {
            let peer = SocketAddrV4::new(*from.ip(), announcement.port);
            ("200 OK", told(&mut lock(peers), peer, announcement))
        }
        _ => ("400 Bad Request", Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat())?;
    stream.shutdown(Shutdown::Write)
}

/// Takes note of a peer; what it is told.
fn told(
    peers: &mut BTreeMap<SocketAddrV4, u64>,
    peer: SocketAddrV4,
    announcement: Announcement,
) -> Vec<u8> {
    match announcement.stopped {
        true => peers.remove(&peer),
        false => peers.insert(peer, announcement.left),
    };
    let others = peers.keys().filter(|other| **other != peer);
    let compact = others.flat_map(|other| {
        let [high, low] = other.port().to_be_bytes();
        other.ip().octets().into_iter().chain([high, low])
    });
    let compact = Value::Bytes(compact.collect());
    Value::dictionary([("interval", Value::Integer(INTERVAL)), ("peers", compact)]).encode()
}

/// What a peer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announcement {
    port: u16,
    left: u64,
    stopped: bool,
}

impl Announcement {
    /// Of the first line of a request.
    fn read(request: &str) -> Option<Self> {
        let target = request.strip_prefix("GET /announce?")?.split(' ').next()?;
        let fields: BTreeMap<_, _> =
            target.split('&').filter_map(|field| field.split_once('=')).collect();
        Some(Self {
            port: fields.get("port")?.parse().ok()?,
            left: fields.get("left")?.parse().ok()?,
            stopped: fields.get("event") == Some(&"stopped"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_where_it_is_and_what_it_lacks() {
        let line = "GET /announce?info_hash=%01%02&port=6881&left=10&event=started HTTP/1.1\r\n";
        let read = Announcement::read(line);
        assert_eq!(read, Some(Announcement { port: 6881, left: 10, stopped: false }));
        assert_eq!(Announcement::read("GET /scrape?port=1&left=1 HTTP/1.1\r\n"), None);
        assert_eq!(Announcement::read("GET /announce?port=x&left=1 HTTP/1.1\r\n"), None);
    }

    #[test]
    fn everybody_is_told_of_the_others() {
        let at = |host| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), 0x1ae1);
        let here = |left| Announcement { port: 0x1ae1, left, stopped: false };
        let mut peers = BTreeMap::new();
        assert_eq!(told(&mut peers, at(1), here(0)), b"d8:intervali30e5:peers0:e");
        let second = told(&mut peers, at(2), here(5));
        assert_eq!(second, b"d8:intervali30e5:peers6:\x0a\0\0\x01\x1a\xe1e");
        told(&mut peers, at(1), Announcement { stopped: true, ..here(0) });
        assert_eq!(told(&mut peers, at(2), here(0)), b"d8:intervali30e5:peers0:e");
    }
}
