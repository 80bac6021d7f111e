//! What a mount says of itself, by file, to any program that reads extended attributes; and what mount(8) says to it.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Origin};

use crate::support::{Agent, Expected, NOBODY, Place, all, as_nobody, binary};

const MIB: u64 = 1 << 20;

fn said(path: &Path, name: &str) -> Option<String> {
    let value = xattr::get(path, format!("user.dfs.{name}")).unwrap()?;
    Some(String::from_utf8(value).unwrap())
}

#[test]
fn each_file_says_what_of_it_is_here_and_where_it_comes_from() {
    let place = Place::new();
    let body = Body::noise(1, 9 * MIB + 5);
    let origin = Origin::of("/d/a file", body.clone()).unwrap();
    origin.put("/d/small", Body::noise(2, 1000));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let path = dir.join("a file");
    assert_eq!(said(&path, "state").unwrap(), "missing");
    assert_eq!(said(&path, "cached").unwrap(), "");
    assert_eq!(said(&path, "source").unwrap(), origin.url("/d/a file"));
    assert_eq!(said(&path, "digest"), None);
    assert_eq!(said(&path, "error"), None);
    assert_eq!(said(&dir, "state"), None, "directories have nothing of the kind");

    File::open(&path).unwrap().read_exact_at(&mut [0; 10], 4 * MIB).unwrap();
    assert_eq!(said(&path, "state").unwrap(), "partial");
    let cached = said(&path, "cached").unwrap();
    assert!(cached.starts_with(&(4 * MIB).to_string()), "{cached}");

    let broken = origin.inject(Fault::status(503).on("/d/a file"));
    assert!(File::open(&path).unwrap().read_exact_at(&mut [0; 10], 8 * MIB).is_err());
    assert!(said(&path, "error").unwrap().contains("503"));
    broken.lift();
    let mut bytes = vec![0; all(&body).len()];
    let read = || File::open(&path).unwrap().read_exact_at(&mut bytes, 0).is_ok();
    dfs_tests::wait::until("it is read again", read).unwrap();
    assert!(bytes == all(&body));
    assert_eq!(said(&path, "error"), None);
    assert_eq!(said(&path, "state").unwrap(), "complete");
    assert_eq!(said(&path, "cached").unwrap(), format!("0..{}", bytes.len()));
    assert_eq!(said(&path, "digest").unwrap(), blake3::hash(&bytes).to_string());
    let task = said(&path, "task").unwrap();
    let listed = agent.dfctl(&["task", "ls", "--format", "json"]).done();
    assert!(listed.text().contains(&task));
    // None of it is listed: whoever copies attributes does not copy these.
    assert_eq!(xattr::list(&path).unwrap().count(), 0);
}

/// A place in which `mount -t dfs` finds our program and nobody else's agent.
struct Table {
    // What is mounted goes before the place that it is in.
    agent: Agent,
    origin: Origin,
    place: Place,
}

impl Table {
    fn new() -> Self {
        let place = Place::new();
        let origin = Origin::of("/d/f", Body::noise(1, 70_000)).unwrap();
        let agent = Agent::solo(&place, "agent");
        Self { place, agent, origin }
    }

    /// Calls the helper as mount(8) does.
    fn helper(&self, dir: &Path, words: &[&str]) -> Said {
        self.helper_for(&self.origin.url("/d/"), dir, words)
    }

    /// The same for what a line names.
    fn helper_for(&self, url: &str, dir: &Path, words: &[&str]) -> Said {
        let helper = self.place.path("mount.dfs");
        if !helper.exists() {
            std::os::unix::fs::symlink(binary("dfctl"), &helper).unwrap();
        }
        self.agent.guard(dir);
        let mut command = Command::new(helper);
        command.arg(url).arg(dir).args(words);
        command.env("DFS_SOCKET", self.agent.socket());
        Said::by(&mut command).unwrap()
    }

    fn line(&self, dir: &Path) -> String {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of = |line: &&str| line.split(' ').nth(4) == dir.to_str();
        table.lines().find(of).unwrap_or_default().to_owned()
    }
}

#[test]
fn a_line_of_fstab_is_mounted_with_its_options() {
    let table = Table::new();
    let dir = table.place.dir("mount");
    let options = "rw,noauto,_netdev,x-systemd.automount,noexec,uid=1234,gid=77,lane=fuse,\
                   prefetch=off,cache-quota=64MiB";
    let said = table.helper(&dir, &["-o", options]).done();
    assert_eq!(said.text(), "", "mount(8) has nothing to add to it");
    let shown = table.agent.shown(&dir).unwrap();
    assert_eq!((&shown["lane"], &shown["lane_reason"]), (&"fuse".into(), &"as asked".into()));
    assert_eq!(shown["prefetch"]["mode"], "off", "{shown}");
    assert_eq!(shown["cache_quota_bytes"], 64 * MIB, "{shown}");
    let line = table.line(&dir);
    for option in ["ro,", "noexec", "nosuid", "nodev"] {
        assert!(line.contains(option), "{option}: {line}");
    }
    for path in [dir.join("f"), dir.clone()] {
        let meta = std::fs::metadata(path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 77));
    }
    assert!(Command::new("umount").arg(&dir).status().unwrap().success());
    assert_eq!(table.line(&dir), "");
}

#[test]
fn what_is_fetched_with_credentials_others_see_only_where_the_line_of_fstab_says_so() {
    let table = Table::new();
    table.place.open_to_others();
    let url = table.origin.url("/d/").replace("http://", "http://user:pass@");
    for (options, may_look) in [("lane=fuse", false), ("lane=fuse,allow_other", true)] {
        let dir = table.place.dir(options);
        table.helper_for(&url, &dir, &["-o", options]).done();
        assert_eq!(table.line(&dir).contains("allow_other"), may_look, "{options}");
        let theirs = Said::by(as_nobody("/bin/cat".as_ref()).arg(dir.join("f"))).unwrap();
        assert_eq!(theirs.code == 0, may_look, "{options}: {}", theirs.stderr);
        assert!(!may_look || theirs.stdout == all(&Body::noise(1, 70_000)));
    }
}

#[test]
fn what_a_line_of_fstab_cannot_mean_is_said_and_mounts_nothing() {
    let table = Table::new();
    let dir = table.place.dir("mount");
    for (options, why) in [
        ("ro,cheese", "there is no mount option 'cheese'"),
        ("uid=ada", "'uid=ada' takes a number"),
        ("lane=fast", "there is no lane 'fast'"),
        ("suid", "given together"),
    ] {
        let said = table.helper(&dir, &["-o", options]).exits(2);
        assert!(said.stderr.contains(why), "{}", said.stderr);
        assert_eq!(table.line(&dir), "");
    }
    table.helper(&dir, &["-f", "-o", "ro"]).done();
    assert_eq!(table.line(&dir), "", "that was only to be tried");
    table.helper(&dir, &["-s", "-n", "-o", "cheese"]).done();
    assert!(table.line(&dir).contains("fuse.dfs"));
}

#[test]
fn powers_over_a_mount_are_the_agents_own_users_to_give() {
    let table = Table::new();
    table.place.open_to_others();
    let dir = table.place.dir("mount");
    std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    table.agent.guard(&dir);
    for options in ["suid,dev", "privileged", "uid=0", "gid=0"] {
        let mut command = as_nobody(&binary("dfctl"));
        command.arg("--socket").arg(table.agent.socket()).arg("mount");
        command.arg(table.origin.url("/d/")).arg(&dir).args(["-o", options]);
        let said = Said::by(&mut command).unwrap();
        assert_ne!(said.code, 0, "{options}");
        assert_eq!(table.line(&dir), "");
    }
}
