//! `dfctl cluster status`.

use super::place::{Cluster, running};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Say whether a cluster runs on this machine, and how its parts are
///
/// Examples:
///   dfctl cluster status
///   dfctl cluster status --format json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let dir = context.settings.cluster_dir();
    let Some(run) = running(&dir)? else {
        let what = format!("no cluster runs on {}", dir.display());
        return Err(CliError::new(&codes::CLUSTER_DOWN, what).hint("dfctl cluster up"));
    };
    let cluster = answer(context, Cluster::of(run, &dir)).await?;
    context.output.record("cluster", &cluster, || cluster.human())?;
    if cluster.ready {
        return Ok(Outcome::Done);
    }
    Err(CliError::new(&codes::UNEXPECTED, "the cluster runs but is not ready")
        .hint(format!("less {}", super::place::log_of(&dir).display())))
}
