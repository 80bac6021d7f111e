//! Completion in shells: small scripts that ask `dfctl __complete`, which knows the grammar and the live names.
//!
//! An answer is offline and comes within [`ANSWER_WITHIN`], whatever the agent does; whatever goes wrong, less is
//! offered and nothing is said. The engine is our own because what it must get right, names with blanks in bash
//! and a deadline, clap's does not offer, and its interface may still change.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;

mod bash;
mod grammar;
mod live;

use grammar::{Candidate, Files};

/// The first argument by which scripts ask.
pub const ASKED: &str = "__complete";

/// How long after the start of the process an agent may still answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(35);

/// A shell that has a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash, from version 4.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// The script that completes `dfctl`.
    pub fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("completion/dfctl.bash"),
            Self::Zsh => include_str!("completion/dfctl.zsh"),
            Self::Fish => include_str!("completion/dfctl.fish"),
        }
    }

    /// What a file with it is called where the shell looks for it.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Bash => "dfctl.bash",
            Self::Zsh => "_dfctl",
            Self::Fish => "dfctl.fish",
        }
    }

    /// What the shell gave, as plain words: the last is the one to complete.
    fn plain(self, words: &[String]) -> Vec<String> {
        match self {
            Self::Bash => bash::plain(words),
            Self::Zsh | Self::Fish => words.to_vec(),
        }
    }

    /// A line of the answer. `typed` is the last word as the shell gave it.
    fn line(self, candidate: &Candidate, typed: &str) -> String {
        let Candidate { value, about } = candidate;
        match self {
            Self::Bash => bash::reply(value, typed),
            Self::Zsh | Self::Fish if about.is_empty() => value.clone(),
            Self::Zsh | Self::Fish => format!("{value}\t{about}"),
        }
    }
}

/// Answers a script: `SHELL WORD…`, the words up to the cursor without the program's own name.
pub fn main(asked: impl Iterator<Item = OsString>) -> ExitCode {
    let begun = Instant::now();
    let mut words = asked.map(|word| word.to_string_lossy().into_owned());
    let shell = words.next().and_then(|name| Shell::from_str(&name, false).ok());
    if let Some(shell) = shell {
        let words: Vec<_> = words.collect();
        // A shell that has gone wants no answer.
        let _ =
            std::io::stdout().write_all(answer(shell, &words, begun + ANSWER_WITHIN).as_bytes());
    }
    ExitCode::SUCCESS
}

fn answer(shell: Shell, words: &[String], deadline: Instant) -> String {
    let typed = words.last().map(String::as_str).unwrap_or_default();
    let plain = shell.plain(words);
    let wanted = grammar::wanted(crate::cli::command(), &plain);
    let mut candidates = wanted.candidates.clone();
    if let Some(names) = wanted.names {
        let prefix = |candidate: Candidate| candidate.after(&wanted.stem);
        candidates.extend(live::names(names, &wanted, deadline).into_iter().map(prefix));
    }
    let current = plain.last().map(String::as_str).unwrap_or_default();
    candidates.retain(|candidate| candidate.fits(current));
    let mut text: String =
        candidates.iter().map(|candidate| shell.line(candidate, typed) + "\n").collect();
    text.push_str(match wanted.files {
        Some(Files::Any) => ":files\n",
        Some(Files::Directories) => ":dirs\n",
        None => "",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(shell: Shell, words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        answer(shell, &words, Instant::now())
    }

    #[test]
    fn every_shell_gets_its_own_form() {
        assert_eq!(asked(Shell::Bash, &["explain", "DFS-2103"]), "DFS-2103\n");
        assert_eq!(asked(Shell::Fish, &["explain", "DFS-2103"]), "DFS-2103\tthe origin refused\n");
        assert_eq!(asked(Shell::Bash, &["--format", "=", "js"]), "json\njsonl\n");
        assert_eq!(
            asked(Shell::Zsh, &["--format=json"]),
            "--format=json\tOne document: `{\"version\": 1, \"kind\": …, …}`\n--format=jsonl\tOne object a line\n"
        );
        assert_eq!(asked(Shell::Bash, &["get", "-o", ""]), ":files\n");
        assert_eq!(asked(Shell::Bash, &["mount", "https", ":", "//h/", "m"]), ":dirs\n");
    }

    #[test]
    fn nonsense_is_answered_with_nothing() {
        assert_eq!(asked(Shell::Bash, &["frobnicate", "--what", ""]), "");
        assert_eq!(asked(Shell::Zsh, &["get", "--no-such-flag=x"]), "");
    }
}
