//! What an answering side knows of its tasks, put to use on one segment after the other.

use std::collections::HashMap;
use std::time::Instant;

use dfs_model::{GROUP_BYTES, Rate, TaskId};
use parking_lot::Mutex;

use super::choice::{Choice, Level, Plan};
use super::{Compression, compress};
use crate::wire::message::{Codec, Codecs, Segment};

/// Tasks remembered: all are forgotten, and learnt anew by a sample each, when there are more.
const TASKS: usize = 4096;

/// Whether the rate of the link is worth knowing for what comes next of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wire) enum Probe {
    Wanted,
    Useless,
}

/// Encodes segments. One for all connections of a server.
pub(in crate::wire) struct Encoder {
    compression: Compression,
    tasks: Mutex<HashMap<TaskId, Choice>>,
}

impl Encoder {
    /// One to which nothing is known.
    pub(in crate::wire) fn new(compression: Compression) -> Self {
        Self { compression, tasks: Mutex::default() }
    }

    /// A segment as it is to travel to a child that accepts these encodings, over a link of this rate where it is
    /// known. Blocks.
    pub(in crate::wire) fn encode(
        &self,
        task: &TaskId,
        accepted: Codecs,
        rate: Option<Rate>,
        mut segment: Segment,
    ) -> (Segment, Probe) {
        let is_asked = self.compression == Compression::Auto && accepted.has(Codec::Zstd);
        if !is_asked || segment.codec != Codec::Raw || segment.payload.is_empty() {
            return (segment, Probe::Useless);
        }
        let groups = u64::from(segment.count);
        let (mut plan, mut may_pay) =
            self.with(task, |choice| (choice.plan(groups, rate), choice.may_pay()));
        if plan == Plan::Sample {
            let sample = &segment.payload[..segment.payload.len().min(GROUP_BYTES as usize)];
            let began = Instant::now();
            let encoded = compress(sample, Level::QUICKEST.number()).map(|encoded| encoded.len());
            let took = began.elapsed();
            (plan, may_pay) = self.with(task, |choice| {
                choice.sampled(sample.len(), encoded, took);
                (choice.decide(rate), choice.may_pay())
            });
        }
        if let Plan::Zstd(level) = plan {
            let content = segment.payload.len();
            let began = Instant::now();
            let encoded = compress(&segment.payload, level.number());
            let (length, took) = (encoded.as_ref().map(|encoded| encoded.len()), began.elapsed());
            may_pay = self.with(task, |choice| {
                choice.sent(level, content, length, took);
                choice.may_pay()
            });
            if let Some(payload) = encoded {
                (segment.codec, segment.payload) = (Codec::Zstd, payload);
            }
        }
        (segment, if may_pay { Probe::Wanted } else { Probe::Useless })
    }

    fn with<T>(&self, task: &TaskId, act: impl FnOnce(&mut Choice) -> T) -> T {
        let mut tasks = self.tasks.lock();
        if tasks.len() >= TASKS && !tasks.contains_key(task) {
            tasks.clear();
        }
        act(tasks.entry(*task).or_insert_with(Choice::new))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SLOW: Option<Rate> = Some(Rate(10_000));

    fn task(number: u32) -> TaskId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        TaskId::from_bytes(id)
    }

    fn raw(payload: Vec<u8>) -> Segment {
        let count = payload.len().div_ceil(GROUP_BYTES as usize) as u16;
        Segment { count, payload: payload.into(), ..Segment::default() }
    }

    fn text() -> Segment {
        raw(b"all work and no play ".iter().copied().cycle().take(5 << 16).collect())
    }

    fn noise() -> Segment {
        let mut bytes = vec![0; 5 << 16];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        raw(bytes)
    }

    #[test]
    fn the_first_segment_over_a_slow_link_is_compressed_already() {
        let encoder = Encoder::new(Compression::Auto);
        let (sent, probe) = encoder.encode(&task(1), Codecs::ALL, SLOW, text());
        assert_eq!((sent.codec, probe), (Codec::Zstd, Probe::Wanted));
        assert!(sent.payload.len() < 5000);
        assert_eq!(sent.decoded().unwrap(), text());
    }

    #[test]
    fn noise_goes_out_as_it_is_without_a_copy_and_nobody_asks_for_the_rate() {
        let encoder = Encoder::new(Compression::Auto);
        let segment = noise();
        let at = segment.payload.as_ptr();
        let (sent, probe) = encoder.encode(&task(1), Codecs::ALL, SLOW, segment);
        assert_eq!((sent.codec, probe), (Codec::Raw, Probe::Useless));
        assert_eq!(sent.payload.as_ptr(), at);
    }

    #[test]
    fn who_accepts_raw_only_or_is_told_so_gets_raw() {
        for (compression, accepted) in
            [(Compression::Auto, Codecs::RAW), (Compression::Off, Codecs::ALL)]
        {
            let encoder = Encoder::new(compression);
            let sent = encoder.encode(&task(1), accepted, SLOW, text());
            assert_eq!(sent, (text(), Probe::Useless));
            assert!(encoder.tasks.lock().is_empty());
        }
        let unknown = Encoder::new(Compression::Auto);
        assert_eq!(unknown.encode(&task(1), Codecs::ALL, None, text()), (text(), Probe::Wanted));
        let news = Segment { signed: vec![Bytes::from_static(b"s")], ..Segment::default() };
        let sent = unknown.encode(&task(1), Codecs::ALL, SLOW, news.clone());
        assert_eq!(sent, (news, Probe::Useless));
    }

    #[test]
    fn tasks_remembered_are_bounded() {
        let encoder = Encoder::new(Compression::Auto);
        for number in 0..=TASKS as u32 {
            encoder.encode(&task(number), Codecs::ALL, SLOW, raw(vec![7; 10]));
        }
        assert!(encoder.tasks.lock().len() <= TASKS);
    }
}
