//! What cannot be shared, or need not be: passed on as it is, in both directions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfs_model::CanonicalUrl;
use dfs_peer::error_chain;
use dfs_source::{PassedAnswer, SourceError, Unreached};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};

use super::asked::Refusal;
use super::place::Authority;
use super::{Client, Proxy, head};
use crate::web::answer::{Body, BodyError, status_of, status_of_failure};
use crate::web::blob::Counts;

impl Proxy {
    /// Passes a request on to its origin, and the answer back.
    pub(super) async fn direct(
        &self,
        client: Client,
        (url, headers): (&CanonicalUrl, hyper::HeaderMap),
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let relay = self.relay(client);
        let (parts, body) = request.into_parts();
        let asking = async {
            match body.is_end_stream() {
                true => relay.ask(parts.method, url, headers).await,
                false => relay.ask_with(parts.method, url, headers, body).await,
            }
        };
        let answered = Box::pin(asking).await.map_err(|error| failed(url, &error))?;
        Ok(self.passed_back(answered, url))
    }

    fn passed_back(&self, answered: PassedAnswer, url: &CanonicalUrl) -> Response<Body> {
        let mut answer = Response::new(());
        *answer.status_mut() = status_of(&answered);
        *answer.headers_mut() = head::of_answer(answered.headers(), &self.0.via);
        let counts = Arc::clone(&self.0.counts.given);
        answer.map(|()| counted(answered, counts, url.to_string()))
    }
}

/// The body of an answer, which breaks where the origin's does.
fn counted(answered: PassedAnswer, counts: Arc<Counts>, content: String) -> Body {
    let frames = answered.into_frames().map(move |frame| match frame {
        Ok(frame) => {
            let length = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            counts.by_origin.fetch_add(length, Ordering::Relaxed);
            Ok(frame)
        }
        Err(error) => {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(content, error = error_chain(&error), "an answer breaks off");
            Err(BodyError::from(error))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// An origin that could not be asked.
pub(super) fn failed(url: &CanonicalUrl, error: &SourceError) -> Refusal {
    let place = Authority::of_url(url.url());
    if let Some(place) = place.filter(|_| Unreached::is_why(error)) {
        return Refusal::Address(place);
    }
    Refusal::Failed(status_of_failure(error), error_chain(error))
}
