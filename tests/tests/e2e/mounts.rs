//! What a mount shows and refuses, and whose it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::origin::Injected;
use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Origin};
use rustix::fs::{Advice, fadvise};

use crate::footprint::own_memory;
use crate::support::servers::Server;
use crate::support::trees::{self, noise};
use crate::support::{Agent, Expected, Place, Tmpfs, all, binary, dfctl_at, is_mounted, until};

const MIB: u64 = 1 << 20;

#[test]
fn a_mounted_directory_is_the_directory() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    trees::rich(&source.join("rich"));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&file_url(&source), place.dir("mount"));
    trees::assert_same(&dir, &source);
    trees::assert_same_attributes(&dir, &source);
}

#[test]
fn a_mounted_archive_is_the_tree_inside() {
    let place = Place::new();
    let source = place.dir("source");
    trees::rich(&source);
    trees::varied(&source.join("varied"));
    let tar = place.path("rich.tar");
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&source).arg(".").status();
    assert!(packed.unwrap().success());
    let agent = Agent::solo(&place, "agent");
    let url = file_url(&tar);
    let dir = agent.mount(&url, place.dir("tree"));
    trees::assert_same(&dir, &source);
    trees::assert_same_attributes(&dir, &source);

    let file = place.dir("file");
    agent.guard(&file);
    agent.dfctl(&["mount", "--as", "file", &url, file.to_str().unwrap()]).done();
    assert!(fs::read(file.join("rich.tar")).unwrap() == fs::read(&tar).unwrap());
}

#[test]
fn a_part_of_an_archive_is_told_by_what_is_mounted_of_it() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("large"), &noise(1, 1_000_000));
    trees::put(&source.join("part/one"), &noise(2, 70_001));
    trees::put(&source.join("part/below/two"), &noise(3, 100));
    fs::hard_link(source.join("part/one"), source.join("part/same")).unwrap();
    let tar = place.path("all.tar");
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&source).arg(".").status();
    assert!(packed.unwrap().success());
    let agent = Agent::solo(&place, "agent");
    let all = agent.mount(&file_url(&tar), place.dir("all"));
    trees::assert_same(&all, &source);
    let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let mount = &listed["items"][0];
    let content = 1_000_000 + 70_001 + 100;
    // Headers and what fills blocks up are no file's.
    assert_eq!([&mount["content_bytes"], &mount["cached_bytes"]], [content, content], "{mount}");
    agent.dfctl(&["umount", all.to_str().unwrap()]).done();
    let dir = agent.mount(&format!("{}!part", file_url(&tar)), place.dir("part"));
    let told = || {
        let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
        let mount = listed["items"][0].clone();
        let [cached, ledger] = [&mount["cached_bytes"], &mount["ledger"]["total"]];
        assert_eq!(cached, ledger, "{mount}");
        [&mount["files"], &mount["content_bytes"], cached].map(|number| number.as_u64().unwrap())
    };
    assert_eq!(told()[..2], [2, 70_101]);
    trees::assert_same(&dir, &source.join("part"));
    assert_eq!(told(), [2, 70_101, 70_101]);
    let file = place.dir("file");
    agent.guard(&file);
    let one = format!("{}!part/below/two", file_url(&tar));
    let said = agent.dfctl(&["mount", &one, file.to_str().unwrap()]).done();
    assert!(said.text().contains("1 file, 100 B"), "{}", said.text());
}

#[test]
fn a_single_file_is_mounted_as_a_directory_with_it() {
    let place = Place::new();
    let bytes = noise(1, 3_000_001);
    trees::put(&place.path("source/model.bin"), &bytes);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&file_url(&place.path("source/model.bin")), place.dir("mount"));
    let names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model.bin"]);
    assert!(fs::read(dir.join("model.bin")).unwrap() == bytes);
}

#[test]
fn programs_run_and_map_files_of_a_mount() {
    let place = Place::new();
    let source = place.dir("source");
    trees::rich(&source);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&file_url(&source), place.dir("mount"));
    assert!(Command::new(dir.join("bin/true")).status().unwrap().success());
    let said = Command::new(dir.join("bin/hello")).arg("world").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "hello from hello world\n");
    assert!(mapped(&dir.join("data/a.bin")) == fs::read(source.join("data/a.bin")).unwrap());
}

#[allow(unsafe_code)]
fn mapped(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    // SAFETY: files of a mount never change and are never cut short.
    unsafe { memmap2::Mmap::map(&file) }.unwrap().to_vec()
}

#[test]
fn whatever_would_write_is_refused_as_read_only() {
    let place = Place::new();
    let source = place.dir("source");
    trees::rich(&source);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&file_url(&source), place.dir("mount"));
    let (file, new) = (dir.join("data/a.bin"), dir.join("new"));
    let open = |options: &mut OpenOptions| options.open(&file).map(drop);
    let refused: [(&str, io::Result<()>); 15] = [
        ("open to write", open(OpenOptions::new().write(true))),
        ("open to append", open(OpenOptions::new().append(true))),
        ("open to truncate", open(OpenOptions::new().write(true).truncate(true))),
        ("create", File::create(&new).map(drop)),
        ("mkdir", fs::create_dir(&new)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(dir.join("data"))),
        ("rename", fs::rename(&file, &new)),
        ("symlink", symlink("x", &new)),
        ("link", fs::hard_link(&file, &new)),
        ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o777))),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ("utimens", touch(&file)),
        ("setxattr", xattr::set(&file, "user.x", b"y")),
        ("removexattr", xattr::remove(&file, "user.x")),
    ];
    for (what, result) in refused {
        let number = result.err().and_then(|error| error.raw_os_error());
        assert_eq!(number, Some(rustix::io::Errno::ROFS.raw_os_error()), "{what}");
    }
    trees::assert_same(&dir, &source);
}

fn touch(path: &Path) -> io::Result<()> {
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    let flags = rustix::fs::AtFlags::empty();
    Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags)?)
}

#[test]
fn one_agent_serves_several_mounts_and_each_goes_by_itself() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let mut dirs = Vec::new();
    for number in 0..3 {
        let source = place.dir(&format!("source-{number}"));
        trees::put(&source.join("f"), &noise(number, 200_000));
        dirs.push((agent.mount(&file_url(&source), place.dir(&format!("mount-{number}"))), source));
    }
    let listed = agent.dfctl(&["mounts", "--format", "json"]).json().unwrap();
    // Those that other tests have killed are not this agent's.
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.iter().filter(|item| item["state"] == "ready").count(), 3, "{listed}");
    let (first, _) = dirs.remove(0);
    agent.dfctl(&["umount", first.to_str().unwrap()]).done();
    assert!(!is_mounted(&first));
    for (dir, source) in &dirs {
        trees::assert_same(dir, source);
    }
    let again = agent.dfctl(&["mount", &file_url(&dirs[0].1), dirs[0].0.to_str().unwrap()]);
    again.fails(2, "DFS-5102");
}

#[test]
fn of_several_mounts_to_be_taken_away_one_that_is_none_keeps_no_other() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let [first, second] =
        ["first", "second"].map(|name| agent.mount(&origin.url("/d/"), place.dir(name)));
    let none = place.dir("none");
    let words = [&first, &none, &second].map(|dir| dir.to_str().unwrap());
    let said = agent.dfctl(&[&["umount"], &words[..]].concat()).exits(8);
    assert!(said.stderr.contains("DFS-5103") && said.stderr.contains("1 of 3"), "{}", said.stderr);
    assert_eq!(said.text().lines().count(), 2, "{}", said.text());
    assert!(!is_mounted(&first) && !is_mounted(&second));
}

#[test]
fn a_mount_is_taken_away_by_the_link_that_it_was_made_by() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(3, 2_000));
    let agent = Agent::solo(&place, "agent");
    let real = place.dir("real \u{1b}[31m");
    let link = place.path("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let link = link.to_str().unwrap();
    agent.dfctl(&["mount", &file_url(&source), link]).done();
    assert!(is_mounted(&real));
    let said = agent.dfctl(&["umount", link]).done();
    assert!(!is_mounted(&real));
    assert!(!said.stderr.contains('\u{1b}'), "{:?}", said.stderr);
}

#[test]
fn a_mount_in_use_is_not_taken_away_unless_lazily() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(3, 2_000_000));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&file_url(&source), place.dir("mount"));
    let text = dir.to_str().unwrap();
    let mut open = File::open(dir.join("f")).unwrap();
    let said = agent.dfctl(&["umount", text]).fails(1, "DFS-5105");
    let told = format!("{} umount --lazy {text}", agent.typed());
    assert!(said.stderr.contains(&told), "{}", said.stderr);
    assert!(is_mounted(&dir));
    agent.dfctl(&["umount", "--lazy", text]).done();
    assert!(!is_mounted(&dir));
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open, &mut bytes).unwrap();
    assert!(bytes == noise(3, 2_000_000), "whoever has the file open reads on");
    agent.dfctl(&["umount", text]).fails(3, "DFS-5103");
}

#[test]
fn a_mount_of_another_agent_is_said_to_be_one() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(3, 100_000));
    let (mut first, second) = (Agent::solo(&place, "first"), Agent::solo(&place, "second"));
    let dir = first.mount(&file_url(&source), place.dir("it's mounted"));
    let text = dir.to_str().unwrap();
    let said = second.dfctl(&["umount", text]).fails(1, "DFS-5106");
    let typed = format!("{} umount '", first.typed());
    for part in ["source/", "mounted for uid 0", &typed, r"it'\''s mounted'"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert!(is_mounted(&dir));
    let plain = place.dir("plain");
    let said = second.dfctl(&["umount", plain.to_str().unwrap()]).fails(3, "DFS-5103");
    assert!(!said.stderr.contains("another"), "{}", said.stderr);
    let disk = Tmpfs::mount(plain, 1 << 20);
    let said = second.dfctl(&["umount", disk.path().to_str().unwrap()]).fails(3, "DFS-5103");
    assert!(said.stderr.contains("tmpfs"), "{}", said.stderr);
    fs::metadata(&dir).unwrap();
    first.kill();
    until("the dead mount is one", || fs::read(dir.join("f")).is_err());
    assert!(fs::metadata(&dir).is_ok(), "what the kernel remembers of it looks alive");
    second.dfctl(&["umount", text]).done();
    assert!(!is_mounted(&dir));
}

#[test]
fn an_agent_that_is_asked_to_stop_takes_its_mounts_with_it() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(4, 100_000));
    let mut agent = Agent::solo(&place, "agent");
    let idle = agent.mount(&file_url(&source), place.dir("idle"));
    let used = agent.mount(&file_url(&source), place.dir("used"));
    let _open = File::open(used.join("f")).unwrap();
    agent.terminate();
    assert!(!is_mounted(&idle) && !is_mounted(&used));
    assert!(!agent.data().join("run.json").exists(), "a clean exit takes its announcement back");
}

#[test]
fn what_a_killed_agent_left_is_listed_as_dead_with_the_way_to_take_it_away() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(3, 1_000));
    let (mut killed, other) = (Agent::solo(&place, "killed"), Agent::solo(&place, "other"));
    let dir = killed.mount(&file_url(&source), place.dir("it's dead"));
    let text = dir.to_str().unwrap();
    let state = |said: &Said| {
        let listed = said.json().unwrap();
        let items = listed["items"].as_array().unwrap().clone();
        let found = items.into_iter().find(|item| item["dir"] == text)?;
        assert!(found["url"].as_str().unwrap().ends_with("/source/"), "{found}");
        Some(found["state"].as_str().unwrap().to_owned())
    };
    let json = ["mounts", "--format", "json"];
    assert_eq!(state(&killed.dfctl(&json)).as_deref(), Some("ready"));
    assert_eq!(state(&other.dfctl(&json)), None, "another agent serves it");
    killed.kill();
    until("the dead mount is one", || fs::read(dir.join("f")).is_err());
    let said = other.dfctl(&json).done();
    assert_eq!(state(&said).as_deref(), Some("dead"));
    let said = other.dfctl(&["mounts"]).done();
    assert!(
        said.text().lines().any(|line| line.contains(text) && line.ends_with("dead")),
        "{}",
        said.text()
    );
    assert!(
        said.stderr.contains("agent is gone") || said.stderr.contains("agents are gone"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("dfctl umount "), "{}", said.stderr);
    // Its own agent does not answer, which is said too.
    assert_eq!(state(&killed.dfctl(&json).fails(5, "DFS-4101")).as_deref(), Some("dead"));
    other.dfctl(&["umount", text]).done();
    assert!(!is_mounted(&dir));
    assert_eq!(state(&other.dfctl(&json)), None);
}

#[test]
fn mounts_whose_agent_does_not_answer_are_listed_as_silent_without_waiting_for_each() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(3, 1_000));
    let (frozen, other) = (Agent::solo(&place, "frozen"), Agent::solo(&place, "other"));
    let dirs = ["a", "b", "c"].map(|name| frozen.mount(&file_url(&source), place.dir(name)));
    frozen.node.process().freeze();
    let begun = std::time::Instant::now();
    let said = other.dfctl(&["mounts", "--format", "json"]).done();
    let took = begun.elapsed();
    frozen.node.process().thaw();
    let listed = said.json().unwrap();
    for dir in dirs {
        let mut items = listed["items"].as_array().unwrap().iter();
        let found = items.find(|item| item["dir"] == dir.to_str().unwrap()).unwrap();
        assert_eq!(found["state"], "silent", "{found}");
    }
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    assert!(said.stderr.contains("dfctl umount --lazy "), "{}", said.stderr);
}

#[test]
fn an_agent_that_was_killed_mounts_again_over_what_it_left() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(5, 300_000));
    let mut agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&file_url(&source), place.dir("mount"));
    let text = dir.to_str().unwrap().to_owned();
    agent.kill();
    until("the dead mount is one", || fs::metadata(&dir).is_err());
    agent.start_again();
    for own in [agent.data().to_owned(), agent.data().join("tasks")] {
        let words = ["mount", &file_url(&source), own.to_str().unwrap()];
        let hides = agent.dfctl(&words).fails(2, "DFS-5102");
        assert!(hides.stderr.contains("this agent's own data"), "{}", hides.stderr);
    }
    let said = agent.dfctl(&["mount", &file_url(&source), &text]).done();
    assert!(said.stderr.contains("it is taken away"), "{}", said.stderr);
    trees::assert_same(&dir, &source);
}

#[test]
fn a_mount_that_the_agent_makes_where_nobody_sees_it_is_undone_and_told() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, MIB)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]).arg(binary("dfctl"));
    command.arg("--socket").arg(agent.socket()).arg("mount").args([&origin.url("/d/")]).arg(&dir);
    let said = Said::by(&mut command).unwrap().fails(1, "DFS-5101");
    assert!(said.stderr.contains("mount namespace"), "{}", said.stderr);
    assert!(!is_mounted(&dir) && agent.shown(&dir).is_none());
}

#[test]
fn of_two_who_mount_on_one_directory_at_once_one_does() {
    let place = Place::new();
    let source = place.dir("source");
    trees::put(&source.join("f"), &noise(5, 3_000));
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    agent.guard(&dir);
    let there = dir.to_str().unwrap();
    let words = ["mount", &file_url(&source), there];
    for round in 0..20 {
        let said = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| dfctl_at(agent.socket(), &words).code));
            both.map(|one| one.join().unwrap())
        });
        assert!(said == [0, 2] || said == [2, 0], "{round}: {said:?}");
        agent.dfctl(&["umount", there]).done();
        assert!(!is_mounted(&dir), "{round}");
    }
}

#[test]
fn many_readers_of_one_file_cost_one_copy() {
    let place = Place::new();
    let body = Body::noise(6, 24 << 20);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let whole = body.read(0, 24 << 20).unwrap();
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (file, whole) = (dir.join("f"), &whole);
            scope.spawn(move || {
                let file = File::open(file).unwrap();
                let mut at = reader as u64 * 7_919;
                for _ in 0..60 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let offset = (at >> 33) as usize % (whole.len() - 100_000);
                    let mut part = vec![0; 100_000];
                    file.read_exact_at(&mut part, offset as u64).unwrap();
                    assert!(part == whole[offset..offset + 100_000], "at {offset}");
                }
            });
        }
    });
    assert!(fs::read(dir.join("f")).unwrap() == whole);
    assert_eq!(origin.counters().body_bytes, whole.len() as u64);
}

#[test]
fn what_is_mounted_is_not_evicted_and_reads_on_without_its_origin() {
    let place = Place::new();
    let (body, other) = (Body::noise(7, 9_000_000), Body::noise(8, 5_000_000));
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    origin.put("/other", other);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let bytes = fs::read(dir.join("f")).unwrap();
    agent.dfctl(&["cat", &origin.url("/other")]).done();
    drop(origin);
    let said = agent.dfctl(&["cache", "gc", "--target", "0B", "--format", "json"]);
    let said = said.done().json().unwrap();
    assert!(said["freed_bytes"].as_u64().unwrap() >= 5_000_000, "what nobody uses went: {said}");
    // Past the page cache, so that the agent is asked.
    let direct = Command::new("dd")
        .args(["iflag=direct", "bs=1M", "status=none"])
        .arg(format!("if={}", dir.join("f").display()))
        .output()
        .unwrap();
    assert!(direct.status.success() && direct.stdout == bytes);
    assert!(bytes == body.read(0, 9_000_000).unwrap());
}

#[test]
fn directories_of_servers_that_people_run_are_mounted_as_they_are() {
    let place = Place::new();
    place.open_to_others();
    let source = place.dir("source");
    trees::varied(&source);
    for server in [Server::nginx(&place, &source), Server::python(&source)] {
        let agent = Agent::solo(&place, server.name());
        let mount = place.dir(&format!("mount-{}", server.name()));
        let dir = agent.mount(&server.url(), mount);
        trees::assert_same(&dir, &source);
    }
}

/// Opens a file so often, and reads a byte through each of the handles once all are open; prints what it read.
const HANDLES: &str = r#"
import os, resource, sys
path, count = sys.argv[1], int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
handles = [os.open(path, os.O_RDONLY) for _ in range(count)]
sys.stdout.buffer.write(b"".join(os.pread(handle, 1, 977 * at) for at, handle in enumerate(handles)))
"#;

#[test]
fn ten_thousand_handles_are_open_at_once() {
    const HANDLES_OPEN: usize = 10_000;
    let place = Place::new();
    let body = Body::noise(1, 977 * HANDLES_OPEN as u64);
    let origin = Origin::of("/d/f", body.clone()).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let mut python = Command::new("python3");
    python.args(["-c", HANDLES]).arg(dir.join("f")).arg(HANDLES_OPEN.to_string());
    let said = Said::by(&mut python).unwrap().done();
    let expected: Vec<u8> = all(&body).into_iter().step_by(977).collect();
    assert!(said.stdout == expected);
}

/// Readers that wait for bytes, each for those of another place.
const READERS: u64 = 1_000;

/// A mount of one file, with so many readers of it in it; each is to get what it should, or an error.
struct Crowd {
    // What is mounted goes before the place that it is in.
    agent: Agent,
    origin: Origin,
    place: Place,
    body: Body,
    dir: PathBuf,
}

/// What became of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Right,
    Failed,
}

impl Crowd {
    fn new() -> Self {
        let place = Place::new();
        let body = Body::noise(1, READERS << 16);
        let origin = Origin::of("/d/f", body.clone()).unwrap();
        let agent = Agent::solo(&place, "agent");
        let dir = agent.mount_in("fuse", &origin.url("/d/"), place.dir("mount"));
        Self { place, body, origin, agent, dir }
    }

    /// Does something while all wait, whom it is told who holds them; all are `expected` to end so, and none before.
    fn waits(&mut self, expected: Read, act: impl FnOnce(&mut Agent, &Path, &Injected)) {
        let gate = self.origin.inject(Fault::gate().on("/d/f"));
        let (path, body) = (self.dir.join("f"), &self.body);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|reader| {
                    let path = &path;
                    scope.spawn(move || {
                        let (file, mut bytes) = (File::open(path).unwrap(), [0; 100]);
                        // What one asks for is nobody else's.
                        fadvise(&file, 0, None, Advice::Random).unwrap();
                        let at = reader << 16;
                        let read = file.read_exact_at(&mut bytes, at);
                        assert!(read.is_err() || bytes[..] == body.read(at, at + 100).unwrap());
                        if read.is_ok() { Read::Right } else { Read::Failed }
                    })
                })
                .collect();
            gate.wait_struck(1).unwrap();
            until("all wait for the agent", || waiting() == READERS);
            act(&mut self.agent, &self.dir, &gate);
            let ended: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            assert!(ended.iter().all(|ended| *ended == expected));
        });
        gate.lift();
    }
}

/// Threads of this process that wait for pages of a file, or until the kernel has room to ask for one.
fn waiting() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path());
    let waits = threads.filter_map(|thread| fs::read_to_string(thread.join("wchan")).ok());
    waits.filter(|what| what.starts_with("folio_") || what.starts_with("fuse_")).count() as u64
}

#[test]
fn a_thousand_blocked_readers_end_with_the_mount_that_is_taken_away() {
    let mut crowd = Crowd::new();
    crowd.waits(Read::Failed, |agent, dir, _| {
        agent.terminate();
        assert!(!is_mounted(dir));
    });
}

#[test]
fn a_thousand_blocked_readers_keep_their_mount_and_read_on_where_it_is_taken_away_lazily() {
    let mut crowd = Crowd::new();
    let before = own_memory(&crowd.agent);
    crowd.waits(Read::Right, |agent, dir, gate| {
        // However many wait: what is kept of each is that it does.
        let most = own_memory(agent);
        assert!(most < before + 32 * MIB, "{before} and then {most} bytes");
        let umount =
            |words: &[&str]| agent.dfctl(&[&["umount"], words, &[dir.to_str().unwrap()]].concat());
        umount(&[]).fails(1, "DFS-5105");
        assert!(is_mounted(dir));
        umount(&["--lazy"]).done();
        assert!(!is_mounted(dir));
        gate.lift();
    });
    // It is over with the last of them.
    let dir = crowd.place.dir("again");
    crowd.agent.mount(&crowd.origin.url("/d/"), dir.clone());
    assert!(fs::read(dir.join("f")).unwrap() == all(&crowd.body));
}

fn file_url(path: &Path) -> String {
    let slash = if path.is_dir() { "/" } else { "" };
    format!("file://{}{slash}", path.display())
}

#[test]
fn a_mount_with_another_on_top_is_left_alone_and_that_is_said() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let mut agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let words = ["umount", dir.to_str().unwrap()];
    let cover = Tmpfs::mount(dir.clone(), 1 << 20);
    let said = agent.dfctl(&words).fails(1, "DFS-5107");
    assert!(said.stderr.contains("a file system of type tmpfs"), "{}", said.stderr);
    assert!(said.stderr.contains(&format!("try      umount {}", words[1])), "{}", said.stderr);
    agent.kill();
    let said = dfctl_at("/nonexistent".as_ref(), &["--solo", "umount", words[1]]);
    let said = said.fails(1, "DFS-5107");
    assert!(said.stderr.contains("on top of the mount of dfs"), "{}", said.stderr);
    drop(cover);
    assert!(is_mounted(&dir));
}

#[test]
fn what_is_mounted_in_a_mount_whose_agent_is_gone_is_lost_to_nobody_who_clears_that_away() {
    let place = Place::new();
    let origin = Origin::of("/d/sub/f", Body::noise(1, 1_000)).unwrap();
    let url = origin.url("/d/");
    let (mut killed, other) = (Agent::solo(&place, "killed"), Agent::solo(&place, "other"));
    let dir = killed.mount(&url, place.dir("mount"));
    let within = Tmpfs::mount(dir.join("sub"), 1 << 20);
    fs::write(within.path().join("mine"), "mine").unwrap();
    killed.kill();
    until("the mount is dead", || fs::metadata(&dir).is_err());
    let text = dir.to_str().unwrap();
    let none = place.path("none");
    for (socket, words, fails) in [
        (other.socket(), &["umount", text][..], (1, "DFS-5105")),
        (&none, &["umount", text], (1, "DFS-5105")),
        (other.socket(), &["mount", &url, text], (1, "DFS-5105")),
    ] {
        let said = dfctl_at(socket, words).fails(fails.0, fails.1);
        let other = format!("{} is mounted in", within.path().display());
        assert!(said.stderr.contains(&other), "{}", said.stderr);
        assert!(said.stderr.contains(&format!("findmnt -R {text} ")), "{}", said.stderr);
        assert!(is_mounted(&dir) && is_mounted(within.path()));
    }
    drop(within);
    other.dfctl(&["mount", &url, text]).done();
    assert!(fs::read(dir.join("sub/f")).unwrap() == all(&Body::noise(1, 1_000)));
}
