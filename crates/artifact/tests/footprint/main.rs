//! What it takes in memory to make an index of very many objects, and to have it: counted, not measured, by an
//! allocator that counts what it hands out.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod counting;

use std::sync::Arc;

use async_trait::async_trait;
use dfs_artifact::{Index, ResolveOptions, View, resolve};
use dfs_model::{ByteRange, Validator};
use dfs_source::{
    Action, Attempt, ByteStream, Entry, EntryKind, Source, SourceError, Sources, Stat, StatKind,
    Target,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

/// Of a million objects an eighth: what grows by doubling is then as full as it is of a million.
const OBJECTS: u64 = 125_000;

/// Made up on the way, so that what is counted is ours.
struct Shelf;

#[async_trait]
impl Source for Shelf {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        Ok(Stat {
            length: None,
            validator: Validator::default(),
            content_type: None,
            ranges: true,
            kind: StatKind::Directory,
            url: target.url.clone(),
            unpinned: false,
            modified: None,
            max_age: None,
        })
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        _: &Validator,
    ) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &target.url);
        Err(SourceError::NotFound { attempt })
    }

    fn list(&self, _: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        let object = |number: u64| {
            let path = format!("d{:04}/o{number:07}", number / 1000);
            let mut entry = Entry::new(path.into_bytes(), EntryKind::File).unwrap();
            let length = Some(100 + number % 900);
            let etag = Some(format!("\"{:032x}\"", u128::from(number)));
            entry.length = length;
            entry.validator = Some(Validator { etag, length, ..Validator::default() });
            Ok(entry)
        };
        stream::iter((0..OBJECTS).map(object)).boxed()
    }
}

#[tokio::test]
async fn an_index_of_many_objects_takes_little_memory() {
    let sources = Sources::builder().with("mem", Arc::new(Shelf)).build().unwrap();
    let target = Target::parse("mem://host/top/").unwrap();
    let options = ResolveOptions::default();
    let each = |bytes: usize| bytes as u64 / OBJECTS;
    let before = counting::start();
    let artifact = resolve(&sources, &target, View::Tree, &options).await.unwrap();
    let peak = each(counting::peak() - before);
    assert!(peak <= 450, "{peak} bytes at once for each object");
    let bytes = artifact.index.unwrap().bytes;
    drop(artifact.tasks);
    let (kept, index) = (each(counting::now() - before), each(bytes.len()));
    assert!(kept <= index + 8, "{kept} bytes kept of {index} for each object");
    let before = counting::start();
    let index = Index::open(bytes).unwrap();
    let opened = each(counting::peak() - before);
    assert!(opened <= 8, "{opened} bytes beside the index for each object");
    assert_eq!(index.facts().files, OBJECTS);
}
