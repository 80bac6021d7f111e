//! Images, and other artifacts, of a registry as it is in use elsewhere.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use dfs_tests::registry::{Guard, LOGIN};
use dfs_tests::{Cluster, Registry};
use serde_json::{Value, json};

use crate::support::entries::{self, Holes};
use crate::support::gatekeeper::{Asked, Gatekeeper, Verdict};
use crate::support::images::{INDEX, Layout, Packing, here, raw_tar, sha256};
use crate::support::trees::{noise, put, rich};
use crate::support::{Agent, Expected, Place, binaries, until};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Three layers: what each does to the one below it is all that a layer can do.
pub fn three_layers(place: &Place) -> [PathBuf; 3] {
    let base = place.dir("base");
    rich(&base);
    put(&base.join("etc/hidden"), b"is hidden");
    put(&base.join("etc/kept"), b"stays");
    put(&base.join("opaque/below"), b"is below");
    put(&base.join("replaced/inner"), b"was in a directory");
    put(&base.join("program"), b"first");
    put(&base.join("large"), &noise(5, 3_000_000));
    mode(&base.join("program"), 0o4755);
    mode(&base.join("etc"), 0o750);
    xattr::set(base.join("program"), "user.note", b"of the base").unwrap();

    let over = place.dir("over");
    put(&over.join("etc/.wh.hidden"), b"");
    put(&over.join("opaque/.wh..wh..opq"), b"");
    put(&over.join("opaque/above"), b"is above");
    put(&over.join(".wh.replaced"), b"");
    put(&over.join("program"), b"second");
    mode(&over.join("etc"), 0o755);

    let top = place.dir("top");
    symlink("etc/kept", top.join("replaced")).unwrap();
    put(&top.join("opaque/more"), &noise(6, 70_000));
    fs::create_dir_all(top.join("empty/directory")).unwrap();
    fs::hard_link(top.join("opaque/more"), top.join("again")).unwrap();
    [base, over, top]
}

#[test]
fn an_image_is_mounted_as_it_is_unpacked_elsewhere_and_its_blobs_leave_the_registry_once() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let layers = three_layers(&place);
    for (layer, packing) in layers.iter().zip([Packing::Gzip, Packing::Plain, Packing::Zstd]) {
        layout.layer(layer, packing);
    }
    layout.name(layout.image(here()));
    // What unpacks it there knows no zstd.
    let mut twin = Layout::new(place.path("twin"));
    for layer in &layers {
        twin.layer(layer, Packing::Gzip);
    }
    twin.name(twin.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "team/app:v1").unwrap();
    let pushed = registry.requests("GET", "/blobs/");

    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b"].map(|name| Agent::of(&cluster, &place, name));
    let source = entries::walk(&twin.unpacked(&place.path("bundle")));
    for agent in &agents {
        let dir = place.path(&format!("mount-{}", agent.node.name()));
        let dir = agent.mount(&registry.url("team/app:v1"), dir);
        entries::assert_same(&entries::walk(&dir), &source, Holes::Unsaid);
    }
    assert_eq!(registry.requests("GET", "/blobs/") - pushed, 4, "a config and three layers");
    assert_eq!(registry.requests("GET", "/manifests/v1"), 0, "it is read by its digest");
}

#[test]
fn an_image_is_chosen_for_this_machine_or_the_one_that_is_named_and_one_without_is_refused() {
    let place = Place::new();
    let layout = Layout::new(place.path("layout"));
    let of = |architecture: &str| {
        let mut layout = layout.clone();
        let tree = place.dir(&format!("tree-{architecture}"));
        put(&tree.join("hello"), format!("of {architecture}").as_bytes());
        let mut named = layout.layer(&tree, Packing::Gzip).image(architecture);
        named["platform"] = json!({ "os": "linux", "architecture": architecture });
        named
    };
    let (named, other) = (of(here()), of("s390x"));
    let index = |manifests: &[&Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        layout.blob(INDEX, index.to_string().as_bytes())
    };
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    layout.name(index(&[&other, &named]));
    registry.push(layout.dir(), "app:all").unwrap();
    layout.name(index(&[&other]));
    registry.push(layout.dir(), "app:theirs").unwrap();
    layout.name(named.clone());
    registry.push(layout.dir(), "app:alone").unwrap();

    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    for agent in [Agent::solo(&place, "solo"), Agent::of(&cluster, &place, "node")] {
        let mount = |number: &str| place.path(&format!("{}-{number}", agent.node.name()));
        let all = registry.url("app:all");
        let dir = agent.mount(&all, mount("own"));
        let own = format!("of {}", here());
        assert_eq!(fs::read(dir.join("hello")).unwrap(), own.as_bytes());
        let refused = |words: &[&str], there: &str| {
            let said = agent.dfctl(words);
            assert_ne!(said.code, 0, "{words:?}");
            assert!(said.stderr.contains("there is no image for linux/"), "{}", said.stderr);
            assert!(said.stderr.contains(there), "{}", said.stderr);
        };
        let dir = mount("refused");
        fs::create_dir(&dir).unwrap();
        let into = dir.to_str().unwrap();
        agent.guard(&dir);
        refused(&["mount", &registry.url("app:theirs"), into], "linux/s390x");
        let both = format!("there is linux/s390x, linux/{}", here());
        refused(&["mount", &all, into, "--platform", "linux/riscv64"], &both);
        let alone = registry.url("app:alone");
        let only = format!("there is linux/{}", here());
        refused(&["mount", &alone, into, "--platform", "linux/s390x"], &only);
        assert_eq!(agent.shown(&dir), None);

        // The choice is part of the name: of a mount, and of what is read.
        let z = ["--platform", "linux/s390x"];
        agent.dfctl(&["mount", &all, into, z[0], z[1], "--follow=1h"]).done();
        assert_eq!(fs::read(dir.join("hello")).unwrap(), b"of s390x");
        let shown = agent.shown(&dir).unwrap();
        assert_eq!(shown["url"], format!("{all}?platform=linux/s390x"), "{shown}");
        agent.dfctl(&["mounts", "--refresh", into]).done();
        assert_eq!(fs::read(dir.join("hello")).unwrap(), b"of s390x");
        let hello = format!("{all}!hello");
        let said = agent.dfctl(&["cat", &hello, z[0], z[1]]).done();
        assert_eq!(said.stdout, b"of s390x");
        let out = mount("out");
        agent.dfctl(&["get", &hello, "-o", out.to_str().unwrap(), z[0], z[1]]).done();
        assert_eq!(fs::read(&out).unwrap(), b"of s390x");
        agent.dfctl(&["stat", &hello, z[0], z[1]]).done();
        let inside = agent.dfctl(&["ls", &format!("{all}!"), z[0], z[1]]).done();
        assert!(inside.text().contains("hello"), "{}", inside.text());
        let copy = mount("copy");
        agent.dfctl(&["sync", &all, copy.to_str().unwrap(), z[0], z[1]]).done();
        assert_eq!(fs::read(copy.join("hello")).unwrap(), b"of s390x");
    }
}

#[test]
fn what_has_a_manifest_and_is_no_image_is_its_files() {
    let place = Place::new();
    let layout = Layout::new(place.path("layout"));
    let weights = noise(3, 1_500_000);
    let files =
        [("weights/part-1.bin", weights.clone()), ("config.json", b"{\"layers\":2}".to_vec())];
    layout.name(layout.artifact("application/vnd.test.model", &files));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "models/small:1").unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&registry.url("models/small:1"), place.path("mount"));
    assert!(fs::read(dir.join("weights/part-1.bin")).unwrap() == weights);
    assert_eq!(fs::read(dir.join("config.json")).unwrap(), b"{\"layers\":2}");
    let said = agent.dfctl(&["cat", &registry.url("models/small:1")]).done();
    let manifest: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.test.model", "the manifest itself");
    let blob = registry.url(&format!("models/small?blob={}", sha256(&weights)));
    assert!(agent.dfctl(&["cat", &blob]).done().stdout == weights);
}

#[test]
fn an_image_as_docker_pushes_it_shows_what_the_same_one_of_the_specification_shows() {
    let place = Place::new();
    let layout = Layout::new(place.path("layout"));
    let mut image = layout.clone();
    for layer in three_layers(&place) {
        image.layer(&layer, Packing::Gzip);
    }
    let of = |image: &Layout, architecture: &str| {
        let mut named = image.image(architecture);
        named["platform"] = json!({ "os": "linux", "architecture": architecture });
        named
    };
    let mut other = layout.clone();
    let tree = place.dir("tree");
    put(&tree.join("hello"), b"of s390x");
    other.layer(&tree, Packing::Gzip);
    let manifests = [of(&other, "s390x"), of(&image, here())];
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    layout.name(layout.blob(INDEX, index.to_string().as_bytes()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:oci").unwrap();
    registry.push_as_docker(layout.dir(), "app:list", true).unwrap();
    registry.push_as_docker(layout.dir(), "app:one", false).unwrap();
    for (tag, kind) in [("list", "manifest.list.v2"), ("one", "manifest.v2")] {
        let document = registry.inspect(&format!("app:{tag}")).unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let kind = format!("application/vnd.docker.distribution.{kind}+json");
        assert_eq!(document["mediaType"], kind, "{document}");
    }
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    for agent in [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "member")] {
        let mount = |tag: &str| {
            let dir = place.path(&format!("{}-{tag}", agent.node.name()));
            agent.mount(&registry.url(&format!("app:{tag}")), dir)
        };
        let source = entries::walk(&mount("oci"));
        assert!(source.len() > 20, "{}", source.len());
        for tag in ["list", "one"] {
            entries::assert_same(&entries::walk(&mount(tag)), &source, Holes::Unsaid);
        }
        let hello = format!("{}!hello", registry.url("app:list"));
        let said = agent.dfctl(&["cat", &hello, "--platform", "linux/s390x"]).done();
        assert_eq!(said.stdout, b"of s390x");
    }
}

#[test]
fn charts_and_modules_are_their_files_also_those_without_a_name() {
    let place = Place::new();
    let layout = Layout::new(place.path("layout"));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    // As `helm push` has it: a tar that is no layer of an image.
    let chart = Packing::Gzip.of(&raw_tar(&[("app/Chart.yaml", b'0', "", b"name: app\n")]));
    let signed = b"-----BEGIN PGP SIGNED MESSAGE-----\n".to_vec();
    let config =
        layout.blob("application/vnd.cncf.helm.config.v1+json", br#"{"name":"app","version":"1"}"#);
    let layers = [
        layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart),
        layout.blob("application/vnd.cncf.helm.chart.provenance.v1.prov", &signed),
    ];
    layout.name(layout.manifest(None, &config, &layers));
    registry.push(layout.dir(), "charts/app:1").unwrap();
    let module = [&b"\0asm\x01\0\0\0"[..], &noise(4, 100_000)].concat();
    let config = layout.blob("application/vnd.wasm.config.v1+json", b"{}");
    let layer = layout.blob("application/vnd.wasm.content.layer.v1+wasm", &module);
    layout.name(layout.manifest(None, &config, &[layer]));
    registry.push(layout.dir(), "modules/older:1").unwrap();
    let config = layout.blob("application/vnd.wasm.config.v0+json", b"{}");
    let mut layer = layout.blob("application/wasm", &module);
    layer["annotations"] = json!({ "org.opencontainers.image.title": "app.wasm" });
    layout.name(layout.manifest(Some("application/vnd.wasm.module.v1"), &config, &[layer]));
    registry.push(layout.dir(), "modules/app:1").unwrap();

    let agent = Agent::solo(&place, "agent");
    let unnamed = |bytes: &[u8]| sha256(bytes).replace(':', "-");
    for (reference, files) in [
        ("charts/app:1", vec![(unnamed(&chart), &chart), (unnamed(&signed), &signed)]),
        ("modules/older:1", vec![(unnamed(&module), &module)]),
        ("modules/app:1", vec![("app.wasm".to_owned(), &module)]),
    ] {
        let dir = agent.mount(&registry.url(reference), place.path(&reference.replace('/', "-")));
        let shown = entries::walk(&dir).into_keys().filter(|path| path != Path::new(""));
        let mut names: Vec<_> = files.iter().map(|(name, _)| PathBuf::from(name)).collect();
        names.sort();
        assert_eq!(shown.collect::<Vec<_>>(), names, "{reference}");
        for (name, bytes) in files {
            assert!(fs::read(dir.join(&name)).unwrap() == *bytes, "{reference} {name}");
        }
    }
}

#[test]
fn an_image_that_is_named_by_its_digest_is_that_one_wherever_its_tag_has_moved() {
    let place = Place::new();
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let pushed = |name: &str| {
        let mut layout = Layout::new(place.path(&format!("layout-{name}")));
        let tree = place.dir(name);
        put(&tree.join("version"), name.as_bytes());
        let image = layout.layer(&tree, Packing::Gzip).image(here());
        let digest = image["digest"].as_str().unwrap().to_owned();
        layout.name(image);
        registry.push(layout.dir(), "team/app:v1").unwrap();
        digest
    };
    let (first, second) = (pushed("first"), pushed("second"));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    for agent in [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "member")] {
        let version = |number: usize, reference: &str| {
            let dir = place.path(&format!("{}-{number}", agent.node.name()));
            let dir = agent.mount(&registry.url(&format!("team/app{reference}")), dir);
            fs::read_to_string(dir.join("version")).unwrap()
        };
        assert_eq!(version(1, &format!("@{first}")), "first");
        assert_eq!(version(2, &format!(":v1@{first}")), "first");
        assert_eq!(version(3, &format!(":gone@{second}")), "second");
        assert_eq!(registry.requests_by("dfs", "", "/manifests/v1"), 0, "no tag is asked for");
        assert_eq!(registry.requests_by("dfs", "", "/manifests/gone"), 0);
        let dir = place.dir("refused");
        let nobodys = registry.url(&format!("team/app:v1@{}", sha256(b"nobody has it")));
        let said = agent.dfctl(&["mount", &nobodys, dir.to_str().unwrap()]);
        assert_ne!(said.code, 0);
        assert_eq!(agent.shown(&dir), None);
    }
}

/// Gives each asker a token, and wants one of what it has given; what was asked for as a token, and by whom.
fn wants_tokens(gate: &Gatekeeper) -> Arc<Mutex<Vec<(String, String)>>> {
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let (given, host) = (Arc::clone(&asked_for), gate.address());
    gate.judge(move |asked| {
        if asked.path.starts_with("/token") {
            let who = asked.header("user-agent").unwrap_or_default().to_owned();
            let mut given = given.lock().unwrap();
            given.push((asked.path.clone(), who));
            let body = format!(r#"{{"token":"t{}","expires_in":300}}"#, given.len());
            let kind = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            return Verdict::Answer("200 OK", kind, body.into_bytes());
        }
        let shown = asked.header("authorization").and_then(|shown| shown.strip_prefix("Bearer t"));
        if shown.and_then(|number| number.parse::<usize>().ok()).is_some() {
            return Verdict::Pass;
        }
        let wants = format!(
            r#"Bearer realm="http://{host}/token",service="test",scope="repository:team/app:pull""#
        );
        let wants = vec![("WWW-Authenticate".to_owned(), wants)];
        Verdict::Answer("401 Unauthorized", wants, Vec::new())
    });
    asked_for
}

/// An image of two layers, each of a file of so many bytes that bears its name.
fn low_and_high(place: &Place, seed: u64, bytes: usize) -> Layout {
    let mut layout = Layout::new(place.path("layout"));
    for (seed, name) in (seed..).zip(["low", "high"]) {
        let tree = place.dir(name);
        put(&tree.join(name), &noise(seed, bytes));
        layout.layer(&tree, Packing::Gzip);
    }
    layout.name(layout.image(here()));
    layout
}

#[test]
fn one_token_is_asked_for_by_a_whole_cluster() {
    let place = Place::new();
    let layout = low_and_high(&place, 51, 3_000_000);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "team/app:v1").unwrap();
    let gate = Gatekeeper::before(registry.address().parse().unwrap());
    let tokens = wants_tokens(&gate);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b", "c"].map(|name| Agent::of(&cluster, &place, name));
    std::thread::scope(|scope| {
        for agent in &agents {
            let (place, url) = (&place, gate.url("team/app:v1"));
            scope.spawn(move || {
                let dir = place.path(&format!("mount-{}", agent.node.name()));
                let dir = agent.mount(&url, dir);
                assert!(fs::read(dir.join("low")).unwrap() == noise(51, 3_000_000));
                assert!(fs::read(dir.join("high")).unwrap() == noise(52, 3_000_000));
            });
        }
    });
    let asked = || tokens.lock().unwrap().clone();
    assert_eq!(asked().len(), 1, "the seed asks for all of them: {:?}", asked());
    let alone = Agent::solo(&place, "alone");
    alone.mount(&gate.url("team/app:v1"), place.path("mount-alone"));
    assert_eq!(asked().len(), 2, "who is alone asks for one of its own: {:?}", asked());
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_one_error_and_nothing_is_mounted() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("hello"), b"hello");
    layout.layer(&tree, Packing::Gzip).lie();
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:lies").unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let told = format!("layer 1 unpacks to {}", sha256(&fs::read(place.path("tree.tar")).unwrap()));
    for agent in [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "member")] {
        let dir = place.dir(&format!("mount-{}", agent.node.name()));
        for _ in 0..2 {
            let said = agent.dfctl(&["mount", &registry.url("app:lies"), dir.to_str().unwrap()]);
            assert_ne!(said.code, 0);
            assert!(said.stderr.contains(&told), "{}", said.stderr);
            assert!(said.stderr.contains("skopeo inspect docker://"), "{}", said.stderr);
            assert_eq!(agent.shown(&dir), None);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
            let kept = agent.dfctl(&["cache", "ls", "--format", "json"]).done().json().unwrap();
            let kept = kept["items"].as_array().unwrap();
            // No index, nothing that it unpacked to, and no byte of the layer itself.
            let is_nothing =
                |kept: &Value| kept["task"]["kind"] == "blob" && kept["cached_bytes"] == 0;
            assert!(kept.len() <= 1 && kept.iter().all(is_nothing), "{kept:?}");
        }
    }
}

#[test]
fn a_private_image_is_for_who_has_a_login() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("secret"), b"for ada");
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Password).unwrap();
    registry.push(layout.dir(), "private/app:v1").unwrap();
    let docker = place.dir("docker");
    let login = json!({ "username": LOGIN.0, "password": LOGIN.1 });
    let logins = json!({ "auths": { registry.address(): login } });
    put(&docker.join("config.json"), logins.to_string().as_bytes());

    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let url = registry.url("private/app:v1");
    let dfctl = |words: &[&str], docker: &Path| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.args(words).env("DOCKER_CONFIG", docker);
        dfs_tests::process::Said::by(&mut command).unwrap()
    };
    let nowhere = place.dir("nowhere");
    let said = dfctl(&["cat", &format!("{url}!secret")], &nowhere);
    assert_ne!(said.code, 0);
    let told = format!("docker login {}", registry.address());
    assert!(said.stderr.contains(&told), "{}", said.stderr);
    let said = dfctl(&["cat", &format!("{url}!secret")], &docker).done();
    assert_eq!(said.stdout, b"for ada");
    // What is here for one is for nobody else.
    let said = dfctl(&["cat", &format!("{url}!secret")], &nowhere);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!agent.log().contains(LOGIN.1));
}

/// A directory of docker's with a login of `user` for a repository.
fn logged_in(place: &Place, user: &str, password: &str, repository: &str) -> PathBuf {
    let docker = place.dir(&format!("docker-{user}"));
    let login = json!({ "username": user, "password": password });
    let logins = json!({ "auths": { repository: login } });
    put(&docker.join("config.json"), logins.to_string().as_bytes());
    docker
}

/// Ada and Bob may read a repository each, by a password. These layers Bob's has only where it `gives` them.
fn each_their_own(layers: &[String], gives: bool) -> impl Fn(&Asked) -> Verdict + use<> {
    let layers = layers.to_vec();
    move |asked| {
        let is_bobs = asked.path.starts_with("/v2/bobs/");
        // "bob:bob-pw", "ada:ada-pw"
        let wanted = if is_bobs { "Basic Ym9iOmJvYi1wdw==" } else { "Basic YWRhOmFkYS1wdw==" };
        if asked.header("authorization") != Some(wanted) {
            let wants = vec![("WWW-Authenticate".to_owned(), "Basic realm=x".to_owned())];
            return Verdict::Answer("401 Unauthorized", wants, Vec::new());
        }
        let is_layer = layers.iter().any(|layer| asked.path.ends_with(layer));
        match is_bobs && is_layer && !gives {
            true => Verdict::Answer("404 Not Found", Vec::new(), Vec::new()),
            false => Verdict::Pass,
        }
    }
}

#[test]
fn layers_that_are_here_are_for_who_may_read_them_in_the_repository_that_is_named() {
    let place = Place::new();
    let layout = low_and_high(&place, 31, 300_000);
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    for repository in ["adas/app:v1", "bobs/app:v1"] {
        registry.push(layout.dir(), repository).unwrap();
    }
    let layers: Vec<String> = (0..2).map(|number| layout.layer_digest(number)).collect();
    // Each of them may read a repository of their own; in Bob's there is no such layer, whatever his manifest says.
    let gate = Gatekeeper::before(registry.address().parse().unwrap());
    gate.judge(each_their_own(&layers, false));
    let address = gate.address();
    let ada = logged_in(&place, "ada", "ada-pw", &format!("{address}/adas"));
    let bob = logged_in(&place, "bob", "bob-pw", &format!("{address}/bobs"));
    let eve = logged_in(&place, "eve", "guessed", &format!("{address}/adas"));
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    for agent in [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "member")] {
        gate.judge(each_their_own(&layers, false));
        let dfctl = |words: &[&str], docker: &Path| {
            let mut command = agent.node.dfctl_command().unwrap();
            command.args(words).env("DOCKER_CONFIG", docker);
            dfs_tests::process::Said::by(&mut command).unwrap()
        };
        let read = |repository: &str, file: &str, docker: &Path| {
            dfctl(&["cat", &format!("{}!{file}", gate.url(repository))], docker)
        };
        assert!(read("adas/app:v1", "low", &ada).done().stdout == noise(31, 300_000));
        assert!(read("adas/app:v1", "high", &ada).done().stdout == noise(32, 300_000));
        let asked = |layer| registry.requests_by("dfs", "GET", layer);
        let fetched = || layers.iter().map(|layer| asked(layer)).sum::<usize>();
        let before = fetched();
        for (repository, docker) in
            [("bobs/app:v1", &bob), ("adas/app:v1", &bob), ("adas/app:v1", &eve)]
        {
            for file in ["low", "high"] {
                let said = read(repository, file, docker);
                assert_ne!(said.code, 0, "{repository} {docker:?}");
                assert_eq!(said.stdout, b"", "{repository} {docker:?}");
            }
            let dir = place.dir("refused");
            let said = dfctl(&["mount", &gate.url(repository), dir.to_str().unwrap()], docker);
            assert_ne!(said.code, 0, "{repository} {docker:?}");
            assert_eq!(agent.shown(&dir), None);
        }
        // What his registry gives him he has of what is here.
        gate.judge(each_their_own(&layers, true));
        let has = || read("bobs/app:v1", "low", &bob);
        until("what was refused may be asked for again", || has().code == 0);
        assert!(has().stdout == noise(31, 300_000));
        assert!(read("adas/app:v1", "high", &ada).done().stdout == noise(32, 300_000));
        assert_eq!(fetched(), before);
    }
}

#[test]
fn an_agent_asks_a_kubelets_credential_providers_for_its_own_logins() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("secret"), b"for ada");
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Password).unwrap();
    registry.push(layout.dir(), "private/app:v1").unwrap();
    let answer = json!({
        "kind": "CredentialProviderResponse",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry",
        "auth": { registry.address(): { "username": LOGIN.0, "password": LOGIN.1 } },
    });
    put(&place.path("answer"), answer.to_string().as_bytes());
    let (asked, program) = (place.path("asked"), place.path("bin/cloud"));
    let line = format!("cat >> {}; cat {}", asked.display(), place.path("answer").display());
    put(&program, format!("#!/bin/sh\n{line}\n").as_bytes());
    mode(&program, 0o755);
    let told = place.path("providers.yaml");
    let yaml = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
         - name: cloud\n  matchImages: [\"{}\"]\n  defaultCacheDuration: 1h\n  \
         apiVersion: credentialprovider.kubelet.k8s.io/v1\n",
        registry.address()
    );
    put(&told, yaml.as_bytes());
    let flags = [
        "--image-credential-provider-config",
        told.to_str().unwrap(),
        "--image-credential-provider-bin-dir",
        program.parent().unwrap().to_str().unwrap(),
    ];
    let agent = Agent::solo_with(&place, "agent", &flags);
    let dir = agent.mount(&registry.url("private/app:v1"), place.path("mount"));
    assert_eq!(fs::read(dir.join("secret")).unwrap(), b"for ada");
    let times = || fs::read_to_string(&asked).unwrap().matches("\"image\"").count();
    assert_eq!(times(), 1);
    agent.dfctl(&["cat", &format!("{}!secret", registry.url("private/app:v1"))]).done();
    assert_eq!(times(), 1, "what it printed is kept");
    assert!(!agent.log().contains(LOGIN.1));
    put(&program, b"#!/bin/sh\necho no role >&2\nexit 3\n");
    let broken = Agent::solo_with(&place, "broken", &flags);
    let said = broken.dfctl(&["cat", &registry.url("private/app:v1")]);
    assert_ne!(said.code, 0);
    let line = "the credential provider cloud ended with exit status: 3: no role";
    assert!(said.stderr.contains(line), "{}", said.stderr);
}

#[test]
fn bytes_come_from_a_mirror_that_has_them_and_are_the_registrys_where_it_has_not_or_lies() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("large"), &noise(21, 6_000_000));
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    let layer = layout.layer_digest(0);
    let registry = Registry::start(&place.dir("named"), Guard::Nobody).unwrap();
    let mirror = Registry::start(&place.dir("beside"), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "team/app:v1").unwrap();
    let gate = Gatekeeper::before(mirror.address().parse().unwrap());
    let conf = place.path("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/copies\"\n",
        registry.address(),
        gate.address()
    );
    put(&conf, text.as_bytes());
    let of_seed = place.path("cluster.toml");
    put(&of_seed, format!("[seed]\nregistries-conf = {conf:?}\n").as_bytes());
    let flags = ["--registries-conf", conf.to_str().unwrap()];
    let is_right = |agent: &Agent, name: &str| {
        let dir = place.path(&format!("mount-{name}"));
        let dir = agent.mount(&registry.url("team/app:v1"), dir);
        assert!(fs::read(dir.join("large")).unwrap() == noise(21, 6_000_000), "{name}");
        agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    };
    let read = |registry: &Registry| registry.requests_by("dfs", "GET", &layer);

    // It has nothing yet.
    is_right(&Agent::solo_with(&place, "lacks", &flags), "lacks");
    assert_eq!((read(&registry), read(&mirror)), (1, 1));
    mirror.push(layout.dir(), "copies/team/app:v1").unwrap();
    is_right(&Agent::solo_with(&place, "has", &flags), "has");
    assert_eq!((read(&registry), read(&mirror)), (1, 2));
    let of_the_registry = registry.requests_by("dfs", "", "/v2/");
    let cluster =
        Cluster::start_with(&binaries(), place.root(), &["--config", of_seed.to_str().unwrap()]);
    let cluster = cluster.unwrap();
    is_right(&Agent::of(&cluster, &place, "member"), "member");
    assert_eq!((read(&registry), read(&mirror)), (1, 3), "the seed asks it");
    assert_eq!(registry.requests_by("dfs", "", "/v2/"), of_the_registry);
    // Another byte of the layer each time.
    for at in [1_000, 3_000_000, 5_900_000] {
        let wrong = layer.clone();
        gate.judge(move |asked| match asked.method == "GET" && asked.path.ends_with(&wrong) {
            true => Verdict::Flip(at),
            false => Verdict::Pass,
        });
        let (before, spoiled) = (read(&registry), gate.spoiled());
        is_right(&Agent::solo_with(&place, &format!("lies-{at}"), &flags), &format!("lies-{at}"));
        assert_eq!((read(&registry) - before, gate.spoiled() - spoiled), (1, 1), "{at}");
    }
}

/// How often a layer was asked for by whoever does not push.
fn looked_at(registry: &Registry, layout: &Layout, layer: usize) -> usize {
    let blob = layout.layer_digest(layer);
    registry.requests("HEAD", &blob) - registry.requests_by("skopeo", "HEAD", &blob)
        + registry.requests("GET", &blob)
}

#[test]
fn a_mount_follows_a_tag_that_moves_and_fetches_the_new_layer_alone() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let (base, over) = (place.dir("base"), place.dir("over"));
    put(&base.join("large"), &noise(1, 4_000_000));
    put(&base.join("version"), b"1");
    layout.layer(&base, Packing::Gzip);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:stable").unwrap();
    let agent = Agent::solo(&place, "agent");
    let (dir, url) = (place.dir("mount"), registry.url("app:stable"));
    agent.guard(&dir);
    agent.dfctl(&["mount", "--follow=1h", &url, dir.to_str().unwrap()]).done();
    let large = fs::read(dir.join("large")).unwrap();
    assert_eq!(fs::read(dir.join("version")).unwrap(), b"1");
    let before = registry.requests("GET", "/blobs/");
    let asked = looked_at(&registry, &layout, 0);

    put(&over.join("version"), b"2");
    layout.layer(&over, Packing::Gzip);
    layout.name(layout.image(here()));
    registry.push(layout.dir(), "app:stable").unwrap();
    let pushed = registry.requests("GET", "/blobs/") - before;
    agent.dfctl(&["mounts", "--refresh", dir.to_str().unwrap()]).done();
    assert_eq!(fs::read(dir.join("version")).unwrap(), b"2");
    assert!(fs::read(dir.join("large")).unwrap() == large);
    let blobs = registry.requests("GET", "/blobs/") - before - pushed;
    assert_eq!(blobs, 2, "a config and a layer");
    assert_eq!(
        looked_at(&registry, &layout, 0),
        asked,
        "of the layer below nothing is asked again"
    );
}

#[test]
fn a_hostile_layer_shows_nothing_that_is_not_its_own_and_a_bomb_is_refused() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let outside = place.path("outside");
    put(&outside, b"not in the image");
    let outside = outside.to_str().unwrap();
    layout.tar(
        &raw_tar(&[
            ("../../escape", b'0', "", b"above"),
            ("/absolute", b'0', "", b"from the root"),
            ("a/../../b", b'0', "", b"through the top"),
            ("leads-out", b'2', "/", b""),
            ("leads-out/through", b'0', "", b"through a link"),
            ("linked", b'1', outside, b""),
            ("device", b'3', "", b""),
            ("fine", b'0', "", b"fine"),
        ]),
        Packing::Gzip,
    );
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:hostile").unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&registry.url("app:hostile"), place.path("mount"));
    assert_eq!(fs::read(dir.join("fine")).unwrap(), b"fine");
    assert!(fs::read(dir.join("linked")).is_err(), "there is no such file in the image");
    let device = fs::symlink_metadata(dir.join("device")).unwrap();
    assert!(device.file_type().is_char_device());
    for path in entries::walk(&dir).keys() {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
    }
    assert!(!place.path("escape").exists() && !place.path("b").exists());
    assert_eq!(fs::read(outside).unwrap(), b"not in the image");

    let mut bomb = Layout::new(place.path("bomb"));
    // Far more than its ratio allows, of a tar that ends at once.
    bomb.tar(&vec![0; 1_200 << 20], Packing::Gzip);
    bomb.name(bomb.image(here()));
    registry.push(bomb.dir(), "app:bomb").unwrap();
    let dir = place.dir("refused");
    let said = agent.dfctl(&["mount", &registry.url("app:bomb"), dir.to_str().unwrap()]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("taken for a bomb"), "{}", said.stderr);
    assert_eq!(agent.shown(&dir), None);
}

#[test]
fn two_tags_of_one_image_are_mounted_and_taken_away_in_any_order() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let (base, over) = (place.dir("base"), place.dir("over"));
    put(&base.join("shared"), &noise(1, 500_000));
    put(&over.join("own"), b"of the second");
    layout.layer(&base, Packing::Gzip);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    registry.push(layout.dir(), "app:1").unwrap();
    layout.layer(&over, Packing::Zstd);
    layout.name(layout.image(here()));
    registry.push(layout.dir(), "app:2").unwrap();
    let shared = noise(1, 500_000);
    let agent = Agent::solo(&place, "agent");
    for order in [[0, 1], [1, 0]] {
        let dirs = ["app:1", "app:2"].map(|tag| {
            let dir = place.path(&format!("mount-{}-{}", tag.replace(':', "-"), order[0]));
            agent.mount(&registry.url(tag), dir)
        });
        for (at, &gone) in order.iter().enumerate() {
            for &there in &order[at..] {
                assert!(fs::read(dirs[there].join("shared")).unwrap() == shared);
            }
            agent.dfctl(&["umount", dirs[gone].to_str().unwrap()]).done();
        }
        agent.dfctl(&["cache", "gc"]);
    }
}
