//! Objects of a real store: what one read costs, and that versions never meet.

use dfs_model::{ByteRange, Validator};
use dfs_source::{Credentials, S3Options, SourceError, StatKind, WriteOptions};
use reqwest::Method;

use crate::moto::{Moto, client, stranger};
use crate::store::{Store, with_each_store};
use crate::{collect, content, failure, options, target};

with_each_store!(
    an_object_costs_one_head_and_one_request_for_each_range,
    versions_never_mix_and_an_object_that_is_gone_has_changed,
    signatures_are_taken_by_a_store_that_checks_them,
    a_prefix_is_a_directory_and_what_is_not_there_is_said,
);

async fn an_object_costs_one_head_and_one_request_for_each_range(store: Store) {
    store.put(b"run 42/part+7.bin", &content(300_000));
    store.forget();

    let client = store.client();
    let url = store.url("run%2042/part+7.bin");
    let stat = client.stat(&url).await.unwrap();
    assert_eq!((stat.kind, stat.length, stat.unpinned), (StatKind::File, Some(300_000), false));
    assert!(stat.ranges && stat.validator.etag.is_some() && stat.validator.modified.is_some());
    for (start, end) in [(0, 10), (65_536, 131_072), (299_999, 300_000), (0, 300_000)] {
        let got = client.read(&url, Some((start, end)), &stat.validator).await.unwrap();
        assert!(got == content(300_000)[start as usize..end as usize], "{start}..{end}");
    }
    let key = "/lab/run 42/part+7.bin";
    let mut expected = vec![format!("HEAD {key}")];
    expected.extend(std::iter::repeat_n(format!("GET {key}"), 4));
    assert_eq!(store.asked(5), expected);
    assert_eq!(client.counted().requests, 5);
}

async fn versions_never_mix_and_an_object_that_is_gone_has_changed(store: Store) {
    store.put(b"a", &content(1000));
    let client = store.client();
    let url = store.url("a");
    let stat = client.stat(&url).await.unwrap();

    let mut other = content(1000);
    other[500] ^= 1;
    store.put(b"a", &other);
    store.forget();
    let error = failure(client.read(&url, Some((0, 10)), &stat.validator).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");
    assert_eq!(store.asked(1), ["GET /lab/a"]);
    let error = failure(client.read(&url, None, &stat.validator).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");

    let target = store.target("a");
    client.source(&target).delete(&target, &WriteOptions::default()).await.unwrap();
    let error = failure(client.read(&url, Some((0, 10)), &stat.validator).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");
    let error = failure(client.stat(&url).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_pinned_version_outlives_what_is_written_over_it() {
    let store = Moto::start();
    store.bucket("lab").await;
    let versioned = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    store.send(Method::PUT, "/lab?versioning", versioned, &[]).await;
    let first = store.put("lab", b"a", b"first").await.unwrap();
    let second = store.put("lab", b"a", b"second!").await.unwrap();
    assert_ne!(first, second);

    let client = stranger();
    for (version, body) in [(&first, &b"first"[..]), (&second, b"second!")] {
        let url = store.url(&format!("lab/a?versionId={version}"));
        let stat = client.stat(&url).await.unwrap();
        assert_eq!(stat.validator.version.as_deref(), Some(&**version));
        assert_eq!(stat.length, Some(body.len() as u64));
        assert_eq!(client.read(&url, Some((1, 3)), &stat.validator).await.unwrap(), body[1..3]);
    }
    let stat = client.stat(&store.url("lab/a")).await.unwrap();
    assert_eq!((stat.length, stat.validator.version), (Some(7), None));

    store.delete(&format!("/lab/a?versionId={first}")).await;
    let gone = store.url(&format!("lab/a?versionId={first}"));
    let error = failure(client.stat(&gone).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
    let unknown = Validator { length: Some(5), ..Validator::default() };
    let error = failure(client.read(&gone, None, &unknown).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");
}

async fn signatures_are_taken_by_a_store_that_checks_them(mut store: Store) {
    let key = "run-1/key".as_bytes();
    store.put(key, &content(5000));
    store.lock();
    let client = stranger();
    let object = store.target("").join(key).unwrap();

    let source = client.source(&object);
    let stat = source.stat(&object).await.unwrap();
    let range = Some(ByteRange::new(10, 4000));
    let got = collect(source.read(&object, range, &stat.validator).await.unwrap()).await.unwrap();
    assert_eq!(got, content(5000)[10..4000]);

    let keys = &store.keys;
    let stolen = dfs_source::AccessKeys { secret: "wrong".into(), ..keys.clone() };
    let wrong = object.clone().with_credentials(Credentials::Keys(stolen));
    let error = failure(source.stat(&wrong).await);
    let SourceError::NotPermitted { reason: Some(reason), .. } = &error else {
        panic!("{error:?}")
    };
    // Which word follows differs from store to store.
    assert!(reason.starts_with("the store answered 403 "), "{error:?}");
    assert!(!format!("{error:?} {object:?}").contains(keys.secret.expose()));
}

async fn a_prefix_is_a_directory_and_what_is_not_there_is_said(store: Store) {
    let client = store.client();
    let empty = client.stat(&store.url("")).await.unwrap();
    assert_eq!(empty.kind, StatKind::Directory);
    store.put(b"run/a", b"x");
    store.forget();
    for path in ["run/", "run", ""] {
        let stat = client.stat(&store.url(path)).await.unwrap();
        assert_eq!(stat.kind, StatKind::Directory, "{path}");
        assert!(stat.url.url().path().ends_with('/'), "{path}");
    }
    // A listing of one key for each, and one look whether it may be read; behind a HEAD where it might have
    // been an object.
    assert_eq!(store.asked(7).len(), 7);
    for path in ["ru", "run/b", "none/"] {
        let error = failure(client.stat(&store.url(path)).await);
        assert!(matches!(error, SourceError::NotFound { .. }), "{path}: {error:?}");
    }
    for path in ["nothere/", "nothere/a"] {
        let url = format!("s3://{path}?endpoint={}", store.endpoint());
        let error = failure(client.stat(&url).await).to_string();
        assert!(error.contains("there is no such bucket"), "{error}");
    }
}

#[tokio::test]
async fn the_store_of_this_process_is_meant_where_a_url_names_none() {
    let store = Moto::start();
    store.bucket("lab").await;
    store.put("lab", b"a", b"x").await;
    let endpoint = Some(format!("http://{}", store.address));
    let options_ = S3Options { endpoint, region: Some("here".into()), ..S3Options::default() };
    let client = client(options_, options());
    let bare = target("s3://lab/a");
    let source = client.source(&bare);
    let meant = source.complete(&bare, dfs_source::Asking::Other).await.unwrap();
    let address = store.address.replace(':', "%3A");
    let expected = format!("s3://lab/a?endpoint=http%3A%2F%2F{address}&region=here");
    assert_eq!(meant.url.as_str(), expected);
    assert_eq!(source.stat(&meant).await.unwrap().length, Some(1));
    // Complete is complete.
    assert_eq!(source.complete(&meant, dfs_source::Asking::Other).await.unwrap(), meant);
}

#[tokio::test]
async fn an_object_that_is_named_encoded_is_read_as_it_is_stored() {
    let store = Moto::start();
    store.bucket("lab").await;
    let headers = [("x-amz-acl", "public-read"), ("content-encoding", "gzip")];
    let zipped = [0x1f, 0x8b, 8, 0, 1, 2, 3];
    let put = store.send(Method::PUT, "/lab/a.gz", &zipped, &headers).await;
    assert_eq!(put.status(), 200);
    let (client, url) = (stranger(), store.url("lab/a.gz"));
    // Ranges are of the stored bytes: a store never encodes on the way.
    let stat = client.stat(&url).await.unwrap();
    assert_eq!(stat.length, Some(7));
    assert_eq!(client.read(&url, Some((1, 4)), &stat.validator).await.unwrap(), zipped[1..4]);
}
