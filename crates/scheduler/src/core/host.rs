//! A host as the scheduler sees it: where it stands, how much it uploads, how well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, HostInfo, HostKind, TaskId, same_idc};

use super::{Millis, Skill};

/// How long what an uplink was seen to send counts for the next task.
const RATE_FOR: Duration = Duration::from_secs(600);

/// One machine, over all of its tasks.
#[derive(Debug)]
pub struct Host {
    /// What it says of itself, and how often that has changed.
    pub info: Arc<HostInfo>,
    pub address: u32,
    /// Its area.
    pub area: Arc<str>,
    /// Its data centre, in small letters; empty where it is not known.
    pub idc: Arc<str>,
    /// Its rack in there, likewise.
    pub rack: Arc<str>,
    /// Since when its stream is broken.
    pub silent_since: Option<Millis>,
    /// When it came first.
    pub since: Millis,
    /// What it can do about delegates.
    pub skill: Skill,
    /// Tasks it takes part in.
    pub tasks: BTreeSet<TaskId>,
    /// Hosts granted to it as children, each with its number of tasks: a pair of hosts shares one
    /// connection, so a child counts once however many tasks it takes.
    pub children: BTreeMap<HostId, u32>,
    /// Uploads under way as it reported last.
    pub reported_uploads: u32,
    /// Runs its children took from it.
    pub uploads_done: u64,
    /// Runs its children asked for in vain.
    pub uploads_failed: u64,
    /// Uploads it serves at a time.
    pub limit: u32,
    /// The most bytes a second that its uplink was seen to send by leases of late, of whatever task, and since when.
    pub rate: Option<(u64, Millis)>,
}

impl Host {
    /// A host that has just come; one without a limit of its own gets `default_limit`.
    pub fn new(info: Arc<HostInfo>, default_limit: u32) -> Self {
        let limit = if info.upload_slots == 0 { default_limit } else { info.upload_slots };
        let idc = info.location.idc.to_ascii_lowercase().into();
        let rack = info.location.rack.to_ascii_lowercase().into();
        Self {
            area: info.location.area.as_str().into(),
            info,
            idc,
            rack,
            address: 0,
            silent_since: None,
            since: Millis::default(),
            skill: Skill::None,
            tasks: BTreeSet::new(),
            children: BTreeMap::new(),
            reported_uploads: 0,
            uploads_done: 0,
            uploads_failed: 0,
            limit,
            rate: None,
        }
    }

    /// Its uplink has sent so many bytes a second: several tasks may have shared it.
    pub fn sends(&mut self, rate: u64, now: Millis) {
        if rate >= self.rate(now) {
            self.rate = Some((rate, now));
        }
    }

    /// Bytes a second that its uplink sends; zero where that is not known.
    pub fn rate(&self, now: Millis) -> u64 {
        let of_late = self.rate.filter(|(_, since)| since.after(RATE_FOR) > now);
        of_late.map_or(0, |(rate, _)| rate)
    }

    /// Whether it belongs to the cluster.
    pub fn is_seed(&self) -> bool {
        self.info.kind == HostKind::Seed
    }

    /// Whether `child` may be granted to it now.
    pub fn has_room_for(&self, child: &HostId) -> bool {
        let is_within = self.children.contains_key(child) || self.busy() < self.limit;
        self.silent_since.is_none() && is_within
    }

    /// Whether both data centres are known, and not the same.
    pub fn is_in_another_idc(&self, other: &str) -> bool {
        same_idc(&self.idc, other) == Some(false)
    }

    /// Counts a child in for one task.
    pub fn take(&mut self, child: HostId) {
        *self.children.entry(child).or_default() += 1;
    }

    /// Counts a child out for one task.
    pub fn release(&mut self, child: &HostId) {
        let Some(tasks) = self.children.get_mut(child) else { return };
        *tasks -= 1;
        if *tasks == 0 {
            self.children.remove(child);
        }
    }

    fn busy(&self) -> u32 {
        u32::try_from(self.children.len()).unwrap_or(u32::MAX)
    }

    /// Share of its upload limit that is free, 0 to 1.
    pub fn free_share(&self) -> f64 {
        let busy = self.busy().max(self.reported_uploads).min(self.limit);
        f64::from(self.limit - busy) / f64::from(self.limit.max(1))
    }

    /// Share of its uploads that succeeded, 0 to 1; a newcomer has the benefit of the doubt.
    pub fn success_share(&self) -> f64 {
        let all = self.uploads_done + self.uploads_failed;
        if all == 0 {
            return 1.0;
        }
        self.uploads_done as f64 / all as f64
    }
}
