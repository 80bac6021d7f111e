//! What one stat costs and tells.

use dfs_source::{SourceError, StatKind};

use crate::scripted::{Request, Server, Step, file, head, status};
use crate::{Client, content, failure};

const ETAG: &str = "\"v1\"";

fn methods(server: &Server) -> Vec<String> {
    let shown = |request: &Request| match request.header("range") {
        Some(range) => format!("{} {range}", request.method),
        None => request.method.clone(),
    };
    server.requests().iter().map(shown).collect()
}

#[tokio::test]
async fn one_head_is_enough_where_it_tells_length_and_ranges() {
    let server = Server::start(|_, request| file(&content(100), ETAG, request));
    let client = Client::new();
    let stat = client.stat(&server.url("/x")).await.unwrap();
    assert_eq!((stat.length, stat.ranges, stat.kind), (Some(100), true, StatKind::File));
    assert_eq!(stat.validator.etag.as_deref(), Some(ETAG));
    assert!(!stat.unpinned);
    assert_eq!(methods(&server), ["HEAD"]);
    assert_eq!((client.counted().requests, client.counted().stats), (1, 1));
}

#[tokio::test]
async fn where_head_is_refused_the_first_byte_tells() {
    for refusal in [405, 403, 501, 400] {
        let server = Server::start(move |_, request| match request.method.as_str() {
            "HEAD" => status(refusal),
            _ => file(&content(100), ETAG, request),
        });
        let stat = Client::new().stat(&server.url("/x")).await.unwrap();
        assert_eq!((stat.length, stat.ranges), (Some(100), true));
        assert_eq!(methods(&server), ["HEAD", "GET bytes=0-0"]);
    }
}

#[tokio::test]
async fn silence_about_ranges_is_resolved_by_asking_for_one() {
    let ranged = Server::start(|_, request| match request.method.as_str() {
        "HEAD" => vec![head(200, &[("ETag", ETAG), ("Content-Length", "100")])],
        _ => file(&content(100), ETAG, request),
    });
    let stat = Client::new().stat(&ranged.url("/x")).await.unwrap();
    assert_eq!((stat.length, stat.ranges), (Some(100), true));
    let plain = Server::start(|_, request| {
        let body = if request.method == "HEAD" { Vec::new() } else { vec![0; 100] };
        vec![head(200, &[("Content-Length", "100")]), Step::Send(body)]
    });
    let stat = Client::new().stat(&plain.url("/x")).await.unwrap();
    assert_eq!((stat.length, stat.ranges, stat.unpinned), (Some(100), false, true));
    assert_eq!(methods(&plain), ["HEAD", "GET bytes=0-0"]);
}

#[tokio::test]
async fn an_empty_file_has_no_first_byte_and_still_a_stat() {
    let server = Server::start(|_, request| match request.method.as_str() {
        "HEAD" => vec![head(200, &[("ETag", ETAG), ("Content-Length", "0")])],
        _ => vec![head(416, &[("Content-Range", "bytes */0"), ("Content-Length", "0")])],
    });
    let client = Client::new();
    let stat = client.stat(&server.url("/x")).await.unwrap();
    assert_eq!(stat.length, Some(0));
    assert_eq!(stat.validator.etag.as_deref(), Some(ETAG));
    assert!(client.read(&server.url("/x"), None, &stat.validator).await.unwrap().is_empty());
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_refusal_of_both_is_told() {
    let server = Server::start(|_, _| status(403));
    let error = failure(Client::new().stat(&server.url("/x")).await);
    assert!(matches!(error, SourceError::NotPermitted { status: Some(403), .. }), "{error}");
}

#[tokio::test]
async fn connections_are_kept_for_the_next_request() {
    let server = Server::start(|_, request| file(&content(100_000), ETAG, request));
    let client = Client::new();
    let stat = client.stat(&server.url("/x")).await.unwrap();
    for at in 0..20 {
        let range = Some((at * 100, at * 100 + 100));
        client.read(&server.url("/x"), range, &stat.validator).await.unwrap();
    }
    assert_eq!(server.requests().len(), 21);
    assert!(server.connections() <= 2, "{} connections", server.connections());
}
