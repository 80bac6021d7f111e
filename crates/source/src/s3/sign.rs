//! Signature version 4. Pure: request and time in, headers out.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::time::compact;
use crate::AccessKeys;

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// For what a signature holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// Adds to `headers` what proves that `keys` ask for exactly this. `url` must be strictly encoded and
/// its query in order, as [`super::place`] writes it.
pub(super) fn sign(
    headers: &mut HeaderMap,
    (method, url, body): (&Method, &Url, &[u8]),
    keys: &AccessKeys,
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<(), InvalidHeaderValue> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = compact(seconds);
    let body = hex(&Sha256::digest(body));
    headers.insert(CONTENT_SHA256, HeaderValue::from_str(&body)?);
    headers.insert(DATE, HeaderValue::from_str(&time)?);
    if let Some(token) = &keys.token {
        let mut token = HeaderValue::from_str(token.expose())?;
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
    }

    let signed = signed_headers(headers, url);
    let names: Vec<&str> = signed.iter().map(|(name, _)| &**name).collect();
    let names = names.join(";");
    let mut request = format!("{method}\n{}\n{}\n", url.path(), url.query().unwrap_or_default());
    for (name, value) in &signed {
        // Writing into a text does not fail.
        let _ = writeln!(request, "{name}:{value}");
    }
    let _ = write!(request, "\n{names}\n{body}");

    let day = &time[..8];
    let scoped = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let digest = hex(&Sha256::digest(request));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scoped}\n{digest}");
    let signature = hex(&mac(&*signing_key(keys, day, scope), text.as_bytes()));
    let mut authorization = HeaderValue::from_str(&format!(
        "AWS4-HMAC-SHA256 Credential={}/{scoped},SignedHeaders={names},Signature={signature}",
        keys.id
    ))?;
    authorization.set_sensitive(true);
    headers.insert(AUTHORIZATION, authorization);
    Ok(())
}

/// Host, range and everything that is the store's own, in order.
fn signed_headers(headers: &HeaderMap, url: &Url) -> Vec<(String, String)> {
    let mut signed: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-") || **name == "range")
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), value.trim().to_owned())
        })
        .collect();
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    signed.push(("host".to_owned(), host));
    signed.sort();
    signed
}

fn signing_key(keys: &AccessKeys, day: &str, scope: Scope<'_>) -> zeroize::Zeroizing<[u8; 32]> {
    let secret = zeroize::Zeroizing::new(format!("AWS4{}", keys.secret.expose()));
    let mut key = mac(secret.as_bytes(), day.as_bytes());
    for part in [scope.region, scope.service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    zeroize::Zeroizing::new(key)
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(text).finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys() -> AccessKeys {
        AccessKeys {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
            expires: None,
        }
    }

    /// The signature that the examples of the specification show for 2013-05-24.
    fn signature(method: Method, path: &str, more: &[(&'static str, &str)], body: &[u8]) -> String {
        let url = Url::parse(&format!("https://examplebucket.s3.amazonaws.com{path}")).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in more {
            headers.insert(*name, value.parse().unwrap());
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let scope = Scope { region: "us-east-1", service: "s3" };
        sign(&mut headers, (&method, &url, body), &keys(), scope, now).unwrap();
        assert!(headers[AUTHORIZATION].is_sensitive());
        let text = headers[AUTHORIZATION].to_str().unwrap();
        text.split("Signature=").nth(1).unwrap().to_owned()
    }

    #[test]
    fn the_examples_of_the_specification_come_out() {
        let range = [("range", "bytes=0-9")];
        assert_eq!(
            signature(Method::GET, "/test.txt", &range, b""),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert_eq!(
            signature(Method::GET, "/?max-keys=2&prefix=J", &[], b""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
        assert_eq!(
            signature(Method::GET, "/?lifecycle=", &[], b""),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
    }

    #[test]
    fn a_token_is_signed_and_neither_it_nor_the_secret_is_printed() {
        let keys = AccessKeys { token: Some("session".into()), ..keys() };
        let url = Url::parse("http://h:9000/b/k").unwrap();
        let mut headers = HeaderMap::new();
        let scope = Scope { region: "r", service: "s3" };
        sign(&mut headers, (&Method::GET, &url, b""), &keys, scope, SystemTime::now()).unwrap();
        let text = headers[AUTHORIZATION].to_str().unwrap();
        let signed = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
        assert!(text.contains(signed), "{text}");
        let shown = format!("{headers:?}");
        assert!(!shown.contains("session\"") && !shown.contains("wJalr"), "{shown}");
    }
}
