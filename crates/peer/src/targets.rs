//! Targets, views and credentials as they travel from who asks to who fetches. Secrets are stored by
//! nobody on the way and never printed.

use std::time::{Duration, UNIX_EPOCH};

use dfs_artifact::View;
use dfs_proto::common;
use dfs_proto::convert::{self, BadMessage};
use dfs_source::{AccessKeys, Credentials, Secret, Target};

use crate::wire::{MAX_CREDENTIALS, SealedCredentials};

/// A target with its credentials.
pub fn to_wire(target: &Target) -> common::Target {
    common::Target {
        url: target.url.as_str().to_owned(),
        headers: convert::to_headers(&target.headers),
        credentials: credentials_to_wire(&target.credentials),
    }
}

/// Reads a target off the wire.
pub fn from_wire(target: Option<common::Target>) -> Result<Target, BadMessage> {
    let target = target.unwrap_or_default();
    Ok(Target {
        url: convert::url(&target.url)?,
        headers: convert::headers(target.headers)?,
        credentials: credentials_from_wire(target.credentials)?,
    })
}

fn credentials_to_wire(credentials: &Credentials) -> Option<common::Credentials> {
    use common::credentials::{Basic, Kind};
    let kind = match credentials {
        // Who a user of this machine is means nothing on another.
        Credentials::None | Credentials::User(_) => return None,
        Credentials::Basic { user, password } => {
            Some(Kind::Basic(Basic { user: user.clone(), password: password.expose().to_owned() }))
        }
        Credentials::Bearer(token) => Some(Kind::Bearer(token.expose().to_owned())),
        Credentials::Keys(keys) => Some(Kind::Keys(keys_to_wire(keys))),
        Credentials::Headers(headers) => {
            let headers = headers.iter().map(|(name, value)| common::Header {
                name: name.clone(),
                value: value.expose().to_owned(),
            });
            return Some(common::Credentials { kind: None, headers: headers.collect() });
        }
    };
    Some(common::Credentials { kind, headers: Vec::new() })
}

fn keys_to_wire(keys: &AccessKeys) -> common::credentials::Keys {
    let since = keys.expires.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    common::credentials::Keys {
        id: keys.id.clone(),
        secret: keys.secret.expose().to_owned(),
        token: keys.token.as_ref().map(|token| token.expose().to_owned()),
        expires_ms: since.and_then(|since| u64::try_from(since.as_millis()).ok()),
    }
}

fn keys_from_wire(keys: common::credentials::Keys) -> AccessKeys {
    // A time that no clock can hold is as good as none.
    let expires = keys.expires_ms.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    AccessKeys {
        id: keys.id,
        secret: Secret::new(keys.secret),
        token: keys.token.map(Secret::new),
        expires,
    }
}

/// Reads credentials off the wire.
pub fn credentials_from_wire(
    credentials: Option<common::Credentials>,
) -> Result<Credentials, BadMessage> {
    use common::credentials::Kind;
    let Some(credentials) = credentials else { return Ok(Credentials::None) };
    let headers = convert::headers(credentials.headers)?;
    Ok(match credentials.kind {
        Some(Kind::Basic(basic)) => {
            Credentials::Basic { user: basic.user, password: Secret::new(basic.password) }
        }
        Some(Kind::Keys(keys)) => Credentials::Keys(keys_from_wire(keys)),
        Some(Kind::Bearer(token)) => Credentials::Bearer(Secret::new(token)),
        None if headers.is_empty() => Credentials::None,
        None => Credentials::Headers(
            headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        ),
    })
}

/// Credentials for a request on the piece plane; none where there are none that may leave this machine.
pub fn seal(credentials: &Credentials) -> SealedCredentials {
    let encoded = credentials_to_wire(credentials).map(|sent| convert::encode_credentials(&sent));
    let fitting = encoded.filter(|encoded| encoded.len() <= MAX_CREDENTIALS);
    SealedCredentials(fitting.unwrap_or_default().into())
}

/// Reads the credentials of a request on the piece plane.
pub fn unseal(sealed: &SealedCredentials) -> Result<Credentials, BadMessage> {
    credentials_from_wire(Some(convert::decode_credentials(&sealed.0)?))
}

/// A view.
pub fn view_to_wire(view: View) -> common::View {
    match view {
        View::File => common::View::File,
        View::Tree => common::View::Tree,
        View::Auto => common::View::Auto,
        View::OneFile => common::View::OneFile,
    }
}

/// Reads a view off the wire; an unknown one means whatever a mount shows.
pub fn view_from_wire(view: common::View) -> View {
    match view {
        common::View::File => View::File,
        common::View::Tree => View::Tree,
        common::View::OneFile => View::OneFile,
        common::View::Auto | common::View::Unspecified => View::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cross_the_wire_whole_and_are_never_printed() {
        let keys = Credentials::Keys(AccessKeys {
            id: "AKIA".into(),
            secret: "hunter2".into(),
            token: Some("hunter3".into()),
            expires: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
        });
        let wire = credentials_to_wire(&keys);
        let shown = format!("{wire:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(credentials_from_wire(wire).unwrap(), keys);
        let sealed = seal(&keys);
        assert_eq!(unseal(&sealed).unwrap(), keys);
        assert!(!format!("{sealed:?}").contains("hunter"), "{sealed:?}");
        assert!(unseal(&SealedCredentials(b"garbage".as_slice().into())).is_err());
        assert!(seal(&Credentials::Bearer("x".repeat(MAX_CREDENTIALS).as_str().into())).is_empty());
    }
}
