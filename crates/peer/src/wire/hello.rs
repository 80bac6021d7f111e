//! The greeting: both sides say who they are and what they speak, before anything else.

use std::sync::Arc;

use bytes::Buf;
use dfs_model::HostId;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::counters::WireCounters;
use super::error::ConnectError;
use super::frame::{Frame, FrameError, Hello, Kind, VERSION, encode};
use super::io::{FrameReader, ReadError, Verdict};
use super::message::PeerIdentity;
use crate::dial::{Link, PeerAddress};

/// Who this process is to its peers.
#[derive(Debug, Clone)]
pub struct LocalHost {
    /// Its lasting name.
    pub host: HostId,
    /// Name for people; cut to 255 bytes.
    pub name: String,
    /// Capabilities offered, as bits.
    pub capabilities: u64,
}

/// A link after the greeting.
pub(super) struct Greeted {
    pub(super) peer: PeerIdentity,
    pub(super) reader: FrameReader<ReadHalf<Box<dyn Link>>>,
    pub(super) writer: WriteHalf<Box<dyn Link>>,
}

/// Greets the other side. The caller bounds the wait.
pub(super) async fn greet(
    link: Box<dyn Link>,
    address: PeerAddress,
    me: &LocalHost,
    expected: Option<HostId>,
    counters: &Arc<WireCounters>,
) -> Result<Greeted, ConnectError> {
    let (input, mut writer) = tokio::io::split(link);
    let mut reader = FrameReader::new(input, Arc::clone(counters));
    let hello = Hello {
        version: VERSION,
        capabilities: me.capabilities,
        host: me.host,
        name: me.name.clone(),
    };
    let mut greeting = encode(Frame::Hello(hello)).map_err(ConnectError::Protocol)?;
    counters.wire_sent.add(greeting.remaining());
    writer.write_all_buf(&mut greeting).await?;
    writer.flush().await?;
    let frame = reader.next(|kind, _| match kind {
        Kind::Hello => Ok(Verdict::Take),
        kind => Err(FrameError::Unexpected(kind as u8)),
    });
    let theirs = match frame.await {
        Ok(Some(Frame::Hello(hello))) => hello,
        Ok(Some(_)) => return Err(ConnectError::Protocol(FrameError::Truncated)),
        Ok(None) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        Err(ReadError::Io(error)) => return Err(error.into()),
        Err(ReadError::Frame(error)) => return Err(ConnectError::Protocol(error)),
    };
    // A certificate outweighs what a greeting claims.
    for expected in expected.into_iter().chain(address.certified) {
        if theirs.host != expected {
            return Err(ConnectError::WrongHost { expected, found: theirs.host });
        }
    }
    let peer = PeerIdentity {
        host: theirs.host,
        name: theirs.name,
        address,
        version: theirs.version.min(VERSION),
        capabilities: theirs.capabilities,
    };
    Ok(Greeted { peer, reader, writer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(n: u8) -> LocalHost {
        LocalHost { host: HostId::from_bytes([n; 16]), name: format!("host-{n}"), capabilities: 0 }
    }

    #[tokio::test]
    async fn a_greeting_in_another_name_than_the_certificates_is_refused() {
        let socket = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        for (says, is_it) in [(2, true), (3, false)] {
            let (near, far) = tokio::io::duplex(4096);
            let certified = PeerAddress { socket, certified: Some(HostId::from_bytes([2; 16])) };
            let (plain, me, them) = (PeerAddress::plain(socket), local(1), local(says));
            let counters = Arc::default();
            let (greeted, _) = tokio::join!(
                greet(Box::new(near), certified, &me, None, &counters),
                greet(Box::new(far), plain, &them, None, &counters),
            );
            match greeted {
                Ok(greeted) => assert!(is_it && greeted.peer.address == certified),
                Err(error) => {
                    assert!(!is_it && matches!(error, ConnectError::WrongHost { .. }), "{error}");
                }
            }
        }
    }
}
