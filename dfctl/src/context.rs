//! What every command gets: settings, output, the interrupt, and the way to a backend.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dfs_fuse::agent::inside::{self, InsideAgent};
use dfs_model::Digest;
use dfs_source::HttpOptions;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::backend::agent::{Agent, CommandId};
use crate::codes;
use crate::error::CliError;
use crate::outdir::OutDir;
use crate::output::{Output, quoted_path};
use crate::part::{Identity, PartError, PartFile};
use crate::settings::Settings;

/// The surroundings of a command.
pub struct Context {
    /// What is in force.
    pub settings: Settings,
    /// Where results go.
    pub output: Output,
    /// Cancelled by the first Ctrl-C.
    pub interrupted: CancellationToken,
    given: Option<Arc<dyn Backend>>,
    command: CommandId,
    /// The agent inside this process, once something needed one and there was no daemon.
    inside: Mutex<Option<InsideAgent>>,
    /// The socket of the machine's agent, once it turned out not to be for this user.
    closed: OnceLock<PathBuf>,
}

impl Context {
    /// Surroundings in which the backend is looked for when it is needed.
    pub fn new(settings: Settings, output: Output, interrupted: CancellationToken) -> Self {
        let (given, command, inside) = (None, CommandId::random(), Mutex::new(None));
        let closed = OnceLock::new();
        Self { settings, output, interrupted, given, command, inside, closed }
    }

    /// Surroundings of a test.
    #[cfg(test)]
    pub fn with_backend(settings: Settings, output: Output, backend: Arc<dyn Backend>) -> Self {
        Self { given: Some(backend), ..Self::new(settings, output, CancellationToken::new()) }
    }

    /// Whoever can do the work: a node agent, else this process itself, which is said unless it was asked for.
    /// An agent may still be in another cluster than the one meant: see `commands::inside::backend`.
    pub fn any_backend(&self) -> Result<Arc<dyn Backend>, CliError> {
        if let Some(backend) = self.answering_backend()? {
            return Ok(backend);
        }
        if self.settings.names_an_agent() {
            return Err(self
                .no_agent()
                .hint("the same command with --solo: straight from the origin"));
        }
        if !self.settings.solo && self.inside.lock().is_none() {
            let without =
                self.settings.cluster.map(|cluster| format!(", without the cluster {cluster}"));
            let without = without.unwrap_or_default();
            self.output.note(&format!("no node agent answers: straight from the origin{without}"));
        }
        self.solo()
    }

    /// A node agent that is there already, for what only one that stays can answer.
    pub fn resident_backend(&self) -> Result<Arc<dyn Backend>, CliError> {
        self.running_backend()?.ok_or_else(|| self.no_agent())
    }

    /// The engine inside this process, straight from the origin. Needs a runtime.
    fn solo(&self) -> Result<Arc<dyn Backend>, CliError> {
        let mut inside = self.inside.lock();
        if let Some(agent) = inside.as_ref() {
            return Ok(Arc::new(Agent::inside(agent.channel(), self.command.clone())));
        }
        let parent = self.settings.solo_dir();
        let agent = InsideAgent::start(&parent, HttpOptions::of_process()).map_err(|error| {
            let what = format!("cannot work without a node agent in {}", parent.display());
            CliError::start(what, error.fault()).caused_by(&error)
        })?;
        let channel = agent.channel();
        *inside = Some(agent);
        Ok(Arc::new(Agent::inside(channel, self.command.clone())))
    }

    /// The part file of an output. What a killed command without an agent was writing is still a file of its cache
    /// too, of no use to anybody: where that stands in the way it is swept first, and the bytes are taken over.
    pub fn open_part(
        &self,
        dir: Arc<OutDir>,
        name: &OsStr,
        identity: Identity,
        digest: Option<Digest>,
    ) -> Result<PartFile, PartError> {
        match PartFile::open(dir.clone(), name, identity.clone(), digest) {
            Err(PartError::Shared(_)) => {
                inside::sweep(&self.settings.solo_dir());
                PartFile::open(dir, name, identity, digest)
            }
            opened => opened,
        }
    }

    /// Whether this process does the work itself.
    pub fn is_alone(&self) -> bool {
        self.inside.lock().is_some()
    }

    /// Ends what was started inside this process.
    pub async fn finish(&self) {
        let inside = self.inside.lock().take();
        if let Some(agent) = inside {
            agent.stop().await;
        }
    }

    /// The agent that is there already; `None` when none answers where one is usual. Nobody on a socket that
    /// was named is an error: what the user means is that agent's cache and mounts, not whatever else works.
    pub fn running_backend(&self) -> Result<Option<Arc<dyn Backend>>, CliError> {
        let found = self.answering_backend()?;
        if found.is_none() && self.settings.names_an_agent() {
            return Err(self.no_agent());
        }
        Ok(found)
    }

    /// The agent that is there already, for those whom it is no failure that there is none.
    pub fn answering_backend(&self) -> Result<Option<Arc<dyn Backend>>, CliError> {
        if let Some(backend) = &self.given {
            return Ok(Some(backend.clone()));
        }
        if self.settings.solo {
            return Ok(None);
        }
        Ok(self.find_agent()?.map(|socket| self.agent_at(&socket)))
    }

    /// The agent that listens on `socket`.
    pub fn agent_at(&self, socket: &Path) -> Arc<dyn Backend> {
        self.output.detail(&format!("asking the node agent on {}", socket.display()));
        Arc::new(Agent::at(socket, self.command.clone()))
    }

    /// The first socket that somebody listens on. One that was named, or is this user's own, and may not be used
    /// is an error: its cache and mounts are what the user means. The machine's agent is nobody's in particular:
    /// where it is closed to this user there is none for them.
    fn find_agent(&self) -> Result<Option<PathBuf>, CliError> {
        for socket in self.settings.sockets() {
            let Err(error) = UnixStream::connect(&socket) else { return Ok(Some(socket)) };
            match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotADirectory => {}
                io::ErrorKind::PermissionDenied if self.settings.is_the_machines(&socket) => {
                    self.note_closed(socket);
                }
                io::ErrorKind::PermissionDenied => {
                    let what = format!("cannot use the node agent on {}", socket.display());
                    return Err(CliError::new(&codes::AGENT_DENIED, what)
                        .caused_by(&error)
                        .hint("ask for membership in its socket group, or go around it: --solo"));
                }
                _ => {
                    let what = format!("cannot use the node agent on {}", socket.display());
                    return Err(CliError::new(&codes::NO_AGENT, what).caused_by(&error));
                }
            }
        }
        Ok(None)
    }

    /// Says once that the machine's agent is not for this user.
    fn note_closed(&self, socket: PathBuf) {
        let note = format!("{} is closed to this user: going on without it", socket.display());
        if self.closed.set(socket).is_ok() {
            self.output.note(&note);
        }
    }

    fn no_agent(&self) -> CliError {
        let sockets = self.settings.sockets();
        let open = sockets.iter().filter(|socket| self.closed.get() != Some(*socket));
        let tried: Vec<_> = open.map(|socket| socket.display().to_string()).collect();
        let start = format!(
            "dfs-fuse --data-dir {} --socket {}",
            quoted_path(&self.settings.agent_dir()),
            quoted_path(&self.settings.own_socket())
        );
        let error = CliError::new(&codes::NO_AGENT, "no node agent answers");
        let error = match self.closed.get() {
            Some(closed) => error.because(format!("{} is closed to this user", closed.display())),
            None => error,
        };
        error.because(format!("nothing listens on {}", tried.join(" or "))).hint(start)
    }
}
