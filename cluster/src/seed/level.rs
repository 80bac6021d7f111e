//! One level of a listing, listed once for all who look into it.

use dfs_artifact::resolve::{ResolveOptions, resolve_level};
use dfs_peer::opener::OpenUrlError;
use dfs_proto::common::Level;
use dfs_proto::seed::ResolveRequest;
use dfs_source::{Target, check_path};
use tonic::Status;

use super::{SeedService, status_of};

/// Largest index of a level that is told; whoever asks for a longer one lists it.
const MOST_BYTES: usize = 8 << 20;

impl SeedService {
    /// What lies right in the directory `below` of `target`. With credentials it is listed by whoever has them.
    pub(super) async fn level(
        &self,
        target: &Target,
        below: &[u8],
        asked: &ResolveRequest,
    ) -> Result<Level, Status> {
        if !target.credentials.is_none() || !(below.is_empty() || check_path(below).is_ok()) {
            return Err(Status::invalid_argument("it is not public, or no directory"));
        }
        if let Some(told) = self.told(target, asked).await
            && let Some(level) = told?.level
        {
            return Ok(level);
        }
        let options = ResolveOptions::default();
        let listed = resolve_level(self.engine.sources(), target, below, &options).await;
        let listed = listed.map_err(|error| status_of(&OpenUrlError::from(error)))?;
        let index = listed.map(|built| built.bytes);
        match index.as_ref().is_some_and(|index| index.len() > MOST_BYTES) {
            true => Err(Status::out_of_range("the level is too long to be told")),
            false => Ok(Level { index }),
        }
    }
}
