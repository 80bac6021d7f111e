//! A page of the guide: what a reader types, and what they are told to see.

use std::fs;
use std::path::{Path, PathBuf};

/// What a command gave.
pub struct Said {
    /// Both its streams.
    pub text: String,
    /// How it ended.
    pub code: i32,
}

struct Step {
    command: String,
    expected: Vec<String>,
}

impl Step {
    fn agrees(&self, said: &Said) -> bool {
        let got: Vec<_> = said.text.lines().map(shape).collect();
        matches(&self.expected, &got)
    }
}

enum Part {
    Prose(String),
    Step(Step),
}

pub struct Page {
    path: PathBuf,
    parts: Vec<Part>,
}

impl Page {
    pub fn read(path: &Path) -> Self {
        Self::of(path, |_| true)
    }

    /// Of which only what stands below a headline is a session.
    pub fn section(path: &Path, headline: &str) -> Self {
        let mut is_it = false;
        Self::of(path, move |line| {
            if line.starts_with('#') {
                is_it = line == headline;
            }
            is_it
        })
    }

    fn of(path: &Path, mut is_session: impl FnMut(&str) -> bool) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let (mut parts, mut inside) = (Vec::new(), false);
        for line in text.lines() {
            if !inside && !is_session(line) {
                parts.push(Part::Prose(line.to_owned()));
                continue;
            }
            let fence = line.starts_with("```");
            match (line.strip_prefix("$ "), parts.last_mut()) {
                (Some(command), _) if inside => {
                    parts.push(Part::Step(Step {
                        command: command.to_owned(),
                        expected: Vec::new(),
                    }));
                }
                (None, Some(Part::Step(step))) if inside && !fence => {
                    step.expected.push(line.to_owned());
                }
                _ => parts.push(Part::Prose(line.to_owned())),
            }
            if fence {
                inside = line == "```console";
            }
        }
        Self { path: path.to_owned(), parts }
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.parts.iter().filter_map(|part| match part {
            Part::Step(step) => Some(step),
            Part::Prose(_) => None,
        })
    }

    pub fn commands(&self) -> Vec<String> {
        self.steps().map(|step| step.command.clone()).collect()
    }

    /// Every command said what the page says.
    pub fn compare(&self, said: &[Said]) {
        assert!(said.len() > 3, "{}: the page has commands", self.path.display());
        let (mut steps, mut said) = (self.steps().peekable(), said.iter());
        while let (Some(step), Some(said)) = (steps.next(), said.next()) {
            let told = format!(
                "{}\n$ {}\nsaid, ending with {}:\n{}",
                self.path.display(),
                step.command,
                said.code,
                said.text
            );
            // Such an end is told by an error, or asked for.
            let is_told = step.expected.iter().any(|line| line.starts_with("error: "));
            let is_asked_for = steps.peek().is_some_and(|next| next.command.contains("$?"));
            assert!(said.code == 0 || is_told || is_asked_for, "{told}");
            assert!(step.agrees(said), "{told}\nwhich has not the shape of the page");
        }
    }

    /// Puts what was said into the page where it says something else.
    pub fn write(&self, said: &[Said]) {
        let mut said = said.iter();
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Prose(line) => text.extend([line, "\n"]),
                Part::Step(step) => {
                    let said = said.next().unwrap();
                    let kept = step.expected.iter().map(|line| format!("{line}\n")).collect();
                    let shown = if step.agrees(said) { kept } else { said.text.clone() };
                    text.extend(["$ ", &step.command, "\n", &shown]);
                }
            }
        }
        fs::write(&self.path, text).unwrap();
    }
}

/// Whether the lines have the shapes that are expected.
fn matches(expected: &[String], got: &[String]) -> bool {
    match expected.split_first() {
        None => got.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=got.len()).any(|skipped| matches(rest, &got[skipped..]))
        }
        Some((line, rest)) => got
            .split_first()
            .is_some_and(|(first, behind)| shape(line) == *first && matches(rest, behind)),
    }
}

/// Days and months, as dates have them.
const CALENDAR: [&str; 19] = [
    "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A line without what differs from run to run: numbers with their units, dates, hexadecimal
/// names, the width of columns.
fn shape(line: &str) -> String {
    const UNITS: [&str; 12] =
        ["B", "KiB", "MiB", "GiB", "ms", "s", "min", "h", "B/s", "KiB/s", "MiB/s", "GiB/s"];
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let bare = word.trim_matches(|c: char| "()…,;:".contains(c));
        let is_unit = UNITS.contains(&bare) && words.last().is_some_and(|last| last == "N");
        let is_rule = word.chars().all(|c| matches!(c, '-' | '─'));
        match word {
            _ if is_unit || is_rule => {}
            _ if CALENDAR.contains(&bare.trim_matches('"')) => words.push("C".to_owned()),
            _ if bare.starts_with(|c: char| c.is_ascii_digit()) && !bare.contains(['/', ':']) => {
                words.push("N".to_owned());
            }
            _ => words.push(squeezed(word)),
        }
    }
    words.dedup_by(|next, last| next == "N" && last == "N");
    words.join(" ")
}

/// A word with its runs of digits, of either kind, made one.
fn squeezed(word: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in word.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        let all_digits = !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_digit());
        let hexadecimal = run.len() >= 8;
        out.push_str(if all_digits || hexadecimal { "N" } else { &run });
        run.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

#[test]
fn shapes_differ_where_words_do() {
    let same = [
        (
            "saved x  310.1 KiB in 40 ms  blake3:cba6362fafa8…",
            "saved x  9 B in 1.2 s blake3:0123456789ab…",
        ),
        ("\"modified\": \"Fri, 20 Nov 2026\"", "\"modified\": \"Sat, 1 May 2027\""),
        ("pid 6395   socket /run/dfs/agent.sock", "pid 1   socket /run/dfs/agent.sock"),
    ];
    assert!(same.iter().all(|(one, other)| shape(one) == shape(other)));
    assert_ne!(shape("lane fuse"), shape("lane kernel"));
    assert_ne!(shape("cannot read a"), shape("cannot read b"));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&lines("a\n…\nd"), &lines("a\nb\nc\nd")));
    assert!(!matches(&lines("a\n…\nd"), &lines("a\nb")));
}
