//! A login as docker writes it down, and the CRI says it with a request: by one of several fields. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Credentials, Secret};

/// The user that stands for an identity token: what docker's credential helpers say.
pub(super) const IDENTITY_TOKEN: &str = "<token>";

/// What stands there for one registry; what is empty is not there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DockerAuth {
    /// User and password in base64, with a colon between them.
    pub auth: Option<Secret>,
    /// The user's name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A token that tokens for repositories are given out for.
    pub identitytoken: Option<Secret>,
    /// A token that the registry itself takes.
    pub registrytoken: Option<Secret>,
}

impl DockerAuth {
    /// The login, of the closest field: a token for the registry goes before one for whoever gives such out, and this before a
    /// password, since clouds write a user without any beside their tokens. Why what is there is none.
    pub fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let there =
            |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
        let basic =
            |user: &str, password| Ok(Some(Credentials::Basic { user: user.to_owned(), password }));
        if let Some(token) = there(&self.registrytoken) {
            return Ok(Some(Credentials::Bearer(token)));
        }
        if let Some(token) = there(&self.identitytoken) {
            return basic(IDENTITY_TOKEN, token);
        }
        let user = self.username.as_deref().filter(|user| !user.is_empty());
        if let (Some(user), Some(password)) = (user, there(&self.password)) {
            return basic(user, password);
        }
        match (there(&self.auth), user) {
            (Some(auth), _) => {
                let (user, password) = user_and_password(auth.expose())?;
                // Docker pads what it writes.
                basic(&user, Secret::new(password.expose().trim_end_matches('\0')))
            }
            (None, Some(user)) => basic(user, Secret::new("")),
            (None, None) => Ok(None),
        }
    }
}

/// What stands in base64 as HTTP has it (RFC 7617).
pub(super) fn user_and_password(encoded: &str) -> Result<(String, Secret), &'static str> {
    let pair = STANDARD.decode(encoded.trim()).map(Zeroizing::new);
    let pair = pair.map_err(|_| "an 'auth' in it is not base64")?;
    let pair = std::str::from_utf8(&pair).map_err(|_| "an 'auth' in it is not UTF-8")?;
    let (user, password) = pair.split_once(':').ok_or("an 'auth' in it is not user:password")?;
    Ok((user.to_owned(), password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_fields_the_closest_counts() {
        let basic = |user: &str, password: &str| Credentials::Basic {
            user: user.to_owned(),
            password: password.into(),
        };
        let bearer = || Credentials::Bearer("r".into());
        // "ada:a:b", and "ada:pw" as docker pads it, and a cloud's user without a password.
        let [pair, padded, nobody] = ["YWRhOmE6Yg==", "YWRhOnB3AAA=", "MDAwMC0wMDAwOg=="];
        for (json, login) in [
            (r#"{}"#.to_owned(), None),
            (r#"{"auth":"","username":"","password":"","identitytoken":null}"#.to_owned(), None),
            (format!(r#"{{"auth":"{pair}"}}"#), Some(basic("ada", "a:b"))),
            (format!(r#"{{"auth":"{padded}"}}"#), Some(basic("ada", "pw"))),
            (format!(r#"{{"auth":"{pair}","username":"bob"}}"#), Some(basic("ada", "a:b"))),
            (
                format!(r#"{{"auth":"{pair}","username":"bob","password":"x"}}"#),
                Some(basic("bob", "x")),
            ),
            (r#"{"username":"bob"}"#.to_owned(), Some(basic("bob", ""))),
            (r#"{"password":"x"}"#.to_owned(), None),
            (
                format!(r#"{{"auth":"{nobody}","identitytoken":"i"}}"#),
                Some(basic(IDENTITY_TOKEN, "i")),
            ),
            (
                r#"{"username":"0000-0000","password":"x","identitytoken":"i"}"#.to_owned(),
                Some(basic(IDENTITY_TOKEN, "i")),
            ),
            (r#"{"identitytoken":"i","registrytoken":"r"}"#.to_owned(), Some(bearer())),
        ] {
            let auth: DockerAuth = serde_json::from_str(&json).unwrap();
            assert_eq!(auth.credentials(), Ok(login), "{json}");
            assert!(!format!("{auth:?}").contains(pair), "{auth:?}");
        }
        for (auth, said) in
            [("hunter2!", "base64"), ("aHVudGVyMg==", "user:password"), ("//8=", "UTF-8")]
        {
            let auth = DockerAuth { auth: Some(auth.into()), ..DockerAuth::default() };
            assert!(auth.credentials().unwrap_err().contains(said));
        }
    }
}
