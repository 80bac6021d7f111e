//! The ledger of `--explain`: every byte of the result attributed, in a table that adds up.

use std::time::Duration;

use dfs_model::{ByteSize, HostKind};

use super::when::rough;
use super::{printable, table};
use crate::backend::Ledger;

/// Where the time of a transfer went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Finding out what the URL is.
    pub resolve: Duration,
    /// From asking to the first byte.
    pub first_byte: Duration,
    /// Standing still in the middle.
    pub waiting: Duration,
    /// From the first byte to the last, standstill not counted.
    pub transfer: Duration,
    /// Checking and putting in place.
    pub finish: Duration,
}

/// What is to be accounted for.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// Who gave the bytes.
    pub ledger: &'a Ledger,
    /// Bytes that a part file or an existing output already had.
    pub kept: u64,
    /// Bytes of the result.
    pub total: u64,
    /// The origin's name.
    pub source: &'a str,
    /// Time.
    pub stages: Stages,
}

/// The whole ledger, over several lines.
pub fn render(account: &Account<'_>) -> String {
    let ledger = account.ledger;
    let mut rows = vec![("cache".to_owned(), ledger.cache)];
    if account.kept > 0 {
        rows.push(("already here".to_owned(), account.kept));
    }
    let mut parents: Vec<_> = ledger.parents.iter().collect();
    parents.sort_by_key(|parent| (parent.kind == HostKind::Seed, std::cmp::Reverse(parent.bytes)));
    for parent in parents {
        let kind = match parent.kind {
            HostKind::Node => "peer",
            HostKind::Seed => "seed",
        };
        rows.push((format!("{kind} {}", printable(&parent.name)), parent.bytes));
    }
    let requests = match ledger.source_requests {
        0 => String::new(),
        1 => " (1 request)".to_owned(),
        more => format!(" ({more} requests)"),
    };
    rows.push((format!("source {}{requests}", printable(account.source)), ledger.source));

    let sum = ledger.total().saturating_add(account.kept);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(26);
    let mut text = format!(
        "{:<w$}  {:>10}  {:>11}\n",
        "where the bytes came from",
        "content",
        "on the wire",
        w = width + 2
    );
    for (name, bytes) in &rows {
        text.push_str(&format!("  {name:<width$}  {:>10}\n", ByteSize(*bytes)));
    }
    let verdict = match sum.cmp(&account.total) {
        std::cmp::Ordering::Equal => "✓ equals the result".to_owned(),
        std::cmp::Ordering::Less => {
            format!("✗ {} of the result not accounted for", ByteSize(account.total - sum))
        }
        std::cmp::Ordering::Greater => {
            format!("✗ {} more than the result", ByteSize(sum - account.total))
        }
    };
    text.push_str(&format!(
        "  {:<width$}  {:>10}  {:>11}  {verdict}\n",
        "sum",
        ByteSize(sum),
        ByteSize(ledger.on_the_wire()),
    ));
    let stages = account.stages;
    text.push_str(&table::facts(&[(
        "where the time went",
        format!(
            "resolve {} · first byte {} · waiting {} · transfer {} · finish {}",
            rough(stages.resolve),
            rough(stages.first_byte),
            rough(stages.waiting),
            rough(stages.transfer),
            rough(stages.finish),
        ),
    )]));
    text
}

/// `peers 88 % seed 12 %`: shares of what has come so far; empty before the first byte.
pub fn shares(ledger: &Ledger) -> String {
    let total = ledger.total();
    if total == 0 {
        return String::new();
    }
    let parts = [
        ("cache", ledger.cache),
        ("peers", ledger.from_kind(HostKind::Node)),
        ("seed", ledger.from_kind(HostKind::Seed)),
        ("source", ledger.source),
    ];
    let shown = parts.iter().filter(|(_, bytes)| *bytes > 0).map(|(name, bytes)| {
        let percent = u128::from(*bytes) * 100 / u128::from(total);
        if percent == 0 { format!("{name} <1 %") } else { format!("{name} {percent} %") }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ParentBytes;

    fn ledger() -> Ledger {
        let parent =
            |name: &str, kind, bytes| ParentBytes { name: name.into(), host_id: None, kind, bytes };
        Ledger {
            cache: 0,
            source: 0,
            source_requests: 0,
            parents: vec![
                parent("seed-1", HostKind::Seed, 2 << 20),
                parent("node7", HostKind::Node, 6 << 20),
            ],
            wire: (8 << 20) + 4096,
        }
    }

    fn account(ledger: &Ledger, total: u64) -> Account<'_> {
        let stages = Stages {
            resolve: Duration::from_millis(4),
            first_byte: Duration::from_millis(11),
            waiting: Duration::from_millis(300),
            transfer: Duration::from_millis(16_400),
            finish: Duration::from_millis(100),
        };
        Account { ledger, kept: 0, total, source: "mirror.local", stages }
    }

    #[test]
    fn a_ledger_adds_up_and_says_so() {
        let ledger = ledger();
        assert_eq!(
            render(&account(&ledger, 8 << 20)),
            "\
where the bytes came from        content  on the wire
  cache                              0 B
  peer node7                     6.0 MiB
  seed seed-1                    2.0 MiB
  source mirror.local                0 B
  sum                            8.0 MiB      8.0 MiB  ✓ equals the result
where the time went  resolve 4 ms · first byte 11 ms · waiting 0.3 s · transfer 16.4 s · finish 0.1 s"
        );
    }

    #[test]
    fn a_ledger_that_does_not_add_up_says_by_how_much() {
        let ledger = ledger();
        let less = render(&account(&ledger, 9 << 20));
        assert!(less.contains("✗ 1.0 MiB of the result not accounted for"), "{less}");
        let more = render(&account(&ledger, 7 << 20));
        assert!(more.contains("✗ 1.0 MiB more than the result"), "{more}");
    }

    #[test]
    fn shares_name_only_who_gave() {
        assert_eq!(shares(&ledger()), "peers 75 % seed 25 %");
        assert_eq!(shares(&Ledger::default()), "");
        let mostly = Ledger { cache: 1, source: 999, ..Ledger::default() };
        assert_eq!(shares(&mostly), "cache <1 % source 99 %");
    }
}
