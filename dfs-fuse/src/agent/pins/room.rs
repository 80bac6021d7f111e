//! Whether there is room for a pin beside what is promised already.

use std::collections::HashMap;
use std::path::Path;

use dfs_model::{GroupSet, TaskId};
use dfs_peer::engine::Engine;
use dfs_peer::store::{Store, TaskSummary};

use super::Pins;
use crate::agent::CallError;
use crate::agent::needs::{Needed, Needs};

impl Pins {
    /// Refuses what cannot be kept beside what is pinned already.
    pub(in crate::agent) fn check_room(
        &self,
        engine: &Engine,
        data_dir: &Path,
        needs: &Needs,
    ) -> Result<(), CallError> {
        let (store, own) = (engine.store(), needs.bytes());
        let others = self.promised(store, needs);
        let refused = |room: u64| CallError::TooLargeToPin { needs: own, others, room };
        match store.room_for_content() {
            Some(room) if own.saturating_add(others) > room => Err(refused(room)),
            Some(_) => Ok(()),
            None => {
                let evictable = store.eviction_entries();
                let evictable = evictable.iter().filter(|task| !task.pinned && !task.in_use);
                let free = free_on(data_dir).saturating_add(evictable.map(|task| task.bytes).sum());
                let missing = own.saturating_sub(needs.here(engine));
                if missing > free { Err(refused(free)) } else { Ok(()) }
            }
        }
    }

    /// Bytes that pins are to have beside these, each once.
    fn promised(&self, store: &Store, needs: &Needs) -> u64 {
        let mut all: HashMap<TaskId, Needed> = HashMap::new();
        let (mut unknown, pins) = (0, self.all());
        for (_, pin) in &pins {
            match pin.progress.lock().needs.clone() {
                Some(needs) => needs.tasks.iter().for_each(|needed| {
                    let known = all
                        .entry(needed.task)
                        .or_insert_with(|| Needed { groups: GroupSet::new(), ..needed.clone() });
                    known.groups.insert_all(&needed.groups);
                }),
                None => unknown += pin.record.bytes,
            }
        }
        for needed in &needs.tasks {
            if let Some(known) = all.get_mut(&needed.task) {
                known.groups.remove_all(&needed.groups);
            }
        }
        let by_hand = |task: &&TaskSummary| {
            let is_counted = needs.tasks.iter().any(|needed| needed.task == task.id);
            task.pinned && !is_counted && !pins.iter().any(|(_, pin)| pin.has(&task.id))
        };
        let by_hand: u64 = store.list().iter().filter(by_hand).map(|task| task.bytes).sum();
        all.values().map(Needed::bytes).sum::<u64>() + unknown + by_hand
    }
}

/// Bytes that the disk of a directory still takes; as many as there are where it does not say.
fn free_on(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
