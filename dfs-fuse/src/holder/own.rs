//! The agent's end: it hands over what its mounts need, and sees to it that a holder is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown};
use rustix::process::geteuid;

use super::packet::{self, FromAgent, FromHolder, Then};
use super::peer::peer_of;
use super::process::{ANSWERED, NAME, connection_to, listen_at, patient};
use super::{Guard, Holder, Kept, Left, LeftGuard, Record};

/// How long the holder may take to answer a process that ends, which has no more time.
const FAREWELL: Duration = Duration::from_millis(1500);

/// The same, where somebody waited for it in vain at that moment; and how long that is waited for.
const HURRIED: Duration = Duration::from_millis(300);

/// Until a holder of the machine that is gone is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often a holder is asked that hangs up before it says anything.
const ATTEMPTS: u32 = 3;

/// Who starts the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Starting {
    /// The agent, once it has something to keep. It starts the agent with this command when that dies.
    Agent(Vec<OsString>),
    /// The machine: it is there before the agent and after it.
    Machine,
}

/// A holder, as its agent sees it.
#[derive(Debug)]
pub struct Own {
    socket: PathBuf,
    starting: Starting,
    /// Tells this agent from others: where its data lies.
    agent: String,
    state: Mutex<State>,
    /// What is being waited for with the state locked: a farewell waits for nobody's answer but its own.
    waited_for: Mutex<Option<OwnedFd>>,
    /// Once this process ends: how long the holder may take to answer.
    over: Mutex<Option<Duration>>,
    this: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    /// Of the last connection.
    number: u64,
    /// What it keeps, to be given to the next one.
    kept: BTreeMap<String, Kept>,
    /// What it guards, and this process serves.
    guarded: BTreeSet<String>,
    /// New lines to those, of a connection that was made anew, until whoever serves them takes them.
    lines: BTreeMap<String, OwnedFd>,
    is_ready: bool,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    pid: u32,
}

impl Own {
    /// The holder at `socket` of the agent whose data lies in `data_dir`; it is not looked for yet.
    pub fn new(socket: PathBuf, starting: Starting, data_dir: &Path) -> Arc<Self> {
        let agent = data_dir.to_string_lossy().into_owned();
        Arc::new_cyclic(|this| Self {
            socket,
            starting,
            agent,
            state: Mutex::default(),
            waited_for: Mutex::default(),
            over: Mutex::default(),
            this: this.clone(),
        })
    }

    fn connected(&self, state: &mut State) -> io::Result<()> {
        if state.connection.is_none() && self.over.lock().is_some() {
            return Err(io::Error::other("the agent is stopping"));
        }
        self.connect(state)
    }

    /// The same, also for a farewell.
    fn connect(&self, state: &mut State) -> io::Result<()> {
        if state.connection.is_some() {
            return Ok(());
        }
        let socket = match (&self.starting, connection_to(&self.socket)) {
            (Starting::Agent(command), Err(error)) if is_absent(&error) => self.start(command)?,
            (_, connected) => connected?,
        };
        self.join(state, socket)
    }

    /// Goes on with the holder at the other end, which knows of everything then.
    fn join(&self, state: &mut State, socket: OwnedFd) -> io::Result<()> {
        let there = self.greet(state, socket)?;
        let told = state.bring_up_to_date(there);
        if told.is_err() {
            state.hang_up();
        }
        told
    }

    /// Starts one; it makes a session of its own: what ends this agent's group or session does not end it.
    fn start(&self, agent: &[OsString]) -> io::Result<OwnedFd> {
        let program = agent.first().ok_or_else(|| io::Error::other("no program to start"))?;
        let mut command = Command::new(program);
        command.arg0(NAME).arg("holder").arg("--socket").arg(&self.socket).arg("--").args(agent);
        // It is given what it listens on: nobody has to wait until it does.
        let listener = listen_at(&self.socket)?;
        let mut child = command.stdin(listener).spawn()?;
        // Whenever it ends, it is not left a zombie.
        let reaper = std::thread::Builder::new().name("dfs-holder-end".to_owned());
        reaper.spawn(move || child.wait())?;
        connection_to(&self.socket)
    }

    /// Says hello, and hears what is kept.
    fn greet(&self, state: &mut State, socket: OwnedFd) -> io::Result<Left> {
        *self.waited_for.lock() = Some(socket.try_clone()?);
        let left = self.begin(state, socket);
        if left.is_err() {
            self.waited_for.lock().take();
        }
        left
    }

    fn begin(&self, state: &mut State, socket: OwnedFd) -> io::Result<Left> {
        // It is given the kernel's end of mounts, and what they show.
        let (owner, own) = (peer_of(&socket)?.user, geteuid());
        if owner != own && !owner.is_root() {
            let why = format!("the holder belongs to uid {}", owner.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        // Whoever says farewell meanwhile sees what is waited for, or is seen here.
        patient(&socket, self.over.lock().unwrap_or(ANSWERED))?;
        let hello = FromAgent::Hello { pid: std::process::id(), agent: self.agent.clone() };
        packet::send(&socket, &hello, &[])?;
        let mut all = Left::default();
        let pid = loop {
            match heard(&socket)? {
                (FromHolder::Kept { name }, descriptors) => {
                    let pair = <[OwnedFd; 2]>::try_from(descriptors);
                    let [device, record] =
                        pair.map_err(|_| io::Error::other("a mount came without descriptors"))?;
                    let record = Record::from_descriptor(record);
                    all.kept.push(Kept { name, device, record });
                }
                (FromHolder::Guarded { name }, descriptors) => {
                    let mut descriptors = descriptors.into_iter();
                    let line = descriptors.next();
                    let left = line.zip(Guard::of(name, descriptors));
                    let left = left.map(|(line, guard)| LeftGuard { guard, line });
                    let lacks = || io::Error::other("a guarded mount came without descriptors");
                    all.guarded.push(left.ok_or_else(lacks)?);
                }
                (FromHolder::Guarding, _) => return Err(out_of_turn()),
                (FromHolder::Done { pid }, _) => break pid,
                (FromHolder::Refused { why }, _) => return Err(io::Error::other(why)),
            }
        };
        state.number += 1;
        self.watch(socket.try_clone()?, state.number)?;
        state.connection = Some(Connection { socket, pid });
        Ok(all)
    }

    /// Sees when a connection ends.
    fn watch(&self, socket: OwnedFd, number: u64) -> io::Result<()> {
        let this = self.this.clone();
        std::thread::Builder::new().name("dfs-holder".to_owned()).spawn(move || {
            let mut asked = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
            while poll(&mut asked, None).is_err() {}
            drop(socket);
            let mut is_told = false;
            while let Some(own) = this.upgrade() {
                match own.look_for_another(number) {
                    Ok(()) => return,
                    Err(error) if !is_told => {
                        tracing::error!(%error, "the holder of the mounts is gone, and there is no other");
                        is_told = true;
                    }
                    Err(_) => {}
                }
                drop(own);
                std::thread::park_timeout(LOOK_AGAIN);
            }
        })?;
        Ok(())
    }

    /// After the end of a connection: finds or starts another holder, where one is needed.
    fn look_for_another(&self, number: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.number != number {
            // Somebody else has connected since.
            return Ok(());
        }
        state.connection = None;
        if self.over.lock().is_some()
            || (state.kept.is_empty() && self.starting != Starting::Machine)
        {
            return Ok(());
        }
        self.connected(&mut state)?;
        tracing::warn!("the holder of the mounts was gone: there is another one");
        Ok(())
    }
}

impl Holder for Own {
    fn take_over(&self) -> io::Result<Left> {
        let mut state = self.state.lock();
        let mut attempt = 0;
        let left = loop {
            let socket = match connection_to(&self.socket) {
                Ok(socket) => socket,
                // Where there is none, nothing is kept.
                Err(error) if is_absent(&error) => return Ok(Left::default()),
                Err(error) => return Err(error),
            };
            attempt += 1;
            match self.greet(&mut state, socket) {
                // It was about to die.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof && attempt < ATTEMPTS => {}
                greeted => break greeted?,
            }
        };
        let all = left.kept.iter().map(|kept| Ok((kept.name.clone(), kept.try_clone()?)));
        state.kept = all.collect::<io::Result<_>>()?;
        state.guarded = left.guarded.iter().map(|left| left.guard.name.clone()).collect();
        Ok(left)
    }

    fn ready(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.is_ready = true;
        if state.connection.is_none() { Ok(()) } else { state.say(&FromAgent::Ready, &[]) }
    }

    fn keep(&self, kept: Kept) -> io::Result<()> {
        let mut state = self.state.lock();
        let (name, copy) = (kept.name.clone(), kept.try_clone()?);
        // Whoever it is told to anew is told of this one, too.
        state.kept.insert(name.clone(), kept);
        let told = match state.connection {
            Some(_) => state.say(&FromAgent::Keep { name: name.clone() }, &copy.descriptors()),
            None => self.connected(&mut state),
        };
        let told = match told {
            Err(_) if state.connection.is_none() => self.connected(&mut state),
            other => other,
        };
        if told.is_err() {
            state.kept.remove(&name);
        }
        told
    }

    fn let_go(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.kept.remove(name);
        state.say(&FromAgent::LetGo { name: name.to_owned() }, &[])?;
        state.no_more(name);
        Ok(())
    }

    fn cannot_guard(&self) -> Option<&'static str> {
        None
    }

    fn guard(&self, guard: Guard) -> io::Result<OwnedFd> {
        let mut state = self.state.lock();
        let had_one = state.connection.is_some();
        self.connected(&mut state)?;
        let line = match state.guard(&guard) {
            // It was gone before it was asked.
            Err(_) if had_one && state.connection.is_none() => {
                self.connected(&mut state)?;
                state.guard(&guard)
            }
            guarded => guarded,
        }?;
        state.guarded.insert(guard.name);
        Ok(line)
    }

    fn line(&self, name: &str) -> Option<OwnedFd> {
        loop {
            let mut state = self.state.lock();
            if !state.guarded.contains(name) {
                return None;
            }
            if let Some(line) = state.lines.remove(name) {
                return Some(line);
            }
            state.hang_up();
            match connection_to(&self.socket).and_then(|socket| self.join(&mut state, socket)) {
                Ok(()) if state.lines.contains_key(name) => {}
                // It hangs: whoever reads waits for it in any case.
                Err(error) if is_late(&error) => {}
                Ok(()) | Err(_) => state.no_more(name),
            }
        }
    }

    fn close(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.no_more(name);
        state.say(&FromAgent::Close { name: name.to_owned() }, &[])
    }

    fn farewell(&self, then: Then) -> io::Result<()> {
        self.hurry();
        let mut state = self.state.lock();
        // Where none was needed, none has to be told.
        if then == Then::Another || self.starting == Starting::Machine || !state.kept.is_empty() {
            self.connect(&mut state)?;
        }
        match &state.connection {
            Some(connection) => {
                patient(&connection.socket, self.over.lock().unwrap_or(FAREWELL))?;
                state.say(&FromAgent::Farewell { then }, &[])
            }
            None => Ok(()),
        }
    }

    fn hurry(&self) {
        self.over.lock().get_or_insert(FAREWELL);
        if self.state.try_lock_for(HURRIED).is_none() {
            *self.over.lock() = Some(HURRIED);
            if let Some(waited_for) = self.waited_for.lock().take() {
                let _ = shutdown(&waited_for, Shutdown::Both);
            }
        }
    }

    fn outlives_a_stop(&self) -> bool {
        self.starting == Starting::Machine
    }

    fn pid(&self) -> Option<u32> {
        self.state.lock().connection.as_ref().map(|connection| connection.pid)
    }
}

impl State {
    /// Tells a holder that has `there` what it does not know.
    fn bring_up_to_date(&mut self, there: Left) -> io::Result<()> {
        for LeftGuard { guard: Guard { name, .. }, line } in there.guarded {
            match self.guarded.contains(&name) {
                true => drop(self.lines.insert(name, line)),
                // Whoever served it has taken it away.
                false => self.say(&FromAgent::Close { name }, &[])?,
            }
        }
        let there = &there.kept;
        for kept in there {
            if !self.kept.contains_key(&kept.name) {
                self.say(&FromAgent::LetGo { name: kept.name.clone() }, &[])?;
            }
        }
        let lacks = |name: &String| there.iter().all(|kept| kept.name != *name);
        let lacking = self.kept.values().filter(|kept| lacks(&kept.name)).map(Kept::try_clone);
        for kept in lacking.collect::<io::Result<Vec<_>>>()? {
            self.say(&FromAgent::Keep { name: kept.name.clone() }, &kept.descriptors())?;
        }
        if self.is_ready { self.say(&FromAgent::Ready, &[]) } else { Ok(()) }
    }

    /// Says something to the holder and waits until it is done. A conversation that goes wrong is over: an answer that
    /// comes late would be taken for that of the next question.
    fn say(&mut self, said: &FromAgent, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.ask(said, with)? {
            (FromHolder::Done { .. }, _) => Ok(()),
            _ => {
                self.hang_up();
                Err(out_of_turn())
            }
        }
    }

    /// Has a mount guarded: the line at which its reads are told.
    fn guard(&mut self, guard: &Guard) -> io::Result<OwnedFd> {
        let said = FromAgent::Guard { name: guard.name.clone() };
        match self.ask(&said, &guard.descriptors())? {
            (FromHolder::Guarding, mut line) if line.len() == 1 => Ok(line.remove(0)),
            _ => {
                self.hang_up();
                Err(out_of_turn())
            }
        }
    }

    fn ask(&mut self, said: &FromAgent, with: &[BorrowedFd<'_>]) -> io::Result<Heard> {
        let Some(connection) = &self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match connection.ask(said, with) {
            Ok((FromHolder::Refused { why }, _)) => Err(io::Error::other(why)),
            Ok(heard) => Ok(heard),
            Err(error) => {
                self.hang_up();
                Err(error)
            }
        }
    }

    /// This process does not serve it any more.
    fn no_more(&mut self, name: &str) {
        self.guarded.remove(name);
        self.lines.remove(name);
    }

    fn hang_up(&mut self) {
        self.lines.clear();
        if let Some(connection) = self.connection.take() {
            // Who watches sees it, and looks for a holder again.
            let _ = shutdown(&connection.socket, Shutdown::Both);
        }
    }
}

impl Connection {
    fn ask(&self, said: &FromAgent, with: &[BorrowedFd<'_>]) -> io::Result<Heard> {
        packet::send(&self.socket, said, with).map_err(late)?;
        heard(&self.socket)
    }
}

/// What a holder said, with what came beside it.
type Heard = (FromHolder, Vec<OwnedFd>);

fn heard(socket: &OwnedFd) -> io::Result<Heard> {
    Ok(packet::receive(socket).map_err(late)?.ok_or(io::ErrorKind::UnexpectedEof)?)
}

/// What the system says of somebody who does not answer tells nobody anything.
fn late(error: io::Error) -> io::Error {
    match is_late(&error) {
        true => io::Error::new(io::ErrorKind::TimedOut, "the holder does not answer"),
        false => error,
    }
}

fn out_of_turn() -> io::Error {
    io::Error::other("the holder answers what was not asked")
}

/// Nobody listens there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Who listens there did not answer in time.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Where an agent's own holder listens.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("holder.sock")
}
