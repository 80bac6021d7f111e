//! The real binary against a real gRPC server on a Unix socket: what arrives, what is printed, what it exits with.

// The helpers of a test may fail it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use dfs_model::TaskInfo;
use dfs_model::{CanonicalUrl, TaskKey, TaskKind, Transform, Validator};
use dfs_proto::node::node_server::{Node, NodeServer};
use dfs_proto::{common, node};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};

const CONTENT: &[u8] = b"the quick brown fox jumps over the lazy dog";
const URL: &str = "https://h/fox.txt";

type Chunks = BoxStream<'static, Result<node::ReadChunk, Status>>;

#[derive(Clone, Default)]
struct Scripted {
    refuses: Option<(Code, &'static str, &'static str)>,
    /// The file that reads by path are pointed to.
    content_path: Option<PathBuf>,
    /// How bytes were sent: by path or not, for every read.
    by_path: Arc<Mutex<Vec<bool>>>,
    /// Bytes after which a read hangs for ever.
    hangs_after: Option<usize>,
    targets: Arc<Mutex<Vec<common::Target>>>,
    /// Which command each call was of.
    commands: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Scripted {
    fn admit<T>(&self, target: Option<common::Target>, answer: T) -> Result<Response<T>, Status> {
        self.targets.lock().unwrap().extend(target);
        match self.refuses {
            Some((code, message, details)) => {
                Err(Status::with_details(code, message, details.as_bytes().to_vec().into()))
            }
            None => Ok(Response::new(answer)),
        }
    }
}

fn task() -> common::Task {
    let key = TaskKey {
        domain: "public".into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse(URL).unwrap(),
        headers: Vec::new(),
        validator: Validator { etag: Some("\"v1\"".into()), ..Validator::default() },
        transform: Transform::Identity,
    };
    (&TaskInfo::new(key, Some(CONTENT.len() as u64), true)).into()
}

fn chunk(kind: node::read_chunk::Kind) -> Result<node::ReadChunk, Status> {
    Ok(node::ReadChunk { kind: Some(kind) })
}

#[tonic::async_trait]
impl Node for Scripted {
    async fn status(
        &self,
        _: Request<node::StatusRequest>,
    ) -> Result<Response<node::StatusReply>, Status> {
        self.admit(None, node::StatusReply { version: "9.9".into(), pid: 7, ..Default::default() })
    }

    async fn open(
        &self,
        request: Request<node::OpenRequest>,
    ) -> Result<Response<node::OpenReply>, Status> {
        let artifact = common::Artifact {
            url: URL.into(),
            view: common::View::File.into(),
            index: None,
            tasks: vec![task()],
            files: 1,
            bytes: CONTENT.len() as u64,
            delta: None,
        };
        let reply = node::OpenReply { artifact: Some(artifact) };
        let request = request.into_inner();
        self.commands.lock().unwrap().push(request.command.to_vec());
        self.admit(request.target, reply)
    }

    type PreheatStream = BoxStream<'static, Result<common::Preheating, Status>>;

    async fn preheat(
        &self,
        request: Request<node::PreheatRequest>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        let said = stream::iter([Ok(common::Preheating { complete: true, ..Default::default() })]);
        self.admit(request.into_inner().target, said.boxed())
    }

    async fn images(
        &self,
        _: Request<node::ImagesRequest>,
    ) -> Result<Response<node::ImagesReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type PullStream = BoxStream<'static, Result<node::PullProgress, Status>>;

    async fn pull(
        &self,
        _: Request<node::PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type IndexImageStream = BoxStream<'static, Result<node::LayerIndexPart, Status>>;

    async fn index_image(
        &self,
        _: Request<node::IndexImageRequest>,
    ) -> Result<Response<Self::IndexImageStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn import_indexes(
        &self,
        _: Request<node::ImportIndexesRequest>,
    ) -> Result<Response<node::ImportIndexesReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type ListStream = BoxStream<'static, Result<node::ListEntry, Status>>;

    async fn list(
        &self,
        request: Request<node::ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let entry = node::ListEntry {
            path: b"fox.txt".to_vec().into(),
            kind: node::EntryKind::File.into(),
            length: CONTENT.len() as u64,
            mode: 0o644,
            mtime_seconds: 1_795_166_194,
            ..Default::default()
        };
        let request = request.into_inner();
        self.commands.lock().unwrap().push(request.command.to_vec());
        self.admit(request.target, stream::iter([Ok(entry)]).boxed())
    }

    type ReadStream = Chunks;

    async fn read(&self, request: Request<node::ReadRequest>) -> Result<Response<Chunks>, Status> {
        use node::read_chunk::Kind;
        let request = request.into_inner();
        self.commands.lock().unwrap().push(request.command.to_vec());
        let start = request.start.unwrap_or(0) as usize;
        let end = request.end.map_or(CONTENT.len(), |end| end as usize);
        let stop = self.hangs_after.map_or(end, |after| end.min(start + after));
        let data = CONTENT.slice(start, stop);
        let begin = node::ReadStart {
            length: Some(CONTENT.len() as u64),
            task: Some(task()),
            content_path: self.content_path.iter().map(|path| path.display().to_string()).collect(),
            content_offset: 5,
        };
        self.by_path.lock().unwrap().push(request.by_path);
        let bytes = match request.by_path {
            true => {
                let (start, end) = (start as u64, stop as u64);
                Kind::Present(node::ReadPresent { start, end, ..Default::default() })
            }
            false => Kind::Data(data.into()),
        };
        let ledger = node::Ledger { cache_bytes: (stop - start) as u64, ..Default::default() };
        let first = stream::iter([chunk(Kind::Start(begin)), chunk(bytes)]);
        let chunks = if self.hangs_after.is_some() {
            first.chain(stream::pending()).boxed()
        } else {
            let blake3 = Some(blake3::hash(CONTENT).as_bytes().to_vec().into());
            let last = node::ReadEnd { ledger: Some(ledger), length: CONTENT.len() as u64, blake3 };
            first.chain(stream::iter([chunk(Kind::End(last))])).boxed()
        };
        self.admit(request.target, chunks)
    }

    type ReadFilesStream = BoxStream<'static, Result<node::FilesChunk, Status>>;

    async fn read_files(
        &self,
        _: Request<node::ReadFilesRequest>,
    ) -> Result<Response<Self::ReadFilesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn mount(
        &self,
        _: Request<node::MountRequest>,
    ) -> Result<Response<node::MountInfo>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn refresh(
        &self,
        _: Request<node::RefreshRequest>,
    ) -> Result<Response<node::RefreshReply>, Status> {
        Err(Status::unimplemented("nothing is mounted here"))
    }

    async fn unmount(
        &self,
        _: Request<node::UnmountRequest>,
    ) -> Result<Response<node::UnmountReply>, Status> {
        self.admit(None, node::UnmountReply { mounts_left: 2 })
    }

    async fn hand_over(
        &self,
        _: Request<node::HandOverRequest>,
    ) -> Result<Response<node::HandOverReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn trace(
        &self,
        _: Request<node::TraceRequest>,
    ) -> Result<Response<node::TraceReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn apply_trace(
        &self,
        _: Request<node::ApplyTraceRequest>,
    ) -> Result<Response<node::TraceReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn record_trace(
        &self,
        _: Request<node::RecordTraceRequest>,
    ) -> Result<Response<node::TraceReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn mounts(
        &self,
        _: Request<node::MountsRequest>,
    ) -> Result<Response<node::MountsReply>, Status> {
        self.admit(None, node::MountsReply::default())
    }

    async fn tasks(
        &self,
        _: Request<node::TasksRequest>,
    ) -> Result<Response<node::TasksReply>, Status> {
        let info = node::TaskInfo { task: Some(task()), complete: true, ..Default::default() };
        self.admit(None, node::TasksReply { tasks: vec![info] })
    }

    async fn swarm(
        &self,
        _: Request<node::SwarmRequest>,
    ) -> Result<Response<node::SwarmReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn remove_task(
        &self,
        _: Request<node::RemoveTaskRequest>,
    ) -> Result<Response<node::RemoveTaskReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn pin_task(
        &self,
        _: Request<node::PinTaskRequest>,
    ) -> Result<Response<node::PinTaskReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn cached(
        &self,
        _: Request<node::CachedRequest>,
    ) -> Result<Response<node::CachedReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn pin(&self, _: Request<node::PinRequest>) -> Result<Response<node::PinReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn unpin(
        &self,
        _: Request<node::UnpinRequest>,
    ) -> Result<Response<node::UnpinReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn pins(
        &self,
        _: Request<node::PinsRequest>,
    ) -> Result<Response<node::PinsReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn collect_garbage(
        &self,
        _: Request<node::CollectGarbageRequest>,
    ) -> Result<Response<node::CollectGarbageReply>, Status> {
        self.admit(None, node::CollectGarbageReply::default())
    }

    type VerifyCacheStream = BoxStream<'static, Result<node::VerifyCacheEvent, Status>>;

    async fn verify_cache(
        &self,
        _: Request<node::VerifyCacheRequest>,
    ) -> Result<Response<Self::VerifyCacheStream>, Status> {
        let totals =
            node::VerifyCacheEvent { groups_checked: 3, finished: true, ..Default::default() };
        self.admit(None, stream::iter([Ok(totals)]).boxed())
    }
}

trait Slice {
    fn slice(&self, start: usize, end: usize) -> Vec<u8>;
}

impl Slice for [u8] {
    fn slice(&self, start: usize, end: usize) -> Vec<u8> {
        self[start.min(self.len())..end.min(self.len())].to_vec()
    }
}

/// An agent in this process and a place to work in.
struct Bench {
    place: tempfile::TempDir,
    socket: PathBuf,
    targets: Arc<Mutex<Vec<common::Target>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(agent: Scripted) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("agent.sock");
        let targets = agent.targets.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async { UnixListener::bind(&socket) }).unwrap();
        let tracker = tokio_util::task::TaskTracker::new();
        let server = tonic::transport::Server::builder().add_service(NodeServer::new(agent));
        tracker.spawn_on(
            async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await },
            runtime.handle(),
        );
        Self { place, socket, targets, _runtime: runtime }
    }

    fn command(&self, words: &[&str]) -> Command {
        dfctl(self.place.path(), &[words, &["--socket", self.socket.to_str().unwrap()]].concat())
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

fn dfctl(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dfctl"));
    command
        .args(words)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_file_arrives_through_the_agent_with_its_credentials_apart() {
    let bench = Bench::new(Scripted::default());
    let url = "https://ada:secret@h/fox.txt";
    let ran = bench.run(&["get", url, "-H", "Accept: text/plain", "--explain"]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert_eq!(std::fs::read(bench.place.path().join("fox.txt")).unwrap(), CONTENT);
    let out = text(&ran.stdout);
    assert!(
        out.starts_with("saved fox.txt  43 B in ") && out.contains("✓ equals the result"),
        "{out}"
    );
    assert!(!format!("{out}{}", text(&ran.stderr)).contains("secret"));
    for target in bench.targets.lock().unwrap().iter() {
        assert_eq!(target.url, URL);
        assert_eq!(target.headers[0].name, "accept");
        assert!(target.credentials.is_some());
    }
}

#[test]
fn all_calls_of_a_command_say_so_and_another_command_is_another() {
    let agent = Scripted::default();
    let commands = agent.commands.clone();
    let bench = Bench::new(agent);
    let out = bench.place.path().join("tree");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let ran = bench.run(&["get", "-r", URL, "--force", "-o", out.to_str().unwrap()]);
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        let mut named = std::mem::take(&mut *commands.lock().unwrap());
        assert!(named.len() >= 3, "it was opened, listed and read");
        named.dedup();
        assert!(named.len() == 1 && named[0].len() == 16, "{named:?}");
        seen.extend(named);
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn bytes_are_copied_out_of_the_cache_where_it_may_be_read_and_sent_where_not() {
    let cache = tempfile::tempdir().unwrap();
    let content = cache.path().join("content");
    std::fs::write(&content, [b"12345", CONTENT].concat()).unwrap();
    for (path, expected) in [(content, &[true][..]), ("/nonexistent".into(), &[true, false])] {
        let agent = Scripted { content_path: Some(path), ..Scripted::default() };
        let by_path = agent.by_path.clone();
        let bench = Bench::new(agent);
        let ran = bench.run(&["get", URL, "--range", "4-18"]);
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        let saved = std::fs::read(bench.place.path().join("fox.txt")).unwrap();
        assert_eq!(saved, &CONTENT[4..19]);
        assert_eq!(*by_path.lock().unwrap(), expected);
    }
}

#[test]
fn what_the_agent_refuses_becomes_a_code_a_cause_and_an_exit() {
    for (code, details, exit, number) in [
        (Code::NotFound, "", 3, "DFS-2101"),
        (Code::PermissionDenied, "", 4, "DFS-2103"),
        (Code::Unavailable, r#"{"because":["connection refused"]}"#, 5, "DFS-2104"),
        (Code::Aborted, r#"{"class":"origin-changed"}"#, 5, "DFS-2106"),
        (Code::DataLoss, "", 6, "DFS-3102"),
        (Code::ResourceExhausted, r#"{"class":"no-space"}"#, 7, "DFS-4114"),
        (Code::Internal, "garbage", 1, "DFS-1000"),
    ] {
        let refuses = Some((code, "the reason", details));
        let bench = Bench::new(Scripted { refuses, ..Scripted::default() });
        let ran = bench.run(&["cat", URL]);
        let err = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(exit), "{code:?}: {err}");
        assert!(err.contains(number) && err.contains("the reason"), "{err}");
        assert_eq!(
            details.contains("refused"),
            err.contains("because  connection refused"),
            "{err}"
        );
        let json = bench.run(&["cat", URL, "--format", "json"]);
        let document: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
        assert_eq!(document["error"]["code"], number);
    }
}

#[test]
fn ctrl_c_names_the_part_file_and_the_next_run_goes_on() {
    let bench = Bench::new(Scripted { hangs_after: Some(10), ..Scripted::default() });
    let part = bench.place.path().join("fox.txt.dfs-part");
    let mut command = bench.command(&["get", URL]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !std::fs::read(&part).is_ok_and(|bytes| bytes.starts_with(&CONTENT[..10])) {
        assert!(std::time::Instant::now() < deadline, "no byte arrived");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = child.wait_with_output().unwrap();
    let err = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(130), "{err}");
    assert!(err.contains("10 B of 43 B are in fox.txt.dfs-part"), "{err}");
    assert!(!bench.place.path().join("fox.txt").exists());

    let whole = Bench::new(Scripted::default());
    let socket = whole.socket.to_str().unwrap().to_owned();
    let ran = dfctl(bench.place.path(), &["get", URL, "--socket", &socket]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).contains("10 B were here already"), "{}", text(&ran.stdout));
    assert_eq!(std::fs::read(bench.place.path().join("fox.txt")).unwrap(), CONTENT);
    assert!(!part.exists());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let bench = Bench::new(Scripted::default());
    let mut child =
        bench.command(&["cat", URL]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = child.wait_with_output().unwrap();
    assert_eq!((ran.status.code(), text(&ran.stderr).as_str()), (Some(0), ""));
}

#[test]
fn without_the_agent_that_was_named_the_way_out_is_named() {
    let place = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let socket = place.path().join("none.sock");
        let words = [words, &["--socket", socket.to_str().unwrap()]].concat();
        dfctl(place.path(), &words).output().unwrap()
    };
    let ran = run(&["task", "ls"]);
    assert_eq!(ran.status.code(), Some(5));
    let err = text(&ran.stderr);
    assert!(err.contains("DFS-4101") && err.contains("try      dfs-fuse --data-dir"), "{err}");
    let ran = run(&["cat", "https://h/f"]);
    assert_eq!(ran.status.code(), Some(5));
    let err = text(&ran.stderr);
    assert!(err.contains("DFS-4101") && err.contains("--solo"), "{err}");
    let socket = place.path().join("none.sock");
    let ran = dfctl(place.path(), &["mounts"]).env("DFS_SOCKET", socket).output().unwrap();
    assert_eq!(ran.status.code(), Some(5), "a variable names it as well as a flag");
    assert_eq!(
        text(&run(&["version"]).stdout),
        format!("dfctl  {}\nagent  none answers\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["cluster", "down", "--data-dir", "x"]).status.code(), Some(9));
    assert_eq!(run(&["cluster", "status", "--data-dir", "x"]).status.code(), Some(3));
    let failed = run(&["mount", "https://h/d/", "/nonexistent"]);
    assert_eq!(failed.status.code(), Some(2));
}

#[test]
fn an_agent_of_another_version_is_told_and_is_no_failure() {
    let bench = Bench::new(Scripted::default());
    let ran = bench.run(&["doctor", "--format", "jsonl"]);
    let agent = text(&ran.stdout);
    let agent = agent.lines().find(|line| line.contains("\"check\":\"agent\"")).unwrap();
    assert!(agent.contains("\"warn\"") && agent.contains("DFS-6109"), "{agent}");
    assert!(agent.contains("node agent 9.9, pid 7"), "{agent}");
}

#[test]
fn mistakes_of_usage_exit_2_and_configuration_names_its_key() {
    let bench = Bench::new(Scripted::default());
    for words in [
        &["frobnicate"][..],
        &["get"],
        &["get", URL, "--limit", "10M"],
        &["get", URL, "--range", "9-3"],
        &["get", URL, "--digest", "md5:00"],
        &["get", URL, "--priority", "7"],
        &["get", URL, "--format", "xml"],
        &["get", URL, "--include", "*"],
    ] {
        let ran = bench.run(words);
        assert_eq!(ran.status.code(), Some(2), "{words:?}");
        assert!(text(&ran.stderr).contains("DFS-1001"), "{words:?}: {}", text(&ran.stderr));
    }
    let config = bench.place.path().join(".config/dfs");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("dfctl.toml"), "colour = \"never\"\n").unwrap();
    let ran = bench.run(&["version"]);
    assert_eq!(ran.status.code(), Some(2));
    let err = text(&ran.stderr);
    assert!(
        err.contains("DFS-1003") && err.contains("colour") && err.contains("dfctl.toml"),
        "{err}"
    );
    assert!(err.contains("dfctl.toml:1: ") && err.contains("the key is probably color"), "{err}");
    let ran = bench.run(&["explain", "DFS-1003"]);
    assert_eq!(ran.status.code(), Some(0), "what explains must not need what is wrong");
    assert!(text(&ran.stdout).starts_with("DFS-1003  "), "{}", text(&ran.stdout));
    let told = |written: &str, place: &str| {
        std::fs::write(config.join("dfctl.toml"), written).unwrap();
        let err = text(&bench.run(&["config", "get"]).stderr);
        assert!(err.contains("DFS-1003") && err.contains(place), "{err}");
        assert!(err.contains("try      dfctl explain DFS-1003"), "no better way out: {err}");
    };
    told("solo = false\n\ncolor = = 3\n", "dfctl.toml:3: ");
    told("solo = false\ncolor = \"pink\"\n", "dfctl.toml:2: `color`");
    let ran = bench.run(&["config", "set", "color", "never"]);
    assert_eq!(ran.status.code(), Some(0), "what is wrong is put right: {}", text(&ran.stderr));
    assert_eq!(text(&bench.run(&["config", "get", "color"]).stdout), "never\n");
    let ran = bench.run(&["config", "explain", "color", "--color", "always"]);
    assert!(text(&ran.stdout).contains("from       command line\n"), "{}", text(&ran.stdout));
    std::fs::write(config.join("dfctl.toml"), "format = \"json\"\n").unwrap();
    assert!(text(&bench.run(&["version"]).stdout).starts_with('{'));
    assert!(text(&bench.run(&["version", "--format", "human"]).stdout).starts_with("dfctl"));
}

/// A copy of dfctl ($2) in a directory ($1) beside programs that end at once.
const MAKE_PROGRAMS: &str = r#"
mkdir "$1"
cp "$2" "$1/dfctl"
printf '#!/bin/sh\necho "no /dev/fuse here" >&2\nexit 3\n' > "$1/dfs-fuse"
printf '#!/bin/sh\necho "port taken" >&2\nexit 4\n' > "$1/dfs-cluster"
chmod +x "$1/dfs-fuse" "$1/dfs-cluster"
"#;

#[test]
fn a_process_that_cannot_start_shows_the_end_of_its_log() {
    let place = tempfile::tempdir().unwrap();
    let bin = place.path().join("bin");
    // Written by a process of its own: a descriptor open for writing here could be inherited by a
    // child of another test, and make the program "busy".
    let made = Command::new("sh")
        .args(["-ec", MAKE_PROGRAMS, "sh", bin.to_str().unwrap(), env!("CARGO_BIN_EXE_dfctl")])
        .status()
        .unwrap();
    assert!(made.success());
    let own = bin.join("dfctl");
    let mnt = place.path().join("mnt");
    std::fs::create_dir(&mnt).unwrap();
    let run = |words: &[&str]| {
        let socket = place.path().join("run/agent.sock");
        let data = place.path().join("data");
        Command::new(&own)
            .args(words)
            .args(["--socket", socket.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
            .env("HOME", place.path())
            .output()
            .unwrap()
    };
    for (words, reason, exit, code) in [
        (&["mount", "https://h/d/", mnt.to_str().unwrap()][..], "no /dev/fuse here", 1, "DFS-4105"),
        (&["cluster", "up"], "port taken", 4, "DFS-4115"),
    ] {
        let ran = run(words);
        let err = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(exit), "{err}");
        assert!(err.contains(code) && err.contains(&format!("because  {reason}")), "{err}");
        assert!(err.contains("try      less "), "{err}");
    }
}
