//! Mounts that the kernel serves alone: written down on disk before they are made, and taken up by the next agent before
//! it evicts anything. No credentials are among what is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dfs_peer::engine::Task;
use dfs_peer::error_chain;
use dfs_peer::opener::OpenArtifact;
use dfs_proto::node::{KeptMount, MountedAt, ShownMount};
use futures::{StreamExt, stream};
use tokio::time::timeout;

use super::content::SpaceContent;
use super::mounts::MountTableError;
use super::{Agent, kept};
use crate::holder::{LeftGuard, RECORD_FORMAT};
use crate::mount::{self, Blobs, Missing, MountEntry, MountError, Remains, mounts, next_name};

/// What an agent has mounted so, a file each, for as long as it is mounted.
#[derive(Debug, Clone)]
pub(super) struct Records(PathBuf);

/// Where a mount is written down: a name that no other has.
#[derive(Debug, Clone)]
pub(super) struct Noted(PathBuf);

impl Noted {
    /// Writes down what is mounted `at` a place.
    pub fn note(&self, at: &MountedAt, shown: &ShownMount, missing: Missing) -> io::Result<()> {
        let record = KeptMount {
            format: RECORD_FORMAT,
            served: true,
            at: Some(at.clone()),
            shown: Some(kept::without_credentials(shown)),
            lazy: missing == Missing::Something,
            ..KeptMount::default()
        };
        kept::write_record(&self.0, &record)
    }

    /// It is not mounted any more, or was not at all.
    pub fn forget(&self) {
        // One that stays is dropped at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl Records {
    /// Those below an agent's data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("mounts"))
    }

    /// Where the next one is written down.
    pub fn next(&self) -> Noted {
        self.named(&next_name())
    }

    /// Where one of this name is written down.
    pub fn named(&self, name: &str) -> Noted {
        Noted(self.0.join(name))
    }

    /// Takes away at once what the kernel would show holes of: nobody has its reads wait any more. So it is with what is not
    /// written down so that it can be read. Of what is guarded it gives back what needs nobody any more.
    pub fn sort_out(&self, guarded: &mut Vec<LeftGuard>) -> io::Result<Vec<LeftGuard>> {
        let (mut whole, Found { records: mut all, are_all }) = (Vec::new(), self.every()?);
        let guarded_at = places_of(guarded);
        if are_all {
            self.take_away_unknown(&all, &guarded_at)?;
        }
        all.retain(is_understood);
        for (noted, record) in all {
            let is_it = |left: &LeftGuard| noted.0.ends_with(&left.guard.name);
            let guard = guarded.iter().position(is_it);
            match guard {
                Some(at) if !record.lazy => whole.push(guarded.swap_remove(at)),
                Some(_) => {}
                None if !record.lazy => {}
                // What it was about is gone: another one, which is guarded, has its number by now.
                None if record.at.as_ref().is_some_and(|at| is_one_of(at, &guarded_at)) => {
                    noted.forget();
                }
                None => {
                    let at = record.at.unwrap_or_default();
                    let dir = String::from_utf8_lossy(&at.dir).into_owned();
                    tracing::error!(dir, "a mount lost its agent and its holder: it is taken away");
                    match mount::take_away(&at) {
                        Remains::Nothing => noted.forget(),
                        // The next agent tries again: it shows holes as long as it is there.
                        Remains::Something => {}
                    }
                }
            }
        }
        Ok(whole)
    }

    /// What the kernel shows of the store without anybody knowing whether all of it was there.
    fn take_away_unknown(
        &self,
        known: &[(Noted, KeptMount)],
        guarded: &[MountedAt],
    ) -> io::Result<()> {
        let tasks = self.0.with_file_name("tasks");
        let tasks = tasks.canonicalize().unwrap_or(tasks);
        for entry in mounts()? {
            let is_of = |at: &MountedAt| {
                is_line_of(&entry, at, Same::Place) || is_line_of(&entry, at, Same::Device)
            };
            let written = known.iter().filter_map(|(_, record)| record.at.as_ref());
            let is_known = || written.chain(guarded).any(is_of);
            if entry.is_by_kernel() && Path::new(&entry.name).starts_with(&tasks) && !is_known() {
                let dir = entry.dir.display();
                tracing::error!(%dir, "nothing is known of a mount of the store: it is taken away");
                // Of what remains nothing will be known to the next agent either, which tries again.
                let _ = mount::take_away(&mount::at(&entry));
            }
        }
        Ok(())
    }

    /// All of them; what a later release wrote is left to it.
    fn all(&self) -> io::Result<Vec<(Noted, KeptMount)>> {
        let mut all = self.every()?.records;
        all.retain(is_understood);
        Ok(all)
    }

    /// Those of later releases, too; what is none is dropped. One that cannot be read stays.
    fn every(&self) -> io::Result<Found> {
        let mut all = Found { records: Vec::new(), are_all: true };
        for path in self.files()? {
            match read(&path) {
                Ok(Some(record)) => all.records.push((Noted(path), record)),
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "a record of a mount cannot be read");
                    all.are_all = false;
                }
                Ok(None) => {
                    // One that stays is in nobody's way.
                    let removed = fs::remove_file(&path);
                    let (file, is_removed) = (path.display(), removed.is_ok());
                    tracing::warn!(%file, is_removed, "is no record of a mount");
                }
            }
        }
        Ok(all)
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let files = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        files.map(|file| Ok(file?.path())).collect()
    }

    /// What is still mounted of it, each mount once; the others are forgotten.
    fn mounted(&self) -> io::Result<Vec<(MountEntry, Noted, KeptMount)>> {
        let mut table = mounts()?;
        table.retain(|entry| entry.is_by_kernel() && entry.root == Path::new("/"));
        let (mut found, mut left) = (Vec::new(), self.all()?);
        // Those are gone on with by who guards them.
        left.retain(|(_, record)| !record.lazy);
        // Its directory first: numbers of devices are given again. A directory on the way may have another name by now.
        for how in [Same::Place, Same::Device] {
            left.retain(|(noted, record)| {
                let at = record.at.clone().unwrap_or_default();
                let line = table.iter().position(|entry| is_line_of(entry, &at, how));
                let line = line.map(|line| table.swap_remove(line));
                let is_left = line.is_none();
                found.extend(line.map(|line| (line, noted.clone(), record.clone())));
                is_left
            });
        }
        left.iter().for_each(|(noted, _)| noted.forget());
        Ok(found)
    }
}

/// What is written down.
struct Found {
    records: Vec<(Noted, KeptMount)>,
    /// Whether all of it could be read: else there are mounts of which nothing is known here, and somebody knows of them.
    are_all: bool,
}

/// What is written down in a file; `None` where that is no record.
fn read(path: &Path) -> io::Result<Option<KeptMount>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => kept::read_any_record(path),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is of this release.
fn is_understood((noted, record): &(Noted, KeptMount)) -> bool {
    let is_understood = record.format == RECORD_FORMAT;
    if !is_understood {
        let (file, format) = (noted.0.display(), record.format);
        tracing::warn!(%file, format, "another release wrote down a mount");
    }
    is_understood
}

/// Where the mounts are that somebody guards.
fn places_of(guarded: &[LeftGuard]) -> Vec<MountedAt> {
    guarded.iter().filter_map(|left| left.guard.record.read().ok()?.at).collect()
}

/// Whether what was written down has the number and the name of one of these: no two that are there have the same. Of one
/// that never got so far the place says it: whoever is there now was mounted since.
fn is_one_of(at: &MountedAt, others: &[MountedAt]) -> bool {
    let is_it = |other: &MountedAt| match at.device.is_empty() {
        true => !other.device.is_empty() && other.dir == at.dir,
        false => other.device == at.device,
    };
    others.iter().any(|other| other.name == at.name && is_it(other))
}

/// By what a line of the mount table is taken for that of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    Place,
    Device,
}

fn is_line_of(entry: &MountEntry, at: &MountedAt, how: Same) -> bool {
    let is_there = entry.dir.as_os_str().as_encoded_bytes() == &at.dir[..];
    let is_device = entry.device == at.device;
    entry.name == at.name
        && match how {
            Same::Place => is_there && (is_device || at.device.is_empty()),
            Same::Device => is_device,
        }
}

/// Whether the agent in whose store the index of a mount lies has it written down.
pub fn is_written_down(entry: &MountEntry) -> io::Result<bool> {
    // <data>/tasks/<2 hex>/<task id>/content
    let data_dir = Path::new(&entry.name).ancestors().nth(4);
    let records = Records::of(data_dir.unwrap_or(Path::new("/")));
    // Written before it is mounted: what is not there now is not on its way.
    for path in records.files()? {
        let at = kept::read_any_record(&path).ok().flatten().and_then(|record| record.at);
        let is_it = |at: &MountedAt| {
            is_line_of(entry, at, Same::Place) || is_line_of(entry, at, Same::Device)
        };
        if at.as_ref().is_some_and(is_it) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files that the kernel reads of a tree, as it can read them.
pub(super) fn blobs(
    opened: &OpenArtifact,
    content: &SpaceContent,
    dir: &Path,
) -> Result<Blobs, MountTableError> {
    let index = opened.index.as_ref().ok_or(MountTableError::NoTree)?;
    let file = |task: &Task| {
        let path = task.stored().content_path();
        // The kernel opens them by name, from wherever.
        path.canonicalize().unwrap_or(path)
    };
    content.end_on_groups().map_err(|error| MountError::Refused {
        dir: dir.to_owned(),
        source: io::Error::other(error_chain(&error)),
    })?;
    let spaces = opened.tasks.iter().map(file).collect();
    Ok(Blobs { index: file(&index.task), spaces })
}

impl Agent {
    /// Takes up what the kernel serves since an earlier agent.
    pub(super) async fn adopt_mounts(&self) -> io::Result<()> {
        let records = Records::of(&self.facts().data_dir);
        let looking = tokio::task::spawn_blocking(move || records.mounted());
        let left =
            looking.await.unwrap_or_else(|_| Err(io::Error::other("the agent is stopping")))?;
        let adopting =
            left.into_iter().map(|(entry, noted, record)| self.adopt(entry, noted, record));
        stream::iter(adopting).buffer_unordered(kept::AT_A_TIME).collect::<()>().await;
        Ok(())
    }

    async fn adopt(&self, entry: MountEntry, noted: Noted, record: KeptMount) {
        let dir = entry.dir.clone();
        let opened = match timeout(kept::OPENED, self.open_again(&record)).await {
            Ok(opened) => opened.map_err(|error| error_chain(&error)),
            Err(_) => Err("what it shows could not be opened in time".to_owned()),
        };
        let adopted = match opened {
            Ok(opened) => {
                let shown = record.shown.unwrap_or_default();
                let adopting = self.mounts().adopt(entry, noted, &shown, opened).await;
                adopting.map(drop).map_err(|error| error_chain(&error))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = adopted {
            // Its readers need nobody; what they have open stays theirs.
            tracing::error!(dir = %dir.display(), error, "a mount of the kernel's is not known");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_release_wrote_down_is_known_and_left_to_it_and_garbage_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (records, index) = (Records::of(dir.path()), dir.path().join("tasks/aa/aabb/content"));
        let entry = MountEntry {
            id: 1,
            parent: 0,
            only_id: None,
            dir: "/mnt".into(),
            root: "/".into(),
            device: "0:99".to_owned(),
            kind: "erofs".to_owned(),
            name: index.to_string_lossy().into_owned(),
            user: None,
        };
        assert!(!is_written_down(&entry).unwrap());
        let at = MountedAt {
            dir: b"/mnt".as_slice().into(),
            device: entry.device.clone(),
            name: entry.name.clone(),
        };
        let later = KeptMount { format: RECORD_FORMAT + 1, at: Some(at), ..KeptMount::default() };
        kept::write_record(&records.named("later").0, &later).unwrap();
        fs::write(records.named("garbage").0, b"\xff").unwrap();
        fs::write(records.named("empty").0, b"").unwrap();
        assert!(records.all().unwrap().is_empty());
        assert!(is_written_down(&entry).unwrap());
        assert_eq!(records.files().unwrap(), [records.named("later").0]);
    }

    #[test]
    fn a_record_that_cannot_be_read_now_is_neither_dropped_nor_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(dir.path());
        fs::create_dir_all(&records.0).unwrap();
        fs::create_dir(records.named("directory").0).unwrap();
        let is_empty = |found: Found| found.records.is_empty().then_some(found.are_all);
        assert_eq!(is_empty(records.every().unwrap()), Some(true), "what is no file is no record");
        // Nothing can be read of it at its beginning.
        let unreadable = records.named("unreadable").0;
        std::os::unix::fs::symlink("/proc/self/mem", &unreadable).unwrap();
        assert_eq!(is_empty(records.every().unwrap()), Some(false));
        assert!(unreadable.symlink_metadata().is_ok());
    }

    #[test]
    fn what_a_lost_mount_left_written_down_is_not_taken_for_one_that_got_its_number() {
        let at = |device: &str, name: &str| MountedAt {
            dir: b"/mnt".as_slice().into(),
            device: device.to_owned(),
            name: name.to_owned(),
        };
        let guarded = [at("0:57", "index"), at("", "other")];
        let elsewhere = MountedAt { dir: b"/other".as_slice().into(), ..at("0:57", "index") };
        assert!(is_one_of(&elsewhere, &guarded));
        assert!(!is_one_of(&at("0:58", "index"), &guarded));
        assert!(!is_one_of(&at("0:57", "other"), &guarded));
        // Of one that was never found nobody knows which it is, but where another one is by now.
        assert!(!is_one_of(&at("", "other"), &guarded));
        assert!(is_one_of(&at("", "index"), &guarded));
        let elsewhere = MountedAt { dir: b"/other".as_slice().into(), ..at("", "index") };
        assert!(!is_one_of(&elsewhere, &guarded));
    }
}
