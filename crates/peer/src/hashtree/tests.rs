use std::collections::HashMap;

use dfs_model::{GROUP_BYTES, GroupRange};
use proptest::prelude::*;

use super::*;

const GROUP: usize = GROUP_BYTES as usize;
/// Piece of these tests: four groups.
const PIECE: usize = 4 * GROUP;

fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn bytes_of(content: &[u8], groups: GroupRange) -> &[u8] {
    let range = groups.bytes(content.len() as u64);
    &content[range.start as usize..range.end as usize]
}

/// Every node of the content's tree.
fn tree(content: &[u8]) -> (Shape, HashMap<Node, Cv>) {
    let shape = Shape::known(content.len() as u64);
    let mut nodes = HashMap::new();
    let all = GroupRange::new(0, shape.groups().unwrap().max(1));
    for (group, cv) in all.iter().zip(group_digests(shape, all, content).unwrap()) {
        nodes.insert(Node::group(group), cv);
    }
    for level in 1..=shape.root().unwrap().level {
        for index in 0..=all.count >> level {
            let Some(node) = shape.canonical(Node::new(level, index)) else { continue };
            let cv = fold(shape, node, |node| nodes.get(&node).copied()).unwrap();
            nodes.insert(node, cv);
        }
    }
    (shape, nodes)
}

#[test]
fn the_root_is_plain_blake3_at_every_edge() {
    let edges =
        [0, 1, 1024, GROUP - 1, GROUP, GROUP + 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 1];
    for length in edges {
        let content = content(length);
        let (shape, nodes) = tree(&content);
        let root = shape.root().unwrap();
        assert_eq!(nodes[&root], *blake3::hash(&content).as_bytes(), "{length} bytes");
        assert!(shape.is_root(root) && shape.parent(root).is_none());
    }
    let nothing = fold(Shape::known(0), Node::group(0), |_| None);
    assert_eq!(nothing, Some(*blake3::hash(b"").as_bytes()));
}

#[test]
fn a_clipped_node_is_its_only_child() {
    let shape = Shape::known(9 * GROUP_BYTES + 1);
    assert_eq!(shape.groups(), Some(10));
    assert_eq!(shape.canonical(Node::new(3, 1)), Some(Node::new(1, 4)));
    assert_eq!(shape.parent(Node::new(1, 4)), Some(Node::new(4, 0)));
    assert_eq!(shape.children(Node::new(4, 0)), Some((Node::new(3, 0), Node::new(1, 4))));
    assert_eq!(shape.root(), Some(Node::new(4, 0)));
    assert!(!shape.exists(Node::new(0, 10)) && !shape.exists(Node::new(2, 3)));
    assert_eq!(shape.group_bytes(9), Some(1));
    let cover = shape.cover(GroupRange::new(3, 7));
    assert_eq!(cover, [Node::group(3), Node::new(2, 1), Node::new(1, 4)]);
    assert_eq!(shape.cover(GroupRange::new(0, 99)), [Node::new(4, 0)]);
}

#[test]
fn digests_published_while_growing_stay_right_once_the_length_is_known() {
    let content = content(4 * GROUP + 7);
    let (shape, nodes) = tree(&content);
    let growing = Shape::growing();
    let known = GroupRange::new(0, 4);
    let cvs = group_digests(growing, known, bytes_of(&content, known)).unwrap();
    let whole = fold(growing, Node::new(2, 0), |node| {
        (node.level == 0).then(|| cvs.get(node.index as usize).copied()).flatten()
    });
    assert_eq!(whole, Some(nodes[&shape.canonical(Node::new(2, 0)).unwrap()]));
    assert!(group_digest(growing, 4, &content[4 * GROUP..]).is_err(), "only complete groups");
}

#[test]
fn impossible_nodes_and_ranges_are_refused_without_overflow() {
    for shape in [Shape::growing(), Shape::known(u64::MAX), Shape::known(0), Shape::known(5)] {
        for node in
            [Node::new(255, 0), Node::new(49, 0), Node::new(1, u64::MAX), Node::group(1 << 48)]
        {
            assert!(!shape.exists(node) && shape.canonical(node).is_none(), "{node}");
            assert!(shape.parent(node).is_none() && shape.children(node).is_none());
        }
        let far = GroupRange::new(u64::MAX, 2);
        assert!(group_digests(shape, far, &[0; 9]).is_err());
        assert!(verify(shape, u64::MAX, &[[0; 32]; 2], &Proof::default(), |_| None).is_err());
        assert!(shape.cover(far).is_empty());
    }
}

#[test]
fn hostile_proofs_are_refused() {
    let content = content(8 * GROUP);
    let (shape, nodes) = tree(&content);
    let trusted = |node: Node| (node == Node::new(3, 0)).then(|| nodes[&node]);
    let groups = GroupRange::new(2, 1);
    let bytes = bytes_of(&content, groups);
    let good = prove(shape, groups, &[Node::new(3, 0)], |node| nodes.get(&node).copied()).unwrap();
    assert_eq!(good.nodes().len(), 3);
    assert!(verify_bytes(shape, groups, bytes, &good, trusted).is_ok());

    let with = |extra: Node| {
        let mut nodes_of = good.nodes().to_vec();
        nodes_of.push((extra, nodes.get(&extra).copied().unwrap_or([7; 32])));
        verify_bytes(shape, groups, bytes, &Proof::from_nodes(nodes_of), trusted)
    };
    for extra in [
        Node::group(2),    // the group itself
        Node::new(3, 0),   // an ancestor
        Node::new(1, 0),   // a duplicate
        Node::group(0),    // below a sibling
        Node::new(9, 9),   // outside the tree
        Node::new(200, 1), // outside every tree
    ] {
        assert_eq!(with(extra), Err(VerifyError::ForeignNode(extra)));
    }
    let many = Proof::from_nodes(vec![good.nodes()[0]; Proof::MAX_NODES + 1]);
    assert_eq!(verify_bytes(shape, groups, bytes, &many, trusted), Err(VerifyError::TooManyNodes));
    let short = Proof::from_nodes(good.nodes()[1..].to_vec());
    assert!(verify_bytes(shape, groups, bytes, &short, trusted).is_err());
    // A sibling's two halves instead of the sibling: right, but not what an honest sender sends.
    let mut halves = good.nodes().to_vec();
    halves.retain(|(node, _)| *node != Node::new(1, 0));
    halves.extend([0, 1].map(|group| (Node::group(group), nodes[&Node::group(group)])));
    assert!(verify_bytes(shape, groups, bytes, &Proof::from_nodes(halves), trusted).is_err());
}

#[test]
fn a_sibling_that_is_trusted_already_need_not_be_sent() {
    let content = content(3 * GROUP);
    let (shape, nodes) = tree(&content);
    let trusted =
        |node: Node| [Node::new(2, 0), Node::new(1, 0)].contains(&node).then(|| nodes[&node]);
    let groups = GroupRange::new(2, 1);
    let proven =
        verify_bytes(shape, groups, bytes_of(&content, groups), &Proof::default(), trusted);
    assert!(proven.unwrap().contains(&(Node::group(2), nodes[&Node::group(2)])));
}

#[test]
fn what_is_not_known_cannot_be_proven_to_others() {
    let shape = Shape::known(4 * GROUP_BYTES);
    let groups = GroupRange::new(0, 1);
    let unknown = prove(shape, groups, &[Node::new(2, 0)], |_| None);
    assert!(matches!(unknown, Err(ProveError::Unknown(_))));
    assert_eq!(prove(shape, groups, &[Node::group(1)], |_| None), Err(ProveError::NotCovered(0)));
    let past = GroupRange::new(4, 1);
    assert_eq!(
        prove(shape, past, &[Node::new(2, 0)], |_| None),
        Err(ProveError::NoSuchGroups(past))
    );
}

#[test]
fn encodings_that_no_proof_has_are_refused() {
    let mut twice = vec![2];
    for _ in 0..2 {
        proof::encode_node(Node::group(3), &[1; 32], &mut twice);
    }
    assert_eq!(Proof::decode(&twice), Err(ProofDecodeError::BadNode(Node::group(3))));
    assert_eq!(Proof::decode(&[255]), Err(ProofDecodeError::TooManyNodes));
    assert_eq!(Proof::decode(&[]), Err(ProofDecodeError::WrongLength));
    assert_eq!(Proof::decode(&[1, 0]), Err(ProofDecodeError::WrongLength));
    let mut impossible = vec![1];
    proof::encode_node(Node::new(60, 0), &[1; 32], &mut impossible);
    assert!(Proof::decode(&impossible).is_err());
}

/// A content, a run of its groups, the levels at which the receiver trusts digests.
fn cases() -> impl Strategy<Value = (usize, GroupRange, Vec<u8>)> {
    (1..24 * GROUP, any::<bool>()).prop_flat_map(|(length, whole)| {
        let length = if whole { length.next_multiple_of(GROUP) } else { length };
        let groups = length.div_ceil(GROUP) as u64;
        let range = (0..groups).prop_flat_map(move |first| {
            (1..=groups - first).prop_map(move |count| GroupRange::new(first, count))
        });
        (Just(length), range, proptest::collection::vec(0..6u8, 1..3))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_run_is_proven_to_any_level_and_any_corruption_is_refused(
        (length, groups, levels) in cases(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let content = content(length);
        let (shape, nodes) = tree(&content);
        let mut goals = Vec::new();
        for level in levels {
            goals.extend((0..24).filter_map(|index| shape.canonical(Node::new(level, index))));
        }
        let trusted = |node: Node| goals.contains(&node).then(|| nodes[&node]);
        let proof = prove(shape, groups, &goals, |node| nodes.get(&node).copied()).unwrap();
        let mut encoded = Vec::new();
        proof.encode(&mut encoded);
        prop_assert!(encoded.len() <= Proof::MAX_BYTES);
        let decoded = Proof::decode(&encoded);
        prop_assert_eq!(decoded.as_ref(), Ok(&proof));

        let bytes = bytes_of(&content, groups);
        let proven = verify_bytes(shape, groups, bytes, &proof, trusted).unwrap();
        for (node, cv) in &proven {
            prop_assert_eq!(&nodes[node], cv);
        }
        for group in groups.iter() {
            prop_assert!(proven.iter().any(|(node, _)| *node == Node::group(group)));
        }
        for (node, _) in proof.nodes() {
            prop_assert!(proven.iter().any(|(proven, _)| proven == node));
        }

        let mut wrong = bytes.to_vec();
        wrong[at.index(bytes.len())] ^= flip;
        prop_assert!(verify_bytes(shape, groups, &wrong, &proof, trusted).is_err());
        let spot = at.index(encoded.len());
        encoded[spot] ^= flip;
        let refused = match Proof::decode(&encoded) {
            Ok(proof) => verify_bytes(shape, groups, bytes, &proof, trusted).is_err(),
            Err(_) => true,
        };
        prop_assert!(refused, "byte {} of the proof does not matter", spot);
    }

    #[test]
    fn random_lengths_fold_to_plain_blake3(length in 0..40 * GROUP) {
        let content = content(length);
        let (shape, nodes) = tree(&content);
        prop_assert_eq!(nodes[&shape.root().unwrap()], *blake3::hash(&content).as_bytes());
        let again = fold(shape, shape.root().unwrap(), |node| {
            (node.level == 0).then(|| nodes[&node])
        });
        prop_assert_eq!(again, Some(nodes[&shape.root().unwrap()]));
    }
}
