//! Processes that are killed or hang at any instant, round after round: every byte that is read is right, and the
//! origin pays for what was in flight at most.
//!
//! `KILLS=1000` strikes that often, `KILLS_SEED` elsewhere.

use std::env;
use std::fs;
use std::path::PathBuf;

use dfs_tests::process::Process;
use dfs_tests::wait::{self, PATIENCE};
use dfs_tests::{Body, Fault, Origin};

use crate::support::site::Site;
use crate::support::{Agent, Place, Running};

const MIB: u64 = 1 << 20;
const KILLS: u64 = 8;

/// Whom a strike hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Manager,
    Scheduler,
    Seed,
    Agent(usize),
}

/// A strike, as the seed of the run has it.
#[derive(Debug, Clone, Copy)]
struct Strike {
    victim: Victim,
    /// It stops to work for a while and does not die.
    hangs: bool,
    /// When: once the origin has sent so many bytes.
    after: u64,
    length: u64,
}

impl Strike {
    /// Copies that the origin may send again: without a seed some nodes read on for all, and one that only hangs
    /// goes on to read too.
    fn costs(self) -> u64 {
        if self.victim == Victim::Seed && self.hangs { 3 } else { 1 }
    }

    fn of(seed: u64, round: u64) -> Self {
        let hash = blake3::hash(&[seed.to_le_bytes(), round.to_le_bytes()].concat());
        let number =
            |at: usize| u64::from_le_bytes(*hash.as_bytes()[8 * at..].first_chunk().unwrap());
        let length = 2 * MIB + number(0) % (8 * MIB);
        let victim = match number(1) % 6 {
            0 => Victim::Manager,
            1 => Victim::Scheduler,
            2 => Victim::Seed,
            agent => Victim::Agent(agent as usize - 3),
        };
        Self { victim, hangs: number(2) % 4 == 0, after: number(3) % (length / 2), length }
    }
}

struct World {
    place: Place,
    origin: Origin,
    site: Site,
    agents: Vec<Agent>,
}

impl World {
    fn start() -> Self {
        let place = Place::new();
        let mut site = Site::start(&place);
        site.keep_ports();
        let agents = ["a", "b", "c"].map(|name| {
            let mut agent = site.agent(&place, name);
            agent.node.keep_ports().unwrap();
            agent
        });
        Self { origin: Origin::start().unwrap(), agents: agents.into(), site, place }
    }

    fn victim(&mut self, victim: Victim) -> &mut Process {
        match victim {
            Victim::Manager => &mut self.site.manager,
            Victim::Scheduler => &mut self.site.scheduler,
            Victim::Seed => &mut self.site.seed,
            Victim::Agent(number) => self.agents[number].node.process_mut(),
        }
    }

    fn start_get(&self, agent: usize, path: &str) -> (Running, PathBuf) {
        let output = self.place.path(&format!("out-{agent}"));
        let words = ["get", &self.origin.url(path), "--force", "-o", output.to_str().unwrap()];
        (self.agents[agent].dfctl_start(&words), output)
    }

    /// All get one file that nobody has while `strike` hits; what they got is right, at what price.
    fn round(&mut self, round: u64, strike: Strike) {
        let path = format!("/{round}");
        let body = Body::noise(round, strike.length);
        self.origin.put(&path, body.clone());
        // A second long there is something in flight.
        let pace = self.origin.inject(Fault::pace(strike.length - strike.after).on(&path));
        let mut getting: Vec<_> =
            (0..3).map(|agent| (agent, self.start_get(agent, &path))).collect();
        let in_flight = wait::until("bytes are in flight", || {
            let sent = self.sent(&path);
            pace.struck() > 0 && sent > strike.after && sent < strike.length
        });
        in_flight.unwrap_or_else(|error| {
            let told: Vec<_> = getting.iter().map(|(_, (running, _))| running.stderr()).collect();
            let counters = self.origin.counters();
            panic!("round {round}, {strike:?}: {error}, {counters:?}, {told:?}");
        });
        let hit = strike.victim;
        if strike.hangs {
            self.victim(hit).freeze();
        } else {
            self.victim(hit).kill();
            self.victim(hit).restart().unwrap();
        }
        pace.lift();
        // Who hangs is waited for last, and goes on when all others are done.
        getting.sort_by_key(|(agent, _)| hit == Victim::Agent(*agent));
        let mut thawed = !strike.hangs;
        for (agent, (running, output)) in getting {
            let is_hit = hit == Victim::Agent(agent);
            if is_hit && !thawed {
                self.victim(hit).thaw();
                thawed = true;
            }
            let said = running.wait();
            if said.code != 0 {
                let told = (said.code, &said.stderr);
                assert!(is_hit && !strike.hangs && said.code == 5, "{strike:?}: {told:?}");
                let again = self.start_get(agent, &path).0.wait();
                assert_eq!(again.code, 0, "{strike:?}: {}", again.stderr);
            }
            let right = body.read(0, strike.length).unwrap() == fs::read(&output).unwrap();
            assert!(right, "{strike:?}: agent {agent} has wrong bytes");
        }
        if !thawed {
            self.victim(hit).thaw();
        }
        // What the struck one had asked for may still come.
        self.origin.wait_idle(PATIENCE).unwrap();
        self.check_cost(round, strike);
        println!("round {round}: {strike:?}, {} bytes left the origin", self.sent(&path));
    }

    /// Bytes of one round's file that left the origin.
    fn sent(&self, path: &str) -> u64 {
        self.origin.counters().paths.get(path).map_or(0, |counters| counters.body_bytes)
    }

    fn check_cost(&self, round: u64, strike: Strike) {
        let sent = self.sent(&format!("/{round}"));
        let most = (1 + strike.costs()) * strike.length;
        assert!(sent <= most, "round {round}, {strike:?}: {sent} bytes left the origin");
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn whoever_is_struck_at_any_instant_every_byte_is_right() {
    let seed = number("KILLS_SEED", 1);
    let mut world = World::start();
    let rounds = || (0..number("KILLS", KILLS)).map(|round| (round, Strike::of(seed, round)));
    for (round, strike) in rounds() {
        world.round(round, strike);
    }
    // Who hung in a round may have read on in the next.
    for (round, strike) in rounds() {
        world.check_cost(round, strike);
    }
}
