//! Where the mirror listens: who is let in, and which registries they may ask.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use dfs_service::net::{self, Serves};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Body};
use super::asked::{Question, Refusal};
use super::{Mirror, MirrorError, MirrorOptions};

/// A mirror that listens; cheap to clone.
#[derive(Clone)]
pub struct Mirroring {
    mirror: Mirror,
    options: MirrorOptions,
}

impl Mirroring {
    /// Listens for `mirror`.
    pub fn new(mirror: Mirror, options: MirrorOptions) -> Result<Self, MirrorError> {
        options.check()?;
        Ok(Self { mirror, options })
    }

    /// Answers whoever comes until `stop` is cancelled.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let answer = move |from, request| {
            let mirroring = self.clone();
            async move { mirroring.answer(from, request).await }
        };
        net::serve_http((listener, Serves::Mirror), answer, stop).await
    }

    async fn answer(&self, from: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let _busy = self.mirror.agent().enter();
        self.mirror.counts().answers.fetch_add(1, Ordering::Relaxed);
        match self.question(from, &request) {
            Ok(question) => self.mirror.answer(&question, request.headers()).await,
            Err(refusal) => answer::refusal(&refusal),
        }
    }

    fn question(&self, from: SocketAddr, request: &Request<Incoming>) -> Result<Question, Refusal> {
        let options = &self.options;
        if !options.lets_in(from) {
            return Err(Refusal::Client);
        }
        let head = (request.method(), request.uri(), request.headers());
        let question = Question::of(head, &options.default)?;
        match options.has(&question.registry) {
            true => Ok(question),
            false => Err(Refusal::OtherRegistry(question.registry)),
        }
    }
}
