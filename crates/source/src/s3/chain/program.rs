//! Keys that a program of the user's own makes: `credential_process` of a profile.
//!
//! It is run by the shell, as other tools run it, with nothing on its standard input; what it says on its
//! standard error is the user's to see. It and all it started end with the wait for it.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::s3::time::{iso, system_time};
use crate::{AccessKeys, Secret};

/// Long enough for somebody to touch a token or to confirm on a phone.
const WITHIN: Duration = Duration::from_secs(60);

/// Longest output.
const MAX_BYTES: u64 = 64 * 1024;

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

/// The keys that `line` prints; why there are none, as what is said of the program. Waits for it.
pub(super) fn keys(line: &str) -> Result<AccessKeys, String> {
    read(&output(line, WITHIN)?, SystemTime::now())
}

fn output(line: &str, within: Duration) -> Result<Vec<u8>, String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let started = |error: io::Error| format!("cannot be started: {error}");
    let mut child = command.spawn().map_err(started)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(stdout) = child.stdout.take() else { return Err("has no output".to_owned()) };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let printed = all_of(stdout);
        if printed.is_err() {
            // Nobody reads on: it might never end.
            end(group);
        }
        let ended = child.wait().map_err(|error| format!("cannot be waited for: {error}"));
        let told = printed.and_then(|bytes| match ended? {
            status if status.success() => Ok(bytes),
            status => Err(format!("ended with {status}")),
        });
        // Nobody may wait any more.
        let _ = sender.send(told);
    });
    receiver.recv_timeout(within).unwrap_or_else(|_| {
        end(group);
        Err(format!("did not end within {} s", within.as_secs()))
    })
}

/// Ends a program and what it started.
fn end(group: Option<Pid>) {
    // It may have ended by itself.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
}

fn all_of(stdout: ChildStdout) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match stdout.take(MAX_BYTES + 1).read_to_end(&mut bytes) {
        Ok(length) if length as u64 > MAX_BYTES => {
            Err(format!("prints more than {MAX_BYTES} bytes"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn read(output: &[u8], now: SystemTime) -> Result<AccessKeys, String> {
    // What the parser says may hold what it parsed.
    let printed: Printed = serde_json::from_slice(output)
        .map_err(|_| "printed no JSON with Version, AccessKeyId and SecretAccessKey".to_owned())?;
    if printed.version != 1 {
        return Err(format!(
            "printed keys of version {}, of which nothing is known",
            printed.version
        ));
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
    Ok(AccessKeys {
        id: printed.access_key_id,
        secret: Secret::new(printed.secret_access_key),
        token: printed.session_token.map(Secret::new),
        expires,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, UNIX_EPOCH};

    use super::*;

    const GOOD: &str = r#"{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":"hidden","SessionToken":"t","Expiration":"2999-01-01T00:00:00Z"}"#;

    #[test]
    fn keys_are_read_with_their_end() {
        let found = keys(&format!("printf '%s' '{GOOD}'")).unwrap();
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
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let error = read(printed.as_bytes(), now).unwrap_err();
            assert!(error.contains(said) && !error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn a_program_that_fails_floods_or_hangs_is_given_up() {
        let long = Duration::from_secs(60);
        assert!(output("exit 3", long).unwrap_err().contains("exit status: 3"));
        assert!(output("no-such-program-here 2>/dev/null", long).unwrap_err().contains("127"));
        let started = Instant::now();
        assert!(output("yes", long).unwrap_err().contains("more than 65536 bytes"));
        // Also where what holds on to the output is a child of its.
        let hanging = output("sleep 600 & wait", Duration::from_millis(50)).unwrap_err();
        assert!(hanging.contains("did not end within"), "{hanging}");
        assert!(started.elapsed() < long);
    }
}
