//! Tasks as people name them: by their id, or by the beginning of it.

use crate::backend::{Backend, CachedTask};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::CliError;

/// Hexadecimal digits of an id.
const DIGITS: usize = 64;

/// The one task whose id begins so.
pub async fn named(
    context: &Context,
    backend: &dyn Backend,
    text: &str,
) -> Result<CachedTask, CliError> {
    let prefix = text.to_ascii_lowercase();
    let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    if prefix.is_empty() || prefix.len() > DIGITS || !is_hex {
        let what = format!("'{text}' is not a task id: up to {DIGITS} hexadecimal digits");
        return Err(CliError::new(&codes::USAGE, what).hint("dfctl task ls"));
    }
    let mut tasks = answer(context, backend.tasks(&prefix))
        .await?
        .map_err(|failure| CliError::backend("look for task", &prefix, failure))?;
    let Some(task) = tasks.pop() else {
        let what = format!("this machine holds nothing of a task {prefix}…");
        return Err(CliError::new(&codes::NO_TASK, what).hint("dfctl task ls"));
    };
    if tasks.is_empty() {
        return Ok(task);
    }
    let ids: Vec<_> =
        tasks.iter().chain([&task]).take(8).map(|task| task.task.id.short()).collect();
    let what = format!("{} tasks begin with {prefix}", tasks.len() + 1);
    Err(CliError::new(&codes::USAGE, what)
        .because(ids.join(", "))
        .hint("more digits of the one that is meant"))
}
