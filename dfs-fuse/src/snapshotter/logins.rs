//! Logins that came with requests to pull images: kept in memory alone, for the repository that each was for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dfs_proto::cri::AuthConfig;
use dfs_source::oci::{DockerAuth, Reference};
use dfs_source::{Credentials, Secret, Target};
use parking_lot::Mutex;

/// How many are kept, and how long: a kubelet says them again with each pull.
const MOST: usize = 256;
const KEPT: Duration = Duration::from_secs(12 * 3600);

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
        let Ok(reference) = Reference::of_name(image) else { return };
        let (registry, repository) = (reference.registry(), reference.repository());
        let credentials = auth.and_then(|auth| credentials(auth, &reference));
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

/// What a request said for this registry; `None` where it was for another, or said nothing that can be used.
fn credentials(auth: &AuthConfig, reference: &Reference) -> Option<Credentials> {
    if !auth.server_address.is_empty() && !is_for(&auth.server_address, reference) {
        return None;
    }
    let secret = |text: &str| Some(Secret::from(text));
    let auth = DockerAuth {
        auth: secret(&auth.auth),
        username: Some(auth.username.clone()),
        password: secret(&auth.password),
        identitytoken: secret(&auth.identity_token),
        registrytoken: secret(&auth.registry_token),
    };
    auth.credentials().ok().flatten()
}

/// Whether an address, with or without a scheme and a path, is that of this registry.
fn is_for(address: &str, reference: &Reference) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    reference.is_of(host.split('/').next().unwrap_or_default())
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
    fn what_a_request_says_is_read_as_docker_reads_it_and_a_login_for_elsewhere_is_not_used() {
        let token = |text: &str| text.to_owned();
        let reference = Reference::of_name("h.test/app").unwrap();
        let of = |auth: &AuthConfig| credentials(auth, &reference);
        let basic = |user: &str, password: &str| Credentials::Basic {
            user: user.to_owned(),
            password: Secret::from(password),
        };
        // "ada:a:b"
        let auth = AuthConfig { auth: token("YWRhOmE6Yg=="), ..AuthConfig::default() };
        let identity = AuthConfig { identity_token: token("t"), ..login("0000", "x") };
        let bearer = AuthConfig { registry_token: token("t"), ..AuthConfig::default() };
        let odd = AuthConfig { auth: token("!"), ..AuthConfig::default() };
        assert_eq!(of(&login("ada", "x")), Some(basic("ada", "x")));
        assert_eq!(of(&auth), Some(basic("ada", "a:b")));
        assert_eq!(of(&identity), Some(basic("<token>", "t")));
        assert_eq!(of(&bearer), Some(Credentials::Bearer(Secret::from("t"))));
        assert_eq!((of(&AuthConfig::default()), of(&odd)), (None, None));
        let elsewhere =
            AuthConfig { server_address: token("https://other/v1/"), ..login("a", "b") };
        assert_eq!(of(&elsewhere), None);
        let here = AuthConfig { server_address: token("https://h.test/v1/"), ..login("a", "b") };
        assert!(of(&here).is_some());
        let hub = Reference::of_name("debian").unwrap();
        let of_docker =
            AuthConfig { server_address: token("https://index.docker.io/v1/"), ..login("a", "b") };
        assert!(credentials(&of_docker, &hub).is_some() && of(&of_docker).is_none());
        let said = format!("{here:?}");
        assert!(!said.contains('b') || !said.contains("password"), "{said}");
    }
}
