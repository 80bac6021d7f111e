//! Copies from other tasks: what they have of the same.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::GroupRange;

use super::super::keep::{self, Arrival, KeepError, Outcome};
use super::super::ledger::CameFrom;
use super::{Context, FlightEvent};
use crate::store::Use;

impl Context {
    /// Copies what other tasks have of `groups`. What fails is fetched as anything else.
    pub(super) async fn copy(&self, groups: GroupRange) {
        let Some(earlier) = self.shared.earlier.get() else { return };
        let Ok(_used) = self.shared.stored.in_use(Use::Fetch) else { return };
        let count = self.shared.shape().groups().unwrap_or(0);
        let groups = groups.intersection(GroupRange::new(0, count));
        let mut last = None;
        for mut missing in self.shared.stored.missing_in(groups) {
            while let Some((first, bytes)) = earlier.next_of(&mut missing, &mut last).await {
                match self.keep_copied(first, bytes).await {
                    Ok(Outcome::Kept(arrival)) => self.tell_copied(arrival).await,
                    Ok(Outcome::NoRoom(..)) => return,
                    Err(error) => {
                        tracing::warn!(%error, "what another task has of this one is not kept");
                        return;
                    }
                }
            }
        }
    }

    async fn keep_copied(&self, first: u64, bytes: Bytes) -> Result<Outcome, KeepError> {
        let (shared, shape) = (Arc::clone(&self.shared), self.shared.shape());
        let signer = self.engine.signer_of(&self.shared);
        let own =
            move || keep::own(&shared, signer.as_deref(), CameFrom::Here, shape, (first, &bytes));
        self.blocking(own).await
    }

    async fn tell_copied(&self, Arrival { groups, signed, .. }: Arrival) {
        if let (Some(swarm), Some(signed)) = (&self.engine.swarm, signed) {
            swarm.signed(self.shared.info.id, signed.encode().into());
        }
        self.report(FlightEvent::Copied { groups }).await;
    }
}
