//! Who shows a tree as a file system: ours by lane, and others. What each needs beforehand, where the tree is then, and
//! whose processor time and memory it costs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use clap::ValueEnum;
use dfs_tests::process::Said;
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Mount, Node, Origin, wait};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process_group};

pub mod nydus;

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
    /// The same image, mounted by the kernel; needs root
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
    /// Lanes of ours; one that `dfctl mount` refuses is left out, with a note
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Lane::Fuse, Lane::Passthrough, Lane::Kernel])]
    lane: Vec<Lane>,
    /// Whom to compare with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Native, Peer::Rclone, Peer::Squashfuse, Peer::Erofsfuse, Peer::Nydusd])]
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
            subject.prepare()?;
            if subject.is_there(bench)? {
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
    Node { _node: Box<Node> },
    Program { _running: Running },
}

/// A program in a process group of its own; killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        kill(self.0.id());
        let _ = self.0.wait();
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

    /// Whether it can be had here: a lane of ours is tried, programs that no package has are looked for.
    fn is_there(self, bench: &Bench) -> Result<bool, Failure> {
        let why = match self {
            Self::Dfs(Lane::Passthrough | Lane::Kernel) => self.refused(bench)?,
            Self::Peer(Peer::Nydusd) => {
                let missing = nydus::PROGRAMS.iter().find(|one| !prepare::is_installed(one));
                missing.map(|missing| format!("{missing} is not installed"))
            }
            // Every kernel has the first lane.
            Self::Dfs(Lane::Fuse) | Self::Peer(_) => None,
        };
        if let Some(why) = &why {
            bench.says(&format!("{} is left out: {why}", self.name()));
        }
        Ok(why.is_none())
    }

    /// What `dfctl mount` says against it.
    fn refused(self, bench: &Bench) -> Result<Option<String>, Failure> {
        let (root, known) = (bench.fresh_dir("tried")?, "file");
        let origin = Origin::of(&format!("/{known}"), Body::bytes("tried"))?;
        let tree = Tree { url: origin.url("/"), known, images: root.clone(), root };
        let Err(refused) = self.mount(bench, &tree, &tree.root) else { return Ok(None) };
        let refused = refused.to_string();
        let why = refused.lines().find(|line| line.contains("error")).unwrap_or(&refused);
        Ok(Some(why.to_owned()))
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

    /// Shows the tree, with everything it needs below `work`.
    pub fn mount(self, bench: &Bench, tree: &Tree, work: &Path) -> Result<Mounted, Failure> {
        let dir = work.join("mnt");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        match self {
            Self::Dfs(lane) => {
                let node = Node::start(&bench.binaries, work, "agent", None)?;
                let mount = Some(mount_dfs(bench, &node, lane, &tree.url, &dir)?);
                let (pid, kept) = (Some(node.process().pid()), node.data_dir().to_owned());
                let server = Serving::Node { _node: Box::new(node) };
                Ok(Mounted { dir, pid, kept, _mount: mount, _server: server })
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

/// Has `node` show `url` on `dir`, which is there.
pub fn mount_dfs(
    bench: &Bench,
    node: &Node,
    lane: Lane,
    url: &str,
    dir: &Path,
) -> Result<Shown, Failure> {
    let mount = Shown::on(bench, dir, Some(node.process().pid()));
    let mut dfctl = node.dfctl_command()?;
    dfctl.args(["-q", "mount", "--lane", lane.name(), url]).arg(dir);
    Said::by(&mut dfctl)?.ok()?;
    Ok(mount)
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
    mut command: Command,
    dir: &Path,
    known: &str,
    kept: PathBuf,
) -> Result<Mounted, Failure> {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    let line = crate::run::line(&command);
    let child = child.map_err(|error| Failure::Other(format!("`{line}`: {error}")))?;
    let (pid, mut running) = (child.id(), Running(child));
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
