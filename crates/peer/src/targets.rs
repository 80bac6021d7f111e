//! Targets, views and credentials as they travel from who asks to who fetches. Secrets are stored by
//! nobody on the way and never printed.

use dfs_artifact::View;
use dfs_proto::common;
use dfs_proto::convert::{self, BadMessage};
use dfs_source::{Credentials, Secret, Target};

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
        Credentials::None => return None,
        Credentials::Basic { user, password } => {
            Some(Kind::Basic(Basic { user: user.clone(), password: password.expose().to_owned() }))
        }
        Credentials::Bearer(token) => Some(Kind::Bearer(token.expose().to_owned())),
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
        Some(Kind::Bearer(token)) => Credentials::Bearer(Secret::new(token)),
        None if headers.is_empty() => Credentials::None,
        None => Credentials::Headers(
            headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        ),
    })
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
