//! Two thousand clients ask for one URL that nobody has, within the time that its origin takes for one answer.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use dfs_proto::node::node_client::NodeClient;
use dfs_proto::node::read_chunk::Kind;
use dfs_proto::node::{ReadChunk, ReadRequest};
use dfs_source::Target;
use dfs_tests::{Body, Fault, Origin};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::support::site::Site;
use crate::support::{Agent, Place, all, until};

const AGENTS: usize = 8;
const CONNECTIONS_OF_ONE: usize = 50;
/// As of one program that reads several files.
const CLIENTS_OF_A_CONNECTION: usize = 5;
const CLIENTS: usize = AGENTS * CONNECTIONS_OF_ONE * CLIENTS_OF_A_CONNECTION;
const LENGTH: u64 = 256 * 1024 + 17;

/// All that one client reads.
async fn read(mut client: NodeClient<Channel>, url: String) -> Vec<u8> {
    let target = Some(dfs_peer::targets::to_wire(&Target::parse(&url).unwrap()));
    let request = ReadRequest { target, ..ReadRequest::default() };
    let mut chunks = client.read(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(ReadChunk { kind }) = chunks.message().await.unwrap() {
        if let Some(Kind::Data(data)) = kind {
            bytes.extend_from_slice(&data);
        }
    }
    bytes
}

/// All of them read a path that nobody has; what that costs the origin: requests, and bytes of the file.
fn stampede(agents: &[Agent], origin: &Origin, path: &str) -> (u64, u64) {
    let body = Body::noise(LENGTH, LENGTH);
    origin.put(path, body.clone());
    let gate = origin.inject(Fault::gate().on(path));
    let heard = "dfs_connections{listener=\"local\",state=\"heard\"}";
    let open = || agents.iter().map(|agent| agent.metric(heard)).sum::<u64>();
    let before = open();
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.worker_threads(2).enable_all().build().unwrap();
    let mut reading = JoinSet::new();
    for agent in agents {
        for _ in 0..CONNECTIONS_OF_ONE {
            let _entered = runtime.enter();
            // Patient, as a program may be: how soon an agent answers on a busy machine is not what is looked at.
            let socket = format!("unix://{}", agent.socket().display());
            let client = NodeClient::new(Endpoint::from_shared(socket).unwrap().connect_lazy());
            for _ in 0..CLIENTS_OF_A_CONNECTION {
                reading.spawn_on(read(client.clone(), origin.url(path)), runtime.handle());
            }
        }
    }
    let connections = (AGENTS * CONNECTIONS_OF_ONE) as u64;
    until("all have asked", || open() >= before + connections);
    assert!(origin.counters().path(path).body_bytes == 0, "it answered before");
    gate.wait_struck(1).unwrap();
    gate.lift();
    let wanted = all(&body);
    let read = runtime.block_on(reading.join_all());
    assert_eq!(read.len(), CLIENTS);
    assert!(read.iter().all(|bytes| *bytes == wanted), "somebody has wrong bytes");
    let cost = origin.counters().path(path);
    (cost.requests, cost.body_bytes)
}

#[test]
fn two_thousand_who_ask_at_once_cost_the_origin_one_copy_and_one_of_each_agent_when_alone() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    let mut site = Site::start(&place);
    let names: [String; AGENTS] = std::array::from_fn(|number| format!("agent-{number}"));
    let agents = names.map(|name| site.agent(&place, &name));
    let (requests, bytes) = stampede(&agents, &origin, "/cold");
    // What it is, and then each piece once.
    assert!(bytes == LENGTH && requests <= 3, "{requests} requests, {bytes} bytes of {LENGTH}");
    site.scheduler.kill();
    let (requests, bytes) = stampede(&agents, &origin, "/colder");
    let agents = AGENTS as u64;
    let most = agents * 3;
    assert!(bytes <= agents * LENGTH && requests <= most, "{requests} requests, {bytes} bytes");
}

/// Reads a mounted file in steps, from its beginning to its end.
fn read_through(dir: &Path, body: &Body) {
    const STEP: u64 = 128 * 1024;
    let path = fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let file = fs::File::open(path).unwrap();
    let length = body.length().unwrap();
    for at in (0..length).step_by(STEP as usize) {
        let end = length.min(at + STEP);
        let mut bytes = vec![0; (end - at) as usize];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert!(bytes == body.read(at, end).unwrap(), "at {at}");
    }
}

#[test]
fn eight_who_read_a_mounted_file_from_front_to_back_take_it_from_each_other() {
    let place = Place::new();
    let body = Body::noise(8, (24 << 20) + 17);
    let length = body.length().unwrap();
    let origin = Origin::of("/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(8 << 20));
    let site = Site::start(&place);
    let agents: Vec<Agent> =
        (0..AGENTS).map(|n| site.agent(&place, &format!("reader{n}"))).collect();
    let mount = |agent: &Agent| {
        let at = place.dir(&format!("mount-{}", agent.node.name()));
        agent.mount(&origin.url("/f"), at)
    };
    let dirs: Vec<_> = agents.iter().map(mount).collect();
    thread::scope(|scope| {
        // Each begins when the one before has a little: all are only a bit behind each other.
        for (agent, dir) in agents.iter().zip(&dirs) {
            scope.spawn(|| read_through(dir, &body));
            until("it has a little", || agent.cached(length) > 0);
        }
    });
    assert!(pace.struck() > 0);
    let served = |agent: &Agent| agent.metric("dfs_node_served_bytes_total");
    let by_nodes: u64 = agents.iter().map(served).sum();
    let by_seed = site.seed.metric("dfs_seed_served_bytes_total").unwrap();
    println!("{by_nodes} bytes from each other, {by_seed} from the seed");
    assert!(by_seed < 3.0 * length as f64, "what one was given the others take from that one");
    let sent = origin.counters().body_bytes;
    assert!(sent as f64 <= 1.05 * length as f64, "{sent} of {length}");
    let read = |agent: &Agent| agent.metric("dfs_node_source_bytes_total");
    assert_eq!(agents.iter().map(read).sum::<u64>(), 0, "the seed has it");
}
