//! What others wrote to try file systems, and programs that people work with, on a mount and on an overlay whose
//! lower layer is one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::bucket::installed;
use dfs_tests::process::Said;
use dfs_tests::{Body, Mount, Origin};

use crate::support::entries::{self, Holes, Inodes};
use crate::support::lanes::{self, LANES, Lane};
use crate::support::overlay::Overlay;
use crate::support::own::Own;
use crate::support::trees::{self, noise, put};
use crate::support::{Expected, Place};

/// What tests in an overlay begin with: a directory that lies below.
fn base(root: &Path) {
    put(&root.join("base/file"), &noise(1, 262_144));
    trees::varied(&root.join("base/varied"));
    fs::set_permissions(root.join("base"), fs::Permissions::from_mode(0o777)).unwrap();
}

/// A tree beside a large file, and a tar of both at a web server.
struct Packed {
    place: Place,
    source: PathBuf,
    origin: Origin,
}

/// How a tree in a lane is looked at, from an agent of its own.
struct Shown {
    dir: PathBuf,
    /// Taken away before the agent is.
    _mounts: Vec<Mount>,
    _own: Own,
}

impl Packed {
    fn new(plant: impl FnOnce(&Path)) -> Self {
        let place = Place::new();
        place.open_to_others();
        let source = place.dir("packed/tree");
        plant(&source);
        // Who looks for what is in a tar reads its small files: this one is still to come.
        put(&place.path("packed/large"), &noise(8, 9_000_001));
        let file = place.path("packed.tar");
        let mut tar = Command::new("tar");
        tar.args(["--format=pax", "--xattrs", "--acls", "--sparse", "-C"]).arg(place.dir("packed"));
        Said::by(tar.arg("-cf").arg(&file).arg(".")).unwrap().done();
        let origin = Origin::of("/packed.tar", Body::File(file)).unwrap();
        Self { place, source, origin }
    }

    /// The tar, or the directory itself where large files are passed: of a tar none is.
    fn shown(&self, lane: Lane) -> Shown {
        println!("by the lane {lane:?}");
        let place = Place::new();
        place.open_to_others();
        let own = Own::start(place);
        let url = match lane {
            Lane::Passthrough => format!("file://{}/", self.place.dir("packed").display()),
            Lane::Fuse | Lane::Whole | Lane::Lazy => self.origin.url("/packed.tar"),
        };
        let (dir, _mounts) = lanes::mounted(&own, lane, &url);
        Shown { dir: dir.join("tree"), _mounts, _own: own }
    }

    fn overlay(&self, shown: &Shown, name: &str) -> Overlay {
        Overlay::over(&shown.dir, &self.place, name)
    }
}

/// Those in which all of a tar can be shown.
const OF_TARS: [Lane; 3] = [Lane::Fuse, Lane::Whole, Lane::Lazy];

/// What pjdfstest tries and no overlayfs can do, whatever is below, and why.
const NOT_ON_OVERLAYS: [(&str, &str); 1] =
    [("::char", "it makes character devices of number 0, which stand for files that were removed")];

/// Remounting the overlay is not allowed: others of its tests leave it busy. What a mount refuses is tried by
/// `semantics::refused`.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// What became of each of the cases of pjdfstest in an overlay.
fn pjdfstest(overlay: &Overlay, place: &Place) -> BTreeMap<String, String> {
    let configuration = place.path("pjdfstest.toml");
    put(&configuration, PJDFSTEST.as_bytes());
    let mut suite = Command::new(installed("pjdfstest-0.2.2/bin/pjdfstest"));
    suite.arg("-c").arg(&configuration).arg("-s").arg(overlay.elsewhere());
    // Some fail: which ones is what counts.
    let said = Said::by(suite.arg("-p").arg(overlay.path().join("base"))).unwrap();
    let text = said.text();
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let cases = words.filter_map(|words| match words[..] {
        [name, outcome @ ("ok" | "FAILED" | "skipped")] => {
            Some((name.to_owned(), outcome.to_owned()))
        }
        _ => None,
    });
    cases.collect()
}

#[test]
fn pjdfstest_finds_an_overlay_of_a_mount_as_good_as_one_of_a_disk() {
    let packed = Packed::new(base);
    let shown = packed.shown(Lane::Fuse);
    let ours = pjdfstest(&packed.overlay(&shown, "ours"), &packed.place);
    let plain = Overlay::over(&packed.source, &packed.place, "plain");
    let plain = pjdfstest(&plain, &packed.place);
    assert!(plain.len() > 350, "{} cases", plain.len());
    assert_eq!(ours, plain);
    let excused = |name: &str| NOT_ON_OVERLAYS.iter().any(|(part, _)| name.ends_with(part));
    let unexpected: Vec<_> =
        ours.iter().filter(|(name, is)| *is == "FAILED" && !excused(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let passed = ours.values().filter(|is| *is == "ok").count();
    assert!(passed > 300, "{passed} of {} cases passed", ours.len());
}

/// A file of its own, written, cut, mapped and read in every way.
const FSX_FRESH: &str = "[weights]\nclose_open = 1\ninvalidate = 1\ntruncate = 1\nfsync = 1\nfdatasync = 1\n\
    posix_fallocate = 1\npunch_hole = 1\nsendfile = 5\nposix_fadvise = 1\ncopy_file_range = 1\n";

/// One that lies below and is copied up when it is opened.
const FSX_BELOW: &str = "blockmode = true\nnosizechecks = true\n[weights]\ntruncate = 0\ninvalidate = 1\n\
    fsync = 1\nsendfile = 5\nposix_fadvise = 1\ncopy_file_range = 1\n";

#[test]
fn fsx_finds_what_it_wrote_in_an_overlay_of_a_mount() {
    let packed = Packed::new(base);
    for lane in [Lane::Fuse, Lane::Lazy] {
        let shown = packed.shown(lane);
        let overlay = packed.overlay(&shown, &format!("{lane:?}"));
        for (name, configuration) in [("fresh", FSX_FRESH), ("file", FSX_BELOW)] {
            let place = packed.place.path(&format!("{name}.toml"));
            put(&place, configuration.as_bytes());
            for seed in ["1", "2", "3"] {
                let mut fsx = Command::new(installed("fsx-0.3.2/bin/fsx"));
                fsx.args(["-q", "-N", "3000", "-S", seed, "-f"]).arg(&place);
                fsx.arg("-P").arg(packed.place.root()).arg(overlay.path().join("base").join(name));
                Said::by(&mut fsx).unwrap().done();
            }
        }
        trees::assert_same(&shown.dir, &packed.source);
    }
}

/// Of the class `filesystem`, those that are about no file system, need one that this is not, sync the whole machine,
/// or are told of what the others do at the same time.
const NOT_STRESSED: &str =
    "binderfs,dup,eventfd,ioprio,procfs,fiemap,verity,io,sync-file,dnotify,inotify";

#[test]
fn an_overlay_of_a_mount_bears_stress() {
    let packed = Packed::new(base);
    let shown = packed.shown(Lane::Fuse);
    let overlay = packed.overlay(&shown, "ours");
    let mut stress = Command::new("stress-ng");
    stress.args(["--class", "filesystem", "--all", "1", "--timeout", "8", "--verify"]);
    stress.args(["--hdd-bytes", "64m", "--fallocate-bytes", "64m", "--iomix-bytes", "64m"]);
    stress.args(["--exclude", NOT_STRESSED, "--temp-path"]).arg(overlay.path().join("base"));
    let said = Said::by(&mut stress).unwrap().done();
    assert!(said.stderr.contains("successful run completed"), "{}", said.stderr);
    trees::assert_same(&shown.dir.join("base/varied"), &packed.source.join("base/varied"));
}

#[test]
fn what_is_copied_up_from_a_mount_is_what_was_there() {
    let packed = Packed::new(|root| {
        base(root);
        trees::rich(&root.join("rich"));
        let file = root.join("rich/data/private");
        xattr::set(&file, "user.note", b"kept").unwrap();
        Said::by(Command::new("setfacl").args(["-m", "u:4242:rw"]).arg(&file)).unwrap().done();
        Said::by(Command::new("setcap").arg("cap_net_raw+ep").arg(root.join("rich/bin/true")))
            .unwrap()
            .done();
        fs::File::create(root.join("sparse")).unwrap().set_len(5 << 20).unwrap();
    });
    let shown = packed.shown(Lane::Fuse);
    let overlay = packed.overlay(&shown, "ours");
    let wanted = entries::each_alone(entries::walk(&packed.source));
    let seen = entries::walk_where(overlay.path(), Inodes::OfLayers);
    entries::assert_same(&entries::each_alone(seen), &wanted, Holes::Same);
    // Its attributes first, and its bytes only when they are written.
    for script in
        ["chmod -R --reference=/proc/self/exe . && chmod -R u+s .", "touch -ach -r \"$1\" ."]
    {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script, "sh"]).arg(&packed.source).current_dir(overlay.path());
        Said::by(&mut shell).unwrap().done();
    }
    let files = wanted.iter().filter_map(|(path, seen)| Some((path, seen.content()?)));
    for (path, content) in files.clone() {
        let full = overlay.path().join(path);
        assert_eq!(blake3::hash(&fs::read(&full).unwrap()), content.digest, "{path:?}");
        let file = fs::OpenOptions::new().append(true).open(&full).unwrap();
        std::io::Write::write_all(&mut &file, b"!").unwrap();
        let bytes = fs::read(&full).unwrap();
        let before = &bytes[..content.length as usize];
        assert!(blake3::hash(before) == content.digest && bytes.ends_with(b"!"), "{path:?}");
    }
    let list = xattr::get(overlay.path().join("rich/data/private"), "user.note").unwrap();
    assert_eq!(list.as_deref(), Some(&b"kept"[..]));
    assert_eq!(
        entries::each_alone(entries::walk(&shown.dir)),
        wanted,
        "what is below is as it was"
    );
}

/// What fio writes before it is published, and reads in a mount: every block tells what it is.
const FIO: [&str; 6] = [
    "--name=verified",
    "--filename=verified",
    "--size=48m",
    "--bs=32k",
    "--verify=crc32c",
    "--minimal",
];

fn fio(dir: &Path, words: &[&str]) {
    let mut fio = Command::new("fio");
    Said::by(fio.args(FIO).args(words).current_dir(dir)).unwrap().done();
}

#[test]
fn fio_verifies_what_it_wrote_before_it_was_packed() {
    let packed = Packed::new(|root| fio(root, &["--rw=write", "--do_verify=0"]));
    let only = ["--readonly", "--verify_fatal=1"];
    for lane in LANES {
        let shown = packed.shown(lane);
        for how in [
            &["--rw=randread", "--ioengine=psync"][..],
            &["--rw=read", "--ioengine=mmap"],
            &["--rw=randread", "--ioengine=mmap"],
            &["--rw=read", "--ioengine=psync", "--direct=1"],
            &["--rw=randread", "--ioengine=libaio", "--iodepth=16", "--direct=1"],
        ] {
            // What EROFS reads of other files goes by way of the page cache.
            if lane.is_by_kernel() && how.contains(&"--direct=1") {
                continue;
            }
            fio(&shown.dir, &[&only[..], how].concat());
            let file = fs::File::open(shown.dir.join("verified")).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

/// Sources that others wrote: those of a C library that is compiled in.
fn sources() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"));
    let registries = fs::read_dir(home.join("registry/src")).unwrap();
    let packages = registries.flat_map(|registry| fs::read_dir(registry.unwrap().path()).unwrap());
    let mut found: Vec<_> = packages
        .map(|package| package.unwrap().path())
        .filter(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"zstd-sys-"))
        .collect();
    found.sort();
    found.pop().expect("cargo has fetched zstd-sys, of which dfs is made")
}

/// Runs `script` in the directory; what it printed.
fn in_dir(dir: &Path, out: &Path, script: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(dir).env("OUT", out).env("LC_ALL", "C");
    // As they come, without anybody's settings.
    shell.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    shell.env("PYTHONPYCACHEPREFIX", out.join("python"));
    for (key, value) in [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory")] {
        shell.env(key, value);
    }
    Said::by(shell.env("GIT_CONFIG_VALUE_0", "*")).unwrap().done().text()
}

#[test]
fn git_finds_a_repository_in_a_mount_as_it_was_committed() {
    let packed = Packed::new(|root| {
        let script = "git init -q -b main . && cp -R \"$OUT\"/. . && git add -f . && \
            git -c user.name=a -c user.email=a@b commit -qm first && git rm -rq --cached zstd/lib/dictBuilder && \
            echo changed >> zstd/lib/zstd.h && git gc -q";
        in_dir(root, &sources(), script);
    });
    let script = "git status --porcelain && git fsck --full --strict && git diff --stat && \
        git log --stat --format=%H%an && git grep -c ZSTD_isError && \
        git ls-files -s | git hash-object --stdin && git archive HEAD | sha256sum";
    let wanted = in_dir(&packed.source, packed.place.root(), script);
    assert!(
        wanted.contains(" M zstd/lib/zstd.h") && wanted.contains("D  zstd/lib/dictBuilder"),
        "{wanted}"
    );
    let clone = "git clone -q . \"$OUT/clone\" && git -C \"$OUT/clone\" fsck --full && git -C \"$OUT/clone\" status -s";
    for lane in OF_TARS {
        let (shown, out) = (packed.shown(lane), Place::new());
        assert_eq!(in_dir(&shown.dir, out.root(), script), wanted);
        in_dir(&shown.dir, out.root(), clone);
    }
}

#[test]
fn compilers_and_searches_work_on_sources_in_a_mount() {
    let packed = Packed::new(|root| {
        in_dir(root, &sources(), "cp -R \"$OUT\"/zstd c");
        let out = "import sysconfig; print(sysconfig.get_paths()[\"stdlib\"])";
        let script = format!(
            "mkdir python && cd \"$(python3 -c '{out}')\" && \
            tar -c --exclude=__pycache__ json email http html xml | tar -x -C \"$OUT/python\""
        );
        in_dir(root, root, &script);
    });
    let shown = OF_TARS.map(|lane| packed.shown(lane));
    let alike = |script: &str| {
        let seen_in = |dir| in_dir(dir, Place::new().root(), script);
        let wanted = seen_in(&packed.source);
        assert!(wanted.lines().count() > 5, "{script}: {wanted}");
        shown.iter().for_each(|shown| assert_eq!(seen_in(&shown.dir), wanted, "{script}"));
    };
    alike(
        "rg --sort path --count 'ZSTD_[a-z]+Error' . && rg --files --sort path | sha256sum | tr ' ' '\\n'",
    );
    alike(
        "cd c/lib && for file in common/*.c; do \
        cc -O0 -DZSTD_DISABLE_ASM -I. -c \"$file\" -o \"$OUT/$(basename \"$file\").o\"; done && \
        cd \"$OUT\" && sha256sum *.o",
    );
    alike(
        "python3 -m compileall -q python && cd \"$OUT\" && find . -name '*.pyc' | sed 's,.*/python/,,' | sort",
    );
}
