//! What lets a request pass at a registry: tokens, each asked for once however many wait for it, and renewed before it
//! ends. Kept in memory only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dfs_model::CanonicalUrl;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use super::challenge::{Bearer, Challenge};
use super::docker_auth::IDENTITY_TOKEN;
use super::login::Logins;
use super::place::Place;
use super::plain::PlainHosts;
use super::reference::Reference;
use crate::http::Web;
use crate::http::exchange::Ask;
use crate::{Action, Attempt, Credentials, Secret, SourceError, Target};

/// Longest answer of who gives out tokens.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long a token lasts where nobody says so (distribution's token specification).
const USUAL: Duration = Duration::from_secs(60);
/// Longest that a token is believed to last.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A token is renewed this long before it ends, or when a quarter is left of the time that it had.
const MARGIN: Duration = Duration::from_secs(60);
/// Most tokens kept.
const MAX_TOKENS: usize = 4096;
/// How this client calls itself where it renews a token.
const CLIENT: &str = "dfs";

/// Who asks, without what proves it.
pub(super) type Who = [u8; 32];

/// Tells apart who asks.
pub(super) fn who(credentials: &Credentials) -> Who {
    let mut hash = Sha256::new();
    for (name, value) in credentials.headers() {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(value.expose().as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

/// For what access is granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    registry: String,
    repository: String,
    /// What was given out over a line that others read is not for one that they do not, nor the other way round.
    is_plain: bool,
    who: Who,
}

/// What lets requests pass.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    /// Tells this one from others for the same.
    number: u64,
    /// What goes along with a request.
    pub credentials: Credentials,
    since: Instant,
    /// How long it is good for; `None` of a login.
    lasting: Option<Duration>,
}

impl Granted {
    fn is_stale(&self) -> bool {
        let margin = |lasting: Duration| MARGIN.min(lasting / 4);
        self.lasting.is_some_and(|lasting| self.since.elapsed() + margin(lasting) >= lasting)
    }
}

type Slot = Arc<OnceCell<Result<Granted, SourceError>>>;

/// See the module's documentation.
pub(super) struct Access {
    pub web: Arc<Web>,
    pub plain: PlainHosts,
    /// Logins of this process's own user, where they may be used.
    pub logins: Option<Logins>,
    granted: Mutex<HashMap<Key, Slot>>,
    given_out: AtomicU64,
}

impl Access {
    pub fn new(web: Arc<Web>, plain: PlainHosts, logins: Option<Logins>) -> Self {
        let (granted, given_out) = (Mutex::default(), AtomicU64::new(0));
        Self { web, plain, logins, granted, given_out }
    }

    fn granted(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Nothing is half done in it when a thread panics.
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, place: &Place, login: &Credentials) -> Key {
        let (registry, repository) = (place.reference.registry(), place.reference.repository());
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Key { registry, repository, is_plain: place.is_plain(&self.plain), who: who(login) }
    }

    /// What let requests pass before, where it still should.
    pub fn known(&self, place: &Place, login: &Credentials) -> Option<Granted> {
        let slot = self.granted().get(&self.key(place, login)).cloned()?;
        let granted = slot.get()?.as_ref().ok()?;
        (!granted.is_stale()).then(|| granted.clone())
    }

    /// What answers a challenge, other than what was `refused`; `None` where there is nothing else.
    pub async fn grant(
        &self,
        (place, login): (&Place, &Credentials),
        challenges: &[Challenge],
        refused: Option<&Granted>,
        attempt: &Attempt,
    ) -> Result<Option<Granted>, SourceError> {
        let is_bearer = |challenge: &&Challenge| matches!(challenge, Challenge::Bearer(_));
        let challenge = challenges.iter().find(is_bearer).or(challenges.first());
        let Some(challenge) = challenge else { return Ok(None) };
        // These are what goes along already, or nothing that a registry takes.
        let is_user = matches!(login, Credentials::Basic { .. });
        if !is_user && (!login.is_none() || *challenge == Challenge::Basic) {
            return Ok(None);
        }
        let slot = self.slot(self.key(place, login), refused);
        let granting =
            slot.get_or_init(async || self.obtain((place, login), challenge, attempt).await);
        let granted = granting.await.clone().map_err(|error| error.of(attempt))?;
        let is_same = refused.is_some_and(|refused| refused.credentials == granted.credentials);
        Ok((!is_same).then_some(granted))
    }

    /// Where the next one is put, and found by all who want it too.
    fn slot(&self, key: Key, refused: Option<&Granted>) -> Slot {
        let mut granted = self.granted();
        if granted.len() >= MAX_TOKENS && !granted.contains_key(&key) {
            granted.retain(|_, slot| slot.get().is_none_or(|found| found.is_ok()));
            if granted.len() >= MAX_TOKENS {
                granted.clear();
            }
        }
        let slot = granted.entry(key).or_default();
        let is_over = slot.get().is_some_and(|found| match found {
            Ok(found) => {
                found.is_stale() || refused.is_some_and(|refused| refused.number == found.number)
            }
            Err(_) => true,
        });
        if is_over {
            *slot = Slot::default();
        }
        Arc::clone(slot)
    }

    async fn obtain(
        &self,
        (place, login): (&Place, &Credentials),
        challenge: &Challenge,
        attempt: &Attempt,
    ) -> Result<Granted, SourceError> {
        let (credentials, lasting) = match challenge {
            Challenge::Basic => (login.clone(), None),
            Challenge::Bearer(bearer) => {
                let realm = self.realm(place, bearer, attempt)?;
                let asking = || self.exchange((&place.reference, login), bearer, &realm, attempt);
                let (token, lasting) = self.web.retrier.run(asking).await?;
                (Credentials::Bearer(token), Some(lasting))
            }
        };
        let number = self.given_out.fetch_add(1, Ordering::Relaxed);
        Ok(Granted { number, credentials, since: Instant::now(), lasting })
    }

    /// Where tokens are given out: over a line that nobody else reads, unless the registry itself is asked over such.
    fn realm(&self, place: &Place, bearer: &Bearer, attempt: &Attempt) -> Result<Url, SourceError> {
        let refused = |reason: &str| SourceError::Malformed {
            attempt: attempt.clone(),
            reason: format!("the registry sends for a token to a place that {reason}"),
        };
        let realm = Url::parse(&bearer.realm).map_err(|_| refused("is no URL"))?;
        let host = realm.host_str().ok_or_else(|| refused("has no host"))?;
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(refused("has a user in its URL"));
        }
        let address = match realm.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let is_its_own = place.is_insecure && address == place.reference.address();
        let is_plain = is_its_own || self.plain.has(&address);
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if place.is_plain(&self.plain) && is_plain => Ok(realm),
            "http" => Err(refused("is not https")),
            _ => Err(refused("is not on the web")),
        }
    }

    /// Asks for a token; it and how long it lasts.
    async fn exchange(
        &self,
        (reference, login): (&Reference, &Credentials),
        bearer: &Bearer,
        realm: &Url,
        attempt: &Attempt,
    ) -> Result<(Secret, Duration), SourceError> {
        let actions = if attempt.action == Action::Write { "pull,push" } else { "pull" };
        let usual = format!("repository:{}:{actions}", reference.repository());
        let scope = bearer.scope.as_deref().unwrap_or(&usual);
        let service = bearer.service.as_deref().unwrap_or_default();
        let mut url = realm.clone();
        let (ask, credentials) = match login {
            Credentials::Basic { user, password } if user == IDENTITY_TOKEN => {
                let form = Serializer::new(String::new())
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("service", service)
                    .append_pair("client_id", CLIENT)
                    .append_pair("scope", scope)
                    .append_pair("refresh_token", password.expose())
                    .finish();
                let mut ask = Ask::new(Method::POST);
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                ask.headers.insert(CONTENT_TYPE, form_type);
                ask.body = Bytes::from(form);
                (ask, Credentials::None)
            }
            login => {
                let mut query = url.query_pairs_mut();
                if !service.is_empty() {
                    query.append_pair("service", service);
                }
                query.append_pair("scope", scope);
                (Ask::whole(), login.clone())
            }
        };
        let target = Target { credentials, ..Target::new(CanonicalUrl::new(url)?) };
        let mut answer = self.web.exchange(&target, &ask, attempt).await?;
        match answer.status() {
            200 => {}
            status @ (401 | 403) => return Err(denied(reference, login, status, attempt)),
            _ => return Err(answer.refusal(attempt)),
        }
        let bytes = self.web.gather(&mut answer.response, MAX_ANSWER_BYTES, attempt).await?;
        token(&bytes).ok_or_else(|| SourceError::Malformed {
            attempt: attempt.clone(),
            reason: "who gives out the registry's tokens answers without one".to_owned(),
        })
    }
}

/// Who asks is not let in.
pub(super) fn denied(
    reference: &Reference,
    login: &Credentials,
    status: u16,
    attempt: &Attempt,
) -> SourceError {
    let (registry, repository) = (reference.registry(), reference.repository());
    let writes = attempt.action == Action::Write;
    let reason = match login {
        Credentials::None if writes => format!(
            "the registry takes nothing for {repository} without a login (docker login {registry})"
        ),
        _ if writes => format!(
            "the registry does not let this login write to {repository} (docker login {registry})"
        ),
        Credentials::None => format!(
            "the registry gives {repository} to nobody without a login, or has no such repository \
             (docker login {registry})"
        ),
        _ => format!(
            "the registry does not let this login read {repository} (docker login {registry})"
        ),
    };
    SourceError::NotPermitted {
        attempt: attempt.clone(),
        status: Some(status),
        reason: Some(reason.into()),
    }
}

#[derive(Deserialize)]
struct Answered {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

fn token(bytes: &[u8]) -> Option<(Secret, Duration)> {
    let Answered { token, access_token, expires_in } = serde_json::from_slice(bytes).ok()?;
    let mut tokens = [token, access_token].into_iter().flatten();
    let token = tokens.find(|token| !token.expose().is_empty())?;
    // What no header can carry is no token.
    HeaderValue::from_str(token.expose()).ok()?;
    let lasting = expires_in.map_or(USUAL, Duration::from_secs).clamp(USUAL, LONGEST);
    Some((token, lasting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_by_either_name() {
        let read = |json: &str| {
            token(json.as_bytes())
                .map(|(token, lasting)| (token.expose().to_owned(), lasting.as_secs()))
        };
        let lasts = |token: &str, seconds| Some((token.to_owned(), seconds));
        assert_eq!(read(r#"{"token":"a","expires_in":300}"#), lasts("a", 300));
        assert_eq!(read(r#"{"token":"","access_token":"b"}"#), lasts("b", 60));
        assert_eq!(read(r#"{"token":"a","expires_in":5}"#), lasts("a", 60));
        assert_eq!(read(r#"{"token":"a","expires_in":99999999}"#), lasts("a", 24 * 3600));
        for bad in ["", "{}", r#"{"token":"a\nb"}"#, r#"{"token":7}"#, "[]"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_it_ends() {
        for (lasting, stale_after) in [(300, 240), (80, 60)] {
            let granted = Granted {
                number: 0,
                credentials: Credentials::None,
                since: Instant::now(),
                lasting: Some(Duration::from_secs(lasting)),
            };
            tokio::time::advance(Duration::from_secs(stale_after - 1)).await;
            assert!(!granted.is_stale(), "{lasting}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(granted.is_stale(), "{lasting}");
        }
    }

    #[test]
    fn logins_are_told_apart_and_not_shown() {
        let basic = |user: &str, password: &str| Credentials::Basic {
            user: user.into(),
            password: password.into(),
        };
        let all =
            [Credentials::None, basic("a", "b"), basic("a", "c"), Credentials::Bearer("b".into())];
        let kinds: std::collections::HashSet<Who> = all.iter().map(who).collect();
        assert_eq!(kinds.len(), all.len());
    }
}
