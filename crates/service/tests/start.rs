//! The log and the signals concern the whole process, so its start is tried in one with nothing else in it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dfs_service::OnFailure;
use dfs_service::process::{self, Error, Options};
use dfs_service::run_info::RunInfo;

#[tokio::test]
async fn a_process_that_cannot_announce_itself_stops_what_it_started() {
    let place = tempfile::tempdir().unwrap();
    let data = dfs_service::data_dir::private_dir(&place.path().join("data")).unwrap();
    // No file can take its place.
    std::fs::create_dir(data.join("run.json")).unwrap();
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stopped);
    let ran: Result<(), Error> = process::run(&Options::default(), &data, async |_, lifecycle| {
        let store = lifecycle.service("store");
        let token = store.token().clone();
        store.spawn("work", OnFailure::StopProcess, async move {
            token.cancelled().await;
            seen.store(true, Ordering::Relaxed);
            Ok::<_, io::Error>(())
        });
        Ok(RunInfo::of_this_process("test", "1"))
    })
    .await;
    assert!(matches!(ran, Err(Error::RunInfo(_))), "{ran:?}");
    assert!(stopped.load(Ordering::Relaxed), "it stopped in order");
}
