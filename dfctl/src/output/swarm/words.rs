//! What is known of a swarm, in words.

use std::time::Duration;

use dfs_model::{ByteSize, GROUP_BYTES};

use crate::backend::swarm::{Standing, SwarmPeer, SwarmScheduling, Told};
use crate::output::counted;
use crate::output::when::rough;

/// What a host waits for, and what happens next; the latter may be empty.
pub struct Said {
    /// What it does, or waits for.
    pub now: String,
    /// What happens next.
    pub next: String,
}

/// A duration in milliseconds, short.
pub fn ms(ms: u64) -> String {
    rough(Duration::from_millis(ms))
}

/// Where a host stands; with its own figures where `peer` is given.
pub fn standing(standing: &Standing, peer: Option<&SwarmPeer>) -> Said {
    let said = |now: String, next: String| Said { now, next };
    let plain = |now: &str| said(now.to_owned(), String::new());
    match standing {
        Standing::Rests => plain("wants nothing more"),
        Standing::Seeds => plain("reads the source for all"),
        Standing::Moves => plain("is moving"),
        Standing::ForBytes(since) => said(
            format!("{}{}", for_bytes(*since), from(peer)),
            "parents that do not answer are given up, and others looked for".to_owned(),
        ),
        Standing::ForLease(true) => said(
            "waits to be leased something".to_owned(),
            "it is leased what somebody gets next; after 4 s in vain it asks its parents itself"
                .to_owned(),
        ),
        Standing::ForLease(false) => said(
            "others have what it lacks, and nothing is leased to it".to_owned(),
            "it asks its parents itself".to_owned(),
        ),
        Standing::ForSeed(seed, due) => {
            let seed = seed.as_deref().unwrap_or("a seed");
            said(
                format!("{seed} was ordered to fetch it and has not answered"),
                format!("in {} another seed is ordered, or a node reads the source", ms(*due)),
            )
        }
        Standing::ForHearing(due) => said(
            "the scheduler has just started, and no seed is heard of yet".to_owned(),
            format!("looked at again in {}", ms(*due)),
        ),
        Standing::ForHolders(due) => said(
            "hosts that have named it are asked what they hold of it".to_owned(),
            format!("looked at again in {}; then a seed is ordered", ms(*due)),
        ),
        Standing::ForParents(tries, of, due) => said(
            format!("nobody can serve it ({tries} of {of} attempts in vain)"),
            format!("the next attempt in {}; after {of} it reads the source", ms(*due)),
        ),
        Standing::ForTurn(due) => said(
            "too many read the source at once".to_owned(),
            format!("its turn is looked for again in {}", ms(*due)),
        ),
        Standing::WithDelegate(delegate) => said(
            format!("{delegate} leads it"),
            "what comes to it is told there; this scheduler hears when it is through".to_owned(),
        ),
        Standing::AtSource(true) => plain("reads the source, for its neighbours too"),
        Standing::AtSource(false) => plain("reads the source, for itself"),
        Standing::Silent(due) => said(
            "is not heard of: its connection to the scheduler broke".to_owned(),
            format!("counts as gone in {}", ms(*due)),
        ),
        Standing::Void(reason, due) => said(
            format!("the origin said no: {reason}"),
            format!("a seed may ask it again in {}", ms(*due)),
        ),
        Standing::GaveUp => plain("gave up, or was refused"),
        Standing::Other => plain("does something that this version does not know"),
    }
}

fn for_bytes(since: Option<u64>) -> String {
    match since {
        Some(since) => format!("nothing has come for {}", ms(since)),
        None => "nothing has come yet".to_owned(),
    }
}

fn from(peer: Option<&SwarmPeer>) -> String {
    match peer.map(|peer| &peer.parents[..]) {
        None | Some([]) => String::new(),
        Some(parents) => format!(" from {}", parents.join(", ")),
    }
}

/// In a word.
pub fn name(standing: &Standing) -> &'static str {
    match standing {
        Standing::Rests => "rests",
        Standing::Seeds => "seeds",
        Standing::Moves => "moves",
        Standing::ForBytes(_) => "waits-for-bytes",
        Standing::ForLease(_) => "waits-for-lease",
        Standing::ForSeed(..) => "waits-for-seed",
        Standing::ForHearing(_) => "waits-for-hearing",
        Standing::ForHolders(_) => "waits-for-holders",
        Standing::ForParents(..) => "waits-for-parents",
        Standing::ForTurn(_) => "waits-for-turn",
        Standing::WithDelegate(_) => "with-delegate",
        Standing::AtSource(true) => "stands-in",
        Standing::AtSource(false) => "at-source",
        Standing::Silent(_) => "silent",
        Standing::Void(..) => "void",
        Standing::GaveUp => "gave-up",
        Standing::Other => "other",
    }
}

/// Whether it wants something and nothing comes.
pub fn is_still(standing: &Standing) -> bool {
    match standing {
        Standing::Rests
        | Standing::Seeds
        | Standing::Moves
        | Standing::AtSource(_)
        | Standing::WithDelegate(_)
        | Standing::GaveUp
        | Standing::Other => false,
        Standing::ForBytes(_)
        | Standing::ForLease(_)
        | Standing::ForSeed(..)
        | Standing::ForHearing(_)
        | Standing::ForHolders(_)
        | Standing::ForParents(..)
        | Standing::ForTurn(_)
        | Standing::Silent(_)
        | Standing::Void(..) => true,
    }
}

/// What was decided, a line or more: those after the first say more of it.
pub fn told(what: &Told, scores: bool) -> Vec<String> {
    let one = |line: String| vec![line];
    let groups = |groups: u64| ByteSize(groups.saturating_mul(GROUP_BYTES)).to_string();
    match what {
        Told::Registered(0) => one("asks to take part".to_owned()),
        Told::Registered(held) => one(format!("asks to take part, holds {}", groups(*held))),
        Told::Announced(held) => one(format!("says that it holds {}", groups(*held))),
        Told::Scheduled(scheduling) => scheduled(scheduling, scores),
        Told::Waits(what, 0, _) => one(format!("waits for {what}")),
        Told::Waits(what, tries, of) => {
            one(format!("waits for {what}: {tries} of {of} attempts in vain"))
        }
        Told::Failed { parent, why, blocked: true } => {
            one(format!("{parent} {}: does without it for a while", why.words))
        }
        Told::Failed { parent, why, blocked: false } => one(format!("{parent} {}", why.words)),
        Told::LetDown(parent, leases) => {
            let leases = counted((*leases).into(), "lease", "leases");
            one(format!("{parent} is not heard of any more: {leases} of it taken back"))
        }
        Told::Rescheduled(bad) if bad.is_empty() => one("asks for parents again".to_owned()),
        Told::Rescheduled(bad) => one(format!("asks for other parents than {}", bad.join(", "))),
        Told::Blacklisted(by) => one(format!(
            "BLACKLISTED: its bytes did not verify, as {by} found; nobody takes from it"
        )),
        Told::Ordered(Some(asker)) => one(format!("ordered to fetch it, for {asker} first")),
        Told::Ordered(None) => one("ordered to fetch what is wanted more".to_owned()),
        Told::Obtains(0) => one("takes part as seed".to_owned()),
        Told::Obtains(held) => one(format!("takes part as seed, holds {}", groups(*held))),
        Told::SeedFailed(reason) => one(format!("failed as seed: {reason}")),
        Told::Source(reason, true) => {
            one(format!("sent to the source for its neighbours too: {reason}"))
        }
        Told::Source(reason, false) => one(format!("sent to the source: {reason}")),
        Told::Refused(reason) => one(format!("refused: {reason}")),
        Told::Ended { success, from, cost_ms } => one(ended(*success, *from, *cost_ms)),
        Told::AskedToLead => one("asked to lead its neighbours".to_owned()),
        Told::Leads(hosts) => one(format!("leads {} beside it", counted(*hosts, "host", "hosts"))),
        Told::LeadsNoMore(reason) => one(format!("leads its neighbours no more: {reason}")),
        Told::Delegated(delegate) => one(format!("led by {delegate} from now on")),
        Told::CameBack(delegate) => one(format!("comes back: {delegate} failed it")),
        Told::Silent => one("is not heard of: its connection to the scheduler broke".to_owned()),
        Told::Returned => one("is heard of again".to_owned()),
        Told::Gone => one("takes part no more".to_owned()),
        Told::Other => one("something that this version does not know".to_owned()),
    }
}

fn ended(success: bool, [source, seed, peers]: [u64; 3], cost_ms: u32) -> String {
    let how = if success { "has what it wanted" } else { "gives up" };
    let after = if cost_ms == 0 { String::new() } else { format!(" after {}", ms(cost_ms.into())) };
    format!(
        "{how}{after}: source {}, seed {}, peers {}",
        ByteSize(source),
        ByteSize(seed),
        ByteSize(peers)
    )
}

fn scheduled(scheduling: &SwarmScheduling, scores: bool) -> Vec<String> {
    let looked_at = scheduling.candidates.len();
    let of = format!("({looked_at} looked at, {} take part)", scheduling.of);
    let of_whom = |name: &String| scheduling.candidates.iter().find(|one| one.name == *name);
    let sum = |name: &String| match of_whom(name).and_then(|one| one.scores) {
        Some(scores) => format!("{name} {:.2}", scores[6]),
        None => format!("{name} (has what the others lack)"),
    };
    let mut lines = vec![match &scheduling.granted[..] {
        [] => format!("finds no parents {of}"),
        granted => {
            let granted: Vec<String> = granted.iter().map(sum).collect();
            format!("parents: {} {of}", granted.join(", "))
        }
    }];
    lines.extend(dropped(scheduling));
    let is_left = |name: &String| !scheduling.granted.contains(name);
    let scored = scheduling.candidates.iter().filter(|one| one.scores.is_some());
    let left: Vec<String> =
        scored.clone().filter(|one| is_left(&one.name)).map(|one| sum(&one.name)).collect();
    if !left.is_empty() {
        lines.push(format!("not chosen: {}", left.join(", ")));
    }
    if scores {
        lines.extend(scored.filter_map(|one| Some(format!("{}: {}", one.name, six(one.scores?)))));
    }
    lines
}

/// Who was dropped, by why.
fn dropped(scheduling: &SwarmScheduling) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for candidate in &scheduling.candidates {
        let Some((_, reason)) = candidate.dropped else { continue };
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(&candidate.name),
            None => by_reason.push((reason, vec![&candidate.name])),
        }
    }
    let line = |(reason, names): (&str, Vec<&str>)| format!("not {}: {reason}", names.join(", "));
    by_reason.into_iter().map(line).collect()
}

fn six([finished, success, free, kind, idc, location, _]: [f32; 7]) -> String {
    format!(
        "finished {finished:.2} · success {success:.2} · free {free:.2} · kind {kind:.2} · idc {idc:.2} · near {location:.2}"
    )
}
