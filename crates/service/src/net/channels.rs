//! gRPC channels kept by whom they lead to: whoever talks to one server shares one connection.

use std::collections::HashMap;
use std::net::SocketAddr;

use dfs_peer::dial::Callee;
use dfs_peer::swarm::Channels;
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::grpc::grpc_channel_to;
use super::security::Security;

/// Most servers remembered; a cluster has far fewer schedulers and managers.
const MAX_CHANNELS: usize = 1024;

/// gRPC channels over TCP.
#[derive(Default)]
pub struct GrpcChannels {
    security: Security,
    known: Mutex<HashMap<(SocketAddr, Callee), Channel>>,
}

impl GrpcChannels {
    /// Channels that are protected so.
    pub fn new(security: Security) -> Self {
        Self { security, known: Mutex::default() }
    }
}

impl Channels for GrpcChannels {
    fn channel(&self, address: SocketAddr, callee: Callee) -> Channel {
        let mut known = self.known.lock();
        if known.len() >= MAX_CHANNELS {
            known.clear();
        }
        let made = || grpc_channel_to(address, callee, &self.security);
        known.entry((address, callee)).or_insert_with(made).clone()
    }
}
