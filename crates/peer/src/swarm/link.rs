//! One stream to one scheduler.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, Invariant};
use dfs_proto::common::Host;
use dfs_proto::convert;
use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use dfs_proto::scheduler::scheduler_message::Kind as Down;
use dfs_proto::scheduler::{Announce, HostMessage, host_message::Kind as Up};
use futures::future;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delegates::{Delegates, Presumes};
use super::messages::By;
use super::outbox::Outbox;
use super::teller::{Teller, Told, is_responsible};
use super::{Charge, Holdings, Members, SwarmOptions, delegates, messages};
use crate::dial::Callee;

/// Messages waiting to be sent to one scheduler.
const MAILBOX: usize = 256;

/// How long a delegate may say nothing: it says every second that it is there.
const SILENT: Duration = Duration::from_secs(3);

/// How long a scheduler may take to answer: other schedulers wait meanwhile.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// An open stream.
pub(super) struct Link {
    /// Takes messages for the scheduler; closed when the stream is.
    pub(super) messages: mpsc::Sender<HostMessage>,
    pub(super) stop: CancellationToken,
}

pub(super) struct LinkParts {
    pub(super) options: Arc<SwarmOptions>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) holdings: Arc<dyn Holdings>,
    pub(super) members: watch::Receiver<Arc<Members>>,
    pub(super) leader: Callee,
    pub(super) scheduler: HostId,
    pub(super) address: SocketAddr,
    /// Who leads here in what.
    pub(super) delegates: Delegates,
    /// Where what it asks of this host as a leader goes.
    pub(super) charges: mpsc::Sender<Charge>,
}

impl Link {
    /// Opens the stream with an announcement; reading goes on until it breaks or `stop` is cancelled.
    pub(super) async fn open(
        parts: LinkParts,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, tonic::Status> {
        let (messages, receiver) = mpsc::channel(MAILBOX);
        let (announcement, progress) = announcement(&parts, tracker);
        let channel = parts.options.channels.channel(parts.address, parts.leader);
        let mut client = SchedulerClient::new(channel)
            .max_decoding_message_size(messages::MAX_MESSAGE)
            .max_encoding_message_size(messages::MAX_MESSAGE);
        let attend = client.attend(announcement.chain(ReceiverStream::new(receiver)));
        let stream = answered(attend, progress).await?.into_inner();
        let told = Told {
            scheduler: parts.scheduler,
            holdings: Arc::clone(&parts.holdings),
            members: parts.members.clone(),
            messages: messages.clone(),
        };
        let teller = Teller::start(told, tracker, stop.clone());
        let reading = stop.clone();
        tracker.spawn(async move {
            parts.outbox.connected(1);
            tokio::select! {
                () = reading.cancelled() => {}
                () = read(stream, &parts, &teller) => {}
            }
            parts.outbox.connected(-1);
            reading.cancel();
        });
        Ok(Self { messages, stop })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.stop.is_cancelled() && !self.messages.is_closed()
    }
}

/// How far an announcement is.
struct Progress {
    begun: oneshot::Receiver<()>,
    made: oneshot::Receiver<()>,
}

/// The first message of a stream. All that is under way is looked at for it, so it is made when the connection is there
/// and asks for it, and not for a scheduler that cannot be reached.
fn announcement(
    parts: &LinkParts,
    tracker: &TaskTracker,
) -> (impl Stream<Item = HostMessage> + Send + use<>, Progress) {
    let ((begin, begun), (make, made)) = (oneshot::channel(), oneshot::channel());
    let (holdings, tracker) = (Arc::clone(&parts.holdings), tracker.clone());
    let grpc = parts.options.leads_at.iter().copied().map(Into::into).collect();
    let host = Host { grpc, ..(&parts.options.host).into() };
    let (outbox, members) = (Arc::clone(&parts.outbox), parts.members.clone());
    let scheduler = parts.scheduler;
    let announce = async move {
        // Whoever waits for the answer may have given up.
        let _ = begin.send(());
        let members = Arc::clone(&members.borrow());
        let mut under_way = outbox.registrations();
        under_way.retain(|one| is_responsible(&members, scheduler, &one.task.key));
        let tasks: Vec<_> = under_way.iter().map(|one| one.task.id).collect();
        let held = tracker.spawn_blocking(move || holdings.held(&tasks)).await;
        let _ = make.send(());
        // It fails when the process is stopping: the stream ends without a word.
        let held = held.ok()?;
        Some(messages::up(Up::Announce(Announce {
            host: Some(host),
            held,
            more: true,
            follows: true,
        })))
    };
    (stream::once(announce).filter_map(future::ready), Progress { begun, made })
}

/// The scheduler's answer. Connecting and answering have their time; looking at what is kept here takes what it
/// takes.
async fn answered<T>(
    attend: impl Future<Output = Result<T, tonic::Status>>,
    progress: Progress,
) -> Result<T, tonic::Status> {
    let late = || tonic::Status::deadline_exceeded("the scheduler does not answer");
    let mut attend = pin!(attend);
    tokio::select! {
        answer = &mut attend => return answer,
        begun = tokio::time::timeout(OPEN_WITHIN, progress.begun) => {
            if begun.is_err() {
                return Err(late());
            }
        }
    }
    tokio::select! {
        answer = &mut attend => return answer,
        _ = progress.made => {}
    }
    tokio::time::timeout(OPEN_WITHIN, attend).await.map_err(|_| late())?
}

/// The next message; none once the stream is over, or a delegate says nothing for long.
async fn heard(
    stream: &mut tonic::Streaming<dfs_proto::scheduler::SchedulerMessage>,
    parts: &LinkParts,
) -> Option<dfs_proto::scheduler::SchedulerMessage> {
    let next = stream.message();
    let next = match parts.leader {
        Callee::Delegate(_) if !Invariant::SwarmIsOptional.is_broken() => {
            match tokio::time::timeout(SILENT, next).await {
                Ok(next) => next,
                Err(_) => {
                    tracing::info!(delegate = %parts.address, "a delegate hangs");
                    return None;
                }
            }
        }
        _ => next.await,
    };
    next.unwrap_or_else(|status| {
        tracing::debug!(scheduler = %parts.address, error = %status.message(), "stream lost");
        None
    })
}

async fn read(
    mut stream: tonic::Streaming<dfs_proto::scheduler::SchedulerMessage>,
    parts: &LinkParts,
    teller: &Teller,
) {
    while let Some(message) = heard(&mut stream, parts).await {
        if let Callee::Delegate(delegate) = parts.leader {
            match parts.delegates.heeds(delegate, message.kind.as_ref()) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(Presumes) => {
                    tracing::warn!(%delegate, "a delegate says what only a scheduler may: left");
                    return;
                }
            }
        }
        match message.kind {
            Some(Down::NameHeld(turn)) => {
                teller.is_asked_for_names(turn.most as usize);
                continue;
            }
            Some(Down::Recall(recall)) => {
                match convert::task_id(&recall.task_id) {
                    Ok(task) => teller.is_asked_for(task),
                    Err(error) => {
                        tracing::warn!(%error, "a message of the scheduler is unreadable")
                    }
                }
                continue;
            }
            Some(Down::Delegated(delegated)) => {
                match delegates::read(delegated, parts.scheduler) {
                    Ok(delegated) => parts.outbox.delegated(delegated),
                    Err(error) => tracing::warn!(%error, "a delegate is not told readably"),
                }
                continue;
            }
            Some(Down::Lead(lead)) => {
                match delegates::charge(lead) {
                    // Who is not answered asks somebody else.
                    Ok(charge) => drop(parts.charges.try_send(charge)),
                    Err(error) => tracing::warn!(%error, "a charge is not told readably"),
                }
                continue;
            }
            _ => {}
        }
        let members = Arc::clone(&parts.members.borrow());
        let by = match parts.leader {
            Callee::Delegate(_) => By::Delegate(&members, &parts.options.keyring),
            _ => By::Scheduler,
        };
        match messages::down(message, by) {
            Ok(Some((task, commands))) => {
                let Some(registration) = parts.outbox.registration(&task) else { continue };
                for command in commands {
                    // The task may be closing.
                    let _ = registration.commands.send(command).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a message of the scheduler is unreadable"),
        }
    }
}
