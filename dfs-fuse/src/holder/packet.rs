//! What an agent and its holder say to each other: one packet a message, with descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No message is longer.
const LONGEST: usize = 8192;

/// As many as the kernel takes with one message.
const DESCRIPTORS: usize = 253;

/// Content files that go with a message, beside what else does.
pub const CONTENTS: usize = 240;

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum FromAgent {
    /// The first: it is here, and is to be told what is kept; which agent it is, however often it is started.
    Hello { pid: u32, agent: String },
    /// It goes on with all that it was given.
    Ready,
    /// Keep this mount; with its descriptors.
    Keep { name: String },
    /// A mount is over, or needs nobody any more.
    LetGo { name: String },
    /// Keep this one, whose reads wait for bytes, and tell of them; with its descriptors.
    Guard { name: String },
    /// Nobody will fetch anything for it any more: its reads fail from now on, until nobody uses it.
    Close { name: String },
    /// The agent ends, and wants to.
    Farewell { then: Then },
}

/// What is to come after an agent that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Nothing: who wants another one starts it.
    Nothing,
    /// Another one at once, of the program that lies there now.
    Another,
}

/// What a holder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum FromHolder {
    /// A mount that is kept; with its descriptors.
    Kept { name: String },
    /// One whose reads wait for bytes; with its descriptors, the end of the line at which its reads are told first.
    Guarded { name: String },
    /// What was asked is done; after a hello, all that is kept was told.
    Done { pid: u32 },
    /// A mount is guarded; with the end of the line at which its reads are told.
    Guarding,
    /// It is not.
    Refused { why: String },
}

/// On a line of its own, to the agent: a read that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Names it until it is answered.
    pub number: RawFd,
    /// Which of the mount's content files, in the order in which they were given.
    pub file: u32,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub count: u64,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Of which.
    pub number: RawFd,
    /// Whether its bytes are there.
    pub outcome: Outcome,
}

/// How a read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of its bytes are there.
    Here,
    /// They cannot be had.
    Failed,
}

/// Sends a message.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::other("a message to or from a holder is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    loop {
        let parts = [IoSlice::new(&bytes)];
        match sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Waits for a message; `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0; LONGEST];
    let Some((length, descriptors)) = receive_bytes(socket, &mut bytes)? else { return Ok(None) };
    let message = serde_json::from_slice(&bytes[..length])?;
    Ok(Some((message, descriptors)))
}

/// Waits for bytes and what comes beside them; `None` when the other end is gone. What does not fit is an error.
pub(crate) fn receive_bytes(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(received) => break received,
        }
    };
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    Ok(Some((received.bytes, descriptors)))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_message_arrives_with_its_descriptors_and_apart_from_the_next_one() {
        let (one, other) = pair();
        let file = tempfile::tempfile().unwrap();
        let keep = FromAgent::Keep { name: "a".into() };
        send(&one, &keep, &[file.as_fd(), file.as_fd()]).unwrap();
        send(&one, &FromAgent::Farewell { then: Then::Another }, &[]).unwrap();
        let (said, descriptors) = receive::<FromAgent>(&other).unwrap().unwrap();
        assert_eq!((said, descriptors.len()), (keep, 2));
        let (said, descriptors) = receive::<FromAgent>(&other).unwrap().unwrap();
        assert_eq!((said, descriptors.len()), (FromAgent::Farewell { then: Then::Another }, 0));
        drop(one);
        assert!(receive::<FromAgent>(&other).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (one, other) = pair();
        let long = vec![b' '; 2 * LONGEST];
        for garbage in [&b"{}"[..], b"\xff", br#"{"say":"keep"}"#, &long] {
            rustix::io::write(&one, garbage).unwrap();
            assert!(receive::<FromAgent>(&other).is_err());
        }
        let too_long = FromAgent::Keep { name: "x".repeat(LONGEST) };
        assert!(send(&one, &too_long, &[]).is_err());
    }
}
