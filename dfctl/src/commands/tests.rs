//! What a person sees: literal output of every command over the fake backend.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use dfs_fuse::mount::MountEntry;
use dfs_service::data_dir::Places;

use super::Command;
use crate::backend::fake::{Break, Fake, entry, task};
use crate::backend::{
    Artifact, CachedTask, EntryKind, Failure, FailureClass, FilesRequest, Ledger, MountInfo,
    PinState, PinnedTree, PrefetchInfo, Profile, ReadsInfo, Survival, TracedFile, Verified, View,
};
use crate::codes::Exit;
use crate::context::Context;
use crate::output::{Format, Output, Verbosity};
use crate::settings::Settings;

/// A line of a mount table: where it is and what of the file system, on which device and of which kind.
pub(crate) fn mounted((dir, root): (&str, &str), device: &str, kind: &str) -> MountEntry {
    MountEntry {
        id: 1,
        parent: 0,
        only_id: None,
        dir: dir.into(),
        root: root.into(),
        device: device.into(),
        kind: kind.into(),
        name: "https://h/d/".into(),
        user: None,
    }
}

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

fn places(root: &Path) -> Places {
    let below = |name: &str| root.join(name);
    Places {
        data: Some(below("data")),
        runtime: below("run"),
        resident: below("resident"),
        config: Some(below("config")),
    }
}

fn words_apart(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn run_as(format: Format, backend: &Arc<Fake>, words: &[&str]) -> Ran {
    let settings = Settings::for_test(places(Path::new("/nowhere")));
    run_in(format, words, |output| Context::with_backend(settings, output, backend.clone())).await
}

/// Without any agent: what can be done is done by this process.
async fn run_alone(settings: &Settings, words: &[&str]) -> Ran {
    let settings = settings.clone();
    run_in(Format::Human, words, |output| Context::new(settings, output, Default::default())).await
}

async fn run_in(format: Format, words: &[&str], context: impl FnOnce(Output) -> Context) -> Ran {
    let (out, err) = (Captured::default(), Captured::default());
    let output = Output::to(format, Box::new(out.clone()), Box::new(err.clone()));
    let context = context(output);
    let line = Line::try_parse_from([&["dfctl"], words].concat())
        .map_err(|error| error.to_string())
        .unwrap();
    let exit = match Box::pin(line.command.run(&context)).await {
        Ok(outcome) => outcome.exit(),
        Err(error) => {
            context.output.error(&error);
            error.code.exit
        }
    };
    context.finish().await;
    Ran { exit, out: out.text(), err: err.text() }
}

async fn run(backend: &Arc<Fake>, words: &[&str]) -> Ran {
    run_as(Format::Human, backend, words).await
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const URL: &str = "https://h/file.bin";

#[tokio::test]
async fn a_file_is_saved_compared_refused_and_forced() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("out");
    let out = path.to_str().unwrap();
    let backend = Arc::new(Fake::holding(URL, b"hello, world"));
    let ran = run(&backend, &["get", URL, "-o", out]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.starts_with(&format!("saved {out}  12 B in ")), "{}", ran.out);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello, world");
    assert_eq!(names(place.path()), ["out"]);

    let ran = run(&backend, &["get", URL, "-o", out]).await;
    assert_eq!(ran.exit, Exit::Nothing);
    let unchanged = format!("unchanged {out}  12 B, as it was");
    assert!(ran.out.starts_with(&format!("{unchanged} seconds ago (--fresh")), "{}", ran.out);
    let ran = run(&backend, &["get", URL, "-o", out, "--fresh"]).await;
    assert!(ran.out.starts_with(&format!("{unchanged}  blake3:")), "{}", ran.out);

    for other in ["hello, W0rld", "short"] {
        std::fs::write(&path, other).unwrap();
        let ran = run(&backend, &["get", URL, "-o", out]).await;
        assert_eq!(ran.exit, Exit::Other);
        assert!(ran.err.contains("exists and is different  DFS-1101"), "{}", ran.err);
        assert!(ran.err.contains("--force"), "{}", ran.err);
        assert_eq!(std::fs::read(&path).unwrap(), other.as_bytes());
    }
    let ran = run(&backend, &["get", URL, "-o", out, "--force"]).await;
    assert_eq!(ran.exit, Exit::Done);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello, world");
}

#[tokio::test]
async fn a_broken_transfer_names_its_part_and_is_resumed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("out");
    let out = path.to_str().unwrap();
    for writes_itself in [false, true] {
        let mut fake = Fake::holding(URL, b"hello, world");
        fake.writes_itself = writes_itself;
        let backend = Arc::new(fake);
        let with = Failure::new(FailureClass::SourceFailed, "the origin reset the connection");
        *backend.breaks.lock().unwrap() = Some(Break { after: 6, with });
        let ran = run(&backend, &["get", URL, "-o", out]).await;
        assert_eq!(ran.exit, Exit::Source);
        assert_eq!(
            ran.err.replace("\u{1b}[1;31m", "").replace("\u{1b}[32m", "").replace("\u{1b}[0m", ""),
            format!(
                "error: cannot get {URL}: the origin reset the connection  DFS-2104\n  \
                 because  6 B of 12 B are in {out}.dfs-part\n  \
                 try      the same command again: it goes on from there\n"
            )
        );
        let ran = run(&backend, &["get", URL, "-o", out, "--explain"]).await;
        assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
        assert!(ran.out.contains("✓ equals the result"), "{}", ran.out);
        assert!(ran.out.contains("already here"), "{}", ran.out);
        assert_eq!(*backend.reads.lock().unwrap(), [0, 6]);
        assert_eq!(std::fs::read(&path).unwrap(), b"hello, world");
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_wrong_digest_is_exit_6_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("out");
    let out = path.to_str().unwrap();
    let backend = Arc::new(Fake::holding(URL, b"hello, world"));
    let wrong = format!("sha256:{}", "0".repeat(64));
    let ran = run(&backend, &["get", URL, "-o", out, "--digest", &wrong]).await;
    assert_eq!(ran.exit, Exit::Integrity);
    assert!(ran.err.contains("DFS-3101") && ran.err.contains(&wrong), "{}", ran.err);
    assert_eq!(names(place.path()), Vec::<String>::new());
    let right = "sha256:09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b";
    let ran = run(&backend, &["get", URL, "-o", out, "--digest", right]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.contains("sha256 matches --digest"), "{}", ran.out);
}

#[tokio::test]
async fn a_range_is_exactly_its_bytes() {
    let backend = Arc::new(Fake::holding(URL, b"hello, world"));
    let ran = run(&backend, &["get", URL, "-o", "-", "--range", "7-9"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "wor"));
    let ran = run(&backend, &["cat", URL, "--range", "7-99"]).await;
    assert_eq!(ran.out, "world");
    let ran = run(&backend, &["cat", URL, "--range", "12-13"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("DFS-2110"), "{}", ran.err);
}

fn tree() -> Fake {
    let mut fake = Fake::holding("https://h/d/!a.txt", b"aaaa");
    fake.contents.insert("https://h/d/!sub/b.bin".into(), b"bbbbbbbb".to_vec());
    fake.entries = vec![
        entry("a.txt", EntryKind::File, 4),
        entry("sub", EntryKind::Directory, 0),
        entry("sub/b.bin", EntryKind::File, 8),
        entry("sub/link", EntryKind::Symlink, 0),
    ];
    fake
}

#[tokio::test]
async fn a_tree_is_saved_and_saved_again_for_nothing() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("d");
    let out = root.to_str().unwrap();
    let backend = Arc::new(tree());
    let ran = run(&backend, &["get", "-r", "https://h/d/", "-o", out]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.starts_with(&format!("saved {out}  2 files, 12 B in ")), "{}", ran.out);
    assert_eq!(std::fs::read(root.join("sub/b.bin")).unwrap(), b"bbbbbbbb");
    assert_eq!(std::fs::read_link(root.join("sub/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(names(&root), ["a.txt", "sub"]);
    let again = run(&backend, &["get", "-r", "https://h/d/", "-o", out]).await;
    assert_eq!(again.exit, Exit::Nothing, "{}", again.err);

    let some = place.path().join("some");
    let ran = run(
        &backend,
        &["get", "-r", "https://h/d/", "-o", some.to_str().unwrap(), "--include", "*.txt"],
    )
    .await;
    assert_eq!(ran.exit, Exit::Done);
    assert_eq!(names(&some), ["a.txt"]);
}

#[tokio::test]
async fn small_files_are_asked_for_together_and_large_or_paced_ones_by_themselves() {
    let place = tempfile::tempdir().unwrap();
    let large = vec![7; (FilesRequest::LONGEST + 1) as usize];
    let mut fake = tree();
    fake.contents.insert("https://h/d/!large".into(), large.clone());
    fake.entries.push(entry("large", EntryKind::File, large.len() as u64));
    let backend = Arc::new(fake);
    let get = async |name: &str, flags: &[&str]| {
        let out = place.path().join(name);
        let words = ["get", "-r", "https://h/d/", "-o", out.to_str().unwrap()];
        let ran = run(&backend, &[&words, flags].concat()).await;
        assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
        assert_eq!(std::fs::read(out.join("large")).unwrap(), large);
        assert_eq!(std::fs::read(out.join("sub/b.bin")).unwrap(), b"bbbbbbbb");
        let alone = std::mem::take(&mut *backend.reads.lock().unwrap()).len();
        (std::mem::take(&mut *backend.together.lock().unwrap()), alone)
    };
    assert_eq!(get("d", &[]).await, (vec![2], 1));
    assert_eq!(get("paced", &["--limit", "1GiB/s"]).await, (vec![], 3));
    // What is there is replaced by what came together.
    std::fs::write(place.path().join("d/a.txt"), "old").unwrap();
    assert_eq!(get("d", &["--force"]).await, (vec![2], 1));
    assert_eq!(std::fs::read(place.path().join("d/a.txt")).unwrap(), b"aaaa");
    assert_eq!(names(&place.path().join("d")), ["a.txt", "large", "sub"]);
}

#[tokio::test]
async fn files_that_cannot_be_had_together_are_got_by_themselves() {
    let place = tempfile::tempdir().unwrap();
    for (name, class) in [("old", FailureClass::Unsupported), ("bad", FailureClass::Corrupt)] {
        let root = place.path().join(name);
        let mut fake = tree();
        fake.breaks_together = Some(Failure::new(class, "not here"));
        fake.loses_together = true;
        let backend = Arc::new(fake);
        let ran = run(&backend, &["get", "-r", "https://h/d/", "-o", root.to_str().unwrap()]).await;
        assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
        assert!(ran.out.contains("2 files, 12 B in "), "{}", ran.out);
        assert_eq!(std::fs::read(root.join("a.txt")).unwrap(), b"aaaa");
        assert_eq!(std::fs::read(root.join("sub/b.bin")).unwrap(), b"bbbbbbbb");
        assert_eq!(backend.reads.lock().unwrap().len(), 2);
    }
    // One is gone: it is named, and the other saved.
    let mut fake = tree();
    fake.contents.remove("https://h/d/!a.txt");
    let root = place.path().join("gone");
    let ran =
        run(&Arc::new(fake), &["get", "-r", "https://h/d/", "-o", root.to_str().unwrap()]).await;
    assert_eq!(ran.exit, Exit::Partly);
    assert!(ran.err.contains("a.txt") && names(&root) == ["sub"], "{}", ran.err);
}

#[tokio::test]
async fn what_is_left_of_a_call_is_read_eight_files_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let mut fake = tree();
    fake.entries = (0..16).map(|number| entry(&format!("{number}"), EntryKind::File, 4)).collect();
    let contents = (0..16).map(|number| (format!("https://h/d/!{number}"), b"left".to_vec()));
    fake.contents = contents.collect();
    fake.breaks_together = Some(Failure::new(FailureClass::Unsupported, "not here"));
    fake.loses_together = true;
    fake.meets = Some(Arc::new(tokio::sync::Barrier::new(8)));
    let backend = Arc::new(fake);
    let out = place.path().join("d");
    let words = ["get", "-r", "https://h/d/", "-o", out.to_str().unwrap()];
    // One after another, they would wait for each other for ever.
    let got = tokio::time::timeout(Duration::from_secs(60), run(&backend, &words));
    let ran = got.await.unwrap();
    assert_eq!((ran.exit, names(&out).len()), (Exit::Done, 16), "{}", ran.err);
    assert_eq!(*backend.together.lock().unwrap(), [16]);
    assert_eq!(backend.reads.lock().unwrap().len(), 16);
}

#[tokio::test]
async fn a_hostile_tree_never_leaves_its_directory_and_the_rest_is_saved() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let root = place.path().join("d");
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("planted")).unwrap();
    let mut fake = tree();
    for path in ["planted/x", "../evil", "/abs", "sub/../../evil"] {
        fake.entries.push(entry(path, EntryKind::File, 4));
        fake.contents.insert(format!("https://h/d/!{path}"), b"evil".to_vec());
    }
    let backend = Arc::new(fake);
    let ran = run(&backend, &["get", "-r", "https://h/d/", "-o", root.to_str().unwrap()]).await;
    assert_eq!(ran.exit, Exit::Partly, "{}", ran.err);
    assert_eq!(ran.err.matches("DFS-1106").count(), 4, "{}", ran.err);
    assert!(names(&outside).is_empty());
    assert_eq!(names(place.path()), ["d", "outside"]);
    assert_eq!(std::fs::read(root.join("a.txt")).unwrap(), b"aaaa");
}

#[tokio::test]
async fn a_listing_reads_like_ls_and_in_json_like_a_document() {
    let backend = Arc::new(tree());
    let ran = run(&backend, &["ls", "https://h/d/", "-r"]).await;
    assert_eq!(
        ran.out,
        "       4 B  2026-11-20 09:16Z  a.txt
         -  2026-11-20 09:16Z  sub/
       8 B  2026-11-20 09:16Z  sub/b.bin
         -  2026-11-20 09:16Z  sub/link -> /etc/passwd
"
    );
    let ran = run_as(Format::Name, &backend, &["ls", "https://h/d/"]).await;
    assert_eq!(ran.out, "a.txt\nsub\n");
    let ran = run_as(Format::Json, &backend, &["ls", "https://h/d/!sub"]).await;
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["items"][0]["path"], "sub/b.bin");
    assert_eq!(document["items"][1]["target"], "/etc/passwd");
    let empty = run_as(Format::Json, &Arc::new(Fake::default()), &["ls", "https://h/d/"]).await;
    let document: serde_json::Value = serde_json::from_str(&empty.out).unwrap();
    assert_eq!(document["items"], serde_json::json!([]));
}

#[tokio::test]
async fn names_with_newlines_are_told_apart() {
    let entries = ["a\nb", "c"].map(|name| entry(name, EntryKind::File, 1)).into();
    let backend = Arc::new(Fake { entries, ..Fake::default() });
    for format in [Format::Human, Format::Name] {
        let ran = run_as(format, &backend, &["ls", "-0", "https://h/d/"]).await;
        assert_eq!(ran.out, "a\nb\0c\0");
    }
    let ran = run_as(Format::Json, &backend, &["ls", "--null", "https://h/d/"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Usage, ""));
    let settings = Settings::for_test(places(Path::new("/nowhere")));
    let on_a_terminal = |mut output: Output| {
        output.stdout_is_terminal = true;
        Context::with_backend(settings, output, backend.clone())
    };
    let ran = run_in(Format::Name, &["ls", "https://h/d/"], on_a_terminal).await;
    assert_eq!(ran.out, "a\\nb\nc\n");
    let ran = run_as(Format::Name, &backend, &["ls", "https://h/d/"]).await;
    assert_eq!(ran.out, "a\nb\nc\n", "programs have it as it is");
}

#[tokio::test]
async fn stat_says_kind_size_and_version() {
    let backend = Arc::new(Fake::holding(URL, &[0; 2048]));
    let ran = run(&backend, &["stat", URL]).await;
    let id = task(URL, 2048).id;
    assert_eq!(
        ran.out,
        format!(
            "url      {URL}\nkind     file\ntask     {id}  2.0 KiB (2,048 bytes)\n\
             pieces   of 64.0 KiB\nversion  ETag \"v1\"\n"
        )
    );
    let ran = run(&Arc::new(tree()), &["stat", "https://h/d/!sub/nothing"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert!(ran.err.contains("dfctl ls 'https://h/d/!sub'\n"), "{}", ran.err);
}

fn mount() -> MountInfo {
    let url = "https://h/d/";
    MountInfo {
        dir: "/mnt/tool".into(),
        artifact: Artifact {
            url: url.into(),
            view: View::Tree,
            index: Some(task(url, 4096)),
            tasks: Vec::new(),
            files: 31_204,
            bytes: 2 << 30,
        },
        lane: "fuse".into(),
        lane_reason: "passthrough needs root".into(),
        cached: 61 << 20,
        content: 2 << 30,
        ledger: Ledger { source: 2 << 20, wire: 77, ..Ledger::default() },
        state: "ready".into(),
        files: 31_204,
        index_bytes: 4 << 20,
        left_out: 0,
        survival: Survival::Kept { holder: 4711, resends: true },
        prefetch: PrefetchInfo {
            runs: 3,
            known: 38 << 20,
            fetched: 38 << 20,
            hit: 19 << 20,
            ..PrefetchInfo::default()
        },
        away: None,
        reads: Some(ReadsInfo {
            reads: 12_000,
            bytes: 90 << 20,
            waits: 300,
            stalls: 2,
            errors: 1,
            waiting: 1,
            wait_p50_us: 4_000,
            wait_p99_us: 1_200_000,
            unseen: false,
        }),
        cache_quota: None,
        verify_reads: false,
        follow: None,
    }
}

#[tokio::test]
async fn what_readers_touch_first_is_shown_carried_and_cut() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    let (name, target) = (file.to_str().unwrap(), "https://h/d/");
    let first =
        TracedFile { path: b"bin/tool".into(), length: 9000, bytes: 8192, touched: 2, runs: 3 };
    let profile = Profile {
        url: target.into(),
        file: b"profile".into(),
        runs: 3,
        bytes: 38 << 20,
        files: 212,
        first: vec![first],
        ..Profile::default()
    };
    let backend = Arc::new(Fake { profile, ..Fake::default() });
    let ran = run(&backend, &["trace", "show", target]).await;
    let lines: Vec<_> = ran.out.lines().map(words_apart).collect();
    assert_eq!(
        lines,
        [
            "profile https://h/d/ 38.0 MiB in 212 files, of 3 runs, not written down yet",
            "AHEAD OF RUNS FILE",
            "8.0 KiB 8.8 KiB 2 of 3 bin/tool",
            "… and 211 files more"
        ]
    );
    let ran = run(&backend, &["trace", "export", "-o", name, target]).await;
    assert_eq!((ran.exit, std::fs::read(&file).unwrap()), (Exit::Done, b"profile".to_vec()));
    let ran = run(&backend, &["trace", "apply", name, target]).await;
    assert_eq!(words_apart(&ran.out), "applied https://h/d/ 38.0 MiB in 212 files, of 3 runs");
    let ran = run(&backend, &["trace", "record", "/mnt/tool", "--", "false"]).await;
    assert_eq!(ran.exit, Exit::Partly);
    assert!(ran.out.starts_with("recorded") && ran.err.contains("DFS-1108"), "{}", ran.err);
    let done = ["apply 7 bytes", "record /mnt/tool", "record /mnt/tool"];
    assert_eq!(*backend.done.lock().unwrap(), done);

    let ran = run(&backend, &["trace", "apply", "/nonexistent/x", target]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    std::fs::write(&file, vec![0; 3 << 20]).unwrap();
    let ran = run(&backend, &["trace", "apply", name, target]).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("DFS-5108"), "{}", ran.err);
    let nothing = Arc::new(Fake::default());
    let ran = run(&nothing, &["trace", "export", "-o", "-", target]).await;
    assert_eq!((ran.exit, &*ran.out), (Exit::Nothing, ""));
    let ran = run(&nothing, &["trace", "show", target]).await;
    assert_eq!(words_apart(&ran.out), "profile nothing was read yet");
}

#[tokio::test]
async fn who_mounts_is_told_where_nobody_can_keep_it() {
    let place = tempfile::tempdir().unwrap();
    let words = ["mount", "https://h/d/", place.path().to_str().unwrap()];
    let dies = |why: Option<&str>| {
        let survival = Survival::Dies { why: why.map(str::to_owned) };
        Arc::new(Fake { mounts: vec![MountInfo { survival, ..mount() }], ..Fake::default() })
    };
    let ran = run(&dies(Some("the holder is gone")), &words).await;
    assert!(ran.err.contains("nobody keeps it when its agent dies: the holder is gone"));
    let ran = run(&dies(None), &words).await;
    assert_eq!((ran.exit, ran.err), (Exit::Done, String::new()), "nobody wanted it kept");
}

#[tokio::test]
async fn mounts_are_made_listed_and_taken_away() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().canonicalize().unwrap();
    let backend = Arc::new(Fake { mounts: vec![mount()], ..Fake::default() });
    let ran = run(&backend, &["mount", "https://h/d/", dir.to_str().unwrap()]).await;
    let first = format!(
        "mounted  {}   https://h/d/   31,204 files, 2.0 GiB    index 4.0 MiB in ",
        dir.display()
    );
    assert!(ran.out.starts_with(&first), "{}", ran.out);
    let last = "         lane fuse (passthrough needs root)   profile 38.0 MiB of 3 runs\n";
    assert!(ran.out.ends_with(last), "{}", ran.out);
    let ran = run(&backend, &["mounts"]).await;
    // What others have killed on this machine is listed below, and makes columns wide.
    let listed: Vec<String> = ran.out.lines().take(2).map(words_apart).collect();
    assert_eq!(
        listed,
        [
            "MOUNT ARTIFACT LANE CACHED PREFETCHED SOURCE/SEED/PEERS STATE",
            "/mnt/tool https://h/d/ fuse 61.0 MiB of 2.0 GiB 38.0 MiB, 50 % read 2.0 MiB / - / - ready"
        ]
    );
    let ran = run_as(Format::Json, &backend, &["mounts"]).await;
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let ledger = &document["items"][0]["ledger"];
    assert_eq!(ledger["source"], 2 << 20);
    let prefetch = &document["items"][0]["prefetch"];
    assert_eq!((&prefetch["mode"], &prefetch["hit_rate"]), (&"trace".into(), &0.5.into()));
    assert_eq!(prefetch["coverage"], serde_json::Value::Null);
    assert_eq!(ledger["wire"], (2 << 20) + 77, "what came from the origin came over a wire too");
    let ran = run(&backend, &["umount", dir.to_str().unwrap()]).await;
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.out.starts_with("unmounted  ") && ran.err.is_empty(), "{} {}", ran.out, ran.err);
    let ran = run_as(Format::Json, &backend, &["umount", dir.to_str().unwrap()]).await;
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&document["kind"], &document["dir"]), (&"unmounted".into(), &dir.to_str().into()));
    assert_eq!(document["left"], 0);

    let ran = run(&backend, &["mount", "https://h/d/", "/nonexistent/x"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains("DFS-5102") && ran.err.contains("mkdir -p /nonexistent/x"),
        "{}",
        ran.err
    );
}

fn cached(url: &str, in_use: bool) -> CachedTask {
    CachedTask {
        task: task(url, 1 << 20),
        cached: 512 << 10,
        disk: 600 << 10,
        in_use,
        pinned: false,
        fetching: false,
        last_read_ms: 0,
        ledger: Ledger::default(),
        complete: false,
        parents: Vec::new(),
    }
}

#[tokio::test]
async fn a_task_with_parents_is_fetching_only_while_it_is_fetched() {
    let mut idle = cached("https://h/a", false);
    idle.parents = vec!["node1".to_owned()];
    let fetching = CachedTask { fetching: true, in_use: true, ..idle.clone() };
    let pinned = CachedTask { pinned: true, ..idle.clone() };
    for (task, state) in [(idle, "idle"), (fetching, "fetching"), (pinned, "idle, pinned")] {
        let backend = Arc::new(Fake { tasks: vec![task], ..Fake::default() });
        let ran = run(&backend, &["task", "ls"]).await;
        assert!(ran.out.contains(&format!("  {state}  ")), "{}", ran.out);
    }
}

#[tokio::test]
async fn what_is_in_use_or_pinned_is_removed_only_when_that_is_said() {
    let used = cached("https://h/used", true);
    let pinned = CachedTask { pinned: true, ..cached("https://h/pinned", false) };
    let free = cached("https://h/free", false);
    let [u, p, f] = [&used, &pinned, &free].map(|task| task.task.id.short());
    let backend = Arc::new(Fake { tasks: vec![used, pinned, free], ..Fake::default() });
    for words in [&["task", "rm", "--yes", &f, &u][..], &["task", "rm", "--wait", "--yes", &f, &p]]
    {
        let ran = run(&backend, words).await;
        assert_eq!(ran.exit, Exit::Other, "{}", ran.err);
        assert!(ran.err.contains("nothing was removed  DFS-4117"), "{}", ran.err);
    }
    let ran = run(&backend, &["task", "rm", &f]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("DFS-1109") && ran.err.contains("--yes"), "{}", ran.err);
    let ran = run(&backend, &["task", "rm", "--dry-run", "--unpin", &f, &p]).await;
    let would = format!("would remove  {f}  600.0 KiB  https://h/free\n");
    assert!(ran.out.starts_with(&would), "{}", ran.out);
    assert!(ran.out.ends_with("would remove 2 tasks, 1.2 MiB\n"), "{}", ran.out);
    assert!(backend.done.lock().unwrap().is_empty(), "nothing was done so far");

    let ran = run(&backend, &["cache", "rm", "--yes", "--unpin", &f, &p, &f]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let done = [format!("remove {f} GoToo"), format!("remove {p} GoToo")];
    assert_eq!(*backend.done.lock().unwrap(), done, "each once");
}

#[tokio::test]
async fn pins_are_set_lifted_and_shown() {
    let pinned = CachedTask { pinned: true, ..cached("https://h/pinned", false) };
    let free = cached("https://h/free", false);
    let [p, f] = [&pinned, &free].map(|task| task.task.id.short());
    let backend = Arc::new(Fake { tasks: vec![pinned, free], ..Fake::default() });
    let ran = run(&backend, &["cache", "pin", &f, &p]).await;
    assert_eq!(ran.exit, Exit::Done);
    let told = format!(
        "pinned  {f}  50 % here  https://h/free\npinned already  {p}  50 % here  https://h/pinned\n"
    );
    assert_eq!(ran.out, told);
    assert_eq!(run(&backend, &["cache", "pin", &p]).await.exit, Exit::Nothing);
    assert_eq!(run(&backend, &["cache", "unpin", &p]).await.exit, Exit::Done);
    let done = [&f, &p, &p].map(|id| format!("Set {id}")).into_iter();
    let done: Vec<_> = done.chain([format!("Lift {p}")]).collect();
    assert_eq!(*backend.done.lock().unwrap(), done);
    let ran = run(&backend, &["cache", "ls"]).await;
    let pinned = ran.out.lines().find(|line| line.contains(&p)).unwrap();
    assert!(pinned.contains("  pinned  "), "{}", ran.out);
}

#[tokio::test]
async fn what_is_pinned_as_a_tree_is_told_with_how_far_it_is() {
    let pin = |state, cached, why: &str| PinnedTree {
        id: vec![1],
        url: "https://h/d/!models".into(),
        files: 3,
        bytes: 10 << 20,
        cached,
        state,
        why: why.into(),
        since_ms: 1_795_166_194_000,
    };
    let fetching = pin(PinState::Fetching, 4 << 20, "");
    let backend = Arc::new(Fake { pins: vec![fetching], ..Fake::default() });
    let ran = run(&backend, &["cache", "pin", "https://h/d/!models"]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let told =
        "pinned  https://h/d/!models   3 files, 10.0 MiB   4.0 MiB here, the rest is fetched\n";
    assert_eq!(ran.out, told);
    let ran = run(&backend, &["cache", "ls", "--pins"]).await;
    assert!(ran.out.contains("10.0 MiB  40 %  fetching  https://h/d/!models"), "{}", ran.out);
    let ran = run(&backend, &["cache", "ls"]).await;
    assert!(ran.out.contains("40 %  fetching"), "pins stand below the tasks: {}", ran.out);
    let ran = run(&backend, &["cache", "unpin", "https://h/d/!models"]).await;
    assert_eq!(ran.out, "unpinned  https://h/d/!models   3 files, 10.0 MiB\n");

    let whole = Fake { pins: vec![pin(PinState::Whole, 10 << 20, "")], ..Fake::default() };
    let ran = run(&Arc::new(whole), &["cache", "pin", "--wait", "https://h/d/!models"]).await;
    assert!(ran.out.ends_with("10.0 MiB   all of it here\n"), "{}", ran.out);
    let failed = pin(PinState::Failed, 4 << 20, "origin changed");
    let failed = Fake { pins: vec![failed], ..Fake::default() };
    let ran = run(&Arc::new(failed), &["cache", "pin", "--wait", "https://h/d/!models"]).await;
    assert_eq!(ran.exit, Exit::Partly, "{}", ran.err);
    assert!(ran.err.contains("DFS-4127") && ran.err.contains("origin changed"), "{}", ran.err);
}

#[tokio::test]
async fn one_mount_is_shown_with_what_its_readers_met() {
    let backend = Arc::new(Fake { mounts: vec![mount()], ..Fake::default() });
    let ran = run(&backend, &["mounts", "/mnt/tool"]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let met = "12,000 reads, 90.0 MiB, 1 error\n";
    assert!(ran.out.contains(met), "{}", ran.out);
    let waited =
        "300 reads: half within 4 ms, 99 % within 1.2 s, 2 stalls of a second or more; 1 now";
    assert!(ran.out.contains(waited), "{}", ran.out);
    let ran = run(&backend, &["mounts", "/mnt/none"]).await;
    assert_eq!(ran.exit, Exit::NotFound, "{}", ran.err);
}

#[tokio::test]
async fn a_beginning_that_several_tasks_have_is_exit_2_and_one_that_none_has_is_exit_3() {
    let tasks: Vec<_> = (0..17).map(|n| cached(&format!("https://h/{n}"), false)).collect();
    let first = |task: &CachedTask| task.task.id.to_string()[..1].to_owned();
    let firsts: Vec<_> = tasks.iter().map(first).collect();
    let shared = firsts.iter().find(|digit| firsts.iter().filter(|d| d == digit).count() > 1);
    let shared = shared.unwrap().as_str();
    let none = "0".repeat(64);
    let backend = Arc::new(Fake { tasks, ..Fake::default() });
    for command in
        [&["task", "show"][..], &["task", "rm", "--yes"], &["cache", "pin"], &["cache", "verify"]]
    {
        let ran = run(&backend, &[command, &[shared]].concat()).await;
        assert_eq!(ran.exit, Exit::Usage, "{command:?}: {}", ran.err);
        assert!(ran.err.contains(&format!("tasks begin with {shared}")), "{}", ran.err);
        let ran = run(&backend, &[command, &[none.as_str()]].concat()).await;
        assert_eq!(ran.exit, Exit::NotFound, "{command:?}: {}", ran.err);
        assert!(ran.err.contains("DFS-4116"), "{}", ran.err);
    }
}

#[tokio::test]
async fn the_cache_and_its_tasks_are_shown_collected_and_verified() {
    let tasks = vec![cached("https://h/a", true), cached("https://h/b", false)];
    let bad = Verified {
        task: Some(tasks[0].task.id),
        groups_checked: 16,
        groups_bad: 1,
        bad_groups: vec![3],
        groups_repaired: 0,
        why_not: String::new(),
        finished: false,
    };
    let totals = Verified { task: None, finished: true, groups_checked: 32, ..bad.clone() };
    let (a, b) = (tasks[0].task.id, tasks[1].task.id);
    let backend = Arc::new(Fake { tasks, verified: vec![bad, totals], ..Fake::default() });
    let ran = run(&backend, &["task", "ls"]).await;
    assert_eq!(
        ran.out,
        format!(
            "TASK          KIND   LENGTH  HERE  READ  STATE   URL\n\
             {}  blob  1.0 MiB  50 %  -     in use  https://h/a\n\
             {}  blob  1.0 MiB  50 %  -     idle    https://h/b\n",
            a.short(),
            b.short()
        )
    );
    let ran = run(&backend, &["task", "show", &b.short()]).await;
    assert!(ran.out.contains(&format!("task       {b}\n")), "{}", ran.out);
    let ran = run(&backend, &["task", "show", "zz"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    let ran = run(&backend, &["cache", "gc", "--dry-run"]).await;
    assert_eq!(
        ran.out,
        format!("{b}\nwould evict 1 task, 600.0 KiB; 600.0 KiB would be still used\n")
    );
    let ran = run(&backend, &["cache", "verify"]).await;
    assert_eq!(ran.exit, Exit::Integrity);
    assert_eq!(
        ran.out,
        format!(
            "damaged  {}  groups 3\nverified 32 groups (at most 2.0 MiB), 1 damaged\n",
            a.short()
        )
    );
    let ran = run(&backend, &["cache", "ls"]).await;
    assert!(ran.out.ends_with("2 tasks, 1.0 GiB of 50.0 GiB in /var/lib/dfs\n"), "{}", ran.out);
}

#[tokio::test]
async fn a_quiet_command_says_only_what_failed_and_prints_only_what_was_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let (dir, out) = (place.path().to_str().unwrap(), place.path().join("out"));
    let totals = Verified {
        task: None,
        finished: true,
        groups_checked: 1,
        groups_bad: 0,
        bad_groups: vec![],
        groups_repaired: 0,
        why_not: String::new(),
    };
    let fake = Fake { mounts: vec![mount()], verified: vec![totals], ..Fake::holding(URL, b"x") };
    let backend = Arc::new(fake);
    let run = async |format, words: &[&str]| {
        let settings = Settings::for_test(places(Path::new("/nowhere")));
        let context = |mut output: Output| {
            output.verbosity = Verbosity::Quiet;
            Context::with_backend(settings, output, backend.clone())
        };
        run_in(format, words, context).await
    };
    for words in [
        &["mount", URL, dir][..],
        &["umount", dir],
        &["get", URL, "-o", out.to_str().unwrap()],
        &["get", URL, "-o", out.to_str().unwrap()],
        &["cache", "gc"],
        &["cache", "verify"],
    ] {
        let ran = run(Format::Human, words).await;
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{words:?}");
    }
    assert!(run(Format::Human, &["mounts"]).await.out.contains("/mnt/tool"));
    assert!(run(Format::Json, &["mount", URL, dir]).await.out.contains("\"mount\""));
    let ran = run(Format::Human, &["cat", "https://h/none"]).await;
    assert!(ran.err.contains("DFS-2101"), "{}", ran.err);
}

#[tokio::test]
async fn every_class_of_failure_has_its_exit_code() {
    for (class, exit) in [
        (FailureClass::NotFound, Exit::NotFound),
        (FailureClass::NotPermitted, Exit::NotPermitted),
        (FailureClass::SourceFailed, Exit::Source),
        (FailureClass::OriginChanged, Exit::Source),
        (FailureClass::Corrupt, Exit::Integrity),
        (FailureClass::NoSpace, Exit::NoSpace),
        (FailureClass::Limit, Exit::Limit),
        (FailureClass::IsTree, Exit::Usage),
        (FailureClass::Internal, Exit::Other),
    ] {
        let failure = Some(Failure::new(class, "no"));
        let backend = Arc::new(Fake { failure, ..Fake::holding(URL, b"x") });
        for words in [&["stat", URL][..], &["cat", URL], &["ls", "https://h/!x"]] {
            assert_eq!(run(&backend, words).await.exit, exit, "{class:?} {words:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_said_with_a_way_out() {
    let backend = Arc::new(Fake::holding("https://h/", b"x"));
    for (words, code, hint) in [
        (&["get", "host.org/x"][..], "DFS-1002", "https://host.org/x"),
        (&["get", "https://h/"], "DFS-1001", "dfctl get https://h/ -o NAME"),
        (&["get", "-r", "https://h/"], "DFS-1001", "dfctl get -r https://h/ -o DIR"),
        (&["get", "-r", "https://h/d/", "-o", "-"], "DFS-1001", "-o DIR"),
        (&["get", "-H", "nocolon", URL], "DFS-1001", "-H 'Name: value'"),
        (&["get", URL, "-o", "/nonexistent/"], "DFS-1102", "mkdir -p"),
    ] {
        let ran = run(&backend, words).await;
        assert!(ran.err.contains(code) && ran.err.contains(hint), "{words:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn an_agent_of_another_cluster_is_not_taken_for_one_of_the_cluster_named() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let mut settings = Settings::for_test(places(place.path()));
    settings.cluster = Some("127.0.0.1:4000".parse().unwrap());
    let member = |cluster: Option<&str>| {
        let (cluster, mounts) = (cluster.map(str::to_owned), vec![mount()]);
        Arc::new(Fake { cluster, mounts, ..Fake::holding(URL, b"hello") })
    };
    let commands = [&["cat", URL][..], &["stat", URL], &["mount", URL, dir]];
    for (cluster, is_in) in [(None, "none"), (Some("127.0.0.1:4001"), "127.0.0.1:4001")] {
        let backend = member(cluster);
        for words in commands {
            let context = |output| Context::with_backend(settings.clone(), output, backend.clone());
            let ran = run_in(Format::Human, words, context).await;
            assert_eq!((ran.exit, ran.out.as_str()), (Exit::Usage, ""), "{words:?}");
            assert!(ran.err.contains("DFS-4112"), "{words:?}: {}", ran.err);
            assert!(ran.err.contains(&format!("takes part in {is_in}\n")), "{}", ran.err);
        }
        assert_eq!(backend.reads.lock().unwrap().len(), 0, "nothing was read");
    }
    let backend = member(Some("127.0.0.1:4001,127.0.0.1:4000"));
    for words in [&commands[..], &[&["mounts"]]].concat() {
        let context = |output| Context::with_backend(settings.clone(), output, backend.clone());
        assert_eq!(run_in(Format::Human, words, context).await.exit, Exit::Done, "{words:?}");
    }
}

#[tokio::test]
async fn a_tree_without_a_name_is_to_be_got_as_a_tree() {
    let failing = |class| {
        let failure = Some(Failure::new(class, "no"));
        Arc::new(Fake { failure, ..Fake::default() })
    };
    let ran = run(&failing(FailureClass::IsTree), &["get", "https://h/"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("DFS-2108"), "{}", ran.err);
    assert!(ran.err.contains("dfctl get -r https://h/ -o DIR"), "{}", ran.err);
    let ran = run(&failing(FailureClass::SourceFailed), &["get", "https://h/"]).await;
    assert_eq!(ran.exit, Exit::Source, "what it is cannot be told: {}", ran.err);
}

#[tokio::test]
async fn a_preheating_is_waited_for_or_left_to_the_seed_and_one_failure_hides_no_other() {
    let fake = Arc::new(Fake::default());
    let ran = run(&fake, &["preheat", "https://h/x"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Done, "taken on  https://h/x  100 B by seed-1\n")
    );
    let ran = run(&fake, &["preheat", "--wait", "https://h/x"]).await;
    assert!(ran.out.starts_with("preheated https://h/x  100 B on seed-1 in "), "{}", ran.out);
    let failure = Some(Failure::new(FailureClass::NotFound, "the origin answered 404"));
    let failing = Arc::new(Fake { failure, ..Fake::default() });
    let ran = run(&failing, &["preheat", "https://h/x", "https://h/y"]).await;
    assert_eq!(ran.exit, Exit::Partly);
    assert_eq!(ran.err.matches("DFS-2101").count(), 2, "{}", ran.err);
}

#[tokio::test]
async fn images_are_pulled_pinned_indexed_and_told_of() {
    let fake = Arc::new(Fake::default());
    let image = "oci://h.test/app:1";
    let ran = run(&fake, &["image", "ls"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "no image is known here\n"));
    let ran = run(&fake, &["image", "pull", image]).await;
    assert!(ran.out.starts_with("pulled  oci://h.test/app:1   100 B in "), "{}", ran.out);
    assert!(ran.out.contains("source 100 %"), "{}", ran.out);
    let ran = run_as(Format::Json, &fake, &["image", "pull", image]).await;
    let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&told["pinned"], &told["ledger"]["source"]), (&false.into(), &100.into()));
    for words in [
        &["image", "pull", "https://h/x"][..],
        &["image", "pull", "oci://h.test/app:1!etc"],
        &["image", "index", "https://h/x", "--push"],
        &["image", "index", "oci-layout:///d", "--push"],
        &["image", "pull", image, "--platform", "amd64"],
    ] {
        assert_eq!(run(&fake, words).await.exit, Exit::Usage, "{words:?}");
    }
    let ran = run(&fake, &["image", "index", image, "--push"]).await;
    assert!(ran.err.contains("dfctl --solo image index"), "{}", ran.err);
    let ran = run(&fake, &["image", "index", image, "--import", "/f"]).await;
    let said = "imported  oci://h.test/app:1  indexes of 2 of 3 layers, 1 were known\n";
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, said));
    let failure = Some(Failure::new(FailureClass::NoSpace, "no space left"));
    let failing = Arc::new(Fake { failure, ..Fake::default() });
    let ran = run(&failing, &["image", "pull", image]).await;
    assert_eq!(ran.exit, Exit::NoSpace, "{}", ran.err);
}

const SAYS_SOLO: &str = "no node agent answers: straight from the origin";

#[tokio::test]
async fn nobody_on_a_socket_that_was_named_is_an_error_and_is_not_gone_around() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("f");
    std::fs::write(&file, "hello").unwrap();
    let (file, out) = (file.to_str().unwrap(), place.path().join("out"));
    let mut settings = Settings::for_test(places(place.path()));
    settings.socket = Some(place.path().join("none.sock"));
    for words in [
        &["cat", file][..],
        &["get", file, "-o", out.to_str().unwrap()],
        &["get", "-r", file, "-o", out.to_str().unwrap()],
        &["ls", file],
        &["stat", file],
        &["task", "ls"],
        &["cache", "gc"],
    ] {
        let ran = run_alone(&settings, words).await;
        assert_eq!(ran.exit, Exit::Source, "{words:?}: {}", ran.err);
        assert_eq!(ran.err.matches("DFS-").count(), 1, "{words:?}: {}", ran.err);
        assert!(ran.err.contains("DFS-4101") && ran.err.contains("none.sock"), "{}", ran.err);
        assert_eq!(ran.out, "", "{words:?}");
    }
    assert_eq!(names(place.path()), ["f"], "nothing was begun");
    settings.solo = true;
    let ran = run_alone(&settings, &["cat", file]).await;
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "hello", ""));
}

#[tokio::test]
async fn without_an_agent_where_one_is_usual_it_is_said_and_data_go_where_they_should() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("f");
    std::fs::write(&file, "hello").unwrap();
    let mut settings = Settings::for_test(places(place.path()));
    let ran = run_alone(&settings, &["cat", file.to_str().unwrap()]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "hello"), "{}", ran.err);
    assert_eq!(ran.err.trim_end(), SAYS_SOLO);
    assert_eq!(names(place.path()), ["data", "f"]);
    assert_eq!(names(&place.path().join("data")), ["solo"]);

    settings.data_dir = Some(place.path().join("mine"));
    std::fs::remove_dir_all(place.path().join("data")).unwrap();
    let ran = run_alone(&settings, &["cat", file.to_str().unwrap()]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "hello"), "{}", ran.err);
    assert_eq!(names(place.path()), ["f", "mine"]);
    assert_eq!(names(&place.path().join("mine")), ["solo"]);
}

#[tokio::test]
async fn a_code_is_explained_and_an_unknown_one_names_those_like_it() {
    let backend = Arc::new(Fake::default());
    let ran = run(&backend, &["explain", "dfs-2103"]).await;
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.out.starts_with("DFS-2103  the origin refused\nexit code 4\n\n"), "{}", ran.out);
    assert!(ran.out.contains("\nusual causes\n  - "), "{}", ran.out);
    assert!(ran.out.contains("\nwhat to do\n  dfctl stat --profile NAME "), "{}", ran.out);
    let json = run_as(Format::Json, &backend, &["explain", "2103"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json["code"].as_str(), json["exit"].as_u64()), (Some("DFS-2103"), Some(4)));
    assert!(json["next"][0]["command"].as_str().unwrap().starts_with("dfctl "), "{json}");

    let all = crate::codes::all().len();
    for words in [&["explain"][..], &["explain", "--list"]] {
        let ran = run_as(Format::Name, &backend, words).await;
        assert_eq!(ran.out.lines().filter(|line| line.starts_with("DFS-")).count(), all);
    }
    assert_eq!(run(&backend, &["explain"]).await.out.lines().count(), all + 1);

    let ran = run(&backend, &["explain", "DFS-2203"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert!(ran.err.contains("there is no code DFS-2203  DFS-1004"), "{}", ran.err);
    assert!(ran.err.contains("codes like it: DFS-2103"), "{}", ran.err);
    let ran = run(&backend, &["explain", "nonsense"]).await;
    assert!(ran.err.contains("dfctl explain --list"), "{}", ran.err);
}

#[tokio::test]
async fn a_value_is_told_with_where_it_came_from_and_what_it_overrides() {
    let place = tempfile::tempdir().unwrap();
    let (places, system) = (places(place.path()), place.path().join("etc"));
    std::fs::create_dir_all(&system).unwrap();
    let config = places.config.clone().unwrap();
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(system.join("site.toml"), "# all\ncolor = 'always'\nsolo = true\n").unwrap();
    let user = config.join("dfctl.toml");
    std::fs::write(&user, "color = 'never'\nprogress = 'json'\n").unwrap();
    let settings = Settings::for_test_over(places, &system).unwrap();
    let ran = run_alone(&settings, &["config", "explain", "color"]).await;
    let site = system.join("site.toml");
    let facts = format!(
        "key        color\nvalue      never\nfrom       {}:1\noverrides  always in {}:2\n",
        user.display(),
        site.display()
    );
    assert!(ran.out.starts_with(&facts), "{}", ran.out);
    let ran = run_alone(&settings, &["config", "explain", "progress"]).await;
    assert!(ran.out.contains("from       environment variable DFS_PROGRESS\n"), "{}", ran.out);
    assert!(ran.out.contains(&format!("overrides  json in {}:2\n", user.display())), "{}", ran.out);
    let ran = run_alone(&settings, &["config", "get"]).await;
    assert_eq!(ran.out, "color = never\nprogress = plain\nsolo = true\n");
    assert_eq!(run_alone(&settings, &["config", "get", "solo"]).await.out, "true\n");
    let ran = run_alone(&settings, &["config", "get", "cluster"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Nothing, ""));
    let ran = run_alone(&settings, &["config", "get", "colour"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert!(ran.err.contains("DFS-1004") && ran.err.contains("keys like it: color"), "{}", ran.err);
}

#[tokio::test]
async fn a_value_is_written_or_refused_before_anything_is() {
    let place = tempfile::tempdir().unwrap();
    let places = places(place.path());
    let user = places.config.clone().unwrap().join("dfctl.toml");
    let settings = Settings::for_test(places);
    for (words, exit, code) in [
        (&["config", "set", "colour", "never"][..], Exit::NotFound, "DFS-1004"),
        (&["config", "set", "color", "pink"], Exit::Usage, "DFS-1003"),
        (&["config", "set", "solo", "perhaps"], Exit::Usage, "DFS-1003"),
    ] {
        let ran = run_alone(&settings, words).await;
        assert_eq!(ran.exit, exit, "{words:?}: {}", ran.err);
        assert!(ran.err.contains(code), "{words:?}: {}", ran.err);
    }
    assert!(!user.exists());
    let ran = run_alone(&settings, &["config", "set", "color", "never"]).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert_eq!(ran.out, format!("color = never   in {}\n", user.display()));
    let ran = run_alone(&settings, &["config", "set", "color", "never"]).await;
    assert_eq!(ran.exit, Exit::Nothing);
    assert_eq!(std::fs::read_to_string(&user).unwrap(), "color = \"never\"\n");
}

#[tokio::test]
async fn a_refusal_names_the_command_that_was_refused() {
    let failure = Some(Failure::new(FailureClass::NotPermitted, "status 403"));
    let backend = Arc::new(Fake { failure, ..Fake::default() });
    for command in ["get", "cat", "ls", "stat"] {
        let ran = run(&backend, &[command, URL]).await;
        assert_eq!(ran.exit, Exit::NotPermitted, "{}", ran.err);
        assert!(ran.err.contains(&format!("dfctl {command} -H 'Auth")), "{command}: {}", ran.err);
    }
}
