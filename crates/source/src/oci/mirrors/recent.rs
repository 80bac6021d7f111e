//! What is remembered for a while, of so many things and no more.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Most things that are remembered.
const MOST: usize = 1024;

/// Things, each until its time: where there are too many, what would be forgotten first gives way.
#[derive(Debug)]
pub(super) struct Recent<K>(HashMap<K, Instant>);

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Recent<K> {
    pub fn note(&mut self, key: K, lasting: Duration) {
        let now = Instant::now();
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.retain(|_, until| now < *until);
            if self.0.len() >= MOST
                && let Some(first) = self.0.iter().min_by_key(|(_, until)| **until)
            {
                let first = first.0.clone();
                self.0.remove(&first);
            }
        }
        self.0.insert(key, now + lasting);
    }

    pub fn has(&self, key: &K) -> bool {
        self.0.get(key).is_some_and(|until| Instant::now() < *until)
    }

    pub fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// Forgets all that are such; whether there was any.
    pub fn forget_all(&mut self, is_such: impl Fn(&K) -> bool) -> bool {
        let now = Instant::now();
        self.0.retain(|_, until| now < *until);
        let lasting = self.0.len();
        self.0.retain(|key, _| !is_such(key));
        self.0.len() < lasting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_thing_is_remembered_for_its_time_and_the_oldest_gives_way() {
        let mut recent = Recent::default();
        for number in 0..MOST + 2 {
            recent.note(number, Duration::from_secs(30));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(!recent.has(&0) && !recent.has(&1) && recent.has(&2));
        assert_eq!(recent.0.len(), MOST);
        recent.forget(&2);
        assert!(!recent.has(&2));
        assert!(recent.forget_all(|number| *number < 10) && !recent.has(&9) && recent.has(&10));
        assert!(!recent.forget_all(|number| *number < 10));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(!recent.has(&(MOST + 1)));
        assert!(!recent.forget_all(|_| true), "they are forgotten already");
    }
}
