//! A thousand hosts come to one scheduler at once: the program as it is run, over its own gRPC.

#![allow(clippy::unwrap_used)] // The lint knows only functions marked as tests, not what they call.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfs_model::{CanonicalUrl, HostId, TaskInfo, TaskKey, TaskKind, Transform, Validator};
use dfs_proto::common;
use dfs_proto::scheduler::host_message::Kind as Up;
use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use dfs_proto::scheduler::scheduler_message::Kind as Down;
use dfs_proto::scheduler::{Announce, HostMessage, Register, SchedulerMessage};
use ed25519_dalek::SigningKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

const HOSTS: u32 = 1000;

/// Hosts that share a connection: what is asked is what the scheduler does, not how many files a test may open.
const SHARING: u32 = 10;

/// How long all of it may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the scheduler may take more in memory for each host.
const BYTES_A_HOST: u64 = 96 << 10;

/// A program of ours, which ends with its test.
struct Program {
    child: Child,
    run: std::path::PathBuf,
}

impl Program {
    fn start(dir: &Path, role: &str, manager: Option<&str>) -> Self {
        let data = dir.join(role);
        let mut command = Command::new(env!("CARGO_BIN_EXE_dfs-cluster"));
        command.args([role, "--port-grpc", "0", "--port-metrics", "0"]);
        command.arg("--data-dir").arg(&data).stdin(Stdio::null());
        command.args(manager.iter().flat_map(|at| ["--manager", at]));
        let log = File::create(dir.join(format!("{role}.log"))).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap(), run: data.join("run.json") }
    }

    /// Where it serves this, once it does.
    async fn address(&self, service: &str) -> String {
        let announced = || {
            let told: serde_json::Value =
                serde_json::from_slice(&fs::read(&self.run).ok()?).ok()?;
            Some(told["addresses"][service].as_str()?.to_owned())
        };
        let found = async {
            loop {
                if let Some(found) = announced() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it announces itself")
    }

    /// Bytes that it has in memory, and the most that it had.
    fn memory(&self) -> [u64; 2] {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        ["VmRSS:", "VmHWM:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn task() -> TaskInfo {
    let length = Some(1 << 30);
    let key = TaskKey {
        domain: TaskKey::PUBLIC.into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse("https://example.org/wanted").unwrap(),
        headers: Vec::new(),
        validator: Validator { length, ..Validator::default() },
        transform: Transform::Identity,
    };
    TaskInfo::new(key, length, true)
}

fn host(number: u32) -> common::Host {
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let public_key = SigningKey::from_bytes(&secret).verifying_key();
    let id = *secret.first_chunk().unwrap();
    let pieces = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
    common::Host {
        id: HostId::from_bytes(id).as_bytes().to_vec().into(),
        kind: common::HostKind::Node.into(),
        name: format!("host-{number}"),
        pieces: vec![pieces.into()],
        public_key: public_key.as_bytes().to_vec().into(),
        ..common::Host::default()
    }
}

/// A host that has been answered, and stays.
struct Answered {
    _up: mpsc::Sender<HostMessage>,
    _down: Streaming<SchedulerMessage>,
}

/// Announces a host, registers it for the task, and hears the answer.
async fn register(
    mut client: SchedulerClient<tonic::transport::Channel>,
    number: u32,
) -> Result<Answered, String> {
    let (up, stream) = mpsc::channel(4);
    let announce = Announce { host: Some(host(number)), ..Announce::default() };
    let register = Register { task: Some((&task()).into()), ..Register::default() };
    for kind in [Up::Announce(announce), Up::Register(register)] {
        up.try_send(HostMessage { kind: Some(kind) }).unwrap();
    }
    let answer = client.attend(ReceiverStream::new(stream)).await;
    let mut down = answer.map_err(|status| status.to_string())?.into_inner();
    loop {
        let message = down.message().await.map_err(|status| status.to_string())?;
        match message.ok_or("the stream ended")?.kind {
            Some(Down::Registered(_)) => return Ok(Answered { _up: up, _down: down }),
            Some(Down::Refused(refused)) => return Err(format!("{refused:?}")),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hosts_at_once_are_all_answered_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Program::start(dir.path(), "manager", None);
    let manager_at = manager.address("grpc").await;
    let scheduler = Program::start(dir.path(), "scheduler", Some(&manager_at));
    let at = format!("http://{}", scheduler.address("grpc").await);
    let [before, _] = scheduler.memory();

    let mut registering = JoinSet::new();
    for first in (0..HOSTS).step_by(SHARING as usize) {
        let channel = Endpoint::from_shared(at.clone()).unwrap().connect_lazy();
        let client = SchedulerClient::new(channel);
        for number in first..first + SHARING {
            registering.spawn(register(client.clone(), number));
        }
    }
    let all = tokio::time::timeout(PATIENCE, registering.join_all()).await.expect("all answers");
    let answered: Vec<Answered> = all.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(answered.len(), HOSTS as usize);

    let [_, most] = scheduler.memory();
    let more = most.saturating_sub(before);
    println!("{} KiB before, {} KiB more at most", before >> 10, more >> 10);
    assert!(more <= u64::from(HOSTS) * BYTES_A_HOST, "{more} bytes for {HOSTS} hosts");
}
