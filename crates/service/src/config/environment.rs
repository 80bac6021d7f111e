//! `DFS_…` variables as layers: `DFS_DATA_DIR` is `data-dir`, `DFS_STORE__CAPACITY` is
//! `store.capacity`.
//!
//! A variable is text; what type the option has is known only to the options type. So text is read
//! as text first, then as a number, truth value or list, until it fits.
//! Variables of other processes share the prefix and are passed over.

use std::ffi::{OsStr, OsString};

use figment::util::nest;
use figment::value::{Dict, Value};

use super::{ConfigError, Layer, Origin};

const PREFIX: &str = "DFS_";

pub(super) fn layers(
    variables: &[(OsString, OsString)],
    known: &Dict,
) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    for (name, value) in variables {
        let Some((name, path)) = name.to_str().and_then(|name| Some((name, key_path(name)?)))
        else {
            continue;
        };
        if value.is_empty() || !known.contains_key(&path[0]) {
            continue;
        }
        let text = value.to_str().ok_or_else(|| ConfigError::NotText { name: name.to_owned() })?;
        layers.push(layer(name, path, text));
    }
    layers.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(layers)
}

/// A command line whose flags take nothing from variables that are set and empty, as a layer of variables does not.
pub fn passing_over_empty(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&str>),
        false => arg,
    });
    command.mut_subcommands(passing_over_empty)
}

fn key_path(name: &str) -> Option<Vec<String>> {
    let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let path: Vec<_> = key.split("__").map(|element| element.replace('_', "-")).collect();
    path.iter().all(|element| !element.is_empty()).then_some(path)
}

fn layer(name: &str, path: Vec<String>, text: &str) -> Layer {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut layer = Layer::new(Origin::Environment(name.to_owned()), Dict::new());
    layer.path = path;
    let Ok(typed) = text.parse::<Value>();
    layer.readings.extend([typed, Value::from(items)]);
    layer.set(Value::from(text));
    layer
}

impl Layer {
    fn set(&mut self, value: Value) {
        self.dict = nest(&self.path.join("."), value).into_dict().unwrap_or_default();
    }
}

/// Gives the variable that decided `path` its next reading; false when there is none.
pub(super) fn read_otherwise(layers: &mut [Layer], path: &[String]) -> bool {
    let decides = |layer: &&mut Layer| layer.find(&path.join(".")).is_some();
    // The error may lie inside what a variable gave as a whole: an item of a list.
    let covers = |layer: &&mut Layer| !layer.path.is_empty() && path.starts_with(&layer.path);
    let Some(layer) = layers.iter_mut().rev().find(|layer| decides(layer) || covers(layer)) else {
        return false;
    };
    if layer.readings.is_empty() {
        return false;
    }
    let next = layer.readings.remove(0);
    layer.set(next);
    true
}
