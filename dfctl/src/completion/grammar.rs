//! What could stand at the cursor, by the tree of commands alone: a pure function of the words.

use clap::{Arg, ArgAction, Command, ValueHint};
use dfs_model::is_hidden;

/// Something that could stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub value: String,
    /// What it is, in one line.
    pub about: String,
}

impl Candidate {
    /// A word and what it is. Neither keeps what a shell would take for more than a line.
    pub fn new(value: impl Into<String>, about: &str) -> Self {
        let line = about.lines().next().unwrap_or_default();
        let about = line.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect();
        Self { value: value.into(), about }
    }

    /// The same behind `stem`, as `--flag=`.
    pub fn after(self, stem: &str) -> Self {
        Self { value: format!("{stem}{}", self.value), ..self }
    }

    /// Whether `typed` may become it.
    pub fn fits(&self, typed: &str) -> bool {
        self.value.starts_with(typed) && !self.value.contains(is_hidden)
    }
}

/// Names that exist only at run time. An argument asks for them by its value's name in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// `MOUNT`: mount points of dfs.
    Mounts,
    /// `TASK`: tasks of the agent's cache.
    Tasks,
    /// `CODE`: codes of errors.
    Codes,
    /// `KEY`: keys of the configuration.
    Keys,
}

/// A task in any of the ways that it can be named: files are offered beside.
const NAMED: &str = "TASK|FILE|URL";

/// Files that the shell itself completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// All of them.
    Any,
    /// Directories.
    Directories,
}

/// What could stand at the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Words of the grammar, whether or not they fit what is typed.
    pub candidates: Vec<Candidate>,
    /// Names to look up beside.
    pub names: Option<Names>,
    /// Files beside.
    pub files: Option<Files>,
    /// What is put in front of names: `--flag=`.
    pub stem: String,
    /// The value typed so far, behind the stem.
    pub typed: String,
    /// Global flags given before with their values, which tell where to look: `--socket`, `--solo`.
    pub given: Vec<(String, String)>,
}

/// Where the words before the cursor have led.
struct Walk {
    command: Command,
    /// A flag whose value comes next.
    open: Option<Arg>,
    positionals: usize,
    only_positionals: bool,
    given: Vec<(String, String)>,
}

/// What could stand in place of the last of `words`.
pub fn wanted(mut command: Command, words: &[String]) -> Wanted {
    command.build();
    let Some((current, before)) = words.split_last() else { return Wanted::default() };
    let (open, given) = (None, Vec::new());
    let mut walk = Walk { command, open, positionals: 0, only_positionals: false, given };
    before.iter().for_each(|word| walk.step(word));
    walk.at(current)
}

impl Walk {
    fn step(&mut self, word: &str) {
        if let Some(flag) = self.open.take() {
            self.note(&flag, word);
        } else if self.only_positionals {
            self.positionals += 1;
        } else if word == "--" {
            self.only_positionals = true;
        } else if let Some(long) = word.strip_prefix("--") {
            self.long(long);
        } else if let Some(shorts) = word.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            self.shorts(shorts);
        } else if let Some(sub) = self.command.find_subcommand(word).cloned() {
            self.command = sub;
        } else {
            self.positionals += 1;
        }
    }

    fn long(&mut self, text: &str) {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        let Some(flag) = self.flag(name) else { return };
        match value {
            Some(value) => self.note(&flag, value),
            None if wants_next(&flag) => self.open = Some(flag),
            None => self.note(&flag, ""),
        }
    }

    /// Several in one word; the first that takes a value takes the rest of the word, or the next one.
    fn shorts(&mut self, text: &str) {
        for (at, short) in text.char_indices() {
            let is_it = |arg: &&Arg| arg.get_short() == Some(short);
            let Some(flag) = self.command.get_arguments().find(is_it).cloned() else { return };
            if wants_next(&flag) {
                let ends_the_word = at + short.len_utf8() == text.len();
                self.open = ends_the_word.then_some(flag);
                return;
            }
        }
    }

    fn flag(&self, long: &str) -> Option<Arg> {
        self.command.get_arguments().find(|arg| arg.get_long() == Some(long)).cloned()
    }

    fn note(&mut self, flag: &Arg, value: &str) {
        if let Some(long) = flag.get_long().filter(|_| flag.is_global_set()) {
            self.given.push((long.to_owned(), value.to_owned()));
        }
    }

    fn at(self, current: &str) -> Wanted {
        let mut wanted = Wanted { typed: current.to_owned(), ..Wanted::default() };
        let is_flag = current.starts_with('-') && !self.only_positionals;
        if let Some(flag) = &self.open {
            wanted.value_of(flag);
        } else if let Some((name, typed)) = current.split_once('=').filter(|_| is_flag) {
            wanted.stem = format!("{name}=");
            wanted.typed = typed.to_owned();
            if let Some(flag) = name.strip_prefix("--").and_then(|name| self.flag(name)) {
                wanted.value_of(&flag);
            }
        } else if is_flag {
            wanted.candidates = flags(&self.command);
        } else {
            wanted.word_of(&self.command, self.positionals);
        }
        wanted.given = self.given;
        wanted
    }
}

impl Wanted {
    fn word_of(&mut self, command: &Command, position: usize) {
        if position == 0 {
            let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
            self.candidates = subs
                .map(|sub| {
                    let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
                    Candidate::new(sub.get_name(), &about)
                })
                .collect();
        }
        let last = command.get_positionals().last();
        let repeated = last.filter(|arg| arg.get_num_args().is_some_and(|n| n.max_values() > 1));
        if let Some(arg) = command.get_positionals().nth(position).or(repeated) {
            self.value_of(arg);
        }
    }

    fn value_of(&mut self, arg: &Arg) {
        let possible = arg.get_possible_values();
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        let candidates = shown.map(|value| {
            let about = value.get_help().map(ToString::to_string).unwrap_or_default();
            Candidate::new(value.get_name(), about.trim_end_matches('.')).after(&self.stem)
        });
        self.candidates.extend(candidates.collect::<Vec<_>>());
        let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
        self.names = match name.map(|name| name.trim_end_matches("...")) {
            Some("MOUNT") => Some(Names::Mounts),
            Some("TASK" | NAMED) => Some(Names::Tasks),
            Some("CODE") => Some(Names::Codes),
            Some("KEY") => Some(Names::Keys),
            _ => None,
        };
        self.files = match arg.get_value_hint() {
            ValueHint::AnyPath | ValueHint::FilePath => Some(Files::Any),
            ValueHint::DirPath => Some(Files::Directories),
            _ => None,
        };
        if self.names.is_some() && name != Some(NAMED) {
            self.files = None;
        }
    }
}

fn flags(command: &Command) -> Vec<Candidate> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let candidate = |arg: &Arg| {
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Some(Candidate::new(format!("--{}", arg.get_long()?), &about))
    };
    shown.filter_map(candidate).collect()
}

/// Whether the next word is its value.
fn wants_next(arg: &Arg) -> bool {
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    takes && arg.get_num_args().is_none_or(|number| number.min_values() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &[&str]) -> Wanted {
        let words: Vec<_> = line.iter().map(ToString::to_string).collect();
        wanted(crate::cli::command(), &words)
    }

    fn fitting(line: &[&str]) -> Vec<String> {
        let current = line.last().copied().unwrap_or_default();
        let found = at(line).candidates.into_iter().filter(|candidate| candidate.fits(current));
        found.map(|candidate| candidate.value).collect()
    }

    #[test]
    fn commands_and_those_below_them_come_first() {
        assert_eq!(fitting(&["mou"]), ["mount", "mounts"]);
        assert_eq!(fitting(&["cluster", ""]), ["up", "down", "status", "join-token"]);
        assert_eq!(fitting(&["--solo", "-v", "--format", "json", "stat"]), ["stat"]);
        assert!(fitting(&["get", "mou"]).is_empty(), "a command is no argument of another");
        assert!(!fitting(&["", ""]).contains(&"__complete".to_owned()));
    }

    #[test]
    fn flags_are_those_of_the_command_and_of_all() {
        assert_eq!(fitting(&["get", "--rec"]), ["--recursive"]);
        assert_eq!(fitting(&["get", "--soc"]), ["--socket"]);
        assert!(fitting(&["ls", "--range"]).is_empty());
        assert!(fitting(&["get", "--", "--rec"]).is_empty(), "no flags after --");
    }

    #[test]
    fn values_are_offered_wherever_they_are_written() {
        assert_eq!(fitting(&["get", "--format", "js"]), ["json", "jsonl"]);
        assert_eq!(fitting(&["get", "--format=js"]), ["--format=json", "--format=jsonl"]);
        assert_eq!(at(&["get", "-vo", ""]).files, Some(Files::Any));
        assert_eq!(
            at(&["get", "-o", "x", ""]).files,
            Some(Files::Any),
            "a path may stand for a URL"
        );
    }

    #[test]
    fn live_names_are_asked_for_by_the_names_of_values() {
        assert_eq!(at(&["umount", ""]).names, Some(Names::Mounts));
        assert_eq!(at(&["umount", "--lazy", "/m"]).names, Some(Names::Mounts));
        assert_eq!(at(&["task", "show", "9"]).names, Some(Names::Tasks));
        assert_eq!(at(&["cache", "verify", ""]).names, Some(Names::Tasks));
        let why = at(&["why", ""]);
        assert_eq!((why.names, why.files), (Some(Names::Tasks), Some(Files::Any)));
        assert_eq!(at(&["explain", ""]).names, Some(Names::Codes));
        assert_eq!(at(&["umount", "/a", ""]).names, Some(Names::Mounts), "it takes several");
        assert_eq!(at(&["trace", "record", "/a", ""]).names, None, "what follows is a command");
    }

    #[test]
    fn flags_that_say_where_to_look_are_kept() {
        let given = at(&["--socket", "/s", "--solo", "task", "show", "--color=never", ""]).given;
        let expected = [("socket", "/s"), ("solo", ""), ("color", "never")];
        assert_eq!(given, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
