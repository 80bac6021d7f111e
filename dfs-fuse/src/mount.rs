//! Mounting, unmounting, and the table of what is mounted.
//!
//! Everything here blocks for as long as the kernel and `fusermount3` take: call it from a thread meant
//! for that. A process may hold any number of mounts; dropping a [`Mounted`] takes its mount away and
//! ends whoever waits on it.

mod attach;
mod check;
mod keeping;
mod kernel;
mod lazily;
mod mounted;
mod switch;
mod table;
mod unmount;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use dfs_proto::node::KeptMount;
use fuser::Session;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::core::{Core, CoreOptions};
use crate::fuse::{self, Adapter, Agreed, Began, Beginning, Direct, Ids, Notices, Passing};
pub use crate::fuse::{Opens, Resend};
use crate::holder::{Holder, InKeeping, InKeepingIs, Kept, is_gone};
use crate::tree::Tree;
use attach::Plan;
use check::MountPoint;
pub use check::{find_helper, open_device, others_allowed};
pub use keeping::{Custody, Keeping, Remains, take_away};
pub(crate) use keeping::{at, next_name};
pub use kernel::{Blobs, adopt, by_kernel};
pub use lazily::{Missing, Presence, Spaces, Ties, abandon_guarded, lazily, resume_lazily};
use mounted::Serving;
pub use mounted::{Mounted, Passed, Survival, Unmounted};
pub use switch::{Next, SwitchError, Switcher, decode_nodes};
use table::Table;
pub use table::{MountEntry, SUBTYPE, mounted_at, mounts};
pub use unmount::{Detach, Served, UnmountError, is_dead, served, unmount};

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What is mounted, shown in the mount table: its URL. Credentials in it are not shown.
    pub name: String,
    /// Runs what waits for bytes; outlives the mount.
    pub runtime: Handle,
    /// How the filesystem core behaves.
    pub core: CoreOptions,
    /// Whether opening costs a request.
    pub opens: Opens,
    /// Spaces whose files the kernel is to read by itself, where it does that; every open costs a request then.
    pub direct: Vec<u16>,
    /// Who may look in.
    pub audience: Audience,
    /// Whose directory the mount point must be; anybody's when nobody is named.
    pub mount_point_of: Option<u32>,
    /// A name that leads to the mount point without that its own is looked up, where looking it up would wait for this
    /// mount.
    pub way: Option<PathBuf>,
    /// A directory that must stay in sight: that of the process's own data.
    pub in_sight: Option<PathBuf>,
    /// The local directory that it shows as it is by then: a mount within that would show itself, one deeper each time.
    pub follows: Option<PathBuf>,
    /// Whether set-user-id bits and device nodes have any effect. Only root can ask for it.
    pub privileges: Privileges,
    /// Whether programs can be started from it.
    pub programs: Programs,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Who keeps the mount when this process dies; it dies with it when nobody is named.
    pub keeping: Option<Keeping>,
}

impl MountOptions {
    fn passing(&self) -> Passing {
        if self.direct.is_empty() { Passing::Unwanted } else { Passing::Wanted }
    }

    fn resend(&self) -> Resend {
        self.keeping.as_ref().map_or(Resend::Auto, |keeping| keeping.custody.resend)
    }

    /// The usual way to mount what `name` names.
    pub fn new(name: impl Into<String>, runtime: Handle) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            name: name.into(),
            runtime,
            core: CoreOptions::default(),
            opens: Opens::default(),
            direct: Vec::new(),
            audience: Audience::default(),
            mount_point_of: None,
            way: None,
            in_sight: None,
            follows: None,
            privileges: Privileges::default(),
            programs: Programs::default(),
            threads: cores.clamp(2, 8),
            keeping: None,
        }
    }
}

/// Who may look into a mount, file permissions permitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// Everyone where the system allows it (root, or `user_allow_other` in /etc/fuse.conf).
    #[default]
    WidestAllowed,
    /// Everyone; an error where the system does not allow it.
    Everyone,
    /// One user, whatever the file permissions. Only root can name another than itself.
    Only(User),
}

/// A user, as the kernel compares it: with all of a process's user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
}

impl User {
    /// Whoever this process is.
    pub fn of_this_process() -> Self {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Self { uid, gid }
    }
}

/// Powers of files in a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privileges {
    /// Set-user-id bits and device nodes are inert.
    #[default]
    Inert,
    /// They work, as on a system's own disk.
    Effective,
}

/// Whether programs can be started from a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Programs {
    /// As from any file system.
    #[default]
    Start,
    /// None can.
    AreRefused,
}

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is not there.
    #[error("{0} does not exist; create it first: mkdir -p {0}")]
    NoDirectory(PathBuf),
    /// The mount point is a file.
    #[error("{0} is not a directory; name a directory to mount on")]
    NotADirectory(PathBuf),
    /// The mount point belongs to another user than whom it must.
    #[error("{} is not a directory of yours: mount on one that is", .0.display())]
    NotTheirs(PathBuf),
    /// The mount would hide what this process works with.
    #[error("{} holds this agent's own data, or lies within it; mount on another directory", .0.display())]
    HidesOwnData(PathBuf),
    /// The mount would show itself in itself, and change by that.
    #[error("{} lies within what is followed; mount on another directory, or without --follow", .0.display())]
    FollowsItself(PathBuf),
    /// The mount point is one of ours already.
    #[error("{dir} already shows {name}; unmount it first: dfctl umount {dir}", dir = .dir.display())]
    AlreadyMounted {
        /// The mount point.
        dir: PathBuf,
        /// What is mounted there.
        name: String,
    },
    /// A FUSE mount there lost its process.
    #[error("{0} is a mount whose agent is gone; take it away first: dfctl umount {0}")]
    Dead(PathBuf),
    /// The mount point cannot be looked at.
    #[error("cannot look at {dir}", dir = .dir.display())]
    Unreadable {
        /// The mount point.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel offers no FUSE.
    #[error(
        "/dev/fuse is missing; load the module (modprobe fuse), or give the container the device \
         (--device /dev/fuse)"
    )]
    NoDevice,
    /// FUSE may not be used.
    #[error("/dev/fuse may not be opened by this user; open it as udev does: chmod 666 /dev/fuse")]
    DeviceRefused,
    /// The device is there and cannot be opened now.
    #[error("cannot open /dev/fuse")]
    Device {
        /// What the system said.
        source: io::Error,
    },
    /// There is no helper for users who are not root.
    #[error(
        "mounting as a user needs fusermount3; install it (apt-get install fuse3), or mount as root"
    )]
    NoHelper,
    /// Others shall look in, which the system does not allow.
    #[error(
        "only root may mount for everyone here; allow it by a line user_allow_other in /etc/fuse.conf, \
         or mount for this user alone"
    )]
    OthersNotAllowed,
    /// Another user, whom this one cannot mount for.
    #[error(
        "only root may mount for another user alone; let everybody look in, or mount it yourself"
    )]
    ForAnother,
    /// Privileges that this user cannot give.
    #[error("only root may mount with effective set-user-id bits and devices")]
    PrivilegesRefused,
    /// The kernel or the helper refused.
    #[error("mounting on {dir} was refused", dir = .dir.display())]
    Refused {
        /// The mount point.
        dir: PathBuf,
        /// What they said.
        source: io::Error,
    },
}

impl MountError {
    /// See [`is_scarce`].
    pub fn is_for_want_of_resources(&self) -> bool {
        match self {
            Self::Refused { source, .. }
            | Self::Unreadable { source, .. }
            | Self::Device { source } => is_scarce(source),
            _ => false,
        }
    }
}

/// Whether the system lacks something that it has at other times: threads, files, memory.
fn is_scarce(error: &io::Error) -> bool {
    let scarce = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    scarce.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Files that this process must be able to open before it mounts: what the mount takes, and what it takes to be asked
/// for its end and to end it.
const SPARE_FILES: usize = 12;

/// Mounts `tree`, whose bytes come from `content`, on the directory `dir`.
///
/// As root by mount(2), otherwise with `fusermount3`. The mount is there when this returns.
pub fn mount(
    dir: &Path,
    tree: Arc<dyn Tree>,
    content: Arc<dyn Content>,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let plan = plan(options)?;
    let runtime = options.runtime.clone();
    let core = Arc::new(Core::new(tree, content, options.core.clone(), runtime.clone()));
    let adapter = Adapter::new(core.clone(), options.opens, runtime)
        .resending(options.resend())
        .passing(options.passing());
    let point = point(dir, options)?;
    // First: what is mounted must be found again, to be taken away.
    let refused = |source| MountError::Refused { dir: point.dir.clone(), source };
    let mut table = Table::open().map_err(refused)?;
    let spare: io::Result<Vec<_>> = (0..SPARE_FILES).map(|_| File::open("/dev/null")).collect();
    drop(spare.map_err(refused)?);
    let device = attach::attach(&point, &plan)?;
    let dir = point.dir;
    let entry = table.mounted_at(&dir).ok().flatten().filter(MountEntry::is_ours);
    drop(table);
    let generation = options.core.generation;
    let kept = match &options.keeping {
        Some(keeping) => match keeping.begin(&device, entry.as_ref(), generation) {
            Ok(kept) => Ok(Arc::new(kept)),
            Err(error) => Err(Some(error.to_string())),
        },
        None => Err(None),
    };
    let begun = fuse::begin(adapter, &device, options.threads, Beginning::Mount);
    let served = begun.and_then(|began| {
        let (ids, passed) = pass_through(&began, &device, &core, options);
        if let Ok(kept) = &kept {
            keeping::served(kept, began.agreed, ids.as_ref())?;
        }
        if let Some(ids) = ids {
            let kept = kept.as_ref().ok().cloned();
            began.pass_to(Direct::new(Arc::clone(&core), ids, kept));
        }
        serve(began, core, dir.clone(), entry.clone(), kept.clone(), passed)
    });
    if let Err(source) = &served {
        // The reason why it is not served is what matters; that it is also gone is the usual case.
        let _ = entry.map(|entry| unmount(&entry, Detach::Lazily));
        kept.iter().for_each(|kept| kept.end());
        tracing::debug!(%source, "a mount could not be served");
    }
    served.map_err(|source| MountError::Refused { dir, source })
}

/// Goes on with a mount that another process has served.
///
/// What it shows must be what it showed: `tree` and `options` those of then. Where that fails it is to be abandoned.
pub fn resume(
    kept: Kept,
    record: &KeptMount,
    tree: Arc<dyn Tree>,
    content: Arc<dyn Content>,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let at = record.at.clone().unwrap_or_default();
    let runtime = options.runtime.clone();
    let core = Arc::new(Core::new(tree, content, options.core.clone(), runtime.clone()));
    let adapter = Adapter::new(core.clone(), options.opens, runtime);
    let ids = Ids::from_wire(&record.files, &*core.content());
    let agreed = Agreed::from_bits(record.capabilities);
    let (entry, dir) = keeping::own_line(&at);
    let holder = options.keeping.as_ref().map(|keeping| Arc::clone(&keeping.custody.holder));
    let kept_on = match holder {
        Some(holder) => {
            let (name, record, what) = (kept.name, kept.record, InKeepingIs::Requests);
            Ok(Arc::new(InKeeping { holder, name, record, what }))
        }
        None => Err(None),
    };
    let beginning = Beginning::TakenOver(agreed);
    let served = fuse::begin(adapter, &kept.device, options.threads, beginning).and_then(|began| {
        let passed = if record.files.is_empty() { Passed::Unasked } else { Passed::Through };
        if passed == Passed::Through {
            let kept = kept_on.as_ref().ok().cloned();
            let agent =
                kept.as_ref().map_or(Ok(record.agents + 1), |kept| keeping::resumed(kept))?;
            let core = Arc::clone(&core);
            began.pass_to(Direct::resumed(core, ids, agent, &record.open, kept));
        }
        serve(began, core, dir.clone(), entry, kept_on, passed)
    });
    served.map_err(|source| MountError::Refused { dir, source })
}

/// Lets go of a kept mount that nobody can go on with.
pub fn abandon(kept: &Kept, holder: &dyn Holder) {
    let at = kept.record.read().ok().and_then(|record| record.at).unwrap_or_default();
    take_away(&at);
    // It sees by itself when the kernel has let go.
    let _ = holder.let_go(&kept.name);
}

/// Whether the kernel has let go of a kept mount.
pub fn has_ended(kept: &Kept) -> bool {
    is_gone(kept.device.as_fd())
}

/// Serves a mount until nobody uses it any more.
fn serve(
    began: Began,
    core: Arc<Core>,
    dir: PathBuf,
    entry: Option<MountEntry>,
    kept: Result<Arc<InKeeping>, Option<String>>,
    passed: Passed,
) -> io::Result<Mounted> {
    let Began { session, prefill, agreed, .. } = began;
    let notices = Notices::new(session.as_fd().try_clone_to_owned()?);
    prefill.start(notices.begin()?)?;
    let survival = match kept {
        Ok(by) => Survival::Kept { by, resends: agreed.resends() },
        Err(why) => Survival::Dies { why },
    };
    let ended = CancellationToken::new();
    let session = run(session, dir.clone(), survival.clone(), ended.clone())?;
    if let Some(entry) = &entry {
        widen_read_ahead(&entry.device);
    }
    let serving = Serving::Here { core, session, passed, notices: Some(notices) };
    Ok(Mounted { dir, entry, ended, survival, serving, whole: None })
}

/// What the kernel calls the files that it is to read by itself, where it is to and will.
fn pass_through(
    began: &Began,
    device: &OwnedFd,
    core: &Core,
    options: &MountOptions,
) -> (Option<Ids>, Passed) {
    match options.passing() {
        Passing::Unwanted => (None, Passed::Unasked),
        Passing::Wanted if !began.agreed.passes() => {
            (None, Passed::Refused("this kernel was built without it".to_owned()))
        }
        Passing::Wanted => match Ids::of(device.as_fd(), &*core.content(), &options.direct) {
            Ok(ids) => (Some(ids), Passed::Through),
            Err(error) => (None, Passed::Refused(error.to_string())),
        },
    }
}

/// Runs a session to its end on a thread; the channel closes when it has ended.
fn run(
    session: Session<Adapter>,
    dir: PathBuf,
    survival: Survival,
    ended: CancellationToken,
) -> io::Result<Receiver<()>> {
    let (alive, session_ended) = channel();
    std::thread::Builder::new().name("dfs-mount".to_owned()).spawn(move || {
        if let Err(error) = session.run() {
            tracing::error!(dir = %dir.display(), %error, "the mount's session ended badly");
        }
        if let Survival::Kept { by, .. } = survival {
            by.end();
        }
        ended.cancel();
        drop(alive);
    })?;
    Ok(session_ended)
}

/// The directory `dir`, if it may be mounted on so.
fn point(dir: &Path, options: &MountOptions) -> Result<MountPoint, MountError> {
    let point = check::mount_point(dir, options.way.as_deref(), options.mount_point_of)?;
    if let Some(own) = options.in_sight.as_deref().filter(|own| point.is_in_the_way_of(own)) {
        tracing::debug!(own = %own.display(), "a mount would hide the agent's data, or lie in it");
        return Err(MountError::HidesOwnData(point.dir));
    }
    match options.follows.as_deref().is_some_and(|dir| point.lies_within(dir)) {
        true => Err(MountError::FollowsItself(point.dir)),
        false => Ok(point),
    }
}

fn plan(options: &MountOptions) -> Result<Plan, MountError> {
    let root = rustix::process::geteuid().is_root();
    if options.privileges == Privileges::Effective && !root {
        return Err(MountError::PrivilegesRefused);
    }
    let allowed = root || check::others_allowed();
    let own = User::of_this_process();
    let (everyone, user) = match options.audience {
        Audience::Only(user) if user.uid != own.uid && !root => return Err(MountError::ForAnother),
        Audience::Only(user) => (false, user),
        Audience::Everyone if !allowed => return Err(MountError::OthersNotAllowed),
        Audience::Everyone => (true, own),
        Audience::WidestAllowed => (allowed, own),
    };
    let (name, privileges) = (options.name.clone(), options.privileges);
    Ok(Plan { name, everyone, user, privileges, programs: options.programs })
}

/// Lets the kernel read ahead in requests as large as it can send, instead of 128 KiB.
///
/// Needs root; without it sequential reads cost more requests, nothing else.
fn widen_read_ahead(device: &str) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, "1024") {
        tracing::debug!(path, %error, "kernel read-ahead stays at its default");
    }
}
