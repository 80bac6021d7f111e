//! Asking before something is taken away. Without a terminal nobody can answer, and nothing is done.

use std::io::{self, IsTerminal};

use crate::codes;
use crate::commands::inside::interrupted;
use crate::context::Context;
use crate::error::CliError;

/// Refuses where nobody sits at a terminal who could be asked `question`.
pub fn attended(question: &str) -> Result<(), CliError> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(CliError::new(&codes::UNCONFIRMED, "nobody is there to be asked")
        .because(format!("the question is: {question}"))
        .hint("the same command with --yes, or with --dry-run to see what it would do"))
}

/// Whether whoever sits at the terminal says yes to `question`; anything else is no.
pub async fn confirmed(context: &Context, question: &str) -> Result<bool, CliError> {
    attended(question)?;
    context.output.flush()?;
    context.output.say(&format!("{question} [y/N]"));
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    // Nothing is drawn meanwhile where somebody types.
    let line = tokio::select! {
        () = context.interrupted.cancelled() => return Err(interrupted()),
        line = reading => line,
    };
    let said = line.ok().and_then(Result::ok).unwrap_or_default().trim().to_lowercase();
    Ok(said == "y" || said == "yes")
}
