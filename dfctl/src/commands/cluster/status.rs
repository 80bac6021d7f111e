//! `dfctl cluster status`.

use std::time::Duration;

use dfs_service::config::ServiceAddress;

use super::asked;
use super::place::{Cluster, command, of_this_machine};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// How long a manager may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Say whether a cluster runs, and how its parts are
///
/// Examples:
///   dfctl cluster status
///   dfctl cluster status --cluster 10.0.0.5:4000
///
/// Of the cluster at --cluster where that is given (or configured and no --data-dir is), else of the one that
/// `dfctl cluster up` started on this machine, else of the system's own in /var/lib/dfs-cluster. Of one on this machine
/// the nodes are counted that its scheduler talks to.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    if let Some(address) = context.settings.cluster_asked() {
        return of_address(context, address).await;
    }
    let (dir, run) = of_this_machine(context)?;
    let Some(run) = run else {
        let what = format!("no cluster runs on {}", dir.display());
        return Err(CliError::new(&codes::CLUSTER_DOWN, what).hint(command(context, "up")));
    };
    let cluster = answer(context, Cluster::of(run, &dir)).await?;
    context.output.record("cluster", &cluster, || cluster.human())?;
    if cluster.ready {
        return Ok(Outcome::Done);
    }
    let error = CliError::new(&codes::UNEXPECTED, "the cluster runs but is not ready");
    Err(match cluster.log.command() {
        Some(command) => error.hint(command),
        None => error,
    })
}

async fn of_address(context: &Context, address: &ServiceAddress) -> Result<Outcome, CliError> {
    let asking = asked::ask(context, address, ANSWER_WITHIN);
    let reached = answer(context, asking).await?.map_err(|why| {
        CliError::new(&codes::CLUSTER_SILENT, format!("the cluster {address} is not reached"))
            .caused_by(&why)
            .hint("dfctl config explain cluster")
    })?;
    context.output.record("cluster", &reached, || reached.human())?;
    match reached.is_ready() {
        true => Ok(Outcome::Done),
        false => Err(CliError::new(&codes::CLUSTER_SILENT, "the cluster has no scheduler")),
    }
}
