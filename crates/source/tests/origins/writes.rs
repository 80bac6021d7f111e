//! What is written is there whole or not at all, in buckets and directories.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs_model::CanonicalUrl;
use dfs_source::{
    Action, Attempt, ByteStream, Content, Existing, S3Options, SourceError, Target, Timestamp,
    WriteOptions,
};
use futures::{StreamExt as _, stream};

use crate::moto::{client, stranger};
use crate::scripted::{Server, file, status};
use crate::store::{Store, with_each_store};
use crate::{Client, content, failure, options, target};

const MIB: usize = 1 << 20;

fn bytes(all: &[u8]) -> ByteStream {
    let chunks: Vec<_> = all.chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(chunks).boxed()
}

fn whole(all: &[u8]) -> Content {
    Content { bytes: bytes(all), length: Some(all.len() as u64) }
}

/// Bytes that break off.
fn broken(all: &[u8]) -> Content {
    let url = CanonicalUrl::parse("http://h/x").unwrap();
    let error = SourceError::NotFound { attempt: Attempt::new(Action::Stat, &url) };
    Content { bytes: bytes(all).chain(stream::iter([Err(error)])).boxed(), length: None }
}

with_each_store!(
    a_small_object_is_one_request_and_a_large_one_is_sent_in_parts,
    a_bucket_keeps_the_time_it_is_told_and_lists_every_key_in_order,
    an_upload_that_fails_or_is_left_is_taken_back,
    a_copy_is_of_the_pinned_version_and_its_bytes_do_not_pass_here,
);

async fn write(
    client: &Client,
    to: &Target,
    content: Content,
) -> Result<dfs_model::Validator, SourceError> {
    client.source(to).write(to, content, &WriteOptions::default()).await
}

async fn read(client: &Client, from: &Target) -> Vec<u8> {
    let source = client.source(from);
    let stat = source.stat(from).await.unwrap();
    crate::collect(source.read(from, None, &stat.validator).await.unwrap()).await.unwrap()
}

/// What was asked, without the names of uploads.
fn shown(store: &Store, count: usize) -> Vec<String> {
    let short = |request: String| match request.split_once("uploadId=") {
        Some((before, _)) => format!("{before}uploadId"),
        None => request,
    };
    store.asked(count).into_iter().map(short).collect()
}

async fn a_small_object_is_one_request_and_a_large_one_is_sent_in_parts(mut store: Store) {
    store.lock();
    let (client, base) = (store.client(), store.target(""));
    let (small, large) = (base.join(b"small").unwrap(), base.join(b"large").unwrap());
    store.forget();
    let told = write(&client, &small, whole(&content(5))).await.unwrap();
    let seen = client.source(&small).stat(&small).await.unwrap().validator;
    assert_eq!((told.etag, told.length), (seen.etag, Some(5)));
    assert_eq!(shown(&store, 2), ["PUT /lab/small", "HEAD /lab/small"]);
    assert_eq!(read(&client, &small).await, content(5));
    store.asked(2);

    let all = content(17 * MIB);
    let told = write(&client, &large, whole(&all)).await.unwrap();
    let mut asked = shown(&store, 5);
    asked[1..4].sort();
    let part = |n| format!("PUT /lab/large?partNumber={n}&uploadId");
    let expected = [
        "POST /lab/large?uploads=".to_owned(),
        part(1),
        part(2),
        part(3),
        "POST /lab/large?uploadId".to_owned(),
    ];
    assert_eq!(asked, expected);
    assert!(read(&client, &large).await == all);
    let seen = client.source(&large).stat(&large).await.unwrap().validator;
    assert_eq!((told.etag, told.length), (seen.etag, Some(17 << 20)));
}

async fn a_bucket_keeps_the_time_it_is_told_and_lists_every_key_in_order(mut store: Store) {
    store.lock();
    let (client, base) = (store.client(), store.target(""));
    let time = Timestamp { seconds: 1_234_567_890, nanos: 120_000_000 };
    let options = WriteOptions { modified: Some(time), ..WriteOptions::default() };
    let source = client.source(&base);
    let large = content(9 * MIB);
    for (name, bytes) in [("a", &b"1"[..]), ("a-b", b"2"), ("a/c", b"3"), ("large", &large)] {
        let to = base.join(name.as_bytes()).unwrap();
        source.write(&to, whole(bytes), &options).await.unwrap();
        assert_eq!(source.stat(&to).await.unwrap().modified, Some(time), "{name}");
    }
    let untold = base.join(b"z").unwrap();
    write(&client, &untold, whole(b"4")).await.unwrap();
    assert_eq!(source.stat(&untold).await.unwrap().modified, None);
    let listed: Vec<_> = source.list_in_order(&base).collect().await;
    let listed: Vec<_> = listed.into_iter().map(Result::unwrap).collect();
    let names: Vec<_> = listed.iter().map(|entry| &entry.path[..]).collect();
    assert_eq!(names, [&b"a"[..], b"a-b", b"a/c", b"large", b"z"]);
    assert!(listed.iter().all(|entry| entry.validator.as_ref().is_some_and(|v| v.etag.is_some())));
}

/// Not in garage, which passes over `If-None-Match` where an object is written, and replaces it.
#[tokio::test]
async fn what_is_there_stays_where_that_was_asked_for() {
    let mut store = Store::moto();
    store.lock();
    let (client, base) = (store.client(), store.target(""));
    let to = base.join(b"a").unwrap();
    let keep = WriteOptions { existing: Existing::Keep, ..WriteOptions::default() };
    let source = client.source(&to);
    source.write(&to, whole(b"first"), &keep).await.unwrap();
    let error = failure(source.write(&to, whole(b"second"), &keep).await);
    assert!(matches!(error, SourceError::Exists { .. }), "{error:?}");
    assert_eq!(read(&client, &to).await, b"first");
    source.write(&to, whole(b"third"), &WriteOptions::default()).await.unwrap();
    assert_eq!(read(&client, &to).await, b"third");
}

async fn an_upload_that_fails_or_is_left_is_taken_back(mut store: Store) {
    store.lock();
    let (client, base) = (store.client(), store.target(""));
    let to = base.join(b"a").unwrap();
    store.forget();
    let error = failure(write(&client, &to, broken(&content(20 * MIB))).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
    let short = Content { length: Some(21 << 20), ..whole(&content(20 * MIB)) };
    let error = failure(write(&client, &to, short).await);
    assert!(error.to_string().contains("bytes came where"), "{error}");

    // Left: the bytes never end, and nobody waits any more.
    let endless =
        Content { bytes: bytes(&content(20 * MIB)).chain(stream::pending()).boxed(), length: None };
    let source = client.source(&to);
    let options = WriteOptions::default();
    let mut writing = source.write(&to, endless, &options);
    let deadline = Instant::now() + Duration::from_secs(60);
    let sent = store.peek("PUT /lab/a?partNumber=1");
    while store.peek("PUT /lab/a?partNumber=1") == sent {
        assert!(Instant::now() < deadline, "a part is sent");
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut writing).await.is_err());
    }
    drop(writing);
    client.sources.settle().await;
    while store.peek("DELETE /lab/a?uploadId=") < 3 {
        assert!(Instant::now() < deadline, "each upload is taken back");
        tokio::task::yield_now().await;
    }
    assert_eq!(store.peek("POST /lab/a?uploads="), 3);
    let error = failure(client.source(&to).stat(&to).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
}

async fn a_copy_is_of_the_pinned_version_and_its_bytes_do_not_pass_here(mut store: Store) {
    store.lock();
    let (client, base) = (store.client(), store.target(""));
    let (from, to) = (base.join(b"from here").unwrap(), base.join(b"to").unwrap());
    let pin = write(&client, &from, whole(&content(1000))).await.unwrap();
    store.forget();
    let source = client.source(&to);
    let options = WriteOptions::default();
    let received = client.counted().bytes;
    let copied = source.copy(&from, &pin, &to, &options).await.unwrap().unwrap();
    assert_eq!((copied.length, client.counted().bytes), (Some(1000), received));
    assert_eq!(shown(&store, 1), ["PUT /lab/to"]);
    assert_eq!(read(&client, &to).await, content(1000));

    let elsewhere = crate::target("s3://lab/x").with_credentials(from.credentials.clone());
    assert_eq!(source.copy(&from, &pin, &elsewhere, &options).await.unwrap(), None);

    for _ in 0..2 {
        source.delete(&to, &options).await.unwrap();
    }
    let error = failure(source.stat(&to).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_copy_of_what_has_changed_is_refused_by_its_tag() {
    let server = Server::start(|_, request| {
        assert_eq!(request.header("x-amz-copy-source"), Some("/lab/from%2Bhere"));
        assert_eq!(request.header("x-amz-copy-source-if-match"), Some("\"v1\""));
        crate::scripted::status(412)
    });
    let at = |key: &str| target(&format!("s3://lab/{key}?endpoint=http://{}", server.address));
    let (from, to) = (at("from+here"), at("to"));
    let (client, pin) = (stranger(), crate::tagged("\"v1\"", 10));
    let copy = client.source(&to);
    let error = failure(copy.copy(&from, &pin, &to, &WriteOptions::default()).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_web_origin_is_only_read() {
    let server = Server::start(|_, request| file(&content(10), "\"e\"", request));
    let to = target(&server.url("/x"));
    let client = Client::new();
    let error = failure(write(&client, &to, whole(b"x")).await);
    assert_eq!(error.to_string(), format!("cannot write {to}: http:// origins are read-only here"));
    let error = failure(client.source(&to).delete(&to, &WriteOptions::default()).await);
    assert!(matches!(error, SourceError::ReadOnly { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 0);
}

fn in_directory(root: &std::path::Path, name: &str) -> Target {
    target(&format!("{}/{name}", root.display()))
}

fn rooted(root: &std::path::Path) -> WriteOptions {
    let url = target(&format!("{}/", root.display())).url;
    WriteOptions { root: Some(url), ..WriteOptions::default() }
}

#[tokio::test]
async fn a_file_is_replaced_whole_and_keeps_the_time_it_is_told() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("out");
    let client = Client::new();
    let to = in_directory(&root, "sub/dir/a");
    let time = Timestamp { seconds: 784_111_777, nanos: 5 };
    let options = WriteOptions { modified: Some(time), ..rooted(&root) };
    let source = client.source(&to);
    let told = source.write(&to, whole(&content(5 * MIB)), &options).await.unwrap();
    let path = root.join("sub/dir/a");
    assert!(fs::read(&path).unwrap() == content(5 * MIB));
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 784_111_777);
    assert_eq!(source.stat(&to).await.unwrap().validator, told);

    let error = failure(source.write(&to, broken(b"half"), &options).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
    let short = Content { length: Some(9), ..whole(b"half") };
    failure(source.write(&to, short, &options).await);
    let keep = WriteOptions { existing: Existing::Keep, ..rooted(&root) };
    let error = failure(source.write(&to, whole(b"x"), &keep).await);
    assert!(matches!(error, SourceError::Exists { .. }), "{error:?}");
    assert!(fs::read(&path).unwrap() == content(5 * MIB));
    assert_eq!(fs::read_dir(root.join("sub/dir")).unwrap().count(), 1, "nothing is left behind");

    let copy = in_directory(&root, "copy");
    source.copy(&to, &told, &copy, &rooted(&root)).await.unwrap().unwrap();
    assert!(fs::read(root.join("copy")).unwrap() == content(5 * MIB));
    fs::write(&path, b"other").unwrap();
    let error = failure(source.copy(&to, &told, &copy, &rooted(&root)).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");
    for _ in 0..2 {
        source.delete(&to, &rooted(&root)).await.unwrap();
        source.delete(&in_directory(&root, "sub/dir/"), &rooted(&root)).await.unwrap();
    }
    assert!(!root.join("sub/dir").exists() && root.join("sub").exists());
}

#[tokio::test]
async fn a_planted_symlink_leads_nowhere() {
    let home = tempfile::tempdir().unwrap();
    let (root, victim) = (home.path().join("out"), home.path().join("victim"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&victim).unwrap();
    fs::write(victim.join("file"), b"precious").unwrap();
    symlink(&victim, root.join("d")).unwrap();
    symlink(victim.join("file"), root.join("f")).unwrap();
    let client = Client::new();
    for name in ["d/file", "d/new", "d/sub/new"] {
        let to = in_directory(&root, name);
        let error = failure(client.source(&to).write(&to, whole(b"x"), &rooted(&root)).await);
        assert!(!matches!(error, SourceError::Exists { .. }), "{name}: {error:?}");
        client.source(&to).delete(&to, &rooted(&root)).await.unwrap_err();
    }
    // The name itself is replaced, not what it points to.
    let to = in_directory(&root, "f");
    client.source(&to).write(&to, whole(b"x"), &rooted(&root)).await.unwrap();
    assert!(fs::symlink_metadata(root.join("f")).unwrap().is_file());
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);

    let outside = in_directory(home.path(), "elsewhere");
    let error = failure(client.source(&outside).write(&outside, whole(b"x"), &rooted(&root)).await);
    assert!(matches!(error, SourceError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn what_became_of_uploads_that_killed_processes_left_is_told_one_by_one() {
    let server = Server::start(|_, request| {
        let of = |id: &str| request.path.contains(&format!("uploadId={id}"));
        status(if of("there") {
            204
        } else if of("gone") {
            404
        } else {
            403
        })
    });
    let dir = tempfile::tempdir().unwrap();
    let url = format!("s3://lab/d/?endpoint=http://{}", server.address);
    let note = |id: &str| {
        let url = format!("s3://lab/d/f?endpoint=http://{}", server.address);
        let text = format!(r#"{{"url":"{url}","id":"{id}"}}"#);
        std::fs::write(dir.path().join(format!("{id}.upload")), text).unwrap();
    };
    ["there", "gone", "kept"].into_iter().for_each(note);
    let unfinished = Some(dir.path().to_owned());
    let client = client(S3Options { unfinished, ..S3Options::default() }, options());
    let target = target(&url);
    let taken = client.source(&target).take_back(&target).await;
    assert_eq!((taken.done, taken.failed), (1, 1));
    let error = taken.error.unwrap().to_string();
    assert!(error.contains("403"), "{error}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(left.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["kept.upload"]);
}
