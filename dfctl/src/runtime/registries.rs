//! Podman and CRI-O: a file of one's own in the directory of registries.conf, with the mirror of each registry.

use toml_edit::Item;

use super::{OURS, PlaceError, PlanError, Runtime, Told, Unfit, document};

/// The file that people edit, and the directory of those that are read after it.
const MAIN: &str = "/etc/containers/registries.conf";
pub const DROP_INS: &str = "/etc/containers/registries.conf.d";

pub fn plan(
    runtime: Runtime,
    told: &Told,
    text: &mut dyn FnMut(&str) -> Result<Option<String>, PlaceError>,
    listed: &[String],
) -> Result<Vec<(String, String)>, PlanError> {
    let mut configured = Vec::new();
    for path in [MAIN.to_owned()].into_iter().chain(listed.iter().cloned()) {
        if path.contains("/50-dfs-") {
            continue;
        }
        if let Some(text) = text(&path)? {
            configured
                .extend(locations(&path, &text)?.into_iter().map(|name| (name, path.clone())));
        }
    }
    let is_free = |name: &String| !configured.iter().any(|(known, _)| known == name);
    let free: Vec<&String> = told.registries.iter().filter(|name| is_free(name)).collect();
    if free.is_empty() {
        let path = configured.first().map_or(MAIN, |(_, path)| path);
        let why = "it configures all of these registries itself: name the mirror there, or others with --registry";
        return Err(Unfit::new(path, why).into());
    }
    let mut after = format!("# {OURS}\n");
    for name in free {
        // No colon may stand in the path.
        let path = name.replace(':', "__");
        after.push_str(&format!(
            "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n\n[[registry.mirror]]\n\
             location = \"{}/{path}\"\ninsecure = true\n",
            told.mirror
        ));
    }
    let path = format!("{DROP_INS}/50-dfs-{}.conf", runtime.name());
    match text(&path)? {
        Some(known) if known == after => Ok(Vec::new()),
        Some(_) => Err(Unfit::new(
            &path,
            "it is there already, and dfctl has no record of having written it",
        )
        .into()),
        None => Ok(vec![(path, after)]),
    }
}

/// The registries that a file configures.
fn locations(path: &str, text: &str) -> Result<Vec<String>, Unfit> {
    let document = document(path, text)?;
    if document.get("registries").is_some_and(Item::is_table_like) {
        let why = "it is of version 1 of its format, beside which others are not read: write it anew in version 2";
        return Err(Unfit::new(path, why));
    }
    let Some(registries) = document.get("registry") else { return Ok(Vec::new()) };
    let unfit = || Unfit::new(path, "`registry` is no list of tables");
    let registries = registries.as_array_of_tables().ok_or_else(unfit)?;
    let name = |table: &toml_edit::Table| {
        let text = |key| table.get(key).and_then(Item::as_str).filter(|text| !text.is_empty());
        text("prefix").or_else(|| text("location")).map(str::to_owned)
    };
    Ok(registries.iter().filter_map(name).collect())
}
