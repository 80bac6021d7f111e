//! `dfctl cluster status`.

use super::place::{Cluster, command, log_of, of_this_machine};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::quoted_path;

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
    Err(CliError::new(&codes::UNEXPECTED, "the cluster runs but is not ready")
        .hint(format!("less {}", quoted_path(&log_of(&dir)))))
}
