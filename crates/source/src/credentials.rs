//! Who asks an origin: kept apart from the URL, never printed.

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A text that must not be seen: printed as `<redacted>`, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself: for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("<redacted>")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Keys of an object store: requests are signed with them, they themselves are never sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKeys {
    /// Names the keys; sent in the clear.
    pub id: String,
    /// Signs.
    pub secret: Secret,
    /// Comes with keys that last for a while only.
    pub token: Option<Secret>,
    /// When they end, where that is known.
    pub expires: Option<SystemTime>,
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUser {
    /// User id.
    pub uid: u32,
    /// Id of the user's first group.
    pub gid: u32,
}

/// What proves to an origin who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Anybody.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// The user's name; may be empty.
        user: String,
        /// The password; may be empty.
        password: Secret,
    },
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// Keys that sign requests to an object store.
    Keys(AccessKeys),
    /// A user of this machine, as the kernel named them; never leaves it.
    User(LocalUser),
    /// Secret headers as they are (lower-case name, value): `authorization`, `cookie`, `x-api-key`,
    /// ….
    Headers(Vec<(String, Secret)>),
}

impl Credentials {
    /// Whether nobody is named: content read so is public.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The headers that carry them, lower-case names; keys are not carried but sign.
    pub fn headers(&self) -> Vec<(String, Secret)> {
        let authorization = |value: String| vec![("authorization".to_owned(), Secret::new(value))];
        match self {
            Self::None | Self::Keys(_) | Self::User(_) => Vec::new(),
            Self::Basic { user, password } => {
                let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
                authorization(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
            }
            Self::Bearer(token) => authorization(format!("Bearer {}", token.expose())),
            Self::Headers(headers) => headers.clone(),
        }
    }

    /// These credentials and one more secret header; the last value given for a name is the one
    /// kept.
    pub fn with_header(&self, name: &str, value: Secret) -> Self {
        let name = name.to_ascii_lowercase();
        let mut headers = self.headers();
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
        Self::Headers(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let all = [
            Credentials::Basic { user: "ada".into(), password: "hunter2".into() },
            Credentials::Bearer("hunter2".into()),
            Credentials::None.with_header("X-Key", "hunter2".into()),
            Credentials::Keys(AccessKeys {
                id: "AKIA".into(),
                secret: "hunter2".into(),
                token: Some("hunter2".into()),
                expires: None,
            }),
        ];
        for credentials in all {
            let shown = format!("{credentials:?} {credentials:#?} {:?}", credentials.headers());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(Secret::new("hunter2").to_string(), "<redacted>");
    }

    #[test]
    fn basic_credentials_become_the_header_of_rfc_7617() {
        let basic = Credentials::Basic { user: "Aladdin".into(), password: "open sesame".into() };
        let headers = basic.headers();
        assert_eq!(headers[0].0, "authorization");
        assert_eq!(headers[0].1.expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let more =
            basic.with_header("Authorization", "Other".into()).with_header("Cookie", "c".into());
        let names: Vec<_> = more.headers().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["authorization", "cookie"]);
    }
}
