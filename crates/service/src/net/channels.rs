//! gRPC channels kept by address: whoever talks to one server shares one connection.

use std::collections::HashMap;
use std::net::SocketAddr;

use dfs_peer::swarm::Channels;
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::grpc::grpc_channel_to;

/// Most servers remembered; a cluster has far fewer schedulers and managers.
const MAX_CHANNELS: usize = 1024;

/// Plain gRPC channels over TCP.
#[derive(Debug, Default)]
pub struct GrpcChannels {
    known: Mutex<HashMap<SocketAddr, Channel>>,
}

impl Channels for GrpcChannels {
    fn channel(&self, address: SocketAddr) -> Channel {
        let mut known = self.known.lock();
        if known.len() >= MAX_CHANNELS {
            known.clear();
        }
        known.entry(address).or_insert_with(|| grpc_channel_to(address)).clone()
    }
}
