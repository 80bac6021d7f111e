//! Indexes of layers that others made: attached to an image, or in a file. Who has one reads no layer as a whole, and who is not
//! believed has no say.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dfs_artifact::image::attached::{
    About, AttachedLayer, EMPTY_CONFIG, IndexSigner, LayerIndex, manifest,
};
use dfs_source::oci::ContentDigest;
use dfs_tests::registry::Guard;
use dfs_tests::{Cluster, Registry};
use serde_json::Value;

use crate::support::gatekeeper::{Gatekeeper, Verdict};
use crate::support::images::{Layout, MANIFEST, Packing, here};
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, binaries, until};

/// Files of the layer that is read in parts, and bytes of each: noise does not pack.
const FILES: u64 = 100;
const FILE_BYTES: usize = 90_000;

/// A private key, and whose it is.
const KEY: [u8; 32] = [7; 32];

/// An image of a compressed layer and a plain one in a registry.
struct Stage {
    registry: Registry,
    layout: Layout,
    image: Value,
    place: Place,
}

impl Stage {
    fn new() -> Self {
        Self::packed(Packing::Gzip)
    }

    /// Its first layer is packed so.
    fn packed(packing: Packing) -> Self {
        let place = Place::new();
        let tree = place.dir("packed");
        for number in 0..FILES {
            put(&tree.join(format!("app/part-{number:03}")), &noise(number, FILE_BYTES));
        }
        let plain = place.dir("plain");
        put(&plain.join("etc/large"), &noise(1000, 3_000_000));
        put(&plain.join("etc/small"), b"small");
        let mut layout = Layout::new(place.path("layout"));
        layout.layer(&tree, packing).layer(&plain, Packing::Plain);
        let image = layout.image(here());
        layout.name(image.clone());
        let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
        registry.push(layout.dir(), "team/app:1").unwrap();
        fs::write(place.path("key"), KEY).unwrap();
        Self { registry, layout, image, place }
    }

    fn url(&self) -> String {
        self.registry.url("team/app:1")
    }

    /// Has an agent make the indexes and do `more` with them.
    fn index(&self, name: &str, more: &[&str]) -> Value {
        let maker = Agent::solo(&self.place, name);
        let url = self.url();
        let words = [&["image", "index", &url, "--format", "json"], more].concat();
        maker.dfctl(&words).done().json().unwrap()
    }

    fn signed(&self) -> String {
        let key = self.place.path("key");
        let told = self.index("signer", &["--push", "--sign", key.to_str().unwrap()]);
        let key = told["signed_by"].as_str().unwrap().to_owned();
        assert_eq!(key, IndexSigner::read(&KEY).unwrap().key().to_string());
        key
    }

    /// How often a layer was given as a whole, and how many bytes of it in parts.
    fn given(&self, layer: usize) -> (usize, u64) {
        let digest = self.layout.layer_digest(layer);
        let parts = self.registry.sent(206, &digest);
        (self.registry.sent(200, &digest).len(), parts.iter().sum())
    }

    /// It is mounted and little of it read, by ranges of the layers alone; then all of it is right.
    fn is_read_in_parts(&self, agent: &Agent) {
        let before = [0, 1].map(|layer| self.given(layer));
        let dir = agent.mount(&self.url(), self.mount_of(agent));
        assert!(fs::read(dir.join("app/part-050")).unwrap() == noise(50, FILE_BYTES));
        assert_eq!(fs::read(dir.join("etc/small")).unwrap(), b"small");
        for (layer, (whole, parts)) in before.into_iter().enumerate() {
            until("the registry has noted what it gave", || self.given(layer).1 > parts);
            let (whole_then, parts_then) = self.given(layer);
            let (given, all) = (parts_then - parts, self.layout.layer_bytes(layer));
            assert_eq!(whole_then, whole, "layer {layer} was not read as a whole");
            assert!(given * 3 < all, "{given} of {all} bytes of layer {layer}");
        }
        all_is_right(&dir);
        for (layer, (whole, _)) in before.into_iter().enumerate() {
            assert_eq!(self.given(layer).0, whole, "nor later");
        }
        let log = agent.log();
        assert!(!log.contains("not used"), "{log}");
    }

    /// It is mounted after its layers were read, as if there were no index; all of it is right. What the agent said of it.
    fn is_read_as_a_whole(&self, agent: &Agent) -> String {
        let before = self.given(0).0;
        let dir = agent.mount(&self.url(), self.mount_of(agent));
        assert_eq!(self.given(0).0, before + 1);
        all_is_right(&dir);
        agent.log()
    }

    fn mount_of(&self, agent: &Agent) -> PathBuf {
        self.place.path(&format!("mount-{}", agent.node.name()))
    }

    /// Attaches what is said to be the index of the first layer, signed.
    fn attach(&self, content: &[u8]) {
        let digest = |value: &Value| value.as_str().unwrap().parse::<ContentDigest>().unwrap();
        let of = |name: &str| digest(&self.image[name]);
        let about = About {
            media_type: MANIFEST.to_owned(),
            digest: of("digest"),
            size: self.image["size"].as_u64().unwrap(),
        };
        let layer = AttachedLayer {
            layer: self.layout.layer_digest(0).parse().unwrap(),
            diff_id: self.layout.diff_id(0).parse().unwrap(),
            blob: ContentDigest::sha256(content),
            size: content.len() as u64,
        };
        let signer = IndexSigner::read(&KEY).unwrap();
        let manifest = manifest(&about, &[layer], Some(&signer));
        let made = Layout::new(self.place.path("attached"));
        made.blob("application/octet-stream", content);
        made.blob("application/vnd.oci.empty.v1+json", EMPTY_CONFIG);
        made.name(made.blob(MANIFEST, &manifest));
        let from = format!("oci-layout:{}", made.dir().display());
        let pusher = Agent::solo(&self.place, "pusher");
        pusher.dfctl(&["push", &from, &self.registry.url("team/app:attached")]).done();
    }
}

fn all_is_right(dir: &Path) {
    for number in 0..FILES {
        let path = dir.join(format!("app/part-{number:03}"));
        assert!(fs::read(path).unwrap() == noise(number, FILE_BYTES), "part {number}");
    }
    assert!(fs::read(dir.join("etc/large")).unwrap() == noise(1000, 3_000_000));
}

/// How often an agent said that something attached is not used.
fn refusals(log: &str) -> usize {
    log.lines().filter(|line| line.contains("not used")).count()
}

#[test]
fn who_believes_what_is_attached_reads_no_layer_as_a_whole() {
    for packing in [Packing::Gzip, Packing::Members, Packing::Frames] {
        let stage = Stage::packed(packing);
        let key = stage.signed();
        let fresh = Agent::solo_with(&stage.place, "fresh", &["--index-key", &key]);
        let told = fresh.dfctl(&["image", "inspect", &stage.url(), "--format", "json"]).done();
        let told = told.json().unwrap();
        let [referrer] = &told["referrers"].as_array().unwrap()[..] else { panic!("{told}") };
        assert_eq!(referrer["artifact_type"], "application/vnd.dfs.image.index.v1");
        assert_eq!(referrer["about"], stage.image["digest"]);
        stage.is_read_in_parts(&fresh);
    }
}

#[test]
fn a_registry_can_be_believed_whoever_attaches() {
    let stage = Stage::new();
    stage.index("maker", &["--push"]);
    let address = stage.registry.address();
    let fresh = Agent::solo_with(&stage.place, "fresh", &["--index-registry", &address]);
    stage.is_read_in_parts(&fresh);
}

#[test]
fn a_seed_uses_what_is_attached_for_its_nodes() {
    let stage = Stage::new();
    let key = stage.signed();
    let config = stage.place.path("cluster.toml");
    fs::write(&config, format!("[seed]\nindex-keys = [\"{key}\"]\n")).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), stage.place.root(), &config).unwrap();
    let node = Agent::of(&cluster, &stage.place, "node");
    stage.is_read_in_parts(&node);
    // An agent in a cluster has no indexes of its own to give.
    let said = node.dfctl(&["image", "index", &stage.url(), "--push"]).fails(1, "DFS-2107");
    assert!(said.stderr.contains("dfctl --solo image index"), "{}", said.stderr);
}

#[test]
fn nobody_is_asked_who_is_not_believed_and_what_is_unsigned_or_anothers_is_not_used() {
    let stage = Stage::new();
    stage.index("maker", &["--push"]);
    let asked = || stage.registry.requests("GET", "/referrers/");
    let before = asked();
    let usual = Agent::solo(&stage.place, "usual");
    assert_eq!(refusals(&stage.is_read_as_a_whole(&usual)), 0);
    assert_eq!(asked(), before, "by default nobody asks");
    let key = IndexSigner::read(&KEY).unwrap().key().to_string();
    let strict = Agent::solo_with(&stage.place, "strict", &["--index-key", &key]);
    let log = stage.is_read_as_a_whole(&strict);
    assert_eq!(refusals(&log), 1, "{log}");
    assert!(log.contains("no key that is believed has signed it"), "{log}");
    stage.signed();
    let other = IndexSigner::read(&[8; 32]).unwrap().key().to_string();
    let other = Agent::solo_with(&stage.place, "other", &["--index-key", &other]);
    let log = stage.is_read_as_a_whole(&other);
    assert_eq!(refusals(&log), 2, "each is said once: {log}");
}

#[test]
fn an_index_that_is_altered_or_hostile_is_not_used_and_the_layer_is_read() {
    let stage = Stage::new();
    let key = IndexSigner::read(&KEY).unwrap().key().to_string();
    let (index, beside) = (Bytes::from_static(b"no index at all"), Vec::new());
    let hostile = LayerIndex { index, beside }.encode().unwrap();
    for (name, content) in [("garbage", &b"garbage"[..]), ("no-index", &hostile)] {
        stage.attach(content);
        let agent = Agent::solo_with(&stage.place, name, &["--index-key", &key]);
        let log = stage.is_read_as_a_whole(&agent);
        assert!(refusals(&log) > 0, "{log}");
    }
    // Of other layers.
    let file = stage.place.path("app.index");
    stage.index("maker", &["-o", file.to_str().unwrap()]);
    let tree = stage.place.dir("other-tree");
    put(&tree.join("hello"), b"hello");
    let mut layout = Layout::new(stage.place.path("other"));
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    stage.registry.push(layout.dir(), "team/other:1").unwrap();
    let agent = Agent::solo(&stage.place, "importer");
    let words = ["image", "index", &stage.registry.url("team/other:1"), "--import"];
    let said = agent.dfctl(&[&words[..], &[file.to_str().unwrap()]].concat());
    said.fails(5, "DFS-2113");
}

#[test]
fn an_index_whose_blob_was_changed_on_the_way_is_not_used() {
    let stage = Stage::new();
    let key = stage.signed();
    let gate = Gatekeeper::before(stage.registry.address().parse().unwrap());
    let layers = [0, 1].map(|layer| stage.layout.layer_digest(layer));
    let config = stage.layout.config_digest();
    gate.judge(move |asked| {
        let is_index = asked.method == "GET"
            && asked.path.contains("/blobs/")
            && !asked.path.ends_with(&config)
            && !layers.iter().any(|layer| asked.path.ends_with(layer));
        if is_index { Verdict::Flip(60) } else { Verdict::Pass }
    });
    let agent = Agent::solo_with(&stage.place, "agent", &["--index-key", &key]);
    let whole = stage.given(0).0;
    let dir = agent.mount(&gate.url("team/app:1"), stage.place.path("mount"));
    assert!(gate.spoiled() > 0);
    assert_eq!(stage.given(0).0, whole + 1);
    all_is_right(&dir);
    let log = agent.log();
    assert!(refusals(&log) > 0, "{log}");
}

#[test]
fn what_is_read_by_an_index_is_held_against_what_its_maker_saw() {
    let stage = Stage::new();
    let key = stage.signed();
    let gate = Gatekeeper::before(stage.registry.address().parse().unwrap());
    let agent = Agent::solo_with(&stage.place, "agent", &["--index-key", &key]);
    let dir = agent.mount(&gate.url("team/app:1"), stage.place.path("mount"));
    let layer = stage.layout.layer_digest(1);
    gate.judge(move |asked| {
        let is_it = asked.method == "GET" && asked.path.ends_with(&layer);
        if is_it { Verdict::Flip(700) } else { Verdict::Pass }
    });
    let read = fs::read(dir.join("etc/large")).map_err(|error| error.raw_os_error());
    assert_eq!(read.err(), Some(Some(5)), "no wrong byte is shown");
    assert!(gate.spoiled() > 0);
    gate.open();
    until("the file is read", || {
        fs::read(dir.join("etc/large")).is_ok_and(|bytes| bytes == noise(1000, 3_000_000))
    });
}

#[test]
fn a_file_has_the_indexes_for_whoever_takes_them() {
    let stage = Stage::new();
    let file = stage.place.path("app.index");
    let file = file.to_str().unwrap();
    let told = stage.index("maker", &["-o", file]);
    assert_eq!((&told["layers"], &told["pushed"]), (&2.into(), &Value::Null), "{told}");
    let fresh = Agent::solo(&stage.place, "fresh");
    let words = ["image", "index", &stage.url(), "--import", file, "--format", "json"];
    let taken = fresh.dfctl(&words).done().json().unwrap();
    assert_eq!((&taken["layers"], &taken["taken"]), (&2.into(), &2.into()), "{taken}");
    stage.is_read_in_parts(&fresh);
    let again = fresh.dfctl(&words).json().unwrap();
    assert_eq!((&again["taken"], &again["known"]), (&0.into(), &2.into()), "{again}");
    // Of two files by one name the first stays.
    let said = fresh.dfctl(&["image", "index", &stage.url(), "-o", file]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("there is something by this name"), "{}", said.stderr);
}
