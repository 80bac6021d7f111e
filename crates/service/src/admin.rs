//! The HTTP page of a process for machines: `/metrics`, `/livez`, `/readyz`.
//!
//! Alive means that the runtime still answers. Ready means that every named check is: a check
//! that was never reported, or whose owner is gone, is not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::net::incoming::Pages;
use crate::private_file;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The named checks that readiness consists of. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<&'static str, CheckState>>>,
}

/// The owner's end of one check.
#[derive(Debug)]
pub struct Check {
    name: &'static str,
    readiness: Readiness,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum CheckState {
    Ready,
    NotReady(String),
}

impl Readiness {
    /// Adds a check, not ready until its owner says so.
    pub fn check(&self, name: &'static str) -> Check {
        self.set(name, CheckState::NotReady("starting".to_owned()));
        Check { name, readiness: self.clone() }
    }

    /// Whether all checks are ready.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|state| *state == CheckState::Ready)
    }

    fn set(&self, name: &'static str, state: CheckState) {
        self.lock().insert(name, state);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, CheckState>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all are ready, and a line for each: `ok NAME` or `not ready NAME: REASON`.
    pub fn report(&self) -> (bool, String) {
        let mut page = String::new();
        let mut ready = true;
        for (name, state) in self.lock().iter() {
            let line = match state {
                CheckState::Ready => writeln!(page, "ok {name}"),
                CheckState::NotReady(reason) => {
                    ready = false;
                    writeln!(page, "not ready {name}: {reason}")
                }
            };
            line.expect("writing to a String does not fail");
        }
        (ready, page)
    }
}

impl Check {
    /// It is ready now.
    pub fn ready(&self) {
        self.readiness.set(self.name, CheckState::Ready);
    }

    /// It is not, because of `reason`.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, CheckState::NotReady(reason.into()));
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.not_ready("stopped");
    }
}

/// Characters that a token has at least: nobody tries so many out.
const SHORTEST: usize = 16;
/// Bytes of a token's file that are looked at.
const TOKEN_BYTES: u64 = 4096;

/// Why pages are not given to others.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// Nothing says who may read them.
    #[error(
        "metrics-listen wants metrics-token-file: who is not on this machine reads metrics with a token only"
    )]
    NoToken,
    /// There is no such file, or it cannot be read.
    #[error("cannot read the token of metrics in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Anybody could find it out.
    #[error("the token of metrics in {} is not one line of at least {SHORTEST} characters", path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// What who reads pages from another machine must show. Kept as its hash, which is compared in constant time.
#[derive(Debug, Clone, Copy)]
pub struct Token(blake3::Hash);

impl Token {
    /// The one in the first line of a file.
    pub fn of(path: Option<&Path>) -> Result<Self, PagesError> {
        let path = path.ok_or(PagesError::NoToken)?;
        let failed = |source| PagesError::Read { path: path.to_owned(), source };
        let bytes = private_file::read(path, TOKEN_BYTES).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let token = bytes.trim_ascii();
        if token.len() < SHORTEST || !token.iter().all(u8::is_ascii_graphic) {
            return Err(PagesError::Short { path: path.to_owned() });
        }
        Ok(Self(blake3::hash(token)))
    }

    fn is_shown(self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        shown
            .and_then(|shown| shown.split_at_checked(BEARER.len()))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER))
            .is_some_and(|(_, token)| blake3::hash(token) == self.0)
    }

    /// The same routes for who shows it.
    pub fn guard(self, router: Router) -> Router {
        router.layer(from_fn(move |request: Request, next: Next| async move {
            if self.is_shown(request.headers()) {
                return next.run(request).await;
            }
            let wanted = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, wanted, "a token is wanted\n").into_response()
        }))
    }
}

const BEARER: &[u8] = b"Bearer ";

/// The routes, to be served alone or beside others.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(metrics)
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(readiness))
}

/// Serves `router` until `token` is cancelled and its open requests are answered. A connection is asked one thing, and
/// is closed when that takes too long: nobody keeps one.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    token: CancellationToken,
) -> io::Result<()> {
    let router = router.layer(map_response(async |mut response: Response| {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }));
    axum::serve(Pages::new(listener), router).with_graceful_shutdown(token.cancelled_owned()).await
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode())
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let (ready, page) = readiness.report();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, page)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_process_is_ready_when_every_check_is() {
        let readiness = Readiness::default();
        let router = router(Arc::new(Metrics::new()), readiness.clone());
        let store = readiness.check("store");
        let cluster = readiness.check("cluster");
        store.ready();
        cluster.not_ready("manager does not answer");
        let (status, page) = get(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(page, "not ready cluster: manager does not answer\nok store\n");
        cluster.ready();
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
        drop(store);
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&router, "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn who_reads_from_elsewhere_shows_the_token() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        let told = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Token::of(Some(&file))
        };
        assert!(matches!(Token::of(None), Err(PagesError::NoToken)));
        assert!(matches!(Token::of(Some(&file)), Err(PagesError::Read { .. })));
        for bad in ["", "short", "two words in one line", "0123456789abcdef\n0123"] {
            assert!(matches!(told(bad), Err(PagesError::Short { .. })), "{bad}");
        }
        let token = told("0123456789abcdef\n").unwrap();
        let router = token.guard(router(Arc::new(Metrics::new()), Readiness::default()));
        for (shown, status) in [
            (None, StatusCode::UNAUTHORIZED),
            (Some("Bearer 0123456789abcdeg"), StatusCode::UNAUTHORIZED),
            (Some("Basic 0123456789abcdef"), StatusCode::UNAUTHORIZED),
            (Some("B"), StatusCode::UNAUTHORIZED),
            (Some("bearer 0123456789abcdef"), StatusCode::OK),
        ] {
            for page in ["/metrics", "/livez", "/readyz"] {
                let mut request = axum::http::Request::get(page);
                if let Some(shown) = shown {
                    request = request.header(header::AUTHORIZATION, shown);
                }
                let asked = router.clone().oneshot(request.body(Body::empty()).unwrap());
                assert_eq!(asked.await.unwrap().status(), status, "{shown:?} {page}");
            }
        }
    }

    #[tokio::test]
    async fn metrics_are_scraped_as_text() {
        let router = router(Arc::new(Metrics::new()), Readiness::default());
        let (status, page) = get(&router, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("process_open_fds"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
