//! Runs as a picture: how far each was from the bound, and when its nodes were done.

use std::fmt::Write;

use crate::outcome::Outcome;

/// A run, to be drawn.
#[derive(Debug)]
pub struct Drawn {
    /// What stands beside it.
    pub label: String,
    /// The time that it is measured against, in seconds.
    pub bound: f64,
    /// What it came to.
    pub outcome: Outcome,
}

impl Drawn {
    fn ratio(&self) -> Option<f64> {
        self.outcome.last.map(|last| last / self.bound)
    }
}

const COLOURS: [&str; 8] =
    ["#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#ca8a04", "#0e7490", "#be123c", "#52525b"];

/// In pixels: the margin, one bar, and both pictures beside each other.
const MARGIN: f64 = 48.0;
const BAR: f64 = 26.0;
const LABELS: f64 = 190.0;
const BARS: f64 = 260.0;
const CURVES: f64 = 460.0;
const LEAST_HEIGHT: f64 = 260.0;

/// The picture, as SVG.
pub fn svg(runs: &[Drawn]) -> String {
    let height = (runs.len() as f64 * BAR).max(LEAST_HEIGHT);
    let (width, whole) = (LABELS + BARS + CURVES + 3.5 * MARGIN, height + 2.2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {whole:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#27272a\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    bars(&mut out, runs);
    curves(&mut out, runs, LABELS + BARS + 2.5 * MARGIN, height);
    out.push_str("</svg>\n");
    out
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let (x, y) = at;
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn bars(out: &mut String, runs: &[Drawn]) {
    let left = MARGIN / 2.0 + LABELS;
    let most = runs.iter().filter_map(Drawn::ratio).fold(1.0, f64::max);
    let to_x = |ratio: f64| left + ratio / most * BARS;
    text(out, (left, MARGIN - 16.0), "start", "time to the last node, as a multiple of the bound");
    for (at, run) in runs.iter().enumerate() {
        let top = MARGIN + at as f64 * BAR;
        text(out, (left - 8.0, top + 15.0), "end", &run.label);
        let Some(ratio) = run.ratio() else {
            text(out, (left + 6.0, top + 15.0), "start", "never");
            continue;
        };
        let (wide, fill) = (to_x(ratio) - left, colour(at));
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
            top + 3.0,
            BAR - 8.0
        );
        text(out, (left + wide + 5.0, top + 15.0), "start", &format!("{ratio:.3}"));
    }
    let end = MARGIN + runs.len() as f64 * BAR + 4.0;
    line(out, (to_x(1.0), MARGIN - 4.0), (to_x(1.0), end), "#27272a");
    text(out, (to_x(1.0), end + 14.0), "middle", "1");
}

fn curves(out: &mut String, runs: &[Drawn], left: f64, height: f64) {
    let ends = runs.iter().filter_map(|run| Some(run.outcome.done.last()? / run.bound));
    let most = ends.fold(1.0, f64::max);
    let bottom = MARGIN + height;
    let to_x = |ratio: f64| left + ratio / most * CURVES;
    let to_y = |share: f64| bottom - share * height;
    text(out, (left, MARGIN - 16.0), "start", "share of nodes that are done, by time ÷ bound");
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        line(out, (left, to_y(share)), (left + CURVES, to_y(share)), "#e4e4e7");
        text(out, (left - 6.0, to_y(share) + 4.0), "end", &format!("{:.0} %", share * 100.0));
    }
    let step = (most / 6.0).ceil().max(0.25);
    for mark in (0..).map(|mark| f64::from(mark) * step).take_while(|mark| *mark <= most) {
        line(out, (to_x(mark), bottom), (to_x(mark), bottom + 4.0), "#27272a");
        text(out, (to_x(mark), bottom + 16.0), "middle", &format!("{mark}"));
    }
    line(out, (left, bottom), (left + CURVES, bottom), "#27272a");
    for (at, run) in runs.iter().enumerate() {
        let count = run.outcome.done.len().max(1);
        let mut path = format!("M{:.1} {:.1}", to_x(0.0), to_y(0.0));
        for (done, time) in run.outcome.done.iter().enumerate() {
            // A few hundred steps are all that can be seen.
            if done % (count / 300 + 1) == 0 || done + 1 == count {
                let share = (done + 1) as f64 / count as f64;
                let _ = write!(path, "H{:.1}V{:.1}", to_x(time / run.bound), to_y(share));
            }
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>",
            colour(at)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bound;
    use crate::scenario::Scenario;
    use crate::strategy::Strategy;

    #[test]
    fn each_run_has_a_bar_and_a_curve() {
        let scenario = Scenario { nodes: 7, pieces: 8, ..Scenario::default() };
        let drawn = |strategy: Strategy| Drawn {
            label: format!("<{}>", strategy.name()),
            bound: bound::with_pieces(&scenario),
            outcome: strategy.run(&scenario, 1).unwrap(),
        };
        let svg = svg(&[Strategy::Swarm, Strategy::Tree].map(drawn));
        assert_eq!(svg.matches("<path").count(), 2);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("&lt;swarm>") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
