//! A swarm for people and programs: who takes part in a task, what each waits for, and why it came so.

use serde_json::{Value, json};

use super::Record;
use super::records::task_json;
use super::when::iso;
use crate::backend::swarm::{
    Standing, SwarmEntry, SwarmGiver, SwarmPeer, SwarmScheduling, SwarmTask, Told,
};

pub mod arms;
pub mod screen;
pub mod why;
pub mod words;

impl Record for SwarmTask {
    fn json(&self) -> Value {
        let task = self;
        let entries = task.entries.iter().map(|entry| entry_json(entry, task.now_ms));
        let mut object = json!({
            "at": instant(task.now_ms),
            "task": task_json(&task.task),
            "scheduler": task.scheduler,
            "strategy": task.strategy,
            "arm": task.arm,
            "hosts": task.hosts,
            "complete": task.complete,
            "taking": task.taking,
            "still": task.still,
            "source_bytes": task.source,
            "taken_bytes": task.taken,
            "crossed_bytes": task.crossed,
            "copies": copies(task),
            "seed": task.seed,
            "delegates": task.delegates.iter().map(delegate_json).collect::<Vec<_>>(),
            "blacklisted": task.blacklisted,
            "peers": task.peers.iter().map(peer_json).collect::<Vec<_>>(),
        });
        if !task.entries.is_empty() || task.forgotten > 0 {
            object["evidence"] = entries.collect::<Vec<_>>().into();
            object["forgotten"] = task.forgotten.into();
        }
        object
    }

    fn name(&self) -> Vec<u8> {
        self.task.id.to_string().into_bytes()
    }
}

/// Copies of the content that left the source.
pub fn copies(task: &SwarmTask) -> Option<f64> {
    let length = task.task.length.filter(|length| *length > 0)?;
    Some((task.source as f64 / length as f64 * 1000.0).round() / 1000.0)
}

/// The same behind a number of bytes, in words.
fn copies_said(task: &SwarmTask) -> String {
    copies(task).map(|copies| format!(" ({copies:.2} copies)")).unwrap_or_default()
}

/// `2026-11-20T09:16:34.120Z`.
pub fn instant(unix_ms: u64) -> String {
    let seconds = iso(i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX));
    let seconds = seconds.trim_end_matches('Z');
    format!("{seconds}.{:03}Z", unix_ms % 1000)
}

/// The share of its content that a host holds, from 0 to 1.
pub fn share(task: &SwarmTask, peer: &SwarmPeer) -> Option<f64> {
    let length = task.task.length?;
    Some(if length == 0 { 1.0 } else { (peer.held as f64 / length as f64).min(1.0) })
}

/// What a peer is shown as in JSON.
pub fn peer_json(peer: &SwarmPeer) -> Value {
    let blocked = peer.blocked.iter().map(|(name, for_ms)| json!({"node": name, "ms": for_ms}));
    json!({
        "node": peer.name,
        "host": peer.id,
        "kind": peer.kind,
        "idc": peer.idc,
        "state": peer.state,
        "standing": standing_json(&peer.standing),
        "held_bytes": peer.held,
        "parents": peer.parents,
        "from": peer.givers.iter().map(giver_json).collect::<Vec<_>>(),
        "source_bytes": peer.from_source,
        "given_bytes": peer.given,
        "withdrawn_leases": peer.withdrawn,
        "last_ms": peer.last_ms,
        "blocked": blocked.collect::<Vec<_>>(),
    })
}

fn delegate_json((name, hosts): &(String, u32)) -> Value {
    json!({"node": name, "hosts": hosts})
}

fn giver_json(giver: &SwarmGiver) -> Value {
    let failures = giver.failures.iter();
    let failures = failures.map(|(why, times)| (why.name.to_owned(), Value::from(*times)));
    json!({
        "node": giver.name,
        "bytes": giver.bytes,
        "runs": giver.runs,
        "leases": giver.leases,
        "failures": Value::Object(failures.collect()),
        "last_ms": giver.last_ms,
    })
}

fn standing_json(standing: &Standing) -> Value {
    let said = words::standing(standing, None);
    json!({
        "word": words::name(standing),
        "still": words::is_still(standing),
        "why": said.now,
        "next": said.next,
    })
}

fn entry_json(entry: &SwarmEntry, now_ms: u64) -> Value {
    let mut object = json!({
        "number": entry.number,
        "at": instant(now_ms.saturating_sub(entry.first_ms)),
        "last": instant(now_ms.saturating_sub(entry.last_ms)),
        "times": entry.times,
        "node": entry.host,
    });
    let (event, fields) = told_json(&entry.what);
    object["event"] = event.into();
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    object
}

fn told_json(what: &Told) -> (&'static str, Value) {
    match what {
        Told::Registered(groups) => ("registered", json!({"held_groups": groups})),
        Told::Announced(groups) => ("announced", json!({"held_groups": groups})),
        Told::Scheduled(scheduling) => ("scheduled", scheduling_json(scheduling)),
        Told::Waits(what, tries, of) => {
            ("waits", json!({"for": what, "tries": tries, "tries_of": of}))
        }
        Told::Failed { parent, why, blocked } => {
            ("failed", json!({"parent": parent, "failure": why.name, "blocked": blocked}))
        }
        Told::LetDown(parent, leases) => ("let-down", json!({"parent": parent, "leases": leases})),
        Told::Rescheduled(bad) => ("rescheduled", json!({"bad": bad})),
        Told::Blacklisted(by) => ("blacklisted", json!({"found_by": by})),
        Told::Ordered(asker) => ("ordered", json!({"for": asker})),
        Told::Obtains(groups) => ("obtains", json!({"held_groups": groups})),
        Told::SeedFailed(reason) => ("seed-failed", json!({"reason": reason})),
        Told::Source(reason, stand_in) => {
            ("back-to-source", json!({"reason": reason, "stand_in": stand_in}))
        }
        Told::Refused(reason) => ("refused", json!({"reason": reason})),
        Told::Ended { success, from: [source, seed, peers], cost_ms } => {
            let bytes = json!({"source": source, "seed": seed, "peers": peers});
            ("ended", json!({"success": success, "bytes": bytes, "cost_ms": cost_ms}))
        }
        Told::AskedToLead => ("asked-to-lead", json!({})),
        Told::Leads(hosts) => ("leads", json!({"hosts": hosts})),
        Told::LeadsNoMore(reason) => ("leads-no-more", json!({"reason": reason})),
        Told::Delegated(delegate) => ("delegated", json!({"delegate": delegate})),
        Told::CameBack(delegate) => ("came-back", json!({"delegate": delegate})),
        Told::Silent => ("silent", json!({})),
        Told::Returned => ("returned", json!({})),
        Told::Gone => ("gone", json!({})),
        Told::Other => ("other", json!({})),
    }
}

fn scheduling_json(scheduling: &SwarmScheduling) -> Value {
    let candidates = scheduling.candidates.iter().map(|candidate| {
        let scores = candidate.scores.map(|scores| {
            let [finished, success, free, kind, idc, location, sum] = scores.map(rounded);
            json!({
                "finished": finished,
                "success": success,
                "free": free,
                "kind": kind,
                "idc": idc,
                "location": location,
                "sum": sum,
            })
        });
        let dropped = candidate.dropped.map(|(name, _)| name);
        json!({"node": candidate.name, "dropped": dropped, "scores": scores})
    });
    json!({
        "granted": scheduling.granted,
        "candidates": candidates.collect::<Vec<_>>(),
        "of": scheduling.of,
    })
}

fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1000.0).round() / 1000.0
}
