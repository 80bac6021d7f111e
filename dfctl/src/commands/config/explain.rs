//! `dfctl config explain`.

use serde_json::{Value, json};

use super::{Held, held, value, written};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{self, Align, Table};
use crate::output::{Record, printable};

/// Say what a key is set to, where that came from and what it overrides
///
/// Examples:
///   dfctl config explain cluster
///   dfctl config explain
///
/// A value comes from the first that has it: a flag, a variable DFS_…, ~/.config/dfs/dfctl.toml, /etc/dfs/*.toml in
/// the order of their names, the default.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The key; all of them without one
    key: Option<String>,
}

/// A key with all that is known of its value.
struct Explained<'a>(&'a Held);

impl Record for Explained<'_> {
    fn json(&self) -> Value {
        let explanation = &self.0.explanation;
        let overridden = explanation.overridden.iter();
        let overridden: Vec<_> = overridden
            .map(|(origin, held)| json!({"from": origin.to_string(), "value": value(held)}))
            .collect();
        json!({
            "key": self.0.key.name,
            "value": value(&explanation.value),
            "from": explanation.origin.to_string(),
            "overrides": overridden,
            "about": self.0.key.about,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.0.name()
    }
}

/// Runs it.
pub fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let held = held(context, args.key.as_deref())?;
    let explained: Vec<_> = held.iter().map(Explained).collect();
    match (&args.key, &explained[..]) {
        (Some(_), [one]) => context.output.record("config", one, || human(one.0))?,
        _ => context.output.records("config", &explained, || list(&held))?,
    }
    Ok(Outcome::Done)
}

fn shown(json: &str) -> String {
    written(json).map_or_else(|| "not set".to_owned(), |text| printable(&text))
}

fn human(held: &Held) -> String {
    let (name, explanation) = (&held.key.name, &held.explanation);
    let mut facts = vec![
        ("key", name.clone()),
        ("value", shown(&explanation.value)),
        ("from", printable(&explanation.origin.to_string())),
    ];
    let set = explanation.overridden.iter().filter(|(_, value)| written(value).is_some());
    for (origin, value) in set {
        facts
            .push(("overrides", format!("{} in {}", shown(value), printable(&origin.to_string()))));
    }
    facts.push(("means", held.key.about.clone()));
    let variable = name.to_uppercase().replace('-', "_");
    facts.push(("flag", format!("--{name}, variable DFS_{variable}")));
    table::facts(&facts)
}

fn list(held: &[Held]) -> String {
    let columns = [("KEY", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)];
    let mut table = Table::new(&columns);
    for Held { key, explanation } in held {
        let value = written(&explanation.value).map_or_else(|| "-".to_owned(), |v| printable(&v));
        table.row(vec![key.name.clone(), value, printable(&explanation.origin.to_string())]);
    }
    table.render()
}
