//! The page on configuration: keys and defaults from the serialised defaults, meanings from the
//! comments on the options' fields, so that neither can be forgotten here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::reference::GENERATED;

/// Where the fields of options are: the table in a configuration file, the source file.
type Sources = &'static [(&'static str, &'static str)];

const NODE: Sources = &[("", SHARED), ("", "dfs-fuse/src/options.rs")];
const CLUSTER: Sources = &[
    ("", SHARED),
    ("", "cluster/src/options.rs"),
    ("members.", "cluster/src/manager.rs"),
    ("scheduler.", "cluster/src/scheduler.rs"),
    ("seed.", "cluster/src/seed/service.rs"),
];

/// The options of every process.
const SHARED: &str = "crates/service/src/process.rs";

/// What stands for a name that people choose.
const ANY: &str = ".NAME";

const INTRODUCTION: &str = "\
# Configuration

A value comes from the first of these that has it: a flag, a variable `DFS_…`, the file named by
`--config`, `~/.config/dfs/dfctl.toml` (`dfctl` only), `/etc/dfs/*.toml` in the order of their
names, the default. One file may serve several processes: a table named after a process, such as
`[dfs-fuse]`, speaks to that process only. A key that nobody knows is an error.

Where a key ends with `NAME` people choose the names: the variable has all of the table, as
`DFS_MEMBERS__NEAREST='{ \"registry.example.com\" = \"eu\", models = \"us\" }'`.
";

/// The page.
pub fn page(root: &Path) -> Result<String, (PathBuf, io::Error)> {
    let node = serde_json::to_value(dfs_fuse::options::Options::default());
    let cluster = serde_json::to_value(dfs_cluster::options::Options::default());
    let mut page = format!("{GENERATED}{INTRODUCTION}");
    for (process, defaults, sources) in
        [("dfs-fuse", node, NODE), ("dfs-cluster", cluster, CLUSTER)]
    {
        let failed = |error: io::Error| (PathBuf::from(process), error);
        let shared = serde_json::to_value(dfs_service::process::Options::default());
        let mut rows = BTreeMap::new();
        for defaults in [shared, defaults] {
            flatten("", &defaults.map_err(|error| failed(error.into()))?, &mut rows);
        }
        let meanings = meanings(root, sources)?;
        page.push_str(&format!(
            "\n## {process}\n\n| key | variable | default | meaning |\n|---|---|---|---|\n"
        ));
        for (key, default) in rows {
            let field = key.strip_suffix(ANY).unwrap_or(&key);
            let meaning = meanings.get(field).ok_or_else(|| {
                failed(io::Error::other(format!("no comment was found for the key {key}")))
            })?;
            page.push_str(&row(&key, &default, meaning));
        }
    }
    page.push_str(&dfctl());
    Ok(page)
}

fn row(key: &str, default: &str, meaning: &str) -> String {
    format!("| `{key}` | `{}` | {default} | {} |\n", variable(key), meaning.replace('|', "\\|"))
}

fn variable(key: &str) -> String {
    let table = key.strip_suffix(ANY).unwrap_or(key);
    format!("DFS_{}", table.to_uppercase().replace('-', "_").replace('.', "__"))
}

/// `dfctl`'s keys are its flags that hold everywhere.
fn dfctl() -> String {
    let command = dfctl::cli::command();
    let mut rows = BTreeMap::new();
    for argument in command.get_arguments().filter(|argument| argument.get_env().is_some()) {
        let Some(key) = argument.get_long() else { continue };
        let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        rows.insert(key, row(key, "", &meaning));
    }
    let rows: String = rows.into_values().collect();
    format!("\n## dfctl\n\n| key | variable | default | meaning |\n|---|---|---|---|\n{rows}")
}

/// Keys joined by dots, and defaults as a person writes them.
fn flatten(prefix: &str, value: &Value, rows: &mut BTreeMap<String, String>) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let key = format!("{prefix}{key}");
        let default = match value {
            // Tables by names that people choose: there are none unless they do.
            Value::Object(tables) if tables.is_empty() => {
                rows.insert(format!("{key}{ANY}"), String::new());
                continue;
            }
            Value::Object(_) => {
                flatten(&format!("{key}."), value, rows);
                continue;
            }
            Value::Null => String::new(),
            Value::String(text) if text.is_empty() => String::new(),
            Value::Array(items) if items.is_empty() => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        rows.insert(key, default);
    }
}

/// The comments on the fields of each file's `pub struct Options`, by key.
fn meanings(
    root: &Path,
    sources: Sources,
) -> Result<BTreeMap<String, String>, (PathBuf, io::Error)> {
    let mut meanings = BTreeMap::new();
    for (prefix, path) in sources {
        let text =
            fs::read_to_string(root.join(path)).map_err(|error| (PathBuf::from(path), error))?;
        for (field, meaning) in comments(&text) {
            meanings.insert(format!("{prefix}{}", field.replace('_', "-")), meaning);
        }
    }
    Ok(meanings)
}

fn comments(source: &str) -> Vec<(String, String)> {
    let lines = source.lines().skip_while(|line| *line != "pub struct Options {").skip(1);
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    for line in lines.take_while(|line| *line != "}").map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
        } else if let Some((field, _)) =
            line.strip_prefix("pub ").and_then(|line| line.split_once(':'))
        {
            let meaning = comment.join(" ");
            found.push((field.to_owned(), meaning.trim_end_matches('.').to_owned()));
            comment.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comments_on_fields_are_found() {
        let source = "/// No.\npub struct Other {\n    /// No.\n    pub a: u8,\n}\n#[x]\npub struct Options {\n    \
                      /// One\n    /// two.\n    #[serde(x)]\n    pub a_b: u8,\n    /// Three.\n    pub c: u8,\n}\n";
        let expected = [("a_b", "One two"), ("c", "Three")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(comments(source), expected);
    }

    #[test]
    fn keys_are_joined_and_defaults_are_written_as_values() {
        let mut rows = BTreeMap::new();
        let defaults = serde_json::json!({"a": {"b-c": 3}, "d": null, "e": "x", "f": {}});
        flatten("", &defaults, &mut rows);
        let rows: Vec<_> = rows.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(rows, [("a.b-c", "`3`"), ("d", ""), ("e", "`x`"), ("f.NAME", "")]);
        assert_eq!(variable("a.b-c"), "DFS_A__B_C");
        assert_eq!(variable("f.NAME"), "DFS_F");
    }
}
