//! What a mount says of itself: by file, to any program that reads extended attributes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dfs_tests::{Body, Fault, Origin};

use crate::support::{Agent, Expected, Place, all};

const MIB: u64 = 1 << 20;

fn said(path: &Path, name: &str) -> Option<String> {
    let value = xattr::get(path, format!("user.dfs.{name}")).unwrap()?;
    Some(String::from_utf8(value).unwrap())
}

#[test]
fn each_file_says_what_of_it_is_here_and_where_it_comes_from() {
    let place = Place::new();
    let body = Body::noise(1, 9 * MIB + 5);
    let origin = Origin::of("/d/a file", body.clone()).unwrap();
    origin.put("/d/small", Body::noise(2, 1000));
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let path = dir.join("a file");
    assert_eq!(said(&path, "state").unwrap(), "missing");
    assert_eq!(said(&path, "cached").unwrap(), "");
    assert_eq!(said(&path, "source").unwrap(), origin.url("/d/a file"));
    assert_eq!(said(&path, "digest"), None);
    assert_eq!(said(&path, "error"), None);
    assert_eq!(said(&dir, "state"), None, "directories have nothing of the kind");

    File::open(&path).unwrap().read_exact_at(&mut [0; 10], 4 * MIB).unwrap();
    assert_eq!(said(&path, "state").unwrap(), "partial");
    let cached = said(&path, "cached").unwrap();
    assert!(cached.starts_with(&(4 * MIB).to_string()), "{cached}");

    let broken = origin.inject(Fault::status(503).on("/d/a file"));
    assert!(File::open(&path).unwrap().read_exact_at(&mut [0; 10], 8 * MIB).is_err());
    assert!(said(&path, "error").unwrap().contains("503"));
    broken.lift();
    let mut bytes = vec![0; all(&body).len()];
    let read = || File::open(&path).unwrap().read_exact_at(&mut bytes, 0).is_ok();
    dfs_tests::wait::until("it is read again", read).unwrap();
    assert!(bytes == all(&body));
    assert_eq!(said(&path, "error"), None);
    assert_eq!(said(&path, "state").unwrap(), "complete");
    assert_eq!(said(&path, "cached").unwrap(), format!("0..{}", bytes.len()));
    assert_eq!(said(&path, "digest").unwrap(), blake3::hash(&bytes).to_string());
    let task = said(&path, "task").unwrap();
    let listed = agent.dfctl(&["task", "ls", "--format", "json"]).done();
    assert!(listed.text().contains(&task));
    // None of it is listed: whoever copies attributes does not copy these.
    assert_eq!(xattr::list(&path).unwrap().count(), 0);
}
