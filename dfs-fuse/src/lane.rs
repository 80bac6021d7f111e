//! Lanes: by which way the kernel comes to the bytes of a mount, and which one is the best that a mount can have.

use std::fmt;
use std::str::FromStr;

use rustix::thread::CapabilitySet;

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Every read of what is not in the page cache comes to the agent.
    Fuse,
    /// Names come to the agent; files that are whole and lie alone in a content file are read from it by the kernel.
    Passthrough,
}

impl Lane {
    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Passthrough => "passthrough",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which lane somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The best there is.
    #[default]
    Best,
    /// This one, or where it cannot be had the best of the others.
    Lane(Lane),
}

/// A lane that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no lane '{0}': use auto, fuse or passthrough")]
pub struct NoSuchLane(String);

impl FromStr for Wanted {
    type Err = NoSuchLane;

    fn from_str(name: &str) -> Result<Self, NoSuchLane> {
        match name {
            "" | "auto" => Ok(Self::Best),
            "fuse" => Ok(Self::Lane(Lane::Fuse)),
            "passthrough" => Ok(Self::Lane(Lane::Passthrough)),
            other => Err(NoSuchLane(other.to_owned())),
        }
    }
}

/// The lane of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Which.
    pub lane: Lane,
    /// Why this one, for people.
    pub why: String,
}

/// What this machine and this process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// The first two numbers of the kernel's version.
    pub kernel: (u32, u32),
    /// Whether the process administrates it.
    pub admin: bool,
}

/// What a tree is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of the files those that have a content file of their own.
    pub alone: u64,
    /// Bytes in those.
    pub alone_bytes: u64,
}

/// The first kernel whose FUSE lets files be read from others, and take-overs of such mounts.
const PASSTHROUGH: (u32, u32) = (6, 9);

/// In the lane that passes files through every open of a file costs a question (35 µs), also of a small one: so it is for
/// trees with no more than this many others.
const OTHERS: u64 = 1000;

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let admin = rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        Self { kernel, admin }
    }

    /// Why files cannot be passed through.
    fn cannot_pass(&self, shape: &Shape) -> Option<&'static str> {
        if shape.alone == 0 {
            Some("passthrough needs large files that are no archive's")
        } else if !self.admin {
            Some("passthrough needs root")
        } else if self.kernel < PASSTHROUGH {
            Some("passthrough needs Linux 6.9")
        } else {
            None
        }
    }
}

impl Shape {
    /// Why it is not worth it.
    fn should_not_pass(&self) -> Option<&'static str> {
        if self.alone_bytes < self.bytes.div_ceil(2) {
            Some("passthrough would help with less than half of it")
        } else if self.files.saturating_sub(self.alone) > OTHERS {
            Some("passthrough would slow its many small files down")
        } else {
            None
        }
    }
}

/// The lane for a tree of `shape` on `machine`.
pub fn choose(wanted: Wanted, machine: &Machine, shape: &Shape) -> Chosen {
    let cannot = machine.cannot_pass(shape);
    let (against, wish) = match wanted {
        Wanted::Lane(Lane::Fuse) => {
            return Chosen { lane: Lane::Fuse, why: "as asked".to_owned() };
        }
        Wanted::Lane(Lane::Passthrough) => (cannot, ", as asked"),
        Wanted::Best => (cannot.or_else(|| shape.should_not_pass()), ""),
    };
    match against {
        Some(why) => Chosen { lane: Lane::Fuse, why: why.to_owned() },
        None => {
            let files = if shape.alone == 1 { "file" } else { "files" };
            let why = format!("{} {files} directly once whole{wish}", shape.alone);
            Chosen { lane: Lane::Passthrough, why }
        }
    }
}

/// The lane of a mount whose files the kernel would not pass through.
pub fn refused(why: &str) -> Chosen {
    Chosen { lane: Lane::Fuse, why: format!("passthrough was refused: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Machine = Machine { kernel: (6, 18), admin: true };
    const MODEL: Shape = Shape { files: 30, bytes: 40 << 30, alone: 10, alone_bytes: 39 << 30 };

    fn lane(wanted: Wanted, machine: Machine, shape: Shape) -> Lane {
        choose(wanted, &machine, &shape).lane
    }

    #[test]
    fn a_few_large_files_are_passed_through_where_that_can_be() {
        assert_eq!(lane(Wanted::Best, ABLE, MODEL), Lane::Passthrough);
        for machine in [Machine { admin: false, ..ABLE }, Machine { kernel: (6, 8), ..ABLE }] {
            for wanted in [Wanted::Best, Wanted::Lane(Lane::Passthrough)] {
                assert_eq!(lane(wanted, machine, MODEL), Lane::Fuse);
            }
        }
        assert_eq!(lane(Wanted::Lane(Lane::Fuse), ABLE, MODEL), Lane::Fuse);
    }

    #[test]
    fn many_small_files_are_passed_through_only_where_somebody_wants_it() {
        let sources = Shape { files: 100_000, ..MODEL };
        let packed = Shape { alone_bytes: 1 << 30, ..MODEL };
        for shape in [sources, packed] {
            assert_eq!(lane(Wanted::Best, ABLE, shape), Lane::Fuse);
            assert_eq!(lane(Wanted::Lane(Lane::Passthrough), ABLE, shape), Lane::Passthrough);
        }
        let none = Shape { alone: 0, alone_bytes: 0, ..MODEL };
        let chosen = choose(Wanted::Lane(Lane::Passthrough), &ABLE, &none);
        assert_eq!(chosen.lane, Lane::Fuse);
        assert!(chosen.why.contains("needs large files"), "{}", chosen.why);
    }

    #[test]
    fn this_machine_is_known() {
        assert!(Machine::this().kernel > (2, 6));
    }
}
