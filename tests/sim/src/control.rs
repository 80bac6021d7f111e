//! How nodes and the scheduler talk: messages that take time on the way and at the scheduler, each of which carries
//! what has come together meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use dfs_scheduler::core::{Decision, Event};
use dfs_scheduler::matcher::{Failure, Micros};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::policy::{Node, Order};
use crate::scenario::Scenario;

/// What a node says to the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// I am here.
    Here,
    /// I am gone: what its connection says.
    Gone,
    /// An order was carried out.
    Done(Order),
    /// An order was not.
    Failed(Order, Failure),
    /// Something for the scheduler's core.
    Word(Box<Event>),
}

/// What a node is told by it.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Send this.
    Send(Order),
    /// Send that no more.
    Stop(u64),
    /// What the scheduler's core has decided.
    Word(Box<Decision>),
}

/// Words between a node and the scheduler, one way.
#[derive(Debug, Clone)]
struct Line<T> {
    words: Vec<T>,
    /// When the next may leave, and when the last arrives.
    next: Micros,
    last: Micros,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { words: Vec::new(), next: Micros(0), last: Micros(0) }
    }
}

/// All lines.
#[derive(Debug)]
pub struct Control {
    said: Vec<Line<Said>>,
    told: Vec<Line<Told>>,
    batch: u64,
    base: u64,
    jitter: u64,
    service: u64,
    random: StdRng,
    /// When each processor of the scheduler is free, and that of each node that leads others.
    cores: BTreeMap<Node, BinaryHeap<Reverse<Micros>>>,
    own_cores: u32,
    /// Microseconds that each message waited for one.
    waits: Vec<u32>,
}

impl Control {
    /// Those of a scenario.
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let nodes = scenario.nodes as usize + 1;
        Self {
            said: vec![Line::default(); nodes],
            told: vec![Line::default(); nodes],
            batch: scenario.batch_us,
            base: scenario.control_us,
            jitter: scenario.jitter_us,
            service: scenario.service_us,
            random: StdRng::seed_from_u64(seed ^ 10 << 32),
            cores: BTreeMap::new(),
            own_cores: scenario.cores,
            waits: Vec::new(),
        }
    }

    /// A node has something to say; when it does, where nothing waits to be said already.
    pub fn say(&mut self, node: Node, word: Said, now: Micros) -> Option<Micros> {
        put(&mut self.said[node as usize], word, now)
    }

    /// A node is to be told something; when it is, where nothing waits already.
    pub fn tell(&mut self, node: Node, word: Told, now: Micros) -> Option<Micros> {
        put(&mut self.told[node as usize], word, now)
    }

    /// What a node says now, and when it arrives.
    pub fn speak(&mut self, node: Node, now: Micros) -> (Vec<Said>, Micros) {
        let arrives = Micros(now.0 + self.latency());
        take(&mut self.said[node as usize], arrives, now, self.batch)
    }

    /// What a node is told now by who leads it, and when it arrives.
    pub fn utter(&mut self, node: Node, leader: Node, now: Micros) -> (Vec<Told>, Micros) {
        let leaves = self.serve(leader, now);
        let arrives = Micros(leaves.0 + self.latency());
        take(&mut self.told[node as usize], arrives, now, self.batch)
    }

    /// Whether there is anything to tell a node.
    pub fn has_to_tell(&self, node: Node) -> bool {
        !self.told[node as usize].words.is_empty()
    }

    /// What was to be said to and by a node is lost.
    pub fn hang_up(&mut self, node: Node) {
        self.said[node as usize].words.clear();
        self.forget(node);
    }

    /// What a node was to be told is not said: it is of an earlier life.
    pub fn forget(&mut self, node: Node) {
        self.told[node as usize].words.clear();
    }

    /// The scheduler, or a node that leads others, has a message before it; when it is through with it.
    pub fn serve(&mut self, leader: Node, now: Micros) -> Micros {
        if self.service == 0 {
            self.waits.push(0);
            return now;
        }
        let count = if leader == 0 { self.own_cores } else { 1 };
        let idle = || (0..count).map(|_| Reverse(Micros(0))).collect();
        let cores = self.cores.entry(leader).or_insert_with(idle);
        let Some(Reverse(free)) = cores.pop() else { return now };
        let begins = free.max(now);
        self.waits.push((begins.0 - now.0) as u32);
        let ends = Micros(begins.0 + self.service);
        cores.push(Reverse(ends));
        ends
    }

    /// Microseconds of one way.
    pub fn latency(&mut self) -> u64 {
        if self.jitter == 0 {
            return self.base;
        }
        let (one, other): (f64, f64) = (self.random.random(), self.random.random());
        // Box and Muller.
        let normal = (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos();
        self.base + (self.jitter as f64 * normal.exp()) as u64
    }

    /// Microseconds that messages waited for the scheduler, one by one; sorted.
    pub fn waits(mut self) -> Vec<u32> {
        self.waits.sort_unstable();
        self.waits
    }
}

fn put<T>(line: &mut Line<T>, word: T, now: Micros) -> Option<Micros> {
    line.words.push(word);
    (line.words.len() == 1).then(|| line.next.max(now))
}

/// Nothing overtakes what left before on the same line.
fn take<T>(line: &mut Line<T>, arrives: Micros, now: Micros, batch: u64) -> (Vec<T>, Micros) {
    line.next = Micros(now.0 + batch);
    line.last = line.last.max(arrives);
    (std::mem::take(&mut line.words), line.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_together_is_one_message_and_each_costs_the_scheduler() {
        let scenario =
            Scenario { control_us: 500, service_us: 20, batch_us: 1000, ..Scenario::default() };
        let mut control = Control::new(&scenario, 1);
        let at = |time| Some(Micros(time));
        assert_eq!(control.tell(1, Told::Stop(1), Micros(0)), at(0));
        assert_eq!(control.tell(1, Told::Stop(2), Micros(0)), None);
        let (words, arrives) = control.utter(1, 0, Micros(0));
        assert_eq!((words.len(), arrives), (2, Micros(520)));
        assert_eq!(control.tell(1, Told::Stop(3), Micros(10)), at(1000));
        assert_eq!(control.tell(2, Told::Stop(4), Micros(10)), at(10));
        // The only processor is still busy with the first message.
        assert_eq!(control.utter(2, 0, Micros(10)).1, Micros(540));
        assert_eq!(control.serve(0, Micros(60)), Micros(80));
        assert_eq!(control.waits(), [0, 0, 10]);
    }

    #[test]
    fn nothing_is_overtaken_on_a_line() {
        let scenario = Scenario { control_us: 100, jitter_us: 1000, ..Scenario::default() };
        let mut control = Control::new(&scenario, 1);
        let arrivals = (0..100).map(|now| {
            control.say(1, Said::Here, Micros(now));
            control.speak(1, Micros(now)).1
        });
        let arrivals: Vec<_> = arrivals.collect();
        assert!(arrivals.is_sorted() && arrivals[0] != arrivals[99]);
    }
}
