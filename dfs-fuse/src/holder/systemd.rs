//! systemd's store of descriptors as a holder: what lies there is given to the next process of the service
//! (sd_notify(3), sd_listen_fds(3)).
//!
//! systemd is asked not to watch the descriptors: each request of the kernel would wake it.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};

use dfs_service::lifecycle;
use parking_lot::Mutex;

use super::packet::Then;
use super::{Guard, Holder, Kept, Left, Record};

/// The first descriptor that systemd gives.
const FIRST: RawFd = 3;

/// Begins the names of ours in the store.
const PREFIX: &str = "mount-";

/// Descriptors of a mount.
const OF_A_MOUNT: usize = 2;

/// See the module.
#[derive(Debug)]
pub struct Systemd {
    notify: OsString,
    /// What the last process of the service left, until it is asked for.
    left: Mutex<Vec<Kept>>,
    /// Mounts that are in the store.
    stored: Mutex<BTreeSet<String>>,
    /// How many descriptors it takes, where systemd says (from 254 on): what is more it drops without a word.
    room: Option<usize>,
}

/// What became of what was left with systemd.
#[derive(Debug, Default)]
pub struct Moved {
    /// What another holder keeps from now on.
    pub kept: Vec<Kept>,
    /// What nobody else keeps, and why; it still lies in the store.
    pub lost: Vec<(Kept, io::Error)>,
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
        let found = if own { paired(&names, given(count)) } else { Found::default() };
        let room = env::var("FDSTORE").ok().and_then(|room| room.parse().ok());
        Ok(Self::with(notify, found, room))
    }

    fn with(notify: OsString, found: Found, room: Option<usize>) -> Self {
        let stored = found.mounts.iter().map(|kept| kept.name.clone()).collect();
        let (left, stored) = (Mutex::new(found.mounts), Mutex::new(stored));
        let store = Self { notify, left, stored, room };
        for name in found.halves {
            // Nobody can go on with it, and it would be there as long as the service.
            if let Err(error) = store.let_go(&name) {
                tracing::warn!(name, %error, "half of a mount stays in systemd's store");
            }
        }
        store
    }

    /// Has another holder keep what was left here, and lets go of it then; none, where there is none.
    pub fn move_to(&self, holder: Option<&dyn Holder>) -> io::Result<Moved> {
        let mut moved = Moved::default();
        for kept in self.take_over()?.kept {
            let keeping = match holder {
                Some(holder) => kept.try_clone().and_then(|copy| holder.keep(copy)),
                None => Err(io::Error::other("nobody keeps mounts any more (--holder off)")),
            };
            match keeping {
                Ok(()) => {
                    // The holder has it: what stays here is let go of by the next agent.
                    if let Err(error) = self.let_go(&kept.name) {
                        let name = &kept.name;
                        tracing::warn!(name, %error, "a mount stays in systemd's store, too");
                    }
                    moved.kept.push(kept);
                }
                Err(error) => moved.lost.push((kept, error)),
            }
        }
        Ok(moved)
    }

    fn tell(&self, state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        lifecycle::notify_at(&self.notify, state, descriptors)
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
        let mut stored = self.stored.lock();
        let mounts = stored.len() + usize::from(!stored.contains(&kept.name));
        if let Some(room) = self.room.filter(|room| mounts * OF_A_MOUNT > *room) {
            let why = format!(
                "systemd keeps {room} descriptors of this service (FileDescriptorStoreMax), two for each mount"
            );
            return Err(io::Error::other(why));
        }
        let state = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{}", kept.name);
        self.tell(&state, &kept.descriptors())?;
        stored.insert(kept.name);
        Ok(())
    }

    fn let_go(&self, name: &str) -> io::Result<()> {
        self.stored.lock().remove(name);
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

/// The descriptors that systemd gave this process, in their order: one that is not open has its place, and its name.
#[allow(unsafe_code)]
fn given(count: RawFd) -> Vec<Option<OwnedFd>> {
    let numbers = FIRST..FIRST.saturating_add(count.clamp(0, 1 << 16));
    let owned = numbers.map(|number| {
        // One that is not open has no such entry: nothing is taken at its word.
        std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
        // SAFETY: it is open, systemd gave it to this process (LISTEN_PID), and nobody else here asks for it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // They come without it, and are nothing for programs that this one starts.
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC).ok()?;
        Some(descriptor)
    });
    owned.collect()
}

/// What was in the store.
#[derive(Debug, Default)]
struct Found {
    mounts: Vec<Kept>,
    /// Names of what is no whole mount.
    halves: BTreeSet<String>,
}

/// What belongs together by its name: a device and a record.
fn paired(names: &str, descriptors: Vec<Option<OwnedFd>>) -> Found {
    let own = names.split(':').take(descriptors.len()).filter_map(|name| name.strip_prefix(PREFIX));
    let mut halves: BTreeSet<String> = own.map(str::to_owned).collect();
    let mut devices = Vec::new();
    let mut records = Vec::new();
    for (name, descriptor) in names.split(':').zip(descriptors) {
        let (Some(name), Some(descriptor)) = (name.strip_prefix(PREFIX), descriptor) else {
            continue;
        };
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
    let mounts: Vec<Kept> = with_record.collect();
    for kept in &mounts {
        halves.remove(&kept.name);
    }
    Found { mounts, halves }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

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
        let fd = |record: &Record| Some(record.as_fd().try_clone_to_owned().unwrap());
        let (a, b, alone) = (record(1), record(2), record(3));
        let device = || Some(device());
        // One of them is closed.
        let descriptors =
            vec![fd(&b), device(), None, device(), fd(&a), fd(&alone), device(), device()];
        let names = "mount-b:mount-a:mount-c:mount-b:mount-a:mount-alone:stored:mount-other";
        let found = paired(names, descriptors);
        let halves: Vec<_> = found.halves.iter().map(String::as_str).collect();
        assert_eq!(halves, ["alone", "c", "other"]);
        let mut kept = found.mounts;
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        let told: Vec<_> =
            kept.iter().map(|kept| (&*kept.name, kept.record.read().unwrap().generation)).collect();
        assert_eq!(told, [("a", 1), ("b", 2)]);
    }

    /// A service manager that listens, and what it heard next.
    fn manager(dir: &Path) -> (OsString, impl Fn() -> String) {
        let path = dir.join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let heard = move || {
            let mut bytes = [0; 200];
            let length = listener.recv(&mut bytes).unwrap_or(0);
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        (path.into_os_string(), heard)
    }

    fn kept(name: &str) -> Kept {
        Kept { name: name.to_owned(), device: device(), record: record(1) }
    }

    #[test]
    fn a_mount_is_stored_by_its_name_and_taken_out_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let (notify, heard) = manager(dir.path());
        let store = Systemd::with(notify, Found::default(), None);
        store.keep(kept("x1")).unwrap();
        assert_eq!(heard(), "FDSTORE=1\nFDPOLL=0\nFDNAME=mount-x1");
        store.let_go("x1").unwrap();
        assert_eq!(heard(), "FDSTOREREMOVE=1\nFDNAME=mount-x1");
    }

    #[test]
    fn half_of_a_mount_is_taken_out_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let (notify, heard) = manager(dir.path());
        let found = Found { mounts: vec![kept("whole")], halves: ["half".to_owned()].into() };
        let store = Systemd::with(notify, found, None);
        assert_eq!(heard(), "FDSTOREREMOVE=1\nFDNAME=mount-half");
        assert_eq!((heard().as_str(), store.take_over().unwrap().kept.len()), ("", 1));
    }

    #[test]
    fn what_was_left_is_another_holders_before_it_goes() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [(notify, heard), (next, told)] = dirs.each_ref().map(|dir| manager(dir.path()));
        let left = || Found { mounts: vec![kept("x1"), kept("x2")], ..Found::default() };
        // Whose store has room for one.
        let other = Systemd::with(next, Found::default(), Some(2));
        let moved = Systemd::with(notify.clone(), left(), None).move_to(Some(&other)).unwrap();
        assert_eq!((&*moved.kept[0].name, moved.kept.len()), ("x1", 1));
        assert_eq!((&*moved.lost[0].0.name, moved.lost.len()), ("x2", 1));
        assert_eq!(told(), "FDSTORE=1\nFDPOLL=0\nFDNAME=mount-x1");
        assert_eq!([heard(), heard()], ["FDSTOREREMOVE=1\nFDNAME=mount-x1", ""]);
        let moved = Systemd::with(notify, left(), None).move_to(None).unwrap();
        assert_eq!((moved.kept.len(), moved.lost.len(), &*heard()), (0, 2, ""));
    }

    #[test]
    fn what_a_full_store_would_drop_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (notify, heard) = manager(dir.path());
        let found = Found { mounts: vec![kept("before")], ..Found::default() };
        let store = Systemd::with(notify, found, Some(5));
        store.keep(kept("one")).unwrap();
        store.keep(kept("one")).unwrap();
        let error = store.keep(kept("other")).unwrap_err();
        assert!(error.to_string().contains("FileDescriptorStoreMax"), "{error}");
        store.let_go("before").unwrap();
        let told = [(); 4].map(|()| heard());
        assert!(told[2].starts_with("FDSTOREREMOVE=1") && told[3].is_empty(), "{told:?}");
        store.keep(kept("other")).unwrap();
        assert_eq!(heard(), "FDSTORE=1\nFDPOLL=0\nFDNAME=mount-other");
    }
}
