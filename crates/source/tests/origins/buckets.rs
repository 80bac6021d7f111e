//! Objects of a real store: what one read costs, and that versions never meet.

use dfs_model::{ByteRange, Validator};
use dfs_source::{Credentials, S3Options, SourceError, StatKind};
use reqwest::Method;

use crate::moto::{Logged, Moto, asked_by, client, stranger};
use crate::{collect, content, failure, options, target};

fn shown(requests: &[Logged]) -> Vec<String> {
    let path = |request: &Logged| request.path.split("?endpoint").next().unwrap().to_owned();
    requests.iter().map(|r| format!("{} {} {}", r.method, path(r), r.status)).collect()
}

#[tokio::test]
async fn an_object_costs_one_head_and_one_request_for_each_range() {
    let store = Moto::start();
    store.bucket("lab").await;
    store.put("lab", b"run 42/part+7.bin", &content(300_000)).await;
    store.forget().await;

    let client = stranger();
    let url = store.url("lab/run%2042/part+7.bin");
    let stat = client.stat(&url).await.unwrap();
    assert_eq!((stat.kind, stat.length, stat.unpinned), (StatKind::File, Some(300_000), false));
    assert!(stat.ranges && stat.validator.etag.is_some() && stat.validator.modified.is_some());
    for (start, end) in [(0, 10), (65_536, 131_072), (299_999, 300_000), (0, 300_000)] {
        let got = client.read(&url, Some((start, end)), &stat.validator).await.unwrap();
        assert!(got == content(300_000)[start as usize..end as usize], "{start}..{end}");
    }
    let key = "/lab/run%2042/part+7.bin"; // The server logs it as it understood it.
    let mut expected = vec![format!("HEAD {key} 200")];
    expected.extend(std::iter::repeat_n(format!("GET {key} 206"), 3));
    expected.push(format!("GET {key} 200"));
    assert_eq!(shown(&store.requests(5)), expected);
    assert_eq!(client.counted().requests, 5);
}

#[tokio::test]
async fn versions_never_mix_and_an_object_that_is_gone_has_changed() {
    let store = Moto::start();
    store.bucket("lab").await;
    store.put("lab", b"a", &content(1000)).await;
    let client = stranger();
    let url = store.url("lab/a");
    let stat = client.stat(&url).await.unwrap();

    let mut other = content(1000);
    other[500] ^= 1;
    store.put("lab", b"a", &other).await;
    store.forget().await;
    let error = failure(client.read(&url, Some((0, 10)), &stat.validator).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");
    assert_eq!(shown(&store.requests(1)), ["GET /lab/a 412"]);
    let error = failure(client.read(&url, None, &stat.validator).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");

    store.delete("/lab/a").await;
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

#[tokio::test]
async fn signatures_are_taken_by_a_store_that_checks_them() {
    let store = Moto::start();
    store.bucket("lab").await;
    let key = "run-1/key".as_bytes();
    store.put("lab", key, &content(5000)).await;
    let keys = store.lock().await;
    let client = stranger();
    let base = asked_by(&store.url("lab/"), &keys);
    let object = base.join(key).unwrap();

    let source = client.source(&object);
    let stat = source.stat(&object).await.unwrap();
    let range = Some(ByteRange::new(10, 4000));
    let got = collect(source.read(&object, range, &stat.validator).await.unwrap()).await.unwrap();
    assert_eq!(got, content(5000)[10..4000]);

    let stolen = dfs_source::AccessKeys { secret: "wrong".into(), ..keys.clone() };
    let wrong = object.clone().with_credentials(Credentials::Keys(stolen));
    let error = failure(source.stat(&wrong).await);
    let SourceError::NotPermitted { reason: Some(reason), .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(&**reason, "the store answered 403 SignatureDoesNotMatch");
    let secret = keys.secret.expose();
    assert!(!format!("{error:?} {object:?}").contains(secret));
}

#[tokio::test]
async fn a_prefix_is_a_directory_and_what_is_not_there_is_said() {
    let store = Moto::start();
    store.bucket("lab").await;
    store.bucket("empty").await;
    store.put("lab", b"run/a", b"x").await;
    store.forget().await;
    let client = stranger();
    for path in ["lab/run/", "lab/run", "lab", "empty/"] {
        let stat = client.stat(&store.url(path)).await.unwrap();
        assert_eq!(stat.kind, StatKind::Directory, "{path}");
        assert!(stat.url.url().path().ends_with('/'), "{path}");
    }
    // A listing of one key for each, behind a HEAD where it might have been an object.
    assert_eq!(store.requests(5).len(), 5);
    for path in ["lab/ru", "lab/run/b", "lab/none/", "empty/x"] {
        let error = failure(client.stat(&store.url(path)).await);
        assert!(matches!(error, SourceError::NotFound { .. }), "{path}: {error:?}");
    }
    for path in ["nothere/", "nothere/a"] {
        let error = failure(client.stat(&store.url(path)).await).to_string();
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
