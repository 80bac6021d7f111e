//! A cluster asked by its address: who takes part in it.

use std::time::{Duration, SystemTime};

use dfs_proto::manager::{Member, Role};
use dfs_service::config::ServiceAddress;
use dfs_service::net::manager::{self, Unreached};
use serde_json::{Value, json};

use crate::context::Context;
use crate::output::{Record, printable, table};
use crate::reach::security;

/// What a cluster said.
pub struct Reached {
    /// The address that was asked.
    pub address: ServiceAddress,
    /// Its schedulers and seeds.
    pub members: Vec<Member>,
    /// The time there, to the second, where it said so.
    pub date: Option<SystemTime>,
}

/// Asks the manager at `address`; who is there instead where it does not answer.
pub async fn ask(
    context: &Context,
    address: &ServiceAddress,
    within: Duration,
) -> Result<Reached, Unreached> {
    let answer = manager::ask(address, within, &security(context, address)).await?;
    let date = answer.date.and_then(|date| httpdate::parse_http_date(&date).ok());
    Ok(Reached { address: address.clone(), members: answer.members.members, date })
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
