//! Content that is slow or fails, readers that are killed, programs that try to write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dfs_fuse::content::{
    ContentError, ContentErrorClass, FailingContent, MemoryContent, SlowContent,
};
use dfs_fuse::mount::Opens;
use dfs_fuse::tree::{MemoryTreeBuilder, Tree};
use rustix::fs::{CWD, FileType, Mode};

use crate::support::{Fixture, noise, number, one_file, read, until};

#[test]
fn a_thousand_readers_of_one_missing_range_cost_one_fetch() {
    let bytes = noise(60_000);
    let tree = one_file(bytes.len());
    let memory = MemoryContent::missing(vec![bytes.clone()]);
    let content = SlowContent::new(memory.clone());
    let fixture = Fixture::new(&tree, content.clone());
    let path = fixture.path("f");
    let started = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..1000 {
            let reader = || {
                let mut file = File::open(&path).unwrap();
                started.fetch_add(1, Ordering::SeqCst);
                let mut got = Vec::new();
                file.read_to_end(&mut got).unwrap();
                assert!(got == bytes);
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, reader).unwrap();
        }
        until("all readers read", || started.load(Ordering::SeqCst) == 1000);
        until("the fetch is under way", || content.asked() > 0);
        content.open();
    });
    assert_eq!(memory.fetches().len(), 1);
    // Readers that race into the page cache may part the range between them: by its pages, not by readers.
    assert!(content.asked() <= 60_000_u64.div_ceil(4096), "{}", content.asked());
}

#[test]
fn a_blocked_reader_that_is_killed_goes_away_at_once() {
    let bytes = noise(60_000);
    let tree = one_file(bytes.len());
    let content = SlowContent::new(MemoryContent::missing(vec![bytes.clone()]));
    let fixture = Fixture::new(&tree, content.clone());
    let mut reader =
        Command::new("cat").arg(fixture.path("f")).stdout(Stdio::piped()).spawn().unwrap();
    until("the reader's fetch is under way", || content.asked() > 0);
    assert_eq!(reader.try_wait().unwrap(), None);
    reader.kill().unwrap();
    until("the reader is gone", || reader.try_wait().unwrap().is_some());
    content.open();
    assert!(read(&fixture.path("f")) == bytes, "the next reader is served");
}

/// Reads the beginning of a file past the page cache.
fn reading_past_the_page_cache(file: &Path) -> Child {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", file.display()));
    command.args(["of=/dev/null", "iflag=direct", "bs=4096", "count=1"]);
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Whether a process was killed and waits where the kernel does not let it end.
fn waits_killed(reader: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", reader.id())).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let pending = u64::from_str_radix(&of("SigPnd:"), 16).unwrap_or(0);
    of("State:").starts_with('D') && pending & 1 << (libc::SIGKILL - 1) != 0
}

#[test]
fn a_killed_reader_past_the_page_cache_ends_with_its_answer() {
    let bytes = noise(60_000);
    let content = SlowContent::new(MemoryContent::missing(vec![bytes.clone()]));
    let fixture = Fixture::new(&one_file(bytes.len()), content.clone());
    let mut reader = reading_past_the_page_cache(&fixture.path("f"));
    until("its fetch is under way", || content.asked() > 0);
    reader.kill().unwrap();
    // As soon as a request was taken the kernel waits for the answer: nobody takes interruptions.
    until("it waits all the same", || waits_killed(&reader));
    content.open();
    until("it has ended", || reader.try_wait().unwrap().is_some());
    assert!(read(&fixture.path("f")) == bytes, "the next reader is served");
}

#[test]
fn a_killed_reader_past_the_page_cache_ends_at_the_deadline_at_the_latest() {
    let content = SlowContent::new(MemoryContent::missing(vec![noise(60_000)]));
    let fixture = Fixture::with(&one_file(60_000), content.clone(), |options| {
        options.core.deadline = Duration::from_secs(1);
    });
    let mut reader = reading_past_the_page_cache(&fixture.path("f"));
    until("its fetch is under way", || content.asked() > 0);
    reader.kill().unwrap();
    until("it has ended", || reader.try_wait().unwrap().is_some());
    until("it is said why", || {
        let reason = xattr::get(fixture.path("f"), "user.dfs.error").unwrap();
        reason.is_some_and(|reason| reason.starts_with(b"timed out: "))
    });
}

#[test]
fn a_failure_is_eio_and_its_reason_can_be_read() {
    let bytes = noise(200_000);
    let tree = one_file(bytes.len());
    let error = ContentError::new(ContentErrorClass::Io, "origin answered 503 to 5 tries");
    let content = FailingContent::new(MemoryContent::missing(vec![bytes.clone()]), error);
    let fixture = Fixture::new(&tree, content.clone());
    let path = fixture.path("f");
    assert_eq!(xattr::get(&path, "user.dfs.error").unwrap(), None);
    assert_eq!(number(fs::read(&path)), Some(libc::EIO));
    assert!(content.failed() > 0);
    let reason = xattr::get(&path, "user.dfs.error").unwrap().unwrap();
    assert_eq!(reason, b"input/output error: origin answered 503 to 5 tries");
    assert_eq!(xattr::list(&path).unwrap().count(), 0);
    assert_eq!(xattr::get(&path, "user.dfs.cached_bytes").unwrap().unwrap(), b"0");
    content.heal();
    until("reading recovers without a new mount", || fs::read(&path).is_ok_and(|got| got == bytes));
    assert_eq!(xattr::get(&path, "user.dfs.error").unwrap(), None);
    assert_eq!(xattr::get(&path, "user.dfs.cached_bytes").unwrap().unwrap(), b"200000");
}

#[test]
fn a_read_without_an_answer_fails_at_its_deadline() {
    let tree = one_file(500_000);
    let content = SlowContent::new(MemoryContent::missing(vec![noise(500_000)]));
    let fixture = Fixture::with(&tree, content.clone(), |options| {
        options.core.deadline = Duration::from_millis(30);
    });
    assert_eq!(number(fs::read(fixture.path("f"))), Some(libc::EIO));
    assert!(content.asked() > 0);
    let reason = xattr::get(fixture.path("f"), "user.dfs.error").unwrap().unwrap();
    assert!(reason.starts_with(b"timed out: "), "{}", String::from_utf8_lossy(&reason));
}

type Attempt = (&'static str, fn(&Path) -> io::Result<()>);

fn attempts() -> Vec<Attempt> {
    let append = |path: &Path| OpenOptions::new().append(true).open(path.join("f")).map(drop);
    vec![
        ("open for writing", |dir| OpenOptions::new().write(true).open(dir.join("f")).map(drop)),
        ("open for appending", append),
        ("create", |dir| File::create(dir.join("new")).map(drop)),
        ("mkdir", |dir| fs::create_dir(dir.join("new"))),
        ("unlink", |dir| fs::remove_file(dir.join("f"))),
        ("rmdir", |dir| fs::remove_dir(dir.join("d"))),
        ("rename", |dir| fs::rename(dir.join("f"), dir.join("g"))),
        ("link", |dir| fs::hard_link(dir.join("f"), dir.join("g"))),
        ("symlink", |dir| symlink("f", dir.join("g"))),
        ("chmod", |dir| fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o600))),
        ("chown", |dir| chown(dir.join("f"), Some(1), Some(1))),
        ("utimes", |dir| {
            File::open(dir.join("f"))?.set_modified(std::time::SystemTime::UNIX_EPOCH)
        }),
        ("setxattr", |dir| xattr::set(dir.join("f"), "user.x", b"1")),
        ("removexattr", |dir| xattr::remove(dir.join("f"), "user.old")),
        ("mknod", |dir| {
            let made = rustix::fs::mknodat(CWD, dir.join("p"), FileType::Fifo, Mode::RUSR, 0);
            Ok(made?)
        }),
        ("truncate", |dir| {
            let status = Command::new("truncate").args(["-s", "1"]).arg(dir.join("f")).output()?;
            let refused = String::from_utf8_lossy(&status.stderr).contains("Read-only file system");
            if refused { Err(io::Error::from_raw_os_error(libc::EROFS)) } else { Ok(()) }
        }),
    ]
}

#[test]
fn whatever_would_write_is_refused_as_read_only() {
    let mut builder = MemoryTreeBuilder::new();
    let file = builder.file("f", 0o666, vec![]).unwrap();
    builder.xattr(file, "user.old", b"1");
    builder.dir("d", 0o777).unwrap();
    let tree = std::sync::Arc::new(builder.build());
    let fixture = Fixture::with(&tree, MemoryContent::cached(vec![]), |options| {
        options.opens = Opens::Asked;
    });
    let refuse_all = |when: &str| {
        for (what, attempt) in attempts() {
            let answer = number(attempt(fixture.mounted.dir()));
            assert_eq!(answer, Some(libc::EROFS), "{what}, {when}");
        }
    };
    refuse_all("as mounted");
    // Root can force the kernel's own check away; the filesystem's remains.
    let forced = Command::new("mount")
        .args(["-i", "-o", "remount,rw"])
        .arg(fixture.mounted.dir())
        .status()
        .unwrap();
    assert!(forced.success());
    refuse_all("after a forced remount");
    assert_eq!(tree.totals().inodes, 3);
}
