//! What hosts hold and nobody asks for: of each a name and a host, and nothing more.
//!
//! Ten thousand hosts that hold a thousand contents each are ten million entries of a few dozen bytes. What a host holds
//! of one, and what proves it, it is asked when somebody wants it.

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::{HostId, TaskId};

/// Most contents kept of one host.
pub const MAX_SHELVED_PER_HOST: usize = 100_000;

/// The beginning of a task's name. Two with the same one do no harm: who is asked for what it does not hold says so.
type Name = u64;

/// Stands for a host in here.
type Number = u32;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Shelf {
    holders: BTreeSet<(Name, Number)>,
    numbers: BTreeMap<HostId, Number>,
    /// By number: who it is, and what it holds, in order.
    hosts: Vec<(HostId, Vec<Name>)>,
    /// Numbers of hosts that have gone.
    free: Vec<Number>,
}

impl Shelf {
    /// Notes that a host holds some of these tasks, and says of which that is news; nothing of one that holds too much.
    pub fn put(&mut self, tasks: &[TaskId], host: HostId) -> Vec<TaskId> {
        let number = self.number_of(host);
        let held = &mut self.hosts[number as usize].1;
        let room = MAX_SHELVED_PER_HOST.saturating_sub(held.len());
        let is_news = |task: &&TaskId| held.binary_search(&name_of(task)).is_err();
        let mut news: Vec<TaskId> = tasks.iter().filter(is_news).copied().collect();
        news.sort_unstable_by_key(name_of);
        news.dedup_by_key(|task| name_of(task));
        news.truncate(room);
        // Two runs that are in order: one pass, however many they are.
        held.extend(news.iter().map(name_of));
        held.sort();
        self.holders.extend(news.iter().map(|task| (name_of(task), number)));
        news
    }

    /// A host holds it no more, or more than that is known of it now; whether it was here.
    pub fn take(&mut self, task: &TaskId, host: &HostId) -> bool {
        let Some(number) = self.numbers.get(host) else { return false };
        let name = name_of(task);
        let held = &mut self.hosts[*number as usize].1;
        let Ok(at) = held.binary_search(&name) else { return false };
        held.remove(at);
        self.holders.remove(&(name, *number))
    }

    /// A host is gone.
    pub fn clear(&mut self, host: &HostId) {
        let Some(number) = self.numbers.remove(host) else { return };
        for name in std::mem::take(&mut self.hosts[number as usize].1) {
            self.holders.remove(&(name, number));
        }
        self.free.push(number);
    }

    /// Who holds some of a task; `lot` says who comes first.
    pub fn holders(&self, task: &TaskId, lot: u32) -> impl Iterator<Item = &HostId> {
        let name = name_of(task);
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let from = lot % hosts.max(1);
        let later = self.holders.range((name, from)..=(name, Number::MAX));
        let earlier = self.holders.range((name, 0)..(name, from));
        later.chain(earlier).map(|(_, number)| &self.hosts[*number as usize].0)
    }

    /// Contents, each once for every host that holds some of it.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    fn number_of(&mut self, host: HostId) -> Number {
        if let Some(number) = self.numbers.get(&host) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.hosts.push((host, Vec::new()));
            Number::try_from(self.hosts.len() - 1).expect("there are fewer hosts")
        });
        self.hosts[number as usize].0 = host;
        self.numbers.insert(host, number);
        number
    }
}

fn name_of(task: &TaskId) -> Name {
    let [a, b, c, d, e, f, g, h, ..] = *task.as_bytes();
    Name::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn task(number: u8) -> TaskId {
        TaskId::from_bytes([number; 32])
    }

    fn host(number: u8) -> HostId {
        HostId::from_bytes([number; 16])
    }

    proptest! {
        #[test]
        fn it_says_what_was_put_and_not_taken(
            steps in prop::collection::vec((0..8u8, 0..6u8, 0..5u8), 0..200),
            lot in any::<u32>(),
        ) {
            let (mut shelf, mut model) = (Shelf::default(), BTreeSet::new());
            for (step, content, holder) in steps {
                match step {
                    0..=4 => {
                        shelf.put(&[task(content)], host(holder));
                        model.insert((content, holder));
                    }
                    5 | 6 => {
                        shelf.take(&task(content), &host(holder));
                        model.remove(&(content, holder));
                    }
                    _ => {
                        shelf.clear(&host(holder));
                        model.retain(|(_, other)| *other != holder);
                    }
                }
                prop_assert_eq!(shelf.len(), model.len());
            }
            for content in 0..6 {
                let all: Vec<HostId> = shelf.holders(&task(content), lot).copied().collect();
                let said: BTreeSet<HostId> = all.iter().copied().collect();
                prop_assert_eq!(all.len(), said.len());
                let held = model.iter().filter(|(other, _)| *other == content);
                let expected: BTreeSet<HostId> = held.map(|(_, holder)| host(*holder)).collect();
                prop_assert_eq!(said, expected);
            }
        }
    }

    #[test]
    fn a_host_that_holds_very_much_is_believed_only_so_far() {
        let mut shelf = Shelf::default();
        let numbered = |number: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            TaskId::from_bytes(id)
        };
        // The last first: each batch comes before all that is there.
        let all: Vec<TaskId> = (0..MAX_SHELVED_PER_HOST as u64 + 10).rev().map(numbered).collect();
        let news: usize = all.chunks(4096).map(|batch| shelf.put(batch, host(1)).len()).sum();
        assert_eq!((shelf.len(), news), (MAX_SHELVED_PER_HOST, MAX_SHELVED_PER_HOST));
        let twice = [numbered(50_000), numbered(7), numbered(50_000)];
        assert_eq!(shelf.put(&twice, host(1)), []);
        assert_eq!(shelf.put(&twice, host(2)), [numbered(7), numbered(50_000)], "each once");
    }
}
