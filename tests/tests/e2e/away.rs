//! What was mounted before is mounted again while its origin is away, with what is here, for whom it is.

use std::fs;

use dfs_tests::process::FreeAddress;
use dfs_tests::{Body, Fault, Origin};

use crate::support::{Agent, Expected, Place, all, as_nobody, until};

const MIB: u64 = 1 << 20;

/// An origin that can be started again where it was.
fn origin_at(address: &FreeAddress) -> Origin {
    let origin = Origin::start_at(address.at()).unwrap();
    for (seed, path) in [(1, "/d/one"), (2, "/d/two")] {
        origin.put(path, Body::noise(seed, 2 * MIB));
    }
    origin
}

/// `http://user:pass@` in base 64.
const USER_PASS: &str = "Basic dXNlcjpwYXNz";

#[test]
fn what_was_mounted_is_mounted_again_as_it_was_while_its_origin_is_away() {
    let (place, address) = (Place::new(), FreeAddress::new().unwrap());
    let origin = origin_at(&address);
    let mut agent = Agent::solo(&place, "agent");
    let (url, dir) = (origin.url("/d/"), place.dir("mount"));
    let text = dir.to_str().unwrap();
    agent.mount_in("fuse", &url, dir.clone());
    let one = all(&Body::noise(1, 2 * MIB));
    assert!(fs::read(dir.join("one")).unwrap() == one);
    agent.dfctl(&["umount", text]).done();
    agent.kill();
    drop(origin);
    agent.start_again();
    let said = agent.dfctl(&["mount", "--lane", "fuse", &url, text]).done();
    assert!(said.stderr.contains("the origin is away, shown as it was "), "{said:?}");
    assert!(fs::read(dir.join("one")).unwrap() == one, "what is here");
    fs::read(dir.join("two")).unwrap_err();
    let listed = agent.dfctl(&["mounts", "--format", "json"]).done().json().unwrap();
    let away = &listed["items"][0]["away"];
    assert!(away["why"].as_str().unwrap().contains("refused"), "{listed}");
    let origin = origin_at(&address);
    let two = all(&Body::noise(2, 2 * MIB));
    until("the rest comes", || fs::read(dir.join("two")).is_ok_and(|read| read == two));
    assert_eq!(origin.counters().body_bytes, 2 * MIB, "what was here was not fetched again");
    // An origin that answers is believed.
    agent.dfctl(&["umount", text]).done();
    let gone = origin.inject(Fault::status(404));
    agent.dfctl(&["mount", &url, text]).fails(3, "DFS-2101");
    gone.lift();
    let said = agent.dfctl(&["mount", &url, text]).done();
    assert!(!said.stderr.contains("away"), "{said:?}");
    // Of what was never mounted nothing is known.
    drop(origin);
    let other = url.replace("/d/", "/");
    agent.dfctl(&["mount", &other, place.dir("other").to_str().unwrap()]).fails(5, "DFS-2104");
}

#[test]
fn what_was_fetched_with_credentials_is_shown_without_them_to_whose_the_cache_is_alone() {
    let (place, address) = (Place::new(), FreeAddress::new().unwrap());
    place.open_to_others();
    let origin = origin_at(&address);
    origin.inject(Fault::require_authorization(USER_PASS));
    let agent = Agent::solo(&place, "agent");
    let (url, dir) = (origin.url("/d/"), place.dir("mount"));
    let text = dir.to_str().unwrap();
    let with = url.replace("http://", "http://user:pass@");
    agent.mount_in("fuse", &with, dir.clone());
    let one = all(&Body::noise(1, 2 * MIB));
    assert!(fs::read(dir.join("one")).unwrap() == one);
    agent.dfctl(&["umount", text]).done();
    // While it is there it is asked who may see it.
    agent.dfctl(&["mount", &url, text]).fails(4, "DFS-2102");
    drop(origin);
    agent.dfctl(&["mount", "--lane", "fuse", &url, text]).done();
    assert!(fs::read(dir.join("one")).unwrap() == one);
    let theirs = as_nobody("/bin/cat".as_ref()).arg(dir.join("one")).output().unwrap();
    assert!(!theirs.status.success(), "nobody else was let in");
    let kept = fs::read_dir(agent.data().join("artifacts")).unwrap();
    for file in kept {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(4).any(|part| part == b"pass"), "a password is on the disk");
    }
}
