//! A server that is not ours, as a process of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::process::{FreeAddress, listens};
use crate::wait::{self, PATIENCE};
use crate::{Failure, Owned};

/// Its process; it ends also when this one is killed.
pub struct Server {
    process: Option<Owned>,
    pub address: FreeAddress,
    pub log: PathBuf,
}

impl Server {
    /// Starts `command`, which listens at `address` when it is ready and writes into `log`.
    pub fn start(
        command: &mut Command,
        address: FreeAddress,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let what = command.get_program().to_string_lossy().into_owned();
        let needed = format!("{what} is needed, `cargo xtask test` installs it");
        let mut process = Owned::start(command).map_err(Failure::of(needed))?;
        let found = wait::find("the server listens", PATIENCE, || {
            match process.child.try_wait().ok().flatten() {
                Some(end) => Some(Err(end)),
                None => listens(address.at()).then_some(Ok(())),
            }
        });
        let store = Self { process: Some(process), address, log };
        match found? {
            Ok(()) => Ok(store),
            Err(end) => {
                let said = fs::read_to_string(&store.log).unwrap_or_default();
                Err(Failure::new(format!("{what} ended: {end}\n{said}")))
            }
        }
    }

    /// Kills it.
    pub fn stop(&mut self) {
        drop(self.process.take());
    }
}
