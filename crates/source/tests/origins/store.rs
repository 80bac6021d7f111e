//! A bucket in a store, moto or garage, with the same tests for both.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_source::{AccessKeys, Target};
use dfs_tests::{Bucket, wait};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use tempfile::TempDir;

use crate::Client;
use crate::moto::{asked_by, stranger};

/// A store with the empty bucket `lab`, stopped with its test. Garage checks signatures from the start.
pub struct Store {
    bucket: Bucket,
    /// Of somebody who may do everything.
    pub keys: AccessKeys,
    /// Requests that were looked at.
    seen: AtomicUsize,
    dir: TempDir,
}

/// Runs each of these tests with each store.
macro_rules! with_each_store {
    ($($test:ident),+ $(,)?) => {
        mod in_moto {
            $(#[tokio::test] async fn $test() { super::$test(crate::store::Store::moto()).await })+
        }
        mod in_garage {
            $(#[tokio::test] async fn $test() { super::$test(crate::store::Store::garage()).await })+
        }
    };
}
pub(crate) use with_each_store;

impl Store {
    pub fn moto() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::of(Bucket::moto(dir.path()).unwrap(), dir)
    }

    pub fn garage() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Self::of(Bucket::garage(dir.path()).unwrap(), dir);
        store.lock();
        store
    }

    fn of(bucket: Bucket, dir: TempDir) -> Self {
        let keys =
            AccessKeys { id: "any".into(), secret: "any".into(), token: None, expires: None };
        let store = Self { bucket, keys, seen: AtomicUsize::new(0), dir };
        store.forget();
        store
    }

    /// From now on moto checks signatures too. It takes those of simple keys only: it puts what is signed
    /// together from what it has decoded.
    pub fn lock(&mut self) {
        let keys = self.bucket.lock().unwrap();
        (self.keys.id, self.keys.secret) = (keys.id, keys.secret.into());
    }

    /// A client that uses its keys.
    pub fn client(&self) -> Client {
        Client { keys: Some(self.keys.clone()), ..stranger() }
    }

    /// Its own address.
    pub fn endpoint(&self) -> String {
        self.bucket.endpoint()
    }

    /// The URL of something in the bucket.
    pub fn url(&self, path: &str) -> String {
        self.bucket.url(path)
    }

    /// The same, to who has its keys.
    pub fn target(&self, path: &str) -> Target {
        asked_by(&self.url(path), &self.keys)
    }

    /// Stores an object, by hands that are not ours.
    pub fn put(&self, key: &[u8], body: &[u8]) {
        const PATH: &AsciiSet =
            &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        let file = self.dir.path().join("body");
        fs::write(&file, body).unwrap();
        self.bucket.put(&percent_encode(key, PATH).to_string(), &file).unwrap();
    }

    /// Forgets what was asked so far: the mark is the last of it.
    pub fn forget(&self) {
        let mark = format!("GET /mark-{}", self.seen.load(Ordering::Relaxed));
        self.bucket.ping(mark.trim_start_matches("GET "));
        let at = wait::find("the mark is logged", wait::PATIENCE, || {
            self.bucket.asked().iter().position(|request| *request == mark)
        });
        self.seen.store(at.unwrap() + 1, Ordering::Relaxed);
    }

    /// What was asked since the last time: so many requests at least, each as `METHOD /path`, decoded.
    pub fn asked(&self, count: usize) -> Vec<String> {
        let seen = self.seen.load(Ordering::Relaxed);
        let what = format!("{count} requests are logged");
        let found = wait::find(&what, wait::PATIENCE, || {
            let asked = self.bucket.asked();
            (asked.len() >= seen + count).then(|| asked[seen..].to_vec())
        });
        let found = found.unwrap();
        self.seen.store(seen + found.len(), Ordering::Relaxed);
        let decoded = |request: &String| percent_decode_str(request).decode_utf8_lossy().into();
        found.iter().map(decoded).collect()
    }

    /// How many requests that begin like this were made so far.
    pub fn peek(&self, begin: &str) -> usize {
        self.bucket.requests(begin)
    }
}
