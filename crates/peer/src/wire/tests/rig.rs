//! A server with a scripted provider, a pool, and raw links that can say anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{GROUP_BYTES, GroupRange, HostId, Priority, Rate, TaskId};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dial::memory::MemoryNetwork;
use crate::dial::{Dialer, Link};
use crate::limits::{RateLimiter, SlotLimits, UploadSlots};
use crate::wire::counters::WireCounters;
use crate::wire::frame::{Frame, Header, Hello, VERSION, encode};
use crate::wire::io::{FrameReader, Verdict};
use crate::wire::*;

pub(super) const SERVER: HostId = HostId::from_bytes([0x5e; 16]);
pub(super) const CHILD: HostId = HostId::from_bytes([0xc1; 16]);
pub(super) const ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4001);

/// What the provider does with a task; its number is the first byte of the task's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Script {
    /// Gives all groups, four at a time.
    Gives = 0,
    Refuses = 1,
    /// Never yields.
    Hangs = 2,
    /// Waits for the gate before every segment.
    Gated = 3,
    /// Gives half and ends.
    GivesHalf = 4,
    /// Gives half and fails.
    FailsHalfway = 5,
    /// Gives payloads that do not fill their groups.
    Breaks = 6,
}

impl Script {
    pub(super) const ALL: [Self; 7] = [
        Self::Gives,
        Self::Refuses,
        Self::Hangs,
        Self::Gated,
        Self::GivesHalf,
        Self::FailsHalfway,
        Self::Breaks,
    ];

    pub(super) fn task(self) -> TaskId {
        let mut bytes = [7; 32];
        bytes[0] = self as u8;
        TaskId::from_bytes(bytes)
    }

    fn of(task: TaskId) -> Self {
        Self::ALL[usize::from(task.as_bytes()[0])]
    }

    pub(super) fn ask(self, first: u64, count: u64) -> PieceRequest {
        PieceRequest::new(self.task(), GroupRange::new(first, count))
    }
}

/// The bytes of a run of groups.
pub(super) fn content(groups: GroupRange) -> Bytes {
    let mut bytes = Vec::new();
    for group in groups.iter() {
        bytes.resize(bytes.len() + GROUP_BYTES as usize, (group * 31 + 7) as u8);
    }
    bytes.into()
}

#[derive(Default)]
pub(super) struct Played {
    pub(super) opened: AtomicUsize,
    pub(super) ended: AtomicUsize,
    pub(super) yielded: AtomicUsize,
    pub(super) gate: Mutex<Option<Arc<Semaphore>>>,
    pub(super) updates: Mutex<Vec<tokio::sync::mpsc::UnboundedSender<HaveUpdate>>>,
}

struct Ends(Arc<Played>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

struct Scripted(Arc<Played>);

#[async_trait]
impl Provider for Scripted {
    async fn open(
        &self,
        peer: &PeerIdentity,
        request: &PieceRequest,
    ) -> Result<SegmentStream, Refusal> {
        assert_ne!(peer.host, SERVER);
        let script = Script::of(request.task);
        if script == Script::Refuses {
            return Err(Refusal::new(ErrorCode::NotHeld, "as scripted"));
        }
        let played = Arc::clone(&self.0);
        played.opened.fetch_add(1, Ordering::Relaxed);
        let ends = Ends(Arc::clone(&played));
        let gate = played.gate.lock().clone();
        let wanted = request.groups;
        let half = wanted.first + wanted.count / 2;
        let segments = stream::unfold((wanted.first, ends), move |(first, ends)| {
            let (played, gate) = (Arc::clone(&played), gate.clone());
            async move {
                match (script, gate) {
                    (Script::Hangs, _) => std::future::pending().await,
                    (Script::Gated, Some(gate)) => gate.acquire().await.ok()?.forget(),
                    _ => tokio::task::yield_now().await,
                }
                let stops = first >= half;
                let end = match script {
                    Script::GivesHalf if stops => return None,
                    Script::FailsHalfway if stops => {
                        let refusal = Refusal::new(ErrorCode::OriginFailed, "503");
                        return Some((Err(refusal), (first, ends)));
                    }
                    Script::GivesHalf | Script::FailsHalfway => half,
                    _ => wanted.end(),
                };
                let groups = GroupRange::new(first, end.saturating_sub(first).min(4));
                if groups.is_empty() {
                    return None;
                }
                let ready = Ready::new(move || {
                    let mut payload = content(groups);
                    if script == Script::Breaks {
                        payload.clear();
                    }
                    played.yielded.fetch_add(payload.len(), Ordering::Relaxed);
                    let count = groups.count as u16;
                    Ok(Segment { first, count, payload, ..Segment::default() })
                });
                Some((Ok(ready), (groups.end(), ends)))
            }
        });
        Ok(segments.boxed())
    }

    fn watch(&self, _: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        if Script::of(request.task) == Script::Refuses {
            return None;
        }
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let ends = Ends(Arc::clone(&self.0));
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        self.0.updates.lock().push(sender);
        let updates = UnboundedReceiverStream::new(receiver);
        Some(updates.map(move |update| (update, &ends).0.clone()).boxed())
    }
}

pub(super) struct Rig {
    pub(super) network: MemoryNetwork,
    pub(super) played: Arc<Played>,
    pub(super) slots: Arc<UploadSlots>,
    pub(super) rate: Arc<RateLimiter>,
    pub(super) server: Arc<WireCounters>,
    pub(super) stop_server: CancellationToken,
    pub(super) pool: Pool,
    pub(super) cancel: CancellationToken,
    pub(super) tracker: TaskTracker,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(ServerOptions::default(), SlotLimits::default(), PoolOptions::default())
    }

    pub(super) fn with(server: ServerOptions, slots: SlotLimits, pool: PoolOptions) -> Self {
        let network = MemoryNetwork::default();
        let played = Arc::new(Played::default());
        let slots = UploadSlots::new(slots);
        let rate = Arc::new(RateLimiter::new(None::<Rate>));
        let me = LocalHost { host: SERVER, name: "parent".into(), capabilities: 0 };
        let provider = Arc::new(Scripted(Arc::clone(&played)));
        let server = PieceServer::new(provider, me, server, Arc::clone(&slots), Arc::clone(&rate));
        let tracker = TaskTracker::new();
        let cancel = CancellationToken::new();
        let stop_server = cancel.child_token();
        let counters = Arc::clone(server.counters());
        let acceptor = Arc::new(network.listen(ADDR));
        let stop = stop_server.clone();
        tracker.spawn(async move { server.serve(acceptor, stop).await });
        let me = LocalHost { host: CHILD, name: "child".into(), capabilities: 0 };
        let pool = Pool::new(Arc::new(network.clone()), me, pool, &tracker, &cancel);
        Self { network, played, slots, rate, server: counters, stop_server, pool, cancel, tracker }
    }

    pub(super) async fn connect(&self) -> Connection {
        self.pool.connect(SERVER, &[ADDR]).await.unwrap()
    }

    /// A link that greeted as `host` and says what it is told to.
    pub(super) async fn raw(&self, host: HostId) -> Raw {
        let mut raw = Raw::over(self.network.dial(ADDR).await.unwrap().0);
        raw.greet(host).await;
        raw
    }

    pub(super) fn opened(&self) -> usize {
        self.played.opened.load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self) -> usize {
        self.played.ended.load(Ordering::Relaxed)
    }

    /// Stops everything and waits for it: nothing hangs.
    pub(super) async fn finish(self) {
        self.cancel.cancel();
        self.tracker.close();
        let finished = tokio::time::timeout(Duration::from_secs(600), self.tracker.wait());
        finished.await.expect("everything ends when it is told to");
        assert_eq!(self.opened(), self.ended());
        assert_eq!(self.slots.used(), 0);
        assert_eq!(self.pool.counters().numbers().buffered, 0);
    }
}

pub(super) struct Raw {
    reader: FrameReader<ReadHalf<Box<dyn Link>>>,
    writer: WriteHalf<Box<dyn Link>>,
}

impl Raw {
    pub(super) fn over(link: Box<dyn Link>) -> Self {
        let (reader, writer) = tokio::io::split(link);
        Self { reader: FrameReader::new(reader, Arc::default()), writer }
    }

    pub(super) async fn greet(&mut self, host: HostId) {
        let name = "raw".to_owned();
        self.say(Frame::Hello(Hello { version: VERSION, capabilities: 0, host, name })).await;
        assert!(matches!(self.hear().await, Some(Frame::Hello(_))));
    }

    pub(super) async fn say(&mut self, frame: Frame) {
        let mut encoded = encode(frame).unwrap();
        self.writer.write_all_buf(&mut encoded).await.unwrap();
    }

    pub(super) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    pub(super) async fn say_header(&mut self, kind: u8, flags: u8, length: u32, id: u32) {
        self.say_bytes(&Header { kind, flags, length, id }.to_bytes()).await;
    }

    /// The next frame; `None` when the other side closed the link.
    pub(super) async fn hear(&mut self) -> Option<Frame> {
        self.reader.next(|_, _| Ok(Verdict::Take)).await.ok().flatten()
    }

    /// The last frames before the link closes.
    pub(super) async fn hear_to_the_end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.hear().await {
            frames.push(frame);
        }
        frames
    }

    /// Says a frame for as long as the other side listens; whether it did.
    pub(super) async fn try_say(&mut self, frame: Frame) -> bool {
        let mut encoded = encode(frame).unwrap();
        self.writer.write_all_buf(&mut encoded).await.is_ok()
    }
}

/// Waits for a condition, within a deadline.
pub(super) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let met = tokio::time::timeout(Duration::from_secs(300), wait).await;
    assert!(met.is_ok(), "never: {what}");
}

/// Takes all of an answer, checking its bytes.
pub(super) async fn collect(mut segments: Segments) -> Result<u64, PieceError> {
    let mut groups = 0;
    while let Some(segment) = segments.next().await {
        let segment = segment?.decoded().expect("what is sent decodes");
        assert!(segment.payload == content(segment.groups()), "wrong bytes in {segment:?}");
        groups += u64::from(segment.count);
    }
    assert!(segments.next().await.is_none(), "an answer ends once");
    Ok(groups)
}

pub(super) fn urgent(request: PieceRequest) -> PieceRequest {
    PieceRequest { priority: Priority::Demand, ..request }
}
