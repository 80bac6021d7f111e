//! A second hold on what is guarded: a process that does nothing but have it, until the holder dies.
//!
//! The kernel lets every read through once nobody has a mount's group any more. The holder has it, and so has the agent; where
//! both die at once, or the holder dies while no agent is there, this one takes the mounts away and has their reads fail
//! until nobody uses them. Where it dies itself the holder starts another.

use std::collections::BTreeMap;
use std::io::{self, stdin};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use dfs_service::telemetry::{self, LogFormat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::process::NAME;
use super::{Guard, packet};
use crate::fanotify::Failing;
use crate::mount;

/// The word that it is started with; nobody else has a use for it.
const WORD: &str = "second-holder";

/// Until another one is started after one that died.
const AGAIN: Duration = Duration::from_secs(1);

/// How long it may take to make room for what it is told; it has nothing else to do. Meanwhile nobody else is heard.
const PROMPT: Duration = Duration::from_secs(1);

/// What a holder says to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
enum FromHolder {
    /// Have this; with its descriptors.
    Guard { name: String },
    /// It needs nobody any more.
    LetGo { name: String },
}

/// Whether this process was started as one.
pub fn is_meant() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == WORD)
}

/// Runs until the holder at the other end of the standard input is gone, and what was guarded is not used any more.
pub fn run() -> io::Result<()> {
    telemetry::init(telemetry::DEFAULT_FILTER, LogFormat::Auto).map_err(io::Error::other)?;
    // It is the last to go: whoever asks all of a service to end does not mean it.
    let _asked = super::process::signals()?;
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"dfs-holder-2");
    // Until all have ended none of them is let go of.
    let guarded = left_by_holder(stdin())?;
    std::thread::scope(|scope| {
        for guard in &guarded {
            let begun = std::thread::Builder::new().spawn_scoped(scope, || end(guard));
            if begun.is_err() {
                // The others wait for that long, and see nothing.
                end(guard);
            }
        }
    });
    Ok(())
}

/// What is guarded when the holder at the other end of `line` is gone. Whoever does not understand a holder that lives
/// is of no use to it, and takes nothing away.
fn left_by_holder(line: impl AsFd) -> io::Result<Vec<Guard>> {
    let mut guarded = BTreeMap::new();
    while let Some((said, descriptors)) = packet::receive(&line)? {
        match said {
            FromHolder::Guard { name } => {
                guarded.extend(Guard::of(name.clone(), descriptors).map(|guard| (name, guard)));
            }
            FromHolder::LetGo { name } => drop(guarded.remove(&name)),
        }
    }
    Ok(guarded.into_values().collect())
}

fn end(guard: &Guard) {
    tracing::error!(name = guard.name, "a mount lost its holder: it is taken away");
    let at = guard.record.read().ok().and_then(|record| record.at).unwrap_or_default();
    mount::take_away(&at);
    let mut failing = Failing::begin(&guard.group, guard.ended.as_fd(), &guard.name);
    while failing.goes_on() {}
}

/// The process, as its holder sees it.
#[derive(Debug, Default)]
pub(super) struct Second {
    running: Option<(OwnedFd, Child)>,
    /// Before then no other one is started.
    not_before: Option<Instant>,
    /// Those that are to end: nobody waits for that.
    ending: Vec<Child>,
}

impl Second {
    /// What is to be watched: it can be read once it is gone.
    pub(super) fn watched(&self) -> Option<PollFd<'_>> {
        self.running.as_ref().map(|(socket, _)| PollFd::new(socket, PollFlags::IN))
    }

    /// When it is to be looked after, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.running.is_none())
    }

    /// Sees to it that there is one that has all of `guarded`, if there are any.
    pub(super) fn look_after<'a>(
        &mut self,
        guarded: impl Iterator<Item = &'a Guard>,
        now: Instant,
    ) {
        if self.running.as_ref().is_some_and(|(socket, _)| is_closed(socket)) {
            self.lose(now);
        }
        self.ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let mut guarded = guarded.peekable();
        if self.running.is_some()
            || guarded.peek().is_none()
            || self.not_before.is_some_and(|not_before| now < not_before)
        {
            return;
        }
        self.not_before = Some(now + AGAIN);
        match start() {
            Ok(running) => {
                self.running = Some(running);
                guarded.for_each(|guard| self.have(guard, now));
            }
            Err(error) => tracing::error!(%error, "there is no second hold on what is guarded"),
        }
    }

    /// Whether there is one that has all it was told to have.
    pub(super) fn is_there(&self) -> bool {
        self.running.is_some()
    }

    /// The next one may be started at once.
    pub(super) fn need_not_wait(&mut self) {
        self.not_before = None;
    }

    /// Has it have one more.
    pub(super) fn have(&mut self, guard: &Guard, now: Instant) {
        let own = [guard.group.as_fd(), guard.ended.as_fd(), guard.record.as_fd()];
        self.say(&FromHolder::Guard { name: guard.name.clone() }, &own, now);
    }

    /// Has it have one less.
    pub(super) fn let_go(&mut self, name: &str, now: Instant) {
        self.say(&FromHolder::LetGo { name: name.to_owned() }, &[], now);
    }

    fn say(&mut self, said: &FromHolder, with: &[BorrowedFd<'_>], now: Instant) {
        let Some((socket, _)) = &self.running else { return };
        if packet::send(socket, said, with).is_err() {
            // The next one is told all.
            self.lose(now);
        }
    }

    fn lose(&mut self, now: Instant) {
        let Some((socket, mut child)) = self.running.take() else { return };
        // One that does not read what it is told is no use either. First: it would take the other end's for the holder's.
        let _ = child.kill();
        drop(socket);
        self.ending.push(child);
        tracing::warn!("the second hold on what is guarded is gone");
        self.not_before.get_or_insert(now);
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let Some((socket, mut child)) = self.running.take() else { return };
        // Nothing is guarded any more, or this process fails: then it goes on alone.
        drop(socket);
        let _ = child.try_wait();
    }
}

fn start() -> io::Result<(OwnedFd, Child)> {
    let flags = SocketFlags::CLOEXEC;
    let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    super::process::patient(&own, PROMPT)?;
    // This one, whatever lies where it lay by now.
    let mut command = Command::new("/proc/self/exe");
    Ok((own, command.arg0(NAME).arg(WORD).stdin(other).spawn()?))
}

/// Nothing is ever said at the other end.
fn is_closed(socket: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec::default())).is_ok() && !asked[0].revents().is_empty()
}

#[cfg(test)]
mod tests {
    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn one_that_does_not_read_is_killed_before_it_can_take_its_holder_for_gone_and_nobody_waits_for_it()
     {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        super::super::process::patient(&own, Duration::from_millis(1)).unwrap();
        let child = Command::new("sleep").arg("600").stdin(other).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let running = Some((own, child));
        let mut second = Second { running, not_before: None, ending: Vec::new() };
        let now = Instant::now();
        while second.is_there() {
            second.let_go("mount", now);
        }
        poll(&mut [PollFd::new(&handle, PollFlags::IN)], None).unwrap();
        assert_eq!(second.ending.len(), 1, "it was not waited for");
        second.look_after(std::iter::empty(), now);
        assert!(second.ending.is_empty() && second.due().is_some());
    }

    #[test]
    fn nothing_is_taken_for_lost_because_of_a_holder_that_is_not_understood() {
        let flags = SocketFlags::CLOEXEC;
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (holder, own) = pair();
        packet::send(&holder, &FromHolder::LetGo { name: "unknown".to_owned() }, &[]).unwrap();
        drop(holder);
        assert!(left_by_holder(&own).unwrap().is_empty(), "it has gone");
        let (holder, own) = pair();
        rustix::io::write(&holder, b"{}").unwrap();
        assert!(left_by_holder(&own).is_err());
    }
}
