//! Setting and lifting pins, and what is told of it.

use dfs_model::ByteSize;
use serde_json::{Value, json};

use super::what::What;
use crate::backend::{Backend, CachedTask, Pin, PinState, PinnedTree};
use crate::commands::inside::answer;
use crate::commands::task::share;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Record, files, printable};

/// What became of a pin.
pub enum Changed {
    /// Of one task.
    Task {
        /// Which.
        task: Box<CachedTask>,
        /// How it is now.
        set: Pin,
        /// Whether it was not so before.
        is_news: bool,
    },
    /// Of a tree, or a part of one.
    Tree {
        /// Which.
        pin: PinnedTree,
        /// How it is now.
        set: Pin,
        /// Whether it was not so before.
        is_news: bool,
    },
}

impl Changed {
    /// Whether it was not so before.
    pub fn is_news(&self) -> bool {
        match self {
            Self::Task { is_news, .. } | Self::Tree { is_news, .. } => *is_news,
        }
    }

    fn human(&self) -> String {
        match self {
            Self::Task { task, set, is_news } => {
                let (word, here) = (word(*set, *is_news), share(task));
                let task = &task.task;
                format!("{word}  {}  {here} here  {}", task.id.short(), task.place())
            }
            Self::Tree { pin, set, is_news } => {
                let word = word(*set, *is_news);
                let size = format!("{}, {}", files(pin.files), ByteSize(pin.bytes));
                let here = match (set, pin.state) {
                    (Pin::Lift, _) => String::new(),
                    (Pin::Set, _) if pin.cached >= pin.bytes => "   all of it here".to_owned(),
                    (Pin::Set, PinState::Waiting | PinState::Failed) => {
                        let why = printable(&pin.why);
                        format!("   {} here, {}: {why}", ByteSize(pin.cached), pin.state.word())
                    }
                    (Pin::Set, PinState::Fetching | PinState::Whole) => {
                        format!("   {} here, the rest is fetched", ByteSize(pin.cached))
                    }
                };
                format!("{word}  {}   {size}{here}", printable(&pin.url))
            }
        }
    }
}

fn word(set: Pin, is_news: bool) -> &'static str {
    match (set, is_news) {
        (Pin::Set, true) => "pinned",
        (Pin::Set, false) => "pinned already",
        (Pin::Lift, true) => "unpinned",
        (Pin::Lift, false) => "not pinned",
    }
}

impl Record for Changed {
    fn json(&self) -> Value {
        match self {
            Self::Task { task, set, is_news } => json!({
                "task": task.task.id.to_string(),
                "url": task.task.place().to_string(),
                "pinned": *set == Pin::Set,
                "changed": is_news,
            }),
            Self::Tree { pin, set, is_news } => {
                let mut object = pin.json();
                object["pinned"] = (*set == Pin::Set).into();
                object["changed"] = (*is_news).into();
                object
            }
        }
    }

    fn name(&self) -> Vec<u8> {
        match self {
            Self::Task { task, .. } => task.name(),
            Self::Tree { pin, .. } => pin.name(),
        }
    }
}

/// The tasks that are named by their ids, found before any of them is changed; none of what is named otherwise.
pub async fn tasks_of(
    context: &Context,
    backend: &dyn Backend,
    meant: &[What],
) -> Result<Vec<Vec<CachedTask>>, CliError> {
    let mut tasks = Vec::new();
    for what in meant {
        tasks.push(match what {
            What::Task(_) => what.tasks(context, backend, "cache").await?,
            What::Path(..) | What::Url(..) => Vec::new(),
        });
    }
    Ok(tasks)
}

/// Pins tasks, or lets them go.
pub async fn of_tasks(
    context: &Context,
    backend: &dyn Backend,
    tasks: Vec<CachedTask>,
    set: Pin,
) -> Result<Vec<Changed>, CliError> {
    let action = if set == Pin::Set { "pin task" } else { "unpin task" };
    let mut changed = Vec::new();
    for task in tasks {
        let id = task.task.id;
        let is_news = answer(context, backend.pin_task(id, set))
            .await?
            .map_err(|failure| CliError::backend(action, &id.short(), failure))?;
        changed.push(Changed::Task { task: Box::new(task), set, is_news });
    }
    Ok(changed)
}

/// Says what was changed.
pub fn tell(context: &Context, changed: &[Changed]) -> Result<(), CliError> {
    let human = || changed.iter().map(Changed::human).collect::<Vec<_>>().join("\n");
    context.output.records("pins", changed, human)
}
