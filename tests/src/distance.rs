//! A long way to a server: a relay in front of it that holds every byte back, each way, for half of a round trip, and counts
//! what passes. What is on its way is bounded: a sender who is faster than the reader waits.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Failure;

/// Bytes that are taken up at a time, and how many of these are on their way: 16 MiB, what a gigabit carries in 130 ms.
const CHUNK: usize = 16 << 10;
const ON_THE_WAY: usize = 1024;

/// The relay; gone when this is dropped, with whatever is on its way.
pub struct Distance {
    address: SocketAddr,
    listener: TcpListener,
    back: Arc<AtomicU64>,
    accepting: Option<JoinHandle<()>>,
}

/// Bytes, and when they arrive.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

impl Distance {
    /// Listens at `at`, on the machine of the thread that calls this, in front of the server at `to`.
    pub fn start(at: SocketAddr, to: SocketAddr, round_trip: Duration) -> Result<Self, Failure> {
        let failed = || Failure::of("cannot lay a way to a server");
        let listener = TcpListener::bind(at).map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let back = Arc::new(AtomicU64::new(0));
        let (accepted, counted) = (listener.try_clone().map_err(failed())?, Arc::clone(&back));
        let accepting = thread::spawn(move || {
            while let Ok((client, _)) = accepted.accept() {
                // A server that is gone shows itself as a connection that ends.
                let _ = relay(client, to, round_trip / 2, &counted);
            }
        });
        Ok(Self { address, listener, back, accepting: Some(accepting) })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that the server has sent, of all connections so far.
    pub fn sent_back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        // Ends the wait for connections. What is connected ends with its clients.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a relay of tests connects by itself")]
fn relay(
    client: TcpStream,
    to: SocketAddr,
    late: Duration,
    counted: &Arc<AtomicU64>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(to)?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    let there = (client.try_clone()?, server.try_clone()?);
    pass(there.0, there.1, late, Arc::new(AtomicU64::new(0)));
    pass(server, client, late, Arc::clone(counted));
    Ok(())
}

/// Carries what one end sends to the other, until it ends or the other end takes no more.
fn pass(from: TcpStream, to: TcpStream, late: Duration, counted: Arc<AtomicU64>) {
    let (taken, arriving) = sync_channel(ON_THE_WAY);
    thread::spawn(move || take(from, late, &taken, &counted));
    thread::spawn(move || deliver(to, &arriving));
}

fn take(mut from: TcpStream, late: Duration, taken: &SyncSender<Chunk>, counted: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(read as u64, Ordering::Relaxed);
        let chunk = Chunk { due: Instant::now() + late, bytes: buffer[..read].to_vec() };
        if taken.send(chunk).is_err() {
            break;
        }
    }
}

fn deliver(mut to: TcpStream, arriving: &Receiver<Chunk>) {
    for chunk in arriving {
        while let Some(left) = chunk.due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        if to.write_all(&chunk.bytes).is_err() {
            break;
        }
    }
    // The other end hears of it; it may have gone itself.
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a relay of tests is connected to")]
    fn what_goes_there_comes_back_whole_and_not_before_the_round_trip() {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = TcpListener::bind(here).unwrap();
        let at = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut one, _) = server.accept().unwrap();
            let mut all = Vec::new();
            one.read_to_end(&mut all).unwrap();
            one.write_all(&all).unwrap();
        });
        let way = Distance::start(here, at, Duration::from_millis(60)).unwrap();
        let begun = Instant::now();
        let mut client = TcpStream::connect(way.address()).unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        echo.join().unwrap();
        assert!(back == sent && begun.elapsed() >= Duration::from_millis(60));
        assert_eq!(way.sent_back(), 100_000);
    }
}
