//! The machine itself: what FUSE needs, the kernel, the clock, limits, our programs and the configuration.

use std::error::Error as _;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use dfs_fuse::lane::{self, ASKS, EROFS, PASSTHROUGH};
use dfs_fuse::mount::{MountError, find_helper, open_device, others_allowed};
use rustix::process::{Resource, geteuid, getrlimit};

use super::{Finding, blocking};
use crate::codes;
use crate::context::Context;
use crate::error::CliError;
use crate::launch;
use crate::output::{quoted_path, when};
use crate::settings::{GivenFlags, Settings};

/// Fewer files that may be open at once hold up an agent.
const ENOUGH_FILES: u64 = 4_096;
/// A clock this far behind our own program is wrong.
const CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// All checks of this file.
pub(super) async fn look(context: &Context) -> Result<Vec<Finding>, CliError> {
    blocking(context, || {
        let mut findings = vec![configuration(), program(), device(), helper()];
        findings.push(kernel(&rustix::system::uname().release().to_string_lossy()));
        findings.extend(others());
        findings.extend([clock(), files()]);
        findings
    })
    .await
}

fn configuration() -> Finding {
    match Settings::load(&GivenFlags::default()) {
        Ok(settings) => {
            let text = match settings.user_file() {
                Ok(file) if file.exists() => format!("configuration {}", file.display()),
                _ => "configuration: no file of one's own".to_owned(),
            };
            Finding::ok("configuration", text)
        }
        Err(error) => {
            let text = format!("{}: {}", error.what, error.because.join(": "));
            Finding::fail("configuration", error.code, text)
        }
    }
}

fn program() -> Finding {
    match launch::find("dfs-fuse") {
        Ok(path) => Finding::ok("programs", format!("program {}", path.display())),
        Err(_) => {
            let text = "there is no program dfs-fuse: nothing can be mounted";
            Finding::fail("programs", &codes::NO_BINARY, text)
        }
    }
}

fn device() -> Finding {
    match open_device() {
        Ok(_) => Finding::ok("fuse device", "/dev/fuse can be opened"),
        Err(error) => no_device(&error, geteuid().is_root(), is_container()),
    }
}

fn no_device(error: &MountError, is_root: bool, is_container: bool) -> Finding {
    let text = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let finding = Finding::fail("fuse device", &codes::FUSE_DEVICE, text);
    match error {
        // What root is refused is the container's doing.
        MountError::DeviceRefused if is_root => finding.hint(IN_A_CONTAINER),
        MountError::DeviceRefused => finding.hint("sudo chmod 666 /dev/fuse"),
        MountError::NoDevice if is_container => finding.hint(IN_A_CONTAINER),
        MountError::NoDevice => finding.hint("sudo modprobe fuse"),
        _ => finding,
    }
}

/// Whether this is a container, as far as what runs them says so: Docker, Podman, systemd, Kubernetes.
fn is_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
    let variables = ["container", "KUBERNETES_SERVICE_HOST"];
    marks.iter().any(|mark| std::path::Path::new(mark).exists())
        || variables.iter().any(|name| std::env::var_os(name).is_some())
}

const IN_A_CONTAINER: &str = "docker run --device /dev/fuse --cap-add SYS_ADMIN IMAGE";

/// Root mounts without it; everybody else needs it, with the rights that its package gives it.
fn helper() -> Finding {
    let finding = if geteuid().is_root() { Finding::warn } else { Finding::fail };
    let missing = |text: String| {
        let next = "sudo apt-get install --reinstall fuse3";
        finding("fusermount3", &codes::FUSERMOUNT, text).hint(next)
    };
    let Some(path) = find_helper() else {
        return missing("fusermount3 is missing: users other than root cannot mount".to_owned());
    };
    let has_rights = path.metadata().is_ok_and(|status| status.mode() & 0o4000 != 0);
    if !has_rights && !geteuid().is_root() {
        return missing(format!("{} has no set-uid bit: it cannot mount", path.display()));
    }
    let said = Command::new(&path).arg("--version").output().ok();
    let Some(said) = said.filter(|output| output.status.success()) else {
        return missing(format!("{} cannot be run", path.display()));
    };
    let said = String::from_utf8_lossy(&said.stdout);
    let version = said.trim().rsplit(' ').next().unwrap_or_default();
    Finding::ok("fusermount3", format!("{} {version}", path.display()).trim_end().to_owned())
}

fn kernel(release: &str) -> Finding {
    let version = lane::version_of(release);
    let lanes = match version {
        version if version >= ASKS => "fuse, passthrough, kernel",
        version if version >= EROFS => "fuse, passthrough, kernel of what is all here",
        version if version >= PASSTHROUGH => "fuse, passthrough",
        _ => "fuse",
    };
    let text = format!("kernel {release}: able to do the lanes {lanes}");
    match version >= PASSTHROUGH {
        true => Finding::ok("kernel", text),
        false => Finding::warn("kernel", &codes::OLD_KERNEL, text),
    }
}

/// Root may let others look in without asking.
fn others() -> Option<Finding> {
    if geteuid().is_root() {
        return None;
    }
    Some(match others_allowed() {
        true => Finding::ok("allow_other", "other users may look into mounts (user_allow_other)"),
        false => Finding::warn(
            "allow_other",
            &codes::ALLOW_OTHER,
            "other users, containers too, cannot look into mounts of this user",
        )
        .hint("echo user_allow_other | sudo tee -a /etc/fuse.conf"),
    })
}

/// Without anybody to compare with, what is certain is that no program comes from the future.
fn clock() -> Finding {
    let now = SystemTime::now();
    let built = std::env::current_exe().and_then(|own| own.metadata()?.modified()).ok();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let shown = when::iso(i64::try_from(seconds).unwrap_or(i64::MAX));
    match built.filter(|built| *built > now + CLOCK_SLACK) {
        None => Finding::ok("clock", format!("clock {shown}")),
        Some(_) => {
            let text = format!("the clock says {shown}, which is before dfctl was installed");
            Finding::fail("clock", &codes::CLOCK, text).hint("timedatectl")
        }
    }
}

/// Agents raise their limit to what they may.
fn files() -> Finding {
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < ENOUGH_FILES => {
            let text =
                format!("only {most} files may be open at once: an agent wants {ENOUGH_FILES}");
            Finding::warn("open files", &codes::FEW_FILES, text).hint("ulimit -n 65536")
        }
        Some(most) => Finding::ok("open files", format!("{most} files may be open at once")),
        None => Finding::ok("open files", "any number of files may be open at once"),
    }
}

/// The way to see whose a directory is.
pub(super) fn list_command(path: &std::path::Path) -> String {
    format!("ls -ld {}", quoted_path(path))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_device_that_is_missing_is_told_from_one_that_cannot_be_opened_now() {
        let next = |error, is_container| no_device(&error, true, is_container).next;
        let gives_it = next(MountError::NoDevice, true).unwrap();
        assert!(gives_it.starts_with("docker run --device /dev/fuse "), "{gives_it}");
        assert_eq!(next(MountError::NoDevice, false).as_deref(), Some("sudo modprobe fuse"));
        let short = || {
            let source = std::io::Error::from(rustix::io::Errno::MFILE);
            MountError::Device { source }
        };
        assert!(short().is_for_want_of_resources());
        assert_eq!(next(short(), false), None);
        let text = no_device(&short(), true, false).text;
        assert!(text.starts_with("cannot open /dev/fuse: Too many open files"), "{text}");
    }

    #[test]
    fn a_kernel_is_told_by_its_lanes() {
        let told = |release| {
            let finding = kernel(release);
            (finding.level, finding.text)
        };
        assert_eq!(told("6.18.0-rc1").0, Level::Ok);
        assert!(told("6.18.0-rc1").1.ends_with("fuse, passthrough, kernel"));
        assert!(told("6.9.3-amd64").1.ends_with("lanes fuse, passthrough"));
        assert_eq!(told("6.1.0-30-amd64").0, Level::Warn);
        assert_eq!(told("nonsense").0, Level::Warn);
    }
}
