//! The core against a model: trees and bytes in memory, fetched lazily.

use std::collections::BTreeMap;

use dfs_model::{ByteRange, Priority};
use proptest::prelude::*;

use super::*;
use crate::content::{ContentErrorClass, FailingContent, MemoryContent, SlowContent};
use crate::tree::{Extent, MemoryTree, MemoryTreeBuilder};

const GROUP: usize = GROUP_BYTES as usize;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn space(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

fn one_file(length: usize) -> (MemoryTree, Vec<u8>) {
    let mut builder = MemoryTreeBuilder::new();
    let extent = Extent::Data { space: 0, offset: 0, length: length as u64 };
    builder.file("f", 0o644, vec![extent]).unwrap();
    (builder.build(), space(0, length))
}

fn core_over(
    tree: MemoryTree,
    content: impl Content,
    options: CoreOptions,
    runtime: &tokio::runtime::Runtime,
) -> Core {
    Core::new(Arc::new(tree), Arc::new(content), options, runtime.handle().clone())
}

fn find(core: &Core, path: &str) -> NodeId {
    path.split('/').filter(|name| !name.is_empty()).fold(NodeId::ROOT, |node, name| {
        core.lookup(node, name.as_bytes()).unwrap().value.expect("the path exists").node
    })
}

/// A file's extents: (space, offset, length), no space for zeros.
type Plan = Vec<(Option<u16>, u32, u32)>;

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let extent = (prop::option::of(0u16..3), 0u32..200_000, 1u32..150_000);
    prop::collection::vec(prop::collection::vec(extent, 0..5), 1..8)
}

fn model_of(plan: &Plan, spaces: &[Vec<u8>]) -> (Vec<Extent>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut extents = Vec::new();
    for (space, offset, length) in plan {
        match space {
            Some(space) => {
                let at = *offset as usize;
                bytes.extend(&spaces[usize::from(*space)][at..at + *length as usize]);
                extents.push(Extent::Data {
                    space: *space,
                    offset: u64::from(*offset),
                    length: u64::from(*length),
                });
            }
            None => {
                bytes.resize(bytes.len() + *length as usize, 0);
                extents.push(Extent::Zero { length: u64::from(*length) });
            }
        }
    }
    (extents, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_read_of_any_tree_gives_the_models_bytes(
        plans in plans(),
        reads in prop::collection::vec((any::<prop::sample::Index>(), 0u64..800_000, 0usize..300_000), 1..40),
    ) {
        let runtime = runtime();
        let spaces: Vec<_> = (0..3).map(|seed| space(seed, 350_000)).collect();
        let mut builder = MemoryTreeBuilder::new();
        let mut models = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            let (extents, bytes) = model_of(plan, &spaces);
            builder.dir(&format!("d{at}"), 0o755).unwrap();
            let nid = builder.file(&format!("d{at}/f"), 0o644, extents).unwrap();
            builder.hard_link(&format!("h{at}"), nid).unwrap();
            models.push(bytes);
        }
        let content = MemoryContent::missing(spaces);
        let core = core_over(builder.build(), content.clone(), CoreOptions::default(), &runtime);
        for (file, offset, length) in reads {
            let at = file.index(models.len());
            let node = find(&core, &format!("h{at}"));
            prop_assert_eq!(node, find(&core, &format!("d{at}/f")));
            let model = &models[at];
            let start = (offset as usize).min(model.len());
            let expected = &model[start..(start + length).min(model.len())];
            let read = runtime.block_on(core.read(node, offset, length)).unwrap();
            prop_assert_eq!(&read[..], expected);
            let mut buf = vec![0xee; length];
            let Read::Here(here, _) = core.read_now(node, offset, &mut buf).unwrap() else {
                return Err(TestCaseError::fail("what was read is here"));
            };
            prop_assert_eq!(&buf[..here], expected);
        }
        for (_, range, _) in content.fetches() {
            prop_assert_eq!(range.start % GROUP_BYTES, 0);
            prop_assert_eq!(range.end % GROUP_BYTES, 0);
        }
    }

    #[test]
    fn what_is_found_from_any_offset_on_is_the_next_byte_or_hole_of_the_model(
        plan in prop::collection::vec((any::<bool>(), 1u64..50), 0..12),
        offsets in prop::collection::vec(0u64..500, 1..30),
    ) {
        let runtime = runtime();
        let extent = |(data, length): &(bool, u64)| match data {
            true => Extent::Data { space: 0, offset: 0, length: *length },
            false => Extent::Zero { length: *length },
        };
        let mut builder = MemoryTreeBuilder::new();
        builder.file("f", 0o644, plan.iter().map(extent).collect()).unwrap();
        let content = MemoryContent::missing(vec![space(0, 50)]);
        let core = core_over(builder.build(), content, CoreOptions::default(), &runtime);
        let node = find(&core, "f");
        let of = |(data, length): &(bool, u64)| std::iter::repeat_n(*data, *length as usize);
        let model: Vec<bool> = plan.iter().flat_map(of).collect();
        let end = model.len() as u64;
        for offset in offsets {
            let next = |data: bool| (offset..end).find(|at| model[*at as usize] == data);
            let hole = (offset < end).then(|| next(false).unwrap_or(end));
            prop_assert_eq!(core.seek(node, offset, Seek::Data).ok(), next(true));
            prop_assert_eq!(core.seek(node, offset, Seek::Hole).ok(), hole);
        }
    }

    #[test]
    fn a_listing_in_any_portions_shows_every_name_once(
        names in prop::collection::btree_set("[a-zA-Z0-9_-]{1,20}", 0..60),
        portion in 1usize..10,
    ) {
        let runtime = runtime();
        let mut builder = MemoryTreeBuilder::new();
        for name in &names {
            builder.symlink(name, b"x").unwrap();
        }
        let core = core_over(builder.build(), MemoryContent::cached(vec![]), CoreOptions::default(), &runtime);
        let mut seen = BTreeMap::new();
        let mut cookie = 0;
        loop {
            let mut left = portion;
            core.read_dir(NodeId::ROOT, None, cookie, &mut |listed| {
                if left == 0 {
                    return ControlFlow::Break(());
                }
                left -= 1;
                cookie = listed.cookie;
                *seen.entry(String::from_utf8(listed.name.to_vec()).unwrap()).or_insert(0) += 1;
                ControlFlow::Continue(())
            }).unwrap();
            if left > 0 {
                break;
            }
        }
        prop_assert!(seen.values().all(|count| *count == 1));
        let mut expected = names;
        expected.extend([".".to_owned(), "..".to_owned()]);
        prop_assert!(seen.into_keys().eq(expected));
    }
}

#[test]
fn a_reader_from_front_to_back_is_fetched_ahead_of() {
    let runtime = runtime();
    let (tree, bytes) = one_file(64 * GROUP);
    let content = MemoryContent::missing(vec![bytes]);
    let core = core_over(tree, content.clone(), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    let mut buf = vec![0; 2 * GROUP];
    for at in 0..4 {
        let offset = at * 2 * GROUP_BYTES;
        if matches!(core.read_now(node, offset, &mut buf).unwrap(), Read::Missing(_)) {
            runtime.block_on(core.read(node, offset, buf.len())).unwrap();
        }
    }
    core.tracker.close();
    runtime.block_on(core.tracker.wait());
    let ahead = content.fetches().into_iter().filter(|fetch| fetch.2 == Priority::ReadAhead);
    assert!(ahead.map(|(_, range, _)| range.end).max() > Some(8 * GROUP_BYTES));
}

#[test]
fn who_reads_on_and_on_says_where_it_is_and_waits_for_turns() {
    let runtime = runtime();
    let (tree, bytes) = one_file(256 * GROUP);
    let content = MemoryContent::missing(vec![bytes]);
    let core = core_over(tree, content.clone(), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    for at in 0..64 {
        core.read_now(node, at * 2 * GROUP_BYTES, &mut vec![0; 2 * GROUP]).unwrap();
    }
    core.tracker.close();
    runtime.block_on(core.tracker.wait());
    let streams = content.streams();
    assert!(streams.iter().all(|(space, range)| *space == 0 && range.end <= 256 * GROUP_BYTES));
    assert!(streams.is_sorted_by_key(|(_, range)| range.start) && streams.len() > 2, "{streams:?}");
    let fetches = content.fetches();
    let by_turns = fetches.iter().filter(|(.., priority)| *priority == Priority::Bulk);
    let by_turns: u64 = by_turns.map(|(_, range, _)| range.len()).sum();
    assert!(by_turns > 128 * GROUP_BYTES, "{fetches:?}");
}

#[test]
fn a_reader_here_and_there_fetches_its_own_groups_only() {
    let runtime = runtime();
    let (tree, bytes) = one_file(256 * GROUP);
    let content = MemoryContent::missing(vec![bytes]);
    let core = core_over(tree, content.clone(), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    let groups = [200, 7, 130, 60, 251, 33];
    for group in groups {
        let offset = group * GROUP_BYTES + 1000;
        let now = core.read_now(node, offset, &mut [0; 4096]).unwrap();
        assert_eq!(now, Read::Missing(Pattern::Random));
        runtime.block_on(core.read(node, offset, 4096)).unwrap();
    }
    core.tracker.close();
    runtime.block_on(core.tracker.wait());
    let expected =
        groups.map(|group| (0, ByteRange::at(group * GROUP_BYTES, GROUP_BYTES), Priority::Demand));
    assert_eq!(content.fetches(), expected);
}

#[test]
fn read_ahead_stays_within_its_budget() {
    let runtime = runtime();
    let (tree, bytes) = one_file(256 * GROUP);
    let content = SlowContent::new(MemoryContent::missing(vec![bytes]));
    let options = CoreOptions { read_ahead_bytes: 16 * GROUP_BYTES, ..CoreOptions::default() };
    let core = core_over(tree, content.clone(), options, &runtime);
    let node = find(&core, "f");
    for at in 0..100 {
        core.read_now(node, at * 2 * GROUP_BYTES, &mut vec![0; 2 * GROUP]).unwrap();
    }
    assert!(content.asked() > 0 && content.asked() <= 16, "{}", content.asked());
    core.stop();
    runtime.block_on(core.tracker.wait());
    assert_eq!(core.ahead.available_permits(), 16);
}

#[test]
fn what_is_fetched_ahead_is_given_up_once_its_reader_is_gone_and_not_before() {
    let runtime = runtime();
    let (tree, bytes) = one_file(256 * GROUP);
    let content = SlowContent::new(MemoryContent::missing(vec![bytes]));
    let options = CoreOptions {
        reader_gone: Duration::from_millis(50),
        deadline: Duration::from_secs(1),
        ..CoreOptions::default()
    };
    let core = Arc::new(core_over(tree, content.clone(), options, &runtime));
    let node = find(&core, "f");
    let all = core.ahead.available_permits();
    for at in 0..40 {
        core.read_now(node, at * 2 * GROUP_BYTES, &mut vec![0; 2 * GROUP]).unwrap();
    }
    // Somebody waits for what is next: it is there.
    let waiting = Arc::clone(&core);
    let read = runtime.spawn(async move { waiting.read(node, 80 * GROUP_BYTES, GROUP).await });
    let streams: u64 = content.asked();
    runtime.block_on(async {
        let wait = tokio::time::timeout(Duration::from_millis(500), core.tracker.wait());
        core.tracker.close();
        assert!(wait.await.is_err(), "{streams} are under way");
    });
    read.abort();
    runtime.block_on(core.tracker.wait());
    assert_eq!(core.ahead.available_permits(), all);
}

#[test]
fn a_read_that_gets_no_answer_ends_at_its_deadline_and_says_why() {
    let runtime = runtime();
    let (tree, bytes) = one_file(GROUP);
    let content = SlowContent::new(MemoryContent::missing(vec![bytes.clone()]));
    let options = CoreOptions { deadline: Duration::from_millis(20), ..CoreOptions::default() };
    let core = core_over(tree, content.clone(), options, &runtime);
    let node = find(&core, "f");
    let error = runtime.block_on(core.read(node, 0, 100)).unwrap_err();
    assert_eq!(crate::errno::errno(&error), libc::EIO);
    assert_eq!(content.asked(), 1);
    let reason = String::from_utf8(core.get_xattr(node, b"user.dfs.error").unwrap()).unwrap();
    assert!(reason.contains("timed out") && reason.contains("0.02 s"), "{reason}");
    // The kernel asks once more for the page a reader waits for: it hears the same at once.
    assert_eq!(runtime.block_on(core.read(node, 0, 100)), Err(error));
    assert_eq!(content.asked(), 1);
    // Other bytes are another question; asked when the gate is open, they come.
    content.open();
    assert_eq!(runtime.block_on(core.read(node, 200, 100)).unwrap(), bytes[200..300]);
}

#[test]
fn a_failure_is_told_until_the_bytes_are_read() {
    let runtime = runtime();
    let (tree, bytes) = one_file(GROUP);
    let error = ContentError::new(ContentErrorClass::OriginChanged, "the ETag is now \"b\"");
    let content = FailingContent::new(MemoryContent::missing(vec![bytes]), error.clone());
    let core = core_over(tree, content.clone(), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    assert_eq!(core.get_xattr(node, b"user.dfs.error"), Err(FsError::NoAttribute));
    assert_eq!(runtime.block_on(core.read(node, 0, 10)), Err(FsError::Content(error)));
    assert_eq!(content.failed(), 1);
    let told = core.get_xattr(node, b"user.dfs.error").unwrap();
    assert_eq!(told, b"origin changed: the ETag is now \"b\"");
    assert_eq!(core.list_xattr(node).unwrap(), Vec::<Vec<u8>>::new());
    content.heal();
    core.failures.record(
        node.raw(),
        ByteRange::new(0, 10),
        &ContentError::new(ContentErrorClass::Io, "long ago"),
        std::time::Instant::now() - failures::ECHO,
    );
    runtime.block_on(core.read(node, 0, 10)).unwrap();
    assert_eq!(core.get_xattr(node, b"user.dfs.error"), Err(FsError::NoAttribute));
}

#[test]
fn taking_the_mount_down_ends_waiting_reads() {
    let runtime = runtime();
    let (tree, bytes) = one_file(GROUP);
    let content = SlowContent::new(MemoryContent::missing(vec![bytes]));
    let core = core_over(tree, content.clone(), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    let ended = runtime.block_on(async {
        tokio::join!(core.read(node, 0, 10), async {
            while content.asked() == 0 {
                tokio::task::yield_now().await;
            }
            core.stop();
        })
    });
    assert_eq!(ended.0, Err(FsError::Stopping));
}

#[test]
fn own_attributes_answer_but_are_not_listed() {
    let runtime = runtime();
    let mut builder = MemoryTreeBuilder::new();
    let groups = 4 * GROUP_BYTES;
    let extents = vec![
        Extent::Data { space: 1, offset: 10, length: groups },
        Extent::Zero { length: 5 },
        Extent::Data { space: 1, offset: 0, length: 10 },
    ];
    let nid = builder.file("f", 0o644, extents).unwrap();
    builder.xattr(nid, "user.mine", b"1");
    let content = MemoryContent::cached(vec![vec![], space(1, 5 * GROUP)]);
    let core = core_over(builder.build(), content.clone(), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    let said = |name: &str| String::from_utf8(core.get_xattr(node, name.as_bytes()).unwrap());
    let all = groups + 15;
    assert_eq!(said("user.dfs.cached_bytes").unwrap(), all.to_string());
    assert_eq!(said("user.dfs.cached").unwrap(), format!("0..{all}"));
    assert_eq!(said("user.dfs.state").unwrap(), "complete");
    content.evict(1, ByteRange::at(GROUP_BYTES, GROUP_BYTES));
    let (hole, on) = (GROUP_BYTES - 10, 2 * GROUP_BYTES - 10);
    assert_eq!(said("user.dfs.cached").unwrap(), format!("0..{hole},{on}..{all}"));
    assert_eq!(said("user.dfs.state").unwrap(), "partial");
    assert!(core.get_xattr(node, b"user.dfs.task").unwrap().starts_with(b"0001"));
    assert_eq!(core.get_xattr(node, b"user.mine").unwrap(), b"1");
    assert_eq!(core.list_xattr(node).unwrap(), [b"user.mine".to_vec()]);
    let none = core.get_xattr(NodeId::ROOT, b"user.dfs.cached_bytes");
    assert_eq!(none, Err(FsError::NoAttribute));
}

#[test]
fn nothing_is_opened_for_writing() {
    let runtime = runtime();
    let (tree, bytes) = one_file(10);
    let core =
        core_over(tree, MemoryContent::cached(vec![bytes]), CoreOptions::default(), &runtime);
    let node = find(&core, "f");
    assert_eq!(core.open(node, Access::Read), Ok(()));
    assert_eq!(core.open(node, Access::Write), Err(FsError::ReadOnly));
    assert_eq!(core.open(NodeId::ROOT, Access::Read), Err(FsError::IsADirectory));
    assert_eq!(core.access(node, Access::Write), Err(FsError::ReadOnly));
    assert!(matches!(core.open_dir(node), Err(FsError::Tree(TreeError::NotADirectory(_)))));
}

#[test]
fn an_index_that_points_beyond_a_space_is_an_error() {
    let runtime = runtime();
    let mut builder = MemoryTreeBuilder::new();
    let beyond = Extent::Data { space: 0, offset: 5, length: 100 };
    let nowhere = Extent::Data { space: 9, offset: 0, length: 1 };
    builder.file("beyond", 0o644, vec![beyond]).unwrap();
    builder.file("nowhere", 0o644, vec![nowhere]).unwrap();
    let content = MemoryContent::cached(vec![vec![1; 10]]);
    let core = core_over(builder.build(), content, CoreOptions::default(), &runtime);
    for name in ["beyond", "nowhere"] {
        let answer = runtime.block_on(core.read(find(&core, name), 0, 100));
        assert!(matches!(answer, Err(FsError::Content(_))), "{name}: {answer:?}");
    }
}
