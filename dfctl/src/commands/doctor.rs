//! `dfctl doctor`: whether this machine is as dfs needs it, and what to do where it is not.

use std::path::PathBuf;

use serde_json::{Value, json};

use self::mending::Step;
use super::inside::answer;
use crate::codes::{self, Code};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Format, Record, Verbosity, counted, printable, printable_name};

mod around;
mod data;
mod machine;
mod memory;
mod mending;
mod mounted;
mod sockets;
mod store;

/// Look whether this machine is as dfs needs it
///
/// Examples:
///   dfctl doctor
///   dfctl doctor --fix
///   dfctl doctor --fix --dry-run
///
/// Each line begins with ok, warn (it works, less well) or fail, and ends with a code that `dfctl explain` knows.
/// Ends with exit code 0 when nothing fails, else 1.
///
/// With --fix dead mounts are taken away, and mounts of the kernel's that no agent knows where nobody uses them; sockets on
/// which nobody listens, what killed commands left, what is half-made in a store that no agent has open, and memory that the
/// cache of an agent takes that never came back, are removed; and what the agent's user cannot use in its store is made its own. Each step is told. What somebody serves is never taken away,
/// nor what is another user's, unless root asks.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Do what is safe about what is found
    #[arg(long, env = "DFS_FIX", hide_env_values = true)]
    fix: bool,
    /// Only say what --fix would do
    #[arg(short = 'n', long, env = "DFS_DRY_RUN", hide_env_values = true)]
    dry_run: bool,
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

/// What a check found.
#[derive(Debug)]
struct Finding {
    /// What was looked at, in a word or two.
    check: &'static str,
    level: Level,
    text: String,
    code: Option<&'static Code>,
    next: Option<String>,
    /// What `--fix` does about it.
    fix: Vec<Step>,
    /// What was done, or would be.
    told: Vec<String>,
}

/// Most steps of a finding that are told one by one.
const MOST_TOLD: usize = 20;

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        let (level, code, next) = (Level::Ok, None, None);
        Self { check, level, text: text.into(), code, next, fix: Vec::new(), told: Vec::new() }
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

    fn mended_by(self, fix: Vec<Step>) -> Self {
        Self { fix, ..self }
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
        let mut line = format!("{line}{:gap$}{code}", "");
        for told in &self.told {
            line.push_str(&format!("\n      {}", printable(told)));
        }
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
            "steps": self.told,
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
    findings.extend(left_over(context, agent.data_dir.clone()).await?);
    let mounted = mounted::look(context).await?;
    let waiting = mounted::waiting(&mounted);
    let data_dir = agent.data_dir.clone().or_else(|| context.settings.agent_dir().ok());
    let memory = move || memory::look(data_dir.as_deref(), waiting);
    findings.extend(blocking(context, memory).await?);
    findings.extend(mounted);
    let clusters = agent.clusters.clone();
    findings.extend(agent.findings);
    findings.extend(around::clusters(context, &clusters).await?);
    for finding in &mut findings {
        match (args.dry_run, args.fix) {
            (true, _) => finding.plan(),
            (false, true) => mend(context, finding).await?,
            (false, false) => {}
        }
    }
    show(context, &findings)?;
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if failed == 0 {
        return Ok(Outcome::Done);
    }
    let can_fix = findings.iter().any(|finding| !finding.fix.is_empty());
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

impl Finding {
    /// Says what `--fix` would do about it.
    fn plan(&mut self) {
        self.tell("would", self.fix.iter().map(ToString::to_string).collect());
    }

    fn tell(&mut self, word: &str, steps: Vec<String>) {
        let more = steps.len().saturating_sub(MOST_TOLD);
        let told = steps.iter().take(MOST_TOLD).map(|step| format!("{word}  {step}"));
        self.told.extend(told);
        if more > 0 {
            self.told.push(format!("{word}  {}", counted(more as u64, "more step", "more steps")));
        }
    }
}

/// Does what a finding says is safe.
async fn mend(context: &Context, finding: &mut Finding) -> Result<(), CliError> {
    let steps = std::mem::take(&mut finding.fix);
    if steps.is_empty() {
        return Ok(());
    }
    let mending = tokio::task::spawn_blocking(move || {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for step in steps {
            match step.take() {
                Ok(()) => done.push(step.to_string()),
                Err(why) => failed.push(format!("{step}: {why}")),
            }
        }
        (done, failed)
    });
    // One that panicked did who knows what: it is still to be seen to.
    let Ok((done, failed)) = answer(context, mending).await? else { return Ok(()) };
    finding.tell("did", done);
    if failed.is_empty() {
        finding.level = Level::Fixed;
    }
    finding.tell("could not", failed);
    Ok(())
}

/// Sockets without a process, and what is wrong in the agent's store.
async fn left_over(
    context: &Context,
    of_the_agent: Option<PathBuf>,
) -> Result<Vec<Finding>, CliError> {
    let settings = context.settings.clone();
    let data_dir = of_the_agent.or_else(|| settings.agent_dir().ok());
    blocking(context, move || {
        let mut findings = sockets::look(&settings, data_dir.as_deref());
        findings.extend(data_dir.iter().flat_map(|dir| store::look(dir)));
        findings
    })
    .await
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
