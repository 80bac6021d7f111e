//! Profiles: `~/.aws/credentials` and `~/.aws/config`, with the variables that go over them.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Environment;
use crate::s3::AddressStyle;
use crate::{AccessKeys, Secret};

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What variables and the chosen profile say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Keys that last.
    pub keys: Option<AccessKeys>,
    /// Where buckets are.
    pub region: Option<String>,
    /// Which store.
    pub endpoint: Option<String>,
    /// How buckets are addressed.
    pub style: AddressStyle,
    /// A role to take with a token in a file.
    pub(super) identity: Option<WebIdentity>,
    /// A program that makes keys.
    pub(super) program: Option<Program>,
}

/// A program that makes keys, and the profile that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    profile: String,
    line: String,
}

impl Program {
    /// Runs it and waits for it.
    pub async fn keys(&self) -> Result<AccessKeys, ProfileError> {
        super::program::keys(&self.line)
            .await
            .map_err(|reason| ProfileError::Program { name: self.profile.clone(), reason })
    }
}

/// A role, and the token that proves that it may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebIdentity {
    pub token_file: PathBuf,
    pub role: String,
    pub session: String,
}

/// A profile that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProfileError {
    /// A file is there and cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
    /// A profile was named and is in neither file.
    #[error("there is no profile '{name}'")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A profile leads to keys in a way that is not known here.
    #[error(
        "profile '{name}' needs {what}, which dfs does not do: export the keys it gives as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
    )]
    Unsupported {
        /// Its name.
        name: String,
        /// What it needs.
        what: &'static str,
    },
    /// A program that makes keys made none.
    #[error("the credential_process of profile '{name}' {reason}")]
    Program {
        /// The profile's name.
        name: String,
        /// What it did instead.
        reason: String,
    },
    /// One half of a pair of keys.
    #[error("{what} without its other half")]
    Half {
        /// Which.
        what: &'static str,
    },
    /// The store's address.
    #[error("the store's address cannot be used: {reason}")]
    Endpoint {
        /// Why.
        reason: String,
    },
}

type Section = BTreeMap<String, String>;

impl Profile {
    /// What `environment` says. Reads files of the user.
    pub fn of(environment: &Environment) -> Result<Self, ProfileError> {
        let named = environment.get("AWS_PROFILE");
        let name = named.unwrap_or("default");
        let section = section(environment, name)?;
        if section.is_none() && named.is_some() {
            return Err(ProfileError::Missing { name: name.to_owned() });
        }
        let section = section.unwrap_or_default();
        let of = |variables: &[&str], key: &str| {
            let variable = variables.iter().find_map(|name| environment.get(name));
            variable.or_else(|| section.get(key).map(String::as_str)).map(str::to_owned)
        };
        let keys = match keys_of_variables(environment)? {
            // Who names a profile means its keys.
            Some(keys) if named.is_none() => Some(keys),
            variables => keys_of_section(&section)?.or(variables),
        };
        let identity = web_identity(environment, &section);
        let program = section.get("credential_process");
        let program = program.map(|line| Program { profile: name.to_owned(), line: line.clone() });
        if keys.is_none() && identity.is_none() && program.is_none() {
            supported(name, &section)?;
        }
        let style = match section.get("s3.addressing_style").map(String::as_str) {
            Some("path") => AddressStyle::Path,
            Some("virtual") => AddressStyle::VirtualHost,
            _ => AddressStyle::Auto,
        };
        let endpoint = environment.get("AWS_ENDPOINT_URL_S3").map(str::to_owned);
        let endpoint = endpoint
            .or_else(|| section.get("s3.endpoint_url").cloned())
            .or_else(|| of(&["AWS_ENDPOINT_URL"], "endpoint_url"));
        let region = of(&["AWS_REGION", "AWS_DEFAULT_REGION"], "region");
        Ok(Self { keys, region, endpoint, style, identity, program })
    }

    /// Its keys, where nobody else need be asked for them: those that it names, or that its program makes.
    pub async fn own_keys(&self) -> Result<Option<AccessKeys>, ProfileError> {
        match (&self.keys, &self.program) {
            (Some(keys), _) => Ok(Some(keys.clone())),
            (None, Some(program)) if self.identity.is_none() => program.keys().await.map(Some),
            _ => Ok(None),
        }
    }
}

fn pair(
    id: Option<&str>,
    secret: Option<&str>,
    token: Option<&str>,
    what: (&'static str, &'static str),
) -> Result<Option<AccessKeys>, ProfileError> {
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Some(AccessKeys {
            id: id.to_owned(),
            secret: Secret::new(secret),
            token: token.map(Secret::new),
            expires: None,
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ProfileError::Half { what: what.0 }),
        (None, Some(_)) => Err(ProfileError::Half { what: what.1 }),
    }
}

fn keys_of_variables(environment: &Environment) -> Result<Option<AccessKeys>, ProfileError> {
    let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    let token = environment.get("AWS_SESSION_TOKEN");
    pair(environment.get(id), environment.get(secret), token, (id, secret))
}

fn keys_of_section(section: &Section) -> Result<Option<AccessKeys>, ProfileError> {
    let get = |key: &str| section.get(key).map(String::as_str);
    let (id, secret) = ("aws_access_key_id", "aws_secret_access_key");
    pair(get(id), get(secret), get("aws_session_token"), (id, secret))
}

fn web_identity(environment: &Environment, section: &Section) -> Option<WebIdentity> {
    let of = |variable: &str, key: &str| {
        let given = environment.get(variable).map(str::to_owned);
        given.or_else(|| section.get(key).cloned())
    };
    Some(WebIdentity {
        token_file: of("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file")?.into(),
        role: of("AWS_ROLE_ARN", "role_arn")?,
        session: of("AWS_ROLE_SESSION_NAME", "role_session_name").unwrap_or_else(|| "dfs".into()),
    })
}

fn supported(name: &str, section: &Section) -> Result<(), ProfileError> {
    const OTHERS: [(&str, &str); 4] = [
        ("sso_session", "single sign-on"),
        ("sso_start_url", "single sign-on"),
        ("source_profile", "a role taken with the keys of another profile"),
        ("credential_source", "a role taken with the keys of the machine"),
    ];
    match OTHERS.iter().find(|(key, _)| section.contains_key(*key)) {
        Some((_, what)) => Err(ProfileError::Unsupported { name: name.to_owned(), what }),
        None => Ok(()),
    }
}

/// The profile in both files, the credentials file over the other; `None` when it is in neither.
fn section(environment: &Environment, name: &str) -> Result<Option<Section>, ProfileError> {
    let config = environment.path("AWS_CONFIG_FILE", ".aws/config");
    let credentials = environment.path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    let mut found: Option<Section> = None;
    for (path, prefixed) in [(config, true), (credentials, false)] {
        let Some(text) = path.map(|path| read(&path)).transpose()?.flatten() else { continue };
        if let Some(section) = parse(&text, name, prefixed) {
            found.get_or_insert_default().extend(section);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Option<String>, ProfileError> {
    let text = std::fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map(|_| text)
    });
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(ProfileError::Unreadable { path: path.to_owned(), cause: Arc::new(error) })
        }
    }
}

/// The section of a profile; what is indented below `key =` becomes `key.name`.
fn parse(text: &str, name: &str, prefixed: bool) -> Option<Section> {
    let mut section: Option<Section> = None;
    let (mut inside, mut above) = (false, String::new());
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let title = title.trim();
            let profile = title.strip_prefix("profile ").map(str::trim);
            inside = match (prefixed, profile) {
                (true, Some(profile)) => profile.trim_matches('"') == name,
                (true, None) => title == "default" && name == "default",
                (false, _) => title == name,
            };
            above.clear();
            if inside {
                section.get_or_insert_default();
            }
            continue;
        }
        let (Some(section), Some((key, value))) = (&mut section, bare.split_once('=')) else {
            continue;
        };
        if !inside {
            continue;
        }
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if line.starts_with([' ', '\t']) && !above.is_empty() {
            section.insert(format!("{above}.{key}"), value.to_owned());
        } else if value.is_empty() {
            above = key;
        } else {
            above.clear();
            section.insert(key, value.to_owned());
        }
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: &str = "# mine\n[default]\nregion = eu-west-3\n[profile lab]\nregion=garage\n\
        endpoint_url = http://store:3900\ns3 =\n  addressing_style = path\n  max_concurrent = 3\n\
        [profile sso]\nsso_session = x\n[profile made]\ncredential_process = exit 3\n[profile role]\nrole_arn = arn:x\nweb_identity_token_file = /t\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIA0\naws_secret_access_key = s0\n\
        [lab]\naws_access_key_id=AKIA1\naws_secret_access_key=s1\naws_session_token=t1\n[half]\naws_access_key_id=A\n";

    fn profile(variables: &[(&str, &str)]) -> Result<Profile, ProfileError> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        let home = ("HOME", home.path().to_str().unwrap());
        let all = variables.iter().chain([&home]);
        Profile::of(&all.map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    fn id(profile: &Profile) -> Option<&str> {
        profile.keys.as_ref().map(|keys| &*keys.id)
    }

    #[test]
    fn a_profile_is_read_from_both_files() {
        let found = profile(&[]).unwrap();
        assert_eq!((id(&found), found.region.as_deref()), (Some("AKIA0"), Some("eu-west-3")));
        let found = profile(&[("AWS_PROFILE", "lab")]).unwrap();
        assert_eq!((id(&found), found.region.as_deref()), (Some("AKIA1"), Some("garage")));
        assert_eq!(found.endpoint.as_deref(), Some("http://store:3900"));
        assert_eq!(found.style, AddressStyle::Path);
        assert_eq!(found.keys.unwrap().token, Some("t1".into()));
        let found = profile(&[("AWS_PROFILE", "role")]).unwrap();
        assert_eq!(found.identity.unwrap().role, "arn:x");
    }

    #[tokio::test]
    async fn a_program_is_run_only_when_keys_are_wanted_and_no_others_are_there() {
        let made = profile(&[("AWS_PROFILE", "made")]).unwrap();
        assert_eq!(made.program.as_ref().unwrap().line, "exit 3");
        let error = made.own_keys().await.unwrap_err().to_string();
        let said = "the credential_process of profile 'made' ended with exit status: 3";
        assert_eq!(error, said);
        let keys = profile(&[("AWS_PROFILE", "lab")]).unwrap().keys;
        let both = Profile { keys, ..made };
        assert_eq!(both.own_keys().await.unwrap().unwrap().id, "AKIA1");
    }

    #[test]
    fn variables_go_over_files_but_not_over_a_named_profile() {
        let keys = [("AWS_ACCESS_KEY_ID", "AKIA9"), ("AWS_SECRET_ACCESS_KEY", "s9")];
        assert_eq!(id(&profile(&keys).unwrap()), Some("AKIA9"));
        let named = [keys[0], keys[1], ("AWS_PROFILE", "lab"), ("AWS_REGION", "r9")];
        let found = profile(&named).unwrap();
        assert_eq!((id(&found), found.region.as_deref()), (Some("AKIA1"), Some("r9")));
        let urls = [("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_S3", "http://b")];
        assert_eq!(profile(&urls).unwrap().endpoint.as_deref(), Some("http://b"));
    }

    #[test]
    fn what_cannot_be_used_is_said_plainly_and_without_secrets() {
        for (name, said) in [
            ("no", "no profile 'no'"),
            ("sso", "single sign-on"),
            ("half", "aws_access_key_id without"),
        ] {
            let error = profile(&[("AWS_PROFILE", name)]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(
            profile(&[("AWS_SECRET_ACCESS_KEY", "hunter2")])
                .is_err_and(|error| !error.to_string().contains("hunter2"))
        );
        let shown = format!("{:?}", profile(&[]).unwrap());
        assert!(!shown.contains("s0"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "[\\[\\]a= \n#\u{e9}]{0,60}") {
            let _ = parse(&text, "a", true);
        }
    }
}
