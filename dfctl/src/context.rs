//! What every command gets: settings, output, the interrupt, and the way to a backend.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dfs_artifact::ImagesOnDisk;
use dfs_fuse::agent::inside::{self, InsideAgent};
use dfs_fuse::holder;
use dfs_model::Digest;
use dfs_service::Extensions;
use dfs_source::{FileOptions, HttpOptions, OciOptions, S3Options, SourcesBuilder};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::backend::agent::{Agent, CommandId};
use crate::backend::{Backend, Entry};
use crate::codes;
use crate::commands::interrupted;
use crate::error::CliError;
use crate::outdir::OutDir;
use crate::output::when::rough;
use crate::output::{Output, quoted_path};
use crate::part::{Identity, PartError, PartFile};
use crate::reach::{REACH_WITHIN, certificate, managers, named_in, unreached};
use crate::settings::Settings;

/// Nothing was taken for so long: no upload is under way.
const QUIET: Duration = Duration::from_millis(300);

/// How long uploads under way are waited for.
const UPLOADS_WITHIN: Duration = Duration::from_secs(30);

/// How long an agent that died may take to come back.
const RETURNS: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often it is looked whether others take anything.
const LOOK: Duration = Duration::from_millis(100);

/// The surroundings of a command.
pub struct Context {
    /// What is in force.
    pub settings: Settings,
    /// Where results go.
    pub output: Output,
    /// Cancelled by the first Ctrl-C.
    pub interrupted: CancellationToken,
    extensions: Extensions,
    given: Option<Arc<dyn Backend>>,
    command: CommandId,
    /// The agent inside this process, once something needed one and there was no daemon.
    inside: Mutex<Option<InsideAgent>>,
    /// Held by whoever starts it.
    starting: tokio::sync::Mutex<()>,
    /// How long it goes on serving others when the command is done.
    linger: Mutex<Option<Duration>>,
    /// The socket of the machine's agent, once it turned out not to be for this user.
    closed: OnceLock<PathBuf>,
}

impl Context {
    /// Surroundings in which the backend is looked for when it is needed.
    pub fn new(settings: Settings, output: Output, interrupted: CancellationToken) -> Self {
        let (given, command, inside) = (None, CommandId::random(), Mutex::new(None));
        let (linger, closed) = (Mutex::new(None), OnceLock::new());
        let (extensions, starting) = (Extensions::default(), tokio::sync::Mutex::default());
        Self {
            settings,
            output,
            interrupted,
            extensions,
            given,
            command,
            inside,
            starting,
            linger,
            closed,
        }
    }

    /// The same with what the site compiled in.
    pub fn with_extensions(self, extensions: Extensions) -> Self {
        Self { extensions, ..self }
    }

    /// How origins are reached from here, with files as they are said to be: on behalf of this user, with what is
    /// theirs.
    pub fn sources(&self, files: FileOptions) -> SourcesBuilder {
        let (http, s3) = (HttpOptions::of_process(), S3Options::of_process());
        let oci = OciOptions::of_process();
        let sources = self.extensions.sources().http(http).s3(s3).oci(oci).file(files.clone());
        ImagesOnDisk::known(sources, files)
    }

    /// Surroundings of a test.
    #[cfg(test)]
    pub fn with_backend(settings: Settings, output: Output, backend: Arc<dyn Backend>) -> Self {
        Self { given: Some(backend), ..Self::new(settings, output, CancellationToken::new()) }
    }

    /// Whoever can do the work: a node agent, else this process itself, which is said unless it was asked for.
    /// An agent may still be in another cluster than the one meant: see `commands::inside::backend`.
    pub async fn any_backend(&self) -> Result<Arc<dyn Backend>, CliError> {
        if let Some(backend) = self.answering_backend()? {
            return Ok(backend);
        }
        if self.settings.names_an_agent() {
            return Err(self
                .no_agent()
                .hint("the same command with --solo: straight from the origin"));
        }
        if !self.settings.solo && self.inside.lock().is_none() {
            self.output.note(&match &self.settings.cluster {
                Some(cluster) => {
                    format!("no node agent answers: a peer of {cluster} until it is done")
                }
                None => "no node agent answers: straight from the origin".to_owned(),
            });
        }
        self.inside().await
    }

    /// Waits until the agent inside this process has met a scheduler of the cluster that it is to be in.
    pub async fn reach_cluster(&self) -> Result<(), CliError> {
        let Some(cluster) = self.settings.cluster_joined() else { return Ok(()) };
        let reached = self.inside.lock().as_ref().map(|agent| agent.reached(REACH_WITHIN));
        let Some(reached) = reached else { return Ok(()) };
        let reached = tokio::select! {
            () = self.interrupted.cancelled() => return Err(interrupted()),
            reached = reached => reached,
        };
        reached
            .map_err(|why| named_in(self, unreached(cluster).because(format!("waited for {why}"))))
    }

    /// A node agent that is there already, for what only one that stays can answer.
    pub fn resident_backend(&self) -> Result<Arc<dyn Backend>, CliError> {
        self.running_backend()?.ok_or_else(|| self.no_agent())
    }

    /// The engine inside this process, straight from the origin or in the cluster named.
    async fn inside(&self) -> Result<Arc<dyn Backend>, CliError> {
        let is_alone = self.settings.cluster_joined().is_none();
        let backend = |agent: &InsideAgent| {
            Arc::new(Agent::inside(agent.channel(), is_alone, self.command.clone()))
        };
        if let Some(agent) = self.inside.lock().as_ref() {
            return Ok(backend(agent));
        }
        let _turn = self.starting.lock().await;
        // Another may have started it meanwhile.
        if let Some(agent) = self.inside.lock().as_ref() {
            return Ok(backend(agent));
        }
        let managers = managers(self).await?;
        let cluster = self.settings.cluster_joined();
        let node = cluster.and_then(|cluster| certificate(self, cluster));
        let node = node.zip(self.settings.agent_dir().ok());
        let parent = self.settings.solo_dir()?;
        let sources = self.sources(FileOptions::default());
        let location = self.settings.location.clone();
        let started = InsideAgent::start(&parent, sources, &managers, node, location).await;
        let agent = started.map_err(|error| {
            let what = format!("cannot work without a node agent in {}", parent.display());
            CliError::start(what, error.fault()).caused_by(&error)
        })?;
        Ok(backend(self.inside.lock().insert(agent)))
    }

    /// The part file of an output. What a killed command without an agent was writing is still a file of its cache
    /// too, of no use to anybody: where that stands in the way it is swept first, and the bytes are taken over.
    pub fn open_part(
        &self,
        dir: Arc<OutDir>,
        name: &OsStr,
        identity: Identity,
        like: Option<&Entry>,
        digest: Option<Digest>,
    ) -> Result<PartFile, PartError> {
        let stop = &self.interrupted;
        let opened = match PartFile::open(dir.clone(), name, identity.clone(), like, digest, stop) {
            Err(PartError::Shared(_)) => {
                if let Ok(parent) = self.settings.solo_dir() {
                    inside::sweep(&parent);
                }
                PartFile::open(dir, name, identity, like, digest, stop)?
            }
            opened => opened?,
        };
        if opened.was_spoilt() {
            let part = opened.path();
            self.output.note(&format!(
                "{} was changed or damaged since it was written: it begins anew",
                part.display()
            ));
        }
        Ok(opened)
    }

    /// Whether this process does the work itself.
    pub fn is_alone(&self) -> bool {
        self.inside.lock().is_some()
    }

    /// Goes on serving others when the command is done, until nobody has taken anything for `idle`.
    pub fn linger(&self, idle: Duration) {
        *self.linger.lock() = Some(idle);
    }

    /// Ends what was started inside this process; what others are being given is given to its end first.
    pub async fn finish(&self) {
        let inside = self.inside.lock().take();
        let Some(agent) = inside else { return };
        let linger = *self.linger.lock();
        if self.settings.cluster_joined().is_some() {
            match linger {
                Some(idle) => self.serve_others(&agent, idle, None).await,
                None => self.serve_others(&agent, QUIET, Some(UPLOADS_WITHIN)).await,
            }
        }
        agent.stop().await;
    }

    /// Until nobody has taken anything for `idle`, for no longer than `within`, or until Ctrl-C.
    async fn serve_others(&self, agent: &InsideAgent, idle: Duration, within: Option<Duration>) {
        // Whoever reads the result has it now; a failure to hand it over is told later.
        let _ = self.output.flush();
        if within.is_none() {
            let idle = rough(idle);
            self.output
                .note(&format!("serving others until nobody asks for {idle}; Ctrl-C leaves"));
        }
        let begun = Instant::now();
        let (mut given, mut since) = (agent.given(), begun);
        while since.elapsed() < idle && within.is_none_or(|within| begun.elapsed() < within) {
            tokio::select! {
                () = self.interrupted.cancelled() => return,
                () = tokio::time::sleep(LOOK.min(idle)) => {}
            }
            let now = agent.given();
            if now != given {
                (given, since) = (now, Instant::now());
            }
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
        Ok(self.find_agent()?.map(|(socket, stream)| self.agent_over(&socket, Some(stream))))
    }

    /// The agent that listens on `socket`.
    pub fn agent_at(&self, socket: &Path) -> Arc<dyn Backend> {
        self.agent_over(socket, None)
    }

    fn agent_over(&self, socket: &Path, connected: Option<UnixStream>) -> Arc<dyn Backend> {
        self.output.detail(&format!("asking the node agent on {}", socket.display()));
        Arc::new(Agent::at(socket, connected, self.command.clone()))
    }

    /// The first socket that somebody listens on, and a connection to it. One that was named, or is this user's own,
    /// and may not be used is an error: its cache and mounts are what the user means. The machine's agent is nobody's
    /// in particular: where it is closed to this user there is none for them.
    fn find_agent(&self) -> Result<Option<(PathBuf, UnixStream)>, CliError> {
        for socket in self.settings.sockets() {
            let error = match self.connect(&socket) {
                Ok(stream) => return Ok(Some((socket, stream))),
                Err(error) => error,
            };
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

    /// Connects to the agent on `socket`. One that died and has a holder is on its way back.
    fn connect(&self, socket: &Path) -> io::Result<UnixStream> {
        let began = Instant::now();
        loop {
            let error = match UnixStream::connect(socket) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
            let returns = absent.contains(&error.kind()) && self.is_kept(socket);
            if !returns || began.elapsed() > RETURNS {
                return Err(error);
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Whether a holder is there for the agent on `socket`: where such agents keep their data, or beside it, where agents
    /// listen that were told nothing else.
    fn is_kept(&self, socket: &Path) -> bool {
        let is_own = *socket == self.settings.own_socket();
        let own_dir = self.settings.agent_dir().ok().filter(|_| is_own);
        let beside = socket.parent().map(Path::to_owned);
        own_dir.into_iter().chain(beside).any(|dir| holder::is_there(&dir))
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
            self.settings.agent_dir().map_or_else(|_| "DIR".to_owned(), |dir| quoted_path(&dir)),
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
