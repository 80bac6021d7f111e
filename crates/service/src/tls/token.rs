//! Join tokens: what a new machine is given to join a cluster, on one line.
//!
//! `dfs1-` and the base64 of: a random secret, the SHA-256 of the authority's certificate, the addresses of the
//! managers, and a check sum against mistyping. The secret is worth a certificate, so it is shown by nothing here.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::config::ServiceAddress;

const PREFIX: &str = "dfs1-";
const SECRET: usize = 20;
const HASH: usize = 32;
const CHECK: usize = 4;
/// Most managers in one token.
const MAX_MANAGERS: usize = 8;
/// The longest token: eight of the longest host names.
const MAX_TEXT: usize = 4096;

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; HASH]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a token is redeemed by: 160 random bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET]>);

impl Secret {
    /// A new one.
    pub fn random() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// One that was sent; `None` when it is none.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// To be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// What a manager keeps of it: random as it is, no slow hash is needed.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("dfs 2026 join token secret v1", &self.0[..])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why a text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Something else.
    #[error(
        "this is no join token: one begins with {PREFIX} and is printed by `dfctl cluster join-token`"
    )]
    Form,
    /// Cut off, or mistyped.
    #[error(
        "this join token is not whole: copy all of it, or get another one with `dfctl cluster join-token`"
    )]
    Damaged,
}

/// A join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JoinToken {
    /// Where the managers are.
    pub managers: Vec<ServiceAddress>,
    /// Whose certificate they show.
    pub authority: Fingerprint,
    /// What it is redeemed by.
    pub secret: Secret,
}

impl JoinToken {
    /// Whether a text is meant to be one.
    pub fn is_like(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }

    /// The text that is handed around. What does not fit is left out: the first managers are enough.
    pub fn reveal(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::new());
        bytes.extend_from_slice(self.secret.bytes());
        bytes.extend_from_slice(&self.authority.0);
        for manager in self.managers.iter().take(MAX_MANAGERS) {
            let manager = manager.to_string();
            if let Ok(length) = u8::try_from(manager.len()) {
                bytes.push(length);
                bytes.extend_from_slice(manager.as_bytes());
            }
        }
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..]))
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(BadToken::Form)?;
        if encoded.len() > MAX_TEXT {
            return Err(BadToken::Form);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| BadToken::Damaged)?;
        let body = bytes.len().checked_sub(CHECK).ok_or(BadToken::Damaged)?;
        let (body, sum) = bytes.split_at(body);
        if check(body) != sum {
            return Err(BadToken::Damaged);
        }
        let (secret, rest) = body.split_at_checked(SECRET).ok_or(BadToken::Damaged)?;
        let (authority, rest) = rest.split_at_checked(HASH).ok_or(BadToken::Damaged)?;
        Ok(Self {
            managers: managers(rest)?,
            authority: Fingerprint(authority.try_into().map_err(|_| BadToken::Damaged)?),
            secret: Secret::of_bytes(secret).ok_or(BadToken::Damaged)?,
        })
    }
}

fn managers(mut rest: &[u8]) -> Result<Vec<ServiceAddress>, BadToken> {
    let mut found = Vec::new();
    while let Some((length, after)) = rest.split_first() {
        let (name, after) =
            after.split_at_checked(usize::from(*length)).ok_or(BadToken::Damaged)?;
        let name = std::str::from_utf8(name).map_err(|_| BadToken::Damaged)?;
        found.push(name.parse().map_err(|_| BadToken::Damaged)?);
        rest = after;
    }
    match found.len() {
        1..=MAX_MANAGERS => Ok(found),
        _ => Err(BadToken::Damaged),
    }
}

impl TryFrom<String> for JoinToken {
    type Error = BadToken;

    fn try_from(text: String) -> Result<Self, BadToken> {
        text.parse()
    }
}

impl From<JoinToken> for String {
    fn from(token: JoinToken) -> Self {
        token.reveal()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("managers", &self.managers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(managers: &[&str]) -> JoinToken {
        let managers = managers.iter().map(|manager| manager.parse().unwrap()).collect();
        JoinToken { managers, authority: Fingerprint([7; HASH]), secret: Secret::random() }
    }

    #[test]
    fn a_token_is_read_as_it_was_printed() {
        for managers in
            [&["10.0.0.5:4000"][..], &["manager.example:4000", "[2001:db8::1]:4000", "10.0.0.6:1"]]
        {
            let token = token(managers);
            let text = token.reveal();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
            let json = serde_json::to_string(&token).unwrap();
            assert_eq!(serde_json::from_str::<JoinToken>(&json).unwrap(), token);
            assert!(!format!("{token:?}").contains(&text[6..20]), "{token:?}");
        }
    }

    #[test]
    fn a_token_that_was_tampered_with_or_cut_is_refused() {
        let text = token(&["10.0.0.5:4000"]).reveal();
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<JoinToken>(), Err(BadToken::Damaged), "{end}");
        }
        for place in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed.parse::<JoinToken>(), Err(BadToken::Damaged), "{changed}");
        }
        for other in ["", "token", "dfs2-AAAA", &"A".repeat(1 << 20)] {
            assert_eq!(other.parse::<JoinToken>(), Err(BadToken::Form));
        }
        assert_eq!(
            format!("{PREFIX}{}", "A".repeat(1 << 20)).parse::<JoinToken>(),
            Err(BadToken::Form)
        );
    }

    #[test]
    fn a_whole_token_with_nonsense_in_it_is_refused() {
        let sealed = |rest: &[u8]| {
            let mut bytes = vec![1; SECRET + HASH];
            bytes.extend_from_slice(rest);
            let sum = check(&bytes);
            bytes.extend_from_slice(&sum);
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).parse::<JoinToken>()
        };
        assert!(sealed(b"\x0d10.0.0.5:4000").is_ok());
        let nine = b"\x0510:40".repeat(9);
        for rest in
            [&b""[..], b"\x00", b"\xff10.0.0.5:4000", b"\x0cno port here", b"\x02\xff\xff", &nine]
        {
            assert_eq!(sealed(rest), Err(BadToken::Damaged), "{rest:?}");
        }
    }

    #[test]
    fn the_hash_of_a_secret_does_not_tell_the_secret() {
        let (one, other) = (Secret::random(), Secret::random());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(Secret::of_bytes(one.bytes()), Some(one));
        assert_eq!(Secret::of_bytes(&[1; 19]), None);
        assert_eq!(format!("{other:?}"), "(secret)");
    }
}
