//! The HTTP page of a process for machines: `/metrics`, `/livez`, `/readyz`.
//!
//! Alive means that the runtime still answers. Ready means that every named check is: a check
//! that was never reported, or whose owner is gone, is not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::net::incoming::Pages;

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
    async fn metrics_are_scraped_as_text() {
        let router = router(Arc::new(Metrics::new()), Readiness::default());
        let (status, page) = get(&router, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("process_open_fds"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
