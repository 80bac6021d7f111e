//! Writes the small frames of the asking side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;

use super::Shared;
use crate::dial::Link;
use crate::wire::frame::{Frame, encode};

/// Time for a last word.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Writes until the connection is over, or closes it: nothing on this side is worth `stall` of waiting.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut link: WriteHalf<Box<dyn Link>>,
    mut frames: mpsc::Receiver<Frame>,
    stall: Duration,
) {
    loop {
        let frame = tokio::select! {
            biased;
            () = shared.closed.cancelled() => break,
            frame = frames.recv() => frame,
        };
        let Some(frame) = frame else { break };
        let written = tokio::select! {
            () = shared.closed.cancelled() => break,
            written = tokio::time::timeout(stall, write(&shared, &mut link, frame)) => written,
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.close(&format!("writing failed: {error}")),
            Err(_) => {
                shared.counters.stalls.add(1);
                shared.close("the peer stopped reading");
            }
        }
    }
    let reason = shared.close_reason().to_string();
    let goodbye = async {
        // The peer may be gone already.
        let _ = write(&shared, &mut link, Frame::Goodbye { reason }).await;
        let _ = link.shutdown().await;
    };
    let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
}

async fn write(
    shared: &Shared,
    link: &mut WriteHalf<Box<dyn Link>>,
    frame: Frame,
) -> std::io::Result<()> {
    let mut encoded = encode(frame).map_err(std::io::Error::other)?;
    shared.counters.wire_sent.add(encoded.remaining());
    link.write_all_buf(&mut encoded).await?;
    link.flush().await
}
