//! Keys that a program of the user's own makes: `credential_process` of a profile.
//!
//! It is run by the shell, with nothing on its standard input, and may ask its user at the terminal: what it says on
//! its standard error is theirs to see. It is ended when it takes too long or nobody waits any more; what it started
//! and left behind is its own business.

use std::io;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStdout, Command};
use zeroize::Zeroizing;

use crate::s3::time::{iso, system_time};
use crate::{AccessKeys, Secret};

/// Long enough for somebody to touch a token or to confirm on a phone.
const WITHIN: Duration = Duration::from_secs(60);

/// Longest output.
const MAX_BYTES: usize = 64 * 1024;

/// What it must print.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// The keys that `line` prints; why there are none, as what is said of the program.
pub(super) async fn keys(line: &str) -> Result<AccessKeys, String> {
    read(&output(line, WITHIN).await?, SystemTime::now())
}

async fn output(line: &str, within: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    // In the group of this process: in one of its own it could not read the terminal, nor would Ctrl-C reach it.
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let started = |error: io::Error| format!("cannot be started: {error}");
    let mut child = command.spawn().map_err(started)?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    let printed = async {
        let bytes = all_of(stdout).await?;
        let ended = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
        if ended.success() { Ok(bytes) } else { Err(format!("ended with {ended}")) }
    };
    let late = |_| Err(format!("did not end within {} s", within.as_secs()));
    tokio::time::timeout(within, printed).await.unwrap_or_else(late)
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

fn read(output: &[u8], now: SystemTime) -> Result<AccessKeys, String> {
    // What the parser says may hold what it parsed.
    let printed: Printed = serde_json::from_slice(output)
        .map_err(|_| "printed no JSON with Version, AccessKeyId and SecretAccessKey".to_owned())?;
    let secret = Secret::new(printed.secret_access_key);
    let token = printed.session_token.map(Secret::new);
    if printed.version != 1 {
        return Err(format!(
            "printed keys of version {}, of which nothing is known",
            printed.version
        ));
    }
    if printed.access_key_id.is_empty() || secret.expose().is_empty() {
        return Err("printed an empty AccessKeyId or SecretAccessKey".to_owned());
    }
    let expires = match printed.expiration.as_deref() {
        Some(text) => {
            let end = iso(text).and_then(system_time);
            Some(end.ok_or("printed an Expiration that is no time")?)
        }
        None => None,
    };
    if expires.is_some_and(|end| end <= now) {
        return Err("printed keys that have ended".to_owned());
    }
    Ok(AccessKeys { id: printed.access_key_id, secret, token, expires })
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, UNIX_EPOCH};

    use super::*;

    const GOOD: &str = r#"{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":"hidden","SessionToken":"t","Expiration":"2999-01-01T00:00:00Z"}"#;

    #[tokio::test]
    async fn keys_are_read_with_their_end() {
        let found = keys(&format!("printf '%s' '{GOOD}'")).await.unwrap();
        assert_eq!((&*found.id, found.token), ("ASIA1", Some("t".into())));
        assert!(found.expires.unwrap() > SystemTime::now());
        let lasting = r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s"}"#;
        let found = read(lasting.as_bytes(), SystemTime::now()).unwrap();
        assert_eq!((found.token, found.expires), (None, None));
    }

    #[test]
    fn what_is_no_keys_is_said_without_what_was_printed() {
        let bad = |from: &str, to: &str| GOOD.replace(from, to);
        for (printed, said) in [
            (String::new(), "printed no JSON"),
            (bad("SecretAccessKey", "Other"), "printed no JSON"),
            (bad("\"Version\":1", "\"Version\":2"), "of version 2"),
            (bad("2999-01-01T00", "soon"), "Expiration that is no time"),
            (bad("2999", "1999"), "keys that have ended"),
            (bad("ASIA1", ""), "an empty AccessKeyId"),
            (bad("hidden", ""), "an empty AccessKeyId or SecretAccessKey"),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let error = read(printed.as_bytes(), now).unwrap_err();
            assert!(error.contains(said) && !error.contains("hidden"), "{error}");
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
