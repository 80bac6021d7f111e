//! Bytes of our own formats that another host says: frames, digests, proofs, tables. Each has one encoding.

use dfs_artifact::chunks::{Chunk, ChunkDigest, ChunkTable, Codec};
use dfs_artifact::parts::{Method, Part, PartTable};
use dfs_artifact::{Member, MemberTable};
use dfs_model::{Transform, Validator};
use dfs_peer::digests::{DigestBatch, Identity, SignedDigests};
use dfs_peer::hashtree::{Node, Proof};
use dfs_peer::wire::count_frames;
use tempfile::TempDir;

pub(super) fn frames(bytes: &[u8]) {
    // Whatever stands there, it is frames or it is refused.
    let _ = count_frames(bytes);
}

pub(super) fn digests(bytes: &[u8]) {
    if let Ok(batch) = SignedDigests::decode(bytes) {
        assert_eq!(batch.encode(), bytes);
    }
}

pub(super) fn proof(bytes: &[u8]) {
    if let Ok(proof) = Proof::decode(bytes) {
        let mut again = Vec::new();
        proof.encode(&mut again);
        assert_eq!(again, bytes);
    }
}

pub(super) fn members(bytes: &[u8]) {
    if let Ok(table) = MemberTable::decode(bytes.to_vec()) {
        let members: Vec<_> = table.members().collect();
        assert!(members.windows(2).all(|pair| pair[0].range().end <= pair[1].offset));
        let again = MemberTable::new(members).expect("what was read is sound");
        assert_eq!(again.encoded(), bytes);
    }
}

pub(super) fn parts(bytes: &[u8]) {
    if let Ok(table) = PartTable::decode(bytes) {
        assert_eq!(table.encode(), bytes);
        assert!(table.parts().windows(2).all(|pair| pair[0].range().end <= pair[1].offset));
    }
}

pub(super) fn chunks(bytes: &[u8]) {
    if let Ok(table) = ChunkTable::decode(bytes) {
        assert_eq!(table.encode(), bytes);
        assert!(table.chunks().windows(2).all(|pair| pair[0].range().end <= pair[1].offset));
    }
}

/// One frame of each kind, as the layout of the piece plane is frozen.
pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let task = [0xaa; 32];
    let frame = |kind: u8, flags: u8, id: u8, body: &[u8]| {
        let length = (body.len() as u32).to_le_bytes();
        [&[kind, flags, 0, 0][..], &length, &[id, 0, 0, 0], body].concat()
    };
    let hello = [&b"dfspiece\x01\0\x02\0\x02\0\0\0\0\0\0\0"[..], &[0xbb; 16], b"n1"].concat();
    let mut request = task.to_vec();
    request.extend([2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 1, 1, 0, 0xdc, 5, 0, 0]);
    request.extend(b"g");
    let data =
        b"\x05\0\0\0\0\0\0\0\x01\0\0\x01\x02\0\x05\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x03\0\0\0sigprxy";
    // A group of one letter.
    let zstd = b"\x05\0\0\0\0\0\0\0\x01\0\x01\0\0\0\x06\0\0\0\0\0\0\0\0\0\x0a\0\0\0\
        \x28\xb5\x2f\xfd\0\x30\x03\0\x08a";
    let have =
        [&task[..], &[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], &[0; 7], &[2], &[0; 7]].concat();
    let frames = [
        frame(1, 0, 0, &hello),
        frame(2, 3, 7, &request),
        frame(3, 3, 7, data),
        frame(3, 3, 7, zstd),
        frame(4, 0, 8, b"\x07\x02\0no"),
        frame(6, 0, 0, &[&task[..], &[0, 0]].concat()),
        frame(8, 6, 0, &have),
        frame(9, 0, 1, b""),
        frame(11, 0, 0, b"\x03\0bye"),
    ];
    let all = frames.concat();
    frames.into_iter().chain([all]).collect()
}

pub(super) fn digest_seeds() -> Vec<Vec<u8>> {
    let dir = TempDir::new().expect("there is room for a file");
    let identity = Identity::load_or_create(dir.path()).expect("there is room for a file");
    let batch = |length, entries| {
        let task = dfs_model::TaskId::from_bytes([0xaa; 32]);
        let batch = DigestBatch { task, signer: identity.host(), length, entries };
        batch.sign(identity.signing_key()).expect("its nodes ascend").encode()
    };
    let nodes = (0..3).map(|group| (Node::group(group), [group as u8; 32])).collect();
    vec![batch(Some(200_000), nodes), batch(None, vec![(Node::new(4, 1), [1; 32])])]
}

pub(super) fn proof_seeds() -> Vec<Vec<u8>> {
    let node = |level: u8, index: u8| [&[level, index, 0, 0, 0, 0, 0][..], &[level; 32]].concat();
    vec![vec![0], [vec![2], node(0, 1), node(3, 1)].concat()]
}

pub(super) fn member_seeds() -> Vec<Vec<u8>> {
    let member = |path: &str, offset| Member {
        path: path.into(),
        offset,
        length: 5,
        validator: Validator { etag: Some("\"1\"".into()), ..Validator::default() },
    };
    let table = MemberTable::new(vec![member("d/a", 0), member("d/b", 4096)]);
    let tables = [MemberTable::new([]), table];
    tables.map(|table| table.expect("members ascend").encoded().to_vec()).into()
}

pub(super) fn part_seeds() -> Vec<Vec<u8>> {
    let part = |offset, method| Part {
        offset,
        length: 5,
        from: offset,
        until: offset + 100,
        packed: 5,
        method,
        crc: 7,
    };
    let parts = vec![part(0, Method::Stored), part(4096, Method::Deflated)];
    let archive = Validator { length: Some(9000), ..Validator::default() };
    let table = PartTable::new(archive, Transform::Identity, 9000, 5000, parts);
    vec![table.expect("parts ascend").encode()]
}

pub(super) fn chunk_seeds() -> Vec<Vec<u8>> {
    let codecs = [Codec::Stored, Codec::Gzip, Codec::Zstd, Codec::Lz4];
    let chunks = (0..).zip(codecs).map(|(number, codec)| Chunk {
        offset: 512 * number,
        length: 100,
        from: 1000 * number,
        packed: 100,
        skip: 0,
        codec,
        digest: if number % 2 == 0 {
            ChunkDigest::Sha256([1; 32])
        } else {
            ChunkDigest::Blake3([2; 32])
        },
    });
    let blob = Validator { length: Some(9000), ..Validator::default() };
    let table = ChunkTable::new(blob, 9000, 5000, chunks.collect());
    vec![table.expect("chunks ascend").encode()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_sound() {
        assert!(frame_seeds().iter().all(|frames| count_frames(frames).unwrap() > 0));
        assert!(digest_seeds().iter().all(|batch| SignedDigests::decode(batch).is_ok()));
        assert!(proof_seeds().iter().all(|proof| Proof::decode(proof).is_ok()));
        assert!(member_seeds().iter().all(|table| MemberTable::decode(table.clone()).is_ok()));
        assert!(part_seeds().iter().all(|table| PartTable::decode(table).is_ok()));
        assert!(chunk_seeds().iter().all(|table| ChunkTable::decode(table).is_ok()));
    }
}
