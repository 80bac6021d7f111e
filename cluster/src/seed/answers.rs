//! What public URLs turned out to be, kept on disk: where nobody can tell what one is now, it is what it was. With scheduler
//! and origin gone that is all that is known of it, and what it is made of lies in this seed's store.
//!
//! An answer that was got with credentials is not kept. One that cannot be read is none; it is found out again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dfs_model::{CanonicalUrl, printable};
use dfs_proto::common;
use dfs_proto::seed::{ResolveReply, ResolveRequest};
use dfs_service::private_file::{self, Outlives};
use dfs_source::oci::Platform;
use prost::Message as _;

/// The format, before the answer.
const MAGIC: &[u8] = b"dfs answer 1\n";

/// Longest answer that is kept, in bytes.
const LONGEST: usize = 1 << 20;

/// Most answers; the oldest quarter of more goes.
const MOST: usize = 4096;

/// Where they are kept.
#[derive(Debug, Clone)]
pub struct Answers {
    dir: PathBuf,
}

impl Answers {
    /// In a directory of their own, which nobody else writes to.
    pub fn in_dir(dir: PathBuf) -> Self {
        private_file::sweep(&dir);
        Self { dir }
    }

    /// Keeps what the answer to a question is now.
    pub async fn keep(&self, question: &ResolveRequest, answer: &ResolveReply) {
        let Some(path) = self.place_of(question) else { return };
        let artifact = answer.artifact.clone();
        // What was sent beside it is not the answer.
        let artifact = artifact.map(|artifact| common::Artifact { delta: None, ..artifact });
        let kept = ResolveReply { artifact, tiny: answer.tiny.clone(), level: None };
        let dir = self.dir.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let bytes = [MAGIC, &kept.encode_to_vec()].concat();
            let is_news = || fs::read(&path).ok().is_none_or(|before| before != bytes);
            if bytes.len() > LONGEST || !is_news() {
                return;
            }
            if let Err(error) = private_file::replace(&path, &bytes, Outlives::Power) {
                let dir = printable(&dir.display().to_string());
                tracing::warn!(%dir, %error, "what a URL is is not kept");
            }
            make_room(&dir);
        });
        // The process may be ending: the one before stays.
        let _ = writing.await;
    }

    /// What it was. For a machine of which nobody has asked for it, what it was for a lower one of its kind.
    pub async fn last(&self, question: &ResolveRequest) -> Option<ResolveReply> {
        let platform = question.platform.parse().ok();
        let lower = platform
            .iter()
            .flat_map(Platform::with_lower)
            .skip(1)
            .map(|lower| ResolveRequest { platform: lower.to_string(), ..question.clone() });
        let places = [self.place_of(question)?].into_iter();
        let places: Vec<_> =
            places.chain(lower.filter_map(|lower| self.place_of(&lower))).collect();
        let reading = tokio::task::spawn_blocking(move || {
            places.iter().find_map(|path| {
                let bytes = private_file::read(path, LONGEST as u64).ok()??;
                ResolveReply::decode(bytes.strip_prefix(MAGIC)?).ok()
            })
        });
        reading.await.ok()?
    }

    /// The origin says that there is nothing, or not for everybody.
    pub async fn forget(&self, question: &ResolveRequest) {
        let Some(path) = self.place_of(question) else { return };
        // There may be none.
        let _ = tokio::task::spawn_blocking(move || fs::remove_file(path)).await;
    }

    /// Where the answer to a question of everybody is.
    fn place_of(&self, question: &ResolveRequest) -> Option<PathBuf> {
        let target = question.target.as_ref()?;
        if question.level.is_some() || has_secrets(target) {
            return None;
        }
        let url = CanonicalUrl::parse(&target.url).ok()?;
        let mut fields = vec![url.as_str().to_owned(), question.view.to_string()];
        // Of what is no image, or has its machine in its name, none is said.
        fields.extend(Some(question.platform.clone()).filter(|platform| !platform.is_empty()));
        for header in &target.headers {
            fields.extend([header.name.to_ascii_lowercase(), header.value.clone()]);
        }
        let mut hasher = blake3::Hasher::new();
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field.as_bytes());
        }
        Some(self.dir.join(hasher.finalize().to_hex().as_str()))
    }
}

/// Whether a target is asked for with credentials.
pub(crate) fn has_secrets(target: &common::Target) -> bool {
    let is_secret = |c: &common::Credentials| c.kind.is_some() || !c.headers.is_empty();
    target.credentials.as_ref().is_some_and(is_secret)
}

/// Removes the oldest of too many. Blocks.
fn make_room(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let dated = files.map(|file| {
        let written = file.metadata().and_then(|found| found.modified());
        (written.unwrap_or(SystemTime::UNIX_EPOCH), file.path())
    });
    let mut dated: Vec<_> = dated.collect();
    if dated.len() <= MOST {
        return;
    }
    dated.sort_unstable();
    for (_, path) in dated.into_iter().take(MOST / 4) {
        // Somebody may have done it.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str) -> ResolveRequest {
        let target = Some(common::Target { url: url.to_owned(), ..common::Target::default() });
        ResolveRequest { target, ..ResolveRequest::default() }
    }

    fn answer(files: u64) -> ResolveReply {
        let artifact = Some(common::Artifact { files, ..common::Artifact::default() });
        ResolveReply { artifact, ..ResolveReply::default() }
    }

    #[tokio::test]
    async fn what_everybody_may_know_is_kept_and_the_last_word_counts() {
        let dir = tempfile::tempdir().unwrap();
        let answers = Answers::in_dir(dir.path().to_owned());
        let (one, other) = (question("oci://r.test/a:1"), question("oci://r.test/a:2"));
        assert_eq!(answers.last(&one).await, None);
        answers.keep(&one, &answer(1)).await;
        answers.keep(&one, &answer(2)).await;
        assert_eq!(answers.last(&one).await, Some(answer(2)));
        assert_eq!(answers.last(&other).await, None);
        let asked_again = Answers::in_dir(dir.path().to_owned());
        assert_eq!(asked_again.last(&one).await, Some(answer(2)), "by the next process");
        let of = |platform: &str| ResolveRequest { platform: platform.to_owned(), ..one.clone() };
        answers.keep(&of("linux/amd64/v2"), &answer(3)).await;
        assert_eq!(answers.last(&of("linux/amd64/v3")).await, Some(answer(3)), "it runs that");
        for other in ["linux/amd64", "linux/arm64"] {
            assert_eq!(answers.last(&of(other)).await, None, "{other}");
        }
        let by_view = ResolveRequest { view: 2, ..one.clone() };
        let by_machine = ResolveRequest { platform: "linux/arm64".to_owned(), ..one.clone() };
        for otherwise in [by_view, by_machine] {
            assert_eq!(answers.last(&otherwise).await, None);
        }
        answers.forget(&one).await;
        assert_eq!(answers.last(&one).await, None);
    }

    #[tokio::test]
    async fn what_somebody_was_told_with_credentials_or_of_a_level_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let answers = Answers::in_dir(dir.path().to_owned());
        let mut private = question("oci://r.test/a:1");
        let header = common::Header { name: "authorization".into(), ..common::Header::default() };
        let credentials = common::Credentials { headers: vec![header], ..Default::default() };
        private.target.as_mut().unwrap().credentials = Some(credentials);
        let level = ResolveRequest { level: Some(Vec::new().into()), ..question("http://o.test/") };
        for unkept in [private, level, ResolveRequest::default()] {
            answers.keep(&unkept, &answer(1)).await;
            assert_eq!(answers.last(&unkept).await, None);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_damaged_is_no_answer_and_there_are_never_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let answers = Answers::in_dir(dir.path().to_owned());
        let one = question("oci://r.test/a:1");
        answers.keep(&one, &answer(1)).await;
        let path = answers.place_of(&one).unwrap();
        for damaged in [&b""[..], b"dfs answer 1\n\xff", b"something else"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(answers.last(&one).await, None);
        }
        for number in 0..MOST + 10 {
            fs::write(dir.path().join(number.to_string()), b"").unwrap();
        }
        answers.keep(&one, &answer(2)).await;
        assert_eq!(answers.last(&one).await, Some(answer(2)));
        assert!(fs::read_dir(dir.path()).unwrap().count() <= MOST);
    }
}
