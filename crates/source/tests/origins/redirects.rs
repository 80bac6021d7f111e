//! Redirects: followed, bounded, and never with somebody's credentials to somebody else.

use dfs_model::CanonicalUrl;
use dfs_source::{Credentials, SourceError, StatKind};

use crate::scripted::{Server, Step, file, head};
use crate::{Client, content, failure, tagged, target};

const ETAG: &str = "\"v1\"";

fn redirect(status: u16, location: &str) -> Vec<Step> {
    vec![head(status, &[("Location", location), ("Content-Length", "0")])]
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_host_and_content_headers_do() {
    let bytes = content(100);
    let served = bytes.clone();
    let other = Server::start(move |_, request| file(&served, ETAG, request));
    let location = other.url("/moved?signature=abc");
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/x" => redirect(307, "/y"),
        _ => redirect(302, &location),
    });
    let client = Client::new();
    let asked = target(&server.url("/x").replace("://", "://ada:pw@"))
        .with_header("X-Api-Key", "k")
        .and_then(|target| target.with_header("X-Variant", "big"))
        .unwrap();
    let source = client.source(&asked);
    let pin = tagged(ETAG, 100);
    let stream = source.read(&asked, None, &pin).await.unwrap();
    assert_eq!(crate::collect(stream).await.unwrap(), bytes);

    for request in server.requests() {
        assert_eq!(request.header("authorization"), Some("Basic YWRhOnB3"));
        assert_eq!(request.header("x-api-key"), Some("k"));
    }
    assert_eq!(server.requests().len(), 2);
    let [request] = &other.requests()[..] else { panic!("one request arrives") };
    assert_eq!(request.header("x-variant"), Some("big"));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.header("x-api-key"), None);
    assert_eq!(client.counted().requests, 3);

    let stat = source.stat(&asked).await.unwrap();
    assert_eq!(stat.url, asked.url);
}

#[tokio::test]
async fn a_redirect_loop_ends_in_a_clear_error() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/file" => redirect(302, "file:///etc/passwd"),
        "/nowhere" => vec![head(302, &[("Content-Length", "0")])],
        _ => redirect(302, "/loop"),
    });
    let client = Client::new();
    let error = failure(client.stat(&server.url("/loop")).await);
    assert!(matches!(error, SourceError::Redirect { .. }), "{error}");
    assert_eq!(server.requests().len(), 11);
    for path in ["/file", "/nowhere"] {
        let error = failure(client.stat(&server.url(path)).await);
        assert!(matches!(error, SourceError::Redirect { .. }), "{error}");
    }
    assert_eq!(server.requests().len(), 13);
}

#[tokio::test]
async fn a_directory_without_its_slash_is_known_by_its_lasting_name() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/dir" => redirect(301, "/dir/"),
        _ => vec![head(200, &[("Content-Type", "text/html"), ("Content-Length", "100")])],
    });
    let client = Client::new();
    let stat = client.stat(&server.url("/dir")).await.unwrap();
    assert_eq!(stat.kind, StatKind::Directory);
    assert_eq!(stat.url, CanonicalUrl::parse(&server.url("/dir/")).unwrap());
    assert_eq!(stat.length, None);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_bearer_token_reaches_its_origin_and_no_error() {
    let server = Server::start(|_, _| vec![head(403, &[("Content-Length", "0")])]);
    let client = Client::new();
    let asked =
        target(&server.url("/x?token=hush")).with_credentials(Credentials::Bearer("hush".into()));
    let error = failure(client.source(&asked).stat(&asked).await);
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer hush"));
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hush"), "{shown}");
}
