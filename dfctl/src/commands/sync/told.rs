//! What a sync says of itself.

use std::time::Duration;

use dfs_model::ByteSize;
use serde_json::{Value, json};

use super::plan::{Action, Step};
use super::planning::Planned;
use crate::backend::Ledger;
use crate::error::CliError;
use crate::output::records::ledger_json;
use crate::output::{Format, Items, Output, Record, count, files, printable_name, when};

/// How it ended, or would.
#[derive(Debug, Default)]
pub struct Synced {
    /// From where.
    pub source: String,
    /// To where.
    pub destination: String,
    /// Files that were copied.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and links that were as they should be.
    pub unchanged: u64,
    /// Links and directories made, and files of which permissions or time were set.
    pub links: u64,
    /// Directories made.
    pub directories: u64,
    /// Files of which only permissions or time were set.
    pub touched: u64,
    /// Entries deleted.
    pub deleted: u64,
    /// Entries that were not done.
    pub failed: u64,
    /// Entries that the destination cannot hold.
    pub left_out: u64,
    /// All the time it took.
    pub took: Duration,
    /// Who gave the bytes.
    pub ledger: Ledger,
}

impl Synced {
    /// What is planned.
    pub fn of_plan(planned: &Planned, source: &str, destination: &str, deletes: bool) -> Self {
        let totals = &planned.totals;
        Self {
            source: source.to_owned(),
            destination: destination.to_owned(),
            copied: totals.files,
            bytes: totals.bytes,
            unchanged: totals.unchanged,
            links: totals.links,
            directories: totals.directories,
            touched: totals.touched,
            deleted: if deletes { totals.deletes } else { 0 },
            left_out: totals.unheld,
            ..Self::default()
        }
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let mut some = |number: u64, what: &str| {
            if number > 0 {
                parts.push(format!("{} {what}", count(number)));
            }
        };
        some(self.links, "linked");
        some(self.touched, "with other permissions or time");
        some(self.deleted, "deleted");
        some(self.unchanged, "as they were");
        some(self.failed, "not done");
        parts
    }

    /// The summary.
    pub fn line(&self) -> String {
        let is_nothing =
            [self.copied, self.links, self.directories, self.touched, self.deleted, self.failed];
        if is_nothing.iter().all(|number| *number == 0) {
            return format!("unchanged {}  {}", self.destination, files(self.unchanged));
        }
        let moved = format!(
            "{}, {} in {}",
            files(self.copied),
            ByteSize(self.bytes),
            when::rough(self.took)
        );
        let parts = [vec![format!("synced {}", self.destination), moved], self.parts()].concat();
        parts.join("  ")
    }

    /// The summary of what was not done.
    pub fn would(&self) -> String {
        let moved = format!("would copy {}, {}", files(self.copied), ByteSize(self.bytes));
        let parts = [vec![moved], self.parts()].concat();
        parts.join("  ")
    }
}

impl Record for Synced {
    fn json(&self) -> Value {
        json!({
            "source": self.source,
            "destination": self.destination,
            "copied": self.copied,
            "bytes": self.bytes,
            "unchanged": self.unchanged,
            "links": self.links,
            "directories": self.directories,
            "touched": self.touched,
            "deleted": self.deleted,
            "failed": self.failed,
            "left_out": self.left_out,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "ledger": ledger_json(&self.ledger),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.destination.as_bytes().to_vec()
    }
}

impl Record for Step {
    fn json(&self) -> Value {
        let path = &self.item.entry.path;
        let hex = |path: &[u8]| path.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut fields = json!({
            "action": self.action.word(),
            "path": String::from_utf8_lossy(path),
            "length": self.item.entry.length,
        });
        if std::str::from_utf8(path).is_err() {
            fields["path_hex"] = hex(path).into();
        }
        fields
    }

    fn name(&self) -> Vec<u8> {
        self.item.entry.path.clone()
    }
}

/// Every step that would be done, in the order of names.
pub fn steps(output: &Output, planned: &Planned, deletes: bool) -> Result<(), CliError> {
    let unreadable = |error: std::io::Error| planned.unreadable(&error);
    let mut items = Items::new(output, "steps");
    for step in planned.plan.steps().map_err(unreadable)? {
        let step = step.map_err(unreadable)?;
        let is_done = match step.action {
            Action::Keep => false,
            Action::Delete => deletes,
            _ => true,
        };
        match (is_done, output.format) {
            (false, _) => {}
            (true, Format::Human) => output.line(&human(&step))?,
            (true, _) => items.push(&step)?,
        }
    }
    items.finish()
}

fn human(step: &Step) -> String {
    let size = match step.action {
        Action::New | Action::Change => ByteSize(step.item.entry.length).to_string(),
        _ => String::new(),
    };
    let end = if step.item.is_directory() { "/" } else { "" };
    format!("{:<7}{size:>10}  {}{end}", step.action.word(), printable_name(&step.item.entry.path))
}
