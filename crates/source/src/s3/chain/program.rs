//! Keys that a program of the user's own makes: `credential_process` of a profile.
//!
//! It is run by the shell, with nothing on its standard input.

use std::time::SystemTime;

use serde::Deserialize;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::program::{Ran, WITHIN, run};
use crate::s3::time::{iso, system_time};
use crate::{AccessKeys, Secret};

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
    read(&output(line).await?, SystemTime::now())
}

async fn output(line: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let Ran { ended, printed, .. } = run(command, None, WITHIN).await?;
    if ended.success() { Ok(printed) } else { Err(format!("ended with {ended}")) }
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
    use std::time::{Duration, UNIX_EPOCH};

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
}
