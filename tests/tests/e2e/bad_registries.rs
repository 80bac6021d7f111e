//! Bad days of registries: each ends in the right bytes, or in one clear error that leaves nothing behind, and in the right
//! bytes once the registry is well.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dfs_tests::registry::Guard;
use dfs_tests::{Cluster, Registry, wait};

use crate::support::gatekeeper::{Asked, Gatekeeper, Verdict};
use crate::support::images::{Layout, Packing, here};
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, binaries};

/// Bytes of the one file of the image, of which each layer is about as long: noise does not pack.
const LENGTH: usize = 3_000_000;

/// An image of one layer in a registry behind a gate, and an agent, alone or in a cluster.
struct Stage {
    // The agent goes first.
    agent: Agent,
    _cluster: Option<Cluster>,
    gate: Gatekeeper,
    layer: String,
    registry: Registry,
    place: Place,
}

impl Stage {
    fn new(packing: Packing, in_cluster: bool) -> Self {
        let place = Place::new();
        let mut layout = Layout::new(place.path("layout"));
        let tree = place.dir("tree");
        put(&tree.join("large"), &noise(11, LENGTH));
        layout.layer(&tree, packing);
        layout.name(layout.image(here()));
        let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
        registry.push(layout.dir(), "app:v1").unwrap();
        let gate = Gatekeeper::before(registry.address().parse().unwrap());
        let cluster = in_cluster.then(|| Cluster::start(&binaries(), place.root()).unwrap());
        let agent = match &cluster {
            Some(cluster) => Agent::of(cluster, &place, "agent"),
            None => Agent::solo(&place, "agent"),
        };
        let layer = layout.layer_digest(0);
        Self { agent, _cluster: cluster, gate, layer, registry, place }
    }

    /// Both ways to have an agent.
    fn each(packing: Packing, on: impl Fn(&Self)) {
        for in_cluster in [false, true] {
            on(&Self::new(packing, in_cluster));
        }
    }

    fn url(&self) -> String {
        self.gate.url("app:v1")
    }

    /// Judges who reads the layer; all else passes.
    fn judge_layer(&self, judge: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) {
        let layer = self.layer.clone();
        self.gate.judge(move |asked| {
            let reads = asked.method == "GET" && asked.path.ends_with(&layer);
            if reads { judge(asked) } else { Verdict::Pass }
        });
    }

    /// It is mounted, and all of it is right.
    fn is_right(&self, name: &str) {
        let dir = self.agent.mount(&self.url(), self.place.path(name));
        assert!(fs::read(dir.join("large")).unwrap() == noise(11, LENGTH));
    }

    /// What is here of the layers is taken away, once nothing is mounted any more.
    fn evict(&self, name: &str) {
        let dir = self.place.path(name);
        self.agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
        let listed = self.agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let tasks = listed["items"].as_array().unwrap().iter().map(|item| &item["task"]);
        let blobs: Vec<_> = tasks.filter(|task| task["kind"] == "blob").collect();
        assert!(!blobs.is_empty(), "{listed}");
        for blob in blobs {
            self.agent.dfctl(&["task", "rm", "--yes", blob["id"].as_str().unwrap()]).done();
        }
    }

    /// It is refused with these words, and nothing is mounted.
    fn is_refused(&self, words: &[&str]) {
        let dir = self.place.dir("refused");
        self.agent.guard(&dir);
        let said = self.agent.dfctl(&["mount", &self.url(), dir.to_str().unwrap()]);
        assert_ne!(said.code, 0, "{said:?}");
        assert!(words.iter().any(|words| said.stderr.contains(words)), "{}", said.stderr);
        assert!(said.stderr.contains("DFS-"), "{}", said.stderr);
        assert_eq!(self.agent.shown(&dir), None);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert!(self.gate.spoiled() > 0, "nothing was done to any request");
    }

    /// The registry is well again; what was said of it before may be believed for some seconds.
    fn gets_well(&self) {
        self.gate.open();
        let dir: PathBuf = self.place.dir("well");
        self.agent.guard(&dir);
        let mut last = String::new();
        let mounted = wait::until("the image is mounted", || {
            let said = self.agent.dfctl(&["mount", &self.url(), dir.to_str().unwrap()]);
            last = said.stderr;
            said.code == 0
        });
        assert!(mounted.is_ok(), "{last}");
        assert!(fs::read(dir.join("large")).unwrap() == noise(11, LENGTH));
    }
}

/// The first byte that is asked for.
fn first_byte(asked: &Asked) -> u64 {
    let range = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
    range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_layer_is_renewed_and_the_layer_goes_on() {
    Stage::each(Packing::Gzip, |stage| {
        // Each token is good for one part of the layer, which breaks off.
        let (given, used) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (layer, host) = (stage.layer.clone(), stage.gate.address());
        let (tokens, parts) = (Arc::clone(&given), Arc::clone(&used));
        stage.gate.judge(move |asked| {
            if asked.path.starts_with("/token") {
                let number = tokens.fetch_add(1, Ordering::SeqCst) + 1;
                let body = format!(r#"{{"token":"t{number}","expires_in":300}}"#);
                let kind = headers(&[("Content-Type", "application/json")]);
                return Verdict::Answer("200 OK", kind, body.into_bytes());
            }
            let newest = format!("Bearer t{}", tokens.load(Ordering::SeqCst));
            let of_layer = asked.method == "GET" && asked.path.ends_with(&layer);
            let ended = parts.load(Ordering::SeqCst) >= tokens.load(Ordering::SeqCst) && of_layer;
            if asked.header("authorization") != Some(&newest) || ended {
                let wants = format!(
                    r#"Bearer realm="http://{host}/token",service="test",scope="repository:app:pull""#
                );
                let wants = headers(&[("WWW-Authenticate", &wants)]);
                return Verdict::Answer("401 Unauthorized", wants, Vec::new());
            }
            if of_layer && parts.fetch_add(1, Ordering::SeqCst) < 3 {
                return Verdict::CutAnswer(700_000);
            }
            Verdict::Pass
        });
        stage.is_right("mount");
        assert!(used.load(Ordering::SeqCst) > 3, "it broke off");
        assert!(given.load(Ordering::SeqCst) > 3, "tokens ended");
    });
}

#[test]
fn a_registry_that_is_busy_for_a_while_is_waited_for() {
    for busy in ["429 Too Many Requests", "503 Service Unavailable"] {
        Stage::each(Packing::Zstd, |stage| {
            let asked_before = AtomicUsize::new(0);
            stage.gate.judge(move |_| match asked_before.fetch_add(1, Ordering::SeqCst) {
                // Whatever is asked for first, and again later.
                0 | 1 | 4 => {
                    Verdict::Answer(busy, headers(&[("Retry-After", "1")]), b"busy".to_vec())
                }
                _ => Verdict::Pass,
            });
            stage.is_right("mount");
            assert!(stage.gate.spoiled() >= 2);
        });
    }
}

#[test]
fn a_registry_that_stays_busy_or_broken_is_one_error() {
    for broken in ["500 Internal Server Error", "429 Too Many Requests"] {
        Stage::each(Packing::Gzip, |stage| {
            stage.judge_layer(move |_| Verdict::Answer(broken, Vec::new(), b"broken".to_vec()));
            stage.is_refused(&["status 500", "status 429"]);
            stage.gets_well();
        });
    }
}

#[test]
fn a_layer_that_breaks_off_is_gone_on_with_or_is_one_error() {
    Stage::each(Packing::Plain, |stage| {
        let cuts = AtomicUsize::new(0);
        stage.judge_layer(move |_| match cuts.fetch_add(1, Ordering::SeqCst) {
            0..4 => Verdict::CutAnswer(500_000),
            _ => Verdict::Pass,
        });
        stage.is_right("mount");
        assert!(stage.gate.spoiled() >= 4);
    });
    Stage::each(Packing::Gzip, |stage| {
        stage.judge_layer(|_| Verdict::CutAnswer(0));
        stage.is_refused(&["cut off", "no answer"]);
        stage.gets_well();
    });
}

#[test]
fn a_layer_with_another_byte_is_one_error() {
    for packing in [Packing::Gzip, Packing::Plain, Packing::Zstd] {
        Stage::each(packing, |stage| {
            // Always the same byte of the layer, by whatever range it is asked for.
            stage.judge_layer(move |asked| {
                1_000_000_u64.checked_sub(first_byte(asked)).map_or(Verdict::Pass, Verdict::Flip)
            });
            stage.is_refused(&["unpack", "checksum", "corrupt", "damaged", "sha256:"]);
            stage.gets_well();
        });
    }
}

#[test]
fn a_part_of_a_layer_that_is_read_again_is_held_against_what_the_whole_one_was() {
    for packing in [Packing::Gzip, Packing::Plain] {
        let stage = Stage::new(packing, false);
        stage.is_right("whole");
        stage.agent.dfctl(&["umount", stage.place.path("whole").to_str().unwrap()]).done();
        assert!(stage.agent.forget_contents() > 0);
        stage.judge_layer(|asked| match asked.header("range") {
            Some(_) => Verdict::Flip(60_000),
            None => Verdict::Pass,
        });
        let dir = stage.agent.mount(&stage.url(), stage.place.path("again"));
        let read = fs::read(dir.join("large")).map_err(|error| error.raw_os_error());
        assert_eq!(read.err(), Some(Some(5)), "{packing:?}");
        assert!(stage.gate.spoiled() > 0, "nothing was done to any request");
        stage.gate.open();
        wait::until("the file is read", || {
            fs::read(dir.join("large")).is_ok_and(|bytes| bytes == noise(11, LENGTH))
        })
        .unwrap();
    }
}

#[test]
fn a_wrong_part_of_a_layer_that_was_not_read_to_its_end_is_not_believed_by_the_next_agent() {
    let mut stage = Stage::new(Packing::Plain, false);
    let cut = |asked: &Asked| match first_byte(asked) {
        0 => Verdict::Flip(1000),
        _ => Verdict::Answer("503 Service Unavailable", Vec::new(), Vec::new()),
    };
    stage.judge_layer(cut);
    let dir = stage.place.dir("killed");
    stage.agent.guard(&dir);
    let mounting = stage.agent.dfctl_start(&["mount", &stage.url(), dir.to_str().unwrap()]);
    wait::until("a wrong beginning is here", || stage.gate.spoiled() >= 3).unwrap();
    // It would start another agent.
    mounting.kill();
    stage.agent.kill();
    stage.gate.open();
    stage.agent.start_again();
    stage.is_right("right");
}

#[test]
fn a_manifest_that_is_not_what_its_digest_names_is_one_error() {
    Stage::each(Packing::Gzip, |stage| {
        stage.gate.judge(|asked| {
            let reads = asked.method == "GET" && asked.path.contains("/manifests/");
            if reads { Verdict::Flip(30) } else { Verdict::Pass }
        });
        stage.is_refused(&["not sha256:"]);
        stage.gets_well();
    });
}

/// What of a layer is asked for, each time; all where there is none.
type Parts = Arc<Mutex<Vec<Option<String>>>>;

/// Has requests for the layer judged so, and their parts written down.
fn watched(stage: &Stage, verdict: impl Fn() -> Verdict + Send + Sync + 'static) -> Parts {
    let parts = Parts::default();
    let (layer, asked_for) = (stage.layer.clone(), Arc::clone(&parts));
    stage.gate.judge(move |asked| {
        if !asked.path.ends_with(&layer) {
            return Verdict::Pass;
        }
        if asked.method == "GET" {
            asked_for.lock().unwrap().push(asked.header("range").map(str::to_owned));
        }
        verdict()
    });
    parts
}

#[test]
fn a_registry_that_knows_no_ranges_sends_each_layer_once() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        Stage::each(packing, |stage| {
            let parts = watched(stage, || Verdict::Whole);
            stage.is_right("mount");
            let parts = parts.lock().unwrap();
            // One that is not packed is asked for by parts; once that came to nothing, for all of it.
            let (tried, copies): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.is_some());
            assert_eq!(copies.len(), 1, "{packing:?}: {parts:?}");
            assert_eq!(
                tried.len(),
                usize::from(packing == Packing::Plain),
                "{packing:?}: {parts:?}"
            );
        });
    }
}

#[test]
fn a_layer_that_was_evicted_comes_whole_of_a_registry_that_knows_no_ranges() {
    for packing in [Packing::Plain, Packing::Gzip] {
        let stage = Stage::new(packing, false);
        let parts = watched(&stage, || Verdict::Whole);
        stage.is_right("first");
        stage.evict("first");
        stage.is_right("again");
        let parts = parts.lock().unwrap();
        assert!(parts.iter().any(Option::is_some), "{packing:?}: no part was asked for: {parts:?}");
        let copies = parts.iter().filter(|part| part.is_none()).count();
        assert_eq!(copies, 2, "{packing:?}: {parts:?}");
    }
}

#[test]
fn a_registry_that_does_not_say_that_it_knows_ranges_is_asked_for_them() {
    for packing in [Packing::Plain, Packing::Gzip] {
        let stage = Stage::new(packing, false);
        let parts = watched(&stage, || Verdict::Unsaid);
        let sent = |status| stage.registry.sent(status, &stage.layer).iter().sum::<u64>();
        let once = LENGTH as u64 * 11 / 10;
        stage.is_right("first");
        let first = sent(200) + sent(206);
        assert!(first <= once, "{packing:?}: {:?}", parts.lock().unwrap());
        stage.evict("first");
        let by_parts = sent(206);
        stage.is_right("again");
        assert!(sent(206) > by_parts, "{packing:?}: {:?}", parts.lock().unwrap());
    }
}
