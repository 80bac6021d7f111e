//! An agent in a container: it goes with its container, and its mounts do not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use dfs_tests::origin::Injected;
use dfs_tests::{Body, Container, Fault, Inside, Mount, Origin, Owned, wait};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use crate::support::{Expected, Place, all, binaries, binary, dfctl_at, reading_with};

const MIB: u64 = 1 << 20;

/// Times that the container is deleted.
const ROUNDS: [u64; 2] = [1, 2];

/// Who reads all the while.
const READERS: u64 = 16;

/// Of their reads so many have come to the origin when the container goes; the others wait for their turn.
const AT_THE_ORIGIN: u64 = 8;

fn path_of(round: u64, reader: u64) -> String {
    format!("/d/{round}-{reader}")
}

fn body_of(round: u64, reader: u64) -> Body {
    Body::noise(100 * round + reader, 3 * MIB)
}

/// Reads what is for one reader in each round, one after the other, past the page cache.
fn reading(dir: &Path, reader: u64) -> Command {
    let mut shell = Command::new("sh");
    let script = "for file; do dd if=\"$file\" bs=1M iflag=direct status=none || exit; done";
    shell.args(["-c", script, "sh"]);
    shell.args(ROUNDS.map(|round| dir.join(format!("{round}-{reader}"))));
    shell
}

#[test]
fn an_agent_whose_container_is_deleted_leaves_its_mounts_to_the_next_container() {
    let place = Place::new();
    let shared = place.dir("shared").canonicalize().unwrap();
    let _shared = Mount::guard(&shared);
    mount_bind(&shared, &shared).unwrap();
    mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
    let path = |name: &str| shared.join(name);
    let (data, dir) = (path("data"), path("mount"));
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(&dir).unwrap();
    let _guard = Mount::guard(&dir);
    let (socket, holder_at) = (path("agent.sock"), path("holder.sock"));

    let mut command = binaries().command("dfs-fuse").unwrap();
    command.arg("holder").arg("--socket").arg(&holder_at);
    let holder = Owned::start(&mut command).unwrap();
    wait::until("the holder listens", || holder_at.exists()).unwrap();
    let words = [&data, &socket, &holder_at].map(|path| path.to_str().unwrap());
    let [at, heard_at, held_at] = words;
    let arguments = ["--data-dir", at, "--socket", heard_at, "--holder", held_at];
    let arguments = [&arguments[..], &["--port-pieces", "0", "--port-metrics", "0"]].concat();
    let program = binary("dfs-fuse");
    let inside =
        Inside { program: &program, arguments: &arguments, variables: &[], shared: &shared };
    let mut container = Container::new(place.root(), &inside).unwrap();

    let origin = Origin::start().unwrap();
    for round in ROUNDS {
        (0..READERS).for_each(|reader| origin.put(&path_of(round, reader), body_of(round, reader)));
    }
    container.start().unwrap();
    wait::until("the agent listens", || socket.exists()).unwrap();
    dfctl_at(&socket, &["mount", &origin.url("/d/"), dir.to_str().unwrap()]).done();
    let listed = dfctl_at(&socket, &["mounts", "--format", "json"]).done().json().unwrap();
    assert!(!listed["items"][0]["survival"]["kept_by"].is_null(), "{listed}");

    // Each reads a file of its own in each round, all the time, and all wait when the agent goes.
    let gates = ROUNDS.map(|round| {
        let gate = |reader| origin.inject(Fault::gate().on(&path_of(round, reader)));
        (0..READERS).map(gate).collect::<Vec<_>>()
    });
    let readers: Vec<_> =
        (0..READERS).map(|reader| reading_with(&mut reading(&dir, reader))).collect();
    for gates in &gates {
        let asked = || gates.iter().map(Injected::struck).sum::<u64>();
        wait::until("the origin is asked", || asked() >= AT_THE_ORIGIN).unwrap();
        container.delete().unwrap();
        fs::remove_file(&socket).unwrap();
        container.start().unwrap();
        wait::until("the next agent listens", || socket.exists()).unwrap();
        assert!(
            readers.iter().all(|reader| !reader.is_finished()),
            "who reads learns nothing of it"
        );
        gates.iter().for_each(|gate| gate.lift());
    }
    for (number, reader) in (0..).zip(readers) {
        let read = reader.join().unwrap().unwrap();
        let wanted = ROUNDS.map(|round| all(&body_of(round, number))).concat();
        assert!(read == wanted, "reader {number}");
    }
    dfctl_at(&socket, &["umount", dir.to_str().unwrap()]).done();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    drop(holder);
}
