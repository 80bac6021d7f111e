//! What does not come through: packets that a machine neither takes nor sends. Nobody is told; they are gone.

use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::process::Said;

/// Its name in the kernel.
const TABLE: &str = "inet dfs";

/// Which packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// All from and to these.
    Of(Vec<Ipv4Addr>),
    /// So many in a hundred, of everybody.
    Percent(u8),
}

impl Lost {
    /// The lines for `nft` that lose these and no others.
    fn lines(&self) -> String {
        let (from, to) = match self {
            Self::Of(addresses) => {
                let all: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
                let all = all.join(", ");
                (format!("ip saddr {{ {all} }}"), format!("ip daddr {{ {all} }}"))
            }
            Self::Percent(share) => {
                let some = format!("numgen random mod 100 < {share}");
                (some.clone(), some)
            }
        };
        let chain = |hook: &str, which: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority 0; {which} counter drop; }}")
        };
        format!(
            "{}table {TABLE} {{ {}\n{}\n}}\n",
            gone(),
            chain("input", &from),
            chain("output", &to)
        )
    }
}

/// The lines that lose nothing, whether or not something was lost before.
fn gone() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

/// From now on these are lost by the machine that the calling thread is on; nothing when there are none.
pub fn lose(lost: Option<&Lost>) -> Result<(), Failure> {
    let failed = || Failure::of("cannot run nft".to_owned());
    let lines = lost.map_or_else(gone, Lost::lines);
    let mut input = tempfile::tempfile().map_err(failed())?;
    input.write_all(lines.as_bytes()).map_err(failed())?;
    input.seek(SeekFrom::Start(0)).map_err(failed())?;
    Said::by(Command::new("nft").args(["-f", "-"]).stdin(Stdio::from(input)))?.ok().map(drop)
}

/// Packets that the machine that the calling thread is on has lost since it began to lose some.
pub fn lost() -> Result<u64, Failure> {
    let said = Said::by(Command::new("nft").arg("list").arg("table").args(TABLE.split(' ')))?;
    Ok(packets(&said.ok()?.text()))
}

fn packets(listed: &str) -> u64 {
    let words: Vec<_> = listed.split_whitespace().collect();
    let counts = words.windows(2).filter(|pair| pair[0] == "packets");
    counts.filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_lost_both_ways() {
        let lines = Lost::Of(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]).lines();
        assert!(lines.contains("hook input priority 0; ip saddr { 10.0.0.1, 10.0.0.2 } counter"));
        assert!(lines.contains("hook output priority 0; ip daddr { 10.0.0.1, 10.0.0.2 } counter"));
        let lines = Lost::Percent(5).lines();
        assert_eq!(lines.matches("numgen random mod 100 < 5 counter drop").count(), 2);
    }

    #[test]
    fn what_was_lost_is_counted_both_ways() {
        let listed = "chain input {\n ip saddr 10.0.0.1 counter packets 3 bytes 180 drop\n }\n\
                      chain output {\n ip daddr 10.0.0.1 counter packets 4 bytes 240 drop\n }";
        assert_eq!(packets(listed), 7);
        assert_eq!(packets(""), 0);
    }
}
