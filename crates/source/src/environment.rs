//! What the user's surroundings say, taken once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Variables of a process; `Debug` shows their names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

/// Those that registries' logins, and the programs that keep them, are found by.
const OF_LOGINS: [&str; 5] =
    ["HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "PATH"];

impl Environment {
    /// Those of this process that object stores and registries know.
    pub fn of_process() -> Self {
        let known = |name: &str| OF_LOGINS.contains(&name) || name.starts_with("AWS_");
        let all = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        all.filter(|(name, _)| known(name)).collect()
    }

    /// The same with one more variable, which goes over one of its name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A variable that is set to something.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A path that a variable names, or one below the user's home.
    pub(crate) fn path(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let given = self.get(name).map(PathBuf::from);
        given.or_else(|| self.get("HOME").map(|home| PathBuf::from(home).join(below_home)))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
