//! An HTTP/1.1 origin over plain threads: keep-alive, ranges, HEAD, ETag, listings as nginx writes
//! them, over directories of this machine and content in memory or made up on the way.
//!
//! It counts exactly what it was asked and what it sent, and does wrong what it is told to do
//! wrong; a fault says how often it struck, so that no test passes because nothing happened.

mod answer;
mod content;
mod fault;
mod prose;
mod request;
mod shelf;
mod site;
mod state;

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use content::{Body, Opened, fill};
pub use fault::{Fault, Injected, Wrong};
pub use prose::prose;
pub use request::{decode as decode_path, encode as encode_path};
pub use shelf::{Object, Shelf};
pub use state::{Counters, InFlight, Logged, PathCounters};

use crate::Failure;
use crate::wait::PATIENCE;
use state::Shared;

/// A running origin; it ends, with every connection, when this is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    /// An empty origin on a free loopback port.
    pub fn start() -> Result<Self, Failure> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// An empty origin at this address.
    pub fn start_at(address: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address).map_err(Failure::of("cannot start an origin"))?;
        let address = listener.local_addr().map_err(Failure::of("cannot start an origin"))?;
        let (listener, shared) = (Arc::new(listener), Arc::new(Shared::default()));
        let (taking, state) = (Arc::clone(&listener), Arc::clone(&shared));
        let accepting = thread::Builder::new()
            .name("origin".to_owned())
            .spawn(move || accept(&taking, &state))
            .map_err(Failure::of("cannot start an origin"))?;
        Ok(Self { address, listener, shared, accepting: Some(accepting) })
    }

    /// An origin that serves this directory in place.
    pub fn of_directory(directory: &Path) -> Result<Self, Failure> {
        let origin = Self::start()?;
        origin.show("/", directory);
        Ok(origin)
    }

    /// An origin with one path.
    pub fn of(path: &str, body: Body) -> Result<Self, Failure> {
        let origin = Self::start()?;
        origin.put(path, body);
        Ok(origin)
    }

    /// The URL of a path, which begins with a slash and is not escaped yet.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{}", self.address, request::encode(path.as_bytes()))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what is at `path`: from now on it is a new version, with a new ETag.
    pub fn put(&self, path: &str, body: Body) {
        self.shared.change(|state| state.site.put(path, body));
    }

    /// Takes away what was put at `path`.
    pub fn remove(&self, path: &str) {
        self.shared.change(|state| state.site.remove(path));
    }

    /// Shows the plain files and directories of `directory` below `prefix`, in place.
    pub fn show(&self, prefix: &str, directory: &Path) {
        self.shared.change(|state| state.site.show(prefix, directory));
    }

    /// Has this bucket at `path`, in place of what was there.
    pub fn shelve(&self, path: &str, shelf: Shelf) {
        self.shared.change(|state| state.site.shelve(path, shelf));
    }

    /// Does something wrong from now on.
    pub fn inject(&self, fault: impl Into<Fault>) -> Injected {
        let rule = fault::Rule::new(fault.into());
        let number = self.shared.change(|state| {
            state.rules.push(rule);
            state.rules.len() - 1
        });
        Injected { shared: Arc::clone(&self.shared), number }
    }

    /// The counts now.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters.clone()
    }

    /// Begins to count anew.
    pub fn reset_counters(&self) {
        self.shared.change(|state| {
            state.counters = Counters::default();
            state.log.clear();
        });
    }

    /// The answers whose bodies are being sent.
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.shared.lock().in_flight.values().cloned().collect()
    }

    /// The first hundred thousand requests that were answered.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.lock().log.clone()
    }

    /// Waits until the counts are as wanted.
    pub fn wait_counters(
        &self,
        what: &str,
        mut condition: impl FnMut(&Counters) -> bool,
    ) -> Result<(), Failure> {
        self.shared.wait(what, PATIENCE, |state| condition(&state.counters))
    }

    /// Waits until a body of `path` is under way: at least `sent` bytes written, some left.
    pub fn wait_in_flight(&self, path: &str, sent: u64) -> Result<(), Failure> {
        let what = format!("{sent} bytes of {path} are sent and more are under way");
        self.shared.wait(&what, PATIENCE, |state| {
            let mut answers = state.in_flight.values();
            answers.any(|answer| answer.path == path && answer.sent >= sent && answer.left > 0)
        })
    }

    /// Waits until no body is being sent.
    pub fn wait_idle(&self, limit: Duration) -> Result<(), Failure> {
        self.shared.wait("the origin is idle", limit, |state| state.in_flight.is_empty())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let connections = self.shared.change(|state| {
            state.stopping = true;
            std::mem::take(&mut state.connections)
        });
        for connection in connections.iter().filter_map(std::sync::Weak::upgrade) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes whoever waits in accept.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        let stream = Arc::new(stream);
        let stopping = shared.change(|state| {
            state.counters.connections += 1;
            state.connections.retain(|connection| connection.strong_count() > 0);
            state.connections.push(Arc::downgrade(&stream));
            state.stopping
        });
        if stopping {
            break;
        }
        let state = Arc::clone(shared);
        serving.retain(|thread| !thread.is_finished());
        // A client that goes away mid-answer is its own affair; a thread that cannot be had is a
        // connection that ends.
        let thread = thread::Builder::new().name("origin".to_owned()).spawn(move || {
            let _ = answer::serve(&state, &stream);
        });
        serving.extend(thread);
    }
    for thread in serving {
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests;
