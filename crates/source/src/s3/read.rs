//! Pinned reads of an object: `If-Match` on every request, so that no two versions ever meet.

use async_trait::async_trait;
use dfs_model::Validator;

use super::store::{Asker, Subject};
use crate::http::Web;
use crate::http::exchange::{Answer, Ask, Condition};
use crate::http::headers::strong_tag;
use crate::http::read::Readable;
use crate::{Attempt, SourceError};

#[async_trait]
impl Readable for Asker {
    fn web(&self) -> &Web {
        &self.store.web
    }

    fn condition(&self, pin: &Validator) -> Option<Condition> {
        strong_tag(pin).map(|tag| Condition::Exactly(tag.to_owned()))
    }

    async fn ask(&self, ask: &Ask, attempt: &Attempt) -> Result<Answer, SourceError> {
        let query = self.place.version_query();
        Asker::ask(self, &Subject { key: &self.place.key, query: &query }, ask, attempt).await
    }
}
