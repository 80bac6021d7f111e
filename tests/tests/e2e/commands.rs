//! What `dfctl` says and ends with when it is used wrongly, without an agent, or by somebody else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Origin};

use crate::support::trees::{self, noise};
use crate::support::{
    Agent, Expected, NOBODY, Place, Running, as_nobody, as_user, binaries, binary, dfctl_at,
    is_mounted, runs, until,
};

#[test]
fn a_mistake_in_the_command_line_is_told_with_its_code() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let output = place.path("out");
    let output = output.to_str().unwrap();
    for words in [
        &["frobnicate"][..],
        &["get"],
        &["get", "http://h/f", "--limit", "10M"],
        &["get", "http://h/f", "--range", "9-1"],
        &["get", "http://h/f", "--digest", "md5:00"],
        &["get", "not a url", "-o", output],
        &["get", "http://h", "--format", "xml"],
        &["mount", "http://h/", "/nowhere/at/all"],
        &["task", "show", "xyz"],
    ] {
        let said = agent.dfctl(words);
        assert_eq!(said.code, 2, "{words:?}: {}", said.stderr);
        assert!(
            said.stderr.contains("DFS-") && said.stdout.is_empty(),
            "{words:?}: {}",
            said.stderr
        );
    }
    assert!(!place.path("out").exists());
}

#[test]
fn a_cache_too_small_to_be_one_is_refused_wherever_it_is_written() {
    let place = Place::new();
    let written = |text: &str| {
        let file = place.path("config.toml");
        fs::write(&file, text).unwrap();
        file
    };
    let data = place.path("data");
    let run = |program: &str, words: &[&str], config: Option<&str>| {
        let mut command = binaries().command(program).unwrap();
        command.args(words).arg("--data-dir").arg(&data);
        command.args(
            config.map(|text| [PathBuf::from("--config"), written(text)]).into_iter().flatten(),
        );
        Said::by(&mut command).unwrap()
    };
    for said in [
        run("dfs-fuse", &["--capacity", "10"], None),
        run("dfs-fuse", &[], Some("capacity = '63MiB'")),
        run("dfs-cluster", &["all"], Some("[seed]\ncapacity = '1KiB'")),
        run("dfs-cluster", &["seed"], Some("[seed]\ncapacity = '1KiB'")),
    ] {
        assert_eq!(said.code, 2, "`{}`\n{}", said.line, said.stderr);
        assert!(said.stderr.contains("at least 64.0 MiB"), "`{}`\n{}", said.line, said.stderr);
    }
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn files_and_trees_are_told_apart() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let out = place.path("out");
    let out = out.to_str().unwrap();
    agent.dfctl(&["get", &origin.url("/d/"), "-o", out]).fails(2, "DFS-2108");
    agent.dfctl(&["cat", &origin.url("/d/")]).fails(2, "DFS-2108");
    let said = agent.dfctl(&["get", &origin.url("/")]).fails(2, "DFS-2108");
    let told = format!("{} get -r http://", agent.typed());
    assert!(said.stderr.contains(&told), "{}", said.stderr);
    assert_eq!(agent.dfctl(&["ls", &origin.url("/d/f"), "--format", "name"]).done().text(), "f\n");
    agent.dfctl(&["get", "-r", &origin.url("/d/f"), "-o", out]).fails(2, "DFS-2109");
    agent.dfctl(&["cat", &format!("{}!none", origin.url("/d/"))]).fails(3, "DFS-2101");
    assert!(!place.path("out").exists());
}

#[test]
fn only_the_levels_that_are_asked_for_are_listed_and_as_in_the_whole() {
    let place = Place::new();
    let source = place.dir("source");
    for path in ["a", "d/f", "d/g/h", "d/g/i/j", "d.x", "e/k/l/m"] {
        trees::put(&source.join(path), path.as_bytes());
    }
    fs::create_dir(source.join("e/empty")).unwrap();
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let names = |words: &[&str]| {
        let listed = agent.dfctl(&[&["ls", "--format", "name"], words].concat()).done();
        listed.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for url in [origin.url("/"), source.to_str().unwrap().to_owned()] {
        let at = |path: &str| format!("{url}!{path}");
        assert_eq!(names(&[&url]), ["a", "d", "d.x", "e"]);
        assert_eq!(names(&[&at("d/g")]), ["d/g/h", "d/g/i"]);
        assert_eq!(names(&[&at("e/empty")]), [""; 0]);
        assert_eq!(names(&[&at("d/f")]), ["d/f"]);
        agent.dfctl(&["ls", &at("d/gone")]).fails(3, "DFS-2101");
        agent.dfctl(&["ls", &at("gone/g")]).fails(3, "DFS-2101");
        agent.dfctl(&["stat", &at("d/gone")]).fails(3, "DFS-2101");
        let two = ["a", "d.x", "d", "d/f", "d/g", "e", "e/empty", "e/k"];
        assert_eq!(names(&["--depth", "2", &url]), two);
        assert_eq!(names(&["--depth", "1", &at("d")]), ["d/f", "d/g"]);
    }
    let unasked = ["/d/g/i/", "/e/k/"];
    assert!(origin.log().iter().all(|asked| !unasked.contains(&&*asked.path)));
    let url = origin.url("/");
    let whole = names(&["-r", &url]);
    assert_eq!(names(&["--depth", "9", &url]), whole);
}

#[test]
fn what_is_inside_is_seen_without_mounting() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    let origin = Origin::of_directory(&source).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = origin.url("/");
    let listed = agent.dfctl(&["ls", "-r", &url, "--format", "json"]).done().json().unwrap();
    let listed: BTreeMap<String, u64> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "file")
        .map(|item| (item["path"].as_str().unwrap().to_owned(), item["length"].as_u64().unwrap()))
        .collect();
    let there: BTreeMap<String, u64> = trees::walk(&source)
        .into_iter()
        .filter_map(|(path, found)| Some((path.to_str()?.to_owned(), found.length()?)))
        .collect();
    assert_eq!(listed, there);
    assert_eq!(origin.counters().body_bytes, 0, "looking moves no bytes of files");
    for (path, length) in &there {
        let escaped = path.replace('%', "%25");
        let said = agent.dfctl(&["cat", &format!("{url}!{escaped}")]).done();
        assert_eq!(said.stdout.len() as u64, *length, "{path}");
        assert!(said.stdout == fs::read(source.join(path)).unwrap(), "{path}");
    }
    let stat = agent.dfctl(&["stat", &origin.url("/own/large.bin"), "--format", "json"]);
    assert_eq!(stat.done().json().unwrap()["bytes"], (9 << 20) + 123);
}

#[test]
fn help_and_version_need_no_agent_and_are_results() {
    let place = Place::new();
    for words in [&["--help"][..], &["get", "--help"], &["--version"]] {
        let said = dfctl_at(&place.path("no.sock"), words);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{words:?}");
        assert!(!said.stdout.is_empty(), "{words:?}");
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" >/dev/full", "-"]).arg(binary("dfctl")).args(words);
        Said::by(&mut shell).unwrap().fails(7, "DFS-1104");
    }
}

#[test]
fn the_agent_that_was_named_does_not_answer_and_solo_is_what_goes_around_it() {
    let place = Place::new();
    let bytes = noise(1, 3_000_001);
    let origin = Origin::of("/f", Body::bytes(bytes.clone())).unwrap();
    let socket = place.path("no.sock");
    let output = place.path("out");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap()];
    dfctl_at(&socket, &words).fails(5, "DFS-4101");
    assert!(!output.exists());
    assert_eq!(origin.counters().requests, 0, "the origin was asked");
    let data = place.path("data");
    let alone = ["--solo", "--data-dir", data.to_str().unwrap()];
    dfctl_at(&socket, &[&words[..], &alone].concat()).done();
    assert!(fs::read(&output).unwrap() == bytes);
    assert_eq!(origin.counters().body_bytes, bytes.len() as u64);
    assert!(data.join("solo").is_dir(), "solo data went where it was told");
    let said = dfctl_at(&socket, &["task", "ls"]).fails(5, "DFS-4101");
    assert!(said.stderr.contains("dfs-fuse") && said.stderr.contains("no.sock"), "{}", said.stderr);
    dfctl_at(&socket, &["mounts"]).fails(5, "DFS-4101");
}

#[test]
fn a_value_of_the_environment_or_a_file_is_blamed_on_where_it_stands() {
    let place = Place::new();
    let home = place.dir("home");
    let dfctl = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
        command.env("HOME", &home).envs(variables.iter().copied()).args(words);
        Said::by(&mut command).unwrap()
    };
    let get = ["get", "http://h/f"];
    let said = dfctl(&[("DFS_CLUSTER", "here")], &get).fails(2, "DFS-1003");
    assert!(said.stderr.contains("environment variable DFS_CLUSTER"), "{}", said.stderr);
    assert!(said.stderr.contains("unset DFS_CLUSTER"), "{}", said.stderr);
    // One that is set and empty is one that is not set, as for the other programs.
    let file = place.path("f");
    fs::write(&file, "content").unwrap();
    let empty = ["DFS_CLUSTER", "DFS_SOCKET", "DFS_SOLO", "DFS_FORMAT", "DFS_LIMIT", "DFS_RANGE"];
    let empty = empty.map(|name| (name, ""));
    let said = dfctl(&empty, &["cat", "--solo", file.to_str().unwrap()]).done();
    assert_eq!(said.stdout, b"content"[..]);
    let free = dfs_tests::process::FreeAddress::new().unwrap();
    let nobody = free.at().to_string();
    let said = dfctl(&[("DFS_CLUSTER", &nobody)], &get).fails(5, "DFS-4119");
    let told = "comes from: environment variable DFS_CLUSTER";
    assert!(said.stderr.contains(told), "{}", said.stderr);
    let typed = [&["--cluster", "there"][..], &get].concat();
    let said = dfctl(&[("DFS_CLUSTER", "127.0.0.1:1")], &typed).fails(2, "DFS-1001");
    assert!(
        said.stderr.contains("--cluster") && !said.stderr.contains("DFS_CLUSTER"),
        "{}",
        said.stderr
    );
    let file = home.join(".config/dfs/dfctl.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = "color = 'never'\ncluster = 'here'\ndata-dir = ''\nof-old = 1\n";
    fs::write(&file, text).unwrap();
    let said = dfctl(&[], &get).fails(2, "DFS-1003");
    assert!(said.stderr.contains("dfctl.toml:"), "{}", said.stderr);
    assert!(!said.stderr.contains("--cluster"), "{}", said.stderr);
    // What is wrong can be taken out one by one.
    dfctl(&[], &["config", "unset", "of-old"]).done();
    dfctl(&[], &["config", "unset", "cluster"]).done();
    let said = dfctl(&[], &get).fails(2, "DFS-1003");
    assert!(said.stderr.contains("data-dir"), "{}", said.stderr);
    dfctl(&[], &["config", "unset", "data-dir"]).done();
    dfctl(&[], &["config", "unset", "data-dir"]).exits(9);
    assert_eq!(fs::read_to_string(&file).unwrap(), "color = 'never'\n");
    let said = dfctl(&[], &["config", "set", "data-dir", ""]).fails(2, "DFS-1003");
    assert!(said.stderr.contains("config unset data-dir"), "{}", said.stderr);
    dfctl(&[], &["config", "unset", "clutser"]).fails(3, "DFS-1004");
    let said = dfctl(&[("DFS_COLOR", "auto")], &["config", "unset", "color"]).done();
    assert!(said.stderr.contains("DFS_COLOR decides it: auto"), "{}", said.stderr);
}

#[test]
fn a_closed_standard_output_loses_nothing_quietly() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let file = place.path("f");
    fs::write(&file, "content").unwrap();
    let run = |redirected: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$@\" {redirected}"), "-"]).arg(binary("dfctl"));
        shell.arg("--socket").arg(agent.socket()).arg("cat").arg(&file);
        Said::by(&mut shell).unwrap()
    };
    let said = run(">&-").fails(1, "DFS-1102");
    assert!(said.stderr.contains("it is closed"), "{}", said.stderr);
    // Neither is whoever wants nothing of it, for reading and writing as many programs open it, at fault.
    for elsewhere in [">/dev/null", "1<>/dev/null", "<&-"] {
        run(elsewhere).done();
    }
}

#[test]
fn a_relative_place_is_meant_where_the_command_runs_and_refused_where_that_is_nowhere() {
    let place = Place::new();
    let (home, dir) = (place.dir("home"), place.dir("mount"));
    let _mount = dfs_tests::cluster::Mount::guard(&dir);
    trees::put(&place.path("source/f"), b"content");
    let dfctl = |words: &[&str]| {
        let mut command = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
        command.env("HOME", &home).current_dir(place.root()).args(words);
        Said::by(&mut command).unwrap()
    };
    let own = ["--socket", "own.sock", "--data-dir", "data"];
    dfctl(&[&own[..], &["mount", "source", "mount"]].concat()).done();
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"content");
    assert!(place.path("own.sock").exists() && !Path::new("/own.sock").exists());
    dfctl(&[&own[..], &["umount", "mount"]].concat()).done();
    let run: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("data/run.json")).unwrap()).unwrap();
    let pid = i32::try_from(run["pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it has gone", || !place.path("data/run.json").exists());
    // What is written down holds wherever a command runs.
    let said = dfctl(&["config", "set", "data-dir", "data"]).done();
    assert!(said.text().contains(place.path("data").to_str().unwrap()), "{}", said.text());
    let file = home.join(".config/dfs/dfctl.toml");
    fs::write(&file, "data-dir = 'data'\n").unwrap();
    let said = dfctl(&["--solo", "ls", "source"]).fails(2, "DFS-1003");
    assert!(said.stderr.contains("not an absolute path"), "{}", said.stderr);
    let mut agent = binaries().command("dfs-fuse").unwrap();
    let said = Said::by(agent.args(["--export", "source", "--data-dir"]).arg(place.path("x")));
    let said = said.unwrap().exits(2);
    assert!(said.stderr.contains("export") && said.stderr.contains("absolute"), "{}", said.stderr);
}

#[test]
fn the_other_programs_end_with_a_code_that_is_explained() {
    let place = Place::new();
    place.open_to_others();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = place.path("data");
    let data = data.to_str().unwrap();
    let closed = place.dir("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let closed = closed.to_str().unwrap();
    for (program, role, port_flag) in
        [("dfs-fuse", &[][..], "--port-pieces"), ("dfs-cluster", &["all"], "--port-grpc")]
    {
        let lent = lend(&place, program);
        let by = |words: &[&str]| Said::by(as_nobody(&lent).args(role).args(words)).unwrap();
        let as_root = |words: &[&str]| {
            Said::by(binaries().command(program).unwrap().args(role).args(words)).unwrap()
        };
        for (said, exit, code) in [
            (as_root(&["--no-such-flag"]), 2, "DFS-1001"),
            (as_root(&["--config", "/nonexistent"]), 2, "DFS-1003"),
            (as_root(&["--data-dir", data, port_flag, &port]), 1, "DFS-4105"),
            (by(&["--data-dir", closed]), 4, "DFS-4115"),
        ] {
            let said = said.fails(exit, code);
            assert!(said.stderr.trim_end().ends_with(code), "{}", said.stderr);
            dfctl_at(&place.path("no.sock"), &["explain", code]).done();
        }
        let said = as_root(&["--help"]).done();
        assert!(!said.text().contains("DFS-") && said.stderr.is_empty(), "{}", said.stderr);
    }
}

#[test]
fn an_agent_that_is_stopped_is_told_as_one_that_does_not_answer() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    agent.node.process().freeze();
    let said = agent.dfctl(&["task", "ls"]).fails(1, "DFS-6108");
    agent.node.process().thaw();
    assert!(said.stderr.contains(" doctor"), "{}", said.stderr);
    agent.dfctl(&["task", "ls"]).done();
}

#[test]
fn what_a_program_is_told_is_refused_before_it_takes_anything() {
    let place = Place::new();
    let file = place.path("file");
    fs::write(&file, "").unwrap();
    let (data, below) = (place.path("data"), file.join("data"));
    let (data, below) = (data.to_str().unwrap(), below.to_str().unwrap());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (line, exit, code, telling) in [
        ("dfs-cluster all --manager 127.0.0.1:1", 2, "DFS-1003", "a scheduler or a seed"),
        ("dfs-cluster seed", 2, "DFS-1003", "--manager HOST:PORT"),
        ("dfs-cluster seed --manager here", 2, "DFS-1001", "host:port"),
        ("dfs-cluster seed --manager here:0", 2, "DFS-1001", "port 0"),
        ("dfs-cluster all --advertise 0.0.0.0", 2, "DFS-1003", "every address"),
        ("dfs-fuse --advertise 127.0.0.1:0", 2, "DFS-1003", "port 0"),
        ("dfs-fuse --socket-group no-such-group", 2, "DFS-1001", "no group 'no-such-group'"),
        (&format!("dfs-fuse --port-pieces {port}"), 1, "DFS-4105", "--port-pieces"),
        (&format!("dfs-cluster all --port-grpc {port}"), 1, "DFS-4105", "--port-grpc"),
    ] {
        let (program, words) = line.split_once(' ').unwrap();
        let mut command = binaries().command(program).unwrap();
        let said = Said::by(command.args(words.split(' ')).args(["--data-dir", data])).unwrap();
        let said = said.fails(exit, code);
        assert!(said.stderr.contains(telling), "{line}: {}", said.stderr);
        assert_eq!(exit == 2, !Path::new(data).exists(), "{line}");
    }
    let mut unset = binaries().command("dfs-cluster").unwrap();
    let said = Said::by(unset.env("DFS_CONFIG", "").args(["seed", "--data-dir", below]));
    said.unwrap().fails(2, "DFS-1003");
    let said = Said::by(binaries().command("dfs-fuse").unwrap().args(["--data-dir", below]));
    let said = said.unwrap().fails(1, "DFS-4105");
    let telling = format!("{} is not a directory", file.display());
    assert!(said.stderr.contains(&telling), "{}", said.stderr);
}

#[test]
fn a_pattern_that_names_nothing_is_refused() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let (source, out) = (place.dir("source"), place.path("out"));
    trees::put(&source.join("f"), b"content");
    let (source, target) = (source.to_str().unwrap(), out.to_str().unwrap());
    for flag in ["--include", "--exclude"] {
        agent.dfctl(&["sync", flag, "", source, target]).fails(2, "DFS-1001");
        agent.dfctl(&["get", "-r", flag, "", source, "-o", target]).fails(2, "DFS-1001");
    }
    assert!(!out.exists());
}

#[test]
fn who_has_no_home_is_told_so_where_one_is_needed_and_only_there() {
    let place = Place::new();
    place.open_to_others();
    let dfctl = lend(&place, "dfctl");
    let file = place.path("f");
    fs::write(&file, "x").unwrap();
    let (file, data) = (file.to_str().unwrap(), place.dir("data"));
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    for home in ["", "not/absolute"] {
        let by =
            |words: &[&str]| Said::by(as_nobody(&dfctl).env("HOME", home).args(words)).unwrap();
        for words in [&["cat", "--solo", file][..], &["config", "set", "color", "never"]] {
            let said = by(words).fails(2, "DFS-1003");
            assert!(said.stderr.contains("HOME"), "{}", said.stderr);
        }
        by(&["config", "get"]).done();
        assert_eq!(
            by(&["cat", "--solo", "--data-dir", data.to_str().unwrap(), file]).done().text(),
            "x"
        );
    }
}

#[test]
fn a_mount_starts_an_agent_on_the_socket_that_was_named() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), b"content");
    let (socket, data, dir) = (place.path("own.sock"), place.path("data"), place.dir("mount"));
    let _mount = dfs_tests::cluster::Mount::guard(&dir);
    let words = ["--data-dir", data.to_str().unwrap(), "mount", source.to_str().unwrap()];
    let said = dfctl_at(&socket, &[&words[..], &[dir.to_str().unwrap()]].concat()).done();
    assert!(said.stderr.contains("started the node agent"), "{}", said.stderr);
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"content");
    let mounts = dfctl_at(&socket, &["mounts", "--format", "name"]).done().text();
    assert_eq!(mounts.lines().next().map(Path::new), Some(&*dir));
    dfctl_at(&socket, &["umount", dir.to_str().unwrap()]).done();
    end(&data);
}

/// Ends the agent that announced itself in this data directory.
fn end(data: &Path) {
    let run: serde_json::Value =
        serde_json::from_slice(&fs::read(data.join("run.json")).unwrap()).unwrap();
    let pid = i32::try_from(run["pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it has gone", || !data.join("run.json").exists());
}

#[test]
fn many_who_mount_at_once_where_no_agent_is_start_one_and_all_have_it_mount() {
    const MANY: usize = 6;
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), b"content");
    let (socket, data) = (place.path("own.sock"), place.path("data"));
    let dirs: Vec<_> = (0..MANY).map(|number| place.dir(&format!("mount-{number}"))).collect();
    let _mounts: Vec<_> =
        dirs.iter().map(|dir| dfs_tests::cluster::Mount::guard(dir.as_path())).collect();
    let words = ["--data-dir", data.to_str().unwrap(), "mount", source.to_str().unwrap()];
    let mount = |dir: &PathBuf| dfctl_at(&socket, &[&words[..], &[dir.to_str().unwrap()]].concat());
    let said: Vec<_> = std::thread::scope(|threads| {
        let asking: Vec<_> = dirs.iter().map(|dir| threads.spawn(|| mount(dir))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let said: Vec<_> = said.into_iter().map(Said::done).collect();
    let started = said.iter().filter(|said| said.stderr.contains("started the node agent"));
    assert_eq!(started.count(), 1);
    for dir in &dirs {
        assert_eq!(fs::read(dir.join("f")).unwrap(), b"content");
        dfctl_at(&socket, &["umount", dir.to_str().unwrap()]).done();
    }
    end(&data);
}

#[test]
fn a_socket_that_an_agent_left_behind_is_no_agent() {
    let place = Place::new();
    let mut agent = Agent::solo(&place, "agent");
    agent.kill();
    assert!(agent.socket().exists(), "a killed agent leaves its socket");
    agent.dfctl(&["cache", "ls"]).fails(5, "DFS-4101");
    agent.start_again();
    agent.dfctl(&["cache", "ls"]).done();
}

#[test]
fn somebody_elses_agent_is_refused_and_not_gone_around() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    place.open_to_others();
    for path in [agent.data(), agent.socket().parent().unwrap()] {
        // The directories may be entered, the socket may still not be used.
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let dfctl = lend(&place, "dfctl");
    let mut command = as_nobody(&dfctl);
    command.args(["mounts", "--socket"]).arg(agent.socket());
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("DFS-4102") && err.contains("--solo"), "{err}");
}

#[test]
fn a_directory_that_may_not_be_used_is_a_matter_of_permission() {
    let place = Place::new();
    place.open_to_others();
    let (dfctl, agent) = (lend(&place, "dfctl"), lend(&place, "dfs-fuse"));
    lend(&place, "dfs-cluster");
    let theirs = place.dir("theirs");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    let file = place.path("f");
    fs::write(&file, "x").unwrap();
    let by = |program: &Path, words: &[&str]| Said::by(as_nobody(program).args(words)).unwrap();
    let (file, theirs) = (file.to_str().unwrap(), theirs.to_str().unwrap());
    for words in [
        &["cat", "--solo", file][..],
        &["cat", "--solo", "--data-dir", theirs, file],
        &["mount", "--socket", "/nonexistent/s", file, "/tmp"],
        &["cluster", "up"],
        &["cluster", "up", "--data-dir", theirs],
    ] {
        let said = by(&dfctl, words).fails(4, "DFS-4113");
        assert!(said.stderr.contains("--data-dir"), "{}", said.stderr);
    }
    for data in [theirs, "/nonexistent"] {
        let said = by(&agent, &["--data-dir", data]);
        assert_eq!(said.code, 4, "{}", said.stderr);
    }
}

#[test]
fn members_of_the_sockets_group_take_away_only_what_they_mounted() {
    const OTHER: u32 = NOBODY - 1;
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo_with(&place, "agent", &["--socket-group", &NOBODY.to_string()]);
    place.open_to_others();
    fs::set_permissions(agent.data(), fs::Permissions::from_mode(0o711)).unwrap();
    let dfctl = lend(&place, "dfctl");
    let by = |user: u32, words: &[&str]| {
        let mut command = as_user(user, &dfctl);
        Said::by(command.arg("--socket").arg(agent.socket()).args(words)).unwrap()
    };
    let roots = agent.mount(&origin.url("/d/"), place.dir("roots"));
    let nobodys = owned_by_nobody(&place.dir("nobodys"));
    agent.guard(&nobodys);
    let (roots, nobodys) = (roots.to_str().unwrap(), nobodys.to_str().unwrap());
    by(NOBODY, &["mount", &origin.url("/d/"), roots]).fails(4, "DFS-4111");
    by(NOBODY, &["mount", &origin.url("/d/"), nobodys]).done();

    by(NOBODY, &["umount", roots]).fails(4, "DFS-4111");
    by(OTHER, &["umount", nobodys]).fails(4, "DFS-4111");
    by(OTHER, &["umount", "--lazy", nobodys]).fails(4, "DFS-4111");
    assert!(is_mounted(roots.as_ref()) && is_mounted(nobodys.as_ref()));

    by(NOBODY, &["cat", &format!("{}!f", origin.url("/d/"))]).done();
    by(NOBODY, &["umount", nobodys]).done();
    by(NOBODY, &["cache", "gc", "--target", "0B"]).fails(4, "DFS-4111");
    let tasks = agent.dfctl(&["task", "ls", "--format", "name"]).done().text();
    let task = tasks.lines().next().unwrap();
    by(NOBODY, &["cache", "pin", task]).fails(4, "DFS-4111");
    by(NOBODY, &["task", "rm", "--wait", "--yes", task]).fails(4, "DFS-4111");
    assert!(agent.cached(100_000) > 0, "nothing was evicted");
    by(NOBODY, &["cache", "gc", "--dry-run"]).fails(9, "");
    agent.dfctl(&["umount", roots]).done();
}

#[test]
fn another_user_reads_exported_files_with_own_rights() {
    let place = Place::new();
    place.open_to_others();
    let exported = place.dir("exported");
    for (name, mode) in [("free", 0o644), ("mine", 0o600)] {
        fs::write(exported.join(name), name).unwrap();
        fs::set_permissions(exported.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let group = NOBODY.to_string();
    let words = ["--export", exported.to_str().unwrap(), "--socket-group", &group];
    let agent = Agent::solo_with(&place, "agent", &words);
    fs::set_permissions(agent.data(), fs::Permissions::from_mode(0o711)).unwrap();
    let dfctl = lend(&place, "dfctl");
    let cat = |path: &std::path::Path| {
        let mut command = as_user(NOBODY, &dfctl);
        Said::by(command.arg("--socket").arg(agent.socket()).arg("cat").arg(path)).unwrap()
    };
    assert_eq!(cat(&exported.join("free")).done().stdout, b"free");
    // Also when it is in the cache already.
    let mine = exported.join("mine");
    assert_eq!(agent.dfctl(&["cat", mine.to_str().unwrap()]).done().stdout, b"mine");
    cat(&mine).fails(4, "DFS-2103");
    cat("/etc/hostname".as_ref()).fails(4, "DFS-2103");
}

#[test]
fn a_mount_point_that_becomes_another_while_the_origin_is_asked_is_not_mounted_on() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo_with(&place, "agent", &["--socket-group", &NOBODY.to_string()]);
    place.open_to_others();
    fs::set_permissions(agent.data(), fs::Permissions::from_mode(0o711)).unwrap();
    let dfctl = lend(&place, "dfctl");
    let (roots, home) = (place.dir("roots"), owned_by_nobody(&place.dir("home")));
    let dir = owned_by_nobody(&home.join("mount"));
    for guarded in [&roots, &dir] {
        agent.guard(guarded);
    }
    let gate = origin.inject(Fault::gate());
    let mut command = as_user(NOBODY, &dfctl);
    command.arg("--socket").arg(agent.socket()).args(["mount", &origin.url("/d/")]).arg(&dir);
    let mounting = std::thread::spawn(move || Said::by(&mut command).unwrap());
    gate.wait_struck(1).unwrap();
    fs::remove_dir(&dir).unwrap();
    std::os::unix::fs::symlink(&roots, &dir).unwrap();
    gate.lift();
    mounting.join().unwrap().fails(4, "DFS-4111");
    assert!(!is_mounted(&roots), "root's directory shows what it did");
}

#[test]
fn what_one_user_reads_with_credentials_no_other_user_of_the_agent_reads_without() {
    const OTHER: u32 = NOBODY - 1;
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 100_000)).unwrap();
    // "ada:secret".
    let door = origin.inject(Fault::require_authorization("Basic YWRhOnNlY3JldA=="));
    let agent = Agent::solo_with(&place, "agent", &["--socket-group", &NOBODY.to_string()]);
    place.open_to_others();
    fs::set_permissions(agent.data(), fs::Permissions::from_mode(0o711)).unwrap();
    let dfctl = lend(&place, "dfctl");
    let by = |user: u32, words: &[&str]| {
        let mut command = as_user(user, &dfctl);
        Said::by(command.arg("--socket").arg(agent.socket()).args(words)).unwrap()
    };
    let asked_by = |who: &str| origin.url("/d/").replace("http://", &format!("http://{who}@"));
    let (ada, bob, open) = (asked_by("ada:secret"), asked_by("bob:guess"), origin.url("/d/"));
    by(NOBODY, &["cat", &format!("{ada}!f")]).done();
    assert!(agent.cached(100_000) > 0, "it is here now");

    for url in [&bob, &open] {
        for words in [&["ls", url][..], &["cat", &format!("{url}!f")], &["cat", &format!("{url}f")]]
        {
            let said = by(OTHER, words).fails(4, "DFS-2102");
            assert!(said.stdout.is_empty());
        }
    }
    assert!(door.struck() > 0, "the origin was asked for each of them");
    let listed = |user| by(user, &["task", "ls", "--format", "name"]).done().text();
    assert_eq!(listed(OTHER), "", "what is kept of it is not told either");
    let would_go = ["cache", "gc", "--dry-run", "--target", "0B"];
    assert!(agent.dfctl(&would_go).done().text().contains("would evict"));
    by(OTHER, &would_go).fails(9, "");
    by(OTHER, &["cache", "verify"]).fails(4, "DFS-4111");
    agent.dfctl(&["cache", "verify"]).done();
    assert!(!agent.dfctl(&["task", "ls", "--format", "name"]).done().text().is_empty());

    let dir = owned_by_nobody(&place.dir("mount"));
    agent.guard(&dir);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let mount = dir.to_str().unwrap();
    let reads = |user: u32| {
        let mut cat = as_user(user, "cat".as_ref());
        cat.arg(dir.join("f")).output().unwrap().stdout.len()
    };
    by(NOBODY, &["mount", &ada, mount]).done();
    assert_eq!((reads(NOBODY), reads(OTHER)), (100_000, 0), "it is for who mounted it");
    let mounts = |user| by(user, &["mounts", "--format", "name"]).done().text();
    assert_eq!((mounts(NOBODY).trim_end(), mounts(OTHER).as_str()), (mount, ""));
    let said = by(OTHER, &["mounts", mount]).fails(4, "DFS-4111");
    let told = format!("{}{}", said.text(), said.stderr);
    assert!(told.contains("is another user's"), "{told}");
    let typed = format!(" {}", agent.socket().display());
    for secret in [&*open, agent.data().to_str().unwrap(), "another node agent"] {
        assert!(!told.replace(&typed, "").contains(secret), "{secret}: {told}");
    }
    by(NOBODY, &["umount", mount]).done();
    by(NOBODY, &["mount", "--allow-other", &ada, mount]).done();
    assert_eq!((reads(NOBODY), reads(OTHER)), (100_000, 100_000), "unless that is asked for");
    by(NOBODY, &["umount", mount]).done();
}

/// A program of ours where everybody may run it.
pub fn lend(place: &Place, name: &str) -> PathBuf {
    let lent = place.dir("bin").join(name);
    fs::copy(binary(name), &lent).unwrap();
    fs::set_permissions(&lent, fs::Permissions::from_mode(0o755)).unwrap();
    lent
}

/// In a mount namespace of its own, where the device is open to users as udev makes it, and where agents of the
/// machine listen nowhere; `$PREPARE` is done by root before.
const OPEN_DEVICE: &str = r#"
    mknod "$DEVICE" c 10 229
    chmod 666 "$DEVICE"
    mount --bind "$DEVICE" /dev/fuse
    mount -t tmpfs -o mode=0755 dfs-e2e /run
    sh -ec "$PREPARE"
    exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec "$SCRIPT"
"#;

const MOUNT_READ_UNMOUNT: &str = r#"
    "$BIN/dfctl" mount "$URL" "$DIR"
    cmp "$DIR/f" "$SOURCE/f"
    grep -F " $DIR " /proc/self/mountinfo
    "$BIN/dfctl" mounts --format name
    test -S "$XDG_RUNTIME_DIR/dfs/agent.sock"
    "$BIN/dfctl" umount "$DIR"
    ! grep -F " $DIR " /proc/self/mountinfo
    cat "$XDG_DATA_HOME/dfs/agent/run.json"
"#;

/// What a user without an agent of their own meets.
struct UserAlone {
    source: PathBuf,
    home: PathBuf,
    dir: PathBuf,
    place: Place,
}

impl UserAlone {
    fn new() -> Self {
        let place = Place::new();
        place.open_to_others();
        lend(&place, "dfctl");
        lend(&place, "dfs-fuse");
        let source = place.dir("source");
        trees::put(&source.join("f"), &noise(1, 700_000));
        let home = owned_by_nobody(&place.dir("home"));
        let dir = owned_by_nobody(&place.dir("mount"));
        Self { source, home, dir, place }
    }

    /// What the user's `script` wrote to both outputs.
    fn run(&self, prepare: &str, script: &str) -> (String, String) {
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", OPEN_DEVICE])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("DEVICE", self.place.path("fuse"))
            .env("PREPARE", prepare)
            .env("SCRIPT", script)
            .env("BIN", self.place.path("bin"))
            .env("URL", format!("file://{}/", self.source.display()))
            .env("SOURCE", &self.source)
            .env("DIR", &self.dir)
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", owned_by_nobody(&self.home.join("run")))
            .env("XDG_DATA_HOME", owned_by_nobody(&self.home.join("data")))
            // An agent that is killed stays dead.
            .env("DFS_HOLDER", "off")
            .current_dir("/")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{out}\n{err}");
        (out, err)
    }

    /// The agent that announced itself in `out` ends by itself.
    fn agent_goes(&self, out: &str) {
        let run = &out[out.find('{').unwrap()..];
        let run: serde_json::Value = serde_json::from_str(run).unwrap();
        let pid = run["pid"].to_string();
        until("the agent has gone", || !runs(&pid));
        assert!(!self.home.join("data/dfs/agent/run.json").exists(), "it left cleanly");
    }
}

#[test]
fn a_user_mounts_without_an_agent_and_the_one_that_is_started_goes_after_the_last_unmount() {
    let user = UserAlone::new();
    let (out, err) = user.run("", MOUNT_READ_UNMOUNT);
    assert!(err.contains("started the node agent") && !err.contains("closed"), "{err}");
    let mounted = out.lines().find(|line| line.contains("fuse.dfs")).unwrap();
    for option in ["ro", "nosuid", "nodev", &format!("user_id={NOBODY}")] {
        assert!(mounted.contains(option), "{option}: {mounted}");
    }
    assert!(out.lines().any(|line| Path::new(line) == user.dir), "{out}");
    user.agent_goes(&out);
}

#[test]
fn an_agent_of_the_machine_that_is_closed_to_a_user_is_none_for_them() {
    let user = UserAlone::new();
    let script = format!(
        "{}{MOUNT_READ_UNMOUNT}",
        r#"
        "$BIN/dfctl" cat "$URL!f" > "$HOME/f"
        cmp "$HOME/f" "$SOURCE/f"
        "$BIN/dfctl" cache ls && exit 1
        ! "$BIN/dfctl" mounts --socket /run/dfs/agent.sock
        "#
    );
    let (out, err) = user.run("mkdir -m 0700 /run/dfs", &script);
    assert!(err.contains("/run/dfs/agent.sock is closed to this user"), "{err}");
    assert!(err.contains("straight from the origin"), "{err}");
    assert!(err.contains("DFS-4101") && err.contains("DFS-4102"), "{err}");
    assert!(err.contains("started the node agent"), "{err}");
    user.agent_goes(&out);
}

const ASK_THE_WRONG_AGENT: &str = r#"
    mkdir -m 0700 "$HOME/other"
    "$BIN/dfs-fuse" --data-dir "$HOME/other" --port-pieces 0 --port-metrics 0 2>/dev/null &
    other=$!
    trap 'kill $other' EXIT
    until "$BIN/dfctl" --socket "$HOME/other/agent.sock" mounts >/dev/null 2>&1; do :; done
    "$BIN/dfctl" mount "$URL" "$DIR"
    "$BIN/dfctl" --socket "$HOME/other/agent.sock" umount "$DIR" && exit 1
    "$BIN/dfctl" umount "$DIR"
    "$BIN/dfctl" mount "$URL" "$DIR"
    kill -9 "$(grep -o '"pid": [0-9]*' "$XDG_DATA_HOME/dfs/agent/run.json" | cut -d' ' -f2)"
    until ! ls "$DIR" >/dev/null 2>&1; do :; done
    "$BIN/dfctl" umount "$DIR"
    ! grep -F " $DIR " /proc/self/mountinfo
"#;

#[test]
fn the_agent_that_has_a_mount_is_named_and_what_it_left_when_it_died_is_cleared_without_it() {
    let user = UserAlone::new();
    let (out, err) = user.run("", ASK_THE_WRONG_AGENT);
    let dir = user.dir.display();
    let socket = user.home.join("run/dfs/agent.sock");
    let way = format!("dfctl --socket {} umount {dir}", socket.display());
    assert!(err.contains("DFS-5106") && err.contains(&way), "{err}");
    assert!(out.contains(&format!("unmounted  {dir}, whose agent is gone")), "{out}");
}

fn owned_by_nobody(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    path.to_owned()
}

#[test]
fn a_configuration_that_is_no_file_or_has_no_end_is_refused_at_once() {
    let place = Place::new();
    let home = place.dir("home");
    let dir = place.dir("home/.config/dfs");
    let (file, draft) = (dir.join("dfctl.toml"), dir.join(".dfctl.toml.dfctl-draft"));
    let run = |words: &[&str]| {
        let mut command = Command::new(binary("dfctl"));
        command.env_clear().env("HOME", &home).args(words);
        Running::start(command).wait()
    };
    let refused = |why: &str| {
        for words in [&["config", "get"][..], &["config", "set", "color", "never"], &["version"]] {
            let said = run(words);
            assert!([1, 2].contains(&said.code), "{words:?}: {}", said.code);
            assert!(said.stderr.contains(why), "no '{why}' in {}", said.stderr);
            assert_eq!(said.stderr.matches("error:").count(), 1, "{}", said.stderr);
        }
    };
    let made = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    refused("dfctl.toml");
    fs::remove_file(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    refused("dfctl.toml");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused("dfctl.toml");
    fs::remove_dir(&file).unwrap();
    fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    refused("dfctl.toml");
    fs::write(&file, "color = 'ne").unwrap();
    refused("dfctl.toml:1");
    fs::write(&file, "colour = 'never'").unwrap();
    refused("unknown key");
    fs::write(&file, "[dfs-fues]\n").unwrap();
    refused("the key is probably dfs-fuse");
    fs::remove_file(&file).unwrap();
    // A link that leads nowhere stays one; one to nothing at all is a configuration of nothing.
    symlink(place.path("not there"), &file).unwrap();
    run(&["config", "set", "color", "never"]).fails(1, "DFS-1102");
    assert!(file.is_symlink());
    fs::remove_file(&file).unwrap();
    symlink("/dev/null", &file).unwrap();
    run(&["config", "set", "color", "never"]).fails(1, "DFS-1102");
    assert!(file.is_symlink());
    run(&["config", "get"]).done();
    fs::remove_file(&file).unwrap();
    // Killed at any moment, the file is the one from before or the new one, and nothing piles up.
    run(&["config", "set", "color", "never"]).done();
    let begun = Instant::now();
    let mut hits = 0;
    while hits < 5 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{hits} kills hit the middle");
        let before = fs::read_to_string(&file).unwrap();
        let value = if before.contains("never") { "always" } else { "never" };
        // One that an earlier kill left shows nothing of this run.
        let _ = fs::remove_file(&draft);
        let mut command = Command::new(binary("dfctl"));
        command.env_clear().env("HOME", &home).args(["config", "set", "color", value]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !draft.exists() && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        hits += usize::from(draft.exists());
        let text = fs::read_to_string(&file).unwrap();
        assert!(["color = \"always\"\n", "color = \"never\"\n"].contains(&&text[..]), "{text}");
    }
    assert!(draft.exists(), "the last kill left it to who comes next");
    run(&["config", "set", "color", "auto"]).done();
    assert!(!draft.exists() && fs::read_dir(&dir).unwrap().count() == 1);
}

#[test]
fn every_line_on_the_standard_error_is_an_object_for_who_asked_for_json() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for (words, code) in [
        (vec!["get", pipe, "--bogus"], "DFS-1001"),
        (vec!["get"], "DFS-1001"),
        (vec!["cat", pipe], "DFS-2107"),
        (vec!["--solo", "cat", pipe], "DFS-2107"),
    ] {
        let words: Vec<_> = words.into_iter().chain(["--format", "json", "-v"]).collect();
        let said = agent.dfctl(&words);
        let lines = said.stderr.lines().map(|line| serde_json::from_str(line).expect(line));
        let lines: Vec<serde_json::Value> = lines.collect();
        assert_eq!(lines.last().unwrap()["error"]["code"], code, "{}", said.stderr);
        assert!(lines.iter().all(|line| line["error"].is_object() || line["note"].is_string()));
    }
}
