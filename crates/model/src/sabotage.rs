//! Breaking an invariant on purpose, so that its test is seen to fail.
//!
//! Only a build with the feature `sabotage` can: it breaks the one invariant that the variable
//! `SABOTAGE` names. In any other build every question is answered no when it is compiled.

/// What must hold, by its number in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// 1: what does not verify is never shown.
    NoWrongByte,
    /// 1: what is not here is never read as zeros.
    NoHoleIsRead,
    /// 2: bytes of two versions never meet.
    VersionsNeverMix,
    /// 3: one copy leaves the source.
    SourcePaysOnce,
    /// 4: without a swarm the source is read.
    SwarmIsOptional,
    /// 5: every buffer has a bound.
    MemoryIsBounded,
    /// 6: eviction spares what is in use.
    NothingInUseIsTaken,
    /// 7: what is in doubt after a crash is verified again.
    DoubtIsResolved,
    /// 7: a mount outlives its agent.
    MountsSurvive,
    /// 8: what credentials opened is for their owner.
    NobodyReadsWhatIsNotTheirs,
    /// 9: what is here is used, whoever is gone.
    WhatIsHereStaysUsable,
    /// 10: a number without a clear unit is refused.
    UnitsAreClear,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NoWrongByte,
        Self::NoHoleIsRead,
        Self::VersionsNeverMix,
        Self::SourcePaysOnce,
        Self::SwarmIsOptional,
        Self::MemoryIsBounded,
        Self::NothingInUseIsTaken,
        Self::DoubtIsResolved,
        Self::MountsSurvive,
        Self::NobodyReadsWhatIsNotTheirs,
        Self::WhatIsHereStaysUsable,
        Self::UnitsAreClear,
    ];

    /// Its name in `SABOTAGE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoWrongByte => "no-wrong-byte",
            Self::NoHoleIsRead => "no-hole-is-read",
            Self::VersionsNeverMix => "versions-never-mix",
            Self::SourcePaysOnce => "source-pays-once",
            Self::SwarmIsOptional => "swarm-is-optional",
            Self::MemoryIsBounded => "memory-is-bounded",
            Self::NothingInUseIsTaken => "nothing-in-use-is-taken",
            Self::DoubtIsResolved => "doubt-is-resolved",
            Self::MountsSurvive => "mounts-survive",
            Self::NobodyReadsWhatIsNotTheirs => "nobody-reads-what-is-not-theirs",
            Self::WhatIsHereStaysUsable => "what-is-here-stays-usable",
            Self::UnitsAreClear => "units-are-clear",
        }
    }

    /// Whether this process is to break it.
    #[cfg(feature = "sabotage")]
    pub fn is_broken(self) -> bool {
        use std::sync::LazyLock;
        static BROKEN: LazyLock<Option<Invariant>> = LazyLock::new(|| {
            let name = std::env::var("SABOTAGE").ok()?;
            let known = Invariant::ALL.into_iter().find(|invariant| invariant.name() == name);
            Some(known.unwrap_or_else(|| panic!("SABOTAGE={name} names no invariant")))
        });
        *BROKEN == Some(self)
    }

    /// Whether this process is to break it: not in this build.
    #[cfg(not(feature = "sabotage"))]
    pub const fn is_broken(self) -> bool {
        false
    }
}
