//! Signals concern the whole process, so they are tried in a process with nothing else in it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_service::lifecycle::LifecycleError;
use dfs_service::{Lifecycle, OnFailure};
use rustix::process::{Signal, getpid, kill_process};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_signal_stops_and_a_second_one_stops_at_once() {
    let mut lifecycle = Lifecycle::new(LONG).unwrap();
    let stopped = Arc::new(AtomicBool::new(false));

    let store = lifecycle.service("store");
    let (token, seen) = (store.token().clone(), stopped.clone());
    store.spawn("work", OnFailure::StopProcess, async move {
        token.cancelled().await;
        seen.store(true, Ordering::Relaxed);
        Ok::<_, io::Error>(())
    });

    let stubborn = lifecycle.service("stubborn");
    let token = stubborn.token().clone();
    stubborn.spawn("work", OnFailure::StopProcess, async move {
        token.cancelled().await;
        kill_process(getpid(), Signal::INT)?;
        std::future::pending::<io::Result<()>>().await
    });

    kill_process(getpid(), Signal::TERM).unwrap();
    let error = lifecycle.run().await.unwrap_err();
    assert!(matches!(error, LifecycleError::Interrupted), "{error}");
    assert!(!stopped.load(Ordering::Relaxed), "nothing was waited for");
}
