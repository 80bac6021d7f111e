//! Requests of others, passed on as they are: what comes is sent, what is answered comes back, and nothing is followed,
//! added or tried again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::CanonicalUrl;
use http_body::Body;
use http_body_util::BodyExt as _;
use reqwest::Method;
use reqwest::header::HeaderMap;

use super::exchange::Answer;
use super::{HttpOptions, PassedAnswer, Web, client, reach};
use crate::{Action, Activity, Attempt, Counters, SourceError};

/// How long an origin may think about what it is asked, and be silent in its answer: others wait for longer than we do.
const THINKS_WITHIN: Duration = Duration::from_secs(300);

/// Sends requests of others; cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Web>);

impl Relay {
    /// One that asks as `options` say, beside the time that it has and the name that it bears.
    pub fn new(options: HttpOptions) -> Result<Self, SourceError> {
        let options = HttpOptions {
            answer_timeout: THINKS_WITHIN,
            stall_timeout: THINKS_WITHIN,
            user_agent: String::new(),
            ..options
        };
        // What passes through is nothing that this host reads.
        Ok(Self(Arc::new(Web::new(options, Arc::<Counters>::default())?)))
    }

    /// Asks for something without a body.
    pub async fn ask(
        &self,
        method: Method,
        url: &CanonicalUrl,
        headers: HeaderMap,
    ) -> Result<PassedAnswer, SourceError> {
        self.send(method, url, headers, None).await
    }

    /// Asks with a body, which is sent as it comes.
    pub async fn ask_with<B>(
        &self,
        method: Method,
        url: &CanonicalUrl,
        headers: HeaderMap,
        body: B,
    ) -> Result<PassedAnswer, SourceError>
    where
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let activity = Arc::new(Activity::default());
        let seen = Arc::clone(&activity);
        let body = body.map_frame(move |frame| {
            seen.note(frame.data_ref().map_or(0, Bytes::len));
            frame
        });
        self.send(method, url, headers, Some((reqwest::Body::wrap(body), activity))).await
    }

    async fn send(
        &self,
        method: Method,
        url: &CanonicalUrl,
        headers: HeaderMap,
        body: Option<(reqwest::Body, Arc<Activity>)>,
    ) -> Result<PassedAnswer, SourceError> {
        let web = &self.0;
        let attempt = Attempt::new(Action::Read(None), url);
        let refused = |unreached| SourceError::Unreachable {
            attempt: attempt.clone(),
            cause: Arc::new(unreached),
        };
        reach::check(url.url(), web.options.reach.named).map_err(refused)?;
        let mut request = web.client.request(method, url.url().clone()).headers(headers);
        let mut activity = Arc::default();
        if let Some((body, seen)) = body {
            request = request.body(body);
            activity = seen;
        }
        web.counters.request();
        let limit = web.options.answer_timeout;
        let answered = tokio::select! {
            answered = request.send() => answered,
            () = activity.quiet_for(limit) => {
                return Err(SourceError::Timeout { attempt, limit });
            }
        };
        let response = answered.map_err(|error| client::classify(error, &attempt, &web.options))?;
        let answer = Answer { response, url: url.url().clone(), stays: url.clone() };
        Ok(PassedAnswer::new(answer, Arc::clone(web), attempt))
    }
}
