//! `dfctl scheduler compare`.

use dfs_model::REST;

use crate::backend::swarm::{Detail, Which};
use crate::codes;
use crate::commands::swarm::{backend, look};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::swarm::arms::{Compared, render, together};
use crate::output::{Format, Items, printable};

/// Compare the arms of an A/B test of scheduling strategies
///
/// Examples:
///   dfctl scheduler compare
///   dfctl scheduler compare --against control --format json
///
/// For each arm how long downloads took, what was read from the source and from other data centres, how many hosts gave
/// up, and how long reads waited that found nothing: the mean with its 95 % interval, the difference from another arm
/// with its own, and whether it is more than chance. Of fewer than ten URLs in an arm nothing is said. Arms are
/// configured in `scheduler.arms` of dfs-cluster; what came of them is counted from the start of each scheduler.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The arm that the others are compared with
    #[arg(long, value_name = "ARM", env = "DFS_AGAINST", hide_env_values = true, default_value = REST)]
    against: String,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = backend(context).await?;
    let seen = look(context, &*backend, Which::Arms, Detail::Summary).await?;
    if seen.arms.is_empty() {
        let what = "the schedulers know of no arms";
        let error = CliError::new(&codes::NO_CLUSTER, what);
        return Err(error.because("they are of an older version").hint("dfctl cluster status"));
    }
    let arms = together(seen.arms);
    let Some(base) = arms.iter().position(|arm| arm.name == args.against) else {
        let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
        let what = format!("there is no arm '{}'", printable(&args.against));
        return Err(CliError::new(&codes::USAGE, what)
            .because(format!("there are: {}", printable(&names.join(", "))))
            .hint("dfctl scheduler compare      or: dfctl scheduler compare --against ARM"));
    };
    if arms.len() == 1 {
        context.output.note("no arms are configured: `scheduler.arms` of dfs-cluster has them");
    }
    let compared = Compared { arms: &arms, base };
    if context.output.format == Format::Human {
        context.output.line(&render(&compared))?;
        return Ok(Outcome::Done);
    }
    let mut items = Items::new(&context.output, "arms");
    compared.each().try_for_each(|arm| items.push(&arm))?;
    items.finish()?;
    Ok(Outcome::Done)
}
