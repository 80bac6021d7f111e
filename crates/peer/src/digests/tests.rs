use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn batch(length: Option<u64>, entries: Vec<(Node, Cv)>) -> DigestBatch {
    let (task, signer) = (TaskId::from_bytes([1; 32]), HostId::from_bytes([2; 16]));
    DigestBatch { task, signer, length, entries }
}

fn known(host: &HostId) -> Option<[u8; 32]> {
    (*host == HostId::from_bytes([2; 16])).then(|| key().verifying_key().to_bytes())
}

#[test]
fn only_the_registered_signer_is_believed() {
    let signed = batch(None, vec![(Node::group(3), [3; 32])]).sign(&key()).unwrap();
    assert!(signed.verify(known).is_ok());
    assert!(matches!(signed.verify(|_| None), Err(DigestsError::UnknownSigner(_))));
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    assert!(matches!(signed.verify(|_| Some(other)), Err(DigestsError::BadSignature { .. })));
}

#[test]
fn hostile_batches_are_refused_before_they_cost_anything() {
    let signed = batch(None, vec![(Node::group(3), [3; 32])]).sign(&key()).unwrap().encode();
    let mut many = signed.clone();
    many[58..60].copy_from_slice(&4097u16.to_le_bytes());
    assert_eq!(SignedDigests::decode(&many), Err(DigestsError::TooMany(4097)));
    let mut newer = signed.clone();
    newer[0] = 2;
    assert_eq!(SignedDigests::decode(&newer), Err(DigestsError::Format(2)));
    for end in 0..signed.len() {
        assert!(SignedDigests::decode(&signed[..end]).is_err(), "cut at {end}");
    }
    let mut long = signed;
    long.push(0);
    assert!(SignedDigests::decode(&long).is_err());
}

#[test]
fn digests_of_nodes_the_content_does_not_have_are_not_signed() {
    let one = 70_000;
    for (length, node) in [
        (Some(one), Node::group(2)),
        (Some(one), Node::new(2, 0)),
        (None, Node::new(60, 0)),
        (Some(0), Node::group(1)),
    ] {
        let refused = batch(length, vec![(node, [1; 32])]).sign(&key());
        assert_eq!(refused, Err(DigestsError::BadNode(node)));
    }
    let twice = vec![(Node::group(0), [1; 32]), (Node::group(0), [2; 32])];
    assert!(batch(None, twice).sign(&key()).is_err(), "two digests for one node");
    assert!(batch(Some(0), vec![(Node::group(0), [1; 32])]).sign(&key()).is_ok());
}

#[test]
fn a_host_is_the_same_after_a_restart_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = Identity::load_or_create(dir.path()).unwrap();
    let path = dir.path().join("identity");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let second = Identity::load_or_create(dir.path()).unwrap();
    assert_eq!(first.host(), second.host());
    assert_eq!(first.public_key(), second.public_key());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    assert!(!format!("{first:?}").contains("key"));

    std::fs::write(&path, b"something else").unwrap();
    assert!(matches!(Identity::load_or_create(dir.path()), Err(IdentityError::Malformed(_))));
}

#[test]
fn processes_that_start_at_once_become_one_host() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Identity::load_or_create(dir.path()).unwrap().host();
    let hosts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(hosts.iter().all(|host| *host == hosts[0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_signed_reads_back_and_any_changed_byte_is_refused(
        groups in proptest::collection::btree_map(0..1u64 << 40, any::<[u8; 32]>(), 0..20),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let entries = groups.into_iter().map(|(group, cv)| (Node::group(group), cv)).collect();
        let signed = batch(None, entries).sign(&key()).unwrap();
        let mut bytes = signed.encode();
        prop_assert!(bytes.len() <= SignedDigests::MAX_BYTES);
        let back = SignedDigests::decode(&bytes).unwrap();
        prop_assert!(back.verify(known).is_ok());
        prop_assert_eq!(&back, &signed);

        let spot = at.index(bytes.len());
        bytes[spot] ^= flip;
        let refused = SignedDigests::decode(&bytes).is_ok_and(|batch| batch.verify(known).is_ok());
        prop_assert!(!refused, "byte {} does not matter", spot);
    }
}

#[test]
fn an_appointment_is_the_word_of_its_scheduler_and_of_nobody_else() {
    let dir = TempDir::new().unwrap();
    let scheduler = Identity::load_or_create(dir.path()).unwrap();
    let task = TaskId::from_bytes([1; 32]);
    let host = HostId::from_bytes([2; 16]);
    let appointed = Appointment::sign(task, Office::StandIn, (host, [3; 32]), &scheduler);
    let known = |id: &HostId| (*id == scheduler.host()).then(|| scheduler.public_key());
    let read = Appointment::decode(&appointed.encode()).unwrap();
    assert_eq!(read, appointed);
    read.verify(known).unwrap();
    for at in 1..Appointment::BYTES {
        let mut forged = appointed.encode().to_vec();
        forged[at] ^= 1;
        Appointment::decode(&forged).unwrap().verify(known).unwrap_err();
    }
    let mut promoted =
        Appointment::sign(task, Office::Reserve, (host, [3; 32]), &scheduler).encode().to_vec();
    promoted[0] = appointed.encode()[0];
    let promoted = Appointment::decode(&promoted).unwrap();
    assert_eq!(promoted.office, Office::StandIn);
    promoted.verify(known).unwrap_err();
    let other = TempDir::new().unwrap();
    let own = Identity::load_or_create(other.path()).unwrap();
    let self_made = Appointment::sign(task, Office::StandIn, (own.host(), own.public_key()), &own);
    let unknown = Err(AppointmentError::UnknownScheduler(own.host()));
    assert_eq!(self_made.verify(known), unknown);
    let cut = &appointed.encode()[..Appointment::BYTES - 1];
    assert_eq!(Appointment::decode(cut), Err(AppointmentError::Unreadable));
    assert!(SignedDigests::decode(&appointed.encode()).is_err(), "it is no batch of digests");
}
