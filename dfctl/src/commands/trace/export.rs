//! `dfctl trace export`.

use std::path::{Path, PathBuf};

use super::{Whose, told};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::quoted_path;

/// Write what is known of the readers of a mount to a file
///
/// Examples:
///   dfctl trace export -o tool.dfstrace /mnt/tool
///   dfctl trace export -o data.dfstrace https://host/data/
///
/// It is for another machine: `dfctl trace apply` takes it there. The file tells which ranges of the one version are touched, in which order; no names, no bytes, no URL.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    whose: Whose,
    /// Where to; - is the standard output
    #[arg(short, long, value_name = "PATH|-", value_hint = clap::ValueHint::FilePath, env = "DFS_OUTPUT", hide_env_values = true)]
    output: PathBuf,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let (backend, traced) = args.whose.find(context).await?;
    let asked = answer(context, backend.trace(&traced, 0)).await?;
    let profile =
        asked.map_err(|failure| CliError::backend("look at", &args.whose.whose, failure))?;
    if profile.runs == 0 {
        context
            .output
            .note("nothing was read yet of what a profile could tell: nothing is written");
        return Ok(Outcome::Nothing);
    }
    if args.output == Path::new("-") {
        context.output.bytes(&profile.file)?;
        return Ok(Outcome::Done);
    }
    std::fs::write(&args.output, &profile.file).map_err(|error| {
        let what = format!("cannot write {}", quoted_path(&args.output));
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => &codes::OUTPUT_DENIED,
            std::io::ErrorKind::StorageFull => &codes::NO_SPACE,
            _ => &codes::OUTPUT_FAILED,
        };
        CliError::new(code, what).caused_by(&error)
    })?;
    context.output.report("trace", &profile, || told("exported", &profile))?;
    Ok(Outcome::Done)
}
