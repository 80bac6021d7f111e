//! What a finished `get` says about itself.

use std::path::PathBuf;
use std::time::Duration;

use dfs_model::{ByteSize, Digest};
use serde_json::{Value, json};

use super::{Asked, ReadOptions};
use crate::backend::Ledger;
use crate::context::Context;
use crate::error::CliError;
use crate::locator::Locator;
use crate::output::ledger::{Account, Stages, render};
use crate::output::records::ledger_json;
use crate::output::{Format, Record, files, printable, when};

/// How a `get` ended.
#[derive(Debug, Default)]
pub struct Saved {
    /// Where it is; `None` went to the standard output.
    pub path: Option<PathBuf>,
    /// From where.
    pub url: String,
    /// Bytes of the result.
    pub bytes: u64,
    /// Those that were here before.
    pub kept: u64,
    /// Files, of a tree.
    pub files: Option<u64>,
    /// All the time it took.
    pub took: Duration,
    /// BLAKE3 of the whole content, where it is known.
    pub blake3: Option<[u8; 32]>,
    /// The digest that was asked for and matches.
    pub matches: Option<Digest>,
    /// Nothing had to be written.
    pub unchanged: bool,
    /// Who gave the bytes.
    pub ledger: Ledger,
    /// Time.
    pub stages: Stages,
}

impl Record for Saved {
    fn json(&self) -> Value {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        json!({
            "path": self.path.as_ref().map(|path| path.display().to_string()),
            "url": self.url,
            "bytes": self.bytes,
            "kept_bytes": self.kept,
            "files": self.files,
            "unchanged": self.unchanged,
            "blake3": self.blake3.map(|digest| Digest::Blake3(digest).to_string()),
            "matches": self.matches.map(|digest| digest.to_string()),
            "took_ms": ms(self.took),
            "ledger": ledger_json(&self.ledger),
            "stages_ms": {
                "resolve": ms(self.stages.resolve),
                "first_byte": ms(self.stages.first_byte),
                "waiting": ms(self.stages.waiting),
                "transfer": ms(self.stages.transfer),
                "finish": ms(self.stages.finish),
            },
        })
    }

    fn name(&self) -> Vec<u8> {
        let path = self.path.as_ref().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
        path.unwrap_or_else(|| b"-".to_vec())
    }
}

impl Saved {
    /// Says it: on stdout, or, where stdout is the content, on stderr and only the ledger.
    pub fn tell(
        &self,
        context: &Context,
        locator: &Locator,
        options: &ReadOptions,
    ) -> Result<(), CliError> {
        let asked = options.asked(context, locator);
        let ledger = options.explain.then(|| {
            render(&Account {
                ledger: &self.ledger,
                kept: self.kept,
                total: self.bytes,
                source: locator.origin(),
                stages: self.stages,
            })
        });
        let output = &context.output;
        if self.path.is_none() {
            if let Some(ledger) = ledger {
                let programs = matches!(output.format, Format::Json | Format::Jsonl);
                output.say(&if programs { self.json().to_string() } else { ledger });
            }
            return Ok(());
        }
        match ledger {
            // It was asked for.
            Some(ledger) => {
                output.record("saved", self, || format!("{}\n\n{ledger}", self.line(asked)))
            }
            None => output.report("saved", self, || self.line(asked)),
        }
    }

    fn line(&self, asked: Asked) -> String {
        let path = self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let mut parts = vec![printable(&path)];
        let files = self.files.map(|number| format!("{}, ", files(number))).unwrap_or_default();
        let size = ByteSize(self.bytes);
        parts.push(match (self.unchanged, asked) {
            (true, Asked::Now) => format!("{files}{size}, as it was"),
            (true, Asked::Lately) => {
                format!("{files}{size}, as it was seconds ago (--fresh asks the origin now)")
            }
            (false, _) => format!("{files}{size} in {}", when::rough(self.took)),
        });
        if self.kept > 0 && !self.unchanged {
            parts.push(format!("{} were here already", ByteSize(self.kept)));
        }
        if let Some(blake3) = self.blake3 {
            let text = Digest::Blake3(blake3).to_string();
            parts.push(format!("{}…", &text[..19]));
        }
        match self.matches {
            Some(Digest::Sha256(_)) => parts.push("sha256 matches --digest".to_owned()),
            Some(Digest::Blake3(_)) => parts.push("blake3 matches --digest".to_owned()),
            None => {}
        }
        let verb = if self.unchanged { "unchanged" } else { "saved" };
        format!("{verb} {}", parts.join("  "))
    }
}
