//! From URL to artifact and back to bytes, against an origin in memory whose every answer is scripted.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_artifact::erofs::Kind;
use dfs_artifact::origin::Part;
use dfs_artifact::{
    Artifact, Index, Origin, OriginRecipe, Recipe, ResolveError, ResolveOptions, View, open_origin,
    resolve,
};
use dfs_model::{ByteRange, TaskKind};
use dfs_source::{Credentials, SourceError, Sources, Target};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use memory::Memory;

fn sources(memory: &Arc<Memory>) -> Sources {
    let memory: Arc<Memory> = Arc::clone(memory);
    Sources::builder().with("mem", memory).build().unwrap()
}

async fn resolved(memory: &Arc<Memory>, url: &str, view: View) -> Result<Artifact, ResolveError> {
    resolved_as(memory, url, view, &ResolveOptions::default()).await
}

async fn resolved_as(
    memory: &Arc<Memory>,
    url: &str,
    view: View,
    options: &ResolveOptions,
) -> Result<Artifact, ResolveError> {
    let target = Target::parse(url).unwrap();
    // Boxed, so that it must be fit for a task of its own.
    resolve(&sources(memory), &target, view, options).boxed().await
}

fn open(memory: &Arc<Memory>, recipe: &Recipe) -> Arc<dyn Origin> {
    open_origin(recipe, &sources(memory), Credentials::None).unwrap()
}

async fn bytes(origin: &dyn Origin, range: Option<ByteRange>) -> Result<Vec<u8>, SourceError> {
    let stream = origin.read(range).await?;
    let parts: Vec<_> = stream.try_collect().await?;
    Ok(parts.concat())
}

/// Every file of an artifact, its bytes read back through the origins of its spaces.
async fn files(memory: &Arc<Memory>, artifact: &Artifact) -> BTreeMap<String, Vec<u8>> {
    let index = artifact.index.as_ref().unwrap();
    let index = Index::parse(index.bytes.to_vec()).unwrap();
    assert_eq!(index.spaces(), artifact.tasks);
    let mut files = BTreeMap::new();
    for visit in index.image().walk() {
        let visit = visit.unwrap();
        if visit.kind != Kind::File {
            continue;
        }
        let (mut content, mut at) = (Vec::new(), 0);
        while let Some(extent) = index.image().extent(visit.nid, at).unwrap() {
            let recipe = &index.spaces()[usize::from(extent.space.unwrap())];
            let range = ByteRange::at(extent.offset, extent.length);
            content.extend(bytes(&*open(memory, recipe), Some(range)).await.unwrap());
            at += extent.length;
        }
        files.insert(String::from_utf8(visit.path).unwrap(), content);
    }
    files
}

fn some_files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for number in 0..50usize {
        files.insert(format!("d/{}/small-{number}", number % 3), vec![number as u8; number * 300]);
    }
    files.insert("large-1".into(), vec![1; (1 << 20) + 5]);
    files.insert("large-2".into(), vec![2; (3 << 20) + 1]);
    files.insert("own".into(), vec![3; (8 << 20) + 7]);
    files.insert("empty".into(), Vec::new());
    files
}

#[tokio::test]
async fn a_listing_becomes_a_tree_whose_bytes_come_back() {
    let expected = some_files();
    let memory = Memory::with(&expected);
    let artifact = resolved(&memory, "mem://h/top/", View::Auto).await.unwrap();
    assert_eq!(artifact.view, View::Tree);
    assert_eq!(files(&memory, &artifact).await, expected);
    let again = resolved(&memory, "mem://h/top/", View::Auto).await.unwrap();
    assert_eq!(artifact.index.unwrap().bytes, again.index.unwrap().bytes);
}

#[tokio::test]
async fn a_large_member_is_the_same_task_as_its_own_url() {
    let memory = Memory::with(&some_files());
    let tree = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    let file = resolved(&memory, "mem://h/top/own", View::File).await.unwrap();
    assert!(file.index.is_none());
    assert!(tree.tasks.iter().any(|task| task.key.id() == file.tasks[0].key.id()));
}

#[tokio::test]
async fn members_are_asked_for_what_the_listing_does_not_tell() {
    let expected = some_files();
    let memory = Memory::with(&expected);
    memory.list_without_lengths();
    let artifact = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    assert_eq!(memory.stats(), 1 + expected.len() as u64);
    assert_eq!(files(&memory, &artifact).await, expected);
}

#[tokio::test]
async fn an_origin_that_answers_fast_is_asked_more_at_a_time_up_to_a_bound() {
    let many = (0..400).map(|number| (format!("d/{number}"), vec![1; 10])).collect();
    let memory = Memory::with(&many);
    memory.list_without_lengths();
    let all = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    assert_eq!((memory.stats(), memory.most_stats_at_once()), (401, 48));
    let fewer = ResolveOptions { stats_at_once: 2..=2, ..ResolveOptions::default() };
    let memory = Memory::with(&many);
    memory.list_without_lengths();
    let slowly = resolved_as(&memory, "mem://h/top/", View::Tree, &fewer).await.unwrap();
    assert_eq!(memory.most_stats_at_once(), 2);
    assert_eq!(
        all.index.unwrap().bytes,
        slowly.index.unwrap().bytes,
        "who answers first is no matter"
    );
}

#[tokio::test]
async fn a_member_that_is_gone_is_skipped_and_named() {
    let mut expected = some_files();
    let memory = Memory::with(&expected);
    memory.list_without_lengths();
    memory.hide("large-1");
    expected.remove("large-1");
    let artifact = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    assert_eq!(artifact.left_out.count, 1);
    assert_eq!(artifact.left_out.named[0].path, b"large-1");
    assert_eq!(files(&memory, &artifact).await, expected);
}

#[tokio::test]
async fn a_changed_member_fails_only_the_reads_that_touch_it() {
    let memory = Memory::with(&some_files());
    let artifact = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    let pack = artifact.tasks.iter().find_map(|task| match &task.origin {
        OriginRecipe::Members { table, .. } if table.count() > 5 => Some((task, table)),
        _ => None,
    });
    let (task, table) = pack.unwrap();
    let victim = &table.member(2).unwrap();
    memory.change(std::str::from_utf8(&victim.path).unwrap());
    let origin = open(&memory, task);
    let touching = bytes(&*origin, Some(ByteRange::at(victim.offset, 1))).await;
    assert!(matches!(touching, Err(SourceError::Changed { .. })), "{touching:?}");
    assert!(bytes(&*origin, None).await.is_err());
    let before = ByteRange::new(0, victim.offset);
    assert_eq!(bytes(&*origin, Some(before)).await.unwrap().len() as u64, victim.offset);
    let after = ByteRange::new(victim.range().end, task.length.unwrap());
    assert_eq!(bytes(&*origin, Some(after)).await.unwrap().len() as u64, after.len());
}

#[tokio::test]
async fn a_run_goes_on_behind_members_that_are_gone() {
    let memory = Memory::with(&some_files());
    let artifact = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    let pack = artifact.tasks.iter().find_map(|task| match &task.origin {
        OriginRecipe::Members { table, .. } if table.count() > 5 => Some((task, table)),
        _ => None,
    });
    let (task, table) = pack.unwrap();
    let whole = bytes(&*open(&memory, task), None).await.unwrap();
    let victims = [&table.member(1).unwrap(), &table.member(4).unwrap()];
    let names = victims.map(|victim| std::str::from_utf8(&victim.path).unwrap());
    memory.change(names[0]);
    memory.hide(names[1]);
    let origin = open(&memory, task);
    let mut parts = origin.read_parts(ByteRange::new(0, table.length())).await.unwrap();
    let (mut at, mut holes) = (0, Vec::new());
    while let Some(part) = parts.next().await {
        match part.unwrap() {
            Part::Bytes(bytes) => {
                assert_eq!(bytes, whole[at..at + bytes.len()]);
                at += bytes.len();
            }
            Part::Void { length, error } => {
                holes.push((ByteRange::at(at as u64, length), error.to_string()));
                at += length as usize;
            }
        }
    }
    assert_eq!(at, whole.len());
    assert_eq!(holes.len(), 2);
    for ((range, error), victim) in holes.iter().zip(victims) {
        assert_eq!(*range, victim.range());
        let name = std::str::from_utf8(&victim.path).unwrap();
        assert!(error.contains("origin changed") && error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn any_range_of_a_space_is_members_and_zeros() {
    let memory = Memory::with(&some_files());
    let artifact = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    for ranges in [true, false] {
        memory.honour_ranges(ranges);
        for task in &artifact.tasks {
            let OriginRecipe::Members { table, .. } = &task.origin else { continue };
            let origin = open(&memory, task);
            let whole = bytes(&*origin, None).await.unwrap();
            assert_eq!(whole.len() as u64, table.length());
            for start in [0, 1, 299, 4095, 4096, 5000, 70_000] {
                let start = start.min(whole.len());
                let end = (start + 9000).min(whole.len());
                let range = ByteRange::new(start as u64, end as u64);
                assert_eq!(bytes(&*origin, Some(range)).await.unwrap(), whole[start..end]);
            }
            let beyond = ByteRange::new(u64::MAX - 5, u64::MAX);
            assert_eq!(bytes(&*origin, Some(beyond)).await.unwrap(), b"");
        }
    }
}

#[tokio::test]
async fn a_read_asks_each_touched_member_once() {
    let memory = Memory::with(&some_files());
    let artifact = resolved(&memory, "mem://h/top/", View::Tree).await.unwrap();
    for task in &artifact.tasks {
        let OriginRecipe::Members { table, .. } = &task.origin else { continue };
        let before = memory.reads();
        bytes(&*open(&memory, task), None).await.unwrap();
        assert_eq!(memory.reads() - before, table.count() as u64);
    }
}

#[tokio::test]
async fn a_single_file_is_a_directory_with_that_file() {
    let memory = Memory::with(&some_files());
    let artifact = resolved(&memory, "mem://h/top/large-1", View::Auto).await.unwrap();
    assert_eq!(artifact.tasks[0].key.kind, TaskKind::Blob);
    let expected = BTreeMap::from([("large-1".to_owned(), vec![1; (1 << 20) + 5])]);
    assert_eq!(files(&memory, &artifact).await, expected);
    let tree = resolved(&memory, "mem://h/top/large-1", View::Tree).await;
    assert!(matches!(tree, Err(ResolveError::NoTree(_))));
    let file = resolved(&memory, "mem://h/top/", View::File).await;
    assert!(matches!(file, Err(ResolveError::IsDirectory(_))));
    let empty = resolved(&memory, "mem://h/top/empty", View::Auto).await.unwrap();
    assert_eq!(files(&memory, &empty).await, BTreeMap::from([("empty".into(), Vec::new())]));
}

#[tokio::test]
async fn recipes_and_keys_survive_serialisation_without_secrets() {
    let memory = Memory::with(&some_files());
    let target = Target::parse("mem://user:hunter2@h/top/").unwrap();
    let options = ResolveOptions { domain: "tenant".into(), ..ResolveOptions::default() };
    let artifact = resolve(&sources(&memory), &target, View::Tree, &options).await.unwrap();
    let index = artifact.index.unwrap();
    assert_eq!((index.key.kind, index.key.domain.as_str()), (TaskKind::Index, "tenant"));
    assert_eq!(index.key.validator.length, Some(index.bytes.len() as u64));
    assert!(!index.bytes.windows(7).any(|window| window == b"hunter2"));
    let text = serde_json::to_string(&artifact.tasks).unwrap();
    assert!(!text.contains("hunter2"));
    assert_eq!(serde_json::from_str::<Vec<Recipe>>(&text).unwrap(), artifact.tasks);
}

/// A tar with a header in front of each body and nothing else of interest.
fn tar(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, body) in files {
        let mut record = [0u8; 512];
        record[..name.len()].copy_from_slice(name.as_bytes());
        record[100..108].copy_from_slice(b"0000644\0");
        record[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        record[156] = b'0';
        record[257..265].copy_from_slice(b"ustar\x0000");
        record[148..156].copy_from_slice(b"        ");
        let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
        record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(record);
        tar.extend(body);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[tokio::test]
async fn a_tar_becomes_the_tree_inside_and_its_large_bodies_are_not_read() {
    let expected = some_files();
    let tar = tar(&expected);
    let memory = Memory::with(&BTreeMap::from([("any-name.bin".to_owned(), tar.clone())]));
    for ranges in [true, false] {
        memory.honour_ranges(ranges);
        let before = memory.bytes();
        let artifact = resolved(&memory, "mem://h/top/any-name.bin", View::Auto).await.unwrap();
        let read = memory.bytes() - before;
        if ranges {
            assert!(read < tar.len() as u64 / 2, "{read} of {}", tar.len());
            assert_eq!(files(&memory, &artifact).await, expected);
        }
        assert_eq!(artifact.tasks.len(), 1);
    }
    let file = resolved(&memory, "mem://h/top/any-name.bin", View::File).await.unwrap();
    assert!(file.index.is_none());
}
