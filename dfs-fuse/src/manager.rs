//! The manager of a cluster, asked once: who takes part, or what stands at its address instead.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dfs_peer::dial::{Dialer, Link};
use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::{MemberList, MembersRequest};
use dfs_service::net::{TcpLinkDialer, grpc_channel_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Most of a member list that is looked at, in bytes.
const MAX_LIST: usize = 8 << 20;

/// How long whoever stands at the address may take to show what they are.
const SHOW_WITHIN: Duration = Duration::from_secs(1);

/// A question that every web server answers, if only to refuse it.
const HTTP: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// A hello that every TLS server answers with an alert: it is empty.
const TLS: &[u8] = &[22, 3, 1, 0, 4, 1, 0, 0, 0];

/// Why no manager answers at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoManager {
    /// The machine is there, and nobody listens.
    #[error("nobody listens there (connection refused)")]
    Refused,
    /// The network knows no way.
    #[error("there is no route to that host")]
    NoRoute,
    /// Nothing comes back.
    #[error("no answer in {} s: the host is down, or a firewall drops what is sent", .0.as_secs())]
    Silent(Duration),
    /// The connection is taken and nothing is said.
    #[error("somebody listens there and does not answer in {} s", .0.as_secs())]
    Mute(Duration),
    /// HTTP/1, not gRPC.
    #[error("a web server answers there, not a manager of dfs")]
    WebServer,
    /// TLS, which managers do not speak.
    #[error("what answers there wants TLS, which a manager of dfs does not speak")]
    Tls,
    /// gRPC, and another service.
    #[error(
        "another service answers there, not the manager: a scheduler and a seed have ports of their own"
    )]
    OtherService,
    /// Bytes that mean nothing.
    #[error("what answers there is not a manager of dfs")]
    Stranger,
    /// Whatever else the manager, or the system, says.
    #[error("{0}")]
    Other(String),
}

impl NoManager {
    /// Whether it may be otherwise in a moment, as when the cluster is just being started.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Refused | Self::NoRoute | Self::Silent(_) | Self::Mute(_) | Self::Other(_)
        )
    }
}

/// What a manager says of its cluster.
pub struct Answer {
    /// Where it answered.
    pub address: SocketAddr,
    /// Its schedulers and seeds.
    pub members: MemberList,
    /// The time there, as HTTP writes it.
    pub date: Option<String>,
}

/// Asks at these addresses, in turn, each for no longer than `within`; the first reason where none answers.
pub async fn ask_any(addresses: &[SocketAddr], within: Duration) -> Result<Answer, NoManager> {
    let mut first = None;
    for address in addresses {
        match ask(*address, within).await {
            Ok(answer) => return Ok(answer),
            Err(reason) => first = first.or(Some(reason)),
        }
    }
    Err(first.unwrap_or(NoManager::NoRoute))
}

/// Asks the manager at `address`.
pub async fn ask(address: SocketAddr, within: Duration) -> Result<Answer, NoManager> {
    // Whether anybody is there at all is told best by the system.
    drop(dial(address, within).await?);
    let mut client =
        ManagerClient::new(grpc_channel_to(address)).max_decoding_message_size(MAX_LIST);
    let asking = client.members(MembersRequest::default());
    match tokio::time::timeout(within, asking).await {
        Ok(Ok(reply)) => {
            let date = reply.metadata().get("date").and_then(|date| date.to_str().ok());
            let date = date.map(str::to_owned);
            Ok(Answer { address, members: reply.into_inner(), date })
        }
        Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
            Err(NoManager::OtherService)
        }
        Ok(Err(_)) | Err(_) => Err(what_stands_at(address, within).await),
    }
}

async fn dial(address: SocketAddr, within: Duration) -> Result<Box<dyn Link>, NoManager> {
    match tokio::time::timeout(within, TcpLinkDialer.dial(address)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(error)) => Err(of_system(&error).unwrap_or(NoManager::Silent(within))),
        Err(_) => Err(NoManager::Silent(within)),
    }
}

fn of_system(error: &io::Error) -> Option<NoManager> {
    match error.kind() {
        io::ErrorKind::TimedOut => None,
        io::ErrorKind::ConnectionRefused => Some(NoManager::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(NoManager::NoRoute)
        }
        _ => Some(NoManager::Other(error.to_string())),
    }
}

/// Who takes connections at `address`, where no gRPC came about.
async fn what_stands_at(address: SocketAddr, within: Duration) -> NoManager {
    let to_http = match shown_to(address, HTTP, within).await {
        Ok(shown) => shown,
        Err(reason) => return reason,
    };
    if to_http.starts_with(b"HTTP/") {
        return NoManager::WebServer;
    }
    match shown_to(address, TLS, within).await {
        // An alert or a handshake, and the version.
        Ok(shown) if matches!(shown[..], [21 | 22, 3, ..]) => NoManager::Tls,
        Ok(shown) if shown.is_empty() && to_http.is_empty() => NoManager::Mute(within),
        Ok(_) => NoManager::Stranger,
        Err(reason) => reason,
    }
}

/// The first bytes of the answer to `question`; none where nothing is said.
async fn shown_to(
    address: SocketAddr,
    question: &[u8],
    within: Duration,
) -> Result<Vec<u8>, NoManager> {
    let mut link = dial(address, within).await?;
    let mut shown = [0; 16];
    let showing = async {
        link.write_all(question).await?;
        link.read(&mut shown).await
    };
    // Whoever breaks the connection off has shown nothing.
    let length = match tokio::time::timeout(SHOW_WITHIN, showing).await {
        Ok(Ok(length)) => length,
        Ok(Err(_)) | Err(_) => 0,
    };
    Ok(shown[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use dfs_service::net::{self, Port};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(2);

    async fn listener() -> TcpListener {
        net::bind("test", [127, 0, 0, 1].into(), Port::Exactly(0)).await.unwrap()
    }

    /// Why nobody answers where whoever connects gets `said`, once they have spoken.
    async fn asked(said: &'static [u8]) -> NoManager {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let serving = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = [0; 9];
                // Who asks may go without a word.
                let _ = stream.read_exact(&mut heard).await;
                let _ = stream.write_all(said).await;
                let _ = stream.shutdown().await;
            }
        };
        tokio::select! {
            answer = ask(address, WITHIN) => answer.err().unwrap(),
            () = serving => unreachable!(),
        }
    }

    #[tokio::test]
    async fn whoever_stands_in_the_managers_place_is_told_by_their_answer() {
        assert_eq!(asked(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, NoManager::WebServer);
        assert_eq!(asked(&[21, 3, 3, 0, 2, 2, 50]).await, NoManager::Tls);
        assert_eq!(asked(b"SSH-2.0-OpenSSH_9.6\r\n").await, NoManager::Stranger);
    }

    #[tokio::test]
    async fn nobody_and_one_who_says_nothing_are_told_apart() {
        let mute = listener().await;
        let address = mute.local_addr().unwrap();
        let within = Duration::from_millis(100);
        assert_eq!(ask(address, within).await.err(), Some(NoManager::Mute(within)));
        drop(mute);
        assert_eq!(ask(address, WITHIN).await.err(), Some(NoManager::Refused));
        assert_eq!(ask_any(&[address], WITHIN).await.err(), Some(NoManager::Refused));
    }

    #[tokio::test]
    async fn another_service_of_grpc_is_no_manager() {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = net::grpc_server().add_routes(tonic::service::Routes::default());
        tokio::select! {
            answer = ask(address, WITHIN) => assert_eq!(answer.err(), Some(NoManager::OtherService)),
            served = net::serve_grpc(router, listener, stop) => panic!("{served:?}"),
        }
    }
}
