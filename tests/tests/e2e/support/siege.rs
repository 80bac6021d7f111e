//! Connections by the thousand that say nothing of use, and stay.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, connect, recv, send, socket, sockopt,
};

/// How often those that drip say one byte more.
const DRIP: Duration = Duration::from_millis(500);

/// Where they come to.
#[derive(Clone)]
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// How they behave.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Not a byte.
    Silent,
    /// This and no more.
    Says(&'static [u8]),
    /// This, byte by byte, and then zeroes.
    Drips(&'static [u8]),
    /// This, and then they take nothing of the answer: their window is closed.
    TakesNothing(&'static [u8]),
}

/// How soon they come again when they are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many at a time at each door, with each drip.
    Some(usize),
    /// As soon as that is seen.
    AtOnce,
}

impl Pace {
    fn most(self) -> usize {
        match self {
            Self::Some(most) => most,
            Self::AtOnce => usize::MAX,
        }
    }

    fn pause(self) -> Duration {
        match self {
            Self::Some(_) => DRIP,
            Self::AtOnce => DRIP / 50,
        }
    }
}

/// One that has come.
struct Idler {
    socket: OwnedFd,
    manner: Manner,
    door: usize,
    said: usize,
}

fn come(door: &Door, manner: Manner) -> io::Result<OwnedFd> {
    let socket = match door {
        Door::Unix(path) => UnixStream::connect(path)?.into(),
        Door::Tcp(at) => {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            if let Manner::TakesNothing(_) = manner {
                sockopt::set_socket_recv_buffer_size(&socket, 1)?;
            }
            connect(&socket, at)?;
            socket
        }
    };
    if let Manner::Says(words) | Manner::TakesNothing(words) = manner {
        // Whoever was closed already finds out soon.
        let _ = send(&socket, words, QUIETLY);
    }
    Ok(socket)
}

impl Idler {
    /// Whether the other side has gone; what it has said is taken, except by those who take nothing.
    fn is_closed(&self) -> bool {
        if let Manner::TakesNothing(_) = self.manner {
            return false;
        }
        loop {
            match recv(&self.socket, &mut [0; 256], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return true,
                Ok(_) => {}
                Err(error) => return error != Errno::AGAIN,
            }
        }
    }

    fn drip(&mut self) {
        if let Manner::Drips(words) = self.manner {
            let byte = words.get(self.said).copied().unwrap_or(b'0');
            self.said += 1;
            let _ = send(&self.socket, &[byte], QUIETLY);
        }
    }
}

const QUIETLY: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// They stay, and come again when they are closed, until they are told to rest; when this is dropped they are gone.
pub struct Siege {
    told: Arc<AtomicU8>,
    idling: Option<JoinHandle<()>>,
}

const RESTS: u8 = 1;
const OVER: u8 = 2;

impl Siege {
    /// So many come to each door from where the calling thread is, in each of its manners in turn.
    pub fn lay(doors: Vec<(Door, &'static [Manner])>, each: usize, pace: Pace) -> io::Result<Self> {
        let mut all = Vec::new();
        for number in 0..each {
            for (door, (place, manners)) in doors.iter().enumerate() {
                let manner = manners[number % manners.len()];
                all.push(Idler { socket: come(place, manner)?, manner, door, said: 0 });
            }
        }
        let told = Arc::new(AtomicU8::new(0));
        let listens = Arc::clone(&told);
        let idling = thread::spawn(move || {
            let mut dripped = Instant::now();
            while listens.load(Ordering::Relaxed) != OVER {
                if dripped.elapsed() >= DRIP {
                    dripped = Instant::now();
                    all.iter_mut().for_each(Idler::drip);
                }
                if listens.load(Ordering::Relaxed) != RESTS {
                    come_again(&mut all, &doors, pace.most());
                }
                thread::park_timeout(pace.pause());
            }
        });
        Ok(Self { told, idling: Some(idling) })
    }

    /// From now on they stay, where they have not been closed, and none comes again.
    pub fn rest(&self) {
        self.told.store(RESTS, Ordering::Relaxed);
    }
}

fn come_again(all: &mut [Idler], doors: &[(Door, &'static [Manner])], most: usize) {
    let mut again = vec![0; doors.len()];
    for idler in all {
        if again[idler.door] < most && idler.is_closed() {
            again[idler.door] += 1;
            if let Ok(socket) = come(&doors[idler.door].0, idler.manner) {
                (idler.socket, idler.said) = (socket, 0);
            }
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.told.store(OVER, Ordering::Relaxed);
        if let Some(idling) = self.idling.take() {
            idling.thread().unpark();
            let _ = idling.join();
        }
    }
}
