//! Rows: what a bench prints.

use serde_json::{Value, json};

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name among the goals, as in `P4.http.speed`.
    pub row: String,
    /// Who was measured.
    pub subject: &'static str,
    /// The median.
    pub value: f64,
    /// What one of it is.
    pub unit: &'static str,
    /// What we want, for our own rows.
    pub goal: Option<Goal>,
    /// How many runs the median is of.
    pub runs: usize,
}

/// What we want.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

impl Goal {
    fn number(self) -> f64 {
        match self {
            Self::AtLeast(number) | Self::AtMost(number) => number,
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

impl Row {
    /// As the goals want it: one object.
    pub fn json(&self) -> Value {
        json!({
            "row": self.row,
            "subject": self.subject,
            "value": (self.value * 1e4).round() / 1e4,
            "unit": self.unit,
            "goal": self.goal.map(Goal::number),
            "runs": self.runs,
        })
    }
}

/// All rows for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let value = if row.value >= 100.0 {
            format!("{:.0}", row.value)
        } else {
            format!("{:.2}", row.value)
        };
        let verdict = match row.goal {
            Some(goal) if goal.is_met(row.value) => format!("goal {}  met", goal.text()),
            Some(goal) => format!("goal {}", goal.text()),
            None => String::new(),
        };
        let line =
            format!("  {:<28} {:<15}{value:>10} {:<26} {verdict}", row.row, row.subject, row.unit);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The middle of some figures; of an even number, the mean of the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The figure that a share of them, the smallest first, does not exceed.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64) as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!((quantile(&[1.0, 2.0, 3.0], 0.5), quantile(&[1.0, 2.0], 1.0)), (2.0, 2.0));
        assert!(quantile(&[], 0.99).is_nan());
    }

    #[test]
    fn a_row_has_the_shape_of_the_goals() {
        let goal = Some(Goal::AtLeast(1.2));
        let row = Row {
            row: "P4".into(),
            subject: "dfs",
            value: 1.234_56,
            unit: "× curl",
            goal,
            runs: 3,
        };
        let expected = json!({"row": "P4", "subject": "dfs", "value": 1.2346, "unit": "× curl", "goal": 1.2, "runs": 3});
        assert_eq!(row.json(), expected);
        assert!(table(&[row]).contains("met"));
    }
}
