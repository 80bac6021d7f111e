//! Origins whose content changes: bytes of two versions never meet.

use dfs_model::Validator;
use dfs_source::SourceError;

use crate::scripted::{Request, Server, Step, broken, chunked, file, head, last_chunk, status};
use crate::{Client, content, failure, tagged};

fn assert_changed(error: &SourceError) {
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
    assert!(error.to_string().starts_with("origin changed: "), "{error}");
}

#[tokio::test]
async fn an_etag_that_changes_between_two_reads_fails_the_second() {
    let bytes = content(1_000);
    let server = Server::start(move |number, request| {
        file(&bytes, if number < 2 { "\"v1\"" } else { "\"v2\"" }, request)
    });
    let client = Client::new();
    let url = server.url("/x");
    let stat = client.stat(&url).await.unwrap();
    client.read(&url, Some((0, 10)), &stat.validator).await.unwrap();
    assert_changed(&failure(client.read(&url, Some((10, 20)), &stat.validator).await));
    assert_changed(&failure(client.read(&url, None, &stat.validator).await));
    assert_eq!(server.requests().len(), 4);
    assert_eq!(server.requests()[2].header("if-range"), Some("\"v1\""));
}

#[tokio::test]
async fn a_change_behind_a_reset_is_seen_before_a_byte_of_the_new_version() {
    let (old, new) = (vec![1; 10_000], vec![2; 10_000]);
    let server = Server::start(move |number, request| match number {
        0 => broken(&old, "\"v1\"", request, 4_000, vec![Step::Close]),
        _ => file(&new, "\"v2\"", request),
    });
    let client = Client::new();
    let stream = client.open(&server.url("/x"), None, &Validator::default()).await.unwrap();
    let mut got = Vec::new();
    let error = crate::collect_into(stream, &mut got).await.unwrap_err();
    assert_changed(&error);
    assert_eq!(got, vec![1; 4_000]);
    assert_eq!(server.requests()[1].header("if-range"), Some("\"v1\""));
}

/// A range answered with these headers; the body is ten bytes.
fn part(_: &Request, headers: &[(&str, &str)]) -> Vec<Step> {
    let mut all = vec![("Content-Length", "10")];
    all.extend_from_slice(headers);
    vec![head(206, &all), Step::Send(vec![7; 10])]
}

#[tokio::test]
async fn without_a_strong_etag_every_answer_must_equal_the_pinned_version() {
    let server = Server::start(|_, request| {
        assert_eq!(request.header("if-range"), None);
        let range = ("Content-Range", "bytes 0-9/100");
        let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        match request.path.as_str() {
            "/same" => part(request, &[range, modified, ("ETag", "W/\"a\"")]),
            "/tag" => part(request, &[range, modified, ("ETag", "W/\"b\"")]),
            "/untagged" => part(request, &[range, modified]),
            "/time" => {
                let later = ("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT");
                part(request, &[range, later, ("ETag", "W/\"a\"")])
            }
            "/timeless" => part(request, &[range, ("ETag", "W/\"a\"")]),
            "/total" => {
                let range = ("Content-Range", "bytes 0-9/101");
                part(request, &[range, modified, ("ETag", "W/\"a\"")])
            }
            _ => status(416),
        }
    });
    let client = Client::new();
    let pin = Validator {
        modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()),
        ..tagged("W/\"a\"", 100)
    };
    let read = async |path: &str| client.read(&server.url(path), Some((0, 10)), &pin).await;
    assert_eq!(read("/same").await.unwrap(), [7; 10]);
    for path in ["/tag", "/untagged", "/time", "/timeless", "/total", "/shorter"] {
        assert_changed(&failure(read(path).await));
    }
}

#[tokio::test]
async fn a_whole_answer_to_a_range_tells_a_change_from_a_server_without_ranges() {
    let server = Server::start(|_, _| {
        vec![head(200, &[("ETag", "\"v2\""), ("Content-Length", "100")]), Step::Send(vec![7; 100])]
    });
    let client = Client::new();
    let url = server.url("/x");
    let error = failure(client.read(&url, Some((0, 10)), &tagged("\"v2\"", 100)).await);
    assert!(matches!(error, SourceError::RangeIgnored { .. }), "{error}");
    assert_changed(&failure(client.read(&url, Some((0, 10)), &tagged("\"v1\"", 100)).await));
    assert_changed(&failure(client.read(&url, Some((0, 10)), &tagged("\"v2\"", 99)).await));
    let unknown = Validator::default();
    let error = failure(client.read(&url, Some((0, 10)), &unknown).await);
    assert!(matches!(error, SourceError::RangeIgnored { .. }), "{error}");
    assert_eq!(client.read(&url, None, &unknown).await.unwrap(), [7; 100]);
}

#[tokio::test]
async fn content_that_outgrew_its_pinned_length_is_a_change() {
    let bytes = content(100);
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/one" => chunked(&[], &[&bytes], last_chunk()),
        "/two" => chunked(&[], &[&bytes[..50], &bytes[50..]], last_chunk()),
        _ => chunked(&[], &[&bytes[..50]], last_chunk()),
    });
    let client = Client::new();
    let pin = Validator { length: Some(50), ..Validator::default() };
    for path in ["/one", "/two"] {
        let stream = client.open(&server.url(path), None, &pin).await.unwrap();
        let mut got = Vec::new();
        assert_changed(&crate::collect_into(stream, &mut got).await.unwrap_err());
        assert_eq!(got.len(), 50);
    }
    assert_eq!(client.read(&server.url("/same"), None, &pin).await.unwrap(), content(50));
}
