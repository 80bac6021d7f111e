//! `dfctl config …`.

use clap::Subcommand;
use dfs_service::config::Explanation;

use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::near::near;
use crate::settings;

mod edit;
mod explain;
mod get;
mod set;
mod unset;

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum Command {
    Get(get::Args),
    Set(set::Args),
    Unset(unset::Args),
    Explain(explain::Args),
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Get(args) => get::run(args, context),
            Self::Set(args) => set::run(&args, context),
            Self::Unset(args) => unset::run(&args, context),
            Self::Explain(args) => explain::run(args, context),
        }
    }

    /// Whether it writes.
    pub fn changes(&self) -> bool {
        matches!(self, Self::Set(_) | Self::Unset(_))
    }
}

/// A key and what is known of its value.
struct Held {
    key: settings::Key,
    explanation: Explanation,
}

/// The keys asked for: one, or all.
fn held(context: &Context, key: Option<&str>) -> Result<Vec<Held>, CliError> {
    let keys = match key {
        Some(name) => vec![known(name)?],
        None => settings::keys(),
    };
    let of = |key: settings::Key| {
        let explanation = context.settings.explain(&key.name)?;
        Some(Held { key, explanation })
    };
    Ok(keys.into_iter().filter_map(of).collect())
}

/// The key of this name.
fn known(name: &str) -> Result<settings::Key, CliError> {
    let keys = settings::keys();
    let like = near(name, keys.iter().map(|key| key.name.as_str()));
    let error = CliError::new(&codes::UNKNOWN_NAME, format!("there is no key '{name}'"));
    let error = match like.first() {
        Some(first) => error
            .because(format!("keys like it: {}", like.join(", ")))
            .hint(format!("dfctl config explain {first}")),
        None => error.hint("dfctl config get"),
    };
    keys.into_iter().find(|key| key.name == name).ok_or(error)
}

/// A value as a person writes it; `None` where it is not set.
fn written(json: &str) -> Option<String> {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::String(text)) => Some(text),
        _ => Some(json.to_owned()),
    }
}

/// The value itself.
fn value(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap_or_default()
}
