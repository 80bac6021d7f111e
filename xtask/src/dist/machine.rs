//! A Debian machine with its own init, in namespaces of its own: the package is installed there, the guide's page on
//! installing is followed, and what it started is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfs_tests::wait;

use crate::prepare::{self, DebianRoot};
use crate::run::{Failure, failed, run, succeeds};
use crate::workspace::root as project;

/// Its init goes with control groups of both versions.
const SYSTEM: DebianRoot = DebianRoot {
    name: "bookworm-machine",
    suite: "bookworm",
    variant: "minbase",
    packages: "systemd-sysv,dbus,fuse3,ca-certificates",
    program: "usr/bin/systemctl",
};

const PAGE: &str = "docs/guide/install.md";

/// Lines of the page that build instead.
const FROM_SOURCE: [&str; 2] = ["cargo ", "install "];

/// Gives the root at `$1` a layer of its own in `$2`, installs `$3` in it, and becomes its init.
const BOOT: &str = r#"
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cp "$3" "$2/root/dfs.deb"
cd "$2/root"
chroot . dpkg --install /dfs.deb
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount --bind /dev dev
mount -t tmpfs tmpfs run
exec env -i container=dfs PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot . /lib/systemd/systemd --unit=multi-user.target
"#;

/// What was installed works, and goes again.
const USE: &str = "systemctl is-active dfs-cluster dfs-fuse
mkdir /mnt/docs
dfctl mount file:///usr/share/doc/dfs /mnt/docs
cmp /mnt/docs/copyright /usr/share/doc/dfs/copyright
systemctl show --property MainPID dfs-fuse > /before
systemctl kill --signal KILL dfs-fuse
echo 3 > /proc/sys/vm/drop_caches; cmp /mnt/docs/copyright /usr/share/doc/dfs/copyright
dfctl upgrade
systemctl restart dfs-fuse
echo 3 > /proc/sys/vm/drop_caches; cmp /mnt/docs/copyright /usr/share/doc/dfs/copyright
! systemctl show --property MainPID dfs-fuse | cmp -s - /before
dfctl mounts --format json | grep '\"kept_by\": *1\\b'
systemctl stop dfs-fuse
! mountpoint --quiet /mnt/docs
systemctl start dfs-fuse
dfctl mount file:///usr/share/doc/dfs /mnt/docs
dfctl umount /mnt/docs
mkdir /mnt/table
echo 'file:///usr/share/doc/dfs /mnt/table dfs ro,noexec,nofail,x-systemd.after=dfs-fuse.service,x-systemd.automount 0 0' >> /etc/fstab
mount /mnt/table
cmp /mnt/table/copyright /usr/share/doc/dfs/copyright
grep ' /mnt/table .*noexec.*fuse.dfs' /proc/self/mountinfo
umount /mnt/table
mount -t dfs -o privileged file:///usr/share/doc/dfs /mnt/table
! grep ' /mnt/table .*nosuid' /proc/self/mountinfo
umount /mnt/table
systemctl daemon-reload
systemctl start mnt-table.mount
systemctl restart dfs-fuse
systemctl is-active mnt-table.mount
cmp /mnt/table/copyright /usr/share/doc/dfs/copyright
systemctl stop mnt-table.mount
! mountpoint --quiet /mnt/table
systemctl start mnt-table.automount
! grep ' /mnt/table .*fuse.dfs' /proc/self/mountinfo
cmp /mnt/table/copyright /usr/share/doc/dfs/copyright
grep ' /mnt/table .*noexec.*fuse.dfs' /proc/self/mountinfo
timeout 20 systemctl stop mnt-table.automount
! grep ' /mnt/table ' /proc/self/mountinfo
cp /usr/share/doc/dfs/examples/srv-models.* /etc/systemd/system/
sed -i 's|^What=.*|What=file:///usr/share/doc/dfs|; s|^TimeoutIdleSec=.*|TimeoutIdleSec=2|' /etc/systemd/system/srv-models.*
systemctl daemon-reload
systemctl start srv-models.automount
! grep ' /srv/models .*fuse.dfs' /proc/self/mountinfo
cmp /srv/models/copyright /usr/share/doc/dfs/copyright
grep ' /srv/models .*noexec.*fuse.dfs' /proc/self/mountinfo
timeout 60 sh -c 'while grep -q \" /srv/models .*fuse.dfs\" /proc/self/mountinfo; do sleep 0.2; done'
cmp /srv/models/copyright /usr/share/doc/dfs/copyright
timeout 20 systemctl stop srv-models.automount
! grep ' /srv/models ' /proc/self/mountinfo
systemctl start srv-models.mount
systemctl restart dfs-fuse
systemctl is-active srv-models.mount
cmp /srv/models/copyright /usr/share/doc/dfs/copyright
timeout 20 systemctl stop srv-models.mount
! grep ' /srv/models ' /proc/self/mountinfo
test -z \"$(systemctl --failed --quiet)\"
dpkg --remove dfs
! systemctl is-active dfs-cluster
! systemctl is-active dfs-fuse";

/// How long it may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(120);

/// Installs the system.
pub fn prepare() -> Result<(), Failure> {
    SYSTEM.ensure().map(drop)
}

/// Installs a package and does what the page says.
pub fn check(deb: &Path) -> Result<(), Failure> {
    if !prepare::is_root() {
        println!("the package is not installed: it takes root to have a machine for it");
        return Ok(());
    }
    let machine = Machine::boot(&SYSTEM.ensure()?, deb)?;
    let page = project().join(PAGE);
    let text = fs::read_to_string(&page).map_err(failed(&page))?;
    for line in commands(&text).chain(USE.lines()) {
        println!("# {line}");
        run(&mut machine.shell(line)?)?;
    }
    Ok(())
}

/// What a page has its reader type on the machine that it is installed on.
fn commands(page: &str) -> impl Iterator<Item = &str> {
    let typed = page.lines().filter_map(|line| line.strip_prefix("    "));
    typed.filter(|line| !FROM_SOURCE.iter().any(|start| line.starts_with(start)))
}

/// A machine; it ends when this is dropped, and everything in it.
struct Machine {
    /// The parent of its init.
    init: Child,
    dir: PathBuf,
}

impl Machine {
    fn boot(base: &Path, deb: &Path) -> Result<Self, Failure> {
        let dir = deb.with_extension("machine");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--cgroup"]);
        command.args(["--kill-child", "sh", "-ec", BOOT, "boot"]).args([base, &dir, deb]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let init = command.spawn().map_err(|error| Failure::Other(format!("unshare: {error}")))?;
        let mut machine = Self { init, dir };
        wait::find("the machine is up", UP_WITHIN, || machine.has_come().transpose())??;
        Ok(machine)
    }

    /// `Some` when it is up; it may also have ended instead.
    fn has_come(&mut self) -> Result<Option<()>, Failure> {
        if let Ok(Some(status)) = self.init.try_wait() {
            return Err(Failure::Other(format!("the machine ended with {status}")));
        }
        let asked = self.shell("systemctl is-system-running");
        Ok(asked.is_ok_and(|mut ask| succeeds(&mut ask)).then_some(()))
    }

    /// A line for a shell of its root user.
    fn shell(&self, line: &str) -> Result<Command, Failure> {
        let pid = self.init.id();
        let children = PathBuf::from(format!("/proc/{pid}/task/{pid}/children"));
        let text = fs::read_to_string(&children).map_err(failed(&children))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", text.trim(), "--pid", "--mount", "--uts", "--ipc", "--net"]);
        command.args(["--cgroup", "chroot"]).arg(self.dir.join("root"));
        command.args(["env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["sh", "-ec", line]);
        Ok(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All of it goes with its init, and what is mounted with the namespace.
        let _ = self.init.kill();
        let _ = self.init.wait();
        let _ = fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_on_the_machine_is_taken_from_the_page() {
        let page = "text\n\n    cargo build\n    install -m 755 x\n\ntext\n\n    systemctl x\n";
        assert_eq!(commands(page).collect::<Vec<_>>(), ["systemctl x"]);
    }
}
