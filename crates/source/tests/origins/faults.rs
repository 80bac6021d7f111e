//! Origins that break, stall, refuse and overload.

use std::time::Duration;

use dfs_model::Validator;
use dfs_source::{HttpOptions, RetryPolicy, SourceError};
use futures::StreamExt as _;

use crate::scripted::{Gate, Server, Step, broken, chunked, file, head, last_chunk, status};
use crate::{Client, content, failure, options, tagged};

const ETAG: &str = "\"v1\"";

#[tokio::test]
async fn after_a_reset_only_the_rest_is_asked_for_and_pinned() {
    let bytes = content(300_000);
    let (strike, gate) = Gate::new();
    let served = bytes.clone();
    let server = Server::start(move |number, request| match number {
        0 => {
            let fault = vec![Step::Await(gate.clone()), Step::Reset];
            broken(&served, ETAG, request, 100_000, fault)
        }
        _ => file(&served, ETAG, request),
    });
    let client = Client::new();
    let mut stream = client.open(&server.url("/x"), None, &tagged(ETAG, 300_000)).await.unwrap();
    let mut got = stream.next().await.unwrap().unwrap().to_vec();
    assert!(!got.is_empty() && got.len() <= 100_000);
    strike.send(()).unwrap();
    while let Some(part) = stream.next().await {
        got.extend_from_slice(&part.unwrap());
    }
    assert_eq!(got, bytes);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    let (first, last) = requests[1].range().unwrap();
    assert!(first > 0 && first <= 100_000 && last == Some(299_999));
    assert_eq!(requests[1].header("if-range"), Some(ETAG));
    let counted = client.counted();
    assert_eq!((counted.requests, counted.reads, counted.retries), (2, 1, 1));
    assert_eq!(counted.bytes, 300_000);
}

#[tokio::test]
async fn a_short_body_is_completed_and_never_taken_for_the_whole() {
    let bytes = content(50_000);
    let served = bytes.clone();
    let server = Server::start(move |number, request| match number {
        0 => broken(&served, ETAG, request, 10_000, vec![Step::Close]),
        _ => file(&served, ETAG, request),
    });
    let client = Client::new();
    let pin = tagged(ETAG, 50_000);
    let got = client.read(&server.url("/x"), Some((5, 40_000)), &pin).await.unwrap();
    assert_eq!(got, bytes[5..40_000]);
    assert_eq!(server.requests()[1].range(), Some((10_005, Some(39_999))));
}

#[tokio::test]
async fn an_origin_that_gives_less_than_it_is_asked_for_is_asked_for_the_rest_at_once() {
    let bytes = content(100_000);
    let served = bytes.clone();
    let server = Server::start(move |_, request| {
        let (first, last) = request.range().unwrap();
        let most = if request.path == "/drop" { 1 } else { 16_384 };
        let end = (last.unwrap() + 1).min(first + most);
        let part = format!("bytes {first}-{}/100000", end - 1);
        let length = (end - first).to_string();
        let fields = [("Content-Range", &*part), ("ETag", ETAG), ("Content-Length", &length)];
        vec![head(206, &fields), Step::Send(served[first..end].to_vec())]
    });
    let client = Client::new();
    let pin = tagged(ETAG, 100_000);
    let got = client.read(&server.url("/x"), Some((5, 99_000)), &pin).await.unwrap();
    assert_eq!(got, bytes[5..99_000]);
    let counted = client.counted();
    assert_eq!((counted.requests, counted.retries), (7, 0));
    let error = failure(client.read(&server.url("/drop"), Some((5, 99_000)), &pin).await);
    assert!(
        matches!(error, SourceError::Truncated { .. } | SourceError::Unavailable { .. }),
        "{error}"
    );
    assert!(client.counted().requests < 7 + 10, "not one for each byte");
}

#[tokio::test]
async fn a_stalled_body_is_left_and_the_rest_asked_for_again() {
    let bytes = content(50_000);
    let served = bytes.clone();
    let server = Server::start(move |number, request| match number {
        0 => broken(&served, ETAG, request, 20_000, vec![Step::Stall]),
        _ => file(&served, ETAG, request),
    });
    let client = Client::new();
    let got = client.read(&server.url("/x"), None, &tagged(ETAG, 50_000)).await.unwrap();
    assert_eq!(got, bytes);
    assert_eq!(server.requests()[1].range(), Some((20_000, Some(49_999))));
    assert_eq!(client.counted().retries, 1);
}

#[tokio::test]
async fn an_origin_that_always_stalls_is_given_up() {
    let server = Server::start(|_, _| vec![Step::Stall]);
    let quick = RetryPolicy { attempts: 2, ..options().retry };
    let answer_timeout = Duration::from_millis(100);
    let client = Client::with(HttpOptions { answer_timeout, retry: quick, ..options() });
    let error = failure(client.stat(&server.url("/x")).await);
    let SourceError::Unavailable { attempts: 2, cause, .. } = error else { panic!("{error}") };
    assert!(matches!(*cause, SourceError::Timeout { .. }), "{cause}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_origin_that_trickles_is_given_up() {
    let bytes = content(1_000);
    let server =
        Server::start(move |_, request| broken(&bytes, ETAG, request, 1, vec![Step::Close]));
    let client = Client::new();
    let error = failure(client.read(&server.url("/x"), None, &tagged(ETAG, 1_000)).await);
    let SourceError::Unavailable { attempts, cause, .. } = error else { panic!("{error}") };
    assert!(matches!(*cause, SourceError::Truncated { .. }), "{cause}");
    assert_eq!(server.requests().len(), attempts as usize);
}

#[tokio::test]
async fn the_total_time_of_a_read_is_bounded_where_it_is_asked_for() {
    let bytes = content(1_000);
    let server =
        Server::start(move |_, request| broken(&bytes, ETAG, request, 10, vec![Step::Stall]));
    let total_timeout = Some(Duration::from_millis(100));
    let client = Client::with(HttpOptions { total_timeout, ..options() });
    let error = failure(client.read(&server.url("/x"), None, &tagged(ETAG, 1_000)).await);
    assert!(matches!(error, SourceError::Timeout { .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_burst_of_500s_passes_unnoticed_but_counted() {
    let bytes = content(1_000);
    let served = bytes.clone();
    let server = Server::start(move |number, request| match number {
        0..2 => status(500),
        _ => file(&served, ETAG, request),
    });
    let client = Client::new();
    let pin = tagged(ETAG, 1_000);
    assert_eq!(client.read(&server.url("/x"), Some((0, 10)), &pin).await.unwrap(), bytes[..10]);
    let counted = client.counted();
    assert_eq!((counted.requests, counted.retries), (3, 2));
}

#[tokio::test]
async fn an_overloaded_origin_is_asked_again_only_when_it_wants() {
    let bytes = content(10);
    let server = Server::start(move |number, request| match (number, request.path.as_str()) {
        (_, "/later") => vec![head(429, &[("Retry-After", "3600"), ("Content-Length", "0")])],
        (0, _) => vec![head(429, &[("Retry-After", "0"), ("Content-Length", "0")])],
        _ => file(&bytes, ETAG, request),
    });
    let client = Client::new();
    assert_eq!(client.stat(&server.url("/soon")).await.unwrap().length, Some(10));
    assert_eq!(server.requests().len(), 2);

    let error = failure(client.stat(&server.url("/later")).await);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(matches!(error, SourceError::Unavailable { attempts: 1, .. }), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_not_tried_again() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/gone" => status(404),
        "/secret" => status(401),
        _ => status(418),
    });
    let client = Client::new();
    let pin = Validator::default();
    let gone = failure(client.read(&server.url("/gone"), None, &pin).await);
    assert!(matches!(gone, SourceError::NotFound { .. }), "{gone}");
    assert!(gone.to_string().contains(&server.url("/gone")), "{gone}");
    let secret = failure(client.stat(&server.url("/secret")).await);
    assert!(matches!(secret, SourceError::NotPermitted { status: Some(401), .. }), "{secret}");
    let teapot = failure(client.stat(&server.url("/tea")).await);
    assert!(matches!(teapot, SourceError::Status { status: 418, .. }), "{teapot}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn nobody_there_is_an_error_after_the_attempts() {
    let free = dfs_tests::process::FreeAddress::new().unwrap();
    let client = Client::new();
    let error = failure(client.stat(&format!("http://{}/x", free.at())).await);
    let SourceError::Unavailable { attempts: 6, cause, .. } = error else { panic!("{error}") };
    assert!(matches!(*cause, SourceError::Unreachable { .. }), "{cause}");
}

#[tokio::test]
async fn a_body_without_a_length_is_read_to_its_end() {
    let bytes = content(30_000);
    let served = bytes.clone();
    let server = Server::start(move |_, request| match request.method.as_str() {
        "HEAD" => vec![head(200, &[])],
        _ => chunked(&[("ETag", ETAG)], &[&served[..10_000], &served[10_000..]], last_chunk()),
    });
    let client = Client::new();
    let stat = client.stat(&server.url("/x")).await.unwrap();
    assert_eq!((stat.length, stat.ranges, stat.unpinned), (None, false, false));
    assert_eq!(client.read(&server.url("/x"), None, &stat.validator).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_body_that_nothing_pins_is_never_patched_together() {
    let bytes = content(30_000);
    let server = Server::start(move |_, _| chunked(&[], &[&bytes[..10_000]], Step::Close));
    let client = Client::new();
    let error = failure(client.read(&server.url("/x"), None, &Validator::default()).await);
    assert!(matches!(error, SourceError::Truncated { received: 10_000, .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn without_ranges_a_broken_body_begins_again_and_what_was_passed_on_is_skipped() {
    let bytes = content(30_000);
    let served = bytes.clone();
    let server = Server::start(move |number, _| {
        let length = served.len().to_string();
        let head = head(200, &[("ETag", ETAG), ("Content-Length", &length)]);
        match number {
            0 => vec![head, Step::Send(served[..12_000].to_vec()), Step::Close],
            _ => vec![head, Step::Send(served.clone())],
        }
    });
    let client = Client::new();
    let pin = tagged(ETAG, 30_000);
    assert_eq!(client.read(&server.url("/x"), None, &pin).await.unwrap(), bytes);
    assert_eq!(client.counted().bytes, 42_000);
    let error = failure(client.read(&server.url("/x"), Some((1, 5)), &pin).await);
    assert!(matches!(error, SourceError::RangeIgnored { .. }), "{error}");
}

#[tokio::test]
async fn more_bytes_than_asked_never_reach_the_caller() {
    let bytes = content(1_000);
    let served = bytes.clone();
    let server = Server::start(move |_, request| {
        let range = [("Content-Range", "bytes 10-19/1000"), ("ETag", ETAG)];
        let mut steps = chunked(&range, &[&served[10..500]], last_chunk());
        assert_eq!(request.range(), Some((10, Some(19))));
        steps[0] = head(206, &[range[0], range[1], ("Transfer-Encoding", "chunked")]);
        steps
    });
    let client = Client::new();
    let pin = tagged(ETAG, 1_000);
    assert_eq!(client.read(&server.url("/x"), Some((10, 20)), &pin).await.unwrap(), bytes[10..20]);
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/other" => vec![
            head(
                206,
                &[("Content-Range", "bytes 0-9/100"), ("ETag", ETAG), ("Content-Length", "10")],
            ),
            Step::Send(vec![0; 10]),
        ],
        "/none" => vec![head(206, &[("ETag", ETAG), ("Content-Length", "10")])],
        "/zipped" => vec![head(200, &[("Content-Encoding", "gzip"), ("Content-Length", "10")])],
        _ => vec![Step::Send(b"SSH-2.0-server\r\n".to_vec()), Step::Close],
    });
    let client = Client::new();
    let pin = tagged(ETAG, 100);
    for path in ["/other", "/none"] {
        let error = failure(client.read(&server.url(path), Some((10, 20)), &pin).await);
        assert!(matches!(error, SourceError::Malformed { .. }), "{path}: {error}");
    }
    let error = failure(client.stat(&server.url("/zipped")).await);
    assert!(
        matches!(&error, SourceError::Encoded { encoding, .. } if encoding == "gzip"),
        "{error}"
    );
    assert!(failure(client.stat(&server.url("/ssh")).await).is_transient());
    let error = failure(client.read(&server.url("/x"), Some((90, 101)), &pin).await);
    assert!(matches!(error, SourceError::Malformed { .. }), "{error}");
    assert!(server.requests().iter().all(|r| r.header("accept-encoding") == Some("identity")));
}
