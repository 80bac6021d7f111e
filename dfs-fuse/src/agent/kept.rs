//! Mounts that an earlier agent left: what is written down of each, and how this one goes on with them.
//!
//! Nothing but this host's store is asked: neither the origin nor the cluster need be there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::Invariant;
use dfs_peer::opener::{OpenArtifact, OpenUrlError};
use dfs_peer::{error_chain, targets};
use dfs_proto::convert::BadMessage;
use dfs_proto::node::{KeptMount, LocalUser, ShownMount};
use dfs_proto::scheduler::ResolveReply;
use dfs_source::{Credentials, Target};
use futures::StreamExt;
use futures::stream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Agent, Asker, CallError, MountTableError};
use crate::holder::{Holder, Kept, Then};
use crate::mount;

/// Mounts gone on with at a time.
const AT_A_TIME: usize = 8;

/// How long what a mount shows may take to be opened: it lies in this host's store.
const OPENED: Duration = Duration::from_secs(20);

/// Why a mount cannot be gone on with.
#[derive(Debug, thiserror::Error)]
enum NotResumed {
    #[error("what was written down of it cannot be read")]
    Record(#[source] std::io::Error),
    #[error("its agent died before anybody was told of it")]
    Unserved,
    #[error("what was written down of it makes no sense")]
    Malformed(#[from] BadMessage),
    #[error("what it shows cannot be opened")]
    Open(#[from] OpenUrlError),
    #[error("what it shows could not be opened in time")]
    Late,
    #[error(transparent)]
    Mount(#[from] MountTableError),
}

/// What is written down of a mount.
pub(super) fn shown(opened: &OpenArtifact, path: &[u8], by: Asker) -> ShownMount {
    let reads_as = match &opened.target.credentials {
        Credentials::User(user) => Some(LocalUser { uid: user.uid, gid: user.gid }),
        _ => None,
    };
    ShownMount {
        target: Some(targets::to_wire(&opened.target)),
        artifact: Some(opened.describe()),
        path: path.to_vec().into(),
        user: by.mounts_on_own(),
        reads_as,
    }
}

/// Whose it is.
pub(super) fn owner(shown: &ShownMount) -> Asker {
    shown.user.map_or(Asker::Owner, Asker::Other)
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

impl Agent {
    /// Goes on with every mount that an earlier agent left with `holder`. One that cannot be gone on with is taken
    /// away: who waits for it would wait for ever.
    pub async fn resume_mounts(&self, holder: &Arc<dyn Holder>) {
        let asking = Arc::clone(holder);
        let taken = tokio::task::spawn_blocking(move || asking.take_over()).await;
        let left = match taken {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => {
                return tracing::error!(%error, "the mounts of an earlier agent cannot be had");
            }
            Err(_) => return,
        };
        let resuming = left.into_iter().map(|kept| self.resume_or_abandon(kept, holder));
        stream::iter(resuming).buffer_unordered(AT_A_TIME).collect::<()>().await;
    }

    /// Ends so that another one goes on: how many mounts it is given. Refused where a mount would die, or nobody would
    /// start another agent.
    pub fn hand_over(&self) -> Result<usize, CallError> {
        let mounts = self.mounts().that_survive().map_err(CallError::NotHandedOver)?;
        self.inner.handing_over.cancel();
        Ok(mounts)
    }

    /// Fires when it is to end so.
    pub fn handing_over(&self) -> CancellationToken {
        self.inner.handing_over.clone()
    }

    /// Takes every mount away, or leaves it to the next agent where there will be one.
    pub async fn end_mounts(&self) {
        let then =
            if self.inner.handing_over.is_cancelled() { Then::Another } else { Then::Nothing };
        let leaving = self.clone();
        let left = tokio::task::spawn_blocking(move || leaving.mounts().leave_all(then)).await;
        if !left.unwrap_or(false) {
            self.mounts().unmount_all().await;
        }
    }

    async fn resume_or_abandon(&self, kept: Kept, holder: &Arc<dyn Holder>) {
        if mount::has_ended(&kept) {
            // Nobody is left to be told.
            let _ = holder.let_go(&kept.name);
            return;
        }
        let name = kept.name.clone();
        let spare = kept.try_clone();
        match self.resume(kept).await {
            Ok(dir) => {
                tracing::info!(dir = %dir.display(), "goes on with an earlier agent's mount")
            }
            Err(error) => {
                tracing::error!(
                    name,
                    error = error_chain(&error),
                    "an earlier agent's mount is taken away"
                );
                if let Ok(kept) = spare {
                    let holder = Arc::clone(holder);
                    // It blocks as the kernel does.
                    let _ =
                        tokio::task::spawn_blocking(move || mount::abandon(&kept, &*holder)).await;
                }
            }
        }
    }

    async fn resume(&self, kept: Kept) -> Result<PathBuf, NotResumed> {
        let record = kept.record.read().map_err(NotResumed::Record)?;
        if !record.served || Invariant::MountsSurvive.is_broken() {
            return Err(NotResumed::Unserved);
        }
        let opened = timeout(OPENED, self.open_again(&record)).await;
        let opened = opened.map_err(|_| NotResumed::Late)??;
        Ok(self.mounts().resume(kept, record, opened).await?)
    }

    /// Opens what a mount shows, from the store.
    async fn open_again(&self, record: &KeptMount) -> Result<OpenArtifact, NotResumed> {
        let shown = record.shown.clone().unwrap_or_default();
        let target = target(&shown)?;
        let answer = ResolveReply { artifact: shown.artifact, ..ResolveReply::default() };
        Ok(self.host().engine.open_answer(&target, answer).await?)
    }
}
