//! What was mounted before: an origin that is away keeps nobody from mounting again what is here.
//!
//! Of each artifact what it was when it was mounted last is written down in the data directory, without credentials. It
//! is looked at only where the origin cannot be reached: one that answers is believed, also that something is gone or
//! not for who asks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use dfs_artifact::View;
use dfs_model::TaskKey;
use dfs_peer::error_chain;
use dfs_peer::opener::{OpenArtifact, OpenUrlError};
use dfs_peer::store::UseGuard;
use dfs_proto::node::{KeptMount, ShownMount};
use dfs_proto::scheduler::ResolveReply;
use dfs_service::private_file;
use dfs_source::{Asking, Target};

use super::{Agent, Asker, CallError, Question, kept};
use crate::holder::RECORD_FORMAT;

/// Records kept at a time; of more the oldest goes.
const RECORDS: usize = 1024;

/// What is to be mounted.
pub(super) struct ToMount {
    /// It, opened.
    pub opened: OpenArtifact,
    /// Whether it may be shown to everybody.
    pub is_public: bool,
    /// Where its origin is away: since when it is known as it is shown, and why the origin cannot say anything newer.
    pub away: Option<Away>,
    /// Keeps all of it here until it is mounted.
    pub in_use: Vec<UseGuard>,
}

/// An origin that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// When it was mounted the last time that the origin could.
    pub since: SystemTime,
    /// Why it could not.
    pub why: String,
}

/// What was mounted before, a file each.
#[derive(Debug, Clone)]
pub(super) struct Before(PathBuf);

impl Before {
    /// What is written down below an agent's data directory.
    pub fn in_dir(data_dir: &Path) -> Self {
        let dir = data_dir.join("artifacts");
        private_file::sweep(&dir);
        Self(dir)
    }

    /// Writes down what is shown, in place of what it was before.
    pub fn note(&self, target: &Target, view: View, shown: &ShownMount) -> io::Result<()> {
        let record = KeptMount {
            format: RECORD_FORMAT,
            shown: Some(kept::without_credentials(shown)),
            ..KeptMount::default()
        };
        kept::write_record(&self.path(target, view, &domain(shown)), &record)?;
        self.drop_oldest()
    }

    /// What it was, as one of these domains knows it, and when that was.
    fn find(
        &self,
        target: &Target,
        view: View,
        domains: &[String],
    ) -> Option<(ShownMount, SystemTime)> {
        domains.iter().find_map(|domain| self.read(&self.path(target, view, domain)))
    }

    fn read(&self, path: &Path) -> Option<(ShownMount, SystemTime)> {
        let since = fs::metadata(path).and_then(|found| found.modified()).ok()?;
        Some((kept::read_record(path).ok().flatten()?.shown?, since))
    }

    fn path(&self, target: &Target, view: View, domain: &str) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        let headers = target.headers.iter().flat_map(|(name, value)| [&**name, &**value]);
        let words = [target.url.as_str(), domain, view_name(view)].into_iter().chain(headers);
        for word in words {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        self.0.join(hasher.finalize().to_hex().as_str())
    }

    fn drop_oldest(&self) -> io::Result<()> {
        let files = fs::read_dir(&self.0)?.collect::<io::Result<Vec<_>>>()?;
        let surplus = files.len().saturating_sub(RECORDS);
        // Nearly always: none of them is looked at.
        if surplus == 0 {
            return Ok(());
        }
        let dated = |file: fs::DirEntry| Ok((file.metadata()?.modified()?, file.path()));
        let mut files = files.into_iter().map(dated).collect::<io::Result<Vec<_>>>()?;
        files.sort();
        files.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

fn view_name(view: View) -> &'static str {
    match view {
        View::File => "file",
        View::Tree => "tree",
        View::Auto => "auto",
        View::OneFile => "one-file",
    }
}

/// In whose name it was fetched.
fn domain(shown: &ShownMount) -> String {
    let artifact = shown.artifact.as_ref();
    let task = artifact.and_then(|artifact| artifact.index.as_ref().or(artifact.tasks.first()));
    let key = task.and_then(|task| task.key.as_ref());
    key.map(|key| key.domain.clone()).unwrap_or_default()
}

/// Whether nothing can be said of what the origin has: it, or the way to it, is not there.
fn is_away(error: &OpenUrlError) -> bool {
    matches!(super::status::class_of(error), "source-failed" | "timed-out")
}

impl Agent {
    /// What a question is about, to be mounted: as the origin has it, or as it was where that is away.
    pub(super) async fn to_mount(
        &self,
        question: &Question,
        asker: Asker,
    ) -> Result<ToMount, CallError> {
        match self.hold(question).await {
            Ok(held) => {
                let (opened, in_use) = held?;
                let is_public = question.target.credentials.is_none();
                let opened = OpenArtifact::clone(&opened);
                Ok(ToMount { opened, is_public, away: None, in_use })
            }
            Err(error) => self.as_it_was(&question.target, question.view, asker, error).await,
        }
    }

    /// The same where not even the keys can be had that the origin wants.
    pub(super) async fn to_mount_without_keys(
        &self,
        target: &Target,
        view: View,
        (asker, error): (Asker, Arc<OpenUrlError>),
    ) -> Result<ToMount, CallError> {
        match self.complete(target, Asking::Other).await {
            Ok(target) => self.as_it_was(&target, view, asker, error).await,
            Err(_) => Err(error.into()),
        }
    }

    async fn as_it_was(
        &self,
        target: &Target,
        view: View,
        asker: Asker,
        error: Arc<OpenUrlError>,
    ) -> Result<ToMount, CallError> {
        // This machine's files are read with the rights of who asks, who may have lost them.
        if !is_away(&error) || target.url.lies_here() {
            return Err(error.into());
        }
        let (before, asked) = (self.mounts().before(), target.clone());
        // Whose the cache is may see all that is in it; of others nobody says whether their credentials still hold.
        let domains = match asker {
            Asker::Owner => [TaskKey::PUBLIC, TaskKey::PRIVATE].map(str::to_owned).to_vec(),
            Asker::Other(_) => vec![TaskKey::PUBLIC.to_owned()],
        };
        let finding = move || before.find(&asked, view, &domains);
        let found = tokio::task::spawn_blocking(finding).await.ok().flatten();
        let Some((shown, since)) = found else { return Err(error.into()) };
        let is_public = domain(&shown) == TaskKey::PUBLIC;
        let answer = ResolveReply { artifact: shown.artifact, ..ResolveReply::default() };
        // What is not here any more is of no help: the origin is what is missing.
        let opened = self.host().engine.open_answer(target, answer).await;
        let opened = opened.map_err(|_| Arc::clone(&error))?;
        let in_use = super::in_use(&opened).map_err(|(_, gone)| gone)?;
        let away = Away { since, why: error_chain(&error) };
        tracing::info!(url = %target.url, why = away.why, "mounted as it was before");
        Ok(ToMount { opened, is_public, away: Some(away), in_use })
    }
}
