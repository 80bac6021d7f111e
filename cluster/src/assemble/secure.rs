//! Who the process is to others, settled before it opens a port.
//!
//! Where the manager runs, certificates come from its own authority, which is made when the first address is listened
//! on that others reach. A scheduler or seed of its own joins with a token, once. A process that has neither is for
//! its own machine, and nothing is protected.

use std::path::PathBuf;
use std::sync::Arc;

use dfs_peer::digests::Identity;
use dfs_service::config::ServiceAddress;
use dfs_service::data_dir::DataDir;
use dfs_service::net::Security;
use dfs_service::process;
use dfs_service::tls::enrol::{self, Keeper, Renewer};
use dfs_service::tls::{self, Authority, Credentials, Host};

use super::{Error, Told};
use crate::options::Role;

/// Who the process is.
pub(super) struct Secured {
    /// How its connections are protected.
    pub(super) security: Security,
    /// What signs the certificates of the cluster, where the manager runs.
    pub(super) authority: Option<Arc<Authority>>,
    /// What keeps its certificate fresh, where it has one.
    pub(super) keeper: Option<Keeper>,
    /// Who schedules here, and manages.
    pub(super) identity: Identity,
    /// The managers, where they run elsewhere.
    pub(super) managers: Vec<ServiceAddress>,
}

/// Settles it: makes or loads what is needed, joins where a token was given.
pub(super) async fn secure(told: &Told, data_dir: &DataDir) -> Result<Secured, Error> {
    let identity = Identity::load_or_create(data_dir.path())?;
    let hosts = hosts(told.role, &identity, data_dir)?;
    let plain = Secured {
        security: Security::Plain,
        authority: None,
        keeper: None,
        identity,
        managers: told.own.manager.iter().cloned().collect(),
    };
    let secured = match told.role.has_manager() {
        true => own(told, data_dir, hosts, plain)?,
        false => joined(told, data_dir, hosts, plain).await?,
    };
    match told.role.has_manager() || !secured.managers.is_empty() {
        true => Ok(secured),
        false => Err(Error::NoManager),
    }
}

/// The hosts of this process, each in its roles: a seed is one of its own.
fn hosts(role: Role, identity: &Identity, data_dir: &DataDir) -> Result<Vec<Host>, Error> {
    let mut hosts = Vec::new();
    let here = |role| Host { identity: identity.clone(), role };
    if role.has_manager() {
        hosts.push(here(tls::Role::Manager));
    }
    if role.has_scheduler() {
        hosts.push(here(tls::Role::Scheduler));
    }
    if role.has_seed() {
        let identity = Identity::load_or_create(&data_dir.subdir("seed")?)?;
        hosts.push(Host { identity, role: tls::Role::Seed });
    }
    Ok(hosts)
}

/// With the certificates of the manager that runs here.
fn own(
    told: &Told,
    data_dir: &DataDir,
    hosts: Vec<Host>,
    plain: Secured,
) -> Result<Secured, Error> {
    let is_for_others = !told.shared.listen.to_canonical().is_loopback() || told.own.tls;
    if !is_for_others && !Authority::exists(data_dir.path()) {
        return Ok(plain);
    }
    let authority = Arc::new(Authority::load_or_create(data_dir.path())?);
    let lifetime = told.own.members.certificate_lifetime;
    let credentials =
        enrol::issue_own(&authority, &hosts, lifetime).map_err(process::Error::from)?;
    let renewer = Renewer::Own(Arc::clone(&authority), lifetime);
    let secured = Secured { authority: Some(authority), ..plain };
    with(credentials, hosts, renewer, None, secured)
}

/// With the certificate of a process that has joined, or joins.
async fn joined(
    told: &Told,
    data_dir: &DataDir,
    hosts: Vec<Host>,
    plain: Secured,
) -> Result<Secured, Error> {
    let dir = data_dir.path();
    let entered = enrol::enter(dir, told.own.join.as_ref(), &hosts).await;
    let Some(credentials) = entered.map_err(process::Error::from)? else { return Ok(plain) };
    let managers = match plain.managers.is_empty() {
        true => credentials.managers().to_vec(),
        false => plain.managers.clone(),
    };
    let renewer = Renewer::Managers(managers.clone());
    let secured = Secured { managers, ..plain };
    with(credentials, hosts, renewer, Some(dir.to_owned()), secured)
}

fn with(
    credentials: Credentials,
    hosts: Vec<Host>,
    renewer: Renewer,
    dir: Option<PathBuf>,
    plain: Secured,
) -> Result<Secured, Error> {
    let keeper = Keeper::new(credentials, hosts, renewer, dir).map_err(process::Error::from)?;
    Ok(Secured { security: keeper.security(), keeper: Some(keeper), ..plain })
}
