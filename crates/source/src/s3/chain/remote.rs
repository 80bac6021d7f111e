//! Keys that somebody is asked for: the token service for a web identity, the user's own program, the
//! container's endpoint, the machine's metadata service.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::{Host, Url};

use super::profile::{Program, WebIdentity};
use super::{Environment, Profile};
use crate::http::Web;
use crate::http::exchange::Ask;
use crate::s3::no_access;
use crate::s3::place::aws;
use crate::s3::refusal::Refusal;
use crate::s3::time::{iso, system_time};
use crate::s3::xml::walk;
use crate::{AccessKeys, Attempt, Secret, SourceError};

/// Longest token file, and longest answer with keys.
const MAX_BYTES: usize = 64 * 1024;

/// The machine's service is next door, or not there at all.
const METADATA_WITHIN: Duration = Duration::from_secs(1);

const METADATA: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";

/// Whom to ask.
pub(super) struct Remote {
    environment: Environment,
    identity: Option<WebIdentity>,
    program: Option<Program>,
    region: Option<String>,
    web: Arc<Web>,
}

/// Keys as containers and machines hand them out.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handed {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Remote {
    pub fn new(
        environment: Environment,
        profile: Profile,
        region: Option<String>,
        web: Arc<Web>,
    ) -> Self {
        let Profile { identity, program, .. } = profile;
        Self { environment, identity, program, region, web }
    }

    /// The first who is configured is asked; `None` when nobody is.
    pub async fn find(&self, attempt: &Attempt) -> Result<Option<AccessKeys>, SourceError> {
        if let Some(identity) = &self.identity {
            return self.web.retrier.run(|| self.role(identity, attempt)).await.map(Some);
        }
        if let Some(program) = &self.program {
            return program.keys().await.map(Some).map_err(no_access);
        }
        if let Some(url) = self.container_url(attempt)? {
            return self.web.retrier.run(|| self.container(&url, attempt)).await.map(Some);
        }
        self.machine(attempt).await
    }

    /// `AssumeRoleWithWebIdentity`; the token is read each time, because it is exchanged on disk.
    async fn role(
        &self,
        identity: &WebIdentity,
        attempt: &Attempt,
    ) -> Result<AccessKeys, SourceError> {
        let given = self.environment.get("AWS_ENDPOINT_URL_STS").map(Url::parse);
        let region = self.region.as_deref().unwrap_or("us-east-1");
        let url = match given {
            Some(url) => url.map_err(|error| error.to_string()),
            None => aws("sts", region),
        };
        let url = url.map_err(|reason| malformed(attempt, &reason))?;
        let token = read_token(&identity.token_file, attempt).await?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &identity.role),
            ("RoleSessionName", &identity.session),
            ("WebIdentityToken", token.expose()),
        ];
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let form: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut ask = Ask::new(Method::POST);
        ask.body = Bytes::from(form.join("&"));
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        ask.headers.insert(CONTENT_TYPE, kind);
        let answer = self.fetch(url, ask, "the token service", attempt).await?;
        keys_of_sts(&answer)
            .ok_or_else(|| malformed(attempt, "the token service answered without keys"))
    }

    /// Where the container's keys are, if it has any.
    fn container_url(&self, attempt: &Attempt) -> Result<Option<Url>, SourceError> {
        let get = |name: &str| self.environment.get(name);
        let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let full = get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let text = match (relative, full) {
            (Some(path), _) => format!("{CONTAINER}{path}"),
            (None, Some(url)) => url.to_owned(),
            (None, None) => return Ok(None),
        };
        let url = Url::parse(&text).ok().filter(may_know_tokens);
        let reason = "the container's address for keys is neither https nor on this machine";
        url.map(Some).ok_or_else(|| malformed(attempt, reason))
    }

    async fn container(&self, url: &Url, attempt: &Attempt) -> Result<AccessKeys, SourceError> {
        let mut ask = Ask::whole();
        let file = self.environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let token = match (file, self.environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")) {
            (Some(file), _) => Some(read_token(Path::new(file), attempt).await?),
            (None, token) => token.map(Secret::new),
        };
        if let Some(token) = token {
            put_secret(&mut ask.headers, AUTHORIZATION, &token, attempt)?;
        }
        let answer = self.fetch(url.clone(), ask, "the container's key service", attempt).await?;
        keys_of_json(&answer, attempt)
    }

    /// The machine's own role; `None` where there is no such service or no role.
    async fn machine(&self, attempt: &Attempt) -> Result<Option<AccessKeys>, SourceError> {
        let disabled = self.environment.get("AWS_EC2_METADATA_DISABLED");
        let given = self.environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        if disabled.is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || given.is_none() && !is_ec2().await
        {
            return Ok(None);
        }
        let base = given.unwrap_or(METADATA).trim_end_matches('/');
        match tokio::time::timeout(METADATA_WITHIN, self.metadata(base, attempt)).await {
            Ok(Ok(keys)) => Ok(Some(keys)),
            Ok(Err(error)) if !error.is_transient() => match error {
                SourceError::NotFound { .. } => Ok(None),
                error => Err(error),
            },
            Ok(Err(_)) | Err(_) => {
                tracing::debug!("the machine's metadata service does not answer: no keys of it");
                Ok(None)
            }
        }
    }

    /// Version 2 of the service: a session's token first.
    async fn metadata(&self, base: &str, attempt: &Attempt) -> Result<AccessKeys, SourceError> {
        const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
        const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
        let url = |path: &str| {
            Url::parse(&format!("{base}/latest/{path}"))
                .map_err(|error| malformed(attempt, &error.to_string()))
        };
        let service = "the machine's metadata service";
        let mut ask = Ask::new(Method::PUT);
        ask.headers.insert(TTL, HeaderValue::from_static("300"));
        let session = self.fetch(url("api/token")?, ask, service, attempt).await?;
        let session = Secret::new(String::from_utf8_lossy(&session).trim());
        let ask = || -> Result<Ask, SourceError> {
            let mut ask = Ask::whole();
            put_secret(&mut ask.headers, TOKEN, &session, attempt)?;
            Ok(ask)
        };
        let roles = "meta-data/iam/security-credentials/";
        let role = self.fetch(url(roles)?, ask()?, service, attempt).await?;
        let role = String::from_utf8_lossy(&role).lines().next().unwrap_or_default().to_owned();
        let role = utf8_percent_encode(role.trim(), NON_ALPHANUMERIC).to_string();
        let keys = self.fetch(url(&format!("{roles}{role}"))?, ask()?, service, attempt).await?;
        keys_of_json(&keys, attempt)
    }

    async fn fetch(
        &self,
        url: Url,
        ask: Ask,
        whom: &str,
        attempt: &Attempt,
    ) -> Result<Bytes, SourceError> {
        let mut headers = HeaderMap::new();
        ask.put_into(&mut headers, attempt)?;
        let mut response = self.web.send_one(url, headers, &ask, attempt).await?;
        let (status, head) = (response.status(), response.headers().clone());
        let body = self.web.gather(&mut response, MAX_BYTES, attempt).await?;
        if status.is_success() {
            return Ok(body);
        }
        let url = format!("{} (asking {whom} for keys)", attempt.url).into();
        let attempt = Attempt { url, ..attempt.clone() };
        Err(Refusal::new(status.as_u16(), &head, &body, SystemTime::now()).error(&attempt))
    }
}

/// Whether a token may be sent there: encrypted, or not beyond this machine and its host.
fn may_know_tokens(url: &Url) -> bool {
    let near = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.octets()[..3] == [169, 254, 170],
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback() || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]
        }
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || url.scheme() == "http" && near
}

/// Elsewhere nobody answers at the service's address, and waiting for nobody takes time.
async fn is_ec2() -> bool {
    let vendor = tokio::fs::read_to_string("/sys/class/dmi/id/sys_vendor").await;
    vendor.is_ok_and(|vendor| vendor.contains("Amazon"))
}

async fn read_token(path: &Path, attempt: &Attempt) -> Result<Secret, SourceError> {
    let failed = |error: io::Error| {
        let url = format!("{} (reading the token {})", attempt.url, path.display()).into();
        let attempt = Attempt { url, ..attempt.clone() };
        SourceError::Io { attempt, cause: Arc::new(error) }
    };
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    if text.len() > MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Secret::new(text.trim()))
}

fn put_secret(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: &Secret,
    attempt: &Attempt,
) -> Result<(), SourceError> {
    let mut value = HeaderValue::from_str(value.expose())
        .map_err(|_| malformed(attempt, "a token for keys cannot be sent"))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

fn malformed(attempt: &Attempt, reason: &str) -> SourceError {
    SourceError::Malformed { attempt: attempt.clone(), reason: reason.to_owned() }
}

fn keys_of_json(answer: &[u8], attempt: &Attempt) -> Result<AccessKeys, SourceError> {
    // What the parser says may hold what it parsed.
    let handed: Handed = serde_json::from_slice(answer)
        .map_err(|_| malformed(attempt, "the answer with keys has none"))?;
    let expires = handed.expiration.as_deref().and_then(iso).and_then(system_time);
    Ok(AccessKeys {
        id: handed.access_key_id,
        secret: Secret::new(handed.secret_access_key),
        token: handed.token.map(Secret::new),
        expires,
    })
}

fn keys_of_sts(answer: &[u8]) -> Option<AccessKeys> {
    let (mut id, mut secret, mut token, mut expires) = (None, None, None, None);
    walk(answer, |names, text| {
        match names {
            [.., "Credentials", "AccessKeyId"] => id = Some(text.trim().to_owned()),
            [.., "Credentials", "SecretAccessKey"] => secret = Some(Secret::new(text.trim())),
            [.., "Credentials", "SessionToken"] => token = Some(Secret::new(text.trim())),
            [.., "Credentials", "Expiration"] => expires = iso(text.trim()).and_then(system_time),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    Some(AccessKeys { id: id?, secret: secret?, token, expires })
}
