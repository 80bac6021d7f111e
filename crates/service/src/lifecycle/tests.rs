use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

type Log = Arc<Mutex<Vec<&'static str>>>;

const LONG: Duration = Duration::from_secs(3600);

/// A service with one task that ends as soon as it is asked.
fn obedient(lifecycle: &mut Lifecycle, name: &'static str, log: &Log) {
    let tracker = lifecycle.service(name);
    let (token, log) = (tracker.token().clone(), log.clone());
    tracker.spawn("work", OnFailure::StopProcess, async move {
        token.cancelled().await;
        log.lock().unwrap().push(name);
        Ok::<_, io::Error>(())
    });
}

#[tokio::test]
async fn services_stop_in_reverse_order() {
    let log = Log::default();
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    for name in ["store", "wire", "mounts"] {
        obedient(&mut lifecycle, name, &log);
    }
    lifecycle.stopper().stop();
    lifecycle.run().await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["mounts", "wire", "store"]);
}

#[tokio::test]
async fn a_vital_failure_stops_the_process_and_is_its_reason() {
    let log = Log::default();
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    obedient(&mut lifecycle, "store", &log);
    let wire = lifecycle.service("wire");
    wire.spawn("accept", OnFailure::StopProcess, async { Err(io::Error::other("no more")) });
    let error = lifecycle.run().await.unwrap_err();
    let LifecycleError::Failed(failure) = error else { panic!("{error}") };
    assert_eq!((failure.service, failure.task), ("wire", "accept"));
    assert_eq!(failure.source.to_string(), "no more");
    assert_eq!(*log.lock().unwrap(), ["store"]);
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    let wire = lifecycle.service("wire");
    wire.spawn("accept", OnFailure::StopProcess, async {
        if wire_is_broken() {
            panic!("broken");
        }
        Ok::<_, io::Error>(())
    });
    let error = lifecycle.run().await.unwrap_err();
    let LifecycleError::Failed(failure) = error else { panic!("{error}") };
    assert!(failure.source.to_string().contains("broken"), "{}", failure.source);
}

fn wire_is_broken() -> bool {
    true
}

#[tokio::test]
async fn a_failure_that_is_only_reported_stops_nothing() {
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    let extras = lifecycle.service("extras");
    extras.spawn("once", OnFailure::Report, async { Err(io::Error::other("never mind")) });
    extras.cancel();
    extras.finished().await;
    assert!(lifecycle.failures.try_recv().is_err());
    lifecycle.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_starts_again_until_it_ends_well() {
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    let tracker = lifecycle.service("announcer");
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, stopper) = (runs.clone(), lifecycle.stopper());
    tracker.spawn_restarting("announce", Backoff::default(), move || {
        let run = counted.fetch_add(1, Ordering::Relaxed) + 1;
        let stopper = stopper.clone();
        async move {
            if run < 6 {
                return Err(io::Error::other("manager does not answer"));
            }
            stopper.stop();
            Ok(())
        }
    });
    lifecycle.run().await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn a_wait_before_a_restart_ends_when_the_service_stops() {
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    let tracker = lifecycle.service("announcer");
    let (failed, mut seen) = mpsc::unbounded_channel();
    let never = Backoff { first: 24 * LONG, max: 24 * LONG };
    tracker.spawn_restarting("announce", never, move || {
        let failed = failed.clone();
        async move {
            failed.send(()).unwrap();
            Err(io::Error::other("manager does not answer"))
        }
    });
    seen.recv().await.unwrap();
    lifecycle.stop().await.unwrap();
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_stop_in_time_is_dropped_and_named() {
    let log = Log::default();
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    obedient(&mut lifecycle, "store", &log);
    let stubborn = lifecycle.service("stubborn");
    let guard = Dropped(dropped.clone());
    stubborn.spawn("work", OnFailure::StopProcess, async move {
        std::future::pending::<()>().await;
        drop(guard);
        Ok::<_, io::Error>(())
    });
    let error = lifecycle.stop().await.unwrap_err();
    assert!(
        matches!(&error, LifecycleError::StillRunning { services, .. } if *services == ["stubborn"]),
        "{error}"
    );
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert_eq!(*log.lock().unwrap(), ["store"], "the rest stops all the same");
}
