use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    data_dir: PathBuf,
    port_grpc: Option<u16>,
    token: Option<String>,
    verbose: bool,
    hosts: Vec<String>,
    labels: BTreeMap<String, String>,
    store: Store,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Store {
    capacity: String,
    tries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/dfs".into(),
            port_grpc: None,
            token: None,
            verbose: false,
            hosts: Vec::new(),
            labels: BTreeMap::new(),
            store: Store { capacity: "1GiB".into(), tries: 4 },
        }
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Flags {
    port_grpc: Option<u16>,
    hosts: Vec<String>,
    store: StoreFlags,
}

#[derive(Default, Serialize)]
struct StoreFlags {
    tries: Option<u32>,
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir }
    }

    fn loader(&self, environment: &[(&str, &str)]) -> Loader {
        Loader::new("dfs-fuse").system_dir(self.dir.path()).environment(environment.iter().copied())
    }
}

fn options(loader: &Loader) -> Options {
    loader.load::<Options, _>(&Flags::default()).unwrap().options
}

fn failure(loader: &Loader) -> String {
    loader.load::<Options, _>(&Flags::default()).unwrap_err().to_string()
}

#[test]
fn nothing_configured_gives_the_defaults() {
    let loader = Loader::new("dfs-fuse").system_dir("/nonexistent/dfs").environment([("A", "b")]);
    assert_eq!(options(&loader), Options::default());
}

#[test]
fn a_higher_layer_wins_and_leaves_its_siblings_alone() {
    let place = Place::new(&[
        ("10-site.toml", "verbose = true\n[store]\ncapacity = '1'\ntries = 1\n"),
        ("20-host.toml", "[store]\ncapacity = '2'\n"),
        ("given.conf", "[store]\ncapacity = '3'\n"),
    ]);
    let loader = place.loader(&[]);
    assert_eq!(options(&loader).store, Store { capacity: "2".into(), tries: 1 });
    let loader = loader.file(Some(place.dir.path().join("given.conf")));
    assert_eq!(options(&loader).store, Store { capacity: "3".into(), tries: 1 });
    let loader = loader.environment([("DFS_STORE__CAPACITY", "4")]);
    assert_eq!(options(&loader).store, Store { capacity: "4".into(), tries: 1 });
    let flags = Flags { store: StoreFlags { tries: Some(9) }, ..Flags::default() };
    let loaded = loader.load::<Options, _>(&flags).unwrap().options;
    assert_eq!(loaded.store, Store { capacity: "4".into(), tries: 9 });
    assert!(loaded.verbose);
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let place = Place::new(&[("site.toml", "[store]\ncapacty = '1'\n")]);
    let message = failure(&place.loader(&[]));
    assert!(message.contains("site.toml:2: "), "{message}");
    assert!(message.contains("`store.capacty`"), "{message}");
    assert!(message.contains("capacity, tries"), "{message}");
}

#[test]
fn a_table_of_no_process_is_refused_and_those_that_there_are_are_named() {
    let place = Place::new(&[("site.toml", "verbose = true\n[dfs-fues]\ndata-dir = '/a'\n")]);
    let message = failure(&place.loader(&[]));
    assert!(message.contains("site.toml:2: unknown key `dfs-fues`"), "{message}");
    assert!(message.contains("dfctl, dfs-fuse, dfs-cluster"), "{message}");
}

#[test]
fn a_table_named_after_a_process_speaks_to_it_alone() {
    let place = Place::new(&[(
        "site.toml",
        "verbose = true\n[dfs-fuse]\ndata-dir = '/a'\n[dfs-cluster]\nwhatever = 1\n",
    )]);
    let options = options(&place.loader(&[]));
    assert_eq!(options.data_dir, PathBuf::from("/a"));
    assert!(options.verbose);
}

#[test]
fn a_variable_takes_the_type_of_its_option() {
    let place = Place::new(&[]);
    let loader = place.loader(&[
        ("DFS_PORT_GRPC", "4000"),
        ("DFS_TOKEN", "4000"),
        ("DFS_VERBOSE", "true"),
        ("DFS_HOSTS", "a, b"),
        ("DFS_LABELS__RACK", "7"),
        ("DFS_STORE__TRIES", "2"),
        ("DFS_SOMEBODY_ELSES", "x"),
        ("DFS_DATA_DIR", ""),
    ]);
    let options = options(&loader);
    assert_eq!(options.port_grpc, Some(4000));
    assert_eq!(options.token.as_deref(), Some("4000"));
    assert!(options.verbose);
    assert_eq!(options.hosts, ["a", "b"]);
    assert_eq!(options.labels["rack"], "7");
    assert_eq!(options.store.tries, 2);
    assert_eq!(options.data_dir, Options::default().data_dir);
}

#[test]
fn a_wrong_value_is_named_with_the_layer_that_gave_it() {
    let place = Place::new(&[("site.toml", "port-grpc = 1\n")]);
    let message = failure(&place.loader(&[("DFS_PORT_GRPC", "many")]));
    assert!(message.contains("DFS_PORT_GRPC") && message.contains("`port-grpc`"), "{message}");
    let place = Place::new(&[("site.toml", "verbose = true\nport-grpc = 70000\n")]);
    let message = failure(&place.loader(&[]));
    assert!(message.contains("site.toml:2: ") && message.contains("`port-grpc`"), "{message}");
}

#[test]
fn a_file_that_is_not_toml_is_told_in_one_line() {
    let place = Place::new(&[("site.toml", "verbose = true\n\ntoken = \n")]);
    let message = failure(&place.loader(&[]));
    assert!(message.contains("site.toml:3: ") && !message.contains('\n'), "{message}");
}

#[test]
fn a_text_is_checked_before_it_becomes_a_file() {
    let loader = Place::new(&[]).loader(&[]);
    let check = |text| loader.check::<Options>("new.toml".as_ref(), text);
    assert!(check("verbose = true\n[dfs-cluster]\nx = 1\n").is_ok());
    for wrong in ["verbose = 1", "verbos = true", "verbose ="] {
        let message = check(wrong).unwrap_err().to_string();
        assert!(message.starts_with("new.toml:1: "), "{message}");
    }
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let place = Place::new(&[]);
    let absent = place.dir.path().join("absent.conf");
    assert!(failure(&place.loader(&[]).file(Some(absent.clone()))).contains("absent.conf"));
    assert_eq!(options(&place.loader(&[]).user_file(Some(absent))), Options::default());
}

#[test]
fn explain_names_the_deciding_layer_and_those_below_it() {
    let place = Place::new(&[("site.toml", "port-grpc = 1\n")]);
    let file = Origin::File(place.dir.path().join("site.toml"), Some(1));
    let loader = place.loader(&[("DFS_PORT_GRPC", "2")]);
    let flags = Flags { port_grpc: Some(3), ..Flags::default() };
    let loaded = loader.load::<Options, _>(&flags).unwrap();
    let explanation = loaded.explain("port-grpc").unwrap();
    assert_eq!(explanation.value, "3");
    assert_eq!(explanation.origin, Origin::CommandLine);
    let variable = Origin::Environment("DFS_PORT_GRPC".into());
    let overridden = [(variable, "\"2\""), (file, "1"), (Origin::Default, "null")];
    let overridden = overridden.map(|(origin, value)| (origin, value.to_owned()));
    assert_eq!(explanation.overridden, overridden);
    assert_eq!(loaded.explain("store.tries").unwrap().origin, Origin::Default);
    assert_eq!(loaded.explain("nothing"), None);
    assert!(loaded.keys().contains(&"store.capacity".to_owned()));
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Shared {
    port_metrics: Option<u16>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct BothFlags {
    #[serde(flatten)]
    own: Flags,
    #[serde(flatten)]
    shared: SharedFlags,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct SharedFlags {
    port_metrics: Option<u16>,
}

#[test]
fn shared_options_are_loaded_beside_a_processs_own_and_unknown_keys_are_still_refused() {
    let place = Place::new(&[("site.toml", "verbose = true\nport-metrics = 1\n")]);
    let variables = [("DFS_PORT_METRICS", "2"), ("DFS_STORE__TRIES", "7")];
    let load =
        |flags: &BothFlags| place.loader(&variables).load_beside::<Shared, Options, _>(flags);
    let (shared, own) = load(&BothFlags::default()).unwrap();
    assert_eq!((shared.port_metrics, own.store.tries, own.verbose), (Some(2), 7, true));
    let mut flags = BothFlags::default();
    flags.shared.port_metrics = Some(3);
    flags.own.port_grpc = Some(4);
    let (shared, own) = load(&flags).unwrap();
    assert_eq!((shared.port_metrics, own.port_grpc), (Some(3), Some(4)));

    let place = Place::new(&[("site.toml", "port-metric = 1\n")]);
    let error = place.loader(&[]).load_beside::<Shared, Options, _>(&BothFlags::default());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("`port-metric`") && message.contains("port-metrics"), "{message}");
}

#[test]
fn a_pipe_is_read_where_it_was_named_and_refused_where_it_was_found() {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    let load = |says: &[u8], look: &dyn Fn(Loader, PathBuf) -> Loader| {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(says).unwrap();
        drop(writer);
        let pipe = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let loader = Loader::new("dfs-fuse").system_dir("/nowhere").environment([("A", "B"); 0]);
        let loaded = look(loader, pipe.into()).load::<Options, _>(&Flags::default());
        loaded.map(|loaded| loaded.options.verbose).map_err(|error| match error {
            ConfigError::Read { source, .. } => source.to_string(),
            error => error.to_string(),
        })
    };
    assert_eq!(load(b"verbose = true", &|loader, pipe| loader.file(Some(pipe))), Ok(true));
    let found = load(b"verbose = true", &|loader, pipe| loader.user_file(Some(pipe)));
    assert_eq!(found, Err("it is a named pipe, not a file".into()));
}
