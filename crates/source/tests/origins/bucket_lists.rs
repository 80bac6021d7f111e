//! Listings of a real store: everything once, in few requests, and names that are no paths.

use std::collections::{BTreeMap, BTreeSet};

use dfs_source::{
    Content, Entry, EntryKind, HttpOptions, ListLimits, S3Options, SourceError, WriteOptions,
};
use futures::StreamExt as _;

use crate::moto::{client, stranger};
use crate::scripted::{Server, head};
use crate::store::{Store, with_each_store};
use crate::{failure, options};

fn by_path(entries: &[Entry]) -> BTreeMap<String, &Entry> {
    entries.iter().map(|entry| (entry.path.escape_ascii().to_string(), entry)).collect()
}

with_each_store!(
    a_prefix_is_listed_with_all_that_a_read_needs,
    odd_keys_are_told_and_never_leave_the_prefix,
    more_keys_than_a_page_holds_are_listed_once_and_in_order,
);

async fn a_prefix_is_listed_with_all_that_a_read_needs(store: Store) {
    for (key, body) in [("run/a", "1"), ("run/sub/b c+d", "22"), ("run/sub/", ""), ("other", "x")] {
        store.put(key.as_bytes(), body.as_bytes());
    }
    store.forget();
    let client = store.client();
    let base = store.url("run/");
    let entries = client.list(&base).await.unwrap();
    let found = by_path(&entries);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "sub", "sub/b c+d"]);
    assert_eq!(found["sub"].kind, EntryKind::Directory);
    assert_eq!(store.asked(1).len(), 1, "one request, none for a member");
    assert_eq!((client.counted().lists, client.counted().requests), (1, 1));

    for path in ["a", "sub/b c+d"] {
        let (entry, length) = (found[path], found[path].length.unwrap());
        let url = crate::target(&base).join(&entry.path).unwrap().url.to_string();
        // What is listed and what is asked are one version, and so one task.
        let stat = client.stat(&url).await.unwrap();
        assert_eq!(entry.validator.as_ref(), Some(&stat.validator), "{path}");
        assert!(entry.modified.is_some());
        let got = client.read(&url, None, &stat.validator).await.unwrap();
        assert_eq!(got.len() as u64, length);
    }
    // A prefix without its slash is the same directory, never what begins like it.
    store.put(b"running/x", b"");
    let again = client.list(&store.url("run")).await.unwrap();
    assert_eq!(by_path(&again).len(), 3);
}

async fn odd_keys_are_told_and_never_leave_the_prefix(store: Store) {
    let good = [
        "d/tab\there",
        "d/é ü",
        "d/%2e%2e",
        "d/a&b<c>\"'",
        "d/\\..\\x",
        "d/bell\u{7}",
        "d/100%+ of it?",
        "d/a=b;c#d",
        "d/~*!()",
        "d/ ",
    ];
    // Web servers resolve dots themselves, so that no store is asked for a key with them.
    for key in good {
        store.put(key.as_bytes(), b"x");
    }
    store.put(b"d/file", b"x");
    store.put(b"d/file/below", b"x");
    store.put(b"d/empty//element", b"x");
    store.put(b"d/marker/", b"");
    store.put(format!("d/{}", "n".repeat(300)).as_bytes(), b"x");
    let client = store.client();
    let entries = client.list(&store.url("d/")).await.unwrap();
    let (odd, usable): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| matches!(entry.kind, EntryKind::Unusable(_)));
    assert_eq!(odd.len(), 3, "{odd:?}");
    let (directories, files): (Vec<&Entry>, Vec<_>) =
        usable.into_iter().partition(|entry| entry.kind == EntryKind::Directory);
    assert_eq!(directories.iter().map(|entry| &entry.path[..]).collect::<Vec<_>>(), [b"marker"]);
    let names: BTreeSet<&[u8]> = files.iter().map(|entry| &entry.path[..]).collect();
    let mut expected: BTreeSet<&[u8]> = good.iter().map(|key| &key.as_bytes()[2..]).collect();
    expected.insert(b"file/below");
    assert_eq!(names, expected);
    for entry in files {
        let url = crate::target(&store.url("d/")).join(&entry.path).unwrap().url.to_string();
        let validator = entry.validator.clone().unwrap();
        assert_eq!(client.read(&url, None, &validator).await.unwrap(), b"x", "{url}");
    }
}

async fn more_keys_than_a_page_holds_are_listed_once_and_in_order(store: Store) {
    let client = store.client();
    let base = store.target("many/");
    let source = client.source(&base);
    let names: BTreeSet<String> = (0..1201).map(|n| format!("d {}/é+{n}", n % 7)).collect();
    let writes = names.iter().map(|name| {
        let to = base.join(name.as_bytes()).unwrap();
        let source = &source;
        async move {
            let bytes = futures::stream::iter([Ok(name.clone().into())]).boxed();
            let content = Content { bytes, length: Some(name.len() as u64) };
            source.write(&to, content, &WriteOptions::default()).await.unwrap();
        }
    });
    futures::stream::iter(writes).buffer_unordered(8).collect::<()>().await;

    store.forget();
    let told = |entries: &[Entry]| -> Vec<String> {
        entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
    };
    let entries = source.list_in_order(&base).map(Result::unwrap).collect::<Vec<_>>().await;
    assert_eq!(told(&entries), names.iter().cloned().collect::<Vec<_>>());
    assert_eq!(store.asked(2).len(), 2, "a thousand keys a request");
    // Parted at directories, which requests with a delimiter tell.
    let entries = client.list(&store.url("many/")).await.unwrap();
    assert_eq!(told(&entries).into_iter().collect::<BTreeSet<_>>(), names);
    assert_eq!(entries.len(), names.len());
    assert!(store.asked(3).iter().any(|request| request.contains("delimiter=")));
}

/// A store of these keys that serves pages of `size`; it knows what the real ones know.
fn listing_server(keys: BTreeSet<String>, size: usize) -> Server {
    Server::start(move |_, request| {
        let query: BTreeMap<String, String> = url::Url::parse(&format!("http://h{}", request.path))
            .unwrap()
            .query_pairs()
            .into_owned()
            .collect();
        let get = |name: &str| query.get(name).cloned().unwrap_or_default();
        let after = get("start-after").max(get("continuation-token"));
        let prefix = get("prefix");
        let delimited = query.contains_key("delimiter");
        let size = get("max-keys").parse().unwrap_or(size);
        let (mut body, mut seen, mut last) = (String::new(), BTreeSet::new(), String::new());
        let mut truncated = false;
        for key in keys.iter().filter(|key| key.starts_with(&prefix) && **key > after) {
            let end = key[prefix.len()..].find('/').map(|at| prefix.len() + at + 1);
            let shown = match end {
                Some(end) if delimited => key[..end].to_owned(),
                _ => key.clone(),
            };
            if seen.contains(&shown) {
                continue;
            }
            if seen.len() == size {
                truncated = true;
                break;
            }
            if shown.ends_with('/') && delimited {
                body += &format!("<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>");
            } else {
                body += &format!(
                    "<Contents><Key>{key}</Key><Size>1</Size><ETag>\"e\"</ETag></Contents>"
                );
            }
            last.clone_from(key);
            seen.insert(shown);
        }
        if truncated {
            body += &format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            );
        }
        let body = format!("<ListBucketResult>{body}</ListBucketResult>");
        let length = body.len().to_string();
        vec![
            head(200, &[("Content-Length", &length)]),
            crate::scripted::Step::Send(body.into_bytes()),
        ]
    })
}

fn url(server: &Server) -> String {
    format!("s3://lab/?endpoint=http://{}", server.address)
}

fn tree(directories: usize, files: usize) -> BTreeSet<String> {
    let names =
        (0..directories).flat_map(|d| (0..files).map(move |f| format!("data/d{d:03}/f{f:03}")));
    names.chain(["data".to_owned(), "data/d001".to_owned(), "zz".to_owned()]).collect()
}

#[tokio::test]
async fn a_large_prefix_is_listed_in_parallel_once_and_in_few_requests() {
    for (directories, files) in [(40, 50), (1, 2000), (1000, 2), (3, 1)] {
        let keys = tree(directories, files);
        let server = listing_server(keys.clone(), 20);
        let client = stranger();
        let entries = client.list(&url(&server)).await.unwrap();
        let told: BTreeSet<String> =
            entries.iter().map(|e| String::from_utf8(e.path.clone()).unwrap()).collect();
        assert_eq!((entries.len(), &told), (keys.len(), &keys), "{directories} x {files}");
        let clash = entries.iter().filter(|e| matches!(e.kind, EntryKind::Unusable(_))).count();
        assert_eq!(clash, if directories > 1 { 2 } else { 1 }, "{directories} x {files}");

        let pages = keys.len().div_ceil(20);
        let asked = server.requests();
        assert!(asked.len() <= pages + pages / 4 + 24, "{} for {pages} pages", asked.len());
        let runs = asked
            .iter()
            .filter(|r| r.path.contains("start-after") && !r.path.contains("delimiter"));
        assert_eq!(runs.count() > 0, directories > 3, "{directories} x {files}: several at a time");
    }
}

#[tokio::test]
async fn a_listing_that_lies_ends_in_an_error() {
    let page = |body: &str| {
        let body = format!("<ListBucketResult>{body}</ListBucketResult>");
        Server::start(move |_, _| {
            let length = body.len().to_string();
            vec![
                head(200, &[("Content-Length", &length)]),
                crate::scripted::Step::Send(body.clone().into_bytes()),
            ]
        })
    };
    let key = |name: &str| format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>");
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
    for body in [
        format!("{}{more}", key("d/a")),
        more.to_owned(),
        format!("{}{}", key("d/b"), key("d/a")),
        key("e/a"),
        key("../d/a"),
    ] {
        let server = page(&body);
        let url = format!("s3://lab/d/?endpoint=http://{}", server.address);
        let error = failure(stranger().list(&url).await);
        assert!(matches!(error, SourceError::Malformed { .. }), "{body}: {error:?}");
        assert!(server.requests().len() <= 4, "{body}");
    }
    let listing = ListLimits { entries: 100, ..ListLimits::default() };
    let server = listing_server(tree(20, 20), 50);
    let bounded = client(S3Options::default(), HttpOptions { listing, ..options() });
    let error = failure(bounded.list(&url(&server)).await);
    assert!(matches!(error, SourceError::TooLarge { limit: 100, .. }), "{error:?}");
}

#[tokio::test]
async fn traversal_in_a_listing_is_never_a_member() {
    let keys = ["d/../../etc/passwd", "d//x", "d/./y", "d/a/../b", "d/ok"];
    let server = listing_server(keys.iter().map(|key| (*key).to_owned()).collect(), 100);
    let url = format!("s3://lab/d/?endpoint=http://{}", server.address);
    let entries = stranger().list(&url).await.unwrap();
    assert_eq!(entries.len(), keys.len());
    for entry in &entries {
        let usable = !matches!(entry.kind, EntryKind::Unusable(_));
        assert_eq!(usable, entry.path == b"ok", "{entry:?}");
        dfs_source::check_path(&entry.path).unwrap();
    }
}
