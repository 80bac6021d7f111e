//! Links between the machines of a world, in memory.
//!
//! Bytes take the time of the sender's uplink and of the way, in simulated time. A direction that is cut delivers
//! nothing, nor the word that what came the other way arrived: its sender may have a window of bytes under way.
//! Once it is mended, what was on the way comes when TCP would have sent it again. A connection is reset when somebody
//! breaks it, or writes to a process that is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use dfs_peer::dial::{Acceptor, Callee, Dialer, Link, PeerAddress};
use dfs_peer::swarm::Channels;
use dfs_service::net::{Peer, Trust, grpc_channel_over};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Channel;
use tonic::transport::server::Connected;

/// Bytes of one direction that nobody has said to have arrived.
const WINDOW: usize = 256 << 10;

/// The first wait of TCP before it sends again; doubles.
const SEND_AGAIN: Duration = Duration::from_millis(200);

/// The first wait before a connection is asked for again; doubles.
const DIAL_AGAIN: Duration = Duration::from_secs(1);

/// The network; clones share it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now: Duration,
    chance: StdRng,
    /// Bytes in a second of each machine's uplink.
    rate: u64,
    /// When each machine's uplink has sent what it was given.
    busy_until: HashMap<IpAddr, Duration>,
    listeners: HashMap<SocketAddr, Listener>,
    connections: BTreeMap<u64, Connection>,
    made: u64,
    /// Directions in which nothing gets through.
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    /// What the way takes more, one way.
    slow: HashMap<(IpAddr, IpAddr), Duration>,
    /// Machines without power: they say nothing of what they lose.
    dark: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Listener {
    waiting: VecDeque<SimulatedLink>,
    waker: Option<Waker>,
}

struct Connection {
    ends: [SocketAddr; 2],
    /// What flows from the end of this number.
    flows: [Flow; 2],
    /// Ends that somebody holds.
    held: [bool; 2],
    is_reset: bool,
}

#[derive(Default)]
struct Flow {
    queue: VecDeque<(Duration, Bytes)>,
    last_due: Duration,
    /// Sent, and not known to have arrived.
    under_way: usize,
    /// Read, while the sender cannot hear of it.
    untold: usize,
    /// Since when something that is due cannot come.
    stuck_since: Option<Duration>,
    /// When its end arrives.
    ends_at: Option<Duration>,
    /// From when on whoever writes hears that nobody is there.
    refused_at: Option<Duration>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }

    /// When the next of what is under way arrives.
    fn next_due(&self) -> Option<Duration> {
        let first = self.queue.front().map(|(due, _)| *due);
        first.or(self.ends_at.filter(|_| self.reader.is_some()))
    }

    /// TCP sends again at ever longer intervals: what could not come waits for the next of them.
    fn mended(&mut self, now: Duration) {
        let Some(since) = self.stuck_since.take() else { return };
        let (mut again, mut wait) = (since, SEND_AGAIN);
        while again < now {
            again += wait;
            wait *= 2;
        }
        for (due, _) in &mut self.queue {
            *due = (*due).max(again);
        }
        self.last_due = self.last_due.max(again);
        self.ends_at = self.ends_at.map(|end| end.max(self.last_due));
    }
}

impl State {
    fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cuts.contains(&(from, to)) || self.dark.contains(&from) || self.dark.contains(&to)
    }

    fn way(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let usual = Duration::from_micros(self.chance.random_range(300..1500));
        usual + self.slow.get(&(from, to)).copied().unwrap_or_default()
    }

    /// When so many bytes that leave now arrive.
    fn arrival(&mut self, from: IpAddr, to: IpAddr, bytes: usize) -> Duration {
        let sending = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let free = self.busy_until.entry(from).or_default();
        let sent = (*free).max(self.now) + sending;
        *free = sent;
        sent + self.way(from, to)
    }
}

impl Network {
    /// One on which nothing is wrong. Uplinks carry `rate` bytes in a second.
    pub fn new(seed: u64, rate: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b21);
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            chance,
            rate,
            busy_until: HashMap::new(),
            listeners: HashMap::new(),
            connections: BTreeMap::new(),
            made: 0,
            cuts: BTreeSet::new(),
            slow: HashMap::new(),
            dark: BTreeSet::new(),
        })))
    }

    /// It is later now: whoever waits for what has arrived is woken. Says when something arrives next.
    pub fn advance(&self, now: Duration) -> Option<Duration> {
        let mut state = self.0.lock();
        state.now = now;
        let mut connections = std::mem::take(&mut state.connections);
        let mut next: Option<Duration> = None;
        for connection in connections.values_mut() {
            for side in [0, 1] {
                let [from, to] = [connection.ends[side].ip(), connection.ends[1 - side].ip()];
                let flow = &mut connection.flows[side];
                if flow.untold > 0 && !state.is_cut(to, from) {
                    flow.under_way -= std::mem::take(&mut flow.untold);
                    flow.wake();
                }
                if state.is_cut(from, to) {
                    let is_due = flow.next_due().is_some_and(|due| due <= now);
                    flow.stuck_since = flow.stuck_since.or(is_due.then_some(now));
                    continue;
                }
                flow.mended(now);
                let due = flow.next_due();
                if due.is_some_and(|due| due <= now) || flow.refused_at.is_some_and(|at| at <= now)
                {
                    flow.wake();
                }
                next = [next, due.filter(|due| *due > now)].into_iter().flatten().min();
            }
        }
        state.connections = connections;
        next
    }

    /// Nothing gets from one to the other any more.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.0.lock().cuts.insert((from, to));
    }

    /// What leaves the one for the other takes so much longer.
    pub fn slow_down(&self, from: IpAddr, to: IpAddr, by: Duration) {
        self.0.lock().slow.insert((from, to), by);
    }

    /// What leaves the one gets to the other again, as soon as ever.
    pub fn mend(&self, from: IpAddr, to: IpAddr) {
        let mut state = self.0.lock();
        state.cuts.remove(&(from, to));
        state.slow.remove(&(from, to));
    }

    /// Breaks the connections between the two; how many.
    pub fn reset(&self, a: IpAddr, b: IpAddr) -> usize {
        let mut state = self.0.lock();
        let is_between = |c: &&mut Connection| {
            let ends = c.ends.map(|end| end.ip());
            ends == [a, b] || ends == [b, a]
        };
        let mut broken = 0;
        for connection in state.connections.values_mut().filter(is_between) {
            connection.is_reset = true;
            connection.flows.iter_mut().for_each(Flow::wake);
            broken += 1;
        }
        broken
    }

    /// A machine loses its power: nobody hears anything of it.
    pub fn darken(&self, machine: IpAddr) {
        self.0.lock().dark.insert(machine);
    }

    /// A machine is started: it knows nothing of the connections that it had.
    pub fn light(&self, machine: IpAddr) {
        let mut state = self.0.lock();
        let now = state.now;
        if !state.dark.remove(&machine) {
            return;
        }
        for connection in state.connections.values_mut() {
            for side in [0, 1] {
                if connection.ends[1 - side].ip() == machine {
                    connection.flows[side].refused_at = Some(now);
                }
            }
        }
    }

    /// Nobody listens on this machine any more.
    pub fn close(&self, machine: IpAddr) {
        let mut state = self.0.lock();
        let closed = state.listeners.extract_if(|at, _| at.ip() == machine);
        let closed: Vec<_> = closed.collect();
        drop(state);
        // Its links take the lock.
        drop(closed);
    }

    /// Connections that an end is held of.
    pub fn connections(&self) -> usize {
        self.0.lock().connections.len()
    }

    /// The network as one machine has it.
    pub fn of(&self, machine: IpAddr) -> Arc<Card> {
        Arc::new(Card { network: self.clone(), machine })
    }
}

/// The way of one machine to the others.
pub struct Card {
    network: Network,
    machine: IpAddr,
}

impl Card {
    /// Where it listens on this port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.machine, port)
    }

    /// Listens.
    pub fn listen(&self, port: u16) -> Arc<SimulatedAcceptor> {
        let at = self.at(port);
        self.network.0.lock().listeners.insert(at, Listener::default());
        Arc::new(SimulatedAcceptor { network: self.network.clone(), at })
    }

    /// A connection, when somebody takes it.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<SimulatedLink> {
        let from = self.machine;
        let mut again = DIAL_AGAIN;
        loop {
            let way = {
                let mut state = self.network.0.lock();
                let is_open = !state.is_cut(from, to.ip()) && !state.is_cut(to.ip(), from);
                is_open.then(|| state.way(from, to.ip()) + state.way(to.ip(), from))
            };
            if let Some(way) = way {
                tokio::time::sleep(way).await;
                break;
            }
            tokio::time::sleep(again).await;
            again *= 2;
        }
        let mut state = self.network.0.lock();
        if !state.listeners.contains_key(&to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        state.made += 1;
        let number = state.made;
        let port = 10_000 + u16::try_from(number % 50_000).unwrap_or_default();
        let ends = [SocketAddr::new(from, port), to];
        let flows = [Flow::default(), Flow::default()];
        let connection = Connection { ends, flows, held: [true; 2], is_reset: false };
        state.connections.insert(number, connection);
        let link = |side: usize| SimulatedLink {
            network: self.network.clone(),
            number,
            side,
            other: ends[1 - side],
        };
        if let Some(listener) = state.listeners.get_mut(&to) {
            listener.waiting.push_back(link(1));
            listener.waker.take().into_iter().for_each(Waker::wake);
        }
        Ok(link(0))
    }
}

#[async_trait]
impl Dialer for Card {
    async fn dial(&self, addr: SocketAddr) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        Ok((Box::new(self.connect(addr).await?), PeerAddress::plain(addr)))
    }
}

/// Channels over a card.
pub struct SimulatedChannels {
    card: Arc<Card>,
    known: Mutex<HashMap<(SocketAddr, Callee), Channel>>,
}

impl SimulatedChannels {
    /// None yet.
    pub fn new(card: &Arc<Card>) -> Self {
        Self { card: Arc::clone(card), known: Mutex::default() }
    }
}

impl Channels for SimulatedChannels {
    fn channel(&self, address: SocketAddr, callee: Callee) -> Channel {
        let mut known = self.known.lock();
        let made = || grpc_channel_over(Arc::clone(&self.card) as Arc<dyn Dialer>, address);
        known.entry((address, callee)).or_insert_with(made).clone()
    }
}

/// Takes connections.
pub struct SimulatedAcceptor {
    network: Network,
    at: SocketAddr,
}

impl SimulatedAcceptor {
    /// The next connection.
    pub async fn next(&self) -> SimulatedLink {
        std::future::poll_fn(|cx| {
            let mut state = self.network.0.lock();
            let Some(listener) = state.listeners.get_mut(&self.at) else { return Poll::Pending };
            if let Some(link) = listener.waiting.pop_front() {
                return Poll::Ready(link);
            }
            listener.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[async_trait]
impl Acceptor for SimulatedAcceptor {
    async fn accept(&self) -> io::Result<(Box<dyn Link>, PeerAddress)> {
        let link = self.next().await;
        let from = PeerAddress::plain(link.other);
        Ok((Box::new(link), from))
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![self.at]
    }
}

/// One end of a connection.
pub struct SimulatedLink {
    network: Network,
    number: u64,
    side: usize,
    other: SocketAddr,
}

impl Connected for SimulatedLink {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { address: self.other, trust: Trust::Plain }
    }
}

impl SimulatedLink {
    /// Who is at the other end.
    pub fn other(&self) -> SocketAddr {
        self.other
    }

    /// What time it is.
    pub fn now(&self) -> Duration {
        self.network.0.lock().now
    }

    /// The connection is there until both ends are dropped.
    fn with<T>(&self, look: impl FnOnce(&mut State, &mut Connection) -> T) -> T {
        let mut state = self.network.0.lock();
        let mut connection = state.connections.remove(&self.number).expect("this end is held");
        let seen = look(&mut state, &mut connection);
        state.connections.insert(self.number, connection);
        seen
    }

    fn finish(&self) {
        self.with(|state, connection| {
            let [from, to] = [self.side, 1 - self.side].map(|side| connection.ends[side].ip());
            let flow = &mut connection.flows[self.side];
            if flow.ends_at.is_none() {
                let due = state.arrival(from, to, 0).max(flow.last_due);
                flow.ends_at = Some(due);
            }
        });
    }
}

impl Drop for SimulatedLink {
    fn drop(&mut self) {
        let is_dark = self.with(|state, connection| {
            state.dark.contains(&connection.ends[self.side].ip()) || connection.is_reset
        });
        if !is_dark {
            self.finish();
        }
        let mut state = self.network.0.lock();
        let now = state.now;
        let Some(connection) = state.connections.get_mut(&self.number) else { return };
        connection.held[self.side] = false;
        if !is_dark {
            let incoming = &mut connection.flows[1 - self.side];
            incoming.refused_at = incoming.refused_at.or(Some(now + Duration::from_millis(1)));
        }
        if connection.held == [false; 2] {
            state.connections.remove(&self.number);
        }
    }
}

impl AsyncRead for SimulatedLink {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let side = self.side;
        self.with(|state, connection| {
            if connection.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let [from, to] = [1 - side, side].map(|side| connection.ends[side].ip());
            let flow = &mut connection.flows[1 - side];
            flow.reader = Some(cx.waker().clone());
            if state.is_cut(from, to) || flow.stuck_since.is_some() {
                return Poll::Pending;
            }
            let mut read = 0;
            while let Some((due, bytes)) = flow.queue.front_mut()
                && *due <= state.now
                && buf.remaining() > 0
            {
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..count]);
                bytes.advance(count);
                read += count;
                if bytes.is_empty() {
                    flow.queue.pop_front();
                }
            }
            if read > 0 {
                match state.is_cut(to, from) {
                    true => flow.untold += read,
                    false => flow.under_way -= read,
                }
                flow.writer.take().into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            let is_over = flow.queue.is_empty() && flow.ends_at.is_some_and(|at| at <= state.now);
            if is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
    }
}

impl AsyncWrite for SimulatedLink {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let side = self.side;
        self.with(|state, connection| {
            let [from, to] = [side, 1 - side].map(|side| connection.ends[side].ip());
            let is_refused = connection.flows[side].refused_at.is_some_and(|at| at <= state.now)
                && !state.is_cut(from, to)
                && !state.is_cut(to, from);
            if is_refused && !connection.is_reset {
                connection.is_reset = true;
                connection.flows.iter_mut().for_each(Flow::wake);
            }
            if connection.is_reset {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let flow = &mut connection.flows[side];
            let count = buf.len().min(WINDOW.saturating_sub(flow.under_way));
            if count == 0 && !buf.is_empty() {
                flow.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let due = state.arrival(from, to, count).max(flow.last_due);
            flow.last_due = due;
            flow.under_way += count;
            flow.queue.push_back((due, Bytes::copy_from_slice(&buf[..count])));
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
