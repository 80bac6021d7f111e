//! One stream to one scheduler.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use dfs_proto::scheduler::{Announce, HostMessage, host_message::Kind as Up};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::{Holdings, SwarmOptions, messages};

/// Messages waiting to be sent to one scheduler.
const MAILBOX: usize = 256;

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
    pub(super) address: SocketAddr,
}

impl Link {
    /// Opens the stream with an announcement; reading goes on until it breaks or `stop` is cancelled.
    pub(super) async fn open(
        parts: LinkParts,
        tracker: &tokio_util::task::TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, tonic::Status> {
        let (messages, receiver) = mpsc::channel(MAILBOX);
        let holdings = Arc::clone(&parts.holdings);
        let held = tokio::task::spawn_blocking(move || holdings.held()).await;
        let held = held.map_err(|_| tonic::Status::cancelled("the process is stopping"))?;
        let announce = Announce { host: Some((&parts.options.host).into()), held };
        // The mailbox is empty: this cannot fail.
        let _ = messages.try_send(messages::up(Up::Announce(announce)));
        let channel = parts.options.channels.channel(parts.address);
        let mut client = SchedulerClient::new(channel)
            .max_decoding_message_size(messages::MAX_MESSAGE)
            .max_encoding_message_size(messages::MAX_MESSAGE);
        let attend = client.attend(ReceiverStream::new(receiver));
        let answered = tokio::time::timeout(OPEN_WITHIN, attend).await;
        let stream = answered
            .map_err(|_| tonic::Status::deadline_exceeded("the scheduler does not answer"))??
            .into_inner();
        let reading = stop.clone();
        tracker.spawn(async move {
            parts.outbox.connected(1);
            tokio::select! {
                () = reading.cancelled() => {}
                () = read(stream, &parts) => {}
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

async fn read(
    mut stream: tonic::Streaming<dfs_proto::scheduler::SchedulerMessage>,
    parts: &LinkParts,
) {
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(scheduler = %parts.address, error = %status.message(), "stream lost");
                return;
            }
        };
        match messages::down(message) {
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
