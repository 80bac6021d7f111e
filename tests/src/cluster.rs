//! A cluster in one process, node agents beside it, and mounts that go away with their test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::process::{Binaries, Process, Program, Said};

const FREE_PORTS: [&str; 4] = ["--port-pieces", "0", "--port-metrics", "0"];

/// `dfs-cluster all`: manager, scheduler and seed.
#[derive(Debug)]
pub struct Cluster {
    process: Process,
}

impl Cluster {
    /// Starts one with its data below `dir` and waits until it is ready.
    pub fn start(binaries: &Binaries, dir: &Path) -> Result<Self, Failure> {
        Self::start_with(binaries, dir, &[])
    }

    /// The same with further arguments.
    pub fn start_with(binaries: &Binaries, dir: &Path, extra: &[&str]) -> Result<Self, Failure> {
        let data_dir = private_dir(dir, "cluster")?;
        let mut arguments: Vec<OsString> = vec!["all".into(), "--data-dir".into()];
        arguments.push(data_dir.clone().into());
        arguments.extend(["--port-grpc", "0"].map(OsString::from));
        arguments.extend(FREE_PORTS.map(OsString::from));
        arguments.extend(extra.iter().map(OsString::from));
        let log = dir.join("cluster.log");
        let name = "dfs-cluster".to_owned();
        let program = Program { name, arguments, environment: Vec::new(), data_dir, log };
        Ok(Self { process: Process::start(binaries, program)? })
    }

    /// Where nodes reach it.
    pub fn address(&self) -> Result<SocketAddr, Failure> {
        self.process.address("grpc")
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be killed, stopped or restarted. A restart would take new ports: fix them
    /// first with [`Self::keep_ports`].
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Makes a restart use the ports that it has now, so that nodes find it again.
    pub fn keep_ports(&mut self) -> Result<(), Failure> {
        self.process.keep_ports(&["grpc", "pieces", "metrics"])
    }
}

/// How one finds its cluster.
#[derive(Debug, Clone)]
pub enum Way {
    /// Where its manager is; nothing is protected.
    Manager(SocketAddr),
    /// By a token, which gets it a certificate.
    Join(String),
}

/// A join token of the cluster whose manager keeps its data in `data_dir`, for `uses` of `role`.
pub fn join_token(
    binaries: &Binaries,
    data_dir: &Path,
    role: &str,
    uses: usize,
) -> Result<String, Failure> {
    let mut command = Dfctl::new(binaries).command()?;
    command.args(["cluster", "join-token", "-q", "--role", role, "--uses", &uses.to_string()]);
    let said = Said::by(command.arg("--data-dir").arg(data_dir))?.ok()?;
    Ok(said.text().trim().to_owned())
}

/// How one part of a cluster is started that runs as several processes, with its data below `dir`.
pub fn part(
    dir: &Path,
    name: &str,
    role: &str,
    manager: Option<SocketAddr>,
    extra: &[&str],
) -> Result<Program, Failure> {
    part_by(dir, name, role, manager.map(Way::Manager), extra)
}

/// The same for one that may join with a token.
pub fn part_by(
    dir: &Path,
    name: &str,
    role: &str,
    way: Option<Way>,
    extra: &[&str],
) -> Result<Program, Failure> {
    let data_dir = private_dir(dir, name)?;
    let mut arguments: Vec<OsString> = vec![role.into(), "--data-dir".into()];
    arguments.push(data_dir.clone().into());
    arguments.extend(["--port-grpc", "0"].map(OsString::from));
    arguments.extend(FREE_PORTS.map(OsString::from));
    match way {
        Some(Way::Manager(at)) => arguments.extend(["--manager".into(), at.to_string().into()]),
        Some(Way::Join(token)) => arguments.extend(["--join".into(), token.into()]),
        None => {}
    }
    arguments.extend(extra.iter().map(OsString::from));
    let log = dir.join(format!("{name}.log"));
    let name = "dfs-cluster".to_owned();
    Ok(Program { name, arguments, environment: Vec::new(), data_dir, log })
}

/// A node agent.
#[derive(Debug)]
pub struct Node {
    name: String,
    binaries: Binaries,
    process: Process,
    data_dir: PathBuf,
    socket: PathBuf,
}

impl Node {
    /// Starts the agent `name` with its data below `dir`, in `cluster` or solo, and waits until it
    /// is ready.
    pub fn start(
        binaries: &Binaries,
        dir: &Path,
        name: &str,
        cluster: Option<SocketAddr>,
    ) -> Result<Self, Failure> {
        let mut node = Self::spawn(binaries, dir, name, cluster, &[])?;
        node.wait_ready()?;
        Ok(node)
    }

    /// Starts it with further arguments, and does not wait.
    pub fn spawn(
        binaries: &Binaries,
        dir: &Path,
        name: &str,
        cluster: Option<SocketAddr>,
        extra: &[&str],
    ) -> Result<Self, Failure> {
        Self::spawn_by(binaries, dir, name, cluster.map(Way::Manager), extra)
    }

    /// The same for one that may join with a token.
    pub fn spawn_by(
        binaries: &Binaries,
        dir: &Path,
        name: &str,
        way: Option<Way>,
        extra: &[&str],
    ) -> Result<Self, Failure> {
        let data_dir = private_dir(dir, name)?;
        let socket = data_dir.join("agent.sock");
        let mut arguments: Vec<OsString> = vec!["--data-dir".into(), data_dir.clone().into()];
        arguments.extend(["--socket".into(), socket.clone().into()]);
        arguments.extend(["--name".into(), name.into()]);
        arguments.extend(FREE_PORTS.map(OsString::from));
        match way {
            Some(Way::Manager(at)) => arguments.extend(["--cluster".into(), at.to_string().into()]),
            Some(Way::Join(token)) => arguments.extend(["--join".into(), token.into()]),
            None => {}
        }
        arguments.extend(extra.iter().map(OsString::from));
        let log = dir.join(format!("{name}.log"));
        let program = Program {
            name: "dfs-fuse".to_owned(),
            arguments,
            environment: Vec::new(),
            data_dir: data_dir.clone(),
            log,
        };
        let process = Process::spawn(binaries, program)?;
        Ok(Self { name: name.to_owned(), binaries: binaries.clone(), process, data_dir, socket })
    }

    /// Waits until it is ready.
    pub fn wait_ready(&mut self) -> Result<(), Failure> {
        self.process.wait_ready()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be killed, stopped or restarted.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Makes a restart use the ports that it has now.
    pub fn keep_ports(&mut self) -> Result<(), Failure> {
        self.process.keep_ports(&["pieces", "metrics"])
    }

    /// `dfctl` that talks to this agent, to be completed and run.
    pub fn dfctl_command(&self) -> Result<Command, Failure> {
        let mut command = Dfctl::new(&self.binaries).command()?;
        command.arg("--socket").arg(&self.socket);
        Ok(command)
    }

    /// Runs `dfctl` with these arguments against this agent, to its end.
    pub fn dfctl<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Said, Failure> {
        Said::by(self.dfctl_command()?.args(arguments))
    }

    /// Mounts `url` on `dir`, which is made when it is missing.
    pub fn mount(&self, url: &str, dir: &Path) -> Result<Mount, Failure> {
        fs::create_dir_all(dir).map_err(Failure::of(format!("cannot make {}", dir.display())))?;
        // Guarded first: a mount that succeeds and then fails to say so goes away too.
        let mount = Mount::guard(dir);
        self.dfctl([OsStr::new("mount"), url.as_ref(), dir.as_os_str()])?.ok()?;
        Ok(mount)
    }
}

/// `dfctl` on its own: no agent, no settings of whoever runs the tests.
#[derive(Debug, Clone)]
pub struct Dfctl {
    binaries: Binaries,
}

impl Dfctl {
    /// The one of these binaries.
    pub fn new(binaries: &Binaries) -> Self {
        Self { binaries: binaries.clone() }
    }

    /// The command without arguments; where the user's directories are is taken from nobody.
    pub fn command(&self) -> Result<Command, Failure> {
        let mut command = self.binaries.command("dfctl")?;
        for key in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"] {
            command.env_remove(key);
        }
        command.env("HOME", "/nonexistent").env("NO_COLOR", "1");
        Ok(command)
    }

    /// Runs it solo with these arguments, to its end.
    pub fn solo<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Said, Failure> {
        Said::by(self.command()?.arg("--solo").args(arguments))
    }
}

/// A mount point; whatever is mounted there is detached when this is dropped.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
}

impl Mount {
    /// Guards a directory that something is or will be mounted on.
    pub fn guard(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path inside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.dir.join(inside)
    }

    /// Whether something is mounted there now, as the kernel says.
    pub fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let dir = self.dir.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
        table.lines().any(|line| line.split(' ').nth(1) == Some(dir.as_str()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        detach(&self.dir);
    }
}

/// Takes away whatever is mounted on `dir`, at once, also when its agent is dead.
pub fn detach(dir: &Path) {
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    if rustix::mount::unmount(dir, flags) == Err(rustix::io::Errno::PERM) {
        // Best effort, as all of dropping; nothing there is the usual case.
        let helper = Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(dir).output();
        drop(helper);
    }
}

/// A directory of ours that nobody else can enter, as the agents want it.
fn private_dir(dir: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = dir.join(name);
    let made = fs::create_dir_all(&path)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)))
        .and_then(|()| path.canonicalize());
    made.map_err(Failure::of(format!("cannot make {}", path.display())))
}
