//! Credentials for the origins of private tasks (decision 5): a seed reads with those of who opened the task,
//! and where it has none that suffice, with those of a child that asks for what is missing, once the origin has
//! taken them.
//!
//! Kept in memory while the task is open; lost with its closing and with the process, and given again by the
//! next one who wants what is not here.

use dfs_artifact::Recipe;
use dfs_model::{GroupRange, Priority, TaskKey};
use dfs_source::{Credentials, SourceError};

use super::Engine;
use super::error::ReadError;
use super::task::{Shared, Task};
use crate::targets;
use crate::wire::{ErrorCode, PieceRequest, Refusal, SealedCredentials};

impl Shared {
    fn is_private(&self) -> bool {
        self.info.key.domain != TaskKey::PUBLIC
    }

    /// Whether its origin wants credentials and nobody has given any.
    fn lacks_credentials(&self) -> bool {
        self.is_private() && self.origin.lock().is_none()
    }

    /// Those of whoever opened it on this host, for a seed that asks for them.
    pub(super) fn own_credentials(&self) -> SealedCredentials {
        targets::seal(&self.credentials.lock())
    }

    /// Why a seed cannot give what it was to fetch. With credentials that the origin does not take (any more)
    /// it is not read again: the child may have others.
    pub(super) fn refusal_of_origin(&self, error: &ReadError) -> Option<Refusal> {
        let is_refused = self.is_private() && matches!(error, ReadError::NotPermitted(_));
        if is_refused {
            *self.origin.lock() = None;
        }
        let asks = is_refused || self.lacks_credentials();
        asks.then(|| Refusal::new(ErrorCode::Credentials, crate::error_chain(error)))
    }
}

impl Task {
    /// Remembers with whose credentials it was opened, while it is open.
    pub(crate) fn opened_with(&self, credentials: &Credentials) {
        *self.shared.credentials.lock() = credentials.clone();
    }

    /// Whether this host could ask its origin for what is missing, as far as credentials go.
    pub fn may_ask_origin(&self) -> bool {
        !self.shared.lacks_credentials()
    }

    fn lacks_some(&self, groups: GroupRange) -> bool {
        let existing = self.shared.shape().groups().unwrap_or(u64::MAX);
        let groups = groups.intersection(GroupRange::new(0, existing));
        !self.shared.stored.missing_in(groups).is_empty()
    }
}

impl Engine {
    /// Before a seed fetches for a child: the origin is never asked without credentials for what is private.
    /// Where the seed has none, it takes those that the child sent, once the origin has said that they suffice;
    /// where it has some that nobody has withdrawn, a child's are of no use.
    pub(super) async fn authorise(
        &self,
        task: &Task,
        request: &PieceRequest,
    ) -> Result<(), Refusal> {
        let shared = &task.shared;
        let has_need = || shared.lacks_credentials() && task.lacks_some(request.groups);
        if !has_need() {
            return Ok(());
        }
        if request.credentials.is_empty() {
            return Err(ErrorCode::Credentials.into());
        }
        let refused = |why: String| Refusal::new(ErrorCode::Refused, why);
        let credentials =
            targets::unseal(&request.credentials).map_err(|e| refused(e.to_string()))?;
        if credentials.is_none() {
            return Err(refused("no credentials are sent".to_owned()));
        }
        // One after the other: those of the first who may suffice for all who come at once.
        let _turn = shared.proving.acquire().await;
        if !has_need() {
            return Ok(());
        }
        let (engine, id) = (self.clone(), shared.info.id);
        let looked = tokio::task::spawn_blocking(move || engine.recipe(&id)).await;
        let Some(recipe) = looked.ok().flatten() else {
            return Err(Refusal::new(ErrorCode::OriginFailed, "how it is read is not known here"));
        };
        self.prove(task, &recipe, request.groups, &credentials).await?;
        let opened = self.open_recipe(&recipe, &credentials).await;
        let failed = |error| Refusal::new(ErrorCode::OriginFailed, crate::error_chain(&error));
        opened.map(drop).map_err(failed)
    }

    /// Has the origin say that these credentials open what is missing of `groups`.
    async fn prove(
        &self,
        task: &Task,
        recipe: &Recipe,
        groups: GroupRange,
        credentials: &Credentials,
    ) -> Result<(), Refusal> {
        let wanted = task.shared.stored.missing_in(groups).first().copied().unwrap_or(groups);
        let range = wanted.bytes(task.length().unwrap_or(u64::MAX));
        let _slot = self.inner.source_slots.acquire(&recipe.key.url, Priority::Demand).await;
        let sources = &self.inner.sources;
        let asked = dfs_artifact::ask_permission(recipe, sources, credentials.clone(), range).await;
        asked.map_err(|error| {
            let code = match error {
                SourceError::NotPermitted { .. } => ErrorCode::Credentials,
                _ => ErrorCode::OriginFailed,
            };
            Refusal::new(code, crate::error_chain(&error))
        })
    }
}
