//! The agent over a real origin: how often it asks, and on whose behalf.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;
use std::time::Duration;

use dfs_artifact::View;
use dfs_fuse::agent::{Agent, AgentFacts, CommandId, Question};
use dfs_model::Location;
use dfs_peer::engine::Lifetime;
use dfs_peer::engine::Role;
use dfs_peer::host::{Host, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_peer::opener::Purpose;
use dfs_service::net::{GrpcChannels, TcpLinkDialer};
use dfs_source::{FileOptions, HttpOptions, Sources, Target};
use dfs_tests::origin::Injected;
use dfs_tests::{Body, Fault, Origin};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

struct Bench {
    agent: Agent,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dfs_service::data_dir::private_dir(&dir.path().join("agent")).unwrap();
        let options = HostOptions {
            role: Role::Solo,
            data_dir: data_dir.clone(),
            name: "test".to_owned(),
            location: Location::default(),
            medium: dfs_peer::store::Medium::Disk,
            capacity: None,
            upload_rate: None,
            slots: SlotLimits::default(),
            patience: Duration::from_secs(3),
            managers: Vec::new(),
            sources: Sources::builder().http(HttpOptions::default()).file(FileOptions::default()),
            lifetime: Lifetime::OfTheProcess,
            compression: dfs_peer::wire::Compression::Auto,
            lent: dfs_peer::store::Lent::default(),
        };
        let network = Network {
            dialer: Arc::new(TcpLinkDialer::default()),
            acceptor: None,
            channels: Arc::new(GrpcChannels::default()),
            advertise: Vec::new(),
            leads_at: Vec::new(),
        };
        let stop = CancellationToken::new();
        let host = Host::start(options, network, &TaskTracker::new(), &stop).unwrap();
        let facts = AgentFacts { data_dir, cluster: String::new(), capacity: None, socket: None };
        Self { agent: Agent::new(host, facts, None), stop, _dir: dir }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn origin() -> Origin {
    Origin::of("/d/f", Body::noise(1, 1_000)).unwrap()
}

fn tree(url: &str) -> Question {
    Question {
        target: Target::parse(url).unwrap(),
        view: View::Tree,
        command: None,
        purpose: Purpose::Look,
    }
}

fn as_user(origin: &Origin, user: &str) -> Question {
    tree(&origin.url("/d/").replace("http://", &format!("http://{user}@")))
}

async fn has_struck(fault: &Injected) {
    let fault = fault.clone();
    tokio::task::spawn_blocking(move || fault.wait_struck(1).unwrap()).await.unwrap();
}

/// Requests that it takes to open the tree, without company.
async fn once(question: impl Fn(&Origin) -> Question) -> u64 {
    let (bench, origin) = (Bench::new(), origin());
    bench.agent.open(&question(&origin)).await.unwrap();
    origin.counters().requests
}

#[tokio::test]
async fn those_who_ask_the_same_at_the_same_time_cost_the_origin_one_question() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let ask = || bench.agent.open(&question);
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()) && c.is_ok());
    let needed = once(|origin| tree(&origin.url("/d/"))).await;
    assert!(needed > 0);
    assert_eq!(origin.counters().requests, needed);
    ask().await.unwrap();
    assert_eq!(origin.counters().requests, needed, "an answer of a moment ago is used again");
    bench.agent.forget(&question.target);
    ask().await.unwrap();
    assert_eq!(origin.counters().requests, 2 * needed, "what is gone is asked for anew");
}

#[tokio::test]
async fn a_question_goes_on_when_its_first_asker_leaves() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let gate = origin.inject(Fault::gate());
    let mut first = Box::pin(bench.agent.open(&question));
    let mut second = Box::pin(bench.agent.open(&question));
    tokio::select! {
        biased;
        _ = &mut first => panic!("it is held back"),
        _ = &mut second => panic!("it is held back"),
        () = has_struck(&gate) => {}
    }
    drop(first);
    gate.lift();
    second.await.unwrap();
    assert_eq!(origin.counters().requests, once(|origin| tree(&origin.url("/d/"))).await);
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_waited_and_to_nobody_later() {
    let (bench, origin) = (Bench::new(), Origin::start().unwrap());
    let question = tree(&origin.url("/d/"));
    let (a, b) = tokio::join!(bench.agent.open(&question), bench.agent.open(&question));
    assert!(a.is_err() && b.is_err());
    origin.put("/d/f", Body::noise(1, 1_000));
    bench.agent.open(&question).await.unwrap();
}

#[tokio::test]
async fn each_asker_is_proved_by_the_origin_also_among_many_at_once() {
    let (bench, origin) = (Bench::new(), origin());
    // "ada:secret".
    let door = origin.inject(Fault::require_authorization("Basic YWRhOnNlY3JldA=="));
    let (ada, bob) = (as_user(&origin, "ada:secret"), as_user(&origin, "bob:guess"));
    let nobody = tree(&origin.url("/d/"));
    let ask = |question| bench.agent.open(question);
    let (a, b, n) = tokio::join!(ask(&ada), ask(&bob), ask(&nobody));
    assert!(a.is_ok() && b.is_err() && n.is_err());
    assert!(door.struck() >= 2);
    // What is known and here by now opens no door either.
    assert!(ask(&bob).await.is_err() && ask(&nobody).await.is_err());
    assert!(ask(&ada).await.is_ok());
}

#[tokio::test]
async fn a_command_does_not_wait_for_what_others_ask_anew() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let began = Question { command: CommandId::from_slice(&[1; 16]), ..question.clone() };
    let first = bench.agent.open(&began).await.unwrap();
    bench.agent.forget(&question.target);
    let gate = origin.inject(Fault::gate());
    let mut other = Box::pin(bench.agent.open(&question));
    tokio::select! {
        biased;
        _ = &mut other => panic!("it is held back"),
        () = has_struck(&gate) => {}
    }
    let again = bench.agent.open(&began).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "it goes on with its own");
    gate.lift();
    let other = other.await.unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    let still = bench.agent.open(&began).await.unwrap();
    assert!(Arc::ptr_eq(&first, &still), "also now that there is a newer one");
}

#[tokio::test]
async fn what_was_asked_before_a_version_turned_out_to_be_gone_is_told_to_nobody_new() {
    let (bench, origin) = (Bench::new(), origin());
    let question = tree(&origin.url("/d/"));
    let gate = origin.inject(Fault::gate());
    let mut early = Box::pin(bench.agent.open(&question));
    tokio::select! {
        biased;
        _ = &mut early => panic!("it is held back"),
        () = has_struck(&gate) => {}
    }
    bench.agent.forget(&question.target);
    gate.lift();
    let early = early.await.unwrap();
    let asked = origin.counters().requests;
    let late = bench.agent.open(&question).await.unwrap();
    assert!(!Arc::ptr_eq(&early, &late));
    assert!(origin.counters().requests > asked, "the origin was asked");
    assert!(Arc::ptr_eq(&late, &bench.agent.open(&question).await.unwrap()), "that is news");
}
