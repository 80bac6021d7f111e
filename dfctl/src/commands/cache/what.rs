//! What of the cache is meant: a task, something in a mount, or something at a URL.

use std::path::Path;

use dfs_model::redact;
use dfs_source::Target;

use crate::backend::{Backend, CachedTask, CachedTree, Failure, FailureClass, Named, View};
use crate::codes;
use crate::commands::elsewhere::not_of_this_agent;
use crate::commands::inside::{Access, answer};
use crate::commands::task::named;
use crate::commands::within::{Within, within};
use crate::context::Context;
use crate::error::CliError;
use crate::locator::is_local;
use crate::output::{printable, shell_quoted};

/// Hexadecimal digits of an id.
const DIGITS: usize = 64;

/// What a person named.
pub enum What {
    /// A task by the beginning of its id.
    Task(String),
    /// Something in a mount of an agent.
    Path(Within, String),
    /// Something at a URL.
    Url(Named, String),
}

/// Reads what was named: what leads into a mount is that, hexadecimal digits are a task's id, everything else is a URL.
/// What is here and in no mount is hardly meant: it might be all of a disk. As a URL it can be named.
pub async fn what(
    context: &Context,
    text: &str,
    access: &Access,
    view: View,
) -> Result<What, CliError> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && text.len() == DIGITS {
        return Ok(What::Task(text.to_owned()));
    }
    if is_local(text) {
        match within(context, Path::new(text)).await {
            Ok(Some(within)) => return Ok(What::Path(within, text.to_owned())),
            _ if is_hex && text.len() < DIGITS => return Ok(What::Task(text.to_owned())),
            Ok(None) => return Err(not_in_mount(text)),
            // Whatever else it may be that is not here.
            Err(error) if error.code == &codes::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    let locator = access.locate(context, text).await?;
    let shown = locator.shown();
    let path = locator.inner.unwrap_or_default();
    Ok(What::Url(Named::Target { target: Box::new(locator.target), view, path }, shown))
}

fn not_in_mount(text: &str) -> CliError {
    let error =
        CliError::new(&codes::NOT_MOUNTED, format!("{} is in no mount of dfs", printable(text)));
    let real = Path::new(text).canonicalize().ok();
    match real.and_then(|real| Target::parse(real.to_str()?).ok()) {
        Some(target) => {
            error.hint(format!("{}      is its URL, where it is meant itself", target.url))
        }
        None => error,
    }
}

/// Who is asked about it: the agent that is there. Where that is none, a mount is another one's.
pub async fn backend(
    context: &Context,
    what: &[What],
    typed: &str,
) -> Result<std::sync::Arc<dyn Backend>, CliError> {
    let in_mount = what.iter().find_map(|what| match what {
        What::Path(within, shown) => Some((within, shown)),
        What::Task(_) | What::Url(..) => None,
    });
    match (context.resident_backend(), in_mount) {
        (Err(error), Some((within, shown))) if error.code == &codes::NO_AGENT => {
            Err(elsewhere(context, within, shown, typed).await)
        }
        (found, _) => found,
    }
}

async fn elsewhere(context: &Context, within: &Within, shown: &str, typed: &str) -> CliError {
    let typed = format!("dfctl{{}} {typed} {}", shell_quoted(shown));
    not_of_this_agent(context, &within.mount.dir, &within.mount, &typed).await
}

impl What {
    /// As the agent is asked for it; nothing of a task.
    pub fn named(&self) -> Option<Named> {
        match self {
            Self::Task(_) => None,
            Self::Url(named, _) => Some(named.clone()),
            Self::Path(within, _) => Some(Named::Within {
                dir: within.mount.dir.to_string_lossy().into_owned(),
                path: within.path.clone(),
            }),
        }
    }

    /// As it was named, credentials removed.
    pub fn shown(&self) -> String {
        match self {
            Self::Task(text) | Self::Path(_, text) => redact(text),
            Self::Url(_, shown) => shown.clone(),
        }
    }

    /// Why what was asked of the agent about it failed; `typed` is the command without `dfctl` and its name.
    pub async fn failed(
        &self,
        context: &Context,
        action: &str,
        typed: &str,
        failure: Failure,
    ) -> CliError {
        match self {
            Self::Path(within, shown) if failure.class == FailureClass::NotMounted => {
                elsewhere(context, within, shown, typed).await
            }
            _ => CliError::backend(action, &self.shown(), failure),
        }
    }

    /// What of it is here, with so many entries.
    pub async fn cached(
        &self,
        context: &Context,
        backend: &dyn Backend,
        typed: &str,
        entries: u32,
    ) -> Result<Option<CachedTree>, CliError> {
        let Some(named) = self.named() else { return Ok(None) };
        match answer(context, backend.cached(&named, entries)).await? {
            Ok(tree) => Ok(Some(tree)),
            Err(failure) => Err(self.failed(context, "look at", typed, failure).await),
        }
    }

    /// The tasks behind it. Of a URL as a whole those that are here, of whatever version, whether or not anybody is there
    /// to say what the URL is.
    pub async fn tasks(
        &self,
        context: &Context,
        backend: &dyn Backend,
        typed: &str,
    ) -> Result<Vec<CachedTask>, CliError> {
        match self {
            Self::Task(text) => Ok(vec![named(context, backend, text).await?]),
            Self::Url(Named::Target { target, path, .. }, shown) if path.is_empty() => {
                let tasks = answer(context, backend.tasks("")).await?;
                let mut tasks =
                    tasks.map_err(|failure| CliError::backend("list", "the cache", failure))?;
                tasks.retain(|task| task.task.place().as_str() == target.url.as_str());
                if tasks.is_empty() {
                    let what = format!("this machine holds nothing of {shown}");
                    return Err(CliError::new(&codes::NO_TASK, what).hint("dfctl cache ls"));
                }
                Ok(tasks)
            }
            _ => {
                let tree = self.cached(context, backend, typed, 0).await?;
                Ok(tree.map(|tree| tree.tasks).unwrap_or_default())
            }
        }
    }
}

/// All of these, read in their order.
pub async fn all(
    context: &Context,
    texts: &[String],
    access: &Access,
    view: View,
) -> Result<Vec<What>, CliError> {
    let mut meant = Vec::new();
    for text in texts {
        meant.push(what(context, text, access, view).await?);
    }
    Ok(meant)
}

/// The tasks behind all of these, each once.
pub async fn all_tasks(
    context: &Context,
    texts: &[String],
    typed: &str,
) -> Result<(std::sync::Arc<dyn Backend>, Vec<CachedTask>), CliError> {
    let meant = all(context, texts, &Access::default(), View::Auto).await?;
    let backend = backend(context, &meant, typed).await?;
    let mut tasks: Vec<CachedTask> = Vec::new();
    for what in &meant {
        for task in what.tasks(context, &*backend, typed).await? {
            if tasks.iter().all(|known| known.task.id != task.task.id) {
                tasks.push(task);
            }
        }
    }
    Ok((backend, tasks))
}
