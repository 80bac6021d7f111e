//! A swarm as it goes: tables that are drawn again and again, lines in a pipe, events for programs.
//!
//! [`Rates`] is pure: it is told what was seen when. [`Screen`] draws in place, so that what was seen last stays.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_model::{ByteSize, shortened};
use serde_json::{Value, json};

use super::{copies, copies_said, share, words};
use crate::backend::swarm::{SwarmPeer, SwarmTask};
use crate::error::CliError;
use crate::output::table::{Align, Table};
use crate::output::{Output, Record, counted, printable};

/// Characters of the bar that shows how much a node holds.
const BAR: usize = 16;

/// Delegates that are named.
const DELEGATES: usize = 8;

/// Characters of a URL in a list of tasks.
const URL: usize = 48;

/// Bytes a second of everything that was seen twice.
#[derive(Debug, Default)]
pub struct Rates {
    before: BTreeMap<String, (Duration, u64)>,
    now: BTreeMap<String, u64>,
}

impl Rates {
    /// What was seen at `at` has come to `bytes` in all.
    pub fn see(&mut self, what: String, bytes: u64, at: Duration) {
        if let Some((then, before)) = self.before.get(&what) {
            let passed = at.saturating_sub(*then).as_secs_f64();
            let moved = bytes.saturating_sub(*before);
            let rate = if passed < 0.001 { 0 } else { (moved as f64 / passed) as u64 };
            self.now.insert(what.clone(), rate);
        }
        self.before.insert(what, (at, bytes));
    }

    /// Sees all that a task's peers took and gave.
    pub fn see_task(&mut self, task: &SwarmTask, at: Duration) {
        let id = task_name(task);
        self.see(id.clone(), task.source.saturating_add(task.taken), at);
        for peer in &task.peers {
            let taken = peer.givers.iter().map(|giver| giver.bytes);
            let taken = taken.fold(peer.from_source, u64::saturating_add);
            self.see(down(&id, peer), taken, at);
            self.see(up(&id, peer), peer.given, at);
        }
    }

    /// Forgets what is not in the swarm any more.
    pub fn keep_only(&mut self, tasks: &[SwarmTask]) {
        let is_there = |name: &String| tasks.iter().any(|task| name.starts_with(&task_name(task)));
        self.before.retain(|name, _| is_there(name));
        self.now.retain(|name, _| is_there(name));
    }

    fn of(&self, what: &str) -> Option<u64> {
        self.now.get(what).copied()
    }
}

fn task_name(task: &SwarmTask) -> String {
    format!("{}@{}", task.task.id, task.scheduler)
}

fn down(task: &str, peer: &SwarmPeer) -> String {
    format!("{task} {} down", peer.id)
}

fn up(task: &str, peer: &SwarmPeer) -> String {
    format!("{task} {} up", peer.id)
}

fn rate(rate: Option<u64>) -> String {
    match rate {
        None | Some(0) => "-".to_owned(),
        Some(rate) => format!("{}/s", ByteSize(rate)),
    }
}

/// One task and everybody in it.
pub fn task(task: &SwarmTask, rates: &Rates) -> String {
    let mut table = Table::new(&[
        ("NODE", Align::Left),
        ("HOLDS", Align::Left),
        ("", Align::Right),
        ("DOWN", Align::Right),
        ("UP", Align::Right),
        ("FROM", Align::Left),
        ("STATE", Align::Left),
    ]);
    let id = task_name(task);
    for peer in &task.peers {
        let held = share(task, peer);
        table.row(vec![
            peer.name.clone(),
            held.map(bar).unwrap_or_default(),
            held.map_or_else(
                || ByteSize(peer.held).to_string(),
                |held| format!("{:.0} %", (held * 100.0).floor()),
            ),
            rate(rates.of(&down(&id, peer))),
            rate(rates.of(&up(&id, peer))),
            partners(peer),
            state(task, peer),
        ]);
    }
    let unseen = task.hosts.saturating_sub(u32::try_from(task.peers.len()).unwrap_or(u32::MAX));
    let rest = match unseen {
        0 => String::new(),
        unseen => format!("\n… and {}", counted(unseen.into(), "host more", "hosts more")),
    };
    format!("{}\n{}\n\n{}{rest}", head(task), figures(task, rates), table.render())
}

/// A line on one task.
pub fn summary(task: &SwarmTask, rates: &Rates) -> String {
    format!("{}  {}", head(task), figures(task, rates))
}

fn head(task: &SwarmTask) -> String {
    let length = task.task.length.map_or("?".to_owned(), |length| ByteSize(length).to_string());
    format!("{}  {}  {length}", task.task.id.short(), task.task.place())
}

fn figures(task: &SwarmTask, rates: &Rates) -> String {
    let copies = copies_said(task);
    let mut parts = vec![
        format!(
            "{} of {} complete, {} taking, {} still",
            task.complete,
            counted(task.hosts.into(), "host", "hosts"),
            task.taking,
            task.still
        ),
        rate(rates.of(&task_name(task))),
        format!("source {}{copies}", ByteSize(task.source)),
    ];
    if task.crossed > 0 {
        parts.push(format!("across data centres {}", ByteSize(task.crossed)));
    }
    parts.extend(task.delegates.iter().take(DELEGATES).map(leads));
    if !task.blacklisted.is_empty() {
        parts.push(printable(&format!("BLACKLISTED {}", task.blacklisted.join(", "))));
    }
    parts.join("  ")
}

/// Everything a cluster is busy with, what moves first.
pub fn all(tasks: &[SwarmTask], rates: &Rates) -> String {
    let mut sorted: Vec<&SwarmTask> = tasks.iter().collect();
    let by_rate = |task: &SwarmTask| std::cmp::Reverse(rates.of(&task_name(task)).unwrap_or(0));
    sorted.sort_by_key(|task| (by_rate(task), std::cmp::Reverse(task.taking), task.task.id));
    let mut table = Table::new(&[
        ("TASK", Align::Left),
        ("LENGTH", Align::Right),
        ("HOSTS", Align::Right),
        ("DONE", Align::Right),
        ("TAKING", Align::Right),
        ("STILL", Align::Right),
        ("RATE", Align::Right),
        ("SOURCE", Align::Right),
        ("COPIES", Align::Right),
        ("URL", Align::Left),
    ]);
    for task in &sorted {
        table.row(vec![
            task.task.id.short(),
            task.task.length.map_or("?".to_owned(), |length| ByteSize(length).to_string()),
            task.hosts.to_string(),
            task.complete.to_string(),
            task.taking.to_string(),
            task.still.to_string(),
            rate(rates.of(&task_name(task))),
            ByteSize(task.source).to_string(),
            copies(task).map_or("-".to_owned(), |copies| format!("{copies:.2}")),
            shortened(&task.task.place().to_string(), URL).into_owned(),
        ]);
    }
    let of = |task: &SwarmTask| {
        let id = task.task.id.short();
        task.delegates.iter().map(move |one| format!("{id}  {}", leads(one))).collect::<Vec<_>>()
    };
    let led: Vec<String> = sorted.iter().flat_map(|task| of(task)).take(DELEGATES).collect();
    let led = if led.is_empty() { String::new() } else { format!("\n\n{}", led.join("\n")) };
    format!("{}\n\n{}{led}", totals(tasks, rates), table.render())
}

/// That a node leads its neighbours.
fn leads((delegate, hosts): &(String, u32)) -> String {
    let hosts = counted((*hosts).into(), "host", "hosts");
    printable(&format!("{delegate} leads {hosts}"))
}

/// A line on all of them.
pub fn totals(tasks: &[SwarmTask], rates: &Rates) -> String {
    let sum = |of: fn(&SwarmTask) -> u64| tasks.iter().map(of).fold(0, u64::saturating_add);
    let moving = tasks.iter().filter_map(|task| rates.of(&task_name(task)));
    format!(
        "{}, {} taking, {} still  {}  source {}, between hosts {}, across data centres {}",
        counted(tasks.len() as u64, "task", "tasks"),
        sum(|task| task.taking.into()),
        sum(|task| task.still.into()),
        rate(Some(moving.fold(0, u64::saturating_add))),
        ByteSize(sum(|task| task.source)),
        ByteSize(sum(|task| task.taken)),
        ByteSize(sum(|task| task.crossed)),
    )
}

/// The same for programs: the task with the rates.
pub fn event(task: &SwarmTask, rates: &Rates) -> Value {
    let id = task_name(task);
    let mut event = task.json();
    event["event"] = "swarm".into();
    event["rate"] = json!(rates.of(&id));
    let peers = event["peers"].as_array_mut();
    for (shown, peer) in peers.into_iter().flatten().zip(&task.peers) {
        shown["down_rate"] = json!(rates.of(&down(&id, peer)));
        shown["up_rate"] = json!(rates.of(&up(&id, peer)));
    }
    event
}

fn bar(share: f64) -> String {
    let full = (share * BAR as f64).floor() as usize;
    format!("{}{}", "━".repeat(full), "─".repeat(BAR - full.min(BAR)))
}

/// Those it takes from now: who gave something of late, else its parents.
fn partners(peer: &SwarmPeer) -> String {
    let is_now = |age: Option<u64>| age.is_some_and(|age| age < 5000);
    let giving = peer.givers.iter().filter(|giver| is_now(giver.last_ms));
    let mut names: Vec<&str> = giving.filter_map(|giver| giver.name.as_deref()).collect();
    if names.is_empty() {
        names = peer.parents.iter().map(String::as_str).collect();
    }
    match names.len() {
        0 => "-".to_owned(),
        1..=4 => names.join(", "),
        more => format!("{} and {} more", names[..3].join(", "), more - 3),
    }
}

fn state(task: &SwarmTask, peer: &SwarmPeer) -> String {
    if share(task, peer) >= Some(1.0) && !words::is_still(&peer.standing) {
        return "complete".to_owned();
    }
    let said = words::standing(&peer.standing, None);
    match said.next.is_empty() {
        true => said.now,
        false => format!("{}; {}", said.now, said.next),
    }
}

/// Text on a terminal that is replaced by the next one.
#[derive(Debug, Default)]
pub struct Screen {
    lines: usize,
}

impl Screen {
    /// Shows `text` in place of what it showed last, as much of it as `columns` × `rows` have room for.
    pub fn draw(
        &mut self,
        output: &Output,
        text: &str,
        (columns, rows): (usize, usize),
    ) -> Result<(), CliError> {
        output.bytes(self.frame(text, columns, rows).as_bytes())?;
        output.flush()
    }

    fn frame(&mut self, text: &str, columns: usize, rows: usize) -> String {
        let mut frame = match self.lines {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A"),
        };
        // The last row stays free: that is where the cursor is.
        let shown: Vec<&str> = text.lines().take(rows.saturating_sub(1).max(1)).collect();
        for line in &shown {
            // A line as wide as the terminal may wrap.
            frame.push_str(&shortened(line, columns.saturating_sub(2).max(1)));
            frame.push_str("\u{1b}[K\n");
        }
        frame.push_str("\u{1b}[J");
        self.lines = shown.len();
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_that_since_the_last_look() {
        let mut rates = Rates::default();
        rates.see("x".into(), 100, S);
        assert_eq!(rates.of("x"), None, "once is no rate");
        rates.see("x".into(), 300, S * 3);
        assert_eq!(rates.of("x"), Some(100));
        rates.see("x".into(), 10, S * 4);
        assert_eq!(rates.of("x"), Some(0), "who begins anew gives nothing back");
    }

    #[test]
    fn a_page_shows_who_holds_how_much_takes_from_whom_and_what_it_waits_for() {
        let swarm = super::super::why::tests::task();
        let mut rates = Rates::default();
        rates.see_task(&swarm, S);
        let mut later = swarm.clone();
        later.peers[1].givers[0].bytes += 3 << 20;
        later.taken += 3 << 20;
        rates.see_task(&later, S * 2);
        let id = swarm.task.id.short();
        let expected = format!(
            "\
{id}  http://origin.test/model.bin  100.0 MiB
0 of 3 hosts complete, 2 taking, 2 still  3.0 MiB/s  source 100.0 MiB (1.00 copies)  one leads 7 hosts  BLACKLISTED liar\\u{{1b}}[2J

NODE    HOLDS                         DOWN  UP  FROM    STATE
seed-1  ━━━━━━━━━━━━━━━━  100 %          -   -  -       complete
node-b  ━━━━────────────   31 %  3.0 MiB/s   -  node-a  nothing has come for 4.2 s; parents that do not answer are given up, and others looked for
… and 1 host more"
        );
        assert_eq!(task(&later, &rates), expected);
        let event = event(&later, &rates);
        assert_eq!((&event["event"], &event["rate"]), (&"swarm".into(), &(3 << 20).into()));
        assert_eq!(event["at"], "2026-11-20T09:16:34.000Z");
        assert_eq!(event["peers"][1]["down_rate"], 3 << 20);
        assert_eq!(event["peers"][1]["standing"]["still"], true);
        rates.keep_only(&[]);
        assert!(rates.before.is_empty() && rates.now.is_empty());
    }

    #[test]
    fn a_frame_replaces_the_one_before_and_fits() {
        let mut screen = Screen::default();
        assert_eq!(screen.frame("a\nb", 80, 24), "a\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(screen.frame("longer", 6, 24), "\u{1b}[2Along…\u{1b}[K\n\u{1b}[J");
        assert_eq!(screen.frame("1\n2\n3", 80, 3), "\u{1b}[1A1\u{1b}[K\n2\u{1b}[K\n\u{1b}[J");
    }

    #[test]
    fn a_bar_is_as_long_as_what_is_held() {
        assert_eq!(bar(0.0), "─".repeat(BAR));
        assert_eq!(bar(0.5), format!("{}{}", "━".repeat(8), "─".repeat(8)));
        assert_eq!(bar(1.0), "━".repeat(BAR));
    }
}
