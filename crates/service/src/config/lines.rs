//! Where the keys of a file stand, for messages that lead there.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{ImDocument, Item, TableLike};

/// Lines of keys, elements joined by dots, as the process reads them.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

/// Why and where a text is not TOML.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) reason: String,
}

impl Lines {
    /// Of what `text` says to `process`.
    pub(super) fn of(text: &str, process: &str) -> Result<Self, Wrong> {
        let parsed = ImDocument::parse(text).map_err(|error| Wrong {
            line: line_at(text, error.span()).unwrap_or(1),
            reason: error.message().lines().next().unwrap_or("not TOML").to_owned(),
        })?;
        let mut lines = Self::default();
        lines.collect(text, parsed.as_table(), "");
        // What speaks to this process alone wins.
        if let Some(own) = parsed.as_table().get(process).and_then(Item::as_table_like) {
            lines.collect(text, own, "");
        }
        Ok(lines)
    }

    fn collect(&mut self, text: &str, table: &dyn TableLike, prefix: &str) {
        for (name, item) in table.iter() {
            let key = format!("{prefix}{name}");
            let span = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            if let Some(line) = line_at(text, span) {
                self.0.insert(key.clone(), line);
            }
            if let Some(inner) = item.as_table_like() {
                self.collect(text, inner, &format!("{key}."));
            }
        }
    }

    /// The line of `key`, or of the nearest table around it.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return Some(*line);
            }
            key = key.rsplit_once('.')?.0;
        }
    }
}

fn line_at(text: &str, span: Option<Range<usize>>) -> Option<usize> {
    let before = text.as_bytes().get(..span?.start)?;
    Some(1 + before.iter().filter(|byte| **byte == b'\n').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_line_and_a_processs_own_wins() {
        let text = "# head\na = 1\nb.c = 2\n\n[d]\ne = [\n 3]\n[dfctl]\na = 4\n";
        let lines = Lines::of(text, "dfctl").unwrap();
        let found = ["a", "b.c", "d.e", "d.e.0", "x"].map(|key| lines.line_of(key));
        assert_eq!(found, [Some(9), Some(3), Some(6), Some(6), None]);
        assert_eq!(Lines::of(text, "dfs-fuse").unwrap().line_of("a"), Some(2));
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line() {
        let wrong = Lines::of("a = 1\nb = = 2\n", "dfctl").unwrap_err();
        assert_eq!(wrong.line, 2);
        assert!(!wrong.reason.is_empty() && !wrong.reason.contains('\n'), "{}", wrong.reason);
    }
}
