//! What does not come through: packets that a machine does not take or does not send.

use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::process::Said;

/// Its name in the kernel.
const TABLE: &str = "inet dfs";

/// Which packets do not come through, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Who is at their other end.
    pub whom: Whom,
    /// Which way they go.
    pub way: Way,
    /// So many in a hundred of them.
    pub percent: u8,
    /// What becomes of them.
    pub fate: Fate,
}

/// Who is at the other end of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Anybody.
    Anybody,
    /// One of these, and nobody when there are none.
    These(Vec<Ipv4Addr>),
}

/// Which way packets go, as seen from the machine that has the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From it and to it.
    Both,
    /// To it: it hears nothing, and is heard.
    In,
    /// From it: it hears, and is not heard.
    Out,
}

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are gone; nobody is told.
    Lost,
    /// Their sender is told that there is no such connection; only those of TCP are struck.
    Reset,
}

impl Filter {
    /// The lines for `nft` that do so, and nothing else.
    fn lines(&self) -> String {
        let hooks = match self.way {
            Way::Both => &[("input", "saddr"), ("output", "daddr")][..],
            Way::In => &[("input", "saddr")],
            Way::Out => &[("output", "daddr")],
        };
        let chains = hooks.iter().filter_map(|(hook, end)| {
            let rule = self.rule(end)?;
            Some(format!("chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}\n"))
        });
        format!("{}table {TABLE} {{\n{}}}\n", gone(), chains.collect::<String>())
    }

    fn rule(&self, end: &str) -> Option<String> {
        let whom = match &self.whom {
            Whom::Anybody => String::new(),
            Whom::These(nobody) if nobody.is_empty() => return None,
            Whom::These(addresses) => {
                let all: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
                format!("ip {end} {{ {} }} ", all.join(", "))
            }
        };
        let some = match self.percent {
            100.. => String::new(),
            share => format!("numgen random mod 100 < {share} "),
        };
        Some(match self.fate {
            Fate::Lost => format!("{whom}{some}counter drop"),
            Fate::Reset => format!("meta l4proto tcp {whom}{some}counter reject with tcp reset"),
        })
    }
}

/// The lines that let everything through, whether or not something was struck before.
fn gone() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

/// From now on the machine that the calling thread is on has this filter, or none.
pub fn set(filter: Option<&Filter>) -> Result<(), Failure> {
    let failed = || Failure::of("cannot run nft".to_owned());
    let lines = filter.map_or_else(gone, Filter::lines);
    let mut input = tempfile::tempfile().map_err(failed())?;
    input.write_all(lines.as_bytes()).map_err(failed())?;
    input.seek(SeekFrom::Start(0)).map_err(failed())?;
    Said::by(Command::new("nft").args(["-f", "-"]).stdin(Stdio::from(input)))?.ok().map(drop)
}

/// Packets that the filter of the machine that the calling thread is on has struck.
pub fn struck() -> Result<u64, Failure> {
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

    fn lines(whom: Whom, way: Way, percent: u8, fate: Fate) -> String {
        Filter { whom, way, percent, fate }.lines()
    }

    #[test]
    fn what_is_struck_is_struck_on_its_way_only() {
        let two = Whom::These(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]);
        let said = lines(two.clone(), Way::Both, 100, Fate::Lost);
        assert!(
            said.contains("hook input priority 0; ip saddr { 10.0.0.1, 10.0.0.2 } counter drop")
        );
        assert!(
            said.contains("hook output priority 0; ip daddr { 10.0.0.1, 10.0.0.2 } counter drop")
        );
        let said = lines(two.clone(), Way::In, 100, Fate::Lost);
        assert!(said.contains("hook input") && !said.contains("hook output"), "{said}");
        let said = lines(two, Way::Out, 100, Fate::Lost);
        assert!(said.contains("hook output") && !said.contains("hook input"), "{said}");
        let said = lines(Whom::Anybody, Way::Both, 5, Fate::Reset);
        let rule = "meta l4proto tcp numgen random mod 100 < 5 counter reject with tcp reset";
        assert_eq!(said.matches(rule).count(), 2, "{said}");
        let nobody = lines(Whom::These(Vec::new()), Way::Both, 100, Fate::Lost);
        assert!(!nobody.contains("drop"), "{nobody}");
    }

    #[test]
    fn what_was_struck_is_counted_both_ways() {
        let listed = "chain input {\n ip saddr 10.0.0.1 counter packets 3 bytes 180 drop\n }\n\
                      chain output {\n ip daddr 10.0.0.1 counter packets 4 bytes 240 drop\n }";
        assert_eq!(packets(listed), 7);
        assert_eq!(packets(""), 0);
    }
}
