//! `dfctl trace apply`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dfs_fuse::trace::MAX_BYTES;

use super::{Whose, told};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::quoted_path;

/// Take what another machine knows of the readers of something
///
/// Examples:
///   dfctl trace apply tool.dfstrace https://host/tool.tar.gz
///   dfctl trace apply tool.dfstrace /mnt/tool
///
/// It takes the place of what was known here, and counts for one version only. A mount of it that is there begins to
/// fetch by it at once, but for one with --prefetch off.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// File that `dfctl trace export` wrote; - is the standard input
    #[arg(value_name = "FILE|-", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    whose: Whose,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let shown = quoted_path(&args.file);
    let path = args.file.clone();
    let reading = tokio::task::spawn_blocking(move || read(&path));
    let file = answer(context, reading).await?.unwrap_or_else(|error| Err(io::Error::other(error)));
    let file = file.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => &codes::NOT_FOUND,
            io::ErrorKind::PermissionDenied => &codes::NOT_PERMITTED,
            _ => &codes::BAD_PROFILE,
        };
        CliError::new(code, format!("cannot read {shown}")).caused_by(&error)
    })?;
    let (backend, traced) = args.whose.find(context).await?;
    let applied = answer(context, backend.apply_trace(&traced, file)).await?;
    let profile = applied.map_err(|failure| CliError::backend("apply", &shown, failure))?;
    context.output.report("trace", &profile, || told("applied", &profile))?;
    Ok(Outcome::Done)
}

/// All of it, if it is no longer than a profile can be.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path)?),
    };
    let mut bytes = Vec::new();
    source.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > MAX_BYTES {
        true => Err(io::Error::other("it is longer than any prefetch profile")),
        false => Ok(bytes),
    }
}
