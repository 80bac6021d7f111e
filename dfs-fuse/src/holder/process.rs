//! The holder: a process of one thread that keeps what others would lose.
//!
//! It reads no request of the kernel but those for bytes of guarded mounts ([`super::guarded`]), and until it gives a mount
//! up nothing of what is written down of it, so that there is little it could die of. While an agent is connected it
//! sleeps otherwise. When the agent is gone it starts it again, if it was told
//! how; when nobody comes in time, or who came is not ready in time, it takes the mounts away, so that nobody waits for
//! ever. Where it dies itself its agent starts another, which keeps what is not guarded; guarded mounts end with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_service::lifecycle::raise_open_files;
use dfs_service::net::{self, SocketAccess};
use dfs_service::process::Fault;
use dfs_service::telemetry::{self, LogFormat, TelemetryError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
    sockopt,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
};

use super::address::Address;
use super::guarded::Guarded;
use super::packet::{self, CONTENTS, FromAgent, FromHolder, Then};
use super::peer::peer_of;
use super::second::Second;
use super::supervision::{Due, Starter, Supervision};
use super::{Guard, Kept, Record, is_gone};
use crate::mount;

/// How long whoever is told something may take to read it: meanwhile nobody else is heard.
pub(super) const PATIENT: Duration = Duration::from_secs(5);

/// How long an agent waits for an answer: what the holder may wait for itself is over long before, since an agent that hangs up
/// has every guarded mount taken away.
pub(super) const ANSWERED: Duration = Duration::from_secs(30);

/// Connections at a time that have not said who they are.
const NEWCOMERS: usize = 16;

/// Connections that may wait to be let in.
const BACKLOG: i32 = 128;

/// Until it is tried again where descriptors have run out.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// How long a holder that its agent started waits for that agent to say so.
const FIRST_HELLO: Duration = Duration::from_secs(30);

/// How long an agent that is gone may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// How often it is looked whether it does.
const LOOKED_AFTER: Duration = Duration::from_millis(100);

/// What the process is called: who ends agents by their name does not mean it.
pub(super) const NAME: &str = "dfs-holder";

/// Mounts kept at most.
const MOUNTS: usize = 4096;

/// `dfs-fuse holder`
#[derive(Debug, Clone, clap::Args)]
pub struct HolderFlags {
    /// Unix socket that agents find it at.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Seconds that mounts whose agent is gone are kept for the next one; then they are taken away.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience_seconds: u32,
    /// The agent to start again when it dies, and its arguments. Without it somebody else does that, and the holder
    /// stays when nothing is mounted.
    #[arg(last = true, value_name = "AGENT")]
    pub agent: Vec<OsString>,
}

/// Why a holder cannot work.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// It cannot listen.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another one is there.
    #[error("a holder answers at {} already", .0.display())]
    InUse(PathBuf),
    /// The log.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// It cannot wait.
    #[error("cannot wait for agents")]
    Wait(#[source] io::Error),
}

impl HolderError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::of(self)
    }
}

/// Runs until it is not needed any more.
pub fn run(flags: &HolderFlags) -> Result<(), HolderError> {
    telemetry::init(telemetry::DEFAULT_FILTER, LogFormat::Auto)?;
    let given = sockopt::socket_acceptconn(stdin()).unwrap_or(false);
    let listener = match given {
        true => stdin().as_fd().try_clone_to_owned(),
        false => listen_at(&flags.socket),
    };
    let listener = listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HolderError::InUse(flags.socket.clone()),
        _ => HolderError::Listen { path: flags.socket.clone(), source },
    })?;
    raise_open_files();
    // Nothing that befalls the session of who started it is for it. A leader of a group has one of its own already.
    let _ = rustix::process::setsid();
    // It is one that every kernel takes.
    let _ = rustix::thread::set_name(c"dfs-holder");
    let unkillable = Unkillable::begin();
    let signals = signals().map_err(HolderError::Wait)?;
    let holder = Holder {
        signals,
        is_to_end: false,
        path: flags.socket.clone(),
        listener,
        newcomers: Vec::new(),
        agent: None,
        kept: BTreeMap::new(),
        guarded: BTreeMap::new(),
        second: Second::default(),
        owner: String::new(),
        supervision: supervision(flags),
        command: flags.agent.clone(),
        process: None,
        left_behind: Vec::new(),
        unkillable,
        until: (!flags.agent.is_empty()).then(|| Instant::now() + FIRST_HELLO),
    };
    holder.run().map_err(HolderError::Wait)
}

fn supervision(flags: &HolderFlags) -> Supervision {
    let starter = if flags.agent.is_empty() { Starter::Others } else { Starter::Holder };
    let patience = Duration::from_secs(flags.patience_seconds.into());
    Supervision::new(starter, patience, Instant::now())
}

/// Can be read once the process was asked to end. Signals that ask for something else do nothing from now on: with an
/// agent that the same one ended, its mounts would be lost.
pub(super) fn signals() -> io::Result<UnixStream> {
    let (heard, told) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    for signal in [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGIO, SIGPROF, SIGVTALRM, libc::SIGPWR] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(heard)
}

/// A connection to the holder at `path`.
pub(super) fn connection_to(path: &Path) -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    connect(&socket, &Address::of(path)?.at)?;
    Ok(socket)
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    patient(&socket, PATIENT)?;
    Ok(socket)
}

/// Nothing on it waits longer.
pub(super) fn patient(socket: &OwnedFd, most: Duration) -> io::Result<()> {
    for side in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
        sockopt::set_socket_timeout(socket, side, Some(most))?;
    }
    Ok(())
}

/// Listens at `path`, in place of a socket on which nobody answers. Its name stays when it is closed.
pub(super) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let connect = |path: &Path| connection_to(path).map(drop);
    net::published(path, SocketAccess::Owner, connect, |beside| {
        let socket = new_socket()?;
        bind(&socket, &Address::of(beside)?.at)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    })
}

/// The agent that is served.
struct Connected {
    socket: OwnedFd,
    pid: u32,
    farewell: Option<Then>,
}

/// The last agent, as a process: until it has ended, what it works with is not another one's.
struct Process {
    handle: OwnedFd,
    pid: Option<Pid>,
    /// Where it was started here, and is to be waited for.
    child: Option<Child>,
    has_come: bool,
    /// Since when it is gone as an agent.
    lost: Option<Instant>,
}

impl Process {
    fn of(pid: Option<Pid>, child: Option<Child>) -> Result<Self, Errno> {
        let handle = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
        let has_come = child.is_none();
        Ok(Self { handle, pid, child, has_come, lost: None })
    }

    /// Whether it is dead and cannot end: a thread of it waits in the kernel for what the next one is to answer. What it
    /// had open is closed, or it would not be gone as an agent; that thread has nothing that another one needs.
    fn is_left_behind(&self, now: Instant) -> bool {
        let is_late = self.lost.is_some_and(|lost| now >= lost + ENDS_WITHIN);
        is_late && self.pid.is_some_and(is_dead)
    }
}

/// Whether the first thread of a process has ended.
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // Behind its name, in which anything may be.
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

struct Holder {
    signals: UnixStream,
    /// Whether it was asked to. As long as reads wait for bytes it does not: the kernel would let them through.
    is_to_end: bool,
    path: PathBuf,
    listener: OwnedFd,
    /// Connections that have not said who they are.
    newcomers: Vec<OwnedFd>,
    agent: Option<Connected>,
    kept: BTreeMap<String, Kept>,
    guarded: BTreeMap<String, Guarded>,
    /// Has a hold on them, too.
    second: Second,
    /// Which agent's.
    owner: String,
    supervision: Supervision,
    /// How an agent is started; empty where others do.
    command: Vec<OsString>,
    process: Option<Process>,
    /// Agents that were not waited for, and end at some time.
    left_behind: Vec<Child>,
    unkillable: Unkillable,
    /// When to end if no agent has come.
    until: Option<Instant>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    Newcomer,
    AskedToEnd,
    Said,
    SaidFirst(usize),
    ProcessEnded,
    Guarded,
    Time,
}

impl Holder {
    fn run(mut self) -> io::Result<()> {
        while !self.is_over() {
            match self.wait()? {
                Happened::Newcomer => self.admit(),
                Happened::AskedToEnd => self.is_to_end = true,
                Happened::SaidFirst(at) => self.greet(at),
                Happened::Said => self.hear(),
                Happened::ProcessEnded => self.reap(),
                Happened::Guarded | Happened::Time => {}
            }
            if self.is_to_end && self.agent.is_none() {
                self.give_up();
            }
            self.guard();
            self.leave_behind();
            if self.agent.is_none() {
                self.kept.retain(|_, kept| !is_gone(kept.device.as_fd()));
            }
        }
        Ok(())
    }

    /// One that its agent started is there for that agent's mounts.
    fn is_over(&self) -> bool {
        let awaited = self.until.is_some_and(|until| Instant::now() < until);
        let guards = !self.guarded.is_empty();
        if self.is_to_end {
            return !guards;
        }
        !self.command.is_empty()
            && !self.is_waiting()
            && self.agent.is_none()
            && !awaited
            && !guards
    }

    /// Sees to the reads that wait for bytes.
    fn guard(&mut self) {
        let now = Instant::now();
        self.guarded.values_mut().for_each(|guarded| guarded.work(now));
        let second = &mut self.second;
        self.guarded.retain(|name, guarded| {
            let has_ended = guarded.has_ended();
            if has_ended {
                tracing::info!(name, "nobody uses a guarded mount any more");
                second.let_go(name, now);
            }
            !has_ended
        });
        self.second.look_after(self.guarded.values().map(Guarded::guard), now);
    }

    /// Whether there is something that another agent is to go on with.
    fn is_waiting(&self) -> bool {
        let is_served = |guarded: &Guarded| !guarded.is_over();
        !self.kept.is_empty() || self.guarded.values().any(is_served) || self.supervision.is_asked()
    }

    fn wait(&mut self) -> io::Result<Happened> {
        let mut due = self.until;
        if self.is_waiting() {
            match self.supervision.due(Instant::now()) {
                Due::Nothing(until) => due = until,
                Due::Hangs => {
                    self.end_agent();
                    due = Some(Instant::now());
                }
                // Once the last one has ended.
                Due::Start if self.process.is_some() => {
                    let next = Instant::now() + LOOKED_AFTER;
                    due = self.supervision.end().into_iter().chain([next]).min();
                }
                Due::Start => {
                    self.start();
                    due = Some(Instant::now());
                }
                Due::GiveUp => {
                    self.give_up();
                    due = Some(Instant::now());
                }
            }
        }
        due = self.guarded.values().filter_map(Guarded::due).chain(due).min();
        due = self.second.due().filter(|_| !self.guarded.is_empty()).into_iter().chain(due).min();
        let mut asked = vec![PollFd::new(&self.listener, PollFlags::IN)];
        // Heard once.
        asked.extend((!self.is_to_end).then(|| PollFd::new(&self.signals, PollFlags::IN)));
        let agent = asked.len();
        asked.extend(self.agent.iter().map(|agent| PollFd::new(&agent.socket, PollFlags::IN)));
        let first = asked.len();
        asked.extend(self.newcomers.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let process = asked.len();
        let last = self.process.iter().map(|last| PollFd::new(&last.handle, PollFlags::IN));
        asked.extend(last);
        let guarded = asked.len();
        asked.extend(self.guarded.values().flat_map(Guarded::watched));
        asked.extend(self.second.watched());
        let devices = asked.len();
        if self.agent.is_none() {
            // Only then: every request of the kernel would wake this process.
            let kept = self.kept.values();
            asked.extend(kept.map(|kept| PollFd::new(&kept.device, PollFlags::empty())));
        }
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.map(|left| left.try_into().unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
        match poll(&mut asked, left.as_ref()) {
            Err(Errno::INTR) => return Ok(Happened::Time),
            other => other?,
        };
        let happened = asked.iter().position(|one| !one.revents().is_empty());
        Ok(match happened {
            Some(0) => Happened::Newcomer,
            Some(at) if at < agent => Happened::AskedToEnd,
            Some(at) if at < first => Happened::Said,
            Some(at) if at < process => Happened::SaidFirst(at - first),
            Some(at) if at < guarded => Happened::ProcessEnded,
            Some(at) if at < devices => Happened::Guarded,
            _ => Happened::Time,
        })
    }

    /// Lets in this user and root.
    fn admit(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            // Whoever waits keeps the listener awake.
            return std::thread::park_timeout(OUT_OF_FILES);
        };
        let own = rustix::process::geteuid();
        let user = peer_of(&socket).map(|peer| peer.user);
        let is_known = user.is_ok_and(|user| user == own || user.is_root());
        if is_known && patient(&socket, PATIENT).is_ok() {
            if self.newcomers.len() >= NEWCOMERS {
                // Whoever has something to say has said it by now.
                self.newcomers.remove(0);
            }
            self.newcomers.push(socket);
        }
    }

    /// Hears who a newcomer is.
    fn greet(&mut self, at: usize) {
        let socket = self.newcomers.remove(at);
        let Ok(Some((FromAgent::Hello { pid, agent }, _))) = packet::receive(&socket) else {
            return;
        };
        self.kept.retain(|_, kept| !is_gone(kept.device.as_fd()));
        if let Err(why) = self.may_serve(&agent) {
            // Whoever does not hear it finds the connection closed.
            let _ = packet::send(&socket, &FromHolder::Refused { why }, &[]);
            return;
        }
        self.owner = agent;
        let told = self.kept.values().try_for_each(|kept| {
            let told = FromHolder::Kept { name: kept.name.clone() };
            packet::send(&socket, &told, &kept.descriptors())
        });
        let mut guarded = self.guarded.values_mut();
        let told = told.and_then(|()| guarded.try_for_each(|guarded| tell_of(guarded, &socket)));
        if told.and_then(|()| packet::send(&socket, &done(), &[])).is_err() {
            let now = Instant::now();
            self.guarded.values_mut().for_each(|guarded| guarded.went(now));
            return;
        }
        let mounts = self.kept.len() + self.guarded.len();
        tracing::info!(pid, mounts, "an agent is served");
        let peer = peer_of(&socket).ok().and_then(|peer| peer.pid);
        match &mut self.process {
            Some(process) if process.pid == peer => {
                (process.has_come, process.lost) = (true, None);
            }
            // One of another machine's numbers cannot be waited for.
            _ => self.process = Process::of(peer, None).ok(),
        }
        self.agent = Some(Connected { socket, pid, farewell: None });
        self.until = None;
        self.supervision.came();
    }

    /// One agent at a time, and nobody is given what another one left.
    fn may_serve(&self, agent: &str) -> Result<(), String> {
        if let Some(served) = &self.agent {
            return Err(format!(
                "the holder serves an agent, pid {}: each has its own",
                served.pid
            ));
        }
        if !(self.kept.is_empty() && self.guarded.is_empty()) && self.owner != agent {
            let owner = &self.owner;
            return Err(format!(
                "the holder keeps mounts of the agent in {owner}: each has its own"
            ));
        }
        Ok(())
    }

    fn hear(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let Ok(Some((said, descriptors))) = packet::receive::<FromAgent>(&agent.socket) else {
            return self.lose_agent();
        };
        let mut line = None;
        let answer = match said {
            FromAgent::Keep { name } => keep(&mut self.kept, name, descriptors),
            FromAgent::LetGo { name } => {
                self.kept.remove(&name);
                if let Some(guarded) = self.guarded.remove(&name) {
                    guarded.let_through();
                    self.second.let_go(&name, Instant::now());
                }
                done()
            }
            FromAgent::Guard { name } => {
                match guard(&mut self.guarded, name.clone(), descriptors) {
                    // Before anything of it is shown.
                    Ok(end) if self.double(&name) => {
                        line = Some(end);
                        FromHolder::Guarding
                    }
                    Ok(_) => {
                        self.guarded.remove(&name);
                        let why = "there is nobody for a second hold on it".to_owned();
                        FromHolder::Refused { why }
                    }
                    Err(error) => FromHolder::Refused { why: error.to_string() },
                }
            }
            FromAgent::Close { name } => {
                self.guarded.get_mut(&name).into_iter().for_each(Guarded::close);
                done()
            }
            FromAgent::Ready => {
                self.supervision.ready();
                done()
            }
            FromAgent::Farewell { then } => {
                agent.farewell = Some(then);
                done()
            }
            FromAgent::Hello { .. } => {
                FromHolder::Refused { why: "it has said hello before".to_owned() }
            }
        };
        let Some(agent) = &self.agent else { return };
        let beside: Vec<_> = line.iter().map(OwnedFd::as_fd).collect();
        if packet::send(&agent.socket, &answer, &beside).is_err() {
            self.lose_agent();
        }
    }

    /// Has somebody else have a hold on a mount that is guarded from now on; whether there is somebody.
    fn double(&mut self, name: &str) -> bool {
        let now = Instant::now();
        let new = self.guarded.get(name).map(Guarded::guard);
        new.into_iter().for_each(|guard| self.second.have(guard, now));
        self.second.need_not_wait();
        self.second.look_after(self.guarded.values().map(Guarded::guard), now);
        self.second.is_there()
    }

    /// Ends an agent that came and does not go on with the mounts.
    fn end_agent(&mut self) {
        tracing::error!(
            mounts = self.kept.len() + self.guarded.len(),
            "the agent is not ready in time"
        );
        if let Some(process) = &self.process {
            // One that is gone by now is ended, too.
            let _ = pidfd_send_signal(&process.handle, Signal::KILL);
        }
        self.lose_agent();
    }

    fn lose_agent(&mut self) {
        let Some(agent) = self.agent.take() else { return };
        let mounts = self.kept.len() + self.guarded.len();
        tracing::info!(pid = agent.pid, mounts, "the agent is gone");
        let now = Instant::now();
        if let Some(process) = &mut self.process {
            process.lost = Some(now);
        }
        self.guarded.values_mut().for_each(|guarded| guarded.went(now));
        self.supervision.went(agent.farewell, now);
    }

    fn leave_behind(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.process.take_if(|last| last.is_left_behind(now)) {
            tracing::warn!(pid = ?last.pid, "an agent is dead and does not end: another one is started");
            self.left_behind.extend(last.child);
        }
        self.left_behind.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn reap(&mut self) {
        let Some(Process { child, has_come, .. }) = self.process.take() else { return };
        let ended = child.map(|mut child| child.wait());
        if !has_come {
            tracing::warn!(?ended, "the agent that was started has ended");
            self.supervision.started_in_vain(Instant::now());
        }
    }

    fn start(&mut self) {
        self.supervision.started();
        self.listen_again();
        let [program, arguments @ ..] = &self.command[..] else { return };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        let spawned = self.unkillable.pause(|| command.spawn());
        let started = spawned.and_then(|child| {
            let pid = Pid::from_raw(child.id().try_into().unwrap_or(0));
            Ok(Process::of(pid, Some(child))?)
        });
        match started {
            Ok(process) => {
                let pid = process.pid.map(|pid| pid.as_raw_nonzero().get());
                tracing::info!(pid, "the agent is started again");
                self.process = Some(process);
            }
            Err(error) => {
                tracing::error!(program = %program.display(), %error, "no agent can be started");
                self.supervision.started_in_vain(Instant::now());
            }
        }
    }

    /// Somebody may have removed the socket's name: nobody would find this holder.
    fn listen_again(&mut self) {
        if connection_to(&self.path).is_err() {
            match listen_at(&self.path) {
                Ok(listener) => self.listener = listener,
                Err(error) => tracing::error!(%error, "the holder cannot be found any more"),
            }
        }
    }

    /// Takes away what nobody has come for: who waits gets an error instead of waiting for ever.
    fn give_up(&mut self) {
        for (name, kept) in std::mem::take(&mut self.kept) {
            take_away(&name, &kept.record);
        }
        for (name, guarded) in self.guarded.iter_mut().filter(|(_, guarded)| !guarded.is_over()) {
            take_away(name, &guarded.guard().record);
            guarded.close();
        }
    }
}

fn take_away(name: &str, record: &Record) {
    tracing::error!(name, "a mount that no agent has come for is taken away");
    let at = record.read().ok().and_then(|record| record.at).unwrap_or_default();
    mount::take_away(&at);
}

/// Tells a new agent of a guarded mount.
fn tell_of(guarded: &mut Guarded, socket: &OwnedFd) -> io::Result<()> {
    let line = guarded.connect()?;
    let guard = guarded.guard();
    let told = FromHolder::Guarded { name: guard.name.clone() };
    let descriptors: Vec<_> = [line.as_fd()].into_iter().chain(guard.descriptors()).collect();
    packet::send(socket, &told, &descriptors)
}

fn done() -> FromHolder {
    FromHolder::Done { pid: std::process::id() }
}

fn keep(kept: &mut BTreeMap<String, Kept>, name: String, descriptors: Vec<OwnedFd>) -> FromHolder {
    let refused = |why: &str| FromHolder::Refused { why: why.to_owned() };
    let Ok([device, record]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return refused("a mount comes with its device and its record");
    };
    if kept.len() >= MOUNTS && !kept.contains_key(&name) {
        return refused("it keeps as many mounts as it can");
    }
    let record = Record::from_descriptor(record);
    kept.insert(name.clone(), Kept { name, device, record });
    done()
}

fn guard(
    guarded: &mut BTreeMap<String, Guarded>,
    name: String,
    descriptors: Vec<OwnedFd>,
) -> io::Result<OwnedFd> {
    let refused = |why: &str| io::Error::other(why.to_owned());
    if guarded.len() >= MOUNTS || guarded.contains_key(&name) {
        return Err(refused("it guards as many mounts as it can, or this one"));
    }
    let guard =
        Guard::of(name.clone(), descriptors).filter(|guard| guard.contents.len() <= CONTENTS);
    let guard = guard.ok_or_else(|| refused("a guarded mount comes with its descriptors"))?;
    let mut new = Guarded::new(guard, Instant::now())?;
    let line = new.connect()?;
    guarded.insert(name, new);
    Ok(line)
}

/// Spared when memory runs out, where this process may say so; those it starts are not.
struct Unkillable {
    usual: Option<String>,
}

const SCORE: &str = "/proc/self/oom_score_adj";

impl Unkillable {
    fn begin() -> Self {
        let usual = fs::read_to_string(SCORE).ok();
        let allowed = fs::write(SCORE, "-1000").is_ok();
        Self { usual: usual.filter(|_| allowed) }
    }

    fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(usual) = &self.usual else { return work() };
        // What was allowed once is allowed again.
        let _ = fs::write(SCORE, usual);
        let done = work();
        let _ = fs::write(SCORE, "-1000");
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_dead_and_does_not_end_is_not_waited_for_for_ever() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let mut process = Process::of(pid, None).unwrap();
        let begun = Instant::now();
        process.lost = Some(begun);
        assert!(!process.is_left_behind(begun + ENDS_WITHIN), "it lives");
        child.kill().unwrap();
        poll(&mut [PollFd::new(&process.handle, PollFlags::IN)], None).unwrap();
        assert!(!process.is_left_behind(begun), "it may end any moment");
        assert!(process.is_left_behind(begun + ENDS_WITHIN));
        process.lost = None;
        assert!(!process.is_left_behind(begun + ENDS_WITHIN), "it is an agent still");
        child.wait().unwrap();
    }
}
