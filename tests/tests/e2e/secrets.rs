//! What a URL lets its holder do is used and never shown: in no view, answer, log or table.

use std::fs;

use dfs_tests::process::{Process, Said, http_get};
use dfs_tests::{Body, Bucket, Cluster, Origin};

use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, all, binaries, until};

/// What stands in every secret of these tests.
const SECRET: &str = "hunter2";

/// What was said, and by whom.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    fn hear(&mut self, who: impl Into<String>, text: impl Into<String>) {
        self.0.push((who.into(), text.into()));
    }

    fn say(&mut self, said: &Said) {
        // The command itself was typed with the secret.
        let who = said.line.replace(SECRET, "…");
        self.hear(who, format!("{}{}", said.text(), said.stderr));
    }

    /// Runs it for people and for programs.
    fn ask(&mut self, agent: &Agent, words: &[&str]) {
        for format in ["human", "json", "jsonl", "name"] {
            self.say(&agent.dfctl(&[words, &["--format", format]].concat()));
        }
        self.say(&agent.dfctl(&[&["-v"], words].concat()));
    }

    fn overhear(&mut self, process: &Process) {
        let name = process.log_path().display().to_string();
        let page = http_get(process.address("metrics").unwrap(), "/metrics").unwrap();
        self.hear(format!("metrics beside {name}"), page);
        self.hear(name, process.log());
    }

    #[track_caller]
    fn has_no_secret(&self) {
        for (who, text) in &self.0 {
            let line = text.lines().find(|line| line.contains(SECRET));
            assert!(line.is_none(), "{who} shows: {}", line.unwrap_or_default());
        }
    }

    #[track_caller]
    fn has(&self, who: &str, what: &str) {
        let told = self.0.iter().find(|(by, text)| by.contains(who) && text.contains(what));
        assert!(told.is_some(), "no {what} from {who}");
    }
}

#[test]
fn a_signed_url_is_shown_nowhere_with_what_signs_it() {
    let place = Place::new();
    let body = Body::noise(1, 3 << 20);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let signed = format!("?X-Amz-Signature={SECRET}&sig={SECRET}&at=1");
    let url = format!("{}{signed}", origin.url("/d/f"));
    let cluster = Cluster::start_with(&binaries(), place.root(), &["--log", "debug"]).unwrap();
    let [one, other] =
        ["one", "other"].map(|name| Agent::of_with(&cluster, &place, name, &["--log", "debug"]));
    let mut heard = Heard::default();
    let out = place.path("out");
    let get = ["get", &url, "-o", out.to_str().unwrap(), "--explain", "--force"];
    heard.say(&one.dfctl(&get).done());
    assert!(fs::read(&out).unwrap() == all(&body));
    let dir = one.mount(&url, place.path("mount"));
    assert!(fs::read(dir.join("f")).unwrap() == all(&body));
    let listed = one.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
    let id = listed["items"][0]["task"]["id"].as_str().unwrap().to_owned();
    for words in [
        &["task", "ls"][..],
        &["task", "show", &id],
        &["task", "rm", "--dry-run", &id],
        &["cache", "ls"],
        &["cache", "pin", &id],
        &["cache", "unpin", &id],
        &["cache", "verify"],
        &["mounts"],
        &["stat", &url],
        &["ls", &url],
        &["doctor"],
        &["preheat", &url],
        &["get", &url, "-o", out.to_str().unwrap()],
        &["get", &format!("{}{signed}", origin.url("/none")), "-o", "/dev/null"],
        &["cat", &format!("{url}!inside")],
        &["sync", &url, out.to_str().unwrap()],
        &["get", "-r", &url, "-o", out.to_str().unwrap()],
        &["mount", &url, "/nonexistent/x"],
    ] {
        heard.ask(&one, words);
    }
    // Whoever takes no part in it knows it by the scheduler.
    until("the scheduler knows it", || other.dfctl(&["task", "watch", &url, "--once"]).code == 0);
    for words in [
        &["why", &url][..],
        &["why", &id],
        &["why", &format!("{url}0")],
        &["why", &format!("nothing{signed}")],
        &["task", "watch", &id, "--once"],
        &["top", "--once"],
        &["scheduler", "compare"],
    ] {
        heard.ask(&other, words);
    }
    for typed in ["", &id[..4]] {
        let mut complete = one.node.dfctl_command().unwrap();
        complete.args(["__complete", "fish", "task", "show", typed]);
        heard.say(&Said::by(&mut complete).unwrap());
    }
    heard.hear("the kernel's table", fs::read_to_string("/proc/self/mountinfo").unwrap());
    for process in [cluster.process(), one.node.process(), other.node.process()] {
        heard.overhear(process);
    }
    heard.has_no_secret();
    for who in ["task ls", "cache ls", "mounts", "top", "why", "kernel's table", "stat"] {
        heard.has(who, "sig=<redacted>");
    }
}

#[test]
fn what_cannot_be_read_is_named_without_its_secrets() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(2, 1 << 20)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let authority = origin.address();
    let mut heard = Heard::default();
    for url in [
        format!("http://user:{SECRET}@{authority}/none"),
        format!("http://user:{SECRET}@{authority}:x/none"),
        format!("user:{SECRET}@{authority}/none"),
        format!("http://{authority}/none?token={SECRET}"),
        format!("http://{authority}:x/none?token={SECRET}"),
        format!("{authority}/none?token={SECRET}"),
        format!("ftp://{authority}/none?token={SECRET}"),
        format!("s3://?token={SECRET}"),
        format!("oci://h/x?token={SECRET}"),
        format!("http://{authority}/f?token={SECRET}!../x"),
        format!("http://{authority}/f?to=http%3A%2F%2Fuser:{SECRET}%40h%2F!x"),
    ] {
        for command in ["get", "stat", "ls", "cat", "preheat", "why"] {
            heard.ask(&agent, &[command, &url]);
        }
        heard.ask(&agent, &["mount", &url, place.path("mount").to_str().unwrap()]);
        heard.ask(&agent, &["sync", &url, place.path("copy").to_str().unwrap()]);
        let mut alone = agent.node.dfctl_command().unwrap();
        alone.args(["--solo", "get", &url, "-o"]).arg(place.path("out"));
        heard.say(&Said::by(&mut alone).unwrap());
    }
    heard.overhear(agent.node.process());
    heard.has_no_secret();
    heard.has("stat", "token=<redacted>");
}

#[test]
fn a_presigned_object_is_read_from_a_mount_and_its_signature_is_not() {
    let place = Place::new();
    let source = place.path("file");
    trees::put(&source, &noise(3, 2 << 20));
    let store = Bucket::garage(place.root()).unwrap();
    store.put("private/file", &source).unwrap();
    let url = store.presigned("private/file").unwrap();
    let signature = url.rsplit_once("X-Amz-Signature=").unwrap().1.to_owned();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let [one, other] = ["one", "other"].map(|name| Agent::of(&cluster, &place, name));
    let dir = one.mount(&url, place.path("mount"));
    assert!(fs::read(dir.join("file")).unwrap() == fs::read(&source).unwrap());
    let out = place.path("out");
    other.dfctl(&["get", &url, "-o", out.to_str().unwrap()]).done();
    assert!(fs::read(&out).unwrap() == fs::read(&source).unwrap());
    let mut said = String::new();
    for words in [
        &["why", &url][..],
        &["top", "--once", "--format", "json"],
        &["task", "ls", "--format", "json"],
        &["mounts"],
    ] {
        said += &one.dfctl(words).done().text();
    }
    for process in [cluster.process(), one.node.process(), other.node.process()] {
        said += &process.log();
    }
    assert!(said.contains("X-Amz-Signature=<redacted>"), "{said}");
    assert!(!said.contains(&signature), "{said}");
}
