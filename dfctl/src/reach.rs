//! Reaching the cluster that was named, before anything is started that takes part in it.
//!
//! A cluster that was named and is not there is an error with the reason, never gone around: what a person names
//! they mean.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dfs_fuse::agent::inside::address_towards;
use dfs_proto::manager::{MemberList, Role};
use dfs_service::config::ServiceAddress;
use dfs_service::net::Security;
use dfs_service::net::manager::{self, Patience};
use dfs_service::tls::{Credentials, Identity};

use crate::codes;
use crate::commands::interrupted;
use crate::context::Context;
use crate::error::CliError;

/// How long a cluster may take to be reached.
pub const REACH_WITHIN: Duration = Duration::from_secs(5);

/// Who waits longer than this is told for what.
const SAY_AFTER: Duration = Duration::from_millis(500);

/// How often one that is being started is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The certificate that this user's agent has for a cluster: it counts for commands without an agent too. There is none
/// for a cluster on loopback that it is not of.
pub fn certificate(context: &Context, cluster: &ServiceAddress) -> Option<Credentials> {
    let dir = context.settings.agent_dir().ok()?;
    let kept = match Credentials::load(&dir) {
        Ok(kept) => kept?,
        Err(error) => {
            context.output.note(&error.to_string());
            return None;
        }
    };
    let is_of_it = kept.managers().contains(cluster);
    (is_of_it || !cluster.is_on_loopback()).then_some(kept)
}

/// The address that an agent of this user listens on, so that others of the cluster reach it: the one from which the
/// cluster is reached. Without a certificate it is for this machine alone.
pub async fn listens_on(context: &Context, cluster: &ServiceAddress) -> Option<IpAddr> {
    certificate(context, cluster)?;
    let managers = cluster.resolve_within(REACH_WITHIN).await.ok()?;
    address_towards(*managers.first()?).ok()
}

/// How that cluster is spoken to.
pub fn security(context: &Context, cluster: &ServiceAddress) -> Security {
    let identity = certificate(context, cluster).and_then(|kept| Identity::new(kept).ok());
    identity.map_or(Security::Plain, |identity| Security::Tls(Arc::new(identity)))
}

/// The managers of the cluster that what this command starts takes part in, the one first that answers; none where
/// it is in none.
pub async fn managers(context: &Context) -> Result<Vec<SocketAddr>, CliError> {
    let Some(cluster) = context.settings.cluster_joined() else { return Ok(Vec::new()) };
    let security = security(context, cluster);
    let mut asking = std::pin::pin!(there(cluster, &security));
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => return Err(interrupted()),
            answer = &mut asking => {
                return answer.map_err(|error| named_in(context, error));
            }
            () = tokio::time::sleep(SAY_AFTER), if !told => {
                context.output.note(&format!("waiting for the cluster {cluster}"));
                told = true;
            }
        }
    }
}

/// Its managers as soon as one of them names a scheduler, or why none does.
async fn there(cluster: &ServiceAddress, security: &Security) -> Result<Vec<SocketAddr>, CliError> {
    let patience = Patience::of(REACH_WITHIN);
    let looked_up = cluster.resolve_within(patience.for_asking()).await;
    let mut managers = looked_up.map_err(|error| unreached(cluster).caused_by(&error))?;
    loop {
        let why = match manager::ask_any(&managers, patience, security).await {
            Ok(answer) if has_scheduler(&answer.members) => {
                managers.sort_by_key(|manager| *manager != answer.address);
                return Ok(managers);
            }
            Ok(_) => "its manager names no scheduler".to_owned(),
            Err(reason) if !reason.may_pass() => return Err(unreached(cluster).caused_by(&reason)),
            Err(reason) => reason.to_string(),
        };
        if !patience.allows_another() {
            return Err(unreached(cluster).because(why));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn has_scheduler(members: &MemberList) -> bool {
    members.members.iter().any(|member| member.role() == Role::Scheduler)
}

/// The same with what named the cluster, which nobody may have in mind who typed no address.
pub fn named_in(context: &Context, error: CliError) -> CliError {
    match context.settings.cluster_named_in() {
        Some(origin) => error.because(format!("the address comes from: {origin}")),
        None => error,
    }
}

/// The cluster is not there.
pub fn unreached(cluster: &ServiceAddress) -> CliError {
    CliError::new(&codes::NO_CLUSTER, format!("cannot reach the cluster {cluster}")).hint(
        "the address of its manager, or the same command with --solo: straight from the origin",
    )
}
