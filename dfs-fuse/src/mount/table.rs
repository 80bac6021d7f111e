//! The kernel's table of mounts, as far as it concerns dfs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

/// Second half of our filesystem type, `fuse.dfs`.
pub const SUBTYPE: &str = "dfs";

/// Longest name put into the table, in bytes.
const NAME_BYTES: usize = 1000;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The kernel's number of it, while it is there: the next mount may get the same.
    pub id: u64,
    /// That of the mount which it stands in.
    pub parent: u64,
    /// The one that no other gets as long as the kernel runs, where that was asked for and there is one (Linux 6.8).
    pub only_id: Option<u64>,
    /// Where.
    pub dir: PathBuf,
    /// Which directory of its file system stands there: with a bind mount another than the root.
    pub root: PathBuf,
    /// `major:minor` of the device that its files show.
    pub device: String,
    /// Type of the filesystem.
    pub kind: String,
    /// What is mounted: for ours the URL.
    pub name: String,
    /// For a FUSE mount, the user for whom it was made.
    pub user: Option<u32>,
}

impl MountEntry {
    /// Whether a dfs serves it.
    pub fn is_ours(&self) -> bool {
        self.kind.strip_prefix("fuse.") == Some(SUBTYPE)
    }

    /// Whether it shows what a dfs has, by whomever it is served.
    pub fn shows_ours(&self) -> bool {
        self.is_ours() || self.is_by_kernel()
    }

    /// Whether systemd, or another automounter, mounts there when somebody looks in.
    pub fn is_automount(&self) -> bool {
        self.kind == "autofs"
    }

    /// Whether the kernel shows what lies in the store of a dfs: it is named by the content file of its index.
    pub fn is_by_kernel(&self) -> bool {
        let mut parts = Path::new(&self.name).iter().rev().filter_map(|part| part.to_str());
        let mut next_is = |fits: &dyn Fn(&str) -> bool| parts.next().is_some_and(fits);
        self.kind == super::kernel::KIND
            && next_is(&|file| file == "content")
            && next_is(&|task| task.len() == 64)
            && next_is(&|shard| shard.len() == 2)
            && next_is(&|tasks| tasks == "tasks")
    }
}

/// The table itself: once it is open it can be looked into whatever else this process cannot open.
pub(super) struct Table(File);

impl Table {
    pub(super) fn open() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    /// As it is now.
    pub(super) fn mounts(&mut self) -> io::Result<Vec<MountEntry>> {
        let mut table = Vec::new();
        self.0.rewind()?;
        self.0.read_to_end(&mut table)?;
        Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
    }

    /// See [`mounted_at`].
    pub(super) fn mounted_at(&mut self, dir: &Path) -> io::Result<Option<MountEntry>> {
        let mut on = self.mounts()?;
        on.retain(|mount| mount.dir == dir);
        // While something is mounted there whoever looks the name up waits until it is.
        let waits = on.iter().any(MountEntry::is_automount);
        if waits {
            return Ok(on.pop());
        }
        Ok(on.pop().map(|mount| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::open(dir, flags, Mode::empty()).ok();
            let there = handle.filter(|handle| mount_id(handle).is_ok_and(|id| id == mount.id));
            MountEntry { only_id: there.and_then(|handle| only_id(&handle)), ..mount }
        }))
    }
}

/// All mounts that this process sees, in the order they were made.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Table::open()?.mounts()
}

/// What is mounted on `dir`, the uppermost where several are.
pub fn mounted_at(dir: &Path) -> io::Result<Option<MountEntry>> {
    Table::open()?.mounted_at(dir)
}

/// Where `mount` is by now, if it is still there: a directory on its way may have got another name.
pub(super) fn still_there(mount: &MountEntry) -> io::Result<Option<MountEntry>> {
    let is_it = |other: &MountEntry| {
        (other.id, &other.device, &other.name) == (mount.id, &mount.device, &mount.name)
    };
    Ok(mounts()?.into_iter().find(is_it))
}

/// The number of the uppermost mount at `handle`, which was opened without looking into it.
pub(super) fn mount_id(handle: &impl AsRawFd) -> io::Result<u64> {
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd()))?;
    let id = facts.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not say on which mount a file is"))
}

/// See [`MountEntry::only_id`]. Nobody who serves the mount is asked.
pub(super) fn only_id(handle: &impl AsFd) -> Option<u64> {
    // `STATX_MNT_ID_UNIQUE`.
    let only = StatxFlags::from_bits_retain(0x4000);
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let facts = rustix::fs::statx(handle, "", flags, only).ok()?;
    StatxFlags::from_bits_retain(facts.stx_mask).contains(only).then_some(facts.stx_mnt_id)
}

/// Whether a mount is not there any more, by the number that it alone has; not where the kernel tells of none (Linux 6.8).
#[allow(unsafe_code)]
pub(super) fn is_gone(mount: &MountEntry) -> bool {
    /// `struct mnt_id_req`, as it was at first.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount: u64,
        facts: u64,
    }
    /// statmount(2), the same on every architecture.
    const STATMOUNT: libc::c_long = 457;
    /// `STATMOUNT_MNT_BASIC`: its numbers.
    const BASIC: u64 = 2;
    let Some(only) = mount.only_id else { return false };
    let size = size_of::<Request>() as u32;
    let request = Request { size, spare: 0, mount: only, facts: BASIC };
    // `struct statmount`, without what comes behind it.
    let mut answer = [0_u64; 64];
    // SAFETY: both are of the layouts that the call takes, as long as it is told, and live until it is done.
    let told = unsafe {
        libc::syscall(STATMOUNT, &raw const request, answer.as_mut_ptr(), size_of_val(&answer), 0)
    };
    told < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT)
}

/// A name fit for the table: without credentials, and without what mount options are cut at.
pub(super) fn printable_name(name: &str) -> String {
    let mut printable = String::new();
    for letter in dfs_model::redact(name).chars() {
        let plain =
            !letter.is_control() && !letter.is_whitespace() && !matches!(letter, ',' | '\\');
        let mut bytes = [0; 4];
        let escaped: String =
            letter.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        let piece = if plain { letter.to_string() } else { escaped };
        if printable.len() + piece.len() > NAME_BYTES {
            break;
        }
        printable.push_str(&piece);
    }
    printable
}

/// One line of mountinfo(5): `id parent major:minor root dir options [optional …] - kind name super`.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let mut path = || Some(OsString::from_vec(unescape(fields.next()?)).into());
    let (root, dir) = (path()?, path()?);
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8(unescape(fields.next()?)).ok()?;
    let name = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let user = fields.next().and_then(user_of);
    Some(MountEntry { id, parent, only_id: None, dir, root, device, kind, name, user })
}

/// The number behind `user_id=` in a filesystem's own options.
fn user_of(options: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(options).ok()?;
    text.split(',').find_map(|option| option.strip_prefix("user_id="))?.parse().ok()
}

/// Undoes the table's octal escapes, as `\040` for a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let octal = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let byte = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match byte.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(field[at]);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_understood() {
        let line = br"41 29 0:36 /c\040d /mnt/a\040b ro,nosuid shared:7 master:1 - fuse.dfs https://h/x ro,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!((&*mount.root, &*mount.dir), (Path::new("/c d"), Path::new("/mnt/a b")));
        assert_eq!((mount.device.as_str(), mount.name.as_str()), ("0:36", "https://h/x"));
        assert!(mount.is_ours());
        assert_eq!((mount.id, mount.parent, mount.user), (41, 29, Some(0)));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn names_bring_no_options_and_no_secrets() {
        let name = printable_name("https://u:p@h/a b,suid\\x\n");
        assert_eq!(name, "https://h/a%20b%2Csuid%5Cx%0A");
        assert!(printable_name(&"ü,".repeat(5000)).len() <= NAME_BYTES);
    }

    #[test]
    fn this_process_sees_its_root() {
        assert!(mounts().unwrap().iter().any(|mount| mount.dir == Path::new("/")));
    }
}
