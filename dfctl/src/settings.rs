//! What is in force for this run: flag > environment > `~/.config/dfs/dfctl.toml` > `/etc/dfs/*.toml` > default.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_model::Location;
use dfs_service::config::{self, ConfigError, Explanation, Loaded, Loader, Origin, ServiceAddress};
use dfs_service::data_dir::Places;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::codes;
use crate::error::CliError;
use crate::near::near;
use crate::output::{Color, Format, progress};

/// Every key of the configuration, in kebab-case.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Options {
    cluster: Option<ServiceAddress>,
    #[serde(deserialize_with = "named")]
    socket: Option<PathBuf>,
    solo: Option<bool>,
    #[serde(deserialize_with = "named")]
    data_dir: Option<PathBuf>,
    #[serde(deserialize_with = "label")]
    area: Option<String>,
    #[serde(deserialize_with = "label")]
    idc: Option<String>,
    #[serde(deserialize_with = "label")]
    rack: Option<String>,
    format: Option<Format>,
    progress: Option<progress::Mode>,
    color: Option<Color>,
}

/// A path, where there is one: an empty one would be the directory that the command happens to run in.
fn named<'de, D: Deserializer<'de>>(value: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::deserialize(value)?;
    match path {
        Some(path) if path.as_os_str().is_empty() => Err(D::Error::custom("an empty path")),
        path => Ok(path),
    }
}

/// A name that others are shown, where there is one.
fn label<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Label(#[serde(deserialize_with = "config::label")] String);
    Ok(Option::<Label>::deserialize(value)?.map(|Label(text)| text))
}

/// A relative path in a file would be another directory for every one that a command runs in.
fn refuse_relative(loaded: &Loaded<Options>) -> Result<(), CliError> {
    let options = &loaded.options;
    for (key, path) in [("socket", &options.socket), ("data-dir", &options.data_dir)] {
        let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) else { continue };
        let origin = loaded.explain(key).map(|explanation| explanation.origin);
        if let Some(origin @ Origin::File(..)) = origin {
            let reason = format!("'{}' is not an absolute path", path.display());
            return Err(unusable(&ConfigError::Invalid { origin, key: key.to_owned(), reason }));
        }
    }
    Ok(())
}

/// Flags of every command by their keys, as they were given on this command line. Variables are the loader's.
pub type GivenFlags = serde_json::Map<String, serde_json::Value>;

/// The value of `key` that `text` means, as TOML writes it.
pub fn value_of(key: &str, text: &str) -> Result<toml_edit::Value, String> {
    if matches!(key, "socket" | "data-dir") && (text == "~" || text.starts_with("~/")) {
        return Err("only a shell knows what '~' stands for: write the whole path".to_owned());
    }
    // In the file it holds wherever a command runs.
    let text = match key {
        "socket" | "data-dir" if !text.is_empty() => {
            let path = std::path::absolute(text).map_err(|error| error.to_string())?;
            path.to_str().ok_or("the path is not UTF-8")?.to_owned()
        }
        _ => text.to_owned(),
    };
    let plain = toml_edit::Value::from(text.as_str());
    // Most values are text; what the key does not take as text may be a truth value.
    let typed = text.parse().into_iter();
    let mut reason = String::new();
    for value in std::iter::once(plain).chain(typed) {
        let line = format!("{key} = {value}");
        match check(Path::new(""), &line) {
            Ok(()) => return Ok(value),
            Err(ConfigError::Invalid { reason: why, .. }) if reason.is_empty() => reason = why,
            Err(_) => {}
        }
    }
    Err(reason)
}

/// Whether a configuration file at `path` may say `text`.
pub fn check(path: &Path, text: &str) -> Result<(), ConfigError> {
    Loader::new("dfctl").check::<Options>(path, text)
}

fn user_file(places: &Places) -> Option<PathBuf> {
    Some(places.config.as_ref()?.join("dfctl.toml"))
}

/// Without a home there is no place for `what`; `variable` names one, and so does what the `hint` says.
fn homeless(what: &str, variable: &str, hint: &str) -> CliError {
    CliError::new(&codes::BAD_CONFIG, format!("there is no place for {what}"))
        .because(format!("neither HOME nor {variable} is set to an absolute path"))
        .hint(hint)
}

/// The configuration cannot be used.
pub fn unusable(error: &ConfigError) -> CliError {
    let failed = CliError::new(&codes::BAD_CONFIG, "cannot use the configuration").caused_by(error);
    let ConfigError::UnknownKey { key, known, .. } = error else { return failed };
    let last = key.rsplit('.').next().unwrap_or(key);
    match near(last, known.split(", "))[..] {
        [] => failed,
        [nearest, ..] => failed.hint(format!("the key is probably {nearest}")),
    }
}

/// One key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As it is written.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
}

/// All keys. They are the flags that hold everywhere and take a value.
pub fn keys() -> Vec<Key> {
    let command = crate::cli::command();
    let named =
        command.get_arguments().filter(|arg| arg.is_global_set() && arg.get_env().is_some());
    let mut keys: Vec<Key> = named
        .filter_map(|arg| {
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some(Key { name: arg.get_long()?.to_owned(), about })
        })
        .collect();
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    keys
}

/// The settings in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Cluster that an agent must take part in.
    pub cluster: Option<ServiceAddress>,
    /// Socket of the agent, where one was named.
    pub socket: Option<PathBuf>,
    /// Never ask an agent.
    pub solo: bool,
    /// Where processes started here keep their data, where it was named.
    pub data_dir: Option<PathBuf>,
    /// Where this machine stands.
    pub location: Location,
    /// Shape of results.
    pub format: Format,
    /// How progress is shown.
    pub progress: progress::Mode,
    /// When to colour.
    pub color: Color,
    /// Where things are by default.
    pub places: Places,
    /// What each value came from.
    layers: Arc<Loaded<Options>>,
}

impl Settings {
    /// Lays what was given on the command line over variables and files.
    pub fn load(flags: &GivenFlags) -> Result<Self, CliError> {
        Self::load_in(Places::current(), Loader::new("dfctl"), flags)
    }

    fn load_in(places: Places, loader: Loader, flags: &GivenFlags) -> Result<Self, CliError> {
        let loader = loader.user_file(user_file(&places));
        let loaded = loader.load::<Options, _>(flags).map_err(|error| unusable(&error))?;
        refuse_relative(&loaded)?;
        Ok(Self::of(loaded, places))
    }

    fn of(loaded: Loaded<Options>, places: Places) -> Self {
        let options = loaded.options.clone();
        // What is started here stands in another directory.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let named = Option::unwrap_or_default;
        let (area, idc, rack) = (named(options.area), named(options.idc), named(options.rack));
        Self {
            cluster: options.cluster,
            socket: options.socket.map(absolute),
            solo: options.solo.unwrap_or(false),
            data_dir: options.data_dir.map(absolute),
            location: Location { area, idc, rack },
            format: options.format.unwrap_or_default(),
            progress: options.progress.unwrap_or_default(),
            color: options.color.unwrap_or_default(),
            places,
            layers: Arc::new(loaded),
        }
    }

    /// Nothing but defaults.
    pub fn defaults() -> Result<Self, CliError> {
        Self::only_defaults(Places::current())
    }

    fn only_defaults(places: Places) -> Result<Self, CliError> {
        let loaded = Loaded::of(Options::default()).map_err(|error| unusable(&error))?;
        Ok(Self::of(loaded, places))
    }

    /// Nothing but defaults, for tests.
    #[cfg(test)]
    pub fn for_test(places: Places) -> Self {
        Self::only_defaults(places).unwrap()
    }

    /// The same over files of this directory, for tests.
    #[cfg(test)]
    pub fn for_test_over(places: Places, system_dir: &Path) -> Result<Self, CliError> {
        let loader = Loader::new("dfctl").system_dir(system_dir);
        let loader = loader.environment([("DFS_PROGRESS", "plain")]);
        Self::load_in(places, loader, &GivenFlags::default())
    }

    /// What `key` is and where that was decided; `None` for a key that there is not.
    pub fn explain(&self, key: &str) -> Option<Explanation> {
        self.layers.explain(key)
    }

    /// The user's own file.
    pub fn user_file(&self) -> Result<PathBuf, CliError> {
        let hint = "the same command with HOME set";
        let what = "the user's own configuration";
        user_file(&self.places).ok_or_else(|| homeless(what, "XDG_CONFIG_HOME", hint))
    }

    /// The cluster that a question about the cluster means: the one that was named, unless a directory on this
    /// machine was named at least as near.
    pub fn cluster_asked(&self) -> Option<&ServiceAddress> {
        let rank = |key: &str| match self.explain(key)?.origin {
            Origin::CommandLine => Some(3),
            Origin::Environment(_) => Some(2),
            Origin::File(..) => Some(1),
            Origin::Default => None,
        };
        self.cluster.as_ref().filter(|_| rank("cluster") > rank("data-dir"))
    }

    /// What says which cluster is meant, where no flag does.
    pub fn cluster_named_in(&self) -> Option<Origin> {
        let origin = self.explain("cluster")?.origin;
        (!matches!(origin, Origin::CommandLine | Origin::Default)).then_some(origin)
    }

    /// The cluster that a process started by this command takes part in.
    pub fn cluster_joined(&self) -> Option<&ServiceAddress> {
        self.cluster.as_ref().filter(|_| !self.solo)
    }

    /// Whether one particular agent is meant, and no other way will do.
    pub fn names_an_agent(&self) -> bool {
        self.socket.is_some() && !self.solo
    }

    /// The sockets an agent may listen on, in the order in which they are tried.
    pub fn sockets(&self) -> Vec<PathBuf> {
        if let Some(socket) = &self.socket {
            return vec![socket.clone()];
        }
        let own = self.own_socket();
        let resident = self.resident_socket();
        if own == resident { vec![own] } else { vec![own, resident] }
    }

    /// Where agents listen that were started without naming a socket: this user's, the machine's, and that of
    /// `user`.
    pub fn usual_sockets(&self, user: Option<u32>) -> Vec<PathBuf> {
        let mut sockets = vec![self.places.runtime.join("agent.sock"), self.resident_socket()];
        if let Some(user) = user {
            sockets.push(format!("/run/user/{user}/dfs/agent.sock").into());
            sockets.push(format!("/tmp/dfs-{user}/agent.sock").into());
        }
        sockets
    }

    /// Whether the agent on `socket` is looked for only because a machine may have one for all its users.
    pub fn is_the_machines(&self, socket: &Path) -> bool {
        self.socket.is_none() && socket == self.resident_socket() && socket != self.own_socket()
    }

    fn resident_socket(&self) -> PathBuf {
        self.places.resident.join("agent.sock")
    }

    /// Where an agent started for this user listens.
    pub fn own_socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.places.runtime.join("agent.sock"))
    }

    /// Where an agent started for this user keeps its data.
    pub fn agent_dir(&self) -> Result<PathBuf, CliError> {
        self.data_dir.clone().map_or_else(|| Ok(self.data()?.join("agent")), Ok)
    }

    /// Where a command that finds no agent keeps what it reads, until it ends.
    pub fn solo_dir(&self) -> Result<PathBuf, CliError> {
        Ok(self.data()?.join("solo"))
    }

    /// Where `sync` keeps what it knows: what went into buckets, which uploads are under way there, and, until it
    /// ends, what it is about to do.
    pub fn sync_dir(&self) -> Result<PathBuf, CliError> {
        Ok(self.data()?.join("sync"))
    }

    /// Where a cluster started here keeps its data.
    pub fn cluster_dir(&self) -> Result<PathBuf, CliError> {
        self.data_dir.clone().map_or_else(|| Ok(self.data()?.join("cluster")), Ok)
    }

    /// The directory that was named, else the one where everything is by default.
    fn data(&self) -> Result<&PathBuf, CliError> {
        let hint = "the same command with --data-dir DIR, or with HOME set";
        let found = self.data_dir.as_ref().or(self.places.data.as_ref());
        found.ok_or_else(|| homeless("what dfctl keeps", "XDG_DATA_HOME", hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_as_its_key_takes_it() {
        let written = |key, text| value_of(key, text).map(|value| value.to_string());
        assert_eq!(written("solo", "true"), Ok("true".to_owned()));
        assert_eq!(written("color", "never"), Ok("\"never\"".to_owned()));
        assert_eq!(written("data-dir", "/a \"b\""), Ok("'/a \"b\"'".to_owned()));
        let below = std::env::current_dir().unwrap().join("7");
        assert_eq!(written("data-dir", "7"), Ok(format!("\"{}\"", below.display())));
        for (key, text) in [
            ("solo", "yes"),
            ("color", "pink"),
            ("cluster", "here"),
            ("cluster", ""),
            ("data-dir", ""),
            ("socket", ""),
            ("data-dir", "~/cache"),
        ] {
            assert!(!written(key, text).unwrap_err().is_empty());
        }
    }

    #[test]
    fn the_keys_are_those_of_the_files() {
        let options = serde_json::to_value(Options::default()).unwrap();
        let mut known: Vec<_> = options.as_object().unwrap().keys().cloned().collect();
        known.sort();
        assert_eq!(keys().into_iter().map(|key| key.name).collect::<Vec<_>>(), known);
    }
}
