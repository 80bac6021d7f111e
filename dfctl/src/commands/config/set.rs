//! `dfctl config set`.

use dfs_service::config::Origin;
use serde_json::{Value, json};

use super::{edit, known};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Record, printable};
use crate::settings;

/// Write a value into the user's own configuration file
///
/// Examples:
///   dfctl config set cluster 127.0.0.1:4000
///   dfctl config set color never
///
/// The file is ~/.config/dfs/dfctl.toml; comments and order in it stay as they are. A key that there is not, and a value that
/// the key does not take, are refused before anything is written. `dfctl config unset` takes a key out again.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The key
    key: String,
    /// Its value
    value: String,
}

/// What was written.
struct Written {
    key: String,
    value: String,
    file: String,
}

impl Record for Written {
    fn json(&self) -> Value {
        json!({"key": self.key, "value": self.value, "file": self.file})
    }

    fn name(&self) -> Vec<u8> {
        self.file.clone().into_bytes()
    }
}

/// Runs it.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CliError> {
    let key = known(&args.key)?.name;
    let value = settings::value_of(&key, &args.value).map_err(|reason| {
        let what = format!("'{}' is no value of the key {key}", printable(&args.value));
        let next = if args.value.is_empty() { "unset" } else { "explain" };
        CliError::new(&codes::BAD_CONFIG, what)
            .because(reason)
            .hint(format!("dfctl config {next} {key}"))
    })?;
    let file = context.settings.user_file()?;
    // A relative path was made absolute.
    let text = value.as_str().map_or_else(|| args.value.clone(), str::to_owned);
    let is_news = edit::set(&file, &key, value)?;
    let file = file.display().to_string();
    let written = Written { key: key.clone(), value: text, file };
    context.output.report("config", &written, || {
        format!("{} = {}   in {}", written.key, printable(&written.value), printable(&written.file))
    })?;
    if let Some(above) = above_the_file(context, &key) {
        context.output.note(&format!("{above} decides it all the same"));
    }
    Ok(if is_news { Outcome::Done } else { Outcome::Nothing })
}

/// What wins over the user's file.
fn above_the_file(context: &Context, key: &str) -> Option<String> {
    match context.settings.explain(key)?.origin {
        origin @ Origin::Environment(_) => Some(origin.to_string()),
        _ => None,
    }
}
