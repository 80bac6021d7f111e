//! `dfctl config unset`.

use dfs_service::config::Origin;
use serde_json::{Value, json};

use super::{edit, known, written};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Record, printable};

/// Take a key out of the user's own configuration file
///
/// Examples:
///   dfctl config unset cluster
///   dfctl config unset color
///
/// The file is ~/.config/dfs/dfctl.toml; all else in it stays as it is. Ends with exit code 9 where the key is not in it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The key
    key: String,
}

/// What was taken out.
struct Removed {
    key: String,
    file: String,
    changed: bool,
}

impl Record for Removed {
    fn json(&self) -> Value {
        json!({"key": self.key, "value": null, "file": self.file, "changed": self.changed})
    }

    fn name(&self) -> Vec<u8> {
        self.file.clone().into_bytes()
    }
}

/// Runs it.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CliError> {
    let file = context.settings.user_file()?;
    let key = match known(&args.key) {
        Ok(key) => key.name,
        // One that no version knows, or another one, keeps every command from working.
        Err(_) if edit::has_value(&file, &args.key)? => args.key.clone(),
        Err(error) => return Err(error),
    };
    let changed = edit::unset(&file, &key)?;
    let removed = Removed { key, file: file.display().to_string(), changed };
    context.output.report("config", &removed, || {
        let is = if changed { "is not set any more" } else { "is not set" };
        format!("{} {is}   in {}", removed.key, printable(&removed.file))
    })?;
    if let Some(other) = what_decides_now(context, &removed) {
        context.output.note(&other);
    }
    Ok(if changed { Outcome::Done } else { Outcome::Nothing })
}

/// The value that holds without the file, and where it stands.
fn what_decides_now(context: &Context, removed: &Removed) -> Option<String> {
    let explanation = context.settings.explain(&removed.key)?;
    let of_the_file = |origin: &Origin| matches!(origin, Origin::File(path, _) if path.display().to_string() == removed.file);
    let mut held = explanation.overridden;
    held.insert(0, (explanation.origin, explanation.value));
    let (origin, value) = held.into_iter().find(|(origin, _)| !of_the_file(origin))?;
    let value = written(&value)?;
    Some(format!("{origin} decides it: {}", printable(&value)))
}
