//! Layers with tables of contents, written by the programs that write them elsewhere: they are shown by their tables, and
//! nothing is read of them but what is read (decision 40).

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::registry::Guard;
use dfs_tests::{Cluster, Registry, wait};
use serde_json::Value;

use crate::support::containerd::Containerd;
use crate::support::entries::{self, Holes};
use crate::support::gatekeeper::{Asked, Gatekeeper, Verdict};
use crate::support::images::{Layout, MANIFEST, Packing, here, sha256};
use crate::support::ledger::Account;
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, binaries};

/// Bytes of the file that is most of the lower layer: several chunks, whoever writes them.
const LARGE: usize = 9_000_000;
/// Small files, and bytes of the first of them; each is longer by 70 than the one before.
const SMALL: usize = 80;
const LEAST: usize = 900;
/// When everything in it was made: eStargz knows whole seconds.
const MADE: i64 = 1_700_000_000;

/// Who writes the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// ctr-remote, as eStargz.
    Stargz,
    /// ctr-remote, as zstd:chunked.
    StargzChunked,
    /// skopeo, as zstd:chunked.
    Chunked,
}

const WRITERS: [Writer; 3] = [Writer::Stargz, Writer::StargzChunked, Writer::Chunked];

impl Writer {
    fn reference(self) -> &'static str {
        match self {
            Self::Stargz => "app:stargz",
            Self::StargzChunked => "app:stargz-chunked",
            Self::Chunked => "app:chunked",
        }
    }
}

/// A registry behind a gate, with an image whose layers have tables.
struct Stage {
    gate: Gatekeeper,
    registry: Registry,
    writer: Writer,
    layers: Vec<Value>,
    /// The same layers as others have them.
    packed: Layout,
    place: Place,
}

/// What the image is made of.
fn trees(place: &Place) -> [PathBuf; 3] {
    let (base, over, empty) = (place.dir("base"), place.dir("over"), place.dir("none"));
    put(&base.join("large"), &noise(1, LARGE));
    for number in 0..SMALL {
        put(&base.join(format!("small/{number:03}")), &small(number));
    }
    let holes = [noise(2, 70_001), vec![0; 300_000], noise(3, 50_000)].concat();
    put(&base.join("holes"), &holes);
    put(&base.join("empty"), b"");
    put(&base.join("gone"), b"gone");
    put(&base.join("opaque/below"), b"below");
    put(&base.join("n\u{e4}me <&> \"q\""), b"a name");
    fs::hard_link(base.join("small/001"), base.join("small/linked")).unwrap();
    symlink("small/001", base.join("symbolic")).unwrap();
    fs::set_permissions(base.join("small/004"), fs::Permissions::from_mode(0o4750)).unwrap();
    xattr::set(base.join("small/002"), "user.note", b"a\0note").unwrap();
    put(&over.join(".wh.gone"), b"");
    put(&over.join("opaque/.wh..wh..opq"), b"");
    put(&over.join("opaque/above"), &noise(4, 40_000));
    put(&over.join("small/003"), b"another");
    // Of this one there is nothing to fetch.
    fs::create_dir_all(empty.join("small/directory")).unwrap();
    for tree in [&base, &over, &empty] {
        let mut command = Command::new("find");
        command.arg(tree).args(["-exec", "touch", "--no-dereference"]);
        command.args([&format!("--date=@{MADE}"), "{}", "+"]);
        assert!(command.status().unwrap().success());
    }
    [base, over, empty]
}

fn small(number: usize) -> Vec<u8> {
    noise(100 + number as u64, LEAST + 70 * number)
}

fn layout(place: &Place, name: &str, trees: &[PathBuf; 3], packing: Packing) -> Layout {
    let mut layout = Layout::new(place.path(name));
    for tree in trees {
        let tar = tree.with_extension("tar");
        let mut command = Command::new("tar");
        command.args(["--create", "--format=pax", "--xattrs", "--xattrs-include=*", "--sort=name"]);
        // skopeo of Debian 12 loses what stands behind the end marks, and its layers unpack to something else then.
        command.args(["--blocking-factor=1", "--file"]).arg(&tar);
        assert!(command.arg("--directory").arg(tree).arg(".").status().unwrap().success());
        layout.tar(&fs::read(tar).unwrap(), packing);
    }
    layout.name(layout.image(here()));
    layout
}

impl Stage {
    fn new(writer: Writer) -> Self {
        let place = Place::new();
        let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
        let (reference, trees) = (writer.reference(), trees(&place));
        let packed = layout(&place, "packed", &trees, Packing::Gzip);
        if writer == Writer::Chunked {
            // What is packed already is not packed anew.
            let plain = layout(&place, "plain", &trees, Packing::Plain);
            registry.push_packed(plain.dir(), reference, "zstd:chunked").unwrap();
        } else {
            registry.push(packed.dir(), "app:packed").unwrap();
            convert(&place, &registry, writer);
        }
        let gate = Gatekeeper::before(registry.address().parse().unwrap());
        let manifest: Value = serde_json::from_str(&registry.inspect(reference).unwrap()).unwrap();
        let layers = manifest["layers"].as_array().unwrap().clone();
        assert!(layers.iter().all(|layer| layer["annotations"].is_object()), "{manifest}");
        Self { gate, registry, writer, layers, packed, place }
    }

    /// An agent alone, or one of a cluster, which it must not outlive.
    fn agent(&self, in_cluster: bool) -> (Option<Cluster>, Agent) {
        let start = || Cluster::start(&binaries(), self.place.root()).unwrap();
        let cluster = in_cluster.then(start);
        let agent = match &cluster {
            Some(cluster) => Agent::of(cluster, &self.place, "agent"),
            None => Agent::solo(&self.place, "agent"),
        };
        (cluster, agent)
    }

    fn url(&self) -> String {
        self.gate.url(self.writer.reference())
    }

    fn digest(&self, layer: usize) -> &str {
        self.layers[layer]["digest"].as_str().unwrap()
    }

    fn length(&self, layer: usize) -> u64 {
        self.layers[layer]["size"].as_u64().unwrap()
    }

    /// Bytes of a layer that left the registry, and how often all of it did.
    fn sent(&self, layer: usize) -> (u64, usize) {
        let of = |status| self.registry.sent(status, self.digest(layer));
        (of(206).iter().sum(), of(200).len())
    }

    /// Judges who reads the lower layer; all else passes.
    fn judge_layer(&self, judge: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) {
        let layer = self.digest(0).to_owned();
        self.gate.judge(move |asked| {
            let reads = asked.method == "GET" && asked.path.ends_with(&layer);
            if reads { judge(asked) } else { Verdict::Pass }
        });
    }

    /// Has this byte of the lower layer turned over, in whatever range it is asked for.
    fn alter(&self, at: u64) {
        self.judge_layer(move |asked| {
            let first = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
            let first = first.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0);
            at.checked_sub(first).map_or(Verdict::Pass, Verdict::Flip)
        });
    }

    /// Where the table of the lower layer lies.
    fn table(&self) -> u64 {
        let annotations = self.layers[0]["annotations"].as_object().unwrap();
        let position = annotations.iter().find(|(name, _)| name.ends_with(".manifest-position"));
        match position {
            Some((_, position)) => {
                position.as_str().unwrap().split(':').next().unwrap().parse().unwrap()
            }
            // It is less than a hundredth of the layer, in front of the footer.
            None => self.length(0) - 200,
        }
    }

    /// Puts an image of the same layers there, whose manifest says that the lower one has another table.
    fn push_other_table(&self, reference: &str) {
        let dir = self.place.path("other-table");
        self.registry.copy(self.writer.reference(), &format!("oci:{}", dir.display())).unwrap();
        let manifest = self.registry.inspect(self.writer.reference()).unwrap();
        let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
        let annotations = manifest["layers"][0]["annotations"].as_object_mut().unwrap();
        for value in annotations.values_mut().filter(|value| value.to_string().contains("sha256:"))
        {
            *value = sha256(b"another table").into();
        }
        let layout = Layout::new(dir);
        layout.name(layout.blob(MANIFEST, manifest.to_string().as_bytes()));
        self.registry.push(layout.dir(), reference).unwrap();
    }

    /// All that is to be seen is, as others unpack the same layers.
    fn is_right(&self, dir: &Path) {
        assert!(fs::read(dir.join("large")).unwrap() == noise(1, LARGE));
        for number in (0..SMALL).filter(|number| *number != 3) {
            assert!(fs::read(dir.join(format!("small/{number:03}"))).unwrap() == small(number));
        }
        let bundle = self.place.path("bundle");
        let is_unpacked = bundle.exists();
        let unpacked =
            if is_unpacked { bundle.join("rootfs") } else { self.packed.unpacked(&bundle) };
        let shown = entries::walk(dir);
        let unpacked = entries::walk(&unpacked);
        let unpacked = entries::but_for_dates_of_unpacking(unpacked, &shown, MADE + 1);
        entries::assert_same(&shown, &unpacked, Holes::Unsaid);
    }
}

/// Has the packed image converted, and puts it beside it.
fn convert(place: &Place, registry: &Registry, writer: Writer) {
    let containerd = Containerd::start(place, &place.path("nobody.sock"));
    let packed = format!("{}/app:packed", registry.address());
    let converted = format!("{}/{}", registry.address(), writer.reference());
    let to = if writer == Writer::Stargz { "--estargz" } else { "--zstdchunked" };
    let said = |words: &[&str]| drop(containerd.ctr_remote(words).done());
    said(&["content", "fetch", "--plain-http", &packed]);
    said(&["images", "convert", to, "--oci", &packed, &converted]);
    said(&["images", "push", "--plain-http", &converted]);
}

#[test]
fn an_image_whose_layers_have_tables_is_mounted_without_reading_them() {
    for writer in WRITERS {
        let stage = Stage::new(writer);
        let agent = Agent::solo(&stage.place, "agent");
        let dir = agent.mount(&stage.url(), stage.place.path("mount"));
        let names = fs::read_dir(dir.join("small")).unwrap().count();
        assert_eq!(names, SMALL + 2, "{writer:?}");
        let (looked, whole) = stage.sent(0);
        assert!(looked * 20 < stage.length(0) && whole == 0, "{writer:?}: {looked}, {whole}");
        assert!(fs::read(dir.join("small/050")).unwrap() == small(50));
        let mut middle = [0; 1000];
        File::open(dir.join("large")).unwrap().read_exact_at(&mut middle, 8_500_000).unwrap();
        assert!(middle == noise(1, LARGE)[8_500_000..][..1000]);
        let (read, whole) = stage.sent(0);
        assert!(read * 2 < stage.length(0) && whole == 0, "{writer:?}: {read}, {whole}");
        stage.is_right(&dir);
        let (read, whole) = stage.sent(0);
        let most = stage.length(0) * 11 / 10;
        assert!(read <= most && whole == 0, "{writer:?}: {read} of {most}");
    }
}

#[test]
fn what_many_read_of_a_layer_with_a_table_leaves_the_registry_once() {
    let stage = Stage::new(Writer::Chunked);
    let cluster = Cluster::start(&binaries(), stage.place.root()).unwrap();
    let agents = ["a", "b"].map(|name| Agent::of(&cluster, &stage.place, name));
    for agent in &agents {
        let dir = stage.place.path(&format!("mount-{}", agent.node.name()));
        let dir = agent.mount(&stage.url(), dir);
        stage.is_right(&dir);
        assert_eq!(Account::of_mount(agent).source, 0);
    }
    let (read, whole) = stage.sent(0);
    let most = stage.length(0) * 11 / 10;
    assert!(read <= most && whole == 0, "{read} of {most}");
}

#[test]
fn a_chunk_with_another_byte_is_an_error_of_what_it_is_in_and_nothing_wrong_is_kept() {
    for writer in WRITERS {
        for in_cluster in [false, true] {
            let stage = Stage::new(writer);
            let (_cluster, agent) = stage.agent(in_cluster);
            // In the first chunk of the large file.
            stage.alter(stage.length(0) / 8);
            let dir = agent.mount(&stage.url(), stage.place.path("mount"));
            let error = fs::read(dir.join("large")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5), "{writer:?}: {error}");
            assert!(stage.gate.spoiled() > 0);
            let why = xattr::get(dir.join("large"), "user.dfs.error").unwrap().unwrap();
            let why = String::from_utf8_lossy(&why).into_owned();
            assert!(why.contains("chunk"), "{writer:?}: {why}");
            // What is in other chunks is read all the same.
            let mut last = [0; 1000];
            File::open(dir.join("large")).unwrap().read_exact_at(&mut last, 8_999_000).unwrap();
            assert!(last == noise(1, LARGE)[8_999_000..]);
            assert!(fs::read(dir.join("small/070")).unwrap() == small(70));
            stage.gate.open();
            let read = || fs::read(dir.join("large")).is_ok();
            wait::until("the registry is believed again", read).unwrap();
            stage.is_right(&dir);
        }
    }
}

#[test]
fn a_table_with_another_byte_is_one_error_and_nothing_of_it_is_shown() {
    for writer in WRITERS {
        let stage = Stage::new(writer);
        let agent = Agent::solo(&stage.place, "agent");
        stage.alter(stage.table() + 50);
        let dir = stage.place.dir("mount");
        agent.guard(&dir);
        let said = agent.dfctl(&["mount", &stage.url(), dir.to_str().unwrap()]);
        assert!(stage.gate.spoiled() > 0);
        assert_ne!(said.code, 0, "{writer:?}");
        assert!(said.stderr.contains("DFS-") && said.stderr.contains("sha256:"), "{}", said.stderr);
        assert_eq!(agent.shown(&dir), None);
        stage.gate.open();
        let mounts = || agent.dfctl(&["mount", &stage.url(), dir.to_str().unwrap()]).code == 0;
        wait::until("the registry is believed again", mounts).unwrap();
        stage.is_right(&dir);
    }
}

#[test]
fn a_manifest_that_names_another_table_has_its_layers_read_whole() {
    for writer in WRITERS {
        let stage = Stage::new(writer);
        stage.push_other_table("app:other");
        let agent = Agent::solo(&stage.place, "agent");
        // What is known by the right table is of no use to who names another one.
        let copied = stage.sent(0).1;
        let dir = agent.mount(&stage.url(), stage.place.path("mount"));
        assert_eq!(stage.sent(0).1, copied);
        let other = agent.mount(&stage.gate.url("app:other"), stage.place.path("other"));
        assert_eq!(stage.sent(0).1, copied + 1, "{writer:?}: all of it was read");
        assert!(agent.log().contains("table of contents is not used"), "{}", agent.log());
        assert!(fs::read(other.join("large")).unwrap() == noise(1, LARGE));
        stage.is_right(&dir);
    }
}

#[test]
fn a_registry_without_ranges_gives_layers_with_tables_whole() {
    for writer in WRITERS {
        for in_cluster in [false, true] {
            let stage = Stage::new(writer);
            let (_cluster, agent) = stage.agent(in_cluster);
            stage.gate.judge(|_| Verdict::Whole);
            let dir = agent.mount(&stage.url(), stage.place.path("mount"));
            assert!(fs::read(dir.join("large")).unwrap() == noise(1, LARGE));
            assert!(fs::read(dir.join("small/050")).unwrap() == small(50));
            assert_eq!(stage.sent(0).0, 0);
        }
    }
}
