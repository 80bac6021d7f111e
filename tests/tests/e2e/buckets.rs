//! Buckets of a real store, through the real programs.

use std::fs;
use std::thread;

use dfs_tests::process::Said;
use dfs_tests::{Bucket, Cluster};

use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, Running, binaries, until};
use crate::sync::alone;

#[test]
fn a_cluster_mounts_a_prefix_and_the_store_is_asked_once() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("big.bin"), &noise(1, 3 << 20));
    for name in ["a", "sub/b", "sub/deeper/c"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 30_000));
    }
    let store = Bucket::moto(place.root()).unwrap();
    store.fill("run/", &source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = [Agent::of(&cluster, &place, "a"), Agent::of(&cluster, &place, "b")];
    for agent in &agents {
        let dir =
            agent.mount(&store.url("run/"), place.path(&format!("mount-{}", agent.node.name())));
        for name in ["big.bin", "a", "sub/b", "sub/deeper/c"] {
            assert!(
                fs::read(dir.join(name)).unwrap() == fs::read(source.join(name)).unwrap(),
                "{name}"
            );
        }
    }
    // A key to see that it is a prefix, and all of them; a small object once, whoever reads it.
    assert_eq!(store.requests("GET /lab/?"), 2);
    for name in ["a", "sub/b", "sub/deeper/c"] {
        assert_eq!(store.requests(&format!("GET /lab/run/{name}")), 1, "{name}");
    }
    assert_eq!(store.requests("HEAD "), 0);
}

#[test]
fn one_level_of_a_bucket_is_asked_for_as_one() {
    let place = Place::new();
    let source = place.dir("source");
    for name in ["a", "both", "sub/b", "sub/deeper/c"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 30_000));
    }
    let store = Bucket::moto(place.root()).unwrap();
    store.fill("run/", &source).unwrap();
    let below = place.dir("below");
    trees::put(&below.join("x"), b"x");
    store.fill("run/both/", &below).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = store.url("run/");
    let names = |words: &[&str]| {
        let listed = agent.dfctl(&[&["ls", "--format", "name"], words].concat());
        listed.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = store.asked().len();
    assert_eq!(names(&[&url]), ["a", "both", "sub"], "of one name the directory is shown");
    let asked = store.asked().split_off(before);
    assert_eq!(asked.len(), 2, "what it is, and one level: {asked:?}");
    assert!(asked[1].contains("delimiter=/"), "{asked:?}");
    assert_eq!(names(&[&format!("{url}!sub")]), ["sub/b", "sub/deeper"]);
    assert_eq!(names(&[&format!("{url}!sub/b")]), ["sub/b"]);
    agent.dfctl(&["ls", &format!("{url}!su")]).fails(3, "DFS-2101");
    assert!(names(&["--depth", "3", &url]).contains(&"sub/deeper/c".to_owned()));
}

#[test]
fn one_level_of_a_bucket_is_asked_for_once_by_a_cluster() {
    let place = Place::new();
    let source = place.dir("source");
    for name in ["a", "sub/b", "sub/deeper/c"] {
        trees::put(&source.join(name), &noise(name.len() as u64, 30_000));
    }
    let store = Bucket::moto(place.root()).unwrap();
    store.fill("run/", &source).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b", "c"].map(|name| Agent::of(&cluster, &place, name));
    let url = store.url("run/");
    let names = |agent: &Agent, url: &str| {
        let listed = agent.dfctl(&["ls", "--format", "name", url]).done();
        listed.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = store.asked().len();
    for agent in &agents {
        assert_eq!(names(agent, &url), ["a", "sub"]);
    }
    let asked = store.asked().split_off(before);
    assert_eq!(asked.len(), 2, "what it is, and one level: {asked:?}");
    assert!(asked[1].contains("delimiter=/"), "{asked:?}");
    thread::scope(|scope| {
        let below =
            || agents.iter().map(|agent| scope.spawn(|| names(agent, &format!("{url}!sub"))));
        for listed in below().collect::<Vec<_>>() {
            assert_eq!(listed.join().unwrap(), ["sub/b", "sub/deeper"]);
        }
    });
    let asked = store.asked().split_off(before + 2);
    assert_eq!(asked.len(), 2, "also where all ask at once: {asked:?}");

    // The cluster is gone: each lists for itself.
    drop(cluster);
    assert_eq!(names(&agents[0], &format!("{url}!sub/deeper")), ["sub/deeper/c"]);
}

#[test]
fn what_keys_open_is_listed_with_the_keys_of_who_asks_and_told_to_nobody_else() {
    let place = Place::new();
    let store = Bucket::garage(place.root()).unwrap();
    let file = place.path("file");
    trees::put(&file, &noise(3, 20_000));
    store.put("secret/file", &file).unwrap();
    let keys = store.lock().unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = ["a", "b"].map(|name| Agent::of(&cluster, &place, name));
    let list = |agent: &Agent, secret: &str| {
        let mut list = agent.node.dfctl_command().unwrap();
        list.args(["ls", "--format", "name", &store.url("secret/")]);
        list.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", secret);
        Said::by(&mut list).unwrap()
    };
    assert_eq!(list(&agents[0], &keys.secret).done().text(), "file\n");
    list(&agents[1], "wrong").fails(4, "DFS-2103");
    agents[1].dfctl(&["ls", &store.url("secret/")]).fails(4, "DFS-2103");
    assert!(!cluster.process().log().contains(&keys.secret));
}

#[test]
fn keys_of_who_asks_open_a_bucket_and_are_told_to_nobody() {
    let place = Place::new();
    let store = Bucket::moto(place.root()).unwrap();
    keys_open(&place, &store, "403 SignatureDoesNotMatch");
}

#[test]
fn keys_of_who_asks_open_a_bucket_of_garage_in_the_region_that_it_names() {
    let place = Place::new();
    let store = Bucket::garage(place.root()).unwrap();
    keys_open(&place, &store, "403 AccessDenied");
}

/// With these keys a bucket is read, with others it is not.
fn keys_open(place: &Place, store: &Bucket, refusal: &str) {
    let file = place.path("file");
    trees::put(&file, &noise(3, 200_000));
    store.put("secret/file", &file).unwrap();
    let keys = store.lock().unwrap();
    let agent = Agent::solo(place, "agent");
    let out = place.path("out");
    let mut get = agent.node.dfctl_command().unwrap();
    get.args(["get", "s3://lab/secret/file", "-o"]).arg(&out);
    get.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", &keys.secret);
    get.env("AWS_ENDPOINT_URL_S3", store.endpoint());
    Said::by(&mut get).unwrap().done();
    assert!(fs::read(&out).unwrap() == fs::read(&file).unwrap());

    let wrong = place.path("wrong");
    let mut get = agent.node.dfctl_command().unwrap();
    get.args(["get", "s3://lab/secret/file", "--endpoint", &store.endpoint(), "-o"]).arg(&wrong);
    get.env("AWS_ACCESS_KEY_ID", &keys.id).env("AWS_SECRET_ACCESS_KEY", "wrong");
    let said = Said::by(&mut get).unwrap().fails(4, "DFS-2103");
    let refused = format!("the store answered {refusal}");
    assert!(said.stderr.contains(&refused), "{}", said.stderr);
    assert!(!wrong.exists());

    let mut everything = agent.log();
    for words in [&["task", "ls", "--format", "json"][..], &["cache", "ls", "--format", "json"]] {
        everything += &String::from_utf8_lossy(&agent.dfctl(words).stdout);
    }
    assert!(everything.contains("secret/file") && !everything.contains(&keys.secret));
}

#[test]
fn a_tree_goes_into_garage_is_mounted_from_there_and_comes_out_again() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    trees::put(&source.join("names/a+b %2F (c)~!"), b"plus");
    for number in 0..1000 {
        trees::put(&source.join(format!("pages/{number}")), number.to_string().as_bytes());
    }
    let store = Bucket::garage(place.root()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let keys = store.lock().unwrap();
    // Of a user who has a profile for it and no variables.
    let endpoint = store.endpoint();
    let profile = format!(
        "[profile lab]\nregion = garage\nendpoint_url = {endpoint}\n\
         aws_access_key_id = {}\naws_secret_access_key = {}\n",
        keys.id, keys.secret
    );
    trees::put(&place.path("home/.aws/config"), profile.as_bytes());
    let dfctl = |words: &[&str]| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.env("HOME", place.path("home")).env("AWS_PROFILE", "lab");
        Said::by(command.args(words)).unwrap()
    };

    dfctl(&["sync", source.to_str().unwrap(), "s3://lab/tree/"]).done();

    let mounted = place.dir("mounted");
    agent.guard(&mounted);
    dfctl(&["mount", "s3://lab/tree/", mounted.to_str().unwrap()]).done();
    trees::assert_same(&mounted, &source);

    let back = place.path("back");
    dfctl(&["sync", "s3://lab/tree/", back.to_str().unwrap()]).done();
    trees::assert_same(&back, &source);
    assert_eq!(dfctl(&["sync", source.to_str().unwrap(), "s3://lab/tree/"]).code, 9);

    // A key that is no path and one that is a directory do not keep a mount from what is beside them.
    let file = place.path("file");
    trees::put(&file, b"x");
    for key in ["odd/usable", "odd//nameless", "odd/marker/", "odd/%C3%A9%20%2B%25"] {
        store.put(key, &file).unwrap();
    }
    let odd = place.dir("odd");
    agent.guard(&odd);
    dfctl(&["mount", "s3://lab/odd/", odd.to_str().unwrap()]).done();
    assert_eq!(trees::names(&odd), ["marker", "usable", "\u{e9} +%"]);
    assert_eq!(fs::read(odd.join("\u{e9} +%")).unwrap(), b"x");
}

#[test]
fn keys_that_garage_does_not_know_and_none_are_one_clear_error() {
    let place = Place::new();
    let store = Bucket::garage(place.root()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = store.url("any");
    let out = place.path("out");
    let get = |keys: Option<[&str; 2]>| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.args(["get", &url, "-o"]).arg(&out);
        if let Some([id, secret]) = keys {
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
            command.env("AWS_ENDPOINT_URL", store.endpoint());
        }
        Said::by(&mut command).unwrap().fails(4, "DFS-2103").stderr
    };
    for keys in [None, Some(["GK000000000000000000000000", "secret"])] {
        let said = get(keys);
        assert!(said.contains("the store answered 403 AccessDenied"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    assert!(!out.exists());
}

#[test]
fn keys_that_a_program_makes_open_a_bucket_of_garage() {
    let place = Place::new();
    let store = Bucket::garage(place.root()).unwrap();
    let keys = store.lock().unwrap();
    let file = place.path("file");
    trees::put(&file, &noise(3, 200_000));
    store.put("file", &file).unwrap();
    let made = format!(
        r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#,
        keys.id, keys.secret
    );
    trees::put(&place.path("made"), made.as_bytes());
    let config = format!(
        "[profile made]\ncredential_process = cat {}\n[profile broken]\ncredential_process = exit 3\n",
        place.path("made").display()
    );
    trees::put(&place.path("home/.aws/config"), config.as_bytes());
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let get = |profile: &str| {
        let mut command = agent.node.dfctl_command().unwrap();
        command.env("HOME", place.path("home")).args(["get", "--profile", profile]);
        Said::by(command.arg(store.url("file")).arg("-o").arg(&out)).unwrap()
    };
    let said = get("broken").fails(2, "DFS-1003").stderr;
    assert!(said.contains("the credential_process of profile 'broken' ended with exit status: 3"));
    assert!(!out.exists());
    get("made").done();
    assert!(fs::read(&out).unwrap() == fs::read(&file).unwrap());
}

#[test]
fn the_first_ctrl_c_ends_a_command_and_the_program_that_it_waits_for_keys_of() {
    let place = Place::new();
    let pid = place.path("pid");
    let config = format!(
        "[default]\ncredential_process = echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600\n",
        pid.display()
    );
    trees::put(&place.path("home/.aws/config"), config.as_bytes());
    let mut command = alone(&place);
    command.env("HOME", place.path("home")).args(["stat", "s3://lab/file"]);
    let waiting = Running::start(command);
    until("the program runs", || pid.exists());
    waiting.interrupt().fails(130, "DFS-1130");
    let stat = format!("/proc/{}/stat", fs::read_to_string(&pid).unwrap().trim());
    let runs = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    until("the program is gone", || !runs());
}
