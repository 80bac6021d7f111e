//! Lanes: by which way the kernel comes to the bytes of a mount, and which one is the best that a mount can have.

use std::fmt;
use std::str::FromStr;

use rustix::thread::CapabilitySet;

use crate::holder::packet::CONTENTS;

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Every read of what is not in the page cache comes to the agent.
    Fuse,
    /// Names come to the agent; files that are whole and lie alone in a content file are read from it by the kernel.
    Passthrough,
    /// The kernel shows the index and reads the content files, without any agent.
    Kernel,
}

impl Lane {
    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Passthrough => "passthrough",
            Self::Kernel => "kernel",
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
#[error("there is no lane '{0}': use auto, fuse, passthrough or kernel")]
pub struct NoSuchLane(String);

impl FromStr for Wanted {
    type Err = NoSuchLane;

    fn from_str(name: &str) -> Result<Self, NoSuchLane> {
        match name {
            "" | "auto" => Ok(Self::Best),
            "fuse" => Ok(Self::Lane(Lane::Fuse)),
            "passthrough" => Ok(Self::Lane(Lane::Passthrough)),
            "kernel" => Ok(Self::Lane(Lane::Kernel)),
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
    /// Why nobody can have reads of the kernel's wait for bytes.
    pub unguarded: Option<&'static str>,
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
    /// Whether all of it is here.
    pub whole: bool,
    /// Content files of which not everything is.
    pub missing: usize,
    /// How many bytes of content the cache may hold, where that is bounded.
    pub room: Option<u64>,
    /// Whether a part of it is to be shown.
    pub part: bool,
    /// Whether it is to be shown to some people only, whatever the permissions of its files.
    pub private: bool,
    /// Whether its files are to appear as others' than they are.
    pub others: bool,
    /// Whether somebody else than the agent's own user asks for it.
    pub foreign: bool,
    /// Whether parts of it are given back while it is mounted.
    pub limited: bool,
    /// Whether what is here is hashed again whenever it is read.
    pub verified: bool,
    /// Whether another version may be shown in its place.
    pub follows: bool,
}

/// The first kernel whose FUSE lets files be read from others, and take-overs of such mounts.
pub const PASSTHROUGH: (u32, u32) = (6, 9);

/// The first kernel whose EROFS reads files of another file system.
pub const EROFS: (u32, u32) = (6, 12);

/// The first kernel that asks before it reads.
pub const ASKS: (u32, u32) = (6, 14);

/// Why nobody has reads wait where nobody keeps mounts.
pub const NO_HOLDER: &str = "kernel needs all of it to be here, or a holder: --holder own";

/// The same where what comes does not lie in the content files from the beginning.
pub const LAYERED: &str = "kernel needs all of it to be here, or a cache that is not layered";

/// In the lane that passes files through every open of a file costs a question (35 µs), also of a small one: so it is for
/// trees with no more than this many others.
const OTHERS: u64 = 1000;

/// The first two numbers of a kernel's release, as it calls itself.
pub fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let kernel = version_of(&rustix::system::uname().release().to_string_lossy());
        let admin = rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        Self { kernel, admin, unguarded: Some(NO_HOLDER) }
    }

    /// Why the kernel cannot show it.
    pub fn cannot_show(&self, shape: &Shape) -> Option<&'static str> {
        if !self.admin {
            Some("kernel needs root")
        } else if self.kernel < EROFS {
            Some("kernel needs Linux 6.12")
        } else if shape.limited {
            Some("kernel would read what a quota takes away")
        } else if shape.verified {
            Some("kernel reads without anybody who verifies it")
        } else if shape.follows {
            Some("kernel shows one version: no --follow")
        } else if shape.foreign {
            Some("kernel is for the agent's own user")
        } else if shape.part {
            Some("kernel shows whole trees only")
        } else if shape.private {
            Some("kernel would show it to everybody: --allow-other")
        } else if shape.others {
            Some("kernel shows files as whose they are")
        } else if !shape.whole {
            self.cannot_ask(shape)
        } else {
            None
        }
    }

    /// Why the kernel cannot ask before it reads what is missing.
    fn cannot_ask(&self, shape: &Shape) -> Option<&'static str> {
        if self.kernel < ASKS {
            Some("kernel needs all of it to be here, or Linux 6.14")
        } else if self.unguarded.is_some() {
            self.unguarded
        } else if shape.missing > CONTENTS {
            Some("kernel needs all of it to be here, but for 240 content files")
        } else if shape.room.is_some_and(|room| shape.bytes > room) {
            // What it reads lies in the cache, or it reads nothing.
            Some("kernel needs all of it to be here, and --capacity has no room for that")
        } else {
            None
        }
    }

    /// Why files cannot be passed through.
    fn cannot_pass(&self, shape: &Shape) -> Option<&'static str> {
        if shape.limited {
            Some("passthrough would read what a quota takes away")
        } else if shape.verified {
            Some("every read is verified")
        } else if shape.alone == 0 {
            Some("passthrough needs large files that are no archive's")
        } else if shape.follows {
            Some("passthrough is for one version: no --follow")
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
    let asked = |lane| Chosen { lane, why: "as asked".to_owned() };
    match wanted {
        Wanted::Lane(Lane::Fuse) => asked(Lane::Fuse),
        Wanted::Lane(Lane::Kernel) => match machine.cannot_show(shape) {
            Some(why) => Chosen { why: why.to_owned(), ..choose(Wanted::Best, machine, shape) },
            None => asked(Lane::Kernel),
        },
        Wanted::Lane(Lane::Passthrough) => passing(machine.cannot_pass(shape), shape),
        Wanted::Best => {
            passing(machine.cannot_pass(shape).or_else(|| shape.should_not_pass()), shape)
        }
    }
}

fn passing(against: Option<&str>, shape: &Shape) -> Chosen {
    match against {
        Some(why) => Chosen { lane: Lane::Fuse, why: why.to_owned() },
        None => {
            let files = if shape.alone == 1 { "file" } else { "files" };
            let why = format!("{} {files} directly once whole", shape.alone);
            Chosen { lane: Lane::Passthrough, why }
        }
    }
}

/// The lane `other` in place of one that was chosen and then refused. What is told is why there is not the one that was
/// wanted.
pub fn instead(wanted: Wanted, refused: &Chosen, why: &str, other: Lane) -> Chosen {
    let why = match wanted {
        Wanted::Lane(lane) if lane != refused.lane => refused.why.clone(),
        _ => format!("{} was refused: {why}", refused.lane),
    };
    Chosen { lane: other, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Machine = Machine { kernel: (6, 18), admin: true, unguarded: None };
    const MODEL: Shape = Shape {
        files: 30,
        bytes: 40 << 30,
        alone: 10,
        alone_bytes: 39 << 30,
        whole: true,
        missing: 0,
        room: None,
        part: false,
        private: false,
        others: false,
        foreign: false,
        limited: false,
        verified: false,
        follows: false,
    };

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
    fn the_kernel_shows_what_is_whole_where_it_is_asked_to() {
        let kernel = Wanted::Lane(Lane::Kernel);
        assert_eq!(lane(kernel, ABLE, MODEL), Lane::Kernel);
        let parts = [
            Shape { part: true, ..MODEL },
            Shape { private: true, ..MODEL },
            Shape { others: true, ..MODEL },
            Shape { foreign: true, ..MODEL },
        ];
        for shape in parts {
            assert_eq!(lane(kernel, ABLE, shape), Lane::Passthrough);
            assert_ne!(lane(kernel, Machine { admin: false, ..ABLE }, shape), Lane::Kernel);
        }
        assert_eq!(lane(kernel, Machine { kernel: (6, 11), ..ABLE }, MODEL), Lane::Passthrough);
    }

    #[test]
    fn what_is_missing_is_shown_by_the_kernel_only_where_somebody_has_its_reads_wait() {
        let kernel = Wanted::Lane(Lane::Kernel);
        let lazy = Shape { whole: false, missing: 3, ..MODEL };
        assert_eq!(lane(kernel, ABLE, lazy), Lane::Kernel);
        assert_eq!(lane(kernel, ABLE, Shape { room: Some(lazy.bytes), ..lazy }), Lane::Kernel);
        let many = Shape { missing: CONTENTS + 1, ..lazy };
        for (machine, shape) in [
            (Machine { kernel: (6, 13), ..ABLE }, lazy),
            (Machine { unguarded: Some(NO_HOLDER), ..ABLE }, lazy),
            (ABLE, many),
            (ABLE, Shape { room: Some(lazy.bytes - 1), ..lazy }),
        ] {
            let chosen = choose(kernel, &machine, &shape);
            assert_eq!(chosen.lane, Lane::Passthrough);
            assert!(chosen.why.contains("all of it to be here"), "{}", chosen.why);
            assert_eq!(lane(kernel, machine, Shape { whole: true, ..shape }), Lane::Kernel);
        }
        assert_eq!(lane(Wanted::Best, ABLE, lazy), Lane::Passthrough, "only where it is asked for");
    }

    #[test]
    fn where_a_lane_is_refused_it_is_told_why_the_one_that_was_wanted_is_not_there() {
        let kernel = Wanted::Lane(Lane::Kernel);
        let asked = choose(kernel, &ABLE, &MODEL);
        let second = instead(kernel, &asked, "no", Lane::Passthrough);
        assert_eq!((second.lane, &*second.why), (Lane::Passthrough, "kernel was refused: no"));
        let third = instead(kernel, &second, "never", Lane::Fuse);
        assert_eq!((third.lane, &*third.why), (Lane::Fuse, "kernel was refused: no"));
        for wanted in [Wanted::Best, Wanted::Lane(Lane::Passthrough)] {
            let refused = instead(wanted, &choose(wanted, &ABLE, &MODEL), "never", Lane::Fuse);
            assert_eq!(refused.why, "passthrough was refused: never");
        }
    }

    #[test]
    fn what_a_quota_takes_away_is_read_by_nobody_else() {
        let verified = Shape { verified: true, ..MODEL };
        for wanted in [Wanted::Best, Wanted::Lane(Lane::Kernel), Wanted::Lane(Lane::Passthrough)] {
            assert_eq!(lane(wanted, ABLE, verified), Lane::Fuse, "{wanted:?}");
        }
        let limited = Shape { limited: true, ..MODEL };
        for wanted in [Wanted::Best, Wanted::Lane(Lane::Passthrough), Wanted::Lane(Lane::Kernel)] {
            let chosen = choose(wanted, &ABLE, &limited);
            assert_eq!(chosen.lane, Lane::Fuse);
            assert!(chosen.why.contains("quota"), "{}", chosen.why);
        }
    }

    #[test]
    fn what_may_be_another_version_later_is_read_through_the_agent() {
        let followed = Shape { follows: true, ..MODEL };
        let all = [Wanted::Best, Wanted::Lane(Lane::Kernel), Wanted::Lane(Lane::Passthrough)];
        for wanted in all {
            let chosen = choose(wanted, &ABLE, &followed);
            assert_eq!(chosen.lane, Lane::Fuse);
            assert!(chosen.why.contains("one version"), "{}", chosen.why);
        }
    }

    #[test]
    fn this_machine_is_known() {
        assert!(Machine::this().kernel > (2, 6));
    }
}
