//! What other areas know (decision 0017): the scheduler of the area that is nearest to an origin says what a URL is, so
//! that all areas together cost the origin one stat.

use std::time::Duration;

use dfs_peer::dial::Callee;
use dfs_peer::opener::{OpenArtifact, OpenUrlError};
use dfs_peer::swarm::is_lost;
use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use dfs_proto::scheduler::{ResolveReply, ResolveRequest as Question};
use dfs_proto::seed::ResolveRequest;
use dfs_source::Target;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::{SeedService, status_of};

/// Largest answer taken from a scheduler, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// How long all of them may take: there may be a long list to make. Whether one is there at all is found out by pings.
const ANSWER_WITHIN: Duration = Duration::from_secs(110);

impl SeedService {
    /// What an area nearer to the origin says that this is; `None` where it is this seed's to find out, or nobody there
    /// can tell. Those who were asked with credentials are asked nowhere else.
    pub(super) async fn open_as_told(
        &self,
        target: &Target,
        asked: &ResolveRequest,
    ) -> Option<Result<OpenArtifact, Status>> {
        match self.told(target, asked).await? {
            Ok(answer) => self.open_answer(target, answer).await,
            Err(status) => Some(Err(status)),
        }
    }

    /// What the scheduler of an area nearer to the origin answers, as for [`Self::open_as_told`].
    pub(super) async fn told(
        &self,
        target: &Target,
        asked: &ResolveRequest,
    ) -> Option<Result<ResolveReply, Status>> {
        let nearer = self.engine.nearer().filter(|_| target.credentials.is_none())?;
        let began = Instant::now();
        for (scheduler, at) in nearer.schedulers_for(&target.url, &asked.area, began) {
            let callee = Callee::Scheduler(scheduler);
            let channel = self.channels.channel(at, callee);
            let mut client = SchedulerClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
            let mut question = Request::new(self.question(asked));
            question.set_timeout(ANSWER_WITHIN.saturating_sub(began.elapsed()));
            match client.resolve(question).await {
                Ok(answer) => return Some(Ok(answer.into_inner())),
                Err(status) if is_the_origins_word(status.code()) => return Some(Err(status)),
                Err(status) => {
                    let (url, error) = (&target.url, status.message());
                    tracing::info!(%url, %at, error, "the scheduler of another area does not tell");
                    // What an origin refuses to one who asks is nobody's fault.
                    if status.code() == Code::Unavailable || is_lost(&status) {
                        nearer.doubt(scheduler, None, Instant::now());
                    }
                }
            }
        }
        None
    }

    fn question(&self, asked: &ResolveRequest) -> Question {
        Question {
            target: asked.target.clone(),
            view: asked.view,
            principal: asked.principal.clone(),
            fresh: asked.fresh,
            for_area: true,
            max_age_ms: 0,
            read: asked.read,
            level: asked.level.clone(),
            platform: asked.platform.clone(),
            host_id: self.engine.identity().host().as_bytes().to_vec().into(),
        }
    }

    /// Opens what was told. An index that does not come can be made here too.
    async fn open_answer(
        &self,
        target: &Target,
        answer: ResolveReply,
    ) -> Option<Result<OpenArtifact, Status>> {
        match self.engine.open_answer(target, answer).await {
            Ok(opened) => Some(Ok(opened)),
            Err(error @ (OpenUrlError::Open(_) | OpenUrlError::Source(_))) => {
                Some(Err(status_of(&error)))
            }
            Err(error) => {
                tracing::info!(url = %target.url, %error, "what another area tells cannot be used");
                None
            }
        }
    }
}

/// Whether the origin would say the same here. What another area may not ask, this one may.
fn is_the_origins_word(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound | Code::FailedPrecondition | Code::Unimplemented | Code::InvalidArgument
    )
}
