//! Logins that came with requests to pull images: kept in memory alone, for the repository that each was for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_proto::cri::AuthConfig;
use dfs_source::oci::Reference;
use dfs_source::{Credentials, Secret, Target};
use parking_lot::Mutex;

/// How many are kept, and how long: a kubelet says them again with each pull.
const MOST: usize = 256;
const KEPT: Duration = Duration::from_secs(12 * 3600);

/// The name that docker gives to a token that stands for a login.
const IDENTITY_TOKEN: &str = "<token>";

struct Login {
    registry: String,
    repository: String,
    credentials: Credentials,
    since: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Logins(Mutex<VecDeque<Login>>);

impl Logins {
    /// Takes note of what was said with a request to pull an image; where nothing was, that it is pulled without.
    pub fn note(&self, image: &str, auth: Option<&AuthConfig>) {
        let Some(reference) = reference(image) else { return };
        let (registry, repository) = (reference.registry(), reference.repository());
        let credentials = auth.and_then(|auth| credentials(auth, registry));
        let mut known = self.0.lock();
        known.retain(|login| {
            let is_same = login.registry == registry && login.repository == repository;
            !is_same && login.since.elapsed() < KEPT
        });
        let Some(credentials) = credentials else { return };
        if known.len() == MOST {
            known.pop_front();
        }
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        known.push_back(Login { registry, repository, credentials, since: Instant::now() });
    }

    /// A target as whoever pulled of its repository means it.
    pub fn with(&self, target: Target) -> Target {
        let Ok(reference) = Reference::of(&target.url) else { return target };
        let known = self.0.lock();
        let is_of = |login: &&Login| {
            let is_same = login.registry == reference.registry()
                && login.repository == reference.repository();
            is_same && login.since.elapsed() < KEPT
        };
        match known.iter().find(is_of) {
            Some(login) => target.with_credentials(login.credentials.clone()),
            None => target,
        }
    }
}

fn reference(image: &str) -> Option<Reference> {
    // As docker has it: a name without a host is one of its own registry.
    let host = image.split_once('/').map(|(host, _)| host);
    let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
    let image = match host.is_some_and(is_host) {
        true => image.to_owned(),
        false => format!("docker.io/{image}"),
    };
    let target = Target::parse(&format!("oci://{image}")).ok()?;
    Reference::of(&target.url).ok()
}

/// What a request said for this registry; `None` where it was for another, or said nothing.
fn credentials(auth: &AuthConfig, registry: &str) -> Option<Credentials> {
    if !auth.server_address.is_empty() && !is_for(&auth.server_address, registry) {
        return None;
    }
    let basic = |user: &str, password: &str| Credentials::Basic {
        user: user.to_owned(),
        password: Secret::from(password),
    };
    if !auth.username.is_empty() {
        return Some(basic(&auth.username, &auth.password));
    }
    if !auth.identity_token.is_empty() {
        return Some(basic(IDENTITY_TOKEN, &auth.identity_token));
    }
    if !auth.auth.is_empty() {
        let pair = zeroize::Zeroizing::new(STANDARD.decode(auth.auth.as_bytes()).ok()?);
        let (user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        return Some(basic(user, password.trim_end_matches('\0')));
    }
    let token = Some(&auth.registry_token).filter(|token| !token.is_empty());
    token.map(|token| Credentials::Bearer(Secret::from(token.as_str())))
}

/// Whether an address, with or without a scheme and a path, is that of this registry.
fn is_for(address: &str, registry: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let docker = ["docker.io", "index.docker.io", "registry-1.docker.io"];
    host == registry || (registry == docker[0] && docker.contains(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> AuthConfig {
        let (username, password) = (user.to_owned(), password.to_owned());
        AuthConfig { username, password, ..AuthConfig::default() }
    }

    fn with(logins: &Logins, url: &str) -> Credentials {
        logins.with(Target::parse(url).unwrap()).credentials
    }

    #[test]
    fn a_login_is_for_the_repository_that_it_came_with() {
        let logins = Logins::default();
        logins.note("h.test:5000/team/app:1", Some(&login("ada", "x")));
        let found = with(&logins, "oci://h.test:5000/team/app:2?layers=1");
        assert!(matches!(found, Credentials::Basic { user, .. } if user == "ada"));
        for other in ["oci://h.test:5000/team/other:1", "oci://h.test/team/app:1"] {
            assert!(with(&logins, other).is_none(), "{other}");
        }
        // Who pulls without has none any more.
        logins.note("h.test:5000/team/app:1", None);
        assert!(with(&logins, "oci://h.test:5000/team/app:1").is_none());
        logins.note("debian", Some(&login("bob", "y")));
        assert!(!with(&logins, "oci://docker.io/library/debian:13").is_none());
    }

    #[test]
    fn every_way_to_say_a_login_is_understood_and_one_for_elsewhere_is_not_used() {
        let token = |text: &str| text.to_owned();
        let auth = AuthConfig { auth: STANDARD.encode("ada:a:b"), ..AuthConfig::default() };
        let identity = AuthConfig { identity_token: token("t"), ..AuthConfig::default() };
        let bearer = AuthConfig { registry_token: token("t"), ..AuthConfig::default() };
        let of = |auth: &AuthConfig| credentials(auth, "h.test");
        let basic = |user: &str, password: &str| Credentials::Basic {
            user: user.to_owned(),
            password: Secret::from(password),
        };
        assert_eq!(of(&auth), Some(basic("ada", "a:b")));
        assert_eq!(of(&identity), Some(basic("<token>", "t")));
        assert_eq!(of(&bearer), Some(Credentials::Bearer(Secret::from("t"))));
        assert_eq!(of(&AuthConfig::default()), None);
        let elsewhere =
            AuthConfig { server_address: token("https://other/v1/"), ..login("a", "b") };
        assert_eq!(of(&elsewhere), None);
        let here = AuthConfig { server_address: token("https://h.test/v1/"), ..login("a", "b") };
        assert!(of(&here).is_some());
        let said = format!("{here:?}");
        assert!(!said.contains('b') || !said.contains("password"), "{said}");
    }
}
