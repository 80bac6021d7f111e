//! What `dfctl doctor` finds: each check fails for a real reason, and what is mended is whole again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Body, Cluster, Dfctl, Fault, Origin};
use serde_json::Value;

use crate::support::{
    Agent, Expected, NOBODY, Place, Tmpfs, as_nobody, binaries, binary, is_mounted, secluded, until,
};

/// What it said of one thing: how it is, and the code.
fn told(said: &Said, check: &str) -> Vec<(String, String, String)> {
    let items = said.json().unwrap_or_else(|error| panic!("{error}: {}", said.stderr));
    let items = items["items"].as_array().unwrap().clone();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let of = items.iter().filter(|item| item["check"] == check);
    of.map(|item| (text(item, "level"), text(item, "code"), text(item, "message"))).collect()
}

#[track_caller]
fn finds(said: &Said, check: &str, level: &str, code: &str) {
    let told = told(said, check);
    assert!(told.iter().any(|one| (one.0.as_str(), one.1.as_str()) == (level, code)), "{told:?}");
    let exit = i32::from(said.stdout_has("\"fail\""));
    assert_eq!(said.code, exit, "{}", said.stderr);
}

trait Has {
    fn stdout_has(&self, text: &str) -> bool;
}

impl Has for Said {
    fn stdout_has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.stdout).contains(text)
    }
}

/// `dfctl doctor --solo` on data of its own.
fn doctor(place: &Place, words: &[&str]) -> Said {
    let mut command = Dfctl::new(&binaries()).command().unwrap();
    command.args(["doctor", "--format", "json", "--solo", "--data-dir"]).arg(place.path("data"));
    Said::by(&mut secluded(place.root(), command.args(words))).unwrap()
}

/// The same after `prepare`, by `runner`.
fn prepared(place: &Place, prepare: &str, runner: &str) -> Said {
    let script = format!(
        "set -e; {prepare}; exec {runner} {} doctor --format json --solo --data-dir {}",
        binary("dfctl").display(),
        place.path("data").display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("HOME", "/nonexistent");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    Said::by(&mut secluded(place.root(), &command)).unwrap()
}

#[test]
fn what_others_have_mounted_is_not_looked_at_by_these_tests() {
    let (place, others) = (Place::new(), Place::new());
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let mut other = Agent::solo_with(&others, "agent", &["--holder", "off"]);
    let dir = other.mount(&origin.url("/d/"), others.dir("mount"));
    other.kill();
    let said = doctor(&place, &["--fix"]);
    finds(&said, "mounts", "ok", "");
    assert!(!said.stdout_has(dir.to_str().unwrap()), "{}", said.text());
    assert!(is_mounted(&dir), "it is theirs to take away");
}

#[test]
fn a_machine_without_what_fuse_needs_is_told_so() {
    let place = Place::new();
    let said = prepared(&place, "mount --bind /etc/hostname /dev/fuse", "");
    finds(&said, "fuse device", "fail", "DFS-6101");
    let closed = format!(
        "touch {0}; cp -a /dev/fuse {0}.dev; chmod 600 {0}.dev; mount --bind {0}.dev /dev/fuse",
        place.path("fuse").display()
    );
    let nobody = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups");
    place.open_to_others();
    let lent = place.dir("bin").join("dfctl");
    fs::copy(binary("dfctl"), &lent).unwrap();
    let script = format!(
        "set -e; {closed}; exec {nobody} {} doctor --solo --data-dir /nonexistent",
        lent.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("HOME", "/nonexistent");
    let said = Said::by(&mut secluded(place.root(), &command)).unwrap();
    assert!(said.text().contains("try  sudo chmod 666 /dev/fuse"), "{}", said.text());
    let said = prepared(&place, "mount --bind /etc/hostname /usr/bin/fusermount3", "");
    finds(&said, "fusermount3", "warn", "DFS-6102");
    let none = "chmod 644 $0; mount --bind $0 /usr/bin/fusermount3";
    let none = none.replace("$0", place.path("none").to_str().unwrap());
    fs::write(place.path("none"), "").unwrap();
    finds(&prepared(&place, &none, ""), "fusermount3", "warn", "DFS-6102");
    let said = prepared(&place, ":", "setarch $(uname -m) --uname-2.6");
    finds(&said, "kernel", "warn", "DFS-6103");
    let said = prepared(&place, ":", "prlimit --nofile=256");
    finds(&said, "open files", "warn", "DFS-6112");
}

#[test]
fn a_user_is_told_who_may_look_in() {
    let place = Place::new();
    place.open_to_others();
    let lent = place.dir("bin").join("dfctl");
    fs::copy(binary("dfctl"), &lent).unwrap();
    let runs = |line: &str| {
        let script = format!(
            "echo '{line}' > {0}; mount --bind {0} /etc/fuse.conf; exec setpriv --reuid {NOBODY} \
             --regid {NOBODY} --clear-groups {1} doctor --format json --solo --data-dir /nonexistent/data",
            place.path("fuse.conf").display(),
            lent.display(),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("HOME", "/nonexistent");
        Said::by(&mut secluded(place.root(), &command)).unwrap()
    };
    finds(&runs("# user_allow_other"), "allow_other", "warn", "DFS-6104");
    let said = runs("user_allow_other");
    finds(&said, "allow_other", "ok", "");
    finds(&said, "data directory", "fail", "DFS-4113");
    finds(&said, "programs", "fail", "DFS-4106");
}

#[test]
fn a_data_directory_is_looked_at_as_it_is() {
    let place = Place::new();
    let data = place.dir("data");
    let small = Tmpfs::mount(data.clone(), 300 << 20);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let said = doctor(&place, &[]);
    finds(&said, "data directory", "ok", "");
    finds(&said, "room", "warn", "DFS-6106");
    finds(&said, "reflink", "warn", "DFS-5104");
    small.resize(20 << 20);
    finds(&doctor(&place, &[]), "room", "fail", "DFS-6106");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    finds(&doctor(&place, &[]), "data directory", "fail", "DFS-4113");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let remount = ["-o", "remount,ro"];
    assert!(Command::new("mount").args(remount).arg(&data).status().unwrap().success());
    finds(&doctor(&place, &[]), "data directory", "fail", "DFS-6105");
    drop(small);
    fs::remove_dir(&data).unwrap();
    fs::write(&data, "a file").unwrap();
    finds(&doctor(&place, &[]), "data directory", "fail", "DFS-6105");
}

#[test]
fn what_a_killed_command_left_is_found_and_taken_away() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 5_000_000)).unwrap();
    let stalled = origin.inject(Fault::stall_after(1_000_000).on("/f"));
    let mut command = Dfctl::new(&binaries()).command().unwrap();
    command.args(["--solo", "--data-dir"]).arg(place.path("data"));
    let mut child = command
        .args(["cat", &origin.url("/f")])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("bytes are in flight", || stalled.struck() > 0);
    finds(&doctor(&place, &[]), "leftovers", "ok", "");
    child.kill().unwrap();
    child.wait().unwrap();
    finds(&doctor(&place, &[]), "leftovers", "warn", "DFS-6113");
    // What a user keeps there is theirs, however private and whatever it is called.
    for name in ["mine", "4711"] {
        let own = place.dir(&format!("data/solo/{name}"));
        fs::write(own.join("precious"), b"precious").unwrap();
        fs::set_permissions(own, fs::Permissions::from_mode(0o700)).unwrap();
    }
    // One that was killed before anything was in it.
    place.dir("data/solo/4712");
    finds(&doctor(&place, &["--fix"]), "leftovers", "fixed", "DFS-6113");
    let left = crate::support::trees::names(&place.path("data/solo"));
    assert_eq!(left, ["4711", "mine"]);
    finds(&doctor(&place, &[]), "leftovers", "ok", "");
}

#[test]
fn what_cannot_be_taken_away_is_said_to_be_there_still() {
    let place = Place::new();
    place.open_to_others();
    let data = place.dir("data");
    let closed = place.dir("data/solo/4711/closed");
    fs::write(closed.join("file"), b"x").unwrap();
    fs::write(place.path("data/solo/4711/lock"), b"").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    for dir in ["data", "data/solo", "data/solo/4711", "data/solo/4711/lock"] {
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(place.path(dir), mode).unwrap();
        std::os::unix::fs::chown(place.path(dir), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for _ in 0..2 {
        let mut command = as_nobody(&binary("dfctl"));
        command.args(["--solo", "--data-dir"]).arg(&data);
        let said = Said::by(command.args(["doctor", "--fix", "--format", "json"])).unwrap();
        finds(&said, "leftovers", "warn", "DFS-6113");
        assert!(said.stdout_has("cannot be removed"), "{}", said.text());
    }
}

#[test]
fn a_dead_mount_is_found_and_taken_away() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let mut agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let here = |said: &Said| {
        let dir = dir.to_str().unwrap();
        told(said, "mounts").into_iter().find(|one| one.2.contains(dir))
    };
    assert_eq!(here(&doctor(&place, &[])), None, "it is served");
    agent.kill();
    let (level, code, _) = here(&doctor(&place, &[])).unwrap();
    assert_eq!((level.as_str(), code.as_str()), ("fail", "DFS-6107"));
    assert!(is_mounted(&dir), "looking takes nothing away");
    let fix = format!(
        "sh -c '\"$@\" --fix; grep -q {} /proc/self/mountinfo || echo gone >&2' --",
        dir.display()
    );
    let said = prepared(&place, ":", &fix);
    let (level, ..) = here(&said).unwrap();
    assert_eq!(level, "fixed");
    assert!(said.stderr.contains("gone"), "{}", said.stderr);
}

#[test]
fn an_agent_that_hangs_and_a_cluster_that_is_gone_are_told() {
    let place = Place::new();
    let mut cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let looked = || of_agent(&agent, &[]);
    until("the agent is in its cluster", || {
        told(&looked(), "cluster").iter().all(|one| one.0 == "ok")
    });
    let said = looked();
    finds(&said, "agent", "ok", "");
    finds(&said, "cluster", "ok", "");
    assert!(told(&said, "clock").iter().any(|one| one.2.contains("the cluster")), "{said:?}");
    let address = cluster.address().unwrap().to_string();
    let status = agent.dfctl(&["cluster", "status", "--cluster", &address]);
    assert!(status.text().contains(&address) && status.code == 0, "{status:?}");

    agent.node.process().freeze();
    finds(&looked(), "agent", "fail", "DFS-6108");
    agent.node.process().thaw();
    cluster.process_mut().kill();
    finds(&looked(), "cluster", "fail", "DFS-6110");
    let status = agent.dfctl(&["cluster", "status", "--cluster", &address]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stderr.contains("DFS-6110"), "{status:?}");
    let mut command = Dfctl::new(&binaries()).command().unwrap();
    command.args(["--socket", "/nonexistent/sock", "doctor", "--format", "json"]);
    let nobody = Said::by(&mut secluded(place.root(), &command)).unwrap();
    finds(&nobody, "agent", "fail", "DFS-4101");
}

#[test]
fn a_clock_that_lags_behind_and_a_wrong_configuration_are_told() {
    let place = Place::new();
    let copy = place.dir("bin").join("dfctl");
    fs::copy(binary("dfctl"), &copy).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 86_400);
    fs::File::options().write(true).open(&copy).unwrap().set_modified(later).unwrap();
    let config = place.dir("config/dfs");
    fs::write(config.join("dfctl.toml"), "solo = true\ncolour = 'never'\n").unwrap();
    let mut command = Command::new(&copy);
    command.args(["doctor", "--format", "json"]).env("XDG_CONFIG_HOME", place.path("config"));
    command.env("HOME", place.root() as &Path);
    let said = Said::by(&mut secluded(place.root(), &command)).unwrap();
    finds(&said, "clock", "fail", "DFS-6111");
    finds(&said, "configuration", "fail", "DFS-1003");
    assert!(told(&said, "configuration")[0].2.contains("dfctl.toml:2: "), "{said:?}");
}

/// What was done about one thing, or would be.
fn steps(said: &Said, check: &str) -> Vec<String> {
    let items = said.json().unwrap()["items"].as_array().unwrap().clone();
    let of = items.iter().filter(|item| item["check"] == check);
    let steps = of.flat_map(|item| item["steps"].as_array().unwrap().clone());
    steps.map(|step| step.as_str().unwrap().to_owned()).collect()
}

/// `dfctl doctor` on the data of an agent of a test.
fn of_agent(agent: &Agent, words: &[&str]) -> Said {
    let mut command = Command::new(binary("dfctl"));
    command.args(["doctor", "--format", "json", "--data-dir"]).arg(agent.data());
    command.arg("--socket").arg(agent.socket()).env("HOME", "/nonexistent").args(words);
    // Its mounts lie beside its data.
    Said::by(&mut secluded(agent.data().parent().unwrap(), &command)).unwrap()
}

#[test]
fn a_socket_that_a_killed_agent_left_is_removed_and_never_one_that_is_listened_on() {
    let place = Place::new();
    let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
    assert!(told(&of_agent(&agent, &["--fix"]), "sockets").is_empty());
    assert!(agent.socket().exists());
    agent.kill();
    assert!(agent.socket().exists(), "it was killed");
    let said = of_agent(&agent, &[]);
    finds(&said, "sockets", "warn", "DFS-6115");
    let said = of_agent(&agent, &["--fix", "--dry-run"]);
    assert_eq!(steps(&said, "sockets"), [format!("would  rm {}", agent.socket().display())]);
    assert!(agent.socket().exists(), "it was only said");
    let said = of_agent(&agent, &["--fix"]);
    finds(&said, "sockets", "fixed", "DFS-6115");
    assert_eq!(steps(&said, "sockets"), [format!("did  rm {}", agent.socket().display())]);
    assert!(!agent.socket().exists());
    agent.start_again();
}

#[test]
fn memory_of_an_agent_that_never_came_back_is_given_back_and_no_other() {
    let (place, origin) = (Place::new(), Origin::of("/f", Body::noise(1, 3 << 20)).unwrap());
    let words = ["--holder", "off", "--cache-medium", "memory", "--cache-memory", "64MiB"];
    let mut agent = Agent::solo_with(&place, "agent", &words);
    agent.dfctl(&["get", "-o", "/dev/null", "--force", &origin.url("/f")]).done();
    let data = agent.data().canonicalize().unwrap();
    let own = || {
        let places = fs::read_dir("/dev/shm").unwrap().map(|place| place.unwrap().path());
        let is_own = |place: &PathBuf| {
            fs::read(place.join("data-dir"))
                .is_ok_and(|of| of == data.as_os_str().as_encoded_bytes())
        };
        places.into_iter().find(is_own)
    };
    let of_own = |said: &Said| {
        let steps: Vec<_> = steps(said, "memory");
        let dir = own().map(|dir| dir.display().to_string()).unwrap_or_default();
        steps.into_iter().any(|step| step == format!("would  rm -r {dir}"))
    };
    let looked = || of_agent(&agent, &["--fix", "--dry-run"]);
    assert!(own().is_some() && !of_own(&looked()), "somebody works with it");
    agent.kill();
    assert!(of_own(&of_agent(&agent, &["--fix", "--dry-run"])));
    let said = of_agent(&agent, &[]);
    finds(&said, "memory", "warn", "DFS-6118");
    assert!(own().is_some(), "it was only said");
    agent.start_again();
    let again = of_agent(&agent, &["--fix"]);
    assert!(told(&again, "memory").is_empty() && own().is_some());
    agent.kill();
    finds(&of_agent(&agent, &["--fix"]), "memory", "fixed", "DFS-6118");
    assert_eq!(own(), None);
    agent.start_again();
}

#[test]
fn what_an_agent_cannot_use_in_its_store_is_made_its_own_again() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 300_000)).unwrap();
    let mut agent = Agent::solo(&place, "agent");
    agent.dfctl(&["cat", &origin.url("/f")]).done();
    finds(&of_agent(&agent, &[]), "store", "ok", "");
    agent.terminate();
    let mut shelves = fs::read_dir(agent.data().join("tasks")).unwrap();
    let shelf = shelves.next().unwrap().unwrap().path();
    let task = fs::read_dir(&shelf).unwrap().next().unwrap().unwrap().path();
    std::os::unix::fs::chown(task.join("content"), Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(task.join("state"), fs::Permissions::from_mode(0o000)).unwrap();
    let said = of_agent(&agent, &[]);
    finds(&said, "store", "fail", "DFS-6117");
    assert!(told(&said, "store")[0].2.starts_with("2 files"), "{said:?}");
    let said = of_agent(&agent, &["--fix"]);
    finds(&said, "store", "fixed", "DFS-6117");
    let mut done = steps(&said, "store");
    done.sort();
    let (content, state) = (task.join("content"), task.join("state"));
    let own = format!("did  chown 0:0 {}", content.display());
    assert_eq!(done, [format!("did  chmod 600 {}", state.display()), own]);
    finds(&of_agent(&agent, &[]), "store", "ok", "");
    agent.start_again();
    agent.dfctl(&["cache", "verify"]).done();
    drop(origin);
    assert_eq!(agent.cached(300_000), 300_000);
}

#[test]
fn another_users_store_is_that_users_to_mend() {
    let place = Place::new();
    place.open_to_others();
    let data = place.dir("data");
    let task = place.dir(&format!("data/tasks/ab/{}", "ab".repeat(32)));
    fs::write(task.join("content"), b"x").unwrap();
    for dir in ["data", "data/tasks", "data/tasks/ab"] {
        std::os::unix::fs::chown(place.path(dir), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(place.path(dir), fs::Permissions::from_mode(0o700)).unwrap();
    }
    // What is root's in there a user can only tell.
    let mut command = as_nobody(&binary("dfctl"));
    command.args(["--solo", "--data-dir"]).arg(&data);
    let said = Said::by(command.args(["doctor", "--fix", "--format", "json"])).unwrap();
    finds(&said, "store", "fail", "DFS-6117");
    assert!(said.stdout_has("sudo chown -R 65534:65534"), "{}", said.text());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(&task).unwrap().uid(), 0);
    let said = doctor(&place, &["--fix"]);
    finds(&said, "store", "fixed", "DFS-6117");
    assert_eq!(fs::metadata(task.join("content")).unwrap().uid(), NOBODY);
}

#[test]
fn what_is_half_made_goes_while_no_agent_works_there() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 300_000)).unwrap();
    let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
    agent.dfctl(&["cat", &origin.url("/f")]).done();
    let id = "cd".repeat(32);
    let half = agent.data().join("tasks/cd").join(&id);
    let trash = agent.data().join("trash").join(format!("{id}.1"));
    fs::create_dir_all(&half).unwrap();
    fs::create_dir_all(&trash).unwrap();
    fs::write(trash.join("content"), b"x").unwrap();
    assert!(told(&of_agent(&agent, &["--fix"]), "half-made").is_empty(), "an agent works there");
    assert!(half.exists() && trash.exists());
    agent.kill();
    finds(&of_agent(&agent, &[]), "half-made", "warn", "DFS-6116");
    let said = of_agent(&agent, &["--fix"]);
    finds(&said, "half-made", "fixed", "DFS-6116");
    assert!(!half.exists() && !trash.exists());
    agent.start_again();
    assert_eq!(agent.cached(300_000), 300_000, "what is whole stays");
}

#[test]
fn a_data_directory_that_others_may_enter_is_closed_where_an_agent_worked_in_it() {
    let place = Place::new();
    let data = place.dir("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    finds(&doctor(&place, &["--fix"]), "data directory", "fail", "DFS-4113");
    fs::write(data.join("lock"), b"").unwrap();
    finds(&doctor(&place, &["--fix"]), "data directory", "fixed", "DFS-4113");
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    finds(&doctor(&place, &[]), "data directory", "ok", "");
}

#[test]
fn a_mount_of_the_kernels_that_no_agent_knows_is_taken_away_unless_it_is_used() {
    let place = Place::new();
    let source = place.dir("source");
    fs::write(source.join("f"), vec![7; 100_000]).unwrap();
    let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
    let url = format!("file://{}/", source.display());
    let dir = agent.mount(&url, place.dir("mount"));
    fs::read(dir.join("f")).unwrap();
    agent.dfctl(&["umount", dir.to_str().unwrap()]).done();
    let dir = agent.mount_in("kernel", &url, dir);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(dir.to_str().unwrap())).unwrap();
    assert!(line.contains(" erofs "), "{line}");
    agent.kill();
    let here = |said: &Said| {
        let found = told(said, "mounts");
        found.into_iter().find(|one| one.2.contains(dir.to_str().unwrap()))
    };
    assert_eq!(here(&of_agent(&agent, &[])), None, "it is written down for the next agent");
    fs::remove_dir_all(agent.data().join("mounts")).unwrap();
    let (level, code, _) = here(&of_agent(&agent, &[])).unwrap();
    assert_eq!((level.as_str(), code.as_str()), ("warn", "DFS-6114"));
    let used = format!("sh -c 'exec 9< {}/f; exec \"$@\" --fix' --", dir.display());
    let said = prepared(&place, ":", &used);
    assert!(here(&said).is_some_and(|one| one.0 == "warn"), "a file of it is open: {said:?}");
    assert!(steps(&said, "mounts").iter().any(|step| step.contains("is in use")), "{said:?}");
    let said = prepared(&place, ":", "sh -c 'exec \"$@\" --fix' --");
    assert!(here(&said).is_some_and(|one| one.0 == "fixed"), "{said:?}");
}

#[test]
fn whoever_runs_into_a_dead_mount_is_told_the_same() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let mut agent = Agent::solo_with(&place, "agent", &["--holder", "off"]);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    agent.kill();
    agent.start_again();
    let shown = dir.to_str().unwrap();
    let way = format!("dfctl umount {shown}      or all that are dead: dfctl doctor --fix");
    let url = origin.url("/d/");
    let file = dir.join("f");
    let told = |said: Said| {
        let stderr = said.stderr.replace(&format!("--socket {} ", agent.socket().display()), "");
        assert!(stderr.contains(&way), "{}: {stderr}", said.line);
    };
    told(agent.dfctl(&["mounts", shown]));
    told(agent.dfctl(&["cache", "ls", file.to_str().unwrap()]));
    told(agent.dfctl(&["why", file.to_str().unwrap()]));
    let said = of_agent(&agent, &[]);
    assert!(said.text().contains(&way), "{}", said.text());
    // Whoever mounts there again means that.
    let said = agent.dfctl(&["mount", &url, shown]).done();
    assert!(said.stderr.contains("whose agent is gone was on"), "{}", said.stderr);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 1_000);
    agent.dfctl(&["umount", shown]).done();
    assert!(!is_mounted(&dir));
}
