//! Disks that lose what was not yet on them: an XFS on a file, shut down without its log, and another boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Binaries, Body, Fault, Node, Origin};

use crate::support::disk::Disk;
use crate::support::trees;
use crate::support::{Agent, Expected, Place, binary, services_started_by, until};

const MIB: u64 = 1 << 20;

/// Our programs on a machine that was booted anew: its kernel names another boot.
fn after_a_boot(place: &Place) -> Binaries {
    let boot = place.path("boot_id");
    fs::write(&boot, "7b0e0f9a-0000-4000-8000-000000000001\n").unwrap();
    let bind = format!("mount --bind {} /proc/sys/kernel/random/boot_id", boot.display());
    services_started_by(place, |agent| {
        format!("exec unshare --mount sh -c '{bind} && exec {agent} \"$@\"' dfs-fuse \"$@\"")
    })
}

fn get(agent: &Agent, origin: &Origin, path: &str, place: &Place) -> Vec<u8> {
    let output = place.path("out");
    let words = ["get", &origin.url(path), "--force", "-o", output.to_str().unwrap()];
    agent.dfctl(&words).done();
    fs::read(output).unwrap()
}

#[test]
fn after_a_power_cut_only_what_reached_the_disk_is_used_and_the_rest_is_fetched_again() {
    let place = Place::new();
    let disk = Disk::new(&place);
    let (kept, lost) = (Body::noise(1, 24 * MIB + 5), Body::noise(2, 48 * MIB));
    let origin = Origin::start().unwrap();
    origin.put("/kept", kept.clone());
    origin.put("/lost", lost.clone());
    let mut agent = Agent::solo_in(disk.path(), "agent");
    let all = |body: &Body| body.read(0, body.length().unwrap()).unwrap();
    assert!(get(&agent, &origin, "/kept", &place) == all(&kept));
    disk.flush();

    let pace = origin.inject(Fault::pace(16 * MIB).on("/lost"));
    let url = origin.url("/lost");
    let getting = agent.dfctl_start(&["cat", &url]);
    until("a part is here", || agent.cached(lost.length().unwrap()) >= 8 * MIB);
    origin.wait_in_flight("/lost", 1).unwrap();
    // Nobody is left to notice that the disk is gone.
    agent.node.process().freeze();
    disk.cut();
    agent.kill();
    getting.wait().fails(5, "DFS-4103");
    assert!(pace.struck() > 0);
    pace.lift();
    drop(agent);

    disk.recover();
    origin.reset_counters();
    let agent = booted(&place, &disk);
    assert!(get(&agent, &origin, "/kept", &place) == all(&kept));
    let sent = origin.counters().body_bytes;
    assert_eq!(sent, 0, "all of it had reached the disk, and was hashed again");
    assert!(get(&agent, &origin, "/lost", &place) == all(&lost));
    let said = agent.dfctl(&["cache", "verify", "--format", "json"]).done().json().unwrap();
    let found = said["items"].as_array().unwrap();
    assert!(found.len() == 2 && found.iter().all(|task| task["groups_bad"] == 0), "{said}");
}

/// An agent on the machine's disk, after it was booted anew.
fn booted(place: &Place, disk: &Disk) -> Agent {
    let mut node = Node::spawn(&after_a_boot(place), disk.path(), "agent", None, &[]).unwrap();
    node.wait_ready().unwrap();
    Agent::around(node)
}

#[test]
fn what_was_mounted_before_a_power_cut_is_mounted_after_it_without_a_byte_of_the_origins() {
    let place = Place::new();
    let disk = Disk::new(&place);
    let (source, file) = (place.dir("source"), place.path("tree.tar"));
    trees::varied(&source);
    let tar = Command::new("tar").arg("-C").arg(&source).arg("-cf").arg(&file).arg(".").status();
    assert!(tar.unwrap().success());
    let (large, lost) = (Body::noise(1, 9 * MIB + 17), Body::noise(2, 9 * MIB));
    let origin = Origin::of("/tree.tar", Body::File(file)).unwrap();
    origin.put("/d/large", large.clone());
    origin.put("/lost", lost.clone());
    let all = |body: &Body| body.read(0, body.length().unwrap()).unwrap();
    let (tree, single) = (place.path("tree"), place.path("single"));
    let mut agent = Agent::solo_in(disk.path(), "agent");
    agent.mount(&origin.url("/tree.tar"), tree.clone());
    agent.mount(&origin.url("/d/large"), single.clone());
    trees::assert_same(&tree, &source);
    assert!(fs::read(single.join("large")).unwrap() == all(&large));
    disk.flush();
    // What comes from here on the disk never sees.
    assert!(get(&agent, &origin, "/lost", &place) == all(&lost));
    agent.node.process().freeze();
    disk.cut();
    agent.kill();
    drop(agent);

    disk.recover();
    origin.reset_counters();
    let agent = booted(&place, &disk);
    // Where it is that another boot was.
    let pid = agent.node.process().pid().to_string();
    for (path, dir) in [("/tree.tar", &tree), ("/d/large", &single)] {
        fs::create_dir_all(dir).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount"]).arg(binary("dfctl"));
        command.arg("--socket").arg(agent.socket()).arg("mount").arg(origin.url(path)).arg(dir);
        Said::by(&mut command).unwrap().done();
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let there = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    trees::assert_same(&there(&tree), &source);
    assert!(fs::read(there(&single).join("large")).unwrap() == all(&large));
    let sent = origin.counters().body_bytes;
    assert_eq!(sent, 0, "all of both was there: {:?}", origin.log());
    assert!(get(&agent, &origin, "/lost", &place) == all(&lost));
    assert!(origin.counters().body_bytes > 0, "what had not reached the disk is not there");
}

#[test]
fn a_disk_that_dies_under_an_agent_ends_its_reads_and_not_the_agent() {
    let place = Place::new();
    let disk = Disk::new(&place);
    let body = Body::noise(3, 32 * MIB);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(8 * MIB));
    let agent = Agent::solo_in(disk.path(), "agent");
    let getting = agent.dfctl_start(&["cat", &origin.url("/f")]);
    until("a part is here", || agent.cached(32 * MIB) >= 4 * MIB);
    disk.cut();
    pace.lift();
    let said = getting.wait();
    let said = said.fails(1, "DFS-4118");
    assert!(said.stderr.contains("Input/output error"), "{}", said.stderr);
    agent.dfctl(&["mounts"]).done();
}
