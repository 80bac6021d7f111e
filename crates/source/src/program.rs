//! Programs of the user's own that print something secret: keys, a login.
//!
//! Such a program may ask its user at the terminal: what it says on its standard error is theirs to see, unless nobody is
//! there. It is ended when it takes too long or nobody waits any more; what it started and left behind is its own business.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use zeroize::Zeroizing;

/// Long enough for somebody to touch a token or to confirm on a phone.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Longest output.
const MAX_BYTES: usize = 64 * 1024;

/// Longest that is kept of what a program says of itself.
const MAX_COMPLAINT: u64 = 4 * 1024;

/// What came of a program.
pub(crate) struct Ran {
    /// How it ended.
    pub ended: ExitStatus,
    /// What it printed.
    pub printed: Zeroizing<Vec<u8>>,
    /// The first of what it said on its standard error, where the command has that piped.
    pub complaint: String,
}

/// Runs a program that is told `input` where there is some; why it did not come to an end, as what is said of the program.
pub(crate) async fn run(
    mut command: Command,
    input: Option<&str>,
    within: Duration,
) -> Result<Ran, String> {
    // In the group of this process: in one of its own it could not read the terminal, nor would Ctrl-C reach it.
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).kill_on_drop(true);
    let started = |error: io::Error| format!("cannot be started: {error}");
    let mut child = command.spawn().map_err(started)?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let printed = async {
        let told = async {
            tell(stdin, input).await;
            Ok(())
        };
        let complained = async { Ok(first_of(stderr).await) };
        let ((), printed, complaint) = tokio::try_join!(told, all_of(stdout), complained)?;
        let ended = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
        Ok(Ran { ended, printed, complaint })
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

/// How it begins; all of it is taken, or the program would wait.
async fn first_of(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let mut bytes = Vec::new();
    // What cannot be read is not said.
    let _ = (&mut stderr).take(MAX_COMPLAINT).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn output(line: &str, within: Duration) -> Result<Vec<u8>, String> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        let ran = run(command, None, within).await?;
        let ended = ran.ended;
        if ended.success() { Ok(ran.printed.to_vec()) } else { Err(format!("ended with {ended}")) }
    }

    #[tokio::test]
    async fn of_what_a_program_complains_of_the_first_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no keys >&2; head -c 1000000 /dev/zero >&2; echo out"]);
        command.stderr(Stdio::piped());
        let ran = run(command, None, WITHIN).await.unwrap();
        assert_eq!(ran.printed.as_slice(), b"out\n");
        assert!(ran.complaint.starts_with("no keys\n"));
        assert_eq!(ran.complaint.len() as u64, MAX_COMPLAINT);
    }

    #[tokio::test]
    async fn a_program_hears_what_it_is_told_and_may_leave_it() {
        for (program, heard) in [("cat", "a host"), ("true", "")] {
            let ran = run(Command::new(program), Some("a host"), WITHIN).await.unwrap();
            assert!(ran.ended.success() && ran.printed.as_slice() == heard.as_bytes(), "{program}");
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
