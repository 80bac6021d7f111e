//! Hosts that lie: they take a file as everybody does, tell the scheduler so by the client library that all use, and
//! serve something else over the wire protocol that all speak.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_artifact::View;
use dfs_model::{GroupRange, Location};
use dfs_peer::dial::{Acceptor, Link, PeerAddress};
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostOptions, Network};
use dfs_peer::limits::{RateLimiter, SlotLimits, UploadSlots};
use dfs_peer::opener::{Freshness, Purpose, read_whole};
use dfs_peer::store::Medium;
use dfs_peer::swarm::ManagerPlace;
use dfs_peer::wire::{
    Compression, ErrorCode, HaveStream, LocalHost, PeerIdentity, PieceRequest, PieceServer,
    Provider, Ready, Refusal, Segment, SegmentStream, ServerOptions, WatchRequest,
};
use dfs_service::net::{GrpcChannels, Port, Security, TcpLinkAcceptor, TcpLinkDialer, bind};
use dfs_source::{HttpOptions, Sources, Target};
use dfs_tests::testbed::Machine;
use futures::StreamExt;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How it lies. Whatever it is, the host says that it holds everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It has nothing of what it is asked for.
    HoldsNothing,
    /// It answers, and then nothing comes.
    Stalls,
    /// Bytes of the right number, some of them others.
    Corrupts,
    /// Bytes of the file that belong elsewhere in it.
    Swaps,
    /// The first of a connection as it should be, the rest at a byte in a second.
    Drips,
}

/// Bytes of a connection that come at once before it drips.
const FIRST: usize = 96 << 10;

/// Groups by which it is wrong.
const ELSEWHERE: u64 = 32;

struct Lying {
    truth: Arc<dyn Provider>,
    lie: Lie,
    told: Arc<Told>,
}

/// What a liar and its test tell each other.
#[derive(Debug, Default)]
struct Told {
    lies: AtomicBool,
    asked: AtomicU64,
}

#[async_trait]
impl Provider for Lying {
    async fn open(
        &self,
        peer: &PeerIdentity,
        request: &PieceRequest,
    ) -> Result<SegmentStream, Refusal> {
        if !self.told.lies.load(Ordering::Relaxed) {
            return self.truth.open(peer, request).await;
        }
        self.told.asked.fetch_add(1, Ordering::Relaxed);
        match self.lie {
            Lie::HoldsNothing => Err(ErrorCode::NotHeld.into()),
            Lie::Stalls => Ok(stream::pending().boxed()),
            Lie::Drips => self.truth.open(peer, request).await,
            Lie::Corrupts => {
                let honest = self.truth.open(peer, request).await?;
                Ok(altered(honest, |segment| {
                    let mut payload = segment.payload.to_vec();
                    payload.iter_mut().step_by(1000).for_each(|byte| *byte = !*byte);
                    Segment { payload: Bytes::from(payload), ..segment }
                }))
            }
            Lie::Swaps => {
                let (first, count) = (request.groups.first, request.groups.count);
                let elsewhere = match first >= ELSEWHERE {
                    true => first - ELSEWHERE,
                    false => first + ELSEWHERE,
                };
                let groups = GroupRange::new(elsewhere, count);
                let moved = PieceRequest { groups, ..request.clone() };
                let honest = self.truth.open(peer, &moved).await?;
                Ok(altered(honest, move |segment| Segment {
                    first: segment.first - elsewhere + first,
                    ..segment
                }))
            }
        }
    }

    fn watch(&self, peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        self.truth.watch(peer, request)
    }
}

fn altered(
    honest: SegmentStream,
    alter: impl Fn(Segment) -> Segment + Clone + Send + 'static,
) -> SegmentStream {
    let lied = honest.map(move |ready| {
        let alter = alter.clone();
        ready.map(|ready| Ready::new(move || ready.read().map(alter)))
    });
    lied.boxed()
}

/// Links that drip.
struct Drips(TcpLinkAcceptor, Arc<Told>);

#[async_trait]
impl Acceptor for Drips {
    async fn accept(&self) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        let (link, peer) = self.0.accept().await?;
        let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
        Ok((Box::new(Dripping { link, told: Arc::clone(&self.1), at_once: FIRST, pause }), peer))
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.local_addrs()
    }
}

struct Dripping {
    link: Box<dyn Link>,
    told: Arc<Told>,
    at_once: usize,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dripping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.told.lies.load(Ordering::Relaxed) {
            return Pin::new(&mut self.link).poll_write(cx, bytes);
        }
        if self.at_once == 0 {
            std::task::ready!(self.pause.as_mut().poll(cx));
            let next = tokio::time::Instant::now() + Duration::from_secs(1);
            self.pause.as_mut().reset(next);
        }
        let most = bytes.len().min(self.at_once.max(1));
        let written = Pin::new(&mut self.link).poll_write(cx, &bytes[..most]);
        if let Poll::Ready(Ok(count)) = written {
            self.at_once = self.at_once.saturating_sub(count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

/// One of them, until this is dropped.
pub struct Liar {
    told: Arc<Told>,
    stop: CancellationToken,
    living: Option<JoinHandle<()>>,
}

impl Liar {
    /// Takes the file on a machine whose connections nothing protects, and says that it holds it, which is true until
    /// it is told to lie.
    pub fn start(machine: &Machine, dir: &Path, manager: SocketAddr, url: &str, lie: Lie) -> Self {
        let (told, stop) = (Arc::new(Told::default()), CancellationToken::new());
        let (ready, is_ready) = mpsc::channel();
        let life = Life {
            at: (machine.address(), 0).into(),
            options: options(dir, manager, lie),
            target: Target::parse(url).unwrap(),
            lie,
            told: Arc::clone(&told),
            stop: stop.clone(),
        };
        // Threads stand where the one does that starts them.
        let living = machine.inside(|| {
            Ok(std::thread::spawn(move || {
                let mut threads = tokio::runtime::Builder::new_multi_thread();
                let runtime = threads.worker_threads(1).enable_all().build().unwrap();
                runtime.block_on(life.live(ready));
                runtime.shutdown_background();
            }))
        });
        is_ready.recv_timeout(dfs_tests::wait::PATIENCE).unwrap();
        Self { told, stop, living: Some(living.unwrap()) }
    }

    /// From now on it lies.
    pub fn lie(&self) {
        self.told.lies.store(true, Ordering::Relaxed);
    }

    /// How often it was asked for bytes since then.
    pub fn asked(&self) -> u64 {
        self.told.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(living) = self.living.take() {
            let _ = living.join();
        }
    }
}

fn options(dir: &Path, manager: SocketAddr, lie: Lie) -> HostOptions {
    let name = format!("liar-{lie:?}").to_lowercase();
    HostOptions {
        role: Role::Node,
        data_dir: dir.join(&name),
        name,
        location: Location::default(),
        medium: Medium::Disk,
        capacity: None,
        upload_rate: None,
        slots: SlotLimits::default(),
        patience: Duration::from_secs(60),
        managers: vec![Arc::new(manager) as Arc<dyn ManagerPlace>],
        sources: Sources::builder().http(HttpOptions::default()),
        lifetime: Lifetime::OfTheProcess,
        compression: Compression::Auto,
        index_trust: Default::default(),
        lent: dfs_peer::store::Lent::default(),
    }
}

struct Life {
    at: SocketAddr,
    options: HostOptions,
    target: Target,
    lie: Lie,
    told: Arc<Told>,
    stop: CancellationToken,
}

impl Life {
    async fn live(self, ready: mpsc::Sender<()>) {
        let (tracker, stop) = (TaskTracker::new(), self.stop);
        std::fs::create_dir_all(&self.options.data_dir).unwrap();
        let plain = Security::Plain;
        let listener = bind("pieces", self.at.ip(), Port::Exactly(0), &plain).await.unwrap();
        let acceptor = TcpLinkAcceptor::new(listener, plain.clone()).unwrap();
        let network = Network {
            dialer: Arc::new(TcpLinkDialer::new(plain.clone())),
            acceptor: None,
            channels: Arc::new(GrpcChannels::new(plain)),
            advertise: acceptor.local_addrs(),
            leads_at: Vec::new(),
        };
        let host = Host::start(self.options, network, &tracker, &stop).unwrap();
        host.engine.swarm().unwrap().until_connected().await;
        let opened =
            host.engine.open_url(&self.target, View::File, Freshness::Usual, Purpose::Read).await;
        let held = opened.unwrap().tasks;
        read_whole(&held[0], u64::MAX).await.unwrap();
        let me = LocalHost { host: host.info.id, name: host.info.name.clone(), capabilities: 0 };
        let told = Arc::clone(&self.told);
        let provider = Lying { truth: Arc::new(host.engine.clone()), lie: self.lie, told };
        let server = PieceServer::new(
            Arc::new(provider),
            me,
            ServerOptions { drain_within: Duration::ZERO, ..ServerOptions::default() },
            UploadSlots::new(SlotLimits::default()),
            Arc::new(RateLimiter::new(None)),
        );
        let acceptor: Arc<dyn Acceptor> = match self.lie {
            Lie::Drips => Arc::new(Drips(acceptor, self.told)),
            _ => Arc::new(acceptor),
        };
        ready.send(()).unwrap();
        server.serve(acceptor, stop).await;
        drop(held);
    }
}
