//! Getting certificates: the first one for a token, each next one in time.
//!
//! What is renewed is used for new connections; those that there are go on. While no manager answers, the process goes
//! on with what it has until that expires; then nobody takes it any more, and the machine has to join again.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_peer::dial::Callee;
use dfs_peer::error_chain;
use dfs_proto::manager::enrolment_client::EnrolmentClient;
use dfs_proto::manager::{self, CertificateRequest, JoinRequest};
use rustls::CertificateError;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::authority::{Authority, AuthorityError};
use super::credentials::{Credentials, CredentialsError, pending_key};
use super::identity::Identity;
use super::names::BadNames;
use super::request::{BadRequest, Host, Key, SigningRequest, ask, names_of};
use super::token::JoinToken;
use crate::config::ServiceAddress;
use crate::net::{Security, grpc_channel, grpc_channel_by_token};
use crate::{Backoff, OnFailure, Tracker};

/// How long a manager that does not answer is asked again by who joins: it may just be starting.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
/// Pauses in between.
const JOIN_RETRY: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2) };
/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// A part of the time of a certificate that is left when it is renewed: one in so many.
const LEFT: u32 = 3;
/// Clocks are looked at again after so long: a machine that slept has not noticed.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Pauses between attempts to renew.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(300);

/// Why a process has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The manager says no.
    #[error("the manager at {manager} gives no certificate: {why}")]
    Refused {
        /// Who was asked.
        manager: ServiceAddress,
        /// What it says.
        why: String,
    },
    /// Somebody else answers.
    #[error(
        "what answers at {manager} is not the manager that this token is for: it shows another \
         certificate authority; get a new token with `dfctl cluster join-token`"
    )]
    Stranger {
        /// Who was asked.
        manager: ServiceAddress,
    },
    /// Nobody answers.
    #[error("the manager at {manager} is not reached: {why}")]
    Unreached {
        /// Who was asked.
        manager: ServiceAddress,
        /// What came of it.
        why: String,
    },
    /// What is kept is another process's.
    #[error(
        "the certificate kept here is that of {found}, and this is {expected}: join again with \
         --join JOIN-TOKEN"
    )]
    OfAnother {
        /// Whom it names.
        found: String,
        /// Who this is.
        expected: String,
    },
    /// Nobody is known who could be asked.
    #[error(
        "no manager is known that could renew the certificate: join again with --join JOIN-TOKEN"
    )]
    NoManager,
    /// The own authority does not sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// What cannot be read or kept.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A request that cannot be made.
    #[error("no certificate can be asked for")]
    Request(#[from] rcgen::Error),
    /// Names that do not go together.
    #[error(transparent)]
    Names(#[from] BadNames),
    /// The own request is no good.
    #[error(transparent)]
    Malformed(#[from] BadRequest),
    /// The answer is of no use to TLS.
    #[error("the certificate cannot be used")]
    Unusable(#[from] rustls::Error),
}

impl EnrolError {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unreached { .. })
    }
}

/// Joins with a token; what is given for it is kept in `dir`. The key never leaves this machine.
pub async fn join(
    dir: &Path,
    token: &JoinToken,
    hosts: &[Host],
) -> Result<Credentials, EnrolError> {
    let key = pending_key(dir)?;
    let request = ask(&key, hosts)?;
    let answer = redeem(token, request).await?;
    let credentials = Credentials::answered(key, answer)?.of_managers(token.managers.clone());
    if credentials.fingerprint() != token.authority || *credentials.names() != names_of(hosts)? {
        return Err(CredentialsError::Unusable("it is not what was asked for".to_owned()).into());
    }
    credentials.save(dir)?;
    Ok(credentials)
}

/// Asks each manager in turn, again while none answers.
async fn redeem(
    token: &JoinToken,
    request: CertificateRequest,
) -> Result<manager::Certificate, EnrolError> {
    let deadline = Instant::now() + JOIN_WITHIN;
    let mut failures = 0;
    loop {
        let mut last = EnrolError::NoManager;
        for at in &token.managers {
            let secret = token.secret.bytes().to_vec().into();
            let join = JoinRequest { secret, request: Some(request.clone()) };
            let mut client = EnrolmentClient::new(grpc_channel_by_token(at, token.authority));
            match client.join(within(join)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => last = failed(at, &status),
            }
            if !last.may_pass() {
                return Err(last);
            }
        }
        failures += 1;
        let pause = JOIN_RETRY.after(failures);
        if Instant::now() + pause >= deadline {
            return Err(last);
        }
        tokio::time::sleep(pause).await;
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_WITHIN);
    request
}

fn failed(at: &ServiceAddress, status: &Status) -> EnrolError {
    let manager = at.clone();
    if shows_another_authority(status) {
        return EnrolError::Stranger { manager };
    }
    // What has a cause was found out on this side: nobody there has said it.
    let lost = status.source().map(error_chain);
    match (lost, status.code()) {
        (Some(why), _) => EnrolError::Unreached { manager, why },
        (None, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) => {
            EnrolError::Unreached { manager, why: status.message().to_owned() }
        }
        (None, _) => EnrolError::Refused { manager, why: status.message().to_owned() },
    }
}

/// Whether a connection came to nothing because of who was there.
fn shows_another_authority(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        // What is wrong with a certificate of the right authority, as its time, is another matter.
        if let Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::Other(_),
        )) = found
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Who signs the next certificate.
#[derive(Clone)]
pub enum Renewer {
    /// The authority that runs in this process.
    Own(Arc<Authority>, Duration),
    /// A manager of the cluster.
    Managers(Vec<ServiceAddress>),
    /// The same for a guest, whose own certificate gets it no other: by that of the node, as it is kept then.
    NodeIn(PathBuf),
}

impl Renewer {
    /// A certificate that names these hosts, for a new key.
    async fn issue(&self, hosts: &[Host], security: &Security) -> Result<Credentials, EnrolError> {
        let managers = match self {
            Self::Own(authority, lifetime) => return issue_own(authority, hosts, *lifetime),
            Self::Managers(managers) => managers,
            Self::NodeIn(dir) => {
                let node = loaded(dir.clone()).await?.ok_or(EnrolError::NoManager)?;
                return Box::pin(for_guest(node, hosts)).await;
            }
        };
        let mut last = EnrolError::NoManager;
        for at in managers {
            let key = Key::generate()?;
            let request = ask(&key, hosts)?;
            let channel = grpc_channel(at, Callee::Manager, security);
            match renewed(channel, request).await {
                Ok(answer) => {
                    let credentials = Credentials::answered(key, answer)?;
                    return Ok(credentials.of_managers(managers.clone()));
                }
                Err(status) => last = failed(at, &status),
            }
        }
        Err(last)
    }
}

async fn renewed(
    channel: Channel,
    request: CertificateRequest,
) -> Result<manager::Certificate, Status> {
    let answer = EnrolmentClient::new(channel).renew(within(request)).await?;
    Ok(answer.into_inner())
}

/// A certificate from the authority of this very process.
pub fn issue_own(
    authority: &Authority,
    hosts: &[Host],
    lifetime: Duration,
) -> Result<Credentials, EnrolError> {
    let key = Key::generate()?;
    let request = SigningRequest::read(&ask(&key, hosts)?)?;
    let signed = authority.sign(&request, lifetime)?;
    let (chain, root) = (vec![signed.der], authority.certificate().clone());
    Ok(Credentials::of(key, chain, root, signed.validity, Vec::new())?)
}

/// A certificate for a process beside a node that ends soon, by the node's own.
pub async fn for_guest(node: Credentials, hosts: &[Host]) -> Result<Credentials, EnrolError> {
    let renewer = Renewer::Managers(node.managers().to_vec());
    let security = Security::Tls(Arc::new(Identity::new(node)?));
    renewer.issue(hosts, &security).await
}

/// Keeps a process's certificate fresh.
pub struct Keeper {
    identity: Arc<Identity>,
    hosts: Vec<Host>,
    renewer: Renewer,
    dir: Option<PathBuf>,
}

impl Keeper {
    /// Of the certificate of a process with these hosts, which is kept in `dir` if anywhere.
    pub fn new(
        credentials: Credentials,
        hosts: Vec<Host>,
        renewer: Renewer,
        dir: Option<PathBuf>,
    ) -> Result<Self, EnrolError> {
        let identity = Arc::new(Identity::new(credentials)?);
        Ok(Self { identity, hosts, renewer, dir })
    }

    /// How connections are protected by what is kept fresh.
    pub fn security(&self) -> Security {
        Security::Tls(Arc::clone(&self.identity))
    }

    /// Keeps it fresh for as long as the process runs.
    pub fn start(self, tracker: &Tracker) {
        let stop = tracker.token().clone();
        tracker.spawn("certificate", OnFailure::Report, async move {
            self.run(stop).await;
            Ok::<(), Infallible>(())
        });
    }

    /// Works until `stop`. Nothing that goes wrong ends it.
    pub async fn run(self, stop: CancellationToken) {
        let mut trouble = Trouble::default();
        loop {
            let pause = self.pause(trouble.failures);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if trouble.failures == 0 && !self.is_due() {
                continue;
            }
            let Some(renewed) = stop.run_until_cancelled(self.renew()).await else { return };
            let remaining = self.identity.with(Credentials::remaining);
            trouble.tell(renewed, remaining);
        }
    }

    /// Until something is to be done, or looked at.
    fn pause(&self, failures: u32) -> Duration {
        let remaining = self.identity.with(Credentials::remaining);
        match (failures, remaining.is_zero()) {
            (0, _) => {}
            // Nobody takes it: only a clock that is set back makes a difference.
            (_, true) => return LOOK_EVERY,
            (_, false) => return (remaining / 10).clamp(SOONEST, LATEST),
        }
        remaining.saturating_sub(self.left()).min(LOOK_EVERY)
    }

    fn is_due(&self) -> bool {
        self.identity.with(Credentials::remaining) <= self.left()
    }

    /// What is left of the certificate when it is renewed: not the same for all that began together.
    fn left(&self) -> Duration {
        let (lifetime, seed) = self.identity.with(|credentials| {
            let validity = credentials.validity();
            (validity.lifetime(), credentials.chain()[0].last().copied().unwrap_or(0))
        });
        let left = lifetime / LEFT;
        left + left / 4 * u32::from(seed) / 256
    }

    async fn renew(&self) -> Result<(), EnrolError> {
        let security = self.security();
        let fresh = self.renewer.issue(&self.hosts, &security).await?;
        let is_same = self.identity.with(|old| old.names() == fresh.names());
        if !is_same {
            return Err(CredentialsError::Unusable("it names others".to_owned()).into());
        }
        let fresh = match self.dir.clone() {
            Some(dir) => saved(fresh, dir).await?,
            None => fresh,
        };
        Ok(self.identity.renew(fresh)?)
    }
}

async fn loaded(dir: PathBuf) -> Result<Option<Credentials>, EnrolError> {
    let loading = tokio::task::spawn_blocking(move || Credentials::load(&dir));
    Ok(loading.await.map_err(stopping)??)
}

fn stopping(_: JoinError) -> CredentialsError {
    CredentialsError::Unusable("the process is stopping".to_owned())
}

async fn saved(credentials: Credentials, dir: PathBuf) -> Result<Credentials, EnrolError> {
    let saving = tokio::task::spawn_blocking(move || credentials.save(&dir).map(|()| credentials));
    Ok(saving.await.map_err(stopping)??)
}

/// What has gone wrong with renewing, and what was said of it.
#[derive(Default)]
struct Trouble {
    failures: u32,
    has_told_end: bool,
}

impl Trouble {
    fn tell(&mut self, renewed: Result<(), EnrolError>, remaining: Duration) {
        let Err(error) = renewed else {
            tracing::info!(lasts = ?remaining, "the certificate was renewed");
            *self = Self::default();
            return;
        };
        self.failures = self.failures.saturating_add(1);
        let error = error_chain(&error);
        if remaining.is_zero() && !self.has_told_end {
            self.has_told_end = true;
            tell_expired(Some(&error));
        } else if self.failures == 1 {
            tracing::warn!(error, expires_in = ?remaining, "the certificate cannot be renewed: trying again");
        }
    }
}

fn tell_expired(error: Option<&str>) {
    tracing::error!(
        error,
        "the certificate has expired: no other machine takes it; join again with --join JOIN-TOKEN \
         (`dfctl cluster join-token` gives one)"
    );
}

/// The certificate of a process that keeps things in `dir`: the one it has, else the one that its token gets it; none
/// where it has neither. One that has expired is better than none for a process that can do without others.
pub async fn enter(
    dir: &Path,
    token: Option<&JoinToken>,
    hosts: &[Host],
) -> Result<Option<Credentials>, EnrolError> {
    let kept = Credentials::load(dir)?;
    let names = names_of(hosts)?;
    let is_good = |kept: &Credentials| *kept.names() == names && !kept.has_expired();
    match (kept, token) {
        (Some(kept), _) if is_good(&kept) => {
            if token.is_some() {
                tracing::info!("this host has joined already: the token is not needed");
            }
            Ok(Some(kept))
        }
        (_, Some(token)) => Ok(Some(join(dir, token, hosts).await?)),
        (Some(kept), None) if *kept.names() != names => Err(EnrolError::OfAnother {
            found: kept.names().to_string(),
            expected: names.to_string(),
        }),
        (Some(kept), None) => {
            tell_expired(None);
            Ok(Some(kept))
        }
        (None, None) => Ok(None),
    }
}
