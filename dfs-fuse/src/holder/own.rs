//! The agent's end: it hands over what its mounts need, and sees to it that a holder is there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown, sockopt};

use super::packet::{self, FromAgent, FromHolder, Then};
use super::process::{NAME, connection_to, listen_at};
use super::{Holder, Kept, Record};

/// How long a holder may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Until a holder of the machine that is gone is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    state: Mutex<State>,
    this: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    /// What it keeps, to be given to the next one.
    kept: BTreeMap<String, Kept>,
    child: Option<Child>,
    is_over: bool,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    pid: u32,
}

impl Own {
    /// The holder at `socket`; it is not looked for yet.
    pub fn new(socket: PathBuf, starting: Starting) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            socket,
            starting,
            state: Mutex::default(),
            this: this.clone(),
        })
    }

    fn connected(&self, state: &mut State) -> io::Result<()> {
        if state.connection.is_some() {
            return Ok(());
        }
        let socket = match (&self.starting, connection_to(&self.socket)) {
            (Starting::Agent(command), Err(error)) if is_absent(&error) => {
                self.start(state, command)?
            }
            (_, connected) => connected?,
        };
        self.greet(state, socket)?;
        // All that an earlier one had.
        let kept = std::mem::take(&mut state.kept);
        let told = kept.values().try_for_each(|kept| {
            state.tell(&FromAgent::Keep { name: kept.name.clone() }, Some(kept))
        });
        state.kept = kept;
        told
    }

    /// Starts one in a process group of its own: what ends this agent's does not end it.
    fn start(&self, state: &mut State, agent: &[OsString]) -> io::Result<OwnedFd> {
        let program = agent.first().ok_or_else(|| io::Error::other("no program to start"))?;
        let mut command = Command::new(program);
        command.arg0(NAME).arg("holder").arg("--socket").arg(&self.socket).arg("--").args(agent);
        // It is given what it listens on: nobody has to wait until it does.
        let listener = listen_at(&self.socket)?;
        let child = command.stdin(listener).process_group(0).spawn()?;
        if let Some(mut earlier) = state.child.replace(child) {
            // It is known to be gone.
            let _ = earlier.try_wait();
        }
        connection_to(&self.socket)
    }

    /// Says hello, and hears what is kept.
    fn greet(&self, state: &mut State, socket: OwnedFd) -> io::Result<Vec<Kept>> {
        for side in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
            sockopt::set_socket_timeout(&socket, side, Some(ANSWER))?;
        }
        packet::send(&socket, &FromAgent::Hello { pid: std::process::id() }, &[])?;
        let mut all = Vec::new();
        let pid = loop {
            match packet::receive(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)? {
                (FromHolder::Kept { name }, descriptors) => {
                    let pair = <[OwnedFd; 2]>::try_from(descriptors);
                    let [device, record] =
                        pair.map_err(|_| io::Error::other("a mount came without descriptors"))?;
                    all.push(Kept { name, device, record: Record::from_descriptor(record) });
                }
                (FromHolder::Done { pid }, _) => break pid,
                (FromHolder::Refused { why }, _) => return Err(io::Error::other(why)),
            }
        };
        self.watch(socket.try_clone()?)?;
        state.connection = Some(Connection { socket, pid });
        Ok(all)
    }

    /// Sees when it dies.
    fn watch(&self, socket: OwnedFd) -> io::Result<()> {
        let this = self.this.clone();
        std::thread::Builder::new().name("dfs-holder".to_owned()).spawn(move || {
            let mut asked = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
            while poll(&mut asked, None).is_err() {}
            while let Some(own) = this.upgrade() {
                if own.is_held_again() {
                    return;
                }
                drop(own);
                std::thread::park_timeout(LOOK_AGAIN);
            }
        })?;
        Ok(())
    }

    /// After a holder's death: whether there is another one, or none is needed.
    fn is_held_again(&self) -> bool {
        let mut state = self.state.lock();
        state.connection = None;
        if let Some(mut child) = state.child.take() {
            // It is gone; nobody else asks how it ended.
            let _ = child.wait();
        }
        if state.is_over || (state.kept.is_empty() && self.starting != Starting::Machine) {
            return true;
        }
        match self.connected(&mut state) {
            Ok(()) => {
                tracing::warn!("the holder of the mounts was gone: there is another one");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the holder of the mounts is gone, and there is no other");
                false
            }
        }
    }
}

impl Holder for Own {
    fn take_over(&self) -> io::Result<Vec<Kept>> {
        let mut state = self.state.lock();
        let socket = match connection_to(&self.socket) {
            Ok(socket) => socket,
            Err(error) if is_absent(&error) && self.starting != Starting::Machine => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let kept = self.greet(&mut state, socket)?;
        let all = kept.iter().map(|kept| Ok((kept.name.clone(), kept.try_clone()?)));
        state.kept = all.collect::<io::Result<_>>()?;
        Ok(kept)
    }

    fn keep(&self, kept: Kept) -> io::Result<()> {
        let mut state = self.state.lock();
        self.connected(&mut state)?;
        let name = kept.name.clone();
        state.tell(&FromAgent::Keep { name: name.clone() }, Some(&kept))?;
        state.kept.insert(name, kept);
        Ok(())
    }

    fn let_go(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.kept.remove(name);
        state.tell(&FromAgent::LetGo { name: name.to_owned() }, None)
    }

    fn farewell(&self, then: Then) -> io::Result<()> {
        let mut state = self.state.lock();
        state.is_over = true;
        match then {
            // Where there is none, nobody has to be told.
            Then::Nothing if state.connection.is_none() => Ok(()),
            _ => {
                self.connected(&mut state)?;
                state.tell(&FromAgent::Farewell { then }, None)
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
    /// Says something to the holder and waits until it is done. A conversation that goes wrong is over: an answer that
    /// comes late would be taken for that of the next question.
    fn tell(&mut self, said: &FromAgent, with: Option<&Kept>) -> io::Result<()> {
        let Some(connection) = &self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let told = connection.tell(said, with);
        match told {
            Ok(FromHolder::Done { .. }) => Ok(()),
            Ok(FromHolder::Refused { why }) => Err(io::Error::other(why)),
            Ok(FromHolder::Kept { .. }) => {
                self.hang_up();
                Err(io::Error::other("the holder answers with a mount"))
            }
            Err(error) => {
                self.hang_up();
                Err(error)
            }
        }
    }

    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Who watches sees it, and looks for a holder again.
            let _ = shutdown(&connection.socket, Shutdown::Both);
        }
    }
}

impl Connection {
    fn tell(&self, said: &FromAgent, with: Option<&Kept>) -> io::Result<FromHolder> {
        let pair = with.map(|kept| [kept.device.as_fd(), kept.record.as_fd()]);
        packet::send(&self.socket, said, pair.as_ref().map_or(&[], |pair| &pair[..]))?;
        Ok(packet::receive(&self.socket)?.ok_or(io::ErrorKind::UnexpectedEof)?.0)
    }
}

/// Nobody listens there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Where an agent's own holder listens.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("holder.sock")
}
