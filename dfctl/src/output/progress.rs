//! How a transfer goes, on stderr: a bar, lines, or JSON events; and why, when nothing moves.
//!
//! [`Meter`] is pure: it is told what happened when, and says what to show. The rest draws.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use dfs_model::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::ledger::shares;
use super::records::ledger_json;
use super::when::{countdown, rough};
use super::{Output, printable, size_of};
use crate::backend::Ledger;

/// Standing still for this long is worth a word.
const STANDSTILL: Duration = Duration::from_millis(900);
/// The rate shown is that of the last seconds.
const WINDOW: Duration = Duration::from_secs(4);
const PLAIN_EVERY: Duration = Duration::from_secs(3);
const JSON_EVERY: Duration = Duration::from_secs(1);
const BAR_EVERY: Duration = Duration::from_millis(100);

/// How often a [`Progress`] wants to be asked to draw.
pub const TICK: Duration = BAR_EVERY;

/// The `--progress` flag.
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
pub enum Mode {
    /// A bar on a terminal, else nothing.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// A line every few seconds.
    Plain,
    /// One JSON object a line, every second.
    Json,
    /// Nothing.
    None,
}

/// What is known of a transfer. Times count from its beginning.
#[derive(Debug, Clone)]
pub struct Meter {
    name: String,
    total: Option<u64>,
    done: u64,
    /// Of the files that are through.
    settled: Ledger,
    /// Of those under way.
    running: BTreeMap<u64, Ledger>,
    waiting_for: Option<String>,
    last_move: Duration,
    stood: Duration,
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// A transfer of `total` bytes, of which `done` are here already.
    pub fn new(name: &str, total: Option<u64>, done: u64) -> Self {
        Self {
            name: printable(name),
            total,
            done,
            settled: Ledger::default(),
            running: BTreeMap::new(),
            waiting_for: None,
            last_move: Duration::ZERO,
            stood: Duration::ZERO,
            samples: VecDeque::from([(Duration::ZERO, done)]),
        }
    }

    /// Bytes came.
    pub fn moved(&mut self, bytes: u64, now: Duration) {
        let still = now.saturating_sub(self.last_move);
        // The wait for the first byte is a stage of its own.
        if still >= STANDSTILL && self.last_move > Duration::ZERO {
            self.stood += still;
        }
        self.done = self.done.saturating_add(bytes);
        self.last_move = now;
        self.waiting_for = None;
        if self.samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= BAR_EVERY) {
            self.samples.push_back((now, self.done));
        }
        while self.samples.len() > 2
            && self.samples.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// The backend told how file `file` goes.
    pub fn heard(&mut self, file: u64, ledger: Ledger, waiting_for: Option<String>) {
        self.running.insert(file, ledger);
        self.waiting_for = waiting_for;
    }

    /// File `file` is through.
    pub fn settle(&mut self, file: u64, ledger: &Ledger) {
        self.running.remove(&file);
        self.settled.add(ledger);
    }

    /// Where all bytes so far came from.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = self.settled.clone();
        self.running.values().for_each(|running| ledger.add(running));
        ledger
    }

    /// Bytes a second over the last seconds.
    pub fn rate(&self, now: Duration) -> u64 {
        let Some((since, then)) = self.samples.front() else { return 0 };
        let elapsed = now.saturating_sub(*since).as_secs_f64();
        let bytes = self.done.saturating_sub(*then);
        if elapsed < 0.001 { 0 } else { (bytes as f64 / elapsed) as u64 }
    }

    /// Time left at this rate.
    pub fn eta(&self, now: Duration) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.done);
        let rate = self.rate(now);
        (rate > 0).then(|| Duration::from_secs(left / rate))
    }

    /// Since when nothing moves, and why: within a second of standing still.
    pub fn standstill(&self, now: Duration) -> Option<(Duration, String)> {
        let still = now.saturating_sub(self.last_move);
        if still < STANDSTILL || self.total.is_some_and(|total| self.done >= total) {
            return None;
        }
        let why = match &self.waiting_for {
            Some(why) => printable(why),
            None => "nothing arrives, and no reason was given".to_owned(),
        };
        Some((still, why))
    }

    /// Time spent standing still so far.
    pub fn stood(&self) -> Duration {
        self.stood
    }

    /// `71 %  9.2/13.0 GiB  812.0 MiB/s  0:05  peers 88 % seed 12 %`.
    pub fn figures(&self, now: Duration) -> String {
        let mut parts = Vec::new();
        match self.total {
            Some(total) => {
                let percent = (u128::from(self.done) * 100).checked_div(u128::from(total));
                parts.push(format!("{:>3} %", percent.unwrap_or(100)));
                parts.push(size_of(self.done, total));
            }
            None => parts.push(ByteSize(self.done).to_string()),
        }
        parts.push(format!("{}/s", ByteSize(self.rate(now))));
        parts.extend(self.eta(now).map(countdown));
        let shares = shares(&self.ledger());
        if !shares.is_empty() {
            parts.push(shares);
        }
        parts.join("  ")
    }

    fn waiting_line(&self, now: Duration) -> Option<String> {
        let (still, why) = self.standstill(now)?;
        Some(format!("  … waiting {}: {why}", rough(still)))
    }

    fn event(&self, now: Duration) -> serde_json::Value {
        json!({
            "event": "progress",
            "name": self.name,
            "bytes": self.done,
            "total": self.total,
            "rate": self.rate(now),
            "eta_ms": self.eta(now).map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
            "waiting_ms": self.standstill(now).map(|(still, _)| u64::try_from(still.as_millis()).unwrap_or(u64::MAX)),
            "waiting_for": self.standstill(now).map(|(_, why)| why),
            "ledger": ledger_json(&self.ledger()),
        })
    }
}

enum Display {
    Bar(ProgressBar),
    Plain,
    Json,
    None,
}

/// A meter that is shown.
pub struct Progress<'a> {
    meter: Meter,
    output: &'a Output,
    display: Display,
    started: Instant,
    drawn: Option<Duration>,
}

impl<'a> Progress<'a> {
    /// Shows `meter` as `mode` says.
    pub fn new(output: &'a Output, mode: Mode, meter: Meter) -> Self {
        let quiet = output.verbosity == super::Verbosity::Quiet;
        let display = match mode {
            Mode::Plain => Display::Plain,
            Mode::Json => Display::Json,
            Mode::None => Display::None,
            Mode::Auto if quiet || output.stderr_width.is_none() => Display::None,
            Mode::Auto | Mode::Bar => {
                let bar = ProgressBar::with_draw_target(meter.total, ProgressDrawTarget::stderr());
                bar.set_prefix(meter.name.clone());
                bar.set_style(style(meter.total.is_some()));
                Display::Bar(bar)
            }
        };
        Self { meter, output, display, started: Instant::now(), drawn: None }
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The figures.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Bytes came.
    pub fn moved(&mut self, bytes: u64) {
        let now = self.now();
        self.meter.moved(bytes, now);
        self.draw(now);
    }

    /// The backend told how file `file` goes.
    pub fn heard(&mut self, file: u64, ledger: Ledger, waiting_for: Option<String>) {
        self.meter.heard(file, ledger, waiting_for);
        self.draw(self.now());
    }

    /// File `file` is through.
    pub fn settle(&mut self, file: u64, ledger: &Ledger) {
        self.meter.settle(file, ledger);
    }

    /// Time passed.
    pub fn tick(&mut self) {
        self.draw(self.now());
    }

    /// Takes the bar away; the caller says how it ended.
    pub fn finish(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
        if let Display::Json = self.display {
            let event = self.meter.event(self.now());
            self.output.say(&event.to_string());
        }
        self.display = Display::None;
    }

    fn draw(&mut self, now: Duration) {
        let every = match self.display {
            Display::Bar(_) => BAR_EVERY,
            Display::Plain => PLAIN_EVERY,
            Display::Json => JSON_EVERY,
            Display::None => return,
        };
        if now.saturating_sub(self.drawn.unwrap_or_default()) < every {
            return;
        }
        self.drawn = Some(now);
        match &self.display {
            Display::Bar(bar) => draw_bar(bar, &self.meter, now),
            Display::Plain => {
                let line = format!("{}  {}", self.meter.name, self.meter.figures(now));
                self.output.say(&line);
                if let Some(line) = self.meter.waiting_line(now) {
                    self.output.say(&line);
                }
            }
            Display::Json => self.output.say(&self.meter.event(now).to_string()),
            Display::None => {}
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// A question that is not answered yet: shown on a terminal once it takes a second.
pub struct Waiting {
    started: Instant,
    shown: Option<ProgressBar>,
    wanted: bool,
}

impl Waiting {
    /// From now on.
    pub fn new(output: &Output, mode: Mode) -> Self {
        let quiet = output.verbosity == super::Verbosity::Quiet;
        let wanted = match mode {
            Mode::Auto => !quiet && output.stderr_width.is_some(),
            Mode::Bar => true,
            Mode::Plain | Mode::Json | Mode::None => false,
        };
        Self { started: Instant::now(), shown: None, wanted }
    }

    /// Time passed.
    pub fn tick(&mut self) {
        let waited = self.started.elapsed();
        if !self.wanted || waited < STANDSTILL {
            return;
        }
        let bar = self.shown.get_or_insert_with(|| {
            let target = ProgressDrawTarget::stderr();
            ProgressBar::with_draw_target(None, target).with_style(style(false))
        });
        bar.set_message(format!("waiting for an answer: {}", rough(waited)));
        bar.tick();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn draw_bar(bar: &ProgressBar, meter: &Meter, now: Duration) {
    let figures = meter.figures(now);
    bar.set_message(match meter.waiting_line(now) {
        Some(line) => format!("{figures}\n{line}"),
        None => figures,
    });
    bar.set_position(meter.done);
    bar.tick();
}

fn style(known_length: bool) -> ProgressStyle {
    let template = match known_length {
        // Not as wide as the terminal: the echo of Ctrl-C must not wrap.
        true => "{prefix}  {bar:30}  {msg}",
        false => "{prefix}  {spinner}  {msg}",
    };
    ProgressStyle::with_template(template)
        .expect("the templates above are well-formed")
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn figures_say_how_far_how_fast_how_long_and_from_where() {
        let mut meter = Meter::new("model", Some(100 << 20), 0);
        for second in 1..=5 {
            meter.moved(10 << 20, S * second);
        }
        meter.heard(0, Ledger { cache: 1, source: 3, ..Ledger::default() }, None);
        assert_eq!(
            meter.figures(S * 5),
            " 50 %  50.0/100.0 MiB  10.0 MiB/s  0:05  cache 25 % source 75 %"
        );
    }

    #[test]
    fn what_a_part_file_held_is_progress_but_not_speed() {
        let mut meter = Meter::new("x", Some(100 << 20), 50 << 20);
        meter.moved(1 << 20, S);
        assert_eq!(meter.figures(S), " 51 %  51.0/100.0 MiB  1.0 MiB/s  0:49");
    }

    #[test]
    fn a_standstill_is_explained_within_a_second_and_no_longer_than_it_lasts() {
        let mut meter = Meter::new("x", Some(10), 0);
        meter.moved(1, S);
        meter.heard(0, Ledger::default(), Some("seed answered 429\u{7}".into()));
        assert_eq!(meter.standstill(S + S / 2), None);
        let line = meter.waiting_line(S * 2).unwrap();
        assert_eq!(line, "  … waiting 1.0 s: seed answered 429\\u{7}");
        meter.moved(1, S * 3);
        assert_eq!(meter.standstill(S * 3), None);
        assert_eq!(meter.stood(), S * 2);
        assert!(meter.waiting_line(S * 5).unwrap().contains("no reason was given"));
        meter.moved(8, S * 5);
        assert_eq!(meter.standstill(S * 60), None, "all is here");
    }

    #[test]
    fn nothing_and_unknown_lengths_are_shown_too() {
        assert_eq!(
            Meter::new("x", Some(0), 0).figures(S),
            "100 %  0 B/0 B  0 B/s".replace("0 B/0 B", "0/0 B")
        );
        assert_eq!(Meter::new("x", None, 5).figures(S), "5 B  0 B/s");
    }
}
