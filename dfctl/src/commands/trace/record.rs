//! `dfctl trace record`.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use super::{mounted_on, told};
use crate::codes;
use crate::commands::inside::{answer, interrupted};
use crate::commands::mount::mount_point;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::printable;

/// Cut the run of a mount here, or record what one command reads
///
/// Examples:
///   dfctl trace record /mnt/tool
///   dfctl trace record /mnt/tool -- /mnt/tool/bin/tool --version
///
/// Everything that is read of a mount is recorded anyway, as one run from the mount to its end. This cuts it: what was
/// read until now is a run, and what is read from now on another one. With a command, what is read while that runs is
/// one by itself; what the kernel still has in memory from earlier reads is not read again and not recorded, so that a
/// fresh mount tells most. The command's standard output goes to the standard error.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Where it is mounted
    #[arg(value_name = "MOUNT", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// A command and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let dir = mounted_on(&args.dir);
    let text = mount_point(&dir)?;
    let failed = |failure| CliError::backend("record reads of", text, failure);
    let mut profile = answer(context, backend.record_trace(text)).await?.map_err(failed)?;
    let mut status = None;
    if let Some((program, arguments)) = args.command.split_first() {
        status = Some(to_its_end(context, program, arguments).await?);
        profile = answer(context, backend.record_trace(text)).await?.map_err(failed)?;
    }
    context.output.report("trace", &profile, || told("recorded", &profile))?;
    match status.filter(|status| !status.success()) {
        Some(status) => Err(CliError::new(&codes::PARTLY, format!("the command failed: {status}"))
            .because("what it read counts all the same")),
        None => Ok(Outcome::Done),
    }
}

async fn to_its_end(
    context: &Context,
    program: &OsString,
    arguments: &[OsString],
) -> Result<ExitStatus, CliError> {
    let unstarted = |error: io::Error| {
        let what = format!("cannot start {}", printable(&program.to_string_lossy()));
        let is_named_wrong =
            [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind());
        let code = if is_named_wrong { &codes::USAGE } else { &codes::UNEXPECTED };
        CliError::new(code, what).caused_by(&error)
    };
    let output = io::stderr().as_fd().try_clone_to_owned().map_err(unstarted)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdout(Stdio::from(output)).kill_on_drop(true);
    let mut child = command.spawn().map_err(unstarted)?;
    tokio::select! {
        biased;
        () = context.interrupted.cancelled() => Err(interrupted()),
        ended = child.wait() => ended.map_err(unstarted),
    }
}
