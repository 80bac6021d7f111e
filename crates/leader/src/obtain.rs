//! One order to one seed: the stream on which it says what it verifies.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostInfo, TaskInfo};
use dfs_peer::engine::Engine;
use dfs_proto::seed::seed_client::SeedClient;
use dfs_proto::seed::{ObtainEvent, ObtainRequest, obtain_event};
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::announcement::{self, Trusted};
use super::service::Mail;
use super::{giving, messages};
use crate::members::Members;
use dfs_scheduler::core::{Event, RefusalKind, SeedEvent};

/// Largest message taken from a seed, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// How long a seed whose connection broke may take to take the same order again: one that hangs never does, and its
/// children wait.
const AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// An order.
pub struct Order {
    /// Its number.
    pub number: u64,
    /// To whom.
    pub seed: Arc<HostInfo>,
    /// About what.
    pub task: TaskInfo,
    /// As it travels.
    pub request: ObtainRequest,
    /// Whose digests count.
    pub members: watch::Receiver<Arc<Members>>,
}

/// The way to who carries orders out.
#[derive(Clone)]
pub enum Way {
    /// A seed's gRPC.
    Seed(Channel),
    /// This process, of a delegate.
    Own(Engine),
}

impl Way {
    async fn obtain(
        &self,
        request: ObtainRequest,
    ) -> Result<BoxStream<'static, Result<ObtainEvent, Status>>, Status> {
        Ok(match self {
            Self::Seed(channel) => {
                let mut client =
                    SeedClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
                client.obtain(request).await?.into_inner().boxed()
            }
            Self::Own(engine) => {
                let events = giving::obtain(engine, request).await;
                events.map_err(|error| Status::unavailable(error.to_string()))?.map(Ok).boxed()
            }
        })
    }

    /// What no seed has signed: a delegate's own engine may have it of one who stands in for them.
    async fn of_stand_in(
        &self,
        order: &Order,
        members: &Members,
        said: &Option<obtain_event::Kind>,
    ) -> Option<Mail> {
        let (Self::Own(engine), Some(obtain_event::Kind::Digests(signed))) = (self, said) else {
            return None;
        };
        let task = engine.held(&order.task.id).await?;
        let appointments = task.stored().appointments_for(std::slice::from_ref(&signed.encoded));
        let trusted = Trusted { members, me: engine.identity() };
        let id = order.task.id;
        let batch = signed.encoded.clone();
        let vouched = announcement::of_stand_in(&order.seed, id, batch, appointments, &trusted)?;
        Some(Mail::Announced(Box::new(vouched)))
    }
}

/// Carries an order out: everything the seed says goes into the mailbox, its end included.
pub async fn obtain(order: Order, way: Way, mailbox: mpsc::Sender<Mail>) {
    let mut heard = false;
    let mut end = match way.obtain(order.request.clone()).await {
        Ok(events) => follow(events, &order, &way, &mailbox, &mut heard).await,
        Err(status) => Err(status),
    };
    if end.as_ref().is_err_and(|status| heard && is_cut(status)) {
        // By a stop of this process, say: the seed may be there all the same.
        end = match timeout(AGAIN_WITHIN, way.obtain(order.request.clone())).await {
            Ok(Ok(events)) => follow(events, &order, &way, &mailbox, &mut heard).await,
            Ok(Err(status)) => Err(status),
            Err(_) => end,
        };
    }
    let end = match end {
        Ok(()) => SeedEvent::Ended,
        Err(status) => {
            let kind = refusal(status.code());
            SeedEvent::Failed { kind, reason: status.message().to_owned() }
        }
    };
    // Without its owner nobody needs to know.
    let _ = mailbox.send(order.mail(end)).await;
}

/// Whether it was the connection that broke.
fn is_cut(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Cancelled)
}

/// Follows one that is being carried out; `heard`: whether anything came of it.
async fn follow(
    mut events: BoxStream<'static, Result<ObtainEvent, Status>>,
    order: &Order,
    way: &Way,
    mailbox: &mpsc::Sender<Mail>,
    heard: &mut bool,
) -> Result<(), Status> {
    while let Some(message) = events.next().await {
        let message = message?;
        *heard = true;
        let said = message.kind.clone();
        let members = Arc::clone(&order.members.borrow());
        let event = messages::seed_event(&members, &order.task, message)
            .map_err(|error| Status::internal(format!("the seed's answer: {error}")))?;
        let mail = match event {
            Some(event) => Some(order.mail(event)),
            None => match way.of_stand_in(order, &members, &said).await {
                None if matches!(said, Some(obtain_event::Kind::Digests(_))) => {
                    Some(order.mail(SeedEvent::Unjudged))
                }
                vouched => vouched,
            },
        };
        let Some(mail) = mail else { continue };
        if mailbox.send(mail).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Order {
    fn mail(&self, event: SeedEvent) -> Mail {
        let (seed, task, obtain) = (self.seed.id, self.task.id, self.number);
        Mail::Event(Box::new(Event::Seed { seed, task, obtain, event }))
    }
}

fn refusal(code: Code) -> RefusalKind {
    match code {
        Code::NotFound => RefusalKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => RefusalKind::NotPermitted,
        Code::FailedPrecondition => RefusalKind::OriginChanged,
        Code::ResourceExhausted => RefusalKind::Busy,
        _ => RefusalKind::OriginFailed,
    }
}
