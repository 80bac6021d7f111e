//! Nodes as the scheduler knows them: hosts, and the task that all take part in.

use std::sync::Arc;

use dfs_model::{
    CanonicalUrl, GROUP_BYTES, HostId, HostInfo, HostKind, Location, TaskInfo, TaskKey, TaskKind,
    Transform, Validator,
};

use crate::policy::{Node, place};
use crate::scenario::Scenario;

/// The name of a node as a host.
pub fn host(node: Node) -> HostId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&node.to_be_bytes());
    HostId::from_bytes(bytes)
}

/// The other way.
pub fn node(host: &HostId) -> Node {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&host.as_bytes()[..4]);
    Node::from_be_bytes(bytes)
}

/// What a node says of itself; the source is a seed.
pub fn info(scenario: &Scenario, node: Node) -> Arc<HostInfo> {
    let place = place(scenario, node);
    let location = Location {
        area: String::new(),
        idc: format!("dc{}", place.idc),
        rack: format!("rack{}", place.rack),
    };
    Arc::new(HostInfo {
        id: host(node),
        kind: if node == 0 { HostKind::Seed } else { HostKind::Node },
        name: String::new(),
        location,
        addresses: Vec::new(),
        public_key: [0; 32],
        upload_slots: 0,
    })
}

/// The content of a scenario. A piece of it is a group to the scheduler and to nodes, however many bytes flow for it.
#[allow(clippy::missing_panics_doc, reason = "the URL is one")]
pub fn task(scenario: &Scenario) -> TaskInfo {
    let key = TaskKey {
        domain: TaskKey::PUBLIC.into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse("http://origin.test/content").expect("it is a URL"),
        headers: Vec::new(),
        validator: Validator::default(),
        transform: Transform::Identity,
    };
    TaskInfo::new(key, Some(u64::from(scenario.pieces) * GROUP_BYTES), true)
}
