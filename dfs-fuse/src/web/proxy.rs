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
mod content;
mod direct;
mod head;
mod place;
mod rules;
mod tunnel;
mod users;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_service::net::{self, Serves};
use dfs_service::tls::{StandIn, StandInError};
use dfs_source::{HttpOptions, Reach, Relay, SourceError, any_origin, look_up};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::asked::{Asked, Refusal};
use self::place::Authority;
pub use self::place::Place;
use self::rules::{Action, Rules, RulesError};
use self::users::{Users, UsersError};
use super::answer::{self, Body, bytes};
use super::asked::Question;
use super::blob::Counts;
use super::clients::{self, Network};
use super::{Mirror, MirrorError, RegistryHost};
use crate::agent::Agent;

/// Says that it was dfs who answered.
const PROXY: HeaderName = HeaderName::from_static("dfs-proxy");

/// Stable codes of what the proxy says by itself.
const REFUSED: &str = "DFS-4161";
const NO_ORIGIN: &str = "DFS-4162";

/// For whom there is a proxy, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// File of rules.
    pub rules: Option<PathBuf>,
    /// Files of the authority that signs in the place of hosts that rules name.
    pub ca_cert: Option<PathBuf>,
    /// Its key.
    pub ca_key: Option<PathBuf>,
    /// Networks of other machines that may ask.
    pub clients: Vec<Network>,
    /// File of names and passwords.
    pub users: Option<PathBuf>,
    /// Where clients may go; anywhere where nothing is named.
    pub allow: Vec<Place>,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Others could reach it, and nothing says who may, and what.
    #[error(
        "refusing to be a proxy on {listen}: others can reach it; name the networks that may ask \
         (--proxy-client 10.0.0.0/8), and who has a password (--proxy-users FILE) or where they may go \
         (--proxy-allow HOST), or listen on loopback (127.0.0.1 or ::1)"
    )]
    Open {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// A certificate without a key, or a key without one.
    #[error(
        "the authority of the proxy is a certificate and its key: name both (--proxy-ca-cert FILE --proxy-ca-key FILE)"
    )]
    HalfAnAuthority,
    /// Nothing to look into connections with.
    #[error(
        "{} has connections to {hosts} looked into, and no authority that clients trust for that: name one \
         (--proxy-ca-cert FILE --proxy-ca-key FILE), or take `intercept` out of it",
        rules.display()
    )]
    NoAuthority {
        /// The file of rules.
        rules: PathBuf,
        /// Hosts that are to be looked into.
        hosts: String,
    },
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Who may ask.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The authority.
    #[error("the authority of the proxy cannot be used")]
    Authority(#[from] StandInError),
    /// There is no mirror to answer by.
    #[error("a rule of the proxy is for registries")]
    Mirror(#[from] MirrorError),
    /// How origins are asked.
    #[error(transparent)]
    Origins(#[from] SourceError),
}

impl ProxyError {
    /// Whether it is for who started the process to mend.
    pub fn is_of_usage(&self) -> bool {
        !matches!(self, Self::Origins(_) | Self::Mirror(_))
    }
}

impl ProxyOptions {
    /// All that they name, read and understood.
    pub fn prepared(self) -> Result<Prepared, ProxyError> {
        self.check()?;
        let (rules, stand_in) = (self.rules()?, self.stand_in()?);
        let users = self.users.as_deref().map(Users::load).transpose()?;
        Ok(Prepared { options: self, rules, stand_in, users })
    }

    /// Whether it is nobody's open proxy.
    fn check(&self) -> Result<(), ProxyError> {
        if self.ca_cert.is_some() != self.ca_key.is_some() {
            return Err(ProxyError::HalfAnAuthority);
        }
        let is_ours = self.listen.ip().to_canonical().is_loopback();
        let goes_anywhere = self.allow.is_empty() || self.allow.iter().any(Place::is_everywhere);
        let is_bounded = !self.clients.is_empty() && (self.users.is_some() || !goes_anywhere);
        match is_ours || is_bounded {
            true => Ok(()),
            false => Err(ProxyError::Open { listen: self.listen }),
        }
    }

    fn rules(&self) -> Result<Rules, ProxyError> {
        let Some(file) = &self.rules else { return Ok(Rules::default()) };
        let rules = Rules::load(file)?;
        match rules.intercepted() {
            Some(hosts) if self.ca_cert.is_none() => {
                Err(ProxyError::NoAuthority { rules: file.clone(), hosts })
            }
            _ => Ok(rules),
        }
    }

    fn stand_in(&self) -> Result<Option<StandIn>, ProxyError> {
        let files = self.ca_cert.as_ref().zip(self.ca_key.as_ref());
        Ok(files.map(|(certificate, key)| StandIn::load(certificate, key)).transpose()?)
    }
}

/// A proxy that can be started.
pub struct Prepared {
    options: ProxyOptions,
    rules: Rules,
    stand_in: Option<StandIn>,
    users: Option<Users>,
}

impl Prepared {
    /// Where it is to listen.
    pub fn listen(&self) -> SocketAddr {
        self.options.listen
    }
}

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

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Client {
    from: SocketAddr,
}

impl Client {
    /// Whether it is of this machine, and can reach by itself what only this machine can.
    fn is_ours(self) -> bool {
        self.from.ip().to_canonical().is_loopback()
    }

    fn reach(self) -> Reach {
        if self.is_ours() { any_origin } else { beyond_this_machine }
    }
}

/// What others may be led to.
fn beyond_this_machine(ip: IpAddr) -> bool {
    any_origin(ip) && !is_of_this_machine(ip)
}

/// Whether an address is one of this machine's: nobody else can listen there.
fn is_of_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
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
        let relay = |reach| Relay::new(HttpOptions { reach, ..http.clone() });
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
        if led.host != to.host {
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
        let is_alike = mirror.registries().scheme(question.reference.address());
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
        let found = look_up(to.bare(), to.port, any_origin).await.unwrap_or_default();
        match found.iter().all(|at| client.reach()(at.ip())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str, clients: &[&str], users: bool, allow: &[&str]) -> ProxyOptions {
        ProxyOptions {
            listen: listen.parse().unwrap(),
            rules: None,
            ca_cert: None,
            ca_key: None,
            clients: clients.iter().map(|network| network.parse().unwrap()).collect(),
            users: users.then(|| "users".into()),
            allow: allow.iter().map(|place| place.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn others_are_let_in_only_where_it_is_said_who_and_by_what_or_where_to() {
        let who = &["10.0.0.0/8"][..];
        assert!(options("127.0.0.1:4051", &[], false, &[]).check().is_ok());
        assert!(options("[::1]:4051", &[], false, &["*"]).check().is_ok());
        assert!(options("0.0.0.0:4051", who, true, &[]).check().is_ok());
        assert!(options("0.0.0.0:4051", who, false, &["*.test"]).check().is_ok());
        for open in [
            options("0.0.0.0:4051", &[], true, &["a.test"]),
            options("[::]:4051", who, false, &[]),
            options("10.0.0.1:4051", who, false, &["a.test", "*"]),
            options("[::ffff:10.0.0.1]:1", who, false, &["*:443"]),
        ] {
            let error = open.check().unwrap_err().to_string();
            assert!(error.contains("--proxy-client"), "{error}");
        }
        let mut half = options("127.0.0.1:4051", &[], false, &[]);
        half.ca_key = Some("key".into());
        assert!(half.check().unwrap_err().to_string().contains("--proxy-ca-cert"));
    }

    #[test]
    fn what_is_looked_into_needs_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, "intercept = ['a.test', '*.b.test']\n").unwrap();
        let mut options = options("127.0.0.1:4051", &[], false, &[]);
        options.rules = Some(file);
        let error = options.rules().err().unwrap().to_string();
        for says in ["a.test, *.b.test", "--proxy-ca-cert", "rules.toml"] {
            assert!(error.contains(says), "{error}");
        }
        options.ca_cert = Some("ca.pem".into());
        assert!(options.rules().is_ok());
    }

    #[test]
    fn others_are_not_led_to_this_machine() {
        let client = |from: &str| Client { from: from.parse().unwrap() };
        let (ours, theirs) = (client("[::ffff:127.0.0.1]:1"), client("10.0.0.1:1"));
        for ip in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let ip = ip.parse().unwrap();
            assert!(ours.reach()(ip) && !theirs.reach()(ip), "{ip}");
        }
        for ip in ["169.254.169.254", "0.0.0.0", "fe80::1"] {
            let ip = ip.parse().unwrap();
            assert!(!ours.reach()(ip) && !theirs.reach()(ip), "{ip}");
        }
        // Of no machine: for documents.
        assert!(theirs.reach()("198.51.100.7".parse().unwrap()));
    }
}
