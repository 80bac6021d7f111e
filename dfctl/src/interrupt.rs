//! Ctrl-C: the first stops cleanly, the second at once.
//!
//! A thread of its own waits for the signals, so the second one works even while the main thread is stuck in
//! a system call.

use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::codes::{self, Exit};
use crate::error::CliError;

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
                for first in [true, false] {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if first {
                        cancel.cancel();
                    }
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
