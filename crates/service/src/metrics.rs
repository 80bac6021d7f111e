//! What a process counts: declared once, in one table per process, with name, unit and meaning.
//!
//! [`metrics!`](crate::metrics!) makes from such a table the struct of handles that the code
//! updates and the [`Metric`] descriptions that the reference is generated from, so the two cannot
//! differ. Label values must come from a small fixed set: every one is kept for ever.

use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric as Registrable, Registry, Unit as WireUnit};

mod connections;
mod instruments;
mod process;

pub use connections::ConnectionMetrics;
pub use instruments::{Counter, Gauge, Histogram, Instrument, Labelled};
pub use process::ProcessMetrics;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in fixed buckets.
    Histogram,
}

/// What one step of a metric is; all but a plain count become part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// One row of a process's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Which process or room counts.
    pub prefix: &'static str,
    /// What is counted.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What one step is.
    pub unit: Unit,
    /// Keys of its labels.
    pub labels: &'static [&'static str],
    /// What it means, as written in the table.
    pub meaning: &'static str,
}

impl Metric {
    /// The name as it is exposed.
    pub fn exposed_name(&self) -> String {
        let unit = match self.unit {
            Unit::Count => "",
            Unit::Bytes => "_bytes",
            Unit::Seconds => "_seconds",
        };
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}_{}{unit}{suffix}", self.prefix, self.name)
    }

    fn help(&self) -> &'static str {
        self.meaning.trim().trim_end_matches('.')
    }
}

/// All metrics of a process, ready to be scraped.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
    table: Vec<Metric>,
    samplers: Vec<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics of this process, with those that every process has.
    pub fn new() -> Self {
        let mut metrics = Self::default();
        ProcessMetrics::install(&mut metrics);
        ConnectionMetrics::install(&mut metrics);
        metrics
    }

    /// Calls `sample` before every scrape, to bring gauges up to date. It must not block.
    pub fn before_scrape(&mut self, sample: impl Fn() + Send + Sync + 'static) {
        self.samplers.push(Box::new(sample));
    }

    /// The current numbers in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        for sample in &self.samplers {
            sample();
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }

    /// The rows registered so far.
    pub fn table(&self) -> &[Metric] {
        &self.table
    }

    /// Makes the instrument of one row; [`metrics!`](crate::metrics!) calls this.
    ///
    /// # Panics
    /// If two rows have one name: a mistake in the tables.
    pub fn register<I: Registrable + Clone>(&mut self, row: &Metric, instrument: I) -> I {
        let name = row.exposed_name();
        let taken = self.table.iter().any(|other| other.exposed_name() == name);
        assert!(!taken, "two metrics are named {name}");
        self.table.push(*row);
        let short = format!("{}_{}", row.prefix, row.name);
        let handle = instrument.clone();
        match row.unit {
            Unit::Count => self.registry.register(short, row.help(), instrument),
            Unit::Bytes => {
                self.registry.register_with_unit(short, row.help(), WireUnit::Bytes, instrument);
            }
            Unit::Seconds => {
                self.registry.register_with_unit(short, row.help(), WireUnit::Seconds, instrument);
            }
        }
        handle
    }
}

/// The reference page of some tables, as a Markdown table sorted by name.
pub fn reference(tables: &[&[Metric]]) -> String {
    let mut rows: Vec<_> = tables.iter().copied().flatten().collect();
    rows.sort_by_key(|row| row.exposed_name());
    let mut page = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for row in rows {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = row.labels.join(", ");
        let name = row.exposed_name();
        writeln!(page, "| `{name}` | {kind} | {labels} | {} |", row.help())
            .expect("writing to a String does not fail");
    }
    page
}

/// Declares the metrics of a process: a struct of handles, its table, and its registration.
///
/// ```
/// dfs_service::metrics! {
///     /// What the mount counts.
///     pub struct MountMetrics("dfs_fuse") {
///         /// Bytes handed to readers.
///         read: Counter[Bytes],
///         /// Bytes obtained, by where they came from.
///         obtained: Counter[Bytes] by ("origin"),
///         /// Time from a read's arrival to its reply.
///         read_time: Histogram[Seconds],
///     }
/// }
/// let mut all = dfs_service::metrics::Metrics::new();
/// let mount = MountMetrics::register(&mut all);
/// mount.read.inc_by(4096);
/// mount.obtained.of(["source"]).inc_by(4096);
/// assert!(all.encode().contains("dfs_fuse_read_bytes_total 4096"));
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $name:ident($prefix:literal) {
            $(
                $(#[doc = $meaning:literal])+
                $field:ident: $kind:ident[$unit:ident] $(by ($($label:literal),+))?
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        $vis struct $name {
            $(
                $(#[doc = $meaning])+
                pub $field: $crate::metrics!(@type $kind $($($label),+)?),
            )+
        }

        impl $name {
            /// What is counted, for the reference.
            pub const TABLE: &'static [$crate::metrics::Metric] = &[
                $($crate::metrics::Metric {
                    prefix: $prefix,
                    name: stringify!($field),
                    kind: $crate::metrics::Kind::$kind,
                    unit: $crate::metrics::Unit::$unit,
                    labels: &[$($($label),+)?],
                    meaning: concat!($($meaning),+),
                }),+
            ];

            /// Adds these metrics to a process's own.
            pub fn register(metrics: &mut $crate::metrics::Metrics) -> Self {
                let mut rows = Self::TABLE.iter();
                $(
                    let row = rows.next().expect("the table has a row for each field");
                    let $field = metrics.register(
                        row,
                        $crate::metrics!(@make $kind row.unit $(, $($label),+)?),
                    );
                )+
                Self { $($field),+ }
            }
        }
    };
    (@type $kind:ident) => { $crate::metrics::$kind };
    (@type $kind:ident $($label:literal),+) => {
        $crate::metrics::Labelled<
            $crate::metrics::$kind,
            { <[&'static str]>::len(&[$($label),+]) },
        >
    };
    (@make $kind:ident $unit:expr) => {
        <$crate::metrics::$kind as $crate::metrics::Instrument>::create($unit)
    };
    (@make $kind:ident $unit:expr, $($label:literal),+) => {
        $crate::metrics::Labelled::create([$($label),+], $unit)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    metrics! {
        /// A table to try.
        struct Trial("dfs_trial") {
            /// Bytes seen.
            seen: Counter[Bytes] by ("origin", "codec"),
            /// Handles
            /// open now.
            open: Gauge[Count],
            /// How long it took.
            took: Histogram[Seconds],
        }
    }

    #[test]
    fn every_row_is_exposed_under_the_name_in_the_reference() {
        let mut metrics = Metrics::new();
        let trial = Trial::register(&mut metrics);
        trial.seen.of(["seed", "raw"]).inc_by(7);
        trial.open.set(3);
        trial.took.observe(0.25);
        let text = metrics.encode();
        assert!(
            text.contains(r#"dfs_trial_seen_bytes_total{origin="seed",codec="raw"} 7"#),
            "{text}"
        );
        assert!(text.contains("dfs_trial_open 3"), "{text}");
        let page = reference(&[metrics.table()]);
        for row in metrics.table() {
            let name = row.exposed_name();
            assert!(page.contains(&format!("`{name}`")), "{page}");
            assert!(text.contains(&name), "{name} in {text}");
        }
        assert!(page.contains("| `dfs_trial_open` | gauge |  | Handles open now |"), "{page}");
    }

    #[test]
    fn gauges_are_sampled_at_the_scrape() {
        let mut metrics = Metrics::default();
        let trial = Trial::register(&mut metrics);
        let open = trial.open.clone();
        metrics.before_scrape(move || {
            open.inc();
        });
        assert!(metrics.encode().contains("dfs_trial_open 1"));
        assert!(metrics.encode().contains("dfs_trial_open 2"));
    }

    #[test]
    #[should_panic(expected = "two metrics are named dfs_trial_seen_bytes_total")]
    fn a_name_is_given_once() {
        let mut metrics = Metrics::default();
        Trial::register(&mut metrics);
        Trial::register(&mut metrics);
    }
}
