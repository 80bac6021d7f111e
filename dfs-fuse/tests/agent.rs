//! The agent over a real origin: how often it asks, and on whose behalf.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dfs_artifact::View;
use dfs_fuse::agent::api::NodeService;
use dfs_fuse::agent::{
    Agent, AgentFacts, Asker, CommandId, Mode, MountRequest, MountTableError, Question,
};
use dfs_fuse::content::MemoryContent;
use dfs_fuse::core::Owner;
use dfs_fuse::lane::Wanted;
use dfs_fuse::mount::{
    self, Audience, Blobs, Detach, MountEntry, MountOptions, Privileges, Programs, UnmountError,
};
use dfs_model::{ByteRange, Location, Priority};
use dfs_peer::engine::{Lifetime, Role, Task};
use dfs_peer::host::{Host, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_peer::opener::{OpenArtifact, Purpose};
use dfs_peer::store::Verify;
use dfs_peer::targets;
use dfs_proto::node::node_server::Node;
use dfs_proto::node::{MountedAt, Named, PinRequest, PinState, PinsRequest, VerifyCacheRequest};
use dfs_service::net::{GrpcChannels, TcpLinkDialer};
use dfs_source::{FileOptions, HttpOptions, Sources, Target};
use dfs_tests::origin::Injected;
use dfs_tests::{Body, Fault, Origin};
use futures::{StreamExt, poll};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request};

struct Bench {
    agent: Agent,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dfs_service::data_dir::private_dir(&dir.path().join("agent")).unwrap();
        let options = HostOptions {
            role: Role::Solo,
            data_dir: data_dir.clone(),
            name: "test".to_owned(),
            location: Location::default(),
            medium: dfs_peer::store::Medium::Disk,
            capacity: None,
            upload_rate: None,
            slots: SlotLimits::default(),
            patience: Duration::from_secs(3),
            managers: Vec::new(),
            sources: Sources::builder().http(HttpOptions::default()).file(FileOptions::default()),
            lifetime: Lifetime::OfTheProcess,
            compression: dfs_peer::wire::Compression::Auto,
            index_trust: Default::default(),
            lent: dfs_peer::store::Lent::default(),
        };
        let network = Network {
            dialer: Arc::new(TcpLinkDialer::default()),
            acceptor: None,
            channels: Arc::new(GrpcChannels::default()),
            advertise: Vec::new(),
            leads_at: Vec::new(),
        };
        let stop = CancellationToken::new();
        let host = Host::start(options, network, &TaskTracker::new(), &stop).unwrap();
        let facts = AgentFacts { data_dir, cluster: String::new(), capacity: None, socket: None };
        Self { agent: Agent::new(host, facts, None), stop, _dir: dir }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn origin() -> Origin {
    Origin::of("/d/f", Body::noise(1, 1_000)).unwrap()
}

fn tree(url: &str) -> Question {
    Question {
        target: Target::parse(url).unwrap(),
        view: View::Tree,
        command: None,
        purpose: Purpose::Look,
    }
}

fn as_user(origin: &Origin, user: &str) -> Question {
    tree(&origin.url("/d/").replace("http://", &format!("http://{user}@")))
}

async fn has_struck(fault: &Injected) {
    let fault = fault.clone();
    tokio::task::spawn_blocking(move || fault.wait_struck(1).unwrap()).await.unwrap();
}

/// Requests that it takes to open the tree, without company.
async fn once(question: impl Fn(&Origin) -> Question) -> u64 {
    let (bench, origin) = (Bench::new(), origin());
    bench.agent.open(&question(&origin)).await.unwrap();
    origin.counters().requests
}

#[tokio::test]
async fn those_who_ask_the_same_at_the_same_time_cost_the_origin_one_question() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let ask = || bench.agent.open(&question);
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()) && c.is_ok());
    let needed = once(|origin| tree(&origin.url("/d/"))).await;
    assert!(needed > 0);
    assert_eq!(origin.counters().requests, needed);
    ask().await.unwrap();
    assert_eq!(origin.counters().requests, needed, "an answer of a moment ago is used again");
    bench.agent.forget(&question.target);
    ask().await.unwrap();
    assert_eq!(origin.counters().requests, 2 * needed, "what is gone is asked for anew");
}

#[tokio::test]
async fn a_question_goes_on_when_its_first_asker_leaves() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let gate = origin.inject(Fault::gate());
    let mut first = Box::pin(bench.agent.open(&question));
    let mut second = Box::pin(bench.agent.open(&question));
    tokio::select! {
        biased;
        _ = &mut first => panic!("it is held back"),
        _ = &mut second => panic!("it is held back"),
        () = has_struck(&gate) => {}
    }
    drop(first);
    gate.lift();
    second.await.unwrap();
    assert_eq!(origin.counters().requests, once(|origin| tree(&origin.url("/d/"))).await);
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_waited_and_to_nobody_later() {
    let (bench, origin) = (Bench::new(), Origin::start().unwrap());
    let question = tree(&origin.url("/d/"));
    let (a, b) = tokio::join!(bench.agent.open(&question), bench.agent.open(&question));
    assert!(a.is_err() && b.is_err());
    origin.put("/d/f", Body::noise(1, 1_000));
    bench.agent.open(&question).await.unwrap();
}

#[tokio::test]
async fn each_asker_is_proved_by_the_origin_also_among_many_at_once() {
    let (bench, origin) = (Bench::new(), origin());
    // "ada:secret".
    let door = origin.inject(Fault::require_authorization("Basic YWRhOnNlY3JldA=="));
    let (ada, bob) = (as_user(&origin, "ada:secret"), as_user(&origin, "bob:guess"));
    let nobody = tree(&origin.url("/d/"));
    let ask = |question| bench.agent.open(question);
    let (a, b, n) = tokio::join!(ask(&ada), ask(&bob), ask(&nobody));
    assert!(a.is_ok() && b.is_err() && n.is_err());
    assert!(door.struck() >= 2);
    // What is known and here by now opens no door either.
    assert!(ask(&bob).await.is_err() && ask(&nobody).await.is_err());
    assert!(ask(&ada).await.is_ok());
}

#[tokio::test]
async fn a_command_does_not_wait_for_what_others_ask_anew() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let began = Question { command: CommandId::from_slice(&[1; 16]), ..question.clone() };
    let first = bench.agent.open(&began).await.unwrap();
    bench.agent.forget(&question.target);
    let gate = origin.inject(Fault::gate());
    let mut other = Box::pin(bench.agent.open(&question));
    tokio::select! {
        biased;
        _ = &mut other => panic!("it is held back"),
        () = has_struck(&gate) => {}
    }
    let again = bench.agent.open(&began).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "it goes on with its own");
    gate.lift();
    let other = other.await.unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    let still = bench.agent.open(&began).await.unwrap();
    assert!(Arc::ptr_eq(&first, &still), "also now that there is a newer one");
}

#[tokio::test]
async fn what_was_asked_before_a_version_turned_out_to_be_gone_is_told_to_nobody_new() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let gate = origin.inject(Fault::gate());
    let mut early = Box::pin(bench.agent.open(&question));
    tokio::select! {
        biased;
        _ = &mut early => panic!("it is held back"),
        () = has_struck(&gate) => {}
    }
    bench.agent.forget(&question.target);
    gate.lift();
    let early = early.await.unwrap();
    let asked = origin.counters().requests;
    let late = bench.agent.open(&question).await.unwrap();
    assert!(!Arc::ptr_eq(&early, &late));
    assert!(origin.counters().requests > asked, "the origin was asked");
    assert!(Arc::ptr_eq(&late, &bench.agent.open(&question).await.unwrap()), "that is news");
}

/// Opens what the origin has, and says where it could be mounted.
async fn opened(bench: &Bench, origin: &Origin) -> (OpenArtifact, MountRequest, TempDir) {
    let opened = bench.agent.open(&tree(&origin.url("/d/"))).await.unwrap();
    let (opened, dir) = (OpenArtifact::clone(&opened), tempfile::tempdir().unwrap());
    let request = MountRequest {
        opened: opened.clone(),
        view: View::Tree,
        path: Vec::new(),
        dir: dir.path().canonicalize().unwrap(),
        way: None,
        audience: Audience::WidestAllowed,
        lane: Wanted::Best,
        owner: Owner::default(),
        privileges: Privileges::Inert,
        programs: Programs::Start,
        by: Asker::Owner,
        data_dir: bench.agent.facts().data_dir.clone(),
        prefetch: Mode::Off,
        away: None,
        cache_quota: None,
        verify: Verify::default(),
        command: None,
        follow: None,
    };
    (opened, request, dir)
}

/// Lets others work until `condition` holds; fails the test after half a minute.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

fn read(file: File) -> impl Future<Output = Vec<u8>> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; 1000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    });
    async move { reading.await.unwrap() }
}

fn open_file(dir: &Path) -> impl Future<Output = File> + use<> {
    let path: PathBuf = dir.join("f");
    let opening = tokio::task::spawn_blocking(move || File::open(path).unwrap());
    async move { opening.await.unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_whose_asker_leaves_while_it_is_made_is_made_and_listed() {
    let (bench, origin) = (Bench::new(), origin());
    let (_, request, dir) = opened(&bench, &origin).await;
    let (mounts, on) = (bench.agent.mounts(), request.dir.clone());
    let mut mounting = Box::pin(mounts.mount(request));
    // What only looks ends with who asked: until the kernel has it.
    let is_mounted = || {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        table.lines().any(|line| line.split(' ').nth(1) == on.to_str())
    };
    while poll!(&mut mounting).is_pending() && !is_mounted() {
        tokio::task::yield_now().await;
    }
    drop(mounting);
    until("it is listed", async || mounts.list(Some(&on)).len() == 1).await;
    assert_eq!(read(open_file(&on).await).await, Body::noise(1, 1_000).read(0, 1_000).unwrap());
    mounts.unmount_all().await;
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_asks_again_is_told_of_its_mount_and_others_that_one_is_there() {
    let (bench, origin) = (Bench::new(), origin());
    let dir = tempfile::tempdir().unwrap();
    let service = NodeService::new(bench.agent.clone());
    let mount = async |command: &[u8]| {
        let request = dfs_proto::node::MountRequest {
            target: Some(targets::to_wire(&tree(&origin.url("/d/")).target)),
            dir: dir.path().to_str().unwrap().to_owned(),
            lane: "fuse".to_owned(),
            command: command.to_vec().into(),
            ..dfs_proto::node::MountRequest::default()
        };
        service.mount(Request::new(request)).await.map(|reply| reply.into_inner().dir)
    };
    let (mine, theirs) = ([1; 16], [2; 16]);
    let first = mount(&mine).await.unwrap();
    assert_eq!(mount(&mine).await.unwrap(), first);
    for command in [&theirs[..], &[]] {
        assert_eq!(mount(command).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    assert_eq!(mount(&mine[1..]).await.unwrap_err().code(), Code::InvalidArgument);
    bench.agent.mounts().unmount_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_in_use_goes_on_whose_unmounting_nobody_waits_for() {
    let (bench, origin) = (Bench::new(), origin());
    let (_, request, _dir) = opened(&bench, &origin).await;
    let mounts = bench.agent.mounts();
    let on = mounts.mount(request).await.unwrap();
    let used = open_file(&on).await;
    let mut unmounting = Box::pin(mounts.unmount(&on, Detach::WhenUnused, Asker::Owner));
    assert!(poll!(&mut unmounting).is_pending());
    drop(unmounting);
    // While the first one is at it nobody else finds it.
    let again = async || mounts.unmount(&on, Detach::WhenUnused, Asker::Owner).await;
    let is_busy =
        async || matches!(again().await, Err(MountTableError::Unmount(UnmountError::Busy(_))));
    until("it is there, and in use", is_busy).await;
    assert_eq!(read(used).await, Body::noise(1, 1_000).read(0, 1_000).unwrap());
    mounts.unmount_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_damaged_is_repaired_also_where_who_asked_has_left() {
    let (bench, origin) = (Bench::new(), origin());
    let (opened, _, _dir) = opened(&bench, &origin).await;
    let task = &opened.tasks[0];
    task.ensure(ByteRange::new(0, 1_000), Priority::Demand).await.unwrap();
    let path = task.stored().content_path();
    let right = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[right[7] ^ 1], 7).unwrap();
    let service = NodeService::new(bench.agent.clone());
    let (task_id, repair) = (task.id().as_bytes().to_vec().into(), true);
    let request = VerifyCacheRequest { task_id, repair, ..VerifyCacheRequest::default() };
    let mut events = service.verify_cache(Request::new(request)).await.unwrap().into_inner();
    let mut left = events.next();
    assert!(poll!(&mut left).is_pending());
    drop(left);
    drop(events);
    until("it is right again", async || fs::read(&path).unwrap() == right).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_was_let_go_of_half_is_kept_again() {
    let (bench, origin) = (Bench::new(), origin());
    let service = NodeService::new(bench.agent.clone());
    let (house, stop) = (bench.agent.clone(), CancellationToken::new());
    let keeping = stop.clone();
    let house = async move { keeping.run_until_cancelled(house.keep_house()).await };
    let house = TaskTracker::new().spawn(house);
    let target = Some(targets::to_wire(&tree(&origin.url("/d/")).target));
    let what = Some(Named { target, ..Named::default() });
    let pin = async || service.pin(Request::new(PinRequest { what: what.clone() })).await.unwrap();
    pin().await;
    let is_whole = async || {
        let pins = service.pins(Request::new(PinsRequest {})).await.unwrap().into_inner().pins;
        pins.len() == 1 && pins[0].state() == PinState::Whole
    };
    until("it is whole", is_whole).await;
    let store = bench.agent.host().engine.store();
    let pinned = || store.list().into_iter().filter(|task| task.pinned).count();
    let before = pinned();
    assert!(before > 0);
    // As where the disk failed in the middle of it.
    store.unpin(store.list().iter().find(|task| task.pinned).unwrap().id).unwrap();
    assert_eq!(pinned(), before - 1);
    pin().await;
    until("all of it is pinned", async || pinned() == before).await;
    stop.cancel();
    house.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_below_a_mount_that_comes_to_nothing_stays() {
    let (bench, origin) = (Bench::new(), origin());
    let (opened, request, dir) = opened(&bench, &origin).await;
    let task = &opened.tasks[0];
    task.ensure(ByteRange::new(0, 1_000), Priority::Demand).await.unwrap();
    let file = |task: &Task| task.stored().content_path().canonicalize().unwrap();
    let spaces = opened.tasks.iter().map(file).collect();
    let blobs = Blobs { index: file(&opened.index.as_ref().unwrap().task), spaces };
    let options = MountOptions::new("it", tokio::runtime::Handle::current());
    // Somebody's volume is the mount point.
    let none = MountFlags::empty();
    rustix::mount::mount("none", dir.path(), "tmpfs", none, None).unwrap();
    fs::write(dir.path().join("theirs"), "x").unwrap();
    let mounting = tokio::task::spawn_blocking(move || {
        let noted = AtomicUsize::new(0);
        let content = Arc::new(MemoryContent::cached(Vec::new()));
        // The disk is full once it is mounted.
        let note = |_: &MountedAt| match noted.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        };
        let refused = mount::by_kernel(&request.dir, (&blobs, content), &options, &note);
        (refused.map(drop), noted.into_inner())
    });
    let (mounted, noted) = mounting.await.unwrap();
    assert!(mounted.is_err() && noted == 2, "{mounted:?}");
    let theirs = fs::read_to_string(dir.path().join("theirs"));
    let is_ours = |mount: &MountEntry| mount.dir == dir.path() && mount.shows_ours();
    let left = mount::mounts().unwrap().iter().filter(|mount| is_ours(mount)).count();
    rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    assert_eq!((theirs.unwrap().as_str(), left), ("x", 0));
}
