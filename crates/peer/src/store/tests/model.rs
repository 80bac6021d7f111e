//! Random operations, kills, power cuts and damage against a model of what must still be there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dfs_model::HostId;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::digests::DigestBatch;

const GROUPS: u64 = 11;
const LENGTH: usize = (GROUPS as usize - 1) * GROUP + 1234;

#[derive(Debug, Clone, Copy)]
enum Restart {
    /// The process dies, the machine lives.
    Kill,
    /// The machine dies.
    PowerCut,
    /// An orderly end, then another boot.
    Reboot,
}

#[derive(Debug, Clone)]
enum Step {
    Commit(GroupRange),
    Read(ByteRange),
    Sign(u64),
    Restart(Restart),
    /// Bytes change on disk while the power is off.
    RotContent(prop::sample::Index, u8),
    RotState(prop::sample::Index, u8, Restart),
    RotSigned(prop::sample::Index, u8, Restart),
    CutState(prop::sample::Index, Restart),
    /// Bytes change under the running process, which is asked to verify.
    RotAndVerify(prop::sample::Index, u8),
    Evict,
    EvictWhileUsed,
    Pin,
    Unpin,
    /// Parts of it are given back, while it is used.
    TakeOut(Vec<GroupRange>),
    /// What lies in memory over the disk moves there.
    PutDown(GroupRange),
}

fn restarts() -> impl Strategy<Value = Restart> {
    prop_oneof![Just(Restart::Kill), Just(Restart::PowerCut), Just(Restart::Reboot)]
}

fn open_on(medium: Medium, dir: &Path, boot: u8) -> Store {
    let boot_id = Some([boot; 16]);
    Store::open(dir, StoreOptions { medium, boot_id, ..StoreOptions::default() }).unwrap()
}

fn runs() -> impl Strategy<Value = GroupRange> {
    (0..GROUPS).prop_flat_map(|first| {
        (1..=(GROUPS - first).min(4)).prop_map(move |count| GroupRange::new(first, count))
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = (0..LENGTH as u64, 1..200_000u64)
        .prop_map(|(start, count)| ByteRange::new(start, (start + count).min(LENGTH as u64)));
    let spot = any::<prop::sample::Index>;
    prop_oneof![
        6 => runs().prop_map(Step::Commit),
        6 => bytes.prop_map(Step::Read),
        2 => (0..GROUPS).prop_map(Step::Sign),
        3 => restarts().prop_map(Step::Restart),
        2 => (spot(), 1..=255u8).prop_map(|(at, flip)| Step::RotContent(at, flip)),
        2 => (spot(), 1..=255u8, restarts()).prop_map(|(at, flip, how)| Step::RotState(at, flip, how)),
        1 => (spot(), 1..=255u8, restarts()).prop_map(|(at, flip, how)| Step::RotSigned(at, flip, how)),
        1 => (spot(), restarts()).prop_map(|(at, how)| Step::CutState(at, how)),
        1 => (spot(), 1..=255u8).prop_map(|(at, flip)| Step::RotAndVerify(at, flip)),
        1 => Just(Step::Evict),
        1 => Just(Step::EvictWhileUsed),
        2 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        3 => proptest::collection::vec(runs(), 1..4).prop_map(Step::TakeOut),
        2 => runs().prop_map(Step::PutDown),
    ]
}

struct World {
    dir: TempDir,
    medium: Medium,
    content: Vec<u8>,
    boot: u8,
    store: Option<Store>,
    /// Where the task lies.
    path: PathBuf,
    /// Groups that must be readable.
    have: BTreeSet<u64>,
    /// Whether it may not be evicted, over restarts and damage.
    pinned: bool,
    /// Whether something was recorded since the last orderly end: without that a clean mark vouches for
    /// bytes that rot afterwards, as every file system does.
    dirty: bool,
}

impl World {
    fn new(medium: Medium) -> Self {
        let dir = match medium {
            Medium::Disk => TempDir::new().unwrap(),
            // In memory of its own, which goes with it.
            Medium::Memory(_) | Medium::Layered(_) => TempDir::new_in("/dev/shm").unwrap(),
        };
        let store = Some(open_on(medium, dir.path(), 1));
        let path = store.as_ref().map(|store| store.directory.path(id(1))).unwrap();
        let (have, pinned, dirty) = (BTreeSet::new(), false, false);
        Self { dir, medium, content: content(LENGTH), boot: 1, store, path, have, pinned, dirty }
    }

    fn task(&self) -> StoredTask {
        let task = self.store.as_ref().unwrap().create(id(1)).unwrap();
        task.set_length(LENGTH as u64).unwrap();
        task
    }

    fn restart(&mut self, how: Restart, between: impl FnOnce(&Path)) {
        let (in_memory, store) = (self.task().upper(), self.store.take().unwrap());
        match how {
            Restart::Reboot => {
                store.close(|| true).unwrap();
                drop(store);
                self.dirty = false;
            }
            Restart::Kill | Restart::PowerCut => drop(store),
        }
        if matches!(how, Restart::PowerCut) {
            // Memory ends with the machine.
            self.have.retain(|group| !in_memory.contains(*group));
        }
        between(&self.path);
        if !matches!(how, Restart::Kill) {
            self.boot += 1;
        }
        self.store = Some(open_on(self.medium, self.dir.path(), self.boot));
    }

    fn rot(path: &Path, at: prop::sample::Index, flip: u8) -> Option<u64> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let length =
            usize::try_from(file.metadata().ok()?.len()).ok().filter(|length| *length > 0)?;
        let mut byte = [0];
        let at = at.index(length) as u64;
        file.read_exact_at(&mut byte, at).ok()?;
        file.write_all_at(&[byte[0] ^ flip], at).ok()?;
        Some(at)
    }

    fn read(&self, range: ByteRange) {
        match self.task().read(range) {
            Ok(bytes) => {
                let right = &self.content[range.start as usize..range.end as usize];
                assert!(bytes == right, "wrong bytes in {range}");
            }
            Err(StoreError::Missing { .. }) => {
                let lost = range.groups().iter().all(|group| self.have.contains(&group));
                assert!(!lost, "{range} was here");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn evict(&mut self, used: bool) {
        let task = self.task();
        let guard = used.then(|| task.in_use(Use::Mount).unwrap());
        let room = self.store.as_ref().unwrap().make_room(SystemTime::now(), ByteSize(u64::MAX));
        assert_eq!(room.unwrap().evicted.is_empty(), used || self.pinned);
        drop(guard);
        if !used && !self.pinned {
            self.have.clear();
        }
    }

    fn take_out(&mut self, runs: &[GroupRange]) {
        let task = self.task();
        let _used = task.in_use(Use::Mount).unwrap();
        let taken = task.take_out(runs).unwrap();
        if self.pinned {
            assert!(taken.groups.is_empty());
            return;
        }
        let named: BTreeSet<u64> = runs.iter().flat_map(GroupRange::iter).collect();
        let gone: BTreeSet<u64> = taken.groups.iter().flat_map(GroupRange::iter).collect();
        assert!(named.intersection(&self.have).all(|group| gone.contains(group)));
        assert!(named.iter().all(|group| !task.has(GroupRange::new(*group, 1))));
        self.have.retain(|group| !named.contains(group));
        self.dirty |= !gone.is_empty();
    }

    fn pin(&mut self, pinned: bool) {
        drop(self.task());
        let store = self.store.as_ref().unwrap();
        let change = if pinned { store.pin(id(1)) } else { store.unpin(id(1)) };
        let is_news = pinned != std::mem::replace(&mut self.pinned, pinned);
        assert_eq!(change.unwrap(), PinChange::of(is_news));
    }

    fn sign(&self, group: u64) {
        let task = self.task();
        let Some(cv) = task.node(Node::group(group)).filter(|_| self.have.contains(&group)) else {
            return;
        };
        let signer = HostId::from_bytes([2; 16]);
        let entries = vec![(Node::group(group), cv)];
        let batch = DigestBatch { task: id(1), signer, length: Some(LENGTH as u64), entries };
        task.add_signed(&batch.sign(&SigningKey::from_bytes(&[9; 32])).unwrap()).unwrap();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Commit(groups) => {
                let task = self.task();
                self.dirty |= !task.has(groups);
                commit(&task, &self.content, groups).unwrap();
                self.have.extend(groups.iter());
            }
            Step::Read(range) => self.read(range),
            Step::Sign(group) => self.sign(group),
            Step::Restart(how) => self.restart(how, |_| {}),
            Step::RotContent(at, flip) if self.dirty => {
                let mut hit = None;
                self.restart(Restart::PowerCut, |task| {
                    hit = Self::rot(&task.join("content"), at, flip)
                });
                hit.map(|at| self.have.remove(&(at / GROUP_BYTES)));
            }
            Step::RotContent(..) => {}
            Step::RotState(at, flip, how) => {
                self.restart(how, |task| _ = Self::rot(&task.join("state"), at, flip));
                self.have.clear();
            }
            Step::RotSigned(at, flip, how) => {
                self.restart(how, |task| _ = Self::rot(&task.join("signed"), at, flip));
            }
            Step::CutState(at, how) => {
                self.restart(how, |task| {
                    let Ok(state) = OpenOptions::new().write(true).open(task.join("state")) else {
                        return;
                    };
                    let length = state.metadata().unwrap().len();
                    state.set_len(at.index(length as usize + 1) as u64).unwrap();
                });
                self.have.clear();
            }
            Step::RotAndVerify(at, flip) => {
                let content = self.task().content_path();
                let hit = Self::rot(&content, at, flip);
                let reports = self.store.as_ref().unwrap().verify(None).unwrap();
                self.dirty |= reports.iter().any(|report| !report.bad.is_empty());
                hit.map(|at| self.have.remove(&(at / GROUP_BYTES)));
            }
            Step::Evict => self.evict(false),
            Step::EvictWhileUsed => self.evict(true),
            Step::Pin => self.pin(true),
            Step::Unpin => self.pin(false),
            Step::TakeOut(runs) => self.take_out(&runs),
            Step::PutDown(run) => {
                let task = self.task();
                task.put_down(run, u64::MAX).unwrap();
                assert!(task.upper().present_in(run).next().is_none());
            }
        }
    }

    fn check(&self) {
        for group in 0..GROUPS {
            self.read(GroupRange::new(group, 1).bytes(LENGTH as u64));
        }
        let key = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
        for signed in self.task().signed_for(GroupRange::new(0, GROUPS)) {
            signed.verify(|_| Some(key)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_wrong_byte_is_ever_read_and_nothing_is_lost_but_what_was_damaged(
        steps in proptest::collection::vec(steps(), 1..24),
    ) {
        live(Medium::Disk, steps);
    }

    #[test]
    fn the_same_in_memory(steps in proptest::collection::vec(steps(), 1..24)) {
        live(Medium::Memory(ByteSize(1 << 20)), steps);
    }

    #[test]
    fn the_same_in_memory_over_disk(
        groups in 1..12u64, steps in proptest::collection::vec(steps(), 1..24),
    ) {
        live(Medium::Layered(ByteSize(groups * GROUP_BYTES)), steps);
    }
}

fn live(medium: Medium, steps: Vec<Step>) {
    let mut world = World::new(medium);
    for step in steps {
        world.step(step);
    }
    world.check();
}
