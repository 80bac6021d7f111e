//! containerd: `config_path` in its configuration, and in the directory that this names a host for all registries.

use toml_edit::{DocumentMut, Item, Table, value};

use super::{OURS, PlaceError, PlanError, Told, Unfit, document};

const CONFIG: &str = "/etc/containerd/config.toml";
const USUAL_HOSTS: &str = "/etc/containerd/certs.d";

pub fn plan(
    told: &Told,
    text: &mut dyn FnMut(&str) -> Result<Option<String>, PlaceError>,
) -> Result<Vec<(String, String)>, PlanError> {
    let config = text(CONFIG)?;
    let (config_after, dir) = with_hosts(config.as_deref().unwrap_or_default())?;
    let hosts = format!("{dir}/_default/hosts.toml");
    let hosts_after = with_mirror(text(&hosts)?.as_deref(), &hosts, told)?;
    let mut plan = Vec::new();
    // The directory first: a runtime that is started between the two finds all of it.
    plan.extend(hosts_after.map(|after| (hosts, after)));
    plan.extend(config_after.map(|after| (CONFIG.to_owned(), after)));
    Ok(plan)
}

/// The configuration with a directory of hosts, where it has none; and that directory.
fn with_hosts(text: &str) -> Result<(Option<String>, String), Unfit> {
    let unfit = |why: String| Unfit::new(CONFIG, why);
    let mut document = document(CONFIG, text)?;
    let is_empty = document.is_empty();
    let version = match document.get("version") {
        Some(version) => version.as_integer(),
        None => Some(if is_empty { 2 } else { 1 }),
    };
    let plugin = match version {
        Some(2) => "io.containerd.grpc.v1.cri",
        Some(3) => "io.containerd.cri.v1.images",
        _ => {
            let why =
                "its version is neither 2 nor 3: `containerd config migrate` makes one that is";
            return Err(unfit(why.to_owned()));
        }
    };
    let known = document.get("plugins").and_then(|plugins| plugins.get(plugin)?.get("registry"));
    if let Some(registry) = known {
        for other in ["mirrors", "configs"] {
            let names = registry.get(other).and_then(Item::as_table_like);
            if names.is_some_and(|names| !names.is_empty()) {
                let why = format!(
                    "it has `registry.{other}`, beside which containerd takes no `config_path`: move these to \
                     {USUAL_HOSTS} first"
                );
                return Err(unfit(why));
            }
        }
        if let Some(dirs) = registry.get("config_path").and_then(Item::as_str)
            && !dirs.is_empty()
        {
            let dir = dirs.split(':').next().unwrap_or_default();
            return match dir.starts_with('/') {
                true => Ok((None, dir.trim_end_matches('/').to_owned())),
                false => Err(unfit(format!("its `config_path` '{dir}' is not absolute"))),
            };
        }
    }
    if is_empty {
        // Only comments, or nothing.
        document.insert("version", value(2));
    }
    let mut table = document.as_table_mut();
    for name in ["plugins", plugin, "registry"] {
        let next = table.entry(name).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(name != "registry");
            Item::Table(table)
        });
        // One that stands in one line is a way of writing that only people keep well.
        let why =
            || unfit(format!("`{name}` is written in one line: write it as a table of its own"));
        table = next.as_table_mut().ok_or_else(why)?;
    }
    table.insert("config_path", value(USUAL_HOSTS));
    Ok((Some(document.to_string()), USUAL_HOSTS.to_owned()))
}

/// The hosts of all registries with the mirror before the others; `None` where it is there.
fn with_mirror(text: Option<&str>, path: &str, told: &Told) -> Result<Option<String>, Unfit> {
    let url = format!("http://{}", told.mirror);
    let ours = format!("# {OURS}\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    let Some(text) = text else { return Ok(Some(ours)) };
    let document = document(path, text)?;
    let hosts = document.get("host").and_then(Item::as_table_like);
    if hosts.is_some_and(|hosts| hosts.contains_key(&url)) {
        return Ok(None);
    }
    // Before the first table: what stands there speaks of all of the file, and hosts are asked in their order.
    let at = first_table(text);
    let (before, after) = text.split_at(at);
    let parting = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let after_ours = if after.is_empty() { "" } else { "\n" };
    let edited = format!("{before}{parting}{ours}{after_ours}{after}");
    // A text of several lines may look like a table.
    match edited.parse::<DocumentMut>() {
        Ok(read) if read.get("host").and_then(|hosts| hosts.get(&url)).is_some() => {
            Ok(Some(edited))
        }
        _ => Err(Unfit::new(path, "there is no place in it for another host")),
    }
}

/// Where the first line begins that begins a table.
fn first_table(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            return at;
        }
        at += line.len();
    }
    at
}
