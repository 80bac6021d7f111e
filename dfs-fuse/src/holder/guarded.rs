//! One mount whose reads wait for bytes, in its holder's hands: takes what the kernel asks, tells the agent of it, and
//! gives the kernel the agent's answer.
//!
//! Nothing here waits. Where there is no agent the reads do, until [`Gate`] says otherwise.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use dfs_model::Invariant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::Guard;
use super::gate::{Gate, Verdict};
use super::packet::{self, Answered, Outcome, Wanted};
use crate::fanotify::{Answer, Event};

/// Reads that are taken from the kernel at a time, at most: the others wait in its own queue. Each takes a descriptor.
const TAKEN: usize = 1024;

/// How often the kernel is asked for reads until others have their turn: there is no end to those that fail and are tried again.
const ROUNDS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Guarded {
    guard: Guard,
    /// Which content file an inode is.
    files: HashMap<(u64, u64), u32>,
    /// The questions not answered yet: their numbers are used for no other while these are open.
    events: HashMap<RawFd, OwnedFd>,
    gate: Gate,
    /// To the agent.
    line: Option<OwnedFd>,
}

impl Guarded {
    pub(super) fn new(guard: Guard, now: Instant) -> io::Result<Self> {
        let inodes = guard.contents.iter().map(inode);
        let files = (0..).zip(inodes).map(|(at, inode)| Ok((inode?, at)));
        let files = files.collect::<io::Result<_>>()?;
        Ok(Self { guard, files, events: HashMap::new(), gate: Gate::new(now), line: None })
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(super) fn is_over(&self) -> bool {
        self.gate.is_over()
    }

    /// Whether nobody uses the mount any more.
    pub(super) fn has_ended(&self) -> bool {
        let mut asked = [PollFd::new(&self.guard.ended, PollFlags::IN)];
        // A poll that fails tells nothing.
        poll(&mut asked, Some(&Timespec::default())).is_ok() && !asked[0].revents().is_empty()
    }

    /// An agent is there: its end of a new line.
    pub(super) fn connect(&mut self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        self.line = Some(own);
        self.gate.came();
        Ok(other)
    }

    /// It is gone.
    pub(super) fn went(&mut self, now: Instant) {
        self.line = None;
        self.gate.went(now);
    }

    /// Reads fail from now on.
    pub(super) fn close(&mut self) {
        self.line = None;
        for number in self.gate.close() {
            self.answer(number, Answer::Fail);
        }
    }

    /// Every byte of it is here, and nobody is asked any more: who waits reads, also where the agent's word was still on its
    /// way, and where somebody else has the group a while longer.
    pub(super) fn let_through(mut self) {
        for number in self.gate.close() {
            self.answer(number, Answer::Read);
        }
    }

    /// When something is to be done, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gate.due()
    }

    /// What is to be watched.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let group = PollFd::new(&self.guard.group, PollFlags::IN);
        let has_room = self.gate.len() < TAKEN;
        let ended = PollFd::new(&self.guard.ended, PollFlags::IN);
        let heard = match self.gate.to_tell() {
            Some(_) => PollFlags::IN | PollFlags::OUT,
            None => PollFlags::IN,
        };
        let line = self.line.iter().map(move |line| PollFd::new(line, heard));
        has_room.then_some(group).into_iter().chain([ended]).chain(line)
    }

    /// Does what there is to do now.
    pub(super) fn work(&mut self, now: Instant) {
        self.hear(now);
        self.take(now);
        self.tell(now);
        for number in self.gate.overdue(now) {
            self.answer(number, Answer::Fail);
        }
    }

    fn hear(&mut self, now: Instant) {
        while let Some(line) = &self.line {
            match packet::receive::<Answered>(line) {
                Ok(Some((Answered { number, outcome }, _))) => {
                    if self.gate.answered(number) {
                        self.answer(number, outcome.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Its agent is gone, or talks nonsense.
                Ok(None) | Err(_) => self.went(now),
            }
        }
    }

    fn take(&mut self, now: Instant) {
        for _ in 0..ROUNDS {
            if self.gate.len() >= TAKEN {
                return;
            }
            match self.guard.group.take() {
                Ok(events) if events.is_empty() => return,
                Ok(events) => events.into_iter().for_each(|event| self.ask(event, now)),
                // The kernel has had the read fail.
                Err(error) => {
                    tracing::error!(name = self.guard.name, %error, "a read cannot be taken");
                    return;
                }
            }
        }
    }

    fn ask(&mut self, event: Event, now: Instant) {
        let number = event.file.as_raw_fd();
        let known = inode(&event.file).ok();
        let file = known.and_then(|inode| self.files.get(&inode).copied());
        self.events.insert(number, event.file);
        let (offset, count) = (event.offset, event.count);
        let verdict = match file {
            Some(_) if Invariant::NoHoleIsRead.is_broken() => Verdict::Passes,
            Some(file) => self.gate.asked(number, Wanted { number, file, offset, count }, now),
            // Nobody would know what to fetch.
            None => Verdict::Fails,
        };
        match verdict {
            Verdict::Waits => {}
            Verdict::Passes => self.answer(number, Answer::Read),
            Verdict::Fails => self.answer(number, Answer::Fail),
        }
    }

    fn tell(&mut self, now: Instant) {
        while let (Some(line), Some(wanted)) = (&self.line, self.gate.to_tell()) {
            match packet::send(line, &wanted, &[]) {
                Ok(()) => self.gate.told(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.went(now),
            }
        }
    }

    /// Who waited may have been killed: then there is no such question.
    fn answer(&mut self, number: RawFd, answer: Answer) {
        if let Err(error) = self.guard.group.answer(number, answer) {
            tracing::error!(name = self.guard.name, number, %error, "a read cannot be answered");
        }
        // Its number is another one's from here on.
        self.events.remove(&number);
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Here => Self::Read,
            Outcome::Failed => Self::Fail,
        }
    }
}

fn inode(file: &impl AsFd) -> io::Result<(u64, u64)> {
    let facts = rustix::fs::fstat(file)?;
    Ok((facts.st_dev, facts.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use dfs_proto::node::KeptMount;

    use super::*;
    use crate::fanotify::{Group, end_of};
    use crate::holder::Record;

    #[test]
    fn who_waits_when_a_mount_comes_to_need_nobody_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let (group, now) = (Group::new().unwrap(), Instant::now());
        group.mark(file.as_fd()).unwrap();
        let guard = Guard {
            name: "mount".to_owned(),
            group: group.try_clone().unwrap(),
            ended: end_of(dir.path()).unwrap(),
            record: Record::of(&KeptMount::default()).unwrap(),
            contents: vec![file.try_clone().unwrap()],
        };
        let mut guarded = Guarded::new(guard, now).unwrap();
        let line = guarded.connect().unwrap();
        let reader = std::thread::spawn(move || {
            let mut byte = [0];
            File::open(path)?.read_exact_at(&mut byte, 70_000)?;
            Ok::<_, io::Error>(byte[0])
        });
        poll(&mut [PollFd::new(&group, PollFlags::IN)], None).unwrap();
        guarded.work(now);
        let (wanted, _) = packet::receive::<Wanted>(&line).unwrap().unwrap();
        assert!((wanted.offset..wanted.offset + wanted.count).contains(&70_000), "{wanted:?}");
        // All comes, and the agent looks, before its word has.
        file.write_all_at(b"x", 70_000).unwrap();
        group.unmark(file.as_fd()).unwrap();
        guarded.let_through();
        assert_eq!(reader.join().unwrap().unwrap(), b'x');
    }
}
