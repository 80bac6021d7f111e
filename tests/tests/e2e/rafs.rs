//! Images that Nydus made (decision 41): those of `tests/rafs`, which nydus-image packed in the ways that it has, against the
//! tree that they were made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::registry::{Guard, LOGIN};
use dfs_tests::{Cluster, Registry};
use serde_json::{Value, json};

use crate::support::entries::{self, Holes, Seen};
use crate::support::gatekeeper::{Gatekeeper, Verdict};
use crate::support::images::sha256;
use crate::support::trees::put;
use crate::support::{Agent, Expected, Place, binaries, until};

/// The images that are shown: compressor and digester of each; of one layer, of two that were merged, and of one over another.
const SHOWN: [&str; 3] = ["none-blake3", "lz4-sha256", "zstd-blake3"];

/// What `tests/rafs` has, unpacked.
struct Kept {
    layout: PathBuf,
    tree: PathBuf,
}

fn unpack(archive: &Path, into: &Path) {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--same-permissions", "--xattrs"]);
    tar.args(["--xattrs-include=*", "--file"]).arg(archive).arg("--directory").arg(into);
    assert!(tar.status().unwrap().success(), "{tar:?}");
}

fn document(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

impl Kept {
    fn unpacked(place: &Place) -> Self {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("rafs/images.tar.zst");
        unpack(&archive, place.root());
        let tree = place.dir("tree");
        unpack(&place.path("tree.tar"), &tree);
        Self { layout: place.path("images"), tree }
    }

    /// The layout's own name of an image.
    fn name(&self, image: &str) -> String {
        format!("oci-layout:{}:{image}", self.layout.display())
    }

    /// Puts an image into a registry by hands that are not ours.
    fn push(&self, registry: &Registry, image: &str, reference: &str) {
        let named = format!("{}:{image}", self.layout.display());
        registry.push(Path::new(&named), reference).unwrap();
    }

    fn seen(&self) -> BTreeMap<PathBuf, Seen> {
        entries::walk(&self.tree)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.layout.join("blobs").join(digest.replace(':', "/"))
    }

    /// The layers of an image, the bootstrap being the last: digests and lengths.
    fn layers(&self, image: &str) -> Vec<(String, u64)> {
        let index = document(&self.layout.join("index.json"));
        let named = index["manifests"].as_array().unwrap().iter();
        let is_it = |one: &&Value| {
            one["annotations"]["org.opencontainers.image.ref.name"].as_str() == Some(image)
        };
        let named = named.clone().find(is_it).unwrap();
        let manifest = document(&self.blob(named["digest"].as_str().unwrap()));
        let layers = manifest["layers"].as_array().unwrap().iter();
        let layer = |layer: &Value| {
            (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())
        };
        layers.map(layer).collect()
    }

    /// Has an image made of other layers: what `edit` makes of its manifest is named `edited`.
    fn edit(&self, image: &str, edit: impl Fn(&mut Value)) -> String {
        let file = self.layout.join("index.json");
        let mut index = document(&file);
        let named = index["manifests"].as_array_mut().unwrap();
        let is_it = |one: &&mut Value| {
            one["annotations"]["org.opencontainers.image.ref.name"].as_str() == Some(image)
        };
        let one = named.iter_mut().find(is_it).unwrap();
        let mut manifest = document(&self.blob(one["digest"].as_str().unwrap()));
        edit(&mut manifest);
        let bytes = manifest.to_string().into_bytes();
        put(&self.blob(&sha256(&bytes)), &bytes);
        (one["digest"], one["size"]) = (sha256(&bytes).into(), bytes.len().into());
        one["annotations"]["org.opencontainers.image.ref.name"] = "edited".into();
        put(&file, index.to_string().as_bytes());
        self.name("edited")
    }
}

#[test]
fn each_image_that_nydus_made_is_the_tree_that_it_was_made_of() {
    let place = Place::new();
    let kept = Kept::unpacked(&place);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = [Agent::of(&cluster, &place, "node"), Agent::solo(&place, "alone")];
    let source = kept.seen();
    assert!(source.len() > 340, "{}", source.len());
    for image in SHOWN {
        let reference = format!("team/app:{image}");
        kept.push(&registry, image, &reference);
        for (agent, from) in agents.iter().zip(["cluster", "alone"]) {
            let dir = place.path(&format!("{from}-{image}"));
            let dir = agent.mount(&registry.url(&reference), dir);
            entries::assert_same(&entries::walk(&dir), &source, Holes::Unsaid);
        }
        let dir = agents[1].mount(&kept.name(image), place.path(&format!("layout-{image}")));
        entries::assert_same(&entries::walk(&dir), &source, Holes::Unsaid);
    }
}

#[test]
fn only_the_chunks_that_somebody_reads_leave_the_registry() {
    let place = Place::new();
    let kept = Kept::unpacked(&place);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let agent = Agent::solo(&place, "agent");
    let layers = kept.layers("none-blake3");
    let [(blob, length), (bootstrap, _)] = &layers[..] else { panic!("{layers:?}") };
    // By our own hands, this time.
    for repository in ["team/app", "other/app"] {
        let url = registry.url(&format!("{repository}:1"));
        agent.dfctl(&["push", &kept.name("none-blake3"), &url]).done();
    }
    let dir = agent.mount(&registry.url("team/app:1"), place.path("mount"));
    let read = fs::read(dir.join("chunks/one")).unwrap();
    assert!(read == fs::read(kept.tree.join("chunks/one")).unwrap());
    let sent = || {
        // It writes down what it sent once it was sent: what is asked for later comes later.
        let before = registry.requests_by("skopeo", "GET", "/manifests/");
        registry.inspect("team/app:1").unwrap();
        until("the registry has written it down", || {
            registry.requests_by("skopeo", "GET", "/manifests/") > before
        });
        registry.sent(206, blob).iter().sum::<u64>()
    };
    let touched = sent();
    assert!(touched >= read.len() as u64 && touched * 4 < *length, "{touched} of {length}");
    assert_eq!(registry.sent(200, blob), [0; 0], "the blob is not asked for as a whole");
    // Files of the same chunks in the same order and in another.
    for name in ["chunks/again", "chunks/backwards"] {
        let read = fs::read(dir.join(name)).unwrap();
        assert!(read == fs::read(kept.tree.join(name)).unwrap(), "{name}");
    }
    assert_eq!(sent(), touched, "equal chunks come once");
    // What the image is made of is known, in whatever repository it is.
    let again = agent.mount(&registry.url("other/app:1"), place.path("again"));
    assert!(fs::read(again.join("chunks/one")).unwrap() == read);
    assert_eq!(sent(), touched);
    assert_eq!(registry.requests("GET", bootstrap), 1);
}

/// What a registry answers to who asks it for a range of these bytes.
fn in_range(bytes: &[u8], range: Option<&str>) -> Verdict {
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = range.expect("blobs are read in ranges");
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let told = format!("bytes {first}-{last}/{}", bytes.len());
    let headers = vec![("Content-Range".to_owned(), told)];
    Verdict::Answer("206 Partial Content", headers, bytes[first..=last].to_vec())
}

#[test]
fn a_chunk_that_is_not_what_the_bootstrap_says_is_an_error_and_the_others_are_shown() {
    let place = Place::new();
    let kept = Kept::unpacked(&place);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let gate = Gatekeeper::before(registry.address().parse().unwrap());
    let agent = Agent::solo(&place, "agent");
    kept.push(&registry, "none-blake3", "team/app:1");
    let blob = kept.layers("none-blake3").remove(0).0;
    let mut altered = fs::read(kept.blob(&blob)).unwrap();
    // A byte in the middle of one of the chunks, which lie there as they are.
    let chunk = fs::read(kept.tree.join("lengths/4095")).unwrap();
    let at = altered.windows(chunk.len()).position(|there| there == chunk).unwrap();
    altered[at + 2000] ^= 1;
    let dir = agent.mount(&gate.url("team/app:1"), place.path("mount"));
    gate.judge(move |asked| match asked.method == "GET" && asked.path.ends_with(&blob) {
        true => in_range(&altered, asked.header("range")),
        false => Verdict::Pass,
    });
    let refused = fs::read(dir.join("lengths/4095")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    let why = xattr::get(dir.join("lengths/4095"), "user.dfs.error").unwrap().unwrap();
    let why = String::from_utf8(why).unwrap();
    assert!(why.contains("its digest is blake3:"), "{why}");
    for name in ["lengths/4096", "lengths/4097", "lengths/1"] {
        let wanted = fs::read(kept.tree.join(name)).unwrap();
        assert!(fs::read(dir.join(name)).unwrap() == wanted, "{name}");
    }
    assert!(gate.spoiled() > 0);
    gate.open();
    until("the chunk is read well", || {
        fs::read(dir.join("lengths/4095")).is_ok_and(|read| read == chunk)
    });
}

#[test]
fn of_a_blob_without_one_right_byte_nothing_is_shown_however_it_is_packed() {
    let place = Place::new();
    let kept = Kept::unpacked(&place);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let gate = Gatekeeper::before(registry.address().parse().unwrap());
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "node")];
    let source = kept.seen();
    for (agent, image) in agents.iter().zip(["lz4-sha256", "zstd-blake3"]) {
        let reference = format!("team/{image}:1");
        kept.push(&registry, image, &reference);
        let dir = agent.mount(&gate.url(&reference), place.path(&format!("mount-{image}")));
        let turned = kept.layers(image).into_iter().map(|(digest, _)| {
            let bytes = fs::read(kept.blob(&digest)).unwrap();
            (digest, bytes.iter().map(|byte| !byte).collect::<Vec<u8>>())
        });
        let turned: BTreeMap<String, Vec<u8>> = turned.collect();
        gate.judge(move |asked| {
            let blob = asked.path.rsplit('/').next().and_then(|digest| turned.get(digest));
            match blob.filter(|_| asked.method == "GET") {
                Some(bytes) => in_range(bytes, asked.header("range")),
                None => Verdict::Pass,
            }
        });
        let before = gate.spoiled();
        let files =
            source.iter().filter(|(_, seen)| seen.content().is_some_and(|it| it.length > 0));
        for (path, _) in files {
            assert!(fs::read(dir.join(path)).is_err(), "{image}: {path:?}");
        }
        assert!(gate.spoiled() > before);
        gate.open();
        until("all of it is read well", || fs::read(dir.join("large")).is_ok());
        entries::assert_same(&entries::walk(&dir), &source, Holes::Unsaid);
    }
}

#[test]
fn what_cannot_be_read_is_one_clear_error() {
    let place = Place::new();
    let kept = Kept::unpacked(&place);
    let agent = Agent::solo(&place, "agent");
    let elsewhere = kept.edit("zstd-blake3", |manifest| {
        manifest["layers"].as_array_mut().unwrap().remove(0);
    });
    let dir = place.dir("mount");
    for (name, reason) in [
        (kept.name("v5"), "the image is of RAFS v5, and only v6 can be mounted"),
        (kept.name("v5-unsaid"), "the image is of RAFS v5, and only v6 can be mounted"),
        (kept.name("oci-ref"), "in the layers of another image (an OCI reference)"),
        (elsewhere, "which is no layer of the image"),
    ] {
        let said = agent.dfctl(&["mount", &name, dir.to_str().unwrap()]);
        assert_ne!(said.code, 0, "{name}");
        assert!(said.stderr.contains(reason), "{}", said.stderr);
        assert!(said.stderr.contains("DFS-"), "{}", said.stderr);
        assert_eq!(agent.shown(&dir), None);
    }
}

#[test]
fn a_private_image_that_nydus_made_is_shown_to_who_may_read_it_alone() {
    let place = Place::new();
    let kept = Kept::unpacked(&place);
    let registry = Registry::start(place.root(), Guard::Password).unwrap();
    kept.push(&registry, "lz4-sha256", "team/app:1");
    let docker = place.dir("docker");
    let login = json!({ "username": LOGIN.0, "password": LOGIN.1 });
    let logins = json!({ "auths": { registry.address(): login } });
    put(&docker.join("config.json"), logins.to_string().as_bytes());
    let agent = Agent::solo(&place, "agent");
    let cat = |docker: &Path| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.args(["cat", &format!("{}!added/first", registry.url("team/app:1"))]);
        command.env("DOCKER_CONFIG", docker);
        Said::by(&mut command).unwrap()
    };
    let nowhere = place.dir("nowhere");
    assert_ne!(cat(&nowhere).code, 0);
    assert!(cat(&docker).done().stdout == fs::read(kept.tree.join("added/first")).unwrap());
    // What is here for one is for nobody else.
    assert_ne!(cat(&nowhere).code, 0);
    assert!(!agent.log().contains(LOGIN.1));
}
