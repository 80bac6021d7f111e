//! Bad days of a mount: whoever reads has the right bytes, or one clear error within the deadline, and nobody has to
//! mount anything again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dfs_tests::origin::Shelf;
use dfs_tests::process::FreeAddress;
use dfs_tests::wait::{PATIENCE, find};
use dfs_tests::{Body, Fault, Mount, Node, Origin, Owned};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::recovery::{contents, spoil};
use crate::support::lanes::{self, Lane, Stopped};
use crate::support::own::Own;
use crate::support::{Agent, Expected, Place, all, dfctl_at, reading, services_started_by, until};
use crate::survival::Holder;

const MIB: u64 = 1 << 20;

/// When every request of a mount has ended, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// Reads past what the kernel remembers, so that the agent is asked.
fn read_anew(path: &Path, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    // One page more is all the kernel reads ahead.
    fadvise(&file, 0, None, Advice::Random)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The same in time.
fn read_in_time(path: &Path, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    let reading = thread::spawn(move || read_anew(&path, at, length));
    find("the read ends", DEADLINE, || reading.is_finished().then_some(())).unwrap();
    reading.join().unwrap()
}

fn error_of(path: &Path) -> Option<String> {
    let said = xattr::get(path, "user.dfs.error").unwrap()?;
    Some(String::from_utf8(said).unwrap())
}

/// The half that is here is read, the rest is one clear error.
#[track_caller]
fn half_is_read(lane: Lane, socket: &Path, file: &Path, bytes: &[u8]) {
    let half = bytes.len() as u64 / 2;
    assert!(read_in_time(file, 0, half).unwrap() == bytes[..half as usize]);
    let refused = read_in_time(file, half + MIB, MIB).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::IO.raw_os_error()), "{refused}");
    // Of a file that the kernel shows nobody is asked for attributes.
    if !lane.is_by_kernel() {
        let reason = error_of(file).unwrap();
        assert!(reason.contains("refused"), "{reason}");
        let why = dfctl_at(socket, &["why", file.to_str().unwrap()]);
        assert!(why.stderr.contains(&reason[..20]), "{}", why.stderr);
    }
    // What failed beside it takes nothing away of what is here.
    assert!(read_in_time(file, 0, half).unwrap() == bytes[..half as usize]);
}

#[test]
fn without_its_origin_a_mount_has_the_half_that_is_here_and_the_rest_once_it_is_back() {
    the_half_that_is_here_is_read_without_its_origin(Lane::Fuse);
}

#[test]
fn without_its_origin_the_kernel_shows_the_half_that_is_here_and_the_rest_once_it_is_back() {
    the_half_that_is_here_is_read_without_its_origin(Lane::Lazy);
}

fn the_half_that_is_here_is_read_without_its_origin(lane: Lane) {
    let own = Own::start(Place::new());
    let address = FreeAddress::new().unwrap();
    let body = Body::noise(1, 8 * MIB);
    let bytes = all(&body);
    let serve = || {
        let origin = Origin::start_at(address.at()).unwrap();
        origin.put("/d/f", body.clone());
        origin
    };
    let origin = serve();
    let range = format!("0-{}", 4 * MIB - 1);
    dfctl_at(&own.socket, &["cat", "--range", &range, &origin.url("/d/f")]).done();
    let (dir, _mounts) = lanes::mounted(&own, lane, &origin.url("/d/"));
    let file = dir.join("f");
    if !lane.is_by_kernel() {
        let cached = xattr::get(&file, "user.dfs.cached").unwrap().unwrap();
        assert_eq!(cached, format!("0..{}", 4 * MIB).into_bytes());
    }
    drop(origin);
    half_is_read(lane, &own.socket, &file, &bytes);
    let agent = own.agent();
    kill_process(agent, Signal::KILL).unwrap();
    until("there is another agent", || {
        !crate::support::runs(&agent.as_raw_nonzero().to_string())
            && dfctl_at(&own.socket, &["mounts"]).code == 0
    });
    half_is_read(lane, &own.socket, &file, &bytes);
    let origin = serve();
    until("the rest is read", || {
        read_anew(&file, 4 * MIB, 4 * MIB).is_ok_and(|read| read == bytes[4 << 20..])
    });
    if !lane.is_by_kernel() {
        assert_eq!(error_of(&file), None);
    }
    assert_eq!(origin.counters().body_bytes, 4 * MIB, "what was here was not fetched again");
}

/// What is done to what an agent keeps.
type Blow = fn(&Path, u64);

/// The content file of the one task of this length.
fn content(data: &Path, length: u64) -> PathBuf {
    let mut found = contents(data).into_iter();
    found.find(|path| fs::metadata(path).unwrap().len() == length).unwrap()
}

fn cut(file: &Path, keep: u64) {
    File::options().write(true).open(file).unwrap().set_len(keep).unwrap();
}

fn overwrite(file: &Path) {
    let length = fs::metadata(file).unwrap().len() as usize;
    File::options().write(true).open(file).unwrap().write_all_at(&vec![0xa5; length], 0).unwrap();
}

fn each_beside(data: &Path, length: u64, name: &str, blow: impl Fn(&Path)) {
    let path = content(data, length).with_file_name(name);
    assert!(path.exists(), "{}", path.display());
    blow(&path);
}

/// What is seen where it is read: in whatever state the agent is.
const SEEN: [(&str, Blow); 2] = [
    ("content cut in the middle", |data, length| cut(&content(data, length), length / 2)),
    ("content emptied", |data, length| cut(&content(data, length), 0)),
];

/// What is read when a task is opened.
const AT_START: [(&str, Blow); 6] = [
    ("content gone", |data, length| fs::remove_file(content(data, length)).unwrap()),
    ("state cut", |data, length| each_beside(data, length, "state", |path| cut(path, 5000))),
    ("state emptied", |data, length| each_beside(data, length, "state", |path| cut(path, 0))),
    ("state overwritten", |data, length| each_beside(data, length, "state", overwrite)),
    ("record cut", |data, length| each_beside(data, length, "record.json", |path| cut(path, 10))),
    ("record overwritten", |data, length| each_beside(data, length, "record.json", overwrite)),
];

const LENGTH: u64 = 8 * MIB + 777;

/// A mount whose one large file is here as a whole.
struct Whole {
    _place: Place,
    bytes: Vec<u8>,
    origin: Origin,
    agent: Agent,
    file: PathBuf,
}

impl Whole {
    fn new() -> Self {
        let place = Place::new();
        let body = Body::noise(3, LENGTH);
        let origin = Origin::of("/d/f", body.clone()).unwrap();
        let agent = Agent::solo(&place, "agent");
        let file = agent.mount_in("fuse", &origin.url("/d/"), place.dir("mount")).join("f");
        let whole = Self { bytes: all(&body), _place: place, origin, agent, file };
        assert!(fs::read(&whole.file).unwrap() == whole.bytes);
        whole
    }

    /// From the end on: what is fetched again there lengthens a file that was cut.
    #[track_caller]
    fn is_read(&self, what: &str) {
        for part in (0..LENGTH.div_ceil(MIB)).rev() {
            let (at, end) = (part * MIB, ((part + 1) * MIB).min(LENGTH));
            let read = read_in_time(&self.file, at, end - at).unwrap();
            assert!(read == self.bytes[at as usize..end as usize], "{what}: at {at}");
        }
        assert!(!self.agent.log().contains("panicked"), "{what}: {}", self.agent.log());
    }

    fn verify(&self, what: &str) {
        let said = self.agent.dfctl(&["cache", "verify"]);
        assert!(matches!(said.code, 0 | 6), "{what}: {said:?}");
    }

    /// While the agent is down.
    fn struck_while_down(&mut self, blow: Blow) {
        let dir = self.file.parent().unwrap().to_owned();
        let url = self.origin.url("/d/");
        self.agent.kill();
        blow(self.agent.data(), LENGTH);
        self.agent.start_again();
        self.agent.dfctl(&["umount", "--lazy", dir.to_str().unwrap()]).done();
        self.agent.mount_in("fuse", &url, dir);
    }
}

#[test]
fn bytes_that_rot_under_a_mount_are_found_by_verify_and_read_right_again() {
    let whole = Whole::new();
    spoil(whole.agent.data(), LENGTH);
    whole.agent.dfctl(&["cache", "verify"]).fails(6, "DFS-3104");
    whole.is_read("spoilt while mounted");
    assert_eq!(whole.origin.counters().body_bytes, 2 * LENGTH, "all of it came again");
}

#[test]
fn bytes_that_rot_where_the_kernel_waits_for_the_rest_are_found_by_verify_and_read_right_again() {
    let own = Own::start(Place::new());
    let body = Body::noise(3, LENGTH);
    let bytes = all(&body);
    let origin = Origin::of("/d/f", body).unwrap();
    let (dir, _mounts) = lanes::mounted(&own, Lane::Lazy, &origin.url("/d/"));
    let file = dir.join("f");
    let half = LENGTH / 2;
    assert!(read_in_time(&file, 0, half).unwrap() == bytes[..half as usize]);
    // The kernel reads to the end of a group.
    let content = content(&own.data, LENGTH.next_multiple_of(65_536));
    for at in (100..half as usize).step_by(65_536) {
        let content = File::options().write(true).open(&content).unwrap();
        content.write_all_at(&[!bytes[at]], at as u64).unwrap();
    }
    assert!(read_anew(&file, 0, half).unwrap() != bytes[..half as usize], "nobody has looked yet");
    let said = dfctl_at(&own.socket, &["cache", "verify"]);
    assert!(matches!(said.code, 0 | 6), "{said:?}");
    assert!(read_in_time(&file, 0, half).unwrap() == bytes[..half as usize]);
    assert!(read_in_time(&file, 0, LENGTH).unwrap() == bytes);
}

#[test]
fn bytes_that_rot_while_the_agent_is_down_are_found_by_verify_and_read_right_again() {
    let mut whole = Whole::new();
    whole.struck_while_down(|data, length| assert!(spoil(data, length) > 0));
    whole.agent.dfctl(&["cache", "verify"]).fails(6, "DFS-3104");
    whole.is_read("spoilt while down");
}

#[test]
fn a_file_of_the_cache_that_is_cut_under_a_mount_gives_no_wrong_byte() {
    for (what, blow) in SEEN {
        let whole = Whole::new();
        blow(whole.agent.data(), LENGTH);
        whole.is_read(what);
        whole.verify(what);
        whole.is_read(what);
    }
}

#[test]
fn files_of_the_cache_that_are_cut_or_overwritten_keep_no_agent_from_starting() {
    for (what, blow) in SEEN.into_iter().chain(AT_START) {
        let mut whole = Whole::new();
        whole.struck_while_down(blow);
        whole.is_read(what);
        whole.verify(what);
        whole.is_read(what);
    }
}

/// Root as it is in a container: what a file's permissions forbid it is forbidden.
fn bound_by_permissions(place: &Place) -> Agent {
    let programs = services_started_by(place, |agent| {
        let without = "-dac_override,-dac_read_search";
        format!("exec setpriv --bounding-set {without} --inh-caps {without} {agent} \"$@\"")
    });
    Agent::around(Node::start(&programs, place.root(), "agent", None).unwrap())
}

/// Takes away who may use `path`, until it is given back.
fn closed(path: &Path) -> impl Fn() + use<> {
    let (path, mode) = (path.to_owned(), fs::metadata(path).unwrap().permissions());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    move || fs::set_permissions(&path, mode.clone()).unwrap()
}

/// The same by who owns it.
fn given_away(path: &Path) -> impl Fn() + use<> {
    let path = path.to_owned();
    std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
    move || std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap()
}

/// What is closed lies so many levels above the content file, or beside it.
const CLOSED: [(&str, &str); 5] = [
    ("content", "."),
    ("state", "./../state"),
    ("record", "./../record.json"),
    ("the task's directory", "./.."),
    ("the shelf", "./../.."),
];

#[test]
fn what_may_not_be_read_in_the_cache_is_named_or_done_without() {
    for (what, beside) in CLOSED {
        for is_given_away in [false, true] {
            let place = Place::new();
            let body = Body::noise(3, LENGTH);
            let bytes = all(&body);
            let origin = Origin::of("/d/f", body).unwrap();
            let mut agent = bound_by_permissions(&place);
            agent.dfctl(&["cat", &origin.url("/d/f")]).done();
            agent.kill();
            let content = content(agent.data(), LENGTH);
            let path = beside.split('/').skip(1).fold(content, |path, step| match step {
                ".." => path.parent().unwrap().to_owned(),
                name => path.join(name),
            });
            let give_back: Box<dyn Fn()> = match is_given_away {
                true => Box::new(given_away(&path)),
                false => Box::new(closed(&path)),
            };
            agent.start_again();
            let dir = place.dir("mount");
            agent.guard(&dir);
            let (url, text) = (origin.url("/d/"), dir.to_str().unwrap().to_owned());
            let mounted = agent.dfctl(&["mount", "--lane", "fuse", &url, &text]);
            let file = dir.join("f");
            if mounted.code == 0 {
                match read_in_time(&file, MIB, MIB) {
                    Ok(read) => assert!(read == bytes[1 << 20..2 << 20], "{what}"),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
                        let said = error_of(&file).unwrap();
                        assert!(said.contains("Permission denied"), "{what}: {said}");
                        assert!(said.contains(agent.data().to_str().unwrap()), "{what}: {said}");
                    }
                }
            } else {
                let said = &mounted.stderr;
                assert!(said.contains("Permission denied"), "{what}: {said}");
                assert!(said.contains(agent.data().to_str().unwrap()), "{what}: {said}");
                give_back();
                agent.dfctl(&["mount", "--lane", "fuse", &url, &text]).done();
            }
            give_back();
            until("it is read once it may be", || {
                read_anew(&file, 0, LENGTH).is_ok_and(|read| read == bytes)
            });
            assert!(!agent.log().contains("panicked"), "{what}: {}", agent.log());
        }
    }
}

#[test]
fn sixty_four_readers_have_their_bytes_of_an_agent_with_little_memory() {
    sixty_four_readers_of_an_agent_with_little_memory("fuse", 128 * MIB);
}

#[test]
fn sixty_four_readers_who_wait_in_the_kernel_have_their_bytes_of_an_agent_with_little_memory() {
    sixty_four_readers_of_an_agent_with_little_memory("kernel", 96 * MIB);
}

/// Each of two files is so long.
fn sixty_four_readers_of_an_agent_with_little_memory(lane: &str, length: u64) {
    const LITTLE: &str = "67108864";
    const READ: u64 = 256 << 10;
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let limits = [("memory.limit_in_bytes", LITTLE), ("memory.max", LITTLE)];
    let group = crate::shortage::Group::new("memory", &limits);
    let holder = Holder::start(&place, 300);
    let enter = group.enter();
    let programs = services_started_by(&place, |agent| format!("{enter}\nexec {agent} \"$@\""));
    let words = ["--holder", holder.socket.to_str().unwrap()];
    let mut node = Node::spawn(&programs, place.root(), "a", None, &words).unwrap();
    node.wait_ready().unwrap();
    let agent = Agent::around(node);
    for (seed, path) in [(1, "/d/fast"), (2, "/d/slow")] {
        origin.put(path, Body::noise(seed, length));
    }
    let pace = origin.inject(Fault::pace(48 * MIB).on("/d/slow"));
    let dir = agent.mount_in(lane, &origin.url("/d/"), place.dir("mount"));
    assert_eq!(agent.shown(&dir).unwrap()["lane"], lane);
    for (seed, name) in [(1, "fast"), (2, "slow")] {
        let (next, body) = (AtomicU64::new(0), Body::noise(seed, length));
        thread::scope(|scope| {
            for _ in 0..64 {
                let (next, body, path) = (&next, &body, dir.join(name));
                scope.spawn(move || {
                    let file = File::open(path).unwrap();
                    let mut buffer = vec![0; READ as usize];
                    loop {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        // Here and there, and each place once.
                        let at = turn.wrapping_mul(197) % (length / READ) * READ;
                        if turn >= length / READ {
                            break;
                        }
                        file.read_exact_at(&mut buffer, at).unwrap();
                        assert!(buffer == body.read(at, at + READ).unwrap(), "{name} at {at}");
                    }
                });
            }
        });
    }
    assert!(pace.struck() > 0);
    let read = |name: &str| fs::read_to_string(group.dir.join(name));
    let counted = read("memory.events").or_else(|_| read("memory.oom_control")).unwrap();
    assert!(counted.lines().any(|line| line == "oom_kill 0"), "{counted}");
    agent.dfctl(&["mounts"]).done();
}

#[test]
fn readers_of_an_agent_that_is_killed_while_it_stands_still_end_with_it() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(2, MIB)).unwrap();
    let mut agent = Agent::solo(&place, "agent");
    let dir = agent.mount_in("fuse", &origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/f").method("GET"));
    let reader = reading(&dir.join("f"));
    gate.wait_struck(1).unwrap();
    agent.node.process().freeze();
    agent.kill();
    find("the reader ends", PATIENCE, || reader.is_finished().then_some(())).unwrap();
    assert!(reader.join().unwrap().is_none());
}

/// Prepares one call, says so, and makes it when it is told to.
const CALLS: &str = r#"
import mmap, os, sys
call, dir = sys.argv[1], sys.argv[2]
file = dir + "/f"
flags = os.O_RDONLY | (os.O_DIRECT if call == "direct" else 0)
handle = os.open(file, flags)
page = mmap.mmap(-1, 1 << 16)
mapped = mmap.mmap(handle, 0, prot=mmap.PROT_READ) if call == "fault" else None
print("ready", flush=True)
sys.stdin.readline()
{
    "read": lambda: os.pread(handle, 100, 1 << 20),
    "fault": lambda: mapped[1 << 20],
    "direct": lambda: os.preadv(handle, [page], 1 << 20),
    "readdir": lambda: os.listdir(dir + "/sub"),
    "stat": lambda: os.stat(dir + "/stat"),
    "open": lambda: os.open(dir + "/open", os.O_RDONLY),
    "getxattr": lambda: os.getxattr(file, "user.dfs.state"),
}[call]()
"#;

/// A process that makes one call in a mount.
struct Caller {
    call: &'static str,
    process: Owned,
}

impl Caller {
    fn ready(call: &'static str, dir: &Path) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", CALLS, call]).arg(dir);
        python.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut process = Owned::start(&mut python).unwrap();
        let mut line = [0; 6];
        io::Read::read_exact(process.child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self { call, process }
    }

    /// Makes the call, and waits until the kernel has it wait for the agent.
    fn call(&mut self) {
        io::Write::write_all(self.process.child.stdin.as_mut().unwrap(), b"go\n").unwrap();
        let stack = format!("/proc/{}/stack", self.process.child.id());
        let waits = ["fuse_", "request_wait_answer", "folio_wait", "folio_lock", "filemap_fault"];
        until(&format!("{} waits", self.call), || {
            let stack = fs::read_to_string(&stack).unwrap();
            waits.iter().any(|wait| stack.contains(wait))
        });
    }

    /// Kills it: it is gone within so much.
    fn dies_within(mut self, limit: Duration) {
        assert_eq!(self.stays(limit), None);
    }

    /// Kills it: in what it still is after so much.
    fn stays(&mut self, limit: Duration) -> Option<&'static str> {
        let pid = Pid::from_child(&self.process.child);
        assert!(self.process.child.try_wait().unwrap().is_none(), "{} had ended", self.call);
        kill_process(pid, Signal::KILL).unwrap();
        let what = format!("who was killed in {} is gone", self.call);
        let gone = find(&what, limit, || self.process.child.try_wait().unwrap());
        gone.is_err().then_some(self.call)
    }
}

/// What nobody waits for who is killed, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

fn with_names() -> Origin {
    let origin = Origin::of("/d/f", Body::noise(1, 8 * MIB)).unwrap();
    for name in ["first", "stat", "open", "sub/a"] {
        origin.put(&format!("/d/{name}"), Body::noise(2, 100_000));
    }
    origin
}

#[test]
fn who_is_killed_while_the_origin_says_nothing_is_gone_at_once_or_at_the_deadline() {
    let (place, origin) = (Place::new(), with_names());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount_in("fuse", &origin.url("/d/"), place.dir("mount"));
    let gate = origin.inject(Fault::gate().on("/d/f"));
    let mut callers = ["read", "fault", "direct"].map(|call| Caller::ready(call, &dir));
    callers.iter_mut().for_each(Caller::call);
    gate.wait_struck(1).unwrap();
    // The agent has what was asked past the page cache, and the kernel waits for its answer.
    let limits = [AT_ONCE, AT_ONCE, DEADLINE];
    callers.into_iter().zip(limits).for_each(|(caller, limit)| caller.dies_within(limit));
    gate.lift();
    assert!(read_in_time(&dir.join("f"), 0, 8 * MIB).unwrap() == all(&Body::noise(1, 8 * MIB)));
}

#[test]
fn who_is_killed_while_the_agent_stands_still_is_gone_at_once() {
    let calls = ["read", "fault", "readdir", "stat", "open", "getxattr"];
    let (place, origin) = (Place::new(), with_names());
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount_in("fuse", &origin.url("/d/"), place.dir("mount"));
    // With the first file that is closed the kernel learns that it need tell nobody: until then the end of a process
    // waits for the answer, too.
    fs::read(dir.join("first")).unwrap();
    let mut callers = calls.map(|call| Caller::ready(call, &dir));
    agent.node.process().freeze();
    callers.iter_mut().for_each(Caller::call);
    let left: Vec<_> = callers.iter_mut().filter_map(|caller| caller.stays(AT_ONCE)).collect();
    // However it went, the agent goes on before anybody waits for those.
    agent.node.process().thaw();
    assert!(left.is_empty(), "{left:?}");
    assert!(read_in_time(&dir.join("f"), 0, 8 * MIB).unwrap() == all(&Body::noise(1, 8 * MIB)));
}

#[test]
fn what_somebody_waits_for_is_asked_of_the_origin_before_what_comes_in_the_background() {
    let (place, origin) = (Place::new(), Origin::start().unwrap());
    let large = |number: u64| format!("/d/large-{number}");
    for number in 0..LARGE {
        origin.put(&large(number), Body::noise(number, 64 * MIB));
    }
    origin.put("/d/small", Body::noise(100, 100_000));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount_in("fuse", &origin.url("/d/"), place.dir("mount"));
    // The origin answers nothing of what it is asked for in the background.
    let gates: Vec<_> = (0..LARGE)
        .map(|number| origin.inject(Fault::gate().on(&large(number)).method("GET")))
        .collect();
    let getting: Vec<_> = (0..LARGE)
        .map(|number| {
            let output = place.path(&format!("out-{number}"));
            let words = ["get", &origin.url(&large(number)), "-o", output.to_str().unwrap()];
            agent.dfctl_start(&words)
        })
        .collect();
    let asked = || gates.iter().map(|gate| gate.struck()).sum::<u64>();
    until("it is asked for as much as it may be", || asked() >= BACKGROUND);
    let read = read_in_time(&dir.join("small"), 0, 100_000).unwrap();
    assert!(read == all(&Body::noise(100, 100_000)));
    gates.iter().for_each(|gate| gate.lift());
    drop(getting);
}

/// Large files that are got at once.
const LARGE: u64 = 24;

/// Requests of a host that may be under way for what nobody waits for.
const BACKGROUND: u64 = 12;

/// Objects whose index is longer than a mebibyte: it is read where it stands.
const INDEXED: u64 = 20_000;

/// A mount of that many objects, whose agent is started again when it dies.
fn indexed() -> (Own, Origin, PathBuf, Mount) {
    let (own, origin) = (Own::start(Place::new()), Origin::start().unwrap());
    origin.shelve("/lab", Shelf::new(INDEXED, 1000));
    let url = format!("s3://anonymous@lab/?endpoint=http://{}", origin.address());
    let (dir, guard) = own.mount(&url);
    (own, origin, dir, guard)
}

/// Takes most of the index away from under the agent.
fn cut_index(agent: Pid) {
    let maps = fs::read_to_string(format!("/proc/{}/maps", agent.as_raw_nonzero())).unwrap();
    let index = maps.lines().find(|line| line.ends_with("/content")).unwrap();
    cut(Path::new(&index[index.find('/').unwrap()..]), 4096);
}

/// Names all files, in a process that may have to wait.
fn listed(dir: &Path) -> Output {
    let mut find = Command::new("find");
    find.arg(dir).args(["-type", "f"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    find.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn an_index_that_is_cut_under_a_mount_is_made_again_and_nobody_sees_an_error() {
    let (own, _origin, dir, _guard) = indexed();
    let agent = own.agent();
    cut_index(agent);
    let listed = listed(&dir);
    assert!(listed.status.success(), "{listed:?}");
    let names = listed.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(names as u64, INDEXED);
    assert_ne!(own.agent(), agent, "the agent could not read what was cut");
}

#[test]
fn a_mount_whose_index_is_cut_and_whose_origin_is_gone_ends_and_hangs_nobody() {
    let (own, origin, dir, _guard) = indexed();
    drop(origin);
    cut_index(own.agent());
    assert!(!listed(&dir).status.success());
    until("the next agent says so", || {
        own.log().contains("an earlier agent's mount is taken away")
    });
}

/// Longer than any request of a mount may take.
const MINUTE: Duration = Duration::from_secs(65);

/// Readers of one mount, each of a file of its own, and the agent.
struct Reading {
    // What is mounted goes before the place that it is in.
    _mounts: Vec<Mount>,
    own: Own,
    _origin: Origin,
    readers: Vec<JoinHandle<Option<Vec<u8>>>>,
}

impl Reading {
    const READERS: u64 = 8;

    fn body(number: u64) -> Body {
        Body::noise(number, 8 * MIB)
    }

    /// All of them are at it.
    fn in_lane(lane: Lane) -> Self {
        let (own, origin) = (Own::start(Place::new()), Origin::start().unwrap());
        (0..Self::READERS)
            .for_each(|number| origin.put(&format!("/d/{number}"), Self::body(number)));
        let pace = origin.inject(Fault::pace(4 * MIB));
        let (dir, _mounts) = lanes::mounted(&own, lane, &origin.url("/d/"));
        let readers = (0..Self::READERS).map(|number| reading(&dir.join(number.to_string())));
        let readers = readers.collect();
        until("all are read", || pace.struck() >= Self::READERS);
        Self { own, _origin: origin, _mounts, readers }
    }

    fn all_read_on(self) {
        for (number, reader) in (0..).zip(self.readers) {
            let read = reader.join().unwrap();
            assert!(read.is_some_and(|read| read == all(&Self::body(number))), "{number}");
        }
    }
}

#[test]
fn who_reads_while_the_agent_is_stopped_for_a_minute_reads_on_after_it() {
    // Whether the kernel asks the agent, or reads by itself what the agent brings.
    let readings = [Lane::Fuse, Lane::Lazy].map(Reading::in_lane);
    let stopped = readings.each_ref().map(|reading| Stopped::new(reading.own.agent()));
    // What is under way fails in that time, as far as clocks go on.
    let begun = Instant::now();
    find("a minute has passed", DEADLINE, || (begun.elapsed() > MINUTE).then_some(())).unwrap();
    for reading in &readings {
        assert!(reading.readers.iter().any(|reader| !reader.is_finished()), "some still wait");
    }
    drop(stopped);
    readings.into_iter().for_each(Reading::all_read_on);
}
