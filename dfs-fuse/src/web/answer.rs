//! Answers: what of a registry's head goes on to the client, and errors as registries tell them.

use bytes::Bytes;
use dfs_peer::error_chain;
use dfs_source::oci::ContentDigest;
use dfs_source::{PassedAnswer, SourceError};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    LAST_MODIFIED, RETRY_AFTER, WARNING, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

use super::asked::Refusal;

/// What a body fails with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The digest of what is given.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Says that it was dfs who answered.
const MIRROR: HeaderName = HeaderName::from_static("dfs-mirror");

/// What of a registry's head the client is told.
const PASSED: [HeaderName; 14] = [
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    RETRY_AFTER,
    WARNING,
    WWW_AUTHENTICATE,
    CONTENT_DIGEST,
    API_VERSION,
    HeaderName::from_static("oci-subject"),
    HeaderName::from_static("oci-filters-applied"),
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
    HeaderName::from_static("docker-ratelimit-source"),
];

/// Stable codes of what the mirror says by itself.
const REFUSED: &str = "DFS-4151";
const NO_REGISTRY: &str = "DFS-4152";

/// No bytes.
pub fn nothing() -> Body {
    bytes(Bytes::new())
}

/// These bytes.
pub fn bytes(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with this head.
pub fn answer(status: StatusCode, head: HeaderMap, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = head;
    answer.headers_mut().insert(MIRROR, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    answer
}

/// What of a registry's head goes on to the client.
pub fn passed_head(answer: &PassedAnswer) -> HeaderMap {
    let mut head = HeaderMap::new();
    for name in &PASSED {
        for value in answer.headers().get_all(name) {
            head.append(name, value.clone());
        }
    }
    head
}

/// The status that the registry answered with.
pub fn status_of(answer: &PassedAnswer) -> StatusCode {
    StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::BAD_GATEWAY)
}

/// It is here, and speaks the protocol.
pub fn pong() -> Response<Body> {
    let mut head = HeaderMap::new();
    head.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer(StatusCode::OK, head, bytes(Bytes::from_static(b"{}")))
}

/// The head of a blob, or of a part of it, of this length.
pub fn blob_head(of_registry: &PassedAnswer, digest: &ContentDigest, length: u64) -> HeaderMap {
    let mut head = HeaderMap::new();
    let kind = of_registry.headers().get(CONTENT_TYPE).cloned();
    let unknown = HeaderValue::from_static("application/octet-stream");
    head.insert(CONTENT_TYPE, kind.unwrap_or(unknown));
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.insert(CONTENT_LENGTH, length.into());
    put(&mut head, CONTENT_DIGEST, &digest.to_string());
    put(&mut head, ETAG, &format!("\"{digest}\""));
    head
}

/// Puts a value that is made of what a header can carry.
pub fn put(head: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        head.insert(name, value);
    }
}

/// What is not answered, and why. The connection ends with it: what stands behind a strange request is no other request.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    let (status, word) = refusal.told();
    let mut answer = error(status, word, &refusal.to_string(), REFUSED);
    let head = answer.headers_mut();
    head.insert(CONNECTION, HeaderValue::from_static("close"));
    if *refusal == Refusal::Method {
        head.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

/// The registry could not be asked.
pub fn failure(error_of: &SourceError) -> Response<Body> {
    error(status_of_failure(error_of), "UNKNOWN", &error_chain(error_of), NO_REGISTRY)
}

/// The status that says that an origin could not be asked.
pub fn status_of_failure(error: &SourceError) -> StatusCode {
    match error {
        SourceError::Timeout { .. } | SourceError::Stalled { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// What came from the registry is not what it is named.
pub fn other_content(told: &str) -> Response<Body> {
    error(StatusCode::BAD_GATEWAY, "DIGEST_INVALID", told, NO_REGISTRY)
}

fn error(status: StatusCode, word: &str, message: &str, code: &str) -> Response<Body> {
    let errors = json!({ "errors": [{ "code": word, "message": message, "detail": code }] });
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer(status, head, bytes(errors.to_string().into()))
}
