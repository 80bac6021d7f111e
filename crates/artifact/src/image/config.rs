//! What an image says of itself: what machines it is for, and what its layers hold once they are uncompressed.

use serde::Deserialize;

use super::ContentDigest;
use super::manifest::{LayerBlob, Manifest, ManifestError, read, shown};
use super::media::Compression;
use super::platform::Platform;

/// A configuration that belongs to its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What machines it is for.
    pub platform: Platform,
    /// Digests of the uncompressed layers, the lowest first: as many as the manifest has layers.
    pub diff_ids: Vec<ContentDigest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Option<Vec<ContentDigest>>,
}

impl ImageConfig {
    /// Takes the configuration of an image with these layers: it is the one that the manifest names, and it speaks of as
    /// many layers.
    pub fn parse(
        bytes: &[u8],
        manifest: &Manifest,
        layers: &[LayerBlob],
    ) -> Result<Self, ManifestError> {
        manifest.config.verify("image config", bytes)?;
        let raw: RawConfig = read("image config", bytes)?;
        if raw.rootfs.kind != "layers" {
            let kind = shown(&raw.rootfs.kind);
            let reason = format!("its root file system is of type '{kind}' instead of 'layers'");
            return Err(ManifestError::Config(reason));
        }
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        check_layers(&diff_ids, layers).map_err(ManifestError::Config)?;
        Ok(Self { platform: raw.platform, diff_ids })
    }
}

fn check_layers(diff_ids: &[ContentDigest], layers: &[LayerBlob]) -> Result<(), String> {
    if diff_ids.len() != layers.len() {
        let (told, there) = (diff_ids.len(), layers.len());
        return Err(format!("it speaks of {told} layers, and the manifest has {there}"));
    }
    for (number, (diff_id, layer)) in (1..).zip(diff_ids.iter().zip(layers)) {
        let digest = &layer.blob.digest;
        let comparable = layer.layer_type.compression == Compression::None
            && digest.algorithm() == diff_id.algorithm();
        if comparable && digest != diff_id {
            return Err(format!("layer {number} is not compressed, and it knows it as another"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{descriptor, image, manifest};
    use super::super::manifest::{Contents, Document, parse as parse_document};
    use super::*;
    use serde_json::{Value, json};

    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

    /// Reads this configuration with a manifest of layers of these media types, all of the content "layer".
    fn parsed(config: &Value, layers: &[&str]) -> Result<ImageConfig, String> {
        let bytes = config.to_string().into_bytes();
        let layers = layers.iter().map(|media_type| descriptor(media_type, b"layer")).collect();
        let document = image(&bytes, layers);
        let manifest = manifest(&document);
        let Contents::Image(layers) = manifest.contents().unwrap() else { panic!("no image") };
        ImageConfig::parse(&bytes, &manifest, &layers).map_err(|error| error.to_string())
    }

    fn config(diff_ids: &[ContentDigest]) -> Value {
        let diff_ids: Vec<_> = diff_ids.iter().map(ToString::to_string).collect();
        json!({
            "os": "linux", "architecture": "arm64", "variant": "v8", "created": "never",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created_by": "x" }, { "empty_layer": true }],
        })
    }

    #[test]
    fn a_config_says_what_layers_hold_and_whom_they_are_for() {
        let (a, b) = (ContentDigest::sha256(b"layer"), ContentDigest::sha512(b"b"));
        let read = parsed(&config(&[a, b]), &[PLAIN, GZIP]).unwrap();
        assert_eq!((read.diff_ids, read.platform.to_string()), (vec![a, b], "linux/arm64".into()));
    }

    #[test]
    fn a_config_that_is_not_the_manifests_is_refused() {
        let (a, b) = (ContentDigest::sha256(b"layer"), ContentDigest::sha256(b"b"));
        let told = |error: Result<ImageConfig, String>, part: &str| {
            let error = error.unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        told(parsed(&config(&[a]), &[GZIP, GZIP]), "speaks of 1 layers, and the manifest has 2");
        told(parsed(&config(&[a, b]), &[GZIP, PLAIN]), "layer 2 is not compressed");
        let mut other = config(&[a]);
        other["rootfs"]["type"] = "btrfs".into();
        told(parsed(&other, &[GZIP]), "of type 'btrfs'");
        other["rootfs"]["type"] = Value::Null;
        told(parsed(&other, &[GZIP]), "image config is not what the image specification describes");
        other["rootfs"] = json!({ "type": "layers", "diff_ids": ["sha256:00"] });
        told(parsed(&other, &[GZIP]), "image config is not what");
    }

    #[test]
    fn a_config_of_other_bytes_is_refused() {
        let bytes = config(&[]).to_string().into_bytes();
        let document = image(&bytes, Vec::new()).to_string();
        let document = parse_document(document.as_bytes(), None).unwrap();
        let Document::Manifest(manifest) = document else { panic!("no manifest") };
        assert!(ImageConfig::parse(&bytes, &manifest, &[]).is_ok());
        let changed = String::from_utf8(bytes.clone()).unwrap().replace("never", "later");
        let refused = ImageConfig::parse(changed.as_bytes(), &manifest, &[]);
        assert!(matches!(refused, Err(ManifestError::Mismatch(_))), "{refused:?}");
        let refused = ImageConfig::parse(&bytes[1..], &manifest, &[]);
        assert!(matches!(refused, Err(ManifestError::Length { .. })), "{refused:?}");
    }
}
