//! containerd as it is in use elsewhere, with places of its own, whose snapshotter we are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use dfs_proto::cri::image_service_client::ImageServiceClient;
use dfs_proto::cri::{AuthConfig, ImageSpec, PullImageRequest, RemoveImageRequest};
use dfs_proto::snapshots::snapshots_client::SnapshotsClient;
use dfs_service::net::grpc_local_channel;
use dfs_tests::process::Said;
use dfs_tests::{Owned, wait};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Expected, Place};

/// What would look for disks of its own.
const UNUSED: [&str; 5] = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
];

/// The namespace of what came by CRI.
pub const CRI: &str = "k8s.io";

/// A containerd; what it started goes with it.
pub struct Containerd {
    dir: PathBuf,
    runs: Option<Owned>,
    runtime: Runtime,
}

impl Containerd {
    /// One that asks for snapshots at `snapshotter`.
    pub fn start(place: &Place, snapshotter: &Path) -> Self {
        let dir = place.dir("containerd");
        let at = |name: &str| dir.join(name).display().to_string();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/containerd.md");
        let page = fs::read_to_string(page).unwrap();
        let (_, settings) = page.split_once("```toml\n").unwrap();
        let (settings, _) = settings.split_once("```").unwrap();
        let settings = settings.replace("/run/dfs/snapshotter.sock", snapshotter.to_str().unwrap());
        let (version, settings) = settings.split_once('\n').unwrap();
        let settings = format!(
            "{version}\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [{}]\n\
             {settings}\n[grpc]\naddress = \"{}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{}\"\nconf_dir = \"{}\"\n",
            at("root"),
            at("state"),
            UNUSED.map(|name| format!("\"{name}\"")).join(", "),
            at("sock"),
            at("cni"),
            at("cni"),
        );
        fs::write(dir.join("config.toml"), settings).unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let mut containerd = Self { dir, runs: None, runtime };
        containerd.start_again();
        containerd
    }

    /// Starts it where it does not run any more.
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let _ = fs::remove_file(self.socket());
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.dir.join("config.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).env_remove("NOTIFY_SOCKET");
        self.runs = Some(Owned::start(&mut command).unwrap());
        let answers = || self.ctr(&["version"]).code == 0;
        wait::until("containerd answers", answers).unwrap();
    }

    /// Kills it; its containers run on.
    pub fn kill(&mut self) {
        self.runs = None;
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", CRI]).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// What its own client says.
    pub fn ctr(&self, words: &[&str]) -> Said {
        Said::by(&mut self.command(words)).unwrap()
    }

    /// What the client of stargz-snapshotter says.
    pub fn ctr_remote(&self, words: &[&str]) -> Said {
        let mut command = Command::new("ctr-remote");
        command.arg("--address").arg(self.socket()).args(words).stdin(Stdio::null());
        Said::by(&mut command).unwrap()
    }

    /// What a container is called where all of this machine are known by their names.
    pub fn id(&self, name: &str) -> String {
        let place = self.dir.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
        format!("{name}-{place}")
    }

    /// Runs something in a new container of an image to its end; what it wrote.
    pub fn run(&self, image: &str, name: &str, words: &[&str]) -> String {
        let said = self.ctr(
            &[&["run", "--rm", "--snapshotter", "dfs", image, &self.id(name)], words].concat(),
        );
        String::from_utf8(said.done().stdout).unwrap()
    }

    /// Starts a container that goes on.
    pub fn start_container(&self, image: &str, name: &str, words: &[&str]) {
        let name = self.id(name);
        let run = ["run", "--detach", "--null-io", "--snapshotter", "dfs", image, &name];
        self.ctr(&[&run, words].concat()).done();
    }

    /// Ends what runs in a container, and starts it again over what it has written.
    pub fn restart_container(&self, name: &str) {
        let name = &self.id(name);
        self.ctr(&["tasks", "delete", "--force", name]).done();
        self.ctr(&["tasks", "start", "--detach", "--null-io", name]).done();
    }

    /// Runs something in a container that is there.
    pub fn exec(&self, name: &str, words: &[&str]) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let exec = ["tasks", "exec", "--exec-id", &id, &self.id(name)];
        let said = self.ctr(&[&exec, words].concat()).done();
        String::from_utf8(said.stdout).unwrap()
    }

    /// Ends a container and takes it away.
    pub fn end_container(&self, name: &str) {
        let name = &self.id(name);
        self.ctr(&["tasks", "delete", "--force", name]).done();
        self.ctr(&["containers", "delete", name]).done();
    }

    /// Has it look for what nobody needs any more.
    pub fn collect(&self) {
        self.ctr(&["leases", "create", "--id", "collects"]).done();
        self.end_lease("collects");
    }

    /// Ends a lease, and with it what that alone has kept.
    pub fn end_lease(&self, name: &str) {
        self.ctr(&["leases", "delete", "--sync", name]).done();
    }

    fn channel_to(&self, socket: &Path) -> Channel {
        let _entered = self.runtime.enter();
        grpc_local_channel(socket, None)
    }

    /// Has it pull an image as a kubelet does, by its CRI at `socket`.
    pub fn pull_at(
        &self,
        socket: &Path,
        image: &str,
        login: Option<(&str, &str)>,
    ) -> Result<String, Status> {
        let channel = self.channel_to(socket);
        let auth = login.map(|(user, password)| AuthConfig {
            username: user.to_owned(),
            password: password.to_owned(),
            ..AuthConfig::default()
        });
        let request = PullImageRequest { image: Some(ImageSpec { image: image.to_owned() }), auth };
        let pulled = async { ImageServiceClient::new(channel).pull_image(request).await };
        self.runtime.block_on(pulled).map(|pulled| pulled.into_inner().image_ref)
    }

    /// The same by its own socket; it must work.
    pub fn pull(&self, image: &str) -> String {
        let pulled = self.pull_at(&self.socket(), image, None);
        pulled.unwrap_or_else(|status| panic!("{status}\n{}", self.log()))
    }

    /// Has it forget an image as a kubelet does, and what nobody needs then with it.
    pub fn remove_image(&self, image: &str) {
        let channel = self.channel_to(&self.socket());
        let request = RemoveImageRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        let removed = async { ImageServiceClient::new(channel).remove_image(request).await };
        self.runtime.block_on(removed).unwrap();
    }

    /// Has it forget one name of an image.
    pub fn remove_tag(&self, image: &str) {
        self.ctr(&["images", "rm", "--sync", image]).done();
    }

    /// Asks for snapshots as whoever pulls by hand does: through containerd, or straight at a snapshotter.
    pub fn snapshots<T>(
        &self,
        socket: &Path,
        ask: impl AsyncFnOnce(SnapshotsClient<Channel>) -> T,
    ) -> T {
        let channel = self.channel_to(socket);
        self.runtime.block_on(ask(SnapshotsClient::new(channel)))
    }
}

/// A request in the namespace of what came by CRI.
pub fn of_cri<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", CRI.parse().unwrap());
    request
}

/// The same, of which what comes is kept by a lease.
pub fn leased<T>(message: T, lease: &str) -> Request<T> {
    let mut request = of_cri(message);
    request.metadata_mut().insert("containerd-lease", lease.parse().unwrap());
    request
}

/// Processes that have this word on their command line.
fn started_with(word: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let of_it = processes.filter_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let is_it = line.split(|byte| *byte == 0).any(|one| one == word.as_bytes());
        is_it.then(|| Pid::from_raw(pid)).flatten()
    });
    of_it.collect()
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the log of containerd ends:\n  | {}", shown.join("\n  | "));
        }
        self.runs = None;
        let socket = self.socket().display().to_string();
        // Who watches containers outlives containerd; the containers are its children, and end with their namespace's first.
        for shim in started_with(&socket) {
            let pid = shim.as_raw_nonzero();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let _ = kill_process(shim, Signal::KILL);
            for child in children.unwrap_or_default().split_whitespace() {
                let child = child.parse().ok().and_then(Pid::from_raw);
                let _ = child.map(|child| kill_process(child, Signal::KILL));
            }
        }
    }
}
