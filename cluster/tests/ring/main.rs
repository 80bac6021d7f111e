//! The second ring of simulation.

#![allow(clippy::unwrap_used)] // The lint knows only functions marked as tests, not what they call.

mod named;
mod network;
mod origin;
mod reading;
mod ring;
mod story;
mod troubles;
mod world;

use crate::troubles::Plan;

fn log() {
    use tracing_subscriber::fmt::{format::Writer, time::FormatTime};
    struct Simulated;
    impl FormatTime for Simulated {
        fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
            let now = world::NOW.load(std::sync::atomic::Ordering::Relaxed);
            write!(w, "{}.{:03}", now / 1000, now % 1000)
        }
    }
    if let Ok(filter) = std::env::var("RING_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Simulated)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .try_init();
    }
}

#[test]
fn seeds() {
    log();
    let (from, to) = match std::env::var("RING_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            (from.parse().unwrap(), to.parse().unwrap())
        }
        Err(_) => (0, 20),
    };
    let mut failed = Vec::new();
    for seed in from..to {
        let plan = Plan::draw(seed);
        let began = std::time::Instant::now();
        match story::tell(&plan) {
            Ok(outcome) => println!(
                "{seed}: {:?} still {:?} {:?} {:?} {:?} {:?}",
                outcome.done_at,
                outcome.still,
                outcome.copies,
                outcome.well_after,
                outcome.errors,
                began.elapsed()
            ),
            Err(why) => {
                println!("FAILED {plan}{why} {:?}", began.elapsed());
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
