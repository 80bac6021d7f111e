//! Arms of an A/B test beside each other: means, intervals, differences, and whether these are more than chance.

use dfs_model::ByteSize;
use dfs_model::Measure;
use dfs_model::statistics::{
    FEW, Interval, Mean, Sketch, difference_of_means, difference_of_shares,
};
use serde_json::{Value, json};

use super::words::ms;
use crate::backend::swarm::SwarmArm;
use crate::output::table::{Align, Table};
use crate::output::{Record, counted, printable};

/// The arms of several schedulers, those of one name and strategy as one.
pub fn together(arms: Vec<SwarmArm>) -> Vec<SwarmArm> {
    let mut all: Vec<SwarmArm> = Vec::new();
    for arm in arms {
        let same =
            |known: &&mut SwarmArm| (&known.name, &known.strategy) == (&arm.name, &arm.strategy);
        match all.iter_mut().find(same) {
            Some(known) => add(known, arm),
            None => all.push(arm),
        }
    }
    all
}

fn add(known: &mut SwarmArm, arm: SwarmArm) {
    known.tasks = known.tasks.saturating_add(arm.tasks);
    for (measure, mean, sketch) in arm.series {
        match known.series.iter_mut().find(|(of, ..)| *of == measure) {
            Some((_, all, distribution)) => {
                *all = all.and(mean);
                distribution.add(&sketch);
            }
            None => known.series.push((measure, mean, sketch)),
        }
    }
}

/// Arms, and the one that the others are compared with.
pub struct Compared<'a> {
    /// All of them.
    pub arms: &'a [SwarmArm],
    /// The place of the one among them.
    pub base: usize,
}

impl<'a> Compared<'a> {
    /// The one that the others are compared with, then the others.
    pub fn each(&self) -> impl Iterator<Item = One<'a>> + '_ {
        let base = &self.arms[self.base];
        let others = self.arms.iter().enumerate().filter(|(at, _)| *at != self.base);
        let others = others.map(move |(_, arm)| One { arm, base: Some(base) });
        std::iter::once(One { arm: base, base: None }).chain(others)
    }
}

/// One arm, and the one it is compared with.
pub struct One<'a> {
    arm: &'a SwarmArm,
    base: Option<&'a SwarmArm>,
}

/// What can be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// An arm has results of too few URLs: so many.
    TooFew(u64),
    /// It may be chance.
    None(Interval),
    /// It is more than chance.
    Differs(Interval),
}

fn series(arm: &SwarmArm, measure: Measure) -> (Mean, Option<&Sketch>) {
    let found = arm.series.iter().find(|(of, ..)| *of == measure);
    found.map_or((Mean::default(), None), |(_, mean, sketch)| (*mean, Some(sketch)))
}

fn interval(measure: Measure, mean: &Mean) -> Option<Interval> {
    match measure {
        Measure::Failed => mean.interval_of_share(),
        _ => mean.interval(),
    }
}

fn verdict(measure: Measure, mean: &Mean, base: &Mean) -> Verdict {
    let fewest = mean.clusters.min(base.clusters);
    let difference = match measure {
        Measure::Failed => difference_of_shares(mean, base),
        _ => difference_of_means(mean, base),
    };
    match difference.filter(|_| fewest >= FEW) {
        None => Verdict::TooFew(fewest),
        Some(difference) if difference.has_zero() => Verdict::None(difference),
        Some(difference) => Verdict::Differs(difference),
    }
}

/// For people.
pub fn render(compared: &Compared<'_>) -> String {
    let mut heads = Table::new(&[
        ("ARM", Align::Left),
        ("STRATEGY", Align::Left),
        ("SHARE", Align::Right),
        ("URLS", Align::Right),
        ("RESULTS", Align::Right),
    ]);
    for One { arm, .. } in compared.each() {
        let (results, _) = series(arm, Measure::Failed);
        heads.row(vec![
            arm.name.clone(),
            arm.strategy.clone(),
            percent(arm.share),
            results.clusters.to_string(),
            results.count.to_string(),
        ]);
    }
    let against = format!("LESS {}", printable(&compared.arms[compared.base].name));
    let mut results = Table::new(&[
        ("RESULT", Align::Left),
        ("ARM", Align::Left),
        ("URLS", Align::Right),
        ("N", Align::Right),
        ("MEAN", Align::Right),
        ("95 %", Align::Left),
        ("MEDIAN", Align::Right),
        ("P95", Align::Right),
        (&against, Align::Left),
    ]);
    for measure in Measure::ALL {
        for (at, one) in compared.each().enumerate() {
            let name = if at == 0 { words(measure) } else { "" };
            results.row(row(name, measure, &one));
        }
    }
    let few = counted(FEW, "URL", "URLs");
    let note = format!("of arms with fewer than {few} no difference is told");
    format!("{}\n\n{}\n\n{note}", heads.render(), results.render())
}

fn row(name: &str, measure: Measure, one: &One<'_>) -> Vec<String> {
    let (mean, sketch) = series(one.arm, measure);
    let none = || "-".to_owned();
    let shown = |value: f64| amount(measure, value);
    let range = |range: Interval| format!("{} to {}", shown(range.low.max(0.0)), shown(range.high));
    let quantile = |share| sketch.and_then(|sketch| sketch.quantile(share));
    let verdict = one.base.map(|base| verdict(measure, &mean, &series(base, measure).0));
    vec![
        name.to_owned(),
        printable(&one.arm.name),
        mean.clusters.to_string(),
        mean.count.to_string(),
        if mean.count == 0 { none() } else { shown(mean.mean) },
        interval(measure, &mean).map_or_else(none, range),
        quantile(0.5).map_or_else(none, shown),
        quantile(0.95).map_or_else(none, shown),
        verdict.map_or_else(String::new, |verdict| said(measure, verdict)),
    ]
}

fn said(measure: Measure, verdict: Verdict) -> String {
    let range = |range: Interval| {
        format!("{} to {}", signed(measure, range.low), signed(measure, range.high))
    };
    match verdict {
        Verdict::TooFew(urls) => format!("too few: {urls} of {FEW} URLs"),
        Verdict::None(difference) => format!("no difference seen ({})", range(difference)),
        Verdict::Differs(difference) => format!("differs: {}", range(difference)),
    }
}

fn words(measure: Measure) -> &'static str {
    match measure {
        Measure::Completion => "download",
        Measure::Source => "from source",
        Measure::Crossed => "between IDCs",
        Measure::Failed => "gave up",
        Measure::Blocked => "blocked read",
    }
}

fn signed(measure: Measure, value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "+" };
    format!("{sign}{}", amount(measure, value.abs()))
}

fn amount(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Completion => ms(value.round() as u64),
        Measure::Source | Measure::Crossed => ByteSize(value.round() as u64).to_string(),
        Measure::Failed => percent(value),
        Measure::Blocked if value < 10_000.0 => format!("{:.1} ms", value / 1000.0),
        Measure::Blocked => ms((value / 1000.0).round() as u64),
    }
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

impl Record for One<'_> {
    fn json(&self) -> Value {
        let results = Measure::ALL.map(|measure| (key(measure).to_owned(), self.result(measure)));
        json!({
            "arm": self.arm.name,
            "strategy": self.arm.strategy,
            "share": self.arm.share,
            "tasks": self.arm.tasks,
            "against": self.base.map(|base| &base.name),
            "results": Value::Object(results.into_iter().collect()),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.arm.name.clone().into_bytes()
    }
}

impl One<'_> {
    fn result(&self, measure: Measure) -> Value {
        let (mean, sketch) = series(self.arm, measure);
        let range = interval(measure, &mean);
        let mut object = json!({
            "urls": mean.clusters,
            "n": mean.count,
            "mean": (mean.count > 0).then_some(mean.mean),
            "low": range.map(|range| range.low),
            "high": range.map(|range| range.high),
        });
        if measure.has_distribution() {
            let quantile = |share| sketch.and_then(|sketch| sketch.quantile(share));
            object["median"] = quantile(0.5).into();
            object["p95"] = quantile(0.95).into();
        }
        if let Some(base) = self.base {
            let (base, _) = series(base, measure);
            let (range, is_significant) = match verdict(measure, &mean, &base) {
                Verdict::TooFew(_) => (None, None),
                Verdict::None(range) => (Some(range), Some(false)),
                Verdict::Differs(range) => (Some(range), Some(true)),
            };
            object["difference"] = json!({
                "mean": (mean.count > 0 && base.count > 0).then_some(mean.mean - base.mean),
                "low": range.map(|range| range.low),
                "high": range.map(|range| range.high),
                "significant": is_significant,
            });
        }
        object
    }
}

fn key(measure: Measure) -> &'static str {
    match measure {
        Measure::Completion => "completion_ms",
        Measure::Source => "source_bytes",
        Measure::Crossed => "crossed_bytes",
        Measure::Failed => "failed",
        Measure::Blocked => "blocked_us",
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::Measure;
    use dfs_model::statistics::{Cluster, Moments};

    use super::*;

    /// An arm of so many tasks with two downloads each, about so long.
    fn arm(name: &str, tasks: u32, about_ms: f64) -> SwarmArm {
        let (mut completion, mut failed) = (Moments::default(), Moments::default());
        let mut sketch = Sketch::default();
        for task in 0..tasks {
            let (mut own, mut gave_up) = (Cluster::default(), Cluster::default());
            for host in 0..2 {
                let took = about_ms + f64::from(task % 5) * 10.0 + f64::from(host);
                completion.see(&mut own, took);
                sketch.see(took);
                failed.see(&mut gave_up, 0.0);
            }
        }
        SwarmArm {
            name: name.into(),
            strategy: "swarm".into(),
            share: 0.125,
            tasks: tasks.into(),
            series: vec![
                (Measure::Completion, completion.mean(), sketch),
                (Measure::Failed, failed.mean(), Sketch::default()),
            ],
        }
    }

    fn verdict_of(arms: &[SwarmArm]) -> Value {
        let compared = Compared { arms, base: 1 };
        let other = compared.each().nth(1).unwrap().json();
        other["results"]["completion_ms"]["difference"]["significant"].clone()
    }

    #[test]
    fn a_difference_is_told_where_it_is_more_than_chance_and_of_enough_tasks() {
        assert_eq!(verdict_of(&[arm("a", 20, 500.0), arm("b", 20, 400.0)]), true);
        assert_eq!(verdict_of(&[arm("a", 20, 401.0), arm("b", 20, 400.0)]), false);
        assert_eq!(verdict_of(&[arm("a", 9, 500.0), arm("b", 20, 400.0)]), Value::Null);
        let page = |arms: &[SwarmArm]| render(&Compared { arms, base: 1 });
        let few = page(&[arm("a", 9, 500.0), arm("b", 20, 400.0)]);
        assert!(few.contains("too few: 9 of 10 URLs"), "{few}");
        let differs = page(&[arm("a", 20, 500.0), arm("b", 20, 400.0)]);
        assert!(differs.contains("differs: +"), "{differs}");
        assert!(differs.contains("12.5 %") && differs.contains("LESS b"), "{differs}");
        let same = page(&[arm("a", 20, 401.0), arm("b", 20, 400.0)]);
        assert!(same.contains("no difference seen (-"), "{same}");
    }

    #[test]
    fn arms_of_several_schedulers_are_one_where_they_are_the_same() {
        let parts = vec![arm("a", 12, 400.0), arm("b", 3, 1.0), arm("a", 8, 500.0)];
        let mut other = arm("a", 1, 1.0);
        other.strategy = "random".into();
        let all = together([parts, vec![other]].concat());
        let names: Vec<_> = all.iter().map(|arm| (&*arm.name, arm.tasks)).collect();
        assert_eq!(names, [("a", 20), ("b", 3), ("a", 1)]);
        let (mean, sketch) = series(&all[0], Measure::Completion);
        assert_eq!((mean.clusters, mean.count), (20, 40));
        let median = sketch.and_then(|sketch| sketch.quantile(0.5)).unwrap();
        assert!(mean.mean > 440.0 && mean.mean < 480.0 && median < 500.0);
    }
}
