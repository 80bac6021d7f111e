//! What a person or a program sees: stdout is the result, stderr everything else.
//!
//! Text that others wrote (names, reasons) reaches a terminal only through [`printable`], so it cannot move the
//! cursor or pretend to be ours. Writing to a reader that has gone ends the command quietly.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use clap::builder::StyledStr;
use dfs_model::{ByteSize, is_hidden};
use rustix::termios::Winsize;
use serde_json::json;

use crate::closed::stdout_was_closed;
use crate::codes;
use crate::error::CliError;

pub mod ledger;
pub mod progress;
pub mod records;
pub mod swarm;
pub mod table;
pub mod when;

pub use dfs_model::printable;
pub use records::{Items, Record};

/// The shape of results.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One document: `{"version": 1, "kind": …, …}`.
    Json,
    /// One object a line.
    Jsonl,
    /// Names only, one a line.
    Name,
}

/// When to colour.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// What a person wants to know.
    #[default]
    Normal,
    /// Also what explains surprises.
    Verbose,
}

/// A standard output that is closed: whatever is to be written to it is lost, which is an error.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("it is closed"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Sink = Mutex<Box<dyn Write + Send>>;

/// Both streams and how to write to them.
pub struct Output {
    /// The shape of results.
    pub format: Format,
    /// How much is said.
    pub verbosity: Verbosity,
    /// Width of stderr, where it is a terminal.
    pub stderr_width: Option<usize>,
    /// Whether a person reads the results as they come.
    pub stdout_is_terminal: bool,
    stdout: Sink,
    stderr: Sink,
}

impl Output {
    /// The process's own streams.
    pub fn of_process(format: Format, verbosity: Verbosity, color: Color) -> Self {
        let choice = match color {
            Color::Auto => AutoStream::choice(&io::stderr()),
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        let stderr_width = io::stderr().is_terminal().then(|| window(io::stderr()).0);
        Self {
            format,
            verbosity,
            stderr_width,
            stdout_is_terminal: io::stdout().is_terminal(),
            stdout: Mutex::new(match stdout_was_closed() {
                true => Box::new(Closed),
                false => Box::new(io::BufWriter::with_capacity(64 * 1024, io::stdout())),
            }),
            stderr: Mutex::new(Box::new(AutoStream::new(io::stderr(), choice))),
        }
    }

    /// Streams of a test.
    #[cfg(test)]
    pub fn to(
        format: Format,
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
    ) -> Self {
        Self {
            format,
            verbosity: Verbosity::Normal,
            stderr_width: None,
            stdout_is_terminal: false,
            stdout: Mutex::new(stdout),
            stderr: Mutex::new(stderr),
        }
    }

    /// Writes result bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        lock(&self.stdout).write_all(bytes).map_err(stdout_failed)
    }

    /// Writes a name on a line: as it is for programs, printable for a terminal.
    pub fn name(&self, name: &[u8]) -> Result<(), CliError> {
        if self.stdout_is_terminal {
            return self.line(&printable_name(name));
        }
        self.bytes(name).and_then(|()| self.bytes(b"\n"))
    }

    /// Writes one line of the result.
    pub fn line(&self, line: &str) -> Result<(), CliError> {
        let mut stdout = lock(&self.stdout);
        stdout
            .write_all(line.as_bytes())
            .and_then(|()| stdout.write_all(b"\n"))
            .map_err(stdout_failed)
    }

    /// Writes a help page or a version, in its colours where a terminal shows it.
    pub fn help(&self, page: &StyledStr) -> Result<(), CliError> {
        let text = match AutoStream::choice(&io::stdout()) {
            ColorChoice::Never => page.to_string(),
            _ => page.ansi().to_string(),
        };
        self.bytes(text.as_bytes()).and_then(|()| self.flush())
    }

    /// Hands everything written so far to the reader.
    pub fn flush(&self) -> Result<(), CliError> {
        lock(&self.stdout).flush().map_err(stdout_failed)
    }

    /// Says something beside the result; silent with `-q`.
    pub fn note(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.say_in_format(text);
        }
    }

    /// Says something that explains surprises; only with `-v`.
    pub fn detail(&self, text: &str) {
        if self.verbosity == Verbosity::Verbose {
            self.say_in_format(text);
        }
    }

    fn say_in_format(&self, text: &str) {
        match self.format {
            Format::Json | Format::Jsonl => self.say(&json!({"note": text}).to_string()),
            Format::Human | Format::Name => self.say(&printable_lines(text)),
        }
    }

    /// Writes one line to stderr whatever the verbosity. Nobody is left to tell when that fails.
    pub fn say(&self, line: &str) {
        let _ = writeln!(lock(&self.stderr), "{line}");
    }

    /// Writes an error in the shape the format asks for.
    pub fn error(&self, error: &CliError) {
        // Whoever reads the result sees it before the error.
        let _ = lock(&self.stdout).flush();
        let text = match self.format {
            Format::Json | Format::Jsonl => format!("{}\n", error.to_json()),
            Format::Human | Format::Name => paint(&error.render(self.stderr_width)),
        };
        let _ = lock(&self.stderr).write_all(text.as_bytes());
    }
}

/// Red for the word, green for the way out; the stream drops colours where they are not wanted.
fn paint(rendered: &str) -> String {
    let mut text = String::new();
    for line in rendered.lines() {
        let painted = if let Some(rest) = line.strip_prefix("error:") {
            format!("\u{1b}[1;31merror:\u{1b}[0m{rest}")
        } else if let Some(rest) = line.strip_prefix("  try  ") {
            format!("  \u{1b}[32mtry\u{1b}[0m  {rest}")
        } else {
            line.to_owned()
        };
        text.push_str(&painted);
        text.push('\n');
    }
    text
}

fn lock(sink: &Sink) -> std::sync::MutexGuard<'_, Box<dyn Write + Send>> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stdout_failed(error: io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::new(&codes::READER_GONE, "the reader of the output has gone");
    }
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => &codes::NO_SPACE,
        _ => &codes::OUTPUT_FAILED,
    };
    CliError::new(code, "cannot write to the standard output").caused_by(&error)
}

/// Columns and rows of a terminal; those of old where it does not say.
pub fn window(terminal: impl AsFd) -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(terminal).ok();
    let of = |told: fn(&Winsize) -> u16, usual| {
        size.as_ref().map(|size| usize::from(told(size))).filter(|n| *n > 0).unwrap_or(usual)
    };
    (of(|size| size.ws_col, 80), of(|size| size.ws_row, 24))
}

/// [`printable`] line by line.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// [`printable`] for names, which are any bytes: those that are not UTF-8 are written `\xNN`.
pub fn printable_name(name: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        shown.push_str(&printable(chunk.valid()));
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

/// `text` as one word of a shell, quoted where that is needed.
pub fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if text.contains(is_hidden) {
        // A terminal must not see them, and a shell must: each byte of them as bash, zsh and ksh write it.
        let escaped = |c: char| match c {
            '\\' | '\'' => format!("\\{c}"),
            c if is_hidden(c) => {
                c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect()
            }
            c => c.to_string(),
        };
        return format!("$'{}'", text.chars().map(escaped).collect::<String>());
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The same for a path.
pub fn quoted_path(path: &Path) -> String {
    shell_quoted(&path.display().to_string())
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 task`, `31,204 tasks`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{} {many}", count(number)),
    }
}

/// `1 file`, `31,204 files`.
pub fn files(number: u64) -> String {
    counted(number, "file", "files")
}

/// `1 task`, `1,204 tasks`.
pub fn tasks(number: usize) -> String {
    counted(number as u64, "task", "tasks")
}

/// `3 things missing`.
pub fn missing(number: u64) -> String {
    counted(number, "thing missing", "things missing")
}

/// `9.2/13.0 GiB`: the second unit serves both where it can.
pub fn size_of(part: u64, whole: u64) -> String {
    let (part, whole) = (ByteSize(part).to_string(), ByteSize(whole).to_string());
    match (part.split_once(' '), whole.split_once(' ')) {
        (Some((number, unit)), Some((_, whole_unit))) if unit == whole_unit => {
            format!("{number}/{whole}")
        }
        _ => format!("{part}/{whole}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_never_obeyed() {
        assert_eq!(printable_name("größe".as_bytes()), "größe");
        assert_eq!(printable_name(b"a\x1b[31m\xffb\n"), "a\\u{1b}[31m\\xffb\\n");
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(shell_quoted("/srv/dfs-1"), "/srv/dfs-1");
        assert_eq!(shell_quoted("e\u{1b}[31mit's\n"), r"$'e\x1b[31mit\'s\x0a'");
        assert_eq!(shell_quoted("/srv/my dfs"), "'/srv/my dfs'");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
        assert_eq!(shell_quoted(""), "''");
        assert_eq!(shell_quoted("http://h/?a=1&b"), "'http://h/?a=1&b'");
    }

    #[test]
    fn numbers_read_easily() {
        assert_eq!(count(31204), "31,204");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(size_of(9 << 30, 13 << 30), "9.0/13.0 GiB");
        assert_eq!(size_of(5 << 20, 1 << 30), "5.0 MiB/1.0 GiB");
    }
}
