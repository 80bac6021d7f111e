//! Changing one key of a configuration file: all else in it stays, and it is replaced whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use dfs_service::config::text_of;
use toml_edit::{DocumentMut, Item, TableLike, Value};

use crate::codes;
use crate::error::CliError;
use crate::replace::replace;
use crate::settings;

/// The table that speaks to `dfctl` alone and wins over the top of the file.
const OWN: &str = "dfctl";

/// Sets `key` in `file`; whether that changed anything.
pub fn set(file: &Path, key: &str, value: Value) -> Result<bool, CliError> {
    change(file, |real, before| {
        let after = edited(real, before, key, value)?;
        settings::check(real, &after).map_err(|error| settings::unusable(&error))?;
        Ok(after)
    })
}

/// Takes `key` out of `file`; whether it was there. What else is wrong in the file stays so.
pub fn unset(file: &Path, key: &str) -> Result<bool, CliError> {
    if file.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(false);
    }
    change(file, |real, before| without(real, before, key))
}

/// Whether `file` has a value by this name, which need not be a key that is known; no table is one.
pub fn has_value(file: &Path, key: &str) -> Result<bool, CliError> {
    let text = match text_of(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(|error| CliError::output("read", file, &error))?,
    };
    let document = parsed(file, &text)?;
    let own = document.get(OWN).and_then(Item::as_table_like);
    let values = [own.and_then(|own| own.get(key)), document.get(key)];
    Ok(values.into_iter().flatten().any(is_one_value))
}

/// Whether it is a value, and not a table: that is some other process's.
fn is_one_value(item: &Item) -> bool {
    item.is_value() && !item.is_table_like()
}

/// Puts what `edit` makes of the file's text in its place; whether that is anything else.
fn change(
    file: &Path,
    edit: impl FnOnce(&Path, &str) -> Result<String, CliError>,
) -> Result<bool, CliError> {
    let failed = |error: &io::Error| CliError::output("change", file, error);
    // Who keeps the file elsewhere, and a link here, keeps the link.
    let real = match file.is_symlink() {
        true => file.canonicalize().map_err(|error| failed(&error))?,
        false => file.to_owned(),
    };
    if real.exists() && !real.is_file() {
        return Err(failed(&io::Error::other("it is no file")));
    }
    let dir = real.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("."));
    fs::create_dir_all(&dir).map_err(|error| failed(&error))?;
    // One at a time: two that change different keys both count.
    let lock = File::open(&dir).and_then(|dir| dir.lock().map(|()| dir));
    let lock = lock.map_err(|error| failed(&error))?;
    let before = match text_of(&real) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| failed(&error))?,
    };
    let after = edit(&real, &before)?;
    if after == before {
        return Ok(false);
    }
    // The lock is held: the draft has one name, and one that is there was left.
    let mut draft = OsString::from(".");
    draft.push(real.file_name().unwrap_or_default());
    draft.push(".dfctl-draft");
    let draft = dir.join(draft);
    let _ = fs::remove_file(&draft);
    let replaced = replace(&real, &draft, 0o600, after.as_bytes());
    replaced.map_err(|error| failed(&error))?;
    drop(lock);
    Ok(true)
}

fn parsed(file: &Path, text: &str) -> Result<DocumentMut, CliError> {
    text.parse().map_err(|error| {
        // Said as everywhere: with the file and the line.
        let said = settings::check(file, text).err().map(|error| settings::unusable(&error));
        said.unwrap_or_else(|| {
            CliError::new(&codes::BAD_CONFIG, "cannot use the configuration").caused_by(&error)
        })
    })
}

/// The same text without the key, wherever it speaks to `dfctl`.
fn without(file: &Path, text: &str, key: &str) -> Result<String, CliError> {
    let mut document = parsed(file, text)?;
    if let Some(own) = document.get_mut(OWN).and_then(Item::as_table_like_mut)
        && own.get(key).is_some_and(is_one_value)
    {
        own.remove(key);
    }
    if document.get(key).is_some_and(is_one_value) {
        document.remove(key);
    }
    Ok(document.to_string())
}

fn edited(file: &Path, text: &str, key: &str, value: Value) -> Result<String, CliError> {
    let mut document = parsed(file, text)?;
    let own = document.get_mut(OWN).and_then(Item::as_table_like_mut);
    match own.filter(|own| own.contains_key(key)) {
        Some(own) => put(own, key, value),
        None => put(document.as_table_mut(), key, value),
    }
    Ok(document.to_string())
}

/// Puts a value where the key is, with the comments around it, or adds the key.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, key: &str, value: impl Into<Value>) -> String {
        edited(Path::new("dfctl.toml"), text, key, value.into()).unwrap()
    }

    #[test]
    fn comments_and_order_stay_and_only_the_value_changes() {
        let text = "# mine\nsolo = false  # for now\ncolor='never' # eyes\n\n# other\n[dfs-fuse]\ncapacity = \"1GiB\"\n";
        let expected = text.replace("'never'", "\"auto\"");
        assert_eq!(changed(text, "color", "auto"), expected);
        let added = changed(text, "format", "json");
        assert!(added.contains("color='never' # eyes\nformat = \"json\"\n"), "{added}");
        assert_eq!(added.replace("format = \"json\"\n", ""), text);
        assert_eq!(changed("", "solo", true), "solo = true\n");
    }

    #[test]
    fn the_place_that_decides_is_the_one_that_changes() {
        let text = "color = 'never'\n[dfctl]\ncolor = 'always'\n";
        assert_eq!(changed(text, "color", "auto"), "color = 'never'\n[dfctl]\ncolor = \"auto\"\n");
        assert_eq!(
            changed("[dfctl]\nsolo = true\n", "color", "auto"),
            "color = \"auto\"\n[dfctl]\nsolo = true\n"
        );
    }

    #[test]
    fn a_key_goes_from_every_place_that_speaks_to_dfctl_and_nothing_else_goes() {
        let gone = |text: &str| without(Path::new("dfctl.toml"), text, "color").unwrap();
        let text = "# mine\nsolo = false  # for now\n\n# other\n[dfs-fuse]\ncolor = 1\n";
        assert_eq!(gone(text), text);
        let set = text.replace("\n\n# other", "\ncolor = 'never'\n\n# other");
        assert_eq!(gone(&set), text);
        assert_eq!(gone("color = 'x'\n[dfctl]\ncolor = 'y'\nsolo = 1\n"), "[dfctl]\nsolo = 1\n");
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("none").join("dfctl.toml");
        assert!(!unset(&file, "color").unwrap());
        assert!(!place.path().join("none").exists(), "nothing is made to take something out");
    }

    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("dotfiles.toml"), place.path().join("dfctl.toml"));
        fs::write(&real, "solo = true\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();
        assert!(set(&link, "color", Value::from("never")).unwrap());
        assert!(!set(&link, "color", Value::from("never")).unwrap(), "it is so already");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "solo = true\ncolor = \"never\"\n");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing is left beside");
        // As a killed command leaves it, beside the user's own; and a link that leads nowhere is not for us to
        // replace.
        fs::write(place.path().join(".dotfiles.toml.dfctl-draft"), "tor").unwrap();
        let mine = place.path().join("dotfiles.toml-new");
        fs::write(&mine, "mine").unwrap();
        assert!(set(&link, "color", Value::from("always")).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3);
        assert_eq!(fs::read_to_string(mine).unwrap(), "mine");
        fs::remove_file(&real).unwrap();
        assert_eq!(
            set(&link, "color", Value::from("auto")).unwrap_err().code,
            &codes::OUTPUT_FAILED
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
