//! From a directory to the descriptor through which the kernel sends a mount's requests.
//!
//! Done here rather than by the FUSE library: it would also unmount by path when its session is dropped,
//! whatever is mounted there by then, and forget that an unmount was refused.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::MountFlags;

use super::check::MountPoint;
use super::{MountError, Privileges, Programs, SUBTYPE, User, check, table};
use crate::holder::packet;

/// Environment variable that tells the helper where to send the descriptor.
const SEND_TO: &str = "_FUSE_COMMFD";

/// How long the helper may take.
const HELPER: Duration = Duration::from_secs(30);

/// What the mount is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Shown in the mount table.
    pub name: String,
    /// Whether others than `user` may look in.
    pub everyone: bool,
    /// Whose mount it is.
    pub user: User,
    pub privileges: Privileges,
    pub programs: Programs,
}

/// Mounts on `point`: by mount(2) where this process may, otherwise with the helper, which goes by the name and
/// mounts only where this process's own user may write.
pub(super) fn attach(point: &MountPoint, plan: &Plan) -> Result<OwnedFd, MountError> {
    let dir = point.dir.as_path();
    let device = check::open_device()?;
    if rustix::process::geteuid().is_root() {
        match by_system_call(device, point, plan) {
            // Root of a container without the capability to mount: the helper says it better.
            Err(MountError::Refused { source, .. })
                if source.kind() == ErrorKind::PermissionDenied => {}
            answer => return answer,
        }
    }
    let helper = check::find_helper().ok_or(MountError::NoHelper)?;
    by_helper(&helper, dir, plan)
        .map_err(|source| MountError::Refused { dir: dir.to_owned(), source })
}

fn by_system_call(device: File, point: &MountPoint, plan: &Plan) -> Result<OwnedFd, MountError> {
    let refused = |source| MountError::Refused { dir: point.dir.clone(), source };
    let mut flags = MountFlags::RDONLY;
    if plan.privileges == Privileges::Inert {
        flags |= MountFlags::NOSUID | MountFlags::NODEV;
    }
    if plan.programs == Programs::AreRefused {
        flags |= MountFlags::NOEXEC;
    }
    let others = if plan.everyone { ",allow_other" } else { "" };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{others}",
        device.as_raw_fd(),
        plan.user.uid,
        plan.user.gid,
    );
    let data = CString::new(data).map_err(|error| refused(error.into()))?;
    let name = table::printable_name(&plan.name);
    rustix::mount::mount(name, point.target(), format!("fuse.{SUBTYPE}"), flags, data.as_c_str())
        .map_err(|error| refused(error.into()))?;
    Ok(device.into())
}

fn by_helper(helper: &Path, dir: &Path, plan: &Plan) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(HELPER))?;
    let mut child = start_helper(helper, dir, plan, theirs)?;
    match receive(&ours) {
        Ok(Some(device)) => {
            child.wait()?;
            Ok(device)
        }
        Ok(None) => Err(io::Error::other(last_words(child)?)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// The helper finds its end of the socket as its standard input; ours of it is closed on return.
fn start_helper(helper: &Path, dir: &Path, plan: &Plan, end: UnixStream) -> io::Result<Child> {
    Command::new(helper)
        .args(["-o", &helper_options(plan), "--"])
        .arg(dir)
        .env(SEND_TO, "0")
        .env("LC_ALL", "C")
        .stdin(OwnedFd::from(end))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn helper_options(plan: &Plan) -> String {
    let privileges = match plan.privileges {
        Privileges::Inert => "nosuid,nodev",
        Privileges::Effective => "suid,dev",
    };
    let programs = match plan.programs {
        Programs::Start => "",
        Programs::AreRefused => ",noexec",
    };
    let others = if plan.everyone { ",allow_other" } else { "" };
    let name = table::printable_name(&plan.name);
    format!("ro,{privileges}{programs},default_permissions{others},subtype={SUBTYPE},fsname={name}")
}

/// The descriptor that the helper sends beside a byte; `None` when it ended without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let received = packet::receive_bytes(socket, &mut [0])?;
    Ok(received.and_then(|(_, descriptors)| descriptors.into_iter().next()))
}

fn last_words(child: Child) -> io::Result<String> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(if said.is_empty() { format!("fusermount3 ended with {}", output.status) } else { said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: String) -> Plan {
        let user = User::of_this_process();
        let (privileges, programs) = (Privileges::Inert, Programs::Start);
        Plan { name, everyone: false, user, privileges, programs }
    }

    #[test]
    fn a_name_cannot_bring_options_of_its_own() {
        let name = "https://h/x,suid,allow_other".to_owned();
        let plan = plan(name);
        let options = helper_options(&plan);
        let all: Vec<_> = options.split(',').collect();
        assert_eq!(all.len(), 6, "{options}");
        assert!(!all.contains(&"suid") && !all.contains(&"allow_other"));
    }

    #[test]
    fn what_a_helper_says_when_it_refuses_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let helper = folder.path().join("helper");
        std::fs::write(&helper, "#!/bin/sh\necho 'no, not there' >&2\nexit 1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&helper, mode).unwrap();
        let plan = plan("x".into());
        let error = by_helper(&helper, folder.path(), &plan).unwrap_err();
        assert_eq!(error.to_string(), "no, not there");
    }
}
