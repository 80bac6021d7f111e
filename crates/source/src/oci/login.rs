//! Logins of this process's own user for registries: of the credential providers of a kubelet where some are named, then of files
//! of docker and podman, and of the programs that these name.
//!
//! Files are read when somebody asks, so that a login of a moment ago counts. Nothing of them is kept but what tells
//! whether a login came from here.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::access::{Who, who};
use super::config_file;
use super::docker_auth::DockerAuth;
use super::provider::Providers;
use super::reference::Reference;
use crate::environment::Environment;
use crate::program::{self, Ran};
use crate::{Credentials, Secret, SourceError};

/// How long a credential helper may take.
const HELPER_WITHIN: Duration = Duration::from_secs(30);
/// Logins remembered as given out.
const MAX_GIVEN: usize = 64;

/// Why the logins that are there cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// A file.
    #[error("the logins in {path} cannot be read: {reason}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why, without what stands in it.
        reason: String,
    },
    /// A credential helper.
    #[error("the credential helper docker-credential-{helper} {reason}")]
    Helper {
        /// Its name.
        helper: String,
        /// What it did.
        reason: String,
    },
    /// What is said of credential providers.
    #[error("the credential providers of {path} cannot be used: {reason}")]
    Providers {
        /// Where.
        path: PathBuf,
        /// Why, without what stands in it.
        reason: String,
    },
    /// A credential provider.
    #[error("the credential provider {name} {reason}")]
    Provider {
        /// Its name.
        name: String,
        /// What it did.
        reason: String,
    },
}

impl LoginError {
    pub(super) fn into_source(self) -> SourceError {
        SourceError::setup("the access to registries", self)
    }
}

/// A file of logins.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, DockerAuth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

/// What a credential helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    username: String,
    secret: Secret,
}

/// Where this process's user has logins.
pub(super) struct Logins {
    environment: Environment,
    providers: Providers,
    /// Those that were given out, the oldest first.
    given: Mutex<VecDeque<Who>>,
}

impl Logins {
    pub fn new(environment: Environment, providers: Providers) -> Self {
        Self { environment, providers, given: Mutex::default() }
    }

    /// The user's login for what is named; `None` where there is none. Not what was `refused`, where there is something newer.
    pub async fn find(
        &self,
        reference: &Reference,
        refused: Option<&Credentials>,
    ) -> Result<Option<Credentials>, LoginError> {
        let found = match self.providers.find(reference, refused).await? {
            None => find(&self.environment, reference).await?,
            found => found,
        };
        if let Some(found) = &found {
            let mut given = self.given.lock().unwrap_or_else(|held| held.into_inner());
            let who = who(found);
            if !given.contains(&who) {
                if given.len() == MAX_GIVEN {
                    given.pop_front();
                }
                given.push_back(who);
            }
        }
        Ok(found)
    }

    /// Whether these came from here: then newer ones of here may stand for them.
    pub fn gave(&self, credentials: &Credentials) -> bool {
        let given = self.given.lock().unwrap_or_else(|held| held.into_inner());
        given.contains(&who(credentials))
    }
}

/// The login of the user of `environment` for what is named.
pub(super) async fn find(
    environment: &Environment,
    reference: &Reference,
) -> Result<Option<Credentials>, LoginError> {
    for path in files(environment) {
        let Some(file) = read(path.clone()).await? else { continue };
        if let Some(helper) = file.helper(reference)
            && let Some(found) = ask(environment, helper, reference.login_server()).await?
        {
            return Ok(Some(found));
        }
        if let Some(entry) = file.entry(reference) {
            let found = entry.credentials().map_err(|reason| LoginError::File {
                path: path.clone(),
                reason: reason.to_owned(),
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// Where logins may be, the first one first: podman's file, then docker's.
fn files(environment: &Environment) -> Vec<PathBuf> {
    let podman = environment.get("REGISTRY_AUTH_FILE").map(PathBuf::from).or_else(|| {
        let dir = environment.get("XDG_RUNTIME_DIR")?;
        Some(PathBuf::from(dir).join("containers/auth.json"))
    });
    let docker = environment.path("DOCKER_CONFIG", ".docker").map(|dir| dir.join("config.json"));
    podman.into_iter().chain(docker).collect()
}

/// `None` where there is no such file.
async fn read(path: PathBuf) -> Result<Option<File>, LoginError> {
    let failed = |reason: String| LoginError::File { path: path.clone(), reason };
    let open = path.clone();
    let reading = tokio::task::spawn_blocking(move || config_file::read(&open));
    let read = reading.await.map_err(|_| failed("the process ends".to_owned()))?;
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    // What the parser says may hold what it parsed.
    let file = serde_json::from_slice(&bytes);
    file.map(Some).map_err(|error| failed(format!("no JSON of logins at line {}", error.line())))
}

impl File {
    /// The helper that keeps the login for what is named.
    fn helper(&self, reference: &Reference) -> Option<&str> {
        let named = best(&self.cred_helpers, reference).or(self.creds_store.as_ref());
        named.map(String::as_str).filter(|name| !name.is_empty())
    }

    fn entry(&self, reference: &Reference) -> Option<&DockerAuth> {
        best(&self.auths, reference)
    }
}

/// What is written down for a registry, or more closely for repositories in it; the closest.
fn best<'a, T>(entries: &'a BTreeMap<String, T>, reference: &Reference) -> Option<&'a T> {
    let names = reference.login_names();
    let fits = |key: &str| {
        names.iter().any(|name| {
            let below = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
            let repository = reference.repository();
            key == *name
                || below.is_some_and(|prefix| {
                    let rest = repository.strip_prefix(prefix);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
        })
    };
    let plain = entries.iter().map(|(key, entry)| (docker_key(key), entry));
    let fitting = plain.filter(|(key, _)| fits(key));
    fitting.max_by_key(|(key, _)| key.len()).map(|(_, entry)| entry)
}

/// What docker means by a key: it without any scheme, and without a version of the registry's interface at its end; in small letters.
fn docker_key(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    key.to_ascii_lowercase()
}

/// Asks a credential helper for the login of a server; `None` where it has none.
async fn ask(
    environment: &Environment,
    helper: &str,
    server: &str,
) -> Result<Option<Credentials>, LoginError> {
    let failed = |reason: String| LoginError::Helper { helper: helper.to_owned(), reason };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !helper.bytes().all(known) {
        let helper = helper.escape_default().to_string();
        let reason = "has a name that no program can have".to_owned();
        return Err(LoginError::Helper { helper, reason });
    }
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get");
    if let Some(path) = environment.get("PATH") {
        command.env("PATH", path);
    }
    let ran = program::run(command, Some(server), HELPER_WITHIN).await;
    let Ran { ended, printed, .. } = ran.map_err(failed)?;
    if !ended.success() {
        // What the protocol has for it.
        return match String::from_utf8_lossy(&printed).contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(format!("ended with {ended}"))),
        };
    }
    let printed: Printed = serde_json::from_slice(&printed)
        .map_err(|_| failed("printed no JSON with Username and Secret".to_owned()))?;
    Ok(Some(Credentials::Basic { user: printed.username, password: printed.secret }))
}

#[cfg(test)]
mod tests {
    use dfs_model::CanonicalUrl;

    use super::super::docker_auth::IDENTITY_TOKEN;
    use super::*;

    fn reference(url: &str) -> Reference {
        Reference::of(&CanonicalUrl::parse(url).unwrap()).unwrap()
    }

    async fn found(json: &str, url: &str) -> Result<Option<Credentials>, LoginError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        let environment =
            Environment::default().with("DOCKER_CONFIG", dir.path().to_str().unwrap());
        find(&environment, &reference(url)).await
    }

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    #[tokio::test]
    async fn logins_of_docker_and_podman_are_found() {
        // "ada:hunter2"
        let auth = r#"{"auth":"YWRhOmh1bnRlcjI="}"#;
        for (key, url, is_there) in [
            ("ghcr.io", "oci://ghcr.io/a/b", true),
            ("https://ghcr.io/v2/", "oci://ghcr.io/a/b", true),
            ("https://index.docker.io/v1/", "oci://docker.io/debian", true),
            ("docker.io", "oci://docker.io/a/b", true),
            ("h:5000", "oci://h:5000/a", true),
            ("h", "oci://h:5000/a", false),
            ("ghcr.io/a", "oci://ghcr.io/a/b", true),
            ("ghcr.io/a", "oci://ghcr.io/ab/c", false),
            ("evil-ghcr.io", "oci://ghcr.io/a", false),
        ] {
            let json = format!(r#"{{"auths":{{"{key}":{auth}}}}}"#);
            let expected = basic("ada", "hunter2").filter(|_| is_there);
            assert_eq!(found(&json, url).await.unwrap(), expected, "{key} {url}");
        }
        let closest = r#"{"auths":{"h":{"username":"u","password":"wide"},"h/a/b":{"username":"u","password":"close"}}}"#;
        assert_eq!(found(closest, "oci://h/a/b/c").await.unwrap(), basic("u", "close"));
        assert_eq!(found(closest, "oci://h/a/c").await.unwrap(), basic("u", "wide"));
        let tokens = r#"{"auths":{"h":{"identitytoken":"i"},"r":{"registrytoken":"t"},"e":{}}}"#;
        assert_eq!(found(tokens, "oci://h/a").await.unwrap(), basic(IDENTITY_TOKEN, "i"));
        let bearer = Some(Credentials::Bearer("t".into()));
        assert_eq!(found(tokens, "oci://r/a").await.unwrap(), bearer);
        assert_eq!(found(tokens, "oci://e/a").await.unwrap(), None);
        let nowhere = Environment::default().with("DOCKER_CONFIG", "/nonexistent");
        assert_eq!(find(&nowhere, &reference("oci://h/a")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_helpers_of_clouds_are_asked_as_docker_asks_them() {
        let dir = tempfile::tempdir().unwrap();
        // What each prints, and of what it is asked: the helpers of Amazon's, Google's and Microsoft's registries.
        let helpers = [
            ("ecr-login", "1.dkr.ecr.eu-west-1.amazonaws.com", "AWS", "eyJw"),
            ("gcr", "europe-docker.pkg.dev", "_dcgcr_2_0_0_token", "ya29.a"),
            ("acr-env", "team.azurecr.io", IDENTITY_TOKEN, "eyJh"),
        ];
        for (helper, server, user, secret) in helpers {
            let asked = dir.path().join(format!("{helper}.asked"));
            let script = format!(
                "#!/bin/sh\n[ $# = 1 ] && [ $1 = get ] || exit 2\nread -r server\n\
                 echo \"$server\" >> {}\n[ \"$server\" = {server} ] || \
                 {{ echo credentials not found in native keychain; exit 1; }}\n\
                 echo '{{\"ServerURL\":\"{server}\",\"Username\":\"{user}\",\"Secret\":\"{secret}\"}}'\n",
                asked.display()
            );
            let program = dir.path().join(format!("docker-credential-{helper}"));
            std::fs::write(&program, script).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&program, mode).unwrap();
        }
        let [ecr, gcr, acr] = helpers;
        let json = format!(
            r#"{{"credHelpers":{{"{}":"{}","{}":"{}"}},"credsStore":"{}"}}"#,
            ecr.1, ecr.0, gcr.1, gcr.0, acr.0
        );
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        let at = dir.path().to_str().unwrap();
        let environment = Environment::default().with("DOCKER_CONFIG", at).with("PATH", at);
        for (helper, server, user, secret) in helpers {
            let named = reference(&format!("oci://{server}/team/app:1"));
            let found = find(&environment, &named).await.unwrap();
            assert_eq!(found, basic(user, secret), "{helper}");
            let asked = std::fs::read_to_string(dir.path().join(format!("{helper}.asked")));
            assert_eq!(asked.unwrap(), format!("{server}\n"));
        }
        // A store is asked of every registry, and has nothing for most.
        let named = reference("oci://ghcr.io/a/b");
        assert_eq!(find(&environment, &named).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_said_without_what_stands_in_it() {
        for (json, said) in [
            (r#"{"auths":{"h":{"auth":"hunter2!"}}}"#, "is not base64"),
            (r#"{"auths":{"h":{"auth":"aHVudGVyMg=="}}}"#, "is not user:password"),
            (r#"{"auths":{"h":{"auth":hunter2}}}"#, "no JSON of logins at line 1"),
            (r#"{"credsStore":"../x"}"#, "a name that no program can have"),
            (r#"{"credHelpers":{"h":"dfs-test-missing"}}"#, "cannot be started"),
        ] {
            let error = found(json, "oci://h/a").await.unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hunter2"), "{error}");
        }
    }
}
