//! `curl`, and what it was answered.

use std::fs;
use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;

use super::{Agent, Place, Running, until};

/// What `curl` was answered last.
pub struct Answer {
    /// What it ended with.
    pub exit: i32,
    pub status: u16,
    /// Names in lower case.
    pub head: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What it said of it.
    pub said: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks for `url` so that [`answered`] finds the answer at `out`.
pub fn command(words: &[&str], url: &str, out: &Path) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--path-as-is", "--globoff", "--max-time", "120"]);
    command.arg("--suppress-connect-headers");
    command.arg("--dump-header").arg(out.with_extension("head")).arg("--output").arg(out);
    command.args(words).arg(url);
    command
}

/// Asks for `url`.
pub fn curl(place: &Place, words: &[&str], url: &str) -> Answer {
    let out = place.path("answer");
    for left in [out.clone(), out.with_extension("head")] {
        let _ = fs::remove_file(left);
    }
    answered(Said::by(&mut command(words, url, &out)).unwrap(), &out)
}

/// What comes of an answer of more than `whole` bytes by far, whose agent is killed in the middle of it: it is broken, and not
/// short.
pub fn cut_off(command: Command, out: &Path, whole: u64, agent: &mut Agent) {
    let client = Running::start(command);
    let is_begun = || fs::metadata(out).is_ok_and(|file| file.len() > whole / 6);
    until("some of it has come", is_begun);
    agent.kill();
    let answer = answered(client.wait(), out);
    assert_eq!(answer.exit, 18, "curl calls it a partial file");
    assert!((answer.body.len() as u64) < whole);
}

/// The answer that was left at `out`.
pub fn answered(said: Said, out: &Path) -> Answer {
    let text = fs::read_to_string(out.with_extension("head")).unwrap_or_default();
    // Before the answer there may be others, which say that it comes.
    let last = text.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
    let mut lines = last.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let head = lines.filter_map(|line| line.split_once(':'));
    let head = head.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let (head, body) = (head.collect(), fs::read(out).unwrap_or_default());
    Answer { exit: said.code, status: status.unwrap_or(0), head, body, said: said.stderr }
}
