//! Programs of the user's own that print something secret: keys, a login.
//!
//! Such a program may ask its user at the terminal: what it says on its standard error is theirs to see. It is ended when it
//! takes too long or nobody waits any more; what it started and left behind is its own business.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout, Command};
use zeroize::Zeroizing;

/// Long enough for somebody to touch a token or to confirm on a phone.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Longest output.
const MAX_BYTES: usize = 64 * 1024;

/// How a program ended and what it printed; why it did not, as what is said of the program. It is told `input` where
/// there is some.
pub(crate) async fn run(
    mut command: Command,
    input: Option<&str>,
    within: Duration,
) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), String> {
    // In the group of this process: in one of its own it could not read the terminal, nor would Ctrl-C reach it.
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).kill_on_drop(true);
    let started = |error: io::Error| format!("cannot be started: {error}");
    let mut child = command.spawn().map_err(started)?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    let stdin = child.stdin.take();
    let printed = async {
        let ((), bytes) = tokio::join!(tell(stdin, input), all_of(stdout));
        let bytes = bytes?;
        let ended = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
        Ok((ended, bytes))
    };
    let late = |_| Err(format!("did not end within {} s", within.as_secs()));
    tokio::time::timeout(within, printed).await.unwrap_or_else(late)
}

/// Whoever does not listen is told nothing: what comes of that, its output says.
async fn tell(stdin: Option<ChildStdin>, input: Option<&str>) {
    if let (Some(mut stdin), Some(input)) = (stdin, input) {
        let _ = stdin.write_all(input.as_bytes()).await;
    }
}

async fn all_of(stdout: ChildStdout) -> Result<Zeroizing<Vec<u8>>, String> {
    // Never moved while it grows: what is left behind would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_BYTES));
    match stdout.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await {
        Ok(length) if length > MAX_BYTES => Err(format!("prints more than {MAX_BYTES} bytes")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn output(line: &str, within: Duration) -> Result<Vec<u8>, String> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        let (ended, bytes) = run(command, None, within).await?;
        if ended.success() { Ok(bytes.to_vec()) } else { Err(format!("ended with {ended}")) }
    }

    #[tokio::test]
    async fn a_program_hears_what_it_is_told_and_may_leave_it() {
        for (program, heard) in [("cat", "a host"), ("true", "")] {
            let (ended, bytes) = run(Command::new(program), Some("a host"), WITHIN).await.unwrap();
            assert!(ended.success() && bytes.as_slice() == heard.as_bytes(), "{program}");
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_floods_or_hangs_is_given_up() {
        let long = Duration::from_secs(60);
        assert!(output("exit 3", long).await.unwrap_err().contains("exit status: 3"));
        let missing = output("no-such-program-here 2>/dev/null", long).await.unwrap_err();
        assert!(missing.contains("127"), "{missing}");
        let started = Instant::now();
        assert!(output("yes", long).await.unwrap_err().contains("more than 65536 bytes"));
        // Also where what holds on to the output is a child of its.
        let hanging = output("sleep 20 2>&- & wait", Duration::from_millis(50)).await.unwrap_err();
        assert!(hanging.contains("did not end within"), "{hanging}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_program_may_use_the_terminal_as_this_process_may() {
        let group = output("cut -d ' ' -f 5 /proc/$$/stat", WITHIN).await.unwrap();
        let own = rustix::process::getpgrp().as_raw_nonzero().to_string();
        assert_eq!(String::from_utf8_lossy(&group).trim(), own);
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_any_more_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let line = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
        let known = async {
            while !file.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = output(&line, WITHIN) => panic!("{:?}", ended.map(drop)),
            () = known => {}
        }
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let begun = Instant::now();
        while runs() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
            tokio::task::yield_now().await;
        }
    }
}
