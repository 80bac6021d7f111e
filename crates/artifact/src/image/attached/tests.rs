use proptest::prelude::*;

use super::*;

fn digest(text: &str) -> ContentDigest {
    ContentDigest::sha256(text.as_bytes())
}

fn layer(name: &str) -> AttachedLayer {
    let blob = digest(&format!("{name} blob"));
    AttachedLayer { layer: digest(name), diff_id: digest(&format!("{name} tar")), blob, size: 7 }
}

fn about() -> About {
    About { media_type: MANIFEST.to_owned(), digest: digest("image"), size: 9 }
}

fn signer(byte: u8) -> IndexSigner {
    IndexSigner::read(&[byte; 32]).unwrap()
}

fn trust(keys: &[IndexKey], registries: &[&str]) -> IndexTrust {
    let registries = registries.iter().map(|&one| one.to_owned()).collect();
    IndexTrust { keys: keys.to_vec(), registries }
}

#[test]
fn what_is_made_reads_back_and_is_about_its_image() {
    let layers = [layer("a"), layer("b")];
    let bytes = manifest(&about(), &layers, None);
    let read = Attached::parse(&bytes).unwrap();
    assert_eq!(read.layers, layers);
    assert_eq!(read.find(&digest("b"), &digest("b tar")), Some(&layers[1]));
    assert_eq!(read.find(&digest("b"), &digest("a tar")), None);
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["subject"]["digest"], digest("image").to_string());
    assert_eq!(json["artifactType"], INDEX_ARTIFACT);
    assert_eq!(
        manifest(&about(), &layers, Some(&signer(1))),
        manifest(&about(), &layers, Some(&signer(1)))
    );
}

#[test]
fn only_what_a_believed_key_signed_as_it_is_or_a_believed_registry_has_is_believed() {
    let (ours, theirs) = (signer(1), signer(2));
    let layers = [layer("a")];
    let signed = Attached::parse(&manifest(&about(), &layers, Some(&ours))).unwrap();
    let unsigned = Attached::parse(&manifest(&about(), &layers, None)).unwrap();
    let by_key = trust(&[ours.key()], &[]);
    assert!(by_key.check("r", &signed).is_ok());
    assert!(matches!(by_key.check("r", &unsigned), Err(AttachedError::Unsigned)));
    let other = trust(&[theirs.key()], &[]);
    assert!(matches!(other.check("r", &signed), Err(AttachedError::Unsigned)));
    let by_registry = trust(&[], &["r:5000"]);
    assert!(by_registry.check("r:5000", &unsigned).is_ok());
    assert!(by_registry.check("r", &signed).is_err());
    assert!(!trust(&[], &[]).may_believe("r") && by_key.may_believe("r"));
    assert!(by_registry.may_believe("r:5000") && !by_registry.may_believe("r"));
}

#[test]
fn nothing_that_is_signed_can_be_altered() {
    let ours = signer(1);
    let by_key = trust(&[ours.key()], &[]);
    let bytes = manifest(&about(), &[layer("a"), layer("b")], Some(&ours));
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let evil = digest("evil").to_string();
    for replaced in [digest("a"), digest("a tar"), digest("a blob"), digest("b blob")] {
        let altered = text.replace(&replaced.to_string(), &evil);
        assert_ne!(altered, text);
        let altered = Attached::parse(altered.as_bytes()).unwrap();
        assert!(matches!(by_key.check("r", &altered), Err(AttachedError::Forged(_))));
    }
    let shorter = text.replace("\"size\":7", "\"size\":6");
    let shorter = Attached::parse(shorter.as_bytes()).unwrap();
    assert!(matches!(by_key.check("r", &shorter), Err(AttachedError::Forged(_))));
}

#[test]
fn what_is_no_list_of_indexes_is_refused() {
    let text = String::from_utf8(manifest(&about(), &[layer("a")], None).to_vec()).unwrap();
    for (what, with) in [
        (INDEX_ARTIFACT, "application/x"),
        (LAYER_INDEX, "application/x"),
        ("sha256:", "sha1:"),
        ("\"size\":7", "\"size\":99999999999"),
        (LAYER, "other"),
    ] {
        let other = text.replace(what, with);
        assert_ne!(other, text, "{what}");
        assert!(Attached::parse(other.as_bytes()).is_err(), "{what}");
    }
    let many: Vec<_> = (0..=MAX_LAYERS).map(|number| layer(&number.to_string())).collect();
    assert!(Attached::parse(&manifest(&about(), &many, None)).is_err());
    assert!(Attached::parse(&vec![b' '; MAX_DOCUMENT + 1]).is_err());
}

#[test]
fn keys_have_one_spelling() {
    let key = signer(3).key();
    assert_eq!(key.to_string().parse(), Ok(key));
    let upper = key.to_string().to_uppercase();
    for bad in ["", "ab", &upper, &format!("{key}00")] {
        assert!(bad.parse::<IndexKey>().is_err(), "{bad}");
    }
    let hex = format!("{}\n", "03".repeat(32));
    assert_eq!(IndexSigner::read(hex.as_bytes()).unwrap().key(), key);
    assert!(IndexSigner::read(b"short").is_none());
}

fn known(index: &[u8], beside: &[(&str, &[u8])]) -> LayerIndex {
    let beside = beside.iter().map(|(kind, content)| AttachedPart {
        kind: (*kind).to_owned(),
        content: Bytes::copy_from_slice(content),
    });
    LayerIndex { index: Bytes::copy_from_slice(index), beside: beside.collect() }
}

#[test]
fn a_blob_has_an_index_and_what_is_beside_it() {
    for known in [known(b"index", &[]), known(&[7; 100_000], &[("a.1", b"x"), ("b.1", b"")])] {
        let encoded = known.encode().unwrap();
        assert_eq!(LayerIndex::decode(&encoded).unwrap(), known);
        for end in [0, 15, 16, 17, encoded.len() - 1] {
            assert!(LayerIndex::decode(&encoded[..end]).is_err(), "{end}");
        }
    }
    let many: Vec<_> = (0..17).map(|_| ("a", &b""[..])).collect();
    assert!(LayerIndex::decode(&known(b"", &many).encode().unwrap()).is_err());
    let long = "x".repeat(65);
    assert!(LayerIndex::decode(&known(b"", &[(&long, b"")]).encode().unwrap()).is_err());
}

#[test]
fn a_bomb_is_refused_before_it_has_unfolded() {
    // A frame of a single segment that is said to have so many bytes.
    let frame = |length: u64| {
        let head = [&TAG[..], &[0x28, 0xb5, 0x2f, 0xfd, 0xe0], &length.to_le_bytes()].concat();
        LayerIndex::decode(&[&head[..], &[1, 0, 0]].concat())
    };
    let refused = |length| frame(length).unwrap_err().to_string();
    assert!(refused(MAX_UNPACKED + 1).contains("more than any"));
    assert!(refused(u64::MAX - 2).contains("more than any"));
    assert!(refused(5).contains("does not unpack"));
    // A million zeros, said to be ten.
    let zeros = zstd::bulk::compress(&[0; 1_000_000], 1).unwrap();
    let block = &zeros[zeros.len() - 8..];
    let head = [&TAG[..], &[0x28, 0xb5, 0x2f, 0xfd, 0xe0], &10_u64.to_le_bytes()].concat();
    assert!(LayerIndex::decode(&[&head[..], block].concat()).is_err());
    let unsaid = zstd::stream::encode_all(&[1; 100][..], 1).unwrap();
    assert!(LayerIndex::decode(&[&TAG[..], &unsaid[..]].concat()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_what_they_encode(bytes: Vec<u8>) {
        prop_assert!(LayerIndex::decode(&bytes).is_err());
        let packed = zstd::bulk::compress(&bytes, 1).unwrap();
        if let Ok(known) = LayerIndex::decode(&[&TAG[..], &packed[..]].concat()) {
            prop_assert_eq!(LayerIndex::decode(&known.encode().unwrap()).unwrap(), known);
        }
    }
}
