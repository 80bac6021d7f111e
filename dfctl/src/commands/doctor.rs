//! `dfctl doctor`: whether this machine is as dfs needs it, and what to do where it is not.

use std::path::PathBuf;

use dfs_fuse::agent::inside;
use dfs_fuse::mount::{Detach, MountEntry, unmount};
use serde_json::{Value, json};

use super::inside::answer;
use crate::codes::{self, Code};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Format, Record, Verbosity, counted, printable, printable_name};

mod around;
mod data;
mod machine;
mod mounted;

/// Look whether this machine is as dfs needs it
///
/// Examples:
///   dfctl doctor
///   dfctl doctor --fix
///
/// Each line begins with ok, warn (it works, less well) or fail, and ends with a code that `dfctl explain` knows.
/// Ends with exit code 0 when nothing fails, else 1.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Do what is safe: take away dead mounts and what killed commands left
    #[arg(long, env = "DFS_FIX", hide_env_values = true)]
    fix: bool,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
    Fixed,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Fixed => "fixed",
        }
    }
}

/// What `--fix` does about a finding.
#[derive(Debug)]
enum Fix {
    Unmount(MountEntry),
    Sweep(PathBuf),
}

/// What a check found.
#[derive(Debug)]
struct Finding {
    /// What was looked at, in a word or two.
    check: &'static str,
    level: Level,
    text: String,
    code: Option<&'static Code>,
    next: Option<String>,
    fix: Option<Fix>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        let (level, code, next, fix) = (Level::Ok, None, None, None);
        Self { check, level, text: text.into(), code, next, fix }
    }

    fn warn(check: &'static str, code: &'static Code, text: impl Into<String>) -> Self {
        Self { level: Level::Warn, code: Some(code), ..Self::ok(check, text) }
    }

    fn fail(check: &'static str, code: &'static Code, text: impl Into<String>) -> Self {
        Self { level: Level::Fail, code: Some(code), ..Self::ok(check, text) }
    }

    /// The exact next command.
    fn hint(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    fn mended_by(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }

    /// What to do next; where there is no command of its own, the code says it.
    fn next(&self) -> Option<String> {
        self.next.clone().or_else(|| Some(format!("dfctl explain {}", self.code?)))
    }

    fn human(&self, width: Option<usize>) -> String {
        let line = format!("{:<6}{}", self.level.word(), printable(&self.text));
        let Some(code) = self.code.map(ToString::to_string) else { return line };
        let used = line.chars().count() + code.len();
        let gap = width.map_or(2, |width| width.saturating_sub(used).max(2));
        let line = format!("{line}{:gap$}{code}", "");
        match self.next().filter(|_| self.level != Level::Fixed) {
            Some(next) => format!("{line}\n      try  {}", printable(&next)),
            None => line,
        }
    }
}

impl Record for Finding {
    fn json(&self) -> Value {
        json!({
            "check": self.check,
            "level": self.level.word(),
            "message": self.text,
            "code": self.code.map(ToString::to_string),
            "try": self.next(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.check.as_bytes().to_vec()
    }
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let mut findings = machine::look(context).await?;
    let agent = around::agent(context).await?;
    findings.extend(data::look(context, agent.data_dir.clone()).await?);
    findings.extend(mounted::look(context).await?);
    let clusters = agent.clusters.clone();
    findings.extend(agent.findings);
    findings.extend(around::clusters(context, &clusters).await?);
    if args.fix {
        for finding in &mut findings {
            mend(context, finding).await?;
        }
    }
    show(context, &findings)?;
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if failed == 0 {
        return Ok(Outcome::Done);
    }
    let can_fix = findings.iter().any(|finding| finding.fix.is_some()) && !args.fix;
    let error =
        CliError::new(&codes::UNFIT, counted(failed as u64, "check failed", "checks failed"));
    Err(error.hint(if can_fix { "dfctl doctor --fix" } else { "what stands below each" }))
}

fn show(context: &Context, findings: &[Finding]) -> Result<(), CliError> {
    let output = &context.output;
    if output.format != Format::Human {
        return output.records("findings", findings, String::new);
    }
    let quiet = output.verbosity == Verbosity::Quiet;
    let shown = findings.iter().filter(|finding| !quiet || finding.level != Level::Ok);
    for finding in shown {
        output.line(&finding.human(output.stderr_width))?;
    }
    Ok(())
}

/// Does what a finding says is safe.
async fn mend(context: &Context, finding: &mut Finding) -> Result<(), CliError> {
    let Some(fix) = finding.fix.take() else { return Ok(()) };
    let mending = tokio::task::spawn_blocking(move || match fix {
        Fix::Unmount(mount) => {
            let dir = mount.dir.clone();
            let gone = unmount(&mount, Detach::Lazily).map_err(|error| error.to_string());
            gone.map(|()| format!("took away the dead mount {}", shown(&dir)))
        }
        Fix::Sweep(parent) => {
            inside::sweep(&parent);
            match inside::abandoned(&parent).len() {
                0 => Ok(format!("removed what killed commands left in {}", shown(&parent))),
                left => Err(format!("{left} of what killed commands left cannot be removed")),
            }
        }
    });
    match answer(context, mending).await? {
        Ok(Ok(text)) => (finding.level, finding.text) = (Level::Fixed, text),
        Ok(Err(why)) => finding.text = format!("{}: {why}", finding.text),
        Err(_) => {}
    }
    Ok(())
}

fn shown(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    printable_name(path.as_os_str().as_bytes())
}

/// Findings of `work` on a thread that may block.
async fn blocking(
    context: &Context,
    work: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Result<Vec<Finding>, CliError> {
    // A check that panicked found nothing.
    Ok(answer(context, tokio::task::spawn_blocking(work)).await?.unwrap_or_default())
}
