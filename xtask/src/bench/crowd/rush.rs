//! Commands on many machines, all at once or one after the other, and when each had its end.

use std::process::Command;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use dfs_tests::testbed::Machine;

use crate::interrupt::Interrupt;
use crate::run::Failure;

/// How often it is asked whether all of it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// When a crowd began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// Before the first start.
    pub at: Instant,
    /// The same by the clock that files are dated by.
    pub date: SystemTime,
}

/// Starts each command on its machine, spread evenly over a time; what `go` makes of each, in order.
pub fn rush<T: Send>(
    crowd: Vec<(&Machine, Command)>,
    spread: Duration,
    interrupt: &Interrupt,
    go: impl Fn(Begun, &mut Command) -> Result<T, Failure> + Sync,
) -> Result<(Begun, Vec<T>), Failure> {
    let pauses = arrivals(crowd.len(), spread);
    // All threads are on their machines before the clock starts.
    let (ready, begun) = (Barrier::new(crowd.len()), OnceLock::new());
    let done = thread::scope(|scope| {
        let (ready, begun, go) = (&ready, &begun, &go);
        let one = |(machine, mut command): (&Machine, Command), pause| {
            let entered = machine.enter();
            ready.wait();
            let begun =
                *begun.get_or_init(|| Begun { at: Instant::now(), date: SystemTime::now() });
            entered?;
            pause_until(begun.at + pause, interrupt)?;
            go(begun, &mut command)
        };
        let crowd = crowd.into_iter().zip(pauses);
        let threads: Vec<_> =
            crowd.map(|(each, pause)| scope.spawn(move || one(each, pause))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let ended =
            joined.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect::<Vec<_>>()
    });
    let done = done.into_iter().collect::<Result<_, Failure>>()?;
    let begun = begun.into_inner();
    Ok((begun.ok_or_else(|| Failure::Other("nobody came".to_owned()))?, done))
}

/// When each of so many comes.
pub fn arrivals(count: usize, spread: Duration) -> Vec<Duration> {
    let gaps = count.saturating_sub(1).max(1) as f64;
    (0..count).map(|number| spread.mul_f64(number as f64 / gaps)).collect()
}

fn pause_until(at: Instant, interrupt: &Interrupt) -> Result<(), Failure> {
    while let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        interrupt.check()?;
        thread::park_timeout(left.min(LOOK_EVERY));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_comes_at_the_end() {
        let second = Duration::from_secs(1);
        assert_eq!(arrivals(3, second * 4), [Duration::ZERO, second * 2, second * 4]);
        assert_eq!(arrivals(1, second), [Duration::ZERO]);
        assert_eq!(arrivals(2, Duration::ZERO), [Duration::ZERO; 2]);
    }
}
