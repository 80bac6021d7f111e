//! Connections that others make: taken at once, greeted beside each other, handed on when it is known who it is.
//!
//! A greeting is a task of its own with a deadline. There are so many places for greetings, and so many of them for
//! one address: whoever opens connections and says nothing keeps others from nothing but the places that are theirs.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::security::{Peer, Security, Trust};
use super::stream::Stream;
use crate::tls::{self, Plane};

/// Greetings at a time, and those of one address.
const GREETINGS: usize = 512;
const GREETINGS_OF_ONE: usize = 128;

/// How long an acceptor rests when the process has no file descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

type Greeted = io::Result<Stream>;

/// A listener that gives connections whose other side is known.
pub(super) struct Incoming {
    listener: TcpListener,
    security: Security,
    plane: Plane,
    places: Arc<Places>,
    greetings: tokio::sync::Mutex<JoinSet<Greeted>>,
}

impl Incoming {
    pub(super) fn new(listener: TcpListener, security: Security, plane: Plane) -> Self {
        let (places, greetings) = (Arc::default(), tokio::sync::Mutex::default());
        Self { listener, security, plane, places, greetings }
    }

    /// Connections, one after the other. What is wrong with one, or for a moment with the listener, ends nothing.
    pub(super) fn stream(self) -> impl futures::Stream<Item = Greeted> {
        futures::stream::unfold(self, async |incoming| {
            loop {
                match incoming.next().await {
                    Ok(stream) => return Some((Ok(stream), incoming)),
                    Err(error) => tracing::debug!(%error, "accepting a connection failed"),
                }
            }
        })
    }

    /// The next connection. Whoever is refused is not heard of; an error is the listener's.
    pub(super) async fn next(&self) -> Greeted {
        let identity = match &self.security {
            Security::Plain => {
                let (stream, from) = self.accept().await?;
                return Ok(Stream::plain(stream, from));
            }
            Security::Tls(identity) => identity,
        };
        let mut greetings = self.greetings.lock().await;
        loop {
            tokio::select! {
                Some(greeted) = greetings.join_next(), if !greetings.is_empty() => match greeted {
                    Ok(Ok(greeted)) => return Ok(greeted),
                    Ok(Err(error)) => tracing::debug!(%error, "a connection is refused"),
                    Err(error) => tracing::debug!(%error, "a greeting ended"),
                },
                accepted = self.accept() => {
                    let (stream, from) = accepted?;
                    let place = Place::take(&self.places, from.ip());
                    match place {
                        Some(place) => {
                            let greeting = greet(Arc::clone(identity), stream, from, self.plane, place);
                            greetings.spawn(greeting);
                        }
                        None => tracing::debug!(%from, "too many greet at once"),
                    }
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self.listener.accept().await {
            Ok((stream, from)) => {
                stream.set_nodelay(true)?;
                Ok((stream, from))
            }
            Err(error) => {
                if is_exhaustion(&error) {
                    // The caller tries again at once and would spin until somebody closes a file.
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Err(error)
            }
        }
    }
}

async fn greet(
    identity: Arc<tls::Identity>,
    stream: TcpStream,
    from: SocketAddr,
    plane: Plane,
    place: Place,
) -> Greeted {
    let greeted = identity.accept(stream, plane).await;
    drop(place);
    let refused = |error: io::Error| io::Error::new(error.kind(), format!("{from}: {error}"));
    let (stream, names) = greeted.map_err(refused)?;
    let trust = names.map_or(Trust::Anonymous, |names| Trust::Certified(Arc::new(names)));
    Ok(Stream::tls(stream, Peer { address: from, trust }))
}

/// Greetings under way, by address.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One of them; given back when this is dropped.
struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

impl Place {
    fn take(places: &Arc<Places>, of: IpAddr) -> Option<Self> {
        let mut taken = places.0.lock();
        if taken.values().sum::<usize>() >= GREETINGS {
            return None;
        }
        let own = taken.entry(of).or_default();
        if *own >= GREETINGS_OF_ONE {
            return None;
        }
        *own += 1;
        Some(Self { places: Arc::clone(places), of })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(own) = taken.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_places_and_others_have_theirs() {
        let places = Arc::default();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let taken: Vec<_> = std::iter::from_fn(|| Place::take(&places, address(1))).collect();
        assert_eq!(taken.len(), GREETINGS_OF_ONE);
        let other = Place::take(&places, address(2));
        assert!(other.is_some());
        drop(taken);
        let of_all = (1..=9).flat_map(|n| std::iter::repeat_n(address(n), GREETINGS_OF_ONE));
        let taken: Vec<_> = of_all.filter_map(|of| Place::take(&places, of)).collect();
        assert_eq!(taken.len() + 1, GREETINGS);
        drop((taken, other));
        assert!(places.0.lock().is_empty());
    }
}
