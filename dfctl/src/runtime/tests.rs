use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn told() -> Told {
    Told {
        mirror: "127.0.0.1:4050".parse().unwrap(),
        registries: vec!["docker.io".to_owned(), "127.0.0.1:5000".to_owned()],
    }
}

fn planned(runtime: Runtime, files: &BTreeMap<String, String>) -> Result<Vec<Written>, String> {
    let mut text = |path: &str| Ok(files.get(path).cloned());
    let listed: Vec<String> =
        files.keys().filter(|path| path.starts_with(registries::DROP_INS)).cloned().collect();
    let plan = runtime.plan(&told(), &mut text, &listed).map_err(|error| error.to_string())?;
    let written = |(path, after): (String, String)| {
        let before = files.get(&path).cloned();
        Written { path, before, after }
    };
    Ok(plan.into_iter().map(written).collect())
}

fn files(known: &[(&str, &str)]) -> BTreeMap<String, String> {
    known.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// What the one changed file says.
fn after(runtime: Runtime, path: &str, text: &str) -> Result<String, String> {
    let written = planned(runtime, &files(&[(path, text)]))?;
    Ok(written
        .into_iter()
        .find(|written| written.path == path)
        .map_or(text.to_owned(), |w| w.after))
}

const DOCKER: &str = "/etc/docker/daemon.json";
const CONTAINERD: &str = "/etc/containerd/config.toml";
const DEFAULT_HOSTS: &str = "/etc/containerd/certs.d/_default/hosts.toml";

#[test]
fn docker_is_told_and_all_else_stays_as_it_is_written() {
    for (before, told) in [
        ("", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:4050\"]\n}\n"),
        ("{}", "{\"registry-mirrors\": [\"http://127.0.0.1:4050\"]}"),
        (
            "{\n\t\"debug\": true,\n\t\"a\": {\"registry-mirrors\": []}\n}\n",
            "{\n\t\"registry-mirrors\": [\"http://127.0.0.1:4050\"],\n\t\"debug\": true,\n\t\"a\": {\"registry-mirrors\": []}\n}\n",
        ),
        (
            "{\"x\": \"registry-mirrors\", \"registry-mirrors\" : [ \"https://m.test\" ]}",
            "{\"x\": \"registry-mirrors\", \"registry-mirrors\" : [ \"http://127.0.0.1:4050\", \"https://m.test\" ]}",
        ),
        ("{\"registry-mirrors\":[]}", "{\"registry-mirrors\":[\"http://127.0.0.1:4050\"]}"),
    ] {
        assert_eq!(after(Runtime::Docker, DOCKER, before).unwrap(), told, "{before}");
        assert_eq!(after(Runtime::Docker, DOCKER, told).unwrap(), told, "told once");
    }
    for bad in ["[]", "{", "{\"registry-mirrors\": 7}", "{} trailing"] {
        let error = after(Runtime::Docker, DOCKER, bad).unwrap_err();
        assert!(error.starts_with(DOCKER), "{error}");
    }
}

#[test]
fn containerd_is_told_of_a_directory_and_all_registries_of_the_mirror() {
    let config = "version = 2 # ours\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"pause:1\" # kept\n";
    let written = planned(Runtime::Containerd, &files(&[(CONTAINERD, config)])).unwrap();
    assert_eq!(written[0].path, DEFAULT_HOSTS);
    assert!(written[0].after.contains("[host.\"http://127.0.0.1:4050\"]"));
    let edited = &written[1].after;
    assert!(edited.contains("config_path = \"/etc/containerd/certs.d\""), "{edited}");
    assert!(
        edited.contains("sandbox_image = \"pause:1\" # kept")
            && edited.starts_with("version = 2 # ours")
    );
    let read: toml_edit::DocumentMut = edited.parse().unwrap();
    let registry = &read["plugins"]["io.containerd.grpc.v1.cri"]["registry"];
    assert_eq!(registry["config_path"].as_str(), Some("/etc/containerd/certs.d"));

    // Where it has a directory that is used, and what is in it stays.
    let config = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/srv/hosts:/other'\n";
    let hosts = "server = \"https://up.test\"\n\n[host.\"https://first.test\"]\n";
    let known = files(&[(CONTAINERD, config), ("/srv/hosts/_default/hosts.toml", hosts)]);
    let written = planned(Runtime::Containerd, &known).unwrap();
    assert_eq!(written.len(), 1);
    let edited = &written[0].after;
    assert!(edited.starts_with("server = \"https://up.test\"\n\n# "), "{edited}");
    assert!(edited.find(":4050").unwrap() < edited.find("first.test").unwrap(), "{edited}");

    for (bad, why) in [
        ("version = 1\n", "neither 2 nor 3"),
        ("[plugins.cri]\n", "neither 2 nor 3"),
        ("version = 4\n", "neither 2 nor 3"),
        (
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = []\n",
            "registry.mirrors",
        ),
        ("version = 2\nplugins = { }\n", "one line"),
        ("version = ", "cannot be read"),
        (
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'here'\n",
            "not absolute",
        ),
    ] {
        let error = after(Runtime::Containerd, CONTAINERD, bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn registries_that_are_configured_already_are_left_alone() {
    let main = "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"inner.test\"\n";
    let written =
        planned(Runtime::Podman, &files(&[("/etc/containers/registries.conf", main)])).unwrap();
    assert_eq!(written[0].path, "/etc/containers/registries.conf.d/50-dfs-podman.conf");
    let text = &written[0].after;
    assert!(
        text.contains("location = \"127.0.0.1:4050/127.0.0.1__5000\"")
            && !text.contains("docker.io"),
        "{text}"
    );
    let both = format!("{main}[[registry]]\nlocation = \"127.0.0.1:5000\"\n");
    let error =
        planned(Runtime::CriO, &files(&[("/etc/containers/registries.conf", &both)])).unwrap_err();
    assert!(error.contains("configures all of these"), "{error}");
    let first = "[registries.search]\nregistries = ['docker.io']\n";
    let error =
        planned(Runtime::CriO, &files(&[("/etc/containers/registries.conf", first)])).unwrap_err();
    assert!(error.contains("version 1"), "{error}");
}

#[test]
fn what_was_edited_elsewhere_stays_and_what_was_edited_here_is_an_error() {
    let before = "{\n  \"debug\": true\n}\n";
    let written = planned(Runtime::Docker, &files(&[(DOCKER, before)])).unwrap().remove(0);
    let edited = written.after.replace("true", "false");
    assert_eq!(written.undone(Some(&edited)).unwrap().unwrap(), before.replace("true", "false"));
    let changed = written.after.replace("4050", "4051");
    assert!(written.undone(Some(&changed)).is_err());
    assert_eq!(written.undone(None).unwrap(), None, "taken away by somebody");
    assert_eq!(written.undone(Some(before)).unwrap().as_deref(), Some(before), "never written");
    let one_line =
        planned(Runtime::Docker, &files(&[(DOCKER, "{\"debug\": true}")])).unwrap().remove(0);
    let edited = one_line.after.replace("true", "false");
    assert_eq!(one_line.undone(Some(&edited)).unwrap().unwrap(), "{\"debug\": false}");
}

#[test]
fn a_record_reads_back() {
    let files = planned(Runtime::Docker, &files(&[(DOCKER, "{}")])).unwrap();
    let record = Record::new(told().mirror, files, vec!["/etc/docker".to_owned()]);
    assert_eq!(Record::read(&record.text()), Some(record.clone()));
    assert_eq!(Record::read(&record.text().replace("\"format\": 1", "\"format\": 9")), None);
    assert_eq!(Record::read("{"), None);
}

#[test]
fn a_difference_is_shown_with_what_is_around_it() {
    let before = "1\n2\n3\n4\n5\n6\n7\n8\n";
    let after = before.replace("5\n", "5\nnew\n");
    assert_eq!(
        unified("/f", Some(before), Some(&after)),
        "--- /f\n+++ /f\n@@ -3,6 +3,7 @@\n 3\n 4\n 5\n+new\n 6\n 7\n 8\n"
    );
    assert_eq!(unified("/f", None, Some("a\n")), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
    assert_eq!(unified("/f", Some("a"), Some("a")), "");
}

fn toml_noise() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("# a comment".to_owned()),
        Just(String::new()),
        "[a-z]{1,6}_x = \"[a-z ü]{0,6}\"",
        "\\[plugins\\.[a-z]{3,8}q\\]",
        Just("  [plugins.\"io.containerd.grpc.v1.cri\"]".to_owned()),
        Just("    [plugins.\"io.containerd.grpc.v1.cri\".registry]".to_owned()),
        Just("\tenabled = true  # yes".to_owned()),
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| {
        let text = lines.iter().fold("version = 2\n".to_owned(), |text, line| text + line + "\n");
        if text.parse::<toml_edit::DocumentMut>().is_ok() {
            text
        } else {
            "version = 2\n".to_owned()
        }
    })
}

fn json_noise() -> impl Strategy<Value = String> {
    let member = (
        "[a-z-]{1,8}",
        prop_oneof![
            Just("true".to_owned()),
            Just("[1, {\"registry-mirrors\": [\"x\"]}]".to_owned()),
            Just("\"\\\"registry-mirrors\\\": [\"".to_owned()),
            "-?[1-9][0-9]{0,3}",
        ],
    );
    let members =
        proptest::collection::btree_map("[a-z-]{1,8}", member.prop_map(|(_, value)| value), 0..5);
    let own = prop_oneof![
        Just(None),
        Just(Some("[]".to_owned())),
        Just(Some("[ \"https://m.test\" ,\n \"https://n.test\"]".to_owned())),
    ];
    (members, own, prop_oneof![Just(""), Just("\n  "), Just(" "), Just("\r\n\t")]).prop_map(
        |(members, own, space)| {
            let own = own.map(|own| ("registry-mirrors".to_owned(), own));
            let all: Vec<_> = members
                .into_iter()
                .chain(own)
                .map(|(key, value)| format!("{space}\"{key}\":{space}{value}"))
                .collect();
            format!("{space}{{{}{space}}}{space}", all.join(","))
        },
    )
}

proptest! {
    #[test]
    fn what_is_told_is_taken_back_exactly(config in toml_noise(), daemon in json_noise()) {
        for (runtime, path, text) in [(Runtime::Containerd, CONTAINERD, &config), (Runtime::Docker, DOCKER, &daemon)] {
            let known = files(&[(path, text)]);
            let Ok(written) = planned(runtime, &known) else { continue };
            let mut now = known.clone();
            now.extend(written.iter().map(|written| (written.path.clone(), written.after.clone())));
            // Told once is told.
            prop_assert_eq!(planned(runtime, &now).unwrap(), vec![]);
            for written in &written {
                let undone = written.undone(Some(&written.after)).unwrap();
                prop_assert_eq!(undone.as_ref(), known.get(&written.path));
            }
        }
    }

    #[test]
    fn what_is_added_at_either_end_stays(config in toml_noise(), front in "(# [a-z]{0,9}\n)?", back in "(\n# [a-z]{0,9}\n)?") {
        let known = files(&[(CONTAINERD, &config)]);
        let Ok(written) = planned(Runtime::Containerd, &known) else { return Ok(()) };
        for written in written.iter().filter(|written| written.path == CONTAINERD) {
            let edited = format!("{front}{}{back}", written.after);
            let undone = written.undone(Some(&edited)).unwrap().unwrap();
            prop_assert_eq!(undone, format!("{front}{config}{back}"));
        }
    }
}
