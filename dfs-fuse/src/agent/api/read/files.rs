//! Whole small files, many in one call.
//!
//! Neighbours in a space share groups: they are asked for together, read in one go and told of in one message. What
//! cannot be had this way (it is long, has holes, fails) is left to a read of its own, which tells why.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dfs_model::{ByteRange, Priority};
use dfs_peer::engine::{Ledger, Mark, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{Use, UseGuard};
use dfs_proto::node::{FileContent, FilesChunk, ReadFilesRequest, ReadProgress};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::{self, BoxStream, StreamExt};

use super::{Located, MESSAGE, PROGRESS, inside, views};
use crate::agent::CallError;

/// Files in one call.
const MOST_FILES: usize = 1024;

/// Bytes of their content.
const MOST_BYTES: u64 = 16 << 20;

/// Bytes of a file that is not too long for this.
const SMALL: u64 = 2 * MESSAGE;

/// A file and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    number: u32,
    space: u16,
    range: ByteRange,
}

/// Files that lie in groups that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    space: u16,
    /// From the first file's first byte to the last one's last.
    range: ByteRange,
    /// Of all files: more than the range has where several lie in the same place.
    bytes: u64,
    files: Vec<Wanted>,
}

/// A space that bytes are taken from. Nothing of it is evicted meanwhile.
struct Taken {
    task: Task,
    mark: Mark,
    _in_use: UseGuard,
}

/// What became of the files of one message.
type Portion = Vec<(Wanted, Option<Bytes>)>;

/// When an account is told: of operations that go on at the same time only the last word of one tells each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Meanwhile,
    AtTheEnd,
}

struct Reading {
    _opened: Arc<OpenArtifact>,
    spaces: BTreeMap<u16, Taken>,
    /// Those whose fate is known from the start.
    known: Vec<FileContent>,
    portions: VecDeque<Vec<Run>>,
    /// The next portion: whoever waits again would have let go of it.
    coming: Option<BoxFuture<'static, Portion>>,
    done: Vec<Wanted>,
    priority: Priority,
    told: Instant,
    is_over: bool,
}

/// Begins to read them.
pub(in crate::agent::api) async fn files(
    opened: Arc<OpenArtifact>,
    request: ReadFilesRequest,
) -> Result<BoxStream<'static, FilesChunk>, CallError> {
    if request.paths.len() > MOST_FILES {
        let what = format!("more than {MOST_FILES} files in one call");
        return Err(CallError::BadRequest(what));
    }
    let priority = Priority::from_wire(u8::try_from(request.priority).unwrap_or(u8::MAX));
    // The index may have to be read from the disk.
    let locating = tokio::task::spawn_blocking(move || {
        let located = locate(&opened, &request.paths);
        (opened, located)
    });
    let stopping = |_| CallError::BadRequest("the agent is stopping".to_owned());
    let (opened, (wanted, known)) = locating.await.map_err(stopping)?;
    let mut reading = Reading {
        _opened: Arc::clone(&opened),
        spaces: BTreeMap::new(),
        known,
        portions: VecDeque::new(),
        coming: None,
        done: Vec::new(),
        priority,
        told: Instant::now(),
        is_over: false,
    };
    let wanted = reading.take(&opened, wanted);
    reading.portions = portions(runs(wanted)).into();
    reading.prefetch();
    Ok(stream::unfold(reading, |mut reading| async move {
        let chunk = reading.next().await?;
        Some((chunk, reading))
    })
    .boxed())
}

/// Where the files lie, and those of which there is nothing to fetch.
fn locate(opened: &OpenArtifact, paths: &[Bytes]) -> (Vec<Wanted>, Vec<FileContent>) {
    let (mut wanted, mut known) = (Vec::with_capacity(paths.len()), Vec::new());
    let mut room = MOST_BYTES;
    for (number, path) in (0_u32..).zip(paths) {
        match run_of(opened, path) {
            Some((_, range)) if range.is_empty() => known.push(content(number, Some(Bytes::new()))),
            Some((space, range)) if range.len() <= room.min(SMALL) => {
                room -= range.len();
                wanted.push(Wanted { number, space, range });
            }
            _ => known.push(content(number, None)),
        }
    }
    (wanted, known)
}

/// The space of a file that lies in one run, and where in it.
fn run_of(opened: &OpenArtifact, path: &[u8]) -> Option<(u16, ByteRange)> {
    let Ok(Located::Run(piece)) = inside(opened, path) else { return None };
    let space = opened.tasks.iter().position(|task| task.id() == piece.task.id())?;
    let range = ByteRange::at(piece.offset, piece.length?);
    Some((u16::try_from(space).ok()?, range))
}

/// Files that lie in the same groups or in groups side by side, in the order of their places.
fn runs(mut wanted: Vec<Wanted>) -> Vec<Run> {
    wanted.sort_unstable_by_key(|file| (file.space, file.range.start, file.number));
    let mut runs: Vec<Run> = Vec::new();
    for file in wanted {
        match runs.last_mut() {
            Some(run) if run.takes(file) => {
                run.range.end = run.range.end.max(file.range.end);
                run.bytes += file.range.len();
                run.files.push(file);
            }
            _ => runs.push(Run {
                space: file.space,
                range: file.range,
                bytes: file.range.len(),
                files: vec![file],
            }),
        }
    }
    runs
}

/// As many runs as one message may hold, again and again.
fn portions(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut portions: Vec<Vec<Run>> = Vec::new();
    let mut bytes = 0;
    for run in runs {
        bytes += run.most();
        match portions.last_mut() {
            Some(portion) if bytes <= MESSAGE => portion.push(run),
            _ => {
                bytes = run.most();
                portions.push(vec![run]);
            }
        }
    }
    portions
}

fn content(number: u32, data: Option<Bytes>) -> FileContent {
    FileContent { number, data }
}

impl Run {
    fn takes(&self, next: Wanted) -> bool {
        let touches = next.range.groups().first <= self.range.groups().end();
        let length = self.range.end.max(next.range.end) - self.range.start;
        let bytes = self.bytes + next.range.len();
        self.space == next.space && touches && length.max(bytes) <= MESSAGE
    }

    /// Bytes that are read for it or sent, whichever are more.
    fn most(&self) -> u64 {
        self.range.len().max(self.bytes)
    }
}

impl Reading {
    /// Takes the spaces into use; files of one that is gone are left to reads of their own.
    fn take(&mut self, opened: &OpenArtifact, wanted: Vec<Wanted>) -> Vec<Wanted> {
        let mut kept = Vec::with_capacity(wanted.len());
        for file in wanted {
            if self.use_space(opened, file.space) {
                kept.push(file);
            } else {
                self.known.push(content(file.number, None));
            }
        }
        kept
    }

    fn use_space(&mut self, opened: &OpenArtifact, space: u16) -> bool {
        let Entry::Vacant(place) = self.spaces.entry(space) else { return true };
        let Some(task) = opened.tasks.get(usize::from(space)) else { return false };
        let Ok(_in_use) = task.in_use(Use::Handle) else { return false };
        place.insert(Taken { task: task.clone(), mark: task.mark(), _in_use });
        true
    }

    /// Asks for all of it, so that neighbours come together.
    fn prefetch(&self) {
        let priority = self.priority.max(Priority::Bulk);
        let mut ahead: Option<(u16, ByteRange)> = None;
        for run in self.portions.iter().flatten() {
            match &mut ahead {
                Some((space, range))
                    if *space == run.space && run.range.groups().first <= range.groups().end() =>
                {
                    range.end = range.end.max(run.range.end);
                }
                _ => {
                    self.ask_ahead(ahead, priority);
                    ahead = Some((run.space, run.range));
                }
            }
        }
        self.ask_ahead(ahead, priority);
    }

    fn ask_ahead(&self, ahead: Option<(u16, ByteRange)>, priority: Priority) {
        let Some((space, range)) = ahead else { return };
        if let Some(taken) = self.spaces.get(&space) {
            taken.task.prefetch(range, priority);
        }
    }

    async fn next(&mut self) -> Option<FilesChunk> {
        if self.is_over {
            return None;
        }
        if !self.known.is_empty() {
            let files = std::mem::take(&mut self.known);
            return Some(FilesChunk { files, ..FilesChunk::default() });
        }
        let mut coming = match self.coming.take().or_else(|| self.portion()) {
            Some(coming) => coming,
            None => {
                self.is_over = true;
                let ledger = Some(views::ledger(&self.ledger(Told::AtTheEnd)));
                return Some(FilesChunk { ledger, ..FilesChunk::default() });
            }
        };
        let due = PROGRESS.saturating_sub(self.told.elapsed());
        match tokio::time::timeout(due, &mut coming).await {
            Ok(portion) => {
                let had = portion.iter().filter(|(_, data)| data.is_some());
                self.done.extend(had.map(|(file, _)| *file));
                let files = portion.into_iter().map(|(file, data)| content(file.number, data));
                Some(FilesChunk { files: files.collect(), ..FilesChunk::default() })
            }
            Err(_) => {
                self.coming = Some(coming);
                Some(FilesChunk { progress: Some(self.progress()), ..FilesChunk::default() })
            }
        }
    }

    fn portion(&mut self) -> Option<BoxFuture<'static, Portion>> {
        let runs = self.portions.pop_front()?;
        let priority = self.priority;
        let of = |space| self.spaces.get(&space).map(|taken| taken.task.clone());
        let runs: Vec<_> = runs.into_iter().map(|run| (of(run.space), run)).collect();
        Some(async move { read(runs, priority).await }.boxed())
    }

    fn progress(&mut self) -> ReadProgress {
        self.told = Instant::now();
        let waiting = self.spaces.values().find_map(|taken| taken.task.waiting_for());
        let ledger = Some(views::ledger(&self.ledger(Told::Meanwhile)));
        ReadProgress { ledger, waiting_for: waiting.unwrap_or_default(), early: Vec::new() }
    }

    /// One account of all that was handed over.
    fn ledger(&self, told: Told) -> Ledger {
        let mut ledger = Ledger::default();
        for file in &self.done {
            let Some(taken) = self.spaces.get(&file.space) else { continue };
            let mut part = taken.task.ledger_since(&taken.mark, file.range);
            // Of all files together.
            part.source_requests = 0;
            ledger += &part;
        }
        let nothing = ByteRange::new(0, 0);
        for taken in self.spaces.values() {
            ledger += &match told {
                Told::AtTheEnd => taken.task.told_since(&taken.mark, nothing),
                Told::Meanwhile => taken.task.ledger_since(&taken.mark, nothing),
            };
        }
        ledger
    }
}

/// Waits for the bytes of all runs and reads them.
async fn read(runs: Vec<(Option<Task>, Run)>, priority: Priority) -> Portion {
    let ensured = runs.iter().map(|(task, run)| async move {
        match task {
            Some(task) => task.ensure(run.range, priority).await,
            None => Ok(()),
        }
    });
    // What failed is found missing below.
    join_all(ensured).await;
    let all: Vec<Wanted> = runs.iter().flat_map(|(_, run)| run.files.clone()).collect();
    let reading = tokio::task::spawn_blocking(move || {
        runs.into_iter().flat_map(|(task, run)| read_run(task.as_ref(), &run)).collect()
    });
    reading.await.unwrap_or_else(|_| all.into_iter().map(|file| (file, None)).collect())
}

/// The files of a run, in one go if all of it is here.
fn read_run(task: Option<&Task>, run: &Run) -> Portion {
    let whole = task.and_then(|task| task.stored().read(run.range).ok());
    let part = |file: &Wanted| {
        let Some(whole) = &whole else {
            return task.and_then(|task| task.stored().read(file.range).ok());
        };
        let at = |offset: u64| usize::try_from(offset - run.range.start).unwrap_or(usize::MAX);
        let (start, end) = (at(file.range.start), at(file.range.end));
        (end <= whole.len()).then(|| whole.slice(start..end))
    };
    run.files.iter().map(|file| (*file, part(file))).collect()
}

#[cfg(test)]
mod tests {
    use dfs_model::GROUP_BYTES;
    use proptest::prelude::*;

    use super::*;

    fn wanted(number: u32, space: u16, start: u64, length: u64) -> Wanted {
        Wanted { number, space, range: ByteRange::at(start, length) }
    }

    fn numbers(run: &Run) -> Vec<u32> {
        run.files.iter().map(|file| file.number).collect()
    }

    #[test]
    fn files_in_groups_side_by_side_are_one_run() {
        let group = GROUP_BYTES;
        let found = runs(vec![
            wanted(0, 1, 0, 100),
            wanted(1, 0, 4096, 100),
            wanted(2, 0, 0, 4000),
            wanted(3, 0, group + 8192, 100),
            wanted(4, 0, 3 * group, 100),
        ]);
        let told: Vec<_> = found.iter().map(|run| (run.space, numbers(run))).collect();
        assert_eq!(told, [(0, vec![2, 1, 3]), (0, vec![4]), (1, vec![0])]);
        assert_eq!(found[0].range, ByteRange::new(0, group + 8292));
    }

    #[test]
    fn many_names_of_one_file_are_as_many_files_in_a_message() {
        let names = (0..160).map(|number| wanted(number, 0, 4096, 100 << 10));
        let portions = portions(runs(names.collect()));
        let files: Vec<usize> = portions
            .iter()
            .map(|portion| portion.iter().map(|run| run.files.len()).sum())
            .collect();
        assert_eq!(files, [2; 80]);
    }

    /// Files in a few spaces, each by one name or by several.
    fn linked() -> impl Strategy<Value = Vec<(u16, u64, u64)>> {
        let length = prop_oneof![1_u64..=8192, 1..=SMALL];
        let file = (0_u16..3, 0_u64..4096, length, prop_oneof![Just(1), 1_usize..40]);
        let named = |(space, block, length, names)| vec![(space, block, length); names];
        prop::collection::vec(file, 0..200)
            .prop_map(move |files| files.into_iter().flat_map(named).collect())
    }

    proptest! {
        #[test]
        fn each_file_is_in_one_run_and_no_message_is_longer_than_its_longest_file(
            files in linked(),
        ) {
            let files: Vec<_> = (0_u32..)
                .zip(files)
                .map(|(number, (space, block, length))| wanted(number, space, block * 4096, length))
                .collect();
            let portions = portions(runs(files.clone()));
            let mut met: Vec<_> = portions.iter().flatten().flat_map(|run| run.files.clone()).collect();
            met.sort_unstable_by_key(|file| file.number);
            prop_assert_eq!(met, files);
            for portion in &portions {
                let read: u64 = portion.iter().map(|run| run.range.len()).sum();
                let files = || portion.iter().flat_map(|run| &run.files);
                let sent: u64 = files().map(|file| file.range.len()).sum();
                prop_assert!(read <= MESSAGE || portion.len() == 1);
                prop_assert!(sent <= MESSAGE || files().count() == 1);
                for run in portion {
                    let longest = run.files.iter().map(|file| file.range.len()).max();
                    prop_assert!(run.range.len() <= MESSAGE.max(longest.unwrap_or(0)));
                    for file in &run.files {
                        prop_assert_eq!(file.space, run.space);
                        prop_assert_eq!(file.range.intersection(run.range), file.range);
                    }
                }
            }
        }
    }
}
