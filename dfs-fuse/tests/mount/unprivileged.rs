//! Mounting as a user, through `fusermount3`.
//!
//! The test runs this very binary again as `nobody`; there, the ignored test below does the work. It
//! does so in a mount namespace of its own, where the device is open to users as udev makes it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use dfs_fuse::content::MemoryContent;
use dfs_fuse::mount::{
    Audience, Detach, MountError, MountOptions, Privileges, UnmountError, Unmounted, mount, mounts,
};

use crate::support::{Guard, noise, one_file, read, runtime};

/// Tells the second process where to mount.
const DIR: &str = "DFS_TEST_MOUNT_DIR";

const NOBODY: u32 = 65_534;

const AS_NOBODY: &str = r#"
    mknod "$DEVICE" c 10 229
    chmod 666 "$DEVICE"
    mount --bind "$DEVICE" /dev/fuse
    exec setpriv --reuid 65534 --regid 65534 --clear-groups \
        "$BINARY" --exact unprivileged::as_a_user --ignored --nocapture
"#;

#[test]
fn a_user_mounts_for_himself() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let binary = home.path().join("again");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
    let dir = home.path().join("dir");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let _guard = Guard(dir.clone());
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", AS_NOBODY])
        .env("DEVICE", home.path().join("fuse"))
        .env("BINARY", &binary)
        .env(DIR, &dir)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    assert!(mounts().unwrap().iter().all(|mount| mount.dir != dir));
}

#[test]
#[ignore = "run by a_user_mounts_for_himself, as nobody"]
fn as_a_user() {
    assert!(!rustix::process::geteuid().is_root());
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let bytes = noise(1_000_000);
    let tree = one_file(bytes.len());
    let content = Arc::new(MemoryContent::missing(vec![bytes.clone()]));
    let runtime = runtime();
    let mut options =
        MountOptions::new("https://host/a,allow_other,suid", runtime.handle().clone());

    options.privileges = Privileges::Effective;
    let refused = mount(&dir, tree.clone(), content.clone(), &options);
    assert!(matches!(refused, Err(MountError::PrivilegesRefused)), "{refused:?}");
    options.privileges = Privileges::Inert;

    let allowed = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !allowed.lines().any(|line| line.trim() == "user_allow_other") {
        options.audience = Audience::Everyone;
        let refused = mount(&dir, tree.clone(), content.clone(), &options);
        assert!(matches!(refused, Err(MountError::OthersNotAllowed)), "{refused:?}");
        options.audience = Audience::WidestAllowed;
    }

    let mut mounted = mount(&dir, tree, content, &options).unwrap();
    let ours = mounts().unwrap().into_iter().find(|mount| mount.dir == dir).unwrap();
    assert!(ours.is_ours(), "{ours:?}");
    assert_eq!(ours.name, "https://host/a%2Callow_other%2Csuid");
    assert!(read(&dir.join("f")) == bytes);
    let open = File::open(dir.join("f")).unwrap();
    let busy = mounted.unmount(Detach::WhenUnused);
    assert!(matches!(busy, Err(UnmountError::Busy(_))), "{busy:?}");
    drop(open);
    assert_eq!(mounted.unmount(Detach::WhenUnused).unwrap(), Unmounted::Ended);
}
