use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dfs_source::Sources;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::resolve::{ResolveOptions, View, resolve};

struct Place {
    dir: TempDir,
    sources: Sources,
}

impl Place {
    fn new() -> Self {
        let sources = ImagesOnDisk::known(Sources::builder(), FileOptions::default());
        Self { dir: tempfile::tempdir().unwrap(), sources: sources.build().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn target(&self, scheme: &str, name: &str, rest: &str) -> Target {
        let url = format!("{scheme}://{}{rest}", self.path(name).display());
        Target::parse(&url).unwrap()
    }

    async fn read(&self, target: &Target) -> Result<Vec<u8>, SourceError> {
        let source = self.sources.for_target(target)?;
        let stat = source.stat(target).await?;
        let asked = Target { url: stat.url, ..target.clone() };
        let parts = source.read(&asked, None, &stat.validator).await?;
        let parts: Vec<Bytes> = futures::TryStreamExt::try_collect(parts).await?;
        Ok(parts.concat())
    }

    async fn refused(&self, target: &Target) -> String {
        let error = self.read(target).await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error} {}", cause.unwrap_or_default())
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn blob(layout: &Path, bytes: &[u8]) -> ContentDigest {
    let digest = ContentDigest::sha256(bytes);
    put(&layout.join("blobs/sha256").join(digest.hex()), bytes);
    digest
}

/// A layout of images by these names, each of an empty configuration.
fn layout(dir: &Path, names: &[&str]) -> Vec<ContentDigest> {
    let config = blob(dir, br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#);
    let mut manifests: Vec<Value> = Vec::new();
    let mut digests = Vec::new();
    for name in names {
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": 42, "digest": config.to_string() },
            "layers": [],
            "annotations": { "of": name },
        });
        let bytes = manifest.to_string();
        let digest = blob(dir, bytes.as_bytes());
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(),
            "size": bytes.len(),
            "annotations": { "org.opencontainers.image.ref.name": name },
        }));
        digests.push(digest);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    put(&dir.join("index.json"), index.to_string().as_bytes());
    digests
}

/// A tar of entries: path, link (or content where it is empty).
fn tar(entries: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, link, content) in entries {
        let mut header = [0_u8; 512];
        let mut write = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        write(0, path.as_bytes());
        write(100, b"0000644\0");
        write(124, format!("{:011o}\0", content.len()).as_bytes());
        write(148, b"        ");
        write(156, if link.is_empty() { b"0" } else { b"2" });
        write(157, link.as_bytes());
        write(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// As `docker save` wrote it: layers of these tars, the configuration saying `diff_ids` of them.
fn saved(layers: &[(&str, &str, &[u8])], diff_ids: &[ContentDigest]) -> Vec<u8> {
    let diff_ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = config.to_string();
    let paths: Vec<&str> = layers.iter().map(|(path, ..)| *path).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["app:1"], "Layers": paths }]);
    let manifest = manifest.to_string();
    let mut entries = layers.to_vec();
    entries.push(("config.json", "", config.as_bytes()));
    entries.push(("manifest.json", "", manifest.as_bytes()));
    tar(&entries)
}

#[tokio::test]
async fn an_image_of_a_layout_is_found_by_its_name_its_digest_or_as_the_only_one() {
    let place = Place::new();
    let digests = layout(&place.path("two"), &["v1", "docker.io/library/app:2"]);
    layout(&place.path("one"), &["v1"]);
    for (name, rest, number) in [
        ("two", "?name=v1".to_owned(), 0),
        ("two", "?name=app:2".to_owned(), 1),
        ("two", format!("?manifest={}", digests[1]), 1),
        ("one", String::new(), 0),
    ] {
        let bytes = place.read(&place.target("oci-layout", name, &rest)).await.unwrap();
        assert_eq!(ContentDigest::sha256(&bytes), digests[number], "{name}{rest}");
    }
    for (rest, said) in [
        ("", "it is not said which image is meant: it has v1, docker.io/library/app:2"),
        ("?name=v3", "it has no image by the name 'v3': it has v1, docker.io/library/app:2"),
    ] {
        let told = place.refused(&place.target("oci-layout", "two", rest)).await;
        assert!(told.contains(said), "{told}");
    }
    fs::create_dir(place.path("none")).unwrap();
    let told = place.refused(&place.target("oci-layout", "none", "")).await;
    assert!(told.contains("has no index.json"), "{told}");
    assert!(place.refused(&place.target("oci-layout", "nowhere", "")).await.contains("index.json"));
}

#[tokio::test]
async fn no_byte_is_given_of_what_is_not_its_digest_or_lies_elsewhere() {
    let place = Place::new();
    let dir = place.path("layout");
    let digest = layout(&dir, &["v1"])[0];
    let blobs = dir.join("blobs/sha256");
    let target = place.target("oci-layout", "layout", "");
    let good = fs::read(blobs.join(digest.hex())).unwrap();
    // Another content of the same length.
    let mut other = good.clone();
    *other.last_mut().unwrap() = b' ';
    fs::write(blobs.join(digest.hex()), &other).unwrap();
    let told = place.refused(&target).await;
    assert!(told.contains(&format!("not {digest}")), "{told}");
    // Right once more, and changed again after it was seen to be right.
    put(&blobs.join("new"), &good);
    fs::rename(blobs.join("new"), blobs.join(digest.hex())).unwrap();
    assert_eq!(place.read(&target).await.unwrap(), good);
    put(&blobs.join("new"), &other);
    fs::rename(blobs.join("new"), blobs.join(digest.hex())).unwrap();
    assert!(place.refused(&target).await.contains(&format!("not {digest}")));
    // The right content, by a link that leads out.
    put(&place.path("outside"), &good);
    fs::remove_file(blobs.join(digest.hex())).unwrap();
    symlink(place.path("outside"), blobs.join(digest.hex())).unwrap();
    let told = place.refused(&target).await;
    assert!(told.contains("a link in it leads out of"), "{told}");
    // A link inside is as good as a file.
    put(&dir.join("kept"), &good);
    fs::remove_file(blobs.join(digest.hex())).unwrap();
    symlink("../../kept", blobs.join(digest.hex())).unwrap();
    assert_eq!(place.read(&target).await.unwrap(), good);
}

#[tokio::test]
async fn an_archive_of_docker_is_the_image_that_a_registry_would_have() {
    let place = Place::new();
    let layer = tar(&[("etc/hello", "", b"hello")]);
    let digest = ContentDigest::sha256(&layer);
    // The second layer is the first, as docker wrote what it had twice.
    let layers: [(&str, &str, &[u8]); 2] =
        [("a/layer.tar", "", &layer), ("b/layer.tar", "../a/layer.tar", b"")];
    put(&place.path("app.tar"), &saved(&layers, &[digest, digest]));
    for rest in ["", "?name=app:1", "?name=docker.io/library/app:1"] {
        let target = place.target("docker-archive", "app.tar", rest);
        let manifest: Value = serde_json::from_slice(&place.read(&target).await.unwrap()).unwrap();
        assert_eq!(manifest["layers"][1]["digest"], digest.to_string());
        let options = ResolveOptions::default();
        let artifact = resolve(&place.sources, &target, View::Auto, &options).await.unwrap();
        assert!(artifact.index.is_some());
    }
    let target = place.target("docker-archive", "app.tar", &format!("?blob={digest}"));
    assert_eq!(place.read(&target).await.unwrap(), layer);
    let told = place.refused(&place.target("docker-archive", "app.tar", "?name=app:2")).await;
    assert!(told.contains("no image by the name 'app:2': it has app:1"), "{told}");
}

/// As `docker save` wrote several: each of a layer, the same file, as often as here, whose `diff_ids` its configuration says.
fn saved_many(layer: &[u8], diff_ids: &[Vec<ContentDigest>]) -> Vec<u8> {
    let configs: Vec<(String, String)> = diff_ids
        .iter()
        .enumerate()
        .map(|(number, diff_ids)| {
            let diff_ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
            let config = json!({ "of": number, "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
            (format!("{number}.json"), config.to_string())
        })
        .collect();
    let manifest = diff_ids.iter().enumerate().map(|(number, diff_ids)| {
        let layers = vec!["layer.tar"; diff_ids.len()];
        json!({ "Config": format!("{number}.json"), "RepoTags": [format!("app:{number}")], "Layers": layers })
    });
    let manifest = Value::from(manifest.collect::<Vec<_>>()).to_string();
    let mut entries: Vec<(&str, &str, &[u8])> = vec![("layer.tar", "", layer)];
    entries.extend(configs.iter().map(|(path, config)| (&path[..], "", config.as_bytes())));
    entries.push(("manifest.json", "", manifest.as_bytes()));
    tar(&entries)
}

#[tokio::test]
async fn an_image_of_an_archive_is_found_by_the_digest_of_what_a_registry_would_have() {
    let place = Place::new();
    let layer = tar(&[("etc/hello", "", b"hello")]);
    let digest = ContentDigest::sha256(&layer);
    put(&place.path("app.tar"), &saved_many(&layer, &[vec![digest], vec![digest, digest]]));
    let mut found = Vec::new();
    for number in 0..2 {
        let named = place.target("docker-archive", "app.tar", &format!("?name=app:{number}"));
        let manifest = place.read(&named).await.unwrap();
        let digest = ContentDigest::sha256(&manifest);
        let by_digest = place.target("docker-archive", "app.tar", &format!("?manifest={digest}"));
        assert_eq!(place.read(&by_digest).await.unwrap(), manifest);
        let source = place.sources.for_target(&by_digest).unwrap();
        assert_eq!(source.stat(&by_digest).await.unwrap().length, Some(manifest.len() as u64));
        let options = ResolveOptions::default();
        resolve(&place.sources, &by_digest, View::Auto, &options).await.unwrap();
        found.push(digest);
    }
    assert_ne!(found[0], found[1]);
    let none = ContentDigest::sha256(b"none");
    let none = place.target("docker-archive", "app.tar", &format!("?manifest={none}"));
    assert!(place.refused(&none).await.contains("not found"));
}

#[tokio::test]
async fn what_images_share_is_looked_at_once_and_not_without_bounds() {
    let place = Place::new();
    let layer = tar(&[("etc/hello", "", b"hello")]);
    let digest = ContentDigest::sha256(&layer);
    let (images, layers) = (200, 255);
    put(&place.path("many.tar"), &saved_many(&layer, &vec![vec![digest; layers]; images]));
    let before = place.sources.counters().snapshot().requests;
    let last = place.target("docker-archive", "many.tar", "?name=app:199");
    let manifest: Value = serde_json::from_slice(&place.read(&last).await.unwrap()).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), layers);
    let asked = place.sources.counters().snapshot().requests - before;
    // A configuration each, and what the scan of the tar reads.
    assert!(asked < 4 * images as u64, "{asked}");
    let other = |number: u32| ContentDigest::sha256(&number.to_be_bytes());
    let all_others: Vec<Vec<_>> =
        (0..40).map(|image| (0..255).map(|layer| other(image * 255 + layer)).collect()).collect();
    put(&place.path("odd.tar"), &saved_many(&layer, &all_others));
    let told = place.refused(&place.target("docker-archive", "odd.tar", "?name=app:1")).await;
    assert!(told.contains("layers in an archive of images"), "{told}");
}

#[tokio::test]
async fn what_is_changed_and_has_its_time_set_back_is_looked_at_again() {
    let place = Place::new();
    let digest = layout(&place.path("layout"), &["v1"])[0];
    let blob = place.path("layout").join("blobs/sha256").join(digest.hex());
    let layer = tar(&[("etc/hello", "", b"hello")]);
    let id = ContentDigest::sha256(&layer);
    put(&place.path("app.tar"), &saved_many(&layer, &[vec![id]]));
    for (target, file, content) in [
        (place.target("oci-layout", "layout", ""), blob, b"schema".as_slice()),
        (
            place.target("docker-archive", "app.tar", &format!("?blob={id}")),
            place.path("app.tar"),
            b"hello",
        ),
    ] {
        let good = place.read(&target).await.unwrap();
        let was = fs::metadata(&file).unwrap().modified().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.windows(content.len()).position(|part| part == content).unwrap();
        bytes[at + 2] ^= 1;
        // In place: it is the same file by its inode, its length and its time.
        let changing = fs::OpenOptions::new().write(true).open(&file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&changing, &bytes, 0).unwrap();
        let changed = || std::os::unix::fs::MetadataExt::ctime_nsec(&fs::metadata(&file).unwrap());
        let before = changed();
        // Until the file system's clock has gone on, too.
        while changed() == before {
            changing.set_modified(was).unwrap();
        }
        drop(changing);
        let told = place.refused(&target).await;
        assert!(told.contains("the content that lies there is"), "{told}");
        assert!(!good.is_empty());
    }
}

#[tokio::test]
async fn an_image_is_for_who_may_read_its_files_also_when_somebody_else_has_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    assert!(rustix::process::geteuid().is_root(), "only root can act as another user");
    let place = Place::new();
    let exports = vec![place.path("")];
    let options = FileOptions { exports, ..FileOptions::default() };
    let sources = ImagesOnDisk::known(Sources::builder(), options).build().unwrap();
    let place = Place { sources, ..place };
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&place.path(""), 0o755);
    let digest = layout(&place.path("layout"), &["v1"])[0];
    let blob = place.path("layout").join("blobs/sha256").join(digest.hex());
    let layer = tar(&[("etc/hello", "", b"hello")]);
    let id = ContentDigest::sha256(&layer);
    put(&place.path("app.tar"), &saved_many(&layer, &[vec![id]]));
    for (target, file) in [
        (place.target("oci-layout", "layout", ""), blob),
        (place.target("oci-layout", "layout", ""), place.path("layout/index.json")),
        (place.target("docker-archive", "app.tar", ""), place.path("app.tar")),
        (place.target("docker-archive", "app.tar", &format!("?blob={id}")), place.path("app.tar")),
    ] {
        open(&file, 0o644);
        let nobody = dfs_source::LocalUser { uid: 65_534, gid: 65_534 };
        let theirs = target.clone().with_credentials(dfs_source::Credentials::User(nobody));
        let all = place.read(&target).await.unwrap();
        assert_eq!(place.read(&theirs).await.unwrap(), all);
        // It is remembered by now; what counts is who may read the file.
        open(&file, 0o600);
        assert_eq!(place.read(&target).await.unwrap(), all);
        let error = place.read(&theirs).await.unwrap_err();
        assert!(matches!(error, SourceError::NotPermitted { .. }), "{file:?}: {error}");
        open(&file, 0o644);
        assert_eq!(place.read(&theirs).await.unwrap(), all);
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_archive_is_said() {
    let place = Place::new();
    let layer = tar(&[("a", "", b"a")]);
    let (right, wrong) = (ContentDigest::sha256(&layer), ContentDigest::sha256(b"other"));
    let one: &[(&str, &str, &[u8])] = &[("layer.tar", "", &layer)];
    let out: &[(&str, &str, &[u8])] = &[("layer.tar", "../../etc/passwd", b"")];
    let round: &[(&str, &str, &[u8])] = &[("layer.tar", "layer.tar", b"")];
    for (bytes, said) in [
        (saved(one, &[right, right]), "speaks of 2 layers, and it has 1"),
        (saved(out, &[right]), "names layer.tar, which is not there"),
        (saved(round, &[right]), "names layer.tar, which is not there"),
        (tar(&[("manifest.json", "", b"{}")]), "its manifest.json cannot be read"),
        (tar(&[("other", "", b"{}")]), "neither an index.json nor a manifest.json"),
        (b"nonsense".repeat(200), "it is no archive of images"),
        (saved(one, &[right])[..1600].to_vec(), "it is no archive of images"),
    ] {
        put(&place.path("x.tar"), &bytes);
        let told = place.refused(&place.target("docker-archive", "x.tar", "")).await;
        assert!(told.contains(said), "{told}");
        fs::remove_file(place.path("x.tar")).unwrap();
    }
    put(&place.path("lies.tar"), &saved(one, &[wrong]));
    let told =
        place.refused(&place.target("docker-archive", "lies.tar", &format!("?blob={wrong}"))).await;
    assert!(told.contains(&format!("is {right}, not {wrong}")), "{told}");
    fs::create_dir(place.path("dir")).unwrap();
    let told = place.refused(&place.target("docker-archive", "dir", "")).await;
    assert!(told.contains("it is a directory"), "{told}");
}

#[tokio::test]
async fn an_archive_that_is_a_layout_is_read_as_one() {
    let place = Place::new();
    let dir = place.path("layout");
    let digest = layout(&dir, &["latest"])[0];
    let mut entries = vec![("oci-layout".to_owned(), b"{}".to_vec())];
    entries.push(("index.json".to_owned(), fs::read(dir.join("index.json")).unwrap()));
    for blob in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let path = format!("blobs/sha256/{}", blob.file_name().to_str().unwrap());
        entries.push((path, fs::read(blob.path()).unwrap()));
    }
    let borrowed = entries.iter().map(|(path, bytes)| (path.as_str(), "", bytes.as_slice()));
    // A path of 77 bytes fits a header.
    put(&place.path("app.tar"), &tar(&borrowed.collect::<Vec<_>>()));
    let bytes =
        place.read(&place.target("docker-archive", "app.tar", "?name=latest")).await.unwrap();
    assert_eq!(ContentDigest::sha256(&bytes), digest);
}
