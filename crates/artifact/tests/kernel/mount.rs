//! Mounts an image with the kernel, content files as its devices.

use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use tempfile::TempDir;

/// A mounted image; unmounted when dropped.
pub struct Mounted {
    dir: TempDir,
}

impl Mounted {
    pub fn new(image: &Path, devices: &[PathBuf]) -> Self {
        let devices = devices.iter().map(|device| ("device", device.as_path()));
        Self::of("erofs", [("source", image)].into_iter().chain(devices))
    }

    /// Mounts a file system of this kind with these options, read-only.
    pub fn of<'a>(kind: &str, options: impl Iterator<Item = (&'a str, &'a Path)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has it");
        for (key, value) in options {
            fsconfig_set_string(&context, key, value).unwrap();
        }
        fsconfig_set_flag(&context, "ro").unwrap();
        fsconfig_create(&context).expect("the kernel takes the options");
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount.unwrap(), "", rustix::fs::CWD, dir.path(), flags).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
