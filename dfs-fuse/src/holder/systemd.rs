//! systemd's store of descriptors as a holder: what lies there is given to the next process of the service
//! (sd_notify(3), sd_listen_fds(3)).
//!
//! systemd is asked not to watch the descriptors: each request of the kernel would wake it.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};

use parking_lot::Mutex;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

use super::packet::Then;
use super::{Guard, Holder, Kept, Left, Record};

/// The first descriptor that systemd gives.
const FIRST: RawFd = 3;

/// Begins the names of ours in the store.
const PREFIX: &str = "mount-";

/// See the module.
#[derive(Debug)]
pub struct Systemd {
    notify: OsString,
    /// What the last process of the service left, until it is asked for.
    left: Mutex<Vec<Kept>>,
}

impl Systemd {
    /// The store of this process's service; to be called once, early: what was left becomes this value's own.
    pub fn of_process() -> io::Result<Self> {
        let notify = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        let notify = notify.ok_or_else(|| {
            io::Error::other("systemd does not listen: NOTIFY_SOCKET is not set, is this a service of Type=notify?")
        })?;
        let own = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
        let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let left = if own { paired(&names, given(count)) } else { Vec::new() };
        Ok(Self { notify, left: Mutex::new(left) })
    }

    fn tell(&self, state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let address = match self.notify.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(self.notify.as_bytes())?,
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(state.as_bytes())];
        sendmsg_addr(&socket, &address, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Holder for Systemd {
    fn take_over(&self) -> io::Result<Left> {
        Ok(Left { kept: std::mem::take(&mut self.left.lock()), guarded: Vec::new() })
    }

    fn ready(&self) -> io::Result<()> {
        Ok(())
    }

    fn keep(&self, kept: Kept) -> io::Result<()> {
        let state = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{}", kept.name);
        self.tell(&state, &[kept.device.as_fd(), kept.record.as_fd()])
    }

    fn let_go(&self, name: &str) -> io::Result<()> {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{name}"), &[])
    }

    /// A store reads nothing.
    fn cannot_guard(&self) -> Option<&'static str> {
        Some("kernel needs all of it to be here, or a holder that answers: --holder own")
    }

    fn guard(&self, _guard: Guard) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn line(&self, _name: &str) -> Option<OwnedFd> {
        None
    }

    fn close(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn farewell(&self, _then: Then) -> io::Result<()> {
        Ok(())
    }

    /// What is in the store is lost where the service is stopped, and given to the next process where it is restarted.
    fn outlives_a_stop(&self) -> bool {
        !is_stopped_for_good().unwrap_or(false)
    }

    fn pid(&self) -> Option<u32> {
        let parent = rustix::process::getppid()?;
        u32::try_from(parent.as_raw_nonzero().get()).ok()
    }
}

/// Whether systemd stops this process's service, and will not start it again; `None` where it does not say.
fn is_stopped_for_good() -> Option<bool> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let unit = groups.split(['/', '\n']).find(|name| name.ends_with(".service"))?;
    let own = (!rustix::process::geteuid().is_root()).then_some("--user");
    let mut ask = Command::new("systemctl");
    ask.args(own).args(["list-jobs", "--no-legend", "--plain"]).stdin(Stdio::null());
    let jobs = ask.stderr(Stdio::null()).output().ok()?.stdout;
    // A line is a number, the unit, what is done to it, and whether it is being done.
    let jobs = String::from_utf8_lossy(&jobs).into_owned();
    let mut of_unit = jobs.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == unit).then(|| words.next().unwrap_or_default())
    });
    of_unit.next().map(|done| done == "stop")
}

/// The descriptors that systemd gave this process.
#[allow(unsafe_code)]
fn given(count: RawFd) -> Vec<OwnedFd> {
    let open = (FIRST..FIRST.saturating_add(count.clamp(0, 1 << 16))).filter(|number| {
        // One that is not open has no such entry: nothing is taken at its word.
        std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()
    });
    // SAFETY: they are open, systemd gave them to this process (LISTEN_PID), and nobody else here asks for them.
    let owned = open.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    // They come without it, and are nothing for programs that this one starts.
    let closing = owned.filter(|descriptor| {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC).is_ok()
    });
    closing.collect()
}

/// What belongs together by its name: a device and a record.
fn paired(names: &str, descriptors: Vec<OwnedFd>) -> Vec<Kept> {
    let mut devices = Vec::new();
    let mut records = Vec::new();
    for (name, descriptor) in names.split(':').zip(descriptors) {
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let file = File::from(descriptor);
        match file.metadata() {
            Ok(facts) if facts.file_type().is_char_device() => devices.push((name, file.into())),
            Ok(facts) if facts.is_file() => records.push((name, OwnedFd::from(file))),
            _ => {}
        }
    }
    let with_record = devices.into_iter().filter_map(|(name, device)| {
        let at = records.iter().position(|(other, _)| *other == name)?;
        let record = Record::from_descriptor(records.swap_remove(at).1);
        Some(Kept { name: name.to_owned(), device, record })
    });
    with_record.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use dfs_proto::node::KeptMount;

    use super::*;
    use crate::holder::RECORD_FORMAT;

    fn record(generation: u32) -> Record {
        let kept = KeptMount { format: RECORD_FORMAT, generation, ..KeptMount::default() };
        Record::of(&kept).unwrap()
    }

    fn device() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_was_left_is_paired_by_its_name() {
        let fd = |record: &Record| record.as_fd().try_clone_to_owned().unwrap();
        let (a, b, alone) = (record(1), record(2), record(3));
        let descriptors = vec![fd(&b), device(), device(), fd(&a), fd(&alone), device()];
        let names = "mount-b:mount-a:mount-b:mount-a:mount-alone:stored";
        let mut kept = paired(names, descriptors);
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        let told: Vec<_> =
            kept.iter().map(|kept| (&*kept.name, kept.record.read().unwrap().generation)).collect();
        assert_eq!(told, [("a", 1), ("b", 2)]);
    }

    #[test]
    fn a_mount_is_stored_by_its_name_and_taken_out_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let store = Systemd { notify: path.into_os_string(), left: Mutex::default() };
        let heard = || {
            let mut bytes = [0; 200];
            let length = listener.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        store.keep(Kept { name: "x1".into(), device: device(), record: record(1) }).unwrap();
        assert_eq!(heard(), "FDSTORE=1\nFDPOLL=0\nFDNAME=mount-x1");
        store.let_go("x1").unwrap();
        assert_eq!(heard(), "FDSTOREREMOVE=1\nFDNAME=mount-x1");
    }
}
