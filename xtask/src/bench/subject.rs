//! Who shows a tree as a file system: ours by lane, and others. What each needs beforehand, where the tree is then, and
//! whose processor time and memory it costs.

use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use clap::ValueEnum;
use dfs_tests::process::Said;
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Mount, Node, Origin, wait};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

pub mod nydus;
pub mod stargz;

use self::nydus::Packing;
use super::Bench;
use crate::prepare;
use crate::run::{Failure, failed, run};

/// How the kernel reads what dfs shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lane {
    /// Each read is answered by the agent
    Fuse,
    /// The agent opens, the kernel reads the store's own file
    Passthrough,
    /// The kernel reads an EROFS image, the agent fills it
    Kernel,
}

/// Somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// The tree itself; always there, since the others are shares of it
    Native,
    /// From the same origin as dfs, through a full cache
    Rclone,
    /// An uncompressed SquashFS
    Squashfuse,
    /// The same through libfuse's other interface
    SquashfuseLl,
    /// An uncompressed EROFS
    Erofsfuse,
    /// The same image, mounted by the kernel, whom our kernel lane is held against; left out without root
    Erofs,
    /// An image of its own format; left out where nydusd and nydus-image are not installed
    Nydusd,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Dfs(Lane),
    Peer(Peer),
}

/// Whom to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Whom {
    /// Lanes of ours; one that a mount does not get is left out, with a note
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Lane::Fuse, Lane::Passthrough, Lane::Kernel])]
    lane: Vec<Lane>,
    /// Whom to compare with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Native, Peer::Rclone, Peer::Squashfuse, Peer::Erofsfuse, Peer::Erofs, Peer::Nydusd])]
    vs: Vec<Peer>,
}

impl Whom {
    /// Those of them that are wanted and there, with all they need installed; the native tree first, ours next.
    pub fn subjects(
        &self,
        bench: &Bench,
        is_wanted: impl Fn(Subject) -> bool,
    ) -> Result<Vec<Subject>, Failure> {
        let others = self.vs.iter().filter(|peer| **peer != Peer::Native);
        let all = std::iter::once(Subject::Peer(Peer::Native))
            .chain(self.lane.iter().map(|lane| Subject::Dfs(*lane)))
            .chain(others.map(|peer| Subject::Peer(*peer)));
        let mut subjects = Vec::new();
        for subject in all.filter(|subject| is_wanted(*subject)) {
            if subject.unless_left_out(bench, subject.is_there())?.is_some() {
                subject.prepare()?;
                subjects.push(subject);
            }
        }
        Ok(subjects)
    }
}

/// A tree, as each of them takes it.
pub struct Tree {
    /// The tree itself.
    pub root: PathBuf,
    /// Where it is served, and listed.
    pub url: String,
    /// A name in its top directory.
    pub known: &'static str,
    /// Where images of it are made.
    pub images: PathBuf,
}

/// A tree that somebody shows; gone when this is dropped.
pub struct Mounted {
    /// Where it is.
    pub dir: PathBuf,
    /// Who answers for it, where that is a process.
    pub pid: Option<u32>,
    /// Where the bytes are that are shown: a file, or a directory of them.
    pub kept: PathBuf,
    // Dropped in this order: the mount, then who serves it.
    _mount: Option<Shown>,
    _server: Serving,
}

/// A mount that goes when this is dropped, or on a signal: with it whoever serves it, for others to be told of their
/// reads. After that the number of the process may be another's.
pub struct Shown {
    _mount: Mount,
    _is_here: Arc<()>,
}

impl Shown {
    /// Guards `dir`, which `server` mounts, or the kernel. Guarded first, also what mounts and then fails to say so goes.
    fn on(bench: &Bench, dir: &Path, server: Option<u32>) -> Self {
        let (mount, is_here) = (Mount::guard(dir), Arc::new(()));
        let (detached, still) = (dir.to_owned(), Arc::downgrade(&is_here));
        bench.interrupt.on_signal(move || {
            if still.upgrade().is_some() {
                dfs_tests::cluster::detach(&detached);
                server.iter().for_each(|pid| kill(*pid));
            }
        });
        Self { _mount: mount, _is_here: is_here }
    }
}

/// Who serves a mount; held, never read.
enum Serving {
    Kernel,
    Agent { _agent: Box<Agent> },
    Program { _running: Running },
}

/// An agent of ours, and who keeps its mounts where a lane asks for somebody.
pub struct Agent {
    // Dropped in this order.
    node: Node,
    holder: Option<Running>,
}

/// A program in a process group of its own; killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        kill(self.0.id());
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Result<Self, Failure> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let line = crate::run::line(&command);
        let child = command.spawn();
        Ok(Self(child.map_err(|error| Failure::Other(format!("`{line}`: {error}")))?))
    }
}

impl Agent {
    /// Starts it with everything it has below `work`, for mounts of this lane.
    pub fn start(bench: &Bench, work: &Path, lane: Lane) -> Result<Self, Failure> {
        if lane == Lane::Kernel {
            return Self::kept(bench, work);
        }
        let node = Node::start(&bench.binaries, work, "agent", None)?;
        Ok(Self { node, holder: None })
    }

    /// The same with a holder, who starts the next one when this one is gone.
    pub fn kept(bench: &Bench, work: &Path) -> Result<Self, Failure> {
        let socket = work.join("holder.sock");
        let text = socket.to_str();
        let text = text.ok_or_else(|| Failure::Other("the path is no text".to_owned()))?;
        let data_dir = work.join("agent");
        let mut holder = bench.binaries.command("dfs-fuse")?;
        holder.args(["holder", "--socket", text, "--"]).arg(bench.binaries.path("dfs-fuse")?);
        holder.args(["--holder", text, "--port-pieces", "0", "--port-metrics", "0", "--data-dir"]);
        holder.arg(&data_dir).arg("--socket").arg(data_dir.join("agent.sock"));
        let holder = Running::start(holder)?;
        wait::until("the holder listens", || socket.exists())?;
        let mut node = Node::spawn(&bench.binaries, work, "agent", None, &["--holder", text])?;
        node.wait_ready()?;
        Ok(Self { node, holder: Some(holder) })
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.node.process_mut().kill();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The one that its holder has started in its place is in a process group of its own. The holder goes first: it
        // would start another one.
        let started = self.holder.take().map(|holder| children(holder.0.id()));
        for child in started.into_iter().flatten() {
            if let Some(pid) = Pid::from_raw(child) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Processes that this one has started, as far as they are there.
fn children(pid: u32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let listed = listed.unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

impl Deref for Agent {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Mounted {
    /// What an agent of ours shows.
    fn by(agent: Agent, dir: PathBuf, mount: Shown) -> Self {
        let (pid, kept) = (Some(agent.process().pid()), agent.data_dir().to_owned());
        let server = Serving::Agent { _agent: Box::new(agent) };
        Self { dir, pid, kept, _mount: Some(mount), _server: server }
    }
}

impl Lane {
    /// As `dfctl mount --lane` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Passthrough => "passthrough",
            Self::Kernel => "kernel",
        }
    }
}

impl From<Lane> for Subject {
    fn from(lane: Lane) -> Self {
        Self::Dfs(lane)
    }
}

impl Subject {
    /// In rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dfs(Lane::Fuse) => "dfs",
            Self::Dfs(Lane::Passthrough) => "dfs-passthrough",
            Self::Dfs(Lane::Kernel) => "dfs-kernel",
            Self::Peer(Peer::Native) => "native",
            Self::Peer(Peer::Rclone) => "rclone",
            Self::Peer(Peer::Squashfuse) => "squashfuse",
            Self::Peer(Peer::SquashfuseLl) => "squashfuse_ll",
            Self::Peer(Peer::Erofsfuse) => "erofsfuse",
            Self::Peer(Peer::Erofs) => "erofs",
            Self::Peer(Peer::Nydusd) => "nydusd",
        }
    }

    /// Whether it is another's process that answers the kernel.
    pub fn is_fuse_peer(self) -> bool {
        !matches!(self, Self::Dfs(_) | Self::Peer(Peer::Native | Peer::Erofs))
    }

    /// Whether it fetches from an origin what it shows.
    pub fn fetches(self) -> bool {
        matches!(self, Self::Dfs(_) | Self::Peer(Peer::Rclone))
    }

    /// Whether pages of what it shows are its mount's own, beside those of what it keeps.
    pub fn has_own_pages(self) -> bool {
        self != Self::Dfs(Lane::Passthrough)
    }

    /// Whether it can be had here: programs that no package has are looked for. Of a lane only a mount tells.
    fn is_there(self) -> Result<(), Failure> {
        let missing = match self {
            Self::Peer(Peer::Nydusd) => {
                nydus::PROGRAMS.iter().find(|one| !prepare::is_installed(one))
            }
            Self::Peer(Peer::Erofs) if !prepare::is_root() => Some(&"root"),
            Self::Dfs(_) | Self::Peer(_) => None,
        };
        let why = |missing| Failure::LeftOut(format!("{missing} is not there"));
        missing.map_or(Ok(()), |missing| Err(why(missing)))
    }

    /// What came of it, or nothing and a note where it is to be left out.
    pub fn unless_left_out<T>(
        self,
        bench: &Bench,
        came: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match came {
            Ok(came) => Ok(Some(came)),
            Err(Failure::LeftOut(why)) => {
                bench.says(&format!("{} is left out: {why}", self.name()));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Has all of them measured, one after another: whoever is to be left out is from then on.
    pub fn each<S: Copy + Into<Self>, T>(
        bench: &Bench,
        all: &mut Vec<(S, T)>,
        mut measure: impl FnMut(S, &mut T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut taken = Vec::new();
        for (one, mut seen) in all.drain(..) {
            bench.interrupt.check()?;
            let measured = measure(one, &mut seen);
            if one.into().unless_left_out(bench, measured)?.is_some() {
                taken.push((one, seen));
            }
        }
        *all = taken;
        Ok(())
    }

    /// Installs what it needs.
    fn prepare(self) -> Result<(), Failure> {
        match self {
            Self::Peer(Peer::Squashfuse | Peer::SquashfuseLl) => {
                prepare::packages(prepare::FOR_SQUASHFS)
            }
            Self::Peer(Peer::Erofsfuse | Peer::Erofs) => {
                prepare::packages(prepare::FOR_DEBIAN_ROOT)?;
                prepare::erofs_program("mkfs.erofs").map(drop)
            }
            Self::Dfs(_) | Self::Peer(Peer::Native | Peer::Rclone | Peer::Nydusd) => Ok(()),
        }
    }

    /// The same with all of the tree here: what the kernel shows of that needs nobody.
    pub fn mount_whole(self, bench: &Bench, tree: &Tree, work: &Path) -> Result<Mounted, Failure> {
        let Self::Dfs(lane @ Lane::Kernel) = self else {
            let mounted = self.mount(bench, tree, work)?;
            fill(tree, &mounted.dir)?;
            return Ok(mounted);
        };
        let (agent, dir) = (Agent::start(bench, work, lane)?, work.join("mnt"));
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let first = mount_dfs(bench, &agent, Lane::Fuse, &tree.url, &dir)?;
        fill(tree, &dir)?;
        agent.dfctl([OsStr::new("umount"), dir.as_os_str()])?.ok()?;
        drop(first);
        let mount = mount_in_lane(bench, &agent, lane, &[], &tree.url, &dir)?;
        Ok(Mounted::by(agent, dir, mount))
    }

    /// Shows the tree, with everything it needs below `work`.
    pub fn mount(self, bench: &Bench, tree: &Tree, work: &Path) -> Result<Mounted, Failure> {
        let dir = work.join("mnt");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        match self {
            Self::Dfs(lane) => {
                let agent = Agent::start(bench, work, lane)?;
                let mount = mount_in_lane(bench, &agent, lane, &[], &tree.url, &dir)?;
                Ok(Mounted::by(agent, dir, mount))
            }
            Self::Peer(Peer::Native) => {
                let (dir, kept) = (tree.root.clone(), tree.root.clone());
                Ok(Mounted { dir, pid: None, kept, _mount: None, _server: Serving::Kernel })
            }
            Self::Peer(Peer::Rclone) => {
                mount_rclone(bench, &tree.url, &work.join("cache"), &dir, tree.known)
            }
            Self::Peer(Peer::Squashfuse | Peer::SquashfuseLl) => {
                let image = tree.squashfs()?;
                let mut command = Command::new(self.name());
                command.arg("-f").arg(&image).arg(&dir);
                serve(bench, command, &dir, tree.known, image)
            }
            Self::Peer(Peer::Erofsfuse) => {
                let image = tree.erofs()?;
                let mut command = prepare::erofs_program("erofsfuse")?;
                command.arg("-f").arg(&image).arg(&dir);
                serve(bench, command, &dir, tree.known, image)
            }
            Self::Peer(Peer::Erofs) => mount_erofs(bench, tree.erofs()?, dir),
            Self::Peer(Peer::Nydusd) => {
                let image = nydus::Image::of(&tree.root, &tree.images, Packing::None)?;
                serve(bench, image.local(work, &dir)?, &dir, tree.known, work.join("cache"))
            }
        }
    }
}

impl Tree {
    /// An image of it in which nothing is compressed, made when it is not there yet.
    fn squashfs(&self) -> Result<PathBuf, Failure> {
        let image = self.images.join("squashfs");
        if !image.exists() {
            let mut mksquashfs = Command::new("mksquashfs");
            mksquashfs.arg(&self.root).arg(&image).stdout(Stdio::null());
            run(mksquashfs.args(["-noI", "-noD", "-noF", "-noX", "-quiet", "-no-progress"]))?;
        }
        Ok(image)
    }

    /// The same as EROFS.
    fn erofs(&self) -> Result<PathBuf, Failure> {
        let image = self.images.join("erofs");
        if !image.exists() {
            let mut mkfs = prepare::erofs_program("mkfs.erofs")?;
            run(mkfs.arg("--quiet").arg(&image).arg(&self.root).stdout(Stdio::null()))?;
        }
        Ok(image)
    }
}

/// Reads all of it, and sees that it is the tree.
fn fill(tree: &Tree, dir: &Path) -> Result<(), Failure> {
    run(Command::new("diff").arg("-r").args([&tree.root, dir]))
}

/// Has `node` show `url` on `dir`, which is there, in this lane or in another one: see [`is_in_lane`].
pub fn mount_dfs(
    bench: &Bench,
    node: &Node,
    lane: Lane,
    url: &str,
    dir: &Path,
) -> Result<Shown, Failure> {
    mount_with(bench, node, lane, &[], url, dir)
}

/// The same in this lane and no other, with further options of `dfctl mount`.
pub fn mount_in_lane(
    bench: &Bench,
    node: &Node,
    lane: Lane,
    options: &[&str],
    url: &str,
    dir: &Path,
) -> Result<Shown, Failure> {
    let mount = mount_with(bench, node, lane, options, url, dir)?;
    is_in_lane(node, lane, dir)?;
    Ok(mount)
}

fn mount_with(
    bench: &Bench,
    node: &Node,
    lane: Lane,
    options: &[&str],
    url: &str,
    dir: &Path,
) -> Result<Shown, Failure> {
    let mount = Shown::on(bench, dir, Some(node.process().pid()));
    let mut dfctl = node.dfctl_command()?;
    dfctl.args(["-q", "mount", "--lane", lane.name()]).args(options).arg(url).arg(dir);
    Said::by(&mut dfctl)?.ok()?;
    Ok(mount)
}

/// What `dfctl mounts` says of what `node` shows on `dir`.
pub fn listed(node: &Node, dir: &Path) -> Result<Value, Failure> {
    let mounts = node.dfctl(["--format", "json", "mounts"])?.ok()?.json()?;
    let all = mounts["items"].as_array().map_or(&[][..], Vec::as_slice);
    let shown = all.iter().find(|mount| mount["dir"].as_str().map(Path::new) == Some(dir));
    let none = || Failure::Other(format!("{} is not listed", dir.display()));
    shown.cloned().ok_or_else(none)
}

/// Whether what `node` shows on `dir` is in this lane.
///
/// # Errors
/// [`Failure::LeftOut`] where it is in another one, and why.
pub fn is_in_lane(node: &Node, lane: Lane, dir: &Path) -> Result<(), Failure> {
    let shown = listed(node, dir)?;
    if shown["lane"] == lane.name() {
        return Ok(());
    }
    let (instead, why) = (&shown["lane"], &shown["lane_reason"]);
    Err(Failure::LeftOut(format!("its mount has the lane {instead}: {why}")))
}

/// Has rclone show `url` on `dir`, and waits until `known` is seen in it.
pub fn mount_rclone(
    bench: &Bench,
    url: &str,
    cache: &Path,
    dir: &Path,
    known: &str,
) -> Result<Mounted, Failure> {
    let mut rclone = Command::new("rclone");
    rclone.args(["mount", "--read-only", "--vfs-cache-mode", "full", "--config", "/dev/null"]);
    rclone.arg("--http-url").arg(url).arg("--cache-dir").arg(cache).arg(":http:").arg(dir);
    serve(bench, rclone, dir, known, cache.to_owned())
}

/// The kernel reads the image's file itself, without a loop device.
fn mount_erofs(bench: &Bench, image: PathBuf, dir: PathBuf) -> Result<Mounted, Failure> {
    let shown = Shown::on(bench, &dir, None);
    mount(&image, &dir, "erofs", MountFlags::RDONLY, None)
        .map_err(|error| failed(&image)(error.into()))?;
    Ok(Mounted { dir, pid: None, kept: image, _mount: Some(shown), _server: Serving::Kernel })
}

/// Has nydusd show an image whose names are in `bootstrap`, and whose content the origin has.
pub fn mount_nydusd(
    bench: &Bench,
    bootstrap: &Path,
    origin: &Origin,
    work: &Path,
    known: &str,
) -> Result<Mounted, Failure> {
    let dir = work.join("mnt");
    let command = nydus::remote(bootstrap, origin, work, &dir)?;
    serve(bench, command, &dir, known, work.join("cache"))
}

/// Starts a program that serves `dir` as long as it runs.
fn serve(
    bench: &Bench,
    command: Command,
    dir: &Path,
    known: &str,
    kept: PathBuf,
) -> Result<Mounted, Failure> {
    let line = crate::run::line(&command);
    let mut running = Running::start(command)?;
    let pid = running.0.id();
    let shown = Shown::on(bench, dir, Some(pid));
    let seen = dir.join(known);
    let ended = |status| Failure::Other(format!("`{line}` ended with {status}"));
    wait::find(&format!("`{line}` has mounted"), PATIENCE, || {
        if let Ok(Some(status)) = running.0.try_wait() {
            return Some(Err(ended(status)));
        }
        seen.exists().then_some(Ok(()))
    })??;
    let server = Serving::Program { _running: running };
    Ok(Mounted { dir: dir.into(), pid: Some(pid), kept, _mount: Some(shown), _server: server })
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
