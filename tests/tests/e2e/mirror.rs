//! The registry mirror, as container runtimes and `curl` see it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::origin::{Body, Fault};
use dfs_tests::process::Said;
use dfs_tests::registry::{Guard, LOGIN};
use dfs_tests::{Cluster, Origin, Registry};
use serde_json::Value;

use crate::support::canned::Canned;
use crate::support::curl::{self, Answer, answered};
use crate::support::entries::{self, Holes};
use crate::support::images::{Layout, Packing, here, sha256};
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, Running, all, binaries};

/// What asks an agent for a mirror of its own.
const MIRROR: &[&str] = &["--mirror-listen", "127.0.0.1:0"];

const MIB: u64 = 1 << 20;

/// What runtimes say that they take, a line for each kind, as docker and podman do: without it a registry has no manifest of
/// the image specification.
const TAKES: [&str; 4] = [
    "-H",
    "Accept: application/vnd.docker.distribution.manifest.v2+json",
    "-H",
    "Accept: application/vnd.oci.image.manifest.v1+json",
];

/// The word for the one error of a registry, and what it says of it.
fn error(answer: &Answer) -> (String, String) {
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    let text = |key: &str| json["errors"][0][key].as_str().unwrap_or_default().to_owned();
    (text("code"), text("message"))
}

/// An agent with a mirror.
struct Mirror<'a> {
    agent: &'a Agent,
    place: &'a Place,
}

impl Mirror<'_> {
    fn address(&self) -> SocketAddr {
        self.agent.node.process().address("mirror").unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    fn command(&self, words: &[&str], path: &str, out: &Path) -> Command {
        curl::command(words, &self.url(path), out)
    }

    /// Asks it as `curl` does.
    fn curl(&self, words: &[&str], path: &str) -> Answer {
        curl::curl(self.place, words, &self.url(path))
    }
}

/// An image of one incompressible layer, pushed as `team/app:1`; and the layer as it is packed.
fn pushed(place: &Place, registry: &Registry, packing: Packing, bytes: usize) -> (Layout, Vec<u8>) {
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("etc/app.conf"), b"level = 1\n");
    put(&tree.join("large"), &noise(3, bytes));
    layout.layer(&tree, packing);
    layout.name(layout.image(here()));
    registry.push(layout.dir(), "team/app:1").unwrap();
    let digest = layout.layer_digest(0);
    let layer = fs::read(layout.dir().join("blobs").join(digest.replace(':', "/"))).unwrap();
    (layout, layer)
}

fn blob_path(digest: &str, ns: &str) -> String {
    format!("/v2/team/app/blobs/{digest}?ns={}", ns.replace(':', "%3A"))
}

/// How `skopeo` and `podman` are told of a mirror.
fn registries_conf(place: &Place, registry: &Registry, mirror: SocketAddr) -> PathBuf {
    let address = registry.address();
    let file = place.path("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{address}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{mirror}/{}\"\ninsecure = true\n",
        address.replace(':', "__")
    );
    put(&file, text.as_bytes());
    file
}

fn skopeo_copy(conf: &Path, from: &str, to: &Path) -> Said {
    let mut command = Command::new("skopeo");
    command.arg("--registries-conf").arg(conf).args(["copy", "--quiet", "--insecure-policy"]);
    command.args(["--src-tls-verify=false", "--preserve-digests"]);
    command.arg(from).arg(format!("oci:{}:latest", to.display()));
    Said::by(&mut command).unwrap()
}

fn blobs(dir: &Path) -> Vec<String> {
    let listed = fs::read_dir(dir.join("blobs/sha256")).unwrap();
    let mut names: Vec<_> =
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn skopeo_copies_an_image_through_the_mirror_and_directly_when_the_agent_is_gone() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let (layout, layer) = pushed(&place, &registry, Packing::Gzip, 3_000_000);
    let pushed = registry.requests_by("skopeo", "GET", "/blobs/");
    let mut agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let conf = registries_conf(&place, &registry, mirror.address());
    let from = format!("docker://{}/team/app:1", registry.address());
    skopeo_copy(&conf, &from, &place.path("copied")).done();
    assert_eq!(blobs(&place.path("copied")), blobs(layout.dir()));
    assert_eq!(
        registry.requests_by("skopeo", "GET", "/blobs/"),
        pushed,
        "all of it came through us"
    );
    let given = agent.metric("dfs_node_mirror_given_bytes_total{from=\"task\"}");
    assert!(given > layer.len() as u64, "{given}");
    assert_eq!(agent.metric("dfs_node_mirror_given_bytes_total{from=\"registry\"}"), 0);

    agent.terminate();
    skopeo_copy(&conf, &from, &place.path("again")).done();
    assert_eq!(blobs(&place.path("again")), blobs(layout.dir()));
    assert!(registry.requests_by("skopeo", "GET", "/blobs/") > pushed, "the registry itself");
}

#[test]
fn heads_parts_and_lists_are_what_the_registry_has() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let (layout, layer) = pushed(&place, &registry, Packing::Gzip, 700_000);
    registry.push(layout.dir(), "team/app:2").unwrap();
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let (ns, digest) = (registry.address().replace(':', "%3A"), layout.layer_digest(0));
    let path = blob_path(&digest, &registry.address());
    let length = layer.len().to_string();

    let ping = mirror.curl(&[], "/v2/");
    assert_eq!(
        (ping.status, ping.header("docker-distribution-api-version")),
        (200, Some("registry/2.0"))
    );
    let head = mirror.curl(&["--head"], &path);
    assert_eq!((head.exit, head.status), (0, 200));
    assert_eq!(head.header("content-length"), Some(&*length));
    assert_eq!(head.header("docker-content-digest"), Some(&*digest));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    assert_eq!(agent.metric("dfs_node_mirror_given_bytes_total{from=\"task\"}"), 0);

    let last = layer.len() - 1;
    for (range, wanted) in
        [("0-0", 0..1), ("100000-399999", 100_000..400_000), ("-10", last - 9..last + 1)]
    {
        let part = mirror.curl(&["--range", range], &path);
        assert_eq!((part.status, part.exit), (206, 0), "{range}");
        let told = format!("bytes {}-{}/{length}", wanted.start, wanted.end - 1);
        assert_eq!(part.header("content-range"), Some(&*told));
        assert!(part.body == layer[wanted], "{range}");
    }
    let beyond = mirror.curl(&["--range", "99999999-"], &path);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some(&*format!("bytes */{length}")))
    );
    for several in ["0-1,5-6", "9-3"] {
        let whole = mirror.curl(&["-H", &format!("Range: bytes={several}")], &path);
        assert_eq!((whole.status, whole.body == layer), (200, true), "{several}");
    }
    let tag = ["-H", "If-Range: \"other\"", "--range", "0-0"];
    assert_eq!(mirror.curl(&tag, &path).status, 200);

    let manifest = mirror.curl(&TAKES, &format!("/v2/team/app/manifests/1?ns={ns}"));
    let named = manifest.header("docker-content-digest").unwrap().to_owned();
    assert_eq!((manifest.status, sha256(&manifest.body)), (200, named.clone()));
    assert_eq!(manifest.header("content-type"), Some("application/vnd.oci.image.manifest.v1+json"));
    let head = [&TAKES[..], &["--head"]].concat();
    let head = mirror.curl(&head, &format!("/v2/team/app/manifests/{named}?ns={ns}"));
    assert_eq!(head.header("docker-content-digest"), Some(&*named));
    assert_eq!(head.header("content-length"), Some(&*manifest.body.len().to_string()));
}

#[test]
fn the_next_page_of_a_list_is_asked_of_the_mirror() {
    let page = |tag: &str, link: &str| {
        let list = format!("{{\"name\":\"team/app\",\"tags\":[\"{tag}\"]}}");
        let length = list.len();
        format!(
            "200 OK\r\nContent-Type: application/json\r\n{link}Content-Length: {length}\r\n\r\n{list}"
        )
    };
    let registry = Canned::answering(move |_, path| match path {
        "/v2/team/app/tags/list?n=1" => {
            page("1", "Link: </v2/team/app/tags/list?n=1&last=1>; rel=\"next\"\r\n")
        }
        "/v2/team/app/tags/list?n=1&last=1" => page("2", ""),
        _ => "404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    });
    let place = Place::new();
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let ns = registry.address().to_string().replace(':', "%3A");
    let list = mirror.curl(&[], &format!("/v2/team/app/tags/list?n=1&ns={ns}"));
    let tags: Value = serde_json::from_slice(&list.body).unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["1"]));
    let next = list.header("link").unwrap().split(['<', '>']).nth(1).unwrap();
    let last = mirror.curl(&[], next);
    let tags: Value = serde_json::from_slice(&last.body).unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["2"]), "{next}");
    assert_eq!(last.header("link"), None);
}

#[test]
fn errors_are_the_registrys_own() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let (layout, _) = pushed(&place, &registry, Packing::Gzip, 10_000);
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let ns = registry.address().replace(':', "%3A");
    let gone = sha256(b"nobody has it");
    for (path, word) in [
        (format!("/v2/team/app/manifests/none?ns={ns}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/team/app/manifests/{gone}?ns={ns}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/team/app/blobs/{gone}?ns={ns}"), "BLOB_UNKNOWN"),
        (format!("/v2/team/none/tags/list?ns={ns}"), "NAME_UNKNOWN"),
    ] {
        let answer = mirror.curl(&[], &path);
        assert_eq!((answer.status, error(&answer).0), (404, word.to_owned()), "{path}");
        if !path.contains("/tags/") {
            assert_eq!(mirror.curl(&["--head"], &path).status, 404, "{path}");
        }
    }

    let origin = Origin::start().unwrap();
    let ns = origin.address().to_string().replace(':', "%3A");
    origin.put("/v2/app/manifests/1", Body::bytes(*b"{}"));
    origin.inject(Fault::retry_after(429, 17).on("/v2/app/manifests/1").times(1));
    let busy = mirror.curl(&[], &format!("/v2/app/manifests/1?ns={ns}"));
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("17")));
    assert_eq!(mirror.curl(&[], &format!("/v2/app/manifests/1?ns={ns}")).status, 200);
    // What is not what it is named is nothing.
    origin.put(&format!("/v2/app/manifests/{gone}"), Body::bytes(*b"{\"other\":1}"));
    let other = mirror.curl(&[], &format!("/v2/app/manifests/{gone}?ns={ns}"));
    assert_eq!((other.status, error(&other).0), (502, "DIGEST_INVALID".to_owned()));
    origin.put(&format!("/v2/app/blobs/{gone}"), Body::noise(8, 300_000));
    let other = mirror.curl(&[], &format!("/v2/app/blobs/{gone}?ns={ns}"));
    assert!(other.exit != 0 && (other.body.len() as u64) < 300_000, "{}", other.exit);

    // Nobody is there.
    let gone = dfs_tests::process::FreeAddress::new().unwrap();
    let ns = gone.at().to_string().replace(':', "%3A");
    let answer = mirror.curl(&[], &format!("/v2/app/manifests/1?ns={ns}"));
    assert_eq!(answer.status, 502);
    assert!(error(&answer).1.contains("no answer from the origin"), "{:?}", error(&answer));
    let digest = layout.layer_digest(0);
    for (method, path) in [
        ("POST", format!("/v2/team/app/blobs/uploads/?ns={ns}")),
        ("PUT", format!("/v2/team/app/manifests/1?ns={ns}")),
        ("PATCH", format!("/v2/team/app/blobs/{digest}?ns={ns}")),
        ("DELETE", format!("/v2/team/app/blobs/{digest}?ns={ns}")),
    ] {
        let answer = mirror.curl(&["--request", method], &path);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(error(&answer).0, "UNSUPPORTED");
    }
}

#[test]
fn a_private_image_is_for_whom_the_registry_lets_in_each_time() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Password).unwrap();
    let (layout, layer) = pushed(&place, &registry, Packing::Gzip, 500_000);
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let ns = registry.address().replace(':', "%3A");
    let path = blob_path(&layout.layer_digest(0), &registry.address());
    let manifest = format!("/v2/team/app/manifests/1?ns={ns}");
    let (login, wrong) = (format!("{}:{}", LOGIN.0, LOGIN.1), format!("{}:guessed", LOGIN.0));

    for path in [&path, &manifest, &format!("/v2/?ns={ns}")] {
        let refused = mirror.curl(&[], path);
        assert_eq!((refused.status, error(&refused).0), (401, "UNAUTHORIZED".to_owned()), "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"test\""));
    }
    let given = mirror.curl(&["--user", &login], &path);
    assert_eq!((given.status, given.body == layer), (200, true));
    assert!(agent.metric("dfs_node_mirror_given_bytes_total{from=\"task\"}") >= layer.len() as u64);
    // What is here for one is for nobody else, whoever asks next.
    let before = agent.metric("dfs_node_source_bytes_total");
    assert_eq!(mirror.curl(&[], &path).status, 401);
    assert_eq!(mirror.curl(&["--user", &wrong], &path).status, 401);
    let again = mirror.curl(&["--user", &login], &path);
    assert!(again.body == layer);
    let read = agent.metric("dfs_node_source_bytes_total") - before;
    assert!(read < layer.len() as u64 / 2, "it was here: {read}");
    assert!(!agent.log().contains(LOGIN.1));
}

/// A registry that gives all it has to who shows the token that it gives to everybody, or the other one.
fn by_token(blob: &'static str) -> Canned {
    let realm = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let told = std::sync::Arc::clone(&realm);
    let canned = Canned::answering_heads(move |method, path, head| {
        let shown = head.iter().find_map(|line| {
            line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        });
        let shown = shown.map_or("", |(_, value)| value);
        let is_private = path.contains("/private/");
        let body = |text: &str| {
            let body = if method == "HEAD" { "" } else { text };
            format!("200 OK\r\nContent-Length: {}\r\n\r\n{body}", text.len())
        };
        if path.starts_with("/token") {
            return match shown {
                "" => body("{\"token\":\"for-everybody\"}"),
                _ => body("{\"token\":\"for-ada\"}"),
            };
        }
        match shown {
            "Bearer for-everybody" if !is_private => body(blob),
            "Bearer for-ada" => body(blob),
            _ => format!(
                "401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer realm=\"{}\",\
                 service=\"canned\",scope=\"repository:x:pull\"\r\n\r\n",
                told.get().map_or("", String::as_str)
            ),
        }
    });
    realm.set(canned.url("/token")).unwrap();
    canned
}

#[test]
fn a_token_is_the_clients_own_and_for_what_is_public_nobodys() {
    const BLOB: &str = "a blob of a registry that wants tokens";
    let place = Place::new();
    let registry = by_token(BLOB);
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let ns = registry.address().to_string().replace(':', "%3A");
    let digest = sha256(BLOB.as_bytes());
    let public = mirror.curl(&[], &format!("/v2/public/app/blobs/{digest}?ns={ns}"));
    assert_eq!((public.status, public.body.as_slice()), (200, BLOB.as_bytes()));
    let private = format!("/v2/private/app/blobs/{digest}?ns={ns}");
    let refused = mirror.curl(&[], &private);
    assert_eq!(refused.status, 401);
    let wanted = refused.header("www-authenticate").unwrap();
    assert!(wanted.starts_with("Bearer realm=\"http://") && wanted.contains("scope="), "{wanted}");
    let given = mirror.curl(&["-H", "Authorization: Bearer for-ada"], &private);
    assert_eq!((given.status, given.body.as_slice()), (200, BLOB.as_bytes()));
    for other in ["Bearer for-everybody", "Bearer guessed"] {
        let header = format!("Authorization: {other}");
        assert_eq!(mirror.curl(&["-H", &header], &private).status, 401, "{other}");
    }
}

#[test]
fn a_blob_that_many_ask_two_nodes_for_leaves_the_registry_once() {
    const CLIENTS: usize = 10;
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let (layout, layer) = pushed(&place, &registry, Packing::Gzip, 6 * MIB as usize);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b"].map(|name| Agent::of_with(&cluster, &place, name, MIRROR));
    let path = blob_path(&layout.layer_digest(0), &registry.address());
    let mut asking = Vec::new();
    for (number, agent) in agents.iter().enumerate() {
        let mirror = Mirror { agent, place: &place };
        for client in 0..CLIENTS {
            let out = place.path(&format!("answer-{number}-{client}"));
            asking.push((Running::start(mirror.command(&[], &path, &out)), out));
        }
    }
    for (client, out) in asking {
        let answer = answered(client.wait(), &out);
        assert_eq!((answer.exit, answer.status), (0, 200));
        assert!(answer.body == layer, "{}", out.display());
    }
    let seed = cluster.process().metric("dfs_seed_source_bytes_total").unwrap() as u64;
    assert_eq!(seed, layer.len() as u64, "one copy");
    for agent in &agents {
        assert_eq!(agent.metric("dfs_node_source_bytes_total"), 0, "the seed alone reads it");
        assert_eq!(agent.metric("dfs_node_mirror_given_bytes_total{from=\"registry\"}"), 0);
    }
}

#[test]
fn who_pulls_and_who_mounts_cost_one_copy_in_this_order() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let (layout, layer) = pushed(&place, &registry, Packing::Gzip, 3 * MIB as usize);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of_with(&cluster, &place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let path = blob_path(&layout.layer_digest(0), &registry.address());
    assert!(mirror.curl(&[], &path).body == layer);
    let source = || cluster.process().metric("dfs_seed_source_bytes_total").unwrap() as u64;
    let pulled = source();
    assert_eq!(pulled, layer.len() as u64);
    let dir = agent.mount(&registry.url("team/app:1"), place.path("mount"));
    let unpacked = entries::walk(&layout.unpacked(&place.path("bundle")));
    entries::assert_same(&entries::walk(&dir), &unpacked, Holes::Unsaid);
    let more = source() - pulled;
    assert!(more < 64 * 1024, "manifest and configuration alone: {more}");
}

#[test]
fn who_mounts_and_who_pulls_then_cost_a_copy_of_each_form_and_no_more() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let (layout, layer) = pushed(&place, &registry, Packing::Gzip, 2 * MIB as usize);
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let dir = agent.mount(&registry.url("team/app:1"), place.path("mount"));
    assert_eq!(fs::read(dir.join("etc/app.conf")).unwrap(), b"level = 1\n");
    let mounted = agent.metric("dfs_node_source_bytes_total");
    let mirror = Mirror { agent: &agent, place: &place };
    let path = blob_path(&layout.layer_digest(0), &registry.address());
    for _ in 0..3 {
        assert!(mirror.curl(&[], &path).body == layer);
    }
    let pulled = agent.metric("dfs_node_source_bytes_total") - mounted;
    // What a layer was packed from does not say how it was packed.
    assert_eq!(pulled, layer.len() as u64);
}

#[test]
fn an_answer_whose_agent_is_killed_is_broken_and_not_short() {
    let place = Place::new();
    let (origin, body) = (Origin::start().unwrap(), Body::noise(5, 24 * MIB));
    let digest = sha256(&all(&body));
    let path = format!("/v2/team/app/blobs/{digest}");
    origin.put(&path, body);
    let slow = origin.inject(Fault::pace(MIB).on(&path).method("GET"));
    let mut agent = Agent::solo_with(&place, "agent", MIRROR);
    let out = place.path("answer");
    let asked = blob_path(&digest, &origin.address().to_string());
    let command = Mirror { agent: &agent, place: &place }.command(&[], &asked, &out);
    curl::cut_off(command, &out, 24 * MIB, &mut agent);
    slow.lift();
    agent.start_again();
    let again = Mirror { agent: &agent, place: &place }.curl(&[], &asked);
    assert_eq!((again.exit, sha256(&again.body)), (0, digest));
}

#[test]
fn a_blob_without_a_length_and_without_ranges_is_given_all_the_same() {
    let place = Place::new();
    let (origin, body) = (Origin::start().unwrap(), Body::noise(6, 3 * MIB));
    let digest = sha256(&all(&body));
    let path = format!("/v2/team/app/blobs/{digest}");
    origin.put(&path, body);
    origin.inject(Fault::no_length().on(&path));
    origin.inject(Fault::ignore_range().on(&path));
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = Mirror { agent: &agent, place: &place };
    let answer = mirror.curl(&[], &blob_path(&digest, &origin.address().to_string()));
    assert_eq!((answer.exit, answer.status, sha256(&answer.body)), (0, 200, digest));
}

/// What is answered to exactly these bytes, until the connection ends.
#[expect(clippy::disallowed_methods, reason = "what no client would send is sent by hand")]
fn told(at: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    // Who refuses may have gone by then.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request that may stand hidden in another one; REGISTRY is where it would lead.
const HIDDEN: &str = "GET /v2/team/app/tags/list?ns=REGISTRY HTTP/1.1\r\nHost: x\r\n\r\n";

/// Has a mirror asked each of these: it gives one answer of this status, and asks no registry.
fn refused(requests: &[(&str, String, &str)]) {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    pushed(&place, &registry, Packing::Gzip, 10_000);
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let at = Mirror { agent: &agent, place: &place }.address();
    let ns = registry.address().replace(':', "%3A");
    for (what, request, status) in requests {
        let answer = told(at, request.replace("REGISTRY", &ns).as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
    }
    assert_eq!(registry.requests_by("dfs/", "GET", ""), 0, "nothing of it came there");
    let ping = told(at, b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(ping.matches("200 OK").count(), 1);
}

#[test]
fn a_request_within_a_request_is_refused_with_one_answer() {
    let get = |head: &str, body: &str| {
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}{HIDDEN}")
    };
    let (length, chunks) = ("Content-Length: 4", "Transfer-Encoding: chunked");
    let within = format!("Content-Length: {}", HIDDEN.len());
    refused(&[
        ("a length and chunks", get(&format!("{length}\r\n{chunks}"), "0\r\n\r\n"), "400"),
        ("chunks and a length", get(&format!("{chunks}\r\n{length}"), "0\r\n\r\n"), "400"),
        ("a body with another request in it", get(&within, ""), "400"),
        ("two lengths", get("Content-Length: 0\r\nContent-Length: 9", ""), "400"),
        ("chunks in another spelling", get("Transfer-Encoding: xchunked", ""), "400"),
    ]);
}

#[test]
fn what_leads_elsewhere_or_is_too_long_is_refused_with_one_answer() {
    let get = |what: &str| format!("GET {what} HTTP/1.1\r\nHost: x\r\n\r\n");
    let with = |head: &str| format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
    let of = |ns: &str| get(&format!("/v2/a/manifests/1?ns={ns}"));
    let giant = "x".repeat(100_000);
    let many: Vec<_> = (0..200).map(|number| format!("X-{number}: 1")).collect();
    let tunnel = "CONNECT metadata.test:80 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    refused(&[
        ("a proxy's form", get("http://metadata.test/v2/"), "400"),
        ("a tunnel", tunnel, "405"),
        ("a giant head", with(&format!("X: {}", giant.repeat(3))), "431"),
        ("a giant name", get(&format!("/v2/{}/tags/list", &giant[..50_000])), "400"),
        ("many headers", with(&many.join("\r\n")), "431"),
        ("the way up", get("/v2/../../etc/passwd/manifests/1"), "400"),
        ("the way up, hidden", get("/v2/a%2f..%2fb/manifests/1"), "400"),
        ("a user", of("u%40h"), "400"),
        ("port 0", of("h%3A0"), "400"),
        ("a cloud's metadata", of("169.254.169.254"), "400"),
        ("the same, hidden", of("0xa9fea9fe"), "400"),
        ("a line of its own", of("h%0d%0aX%3a1"), "400"),
        ("itself", with("Via: 1.1 dfs-mirror"), "508"),
    ]);
}

#[test]
fn others_are_let_in_only_where_it_is_said_who_and_what_for() {
    let place = Place::new();
    let data = place.path("refused");
    let mut command = Command::new(binaries().path("dfs-fuse").unwrap());
    command.arg("--data-dir").arg(&data).args(["--mirror-listen", "0.0.0.0:0"]);
    let said = Said::by(&mut command).unwrap();
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(
        said.stderr.contains("--mirror-client") && said.stderr.contains("DFS-1003"),
        "{}",
        said.stderr
    );

    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    pushed(&place, &registry, Packing::Gzip, 10_000);
    let address = registry.address();
    let agent = Agent::solo_with(
        &place,
        "agent",
        &[MIRROR, &["--mirror-registry", "registry.test"]].concat(),
    );
    let mirror = Mirror { agent: &agent, place: &place };
    let refused =
        mirror.curl(&[], &format!("/v2/team/app/tags/list?ns={}", address.replace(':', "%3A")));
    assert_eq!((refused.status, error(&refused).0), (403, "DENIED".to_owned()));
    assert!(error(&refused).1.contains(&address), "{:?}", error(&refused));
    drop(agent);
    let agent =
        Agent::solo_with(&place, "named", &[MIRROR, &["--mirror-default", &address]].concat());
    let mirror = Mirror { agent: &agent, place: &place };
    assert_eq!(mirror.curl(&[], "/v2/team/app/tags/list").status, 200, "what it stands for");
}
