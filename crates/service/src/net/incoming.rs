//! Connections that others make: taken at once, greeted beside each other, handed on when it is known who it is.
//!
//! A greeting is a task of its own with a deadline. Each connection has a place from the moment it is taken, and keeps
//! it until it is closed; whoever says nothing loses it ([`places`](super::places)).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::local::{LocalListener, SocketName};
use super::places::{Place, Places, Serves, Who};
use super::seated::{Seated, Speaks};
use super::security::{Peer, Security, Trust};
use super::stream::Stream;
use crate::tls::{self, Plane};

/// How long an acceptor rests when the process has no file descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

type Greeted = io::Result<Seated<Stream>>;

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
        let serves = match plane {
            Plane::Grpc => Serves::Grpc,
            Plane::Pieces => Serves::Pieces,
        };
        let (places, greetings) = (Places::new(serves), tokio::sync::Mutex::default());
        Self { listener, security, plane, places, greetings }
    }

    /// Connections, one after the other. What is wrong with one, or for a moment with the listener, ends nothing.
    pub(super) fn stream(self) -> impl futures::Stream<Item = Greeted> {
        endless(self, async |incoming| incoming.next().await)
    }

    /// The next connection. Whoever is refused is not heard of; an error is the listener's.
    pub(super) async fn next(&self) -> Greeted {
        let identity = match &self.security {
            Security::Plain => {
                let (stream, from, place) = self.accept().await?;
                return Ok(seated(Stream::plain(stream, from), place, self.plane));
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
                    let (stream, from, place) = accepted?;
                    greetings.spawn(greet(Arc::clone(identity), stream, from, self.plane, place));
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, Arc<Place>)> {
        accept(&self.listener, &self.places).await
    }
}

/// What `next` gives, one after the other, passing over errors.
fn endless<T, C>(
    from: T,
    next: impl AsyncFn(&T) -> io::Result<C>,
) -> impl futures::Stream<Item = io::Result<C>> {
    futures::stream::unfold((from, next), async |(from, next)| {
        loop {
            match next(&from).await {
                Ok(connection) => return Some((Ok(connection), (from, next))),
                Err(error) => tracing::debug!(%error, "accepting a connection failed"),
            }
        }
    })
}

/// What was accepted. Where the process has nothing left it takes a while: the caller tries again at once and would spin
/// until somebody closes a file.
async fn rested<T>(accepting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let accepted = accepting.await;
    if accepted.as_ref().is_err_and(is_exhaustion) {
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
    accepted
}

/// The next connection that there is a place for, and that place; an error is the listener's. Nothing is lost when this
/// is not waited for any longer.
pub(super) async fn accept(
    listener: &TcpListener,
    places: &Arc<Places>,
) -> io::Result<(TcpStream, SocketAddr, Arc<Place>)> {
    loop {
        places.room().await;
        let (stream, from) = rested(listener.accept()).await?;
        let taken = places.take(Who::at(from.ip())).map_err(io::Error::other);
        match stream.set_nodelay(true).and(taken) {
            Ok(place) => return Ok((stream, from, place)),
            Err(error) => tracing::debug!(%error, "a connection is refused"),
        }
    }
}

fn seated(stream: Stream, place: Arc<Place>, plane: Plane) -> Seated<Stream> {
    let speaks = match plane {
        Plane::Grpc => Speaks::Requests,
        Plane::Pieces => Speaks::Bytes(stream.peer().host()),
    };
    Seated::new(stream, place, speaks)
}

async fn greet(
    identity: Arc<tls::Identity>,
    stream: TcpStream,
    from: SocketAddr,
    plane: Plane,
    place: Arc<Place>,
) -> Greeted {
    let greeted = tokio::select! {
        greeted = identity.accept(stream, plane) => greeted,
        silenced = Arc::clone(&place).silenced() => Err(silenced),
    };
    let refused = |error: io::Error| io::Error::new(error.kind(), format!("{from}: {error}"));
    let (stream, names) = greeted.map_err(refused)?;
    let trust = names.map_or(Trust::Anonymous, |names| Trust::Certified(Arc::new(names)));
    Ok(seated(Stream::tls(stream, Peer { address: from, trust }), place, plane))
}

/// Connections to a socket of this machine, one after the other; its name goes with this.
pub(super) fn local_stream(
    listener: LocalListener,
) -> impl futures::Stream<Item = io::Result<Seated<UnixStream>>> {
    let (listener, name) = listener.into_parts();
    let local = Local { listener, places: Places::new(Serves::Local), _name: name };
    endless(local, async |local| {
        local.places.room().await;
        let (stream, _) = rested(local.listener.accept()).await?;
        let user = stream.peer_cred().map_or(u32::MAX, |cred| cred.uid());
        let place = local.places.take(Who::User(user)).map_err(io::Error::other)?;
        Ok(Seated::new(stream, place, Speaks::Requests))
    })
}

struct Local {
    listener: UnixListener,
    places: Arc<Places>,
    _name: SocketName,
}

/// Where pages are served: connections that are asked one thing each, and are closed when they are silent for too long
/// before the answer is taken.
pub(crate) struct Pages {
    listener: TcpListener,
    places: Arc<Places>,
}

impl Pages {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Places::new(Serves::Pages) }
    }
}

impl axum::serve::Listener for Pages {
    type Io = Seated<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match accept(&self.listener, &self.places).await {
                Ok((stream, from, place)) => {
                    return (Seated::new(stream, place, Speaks::Requests), from);
                }
                Err(error) => tracing::debug!(%error, "accepting a connection failed"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
