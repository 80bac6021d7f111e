//! Credential providers of a kubelet: real programs, which write down how they are asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use dfs_source::oci::CredentialProviders;
use dfs_source::{Asking, Credentials, Environment, OciOptions, SourceError, Sources};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scripted::{Server, head};
use crate::{Client, failure, options, target};

const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";

/// Providers in a directory, and docker's logins beside them.
struct Machine {
    dir: TempDir,
    providers: Vec<Value>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap(), providers: Vec::new() };
        fs::create_dir(machine.path("bin")).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One more, for these images; it does `line`.
    fn add(&mut self, name: &str, images: &[&str], line: &str) {
        let asked = self.path(name).display().to_string();
        let script = format!(
            "#!/bin/sh\ncat >> {asked}.asked\necho \" $* $MARK\" >> {asked}.asked\n{line}\n"
        );
        let program = self.path("bin").join(name);
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        self.providers.push(json!({
            "name": name,
            "matchImages": images,
            "defaultCacheDuration": "12h",
            "apiVersion": PROTOCOL,
            "args": ["get-credentials"],
            "env": [{ "name": "MARK", "value": "of-the-config" }],
        }));
    }

    /// One that prints what stands in the file of its name.
    fn printing(&mut self, name: &str, images: &[&str], answer: &Value) {
        self.add(name, images, &format!("cat {}", self.path(&format!("{name}.answer")).display()));
        self.print(name, answer);
    }

    fn print(&self, name: &str, answer: &Value) {
        // Never half of it.
        let (new, file) = (self.path("new"), self.path(&format!("{name}.answer")));
        fs::write(&new, answer.to_string()).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn asked(&self, name: &str) -> Vec<String> {
        let asked = fs::read_to_string(self.path(&format!("{name}.asked"))).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    fn docker(&self, auths: &Value) {
        fs::write(self.path("config.json"), json!({ "auths": auths }).to_string()).unwrap();
    }

    fn sources(&self) -> Result<Sources, SourceError> {
        let config = self.path("providers.yaml");
        // JSON is YAML too, where it begins as such.
        let document = json!({
            "apiVersion": "kubelet.config.k8s.io/v1",
            "kind": "CredentialProviderConfig",
            "providers": self.providers,
        });
        fs::write(&config, format!("---\n{document}\n")).unwrap();
        let docker = self.dir.path().to_str().unwrap();
        let oci = OciOptions {
            environment: Some(Environment::default().with("DOCKER_CONFIG", docker)),
            providers: Some(CredentialProviders { config, programs: self.path("bin") }),
            ..OciOptions::default()
        };
        Sources::builder().http(options()).oci(oci).build()
    }

    fn client(&self) -> Client {
        Client::over(self.sources().unwrap())
    }
}

fn answer(scope: &str, lasting: Option<&str>, auth: &Value) -> Value {
    let mut answer = json!({
        "kind": "CredentialProviderResponse",
        "apiVersion": PROTOCOL,
        "cacheKeyType": scope,
        "auth": auth,
    });
    if let Some(lasting) = lasting {
        answer["cacheDuration"] = lasting.into();
    }
    answer
}

fn login(user: &str, password: &str) -> Value {
    json!({ "username": user, "password": password })
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.into(), password: password.into() }
}

async fn own(client: &Client, url: &str) -> Credentials {
    let target = target(url);
    client.source(&target).complete(&target, Asking::Own).await.unwrap().credentials
}

#[tokio::test]
async fn a_provider_is_asked_as_a_kubelet_asks_it_and_for_its_own_images_alone() {
    let mut machine = Machine::new();
    let auth = json!({ "*.test": login("wide", "w"), "one.test/team": login("close", "c") });
    machine.printing("maker", &["*.test", "two.example:5000"], &answer("Image", None, &auth));
    let client = machine.client();
    assert_eq!(own(&client, "oci://one.test/team/app:v1").await, basic("close", "c"));
    let asked = machine.asked("maker");
    let [line] = &asked[..] else { panic!("{asked:?}") };
    let (request, rest) = line.rsplit_once("} ").unwrap();
    let request: Value = serde_json::from_str(&format!("{request}}}")).unwrap();
    let expected = json!({
        "kind": "CredentialProviderRequest", "apiVersion": PROTOCOL, "image": "one.test/team/app",
    });
    assert_eq!(request, expected);
    assert_eq!(rest, "get-credentials of-the-config");
    assert_eq!(own(&client, "oci://one.test/other:v1").await, basic("wide", "w"));
    // It has nothing for these, and is asked all the same.
    assert_eq!(own(&client, "oci://two.example:5000/a").await, Credentials::None);
    assert_eq!(machine.asked("maker").len(), 3);
    for elsewhere in ["oci://a.b.test/x", "oci://two.example/x", "oci://test/x"] {
        assert_eq!(own(&client, elsewhere).await, Credentials::None);
    }
    let others = target("oci://three.test/team/app");
    let completed = client.source(&others).complete(&others, Asking::Other).await.unwrap();
    assert_eq!(completed.credentials, Credentials::None);
    let theirs = others.with_credentials(basic("eve", "e"));
    let completed = client.source(&theirs).complete(&theirs, Asking::Own).await.unwrap();
    assert_eq!(completed.credentials, basic("eve", "e"), "what is said goes first");
    assert_eq!(machine.asked("maker").len(), 3);
}

#[tokio::test]
async fn what_it_prints_is_kept_for_what_it_says_and_as_long_as_it_says() {
    for (scope, lasting, runs) in [
        // Two images of one registry and one of another, each twice.
        ("Image", Some("1h"), 3),
        ("Registry", None, 2),
        ("Global", Some("30m"), 1),
        ("Global", Some("0s"), 6),
        ("Image", Some("1ns"), 6),
    ] {
        let mut machine = Machine::new();
        let auth = json!({ "*.test": login("a", "b") });
        machine.printing("maker", &["*.test"], &answer(scope, lasting, &auth));
        let client = machine.client();
        for _ in 0..2 {
            for url in ["oci://one.test/app:1", "oci://one.test/other", "oci://two.test/app"] {
                assert_eq!(own(&client, url).await, basic("a", "b"));
            }
        }
        assert_eq!(machine.asked("maker").len(), runs, "{scope} {lasting:?}");
    }
}

#[tokio::test]
async fn many_that_ask_at_once_are_answered_by_one_run() {
    let mut machine = Machine::new();
    let auth = json!({ "one.test": login("a", "b") });
    machine.printing("maker", &["one.test"], &answer("Registry", None, &auth));
    let client = machine.client();
    let urls: Vec<String> = (0..16).map(|number| format!("oci://one.test/app-{number}")).collect();
    let asking = urls.iter().map(|url| own(&client, url));
    for found in futures::future::join_all(asking).await {
        assert_eq!(found, basic("a", "b"));
    }
    assert_eq!(machine.asked("maker").len(), 1);
}

#[tokio::test]
async fn a_login_that_a_registry_refuses_is_made_anew() {
    let server = Server::start(|_, request| match request.header("authorization") {
        Some("Basic QVdTOm5ldw==") => {
            let digest = dfs_source::oci::ContentDigest::sha256(b"{}").to_string();
            let headers = [("Content-Length", "2"), ("Docker-Content-Digest", &digest)];
            vec![head(200, &headers)]
        }
        _ => vec![head(401, &[("WWW-Authenticate", "Basic realm=x"), ("Content-Length", "0")])],
    });
    let address = server.address.to_string();
    let mut machine = Machine::new();
    let printed = |password: &str| {
        answer("Registry", Some("12h"), &json!({ &address: login("AWS", password) }))
    };
    machine.printing("ecr", &[&address], &printed("old"));
    let client = machine.client();
    let url = format!("oci://{address}/app:1");
    let named = target(&url);
    let source = client.source(&named);
    let meant = source.complete(&named, Asking::Own).await.unwrap();
    assert_eq!(meant.credentials, basic("AWS", "old"));
    machine.print("ecr", &printed("new"));
    source.stat(&meant).await.unwrap();
    assert_eq!(own(&client, &url).await, basic("AWS", "new"));
    assert_eq!(machine.asked("ecr").len(), 2);
    // One that has nothing newer is not asked for ever.
    let wrong = Server::start(|_, _| {
        vec![head(401, &[("WWW-Authenticate", "Basic realm=x"), ("Content-Length", "0")])]
    });
    let mut machine = Machine::new();
    let address = wrong.address.to_string();
    let auth = json!({ &address: login("AWS", "wrong") });
    machine.printing("ecr", &[&address], &answer("Registry", Some("12h"), &auth));
    let client = machine.client();
    let named = target(&format!("oci://{address}/app:1"));
    let source = client.source(&named);
    let meant = source.complete(&named, Asking::Own).await.unwrap();
    let error = failure(source.stat(&meant).await);
    assert!(matches!(error, SourceError::NotPermitted { .. }), "{error}");
    assert_eq!(machine.asked("ecr").len(), 2);
}

#[tokio::test]
async fn providers_go_before_what_docker_has_and_one_that_has_nothing_leaves_it_to_the_next() {
    let mut machine = Machine::new();
    let nothing = answer("Image", None, &json!({}));
    let auth = json!({ "one.test": login("provider", "p") });
    machine.printing("empty", &["*.test"], &nothing);
    machine.printing("second", &["one.test"], &answer("Image", None, &auth));
    machine.docker(&json!({ "one.test": login("docker", "d"), "two.test": login("docker", "d") }));
    let client = machine.client();
    assert_eq!(own(&client, "oci://one.test/app").await, basic("provider", "p"));
    assert_eq!(own(&client, "oci://two.test/app").await, basic("docker", "d"));
    assert_eq!(own(&client, "oci://two.test/app").await, basic("docker", "d"));
    assert_eq!(machine.asked("empty").len(), 2, "that there is nothing is kept too");
    // What it says for docker's own registry is found by any of its names.
    let auth = json!({ "https://index.docker.io/v1/": login("hub", "h") });
    machine.printing("hub", &["docker.io"], &answer("Registry", None, &auth));
    let client = machine.client();
    assert_eq!(own(&client, "oci://docker.io/debian").await, basic("hub", "h"));
}

#[tokio::test]
async fn what_fails_is_one_line_that_names_the_program() {
    let flood = "head -c 200000 /dev/zero | tr '\\0' x";
    for (line, said) in [
        ("echo 'no role' >&2; echo secret; exit 3", "ended with exit status: 3: no role"),
        ("yes loud | head -c 100000 >&2; exit 1", "ended with exit status: 1: loud\\nloud"),
        ("exit 0", "printed no JSON of a CredentialProviderResponse"),
        (
            "echo '{\"cacheKeyType\":\"Image\",\"kind\":\"Pod\"}'",
            "printed no CredentialProviderResponse of",
        ),
        ("echo '{\"cacheKeyType\":\"Nobody\"}'", "printed no JSON of a CredentialProviderResponse"),
        (flood, "prints more than 65536 bytes"),
    ] {
        let mut machine = Machine::new();
        machine.add("maker", &["one.test"], line);
        let client = machine.client();
        let named = target("oci://one.test/app");
        let error = failure(client.source(&named).complete(&named, Asking::Own).await);
        let told = std::error::Error::source(&error).unwrap().to_string();
        assert!(told.starts_with("the credential provider maker "), "{told}");
        assert!(told.contains(said) && told.len() < 500 && !told.contains('\n'), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
    let mut machine = Machine::new();
    machine.printing("gone", &["one.test"], &json!({}));
    fs::remove_file(machine.path("bin/gone")).unwrap();
    let client = machine.client();
    let named = target("oci://one.test/app");
    let error = failure(client.source(&named).complete(&named, Asking::Own).await);
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.starts_with("the credential provider gone cannot be started"), "{told}");
    // What is said of them is read at once.
    let error = Machine::new().sources().map(drop).unwrap_err();
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("providers.yaml") && told.contains("names no provider"), "{told}");
}
