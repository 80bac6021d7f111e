//! How many threads a process takes, where its control group bounds them.
//!
//! A pool that takes all there are leaves none to mount with, and none to start a helper.

use std::fs;
use std::path::{Path, PathBuf};

/// As many as tokio takes by itself.
const USUAL: usize = 512;

/// Fewer than this would wait for each other.
const LEAST: usize = 8;

/// What a runtime takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Threads that are always there.
    pub workers: usize,
    /// Threads for calls that block, at most.
    pub blocking: usize,
}

/// Of the threads that the control group allows a quarter at most to work, and half for what blocks.
pub fn share_of(workers: usize) -> Share {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    share(workers, allowed(&groups, |path| fs::read_to_string(path).ok()))
}

fn share(workers: usize, allowed: Option<usize>) -> Share {
    let Some(allowed) = allowed else { return Share { workers, blocking: USUAL } };
    let workers = workers.min(allowed / 4).max(1);
    Share { workers, blocking: (allowed / 2).clamp(LEAST, USUAL) }
}

/// The least `pids.max` of the control groups that a process is in, as `/proc/self/cgroup` lists them, and of those
/// around them. Both versions of control groups are known.
fn allowed(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let files = groups.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let base = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            _ if controllers.split(',').any(|name| name == "pids") => {
                Path::new("/sys/fs/cgroup/pids")
            }
            _ => return None,
        };
        Some((base, PathBuf::from(group)))
    });
    let bounds = files.flat_map(|(base, group)| {
        let around = group.ancestors().map(|dir| base.join(relative(dir)).join("pids.max"));
        around.collect::<Vec<_>>()
    });
    bounds.filter_map(|file| read(&file)?.trim().parse().ok()).min()
}

fn relative(dir: &Path) -> &Path {
    dir.strip_prefix("/").unwrap_or(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed_by(groups: &str, files: &[(&str, &str)]) -> Option<usize> {
        allowed(groups, |path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_tightest_group_around_the_process_counts() {
        let second = [
            ("/sys/fs/cgroup/a/b/pids.max", "max\n"),
            ("/sys/fs/cgroup/a/pids.max", "50\n"),
            ("/sys/fs/cgroup/pids.max", "100\n"),
        ];
        assert_eq!(allowed_by("0::/a/b\n", &second), Some(50));
        assert_eq!(allowed_by("0::/\n", &second), Some(100), "in a namespace of its own");
        assert_eq!(allowed_by("0::/other\n", &second), Some(100));
        let first = [("/sys/fs/cgroup/pids/x/pids.max", "24\n")];
        assert_eq!(allowed_by("9:cpu,cpuacct:/\n8:pids:/x\n0::/\n", &first), Some(24));
    }

    #[test]
    fn a_quarter_is_left_for_others() {
        assert_eq!(share(16, None), Share { workers: 16, blocking: USUAL });
        assert_eq!(share(16, Some(24)), Share { workers: 6, blocking: 12 });
        assert_eq!(share(2, Some(10_000)), Share { workers: 2, blocking: USUAL });
        assert_eq!(share(2, Some(1)), Share { workers: 1, blocking: LEAST }, "it will not go far");
    }

    #[test]
    fn where_nothing_is_bounded_or_known_there_is_no_bound() {
        for groups in ["", "nonsense", "0::/a", "8:pids:/x"] {
            assert_eq!(allowed_by(groups, &[("/sys/fs/cgroup/a/pids.max", "max")]), None);
        }
    }
}
