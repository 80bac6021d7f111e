//! The manager of a cluster, asked once: who takes part, or what stands at its address instead.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dfs_peer::dial::Callee;
use dfs_peer::error_chain;
use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::{MemberList, MembersRequest};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::stream::connected;
use crate::config::{LookUpError, ServiceAddress};
use crate::net::{Security, grpc_channel_to};

/// Most of a member list that is looked at, in bytes.
const MAX_LIST: usize = 8 << 20;

/// How long whoever stands at the address may take to show what they are.
const SHOW_WITHIN: Duration = Duration::from_secs(1);

/// The part of the time that is kept for finding out who it is that does not answer: one in so many.
const KEPT: u32 = 8;

/// Less time than this is not worth another question.
const WORTH_ASKING: Duration = Duration::from_millis(250);

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
    #[error("no answer in {}: the host is down, or a firewall drops what is sent", seconds(*.0))]
    Silent(Duration),
    /// The connection is taken and nothing is said.
    #[error("somebody listens there and does not answer in {}", seconds(*.0))]
    Mute(Duration),
    /// HTTP/1, not gRPC.
    #[error("a web server answers there, not a manager of dfs")]
    WebServer,
    /// TLS, and this process has no certificate.
    #[error(
        "what answers there wants a certificate, and none is here: join the cluster first \
         (`dfctl cluster join-token` there, `dfs-fuse --join JOIN-TOKEN` here)"
    )]
    Tls,
    /// TLS, of which nothing comes.
    #[error("{0}")]
    Distrusted(String),
    /// gRPC without TLS, and this process has a certificate.
    #[error("what answers there speaks without TLS, and is taken for no manager of this cluster")]
    Unprotected,
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

/// To a tenth, and never none.
fn seconds(time: Duration) -> String {
    let tenths = ((time.as_millis() + 50) / 100).max(1);
    match tenths % 10 {
        0 => format!("{} s", tenths / 10),
        tenth => format!("{}.{tenth} s", tenths / 10),
    }
}

/// Why a cluster is not reached by its address.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Unreached {
    /// The name leads nowhere.
    Name(#[from] LookUpError),
    /// No manager answers there.
    Manager(#[from] NoManager),
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

/// The time that an answer may take, with all that is done to get it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    begun: Instant,
    within: Duration,
}

impl Patience {
    /// From now on.
    pub fn of(within: Duration) -> Self {
        Self { begun: Instant::now(), within }
    }

    /// What is left of it for looking up and asking.
    pub fn for_asking(&self) -> Duration {
        (self.within - self.within / KEPT).saturating_sub(self.spent())
    }

    /// Whether there is time to ask again.
    pub fn allows_another(&self) -> bool {
        self.for_asking() >= WORTH_ASKING
    }

    fn spent(&self) -> Duration {
        self.begun.elapsed()
    }

    fn left(&self) -> Duration {
        self.within.saturating_sub(self.spent())
    }
}

/// Why there is no answer at one address.
enum Missed {
    /// Nobody takes a connection.
    Away(NoManager),
    /// Whoever took it answered so, over gRPC.
    Told(NoManager),
    /// Somebody took it, and no gRPC came about; why, where that is known.
    NoGrpc(Option<String>),
}

/// Looks the address up and asks there.
pub async fn ask(
    cluster: &ServiceAddress,
    within: Duration,
    security: &Security,
) -> Result<Answer, Unreached> {
    let patience = Patience::of(within);
    let managers = cluster.resolve_within(patience.for_asking()).await?;
    Ok(ask_any(&managers, patience, security).await?)
}

/// Asks at all of these addresses at once; the first answer. Where there is none, why not: at the first that
/// somebody is at, else at the first.
pub async fn ask_any(
    addresses: &[SocketAddr],
    patience: Patience,
    security: &Security,
) -> Result<Answer, NoManager> {
    let asking = addresses.iter().enumerate();
    let asking =
        asking.map(|(place, at)| async move { (place, ask_at(*at, patience, security).await) });
    let mut asking: FuturesUnordered<_> = asking.collect();
    let mut missed = Vec::new();
    while let Some((place, answer)) = asking.next().await {
        match answer {
            Ok(answer) => return Ok(answer),
            Err(reason) => missed.push((place, reason)),
        }
    }
    let telling = |(place, reason): &(usize, Missed)| (matches!(reason, Missed::Away(_)), *place);
    Err(match missed.into_iter().min_by_key(telling) {
        Some((_, Missed::Away(reason) | Missed::Told(reason))) => reason,
        Some((place, Missed::NoGrpc(why))) => {
            let found = what_stands_at(addresses[place], patience).await;
            with_certificate(found, why, security)
        }
        None => NoManager::NoRoute,
    })
}

/// What is concluded by a process that has a certificate itself.
fn with_certificate(found: NoManager, why: Option<String>, security: &Security) -> NoManager {
    match (found, why) {
        (NoManager::Tls, Some(why)) if security.is_tls() => NoManager::Distrusted(why),
        (NoManager::Mute(_), Some(_)) if security.is_tls() => NoManager::Unprotected,
        (found, _) => found,
    }
}

async fn ask_at(
    address: SocketAddr,
    patience: Patience,
    security: &Security,
) -> Result<Answer, Missed> {
    // Whether anybody is there at all is told best by the system.
    drop(dial(address, patience, patience.for_asking()).await.map_err(Missed::Away)?);
    let channel = grpc_channel_to(address, Callee::Manager, security);
    let mut client = ManagerClient::new(channel).max_decoding_message_size(MAX_LIST);
    let asking = client.members(MembersRequest::default());
    match tokio::time::timeout(patience.for_asking(), asking).await {
        Ok(Ok(reply)) => {
            let date = reply.metadata().get("date").and_then(|date| date.to_str().ok());
            let date = date.map(str::to_owned);
            Ok(Answer { address, members: reply.into_inner(), date })
        }
        Ok(Err(status)) => Err(missed_by(&status)),
        Err(_) => Err(Missed::NoGrpc(None)),
    }
}

fn missed_by(status: &Status) -> Missed {
    // What has a cause was found out on this side: nobody there has said it.
    if let Some(cause) = status.source() {
        return Missed::NoGrpc(Some(error_chain(cause)));
    }
    Missed::Told(match (status.code(), status.message()) {
        (Code::Unimplemented, _) => NoManager::OtherService,
        (code, "") => NoManager::Other(code.to_string()),
        (_, words) => NoManager::Other(words.to_owned()),
    })
}

async fn dial(
    address: SocketAddr,
    patience: Patience,
    within: Duration,
) -> Result<TcpStream, NoManager> {
    match tokio::time::timeout(within, connected(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(of_system(&error).unwrap_or(NoManager::Silent(patience.spent()))),
        Err(_) => Err(NoManager::Silent(patience.spent())),
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
async fn what_stands_at(address: SocketAddr, patience: Patience) -> NoManager {
    let asking = [HTTP, TLS].map(|question| shown_to(address, question, patience));
    let mut asking: FuturesUnordered<_> = asking.into_iter().collect();
    let mut says_nothing = true;
    while let Some(shown) = asking.next().await {
        match shown {
            Ok(shown) if shown.starts_with(b"HTTP/") => return NoManager::WebServer,
            // An alert or a handshake, and the version.
            Ok(shown) if matches!(shown[..], [21 | 22, 3, ..]) => return NoManager::Tls,
            // It can do gRPC: it may yet be a manager.
            Ok(shown) if is_http2(&shown) => return NoManager::Mute(patience.spent()),
            Ok(shown) => says_nothing &= shown.is_empty(),
            Err(reason) => return reason,
        }
    }
    match says_nothing {
        true => NoManager::Mute(patience.spent()),
        false => NoManager::Stranger,
    }
}

/// Whether these bytes begin with the settings that every server of HTTP/2 opens with, gRPC or not.
fn is_http2(shown: &[u8]) -> bool {
    matches!(shown, [_, _, _, 4, _, 0, 0, 0, 0, ..])
}

/// The first bytes of the answer to `question`; none where nothing is said.
async fn shown_to(
    address: SocketAddr,
    question: &[u8],
    patience: Patience,
) -> Result<Vec<u8>, NoManager> {
    let mut link = dial(address, patience, patience.left()).await?;
    let mut shown = [0; 16];
    let showing = async {
        link.write_all(question).await?;
        link.read(&mut shown).await
    };
    // Whoever breaks the connection off has shown nothing.
    let length = match tokio::time::timeout(SHOW_WITHIN.min(patience.left()), showing).await {
        Ok(Ok(length)) => length,
        Ok(Err(_)) | Err(_) => 0,
    };
    Ok(shown[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use dfs_proto::manager::MembershipRequest;
    use dfs_proto::manager::manager_server::{Manager, ManagerServer};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tonic::service::Routes;
    use tonic::{Request, Response, Streaming};

    use super::*;
    use crate::net::{self, Port};

    const WITHIN: Duration = Duration::from_secs(2);

    async fn listener() -> TcpListener {
        net::bind("test", [127, 0, 0, 1].into(), Port::Exactly(0), &Security::Plain).await.unwrap()
    }

    async fn at(address: SocketAddr, within: Duration) -> NoManager {
        ask_any(&[address], Patience::of(within), &Security::Plain).await.err().unwrap()
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
            reason = at(address, WITHIN) => reason,
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
        let reason = at(address, within).await;
        assert!(matches!(reason, NoManager::Mute(_)), "{reason}");
        assert!(reason.may_pass() && !reason.to_string().contains(" 0 s"), "{reason}");
        drop(mute);
        assert_eq!(at(address, WITHIN).await, NoManager::Refused);
    }

    #[tokio::test]
    async fn addresses_of_which_none_answers_take_no_longer_than_one() {
        let (nobody, mute, other) = (listener().await, listener().await, listener().await);
        let places = [&nobody, &mute, &other].map(|place| place.local_addr().unwrap());
        drop(nobody);
        let begun = Instant::now();
        let within = Duration::from_millis(800);
        let reason = ask_any(&places, Patience::of(within), &Security::Plain).await.err().unwrap();
        assert!(matches!(reason, NoManager::Mute(_)), "not the one that nobody is at: {reason}");
        assert!(begun.elapsed() < 2 * within, "{:?}", begun.elapsed());
    }

    #[test]
    fn time_is_told_to_a_tenth_and_never_as_none() {
        let told = |millis| seconds(Duration::from_millis(millis));
        assert_eq!(
            [0, 100, 999, 2_449, 5_000].map(told),
            ["0.1 s", "0.1 s", "1 s", "2.4 s", "5 s"]
        );
    }

    /// Why nobody answers where these are the routes of gRPC.
    async fn served(routes: Routes, within: Duration) -> NoManager {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        tokio::select! {
            reason = at(address, within) => reason,
            served = net::serve_grpc(routes, listener, Security::Plain, CancellationToken::new()) => panic!("{served:?}"),
        }
    }

    #[tokio::test]
    async fn another_service_of_grpc_is_no_manager() {
        assert_eq!(served(Routes::default(), WITHIN).await, NoManager::OtherService);
    }

    /// A manager in trouble: says why, or nothing.
    struct Troubled(Option<&'static str>);

    #[tonic::async_trait]
    impl Manager for Troubled {
        type MembershipStream = futures::stream::Pending<Result<MemberList, Status>>;

        async fn membership(
            &self,
            _: Request<Streaming<MembershipRequest>>,
        ) -> Result<Response<Self::MembershipStream>, Status> {
            Err(Status::unimplemented("nobody takes part"))
        }

        async fn members(
            &self,
            _: Request<MembersRequest>,
        ) -> Result<Response<MemberList>, Status> {
            match self.0 {
                Some(why) => Err(Status::unavailable(why)),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn a_manager_in_trouble_is_no_stranger_and_may_come_round() {
        let routes = |said| Routes::new(ManagerServer::new(Troubled(said)));
        let reason = served(routes(Some("the database is locked")), WITHIN).await;
        assert_eq!(reason, NoManager::Other("the database is locked".into()));
        assert!(reason.may_pass());
        let reason = served(routes(None), WITHIN / 2).await;
        assert!(matches!(reason, NoManager::Mute(_)) && reason.may_pass(), "{reason}");
    }
}
