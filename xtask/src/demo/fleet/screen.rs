//! What somebody sees who watches: a line for each machine that changes in place, and the story above them. Where nobody
//! watches, the story alone.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::units::time;

/// How often a line that waits moves.
const TICK: Duration = Duration::from_millis(100);

/// The screen; its lines go when this is dropped.
pub struct Screen {
    lines: MultiProgress,
    is_watched: bool,
}

/// The line of a machine.
#[derive(Debug, Clone)]
pub struct Line(ProgressBar);

impl Screen {
    /// On stderr: what programs read goes to stdout.
    pub fn new() -> Self {
        let is_watched = stderr().is_terminal();
        let target = match is_watched {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self { lines: MultiProgress::with_draw_target(target), is_watched }
    }

    /// Begins the next part of the story.
    pub fn act(&self, text: &str) {
        self.tell(&format!("\n{text}"));
    }

    /// Tells what came of something, and how long it took.
    pub fn done(&self, text: &str, took: Option<Duration>) {
        let took = took.map(time).unwrap_or_default();
        self.tell(format!("  {text:<72} {took:>8}").trim_end());
    }

    fn tell(&self, text: &str) {
        if !self.is_watched {
            eprintln!("{text}");
            return;
        }
        // A terminal that is gone is told nothing.
        let _ = self.lines.println(text);
    }

    /// A line for a machine.
    pub fn line(&self, name: &str) -> Line {
        let style = ProgressStyle::with_template("  {spinner} {prefix:<8} {wide_msg}");
        let bar = ProgressBar::new_spinner().with_prefix(name.to_owned());
        let bar = self
            .lines
            .add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())));
        bar.enable_steady_tick(TICK);
        Line(bar)
    }
}

impl Line {
    /// What the machine does now.
    pub fn says(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no clearing.
        let _ = self.lines.clear();
    }
}
