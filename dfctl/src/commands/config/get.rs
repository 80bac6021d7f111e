//! `dfctl config get`.

use serde_json::{Value, json};

use super::{Held, held, value, written};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Format, Record, printable};

/// Print the value of a key, or of all
///
/// Examples:
///   dfctl config get
///   dfctl config get cluster
///
/// Ends with exit code 9 where the key is not set.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The key; all of them without one
    key: Option<String>,
}

impl Record for Held {
    fn json(&self) -> Value {
        json!({"key": self.key.name, "value": value(&self.explanation.value)})
    }

    fn name(&self) -> Vec<u8> {
        self.key.name.clone().into_bytes()
    }
}

/// Runs it.
pub fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let held = held(context, args.key.as_deref())?;
    let (Some(_), [one]) = (&args.key, &held[..]) else {
        context.output.records("config", &held, || {
            let set = held.iter().filter_map(|one| {
                Some(format!("{} = {}", one.key.name, written(&one.explanation.value)?))
            });
            printable_lines(&set.collect::<Vec<_>>())
        })?;
        return Ok(Outcome::Done);
    };
    let value = written(&one.explanation.value);
    if value.is_some() || context.output.format != Format::Human {
        let shown = value.clone().unwrap_or_default();
        context.output.record("config", one, || printable(&shown))?;
    }
    Ok(if value.is_some() { Outcome::Done } else { Outcome::Nothing })
}

fn printable_lines(lines: &[String]) -> String {
    match lines {
        [] => "nothing is set: all values are the defaults".to_owned(),
        lines => lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n"),
    }
}
