//! What is known of what readers touch first, told and changed.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use dfs_model::GroupRange;
use dfs_peer::opener::OpenArtifact;
use dfs_proto::node::{TraceReply, TracedFile};

use crate::agent::mounts::{shown, tree_of, whole_tree};
use crate::agent::status::CallError;
use crate::agent::traces::subject;
use crate::agent::{Agent, MountTableError};
use crate::trace::{Place, Profile, Recorder, Subject};
use crate::tree::{Extent, Kind, Tree, TreeError};

/// Most files that are named, and bytes of their names.
const MOST_FILES: usize = 10_000;
const MOST_NAMES: usize = 4 << 20;

/// Something that is or could be mounted.
pub struct Traced {
    /// Where it is mounted, if that was named.
    pub dir: Option<PathBuf>,
    /// The artifact.
    pub opened: OpenArtifact,
    /// What of its tree.
    pub path: Vec<u8>,
}

impl Traced {
    fn subject(&self) -> Result<Subject, CallError> {
        Ok(subject(&self.opened, &self.path).ok_or(MountTableError::NoTree)?)
    }

    /// Puts the profile of a file in place of what is known. Blocks.
    pub fn apply(&self, agent: &Agent, file: &[u8]) -> Result<(), CallError> {
        let (about, profile) = Profile::decode(file)?;
        let subject = self.subject()?;
        if about != subject {
            return Err(CallError::OtherProfile);
        }
        let replaced = agent.mounts().traces().replace(subject, profile);
        replaced.map_err(CallError::ProfileNotKept)
    }

    /// Ends the run. Blocks.
    pub fn end_run(&self, agent: &Agent) -> Result<(), CallError> {
        let ended = agent.mounts().traces().end_run(self.subject()?);
        ended.unwrap_or(Ok(())).map_err(CallError::ProfileNotKept)
    }

    /// What is known of it, the first `most` files by name. Blocks.
    pub fn tell(&self, agent: &Agent, most: usize) -> Result<TraceReply, CallError> {
        let (subject, traces) = (self.subject()?, agent.mounts().traces());
        let (tree, _) = tree_of(whole_tree(&self.opened)?, &self.path)?;
        let profile = traces.profile(subject);
        let within = Recorder::new(self.opened.tasks.iter().map(|task| task.length()));
        let files = files(&*tree, &profile, most.min(MOST_FILES)).map_err(MountTableError::from)?;
        let since = traces.written(subject).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let dir = self.dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
        Ok(TraceReply {
            url: shown(&self.opened.target.url, &self.path),
            dir: dir.unwrap_or_default(),
            profile: profile.encode(subject).into(),
            runs: profile.runs(),
            bytes: profile.places().map(|place| within.bytes(place)).sum(),
            written_unix_ms: since.map_or(0, |since| since.as_millis() as u64),
            files: files.count,
            first: files.first.into_values().collect(),
        })
    }
}

/// The files of which something is in a profile.
#[derive(Default)]
struct Files {
    count: u64,
    /// By their turn in the profile, then as they lie in the tree.
    first: BTreeMap<(usize, u64), TracedFile>,
    names: usize,
}

/// The ranges of a profile by where they lie.
struct Ranges<'a> {
    profile: &'a Profile,
    /// With their turn, of each space in order.
    spaces: HashMap<u16, Vec<(GroupRange, usize)>>,
}

impl<'a> Ranges<'a> {
    fn of(profile: &'a Profile) -> Self {
        let mut spaces: HashMap<u16, Vec<(GroupRange, usize)>> = HashMap::new();
        for (turn, Place { space, groups }) in profile.places().enumerate() {
            spaces.entry(space).or_default().push((groups, turn));
        }
        spaces.values_mut().for_each(|ranges| ranges.sort_unstable_by_key(|(at, _)| at.first));
        Self { profile, spaces }
    }

    /// What of a file it has, and the turn of the first of it.
    fn of_file(&self, tree: &dyn Tree, nid: u64) -> Result<Option<(usize, TracedFile)>, TreeError> {
        let (mut file, mut first) = (TracedFile::default(), None);
        while let Some(extent) = tree.extent(nid, file.length)? {
            file.length += extent.length();
            let Extent::Data { space, offset, length } = extent else { continue };
            let bytes = dfs_model::ByteRange::at(offset, length);
            let Some(ranges) = self.spaces.get(&space) else { continue };
            let begin = ranges.partition_point(|(at, _)| at.end() <= bytes.groups().first);
            let over = ranges[begin..].iter();
            for (at, turn) in over.take_while(|(at, _)| at.first < bytes.groups().end()) {
                file.bytes += at.bytes(u64::MAX).intersection(bytes).len();
                first = Some(first.map_or(*turn, |first: usize| first.min(*turn)));
            }
        }
        Ok(first.map(|turn| {
            let (touched, runs) = self.profile.touched()[turn].share(self.profile.runs());
            (turn, TracedFile { touched, runs, ..file })
        }))
    }
}

fn files(tree: &dyn Tree, profile: &Profile, most: usize) -> Result<Files, TreeError> {
    let (mut files, ranges) = (Files::default(), Ranges::of(profile));
    if profile.is_empty() {
        return Ok(files);
    }
    let mut open = vec![(tree.root(), Vec::new())];
    let mut met = std::collections::HashSet::from([tree.root()]);
    while let Some((dir, path)) = open.pop() {
        let mut found = Vec::new();
        tree.read_dir(dir, 0, &mut |entry| {
            if !matches!(entry.name, b"." | b"..") {
                found.push((entry.nid, entry.kind, [&path, entry.name].concat()));
            }
            ControlFlow::Continue(())
        })?;
        for (nid, kind, path) in found {
            match kind {
                Kind::Directory if met.insert(nid) => open.push((nid, [&path[..], b"/"].concat())),
                Kind::File => {
                    if let Some((turn, file)) = ranges.of_file(tree, nid)? {
                        files.add(turn, TracedFile { path: path.into(), ..file }, most);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(files)
}

impl Files {
    fn add(&mut self, turn: usize, file: TracedFile, most: usize) {
        self.count += 1;
        self.names += file.path.len();
        self.first.insert((turn, self.count), file);
        while self.first.len() > most || self.names > MOST_NAMES {
            let Some((_, file)) = self.first.pop_last() else { return };
            self.names -= file.path.len();
        }
    }
}
