//! What the tests share beside the fixtures: agents that fail their test, commands under way, small disks.

pub mod authority;
pub mod canned;
pub mod containerd;
pub mod crowd;
pub mod curl;
pub mod disk;
pub mod entries;
pub mod gatekeeper;
pub mod images;
pub mod lanes;
pub mod ledger;
pub mod liar;
pub mod overlay;
pub mod own;
pub mod podman;
pub mod readers;
pub mod servers;
pub mod siege;
pub mod site;
pub mod tars;
pub mod trees;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};

use dfs_tests::process::Said;
use dfs_tests::wait::{self, PATIENCE};
use dfs_tests::{Binaries, Body, Cluster, Mount, Node, Owned};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

/// The user nobody.
pub const NOBODY: u32 = 65_534;

/// What agents and the parts of a cluster log in place of the usual: `E2E_LOG`.
fn wanted_log() -> Option<String> {
    std::env::var("E2E_LOG").ok().filter(|filter| !filter.is_empty())
}

/// A directory of one test's own; a failed test leaves it when `E2E_KEEP` is set.
pub struct Place {
    dir: TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("E2E_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.dir.path().display());
            return;
        }
        unmount_below(self.dir.path());
    }
}

/// Takes away what killed processes have left mounted below a directory.
fn unmount_below(dir: &Path) {
    let Ok(dir) = dir.canonicalize() else { return };
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = table.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    // What was mounted last goes first.
    for left in mounted.filter(|mounted| mounted.starts_with(&dir)).collect::<Vec<_>>().iter().rev()
    {
        dfs_tests::cluster::detach(left);
    }
}

impl Place {
    /// A fresh one.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("dfs-e2e-").tempdir().unwrap() }
    }

    /// Something in it that need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory in it, made.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Lets every user look in.
    pub fn open_to_others(&self) {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The root of it.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }
}

/// Our programs.
pub fn binaries() -> Binaries {
    Binaries::beside_this_one().unwrap()
}

/// The path of one of them.
pub fn binary(name: &str) -> PathBuf {
    binaries().path(name).unwrap()
}

/// Our programs, the services started by lines of shell that `script` makes of their path.
pub fn services_started_by(place: &Place, script: impl Fn(&str) -> String) -> Binaries {
    let dir = place.dir("programs");
    std::os::unix::fs::symlink(binary("dfctl"), dir.join("dfctl")).unwrap();
    for service in ["dfs-fuse", "dfs-cluster"] {
        let script = script(binary(service).to_str().unwrap());
        fs::write(dir.join(service), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(dir.join(service), fs::Permissions::from_mode(0o755)).unwrap();
    }
    Binaries::in_dir(dir)
}

/// The whole content of a body.
pub fn all(body: &Body) -> Vec<u8> {
    body.read(0, body.length().unwrap()).unwrap()
}

/// A node agent and its mounts.
pub struct Agent {
    // The mounts go first.
    mounts: Mutex<Vec<Mount>>,
    pub node: Node,
}

impl Agent {
    /// One without a cluster.
    pub fn solo(place: &Place, name: &str) -> Self {
        Self::below(place.root(), name, None, &[])
    }

    /// One without a cluster, with further arguments.
    pub fn solo_with(place: &Place, name: &str, extra: &[&str]) -> Self {
        Self::below(place.root(), name, None, extra)
    }

    /// One without a cluster whose data lies below `dir`.
    pub fn solo_in(dir: &Path, name: &str) -> Self {
        Self::below(dir, name, None, &[])
    }

    /// One in a cluster.
    pub fn of(cluster: &Cluster, place: &Place, name: &str) -> Self {
        Self::at(cluster.address().unwrap(), place, name, &[])
    }

    /// One in a cluster, with further arguments.
    pub fn of_with(cluster: &Cluster, place: &Place, name: &str, extra: &[&str]) -> Self {
        Self::at(cluster.address().unwrap(), place, name, extra)
    }

    /// One of the cluster whose manager listens at `manager`.
    pub fn at(manager: SocketAddr, place: &Place, name: &str, extra: &[&str]) -> Self {
        Self::below(place.root(), name, Some(manager), extra)
    }

    fn below(dir: &Path, name: &str, manager: Option<SocketAddr>, extra: &[&str]) -> Self {
        let filter = wanted_log();
        let log: Vec<_> = filter.iter().flat_map(|filter| ["--log", filter]).collect();
        let extra = if extra.contains(&"--log") { extra.to_vec() } else { [extra, &log].concat() };
        let mut node = Node::spawn(&binaries(), dir, name, manager, &extra).unwrap();
        node.wait_ready().unwrap();
        Self::around(node)
    }

    /// A node that was started in another way.
    pub fn around(node: Node) -> Self {
        Self { mounts: Mutex::default(), node }
    }

    /// Runs `dfctl` against it, to its end.
    pub fn dfctl(&self, words: &[&str]) -> Said {
        self.node.dfctl(words).unwrap()
    }

    /// What a person types to ask it, up to the command.
    pub fn typed(&self) -> String {
        format!("dfctl --socket {}", self.node.socket().display())
    }

    /// Starts `dfctl` against it.
    pub fn dfctl_start(&self, words: &[&str]) -> Running {
        let mut command = self.node.dfctl_command().unwrap();
        command.args(words);
        Running::start(command)
    }

    /// Mounts `url` on `dir`.
    pub fn mount(&self, url: &str, dir: PathBuf) -> PathBuf {
        let mount = self.node.mount(url, &dir).unwrap();
        self.mounts.lock().unwrap().push(mount);
        dir
    }

    /// Mounts `url` on `dir` in this lane.
    pub fn mount_in(&self, lane: &str, url: &str, dir: PathBuf) -> PathBuf {
        self.guard(&dir);
        self.dfctl(&["mount", "--lane", lane, url, dir.to_str().unwrap()]).done();
        dir
    }

    /// What `dfctl mounts` says of its mount on `dir`.
    pub fn shown(&self, dir: &Path) -> Option<Value> {
        shown_at(self.socket(), dir)
    }

    /// Takes away what will be mounted on `dir`, when the test ends.
    pub fn guard(&self, dir: &Path) {
        self.mounts.lock().unwrap().push(Mount::guard(dir));
    }

    /// Has its store lose the contents of all blobs, and nothing of what it knows of them; how many.
    pub fn forget_contents(&self) -> usize {
        let listed = self.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let tasks = listed["items"].as_array().unwrap().iter().map(|item| &item["task"]);
        let blobs: Vec<_> = tasks.filter(|task| task["kind"] == "blob").collect();
        for blob in &blobs {
            self.dfctl(&["task", "rm", "--yes", blob["id"].as_str().unwrap()]).done();
        }
        blobs.len()
    }

    /// One of its counters.
    pub fn metric(&self, name: &str) -> u64 {
        self.node.process().metric(name).unwrap() as u64
    }

    /// Content bytes that it holds of the one task of this length.
    pub fn cached(&self, length: u64) -> u64 {
        let listed = self.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let tasks = listed["items"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["task"]["length"] == length);
        task.map_or(0, |task| task["cached_bytes"].as_u64().unwrap())
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        self.node.data_dir()
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        self.node.socket()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.node.process().log()
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.node.process_mut().kill();
    }

    /// Asks it to end; it must do so cleanly.
    pub fn terminate(&mut self) {
        let status = self.node.process_mut().terminate().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Starts it again as it was started.
    pub fn start_again(&mut self) {
        self.node.process_mut().restart().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(30)..];
            eprintln!("the log of {} ends:\n  | {}", self.node.name(), shown.join("\n  | "));
        }
    }
}

/// What a test expects of a command.
pub trait Expected: Sized {
    /// It did what it should.
    #[track_caller]
    fn done(self) -> Self;
    /// It ended with this exit code.
    #[track_caller]
    fn exits(self, exit: i32) -> Self;
    /// It failed with this exit code and this stable code.
    #[track_caller]
    fn fails(self, exit: i32, code: &str) -> Self;
}

impl Expected for Said {
    #[track_caller]
    fn done(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    fn exits(self, exit: i32) -> Self {
        assert_eq!(self.code, exit, "`{}`\n{}", self.line, self.stderr);
        self
    }

    #[track_caller]
    fn fails(self, exit: i32, code: &str) -> Self {
        let said = self.exits(exit);
        assert!(said.stderr.contains(code), "no {code}: `{}`\n{}", said.line, said.stderr);
        said
    }
}

/// Runs `dfctl` against whatever listens on `socket`.
pub fn dfctl_at(socket: &Path, words: &[&str]) -> Said {
    let mut command = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
    Said::by(command.arg("--socket").arg(socket).args(words)).unwrap()
}

/// What `dfctl mounts` says of the mount on `dir`, of the agent that listens on `socket`; the machine's table has those of
/// other tests, too.
pub fn shown_at(socket: &Path, dir: &Path) -> Option<Value> {
    let listed = dfctl_at(socket, &["mounts", "--format", "json"]).done().json().unwrap();
    let mounts = listed["items"].as_array().unwrap();
    mounts.iter().find(|mount| mount["dir"] == dir.to_str().unwrap()).cloned()
}

/// Tells `command` where our programs are and on which socket the agent listens.
pub fn told(command: &mut Command, socket: &Path) {
    let ours = binary("dfctl");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", ours.parent().unwrap().display());
    command.env("PATH", path).env("DFS_SOCKET", socket).env("TERM", "xterm");
}

/// Runs `line` at a terminal of its own and types `lines`; what the terminal showed.
pub fn typed_at(line: &str, socket: &Path, lines: &[&str]) -> String {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]);
    told(&mut command, socket);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(keys, "{line}").unwrap());
    let shown = child.wait_with_output().unwrap();
    drop(keys);
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

/// Whether this process runs. One that has ended and whose parent has not noticed, as where the first process of
/// a container is no init, does not.
pub fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// `program`, to be run by nobody.
pub fn as_nobody(program: &Path) -> Command {
    as_user(NOBODY, program)
}

/// Lines of shell that take away all that dfs and the kernel for it have mounted, but for what is below `$own`: for a mount
/// namespace that nobody else is in.
pub const OTHERS_AWAY: &str = r#"awk '/ fuse[.]dfs | erofs / {print $5}' /proc/self/mountinfo | while read -r dir; do
    dir=$(printf '%b' "$(printf %s "$dir" | sed 's/\\\([0-7][0-7][0-7]\)/\\0\1/g')")
    case "$dir" in "$own"/*) ;; *) umount -l "$dir" 2> /dev/null || true ;; esac
done"#;

/// `command`, where nothing of dfs is mounted but below `root`: it neither looks at what other tests have mounted nor takes
/// that away, and what it takes away is there for all others.
pub fn secluded(root: &Path, command: &Command) -> Command {
    let script = format!("own=$0; {OTHERS_AWAY}; exec \"$@\"");
    let mut secluded = Command::new("unshare");
    secluded.args(["-m", "--propagation", "private", "sh", "-c", &script]).arg(root);
    secluded.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => secluded.env(name, value),
            None => secluded.env_remove(name),
        };
    }
    secluded
}

/// `program`, to be run by `user`, in nobody's group.
pub fn as_user(user: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user.to_string(), "--regid", "65534", "--clear-groups"])
        .arg(program)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .current_dir("/");
    command
}

/// A command under way; killed when nobody waits for it any more.
pub struct Running {
    child: Child,
    line: String,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let line = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self { child, line, stdout, stderr }
    }

    fn text(file: &File) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        Self::text(&self.stdout)
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&Self::text(&self.stderr)).into_owned()
    }

    /// Whether it has.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Said {
        let ended =
            wait::find(&format!("{} ends", self.line), PATIENCE, || self.child.try_wait().unwrap());
        let status = ended.unwrap_or_else(|error| panic!("{error}\n{}", self.stderr()));
        let signal = || status.signal().map_or(-1, |signal| 128 + signal);
        Said {
            line: self.line.clone(),
            code: status.code().unwrap_or_else(signal),
            stdout: Self::text(&self.stdout),
            stderr: self.stderr(),
        }
    }

    /// Ctrl-C, and waits for its end.
    pub fn interrupt(self) -> Said {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        self.wait()
    }

    /// Kills it; it must have been running.
    pub fn kill(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it had ended\n{}", self.stderr());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether anything is mounted on `dir`.
pub fn is_mounted(dir: &Path) -> bool {
    let guard = Mount::guard(dir);
    let mounted = guard.is_mounted();
    std::mem::forget(guard);
    mounted
}

/// Waits until `condition` holds.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    wait::until(what, condition).unwrap();
}

/// A small disk.
pub struct Tmpfs {
    mount: Mount,
}

impl Tmpfs {
    /// One of `bytes` on `dir`.
    pub fn mount(dir: PathBuf, bytes: u64) -> Self {
        let mount = Mount::guard(&dir);
        Self::run(&["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "dfs-e2e"], &dir);
        Self { mount }
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, bytes: u64) {
        Self::run(&["-o", &format!("remount,size={bytes}")], self.path());
    }

    fn run(words: &[&str], dir: &Path) {
        let output = Command::new("mount").args(words).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.mount.dir()
    }
}

/// A read in a process of its own: what this one has open every agent that it starts would have to close, which
/// waits for an agent.
pub fn reading(path: &Path) -> JoinHandle<Option<Vec<u8>>> {
    reading_with(Command::new("cat").arg(path))
}

/// The same by this program.
pub fn reading_with(command: &mut Command) -> JoinHandle<Option<Vec<u8>>> {
    let mut reader = Owned::start(command.stdout(Stdio::piped())).unwrap();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
        reader.child.wait().unwrap().success().then_some(bytes)
    })
}
