//! Random requests, held against containerd's rules as a map has them, with the process dying in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The rules, without a database.
#[derive(Default)]
struct Rules(BTreeMap<String, (String, Kind, BTreeMap<String, String>)>);

/// What a request came to, as far as containerd tells it apart.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
}

impl Outcome {
    fn of<T>(result: Result<T, SnapshotError>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(SnapshotError::NotFound(_)) => Self::NotFound,
            Err(SnapshotError::AlreadyExists(_)) => Self::AlreadyExists,
            Err(SnapshotError::OtherKind { .. } | SnapshotError::HasChildren(_)) => {
                Self::FailedPrecondition
            }
            Err(SnapshotError::Invalid(_)) => Self::InvalidArgument,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Request {
    Create(Kind, String, String),
    Layer(String, String),
    Commit(String, String),
    Remove(String),
    Label(String, String),
    Labels(String, String),
    Die,
}

impl Rules {
    fn create(&mut self, kind: Kind, key: &str, parent: &str) -> Outcome {
        match self.0.get(parent).map(|(_, kind, _)| *kind) {
            None if !parent.is_empty() => return Outcome::NotFound,
            Some(Kind::View | Kind::Active) => return Outcome::InvalidArgument,
            None | Some(Kind::Committed) => {}
        }
        if self.0.contains_key(key) {
            return Outcome::AlreadyExists;
        }
        self.0.insert(key.to_owned(), (parent.to_owned(), kind, BTreeMap::new()));
        Outcome::Done
    }

    fn commit(&mut self, key: &str, name: &str) -> Outcome {
        let Some((parent, kind, _)) = self.0.get(key).cloned() else { return Outcome::NotFound };
        if self.0.contains_key(name) {
            return Outcome::AlreadyExists;
        }
        if kind != Kind::Active {
            return Outcome::FailedPrecondition;
        }
        self.0.remove(key);
        self.0.insert(name.to_owned(), (parent, Kind::Committed, BTreeMap::new()));
        Outcome::Done
    }

    fn remove(&mut self, key: &str) -> Outcome {
        if !self.0.contains_key(key) {
            return Outcome::NotFound;
        }
        if self.0.values().any(|(parent, ..)| parent == key) {
            return Outcome::FailedPrecondition;
        }
        self.0.remove(key);
        Outcome::Done
    }

    fn label(&mut self, key: &str, name: &str, value: Option<&str>) -> Outcome {
        let Some((_, _, labels)) = self.0.get_mut(key) else { return Outcome::NotFound };
        match value {
            Some(value) => labels.insert(name.to_owned(), value.to_owned()),
            None => labels.remove(name),
        };
        Outcome::Done
    }
}

fn info(name: &str, parent: &str, kind: Kind) -> Info {
    let (name, parent) = (name.to_owned(), parent.to_owned());
    Info { name, parent, kind, created_ns: 1, updated_ns: 1, labels: BTreeMap::new() }
}

fn layer() -> Layer {
    let (image, digest) = ("oci://h/a@sha256:0".to_owned(), "sha256:1".to_owned());
    Layer { image, number: 1, of: 2, top: "image".to_owned(), digest }
}

fn labelled(name: &str, label: &str, value: &str) -> Info {
    let mut info = info(name, "", Kind::Committed);
    info.labels.insert(label.to_owned(), value.to_owned());
    info
}

fn ask(store: &Store, rules: &mut Rules, request: &Request) -> (Outcome, Outcome) {
    match request {
        Request::Create(kind, key, parent) => {
            let created = store.create(&info(key, parent, *kind), |_| Ok(()));
            (Outcome::of(created), rules.create(*kind, key, parent))
        }
        Request::Layer(key, parent) => {
            let created = store.create_layer(&info(key, parent, Kind::Committed), &layer());
            (Outcome::of(created), rules.create(Kind::Committed, key, parent))
        }
        Request::Commit(key, name) => {
            let committed = info(name, "", Kind::Committed);
            let result = store.commit(key, &committed, Usage::default());
            (Outcome::of(result), rules.commit(key, name))
        }
        Request::Remove(key) => (Outcome::of(store.remove(key)), rules.remove(key)),
        Request::Label(key, value) => {
            let to = labelled(key, "one", value);
            let result = store.update(&to, &[Change::Label("one")], 2);
            let value = Some(value.as_str()).filter(|value| !value.is_empty());
            (Outcome::of(result), rules.label(key, "one", value))
        }
        Request::Labels(key, value) => {
            let to = labelled(key, "two", value);
            let result = store.update(&to, &[Change::Labels], 2);
            let is_there = rules.label(key, "one", None);
            let value = Some(value.as_str()).filter(|value| !value.is_empty());
            rules.label(key, "two", value);
            (Outcome::of(result), is_there)
        }
        Request::Die => (Outcome::Done, Outcome::Done),
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let name = || "[a-d]";
    let parent = || prop_oneof![Just(String::new()), "[a-d]"];
    let kind = prop_oneof![Just(Kind::View), Just(Kind::Active)];
    let request = prop_oneof![
        3 => (kind, name(), parent()).prop_map(|(kind, key, parent)| Request::Create(kind, key, parent)),
        1 => (name(), parent()).prop_map(|(key, parent)| Request::Layer(key, parent)),
        3 => (name(), name()).prop_map(|(key, name)| Request::Commit(key, name)),
        2 => name().prop_map(Request::Remove),
        1 => (name(), "[xy]?").prop_map(|(key, value)| Request::Label(key, value)),
        1 => (name(), "[xy]?").prop_map(|(key, value)| Request::Labels(key, value)),
        1 => Just(Request::Die),
    ];
    proptest::collection::vec(request, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_asked_is_answered_by_containerds_rules(requests in requests()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshots.db");
        let (mut store, mut rules) = (Store::open(&path).unwrap(), Rules::default());
        for request in &requests {
            if matches!(request, Request::Die) {
                store = Store::open(&path).unwrap();
            }
            let (said, ruled) = ask(&store, &mut rules, request);
            prop_assert_eq!(said, ruled, "{:?}", request);
        }
        let told = store.infos().unwrap().into_iter();
        let told: BTreeMap<_, _> =
            told.map(|info| (info.name, (info.parent, info.kind, info.labels))).collect();
        prop_assert_eq!(told, rules.0);
    }
}

#[test]
fn what_could_not_be_placed_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let refused = store.create(&info("a", "", Kind::Active), |_| {
        Err(SnapshotError::Invalid("no room".to_owned()))
    });
    assert!(refused.is_err());
    assert!(matches!(store.info("a"), Err(SnapshotError::NotFound(_))));
    assert!(store.directories().unwrap().is_empty());
    store.create(&info("a", "", Kind::Active), |_| Ok(())).unwrap();
}

#[test]
fn below_is_all_that_was_committed_down_to_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    store.create_layer(&info("base", "", Kind::Committed), &layer()).unwrap();
    store.create_layer(&info("image", "base", Kind::Committed), &layer()).unwrap();
    let one = store.create(&info("one", "image", Kind::Active), |_| Ok(())).unwrap();
    store.commit("one", &info("first", "", Kind::Committed), Usage { size: 7, inodes: 1 }).unwrap();
    let two = store.create(&info("two", "first", Kind::Active), |_| Ok(())).unwrap();
    let image = Below::Image { name: "image".to_owned(), layer: layer() };
    assert_eq!(one.below, std::slice::from_ref(&image));
    assert_eq!(two.below, [Below::Directory(one.id), image]);
    assert_eq!(store.usable("two").unwrap(), two);
    assert_eq!(store.usage("first").unwrap(), UsageOf::Known(Usage { size: 7, inodes: 1 }));
    assert_eq!(store.usage("two").unwrap(), UsageOf::Directory(two.id));
    // Of two of one blob one takes its bytes.
    assert_eq!(store.usage("base").unwrap(), UsageOf::Blob("sha256:1".to_owned()));
    assert_eq!(store.usage("image").unwrap(), UsageOf::Known(Usage::default()));
    for key in ["two", "first"] {
        assert_eq!(store.remove(key).unwrap().layer, None);
    }
    let removed = store.remove("image").unwrap();
    assert!(!removed.is_last_of_blob && !removed.is_last_of_image);
    let removed = store.remove("base").unwrap();
    assert!(removed.is_last_of_blob && removed.is_last_of_image);
}

#[test]
fn a_database_of_a_later_release_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(Store::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = Store::open(&path).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("has format 99"), "{refused}");
}

#[test]
fn what_is_too_long_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let long = "n".repeat(MAX_NAME + 1);
    let named = info(&long, "", Kind::Active);
    let labelled = labelled("a", "l", &"v".repeat(MAX_LABEL));
    for info in [named, labelled, info("", "", Kind::Active)] {
        let refused = store.create(&info, |_| Ok(()));
        assert!(matches!(refused, Err(SnapshotError::Invalid(_))), "{refused:?}");
    }
}
