//! One credential provider: a program that is told of an image (`CredentialProviderRequest`) and prints logins for it and for what
//! is like it (`CredentialProviderResponse`).
//!
//! It runs once at a time: whoever waits for it finds what was printed for somebody before.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_model::{printable, shortened};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::super::login::LoginError;
use super::super::reference::Reference;
use super::config::{self, Told};
use super::pattern::ImagePattern;
use crate::{Credentials, Secret, program};

/// How long one may take, with the others that wait for it: what a kubelet gives it.
const WITHIN: Duration = Duration::from_secs(60);
/// Most answers of one that are kept.
const MAX_KEPT: usize = 1024;
/// Longest that one is kept.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// As much is said of what it says of its failure.
const MAX_COMPLAINT: usize = 300;

/// What an answer is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Image(String),
    Registry(String),
    All,
}

/// How an answer says so.
#[derive(Deserialize, Clone, Copy)]
enum Kind {
    Image,
    Registry,
    Global,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    cache_key_type: Kind,
    cache_duration: Option<String>,
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    password: Option<Secret>,
}

/// Logins by what they are for, the closest one first.
type Logins = Arc<Vec<(ImagePattern, Credentials)>>;

struct Kept {
    logins: Logins,
    until: Instant,
}

/// What the program printed.
struct Printed {
    logins: Logins,
    scope: Scope,
    lasting: Duration,
}

/// See the module.
pub(super) struct Plugin {
    told: Told,
    program: PathBuf,
    turn: Semaphore,
    kept: Mutex<HashMap<Scope, Kept>>,
}

impl Plugin {
    pub fn new(told: Told, programs: &Path) -> Self {
        let program = programs.join(&told.name);
        Self { told, program, turn: Semaphore::new(1), kept: Mutex::default() }
    }

    /// The login for an image, of those that are kept or of what the program prints. Not what was `refused`.
    pub async fn login(
        &self,
        reference: &Reference,
        image: &str,
        refused: Option<&Credentials>,
    ) -> Result<Option<Credentials>, LoginError> {
        let kept = || {
            let found = self.kept(reference, image)?;
            (refused.is_none() || found.as_ref() != refused).then_some(found)
        };
        if let Some(found) = kept() {
            return Ok(found);
        }
        let asking = async {
            let _turn = self.turn.acquire().await;
            // Somebody may have asked it meanwhile.
            match kept() {
                Some(found) => Ok(found),
                None => self.ask(reference, image).await,
            }
        };
        let late = |_| self.failed(format!("did not end within {} s", WITHIN.as_secs()));
        tokio::time::timeout(WITHIN, asking).await.map_err(late)?
    }

    /// What was printed for an image, where that is known still: perhaps that there is nothing.
    fn kept(&self, reference: &Reference, image: &str) -> Option<Option<Credentials>> {
        let scopes = [Kind::Image, Kind::Registry, Kind::Global];
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = scopes.iter().filter_map(|kind| kept.get(&scope(*kind, reference, image)));
        let found = found.find(|kept| Instant::now() < kept.until)?;
        Some(login_for(&found.logins, reference))
    }

    async fn ask(
        &self,
        reference: &Reference,
        image: &str,
    ) -> Result<Option<Credentials>, LoginError> {
        let Printed { logins, scope, lasting } = self.run(reference, image).await?;
        let login = login_for(&logins, reference);
        let (now, lasting) = (Instant::now(), lasting.min(LONGEST));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| now < kept.until);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        match lasting.is_zero() {
            // Nor is what it printed before for the same.
            true => drop(kept.remove(&scope)),
            false => drop(kept.insert(scope, Kept { logins, until: now + lasting })),
        }
        Ok(login)
    }

    async fn run(&self, reference: &Reference, image: &str) -> Result<Printed, LoginError> {
        let request = json!({
            "kind": "CredentialProviderRequest",
            "apiVersion": self.told.protocol,
            "image": image,
        });
        let mut command = Command::new(&self.program);
        command.args(&self.told.arguments).stderr(Stdio::piped());
        command.envs(self.told.variables.iter().map(|(name, value)| (name, value)));
        let ran = program::run(command, Some(&request.to_string()), WITHIN).await;
        let ran = ran.map_err(|reason| self.failed(reason))?;
        if !ran.ended.success() {
            let complaint = printable(&shortened(ran.complaint.trim(), MAX_COMPLAINT));
            let complaint = if complaint.is_empty() { complaint } else { format!(": {complaint}") };
            return Err(self.failed(format!("ended with {}{complaint}", ran.ended)));
        }
        let odd = |what: &str| self.failed(format!("printed {what}"));
        let response: Response = serde_json::from_slice(&ran.printed)
            .map_err(|_| odd("no JSON of a CredentialProviderResponse"))?;
        let protocol = &self.told.protocol;
        if response.kind != "CredentialProviderResponse" || response.api_version != *protocol {
            return Err(odd(&format!("no CredentialProviderResponse of {protocol}")));
        }
        let lasting = match response.cache_duration.as_deref().map(config::duration) {
            None => self.told.usual,
            Some(Some(lasting)) => lasting,
            Some(None) => return Err(odd("a cacheDuration that is none")),
        };
        let scope = scope(response.cache_key_type, reference, image);
        Ok(Printed { logins: Arc::new(logins(response.auth.unwrap_or_default())), scope, lasting })
    }

    fn failed(&self, reason: String) -> LoginError {
        LoginError::Provider { name: self.told.name.clone(), reason }
    }
}

fn scope(kind: Kind, reference: &Reference, image: &str) -> Scope {
    match kind {
        Kind::Image => Scope::Image(image.to_owned()),
        Kind::Registry => Scope::Registry(reference.registry().to_owned()),
        Kind::Global => Scope::All,
    }
}

/// As they are in force: a longer name goes before one that it begins with. What names no images is left out.
fn logins(auth: BTreeMap<String, Login>) -> Vec<(ImagePattern, Credentials)> {
    let mut keyed: Vec<_> =
        auth.into_iter().map(|(key, login)| (kubelet_key(&key), login)).collect();
    keyed.sort_by(|(a, _), (b, _)| b.cmp(a));
    let login = |(key, login): (String, Login)| {
        let Login { username: user, password } = login;
        let password = password.unwrap_or_else(|| Secret::new(""));
        Some((ImagePattern::parse(&key).ok()?, Credentials::Basic { user, password }))
    };
    keyed.into_iter().filter_map(login).collect()
}

/// What a kubelet means by a key: it without a scheme of the web, and without a version of the registry's interface before its path.
fn kubelet_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |at| key.split_at(at));
    let path = match path.starts_with("/v1/") || path.starts_with("/v2/") {
        true => &path["/v1".len()..],
        false => path,
    };
    format!("{host}{}", if path == "/" { "" } else { path })
}

fn login_for(logins: &Logins, reference: &Reference) -> Option<Credentials> {
    let names = reference.login_names();
    let images: Vec<String> =
        names.iter().map(|host| format!("{host}/{}", reference.repository())).collect();
    let is_for = |(pattern, _): &&(ImagePattern, Credentials)| {
        images.iter().any(|image| pattern.matches(image))
    };
    logins.iter().find(is_for).map(|(_, login)| login.clone())
}
