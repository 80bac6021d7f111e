//! A backend for tests of what a person sees: answers are set beforehand.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use dfs_model::{ByteRange, CanonicalUrl, TaskKey, TaskKind, Transform, Validator};
use futures::stream::{self, StreamExt};
use tokio::sync::Barrier;

use super::*;

/// How a read goes wrong, after how many bytes.
#[derive(Debug, Clone)]
pub struct Break {
    pub after: u64,
    pub with: Failure,
}

/// Everything it knows.
#[derive(Default)]
pub struct Fake {
    /// Contents by what is asked for: the URL, or `URL!path`.
    pub contents: BTreeMap<String, Vec<u8>>,
    pub entries: Vec<Entry>,
    pub missing: Vec<Missing>,
    pub mounts: Vec<MountInfo>,
    /// What is known of what readers touch first.
    pub profile: Profile,
    pub tasks: Vec<CachedTask>,
    pub verified: Vec<Verified>,
    /// What of something is here.
    pub cached: Option<CachedTree>,
    pub pins: Vec<PinnedTree>,
    pub images: Vec<ImageHere>,
    pub seen: swarm::Seen,
    pub failure: Option<Failure>,
    pub cluster: Option<String>,
    pub breaks: Mutex<Option<Break>>,
    /// Writes into the output file itself, last chunk first.
    pub writes_itself: bool,
    /// What was done to tasks, in order.
    pub done: Mutex<Vec<String>>,
    /// Every read: first byte asked for.
    pub reads: Mutex<Vec<u64>>,
    /// Every read of several files: how many.
    pub together: Mutex<Vec<usize>>,
    /// No read goes on before so many have begun.
    pub meets: Option<Arc<Barrier>>,
    /// How a read of several files ends.
    pub breaks_together: Option<Failure>,
    /// Gives half of several files, none of them as long as it should be.
    pub loses_together: bool,
}

pub fn task(url: &str, length: u64) -> TaskInfo {
    let key = TaskKey {
        domain: "public".into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse(url).unwrap(),
        headers: Vec::new(),
        validator: Validator { etag: Some("\"v1\"".into()), ..Validator::default() },
        transform: Transform::Identity,
    };
    TaskInfo::new(key, Some(length), true)
}

pub fn entry(path: &str, kind: EntryKind, length: u64) -> Entry {
    Entry {
        path: path.into(),
        kind,
        length,
        mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
        mtime: (1_795_166_194, 0),
        uid: 0,
        gid: 0,
        link_target: if kind == EntryKind::Symlink { b"/etc/passwd".to_vec() } else { Vec::new() },
    }
}

fn told(named: &Named) -> String {
    match named {
        Named::Within { dir, path } => format!("{dir} {}", String::from_utf8_lossy(path)),
        Named::Target { target, path, .. } => {
            format!("{} {}", target.url, String::from_utf8_lossy(path))
        }
    }
}

impl Fake {
    pub fn holding(key: &str, content: &[u8]) -> Self {
        let contents = BTreeMap::from([(key.to_owned(), content.to_vec())]);
        Self { contents, ..Self::default() }
    }

    fn failing<T>(&self) -> Result<(), Result<T, Failure>> {
        self.failure.clone().map_or(Ok(()), |failure| Err(Err(failure)))
    }

    fn events(
        &self,
        request: &ReadRequest,
        delivery: &Delivery,
    ) -> Vec<Result<ReadEvent, Failure>> {
        let url = request.target.url.as_str();
        let key = match &request.path {
            Some(path) => format!("{url}!{}", String::from_utf8_lossy(path)),
            None => url.to_owned(),
        };
        self.reads.lock().unwrap().push(request.start);
        let Some(content) = self.contents.get(&key) else {
            return vec![Err(Failure::new(FailureClass::NotFound, "the origin answered 404"))];
        };
        let length = content.len() as u64;
        let end = request.end.unwrap_or(length).min(length);
        let info = task(url, length);
        let mut events = vec![Ok(ReadEvent::Start {
            length: Some(length),
            task: request.path.is_none().then_some(info.id),
            offer: None,
        })];
        let broken = self.breaks.lock().unwrap().take();
        let stop = broken.as_ref().map_or(end, |broken| end.min(request.start + broken.after));
        let wanted = &content[request.start as usize..stop as usize];
        match delivery {
            Delivery::File { file, origin } if self.writes_itself => {
                for (number, chunk) in wanted.chunks(3).enumerate() {
                    let range =
                        ByteRange::at(request.start + number as u64 * 3, chunk.len() as u64);
                    file.write_all_at(chunk, range.start - origin).unwrap();
                    events.push(Ok(ReadEvent::Written { range, digests: Vec::new() }));
                }
            }
            _ => events
                .extend(wanted.chunks(3).map(|chunk| Ok(ReadEvent::Data(chunk.to_vec().into())))),
        }
        let ledger =
            Ledger { source: wanted.len() as u64, source_requests: 1, ..Ledger::default() };
        match broken {
            Some(broken) => events.push(Err(broken.with)),
            None => {
                let blake3 = Some(*blake3::hash(content).as_bytes());
                events.push(Ok(ReadEvent::End { ledger, length, blake3 }));
            }
        }
        events
    }
}

#[async_trait]
impl Backend for Fake {
    async fn open(&self, target: &Target, view: View, _: Purpose) -> Result<Artifact, Failure> {
        if let Err(failure) = self.failing() {
            return failure;
        }
        let url = target.url.as_str();
        let length = self.contents.get(url).map(|content| content.len() as u64);
        let tree = view == View::Tree || (view == View::Auto && !self.entries.is_empty());
        if !tree && length.is_none() {
            return Err(Failure::new(FailureClass::NotFound, "the origin answered 404"));
        }
        let bytes = length.unwrap_or_else(|| self.entries.iter().map(|entry| entry.length).sum());
        Ok(Artifact {
            url: url.to_owned(),
            view: if tree { View::Tree } else { View::File },
            index: tree.then(|| task(&format!("{url}#index"), 4096)),
            tasks: vec![task(url, bytes)],
            files: self.entries.iter().filter(|entry| entry.kind == EntryKind::File).count() as u64,
            bytes,
        })
    }

    fn list(
        &self,
        _: &Target,
        path: &[u8],
        recursive: bool,
    ) -> BoxStream<'static, Result<Listed, Failure>> {
        if let Some(failure) = self.failure.clone() {
            return stream::iter([Err(failure)]).boxed();
        }
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let below = self.entries.iter().filter(|entry| {
            entry
                .path
                .strip_prefix(&prefix[..])
                .is_some_and(|rest| recursive || !rest.contains(&b'/'))
        });
        let entries = below.cloned().map(Listed::Entry);
        let missing = self.missing.iter().cloned().map(Listed::Missing);
        stream::iter(entries.chain(missing).map(Ok).collect::<Vec<_>>()).boxed()
    }

    fn read(&self, request: ReadRequest, delivery: Delivery) -> ReadStream {
        let (events, meets) = (self.events(&request, &delivery), self.meets.clone());
        let met = async move {
            if let Some(meets) = meets {
                meets.wait().await;
            }
            stream::iter(events)
        };
        stream::once(met).flatten().boxed()
    }

    fn read_files(&self, request: FilesRequest) -> FilesStream {
        let url = request.target.url.as_str();
        let content = |(number, path): (usize, &Vec<u8>)| {
            let key = format!("{url}!{}", String::from_utf8_lossy(path));
            (number, self.contents.get(&key).map(|content| content.clone().into()))
        };
        let mut files: Vec<_> = request.paths.iter().enumerate().map(content).collect();
        self.together.lock().unwrap().push(files.len());
        let bytes =
            files.iter().flat_map(|(_, content)| content).map(|content: &Bytes| content.len());
        let ledger = Ledger { source: bytes.sum::<usize>() as u64, ..Ledger::default() };
        if self.loses_together {
            files.truncate(files.len() / 2);
            files.iter_mut().for_each(|(_, content)| *content = Some(Bytes::from_static(b"?")));
        }
        let broken = self.breaks_together.clone().map(Err);
        let last = broken.unwrap_or(Ok(FilesEvent::End { ledger }));
        stream::iter([Ok(FilesEvent::Files(files)), last]).boxed()
    }

    fn preheat(
        &self,
        _target: &Target,
        _view: View,
    ) -> BoxStream<'static, Result<Preheating, Failure>> {
        let failed = self.failure.clone().map(Err);
        let said = |held, complete| {
            let seed = (held == 0).then(|| "seed-1".to_owned());
            Ok(Preheating { seed, held, total: 100, complete })
        };
        stream::iter(failed.map_or_else(|| vec![said(0, false), said(100, true)], |one| vec![one]))
            .boxed()
    }

    async fn mount(&self, request: MountRequest) -> Result<MountInfo, Failure> {
        if let Err(failure) = self.failing() {
            return failure;
        }
        let mut mount = self.mounts[0].clone();
        mount.dir = request.dir.display().to_string();
        Ok(mount)
    }

    async fn unmount(&self, _dir: &str, _lazy: bool) -> Result<u32, Failure> {
        self.failing().map(|()| 0).or_else(|failure| failure)
    }

    async fn hand_over(&self) -> Result<u32, Failure> {
        Err(Failure::new(FailureClass::NotHandedOver, "it has no holder"))
    }

    async fn refresh(&self, _: &str) -> Result<(bool, MountInfo), Failure> {
        let none = || Failure::new(FailureClass::NotFollowing, "it follows nothing");
        if let Err(failure) = self.failing() {
            return failure;
        }
        self.mounts.first().cloned().map(|mount| (true, mount)).ok_or_else(none)
    }

    async fn mounts(&self) -> Result<Vec<MountInfo>, Failure> {
        self.failing().map(|()| self.mounts.clone()).or_else(|failure| failure)
    }

    async fn trace(&self, _: &Traced, _: u32) -> Result<Profile, Failure> {
        self.failing().map(|()| self.profile.clone()).or_else(|failure| failure)
    }

    async fn apply_trace(&self, _: &Traced, file: Vec<u8>) -> Result<Profile, Failure> {
        self.done.lock().unwrap().push(format!("apply {} bytes", file.len()));
        self.failing().map(|()| self.profile.clone()).or_else(|failure| failure)
    }

    async fn record_trace(&self, dir: &str) -> Result<Profile, Failure> {
        self.done.lock().unwrap().push(format!("record {dir}"));
        self.failing().map(|()| self.profile.clone()).or_else(|failure| failure)
    }

    async fn tasks(&self, id_prefix: &str) -> Result<Vec<CachedTask>, Failure> {
        let found =
            self.tasks.iter().filter(|task| task.task.id.to_string().starts_with(id_prefix));
        Ok(found.cloned().collect())
    }

    async fn swarm(&self, _: &swarm::Look) -> Result<swarm::Seen, Failure> {
        self.failing().map(|()| self.seen.clone()).or_else(|failure| failure)
    }

    async fn remove_task(&self, task: TaskId, pins: Pins) -> Result<u64, Failure> {
        self.done.lock().unwrap().push(format!("remove {} {pins:?}", task.short()));
        let found = self.tasks.iter().find(|known| known.task.id == task);
        self.failing().map(|()| found.map_or(0, |found| found.disk)).or_else(|failure| failure)
    }

    async fn pin_task(&self, task: TaskId, pin: Pin) -> Result<bool, Failure> {
        self.done.lock().unwrap().push(format!("{pin:?} {}", task.short()));
        let found = self.tasks.iter().find(|known| known.task.id == task);
        Ok(found.is_some_and(|found| found.pinned != (pin == Pin::Set)))
    }

    async fn images(&self) -> Result<Vec<ImageHere>, Failure> {
        self.failing().map_or_else(|failed| failed, |()| Ok(self.images.clone()))
    }

    fn pull(&self, _target: &Target) -> BoxStream<'static, Result<Pulling, Failure>> {
        let said = |cached| {
            let ledger = Ledger { source: cached, ..Ledger::default() };
            Ok(Pulling { bytes: 100, cached, ledger, complete: cached == 100 })
        };
        let failed = self.failure.clone().map(Err);
        stream::iter(failed.map_or_else(|| vec![said(0), said(100)], |one| vec![one])).boxed()
    }

    async fn index_image(&self, _target: &Target) -> Result<LayerIndexes, Failure> {
        Err(Failure::new(FailureClass::Unsupported, "an agent in a cluster keeps no indexes"))
    }

    async fn import_indexes(&self, _target: &Target, _from: &Target) -> Result<Imported, Failure> {
        Ok(Imported { layers: 3, taken: 2, known: 1 })
    }

    async fn collect_garbage(&self, _: Option<u64>, _: bool) -> Result<Collected, Failure> {
        let tasks = self.tasks.iter().filter(|task| !task.in_use && !task.pinned);
        Ok(Collected {
            freed: tasks.clone().map(|task| task.disk).sum(),
            tasks: tasks.map(|task| task.task.id).collect(),
            used: self.tasks.iter().filter(|task| task.in_use).map(|task| task.disk).sum(),
        })
    }

    async fn cached(&self, named: &Named, _: u32) -> Result<CachedTree, Failure> {
        self.done.lock().unwrap().push(format!("cached {}", told(named)));
        let none = || Failure::new(FailureClass::NotMounted, "it is not mounted by this agent");
        self.cached.clone().ok_or_else(none)
    }

    async fn pin_tree(&self, named: &Named) -> Result<(PinnedTree, bool), Failure> {
        self.done.lock().unwrap().push(format!("pin {}", told(named)));
        let pinned = || Ok((self.pins[0].clone(), true));
        self.failing().map_or_else(|failure| failure, |()| pinned())
    }

    async fn unpin_tree(&self, named: &Named) -> Result<Unpinned, Failure> {
        self.done.lock().unwrap().push(format!("unpin {}", told(named)));
        Ok(Unpinned { pins: self.pins.clone(), within: None })
    }

    async fn pins(&self) -> Result<Vec<PinnedTree>, Failure> {
        Ok(self.pins.clone())
    }

    fn verify_cache(
        &self,
        _: &[TaskId],
        _: Repair,
    ) -> BoxStream<'static, Result<Verified, Failure>> {
        stream::iter(self.verified.clone().into_iter().map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn status(&self) -> Result<AgentStatus, Failure> {
        Ok(AgentStatus {
            version: "0.1.0".into(),
            pid: 42,
            instance: 1,
            host_id: None,
            data_dir: "/var/lib/dfs".into(),
            used: 1 << 30,
            capacity: 50 << 30,
            medium: "disk".into(),
            cache_dir: "/var/lib/dfs".into(),
            cluster: self.cluster.clone(),
            cluster_connected: false,
        })
    }
}
