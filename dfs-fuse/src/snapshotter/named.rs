//! What a request to prepare a snapshot says of the image that it is a layer of: the labels of containerd's CRI plugin, and
//! those of stargz's `ctr-remote`. Pure; nothing of it is believed before the image itself says so.

use std::collections::BTreeMap;

use dfs_source::Target;
use dfs_source::oci::{ContentDigest, Reference};

/// The name that the snapshot will have, said where a snapshotter may have it already.
pub const TARGET: &str = "containerd.io/snapshot.ref";

/// Image, layer and, where that is said, manifest.
const CRI: (&str, &str, Option<&str>) = (
    "containerd.io/snapshot/cri.image-ref",
    "containerd.io/snapshot/cri.layer-digest",
    Some("containerd.io/snapshot/cri.manifest-digest"),
);
const STARGZ: (&str, &str, Option<&str>) = (
    "containerd.io/snapshot/remote/stargz.reference",
    "containerd.io/snapshot/remote/stargz.digest",
    None,
);

/// Longest name of an image, or of a layer, that is looked at.
const MAX_NAME: usize = 1024;

/// A layer as whoever pulls it names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The image as it was asked for.
    pub reference: String,
    /// The same as a target, for nobody in particular.
    pub target: Target,
    /// The blob of the layer.
    pub blob: ContentDigest,
    /// The layer with all below it.
    pub chain: ContentDigest,
}

impl Named {
    /// What the labels say; `None` where they name no layer of an image, and why where they name none that there can be.
    pub fn of(labels: &BTreeMap<String, String>) -> Option<Result<Self, String>> {
        let label = |name: &str| labels.get(name).filter(|value| !value.is_empty());
        let chain = label(TARGET)?;
        let said = |(image, layer, manifest): (&str, &str, Option<&str>)| {
            Some((label(image)?, label(layer)?, manifest.and_then(label)))
        };
        let (reference, blob, manifest) = said(CRI).or_else(|| said(STARGZ))?;
        Some(named(chain, reference, blob, manifest.map(String::as_str)))
    }
}

fn named(
    chain: &str,
    reference: &str,
    blob: &str,
    manifest: Option<&str>,
) -> Result<Named, String> {
    if [chain, reference, blob].iter().any(|name| name.len() > MAX_NAME) {
        return Err(format!("a name of an image or a layer has {MAX_NAME} bytes at most"));
    }
    let digest = |text: &str| text.parse::<ContentDigest>().map_err(|error| error.to_string());
    let target = Target::parse(&format!("oci://{reference}")).map_err(|error| error.to_string())?;
    let mut image = Reference::of(&target.url)?;
    if let Some(manifest) = manifest {
        image = image.manifest(digest(manifest)?);
    }
    Ok(Named {
        reference: reference.to_owned(),
        target: Target::new(image.url()),
        blob: digest(blob)?,
        chain: digest(chain)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const B: &str = "sha256:cb8379ac2098aa165029e3938a51da0bcecfc008fd6795f401178647f96c5b34";

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_kinds_of_labels_name_a_layer() {
        let cri = labels(&[
            (TARGET, A),
            (CRI.0, "docker.io/library/debian:13"),
            (CRI.1, B),
            ("containerd.io/snapshot/cri.manifest-digest", A),
        ]);
        let named = Named::of(&cri).unwrap().unwrap();
        assert_eq!(named.target.url.as_str(), format!("oci://docker.io/library/debian@{A}"));
        assert_eq!((named.blob.to_string().as_str(), named.chain.to_string().as_str()), (B, A));
        let stargz = labels(&[(TARGET, A), (STARGZ.0, "h.test:5000/team/app:1"), (STARGZ.1, B)]);
        let named = Named::of(&stargz).unwrap().unwrap();
        assert_eq!(named.target.url.as_str(), "oci://h.test:5000/team/app:1");
        assert_eq!(named.reference, "h.test:5000/team/app:1");
    }

    #[test]
    fn what_names_no_layer_is_an_ordinary_snapshot_and_what_names_nonsense_is_said() {
        assert!(Named::of(&labels(&[])).is_none());
        assert!(Named::of(&labels(&[(TARGET, A)])).is_none());
        assert!(Named::of(&labels(&[(CRI.0, "h/a:1"), (CRI.1, B)])).is_none());
        assert!(Named::of(&labels(&[(TARGET, A), (CRI.0, ""), (CRI.1, B)])).is_none());
        let long = format!("h/{}", "a/".repeat(MAX_NAME));
        let named = [("h/A:1", B), ("h/a:1", "sha256:0"), ("../x", B), (&*long, B)];
        for (reference, blob) in named {
            let labels = labels(&[(TARGET, A), (CRI.0, reference), (CRI.1, blob)]);
            assert!(Named::of(&labels).unwrap().is_err(), "{reference} {blob}");
        }
    }
}
