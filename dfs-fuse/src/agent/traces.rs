//! The profiles that this agent keeps, and the traces of what is mounted now.
//!
//! A profile is a file of its own in the data directory, named by what it is about, and its age is the file's; there are
//! at most [`MOST`]. All mounts that show the same are one run: it ends when the last of them does. What a run touched
//! so far is written every [`Agent::keep_house`](super::Agent::keep_house) round, so that a crash loses no more than that.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use dfs_peer::opener::OpenArtifact;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::shared::Sharing;
use crate::trace::{MAX_BYTES, Place, Profile, Recorder, Subject};

/// Profiles that are kept; the one that was written longest ago goes first.
const MOST: usize = 256;

/// Runs after each of which the cluster is told, and then every so many: what many runs came to changes little.
const RUNS_TOLD: u32 = 8;

/// Where in the data directory.
const DIR: &str = "profiles";

/// See the module.
pub struct Traces {
    dir: PathBuf,
    watched: Mutex<HashMap<Subject, Weak<Watched>>>,
    untold: Arc<Untold>,
}

/// What the cluster is to be told next, the latest of each.
type Untold = Mutex<HashMap<Subject, (Sharing, Profile)>>;

/// What came of asking the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It told what it knows, if anything, or need not be asked.
    Answered,
    /// It does not answer now.
    Unanswered,
}

/// Something that is mounted and whose reads are recorded.
pub struct Watched {
    subject: Subject,
    file: PathBuf,
    recorder: Arc<Recorder>,
    known: Mutex<Known>,
    /// Whom else it concerns.
    sharing: Option<Sharing>,
    untold: Arc<Untold>,
    /// Told when another profile was put in place of the one that was known.
    replaced: watch::Sender<()>,
}

/// What is known of it beside the trace of now.
#[derive(Debug)]
struct Known {
    mounts: usize,
    profile: Profile,
    /// Whether the run began under an earlier agent, and is part of the profile already.
    goes_on: bool,
    /// Bytes that the run had touched when it was written last; none where the file is behind.
    written: Option<u64>,
}

/// How a mount begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// It is new.
    Mounted,
    /// An earlier agent began it.
    Resumed,
}

/// A mount whose reads are recorded; it blocks for a moment when it is dropped.
pub struct Watching(Arc<Watched>);

/// What a profile about `path` of a tree is about.
pub fn subject(opened: &OpenArtifact, path: &[u8]) -> Option<Subject> {
    opened.index.as_ref().map(|index| Subject::of(index.task.id(), path))
}

impl Traces {
    /// Those kept below an agent's data directory.
    pub fn in_dir(data_dir: &Path) -> Self {
        let dir = data_dir.join(DIR);
        Self { dir, watched: Mutex::default(), untold: Arc::default() }
    }

    /// Records what is read of `subject`, whose spaces have these lengths, also for those of `sharing`. Blocks.
    pub fn watch(
        &self,
        subject: Subject,
        lengths: impl IntoIterator<Item = Option<u64>>,
        beginning: Beginning,
        sharing: Option<Sharing>,
    ) -> Watching {
        let mut watched = self.watched.lock();
        watched.retain(|_, watched| watched.strong_count() > 0);
        if let Some(known) = watched.get(&subject).and_then(Weak::upgrade) {
            known.known.lock().mounts += 1;
            return Watching(known);
        }
        let profile = self.read(subject);
        let goes_on = beginning == Beginning::Resumed && !profile.is_empty();
        let known = Known { mounts: 1, profile, goes_on, written: Some(0) };
        let fresh = Arc::new(Watched {
            subject,
            file: self.file(subject),
            recorder: Arc::new(Recorder::new(lengths)),
            known: Mutex::new(known),
            sharing,
            untold: Arc::clone(&self.untold),
            replaced: watch::Sender::new(()),
        });
        watched.insert(subject, Arc::downgrade(&fresh));
        Watching(fresh)
    }

    /// What is known of `subject`, with what was read of it until now. Blocks.
    pub fn profile(&self, subject: Subject) -> Profile {
        match self.watched(subject) {
            Some(watched) => watched.with_run(),
            None => self.read(subject),
        }
    }

    /// When what is kept of it was written last.
    pub fn written(&self, subject: Subject) -> Option<SystemTime> {
        fs::metadata(self.file(subject)).and_then(|found| found.modified()).ok()
    }

    /// Puts a profile in place of what is known; the mounts that follow it begin anew. Blocks.
    pub fn replace(&self, subject: Subject, profile: Profile) -> io::Result<()> {
        let (file, bytes) = (self.file(subject), profile.encode(subject));
        let Some(watched) = self.watched(subject) else { return write(&file, &bytes) };
        let mut known = watched.known.lock();
        write(&file, &bytes)?;
        (known.profile, known.goes_on) = (profile, false);
        drop(known);
        watched.replaced.send_replace(());
        Ok(())
    }

    /// Ends the run of what is mounted, and begins another one; none where it is not. Blocks.
    pub fn end_run(&self, subject: Subject) -> Option<io::Result<()>> {
        let watched = self.watched(subject)?;
        watched.end_run();
        Some(watched.save())
    }

    /// Writes down what was read since the last time. Blocks.
    pub fn save(&self) {
        let watched: Vec<_> = self.watched.lock().values().filter_map(Weak::upgrade).collect();
        watched.iter().for_each(|watched| watched.save_or_say());
    }

    /// Tells the cluster what it has not been told.
    pub async fn tell(&self) {
        let untold = std::mem::take(&mut *self.untold.lock());
        for (subject, (sharing, profile)) in untold {
            sharing.tell(subject, &profile).await;
        }
    }

    fn watched(&self, subject: Subject) -> Option<Arc<Watched>> {
        self.watched.lock().get(&subject).and_then(Weak::upgrade)
    }

    fn file(&self, subject: Subject) -> PathBuf {
        self.dir.join(subject.to_string())
    }

    /// What is kept of it. What cannot be read is as if it were not there: the next run writes it anew.
    fn read(&self, subject: Subject) -> Profile {
        match read(&self.file(subject)) {
            Ok(bytes) => match Profile::decode(&bytes) {
                Ok((about, profile)) if about == subject => return profile,
                Ok(_) => tracing::warn!(%subject, "a prefetch profile is about something else"),
                Err(error) => tracing::warn!(%subject, %error, "a prefetch profile is not used"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%subject, %error, "a prefetch profile cannot be read"),
        }
        Profile::default()
    }
}

impl Watched {
    /// Who is told of reads.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// What was known before this run.
    pub fn profile(&self) -> Profile {
        self.known.lock().profile.clone()
    }

    /// Fires when another profile is in place.
    pub fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// Asks the cluster where nothing is known here. What comes is told to those who follow the profile.
    pub async fn ask(&self) -> Asked {
        let Some(sharing) = self.sharing.as_ref().filter(|_| self.profile().is_empty()) else {
            return Asked::Answered;
        };
        let profile = match sharing.ask(self.subject).await {
            Ok(Some(profile)) => profile,
            Ok(None) => return Asked::Answered,
            Err(error) => {
                tracing::debug!(subject = %self.subject, %error, "no profile");
                return Asked::Unanswered;
            }
        };
        let mut known = self.known.lock();
        if known.profile.is_empty() {
            known.profile = profile;
            drop(known);
            self.replaced.send_replace(());
        }
        Asked::Answered
    }

    fn with_run(&self) -> Profile {
        let known = self.known.lock();
        known.with(&self.recorder.trace())
    }

    fn end_run(&self) {
        let mut known = self.known.lock();
        let run = self.recorder.begin_anew();
        if !run.is_empty() {
            known.profile = known.with(&run);
            (known.goes_on, known.written) = (false, None);
        }
    }

    /// Writes it down, if anything was read since the last time.
    fn save(&self) -> io::Result<()> {
        let mut known = self.known.lock();
        let touched = self.recorder.tally().touched;
        if known.written == Some(touched) {
            return Ok(());
        }
        let profile = known.with(&self.recorder.trace());
        write(&self.file, &profile.encode(self.subject))?;
        known.written = Some(touched);
        // A run that goes on is told where nobody knows anything yet.
        let is_news = touched == 0 || known.profile.is_empty();
        let is_due = profile.runs() <= RUNS_TOLD || profile.runs().is_multiple_of(RUNS_TOLD);
        if let Some(sharing) = self.sharing.as_ref().filter(|_| is_news && is_due) {
            self.untold.lock().insert(self.subject, (sharing.clone(), profile));
        }
        Ok(())
    }

    fn save_or_say(&self) {
        if let Err(error) = self.save() {
            tracing::warn!(subject = %self.subject, %error, "what was read is not written down");
        }
    }
}

impl Known {
    fn with(&self, run: &[Place]) -> Profile {
        match self.goes_on {
            true => self.profile.with_rest(run),
            false => self.profile.with_run(run),
        }
    }
}

impl Watching {
    /// What is recorded.
    pub fn watched(&self) -> &Arc<Watched> {
        &self.0
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut known = self.0.known.lock();
        known.mounts -= 1;
        let is_last = known.mounts == 0;
        drop(known);
        if is_last {
            self.0.end_run();
            self.0.save_or_say();
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > MAX_BYTES as u64 {
        return Err(io::Error::other("it is too long"));
    }
    fs::read(file)
}

/// Another process never sees half of it. What a crash of the machine leaves of it its checksum tells.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    if !file.exists() {
        make_room(dir)?;
    }
    let draft = file.with_extension("new");
    fs::write(&draft, bytes)?;
    fs::rename(&draft, file)
}

fn make_room(dir: &Path) -> io::Result<()> {
    let files = fs::read_dir(dir)?.flatten();
    let age = |file: fs::DirEntry| Some((file.metadata().ok()?.modified().ok()?, file.path()));
    let mut files: Vec<_> = files.filter_map(age).collect();
    files.sort();
    let beyond = (files.len() + 1).saturating_sub(MOST);
    files.iter().take(beyond).try_for_each(|(_, file)| fs::remove_file(file))
}

#[cfg(test)]
mod tests {
    use dfs_model::{ByteRange, GROUP_BYTES, GroupRange, TaskId};

    use super::*;

    fn subject(number: u8) -> Subject {
        Subject::of(TaskId::from_bytes([number; 32]), b"")
    }

    fn watch(traces: &Traces, beginning: Beginning) -> Watching {
        traces.watch(subject(1), [Some(1 << 30)], beginning, None)
    }

    fn touch(watching: &Watching, group: u64) {
        watching.watched().recorder().touch(0, ByteRange::at(group * GROUP_BYTES, 1));
    }

    fn known(traces: &Traces) -> (u32, Vec<u64>) {
        let profile = traces.profile(subject(1));
        let groups = profile.places().flat_map(|place| place.groups.iter());
        (profile.runs(), groups.collect())
    }

    #[test]
    fn all_mounts_of_the_same_are_one_run_that_ends_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::in_dir(dir.path());
        let (one, other) = (watch(&traces, Beginning::Mounted), watch(&traces, Beginning::Mounted));
        touch(&one, 9);
        drop(one);
        touch(&other, 3);
        assert_eq!(known(&traces), (1, vec![9, 3]));
        drop(other);
        touch(&watch(&traces, Beginning::Mounted), 9);
        assert_eq!(known(&Traces::in_dir(dir.path())), (2, vec![9, 3]));
        assert_eq!(watch(&traces, Beginning::Mounted).watched().profile().runs(), 2);
    }

    #[test]
    fn what_was_saved_outlives_a_crash_and_the_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::in_dir(dir.path());
        let before = watch(&traces, Beginning::Mounted);
        touch(&before, 9);
        traces.save();
        touch(&before, 5);
        // Nothing of it is told any more.
        std::mem::forget(before);
        let next = Traces::in_dir(dir.path());
        let after = watch(&next, Beginning::Resumed);
        touch(&after, 3);
        drop(after);
        assert_eq!(known(&next), (1, vec![9, 3]));
    }

    #[test]
    fn a_run_that_is_ended_counts_and_another_begins() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::in_dir(dir.path());
        let mounted = watch(&traces, Beginning::Mounted);
        touch(&mounted, 9);
        traces.end_run(subject(1)).unwrap().unwrap();
        assert_eq!(known(&Traces::in_dir(dir.path())), (1, vec![9]));
        touch(&mounted, 9);
        drop(mounted);
        assert_eq!(known(&traces), (2, vec![9]));
        assert!(traces.end_run(subject(1)).is_none(), "nothing is mounted any more");
    }

    #[test]
    fn what_is_put_in_place_is_told_to_the_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::in_dir(dir.path());
        let mounted = watch(&traces, Beginning::Mounted);
        let mut replaced = mounted.watched().replaced();
        replaced.borrow_and_update();
        let given = Profile::default().with_run(&[Place::new(0, GroupRange::new(7, 2))]);
        traces.replace(subject(1), given.clone()).unwrap();
        assert!(replaced.has_changed().unwrap());
        assert_eq!(mounted.watched().profile(), given);
    }

    #[test]
    fn there_are_no_more_than_so_many_and_damaged_ones_are_as_if_they_were_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::in_dir(dir.path());
        let given = Profile::default().with_run(&[Place::new(0, GroupRange::new(7, 2))]);
        for number in 0..=255 {
            traces.replace(subject(number), given.clone()).unwrap();
            let path = subject(number).to_string();
            for more in 0..2 {
                let other = Subject::of(TaskId::from_bytes([number; 32]), &[more]);
                traces.replace(other, given.clone()).unwrap();
            }
            assert!(dir.path().join(DIR).join(path).exists());
        }
        assert_eq!(fs::read_dir(dir.path().join(DIR)).unwrap().count(), MOST);
        let file = dir.path().join(DIR).join(subject(255).to_string());
        assert_eq!(traces.profile(subject(255)), given);
        fs::write(&file, &fs::read(&file).unwrap()[..40]).unwrap();
        assert_eq!(traces.profile(subject(255)), Profile::default());
        fs::write(&file, given.encode(subject(1))).unwrap();
        assert_eq!(traces.profile(subject(255)), Profile::default());
    }
}
