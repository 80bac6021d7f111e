//! What goes wrong on a testbed, and how it is made good again.

use std::fmt;
use std::str::FromStr;

use dfs_model::Rate;

use super::{Fleet, Testbed};
use crate::Failure;

/// A link that crawls has so much of its rate left.
const CRAWL: u64 = 100;

/// Something that happens to a process or to the link of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    what: What,
    whom: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Kill,
    Restart,
    Freeze,
    Unplug,
    Crawl,
}

const NAMES: [(&str, What); 5] = [
    ("kill", What::Kill),
    ("restart", What::Restart),
    ("freeze", What::Freeze),
    ("unplug", What::Unplug),
    ("crawl", What::Crawl),
];

/// Reads `WHAT:NAME`, as in `kill:node1`.
impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || NAMES.map(|(name, _)| name).join(", ");
        let (what, whom) = text.split_once(':').ok_or("write it as in kill:node1")?;
        let found = NAMES.iter().find(|(name, _)| *name == what);
        let (_, what) = found.ok_or_else(|| format!("'{what}' is none of {}", known()))?;
        Ok(Self { what: *what, whom: whom.to_owned() })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, what)| *what == self.what).map_or("", |(name, _)| name);
        write!(f, "{name}:{}", self.whom)
    }
}

impl Trouble {
    /// The process, or the machine that it runs on.
    pub fn whom(&self) -> &str {
        &self.whom
    }

    /// It happens.
    pub fn strike(&self, testbed: &Testbed, fleet: &mut Fleet<'_>) -> Result<(), Failure> {
        let whom = &self.whom;
        match self.what {
            What::Kill => fleet.kill(whom),
            What::Restart => fleet.restart(whom),
            What::Freeze => fleet.freeze(whom),
            What::Unplug => testbed.unplug(whom),
            What::Crawl => {
                let usual = testbed.machine(whom)?.shaped()?.rate;
                testbed.slow(whom, Rate(usual.0 / CRAWL))
            }
        }
    }

    /// It is over.
    pub fn heal(&self, testbed: &Testbed, fleet: &mut Fleet<'_>) -> Result<(), Failure> {
        let whom = &self.whom;
        match self.what {
            What::Kill => fleet.restart(whom),
            What::Restart => Ok(()),
            What::Freeze => fleet.thaw(whom),
            What::Unplug => testbed.plug(whom),
            What::Crawl => testbed.restore(whom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_written_as_it_is_read() {
        for text in ["kill:node1", "restart:scheduler", "freeze:seed1", "unplug:a", "crawl:b"] {
            assert_eq!(text.parse::<Trouble>().unwrap().to_string(), text);
        }
        for bad in ["kill", "bite:node1"] {
            assert!(bad.parse::<Trouble>().is_err(), "{bad}");
        }
    }
}
