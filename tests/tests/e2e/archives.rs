//! Archives over a cluster: what is inside is moved, once, and nothing else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::{Body, Cluster, Origin};
use rustix::fs::SeekFrom;

use crate::support::trees::{self, noise, put};
use crate::support::{Agent, Expected, Place, binaries};

/// At most this many copies may leave the origin.
const COPIES: f64 = 1.05;

fn shell(script: &str, arguments: &[&Path]) {
    let status = Command::new("sh").args(["-ec", script, "sh"]).args(arguments).status().unwrap();
    assert!(status.success(), "{script}");
}

/// Serves an archive of `source` that `script` makes of its arguments: the directory, the archive.
fn archive(place: &Place, source: &Path, script: &str) -> (PathBuf, Origin) {
    let file = place.dir("archives").join("things");
    shell(script, &[source, &file]);
    let origin = Origin::of("/things", Body::File(file.clone())).unwrap();
    (file, origin)
}

fn three(cluster: &Cluster, place: &Place) -> Vec<Agent> {
    ["a", "b", "c"].iter().map(|name| Agent::of(cluster, place, name)).collect()
}

/// Every agent mounts and reads all of it at once.
fn all_read(agents: &[Agent], place: &Place, url: &str, source: &Path) {
    std::thread::scope(|scope| {
        for agent in agents {
            scope.spawn(move || {
                let dir = place.path(&format!("mount-{}", agent.node.name()));
                let dir = agent.mount(url, dir);
                trees::assert_same(&dir, source);
            });
        }
    });
}

fn copies(origin: &Origin, file: &Path) -> f64 {
    origin.counters().body_bytes as f64 / file.metadata().unwrap().len() as f64
}

#[test]
fn three_nodes_read_a_compressed_tar_and_the_origin_sends_it_once() {
    for pack in ["gzip -1", "zstd -q"] {
        let place = Place::new();
        let source = place.dir("source");
        trees::varied(&source);
        let script = format!("tar -C \"$1\" -c . | {pack} > \"$2\"");
        let (file, origin) = archive(&place, &source, &script);
        let cluster = Cluster::start(&binaries(), place.root()).unwrap();
        let agents = three(&cluster, &place);
        all_read(&agents, &place, &origin.url("/things"), &source);
        let copies = copies(&origin, &file);
        assert!(copies <= COPIES, "{pack}: {copies} copies left the origin");
        assert_eq!(origin.counters().method("HEAD"), 1, "one stat for all");
        // The file itself is still the file.
        let out = place.path("out");
        let words = ["get", &origin.url("/things"), "-o", out.to_str().unwrap()];
        agents[0].dfctl(&words).done();
        assert!(fs::read(out).unwrap() == fs::read(&file).unwrap());
    }
}

#[test]
fn three_nodes_read_a_zip_and_the_origin_sends_it_once() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    put(&source.join("stream"), &[noise(1, 9 << 20), vec![b'x'; 5 << 20]].concat());
    let (file, origin) =
        archive(&place, &source, "cd \"$1\"; zip -q -r -1 \"$2.zip\" .; mv \"$2.zip\" \"$2\"");
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agents = three(&cluster, &place);
    all_read(&agents, &place, &origin.url("/things"), &source);
    let copies = copies(&origin, &file);
    assert!(copies <= COPIES, "{copies} copies left the origin");
    assert_eq!(origin.counters().method("HEAD"), 1, "one stat for all");
}

#[test]
fn one_member_of_a_zip_moves_little_else() {
    let place = Place::new();
    let source = place.dir("source");
    for number in 0..40 {
        put(&source.join(format!("file-{number:02}")), &noise(number, 1 << 20));
    }
    let (file, origin) =
        archive(&place, &source, "cd \"$1\"; zip -q -r \"$2.zip\" .; mv \"$2.zip\" \"$2\"");
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/things"), place.dir("mount"));
    assert!(fs::read(dir.join("file-17")).unwrap() == fs::read(source.join("file-17")).unwrap());
    let sent = origin.counters().body_bytes;
    assert!(sent < 4 << 20, "{sent} of {} bytes", file.metadata().unwrap().len());
}

#[test]
fn what_a_refused_archive_unpacked_to_is_given_back() {
    let place = Place::new();
    let source = place.dir("source");
    fs::File::create(source.join("zeros")).unwrap().set_len(24 << 20).unwrap();
    let (file, origin) = archive(&place, &source, "tar -czf \"$2\" -C \"$1\" .");
    let whole = fs::read(&file).unwrap();
    origin.put("/cut", Body::bytes(whole[..whole.len() - 100].to_vec()));
    let agent = Agent::solo(&place, "agent");
    let kept = || {
        let listed = agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let items = listed["items"].as_array().unwrap().iter();
        items.map(|item| item["cached_bytes"].as_u64().unwrap()).sum::<u64>()
    };
    agent.dfctl(&["ls", &origin.url("/cut")]).fails(5, "DFS-2114");
    assert!(kept() <= whole.len() as u64, "{} of an archive of {}", kept(), whole.len());
    agent.dfctl(&["ls", &origin.url("/things")]).done();
    assert!(kept() >= 24 << 20, "one that is whole is kept");
}

#[test]
fn what_lies_very_deep_is_listed_and_taken_as_anything_else() {
    let place = Place::new();
    let archive = place.path("deep.tar");
    let script = "import io, sys, tarfile\n\
        with tarfile.open(sys.argv[1], 'w') as tar:\n\
        \x20   for depth in (1, 255, 256, 700):\n\
        \x20       member = tarfile.TarInfo('p/' * depth + 'x')\n\
        \x20       member.size = 4\n\
        \x20       tar.addfile(member, io.BytesIO(b'deep'))\n";
    let made = Command::new("python3").args(["-c", script]).arg(&archive).status().unwrap();
    assert!(made.success());
    let agent = Agent::solo(&place, "agent");
    let (archive, out) = (archive.to_str().unwrap(), place.path("out"));
    let listed = agent.dfctl(&["ls", "-r", "--format", "name", archive]).done();
    let files = listed.text().lines().filter(|name| name.ends_with('x')).count();
    assert_eq!(files, 4);
    agent.dfctl(&["get", "-r", archive, "-o", out.to_str().unwrap()]).done();
    for depth in [1, 255, 256, 700] {
        let path = out.join("p/".repeat(depth)).join("x");
        assert_eq!(fs::read(path).unwrap(), b"deep", "{depth} directories deep");
    }
}

#[test]
fn an_encrypted_member_is_listed_and_says_why_it_cannot_be_read() {
    let place = Place::new();
    let source = place.dir("source");
    put(&source.join("open"), b"open");
    put(&source.join("secret"), b"secret");
    let script = "cd \"$1\"; zip -q \"$2.zip\" open; zip -q -P password \"$2.zip\" secret; mv \"$2.zip\" \"$2\"";
    let (_file, origin) = archive(&place, &source, script);
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/things"), place.dir("mount"));
    assert_eq!(fs::read(dir.join("open")).unwrap(), b"open");
    let refused = fs::read(dir.join("secret")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    // It is not broken, and no other copy would help.
    agent.dfctl(&["cat", &(origin.url("/things") + "!secret")]).fails(1, "DFS-2107");
    let why = xattr::get(dir.join("secret"), "user.dfs.error").unwrap().unwrap();
    let why = String::from_utf8(why).unwrap();
    assert!(why.contains("is encrypted"), "{why}");
    let url = format!("{}!secret", origin.url("/things"));
    let said = agent.dfctl(&["cat", &url]);
    assert!(said.code != 0 && said.stderr.contains("is encrypted"), "{}", said.stderr);
}

#[test]
fn a_sparse_member_reads_as_it_was_and_its_holes_are_not_moved() {
    let place = Place::new();
    let source = place.dir("source");
    shell(
        "truncate -s 300M \"$1/sparse\"; printf middle | dd of=\"$1/sparse\" bs=1M seek=100 conv=notrunc status=none",
        &[&source],
    );
    let (_file, origin) = archive(&place, &source, "tar -C \"$1\" --sparse -cf \"$2\" .");
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/things"), place.dir("mount"));
    trees::assert_same(&dir, &source);
    // Who asks where the holes are is told.
    let parts = |dir: &Path| {
        let file = File::open(dir.join("sparse")).unwrap();
        let data = rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap();
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
        (data, hole, rustix::fs::seek(&file, SeekFrom::Data(hole)))
    };
    assert_eq!(parts(&dir), parts(&source));
    let out = place.path("out");
    let url = format!("{}!sparse", origin.url("/things"));
    agent.dfctl(&["get", &url, "-o", out.to_str().unwrap()]).done();
    assert!(fs::read(out).unwrap() == fs::read(source.join("sparse")).unwrap());
    assert!(origin.counters().body_bytes < 1 << 20);
}

#[test]
fn what_is_inside_an_archive_can_be_named_mounted_and_taken() {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    put(&source.join("odd!name/100% sure"), b"odd");
    let (_file, origin) = archive(&place, &source, "tar -C \"$1\" -c . | gzip > \"$2\"");
    let agent = Agent::solo(&place, "agent");
    let inside = |path: &str| format!("{}!{path}", origin.url("/things"));
    let tree = agent.mount(&inside("many/1"), place.dir("tree"));
    trees::assert_same(&tree, &source.join("many/1"));
    let file = agent.mount(&inside("own/large.bin"), place.dir("file"));
    let names: Vec<_> =
        fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["large.bin"]);
    let large = fs::read(source.join("own/large.bin")).unwrap();
    assert!(fs::read(file.join("large.bin")).unwrap() == large);

    let listed = agent.dfctl(&["ls", &inside("many/1"), "--format", "json"]).done().json().unwrap();
    let count = fs::read_dir(source.join("many/1")).unwrap().count();
    assert_eq!(listed["items"].as_array().unwrap().len(), count);
    assert_eq!(agent.dfctl(&["cat", &inside("odd%21name/100%25%20sure")]).done().stdout, b"odd");
    agent.dfctl(&["stat", &inside("own/large.bin")]).done();
    let out = place.path("out");
    agent.dfctl(&["get", "-r", &inside("names"), "-o", out.to_str().unwrap()]).done();
    trees::assert_same(&out, &source.join("names"));

    let guarded = place.dir("missing");
    agent.guard(&guarded);
    agent.dfctl(&["mount", &inside("no/such"), guarded.to_str().unwrap()]).fails(3, "DFS-");
}

#[test]
fn mounting_a_tar_of_large_files_moves_little_more_than_its_headers() {
    let place = Place::new();
    let source = place.dir("source");
    for number in 0..6 {
        put(&source.join(format!("file-{number}")), &noise(number, 8 << 20));
    }
    let (_file, origin) = archive(&place, &source, "tar -C \"$1\" -cf \"$2\" .");
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/things"), place.dir("mount"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 6);
    let sent = origin.counters().body_bytes;
    assert!(sent < 4 << 20, "{sent} bytes for a few headers");
}
