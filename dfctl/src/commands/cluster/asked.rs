//! A cluster asked by its address: who takes part in it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::{Member, MembersRequest, Role};
use serde_json::{Value, json};

use crate::output::{Record, printable, table};

/// Most of a member list that is looked at, in bytes.
const MAX_LIST: usize = 8 << 20;

/// What a cluster said.
pub struct Reached {
    /// The address that was asked.
    pub address: SocketAddr,
    /// Its schedulers and seeds.
    pub members: Vec<Member>,
    /// The time there, to the second, where it said so.
    pub date: Option<SystemTime>,
}

/// Asks the manager at `address`.
pub async fn ask(address: SocketAddr, within: Duration) -> Result<Reached, String> {
    let channel = dfs_service::net::grpc_channel_to(address);
    let mut client = ManagerClient::new(channel).max_decoding_message_size(MAX_LIST);
    let asking = client.members(MembersRequest::default());
    let reply = match tokio::time::timeout(within, asking).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(status)) => return Err(reason(&status)),
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let date = reply.metadata().get("date").and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    Ok(Reached { address, members: reply.into_inner().members, date })
}

/// The innermost cause says most.
fn reason(status: &tonic::Status) -> String {
    let mut reason = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        reason = error.to_string();
        next = error.source();
    }
    printable(&reason)
}

impl Reached {
    fn names(&self, role: Role) -> Vec<String> {
        let members = self.members.iter().filter(|member| member.role() == role);
        let name = |member: &Member| {
            let host = member.host.clone().unwrap_or_default();
            let at = host.grpc.first().map(|at| format!(" {}:{}", at.ip, at.port));
            printable(&format!("{}{}", host.name, at.unwrap_or_default()))
        };
        members.map(name).collect()
    }

    /// Whether it can do its work.
    pub fn is_ready(&self) -> bool {
        !self.names(Role::Scheduler).is_empty()
    }

    /// For people.
    pub fn human(&self) -> String {
        let told = |role| match self.names(role) {
            names if names.is_empty() => "none".to_owned(),
            names => names.join(", "),
        };
        table::facts(&[
            ("cluster", self.address.to_string()),
            ("manager", "ready".to_owned()),
            ("schedulers", told(Role::Scheduler)),
            ("seeds", told(Role::Seed)),
        ])
    }
}

impl Record for Reached {
    fn json(&self) -> Value {
        json!({
            "ready": self.is_ready(),
            "address": self.address.to_string(),
            "schedulers": self.names(Role::Scheduler),
            "seeds": self.names(Role::Seed),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.address.to_string().into_bytes()
    }
}
