//! Profiles that travel through the cluster.
//!
//! The scheduler of an artifact keeps one for all: who mounts it for the first time asks for it, whose run ends tells
//! what it knows. Only of what is public: whatever can be had without credentials may be told to every host. It is
//! advice: what comes is checked as a file from anywhere is, and followed within the artifact only.

use dfs_model::{RouteKey, TaskKey};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::swarm::{Swarm, SwarmError, route};
use dfs_proto::scheduler::ProfileRequest;

use crate::trace::{Profile, Subject};

/// Whom to ask about one artifact.
#[derive(Clone)]
pub struct Sharing {
    swarm: Swarm,
    route: RouteKey,
}

impl Sharing {
    /// Nobody where there is no cluster, or where it is no business of others.
    pub fn of(swarm: Option<&Swarm>, opened: &OpenArtifact) -> Option<Self> {
        let index = opened.index.as_ref().map(|index| &index.task);
        let mut tasks = opened.tasks.iter().chain(index);
        let is_public = tasks.all(|task| task.info().key.domain == TaskKey::PUBLIC);
        let is_here = opened.target.url.lies_here();
        let route = route(TaskKey::PUBLIC, &opened.target.url);
        (is_public && !is_here).then_some(Self { swarm: swarm?.clone(), route })
    }

    /// What the cluster knows, if it does; an error where it does not answer.
    pub async fn ask(&self, subject: Subject) -> Result<Option<Profile>, SwarmError> {
        let request = ProfileRequest { subject: subject.to_vec().into(), ..Default::default() };
        let bytes = self.swarm.profile(&self.route, request).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match Profile::decode(&bytes) {
            Ok((about, profile)) if about == subject => return Ok(Some(profile)),
            Ok(_) => {
                tracing::warn!(%subject, "the cluster's prefetch profile is about something else");
            }
            Err(error) => {
                tracing::warn!(%subject, %error, "the cluster's prefetch profile is not used");
            }
        }
        Ok(None)
    }

    /// Tells the cluster. Nothing is lost where it does not hear: the next run tells more.
    pub async fn tell(&self, subject: Subject, profile: &Profile) {
        let request = ProfileRequest {
            subject: subject.to_vec().into(),
            profile: profile.encode(subject).into(),
            runs: profile.runs(),
            ..Default::default()
        };
        if let Err(error) = self.swarm.profile(&self.route, request).await {
            tracing::debug!(%subject, %error, "the cluster is not told a profile");
        }
    }
}
