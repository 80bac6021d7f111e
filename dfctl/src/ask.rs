//! Asking before something is taken away. Without a terminal nobody can answer, and nothing is done.

use std::io::{self, IsTerminal};

use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::CliError;

/// Whether whoever sits at the terminal says yes to `question`; anything else is no.
pub async fn confirmed(context: &Context, question: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::new(&codes::UNCONFIRMED, "nobody is there to be asked")
            .because(format!("the question is: {question}"))
            .hint("the same command with --yes, or with --dry-run to see what it would do"));
    }
    context.output.flush()?;
    context.output.say(&format!("{question} [y/N]"));
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = answer(context, reading).await?;
    let said = line.ok().and_then(Result::ok).unwrap_or_default().trim().to_lowercase();
    Ok(said == "y" || said == "yes")
}
