//! What was written for a runtime, and how that is taken back. Pure.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::diff::alike;

/// The form of records that this program writes.
const FORMAT: u32 = 1;

/// What ends a line.
const LINES: fn(char) -> bool = |letter| letter == '\n';

/// What is shorter could be anybody's.
const SHORTEST: usize = 8;

/// What was written for one runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// The mirror that it was told of.
    pub mirror: SocketAddr,
    /// Its files, in the order in which they were written.
    pub files: Vec<Written>,
    /// Directories that were made for them, outermost first.
    #[serde(default)]
    pub dirs: Vec<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its absolute path.
    pub path: String,
    /// What it said before; nothing where it was not there.
    pub before: Option<String>,
    /// What was written.
    pub after: String,
}

/// What was written is not found again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} was edited where dfctl had written: {lines}")]
pub struct Edited {
    /// Which file.
    pub path: String,
    /// What was written there, in one line.
    pub lines: String,
}

impl Record {
    /// One of what was written just now.
    pub fn new(mirror: SocketAddr, files: Vec<Written>, dirs: Vec<String>) -> Self {
        Self { format: FORMAT, mirror, files, dirs }
    }

    /// Reads one; `None` of a form that is not known.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok().filter(|record| record.format == FORMAT)
    }

    /// As it is kept.
    pub fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").expect("texts and numbers are always JSON")
    }
}

impl Written {
    /// What the file says without what was written: exactly what it said before where nobody edited it since, else all that
    /// it says now but for that. `None`: there is no such file then.
    pub fn undone(&self, now: Option<&str>) -> Result<Option<String>, Edited> {
        let Some(now) = now else { return Ok(None) };
        if now == self.after {
            return Ok(self.before.clone());
        }
        if Some(now) == self.before.as_deref() {
            return Ok(self.before.clone());
        }
        // Whole lines, else what was written within one that somebody edited too.
        let found =
            [self.changed(LINES), self.changed(|_| true)].into_iter().find_map(|(old, new)| {
                let mut places = now.match_indices(new);
                let (at, _) = places.next().filter(|_| new.len() >= SHORTEST)?;
                let (front, back) = (&now[..at], &now[at + new.len()..]);
                places.next().is_none().then(|| format!("{front}{old}{back}"))
            });
        found.map(Some).ok_or_else(|| {
            let lines = self.changed(LINES).1.split_whitespace().collect::<Vec<_>>().join(" ");
            Edited { path: self.path.clone(), lines }
        })
    }

    /// The one run of parts that was put in place of another; `ends` says which characters end a part.
    fn changed(&self, ends: fn(char) -> bool) -> (&str, &str) {
        let (old, new) = (self.before.as_deref().unwrap_or_default(), self.after.as_str());
        let parts = |text| str::split_inclusive(text, ends).collect::<Vec<_>>();
        let (olds, news) = (parts(old), parts(new));
        let (front, behind) = alike(&olds, &news);
        let bytes = |parts: &[&str]| parts.iter().map(|part| part.len()).sum::<usize>();
        let (begin, end) = (bytes(&olds[..front]), bytes(&olds[olds.len() - behind..]));
        (&old[begin..old.len() - end], &new[begin..new.len() - end])
    }
}
