//! The machine's own files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use dfs_source::{
    Credentials, Entry, EntryKind, FileOptions, LocalUser, SourceError, SpecialKind, StatKind,
    Timestamp,
};
use futures::StreamExt as _;
use tempfile::TempDir;

use crate::{Client, content, failure};

fn assert_changed(error: &SourceError) {
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
}

fn file_with(length: usize) -> (TempDir, String) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("a b.bin");
    fs::write(&path, content(length)).unwrap();
    (home, path.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_file_is_read_in_parts_and_whole() {
    let (_home, path) = file_with(3_000_000);
    let client = Client::new();
    let stat = client.stat(&path).await.unwrap();
    assert_eq!((stat.length, stat.kind, stat.ranges), (Some(3_000_000), StatKind::File, true));
    assert!(!stat.unpinned && Timestamp::of_validator(&stat.validator).is_some());
    let whole = client.read(&path, None, &stat.validator).await.unwrap();
    assert!(whole == content(3_000_000));
    let part = client.read(&path, Some((1_048_570, 2_097_160)), &stat.validator).await.unwrap();
    assert!(part == whole[1_048_570..2_097_160]);
    assert!(client.read(&path, Some((7, 7)), &stat.validator).await.unwrap().is_empty());
    let beyond = failure(client.read(&path, Some((0, 3_000_001)), &stat.validator).await);
    assert!(matches!(beyond, SourceError::Malformed { .. }), "{beyond}");
    assert_eq!(client.counted().bytes, 3_000_000 + 1_048_590);
}

#[tokio::test]
async fn a_file_that_was_written_or_replaced_is_another_version() {
    let (home, path) = file_with(1_000);
    let client = Client::new();
    let pin = client.stat(&path).await.unwrap().validator;
    let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    (&file).write_all(b"x").unwrap();
    assert_changed(&failure(client.read(&path, None, &pin).await));

    // Same length, same time, another file.
    let pin = client.stat(&path).await.unwrap().validator;
    let other = home.path().join("other");
    fs::copy(&path, &other).unwrap();
    let copied = fs::File::options().write(true).open(&other).unwrap();
    copied.set_modified(fs::metadata(&path).unwrap().modified().unwrap()).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_changed(&failure(client.read(&path, None, &pin).await));

    let pin = client.stat(&path).await.unwrap().validator;
    copied.set_modified(time - std::time::Duration::from_nanos(1)).unwrap();
    assert_changed(&failure(client.read(&path, None, &pin).await));
}

#[tokio::test]
async fn a_change_during_a_read_is_seen_before_a_changed_byte_is_passed_on() {
    let (_home, path) = file_with(3_000_000);
    let client = Client::new();
    let pin = client.stat(&path).await.unwrap().validator;
    let mut stream = client.open(&path, None, &pin).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first[..] == content(3_000_000)[..first.len()]);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"changed", 2_500_000).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_changed(&stream.next().await.unwrap().unwrap_err());

    let (_home, path) = file_with(3_000_000);
    let pin = client.stat(&path).await.unwrap().validator;
    let mut stream = client.open(&path, None, &pin).await.unwrap();
    stream.next().await.unwrap().unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert_changed(&stream.next().await.unwrap().unwrap_err());
}

#[tokio::test]
async fn what_is_not_there_or_not_a_file_is_told() {
    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let client = Client::new();
    let pin = dfs_model::Validator::default();
    let error = failure(client.stat(&at("none")).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    let fifo = at("fifo");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &*fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [fifo, at("")] {
        let error = failure(client.read(&path, None, &pin).await);
        assert!(matches!(error, SourceError::Unreadable { .. }), "{error}");
    }
    for url in ["file://host/x", "file:///x?y", "file:///x%00y"] {
        let error = failure(client.stat(url).await);
        assert!(matches!(error, SourceError::Url(_)), "{url}: {error}");
    }
    assert_eq!(client.stat(&at("")).await.unwrap().kind, StatKind::Directory);
    fs::write(at("file"), b"").unwrap();
    let error = failure(client.list(&at("file")).await);
    assert!(error.to_string().contains("not a directory"), "{error}");
}

fn by_path(entries: Vec<Entry>) -> BTreeMap<String, Entry> {
    entries.into_iter().map(|e| (e.path.escape_ascii().to_string(), e)).collect()
}

fn populate(root: &Path) {
    fs::create_dir_all(root.join("dir/below")).unwrap();
    fs::write(root.join("dir/below/file"), b"12345").unwrap();
    fs::set_permissions(root.join("dir/below/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(root.join("dir/below/file"), root.join("link")).unwrap();
    symlink("dir/../nowhere", root.join("dangling")).unwrap();
    symlink("..", root.join("dir/loop")).unwrap();
    symlink("/etc", root.join("out")).unwrap();
    fs::write(root.join("\u{e9} \\ \n"), b"").unwrap();
    let fifo = root.join("fifo");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[tokio::test]
async fn a_tree_is_listed_as_it_is_and_symlinks_are_never_followed() {
    let home = TempDir::new().unwrap();
    populate(home.path());
    let file = home.path().join("dir/below/file");
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "user.colour", b"blue\0green", flags).unwrap();

    let client = Client::new();
    let seen = by_path(client.list(home.path().to_str().unwrap()).await.unwrap());
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    let expected = [
        "\\xc3\\xa9 \\\\ \\n",
        "dangling",
        "dir",
        "dir/below",
        "dir/below/file",
        "dir/loop",
        "fifo",
        "link",
        "out",
    ];
    assert_eq!(names, expected);
    assert_eq!(seen["dangling"].kind, EntryKind::Symlink(b"dir/../nowhere".to_vec()));
    assert_eq!(seen["dir/loop"].kind, EntryKind::Symlink(b"..".to_vec()));
    assert_eq!(seen["out"].kind, EntryKind::Symlink(b"/etc".to_vec()));
    assert_eq!(seen["fifo"].kind, EntryKind::Special(SpecialKind::Fifo));
    assert_eq!(seen["dir"].kind, EntryKind::Directory);

    let listed = &seen["dir/below/file"];
    assert_eq!(listed.length, Some(5));
    assert_eq!(listed.modified, Some(Timestamp { seconds: 1_000_000_000, nanos: 123_456_789 }));
    let stat = client.stat(file.to_str().unwrap()).await.unwrap();
    assert_eq!(listed.validator.as_ref(), Some(&stat.validator));
    let attributes = listed.attributes.as_ref().unwrap();
    assert_eq!(attributes.mode, 0o4750);
    assert_eq!(attributes.uid, rustix::process::getuid().as_raw());
    assert_eq!(attributes.xattrs, [(b"user.colour".to_vec(), b"blue\0green".to_vec())]);
    assert!(attributes.hard_link.is_some());
    assert_eq!(attributes.hard_link, seen["link"].attributes.as_ref().unwrap().hard_link);
}

#[tokio::test]
async fn a_big_directory_is_listed_in_order_and_parents_come_first() {
    let home = TempDir::new().unwrap();
    for number in 0..1_000 {
        fs::write(home.path().join(format!("{number:04}")), b"").unwrap();
    }
    fs::create_dir_all(home.path().join("0500.d/x/y")).unwrap();
    // Before what is in the directory by the order of whole paths, behind its own name.
    fs::write(home.path().join("0500.d-"), b"").unwrap();
    let entries = Client::new().list(home.path().to_str().unwrap()).await.unwrap();
    assert_eq!(entries.len(), 1_004);
    let in_order = |entry: &Entry| match entry.kind {
        EntryKind::Directory => [&entry.path[..], b"/"].concat(),
        _ => entry.path.clone(),
    };
    let names: Vec<_> = entries.iter().map(in_order).collect();
    assert!(names.is_sorted());
    let around = names.iter().position(|name| name == b"0500.d-").unwrap();
    let expected = ["0500.d-", "0500.d/", "0500.d/x/", "0500.d/x/y/", "0501"];
    assert_eq!(names[around..around + 5], expected.map(|name| name.as_bytes().to_vec()));
}

/// A client of a process that exports `exports`.
fn exporting(exports: &[&Path]) -> Client {
    let exports = exports.iter().map(|path| path.to_path_buf()).collect();
    let options = FileOptions { exports, ..FileOptions::default() };
    Client::over(dfs_source::Sources::builder().file(options).build().unwrap())
}

/// A target named by the user nobody.
fn named_by_nobody(path: &Path) -> dfs_source::Target {
    let nobody = LocalUser { uid: 65_534, gid: 65_534 };
    crate::target(path.to_str().unwrap()).with_credentials(Credentials::User(nobody))
}

/// What somebody else's process reads, or why not.
async fn read_for_nobody(client: &Client, path: &Path) -> Result<Vec<u8>, SourceError> {
    let target = named_by_nobody(path);
    let source = client.source(&target);
    let stat = source.stat(&target).await?;
    crate::collect(source.read(&target, None, &stat.validator).await?).await
}

#[tokio::test]
async fn another_user_reads_with_own_rights_and_only_what_is_exported() {
    assert!(rustix::process::geteuid().is_root(), "only root can act as another user");
    let home = tempfile::tempdir().unwrap();
    let open =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(home.path(), 0o755);
    let exported = home.path().join("exported");
    fs::create_dir_all(exported.join("sub")).unwrap();
    fs::create_dir(exported.join("closed")).unwrap();
    for (name, mode) in [
        ("exported/free", 0o644),
        ("exported/mine", 0o600),
        ("outside", 0o644),
        ("exported/sub/a", 0o644),
    ] {
        fs::write(home.path().join(name), name).unwrap();
        open(&home.path().join(name), mode);
    }
    open(&exported.join("closed"), 0o700);
    for (name, to) in
        [("out", "../outside"), ("absolute", "/etc/passwd"), ("in", "sub/a"), ("loop", "loop")]
    {
        symlink(to, exported.join(name)).unwrap();
    }
    let client = exporting(&[&exported]);
    for (name, expected) in
        [("free", "exported/free"), ("in", "exported/sub/a"), ("sub/a", "exported/sub/a")]
    {
        let got = read_for_nobody(&client, &exported.join(name)).await.unwrap();
        assert_eq!(got, expected.as_bytes(), "{name}");
    }
    for name in ["mine", "out", "absolute", "loop", "../outside", "closed/x"] {
        let error = failure(read_for_nobody(&client, &exported.join(name)).await);
        assert!(!matches!(error, SourceError::NotFound { .. }), "{name}: {error:?}");
    }
    let error = failure(read_for_nobody(&exporting(&[]), &exported.join("free")).await);
    assert!(error.to_string().contains("exported to other users"), "{error}");
    // Who the process belongs to reads on with its own rights, on threads that kept them.
    let own = exported.join("mine").to_str().unwrap().to_owned();
    let stat = client.stat(&own).await.unwrap();
    assert_eq!(client.read(&own, None, &stat.validator).await.unwrap(), b"exported/mine");

    let sub = named_by_nobody(&exported.join("sub/"));
    let entries: Vec<_> = client.source(&sub).list(&sub).collect().await;
    assert_eq!(entries.len(), 1);
    let all = named_by_nobody(&exported);
    let listed: Vec<_> = client.source(&all).list(&all).collect().await;
    let listed: Vec<Entry> = listed.into_iter().map(Result::unwrap).collect();
    let closed = |entry: &&Entry| matches!(entry.kind, EntryKind::Closed(_));
    let closed: Vec<_> = listed.iter().filter(closed).map(|entry| &entry.path[..]).collect();
    assert_eq!(closed, [b"closed"], "it is named, and the others are there");
    assert!(listed.iter().any(|entry| entry.path == b"sub/a"));
}
