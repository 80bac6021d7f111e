//! `dfctl cache ls`.

use dfs_model::ByteSize;
use serde_json::Value;

use super::what::{self, What};
use crate::backend::{
    AgentStatus, Backend, CachedEntry, CachedTask, CachedTree, EntryKind, PinState, PinnedTree,
    View,
};
use crate::commands::inside::{Access, answer};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{
    Format, Record, counted, files, printable, printable_name, tasks as tasks_in_words, when,
};

/// List what the cache holds; of a path or URL, what of it is here
///
/// Examples:
///   dfctl cache ls
///   dfctl cache ls /mnt/models/llama
///   dfctl cache ls --pins
///
/// Without anything named all tasks are listed, the longest unread first, and what is pinned.
/// A path is one inside of a mount, a file or a directory; of a directory each entry is listed by name, with all that is
/// below it. READ is when anything was read of the tasks that it lies in: small files share one. What is pinned is never
/// evicted. A URL means what a mount of it shows, as it is now.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Tasks by their ids or the beginnings of them, paths inside of mounts, or URLs
    #[arg(value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    what: Vec<String>,
    /// What is pinned as a tree or a part of one, and how far that is
    #[arg(long, conflicts_with = "what", env = "DFS_PINS", hide_env_values = true)]
    pins: bool,
    /// Show so many entries of a directory, at most 10000
    #[arg(
        short = 'n',
        long,
        default_value_t = 1000,
        value_name = "NUMBER",
        env = "DFS_LINES",
        hide_env_values = true
    )]
    lines: u32,
    #[command(flatten)]
    access: Access,
}

/// How `dfctl cache ls` is typed.
const TYPED: &str = "cache ls";

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    if args.pins {
        let backend = context.resident_backend()?;
        let pins = pins(context, &*backend).await?;
        context.output.records("pins", &pins, || match pins.is_empty() {
            true => "nothing is pinned".to_owned(),
            false => pins_table(&pins),
        })?;
        return Ok(Outcome::Done);
    }
    if args.what.is_empty() {
        return everything(context).await;
    }
    let meant = what::all(context, &args.what, &args.access, View::Auto).await?;
    let backend = what::backend(context, &meant, TYPED).await?;
    let mut rows = Vec::new();
    let mut pages = Vec::new();
    for what in &meant {
        match what.cached(context, &*backend, TYPED, args.lines).await? {
            Some(tree) => {
                pages.push(page(what, &tree, meant.len() > 1));
                rows.extend(Row::of(what, tree));
            }
            None => {
                let tasks = what.tasks(context, &*backend, TYPED).await?;
                let status = answer(context, backend.status()).await?;
                let status =
                    status.map_err(|error| CliError::backend("list", "the cache", error))?;
                pages.push(tasks_table(&tasks, &status));
                rows.extend(tasks.into_iter().map(|task| Row::Task(Box::new(task))));
            }
        }
    }
    context.output.records("cached", &rows, || pages.join("\n\n"))?;
    Ok(Outcome::Done)
}

async fn everything(context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let failed = |failure| CliError::backend("list", "the cache", failure);
    let mut tasks = answer(context, backend.tasks("")).await?.map_err(failed)?;
    let status = answer(context, backend.status()).await?.map_err(failed)?;
    let pinned = match context.output.format {
        Format::Human => pins(context, &*backend).await?,
        _ => Vec::new(),
    };
    tasks.sort_by_key(|task| task.last_read_ms);
    context.output.records("cache", &tasks, || human(&tasks, &pinned, &status))?;
    Ok(Outcome::Done)
}

async fn pins(context: &Context, backend: &dyn Backend) -> Result<Vec<PinnedTree>, CliError> {
    let asked = answer(context, backend.pins()).await?;
    asked.map_err(|failure| CliError::backend("list", "the pins", failure))
}

/// One entry of what was named, or a task.
enum Row {
    Entry { of: String, url: String, entry: CachedEntry },
    Task(Box<CachedTask>),
}

impl Row {
    /// The whole first, with the name that it was given.
    fn of(what: &What, tree: CachedTree) -> impl Iterator<Item = Self> {
        let (of, url) = (what.shown(), tree.url);
        let whole = CachedEntry { name: of.clone().into_bytes(), ..tree.whole };
        let entries = std::iter::once(whole).chain(tree.entries);
        entries.map(move |entry| Self::Entry { of: of.clone(), url: url.clone(), entry })
    }
}

impl Record for Row {
    fn json(&self) -> Value {
        match self {
            Self::Task(task) => task.json(),
            Self::Entry { of, url, entry } => {
                let mut object = entry.json();
                object["of"] = of.as_str().into();
                object["url"] = url.as_str().into();
                object
            }
        }
    }

    fn name(&self) -> Vec<u8> {
        match self {
            Self::Task(task) => task.name(),
            Self::Entry { entry, .. } => entry.name(),
        }
    }
}

fn page(what: &What, tree: &CachedTree, is_one_of_many: bool) -> String {
    let mut table = Table::new(&[
        ("SIZE", Align::Right),
        ("HERE", Align::Right),
        ("CACHED", Align::Right),
        ("KEPT", Align::Left),
        ("READ", Align::Left),
        ("NAME", Align::Left),
    ]);
    let row = |entry: &CachedEntry, name: String| {
        let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
        vec![
            ByteSize(entry.bytes).to_string(),
            share(entry.cached, entry.bytes),
            ByteSize(entry.cached).to_string(),
            if entry.pinned { "pinned" } else { "-" }.to_owned(),
            // Nobody has read what is not here.
            if entry.cached == 0 { "-".to_owned() } else { when::ago(entry.last_read_ms) },
            format!("{name}{slash}"),
        ]
    };
    let shown = printable(&what.shown());
    if tree.whole.kind != EntryKind::Directory {
        table.row(row(&tree.whole, shown));
        return table.render();
    }
    tree.entries.iter().for_each(|entry| table.row(row(entry, printable_name(&entry.name))));
    let more = match tree.entries_in_all.saturating_sub(tree.entries.len() as u64) {
        0 => String::new(),
        more => format!("… and {}\n", counted(more, "more entry", "more entries")),
    };
    let whole = &tree.whole;
    let name = if is_one_of_many { format!("{shown}: ") } else { String::new() };
    let total = format!(
        "{name}{}, {}, {} of it here ({})",
        files(whole.files),
        ByteSize(whole.bytes),
        ByteSize(whole.cached),
        share(whole.cached, whole.bytes)
    );
    match tree.entries.is_empty() {
        true => total,
        false => format!("{}\n{more}{total}", table.render()),
    }
}

/// In percent, `all` only of all.
pub fn share(part: u64, whole: u64) -> String {
    match (part, whole) {
        (part, whole) if part >= whole => "all".to_owned(),
        (part, whole) => format!("{} %", u128::from(part) * 100 / u128::from(whole)),
    }
}

/// Why eviction leaves it alone.
fn kept_for(task: &CachedTask) -> &'static str {
    match (task.in_use, task.pinned) {
        (true, true) => "in use, pinned",
        (true, false) => "in use",
        (false, true) => "pinned",
        (false, false) => "-",
    }
}

/// How much the cache takes, and where.
pub fn taken(status: &AgentStatus) -> String {
    let of = match status.capacity {
        0 => String::new(),
        capacity => format!(" of {}", ByteSize(capacity)),
    };
    let medium = match &*status.medium {
        "" | "disk" => String::new(),
        medium => format!("{} ", printable(medium)),
    };
    let dir = if status.cache_dir.is_empty() { &status.data_dir } else { &status.cache_dir };
    format!("{}{of} in {medium}{}", ByteSize(status.used), printable(dir))
}

fn tasks_table(tasks: &[CachedTask], status: &AgentStatus) -> String {
    let mut table = Table::new(&[
        (if status.medium == "memory" { "IN MEMORY" } else { "ON DISK" }, Align::Right),
        ("READ", Align::Left),
        ("USE", Align::Left),
        ("TASK", Align::Left),
        ("URL", Align::Left),
    ]);
    for task in tasks {
        table.row(vec![
            ByteSize(task.disk).to_string(),
            when::ago(task.last_read_ms),
            kept_for(task).to_owned(),
            task.task.id.short(),
            task.task.place().to_string(),
        ]);
    }
    table.render()
}

fn pins_table(pins: &[PinnedTree]) -> String {
    let mut table = Table::new(&[
        ("PINNED", Align::Right),
        ("HERE", Align::Right),
        ("STATE", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for pin in pins {
        let state = match pin.state {
            PinState::Waiting => format!("waiting: {}", printable(&pin.why)),
            PinState::Failed => format!("failed: {}", printable(&pin.why)),
            state @ (PinState::Fetching | PinState::Whole) => state.word().to_owned(),
        };
        table.row(vec![
            ByteSize(pin.bytes).to_string(),
            share(pin.cached, pin.bytes),
            state,
            printable(&pin.url),
        ]);
    }
    table.render()
}

fn human(tasks: &[CachedTask], pins: &[PinnedTree], status: &AgentStatus) -> String {
    let number = tasks_in_words(tasks.len());
    let used = format!("{number}, {}", taken(status));
    let used =
        if tasks.is_empty() { used } else { format!("{}\n{used}", tasks_table(tasks, status)) };
    if pins.is_empty() { used } else { format!("{used}\n\n{}", pins_table(pins)) }
}
