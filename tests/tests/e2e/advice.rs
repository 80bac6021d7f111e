//! What an error advises is of help: where asking again leads to the same, something else is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Body, Cluster, Origin};
use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::support::canned::Canned;
use crate::support::trees::noise;
use crate::support::{Agent, Expected, Place, as_nobody, binaries, binary};

/// What `said` advises.
fn advice(said: &Said) -> String {
    let lines = said.stderr.lines().filter_map(|line| line.trim().strip_prefix("try"));
    lines.map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_origin_that_sends_in_circles_and_one_that_gives_other_bytes_have_a_way_to_look_at_them() {
    let place = Place::new();
    let body = "x".repeat(4000);
    let server = Canned::answering(move |method, path| match (method, path) {
        (_, "/loop") => "302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ("HEAD", "/range") => {
            "200 OK\r\nAccept-Ranges: bytes\r\nETag: \"1\"\r\nContent-Length: 200000\r\n\r\n"
                .to_owned()
        }
        (_, "/range") => format!(
            "206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes 7-4006/200000\r\nContent-Length: 4000\r\n\r\n{body}"
        ),
        _ => "404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    });
    let agent = Agent::solo(&place, "agent");
    let said = agent.dfctl(&["cat", &server.url("/loop")]).fails(5, "DFS-2112");
    assert_eq!(advice(&said), format!("curl -sIL {}", server.url("/loop")));
    let words = ["cat", "--range", "1000-2000", &server.url("/range")];
    let said = agent.dfctl(&words).fails(5, "DFS-2113");
    assert!(said.stdout.is_empty() && advice(&said).starts_with("curl "), "{}", said.stderr);
    // The same where a seed asked.
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let member = Agent::of(&cluster, &place, "member");
    member.dfctl(&["cat", &server.url("/loop")]).fails(5, "DFS-2112");
    member.dfctl(&words).fails(5, "DFS-2113");
}

#[test]
fn where_asking_again_comes_to_the_same_it_is_not_advised() {
    let place = Place::new();
    let server = Canned::answering(|_, path| {
        let status = if path == "/off" { "501 Not Implemented" } else { "400 Bad Request" };
        format!("{status}\r\nContent-Length: 0\r\n\r\n")
    });
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    for agent in [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "member")] {
        for path in ["/x", "/off"] {
            let said = agent.dfctl(&["cat", &server.url(path)]).fails(5, "DFS-2115");
            assert_eq!(advice(&said), format!("curl -sv -r 0-99 {}", server.url(path)));
        }
    }
    let agent = Agent::solo(&place, "agent");
    for url in ["file://host/x", "s3://", "s3:///key", "file:///x?y"] {
        for command in ["cat", "ls", "stat"] {
            let said = agent.dfctl(&[command, url]).fails(2, "DFS-1001");
            assert!(said.stderr.contains("cannot use "), "{}", said.stderr);
            assert!(!said.stderr.contains("again"), "{}", said.stderr);
        }
    }
    let said = agent.dfctl(&["cat", "-H", ": v", &server.url("/x")]).fails(2, "DFS-1001");
    assert!(said.stderr.contains("a name that no header can have"), "{}", said.stderr);
    assert!(!said.stderr.contains("is not a URL"), "{}", said.stderr);
    // Deeper than a path can be.
    let (deep, out) = (place.dir("deep"), place.path("out"));
    let name = "d".repeat(250);
    let mut at = fs::File::open(&deep).unwrap();
    for _ in 0..20 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, OFlags::RDONLY, Mode::empty()).unwrap().into();
    }
    let (deep, out) = (deep.to_str().unwrap(), out.to_str().unwrap());
    for words in [&["sync", deep, out][..], &["ls", "-r", deep], &["get", "-r", deep, "-o", out]] {
        let said = agent.dfctl(words).fails(10, "DFS-4109");
        assert!(advice(&said).contains("a part of it"), "{}", said.stderr);
    }
}

#[test]
fn who_asks_a_cluster_that_is_not_named_is_told_to_name_it() {
    let place = Place::new();
    let alone = |words: &[&str]| {
        let mut command = dfs_tests::Dfctl::new(&binaries()).command().unwrap();
        command.env("XDG_RUNTIME_DIR", place.path("run")).env("XDG_DATA_HOME", place.path("home"));
        Said::by(command.args(words)).unwrap()
    };
    for words in [&["why", "1234"][..], &["scheduler", "compare"], &["top", "--once"]] {
        let said = alone(words).fails(5, "DFS-4101");
        assert!(advice(&said).contains("--cluster "), "{}", said.stderr);
    }
    let said = alone(&["cluster", "join-token"]).fails(3, "DFS-4107");
    assert!(advice(&said).contains("dfctl cluster join-token --data-dir DIR"), "{}", said.stderr);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let data = place.path("cluster");
    let named = |words: &[&str]| alone(&[words, &["--data-dir", data.to_str().unwrap()]].concat());
    let said = named(&["why", "1234"]).fails(5, "DFS-4101");
    let address = cluster.address().unwrap();
    assert!(advice(&said).ends_with(&format!("--cluster {address}")), "{}", said.stderr);
    alone(&["cluster", "join-token", "--ttl", "0s"]).fails(2, "DFS-1001");
    let mut wrong = binaries().command("dfs-cluster").unwrap();
    wrong.args(["all", "--data-dir"]).arg(place.path("other"));
    wrong.env("DFS_SCHEDULER__DELEGATE_ABOVE", "many");
    let said = Said::by(&mut wrong).unwrap().fails(2, "DFS-1003");
    let told = "found string \"many\", expected a whole number";
    assert!(said.stderr.contains(told), "{}", said.stderr);
}

#[test]
fn a_mark_in_a_name_is_told_how_to_be_written_and_that_works() {
    let place = Place::new();
    let server = Canned::serve(vec![
        ("/what!now", "text/plain", "this"),
        ("/what%21now", "text/plain", "this"),
    ]);
    let agent = Agent::solo(&place, "agent");
    let said = agent.dfctl(&["cat", &server.url("/what!now")]).fails(3, "DFS-2101");
    let advice = advice(&said);
    let command = advice.split_once(&format!("{} ", agent.typed())).unwrap().1;
    let words: Vec<_> = command.split(' ').map(|word| word.trim_matches('\'')).collect();
    assert_eq!(agent.dfctl(&words).done().text(), "this", "{advice}");
}

#[test]
fn an_archive_that_is_broken_or_leads_outside_is_not_asked_for_again() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let source = place.dir("source");
    fs::write(source.join("f"), noise(1, 300_000)).unwrap();
    fs::write(source.join("g"), "good").unwrap();
    let packed = |name: &str, extra: &[&str]| {
        let archive = place.path(name);
        let mut tar = Command::new("tar");
        tar.arg("-czPf").arg(&archive).arg("-C").arg(&source).args(extra).args(["f", "g"]);
        assert!(tar.status().unwrap().success());
        archive
    };
    let cut = packed("cut.tar.gz", &[]);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let said = agent.dfctl(&["ls", cut.to_str().unwrap()]).fails(5, "DFS-2114");
    assert!(
        !advice(&said).contains("again")
            && advice(&said).contains(&format!("{} get ", agent.typed())),
        "{}",
        said.stderr
    );
    let origin = Origin::of("/cut.tar.gz", Body::bytes(fs::read(&cut).unwrap())).unwrap();
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let member = Agent::of(&cluster, &place, "member");
    member.dfctl(&["ls", &origin.url("/cut.tar.gz")]).fails(5, "DFS-2114");
    let outside = packed("outside.tar.gz", &["--transform", "s,^f$,../f,"]);
    let (archive, out) = (outside.to_str().unwrap(), place.path("out"));
    let words = ["get", "-r", archive, "-o", out.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(8, "DFS-1108");
    assert!(!advice(&said).contains("again"), "{}", said.stderr);
    // What it advises ends without an error.
    assert!(advice(&said).contains("--exclude GLOB"), "{}", said.stderr);
    agent.dfctl(&[&words[..], &["--exclude", "f", "--force"]].concat()).done();
    assert_eq!(fs::read(out.join("g")).unwrap(), b"good");
}

#[test]
fn a_zip_that_lies_and_archives_that_are_cut_are_told_alike_alone_and_through_a_seed() {
    let place = Place::new();
    let source = place.dir("source");
    fs::write(source.join("f"), "f".repeat(300_000)).unwrap();
    fs::write(source.join("g"), "good").unwrap();
    let made = |program: &str, words: &[&str]| {
        let run = Command::new(program).args(words).current_dir(&source).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        fs::read(source.join(words[1])).unwrap()
    };
    let zip = made("zip", &["-q", "a.zip", "f", "g"]);
    let tar = made("tar", &["-cf", "a.tar", "f", "g"]);
    // The length of the first member, where the directory tells it.
    let at = zip.windows(4).position(|four| four == b"PK\x01\x02").unwrap() + 24;
    let mut lies = zip.clone();
    lies[at..at + 4].copy_from_slice(&250_000_u32.to_le_bytes());
    let origin = Origin::of("/lies.zip", Body::bytes(lies)).unwrap();
    origin.put("/cut.zip", Body::bytes(zip[..zip.len() / 2].to_vec()));
    origin.put("/cut.tar", Body::bytes(tar[..200_000].to_vec()));
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let agents = [Agent::solo(&place, "alone"), Agent::of(&cluster, &place, "member")];
    for agent in &agents {
        for words in [
            ["cat", "/lies.zip", "!f"],
            ["cat", "/cut.zip", "!f"],
            ["stat", "/cut.zip", "!f"],
            ["ls", "/cut.zip", "!d"],
            ["ls", "/cut.tar", ""],
            ["cat", "/cut.tar", "!g"],
        ] {
            let named = origin.url(words[1]) + words[2];
            let said = agent.dfctl(&[words[0], &named]).fails(5, "DFS-2114");
            let advice = advice(&said);
            assert!(!advice.contains("again"), "{words:?}: {}", said.stderr);
            assert!(advice.contains("dfctl --socket"), "{words:?}: {}", said.stderr);
        }
        let (dir, cut) = (place.dir("mount"), origin.url("/cut.zip") + "!d");
        agent.dfctl(&["mount", &cut, dir.to_str().unwrap()]).fails(5, "DFS-2114");
        assert_eq!(agent.dfctl(&["cat", &(origin.url("/lies.zip") + "!g")]).done().text(), "good");
    }
}

#[test]
fn a_sync_of_what_an_archive_cannot_give_is_not_told_to_go_again() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let source = place.dir("source");
    fs::write(source.join("f"), "x").unwrap();
    fs::write(source.join("g"), "good").unwrap();
    let archive = place.path("outside.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cPf").arg(&archive).arg("-C").arg(&source);
    assert!(tar.args(["--transform", "s,^f$,../f,", "f", "g"]).status().unwrap().success());
    let (from, to) = (format!("{}!", archive.display()), place.path("out"));
    let words = ["sync", &from, to.to_str().unwrap()];
    let said = agent.dfctl(&words).fails(8, "DFS-1108");
    let advice = advice(&said);
    assert!(!advice.contains("again") && advice.contains("--exclude GLOB"), "{}", said.stderr);
    agent.dfctl(&[&words[..], &["--exclude", "f"]].concat()).exits(9);
    assert_eq!(fs::read(to.join("g")).unwrap(), b"good");
}

#[test]
fn a_file_that_is_closed_to_its_asker_is_no_matter_of_headers() {
    let place = Place::new();
    place.open_to_others();
    let (file, dfctl) = (place.path("f"), place.dir("bin").join("dfctl"));
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(binary("dfctl"), &dfctl).unwrap();
    let data = place.dir("data");
    std::os::unix::fs::chown(&data, Some(crate::support::NOBODY), None).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let words = ["--solo", "--data-dir", data.to_str().unwrap(), "cat", file.to_str().unwrap()];
    let said = Said::by(as_nobody(&dfctl).args(words)).unwrap().fails(4, "DFS-2103");
    assert_eq!(advice(&said), format!("ls -ld {}", file.display()));
}
