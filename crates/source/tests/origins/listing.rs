//! Index pages of the servers that people run, walked for real.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfs_source::{
    Entry, EntryKind, HttpOptions, ListLimits, RetryPolicy, SourceError, StatKind, Target,
};
use tempfile::TempDir;

use crate::scripted::{Server, Step, head, status};
use crate::{Client, collect, content, failure, options, target};

/// A server process, stopped with the test.
pub struct Process {
    child: Child,
    pub address: String,
    pub home: TempDir,
    /// What else it reads.
    files: Option<TempDir>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        drop(self.files.take());
    }
}

impl Process {
    /// Asks it to end (so that its own children do too) and waits.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A server that is told its port, with a home that holds its configuration and the tree.
    fn configured(program: &str, arguments: &[&str], configuration: &str) -> Self {
        let home = tree();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let configuration = configuration
            .replace("HOME", home.path().to_str().unwrap())
            .replace("ADDRESS", &address);
        let file = home.path().join("server.conf");
        fs::write(&file, configuration).unwrap();
        drop(listener);
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed by this test: {error}"));
        Self { child, address, home, files: None }
    }

    fn nginx() -> Self {
        Self::configured(
            "/usr/sbin/nginx",
            &["-c"],
            r#"daemon off; master_process off; pid HOME/pid; error_log HOME/error.log;
            events {}
            http {
                log_format plain "$request_method $status $body_bytes_sent $request_uri";
                access_log HOME/access.log plain;
                client_body_temp_path HOME/t1; proxy_temp_path HOME/t2; fastcgi_temp_path HOME/t3;
                uwsgi_temp_path HOME/t4; scgi_temp_path HOME/t5;
                server { listen ADDRESS; root HOME/tree; autoindex on; }
            }"#,
        )
    }

    fn apache(index: &str) -> Self {
        let configuration = r#"ServerRoot HOME
            ServerName localhost
            Listen ADDRESS
            PidFile HOME/pid
            ErrorLog HOME/error.log
            LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
            LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
            LoadModule autoindex_module /usr/lib/apache2/modules/mod_autoindex.so
            LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
            User www-data
            Group www-data
            Mutex file:HOME default
            DocumentRoot HOME/tree
            <Directory HOME/tree>
                Options +Indexes
                Require all granted
                INDEX
            </Directory>"#;
        let configuration = configuration.replace("INDEX", index);
        Self::configured("/usr/sbin/apache2", &["-D", "FOREGROUND", "-f"], &configuration)
    }

    /// nginx with TLS and HTTP/2; the log tells protocol, connection, method and status.
    pub fn nginx_http2(certificate: &str, key: &str) -> Self {
        let configuration = r#"daemon off; master_process off; pid HOME/pid; error_log HOME/error.log;
            events {}
            http {
                log_format plain "$server_protocol $connection $request_method $status";
                access_log HOME/access.log plain;
                client_body_temp_path HOME/t1; proxy_temp_path HOME/t2; fastcgi_temp_path HOME/t3;
                uwsgi_temp_path HOME/t4; scgi_temp_path HOME/t5;
                server {
                    listen ADDRESS ssl http2; root HOME/tree;
                    ssl_certificate "data:CERTIFICATE"; ssl_certificate_key "data:KEY";
                }
            }"#;
        let files = tempfile::tempdir().unwrap();
        let (leaf, secret) = (files.path().join("leaf.pem"), files.path().join("key.pem"));
        fs::write(&leaf, certificate).unwrap();
        fs::write(&secret, key).unwrap();
        let configuration = configuration
            .replace("data:CERTIFICATE", leaf.to_str().unwrap())
            .replace("data:KEY", secret.to_str().unwrap());
        let mut server = Self::configured("/usr/sbin/nginx", &["-c"], &configuration);
        server.files = Some(files);
        server
    }

    fn caddy() -> Self {
        let configuration = "{\n admin off\n auto_https off\n}\n\
            http://ADDRESS {\n root * HOME/tree\n file_server browse\n}\n";
        let arguments = ["run", "--adapter", "caddyfile", "--config"];
        Self::configured("/usr/bin/caddy", &arguments, configuration)
    }

    fn python() -> Self {
        let home = tree();
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(home.path().join("tree"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is needed by this test");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        Self { child, address: format!("127.0.0.1:{port}"), home, files: None }
    }
}

/// Names that are awkward in HTML or in URLs.
const FILES: [(&[u8], usize); 9] = [
    (b"a & b <c>.txt", 5),
    (b"big.bin", 2_000_000),
    (b"c:d", 0),
    (b"caf\xc3\xa9 100%25.txt", 17),
    (b"q?x#y;z=\"1\"'2'", 3),
    (b"plus+plus~[x]", 1),
    (b"sub/deeper/deepest/x.bin", 70_000),
    (b"sub/deeper/y", 972),
    (b"sub dir/z", 1_024),
];

/// The directory `tree` with [`FILES`] and an empty directory, readable for all.
fn tree() -> TempDir {
    let home = TempDir::new().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, length) in FILES {
        let path = home.path().join("tree").join(path(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content(length)).unwrap();
    }
    fs::create_dir(home.path().join("tree/empty")).unwrap();
    home
}

fn path(bytes: &[u8]) -> PathBuf {
    Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned()
}

/// A client that waits for a server to come up.
fn patient() -> Client {
    let retry = RetryPolicy { attempts: 100, cap: Duration::from_millis(100), ..options().retry };
    Client::with(HttpOptions { retry, ..options() })
}

/// Lists the tree and reads every file of it; the entries by path.
async fn walk(client: &Client, root: &Target, tree: &Path) -> BTreeMap<Vec<u8>, Entry> {
    assert_eq!(client.stat(root.url.as_str()).await.unwrap().kind, StatKind::Directory);
    let entries = client.list(root.url.as_str()).await.unwrap();
    let mut seen = BTreeMap::new();
    for entry in entries {
        let at = entry.path.iter().rposition(|byte| *byte == b'/');
        if let Some(at) = at {
            assert!(seen.contains_key(&entry.path[..at]), "a directory comes before its members");
        }
        assert!(seen.insert(entry.path.clone(), entry).is_none(), "each entry comes once");
    }
    for entry in seen.values() {
        let place = tree.join(path(&entry.path));
        if entry.kind == EntryKind::Directory {
            assert!(place.is_dir(), "{place:?}");
            continue;
        }
        let expected = fs::read(&place).unwrap();
        assert!(entry.length.is_none_or(|length| length == expected.len() as u64), "{place:?}");
        let member = root.join(&entry.path).unwrap();
        let source = client.source(&member);
        let stat = source.stat(&member).await.unwrap();
        assert_eq!(stat.length, Some(expected.len() as u64), "{place:?}");
        assert_eq!(stat.kind, StatKind::File);
        let stream = source.read(&member, None, &stat.validator).await.unwrap();
        assert!(collect(stream).await.unwrap() == expected, "{place:?}");
    }
    seen
}

fn assert_complete(seen: &BTreeMap<Vec<u8>, Entry>) {
    for (name, _) in FILES {
        assert_eq!(
            seen.get(name).map(|e| &e.kind),
            Some(&EntryKind::File),
            "{}",
            name.escape_ascii()
        );
    }
    for directory in ["sub", "sub/deeper", "sub/deeper/deepest", "sub dir", "empty"] {
        let kind = seen.get(directory.as_bytes()).map(|entry| &entry.kind);
        assert_eq!(kind, Some(&EntryKind::Directory), "{directory}");
    }
    assert_eq!(seen.len(), FILES.len() + 5);
}

fn length(seen: &BTreeMap<Vec<u8>, Entry>, name: &str) -> Option<u64> {
    seen[name.as_bytes()].length
}

#[tokio::test]
async fn nginx_is_walked_with_exact_lengths_and_its_log_agrees_with_ours() {
    let mut nginx = Process::nginx();
    let tree = nginx.home.path().join("tree");
    fs::write(tree.join(path(b"latin-\xe9.txt")), b"x").unwrap();
    let client = patient();
    client.stat(&nginx.url("/")).await.unwrap();
    let before = client.counted();
    let mut seen = walk(&client, &target(&nginx.url("/")), &tree).await;
    assert!(seen.remove(&b"latin-\xe9.txt"[..]).is_some());
    assert_complete(&seen);
    for (name, expected) in FILES {
        assert_eq!(seen[name].length, Some(expected as u64));
    }
    nginx.stop();
    let log = fs::read_to_string(nginx.home.path().join("access.log")).unwrap();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    let after = client.counted();
    // The first line is the stat that waited for the server to come up.
    assert_eq!(lines.len() as u64, after.requests - before.requests + 1, "{log}");
    // An index page has no length: there nginx counts the frames of its chunks too.
    let files = lines.iter().filter(|line| !line[3].ends_with('/'));
    let sent: u64 = files.map(|line| line[2].parse::<u64>().unwrap()).sum();
    assert_eq!(sent, after.bytes);
    assert_eq!(after.lists, 6);
}

#[tokio::test]
async fn apache_is_walked_in_each_of_its_styles() {
    for (style, small) in [
        ("IndexOptions FancyIndexing", Some(5)),
        (
            "IndexOptions FancyIndexing HTMLTable IconsAreLinks NameWidth=8 DescriptionWidth=*",
            Some(5),
        ),
        ("", None),
    ] {
        let apache = Process::apache(style);
        let client = patient();
        let root = target(&apache.url("/"));
        let seen = walk(&client, &root, &apache.home.path().join("tree")).await;
        assert_complete(&seen);
        assert_eq!(length(&seen, "a & b <c>.txt"), small, "{style}");
        assert_eq!(length(&seen, "big.bin"), None, "rounded sizes are not lengths");
    }
}

#[tokio::test]
async fn caddy_is_walked_by_its_listings_in_json() {
    let caddy = Process::caddy();
    let client = patient();
    let root = target(&caddy.url("/"));
    let seen = walk(&client, &root, &caddy.home.path().join("tree")).await;
    assert_complete(&seen);
    for (name, expected) in FILES {
        assert_eq!(seen[name].length, Some(expected as u64));
        assert!(seen[name].modified.is_some_and(|time| time.seconds > 1_600_000_000));
    }
}

#[tokio::test]
async fn pythons_server_is_walked_although_it_shows_names_only() {
    let python = Process::python();
    let client = patient();
    let root = target(&python.url("/"));
    let seen = walk(&client, &root, &python.home.path().join("tree")).await;
    assert_complete(&seen);
    assert!(seen.values().all(|entry| entry.length.is_none()));
}

#[tokio::test]
async fn a_subdirectory_is_listed_by_its_own_url_with_or_without_slash() {
    let python = Process::python();
    for path in ["/sub", "/sub/"] {
        let entries = patient().list(&python.url(path)).await.unwrap();
        let paths: Vec<_> = entries.iter().map(|e| e.path.escape_ascii().to_string()).collect();
        assert_eq!(paths, ["deeper", "deeper/deepest", "deeper/y", "deeper/deepest/x.bin"]);
    }
}

/// An index page with these links.
fn page(links: &[&str]) -> Vec<Step> {
    let links: String = links.iter().map(|link| format!("<a href=\"{link}\">x</a>\n")).collect();
    let body = format!("<title>Index of /</title>{links}");
    let length = body.len().to_string();
    let headers = [("Content-Type", "text/html"), ("Content-Length", &length)];
    vec![head(200, &headers), Step::Send(body.into_bytes())]
}

#[tokio::test]
async fn a_listing_never_leaves_its_directory() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/dir/" => {
            page(&["../", "/", "/etc/passwd", "http://127.0.0.1:1/dir/x", "a/", "./", "?C=N"])
        }
        "/dir/a/" => page(&["/dir/", "../b", "%2e%2e/c", "..%2fd", "e", "//evil/dir/a/f"]),
        _ => status(404),
    });
    let entries = Client::new().list(&server.url("/dir/")).await.unwrap();
    let (told, members): (Vec<_>, Vec<_>) =
        entries.iter().partition(|e| matches!(e.kind, EntryKind::Unusable(_)));
    let paths = |entries: &[&Entry]| -> Vec<_> {
        entries.iter().map(|e| e.path.escape_ascii().to_string()).collect()
    };
    assert_eq!(paths(&members), ["a", "a/e"]);
    assert_eq!(paths(&told), ["a/%2E%2E%2Fd"], "it is told and leads nowhere");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_listing_without_end_is_bounded() {
    let server = Server::start(|_, request| match request.path.starts_with("/wide/") {
        true => page(&["a/", "b", "c", "d", "e"]),
        false => page(&["again/"]),
    });
    let limits = ListLimits { depth: 5, entries: 12, page_bytes: 150, ..ListLimits::default() };
    let client = Client::with(HttpOptions { listing: limits, ..options() });
    let what = |error| match error {
        SourceError::TooLarge { what, .. } => what,
        error => panic!("{error}"),
    };
    // As one that links to itself: what is above stays.
    let deep = client.list(&server.url("/deep/")).await.unwrap();
    let last = deep.last().unwrap();
    assert_eq!(last.path, b"again/again/again/again/again");
    assert!(matches!(&last.kind, EntryKind::Closed(why) if why.contains("below one another")));
    assert_eq!(deep.len(), 6, "five directories, and that the last is closed");
    assert_eq!(server.requests().len(), 6);
    assert_eq!(what(failure(client.list(&server.url("/wide/")).await)), "entries");

    let limits = ListLimits { page_bytes: 20, ..ListLimits::default() };
    let client = Client::with(HttpOptions { listing: limits, ..options() });
    let long = what(failure(client.list(&server.url("/wide/")).await));
    assert_eq!(long, "bytes in an answer");
}

#[tokio::test]
async fn pages_are_fetched_together_but_only_so_many() {
    let names: Vec<String> = (0..40).map(|number| format!("{number}/")).collect();
    let flying = std::sync::Arc::new(std::sync::Mutex::new((0_usize, 0_usize)));
    let counted = std::sync::Arc::clone(&flying);
    let barrier = std::sync::Barrier::new(8);
    let server = Server::start(move |_, request| {
        if request.path == "/" {
            return page(&names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        {
            let mut flying = counted.lock().unwrap();
            flying.0 += 1;
            flying.1 = flying.1.max(flying.0);
        }
        // Passed by eight at a time: were there fewer at once, the test would never end.
        barrier.wait();
        counted.lock().unwrap().0 -= 1;
        page(&["x"])
    });
    let entries = Client::new().list(&server.url("/")).await.unwrap();
    assert_eq!(entries.len(), 80);
    // Eight at first, and more as long as the origin answers fast: how many depends on the machine.
    let most = flying.lock().unwrap().1;
    assert!((8..=16).contains(&most), "{most}");
}

#[tokio::test]
async fn a_subdirectory_that_cannot_be_listed_is_named_and_the_rest_is_there() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/" => page(&["a", "secret/"]),
        "/page/" => vec![
            head(200, &[("Content-Type", "text/html"), ("Content-Length", "20")]),
            Step::Send(b"<title>Hello</title>".to_vec()),
        ],
        _ => status(403),
    });
    let client = Client::new();
    let entries = client.list(&server.url("/")).await.unwrap();
    let paths: Vec<_> = entries.iter().map(|entry| &entry.path[..]).collect();
    assert_eq!(paths, [&b"a"[..], b"secret", b"secret"]);
    let EntryKind::Closed(why) = &entries[2].kind else { panic!("{:?}", entries[2]) };
    assert!(why.contains("/secret/") && why.contains("403"), "{why}");
    let error = failure(client.list(&server.url("/secret/")).await);
    assert!(matches!(error, SourceError::NotPermitted { .. }), "the listing itself: {error}");
    let error = failure(client.list(&server.url("/page/")).await);
    assert!(error.to_string().contains("not an index page"), "{error}");
}
