//! Mounts that an earlier agent left: what is written down of each, and how this one goes on with them.
//!
//! Nothing but this host's store is asked: neither the origin nor the cluster need be there, but where the store has lost
//! what was in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfs_artifact::View;
use dfs_model::{ByteSize, Invariant, TaskInfo};
use dfs_peer::opener::{Freshness, OpenArtifact, OpenUrlError, Purpose};
use dfs_peer::store::{Lent, Verify};
use dfs_peer::{error_chain, targets};
use dfs_proto::common;
use dfs_proto::convert::{self, BadMessage};
use dfs_proto::node::{self as wire, KeptMount, LocalUser, ShownMount};
use dfs_proto::scheduler::ResolveReply;
use dfs_service::private_file::{self, Outlives};
use dfs_source::{Credentials, Target};
use futures::StreamExt;
use futures::stream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::follow::Following;
use super::independent::Records;
use super::known::CommandId;
use super::lazy::lend;
use super::mounts::What;
use super::prefetch::Mode;
use super::{Agent, Asker, CallError, MountTableError};
use crate::core::{Generation, Owner};
use crate::holder::{Holder, Kept, Left, LeftGuard, Moved, RECORD_FORMAT, Systemd, Then};
use crate::mount;

/// Mounts gone on with at a time.
pub(super) const AT_A_TIME: usize = 8;

/// Longest record that is read.
const RECORD_BYTES: u64 = 256 << 10;

/// How long what a mount shows may take to be opened: it lies in this host's store.
pub(super) const OPENED: Duration = Duration::from_secs(20);

/// How long each of the versions may take that it has shown before: whoever reads waits meanwhile.
const EARLIER: Duration = Duration::from_secs(5);

/// How the agent comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Somebody wants it.
    Asked,
    /// Something that it cannot live without failed: another one may do better.
    Failed,
}

/// Why a mount cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotResumed {
    #[error("what was written down of it cannot be read")]
    Record(#[source] io::Error),
    #[error("its agent died before anybody was told of it")]
    Unserved,
    #[error("what was written down of it makes no sense")]
    Malformed(#[from] BadMessage),
    #[error("what it shows cannot be opened")]
    Open(#[from] OpenUrlError),
    #[error("its index is not in the cache any more, and the origin has another version now")]
    Changed,
    #[error("what it shows has number {0}, which is none")]
    Generation(u32),
    #[error("what it shows could not be opened in time")]
    Late,
    #[error(transparent)]
    Mount(#[from] MountTableError),
}

/// Writes a record down in a file, in place of the one before.
pub(super) fn write_record(path: &Path, record: &KeptMount) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    private_file::replace(path, &convert::encode_kept_mount(record), Outlives::Process)
}

/// The record in a file; `None` where there is none that is understood here.
pub(super) fn read_record(path: &Path) -> io::Result<Option<KeptMount>> {
    Ok(read_any_record(path)?.filter(|record| record.format == RECORD_FORMAT))
}

/// The same of whichever release; what a later one says of where a mount is still holds.
pub(super) fn read_any_record(path: &Path) -> io::Result<Option<KeptMount>> {
    let bytes = private_file::read(path, RECORD_BYTES)?.unwrap_or_default();
    let record = convert::decode_kept_mount(&bytes).ok();
    Ok(record.filter(|record| record.format > 0))
}

/// What is written down of a mount.
pub(super) fn shown(what: &What) -> ShownMount {
    let What { opened, view, path, by, prefetch, owner, away: _, .. } = what;
    let What { cache_quota, verify, following, command, .. } = what;
    let reads_as = match &opened.target.credentials {
        Credentials::User(user) => Some(LocalUser { uid: user.uid, gid: user.gid }),
        _ => None,
    };
    let mut artifact = opened.describe();
    if artifact.index.is_some() {
        // It has its tasks.
        artifact.tasks.clear();
    }
    ShownMount {
        target: Some(targets::to_wire(&opened.target)),
        artifact: Some(artifact),
        path: path.clone().into(),
        user: by.mounts_on_own(),
        reads_as,
        uid: owner.uid,
        gid: owner.gid,
        prefetch: wire::Prefetch::from(*prefetch).into(),
        view: targets::view_to_wire(*view).into(),
        cache_quota: cache_quota.map(|quota| quota.0),
        follow_ms: following.map_or(0, |following| milliseconds(following.every)),
        switches: following.map_or(0, |following| following.switches),
        switched_unix_ms: following.and_then(|following| following.switched).map_or(0, unix_ms),
        verify_reads: *verify == Verify::Reads,
        command: command.map(|command| command.as_bytes().to_vec().into()).unwrap_or_default(),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time as messages have it; 0 is none.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

fn following(shown: &ShownMount) -> Option<Following> {
    let since = |ms| UNIX_EPOCH + Duration::from_millis(ms);
    let following = || Following {
        every: Duration::from_millis(shown.follow_ms),
        switches: shown.switches,
        switched: (shown.switched_unix_ms > 0).then(|| since(shown.switched_unix_ms)),
    };
    (shown.follow_ms > 0).then(following)
}

/// What a mount shows that was written down.
pub(super) fn what(opened: OpenArtifact, shown: &ShownMount) -> What {
    What {
        opened,
        view: targets::view_from_wire(shown.view()),
        path: shown.path.to_vec(),
        by: shown.user.map_or(Asker::Owner, Asker::Other),
        prefetch: shown.prefetch().into(),
        owner: Owner { uid: shown.uid, gid: shown.gid },
        away: None,
        cache_quota: shown.cache_quota.map(ByteSize),
        verify: Verify::wanted(shown.verify_reads),
        following: following(shown),
        command: CommandId::from_slice(&shown.command),
    }
}

impl From<Mode> for wire::Prefetch {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Trace => Self::Trace,
            Mode::All => Self::All,
        }
    }
}

impl From<wire::Prefetch> for Mode {
    fn from(mode: wire::Prefetch) -> Self {
        match mode {
            wire::Prefetch::Off => Self::Off,
            wire::Prefetch::All => Self::All,
            wire::Prefetch::Trace | wire::Prefetch::Unspecified => Self::Trace,
        }
    }
}

/// The same for everybody to read: who asked for it is not told.
pub(super) fn without_credentials(shown: &ShownMount) -> ShownMount {
    let target = targets::from_wire(shown.target.clone()).ok();
    let target = target.map(|target| target.with_credentials(Credentials::None));
    ShownMount { target: target.as_ref().map(targets::to_wire), reads_as: None, ..shown.clone() }
}

fn target(shown: &ShownMount) -> Result<Target, BadMessage> {
    let target = targets::from_wire(shown.target.clone())?;
    Ok(match shown.reads_as {
        Some(LocalUser { uid, gid }) => {
            target.with_credentials(Credentials::User(dfs_source::LocalUser { uid, gid }))
        }
        None => target,
    })
}

/// Calls of a holder block.
async fn of_holder<T: Send + 'static>(
    holder: &Arc<dyn Holder>,
    call: impl FnOnce(&dyn Holder) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let holder = Arc::clone(holder);
    let called = tokio::task::spawn_blocking(move || call(&*holder)).await;
    called.unwrap_or_else(|_| Err(stopping()))
}

fn stopping() -> io::Error {
    io::Error::other("the agent is stopping")
}

/// Has `to` keep what lies in systemd's store. Where nobody does it is taken away: it would never be served again. Blocks.
fn moved(store: &Systemd, to: Option<&dyn Holder>) -> io::Result<Vec<Kept>> {
    let Moved { kept, lost } = store.move_to(to)?;
    for (kept, error) in lost {
        let name = &kept.name;
        tracing::error!(name, %error, "an earlier agent's mount is taken away");
        mount::abandon(&kept, store);
    }
    Ok(kept)
}

/// Whether the index is neither here nor with any neighbour.
fn is_without_index(error: &OpenUrlError) -> bool {
    matches!(error, OpenUrlError::Fetch(_) | OpenUrlError::Index(_) | OpenUrlError::OtherIndex(_))
}

/// What an earlier agent left, with `holder` or to the kernel, asked for before anything in the store is opened: the files
/// of guarded mounts are in `lent` from here on. What would show holes is taken away first.
///
/// What lies in `store`, systemd's of a service whose agent has another holder by now, is that one's from here on.
pub async fn left(
    holder: Option<&Arc<dyn Holder>>,
    store: Option<Systemd>,
    data_dir: &Path,
    lent: &Lent,
) -> io::Result<Left> {
    let mut left = match holder {
        Some(holder) => of_holder(holder, |holder| holder.take_over()).await?,
        None => Left::default(),
    };
    if let Some(store) = store {
        let to = holder.cloned();
        let moving = tokio::task::spawn_blocking(move || moved(&store, to.as_deref()));
        let mut moved = moving.await.unwrap_or_else(|_| Err(stopping()))?;
        // An earlier agent that had moved it could not let go of it here.
        moved.retain(|kept| left.kept.iter().all(|known| known.name != kept.name));
        left.kept.extend(moved);
    }
    let records = Records::of(data_dir);
    let sorting = tokio::task::spawn_blocking(move || {
        let whole = records.sort_out(&mut left.guarded)?;
        Ok::<_, io::Error>((left, whole))
    });
    let (left, whole) = sorting.await.unwrap_or_else(|_| Err(stopping()))?;
    for guard in whole {
        let Some(holder) = holder else { break };
        of_holder(holder, move |holder| holder.let_go(&guard.guard.name)).await?;
    }
    left.guarded.iter().try_for_each(|left| lend(lent, &left.guard.contents))?;
    Ok(left)
}

impl Agent {
    /// Goes on with every mount that an earlier agent left, with `holder` or to the kernel.
    ///
    /// One that cannot be gone on with is taken away: who waits for it would wait for ever. So would all if what was left
    /// were not asked for: an agent that cannot ask does not start.
    pub async fn resume_mounts(
        &self,
        left: Left,
        holder: Option<&Arc<dyn Holder>>,
    ) -> io::Result<()> {
        // What it opens is not yet in use when the next is opened.
        let _spared = self.host().engine.store().spare();
        let resumed = async {
            let Some(holder) = holder else { return Ok(()) };
            let kept = left.kept.into_iter().map(|kept| self.resume_or_abandon(kept, holder));
            let guarded = left.guarded.into_iter().map(|left| self.resume_guarded(left, holder));
            let kept = stream::iter(kept).buffer_unordered(AT_A_TIME).collect::<()>();
            let guarded = stream::iter(guarded).buffer_unordered(AT_A_TIME).collect::<()>();
            tokio::join!(kept, guarded);
            of_holder(holder, |holder| holder.ready()).await
        };
        let (adopted, resumed) = tokio::join!(self.adopt_mounts(), resumed);
        adopted.and(resumed)
    }

    /// Ends so that another one goes on: how many mounts it is given. Refused where a mount would die, or nobody would
    /// start another agent.
    pub async fn hand_over(&self) -> Result<usize, CallError> {
        let mounts = self.mounts().that_survive().map_err(CallError::NotHandedOver)?;
        if let Some(holder) = self.mounts().holder() {
            let answers = of_holder(&holder, |holder| holder.ready()).await;
            answers.map_err(|error| {
                CallError::NotHandedOver(format!("its holder does not answer: {error}"))
            })?;
        }
        self.inner.handing_over.cancel();
        Ok(mounts)
    }

    /// Fires when it is to end so.
    pub fn handing_over(&self) -> CancellationToken {
        self.inner.handing_over.clone()
    }

    /// Takes every mount away, or leaves it to the next agent where there will be one: as there is where this one is
    /// replaced, or failed.
    pub async fn end_mounts(&self, ending: Ending) {
        let holder = self.mounts().holder();
        if let Some(holder) = &holder {
            let hurried = of_holder(holder, |holder| {
                holder.hurry();
                Ok(())
            });
            // Whoever was waiting is told why.
            let _ = hurried.await;
        }
        // First: what is just being mounted or taken away is listed then, or gone.
        self.works().end().await;
        let leaves = match holder {
            _ if ending == Ending::Failed => true,
            None => false,
            Some(holder) => {
                let replaced = self.inner.handing_over.is_cancelled();
                let then = if replaced { Then::Another } else { Then::Nothing };
                let told = of_holder(&holder, move |holder| {
                    // Before it is told: it may have to be started first.
                    let leaves = replaced || holder.outlives_a_stop();
                    holder.farewell(then).map(|()| leaves)
                });
                told.await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the holder was not told that this agent ends");
                    false
                })
            }
        };
        if leaves {
            self.host().engine.store().leave();
            let leaving = self.clone();
            // Nobody is left to be told where this fails.
            let _ = tokio::task::spawn_blocking(move || leaving.mounts().leave()).await;
        } else {
            self.mounts().unmount_all().await;
        }
    }

    async fn resume_or_abandon(&self, kept: Kept, holder: &Arc<dyn Holder>) {
        let name = kept.name.clone();
        let failed = match kept.try_clone() {
            _ if mount::has_ended(&kept) => {
                // It sees by itself that nobody uses it any more.
                let _ = of_holder(holder, move |holder| holder.let_go(&name)).await;
                return;
            }
            Ok(copy) => match self.resume(copy).await {
                Ok(dir) => {
                    let dir = dir.display();
                    return tracing::info!(%dir, "goes on with an earlier agent's mount");
                }
                Err(error) => error_chain(&error),
            },
            Err(error) => error.to_string(),
        };
        tracing::error!(name, error = failed, "an earlier agent's mount is taken away");
        // Whatever went wrong is in the log.
        let _ = of_holder(holder, move |holder| {
            mount::abandon(&kept, holder);
            Ok(())
        })
        .await;
    }

    async fn resume_guarded(&self, left: LeftGuard, holder: &Arc<dyn Holder>) {
        let abandoned = left.guard.try_clone();
        let resumed = match left.guard.record.read() {
            Ok(record) if record.served => self.resume_lazily(left, record).await,
            Ok(_) => Err(NotResumed::Unserved),
            Err(error) => Err(NotResumed::Record(error)),
        };
        let (error, guard) = match (resumed, abandoned) {
            (Ok(dir), _) => {
                let dir = dir.display();
                return tracing::info!(%dir, "goes on with an earlier agent's mount");
            }
            (Err(error), Ok(guard)) => (error_chain(&error), guard),
            // Without a descriptor left: its holder sees that nobody answers.
            (Err(_), Err(error)) => return tracing::error!(%error, "a mount waits for nobody"),
        };
        tracing::error!(name = guard.name, error, "an earlier agent's mount is taken away");
        // Whatever went wrong is in the log.
        let _ = of_holder(holder, move |holder| {
            mount::abandon_guarded(&guard, holder);
            Ok(())
        })
        .await;
    }

    async fn resume_lazily(
        &self,
        left: LeftGuard,
        record: KeptMount,
    ) -> Result<PathBuf, NotResumed> {
        let opened = timeout(OPENED, self.open_again(&record)).await;
        let opened = opened.map_err(|_| NotResumed::Late)??;
        Ok(self.mounts().resume_lazily(left, record, opened).await?)
    }

    async fn resume(&self, kept: Kept) -> Result<PathBuf, NotResumed> {
        let record = kept.record.read().map_err(NotResumed::Record)?;
        if !record.served || Invariant::MountsSurvive.is_broken() {
            return Err(NotResumed::Unserved);
        }
        let generation =
            Generation::new(record.generation).ok_or(NotResumed::Generation(record.generation))?;
        // First: what is shown now takes from them what is the same.
        let earlier = self.open_earlier(&record).await;
        let opened = timeout(OPENED, self.open_again(&record)).await;
        let opened = opened.map_err(|_| NotResumed::Late)??;
        Ok(self.mounts().resume(kept, record, (generation, opened), earlier).await?)
    }

    /// Opens what a mount has shown and some still use, from the store: what is not there any more is left out.
    async fn open_earlier(&self, record: &KeptMount) -> Vec<(Generation, OpenArtifact)> {
        let Some(Ok(target)) = record.shown.as_ref().map(target) else { return Vec::new() };
        let target = &target;
        let opening = record.earlier.iter().map(|earlier| async move {
            let generation = Generation::new(earlier.generation)?;
            let artifact = earlier.artifact.clone();
            let answer = ResolveReply { artifact, ..ResolveReply::default() };
            let opening = timeout(EARLIER, self.host().engine.open_answer(target, answer)).await;
            let error = match opening {
                Ok(Ok(opened)) => return Some((generation, opened)),
                Ok(Err(error)) => error_chain(&error),
                Err(_) => NotResumed::Late.to_string(),
            };
            tracing::warn!(?generation, error, "an earlier version of a mount is lost");
            None
        });
        let opened = stream::iter(opening.collect::<Vec<_>>()).buffered(AT_A_TIME);
        opened.filter_map(async |opened| opened).collect().await
    }

    /// Opens what a mount shows, from the store; where the store has lost the index, as the origin has it.
    pub(super) async fn open_again(&self, record: &KeptMount) -> Result<OpenArtifact, NotResumed> {
        let shown = record.shown.clone().unwrap_or_default();
        self.open_shown(&target(&shown)?, shown).await
    }

    /// Opens what was written down, with the credentials of `target`.
    pub(super) async fn open_shown(
        &self,
        target: &Target,
        shown: ShownMount,
    ) -> Result<OpenArtifact, NotResumed> {
        let view = targets::view_from_wire(shown.view());
        let answer = ResolveReply { artifact: shown.artifact.clone(), ..ResolveReply::default() };
        match self.host().engine.open_answer(target, answer).await {
            Err(error) if is_without_index(&error) => {
                tracing::warn!(url = %target.url, error = error_chain(&error), "indexing again");
                let index = shown.artifact.and_then(|artifact| artifact.index);
                self.open_anew(target, view, index).await
            }
            opened => Ok(opened?),
        }
    }

    /// Asks for it again: the same, or nothing.
    async fn open_anew(
        &self,
        target: &Target,
        view: View,
        index: Option<common::Task>,
    ) -> Result<OpenArtifact, NotResumed> {
        let index = TaskInfo::try_from(index.unwrap_or_default())?;
        let engine = &self.host().engine;
        let opened = engine.open_url(target, view, Freshness::Usual, Purpose::Look).await?;
        let is_same = opened.index.as_ref().is_some_and(|open| open.task.id() == index.id);
        if is_same { Ok(opened) } else { Err(NotResumed::Changed) }
    }
}
