//! Reads that the kernel asks about before it makes them: pre-content events (fanotify(7), Linux 6.14).
//!
//! Whoever reads a marked file waits until it is said that the bytes are there, or that they cannot be had. What is asked
//! of a group is known by a number, the same for everybody who has the group; so one process can answer what another has
//! taken. **Once nobody has a group any more the kernel makes every read that waits, and every later one.**

use std::collections::HashSet;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;

/// `FAN_PRE_ACCESS`: before bytes are read, or written.
const PRE_ACCESS: u64 = 0x0010_0000;

/// `FAN_EVENT_INFO_TYPE_RANGE`: which bytes.
const RANGE: u8 = 6;

/// Bytes of `struct fanotify_event_metadata`.
const HEAD: usize = 24;

/// The only layout of it that there has been.
const VERSION: u8 = 3;

/// Bytes of what says which bytes: type, padding, length, padding, offset, count.
const RANGE_BYTES: usize = 24;

/// Events taken at a time: each is a head and a range.
const ROOM: usize = 64 * (HEAD + RANGE_BYTES);

/// Until reads are looked for that who died had taken; doubles each time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// A read that waits for an answer.
#[derive(Debug)]
pub(crate) struct Event {
    /// The file that is read, opened so that nothing is asked about it. Its number is that of the question, until it is
    /// answered.
    pub file: OwnedFd,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub count: u64,
}

/// What is said about a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The bytes are there.
    Read,
    /// They cannot be had: EIO.
    Fail,
}

impl Answer {
    fn to_wire(self) -> u32 {
        match self {
            Self::Read => libc::FAN_ALLOW,
            // The number of the error is in the highest byte.
            Self::Fail => libc::FAN_DENY | (libc::EIO as u32) << 24,
        }
    }
}

/// Files that the kernel asks about; a hold on it.
#[derive(Debug)]
pub(crate) struct Group(OwnedFd);

impl Group {
    /// One that has no files yet. Takes CAP_SYS_ADMIN.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Self> {
        // A queue without end: what does not fit into one is read without being asked about.
        let flags = libc::FAN_CLASS_PRE_CONTENT
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS;
        let opens = libc::O_RDWR | libc::O_LARGEFILE | libc::O_CLOEXEC;
        // SAFETY: it takes numbers only.
        let group = unsafe { libc::fanotify_init(flags, opens as u32) };
        if group < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for this call alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(group) }))
    }

    /// The group behind a descriptor.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Another hold on the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Has the kernel ask before a file is read by whoever opens it from now on; who has it open reads on unasked.
    pub fn mark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.change(libc::FAN_MARK_ADD, file)
    }

    /// Has the kernel not ask about a file any more.
    pub fn unmark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        match self.change(libc::FAN_MARK_REMOVE, file) {
            // It did not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    #[allow(unsafe_code)]
    fn change(&self, flags: u32, file: BorrowedFd<'_>) -> io::Result<()> {
        let (group, file) = (self.0.as_raw_fd(), file.as_raw_fd());
        // SAFETY: both descriptors are open for the call; without a name it is about the file itself.
        let done = unsafe { libc::fanotify_mark(group, flags, PRE_ACCESS, file, std::ptr::null()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The inodes that the kernel asks about, as it says itself.
    pub fn marked(&self) -> io::Result<HashSet<u64>> {
        let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        Ok(marked_in(&facts))
    }

    /// Takes what was asked and by nobody taken yet; nothing where there is nothing now.
    pub fn take(&self) -> io::Result<Vec<Event>> {
        let mut bytes = [0; ROOM];
        match rustix::io::read(&self.0, &mut bytes[..]) {
            Ok(length) => Ok(events_in(&bytes[..length]).into_iter().filter_map(owned).collect()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers a question, whoever took it. Whether there was one of this number: who waited may have been killed.
    pub fn answer(&self, number: RawFd, answer: Answer) -> io::Result<bool> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&number.to_ne_bytes());
        bytes[4..].copy_from_slice(&answer.to_wire().to_ne_bytes());
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &bytes)) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Has every read fail that was taken by anybody and not answered, and every one that nobody has taken yet.
    pub fn fail_all(&self, numbers: RawFd) -> io::Result<()> {
        (0..numbers).try_for_each(|number| self.fail(number))?;
        self.fail_new()
    }

    /// Has every read fail that nobody has taken yet.
    pub fn fail_new(&self) -> io::Result<()> {
        loop {
            let events = self.take()?;
            if events.is_empty() {
                return Ok(());
            }
            events.iter().try_for_each(|event| self.fail(event.file.as_raw_fd()))?;
        }
    }

    /// Of one number there are as many questions as processes have taken them.
    fn fail(&self, number: RawFd) -> io::Result<()> {
        while self.answer(number, Answer::Fail)? {}
        Ok(())
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has every read of a mount fail that has nobody to fetch what it wants. As long as this has the group the kernel lets
/// nothing through.
pub(crate) struct Failing<'a> {
    group: &'a Group,
    ended: BorrowedFd<'a>,
    name: &'a str,
    pause: Duration,
}

impl<'a> Failing<'a> {
    /// Has all fail that wait now. The mount is over once `ended` can be read.
    pub fn begin(group: &'a Group, ended: BorrowedFd<'a>, name: &'a str) -> Self {
        let failing = Self { group, ended, name, pause: PAUSE };
        failing.tell(group.fail_all(numbers()));
        failing
    }

    /// Has all fail that come in a while; whether somebody may still read.
    pub fn goes_on(&mut self) -> bool {
        let mut asked = [
            PollFd::from_borrowed_fd(self.ended, PollFlags::IN),
            PollFd::from_borrowed_fd(self.group.as_fd(), PollFlags::IN),
        ];
        let pause = self.pause.try_into().unwrap_or_default();
        let Ok(happened) = poll(&mut asked, Some(&pause)) else { return true };
        if !asked[0].revents().is_empty() {
            return false;
        }
        if happened > 0 {
            self.tell(self.group.fail_new());
        } else {
            // Somebody else who does the same may have died between taking a read and answering it.
            self.tell(self.group.fail_all(numbers()));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        true
    }

    fn tell(&self, failed: io::Result<()>) {
        if let Err(error) = failed {
            tracing::error!(name = self.name, %error, "a read cannot be answered");
        }
    }
}

/// Numbers that a question can have, at most: those of descriptors.
pub(crate) fn numbers() -> RawFd {
    const MOST: u64 = 1 << 20;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(MOST).min(MOST) as RawFd
}

/// What can be read once the file system that `root` leads to is gone: it has no name any more, and nobody uses it.
pub(crate) fn end_of(root: &Path) -> io::Result<OwnedFd> {
    let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // Whatever is watched for, its end is told too.
    add_watch(&watch, root, WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR)?;
    Ok(watch)
}

/// A question, as it stands in what the kernel writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    number: c_int,
    offset: u64,
    count: u64,
}

#[allow(unsafe_code)]
fn owned(question: Question) -> Option<Event> {
    let Question { number, offset, count } = question;
    // SAFETY: the kernel opened it for who reads the event, and it is read once.
    (number >= 0).then(|| Event { file: unsafe { OwnedFd::from_raw_fd(number) }, offset, count })
}

/// What is asked. Where it is not said of which bytes, it is of all.
fn events_in(mut bytes: &[u8]) -> Vec<Question> {
    let mut questions = Vec::new();
    while let Some(length) = word(bytes, 0).map(|length| length as usize) {
        if length < HEAD || length > bytes.len() || bytes[4] != VERSION {
            break;
        }
        let (event, rest) = bytes.split_at(length);
        let number = word(event, 16).map_or(-1, |number| number as c_int);
        let begins = usize::from(u16::from_ne_bytes([event[6], event[7]]));
        let (offset, count) = range_in(event.get(begins..).unwrap_or_default());
        questions.push(Question { number, offset, count });
        bytes = rest;
    }
    questions
}

fn range_in(mut infos: &[u8]) -> (u64, u64) {
    while let &[kind, _, low, high, ..] = infos {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        if length < 4 || length > infos.len() {
            break;
        }
        let (info, rest) = infos.split_at(length);
        if let (RANGE, Some(offset), Some(count)) = (kind, long(info, 8), long(info, 16)) {
            return (offset, count);
        }
        infos = rest;
    }
    (0, u64::MAX)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The inodes in a group's lines of fdinfo that are marked as they must be.
fn marked_in(facts: &str) -> HashSet<u64> {
    let marked = facts.lines().filter_map(|line| {
        let fields = line.strip_prefix("fanotify ")?;
        let field = |name: &str| {
            let value = fields.split(' ').find_map(|field| field.strip_prefix(name))?;
            u64::from_str_radix(value, 16).ok()
        };
        let is_asked = field("mask:")? & PRE_ACCESS != 0 && field("ignored_mask:")? == 0;
        field("ino:").filter(|_| is_asked)
    });
    marked.collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::PathBuf;
    use std::thread::{self, JoinHandle};

    use proptest::prelude::*;
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    use tempfile::TempDir;

    use super::*;

    fn file() -> (TempDir, PathBuf, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        (dir, path, file)
    }

    fn reading(path: &Path, offset: u64) -> JoinHandle<io::Result<u8>> {
        let path = path.to_owned();
        thread::spawn(move || {
            let mut byte = [0];
            File::open(path)?.read_exact_at(&mut byte, offset)?;
            Ok(byte[0])
        })
    }

    fn wait(group: &Group) {
        poll(&mut [PollFd::new(group, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn who_reads_a_marked_file_waits_for_the_bytes_and_who_had_it_open_before_is_never_asked_about()
    {
        let (_dir, path, early) = file();
        let group = Group::new().unwrap();
        group.mark(early.as_fd()).unwrap();
        let reader = reading(&path, 70_000);
        wait(&group);
        let events = group.take().unwrap();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert!((event.offset..event.offset + event.count).contains(&70_000), "{event:?}");
        // By who was not asked about: nobody would answer.
        early.write_all_at(b"x", 70_000).unwrap();
        assert!(!reader.is_finished());
        assert!(group.answer(event.file.as_raw_fd(), Answer::Read).unwrap());
        assert_eq!(reader.join().unwrap().unwrap(), b'x');
        assert!(!group.answer(event.file.as_raw_fd(), Answer::Read).unwrap(), "it was answered");
        let mut byte = [1];
        (&early).read_exact(&mut byte).unwrap();
        assert_eq!((byte, group.take().unwrap().len()), ([0], 0));
    }

    #[test]
    fn the_kernel_says_of_what_it_asks() {
        let ((_dir, _, one), (_other_dir, _, other)) = (file(), file());
        let group = Group::new().unwrap();
        group.mark(one.as_fd()).unwrap();
        let inode = |file: &File| file.metadata().unwrap().ino();
        assert_eq!(group.marked().unwrap(), HashSet::from([inode(&one)]));
        group.mark(other.as_fd()).unwrap();
        assert_eq!(group.marked().unwrap(), HashSet::from([inode(&one), inode(&other)]));
        for _ in 0..2 {
            group.unmark(one.as_fd()).unwrap();
        }
        assert_eq!(group.marked().unwrap(), HashSet::from([inode(&other)]));
    }

    #[test]
    fn every_read_fails_whoever_has_taken_it_or_nobody() {
        let (_dir, path, early) = file();
        let group = Group::new().unwrap();
        group.mark(early.as_fd()).unwrap();
        let readers: Vec<_> = (0..3).map(|at| reading(&path, at << 18)).collect();
        wait(&group);
        let taken = group.take().unwrap();
        assert!(!taken.is_empty());
        // As another process that has the group, and does not know what was taken.
        let other = group.try_clone().unwrap();
        drop(group);
        while !readers.iter().all(JoinHandle::is_finished) {
            other.fail_all(1024).unwrap();
            thread::yield_now();
        }
        for reader in readers {
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
        }
    }

    #[test]
    fn the_end_of_a_file_system_is_told_once_nobody_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(end_of(&dir.path().join("nothing")).is_err());
        let end = end_of(dir.path()).unwrap();
        let now = rustix::event::Timespec::default();
        let told =
            |end: &OwnedFd| poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&now)).unwrap();
        assert_eq!(told(&end), 0);
        // Of one that is taken away, and still used.
        mount("none", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        let used = File::create(dir.path().join("file")).unwrap();
        let end = end_of(dir.path()).unwrap();
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
        assert_eq!(told(&end), 0, "somebody has a file of it open");
        drop(used);
        assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], None).unwrap(), 1);
    }

    fn event(number: i32, infos: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..4].copy_from_slice(&((HEAD + infos.len()) as u32).to_ne_bytes());
        bytes[4] = VERSION;
        bytes[6..8].copy_from_slice(&(HEAD as u16).to_ne_bytes());
        bytes[16..20].copy_from_slice(&number.to_ne_bytes());
        bytes.extend_from_slice(infos);
        bytes
    }

    fn range(offset: u64, count: u64) -> Vec<u8> {
        let mut info = vec![RANGE, 0, RANGE_BYTES as u8, 0, 0, 0, 0, 0];
        info.extend_from_slice(&offset.to_ne_bytes());
        info.extend_from_slice(&count.to_ne_bytes());
        info
    }

    #[test]
    fn what_is_not_said_to_be_of_some_bytes_is_of_all() {
        let other = [9, 0, 8, 0, 1, 2, 3, 4];
        let bytes = [event(5, &[&other[..], &range(7, 8)].concat()), event(6, &other)].concat();
        let all = Question { number: 6, offset: 0, count: u64::MAX };
        assert_eq!(events_in(&bytes), [Question { number: 5, offset: 7, count: 8 }, all]);
        assert_eq!(events_in(&bytes[..bytes.len() - 1]).len(), 1, "one that was cut off");
    }

    proptest! {
        #[test]
        fn garbage_is_no_event_or_some(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..200usize) {
            let _ = events_in(&bytes);
            let mut framed = event(1, &bytes);
            let at = at.min(framed.len() - 1);
            framed[at] ^= 1;
            prop_assert!(events_in(&framed).len() <= framed.len() / HEAD);
        }
    }

    #[test]
    fn only_what_is_marked_to_be_asked_about_counts_as_marked() {
        let facts = "flags:\t02\nfanotify flags:9 event-flags:8002\n\
            fanotify ino:98c0ac sdev:fe00000 mflags:0 mask:100000 ignored_mask:0 fhandle-bytes:8\n\
            fanotify ino:11 sdev:1 mflags:0 mask:20 ignored_mask:0 fhandle-bytes:8\n\
            fanotify ino:12 sdev:1 mflags:0 mask:100000 ignored_mask:100000 fhandle-bytes:8\n";
        assert_eq!(marked_in(facts), HashSet::from([0x98_c0ac]));
    }
}
