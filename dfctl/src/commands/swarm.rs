//! Asking the cluster about swarms: what people name, who is asked, and what it means when nobody knows.

use std::path::Path;
use std::sync::Arc;

use dfs_model::{TaskKind, redact};

use super::cache::what::{self, What};
use super::cluster::of_this_machine;
use super::elsewhere::socket_of;
use super::inside::{self, answer};
use super::within::{dead, is_dead, within};
use crate::backend::swarm::{Detail, Look, Seen, SwarmTask, Which};
use crate::backend::{Backend, EntryKind};
use crate::codes;
use crate::context::Context;
use crate::error::CliError;
use crate::locator::Locator;
use crate::output::{printable, quoted_path, shell_quoted};

/// Hexadecimal digits of an id.
const DIGITS: usize = 64;

/// Tasks of one file that are asked for.
const MOST_TASKS: usize = 16;

/// Names of attributes that mounts answer, and their longest values.
const TASK: &str = "user.dfs.task";
const ERROR: &str = "user.dfs.error";
const MAX_VALUE: usize = 64 << 10;

/// What a person named.
pub enum Asked {
    /// A task by the beginning of its id.
    Prefix(String),
    /// What a file in a mount consists of, and why reading it failed last.
    File(Vec<String>, Option<String>),
    /// A URL.
    Url(String),
}

impl Asked {
    /// Reads it: hexadecimal digits are an id, what is there is a file, everything else a URL. `typed` is the command,
    /// without `dfctl`.
    pub async fn of(context: &Context, text: &str, typed: &str) -> Result<Self, CliError> {
        let is_hex = text.len() <= DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !text.is_empty() && is_hex {
            return Ok(Self::Prefix(text.to_ascii_lowercase()));
        }
        match Path::new(text).symlink_metadata() {
            Ok(_) => return Self::of_file(context, text, typed).await,
            Err(error) if is_dead(&error) => return Err(dead(Path::new(text))),
            Err(_) => {}
        }
        if !text.contains(':') {
            let what = format!("'{}' is neither a task's id, nor a file, nor a URL", redact(text));
            return Err(
                CliError::new(&codes::USAGE, what).hint("dfctl task ls      or: dfctl top --once")
            );
        }
        Ok(Self::Url(Locator::parse(text, &[])?.target.url.as_str().to_owned()))
    }

    async fn of_file(context: &Context, text: &str, typed: &str) -> Result<Self, CliError> {
        let path = Path::new(text);
        let error = attribute(path, ERROR);
        let tasks = attribute(path, TASK).unwrap_or_default();
        let is_id = |id: &&str| id.len() == DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit());
        let tasks: Vec<String> =
            tasks.split(',').filter(is_id).take(MOST_TASKS).map(str::to_owned).collect();
        if !tasks.is_empty() {
            return Ok(Self::File(tasks, error));
        }
        match shown_by_kernel(context, text, typed).await? {
            None => Err(without_tasks(path)),
            Some(tasks) if tasks.is_empty() => Err(of_a_mount(path)),
            Some(tasks) => Ok(Self::File(tasks, None)),
        }
    }

    /// Why reading the file failed last.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::File(_, error) => error.as_deref(),
            Self::Prefix(_) | Self::Url(_) => None,
        }
    }

    /// What is asked for.
    pub fn which(&self) -> Vec<Which> {
        match self {
            Self::Prefix(prefix) => vec![Which::Prefix(prefix.clone())],
            Self::File(tasks, _) => tasks.iter().cloned().map(Which::Prefix).collect(),
            Self::Url(url) => vec![Which::Url(url.clone())],
        }
    }
}

/// The tasks of a file that the kernel shows by itself: its mount does not tell, the agent that has it does. `None` where it
/// is in no such mount.
async fn shown_by_kernel(
    context: &Context,
    text: &str,
    typed: &str,
) -> Result<Option<Vec<String>>, CliError> {
    let Some(within) = within(context, Path::new(text)).await? else { return Ok(None) };
    if !within.mount.is_by_kernel() {
        return Ok(None);
    }
    let what = [What::Path(within, text.to_owned())];
    let backend = what::backend(context, &what, typed).await?;
    let found = what[0].cached(context, &*backend, typed, 0).await?;
    // What is below a directory are many files' tasks.
    let found = found.filter(|found| found.whole.kind == EntryKind::File);
    let tasks = found.into_iter().flat_map(|found| found.tasks);
    let own = tasks.filter(|task| task.task.key.kind != TaskKind::Index);
    Ok(Some(own.take(MOST_TASKS).map(|task| task.task.id.to_string()).collect()))
}

/// Nothing is known of what lies at `path`: why that is so.
fn without_tasks(path: &Path) -> CliError {
    let found = path.metadata();
    if found.as_ref().is_err_and(is_dead) {
        return dead(path);
    }
    // Every directory of a mount says who serves it.
    let dir = if found.is_ok_and(|found| found.is_dir()) { Some(path) } else { path.parent() };
    if dir.and_then(socket_of).is_some() {
        return of_a_mount(path);
    }
    let shown = printable(&path.display().to_string());
    let what = format!("{shown} is not in a mount that an agent serves");
    CliError::new(&codes::UNKNOWN_TASK, what)
        .because("its tasks are asked of the mount, and nothing answers")
        .hint("dfctl mounts      or, of what is behind a URL: dfctl why URL")
}

/// What lies at `path` of a mount is in no task.
fn of_a_mount(path: &Path) -> CliError {
    let shown = printable(&path.display().to_string());
    let error = |what: String| CliError::new(&codes::UNKNOWN_TASK, what);
    match path.is_dir() {
        true => error(format!("{shown} is a directory of a mount"))
            .because("a directory lies in no task, the files in it do")
            .hint(format!("dfctl why {}/FILE      or: dfctl cache ls {0}", quoted_path(path))),
        false => {
            error(format!("{shown} has no content that is in a task")).hint("a file with content")
        }
    }
}

fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; MAX_VALUE];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    String::from_utf8(value).ok()
}

/// Whoever can ask the cluster: the node agent; where a cluster is named and none runs, this process.
pub async fn backend(context: &Context) -> Result<Arc<dyn Backend>, CliError> {
    match context.settings.cluster_joined() {
        Some(_) => inside::backend(context).await,
        None => match context.running_backend() {
            Ok(Some(backend)) => Ok(backend),
            Ok(None) => Err(nobody(context)),
            Err(error) => Err(error),
        },
    }
}

/// Schedulers are asked by who takes part in their cluster, and nobody says which one that is.
fn nobody(context: &Context) -> CliError {
    let cluster = of_this_machine(context).ok().and_then(|(_, run)| run);
    let address = cluster.and_then(|run| run.addresses.get("grpc").cloned());
    let address = address.unwrap_or_else(|| "HOST:PORT, that of the manager".to_owned());
    CliError::new(&codes::NO_AGENT, "no node agent answers, and no cluster is named")
        .because("only a cluster's scheduler knows it")
        .hint(format!("the same command with --cluster {address}"))
}

/// Asks; says which schedulers do not answer.
pub async fn look(
    context: &Context,
    backend: &dyn Backend,
    which: Which,
    detail: Detail,
) -> Result<Seen, CliError> {
    let look = Look { which, detail };
    let seen = answer(context, backend.swarm(&look)).await?;
    let mut seen = seen.map_err(|failure| CliError::backend("ask", "the cluster", failure))?;
    for (name, why) in &seen.silent {
        context.output.note(&printable(&format!("scheduler {name} does not answer: {why}")));
    }
    if seen.tasks.is_empty() && seen.arms.is_empty() && !seen.silent.is_empty() {
        let (name, why) = seen.silent.remove(0);
        let what = printable(&format!("scheduler {name} does not answer"));
        return Err(CliError::new(&codes::NO_CLUSTER, what).because(printable(&why)));
    }
    if seen.more {
        context.output.note("there are more tasks than the answer has room for");
    }
    Ok(seen)
}

/// The tasks that were meant: several of one id are several schedulers' views; several ids are too many where an id
/// was named.
pub fn find(tasks: Vec<SwarmTask>, asked: &Asked, named: &str) -> Result<Vec<SwarmTask>, CliError> {
    if tasks.is_empty() {
        let what = format!("no scheduler knows {}", printable(&redact(named)));
        return Err(CliError::new(&codes::UNKNOWN_TASK, what)
            .hint("dfctl top --once      or: dfctl task ls"));
    }
    let Asked::Prefix(prefix) = asked else { return Ok(tasks) };
    let mut ids: Vec<_> = tasks.iter().map(|task| task.task.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == 1 {
        return Ok(tasks);
    }
    let some: Vec<String> = ids.iter().take(8).map(|id| id.short()).collect();
    let what = format!("{} tasks begin with {}", ids.len(), shell_quoted(prefix));
    Err(CliError::new(&codes::USAGE, what)
        .because(some.join(", "))
        .hint("more digits of the one that is meant"))
}
