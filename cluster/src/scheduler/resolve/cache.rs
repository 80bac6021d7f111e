//! Answers remembered for a short while, and kept for a long one in which nobody may be able to answer any more; time is
//! passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_model::CanonicalUrl;
use dfs_proto::scheduler::ResolveReply;
use tokio::time::Instant;

/// Most answers remembered.
const MAX_ENTRIES: usize = 10_000;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Of which URL.
    pub url: CanonicalUrl,
    /// With which headers that change content.
    pub headers: Vec<(String, String)>,
    /// Seen as what.
    pub view: i32,
}

/// An answer and its age.
#[derive(Debug, Clone)]
pub struct Known {
    /// The answer.
    pub reply: ResolveReply,
    /// When it came.
    pub since: Instant,
    /// When it was given last because nobody could say more.
    pub again: Option<Instant>,
}

/// Answers by question.
#[derive(Debug)]
pub struct Cache {
    remember: Duration,
    keep: Duration,
    known: BTreeMap<Key, Known>,
}

impl Cache {
    /// Remembers each answer for `remember`, and keeps it for `keep`.
    pub fn new(remember: Duration, keep: Duration) -> Self {
        Self { remember, keep, known: BTreeMap::new() }
    }

    /// The answer, unless it is too old.
    pub fn get(&self, key: &Key, now: Instant) -> Option<ResolveReply> {
        let known = self.known.get(key)?;
        let last = known.again.unwrap_or(known.since);
        (now.duration_since(last) < self.remember).then(|| known.reply.clone())
    }

    /// The answer as it was, for whoever can get no other.
    pub fn kept(&self, key: &Key, now: Instant) -> Option<ResolveReply> {
        let known = self.known.get(key)?;
        (now.duration_since(known.since) < self.keep).then(|| known.reply.clone())
    }

    /// It was given although it is old; for a while nobody else has to wait for a better one.
    pub fn given_again(&mut self, key: &Key, now: Instant) {
        if let Some(known) = self.known.get_mut(key) {
            known.again = Some(now);
        }
    }

    /// Remembers an answer; makes room where it must.
    pub fn put(&mut self, key: Key, known: Known) {
        if self.remember.is_zero() {
            return;
        }
        let now = known.since;
        if self.known.len() >= MAX_ENTRIES {
            let most = self.remember.max(self.keep);
            self.known.retain(|_, old| now.duration_since(old.since) < most);
        }
        if self.known.len() >= MAX_ENTRIES {
            self.known.retain(|_, old| now.duration_since(old.since) < self.remember);
        }
        if self.known.len() >= MAX_ENTRIES {
            self.known.pop_first();
        }
        self.known.insert(key, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        let url = CanonicalUrl::parse(&format!("https://example.org/{n}")).unwrap();
        Key { url, headers: Vec::new(), view: 1 }
    }

    fn known(since: Instant) -> Known {
        Known { reply: ResolveReply::default(), since, again: None }
    }

    #[test]
    fn an_answer_is_remembered_for_its_time_only() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(10), Duration::from_secs(60));
        cache.put(key(1), known(now));
        assert!(cache.get(&key(1), now + Duration::from_secs(9)).is_some());
        assert!(cache.get(&key(1), now + Duration::from_secs(10)).is_none());
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
        assert!(
            cache.get(&key(1), after(20)).is_none() && cache.kept(&key(1), after(20)).is_some()
        );
        cache.given_again(&key(1), after(20));
        assert!(cache.get(&key(1), after(29)).is_some(), "nobody waits again");
        assert!(cache.get(&key(1), after(30)).is_none());
        cache.given_again(&key(1), after(59));
        assert!(cache.kept(&key(1), after(60)).is_none(), "it came a minute ago");
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(10), Duration::from_secs(60));
        for n in 0..MAX_ENTRIES + 10 {
            cache.put(key(n), known(now));
        }
        assert_eq!(cache.known.len(), MAX_ENTRIES);
    }
}
