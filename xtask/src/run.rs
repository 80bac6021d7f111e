//! Running other programs: what was run and how it ended is always said.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why a command of this program did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// A program ended badly or could not be started.
    Program {
        /// What was run.
        line: String,
        /// How it ended.
        end: String,
    },
    /// Something else went wrong.
    Other(String),
    /// Something cannot be had here as it was asked for, which leaves what was to be done with it.
    LeftOut(String),
    /// Something must be installed first, by somebody who may.
    Missing {
        /// What is not there.
        what: String,
        /// The line to run.
        remedy: String,
    },
    /// Somebody asked it to stop.
    Interrupted,
}

impl From<dfs_tests::Failure> for Failure {
    fn from(failure: dfs_tests::Failure) -> Self {
        Self::Other(failure.to_string())
    }
}

impl Failure {
    /// 2 when the machine is not ready, 130 after an interrupt, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } => 2,
            Self::Interrupted => 130,
            Self::Program { .. } | Self::Other(_) | Self::LeftOut(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { line, end } => write!(f, "`{line}` {end}"),
            Self::Other(text) | Self::LeftOut(text) => f.write_str(text),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Missing { what, remedy } => {
                write!(
                    f,
                    "missing: {what}\n  install it as root, then try again:\n\n    {remedy}\n"
                )
            }
        }
    }
}

/// What went wrong with the file at `path`, for `map_err`.
pub fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Other(format!("{}: {error}", path.display()))
}

/// What `command` prints, once it has ended well; without the line's end.
pub fn said(command: &mut Command) -> Result<String, Failure> {
    let output = command.output();
    let output = output.map_err(|error| Failure::Other(format!("{}: {error}", line(command))))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Other(format!("{}: {}", line(command), said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs `command` on this terminal until it ends well.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let end = match command.status() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("could not be started: {error}"),
    };
    Err(Failure::Program { line: line(command), end })
}

/// Whether `command` can be started and ends well; what it prints is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words: Vec<_> = std::iter::once(program.file_name().unwrap_or_default())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}
