//! `dfctl completion`.

use crate::completion::Shell;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Print the script by which a shell completes dfctl
///
/// Examples:
///   dfctl completion bash
///   dfctl completion zsh
///
/// Into a file that the shell reads by itself: ~/.local/share/bash-completion/completions/dfctl, _dfctl in a
/// directory of $fpath, ~/.config/fish/completions/dfctl.fish. For one session of bash or zsh:
/// source <(dfctl completion bash). Mounts, tasks, codes and keys are completed with those that there are.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Runs it.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CliError> {
    context.output.bytes(args.shell.script().as_bytes())?;
    Ok(Outcome::Done)
}
