use super::*;
use crate::image::media::{Compression, Distribution};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA_2: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The descriptor of a blob with this content.
pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": ContentDigest::sha256(content).to_string(),
        "size": content.len(),
    })
}

/// The manifest of an image with this configuration and these descriptors of layers.
pub fn image(config: &[u8], layers: Vec<Value>) -> Value {
    let config = descriptor(CONFIG, config);
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
}

/// Reads what is a manifest.
pub fn manifest(document: &Value) -> Manifest {
    match read_value(document, None) {
        Ok(Document::Manifest(manifest)) => *manifest,
        other => panic!("{other:?}"),
    }
}

fn read_value(document: &Value, served_as: Option<&str>) -> Result<Document, ManifestError> {
    parse(document.to_string().as_bytes(), served_as)
}

fn index(manifests: Vec<Value>) -> Value {
    json!({ "schemaVersion": 2, "manifests": manifests })
}

#[test]
fn an_image_is_read_with_what_is_unknown_left_out() {
    let mut foreign =
        descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"windows");
    foreign["urls"] = json!(["https://example.com/layer"]);
    let mut document = image(b"{}", vec![descriptor(LAYER, b"1"), foreign]);
    document["annotations"] = json!({ "a": "b" });
    document["future"] = json!({ "x": [1, 2] });
    let manifest = manifest(&document);
    manifest.config.verify("config", b"{}").unwrap();
    let Contents::Image(layers) = manifest.contents().unwrap() else { panic!("no image") };
    let seen = |layer: &LayerBlob| (layer.layer_type.compression, layer.layer_type.distribution);
    let seen: Vec<_> = layers.iter().map(seen).collect();
    let gzip = Compression::Gzip;
    assert_eq!(seen, [(gzip, Distribution::Registry), (gzip, Distribution::Foreign)]);
    assert_eq!(layers[1].blob.urls, ["https://example.com/layer"]);
}

#[test]
fn what_a_document_is_is_told_by_itself_or_by_its_server() {
    let list = json!({ "schemaVersion": 2, "mediaType": LIST, "manifests": null });
    assert_eq!(read_value(&list, None).unwrap(), Document::Index(Vec::new()));
    let bare = index(vec![descriptor(MANIFEST, b"")]);
    for served_as in [None, Some(INDEX), Some(LIST), Some("application/json")] {
        let read = read_value(&bare, served_as).unwrap();
        assert!(matches!(read, Document::Index(manifests) if manifests.len() == 1));
    }
    let mut schema_2 = image(b"{}", Vec::new());
    schema_2["mediaType"] = SCHEMA_2.into();
    assert!(matches!(read_value(&schema_2, Some(MANIFEST)), Ok(Document::Manifest(_))));
}

#[test]
fn what_could_be_either_is_refused() {
    let mut both = image(b"{}", Vec::new());
    both["manifests"] = json!([]);
    let mut crossed = index(Vec::new());
    crossed["mediaType"] = MANIFEST.into();
    let mut disguised = image(b"{}", Vec::new());
    disguised["mediaType"] = LIST.into();
    for document in [both, crossed, disguised] {
        let refused = read_value(&document, None);
        assert!(matches!(refused, Err(ManifestError::Ambiguous)), "{refused:?}");
    }
    let refused = read_value(&image(b"{}", Vec::new()), Some(INDEX));
    assert!(matches!(refused, Err(ManifestError::Ambiguous)), "{refused:?}");
}

#[test]
fn every_bad_document_gets_one_clear_error() {
    let cases = [
        (json!({ "schemaVersion": 1, "fsLayers": [] }), "is of Docker schema 1"),
        (json!({ "schemaVersion": 3 }), "is of schema 3"),
        (json!({ "schemaVersion": 2 }), "neither manifests, as an index, nor a config"),
        (json!({ "schemaVersion": 2, "layers": [] }), "nor a config, as a manifest"),
        (json!({ "schemaVersion": 2, "mediaType": "text/\u{1b}x" }), "is 'text/\\u{1b}x'"),
        (json!({}), "is not what the image specification describes"),
        (json!([]), "is not what the image specification describes"),
        (index(vec![json!({ "digest": "sha256:0", "size": 1 })]), "is not what the image"),
        (index(vec![json!({ "digest": "x", "size": -1 })]), "is not what the image"),
    ];
    for (document, part) in cases {
        let error = read_value(&document, None).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let twice = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
    assert!(matches!(parse(twice, None), Err(ManifestError::Form { .. })));
    let deep = [&b"{\"schemaVersion\":2,\"x\":"[..], &vec![b'['; 100_000]].concat();
    assert!(matches!(parse(&deep, None), Err(ManifestError::Form { .. })));
}

#[test]
fn more_than_the_bounds_is_refused() {
    let long = parse(&vec![b' '; MAX_DOCUMENT + 1], None).unwrap_err();
    assert!(matches!(long, ManifestError::TooLong { length: 4_194_305, .. }), "{long}");
    let many = vec![descriptor(LAYER, b"1"); MAX_DESCRIPTORS + 1];
    let refused = read_value(&index(many.clone()), None);
    assert!(matches!(refused, Err(ManifestError::TooMany { count: 10_001, .. })), "{refused:?}");
    assert!(read_value(&index(many[1..].to_vec()), None).is_ok());
    let layers = image(b"{}", many[..MAX_LAYERS + 1].to_vec());
    let refused = manifest(&layers).contents();
    assert!(matches!(refused, Err(ManifestError::TooMany { count: 256, .. })), "{refused:?}");
    assert!(manifest(&image(b"{}", many[..MAX_LAYERS].to_vec())).contents().is_ok());
}

#[test]
fn what_is_no_image_is_told_apart() {
    let chart = "application/vnd.cncf.helm.config.v1+json";
    let content = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let mut document = image(b"{}", vec![descriptor(content, b"chart")]);
    document["config"]["mediaType"] = chart.into();
    let Ok(Contents::Artifact { kind, files }) = manifest(&document).contents() else {
        panic!("no artifact")
    };
    assert_eq!((kind.as_str(), files.len()), (chart, 1));
    document["artifactType"] = "application/x-model".into();
    let Ok(Contents::Artifact { kind, .. }) = manifest(&document).contents() else {
        panic!("no artifact")
    };
    assert_eq!(kind, "application/x-model");
    // What signs an image has the configuration of one.
    let signature = "application/vnd.dev.cosign.simplesigning.v1+json";
    let signature = image(b"{}", vec![descriptor(signature, b"s")]);
    assert!(matches!(manifest(&signature).contents(), Ok(Contents::Artifact { .. })));
    assert_eq!(manifest(&image(b"{}", Vec::new())).contents().unwrap(), Contents::Image(vec![]));
}

#[test]
fn a_layer_that_cannot_be_read_is_named() {
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let layers = vec![descriptor(LAYER, b"1"), descriptor(encrypted, b"2")];
    let error = manifest(&image(b"{}", layers)).contents().unwrap_err().to_string();
    let expected =
        format!("layer 2 of the image is of media type '{encrypted}', which cannot be read");
    assert_eq!(error, expected);
}

#[test]
fn what_nydus_made_is_told_by_its_bootstrap() {
    let blob = descriptor("application/vnd.oci.image.layer.nydus.blob.v1", b"1");
    let mut bootstrap = descriptor(LAYER, b"2");
    bootstrap["annotations"] = json!({
        "containerd.io/snapshot/nydus-bootstrap": "true",
        "containerd.io/snapshot/nydus-fs-version": "6",
    });
    let document = image(b"{}", vec![blob.clone(), bootstrap.clone()]);
    let contents = manifest(&document).contents().unwrap();
    let Contents::Rafs(layers) = contents else { panic!("{contents:?}") };
    assert_eq!(layers.bootstrap.digest, ContentDigest::sha256(b"2"));
    assert_eq!(layers.blobs[0].digest, ContentDigest::sha256(b"1"));
    assert_eq!((layers.blobs.len(), layers.version.as_deref()), (1, Some("6")));
    bootstrap["annotations"] = json!({ "containerd.io/snapshot/nydus-bootstrap": "false" });
    let contents = manifest(&image(b"{}", vec![blob, bootstrap])).contents();
    assert!(matches!(contents, Err(ManifestError::OtherLayer { number: 1, .. })), "{contents:?}");
}
