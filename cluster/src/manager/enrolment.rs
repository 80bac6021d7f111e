//! Certificates at the gRPC edge: who joins with a token, who renews, and who makes tokens.
//!
//! The one place of the cluster where somebody without a certificate is heard. What they send is bounded, looked at
//! by few at a time, and believed for its signatures only.

use std::sync::Arc;
use std::time::Duration;

use dfs_peer::error_chain;
use dfs_proto::manager::admin_server::Admin;
use dfs_proto::manager::enrolment_server::Enrolment;
use dfs_proto::manager::{
    Certificate, CertificateRequest, CreateJoinTokenReply, CreateJoinTokenRequest, JoinRequest,
};
use dfs_service::config::ServiceAddress;
use dfs_service::net::Caller;
use dfs_service::tls::{Authority, JoinToken, Names, Role, Secret, SigningRequest, now_ms};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::Handle;
use super::store::{NewToken, Redeemed, Redemption, Store};
use crate::metrics::ManagerMetrics;

/// Requests looked at at a time.
const AT_A_TIME: usize = 8;

/// The largest request.
pub const MAX_REQUEST: usize = 64 << 10;

/// How long and how often a token may be good at most.
const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
const MOST_USES: u32 = 10_000;

/// What signs certificates, and for whom.
#[derive(Clone)]
pub struct Registrar {
    store: Store,
    authority: Arc<Authority>,
    lifetime: Duration,
    metrics: ManagerMetrics,
    turns: Arc<Semaphore>,
}

impl Registrar {
    /// One that signs for `lifetime`.
    pub fn new(
        handle: &Handle,
        authority: Arc<Authority>,
        lifetime: Duration,
        metrics: ManagerMetrics,
    ) -> Self {
        let (store, turns) = (handle.store(), Arc::new(Semaphore::new(AT_A_TIME)));
        Self { store, authority, lifetime, metrics, turns }
    }

    async fn join_with(&self, request: JoinRequest) -> Result<(Names, Certificate), Status> {
        let secret = Secret::of_bytes(&request.secret);
        let secret = secret.ok_or_else(|| refused(&Redeemed::Unknown, Role::Node))?;
        let request = read(request.request)?;
        let (name, host) = match (request.names().all(), request.hosts()) {
            ([name], [host]) => (*name, *host),
            _ => return Err(Status::invalid_argument("a token is for one host in one role")),
        };
        let asked =
            Redemption { token: secret.hash(), key: request.key_hash(), role: name.role, host };
        let redeemed = self.store.redeem(asked, now_ms()).await;
        match redeemed.map_err(lost)? {
            Redeemed::Yes | Redeemed::Again => {
                Ok((request.names().clone(), self.signed(&request)?))
            }
            other => Err(refused(&other, name.role)),
        }
    }

    async fn renew_for(
        &self,
        caller: &Caller,
        request: CertificateRequest,
    ) -> Result<Certificate, Status> {
        let request = read(Some(request))?;
        let own = caller.names().ok_or_else(|| {
            Status::unauthenticated("a certificate is renewed by who has one: join with a token")
        })?;
        if !may_have(own, request.names()) {
            let why = format!("{own} gets no certificate for {}", request.names());
            return Err(Status::permission_denied(why));
        }
        let foreign = self.store.foreign(request.hosts().to_vec()).await;
        match foreign.map_err(lost)?.first() {
            Some(host) => {
                Err(Status::permission_denied(foreign_id(&format!("the host id {host}"))))
            }
            None => self.signed(&request),
        }
    }

    fn signed(&self, request: &SigningRequest) -> Result<Certificate, Status> {
        let signed = self.authority.sign(request, self.lifetime);
        let signed = signed.map_err(|error| Status::internal(error_chain(&error)))?;
        self.metrics.certificates.inc();
        Ok(Certificate {
            chain: vec![signed.der.to_vec().into()],
            authority: self.authority.certificate().to_vec().into(),
            not_before_ms: signed.validity.not_before_ms,
            not_after_ms: signed.validity.not_after_ms,
        })
    }
}

/// Everybody gets again what they have, but for guests, who come by a node and go.
fn may_have(own: &Names, asked: &Names) -> bool {
    let is_guest = asked.has_role(Role::Guest);
    match is_guest {
        true => asked.all().len() == 1 && own.has_role(Role::Node),
        false => own == asked,
    }
}

fn read(request: Option<CertificateRequest>) -> Result<SigningRequest, Status> {
    SigningRequest::read(&request.unwrap_or_default())
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The database does not answer: asking again may help.
fn lost(error: super::Error) -> Status {
    Status::unavailable(error_chain(&error))
}

fn foreign_id(whose: &str) -> String {
    format!(
        "{whose} belongs to another key: where its data directory was copied, remove the file \
         `identity` of the copy and join again"
    )
}

/// What somebody is told whose token is not good.
fn refused(redeemed: &Redeemed, asked: Role) -> Status {
    let another = "`dfctl cluster join-token` on the manager's machine gives another one";
    Status::permission_denied(match redeemed {
        Redeemed::Expired => format!("the join token has expired; {another}"),
        Redeemed::Used => format!("the join token was used already; {another}"),
        Redeemed::For(role) => format!(
            "the join token is for a {role}, not for a {asked}: `dfctl cluster join-token --role \
             {asked}` on the manager's machine gives the right one"
        ),
        Redeemed::ForeignId => foreign_id("this host's id"),
        Redeemed::Unknown | Redeemed::Yes | Redeemed::Again => {
            format!("the join token is not known here, or not any more; {another}")
        }
    })
}

#[tonic::async_trait]
impl Enrolment for Registrar {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Certificate>, Status> {
        let _turn = self.turns.acquire().await;
        let from = Caller::of(request.extensions()).address();
        let from = from.map(|address| address.to_string());
        let joined = self.join_with(request.into_inner()).await;
        match &joined {
            Ok((names, _)) => tracing::info!(from, %names, "a host has joined"),
            Err(status) => {
                self.metrics.refused_joins.inc();
                tracing::warn!(from, why = status.message(), "a host was not let in");
            }
        }
        joined.map(|(_, certificate)| Response::new(certificate))
    }

    async fn renew(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<Certificate>, Status> {
        let _turn = self.turns.acquire().await;
        let caller = Caller::of(request.extensions());
        self.renew_for(&caller, request.into_inner()).await.map(Response::new)
    }
}

/// Makes tokens, for whoever may open the manager's socket.
pub struct Desk {
    registrar: Option<Registrar>,
    managers: Vec<ServiceAddress>,
}

impl Desk {
    /// One of a manager that is reached at these addresses; without a registrar it says why there are no tokens.
    pub fn new(registrar: Option<Registrar>, managers: Vec<ServiceAddress>) -> Self {
        Self { registrar, managers }
    }
}

#[tonic::async_trait]
impl Admin for Desk {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenReply>, Status> {
        let Some(registrar) = &self.registrar else {
            return Err(Status::failed_precondition(
                "this cluster is for its own machine: it listens on loopback and has no certificates",
            ));
        };
        let request = request.into_inner();
        let role = Role::of_wire(request.role());
        let role = role.filter(|role| matches!(role, Role::Node | Role::Scheduler | Role::Seed));
        let role = role
            .ok_or_else(|| Status::invalid_argument("a token is for a node, scheduler or seed"))?;
        let longest = u64::try_from(LONGEST_TTL.as_millis()).unwrap_or(u64::MAX);
        if request.ttl_ms == 0 || request.ttl_ms > longest {
            return Err(Status::invalid_argument("a token lasts for 30 days at most"));
        }
        if request.uses == 0 || request.uses > MOST_USES {
            let why = format!("a token is good for 1 to {MOST_USES} machines");
            return Err(Status::invalid_argument(why));
        }
        let (secret, now) = (Secret::random(), now_ms());
        let expires_ms = now.saturating_add(request.ttl_ms);
        let token = NewToken { hash: secret.hash(), role, uses: request.uses, expires_ms };
        let added = registrar.store.add_token(token, now).await;
        if !added.map_err(lost)? {
            return Err(Status::resource_exhausted("there are too many tokens: let some expire"));
        }
        tracing::info!(%role, uses = request.uses, "a join token was made");
        let (managers, authority) = (self.managers.clone(), registrar.authority.fingerprint());
        let token = JoinToken { managers, authority, secret };
        Ok(Response::new(CreateJoinTokenReply { token: token.reveal(), expires_ms }))
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::HostId;

    use super::*;

    fn one(n: u8, role: Role) -> Names {
        Names::one(HostId::from_bytes([n; 16]), role)
    }

    #[test]
    fn everybody_gets_what_they_have_and_nodes_have_guests() {
        assert!(may_have(&one(1, Role::Node), &one(1, Role::Node)));
        assert!(may_have(&one(1, Role::Seed), &one(1, Role::Seed)));
        assert!(may_have(&one(1, Role::Node), &one(2, Role::Guest)));
        for (own, asked) in [
            (one(1, Role::Node), one(2, Role::Node)),
            (one(1, Role::Node), one(1, Role::Scheduler)),
            (one(1, Role::Node), one(1, Role::Manager)),
            (one(1, Role::Guest), one(1, Role::Guest)),
            (one(1, Role::Guest), one(2, Role::Guest)),
            (one(1, Role::Guest), one(1, Role::Node)),
            (one(1, Role::Scheduler), one(2, Role::Guest)),
        ] {
            assert!(!may_have(&own, &asked), "{own} and {asked}");
        }
    }

    #[test]
    fn who_is_refused_is_told_what_to_do() {
        for (redeemed, word) in [
            (Redeemed::Expired, "expired"),
            (Redeemed::Used, "used already"),
            (Redeemed::Unknown, "not known"),
            (Redeemed::For(Role::Seed), "--role node"),
            (Redeemed::ForeignId, "identity"),
        ] {
            let status = refused(&redeemed, Role::Node);
            assert!(status.message().contains(word), "{status}");
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
        }
    }
}
