//! A connection in its place: it ends when it has to give the place up, whatever it waits for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::places::{Place, TooMany, Who};

/// When a connection has said something of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// With its first byte, as this host where a certificate names it.
    Bytes(Option<Who>),
    /// When its first request has arrived: [`Arrival::speaks`] is called.
    Requests,
}

/// See the module.
pub(crate) struct Seated<S> {
    stream: S,
    speaks: Speaks,
    place: Arc<Place>,
    /// Ends when the place is to be given up; nothing once the connection has spoken.
    silenced: Option<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
}

impl<S> Seated<S> {
    pub(super) fn new(stream: S, place: Arc<Place>, speaks: Speaks) -> Self {
        let silenced = Some(Box::pin(Arc::clone(&place).silenced()) as Pin<Box<_>>);
        Self { stream, speaks, place, silenced }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Whether it has to go.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(silenced) = &mut self.silenced else { return Ok(()) };
        if self.place.is_heard() {
            self.silenced = None;
            return Ok(());
        }
        match silenced.as_mut().poll(cx) {
            Poll::Ready(error) => {
                // It may be polled again, to be shut down.
                let kind = error.kind();
                let ended = std::future::poll_fn(move |_| Poll::Ready(kind.into()));
                self.silenced = Some(Box::pin(ended));
                Err(error)
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let (Speaks::Bytes(who), true) = (this.speaks, buf.filled().len() > before) {
            this.place.hear(who).map_err(io::Error::other)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// What a server knows of a connection when a request comes over it.
#[derive(Clone)]
pub(crate) struct Arrival<I> {
    /// Who is there.
    pub(super) info: I,
    place: Arc<Place>,
}

impl<I> Arrival<I> {
    /// A request has come, of whom may ask.
    pub(super) fn speaks(&self, who: Option<Who>) -> Result<(), TooMany> {
        self.place.hear(who)
    }
}

impl<S: Connected> Connected for Seated<S> {
    type ConnectInfo = Arrival<S::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arrival { info: self.stream.connect_info(), place: Arc::clone(&self.place) }
    }
}
