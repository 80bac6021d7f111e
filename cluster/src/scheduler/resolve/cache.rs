//! Answers remembered for a short while, and kept for a long one in which nobody may be able to answer any more; time is
//! passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::CanonicalUrl;
use dfs_proto::scheduler::ResolveReply;
use dfs_source::oci::Platform;
use prost::Message as _;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Most answers remembered, and most failures.
const MAX_ENTRIES: usize = 10_000;

/// Most bytes of answers remembered, as they are encoded.
const MAX_BYTES: usize = 256 << 20;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Of which URL.
    pub url: CanonicalUrl,
    /// With which headers that change content.
    pub headers: Vec<(String, String)>,
    /// Seen as what.
    pub view: i32,
    /// For which machine, of an image that names none.
    pub platform: Option<Platform>,
    /// Which directory of it, where only what lies right in there is asked for.
    pub level: Option<Bytes>,
}

/// How long a failure is the answer to all.
const FAILED_FOR: Duration = Duration::from_secs(2);

/// How long after a failure nobody waits to be told what is kept.
const FAILING_FOR: Duration = Duration::from_secs(30);

/// An answer and its age.
#[derive(Debug, Clone)]
pub struct Known {
    /// The answer.
    pub reply: ResolveReply,
    /// When it came.
    pub since: Instant,
    /// How long that took.
    pub took: Duration,
}

/// An answer as it was, for whoever can get no other.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The answer.
    pub reply: ResolveReply,
    /// How long it took when it came.
    pub took: Duration,
    /// Whether nobody could give another one just now.
    pub fails: bool,
}

/// Answers by question.
#[derive(Debug)]
pub struct Cache {
    remember: Duration,
    keep: Duration,
    /// Each with the number that it has in `order`.
    known: BTreeMap<Key, (Known, u64)>,
    /// The oldest first.
    order: BTreeMap<u64, Key>,
    bytes: usize,
    failures: BTreeMap<Key, (Status, Instant)>,
}

impl Cache {
    /// Remembers each answer for `remember`, and keeps it for `keep`.
    pub fn new(remember: Duration, keep: Duration) -> Self {
        let (known, order, failures) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { remember, keep, known, order, bytes: 0, failures }
    }

    /// The answer, unless it is too old.
    pub fn get(&self, key: &Key, now: Instant) -> Option<ResolveReply> {
        self.get_within(key, now, self.remember)
    }

    /// The answer, unless it is older than `time`.
    pub fn get_within(&self, key: &Key, now: Instant, time: Duration) -> Option<ResolveReply> {
        let (known, _) = self.known.get(key)?;
        (now.duration_since(known.since) < time).then(|| known.reply.clone())
    }

    /// The answer as it was.
    pub fn kept(&self, key: &Key, now: Instant) -> Option<Kept> {
        let (known, _) = self.known.get(key)?;
        let fails = self.failed_within(key, FAILING_FOR, now).is_some();
        let kept = || Kept { reply: known.reply.clone(), took: known.took, fails };
        (now.duration_since(known.since) < self.keep).then(kept)
    }

    /// Why nobody could tell, if that was only just found out, and not because there was nobody to ask.
    pub fn failure(&self, key: &Key, now: Instant) -> Option<Status> {
        let failure = self.failed_within(key, FAILED_FOR, now)?;
        (failure.code() != Code::Unavailable).then(|| failure.clone())
    }

    fn failed_within(&self, key: &Key, time: Duration, now: Instant) -> Option<&Status> {
        let (status, since) = self.failures.get(key)?;
        (now.duration_since(*since) < time).then_some(status)
    }

    /// Nobody could tell.
    pub fn fail(&mut self, key: Key, status: Status, now: Instant) {
        if self.failures.len() >= MAX_ENTRIES {
            self.failures.retain(|_, (_, since)| now.duration_since(*since) < FAILING_FOR);
        }
        if self.failures.len() >= MAX_ENTRIES {
            self.failures.pop_first();
        }
        self.failures.insert(key, (status, now));
    }

    /// Remembers an answer; the oldest make room where it must be.
    pub fn put(&mut self, key: Key, known: Known) {
        self.forget(&key);
        if self.remember.is_zero() {
            return;
        }
        let (now, most) = (known.since, self.remember.max(self.keep));
        let bytes = known.reply.encoded_len();
        while let Some((_, oldest)) = self.order.first_key_value() {
            let is_old = |(of, _): &(Known, u64)| now.duration_since(of.since) >= most;
            let is_full = self.known.len() >= MAX_ENTRIES || self.bytes + bytes > MAX_BYTES;
            if !is_full && !self.known.get(oldest).is_none_or(is_old) {
                break;
            }
            let oldest = oldest.clone();
            self.forget(&oldest);
        }
        let number = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        self.order.insert(number, key.clone());
        self.bytes += bytes;
        self.known.insert(key, (known, number));
    }

    /// Nothing of what was known is so any more, nor is it failing.
    pub fn forget(&mut self, key: &Key) {
        self.failures.remove(key);
        if let Some((known, number)) = self.known.remove(key) {
            self.order.remove(&number);
            self.bytes -= known.reply.encoded_len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        let url = CanonicalUrl::parse(&format!("https://example.org/{n}")).unwrap();
        Key { url, headers: Vec::new(), view: 1, platform: None, level: None }
    }

    fn known(since: Instant) -> Known {
        Known { reply: ResolveReply::default(), since, took: Duration::ZERO }
    }

    #[test]
    fn an_answer_is_remembered_for_its_time_only() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(10), Duration::from_secs(60));
        cache.put(key(1), known(now));
        assert!(cache.get(&key(1), now + Duration::from_secs(9)).is_some());
        assert!(cache.get(&key(1), now + Duration::from_secs(10)).is_none());
        let within = |seconds| {
            let (now, time) = (now + Duration::from_secs(20), Duration::from_secs(seconds));
            cache.get_within(&key(1), now, time).is_some()
        };
        assert!(within(21) && !within(20), "whoever can do with an older one is given it");
        let other = Key { view: 2, ..key(1) };
        assert!(cache.get(&other, now).is_none());
        let mut never = Cache::new(Duration::ZERO, Duration::ZERO);
        never.put(key(1), known(now));
        assert!(never.get(&key(1), now).is_none());
    }

    #[test]
    fn an_old_answer_is_kept_for_those_who_get_no_other_and_not_for_ever() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut cache = Cache::new(Duration::from_secs(10), Duration::from_secs(60));
        cache.put(key(1), known(now));
        assert!(cache.get(&key(1), after(20)).is_none());
        let fails =
            |cache: &Cache, seconds| cache.kept(&key(1), after(seconds)).map(|kept| kept.fails);
        assert_eq!(fails(&cache, 20), Some(false));
        cache.fail(key(1), Status::unknown("502"), after(20));
        assert_eq!([fails(&cache, 49), fails(&cache, 50)], [Some(true), Some(false)]);
        assert_eq!(fails(&cache, 60), None, "it came a minute ago");
        cache.put(key(1), known(after(21)));
        assert_eq!(fails(&cache, 22), Some(false), "it fails no more");
    }

    #[test]
    fn a_failure_is_the_answer_to_those_who_ask_in_the_next_moment() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(10), Duration::from_secs(60));
        cache.fail(key(1), Status::unknown("502"), now);
        let at = |seconds| cache.failure(&key(1), now + Duration::from_secs(seconds));
        assert!(at(1).is_some_and(|status| status.message() == "502") && at(2).is_none());
        assert!(cache.failure(&key(2), now).is_none());
        cache.fail(key(1), Status::unavailable("no seed is alive"), now);
        assert!(cache.failure(&key(1), now).is_none(), "one may have come");
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(10), Duration::from_secs(60));
        for n in 0..MAX_ENTRIES + 10 {
            cache.put(key(n), known(now));
            cache.fail(key(n + MAX_ENTRIES), Status::unknown("502"), now);
        }
        assert_eq!([cache.known.len(), cache.failures.len()], [MAX_ENTRIES; 2]);
        assert!(cache.kept(&key(9), now).is_none() && cache.kept(&key(10), now).is_some());
        let large = || {
            let seed_id = vec![0; MAX_BYTES / 4].into();
            Known { reply: ResolveReply { seed_id, ..ResolveReply::default() }, ..known(now) }
        };
        for n in 0..5 {
            cache.put(key(n), large());
        }
        assert!(cache.bytes <= MAX_BYTES);
        assert_eq!(cache.order.len(), cache.known.len());
        assert!(cache.kept(&key(0), now).is_none() && cache.kept(&key(4), now).is_some());
        cache.forget(&key(4));
        assert!(cache.kept(&key(4), now).is_none());
    }
}
