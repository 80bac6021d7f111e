//! Repositories that were seen to be closed to who shows nothing: of these nobody asks so again at once. Time is passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long it is remembered.
const KEPT: Duration = Duration::from_secs(300);
/// Most that are.
const MOST: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Guarded(HashMap<String, Instant>);

impl Guarded {
    /// Whether it was seen to be closed.
    pub fn has(&self, repository: &str, now: Instant) -> bool {
        self.0.get(repository).is_some_and(|since| now.duration_since(*since) < KEPT)
    }

    /// It is closed.
    pub fn note(&mut self, repository: String, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, since| now.duration_since(*since) < KEPT);
        }
        if self.0.len() < MOST {
            self.0.insert(repository, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_remembered_for_a_while() {
        let (mut guarded, now) = (Guarded::default(), Instant::now());
        guarded.note("a".to_owned(), now);
        assert!(guarded.has("a", now + KEPT / 2) && !guarded.has("b", now));
        assert!(!guarded.has("a", now + KEPT));
        for number in 0..2 * MOST {
            guarded.note(number.to_string(), now);
        }
        assert_eq!(guarded.0.len(), MOST);
        guarded.note("later".to_owned(), now + KEPT);
        assert!(guarded.has("later", now + KEPT));
    }
}
