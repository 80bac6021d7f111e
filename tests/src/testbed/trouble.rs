//! What goes wrong on a testbed, and how it is made good again.

use std::fmt;
use std::str::FromStr;

use dfs_model::Rate;

use super::{Fate, Filter, Fleet, Machine, Role, Testbed, Traffic, Way, Whom};
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
    /// Packets do not come through.
    Sift(Sieve),
}

/// Which packets a machine's filter strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sieve {
    /// Of machines that are there for this; of all when not given.
    role: Option<Role>,
    way: Way,
    percent: u8,
    fate: Fate,
}

const fn parted(role: Role, way: Way) -> What {
    What::Sift(Sieve { role: Some(role), way, percent: 100, fate: Fate::Lost })
}

const fn lossy(percent: u8) -> What {
    What::Sift(Sieve { role: None, way: Way::Both, percent, fate: Fate::Lost })
}

const RESETS: What =
    What::Sift(Sieve { role: Some(Role::Node), way: Way::Both, percent: 2, fate: Fate::Reset });

const NAMES: [(&str, What); 15] = [
    ("kill", What::Kill),
    ("restart", What::Restart),
    ("freeze", What::Freeze),
    ("unplug", What::Unplug),
    ("crawl", What::Crawl),
    // Manager and scheduler: neither reaches the other, it hears nothing of them, they hear nothing of it.
    ("cut", parted(Role::Control, Way::Both)),
    ("adrift", parted(Role::Control, Way::In)),
    ("unheard", parted(Role::Control, Way::Out)),
    // The same of the other nodes.
    ("shun", parted(Role::Node, Way::Both)),
    ("deaf", parted(Role::Node, Way::In)),
    ("mute", parted(Role::Node, Way::Out)),
    ("lossy-1", lossy(1)),
    ("lossy", lossy(5)),
    ("lossy-20", lossy(20)),
    // Its connections with other nodes break again and again.
    ("resets", RESETS),
];

/// What happens to a crowd, each by itself.
const USUAL: [&str; 18] = [
    "kill:node2",
    "restart:node2",
    "freeze:node2",
    "unplug:node2",
    "crawl:node2",
    "cut:node2",
    "shun:node2",
    "deaf:node2",
    "adrift:node2",
    "lossy:node2",
    "resets:node2",
    "kill:seed1",
    "freeze:seed1",
    "restart:seed1",
    "kill:scheduler",
    "freeze:scheduler",
    "restart:scheduler",
    "restart:manager",
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
    /// What happens to a crowd, each by itself.
    pub fn usual() -> Vec<Self> {
        USUAL.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// The machine whose link shows that whom it strikes is in the middle of something; of the scheduler and the
    /// manager, a node's.
    pub fn witness<'a>(&self, testbed: &'a Testbed) -> Result<&'a Machine, Failure> {
        let at_control = matches!(self.whom.as_str(), "scheduler" | "manager");
        let hit = testbed.machines().iter().find(|machine| self.hits(machine));
        hit.map_or_else(|| testbed.machine(if at_control { "node2" } else { &self.whom }), Ok)
    }

    /// Whether it strikes a machine, or the data centre or area that it stands in.
    pub fn hits(&self, machine: &Machine) -> bool {
        machine.name() == self.whom || machine.group().is_some_and(|group| group == self.whom)
    }

    /// Whether a link that has carried so much is one of who is in the middle of taking so many bytes, and of sending
    /// them on.
    pub fn is_middle(carried: Traffic, length: u64) -> bool {
        carried.received > length / 4 && carried.sent > length / 8
    }

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
            What::Sift(Sieve { role, way, percent, fate }) => {
                let of = role.map_or(Whom::Anybody, |role| testbed.others(whom, role));
                testbed.filter(whom, Some(&Filter { whom: of, way, percent, fate }))
            }
        }
    }

    /// Whether packets have been struck by it; of what strikes none, always.
    pub fn is_felt(&self, testbed: &Testbed) -> Result<bool, Failure> {
        match self.what {
            What::Sift(_) => Ok(testbed.struck(&self.whom)? > 0),
            _ => Ok(true),
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
            What::Sift(_) => testbed.filter(whom, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_written_as_it_is_read() {
        for text in
            ["kill:node1", "restart:scheduler", "freeze:seed1", "unplug:a", "crawl:b", "cut:c"]
        {
            assert_eq!(text.parse::<Trouble>().unwrap().to_string(), text);
        }
        assert_eq!(Trouble::usual().len(), USUAL.len());
        for bad in ["kill", "bite:node1"] {
            assert!(bad.parse::<Trouble>().is_err(), "{bad}");
        }
    }
}
