//! `dfctl explain`.

use serde_json::{Value, json};

use crate::codes::{self, Code};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::near::near;
use crate::output::Record;
use crate::output::table::{Align, Table};

/// Explain a code that an error ended with, as in DFS-2103
///
/// Examples:
///   dfctl explain DFS-2103
///   dfctl explain --list
///
/// Says what it means, what it usually comes from, and which commands come next.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The code, with or without DFS-; all of them without one
    code: Option<String>,
    /// Name all codes, a line each
    #[arg(short, long, conflicts_with = "code", env = "DFS_LIST", hide_env_values = true)]
    list: bool,
}

/// Runs it.
pub fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    match args.code {
        Some(text) => {
            let code = codes::find(text.trim()).ok_or_else(|| unknown(&text))?;
            context.output.record("code", code, || human(code))?;
        }
        None => context.output.records("codes", &codes::all(), table)?,
    }
    Ok(Outcome::Done)
}

fn unknown(text: &str) -> CliError {
    let all: Vec<_> = codes::all().into_iter().map(ToString::to_string).collect();
    let digits = text.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
    let like = near(&format!("DFS-{digits}"), all.iter().map(String::as_str));
    let error = CliError::new(&codes::UNKNOWN_NAME, format!("there is no code {text}"));
    match like.first() {
        Some(first) if !digits.is_empty() => error
            .because(format!("codes like it: {}", like.join(", ")))
            .hint(format!("dfctl explain {first}")),
        _ => error.hint("dfctl explain --list"),
    }
}

fn table() -> String {
    let mut table =
        Table::new(&[("CODE", Align::Left), ("EXIT", Align::Right), ("WHAT IT SAYS", Align::Left)]);
    for code in codes::all() {
        let exit = (code.exit as u8).to_string();
        table.row(vec![code.to_string(), exit, code.title.to_owned()]);
    }
    table.render()
}

fn human(code: &Code) -> String {
    let mut text = format!("{code}  {}\n", code.title);
    text.push_str(&format!("exit code {}\n\n{}\n\nusual causes\n", code.exit as u8, code.meaning));
    code.causes.iter().for_each(|cause| text.push_str(&format!("  - {cause}\n")));
    text.push_str("\nwhat to do\n");
    let width = code.next.iter().map(|step| step.command.chars().count()).max().unwrap_or(0);
    for step in code.next {
        text.push_str(&format!("  {:width$}   {}\n", step.command, step.why));
    }
    text.truncate(text.trim_end().len());
    text
}

impl Record for Code {
    fn json(&self) -> Value {
        let next: Vec<_> = self
            .next
            .iter()
            .map(|step| json!({"command": step.command, "why": step.why}))
            .collect();
        json!({
            "code": self.to_string(),
            "exit": self.exit as u8,
            "title": self.title,
            "meaning": self.meaning,
            "causes": self.causes,
            "next": next,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}
