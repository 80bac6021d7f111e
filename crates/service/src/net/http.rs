//! HTTP/1.1 for programs that are no part of the cluster: container runtimes, and whatever goes by a proxy.
//!
//! A connection has a place as any other ([`places`](super::places)), says what it wants within a time, and is refused a head
//! that is too long; whoever stops taking what it asked for loses it ([`patient`](super::patient)). What is asked is judged by who answers; nothing of HTTP is decided here.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::incoming::accept;
use super::patient::Patient;
use super::places::{Places, Serves};
use super::seated::{Seated, Speaks};

/// A head of a request that is this long and not at its end is refused; what came with the last bytes may be as long again.
const MAX_HEAD: usize = 64 * 1024;
/// How long a head may take to come, and a connection to be asked the next thing.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long a mirror may take to say that it is there, and how much it says at most.
const THERE_WITHIN: Duration = Duration::from_secs(5);
const MAX_THERE: u64 = 16 * 1024;

/// Whether a registry mirror of dfs answers at `address`: an error says that nobody does.
pub async fn is_mirror(address: SocketAddr) -> io::Result<bool> {
    let asking = async {
        #[expect(clippy::disallowed_methods, reason = "this is where connections are made")]
        let mut stream = TcpStream::connect(address).await?;
        let asked = format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).await?;
        let mut said = Vec::new();
        stream.take(MAX_THERE).read_to_end(&mut said).await?;
        let said = String::from_utf8_lossy(&said).to_ascii_lowercase();
        let (head, _) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
        Ok(head.starts_with("http/1.1 200 ") && head.contains("\r\ndfs-mirror: "))
    };
    match tokio::time::timeout(THERE_WITHIN, asking).await {
        Ok(said) => said,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Answers what comes to `listener` until `stop` is cancelled; what is being answered then is answered to its end. A body
/// that fails breaks its connection: who reads it is not told that it has all.
pub async fn serve_http<A, F, B>(
    (listener, serves): (TcpListener, Serves),
    answer: A,
    stop: CancellationToken,
) -> io::Result<()>
where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Places::new(serves);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, from, place)) => {
                let stream = Patient::new(Seated::new(stream, place, Speaks::Bytes(None)));
                let (answer, stop) = (answer.clone(), stop.clone());
                connections.spawn(async move {
                    serve_http_over(stream, move |request| answer(from, request), stop)
                        .await
                        .unwrap_or_else(|error| {
                            tracing::debug!(%from, %error, "a connection of a client broke");
                        });
                });
            }
            Err(error) => tracing::debug!(%error, "accepting a connection failed"),
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Answers what comes over one connection until `stop` is cancelled, or an answer makes something else of it
/// ([`upgraded`]).
pub async fn serve_http_over<S, A, F, B>(
    stream: S,
    answer: A,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(|request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MAX_HEAD);
    let connection = protocol.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

/// The connection that a request came over, once its answer has made something else of it.
pub async fn upgraded(
    upgrade: OnUpgrade,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send> {
    upgrade.await.map(TokioIo::new).map_err(io::Error::other)
}
