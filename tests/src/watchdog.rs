//! Ends what a test has started also when the test itself is killed, and can do nothing any more.
//!
//! A shell waits for a pipe of this process to close, which the kernel sees to however the process ends. It is in a
//! group of its own: what is sent to the group of the test does not reach it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// Ends a process group whose number is its first argument: kindly, so that an agent takes its mounts away, then
/// for certain.
const SCRIPT: &str = r#"
    read -r _
    kill -s TERM -- "-$1" || exit 0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.5
        kill -s 0 -- "-$1" || exit 0
    done
    kill -s KILL -- "-$1"
"#;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    /// Holds our end of the pipe as its standard input.
    shell: Child,
}

impl Watchdog {
    /// Ends the process group that `leader` leads when this process is gone.
    pub fn over(leader: &Child) -> Result<Self, Failure> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog", &leader.id().to_string()])
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Failure::of("cannot start a shell"))?;
        Ok(Self { shell })
    }
}

/// A child that ends with its owner, or with this process.
#[derive(Debug)]
pub struct Owned {
    /// Itself, the leader of a group of its own.
    pub child: Child,
    _watchdog: Watchdog,
}

impl Owned {
    /// Starts it.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.process_group(0).spawn()?;
        match Watchdog::over(&child) {
            Ok(watchdog) => Ok(Self { child, _watchdog: watchdog }),
            Err(failure) => {
                child.kill().and_then(|()| child.wait())?;
                Err(io::Error::other(failure))
            }
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killed before its pipe is closed: then it ends nothing.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
