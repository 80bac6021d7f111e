//! Options of a process, from layers: defaults < `/etc/dfs/*.toml` < the user's file < `--config`
//! < `DFS_…` variables < flags.
//!
//! The serialised default of an options type is the list of what may be configured, so every key
//! must be present in it (`None` is fine, `skip_serializing_if` and `flatten` are not; options that
//! several processes have are loaded beside, see [`Loader::load_beside`]); keys are kebab-case. A key nobody knows is an error that names it and the file it stands in.
//!
//! One file may serve several processes: a table named after a process (`[dfs-fuse]`) speaks to
//! that process only and wins over the file's top-level keys.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

mod address;
mod environment;
mod lines;

pub use address::{BadAddress, LookUpError, Reachable, ServiceAddress, label, reachable_all};
pub use environment::passing_over_empty;
use lines::Lines;

/// The processes that a table of a shared file can be addressed to.
const PROCESSES: [&str; 3] = ["dfctl", "dfs-fuse", "dfs-cluster"];

/// Longest configuration file: far more than anybody writes.
const MAX_BYTES: u64 = 1 << 20;

/// What a configuration file says that is looked for: nobody is waited for, and what has no end is not read to it.
pub fn text_of(path: &Path) -> io::Result<String> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("it is a named pipe, not a file"));
    }
    bounded(&file)
}

/// The same of one that was named: who names a pipe, or a terminal, means to be waited for.
fn text_of_named(path: &Path) -> io::Result<String> {
    bounded(&fs::File::open(path)?)
}

fn bounded(file: &fs::File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Why options could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory is there but cannot be read, or was named and is not there.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: usize,
        /// Why, by the parser.
        reason: String,
    },
    /// A key that this process does not have.
    #[error("{origin}: unknown key `{key}`; known here: {known}")]
    UnknownKey {
        /// The layer it stands in.
        origin: Origin,
        /// The whole key, elements joined by dots.
        key: String,
        /// The keys that could have been meant.
        known: String,
    },
    /// A variable that is not UTF-8.
    #[error("environment variable {name} is not UTF-8")]
    NotText {
        /// The variable.
        name: String,
    },
    /// A value of the wrong kind or out of range.
    #[error("{origin}: `{key}`: {reason}")]
    Invalid {
        /// The layer that decided the value, as far as it is known.
        origin: Origin,
        /// The whole key, elements joined by dots; empty for the whole of the options.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The options type cannot be written as a table: a mistake in the program.
    #[error("these options cannot be laid over each other: {reason}")]
    Unrepresentable {
        /// What the serialiser said.
        reason: String,
    },
}

/// The layer a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A configuration file, and the line of the key in it, where that is known.
    File(PathBuf, Option<usize>),
    /// An environment variable, by name.
    Environment(String),
    /// A flag.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// Where the value of one key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The value in force, as JSON.
    pub value: String,
    /// The layer that decided it.
    pub origin: Origin,
    /// Lower layers that also have the key, highest first, with their values as JSON.
    pub overridden: Vec<(Origin, String)>,
}

/// Options and the layers they came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What is in force.
    pub options: T,
    layers: Vec<Layer>,
}

/// Where to look for configuration. A missing directory or user file is an empty layer; a file
/// given with `--config` must be there.
#[derive(Debug, Clone)]
pub struct Loader {
    process: &'static str,
    system_dir: PathBuf,
    user_file: Option<PathBuf>,
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

#[derive(Debug, Clone)]
struct Layer {
    origin: Origin,
    dict: Dict,
    /// Further ways to read the text of a variable, best first.
    readings: Vec<Value>,
    /// Key that a variable sets.
    path: Vec<String>,
    /// Where the keys of a file stand.
    lines: Lines,
}

impl Loader {
    /// Looks in `/etc/dfs` and in the environment of this process; `process` is the binary's name.
    pub fn new(process: &'static str) -> Self {
        Self {
            process,
            system_dir: PathBuf::from("/etc/dfs"),
            user_file: None,
            file: None,
            environment: std::env::vars_os().collect(),
        }
    }

    /// Reads `*.toml` of this directory in place of `/etc/dfs`.
    pub fn system_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.system_dir = dir.into();
        self
    }

    /// Adds the user's own file, used when it is there.
    pub fn user_file(mut self, path: Option<PathBuf>) -> Self {
        self.user_file = path;
        self
    }

    /// Adds the file given with `--config`.
    pub fn file(mut self, path: Option<PathBuf>) -> Self {
        self.file = path;
        self
    }

    /// Uses these variables in place of the process's own.
    pub fn environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        self.environment =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// Lays the layers over each other, `flags` on top. In `flags`, `None` and an empty list mean
    /// "not given"; a plain `bool` always counts as given.
    pub fn load<T, F>(&self, flags: &F) -> Result<Loaded<T>, ConfigError>
    where
        T: Default + Serialize + DeserializeOwned,
        F: Serialize,
    {
        let mut layers = self.layers(as_dict(&T::default())?, flags)?;
        let options = extract(&mut layers)?;
        Ok(Loaded { options, layers })
    }

    /// The same for a process's own options `T` beside the options `S` that others have too. Neither may
    /// refuse the other's keys; those of nobody are refused here.
    pub fn load_beside<S, T, F>(&self, flags: &F) -> Result<(S, T), ConfigError>
    where
        S: Default + Serialize + DeserializeOwned,
        T: Default + Serialize + DeserializeOwned,
        F: Serialize,
    {
        let mut known = as_dict(&S::default())?;
        known.extend(as_dict(&T::default())?);
        let mut layers = self.layers(known, flags)?;
        Ok((extract(&mut layers)?, extract(&mut layers)?))
    }

    fn layers<F: Serialize>(&self, known: Dict, flags: &F) -> Result<Vec<Layer>, ConfigError> {
        let mut layers = vec![Layer::new(Origin::Default, known.clone())];
        for (path, presence) in self.files()? {
            layers.extend(self.read(&path, presence)?);
        }
        layers.extend(environment::layers(&self.environment, &known)?);
        layers.push(Layer::new(Origin::CommandLine, given(as_dict(flags)?)));

        for layer in &layers[1..] {
            refuse_unknown(layer, &layer.dict, &known, "")?;
        }
        Ok(layers)
    }

    fn files(&self) -> Result<Vec<(PathBuf, Presence)>, ConfigError> {
        let mut system = match fs::read_dir(&self.system_dir) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
                .map_err(|source| ConfigError::Read { path: self.system_dir.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(ConfigError::Read { path: self.system_dir.clone(), source });
            }
        };
        system.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        system.sort();
        let user = self.user_file.iter().cloned().map(|path| (path, Presence::Optional));
        let given = self.file.iter().cloned().map(|path| (path, Presence::Named));
        let system = system.into_iter().map(|path| (path, Presence::Required));
        Ok(system.chain(user).chain(given).collect())
    }

    fn read(&self, path: &Path, presence: Presence) -> Result<Option<Layer>, ConfigError> {
        let text = match presence {
            Presence::Named => text_of_named(path),
            Presence::Required | Presence::Optional => text_of(path),
        };
        match text {
            Ok(text) => self.layer(path, &text).map(Some),
            Err(error)
                if presence == Presence::Optional && error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// What `text` says as the file at `path`.
    fn layer(&self, path: &Path, text: &str) -> Result<Layer, ConfigError> {
        let lines = Lines::of(text, self.process).map_err(|wrong| {
            let (line, reason) = (wrong.line, wrong.reason);
            ConfigError::Syntax { path: path.to_owned(), line, reason }
        })?;
        let parsed = Toml::string(text).data().map_err(|error| {
            let reason = error.to_string();
            ConfigError::Syntax { path: path.to_owned(), line: 1, reason }
        })?;
        let whole = parsed.into_values().next().unwrap_or_default();
        let layer = Layer::new(Origin::File(path.to_owned(), None), self.addressed(whole));
        Ok(Layer { lines, ..layer })
    }

    /// Whether a file at `path` may say `text` to this process.
    pub fn check<T>(&self, path: &Path, text: &str) -> Result<(), ConfigError>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let known = as_dict(&T::default())?;
        let layer = self.layer(path, text)?;
        refuse_unknown(&layer, &layer.dict, &known, "")?;
        extract::<T>(&mut [Layer::new(Origin::Default, known), layer]).map(|_| ())
    }

    /// The part of a file that speaks to this process.
    fn addressed(&self, mut whole: Dict) -> Dict {
        let mut own = None;
        for process in PROCESSES {
            if !matches!(whole.get(process), Some(Value::Dict(..))) {
                continue;
            }
            let table = whole.remove(process).and_then(Value::into_dict);
            if process == self.process {
                own = table;
            }
        }
        if let Some(own) = own {
            overlay(&mut whole, own);
        }
        whole
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// A directory lists it.
    Required,
    /// It may be there.
    Optional,
    /// A person named it.
    Named,
}

impl<T> Loaded<T> {
    /// Options that nothing was laid over.
    pub fn of(options: T) -> Result<Self, ConfigError>
    where
        T: Serialize,
    {
        let layers = vec![Layer::new(Origin::Default, as_dict(&options)?)];
        Ok(Self { options, layers })
    }

    /// Says what `key` (elements joined by dots) is and where that was decided; `None` for a key
    /// that does not exist.
    pub fn explain(&self, key: &str) -> Option<Explanation> {
        let holders = self.layers.iter().rev().filter(|layer| layer.find(key).is_some());
        let mut held = holders.map(|layer| (layer.origin_of(key), json(layer.find(key))));
        let (origin, _) = held.next()?;
        let value = json(figment(&self.layers).find_value(key).ok().as_ref());
        Some(Explanation { value, origin, overridden: held.collect() })
    }

    /// Every key that has a value of its own, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = BTreeMap::new();
        for layer in &self.layers {
            collect_keys(&layer.dict, "", &mut keys);
        }
        keys.into_keys().collect()
    }
}

impl Layer {
    fn new(origin: Origin, dict: Dict) -> Self {
        let (readings, path, lines) = (Vec::new(), Vec::new(), Lines::default());
        Self { origin, dict, readings, path, lines }
    }

    /// Where `key` stands in it.
    fn origin_of(&self, key: &str) -> Origin {
        match &self.origin {
            Origin::File(path, _) => Origin::File(path.clone(), self.lines.line_of(key)),
            other => other.clone(),
        }
    }

    fn find(&self, key: &str) -> Option<&Value> {
        let mut elements = key.split('.');
        let mut value = self.dict.get(elements.next()?)?;
        for element in elements {
            value = value.as_dict()?.get(element)?;
        }
        Some(value)
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn json(value: Option<&Value>) -> String {
    serde_json::to_string(&value).unwrap_or_else(|_| format!("{value:?}"))
}

fn figment(layers: &[Layer]) -> Figment {
    layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer))
}

/// Extracts the options; where a variable's text was of the wrong type, tries its next reading.
fn extract<T: DeserializeOwned>(layers: &mut [Layer]) -> Result<T, ConfigError> {
    // What a variable was read as first is what was written.
    let mut first: Option<figment::Error> = None;
    loop {
        let error = match figment(layers).extract::<T>() {
            Ok(options) => return Ok(options),
            Err(error) => error,
        };
        let error = match first {
            Some(first) if error.path.starts_with(&first.path) => first,
            _ => error,
        };
        let retyped = matches!(error.kind, Kind::InvalidType(..))
            && environment::read_otherwise(layers, &error.path);
        if !retyped {
            return Err(invalid(layers, error));
        }
        first = Some(error);
    }
}

fn invalid(layers: &[Layer], error: figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let decided = layers.iter().rev().find(|layer| layer.find(&key).is_some());
    let origin = decided.map_or(Origin::Default, |layer| layer.origin_of(&key));
    let reason = match error.kind {
        Kind::UnknownVariant(found, known) => {
            format!("'{found}' is not one of {}", known.join(", "))
        }
        Kind::InvalidType(found, wanted) => format!("found {found}, expected {}", plain(&wanted)),
        other => other.to_string(),
    };
    ConfigError::Invalid { origin, key, reason }
}

/// A type as those know it who do not write programs.
fn plain(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a boolean" => "true or false",
        wanted => wanted,
    }
}

fn as_dict<T: Serialize>(value: &T) -> Result<Dict, ConfigError> {
    let value = Value::serialize(value)
        .map_err(|error| ConfigError::Unrepresentable { reason: error.to_string() })?;
    match value {
        Value::Dict(_, dict) => Ok(dict),
        Value::Empty(..) => Ok(Dict::new()),
        other => Err(ConfigError::Unrepresentable {
            reason: format!("{} is not a table", other.to_actual()),
        }),
    }
}

/// What remains of flags when those not given are left out.
fn given(dict: Dict) -> Dict {
    let keep = |(key, value)| match value {
        Value::Empty(..) => None,
        Value::Array(_, items) if items.is_empty() => None,
        Value::Dict(tag, inner) => {
            let inner = given(inner);
            (!inner.is_empty()).then_some((key, Value::Dict(tag, inner)))
        }
        value => Some((key, value)),
    };
    dict.into_iter().filter_map(keep).collect()
}

fn overlay(below: &mut Dict, above: Dict) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Dict(_, below)), Value::Dict(_, above)) => overlay(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// A key must be in the serialised default; below an empty table (a free map) or anything that is
/// not a table, the options type itself judges.
fn refuse_unknown(
    layer: &Layer,
    dict: &Dict,
    known: &Dict,
    prefix: &str,
) -> Result<(), ConfigError> {
    for (key, value) in dict {
        let Some(counterpart) = known.get(key) else {
            let key = format!("{prefix}{key}");
            let tables =
                matches!((prefix, value, &layer.origin), ("", Value::Dict(..), Origin::File(..)));
            let tables = PROCESSES.iter().copied().filter(|_| tables);
            let known = known.keys().map(String::as_str).chain(tables);
            return Err(ConfigError::UnknownKey {
                origin: layer.origin_of(&key),
                key,
                known: known.collect::<Vec<_>>().join(", "),
            });
        };
        if let (Value::Dict(_, dict), Value::Dict(_, known)) = (value, counterpart)
            && !known.is_empty()
        {
            refuse_unknown(layer, dict, known, &format!("{prefix}{key}."))?;
        }
    }
    Ok(())
}

fn collect_keys(dict: &Dict, prefix: &str, keys: &mut BTreeMap<String, ()>) {
    for (key, value) in dict {
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => {
                collect_keys(inner, &format!("{prefix}{key}."), keys);
            }
            _ => {
                keys.insert(format!("{prefix}{key}"), ());
            }
        }
    }
}

#[cfg(test)]
mod tests;
