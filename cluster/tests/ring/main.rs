//! The second ring of simulation: whole clusters in one process, in simulated time, on links that break.
//!
//! Peers, scheduler, seed and manager are what our programs are made of, down to gRPC and the piece plane's frames; the
//! network, the origin and the clock are simulated. [`Plan`] draws from a seed who reads what, and what goes wrong;
//! [`story`] carries it out, and says what must be true of it; [`named`] tells single stories.
//!
//! A seed gives the same cluster, with the same names and keys, the same readers, and the same troubles at the same
//! simulated times. It does not give the same interleavings: what runs on threads (the store, hashes, signatures) takes
//! no simulated time, but comes back in any order; pauses before another attempt and the order of hash maps are of the
//! process's own chance; and the manager's database has a thread of its own, whose time is real. So a seed that fails
//! may need a few runs to fail again.
//!
//! `cargo xtask ring --seeds 1000` tells many stories; `--from 4004 --seeds 1` one again, and `RING_LOG=info,dfs_peer=debug`
//! prints the log of all machines with simulated time.

#![allow(clippy::unwrap_used)] // The lint knows only functions marked as tests, not what they call.

mod named;
mod network;
mod origin;
mod reading;
mod ring;
mod story;
mod troubles;
mod world;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::troubles::Plan;

/// Seeds under which something was found once: what it was is a story of its own in [`named`].
const KEPT: [u64; 3] = [60, 4004, 5020];

/// Simulated time, for the log.
struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        let now = world::NOW.load(Ordering::Relaxed);
        write!(to, "{}.{:03}", now / 1000, now % 1000)
    }
}

/// Prints what `RING_LOG` asks for.
fn log() {
    let Ok(filter) = std::env::var("RING_LOG") else { return };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Simulated);
    // It is there already where this is not the first story.
    let _ = log.with_ansi(false).with_writer(std::io::stderr).try_init();
}

fn tell(seeds: impl IntoIterator<Item = u64>) {
    let mut failed = Vec::new();
    for seed in seeds {
        let plan = Plan::draw(seed);
        match story::tell(&plan) {
            Ok(outcome) => println!("{seed}: {outcome}"),
            Err(why) => {
                println!("{plan}{why}\nfailed: seed {seed}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn kept_seeds_are_told_to_their_end() {
    tell(KEPT);
}

#[test]
fn the_first_seeds_are_told_to_their_end() {
    tell(0..8);
}

#[test]
fn other_seeds_are_told_to_their_end() {
    tell(1000..1008);
}

#[test]
#[ignore = "for as long as one likes: cargo xtask ring --seeds 1000"]
fn many_seeds() {
    let range = std::env::var("RING_SEEDS").unwrap_or("0..100".to_owned());
    let (from, to) = range.split_once("..").expect("a range of seeds");
    let range: Range<u64> = from.parse().unwrap()..to.parse().unwrap();
    tell(range);
}
