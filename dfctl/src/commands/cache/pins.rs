//! Setting and lifting pins.

use serde_json::{Value, json};

use crate::backend::{CachedTask, Pin};
use crate::commands::inside::answer;
use crate::commands::task::{all_named, share};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::Record;

/// A task and what became of its pin.
struct Changed {
    task: CachedTask,
    pin: Pin,
    is_news: bool,
}

impl Record for Changed {
    fn json(&self) -> Value {
        json!({
            "task": self.task.task.id.to_string(),
            "url": self.task.task.key.url.to_string(),
            "pinned": self.pin == Pin::Set,
            "changed": self.is_news,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.task.task.id.to_string().into_bytes()
    }
}

/// Pins the tasks named, or lets them go.
pub async fn change(names: &[String], pin: Pin, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let action = if pin == Pin::Set { "pin task" } else { "unpin task" };
    let mut changed = Vec::new();
    for task in all_named(context, &*backend, names).await? {
        let id = task.task.id;
        let is_news = answer(context, backend.pin_task(id, pin))
            .await?
            .map_err(|failure| CliError::backend(action, &id.short(), failure))?;
        changed.push(Changed { task, pin, is_news });
    }
    context
        .output
        .records("pins", &changed, || changed.iter().map(human).collect::<Vec<_>>().join("\n"))?;
    let any = changed.iter().any(|one| one.is_news);
    Ok(if any { Outcome::Done } else { Outcome::Nothing })
}

fn human(changed: &Changed) -> String {
    let word = match (changed.pin, changed.is_news) {
        (Pin::Set, true) => "pinned",
        (Pin::Set, false) => "pinned already",
        (Pin::Lift, true) => "unpinned",
        (Pin::Lift, false) => "not pinned",
    };
    let (task, here) = (&changed.task.task, share(&changed.task));
    format!("{word}  {}  {here} here  {}", task.id.short(), task.key.url)
}
