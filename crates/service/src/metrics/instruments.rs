//! The kinds of metric there are, and how one is made for a unit.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Metric as Registrable;

use super::Unit;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// One number or distribution: a handle, cheap to clone, that all clones share.
pub trait Instrument: Registrable + Clone {
    /// A fresh one, measuring in `unit`.
    fn create(unit: Unit) -> Self;
}

impl Instrument for Counter {
    fn create(_unit: Unit) -> Self {
        Self::default()
    }
}

impl Instrument for Gauge {
    fn create(_unit: Unit) -> Self {
        Self::default()
    }
}

impl Instrument for Histogram {
    fn create(unit: Unit) -> Self {
        match unit {
            // 100 µs to 52 s.
            Unit::Seconds => Self::new(exponential_buckets(1e-4, 2.0, 20)),
            // 4 KiB to 1 GiB.
            Unit::Bytes => Self::new(exponential_buckets(4096.0, 4.0, 10)),
            // 1 to 1 048 576.
            Unit::Count => Self::new(exponential_buckets(1.0, 4.0, 11)),
        }
    }
}

type LabelSet<const N: usize> = [(&'static str, String); N];

/// One instrument for each combination of `N` label values.
#[derive(Debug, Clone)]
pub struct Labelled<I, const N: usize> {
    keys: [&'static str; N],
    family: Family<LabelSet<N>, I, Create<I>>,
}

/// Makes the instruments of a family.
#[derive(Debug, Clone)]
pub struct Create<I> {
    unit: Unit,
    make: fn(Unit) -> I,
}

impl<I: Instrument> MetricConstructor<I> for Create<I> {
    fn new_metric(&self) -> I {
        (self.make)(self.unit)
    }
}

impl<I: Instrument, const N: usize> Labelled<I, N> {
    /// A family with these label keys, measuring in `unit`.
    pub fn create(keys: [&'static str; N], unit: Unit) -> Self {
        let family = Family::new_with_constructor(Create { unit, make: I::create });
        Self { keys, family }
    }

    /// The instrument of these label values, in the order of the keys. Keep it where it is used
    /// often: finding it takes a lock.
    pub fn of(&self, values: [&str; N]) -> I {
        let mut keys = self.keys.iter();
        let labels =
            values.map(|value| (keys.next().copied().unwrap_or_default(), value.to_owned()));
        self.family.get_or_create_owned(&labels)
    }
}

impl<I: Instrument + TypedMetric, const N: usize> EncodeMetric for Labelled<I, N> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.family.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.family.metric_type()
    }
}
