//! Ctrl-C: the first stops cleanly, the second at once.
//!
//! A thread of its own waits for the signals, so the second one works even while the main thread is stuck in
//! a system call. Whoever relays signals may send each twice, to the process and to its group (`timeout` does):
//! what comes on the heels of the first is the first.

use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::codes::{self, Exit};
use crate::error::CliError;

/// No hand is faster.
const SAME: Duration = Duration::from_millis(200);

/// The installed handlers.
pub struct Interrupts(CancellationToken);

impl Interrupts {
    /// Takes over SIGINT and SIGTERM. The thread ends with the process.
    pub fn install() -> Result<Self, CliError> {
        let token = CancellationToken::new();
        let cancel = token.clone();
        let failed = |error: &dyn std::error::Error| {
            CliError::new(&codes::UNEXPECTED, "cannot wait for signals").caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| failed(&error))?;
        let (mut interrupt, mut terminate) = runtime
            .block_on(async {
                Ok::<_, std::io::Error>((
                    signal(SignalKind::interrupt())?,
                    signal(SignalKind::terminate())?,
                ))
            })
            .map_err(|error| failed(&error))?;
        let wait = move || {
            runtime.block_on(async {
                let mut first: Option<Instant> = None;
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    match first {
                        None => cancel.cancel(),
                        Some(first) if first.elapsed() > SAME => break,
                        Some(_) => {}
                    }
                    first.get_or_insert_with(Instant::now);
                }
            });
            std::process::exit(Exit::Interrupted as i32);
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(wait)
            .map_err(|error| failed(&error))?;
        Ok(Self(token))
    }

    /// Cancelled by the first signal.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}
