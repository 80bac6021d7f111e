//! Names that exist only at run time. Those of the agent come before a deadline or not at all.

use std::time::Instant;

use dfs_fuse::mount::mounts;

use super::grammar::{Candidate, Names, Wanted};
use crate::backend::Backend;
use crate::backend::agent::{Agent, CommandId};
use crate::cli::Cli;
use crate::codes;
use crate::settings::{self, Settings};

/// Most names that a shell is given.
const MOST: usize = 1_000;

/// The names of this kind that begin as was typed.
pub fn names(kind: Names, wanted: &Wanted, deadline: Instant) -> Vec<Candidate> {
    match kind {
        Names::Codes => codes(&wanted.typed),
        Names::Keys => {
            settings::keys().into_iter().map(|key| Candidate::new(key.name, &key.about)).collect()
        }
        Names::Mounts => mounts_of_dfs(),
        Names::Tasks => tasks(wanted, deadline).unwrap_or_default(),
    }
}

/// In the case in which it was begun.
fn codes(typed: &str) -> Vec<Candidate> {
    let lower = typed.starts_with('d');
    let numbers = typed.starts_with(|c: char| c.is_ascii_digit());
    let name = |code: &codes::Code| match () {
        () if numbers => code.number.to_string(),
        () if lower => code.to_string().to_lowercase(),
        () => code.to_string(),
    };
    codes::all().into_iter().map(|code| Candidate::new(name(code), code.title)).collect()
}

/// By the kernel's table: no agent is needed, and what a dead one left is among them.
fn mounts_of_dfs() -> Vec<Candidate> {
    let own = rustix::process::geteuid();
    let theirs = |user: Option<u32>| own.is_root() || user.is_none_or(|user| user == own.as_raw());
    let found = mounts().unwrap_or_default();
    let ours = found.into_iter().filter(|mount| mount.is_ours() && theirs(mount.user));
    let named = ours.filter_map(|mount| Some(Candidate::new(mount.dir.to_str()?, &mount.name)));
    named.take(MOST).collect()
}

fn tasks(wanted: &Wanted, deadline: Instant) -> Option<Vec<Candidate>> {
    let settings = in_force(wanted)?;
    if settings.solo {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let prefix = wanted.typed.to_ascii_lowercase();
    let tasks = runtime.block_on(async {
        let asking = async {
            for socket in settings.sockets() {
                let agent = Agent::at(&socket, None, CommandId::random());
                if let Ok(tasks) = agent.tasks(&prefix).await {
                    return Some(tasks);
                }
            }
            None
        };
        tokio::time::timeout_at(deadline.into(), asking).await.ok().flatten()
    });
    // An agent that hangs must not hold up the end of this.
    runtime.shutdown_background();
    let mut tasks = tasks?;
    tasks.sort_by_key(|task| std::cmp::Reverse(task.last_read_ms));
    tasks.truncate(MOST);
    let ids: Vec<String> = tasks.iter().map(|task| task.task.id.to_string()).collect();
    let named = tasks.iter().zip(&ids).map(|(task, id)| {
        let short = task.task.id.short();
        let is_enough = ids.iter().filter(|other| other.starts_with(&short)).count() == 1;
        let value = if is_enough && short.starts_with(&prefix) { short } else { id.clone() };
        Candidate::new(value, &task.task.place().to_string())
    });
    Some(named.collect())
}

/// What is in force on the line that is being typed; where that is wrong, the defaults.
fn in_force(wanted: &Wanted) -> Option<Settings> {
    let mut line = vec!["dfctl".to_owned()];
    for (name, value) in wanted.given.iter().filter(|(name, _)| name == "socket" || name == "solo")
    {
        line.push(if value.is_empty() { format!("--{name}") } else { format!("--{name}={value}") });
    }
    line.push("version".to_owned());
    let given = Cli::of(line).ok().map(|(_, given)| given).unwrap_or_default();
    Settings::load(&given).or_else(|_| Settings::defaults()).ok()
}
