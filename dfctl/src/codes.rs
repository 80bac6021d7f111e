//! Every code that `dfctl` can end with or name: number, exit code, and all that `dfctl explain` says of it.
//!
//! Numbers are stable: one is never reused or moved. 1xxx the command and this machine's files, 2xxx origin
//! and network, 3xxx integrity, 4xxx agent and cluster, 5xxx mounts, 6xxx what `dfctl doctor` finds. The
//! other programs end with the same exit codes, and with those of these numbers that say why a process cannot run
//! ([`dfs_service::process::Fault::code`]).

use std::fmt;

mod command;
mod findings;
mod integrity;
mod mounts;
mod origin;
mod processes;

pub use command::*;
pub use findings::*;
pub use integrity::*;
pub use mounts::*;
pub use origin::*;
pub use processes::*;

/// What the process ends with (`cli.md` "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// None of the others.
    Other = 1,
    /// The command line or configuration is wrong.
    Usage = 2,
    /// What was named is not there.
    NotFound = 3,
    /// It may not be had.
    NotPermitted = 4,
    /// Network or source.
    Source = 5,
    /// Bytes are not what they should be.
    Integrity = 6,
    /// No space.
    NoSpace = 7,
    /// Some of it was done.
    Partly = 8,
    /// There was nothing to do.
    Nothing = 9,
    /// A limit or quota.
    Limit = 10,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// One way to fail, or one finding of `dfctl doctor`.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable number, shown as `DFS-nnnn`.
    pub number: u16,
    /// What the process ends with.
    pub exit: Exit,
    /// One line.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What it usually comes from, the most frequent first.
    pub causes: &'static [&'static str],
    /// What to do next, the best first.
    pub next: &'static [Step],
}

/// Something to do about a code.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The command to type; capitals stand for what is the user's.
    pub command: &'static str,
    /// What it does.
    pub why: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("DFS-{}", self.number))
    }
}

/// Declares codes, each with everything that is said of it.
macro_rules! codes {
    ($($name:ident = $number:literal, $exit:ident, $title:literal,
        means: $meaning:literal,
        causes: [$($cause:literal),* $(,)?],
        next: [$($command:literal => $why:literal),* $(,)?];)*) => {
        use super::{Code, Exit, Step};

        $(
            #[doc = $title]
            pub static $name: Code = Code {
                number: $number,
                exit: Exit::$exit,
                title: $title,
                meaning: $meaning,
                causes: &[$($cause),*],
                next: &[$(Step { command: $command, why: $why }),*],
            };
        )*

        /// Those of this file.
        pub(super) static GROUP: &[&Code] = &[$(&$name),*];
    };
}
use codes;

/// All of them, by number.
pub fn all() -> Vec<&'static Code> {
    let groups = [
        command::GROUP,
        origin::GROUP,
        integrity::GROUP,
        processes::GROUP,
        mounts::GROUP,
        findings::GROUP,
    ];
    let mut all: Vec<&Code> = groups.concat();
    all.sort_unstable_by_key(|code| code.number);
    all
}

/// The code that `text` names: `DFS-2101`, in any case, or the number alone.
pub fn find(text: &str) -> Option<&'static Code> {
    let number = match text.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("dfs-") => &text[4..],
        _ => text,
    };
    let number: u16 = number.parse().ok()?;
    all().into_iter().find(|code| code.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_used_twice_and_each_is_in_the_group_of_its_thousand() {
        let mut numbers: Vec<u16> = all().iter().map(|code| code.number).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), all().len());
        assert!(numbers.iter().all(|number| (1000..7000).contains(number)), "{numbers:?}");
    }

    #[test]
    fn every_code_is_explained_in_full() {
        for code in all() {
            assert!(!code.title.ends_with('.') && code.meaning.ends_with('.'), "{code}");
            assert!(!code.causes.is_empty(), "{code} names no cause");
            assert!(!code.next.is_empty(), "{code} says nothing to do next");
            for cause in code.causes {
                assert!(!cause.is_empty() && !cause.ends_with('.'), "{code}: {cause}");
            }
            for step in code.next {
                assert!(!step.command.is_empty() && !step.why.ends_with('.'), "{code}: {step:?}");
            }
        }
    }

    #[test]
    fn every_code_that_a_process_ends_with_is_one_of_these_and_ends_alike() {
        use dfs_service::process::Fault;
        for fault in [Fault::Usage, Fault::NotPermitted, Fault::NoSpace, Fault::Other] {
            let code = find(&fault.code().to_string()).unwrap();
            assert_eq!(code.exit as u8, fault.exit(), "{code}");
        }
        assert_eq!(find("1001"), Some(&USAGE));
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for text in ["DFS-2101", "dfs-2101", "2101"] {
            assert_eq!(find(text), Some(&NOT_FOUND), "{text}");
        }
        for text in ["", "DFS-", "DFS-9999", "DFS2101", "x", "-2101", "größe"] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
