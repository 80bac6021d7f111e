//! The proxy: programs of this machine that ask the web by a proxy ask through the agent.
//!
//! What an operator's rules name is answered from the tasks of the engine, as a mount or a mirror would be; everything else goes
//! to its origin and comes back as it is, and tunnels are carried without being looked into, except to hosts that the rules
//! name and for whose clients the operator has installed an authority. Whoever asks is judged by the origin each time: it is
//! asked for the head of a content as the client asks for it, before a byte is given.
//!
//! It is never an open proxy: it listens on loopback, or for named networks and who has a password or wants to go to named
//! places; no name leads to addresses of nobody, none of others to this machine, and no request comes to itself. When
//! the process dies here, answers break off in the middle; clients ask again.

mod asked;
mod client;
mod content;
mod direct;
mod file;
mod head;
mod options;
mod place;
mod rules;
mod tunnel;
mod users;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_service::net::{self, Serves};
use dfs_service::tls::StandIn;
use dfs_source::{HttpOptions, Reach, Relay, any_origin, look_up};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::asked::{Asked, Refusal};
use self::client::{Client, beyond_this_machine, is_of_this_machine};
pub use self::options::{Prepared, ProxyError, ProxyOptions};
use self::place::Authority;
pub use self::place::Place;
use self::rules::{Action, Rules};
use self::users::Users;
use super::answer::{self, Body, bytes};
use super::asked::Question;
use super::blob::Counts;
use super::clients;
use super::{Mirror, MirrorError, RegistryHost};
use crate::agent::Agent;

/// Says that it was dfs who answered.
const PROXY: HeaderName = HeaderName::from_static("dfs-proxy");

/// Stable codes of what the proxy says by itself.
const REFUSED: &str = "DFS-4161";
const NO_ORIGIN: &str = "DFS-4162";

/// What a proxy stands on.
pub struct Ground {
    /// The agent, which runs.
    pub agent: Agent,
    /// Its mirror of registries, where there can be one.
    pub mirror: Option<Mirror>,
    /// How origins are asked.
    pub http: HttpOptions,
    /// Ports that the agent listens on.
    pub own_ports: Vec<u16>,
    /// Where it is counted what the proxy does.
    pub counts: Arc<ProxyCounts>,
}

/// What the proxy has done.
#[derive(Debug, Default)]
pub struct ProxyCounts {
    /// Contents: what was given, and what broke off.
    pub given: Arc<Counts>,
    /// Requests that were answered from tasks.
    pub by_task: AtomicU64,
    /// Requests for what registries have.
    pub by_mirror: AtomicU64,
    /// Requests that were passed on.
    pub direct: AtomicU64,
    /// Requests that were refused, or whose origin could not be asked.
    pub refused: AtomicU64,
    /// Tunnels that were carried.
    pub tunnels: AtomicU64,
    /// Tunnels that were looked into.
    pub intercepted: AtomicU64,
    /// Bytes that passed through tunnels that have ended.
    pub tunnelled: AtomicU64,
}

/// A proxy; cheap to clone.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    agent: Agent,
    mirror: Option<Mirror>,
    options: ProxyOptions,
    rules: Rules,
    stand_in: Option<StandIn>,
    users: Option<Users>,
    /// How clients of this machine ask, and how others do.
    relays: [Relay; 2],
    own_ports: Vec<u16>,
    /// How it is known on the way.
    name: String,
    via: HeaderValue,
    counts: Arc<ProxyCounts>,
    tunnels: TaskTracker,
    stop: CancellationToken,
}

impl Proxy {
    /// One over an agent that runs.
    pub fn new(ground: Ground, prepared: Prepared) -> Result<Self, ProxyError> {
        let Ground { agent, mirror, http, own_ports, counts } = ground;
        let Prepared { options, rules, stand_in, users } = prepared;
        if rules.want_registries() && mirror.is_none() {
            return Err(MirrorError::OtherSource.into());
        }
        let relay =
            |is_asked| Relay::new(HttpOptions { reach: Reach::only(is_asked), ..http.clone() });
        let relays = [relay(any_origin)?, relay(beyond_this_machine)?];
        let name = format!("dfs-{:x}", agent.instance());
        let via = HeaderValue::from_str(&format!("1.1 {name}"));
        let via = via.unwrap_or(HeaderValue::from_static("1.1 dfs"));
        let (tunnels, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self(Arc::new(Inner {
            agent,
            mirror,
            options,
            rules,
            stand_in,
            users,
            relays,
            own_ports,
            name,
            via,
            counts,
            tunnels,
            stop,
        })))
    }

    /// Answers whoever comes until `stop` is cancelled; tunnels end with it.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let proxy = self.clone();
        let answer = move |from, request| {
            let proxy = proxy.clone();
            async move { proxy.answer(Client { from }, request).await }
        };
        let _stops = self.0.stop.clone().drop_guard();
        let served = net::serve_http((listener, Serves::Proxy), answer, stop).await;
        self.0.stop.cancel();
        self.0.tunnels.close();
        self.0.tunnels.wait().await;
        served
    }

    async fn answer(&self, client: Client, request: Request<Incoming>) -> Response<Body> {
        let _busy = self.0.agent.enter();
        let answered = match self.admitted(client, &request).await {
            Ok(Asked::Tunnel(to)) => self.connect(client, to, request).await,
            Ok(Asked::Content(url, to)) => self.content(client, (url, to), request).await,
            Err(refusal) => Err(refusal),
        };
        self.told(answered)
    }

    /// Answers what is asked within a connection to `to`, of whom was let in when it began.
    async fn answer_within(
        &self,
        client: Client,
        to: Authority,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let head = (request.method(), request.uri(), request.headers());
        let answered = match Asked::within(&to, head, &self.0.name) {
            Ok(Asked::Content(url, to)) => self.content(client, (url, to), request).await,
            Ok(Asked::Tunnel(_)) => Err(Refusal::Elsewhere(to)),
            Err(refusal) => Err(refusal),
        };
        self.told(answered)
    }

    fn told(&self, answered: Result<Response<Body>, Refusal>) -> Response<Body> {
        self.0.counts.given.answers.fetch_add(1, Ordering::Relaxed);
        answered.unwrap_or_else(|refusal| {
            self.0.counts.refused.fetch_add(1, Ordering::Relaxed);
            refused(&refusal)
        })
    }

    /// What is asked by whom may ask.
    async fn admitted(
        &self,
        client: Client,
        request: &Request<Incoming>,
    ) -> Result<Asked, Refusal> {
        if !clients::let_in(&self.0.options.clients, client.from) {
            return Err(Refusal::Client);
        }
        let headers = request.headers();
        if let Some(users) = &self.0.users
            && !users.let_in(headers.get(PROXY_AUTHORIZATION)).await
        {
            return Err(Refusal::Unknown);
        }
        Asked::of(request.method(), request.uri(), headers, &self.0.name)
    }

    async fn content(
        &self,
        client: Client,
        (url, to): (dfs_model::CanonicalUrl, Authority),
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        self.check_place(client, &to).await?;
        let decided = self.0.rules.decide(request.method(), &url, request.headers());
        let decided = decided.map_err(Refusal::Nowhere)?;
        let mut headers = head::of_request(request.headers(), &self.0.via);
        let led = Authority::of_url(decided.url.url()).ok_or(Refusal::Nowhere(decided.rule))?;
        if decided.url.url().origin() != url.url().origin() {
            // What shows who somebody is was for somebody else.
            head::without_login(&mut headers);
        }
        let counts = &self.0.counts;
        let has_body = !request.body().is_end_stream();
        let shared = match decided.action {
            Action::Refuse => return Err(Refusal::Rule(decided.rule)),
            _ if has_body => None,
            Action::Swarm(shared) => {
                self.check_reach(client, &led).await?;
                let head = (request.method(), &decided.url, &headers);
                let answered = Box::pin(self.by_task(client, head, shared)).await;
                answered.map(|answer| (answer, &counts.by_task))
            }
            Action::Registry => {
                self.check_reach(client, &led).await?;
                let head = (request.method(), &decided.url, &headers);
                let answered = Box::pin(self.by_mirror(&led, head)).await;
                answered.map(|answer| (answer, &counts.by_mirror))
            }
            Action::Direct | Action::Redirect(_) => None,
        };
        if let Some((answer, count)) = shared {
            count.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        counts.direct.fetch_add(1, Ordering::Relaxed);
        self.direct(client, (&decided.url, headers), request).await
    }

    /// Answers from the task of a blob, or what a registry says, as the mirror does; nothing where that is asked for nothing.
    async fn by_mirror(
        &self,
        to: &Authority,
        (method, url, headers): (&hyper::Method, &dfs_model::CanonicalUrl, &HeaderMap),
    ) -> Option<Response<Body>> {
        let mirror = self.0.mirror.as_ref()?;
        let registry: RegistryHost = url.origin().parse().ok()?;
        let question = Question::to(&registry, method, url.url().path())?;
        // It is asked as it is named, and nobody's connection is made less safe.
        let is_alike = mirror.registries().scheme(&question.reference);
        if url.url().scheme() != is_alike || url.url().query().is_some() {
            return None;
        }
        tracing::debug!(%to, url = %url, "a registry is asked in its clients' place");
        Some(mirror.answer(&question, headers).await)
    }

    /// Whether a client may go there.
    async fn check_place(&self, client: Client, to: &Authority) -> Result<(), Refusal> {
        let options = &self.0.options;
        if !options.allow.is_empty() && !options.allow.iter().any(|place| place.has(to)) {
            return Err(Refusal::Place(to.clone()));
        }
        if !self.0.own_ports.contains(&to.port) {
            return Ok(());
        }
        // A name that leads nowhere is told by who asks there.
        let found = look_up(to.bare(), to.port, client.reach()).await.unwrap_or_default();
        match found.iter().any(|at| is_of_this_machine(at.ip())) {
            true => Err(Refusal::Itself(to.clone())),
            false => Ok(()),
        }
    }

    /// Whether a place may be asked for by the engine, which does not know on whose behalf.
    async fn check_reach(&self, client: Client, to: &Authority) -> Result<(), Refusal> {
        let found = look_up(to.bare(), to.port, Reach::default()).await.unwrap_or_default();
        let is_asked = client.reach().named;
        match found.iter().all(|at| is_asked(at.ip())) {
            true => Ok(()),
            false => Err(Refusal::Address(to.clone())),
        }
    }

    fn relay(&self, client: Client) -> &Relay {
        let [ours, others] = &self.0.relays;
        if client.is_ours() { ours } else { others }
    }
}

/// An answer of the proxy itself.
fn answered(status: StatusCode, head: HeaderMap, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = head;
    answer.headers_mut().insert(PROXY, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    answer
}

/// What is not answered, and why. The connection ends with it: what stands behind a strange request is no other request.
fn refused(refusal: &Refusal) -> Response<Body> {
    let code = match refusal {
        Refusal::Failed(..) | Refusal::Unreached(..) => NO_ORIGIN,
        _ => REFUSED,
    };
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    head.insert(CONNECTION, HeaderValue::from_static("close"));
    if *refusal == Refusal::Unknown {
        let wanted = "Basic realm=\"dfs proxy\", charset=\"UTF-8\"";
        answer::put(&mut head, PROXY_AUTHENTICATE, wanted);
    }
    answered(refusal.status(), head, bytes(format!("{refusal}  {code}\n").into()))
}
