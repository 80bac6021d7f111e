//! Container images made by hand, as `oci:` layouts: what a registry is filled with, and what it is to show.

use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::trees::put;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// Several gzip members one behind another, as pigz and those who write to a tape make them.
    Members,
    /// Several zstd frames one behind another, as pzstd makes them.
    Frames,
}

/// Bytes of a tar in each member or frame.
const PIECE: usize = 1 << 20;

impl Packing {
    /// What these bytes are when they are packed.
    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        let program = match self {
            Self::Plain => return bytes.to_vec(),
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Members => return Self::Gzip.pieces(bytes),
            Self::Frames => return Self::Zstd.pieces(bytes),
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let output = Command::new(program).arg("-c").stdin(file).output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    /// Pieces of these bytes, each packed for itself.
    fn pieces(self, bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(PIECE).flat_map(|piece| self.of(piece)).collect()
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip | Self::Members => "+gzip",
            Self::Zstd | Self::Frames => "+zstd",
        }
    }
}

/// A layout under way, with one image in the end. A copy goes on in the same directory, by itself.
#[derive(Clone)]
pub struct Layout {
    dir: PathBuf,
    layers: Vec<Value>,
    label: Option<String>,
    diff_ids: Vec<String>,
}

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub fn sha256(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The machine that this runs on, as registries call it.
pub fn here() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

impl Layout {
    /// One without anything in it.
    pub fn new(dir: PathBuf) -> Self {
        put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        Self { dir, layers: Vec::new(), label: None, diff_ids: Vec::new() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps a blob; its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        put(&self.dir.join("blobs").join(digest.replace(':', "/")), bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Lays `tree` over what is there: all in it is in the layer, marks too.
    pub fn layer(&mut self, tree: &Path, packing: Packing) -> &mut Self {
        let tar = tree.with_extension("tar");
        let mut command = Command::new("tar");
        command.args(["--create", "--format=pax", "--xattrs", "--xattrs-include=*", "--sort=name"]);
        command.arg("--file").arg(&tar).arg("--directory").arg(tree).arg(".");
        assert!(command.status().unwrap().success());
        self.tar(&fs::read(tar).unwrap(), packing)
    }

    /// The same of a tar.
    pub fn tar(&mut self, tar: &[u8], packing: Packing) -> &mut Self {
        self.packed(&packing.of(tar), packing, tar)
    }

    /// The same of one that is packed already, and is said to unpack to `tar`.
    pub fn packed(&mut self, packed: &[u8], packing: Packing, tar: &[u8]) -> &mut Self {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{}", packing.suffix());
        self.layers.push(self.blob(&media_type, packed));
        self.diff_ids.push(sha256(tar));
        self
    }

    /// The digest of a layer, as it is packed.
    pub fn layer_digest(&self, number: usize) -> String {
        self.layers[number]["digest"].as_str().unwrap().to_owned()
    }

    /// How long it is, as it is packed.
    pub fn layer_bytes(&self, number: usize) -> u64 {
        self.layers[number]["size"].as_u64().unwrap()
    }

    /// What a layer unpacks to.
    pub fn diff_id(&self, number: usize) -> String {
        self.diff_ids[number].clone()
    }

    /// The digest of the configuration of an image of the layers so far.
    pub fn config_digest(&self) -> String {
        sha256(self.config(here()).as_bytes())
    }

    fn config(&self, architecture: &str) -> String {
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Labels": { "test": self.label } },
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
        });
        config.to_string()
    }

    /// Has the configuration say something else of the last layer.
    pub fn lie(&mut self) -> &mut Self {
        *self.diff_ids.last_mut().unwrap() = sha256(b"another layer");
        self
    }

    /// Has the configuration say something of the image that no layer says.
    pub fn label(&mut self, label: &str) -> &mut Self {
        self.label = Some(label.to_owned());
        self
    }

    /// The image of the layers so far; the descriptor of its manifest.
    pub fn image(&self, architecture: &str) -> Value {
        let config = self.blob(CONFIG, self.config(architecture).as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": self.layers,
        });
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    /// An artifact that is no image: these files; the descriptor of its manifest.
    pub fn artifact(&self, kind: &str, files: &[(&str, Vec<u8>)]) -> Value {
        let layers = files.iter().map(|(title, bytes)| {
            let mut blob = self.blob("application/octet-stream", bytes);
            blob["annotations"] = json!({ "org.opencontainers.image.title": title });
            blob
        });
        let empty = self.blob("application/vnd.oci.empty.v1+json", b"{}");
        self.manifest(Some(kind), &empty, &layers.collect::<Vec<_>>())
    }

    /// A manifest of these blobs; its descriptor.
    pub fn manifest(&self, kind: Option<&str>, config: &Value, layers: &[Value]) -> Value {
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        if let Some(kind) = kind {
            manifest["artifactType"] = kind.into();
        }
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    /// Names this descriptor as what the layout has.
    pub fn name(&self, mut named: Value) {
        named["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });
        put(&self.dir.join("index.json"), index.to_string().as_bytes());
    }

    /// What the image has, unpacked by hands that are not ours.
    pub fn unpacked(&self, into: &Path) -> PathBuf {
        let mut command = Command::new("umoci");
        command.args(["unpack", "--image"]).arg(format!("{}:latest", self.dir.display()));
        let output = command.arg(into).stdin(Stdio::null()).output();
        let output = output.expect("umoci is there, `cargo xtask test` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        into.join("rootfs")
    }
}

/// A tar of entries as they stand here: path, type, target of a link, content.
pub fn raw_tar(entries: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, kind, target, content) in entries {
        let mut header = [0; 512];
        let mut write = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        write(0, path.as_bytes());
        write(100, b"0000644\0");
        write(108, b"0000000\0");
        write(116, b"0000000\0");
        write(124, format!("{:011o}\0", content.len()).as_bytes());
        write(136, b"00000000000\0");
        write(148, b"        ");
        write(156, &[*kind]);
        write(157, target.as_bytes());
        write(257, b"ustar\x0000");
        write(329, b"0000001\0");
        write(337, b"0000003\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
