//! Tunnels: the bytes of a client and of who it wants to speak to, carried both ways without being looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dfs_source::{Activity, Reach, look_up};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::patient::Patient;
use super::stream::connected;

/// How long nothing may come from either side.
const QUIET_FOR: Duration = Duration::from_secs(600);

/// How long it may take to be told where a name leads.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// A connection to where a name leads, of that what may be asked; the first one that answers.
pub async fn reached(host: &str, port: u16, reach: Reach) -> io::Result<TcpStream> {
    let found = tokio::time::timeout(FOUND_WITHIN, look_up(host, port, reach)).await??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name leads nowhere");
    for address in found {
        match connected(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Carries bytes both ways until both sides have said all that they have to say, or nothing comes for a long while.
/// `activity` sees what passes.
pub async fn tunnel(
    client: impl AsyncRead + AsyncWrite + Unpin,
    to: impl AsyncRead + AsyncWrite + Unpin,
    activity: &Arc<Activity>,
) -> io::Result<()> {
    let mut client = Watched { stream: client, activity: Arc::clone(activity) };
    let mut to = Watched { stream: Patient::new(to), activity: Arc::clone(activity) };
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut to) => copied.map(drop),
        () = activity.quiet_for(QUIET_FOR) => {
            let why = format!("nothing came from either side for {} s", QUIET_FOR.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }
    }
}

/// One side, of which it is noted what comes.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if came > 0 {
            self.activity.note(came);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    /// A tunnel under way, and who speaks through it.
    fn dug() -> (impl Future<Output = io::Result<()>>, DuplexStream, DuplexStream, Arc<Activity>) {
        let ((client, near), (far, to)) = (duplex(64), duplex(64));
        let activity = Arc::new(Activity::default());
        let seen = Arc::clone(&activity);
        (async move { tunnel(near, far, &seen).await }, client, to, activity)
    }

    #[tokio::test]
    async fn who_has_said_all_is_still_answered() {
        let (tunnel, mut client, mut origin, activity) = dug();
        let speaking = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = String::new();
            origin.read_to_string(&mut asked).await.unwrap();
            origin.write_all(b"answer").await.unwrap();
            drop(origin);
            let mut answered = String::new();
            client.read_to_string(&mut answered).await.unwrap();
            (asked, answered)
        };
        let (ended, (asked, answered)) = tokio::join!(tunnel, speaking);
        ended.unwrap();
        assert_eq!((&*asked, &*answered, activity.bytes()), ("question", "answer", 14));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_nobody_speaks_through_ends() {
        let (tunnel, mut client, _origin, _) = dug();
        let began = Instant::now();
        let speaking = async {
            tokio::time::sleep(QUIET_FOR / 2).await;
            client.write_all(b"?").await.unwrap();
        };
        let (ended, ()) = tokio::join!(tunnel, speaking);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), QUIET_FOR * 3 / 2);
    }
}
