//! How a container's root is put together of what lies below a snapshot: pure.

use std::path::Path;

use dfs_proto::snapshots::Mount;

use super::dirs::Dirs;
use super::store::{Kind, Usable};

/// What is mounted for a snapshot. `index_off` is said to kernels that know of it: two containers of one image have the same
/// lower directories.
pub fn mounts_of(usable: &Usable, dirs: &Dirs, index_off: bool) -> Vec<Mount> {
    let below = usable.below.iter().map(|below| dirs.below(below).display().to_string());
    let below: Vec<_> = below.collect();
    match (usable.kind, &below[..]) {
        (Kind::Active, []) => vec![bound(&dirs.written(usable.id), "rw")],
        (_, []) => vec![bound(&dirs.written(usable.id), "ro")],
        (Kind::View | Kind::Committed, [one]) => vec![bound(Path::new(one), "ro")],
        (kind, _) => {
            let mut options = Vec::new();
            if index_off {
                options.push("index=off".to_owned());
            }
            if kind == Kind::Active {
                options.push(format!("workdir={}", dirs.work(usable.id).display()));
                options.push(format!("upperdir={}", dirs.written(usable.id).display()));
            }
            options.push(format!("lowerdir={}", below.join(":")));
            let overlay = || "overlay".to_owned();
            vec![Mount { r#type: overlay(), source: overlay(), target: String::new(), options }]
        }
    }
}

fn bound(path: &Path, access: &str) -> Mount {
    Mount {
        r#type: "bind".to_owned(),
        source: path.display().to_string(),
        target: String::new(),
        options: vec![access.to_owned(), "rbind".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshotter::store::{Below, Layer};

    fn mounted(kind: Kind, below: &[Below]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let dirs = Dirs::in_dir(folder.path()).unwrap();
        let usable = Usable { id: 9, kind, below: below.to_vec() };
        let mut mounts = mounts_of(&usable, &dirs, true);
        let Mount { r#type, source, options, .. } = mounts.pop().unwrap();
        assert!(mounts.is_empty());
        let root = folder.path().display().to_string();
        let all = [vec![r#type, source], options].concat();
        all.into_iter().map(|text| text.replace(&root, "")).collect()
    }

    #[test]
    fn what_is_mounted_is_what_containerds_overlay_would_mount() {
        let image = Below::Image {
            name: "sha256:ab".to_owned(),
            layer: Layer {
                image: String::new(),
                number: 2,
                of: 2,
                top: String::new(),
                digest: String::new(),
            },
        };
        let directory = Below::Directory(3);
        let at = "/snapshotter/snapshots";
        let shown = "/snapshotter/images/sha256-ab";
        assert_eq!(mounted(Kind::Active, &[]), ["bind", &format!("{at}/9/fs"), "rw", "rbind"]);
        assert_eq!(
            mounted(Kind::View, std::slice::from_ref(&image)),
            ["bind", shown, "ro", "rbind"]
        );
        let (work, upper) = (format!("workdir={at}/9/work"), format!("upperdir={at}/9/fs"));
        assert_eq!(
            mounted(Kind::Active, std::slice::from_ref(&image)),
            ["overlay", "overlay", "index=off", &work, &upper, &format!("lowerdir={shown}")]
        );
        assert_eq!(
            mounted(Kind::View, &[directory, image]),
            ["overlay", "overlay", "index=off", &format!("lowerdir={at}/3/fs:{shown}")]
        );
    }
}
