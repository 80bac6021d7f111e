//! `dfctl mount`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValue, PossibleValuesParser};
use dfs_fuse::mount::{
    Detach, MountEntry, Served, UnmountError, mounted_at, mounts, served, unmount,
};
use dfs_model::{ByteSize, Capacity};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::inside::{Named, answer, in_the_cluster_meant, status};
use super::trace::runs as runs_of;
use super::umount::{ASK_WITHIN, refused, silent};
use super::within::{LOOK_WITHIN, around, around_by_name, take_away};
use crate::backend::{
    Away, Backend, Failure, FailureClass, MountInfo, MountRequest, Prefetch, Survival, View,
};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::fstab::{self, Unknown};
use crate::launch;
use crate::links;
use crate::output::{files, missing, printable, quoted_path, shell_quoted, when};
use crate::reach;

/// What `--lane` takes, and what that means.
const LANES: [(&str, &str); 4] = [
    ("auto", "passthrough where that is worth it, else fuse"),
    ("fuse", "All through the agent"),
    (
        "passthrough",
        "Large files that are whole from the cache itself, all else through the agent, which must be root's",
    ),
    (
        "kernel",
        "All from the cache itself: root's agent fetches what is missing, and is not needed once nothing is",
    ),
];

/// How many agents are asked, each after the one before it went away.
const TRIES: u32 = 4;

fn lanes() -> PossibleValuesParser {
    LANES.map(|(name, what)| PossibleValue::new(name).help(what)).into()
}

/// Mount what is behind a URL as a read-only directory
///
/// Examples:
///   dfctl mount https://host/dir/ /mnt/data
///   dfctl mount 'https://host/source.tar.gz!src' /mnt/source
///   dfctl mount s3://models/ /mnt/models --cache-quota 20GiB
///   dfctl mount --follow=5m s3://bucket/models/ /mnt/models
///
/// The mount stays as the tree was when it was looked up. An answer of the origin serves for up to ten seconds,
/// in a cluster for up to ten more and for whoever asks the same: mount again to see what is newer, or with --follow.
///
/// With --follow the target is looked up now and then, and the mount switches to what it names by then: all at once, for
/// whoever opens something from then on. What is open stays what it was, and what is the same is not fetched again. While
/// the target cannot be looked up the mount stays as it is: `dfctl mounts` says why. `dfctl mounts --refresh DIR` looks at once.
///
/// What its readers touch first is recorded, and the next mount of the same version fetches that ahead of its
/// readers: see `dfctl trace`.
///
/// What needs credentials is shown to who mounts it alone, anything else to everybody where the system
/// allows it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    named: Named,
    /// An existing directory
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// How the kernel reads it
    #[arg(long, default_value = "auto", value_parser = lanes(), env = "DFS_LANE", hide_env_values = true)]
    lane: String,
    /// Show it as one file or as a tree, instead of by its kind
    #[arg(long = "as", value_enum, value_name = "VIEW", env = "DFS_AS", hide_env_values = true)]
    view: Option<View>,
    /// Let other users look inside, also where credentials were given
    #[arg(long, env = "DFS_ALLOW_OTHER", hide_env_values = true)]
    allow_other: bool,
    /// What is fetched before anybody reads it, behind all that somebody waits for
    #[arg(
        long,
        value_enum,
        default_value = "trace",
        value_name = "WHAT",
        env = "DFS_PREFETCH",
        hide_env_values = true
    )]
    prefetch: Prefetch,
    /// How much of the cache it may take, as in 2GiB, at least 64MiB: what it holds beyond that is given back, least recently
    /// read first
    #[arg(long, value_name = "SIZE", env = "DFS_CACHE_QUOTA", hide_env_values = true)]
    cache_quota: Option<Capacity>,
    /// Hash what is in the cache again whenever the agent is asked for it: what has rotted on the disk is fetched anew and
    /// not shown. What the page cache has is not asked for. The lane is fuse then
    #[arg(long, env = "DFS_VERIFY_READS", hide_env_values = true)]
    verify_reads: bool,
    /// Switch to what the target names by then, looked up so often: every minute where nothing is said, every second at most
    #[arg(long, value_name = "EVERY", num_args = 0..=1, require_equals = true, default_missing_value = fstab::FOLLOW,
          value_parser = fstab::follow_every, env = "DFS_FOLLOW", hide_env_values = true)]
    follow: Option<Duration>,
    /// Options as in /etc/fstab: ro, allow_other, uid=N and gid=N (whose all files appear to be), noexec, privileged (or
    /// suid,dev), lane=LANE, prefetch=WHAT, cache-quota=SIZE, verify-reads, follow[=EVERY]; those of mount(8) and systemd
    /// mean nothing here
    #[arg(short, long, value_name = "OPTIONS")]
    options: Vec<String>,
    /// Pass over options that nobody knows
    #[arg(long, hide = true)]
    sloppy: bool,
    /// Do nothing
    #[arg(long, hide = true)]
    fake: bool,
}

impl Args {
    /// What stands in `-o`.
    fn options(&self) -> Result<fstab::Options, CliError> {
        let unknown = if self.sloppy { Unknown::Tolerated } else { Unknown::Refused };
        let options = fstab::Options::parse(&self.options.join(","), unknown)
            .map_err(|error| CliError::new(&codes::USAGE, error.to_string()))?;
        match &options.lane {
            Some(lane) if LANES.iter().all(|(name, _)| name != lane) => {
                let names = LANES.map(|(name, _)| name).join(", ");
                let what = format!("there is no lane '{lane}'; there are {names}");
                Err(CliError::new(&codes::USAGE, what))
            }
            _ => Ok(options),
        }
    }
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let options = args.options()?;
    if args.fake {
        return Ok(Outcome::Done);
    }
    let locator = args.named.locate(context).await?;
    take_away_dead(context, &args.dir).await?;
    let dir = existing_directory(context, &args.dir).await?;
    mount_point(&dir)?;
    let shown = dir.display().to_string();
    let begun = Instant::now();
    let handle = handle_of(&dir)?;
    let request = MountRequest {
        target: locator.target.clone(),
        path: locator.inner.clone().unwrap_or_default(),
        dir,
        handle: handle.clone(),
        view: args.view.unwrap_or(View::Auto),
        lane: options.lane.unwrap_or(args.lane),
        allow_other: args.allow_other || options.allow_other,
        uid: options.uid,
        gid: options.gid,
        noexec: options.noexec,
        effective: options.effective,
        prefetch: options.prefetch.unwrap_or(args.prefetch),
        cache_quota: options.cache_quota.or(args.cache_quota).map(Capacity::size),
        verify_reads: args.verify_reads || options.verify_reads,
        follow: options.follow.or(args.follow),
    };
    let url = locator.shown();
    let mount = ask(context, request).await?.map_err(|failure| match failure.class {
        FailureClass::MountDir | FailureClass::MountBusy | FailureClass::MountFailed => {
            CliError::backend("mount on", &shown, failure)
        }
        _ => CliError::backend("mount", &url, failure),
    })?;
    drop(handle);
    context.output.report("mount", &mount, || human(&mount, begun.elapsed()))?;
    if let Some(Away { since_unix_ms, why }) = &mount.away {
        let (then, why) = (when::ago(*since_unix_ms), printable(why));
        context.output.note(&format!("the origin is away, shown as it was {then}: {why}"));
    }
    if let Survival::Dies { why: Some(why) } = &mount.survival {
        context.output.note(&format!("nobody keeps it when its agent dies: {}", printable(why)));
    }
    if mount.follow.as_ref().is_some_and(|follow| follow.never_changes) {
        context.output.note("it names one version: there is nothing to follow");
    }
    if mount.left_out > 0 {
        let lacking = missing(mount.left_out);
        context.output.note(&format!("{lacking}: `dfctl ls -r {}` names what", shell_quoted(&url)));
    }
    Ok(Outcome::Done)
}

/// Asks the agent to mount; where that goes away meanwhile, the next one, which knows what the one before it mounted for
/// this command.
async fn ask(
    context: &Context,
    request: MountRequest,
) -> Result<Result<MountInfo, Failure>, CliError> {
    let mut tries = TRIES;
    loop {
        // It is waited for where somebody starts it again.
        let backend = agent(context).await?;
        if tries < TRIES {
            // One that nobody kept took its mount with it.
            take_away_dead(context, &request.dir).await?;
        }
        tries -= 1;
        let mounted = answer(context, backend.mount(request.clone())).await?;
        let is_lost =
            mounted.as_ref().is_err_and(|failure| failure.class == FailureClass::AgentLost);
        if !is_lost || tries == 0 {
            return Ok(mounted);
        }
    }
}

/// What an agent that is gone left on `dir` is in nobody's use any more: whoever mounts there again need not clear it away
/// by hand. Where that is not allowed, or something else is mounted in it, it is said what is there.
async fn take_away_dead(context: &Context, dir: &Path) -> Result<(), CliError> {
    let named = dir.to_owned();
    if looked_at(context, dir, move || clear_dead(&named)).await? {
        let shown = quoted_path(dir);
        context
            .output
            .note(&format!("a mount whose agent is gone was on {shown}: it is taken away"));
    }
    Ok(())
}

/// Takes a mount away that has lost its process, and says whether there was one. Blocks.
fn clear_dead(dir: &Path) -> Result<bool, CliError> {
    let dir = links::places(dir).last().unwrap_or_else(|| dir.to_owned());
    let Some(mount) = mounted_at(&dir).ok().flatten().filter(MountEntry::is_ours) else {
        return Ok(false);
    };
    match served(&dir, ASK_WITHIN) {
        Served::Live => Ok(false),
        Served::Silent => Err(silent(&dir)),
        Served::Dead => match unmount(&mount, Detach::Remains) {
            Ok(()) => Ok(true),
            // Somebody else has cleared it away.
            Err(UnmountError::NotMounted(_)) => Ok(false),
            Err(error) => {
                let what = format!("cannot mount on {}: a dead mount is there", quoted_path(&dir));
                Err(refused(what, &dir, &error))
            }
        },
    }
}

/// The agent that answers, or one started for this user.
async fn agent(context: &Context) -> Result<Arc<dyn Backend>, CliError> {
    let backend = match context.answering_backend()? {
        Some(backend) => backend,
        None if context.settings.solo
            && UnixStream::connect(context.settings.own_socket()).is_ok() =>
        {
            let backend = context.agent_at(&context.settings.own_socket());
            alone(context, &*backend).await?;
            backend
        }
        None => {
            // An agent would go on without its cluster; who names one for it is told now that it is not there.
            reach::managers(context).await?;
            // Somebody else may have started one meanwhile.
            context.agent_at(&launch::agent(context).await?)
        }
    };
    in_the_cluster_meant(context, &*backend).await?;
    Ok(backend)
}

/// What mounts is an agent, with --solo too: one that is there serves where it is in no cluster.
async fn alone(context: &Context, backend: &dyn Backend) -> Result<(), CliError> {
    let status = status(context, backend).await?;
    let Some(cluster) = status.cluster.filter(|cluster| !cluster.is_empty()) else { return Ok(()) };
    let what = format!("the node agent, pid {}, is in the cluster {cluster}", status.pid);
    Err(CliError::new(&codes::OTHER_CLUSTER, what)
        .because("a mount is served by an agent, with --solo by one that is in no cluster")
        .hint("--socket PATH --data-dir DIR      start another one there"))
}

async fn existing_directory(context: &Context, dir: &Path) -> Result<PathBuf, CliError> {
    let named = dir.to_owned();
    looked_at(context, dir, move || directory(&named)).await
}

/// What a look at a directory finds that may lie in a mount which does not answer.
async fn looked_at<T: Send + 'static>(
    context: &Context,
    dir: &Path,
    look: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let looking = tokio::task::spawn_blocking(look);
    let what = || format!("cannot mount on {}", quoted_path(dir));
    match answer(context, tokio::time::timeout(LOOK_WITHIN, looking)).await? {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => Err(CliError::new(&codes::UNEXPECTED, what()).caused_by(&error)),
        Err(_) => Err(match around_by_name(dir) {
            Some(mount) => silent(&mount),
            None => {
                CliError::new(&codes::MOUNT_DIR, what()).because("what it leads to does not answer")
            }
        }),
    }
}

/// The real name of a directory that is there. Blocks for as long as a mount on its way takes to answer.
fn directory(dir: &Path) -> Result<PathBuf, CliError> {
    let refused = |reason: String| {
        let what = format!("cannot mount on {}: {reason}", dir.display());
        CliError::new(&codes::MOUNT_DIR, what)
    };
    let real = dir.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotConnected => {
            refused("a mount whose agent is gone is still there".into())
                .hint(take_away(&around(dir).unwrap_or_else(|| dir.to_owned())))
        }
        std::io::ErrorKind::NotFound => refused("there is no such directory".into())
            .hint(format!("mkdir -p {}", quoted_path(dir))),
        _ => refused(error.to_string()),
    })?;
    // Looked at without having systemd mount on it what is being mounted (autofs).
    let (flags, wanted) = (AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE);
    let found = rustix::fs::statx(rustix::fs::CWD, &real, flags, wanted);
    match found.map(|found| FileType::from_raw_mode(found.stx_mode.into())) {
        Ok(kind) if kind != FileType::Directory => Err(refused("it is not a directory".into())),
        Err(Errno::NOTCONN | Errno::CONNABORTED) => {
            let why = "a mount whose agent is gone is still there".into();
            Err(refused(why).hint(take_away(&around(dir).unwrap_or_else(|| dir.to_owned()))))
        }
        // Whatever else is wrong with it, the agent says so.
        Ok(_) | Err(_) => Ok(real),
    }
}

/// The mount point, open, where systemd mounts on it when somebody looks in: everybody but those whom systemd started for it
/// waits for that to be done, the agent too.
fn handle_of(dir: &Path) -> Result<Option<Arc<OwnedFd>>, CliError> {
    let table = mounts().unwrap_or_default();
    if !table.iter().any(|mount| mount.dir == dir && mount.is_automount()) {
        return Ok(None);
    }
    // Not asked to be a directory: that would begin another mount.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(|error| {
        let what = format!("cannot mount on {}", dir.display());
        CliError::new(&codes::MOUNT_DIR, what).caused_by(&std::io::Error::from(error))
    })?;
    Ok(Some(Arc::new(opened)))
}

/// The mount point as text, as the agent takes it.
pub fn mount_point(dir: &Path) -> Result<&str, CliError> {
    dir.to_str().ok_or_else(|| {
        let what = format!("the mount point {} is not UTF-8", dir.display());
        CliError::new(&codes::MOUNT_DIR, what)
    })
}

fn human(mount: &MountInfo, took: Duration) -> String {
    let files = files(mount.files);
    let reason = match mount.lane_reason.as_str() {
        "" => String::new(),
        reason => format!(" ({})", printable(reason)),
    };
    let profile = match mount.prefetch.runs {
        0 => String::new(),
        runs => format!("   profile {} of {}", ByteSize(mount.prefetch.known), runs_of(runs)),
    };
    let follow = match &mount.follow {
        Some(follow) => format!("   followed every {}", when::every(follow.every)),
        None => String::new(),
    };
    format!(
        "mounted  {}   {}   {files}, {}    index {} in {}\n         lane {}{reason}{profile}{follow}",
        printable(&mount.dir),
        printable(&mount.artifact.url),
        ByteSize(mount.content),
        ByteSize(mount.index_bytes),
        when::rough(took),
        printable(&mount.lane),
    )
}
