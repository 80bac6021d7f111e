//! gRPC channels and servers, set up alike everywhere.
//!
//! A channel connects when it is first used and again after it broke; a call while the other side
//! is away fails at once or within the connect timeout, and callers retry. Dead peers are noticed by
//! keep-alive pings. How long a call may take is the caller's to say (`Request::set_timeout`).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use dfs_peer::dial::{Callee, Dialer, Link};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::{Router, UdsConnectInfo};
use tonic::transport::{Channel, Endpoint, Server};
use tower::service_fn;

use super::LocalListener;
use super::incoming::{Incoming, local_stream};
use super::seated::Arrival;
use super::security::{Peer, Security, Trust, no_certificate};
use super::stream::{Stream, connected};
use crate::config::ServiceAddress;
use crate::tls::{Fingerprint, Plane, connect_by_token};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// For a seed that hangs a crowd waits: after four seconds others read the source for it.
const PING_SEED_EVERY: Duration = Duration::from_secs(1);
const PONG_OF_SEED_WITHIN: Duration = Duration::from_secs(3);
/// On one machine a ping costs next to nothing, and somebody may sit before the terminal.
const PING_LOCALLY_EVERY: Duration = Duration::from_secs(2);
/// How long calls in progress may go on once a server is to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Calls at a time on one connection.
const MAX_STREAMS: u32 = 1024;

/// A channel to `callee` at `address`, whose name is looked up whenever it connects.
pub fn grpc_channel(address: &ServiceAddress, callee: Callee, security: &Security) -> Channel {
    let security = security.clone();
    let endpoint = match callee {
        Callee::Seed(_) => configured(endpoint_of(address))
            .http2_keep_alive_interval(PING_SEED_EVERY)
            .keep_alive_timeout(PONG_OF_SEED_WITHIN),
        Callee::Manager | Callee::Scheduler(_) | Callee::Delegate(_) => {
            configured(endpoint_of(address))
        }
    };
    lazy_channel(endpoint, address, move |at| {
        let security = security.clone();
        async move {
            let stream = security.connect(at, Plane::Grpc).await?;
            stream.peer().trust.expect(&callee).map_err(io::Error::other)?;
            Ok(stream)
        }
    })
}

/// A channel to `callee` at a socket address.
pub fn grpc_channel_to(address: SocketAddr, callee: Callee, security: &Security) -> Channel {
    grpc_channel(&address.into(), callee, security)
}

/// A channel to a manager that is known by a join token only; it is told nothing of who is asking.
pub fn grpc_channel_by_token(address: &ServiceAddress, fingerprint: Fingerprint) -> Channel {
    lazy_channel(configured(endpoint_of(address)), address, move |at| async move {
        let stream = connect_by_token(connected(at).await?, fingerprint).await?;
        Ok(Stream::tls(stream, Peer { address: at, trust: Trust::Anonymous }))
    })
}

/// A channel to a socket address over links of another kind than TCP.
pub fn grpc_channel_over(dialer: Arc<dyn Dialer>, address: SocketAddr) -> Channel {
    let address = address.into();
    lazy_channel(configured(endpoint_of(&address)), &address, move |at| {
        let dialer = Arc::clone(&dialer);
        async move { Ok(dialer.dial(at).await?.0) }
    })
}

/// A channel that connects to what the address leads to then.
fn lazy_channel<S, F>(
    endpoint: Endpoint,
    address: &ServiceAddress,
    connect: impl Fn(SocketAddr) -> F + Clone + Send + Sync + 'static,
) -> Channel
where
    S: Link + 'static,
    F: Future<Output = io::Result<S>> + Send,
{
    let address = address.clone();
    let connect = move |_: Uri| {
        let (address, connect) = (address.clone(), connect.clone());
        async move { connect_any(&address, connect).await.map(TokioIo::new) }
    };
    endpoint.connect_with_connector_lazy(service_fn(connect))
}

fn endpoint_of(address: &ServiceAddress) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).expect("a host and a port are an authority")
}

/// A connection to the first of its addresses where there is one; each gets its share of the time.
async fn connect_any<S, F: Future<Output = io::Result<S>>>(
    address: &ServiceAddress,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<S> {
    let all = address.resolve().await.map_err(io::Error::other)?;
    let share = CONNECT_TIMEOUT / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
    let mut first = None;
    for at in all {
        let connected = tokio::time::timeout(share, connect(at)).await;
        match connected.unwrap_or_else(|late| Err(late.into())) {
            Ok(stream) => return Ok(stream),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// A channel to the Unix socket `path`; `connected` is used first, where there is a connection already.
pub fn grpc_local_channel(path: &Path, connected: Option<StdUnixStream>) -> Channel {
    let (path, mut connected) = (path.to_owned(), connected);
    let connect = move |_: Uri| {
        let (path, connected) = (path.clone(), connected.take());
        async move {
            let stream = match connected {
                Some(stream) => {
                    stream.set_nonblocking(true)?;
                    UnixStream::from_std(stream)?
                }
                None => UnixStream::connect(path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    };
    // The authority is only a name here: nothing resolves it.
    configured(Endpoint::from_static("http://localhost"))
        .http2_keep_alive_interval(PING_LOCALLY_EVERY)
        .connect_with_connector_lazy(service_fn(connect))
}

fn configured(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// A server to add services to.
pub fn grpc_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .max_concurrent_streams(MAX_STREAMS)
}

/// Serves until `token` is cancelled. Calls in progress then have two seconds: streams that live
/// long are ended by their services, which watch the same token. Who calls is in the request's extensions
/// ([`Peer`]); who shows no certificate where there are some may join and nothing else.
pub async fn serve_grpc(
    routes: Routes,
    listener: TcpListener,
    security: Security,
    token: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = Incoming::new(listener, security, Plane::Grpc).stream();
    let guarded = routes.into_axum_router().layer(from_fn(guard));
    let router = grpc_server().add_routes(Routes::from(guarded));
    let stop = token.clone().cancelled_owned();
    let serving = router.serve_with_incoming_shutdown(Box::pin(incoming), stop);
    until_stopped(serving, token).await
}

/// The one call that needs no certificate.
const JOIN: &str = "/dfs.manager.v1.Enrolment/Join";

/// Whoever may ask has spoken with the first request. Who may only join has not: there is time for one greeting.
async fn guard(mut request: Request, next: Next) -> Response {
    let Some(arrival) = request.extensions_mut().remove::<Arrival<Peer>>() else {
        return no_certificate().into_http();
    };
    let is_known = arrival.info.trust != Trust::Anonymous;
    if is_known && let Err(error) = arrival.speaks(arrival.info.host()) {
        return Status::resource_exhausted(error.to_string()).into_http();
    }
    request.extensions_mut().insert(arrival.info);
    match is_known || request.uri().path() == JOIN {
        true => next.run(request).await,
        false => no_certificate().into_http(),
    }
}

/// The same on this machine.
async fn usher(mut request: Request, next: Next) -> Response {
    if let Some(arrival) = request.extensions_mut().remove::<Arrival<UdsConnectInfo>>() {
        if let Err(error) = arrival.speaks(None) {
            return Status::resource_exhausted(error.to_string()).into_http();
        }
        request.extensions_mut().insert(arrival.info);
    }
    next.run(request).await
}

/// Serves a Unix socket until `token` is cancelled, as [`serve_grpc`] does. Who calls is in the
/// request's extensions (`tonic::transport::server::UdsConnectInfo`).
pub async fn serve_grpc_local(
    routes: Routes,
    listener: LocalListener,
    token: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let ushered = routes.into_axum_router().layer(from_fn(usher));
    let router = grpc_server().add_routes(Routes::from(ushered));
    let stop = token.clone().cancelled_owned();
    let incoming = Box::pin(local_stream(listener));
    until_stopped(router.serve_with_incoming_shutdown(incoming, stop), token).await
}

/// Serves `router` inside this process: the channel and the server are the two ends of a pipe that
/// holds `bytes`. The server ends with `token`.
pub fn grpc_pipe(
    router: Router,
    bytes: usize,
    token: CancellationToken,
) -> (Channel, impl Future<Output = ()>) {
    let (near, far) = tokio::io::duplex(bytes);
    let mut near = Some(near);
    let connect = move |_: Uri| {
        // One pipe, one connection: it cannot break while both ends live.
        let near = near.take().ok_or_else(|| std::io::Error::other("the pipe was used up"));
        async move { near.map(TokioIo::new) }
    };
    let channel = configured(Endpoint::from_static("http://localhost"))
        .connect_with_connector_lazy(service_fn(connect));
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
    let incoming = tokio_stream::StreamExt::chain(incoming, tokio_stream::pending());
    let stop = token.clone().cancelled_owned();
    let serving = router.serve_with_incoming_shutdown(incoming, stop);
    let serving = async move {
        // It ends with the token; a broken pipe means that the other end is gone.
        let _ = until_stopped(serving, token).await;
    };
    (channel, serving)
}

async fn until_stopped(
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    token: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let grace = async {
        token.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = grace => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::{IpAddr, Ipv4Addr};
    use std::task::{Context, Poll};

    use axum::http::{Request, Response, StatusCode};
    use futures::future::{BoxFuture, FutureExt};
    use tokio::sync::mpsc;
    use tonic::body::Body;
    use tonic::server::NamedService;
    use tower::{Service, ServiceExt};

    use super::*;
    use crate::net::{Port, SocketAccess, bind};

    /// Answers `/trial/now` and never answers `/trial/never`, but says that it was asked.
    #[derive(Clone)]
    struct Trial {
        asked: mpsc::UnboundedSender<()>,
    }

    impl NamedService for Trial {
        const NAME: &'static str = "trial";
    }

    impl Service<Request<Body>> for Trial {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            if request.uri().path() == "/trial/never" {
                self.asked.send(()).unwrap();
                return std::future::pending().boxed();
            }
            std::future::ready(Ok(Response::new(Body::empty()))).boxed()
        }
    }

    async fn call(channel: &Channel, method: &str) -> Result<StatusCode, String> {
        let request = Request::post(format!("/trial/{method}")).body(Body::empty()).unwrap();
        let response = channel.clone().oneshot(request).await;
        response.map(|response| response.status()).map_err(|error| error.to_string())
    }

    fn routes() -> (Routes, mpsc::UnboundedReceiver<()>) {
        let (asked, seen) = mpsc::unbounded_channel();
        (Routes::new(Trial { asked }), seen)
    }

    #[tokio::test]
    async fn a_channel_connects_when_used_and_again_when_its_server_is_back() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let plain = Security::Plain;
        let listener = bind("trial", ip, Port::Exactly(0), &plain).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let channel = grpc_channel_to(address, Callee::Manager, &plain);
        for _ in 0..2 {
            let listener = bind("trial", ip, Port::Exactly(address.port()), &plain).await;
            let token = CancellationToken::new();
            let serving = serve_grpc(routes().0, listener.unwrap(), Security::Plain, token.clone());
            let calling = async {
                assert_eq!(call(&channel, "now").await, Ok(StatusCode::OK));
                token.cancel();
            };
            let (served, ()) = tokio::join!(serving, calling);
            served.unwrap();
            assert!(call(&channel, "now").await.is_err(), "nobody serves now");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_serves_as_well_and_its_name_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = LocalListener::bind(&path, SocketAccess::Owner).unwrap();
        let channel = grpc_local_channel(&path, None);
        let token = CancellationToken::new();
        let serving = serve_grpc_local(routes().0, listener, token.clone());
        let calling = async {
            assert_eq!(call(&channel, "now").await, Ok(StatusCode::OK));
            token.cancel();
        };
        let (served, ()) = tokio::join!(serving, calling);
        served.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_call_that_never_ends_does_not_hold_up_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = LocalListener::bind(&path, SocketAccess::Owner).unwrap();
        let channel = grpc_local_channel(&path, None);
        let token = CancellationToken::new();
        let (routes, mut asked) = routes();
        let serving = serve_grpc_local(routes, listener, token.clone());
        let stopping = async {
            asked.recv().await.unwrap();
            token.cancel();
        };
        tokio::select! {
            biased;
            answer = call(&channel, "never") => panic!("answered: {answer:?}"),
            (served, ()) = async { tokio::join!(serving, stopping) } => served.unwrap(),
        }
    }
}
