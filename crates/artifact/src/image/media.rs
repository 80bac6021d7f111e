//! Media types of what images are made of.

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A choice of manifests.
    Index,
    /// One image or artifact.
    Manifest,
}

/// What a layer's tar is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// Where a layer may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// From the registry.
    Registry,
    /// From the addresses in its descriptor: it must not be handed on ("foreign", "non-distributable").
    Foreign,
}

/// What the media type of a layer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerType {
    /// How it is compressed.
    pub compression: Compression,
    /// Where it may be had.
    pub distribution: Distribution,
}

/// Media types that a registry is asked for when a manifest is wanted.
pub const DOCUMENTS: [(&str, DocumentKind); 4] = [
    ("application/vnd.oci.image.index.v1+json", DocumentKind::Index),
    ("application/vnd.oci.image.manifest.v1+json", DocumentKind::Manifest),
    ("application/vnd.docker.distribution.manifest.list.v2+json", DocumentKind::Index),
    ("application/vnd.docker.distribution.manifest.v2+json", DocumentKind::Manifest),
];

const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Uncompressed; what follows names the compression.
const LAYERS: [(&str, Distribution); 4] = [
    ("application/vnd.oci.image.layer.v1.tar", Distribution::Registry),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", Distribution::Foreign),
    ("application/vnd.docker.image.rootfs.diff.tar", Distribution::Registry),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", Distribution::Foreign),
];

impl DocumentKind {
    /// What a media type says, its parameters (`; charset=…`) left aside.
    pub fn of(media_type: &str) -> Option<Self> {
        let plain = media_type.split(';').next().unwrap_or_default().trim();
        let known = DOCUMENTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(plain));
        known.map(|(_, kind)| *kind)
    }
}

impl LayerType {
    /// What a media type says; `None` when it is not a layer's.
    pub fn of(media_type: &str) -> Option<Self> {
        LAYERS.iter().find_map(|&(tar, distribution)| {
            let compression = match media_type.strip_prefix(tar)? {
                "" => Compression::None,
                "+gzip" | ".gzip" => Compression::Gzip,
                "+zstd" | ".zstd" => Compression::Zstd,
                _ => return None,
            };
            Some(Self { compression, distribution })
        })
    }
}

/// Whether a media type is that of an image's configuration.
pub fn is_image_config(media_type: &str) -> bool {
    CONFIGS.contains(&media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_by_their_media_types() {
        use Compression::{Gzip, None as Plain, Zstd};
        use Distribution::{Foreign, Registry};
        for (media_type, compression, distribution) in [
            ("application/vnd.oci.image.layer.v1.tar", Plain, Registry),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Gzip, Registry),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Zstd, Registry),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Gzip, Foreign),
            ("application/vnd.docker.image.rootfs.diff.tar", Plain, Registry),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Gzip, Registry),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Zstd, Registry),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Gzip, Foreign),
        ] {
            let expected = LayerType { compression, distribution };
            assert_eq!(LayerType::of(media_type), Some(expected), "{media_type}");
        }
        for other in [
            "",
            "application/wasm",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tar+xz",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        ] {
            assert_eq!(LayerType::of(other), None, "{other}");
        }
    }

    #[test]
    fn documents_are_told_also_with_parameters() {
        let list = "Application/vnd.docker.distribution.manifest.list.v2+JSON ; charset=utf-8";
        assert_eq!(DocumentKind::of(list), Some(DocumentKind::Index));
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        assert_eq!(DocumentKind::of(manifest), Some(DocumentKind::Manifest));
        assert_eq!(DocumentKind::of("application/json"), None);
    }
}
