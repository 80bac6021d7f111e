//! Words to the kernel that wait for those whom this process answers: from a thread that has nothing open but the
//! kernel's device.
//!
//! Where this process is killed meanwhile, nobody answers them any more, and that thread cannot die before the next process
//! does. Had it all open that the others have, no lock would be free and no connection closed: the next process could
//! not begin, and who looks after this one would not see that it is gone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// First descriptor that is not for everybody.
const FIRST: RawFd = 3;

/// See the module. Ends when dropped.
pub(super) struct Alone {
    asking: SyncSender<Vec<u8>>,
    answers: Receiver<Result<(), Errno>>,
}

impl Alone {
    /// Begins to write to `device`.
    pub fn begin(device: BorrowedFd<'_>) -> io::Result<Self> {
        let (asking, asked) = sync_channel::<Vec<u8>>(1);
        let (answering, answers) = sync_channel(1);
        let own = device.as_raw_fd();
        let write_all = move || {
            keep_only(own);
            // Nobody waits where this ends early.
            let _ = answering.send(Ok(()));
            for notice in asked {
                let _ = answering.send(write(own, &notice));
            }
        };
        std::thread::Builder::new().name("dfs-notices".to_owned()).spawn(write_all)?;
        let begun = Self { asking, answers };
        // Before that the device is the caller's.
        begun.answer()?;
        Ok(begun)
    }

    /// Writes something, and waits for what becomes of it.
    pub fn tell(&self, notice: Vec<u8>) -> Result<(), Errno> {
        self.asking.send(notice).map_err(|_| Errno::PIPE)?;
        self.answer()
    }

    fn answer(&self) -> Result<(), Errno> {
        self.answers.recv().unwrap_or(Err(Errno::PIPE))
    }
}

/// Gives the calling thread descriptors of its own, and closes all of them but the first three and this one. Where the
/// kernel does not, it has those of the process: that does no harm as long as nobody kills that.
#[allow(unsafe_code)]
fn keep_only(own: RawFd) {
    // SAFETY: this thread has nothing open by itself, and what it has a number of, is open in its own table, too.
    if unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }.is_err() {
        return;
    }
    let close = |first: RawFd, last: RawFd| {
        if first <= last {
            // SAFETY: they are this thread's alone, which uses none of them.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    };
    close(FIRST, own - 1);
    close(FIRST.max(own + 1), RawFd::MAX);
}

#[allow(unsafe_code)]
fn write(own: RawFd, notice: &[u8]) -> Result<(), Errno> {
    // SAFETY: it is open in the calling thread's own table, where nobody else closes it; or, where there is no such, in
    // the process's for as long as whoever began.
    let device = unsafe { BorrowedFd::borrow_raw(own) };
    rustix::io::write(device, notice).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn who_tells_the_kernel_has_nothing_else_open() {
        let (mut heard, device) = std::io::pipe().unwrap();
        let other = File::open("/dev/zero").unwrap();
        let alone = Alone::begin(device.as_fd()).unwrap();
        alone.tell(b"told".to_vec()).unwrap();
        let mut said = [0; 4];
        heard.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"told");
        let is_it = |task: &fs::DirEntry| {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.trim() == "dfs-notices"
        };
        let opened = |task: fs::DirEntry| -> Vec<_> {
            let open = fs::read_dir(task.path().join("fd")).unwrap().flatten();
            open.filter_map(|one| fs::read_link(one.path()).ok()).collect()
        };
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().filter(is_it);
        let open: Vec<_> = tasks.flat_map(opened).collect();
        assert!(!open.is_empty());
        assert!(!open.iter().any(|path| path.ends_with("zero")), "{open:?}");
        // What it had of this process's is still open there.
        assert!(rustix::io::fcntl_getfd(&other).is_ok());
        drop(device);
        alone.tell(b"more".to_vec()).unwrap();
    }
}
