//! Checked conversions at the edge of every process.

use std::net::{IpAddr, SocketAddr};

use dfs_model::{
    CanonicalUrl, GroupRange, GroupSet, HostId, HostInfo, HostKind, Location, PieceLayout, TaskId,
    TaskInfo, TaskKey, TaskKind, Transform, Validator, is_hidden,
};
use prost::Message as _;

use crate::common;

/// A message that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message field '{field}' {problem}")]
pub struct BadMessage {
    field: &'static str,
    problem: &'static str,
}

impl BadMessage {
    /// What whoever reads on found wrong.
    pub fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }
}

/// Most runs a message may list: more say nothing useful and cost memory.
pub const MAX_RUNS: usize = 65_536;

const MAX_ADDRESSES: usize = 16;
const MAX_HEADERS: usize = 64;
const MAX_TEXT: usize = 8_192;

fn bad(field: &'static str, problem: &'static str) -> BadMessage {
    BadMessage { field, problem }
}

fn text(field: &'static str, value: String) -> Result<String, BadMessage> {
    if value.len() > MAX_TEXT {
        return Err(bad(field, "is too long"));
    }
    Ok(value)
}

/// A name that people will be shown: it must not pretend to be more than that.
fn label(field: &'static str, value: String) -> Result<String, BadMessage> {
    match value.contains(is_hidden) {
        true => Err(bad(field, "has characters that are not shown")),
        false => text(field, value),
    }
}

/// Credentials as they travel inside what is no message of ours.
pub fn encode_credentials(credentials: &common::Credentials) -> Vec<u8> {
    credentials.encode_to_vec()
}

/// Reads what [`encode_credentials`] wrote.
pub fn decode_credentials(bytes: &[u8]) -> Result<common::Credentials, BadMessage> {
    common::Credentials::decode(bytes).map_err(|_| bad("credentials", "is unreadable"))
}

/// A mount as it is kept while no agent serves it.
pub fn encode_kept_mount(kept: &crate::node::KeptMount) -> Vec<u8> {
    kept.encode_to_vec()
}

/// Reads what [`encode_kept_mount`] wrote.
pub fn decode_kept_mount(bytes: &[u8]) -> Result<crate::node::KeptMount, BadMessage> {
    crate::node::KeptMount::decode(bytes).map_err(|_| bad("mount", "is unreadable"))
}

/// A pin as it is kept.
pub fn encode_pin(pin: &crate::node::PinRecord) -> Vec<u8> {
    pin.encode_to_vec()
}

/// Reads what [`encode_pin`] wrote.
pub fn decode_pin(bytes: &[u8]) -> Result<crate::node::PinRecord, BadMessage> {
    crate::node::PinRecord::decode(bytes).map_err(|_| bad("pin", "is unreadable"))
}

/// A member list as it is kept.
pub fn encode_members(list: &crate::manager::MemberList) -> Vec<u8> {
    list.encode_to_vec()
}

/// Reads what [`encode_members`] wrote.
pub fn decode_members(bytes: &[u8]) -> Result<crate::manager::MemberList, BadMessage> {
    crate::manager::MemberList::decode(bytes).map_err(|_| bad("members", "is unreadable"))
}

/// Bytes that a message takes on the wire.
pub fn encoded_len(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

/// Reads a task id.
pub fn task_id(bytes: &[u8]) -> Result<TaskId, BadMessage> {
    TaskId::from_slice(bytes).ok_or_else(|| bad("task_id", "is not 32 bytes"))
}

/// Reads a canonical URL.
pub fn url(url: &str) -> Result<CanonicalUrl, BadMessage> {
    if url.len() > MAX_TEXT {
        return Err(bad("url", "is too long"));
    }
    CanonicalUrl::parse(url).map_err(|_| bad("url", "is not a canonical URL"))
}

/// Reads a host id.
pub fn host_id(bytes: &[u8]) -> Result<HostId, BadMessage> {
    HostId::from_slice(bytes).ok_or_else(|| bad("host_id", "is not 16 bytes"))
}

/// Reads who signs, and by which key.
pub fn signer(signer: &crate::scheduler::Signer) -> Result<(HostId, [u8; 32]), BadMessage> {
    let key = signer.public_key[..].try_into();
    Ok((host_id(&signer.host_id)?, key.map_err(|_| bad("public_key", "is not 32 bytes"))?))
}

impl From<SocketAddr> for common::Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip().to_string(), port: address.port().into() }
    }
}

impl TryFrom<common::Endpoint> for SocketAddr {
    type Error = BadMessage;

    fn try_from(endpoint: common::Endpoint) -> Result<Self, BadMessage> {
        let ip: IpAddr = endpoint.ip.parse().map_err(|_| bad("endpoint.ip", "is no address"))?;
        let port = u16::try_from(endpoint.port).ok().filter(|port| *port != 0);
        Ok(Self::new(ip, port.ok_or_else(|| bad("endpoint.port", "is no port"))?))
    }
}

fn addresses(endpoints: Vec<common::Endpoint>) -> Result<Vec<SocketAddr>, BadMessage> {
    if endpoints.len() > MAX_ADDRESSES {
        return Err(bad("host.pieces", "lists too many addresses"));
    }
    endpoints.into_iter().map(SocketAddr::try_from).collect()
}

impl From<HostKind> for common::HostKind {
    fn from(kind: HostKind) -> Self {
        match kind {
            HostKind::Node => Self::Node,
            HostKind::Seed => Self::Seed,
        }
    }
}

/// What is no seed as far as anybody says is a node.
impl From<common::HostKind> for HostKind {
    fn from(kind: common::HostKind) -> Self {
        match kind {
            common::HostKind::Seed => Self::Seed,
            common::HostKind::Node | common::HostKind::Unspecified => Self::Node,
        }
    }
}

impl From<&HostInfo> for common::Host {
    fn from(host: &HostInfo) -> Self {
        Self {
            id: host.id.as_bytes().to_vec().into(),
            kind: common::HostKind::from(host.kind).into(),
            name: host.name.clone(),
            location: Some(common::Location {
                area: host.location.area.clone(),
                idc: host.location.idc.clone(),
                rack: host.location.rack.clone(),
            }),
            pieces: host.addresses.iter().copied().map(Into::into).collect(),
            grpc: Vec::new(),
            public_key: host.public_key.to_vec().into(),
            upload_slots: host.upload_slots,
            protocol: 1,
        }
    }
}

impl TryFrom<common::Host> for HostInfo {
    type Error = BadMessage;

    fn try_from(host: common::Host) -> Result<Self, BadMessage> {
        if host.kind() == common::HostKind::Unspecified {
            return Err(bad("host.kind", "is missing"));
        }
        let kind = host.kind().into();
        let location = host.location.unwrap_or_default();
        Ok(Self {
            id: host_id(&host.id)?,
            kind,
            name: label("host.name", host.name)?,
            location: Location {
                area: label("location.area", location.area)?,
                idc: label("location.idc", location.idc)?,
                rack: label("location.rack", location.rack)?,
            },
            addresses: addresses(host.pieces)?,
            public_key: host.public_key[..]
                .try_into()
                .map_err(|_| bad("host.public_key", "is not 32 bytes"))?,
            upload_slots: host.upload_slots,
        })
    }
}

/// The gRPC addresses a host announces.
pub fn grpc_addresses(host: &common::Host) -> Result<Vec<SocketAddr>, BadMessage> {
    addresses(host.grpc.clone())
}

impl From<GroupRange> for common::GroupRun {
    fn from(range: GroupRange) -> Self {
        Self { first: range.first, count: range.count }
    }
}

/// Writes a set as runs, at most [`MAX_RUNS`] of them.
pub fn runs(set: &GroupSet) -> Vec<common::GroupRun> {
    set.ranges().take(MAX_RUNS).map(Into::into).collect()
}

/// Reads canonical runs below `limit` groups.
pub fn group_set(runs: &[common::GroupRun], limit: u64) -> Result<GroupSet, BadMessage> {
    if runs.len() > MAX_RUNS {
        return Err(bad("groups", "lists too many runs"));
    }
    GroupSet::from_ranges(runs.iter().map(|run| GroupRange::new(run.first, run.count)), limit)
        .map_err(|_| bad("groups", "is not an ascending list of runs within the task"))
}

/// Writes headers.
pub fn to_headers(headers: &[(String, String)]) -> Vec<common::Header> {
    headers
        .iter()
        .map(|(name, value)| common::Header { name: name.clone(), value: value.clone() })
        .collect()
}

/// Reads headers, bounded.
pub fn headers(headers: Vec<common::Header>) -> Result<Vec<(String, String)>, BadMessage> {
    if headers.len() > MAX_HEADERS {
        return Err(bad("headers", "lists too many headers"));
    }
    headers
        .into_iter()
        .map(|header| Ok((text("header.name", header.name)?, text("header.value", header.value)?)))
        .collect()
}

impl From<&Validator> for common::Validator {
    fn from(validator: &Validator) -> Self {
        Self {
            etag: validator.etag.clone(),
            modified: validator.modified.clone(),
            version: validator.version.clone(),
            length: validator.length,
        }
    }
}

impl TryFrom<common::Validator> for Validator {
    type Error = BadMessage;

    fn try_from(validator: common::Validator) -> Result<Self, BadMessage> {
        let bounded = |field, value: Option<String>| value.map(|v| text(field, v)).transpose();
        Ok(Self {
            etag: bounded("validator.etag", validator.etag)?,
            modified: bounded("validator.modified", validator.modified)?,
            version: bounded("validator.version", validator.version)?,
            length: validator.length,
        })
    }
}

impl From<&TaskKey> for common::TaskKey {
    fn from(key: &TaskKey) -> Self {
        let kind = match key.kind {
            TaskKind::Blob => common::TaskKind::Blob,
            TaskKind::Space => common::TaskKind::Space,
            TaskKind::Index => common::TaskKind::Index,
            TaskKind::Delta => common::TaskKind::Delta,
        };
        Self {
            domain: key.domain.clone(),
            kind: kind.into(),
            url: key.url.as_str().to_owned(),
            headers: to_headers(&key.headers),
            validator: Some((&key.validator).into()),
            transform: key.transform.tag().to_owned(),
        }
    }
}

impl TryFrom<common::TaskKey> for TaskKey {
    type Error = BadMessage;

    fn try_from(key: common::TaskKey) -> Result<Self, BadMessage> {
        let kind = match key.kind() {
            common::TaskKind::Blob => TaskKind::Blob,
            common::TaskKind::Space => TaskKind::Space,
            common::TaskKind::Index => TaskKind::Index,
            common::TaskKind::Delta => TaskKind::Delta,
            common::TaskKind::Unspecified => return Err(bad("task.kind", "is missing")),
        };
        let transform = Transform::of_tag(&key.transform)
            .ok_or(bad("task.transform", "is unknown to this version"))?;
        let url = CanonicalUrl::parse(&text("task.url", key.url)?)
            .map_err(|_| bad("task.url", "is not a canonical URL"))?;
        Ok(Self {
            domain: text("task.domain", key.domain)?,
            kind,
            url,
            headers: headers(key.headers)?,
            validator: key.validator.unwrap_or_default().try_into()?,
            transform,
        })
    }
}

impl From<&TaskInfo> for common::Task {
    fn from(task: &TaskInfo) -> Self {
        Self {
            id: task.id.as_bytes().to_vec().into(),
            key: Some((&task.key).into()),
            length: task.length,
            piece_level: task.piece_level.into(),
            unpinned: task.key.validator.strength() == dfs_model::ValidatorStrength::None,
            ranges: task.ranges,
            place: task.place.as_ref().map(|place| place.as_str().to_owned()).unwrap_or_default(),
        }
    }
}

impl TryFrom<common::Task> for TaskInfo {
    type Error = BadMessage;

    fn try_from(task: common::Task) -> Result<Self, BadMessage> {
        let key: TaskKey = task.key.ok_or_else(|| bad("task.key", "is missing"))?.try_into()?;
        let id = key.id();
        if id.as_bytes()[..] != task.id[..] {
            return Err(bad("task.id", "is not the hash of its key"));
        }
        if let (Some(pinned), Some(length)) = (key.pinned_length(), task.length)
            && pinned != length
        {
            return Err(bad("task.length", "is not the length that its key pins"));
        }
        let piece_level = u8::try_from(task.piece_level)
            .ok()
            .filter(|level| *level <= PieceLayout::MAX_LOG2)
            .ok_or_else(|| bad("task.piece_level", "is out of bounds"))?;
        let place = Some(task.place).filter(|place| !place.is_empty());
        let place = place.map(|place| {
            CanonicalUrl::parse(&text("task.place", place)?)
                .map_err(|_| bad("task.place", "is not a canonical URL"))
        });
        let place = place.transpose()?;
        Ok(Self { key, id, place, length: task.length, piece_level, ranges: task.ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskInfo {
        let key = TaskKey {
            domain: TaskKey::PUBLIC.into(),
            kind: TaskKind::Blob,
            url: CanonicalUrl::parse("https://example.org/a").unwrap(),
            headers: vec![("accept".into(), "x".into())],
            validator: Validator { etag: Some("\"1\"".into()), ..Validator::default() },
            transform: Transform::Identity,
        };
        TaskInfo::new(key, Some(1 << 20), true)
    }

    #[test]
    fn a_task_survives_the_wire_and_a_forged_id_does_not() {
        let message = common::Task::from(&task());
        assert_eq!(TaskInfo::try_from(message.clone()), Ok(task()));
        let place = CanonicalUrl::parse("https://mirror.example/a").unwrap();
        let elsewhere = common::Task::from(&task().at(&place));
        assert_eq!(TaskInfo::try_from(elsewhere.clone()).map(|task| task.place), Ok(Some(place)));
        let nowhere = common::Task { place: "nowhere".into(), ..elsewhere };
        assert!(TaskInfo::try_from(nowhere).is_err());
        let forged = common::Task { id: vec![0; 32].into(), ..message };
        assert!(TaskInfo::try_from(forged).is_err());
        let pinned_key = TaskKey {
            validator: Validator { length: Some(1 << 20), ..Validator::default() },
            ..task().key
        };
        let pinned = common::Task::from(&TaskInfo::new(pinned_key.clone(), Some(1 << 20), true));
        assert!(TaskInfo::try_from(pinned.clone()).is_ok());
        let unpacked = TaskKey { transform: Transform::Gunzip, ..pinned_key.clone() };
        let longer = common::Task::from(&TaskInfo::new(unpacked, Some(1 << 21), false));
        assert!(TaskInfo::try_from(longer).is_ok_and(|task| task.length == Some(1 << 21)));
        let cut_short = common::Task { length: Some(1), ..pinned };
        assert!(TaskInfo::try_from(cut_short).is_err());
    }

    #[test]
    fn a_host_whose_names_are_more_than_names_is_refused() {
        let host = |name: &str, rack: &str| common::Host {
            id: vec![1; 16].into(),
            kind: common::HostKind::Node.into(),
            name: name.into(),
            location: Some(common::Location { rack: rack.into(), ..Default::default() }),
            public_key: vec![1; 32].into(),
            ..Default::default()
        };
        assert!(HostInfo::try_from(host("größe 1", "r|2")).is_ok());
        for bad in ["b\nnode c", "\u{1b}[2J", "a\u{202e}b", "\u{9b}2J"] {
            assert!(HostInfo::try_from(host(bad, "")).is_err(), "{bad:?}");
            assert!(HostInfo::try_from(host("", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_never_shows_credentials() {
        let secret = common::Credentials {
            kind: Some(common::credentials::Kind::Bearer("hunter2".into())),
            headers: vec![common::Header { name: "x".into(), value: "hunter2".into() }],
        };
        let target = common::Target { credentials: Some(secret), ..common::Target::default() };
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}
