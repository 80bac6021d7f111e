//! `dfctl why` for people: how a task stands, and for each node the decisions that led there.

use dfs_model::{ByteSize, REST};

use super::words::{self, ms};
use super::{copies_said, instant, share};
use crate::backend::swarm::{SwarmEntry, SwarmGiver, SwarmPeer, SwarmTask};
use crate::output::{counted, printable, table};

/// Decisions shown of each node unless it is named.
const FEW: usize = 8;

/// Nodes shown unless they are named; those to whom nothing comes are first.
const MOST_NODES: usize = 16;

/// What of it is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// Only this node.
    pub node: Option<&'a str>,
    /// With the six scores of every candidate.
    pub scores: bool,
}

/// Whether a node is the one that was named, by its name or the beginning of its id.
pub fn is_named(peer: &SwarmPeer, node: &str) -> bool {
    peer.name == node
        || peer.name.split('#').next() == Some(node)
        || (node.len() >= 4 && peer.id.starts_with(node))
}

/// All of it, without a final newline.
pub fn render(task: &SwarmTask, shown: Shown<'_>) -> String {
    let mut lines = vec![printable(&head(task)), figures(task)];
    let nodes = nodes(task, shown.node);
    let (few, rest) = nodes.split_at(nodes.len().min(MOST_NODES));
    for node in few {
        lines.push(String::new());
        let section = section(task, node, shown);
        lines.extend(section.iter().map(|line| printable(line)));
    }
    if !rest.is_empty() {
        let rest = counted(rest.len() as u64, "node more", "nodes more");
        lines.push(format!("\n… {rest}: --node NAME shows one, --format json all"));
    }
    lines.join("\n")
}

fn head(task: &SwarmTask) -> String {
    let length = task.task.length.map_or("length unknown".to_owned(), |n| ByteSize(n).to_string());
    format!("task {}  {}  {length}", task.task.id.short(), task.task.place())
}

fn figures(task: &SwarmTask) -> String {
    let seed = task.seed.as_ref().map_or("no seed".to_owned(), |seed| format!("seed {seed}"));
    let copies = copies_said(task);
    let arm = match task.arm.as_str() {
        "" | REST => String::new(),
        arm => format!(" (arm {arm})"),
    };
    let mut facts = vec![
        ("decided by", format!("{}, strategy {}{arm}", task.scheduler, task.strategy)),
        (
            "swarm",
            format!(
                "{}: {} complete, {} taking, {} standing still; {seed}",
                counted(task.hosts.into(), "host", "hosts"),
                task.complete,
                task.taking,
                task.still
            ),
        ),
        (
            "moved",
            format!(
                "source {}{copies}, between hosts {}, of that between data centres {}",
                ByteSize(task.source),
                ByteSize(task.taken),
                ByteSize(task.crossed)
            ),
        ),
    ];
    if !task.delegates.is_empty() {
        let leads = |(name, hosts): &(String, u32)| {
            format!("{name} leads {}", counted((*hosts).into(), "host", "hosts"))
        };
        let all: Vec<String> = task.delegates.iter().map(leads).collect();
        facts.push(("delegates", all.join(", ")));
    }
    if !task.blacklisted.is_empty() {
        let names = task.blacklisted.join(", ");
        facts.push(("BLACKLISTED", format!("{names}: sent bytes that did not verify")));
    }
    table::facts(&facts)
}

/// A node of the swarm, or one that is only told of.
struct Node<'a> {
    name: &'a str,
    peer: Option<&'a SwarmPeer>,
}

fn nodes<'a>(task: &'a SwarmTask, only: Option<&str>) -> Vec<Node<'a>> {
    let mut nodes: Vec<Node<'a>> =
        task.peers.iter().map(|peer| Node { name: &peer.name, peer: Some(peer) }).collect();
    // What waits first, as it is why somebody looks.
    nodes.sort_by_key(|node| node.peer.is_none_or(|peer| !words::is_still(&peer.standing)));
    for entry in &task.entries {
        if nodes.iter().all(|node| node.name != entry.host) {
            nodes.push(Node { name: &entry.host, peer: None });
        }
    }
    if let Some(only) = only {
        nodes.retain(|node| match node.peer {
            Some(peer) => is_named(peer, only),
            None => node.name == only || node.name.split('#').next() == Some(only),
        });
    }
    nodes
}

fn section(task: &SwarmTask, node: &Node<'_>, shown: Shown<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    match node.peer {
        Some(peer) => {
            let held = share(task, peer).map_or_else(
                || ByteSize(peer.held).to_string(),
                |share| format!("{:.0} %", (share * 100.0).floor()),
            );
            let said = words::standing(&peer.standing, Some(peer));
            let complete = share(task, peer) >= Some(1.0) && said.next.is_empty();
            let now = if complete { "has all of it".to_owned() } else { said.now };
            lines.push(format!("{}  {held}  {now}", node.name));
            if !said.next.is_empty() {
                lines.push(format!("  next          {}", said.next));
            }
            lines.extend(counters(peer));
        }
        None => lines.push(format!("{}  takes part no more", node.name)),
    }
    let of = |entry: &&SwarmEntry| entry.host == node.name;
    let entries: Vec<&SwarmEntry> = task.entries.iter().filter(of).collect();
    let most = if shown.node.is_some() { usize::MAX } else { FEW };
    let earlier = entries.len().saturating_sub(most);
    if earlier > 0 {
        lines.push(format!("  …             {earlier} earlier: --node {}", node.name));
    }
    for entry in &entries[earlier..] {
        lines.extend(decision(entry, shown, task.now_ms));
    }
    lines
}

fn counters(peer: &SwarmPeer) -> Vec<String> {
    let mut lines: Vec<String> = peer.givers.iter().map(giver).collect();
    if peer.from_source > 0 {
        lines.push(format!("  {:<12}  {}", "source", ByteSize(peer.from_source)));
    }
    for (name, for_ms) in &peer.blocked {
        let how_long = for_ms.map_or("for good".to_owned(), |left| format!("for {}", ms(left)));
        lines.push(format!("  {:<12}  does without {name} {how_long}", "blocked"));
    }
    lines
}

fn giver(giver: &SwarmGiver) -> String {
    let name = giver.name.as_deref().unwrap_or("others");
    let leases = match giver.leases {
        0 => String::new(),
        leases => format!(", {}", counted(leases, "lease", "leases")),
    };
    let failures = giver.failures.iter().map(|(why, times)| format!(", {times}× {}", why.words));
    let failures: String = failures.collect();
    let runs = counted(giver.runs, "run", "runs");
    format!("  {:<12}  {name} {} in {runs}{leases}{failures}", "came from", ByteSize(giver.bytes))
}

fn decision(entry: &SwarmEntry, shown: Shown<'_>, now_ms: u64) -> Vec<String> {
    let at = |age: u64| {
        let instant = instant(now_ms.saturating_sub(age));
        instant.split_once('T').map_or(String::new(), |(_, time)| time.trim_end_matches('Z').into())
    };
    let mut told = words::told(&entry.what, shown.scores).into_iter();
    let first = told.next().unwrap_or_default();
    let times = match entry.times {
        0 | 1 => String::new(),
        times => format!("  ({times} times until {})", at(entry.last_ms)),
    };
    let mut lines = vec![format!("  {}  {first}{times}", at(entry.first_ms))];
    lines.extend(told.map(|line| format!("                  {line}")));
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::fake;
    use crate::backend::swarm::{Failing, Standing, SwarmCandidate, SwarmScheduling, Told};
    use dfs_model::HostKind;

    /// The 20th of November 2026, 09:16:34.
    const NOW: u64 = 1_795_166_194_000;

    fn peer(name: &str, held: u64, standing: Standing) -> SwarmPeer {
        SwarmPeer {
            name: name.into(),
            id: format!("id of {name}"),
            kind: HostKind::Node,
            idc: String::new(),
            state: "fetching".into(),
            standing,
            held,
            parents: Vec::new(),
            givers: Vec::new(),
            from_source: 0,
            given: 0,
            withdrawn: 0,
            last_ms: None,
            blocked: Vec::new(),
        }
    }

    fn scored(name: &str, sum: f32) -> SwarmCandidate {
        let scores = Some([0.5, 1.0, 0.9, 0.5, 0.0, 0.0, sum]);
        SwarmCandidate { name: name.into(), dropped: None, scores }
    }

    fn entry(number: u64, age: u64, host: &str, what: Told) -> SwarmEntry {
        SwarmEntry { number, first_ms: age, last_ms: age, times: 1, host: host.into(), what }
    }

    /// A swarm in which a parent died.
    pub fn task() -> SwarmTask {
        let broke = Failing { name: "disconnected", words: "broke the connection" };
        let giver = SwarmGiver {
            name: Some("node-a".into()),
            bytes: 10 << 20,
            runs: 40,
            leases: 43,
            failures: vec![(broke, 3)],
            last_ms: Some(4200),
        };
        let mut waiting = peer("node-b", 31 << 20, Standing::ForBytes(Some(4200)));
        waiting.parents = vec!["seed-1".into()];
        waiting.givers = vec![giver];
        waiting.blocked = vec![("node-a".into(), Some(1500))];
        let candidates = vec![
            scored("seed-1", 0.57),
            SwarmCandidate {
                name: "node-a".into(),
                dropped: Some(("silent", "is not heard of any more")),
                scores: None,
            },
        ];
        let found = SwarmScheduling { candidates, granted: vec!["seed-1".into()], of: 3 };
        let failed = Told::Failed { parent: "node-a".into(), why: broke, blocked: true };
        let mut failed = entry(3, 4300, "node-b", failed);
        (failed.times, failed.last_ms) = (3, 4200);
        SwarmTask {
            task: fake::task("http://origin.test/model.bin", 100 << 20),
            scheduler: "main".into(),
            strategy: "swarm".into(),
            arm: "b".into(),
            hosts: 3,
            complete: 0,
            taking: 2,
            still: 2,
            source: 100 << 20,
            taken: 41 << 20,
            crossed: 0,
            seed: Some("seed-1".into()),
            delegates: vec![("one".into(), 7)],
            blacklisted: vec!["liar\u{1b}[2J".into()],
            peers: vec![peer("seed-1", 100 << 20, Standing::Seeds), waiting],
            entries: vec![
                entry(1, 9000, "node-b", Told::Registered(0)),
                entry(2, 5000, "node-a", Told::Silent),
                failed,
                entry(4, 4100, "node-b", Told::Scheduled(found)),
            ],
            forgotten: 0,
            now_ms: NOW,
        }
    }

    #[test]
    fn a_person_reads_what_stands_still_why_and_what_is_next() {
        let said = render(&task(), Shown::default());
        let id = task().task.id.short();
        let expected = format!(
            "\
task {id}  http://origin.test/model.bin  100.0 MiB
decided by   main, strategy swarm (arm b)
swarm        3 hosts: 0 complete, 2 taking, 2 standing still; seed seed-1
moved        source 100.0 MiB (1.00 copies), between hosts 41.0 MiB, of that between data centres 0 B
delegates    one leads 7 hosts
BLACKLISTED  liar\\u{{1b}}[2J: sent bytes that did not verify

node-b  31 %  nothing has come for 4.2 s from seed-1
  next          parents that do not answer are given up, and others looked for
  came from     node-a 10.0 MiB in 40 runs, 43 leases, 3× broke the connection
  blocked       does without node-a for 1.5 s
  09:16:25.000  asks to take part
  09:16:29.700  node-a broke the connection: does without it for a while  (3 times until 09:16:29.800)
  09:16:29.900  parents: seed-1 0.57 (2 looked at, 3 take part)
                  not node-a: is not heard of any more

seed-1  100 %  has all of it

node-a  takes part no more
  09:16:29.000  is not heard of: its connection to the scheduler broke"
        );
        assert_eq!(said, expected);
    }

    #[test]
    fn one_node_is_shown_with_all_its_scores() {
        let shown = Shown { node: Some("node-b"), scores: true };
        let said = render(&task(), shown);
        assert!(!said.contains("\nseed-1  100 %"), "{said}");
        assert!(said.contains("seed-1: finished 0.50 · success 1.00 · free 0.90 · kind 0.50"));
    }
}
