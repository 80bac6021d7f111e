//! A writable tree over one that is not, as containers have.

use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::Mount;
use dfs_tests::process::Said;

use super::{Expected, Place, Tmpfs};

/// An overlayfs of its own; what is written to it is kept in memory.
pub struct Overlay {
    // What is mounted last goes first.
    merged: Mount,
    upper: Tmpfs,
}

impl Overlay {
    /// Over `lower`; `name` is that of its directories.
    pub fn over(lower: &Path, place: &Place, name: &str) -> Self {
        let upper = Tmpfs::mount(place.dir(&format!("{name}-upper")), 3 << 30);
        let merged = Mount::guard(&place.dir(&format!("{name}-merged")));
        let [above, work] = ["above", "work"].map(|part| upper.path().join(part));
        [&above, &work].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        // Data of what changes in its attributes only stays below.
        let (lower, above, work) = (lower.display(), above.display(), work.display());
        let options = format!(
            "lowerdir={lower},upperdir={above},workdir={work},metacopy=on,redirect_dir=on,index=off"
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "-o", &options, "dfs-e2e"]).arg(merged.dir());
        Said::by(&mut mount).unwrap().done();
        Self { merged, upper }
    }

    /// What is seen.
    pub fn path(&self) -> &Path {
        self.merged.dir()
    }

    /// A directory of another file system, in which one may write.
    pub fn elsewhere(&self) -> PathBuf {
        self.upper.path().to_owned()
    }
}
