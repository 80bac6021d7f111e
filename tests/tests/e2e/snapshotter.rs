//! containerd with our snapshotter: images are shown and not unpacked, and containers stand on them whatever dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use dfs_proto::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UsageRequest,
    ViewSnapshotRequest,
};
use dfs_tests::process::Said;
use dfs_tests::registry::{Guard, LOGIN};
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Registry, wait};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::containerd::{CRI, Containerd, leased, of_cri};
use crate::support::images::{Layout, Packing, here, sha256};
use crate::support::own::Own;
use crate::support::trees::{noise, put};
use crate::support::{Expected, Place, dfctl_at};

const MIB: usize = 1 << 20;

const KIB: u64 = 1 << 10;

/// Within which the bytes of an image are given back that nothing needs any more.
const GIVEN_BACK: Duration = Duration::from_secs(10);

/// What a container does that goes on.
const SLEEPS: [&str; 2] = ["/bin/sleep", "1000000"];

/// What keeps layers while they are pulled by hand.
const LEASE: &str = "pulls";

/// A registry with an image, an agent with a holder, and a containerd.
struct Scene {
    // What stands on the others goes first.
    containerd: Containerd,
    registry: Registry,
    agent: Own,
    base: Layout,
    layers: Vec<Shape>,
}

/// What is known of a layer.
struct Shape {
    blob: String,
    diff_id: String,
}

/// What images are built upon: a program and a few files.
fn base(place: &Place) -> Layout {
    let mut layout = Layout::new(place.path("layout"));
    let base = place.dir("base");
    fs::create_dir_all(base.join("bin")).unwrap();
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    for program in ["sh", "cat", "sha256sum", "cut", "sleep"] {
        symlink("busybox", base.join("bin").join(program)).unwrap();
    }
    put(&base.join("etc/version"), b"base");
    put(&base.join("far"), &noise(7, 3 * MIB));
    for dir in ["proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    layout.layer(&base, Packing::Gzip);
    layout.name(layout.image(here()));
    layout
}

impl Scene {
    fn new(guard: Guard) -> Self {
        let place = Place::new();
        let base = base(&place);
        let registry = Registry::start(place.root(), guard).unwrap();
        registry.push(base.dir(), "team/base:v1").unwrap();
        let mut layout = base.clone();
        let trees = ["base", "over", "near"].map(|name| place.dir(name));
        put(&trees[1].join("etc/version"), b"over");
        put(&trees[2].join("near"), &noise(8, MIB));
        for tree in &trees[1..] {
            layout.layer(tree, Packing::Gzip);
        }
        layout.name(layout.image(here()));
        registry.push(layout.dir(), "team/app:v1").unwrap();
        let shape = |(number, tree): (usize, &PathBuf)| Shape {
            blob: layout.layer_digest(number),
            diff_id: sha256(&fs::read(tree.with_extension("tar")).unwrap()),
        };
        let layers = trees.iter().enumerate().map(shape).collect();
        let socket = place.path("snapshots.sock");
        let (cri, runtime) = (place.path("cri.sock"), place.path("containerd/sock"));
        let sockets = [&socket, &cri, &runtime].map(|path| path.to_str().unwrap());
        let [shows, passes, to] = sockets;
        let words = ["--snapshotter-socket", shows, "--cri-socket", passes];
        let words = [&words[..], &["--containerd-socket", to]].concat();
        let agent = Own::start_with(place, &words);
        let containerd = Containerd::start(&agent.place, &socket);
        Self { containerd, registry, agent, base, layers }
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    fn snapshotter(&self) -> PathBuf {
        self.agent.place.path("snapshots.sock")
    }

    /// The name of the stack of so many layers.
    fn chain(&self, layers: usize) -> String {
        let over = |below: String, layer: &Shape| match below.is_empty() {
            true => layer.diff_id.clone(),
            false => sha256(format!("{below} {}", layer.diff_id).as_bytes()),
        };
        self.layers[..layers].iter().fold(String::new(), over)
    }

    /// How often somebody has asked for the content of layers who is not the agent.
    fn fetched_by_others(&self) -> usize {
        let by = |layer: &Shape| self.registry.requests_but_by("dfs/", "GET", &layer.blob);
        self.layers.iter().map(by).sum()
    }

    /// What the snapshotter has mounted.
    fn shown(&self) -> Vec<String> {
        let below = self.agent.data.canonicalize().unwrap().join("snapshotter/images");
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let dirs = table.lines().filter_map(|line| line.split(' ').nth(1));
        dirs.filter(|dir| dir.starts_with(below.to_str().unwrap())).map(str::to_owned).collect()
    }

    /// Bytes of the disk that the content of layers takes.
    fn stored(&self) -> u64 {
        self.layers.iter().map(|layer| self.stored_of(layer)).sum()
    }

    /// The same of one layer.
    fn stored_of(&self, layer: &Shape) -> u64 {
        self.listed(layer, "disk_bytes")
    }

    /// How much of the content of layers is here.
    fn content(&self) -> u64 {
        self.layers.iter().map(|layer| self.listed(layer, "cached_bytes")).sum()
    }

    fn listed(&self, layer: &Shape, bytes: &str) -> u64 {
        let listed = dfctl_at(&self.agent.socket, &["cache", "ls", "--format", "json"]);
        let listed = listed.done().json().unwrap();
        let is_content = |item: &&Value| {
            let (url, kind) = (item["task"]["url"].to_string(), item["task"]["kind"].to_string());
            url.contains(&layer.blob) && !kind.contains("ndex")
        };
        let items = listed["items"].as_array().unwrap().iter().filter(is_content);
        items.map(|item| item[bytes].as_u64().unwrap()).sum()
    }

    /// Bytes that a snapshot is said to take.
    fn usage(&self, key: &str) -> u64 {
        let (snapshotter, key) = ("dfs".to_owned(), key.to_owned());
        let request = of_cri(UsageRequest { snapshotter, key });
        self.containerd.snapshots(&self.containerd.socket(), async |mut client| {
            client.usage(request).await.unwrap().into_inner().size.try_into().unwrap()
        })
    }

    /// What is stored of each layer, which its usage is.
    fn used(&self) -> Vec<u64> {
        let stored = || self.layers.iter().map(|layer| self.stored_of(layer)).collect::<Vec<_>>();
        let used = || (1..=3).map(|layers| self.usage(&self.chain(layers))).collect::<Vec<_>>();
        // Something may be read between the one look and the other.
        let same = || Some(used()).filter(|used| *used == stored());
        let found = wait::find("usage is what is stored", PATIENCE, same);
        found.unwrap_or_else(|error| panic!("{error}: {:?} and not {:?}", used(), stored()))
    }

    /// Where snapshots are written.
    fn written(&self) -> PathBuf {
        self.agent.data.join("snapshotter/snapshots")
    }

    /// What the content of a file is in a container.
    fn sum(&self, container: &str, file: &str) -> String {
        let said = self.containerd.exec(container, &["/bin/sha256sum", file]);
        format!("sha256:{}", &said[..64])
    }

    /// Nothing is left of what is not needed any more since now.
    fn is_given_back(&self) {
        let is_gone =
            || self.snapshots().is_empty() && self.shown().is_empty() && self.stored() == 0;
        let gone = || is_gone().then_some(());
        wait::find("all of it is given back", GIVEN_BACK, gone).unwrap();
        assert_eq!(fs::read_dir(self.written()).unwrap().count(), 0);
    }

    /// What there is, by its name.
    fn snapshots(&self) -> BTreeMap<String, Info> {
        self.containerd.snapshots(&self.snapshotter(), async |mut client| {
            let mut told = client.list(ListSnapshotsRequest::default()).await.unwrap().into_inner();
            let mut all = BTreeMap::new();
            while let Some(some) = told.message().await.unwrap() {
                all.extend(some.info.into_iter().map(|info| (info.name.clone(), info)));
            }
            all
        })
    }

    /// Prepares a layer as `ctr-remote` does, through containerd, for a lease.
    fn prepare_layer(&self, number: usize, image: &str) -> Result<(), Status> {
        let request = self.layer_request(number, image);
        let socket = self.containerd.socket();
        self.containerd.snapshots(&socket, async |mut client| {
            client.prepare(leased(request, LEASE)).await.map(|_| ())
        })
    }

    /// Has all layers be there as `ctr-remote` does, kept by a lease.
    fn pull_by_hand(&self, image: &str) {
        self.containerd.ctr(&["leases", "create", "--id", LEASE]).done();
        for number in 1..=3 {
            let said = self.prepare_layer(number, image).unwrap_err();
            assert_eq!(said.code(), Code::AlreadyExists, "{said}");
        }
    }

    fn layer_request(&self, number: usize, image: &str) -> PrepareSnapshotRequest {
        let stargz = "containerd.io/snapshot/remote/stargz";
        let labels = [
            ("containerd.io/snapshot.ref".to_owned(), self.chain(number)),
            (format!("{stargz}.reference"), image.to_owned()),
            (format!("{stargz}.digest"), self.layers[number - 1].blob.clone()),
        ];
        PrepareSnapshotRequest {
            snapshotter: "dfs".to_owned(),
            key: format!("extract-{number} {}", self.chain(number)),
            parent: self.chain(number - 1),
            labels: labels.into(),
        }
    }

    /// Kills the agent and waits for the one that its holder starts.
    fn kill_agent(&self) {
        let agent = self.agent.agent();
        kill_process(agent, Signal::KILL).unwrap();
        let goes_on =
            || dfctl_at(&self.agent.socket, &["mounts"]).code == 0 && self.agent.agent() != agent;
        wait::until("another agent goes on", goes_on).unwrap();
        let asks_again =
            || self.containerd.ctr(&["snapshots", "--snapshotter", "dfs", "usage"]).code == 0;
        wait::until("containerd asks it", asks_again).unwrap();
    }
}

#[test]
fn an_image_is_shown_and_containerd_fetches_none_of_its_layers() {
    let scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    scene.containerd.pull(&app);
    assert_eq!(scene.fetched_by_others(), 0);
    let snapshots = scene.snapshots();
    let chains: Vec<_> = (1..=3).map(|layers| scene.chain(layers)).collect();
    assert_eq!(snapshots.len(), 3, "{snapshots:?}");
    assert!(chains.iter().all(|chain| snapshots[chain].kind() == Kind::Committed));
    assert_eq!(snapshots[&chains[2]].parent, chains[1]);
    assert_eq!(scene.shown().len(), 1, "the image is mounted once");

    let run = |name, script| scene.containerd.run(&app, name, &["/bin/sh", "-c", script]);
    let script = "cat /etc/version; sha256sum /far /near | cut -c1-64; echo own > /near; cat /near";
    let sums = [noise(7, 3 * MIB), noise(8, MIB)].map(|bytes| sha256(&bytes)[7..].to_owned());
    let wanted = format!("over{}\n{}\nown\n", sums[0], sums[1]);
    assert_eq!(run("first", script), wanted);
    assert_eq!(run("second", script), wanted, "what one writes is its own");
    assert_eq!(scene.fetched_by_others(), 0);
    scene.containerd.collect();
    let is_clean = || scene.snapshots().len() == 3;
    wait::until("containers that ended have left nothing", is_clean).unwrap();
}

#[test]
fn containers_go_on_whoever_is_killed_and_what_is_not_needed_any_more_is_given_back() {
    let mut scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    scene.containerd.pull(&app);
    let (near, far) = (sha256(&noise(8, MIB)), sha256(&noise(7, 3 * MIB)));
    scene.containerd.start_container(&app, "lasting", &SLEEPS);
    assert_eq!(scene.sum("lasting", "/near"), near);
    scene.kill_agent();
    assert_eq!(scene.sum("lasting", "/far"), far);
    let script = "echo mine > /near; cat /far > /copy";
    scene.containerd.exec("lasting", &["/bin/sh", "-c", script]);
    scene.containerd.kill();
    scene.containerd.start_again();
    let mine = || scene.containerd.exec("lasting", &["/bin/cat", "/near"]);
    assert_eq!(mine(), "mine\n");
    scene.kill_agent();
    assert_eq!(scene.sum("lasting", "/far"), far);
    scene.kill_agent();
    scene.containerd.restart_container("lasting");
    assert_eq!((mine().as_str(), scene.sum("lasting", "/copy")), ("mine\n", far));

    // What it wrote is what its snapshot takes.
    let id = scene.containerd.id("lasting");
    let written = fs::read_dir(scene.written()).unwrap().next().unwrap().unwrap().path();
    let is_counted = || scene.usage(&id) == taken(&written.join("fs"));
    wait::until("usage is what was written", is_counted).unwrap();
    assert!(scene.usage(&id) >= 3 * MIB as u64);

    // Of what a container stands on nothing goes.
    scene.containerd.remove_image(&app);
    assert_eq!((scene.shown().len(), scene.snapshots().len()), (1, 4));
    assert!(scene.stored() >= 4 * MIB as u64);
    scene.containerd.end_container("lasting");
    scene.containerd.collect();
    scene.is_given_back();
}

/// What a directory takes of the disk, as others count it.
fn taken(dir: &Path) -> u64 {
    let mut command = Command::new("du");
    let said = Said::by(command.args(["--summarize", "--block-size=1"]).arg(dir)).unwrap();
    said.done().text().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_no_snapshot_has_is_cleaned_up_and_what_is_in_use_stays() {
    let scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    scene.containerd.pull(&app);
    scene.containerd.start_container(&app, "lasting", &SLEEPS);
    scene.containerd.exec("lasting", &["/bin/sh", "-c", "echo mine > /near"]);
    let images = scene.agent.data.join("snapshotter/images");
    let there = || {
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            entries.collect::<BTreeSet<_>>()
        };
        (names(&scene.written()), names(&images), scene.shown())
    };
    let before = there();
    let (orphan, unused) = (scene.written().join("1000000"), images.join("sha256-unused"));
    put(&orphan.join("fs/left/by"), b"a crash");
    fs::create_dir(&unused).unwrap();
    assert_eq!((there().0.len(), there().1.len(), there().2.len()), (2, 2, 1));
    scene.containerd.snapshots(&scene.snapshotter(), async |mut client| {
        client.cleanup(CleanupRequest::default()).await.unwrap();
    });
    assert_eq!(there(), before);
    assert_eq!(scene.containerd.exec("lasting", &["/bin/cat", "/near"]), "mine\n");
    assert_eq!(scene.sum("lasting", "/far"), sha256(&noise(7, 3 * MIB)));
    assert_eq!(scene.containerd.run(&app, "one", &["/bin/cat", "/etc/version"]), "over");
}

#[test]
fn ctr_remote_pulls_an_image_and_fetches_none_of_its_layers() {
    let scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    let pull = ["--namespace", CRI, "images", "rpull", "--plain-http", "--snapshotter", "dfs"];
    scene.containerd.ctr_remote(&[&pull[..], &[&app]].concat()).done();
    assert_eq!((scene.fetched_by_others(), scene.shown().len()), (0, 1));
    assert_eq!(scene.snapshots().len(), 3);
    let words = ["/bin/sha256sum", "/far"];
    let said = scene.containerd.run(&app, "one", &words);
    assert_eq!(said[..64], sha256(&noise(7, 3 * MIB))[7..]);
    assert_eq!(scene.fetched_by_others(), 0);
    // CRI has heard of it, and given it names of its own.
    let is_forgotten = || {
        scene.containerd.remove_image(&app);
        scene.containerd.ctr(&["images", "ls", "--quiet"]).done().stdout.is_empty()
    };
    wait::until("the image is forgotten", is_forgotten).unwrap();
    scene.is_given_back();
}

#[test]
fn where_the_image_cannot_be_shown_containerd_fetches_it() {
    let scene = Scene::new(Guard::Password);
    let app = scene.image("team/app:v1");
    let pulled = scene.containerd.pull_at(&scene.containerd.socket(), &app, Some(LOGIN));
    pulled.unwrap();
    assert!(scene.fetched_by_others() >= 3);
    let log = scene.agent.log();
    assert!(log.contains("containerd fetches a layer itself") && log.contains(&app), "{log}");
    assert!(scene.shown().is_empty());
    let words = ["/bin/cat", "/etc/version"];
    assert_eq!(scene.containerd.run(&app, "one", &words), "over");
    scene.containerd.remove_image(&app);
    let is_gone = || scene.snapshots().is_empty();
    wait::until("its snapshots are gone", is_gone).unwrap();
    let left = fs::read_dir(scene.written()).unwrap().count();
    assert_eq!(left, 0, "and so are their directories");
}

#[test]
fn what_stands_on_the_lower_layers_of_an_image_sees_these_alone() {
    let scene = Scene::new(Guard::Nobody);
    let place = &scene.agent.place;
    let (mut child, tree) = (scene.base.clone(), place.dir("child"));
    put(&tree.join("etc/version"), b"child");
    child.layer(&tree, Packing::Gzip);
    child.name(child.image(here()));
    scene.registry.push(child.dir(), "team/child:v1").unwrap();

    let names = ["app", "base", "child"].map(|name| scene.image(&format!("team/{name}:v1")));
    names.iter().for_each(|name| drop(scene.containerd.pull(name)));
    assert_eq!(scene.fetched_by_others(), 0);
    let version =
        |image: &str, name: &str| scene.containerd.run(image, name, &["/bin/cat", "/etc/version"]);
    for (image, wanted) in names.iter().zip(["over", "base", "child"]) {
        assert_eq!(version(image, wanted), wanted);
    }
    let [app, base, child] = &names;
    scene.containerd.remove_image(app);
    assert_eq!(version(base, "again"), "base");
    scene.containerd.remove_image(base);
    scene.kill_agent();
    assert_eq!(version(child, "last"), "child");
    scene.containerd.remove_image(child);
    let is_gone = || scene.snapshots().is_empty() && scene.shown().is_empty();
    wait::until("nothing is left", is_gone).unwrap();
}

#[test]
fn two_tags_of_one_image_come_and_go_in_any_order() {
    let scene = Scene::new(Guard::Nobody);
    scene.registry.push(&scene.agent.place.path("layout"), "team/app:v2").unwrap();
    let tags = ["team/app:v1", "team/app:v2"].map(|tag| scene.image(tag));
    for (came, went) in [([0, 1], [0, 1]), ([0, 1], [1, 0]), ([1, 0], [1, 0])] {
        came.iter().for_each(|tag| drop(scene.containerd.pull(&tags[*tag])));
        assert_eq!((scene.shown().len(), scene.snapshots().len()), (1, 3));
        scene.containerd.remove_tag(&tags[went[0]]);
        let words = ["/bin/cat", "/etc/version"];
        assert_eq!(scene.containerd.run(&tags[went[1]], "one", &words), "over");
        // With its last tag CRI forgets the names that it has given the image itself.
        scene.containerd.remove_image(&tags[went[1]]);
        scene.is_given_back();
    }
    assert_eq!(scene.fetched_by_others(), 0);
}

#[test]
fn layers_are_named_as_ctr_remote_names_them_and_usage_is_what_is_stored() {
    let scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    scene.pull_by_hand(&app);
    let socket = scene.snapshotter();
    let names: Vec<_> = (1..=3).map(|layers| scene.chain(layers)).collect();
    assert!(scene.used().iter().sum::<u64>() >= 4 * MIB as u64, "all layers were read");
    // A layer that the image does not have in this place is fetched by who asks.
    let mut other = scene.layer_request(1, &app);
    other.labels.insert("containerd.io/snapshot.ref".to_owned(), sha256(b"other"));
    let (top, lower) = (names[2].clone(), names[0].clone());
    scene.containerd.snapshots(&socket, async |mut client| {
        client.prepare(other.clone()).await.unwrap();
        let said =
            client.remove(RemoveSnapshotRequest { key: lower.clone(), ..Default::default() });
        assert_eq!(said.await.unwrap_err().code(), Code::FailedPrecondition);
        let view = ViewSnapshotRequest { key: "v".into(), parent: top, ..Default::default() };
        let mounts = client.view(view).await.unwrap().into_inner().mounts;
        assert_eq!((mounts[0].r#type.as_str(), mounts[0].options[0].as_str()), ("bind", "ro"));
        assert_eq!(fs::read(format!("{}/etc/version", mounts[0].source)).unwrap(), b"over");
        let commit =
            CommitSnapshotRequest { name: "c".into(), key: "v".into(), ..Default::default() };
        assert_eq!(client.commit(commit).await.unwrap_err().code(), Code::FailedPrecondition);
        let mounts = MountsRequest { key: "nothing".into(), ..Default::default() };
        assert_eq!(client.mounts(mounts).await.unwrap_err().code(), Code::NotFound);
        let remove = RemoveSnapshotRequest { key: "v".into(), ..Default::default() };
        client.remove(remove).await.unwrap();
    });
    scene.containerd.collect();
    assert_eq!(scene.shown().len(), 1, "the lease keeps it");
    scene.containerd.end_lease(LEASE);
    scene.is_given_back();
}

#[test]
fn usage_is_what_was_read_of_a_layer() {
    let scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    scene.pull_by_hand(&app);
    let whole = scene.used();
    scene.containerd.end_lease(LEASE);
    scene.is_given_back();
    // Their indexes are here: they are shown without being read.
    scene.pull_by_hand(&app);
    let unread = scene.used();
    assert!(unread.iter().all(|used| *used < KIB * 64), "{unread:?}");
    let mut first = [0; 1000];
    File::open(Path::new(&scene.shown()[0]).join("far")).unwrap().read_exact(&mut first).unwrap();
    assert!(first == noise(7, 3 * MIB)[..1000]);
    let used = scene.used();
    assert!(
        used[0] >= unread[0] + 64 * KIB && whole[0] - used[0] > MIB as u64,
        "{used:?} of {whole:?}"
    );
    assert_eq!(used[1..], unread[1..]);
}

#[test]
fn pull_secrets_reach_the_agent_where_it_passes_cri_on() {
    let mut scene = Scene::new(Guard::Password);
    let app = scene.image("team/app:v1");
    let cri = scene.agent.place.path("cri.sock");
    let refused = scene.containerd.pull_at(&cri, &app, Some((LOGIN.0, "wrong")));
    assert!(refused.is_err(), "{refused:?}");
    let pulled = scene.containerd.pull_at(&cri, &app, Some(LOGIN)).unwrap();
    assert!(pulled.starts_with("sha256:"), "{pulled}");
    assert_eq!((scene.fetched_by_others(), scene.shown().len()), (0, 1));
    let words = ["/bin/cat", "/etc/version"];
    assert_eq!(scene.containerd.run(&app, "one", &words), "over");
    // Whatever else is asked there is asked of containerd.
    let mut passed = Command::new("ctr");
    passed.arg("--address").arg(&cri).args(["--namespace", CRI, "images", "ls", "-q"]);
    let listed = Said::by(&mut passed).unwrap().done().text();
    assert!(listed.contains(&app), "{listed}");
    assert!(!scene.agent.log().contains(LOGIN.1));

    // The next agent knows no login any more, and needs none for what is here.
    scene.containerd.start_container(&app, "lasting", &SLEEPS);
    let files = [("/near", sha256(&noise(8, MIB))), ("/far", sha256(&noise(7, 3 * MIB)))];
    for (number, (file, sum)) in files.into_iter().enumerate() {
        scene.kill_agent();
        assert_eq!(scene.sum("lasting", file), sum);
        assert_eq!(scene.containerd.run(&app, &format!("run-{number}"), &words), "over");
        scene.registry.stop();
    }
}

/// When in the course of a request to prepare a layer the agent is killed.
const MOMENTS: [&str; 4] = ["manifest", "layer", "mount", "answer"];

#[test]
fn an_agent_killed_while_it_prepares_leaves_a_layer_whole_or_nothing() {
    let scene = Scene::new(Guard::Nobody);
    let app = scene.image("team/app:v1");
    // It starts an agent again only for what is mounted.
    let _mounted =
        scene.agent.mount(&format!("file://{}", scene.agent.place.path("near").display()));
    for moment in MOMENTS {
        let asked = || scene.registry.requests_by("dfs", "GET", "/manifests/");
        let read = || scene.registry.requests_by("dfs", "GET", &scene.layers[0].blob);
        let (asked_before, read_before) = (asked(), read());
        let request = scene.layer_request(1, &app);
        let socket = scene.snapshotter();
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                scene.containerd.snapshots(&socket, async |mut client| {
                    client.prepare(request).await.map(|_| ())
                })
            });
            let is_time = || match moment {
                _ if asking.is_finished() => true,
                "manifest" => asked() > asked_before,
                "layer" => read() > read_before,
                "mount" => !scene.shown().is_empty(),
                _ => false,
            };
            wait::until("it is time", is_time).unwrap();
            scene.kill_agent();
            let said = asking.join().unwrap();
            assert!(said.is_err(), "{said:?}");
        });
        let chain = scene.chain(1);
        let is_there = scene.containerd.snapshots(&socket, async |mut client| {
            let stat = StatSnapshotRequest { key: chain, ..Default::default() };
            client.stat(stat).await.is_ok()
        });
        assert_eq!(is_there, moment == "answer" || scene.snapshots().len() == 1, "{moment}");
        if !is_there {
            wait::until("nothing is left", || scene.shown().is_empty()).unwrap();
        }
        // It can be asked for as ever.
        let said = scene.containerd.snapshots(&socket, async |mut client| {
            client.prepare(scene.layer_request(1, &app)).await.map(|_| ())
        });
        assert_eq!(said.unwrap_err().code(), Code::AlreadyExists, "{moment}");
        scene.containerd.snapshots(&socket, async |mut client| {
            let remove = RemoveSnapshotRequest { key: scene.chain(1), ..Default::default() };
            client.remove(remove).await.unwrap();
        });
        let is_gone = || scene.shown().is_empty() && scene.content() == 0;
        wait::until("nothing is left", is_gone).unwrap();
    }
}
