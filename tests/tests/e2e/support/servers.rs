//! Web servers that people run.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfs_tests::process::{FreeAddress, listens};
use dfs_tests::{Owned, wait};

use super::Place;
use super::authority::Authority;

/// A server at work on a directory; it ends with its test.
pub struct Server {
    name: &'static str,
    _process: Owned,
    scheme: &'static str,
    address: String,
    log: PathBuf,
    _kept: Option<FreeAddress>,
}

const NGINX: &str = r#"daemon off; master_process off; pid HOME/pid; error_log HOME/error.log;
    events {}
    http {
        log_format short '$request_method $request_uri $body_bytes_sent';
        access_log HOME/access.log short;
        client_body_temp_path HOME/t1; proxy_temp_path HOME/t2; fastcgi_temp_path HOME/t3;
        uwsgi_temp_path HOME/t4; scgi_temp_path HOME/t5;
        server { listen ADDRESS HOW; root ROOT; autoindex on; }
    }"#;

const ECHO: &str = r#"
import hashlib, json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self):
        body = self.body()
        if self.path == "/trailers":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Trailer", "X-Sum")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
            return
        head = [[name.lower(), value] for name, value in self.headers.items()]
        said = {"method": self.command, "path": self.path, "head": head,
                "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        said = json.dumps(said).encode()
        self.send_response(203)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Connection", "X-Between")
        self.send_header("X-Between", "1")
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
print("port", server.server_port, "", flush=True)
server.serve_forever()
"#;

impl Server {
    /// nginx, with its listings of rounded sizes.
    pub fn nginx(place: &Place, root: &Path) -> Self {
        Self::nginx_listening(place, root, "")
    }

    fn nginx_listening(place: &Place, root: &Path, how: &str) -> Self {
        let home = place.dir("nginx");
        let free = FreeAddress::new().unwrap();
        let address = free.at().to_string();
        let file = home.join("nginx.conf");
        let configuration = NGINX
            .replace("HOME", home.to_str().unwrap())
            .replace("ROOT", root.to_str().unwrap())
            .replace("ADDRESS", &address)
            .replace("HOW", how);
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        let process = Owned::start(command.arg("-c").arg(&file).stdout(Stdio::null()))
            .unwrap_or_else(|error| panic!("nginx is needed: {error}"));
        wait::until("nginx answers", || listens(free.at())).unwrap();
        let (scheme, log) = ("http", home.join("access.log"));
        Self { name: "nginx", _process: process, scheme, address, log, _kept: Some(free) }
    }

    /// nginx with a certificate for `localhost`.
    pub fn nginx_secured(place: &Place, root: &Path, signed: &Authority) -> Self {
        let (certificate, key) = (signed.certificate.display(), signed.key.display());
        let secured = format!("ssl; ssl_certificate {certificate}; ssl_certificate_key {key}");
        Self { scheme: "https", ..Self::nginx_listening(place, root, &secured) }
    }

    /// What its log says that it was asked by this method for what has `part` in its path: the bytes of each answer.
    pub fn sent(&self, method: &str, part: &str) -> Vec<u64> {
        let log = fs::read_to_string(&self.log).unwrap();
        let sent = |line: &str| {
            let (method_of, path, bytes) = {
                let mut words = line.split(' ');
                (words.next()?, words.next()?, words.next()?)
            };
            (method_of == method && path.contains(part)).then(|| bytes.parse().unwrap())
        };
        log.lines().filter_map(sent).collect()
    }

    /// Python's `http.server`: no ranges, no ETags.
    pub fn python(root: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]);
        Self::told_by("python", command.arg(root))
    }

    /// One that says as JSON what it was asked, whatever that is, and has trailers at `/trailers`.
    pub fn echo() -> Self {
        Self::told_by("echo", Command::new("python3").args(["-u", "-c", ECHO]))
    }

    fn told_by(name: &'static str, command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process =
            Owned::start(command).unwrap_or_else(|error| panic!("python3 is needed: {error}"));
        let stdout = process.child.stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let (address, log) = (format!("127.0.0.1:{port}"), PathBuf::new());
        Self { name, _process: process, scheme: "http", address, log, _kept: None }
    }

    /// Which it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The URL of its root.
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.address)
    }
}

/// A Redis server that keeps nothing; it ends with its test.
pub struct Redis {
    _process: Owned,
    address: FreeAddress,
}

impl Redis {
    /// An empty one.
    pub fn start(place: &Place) -> Self {
        let address = FreeAddress::new().unwrap();
        let port = address.at().port().to_string();
        let mut command = Command::new("redis-server");
        command
            .args(["--save", "", "--bind", "127.0.0.1", "--port", &port, "--dir"])
            .arg(place.dir("redis"))
            .stdout(Stdio::null());
        let process = Owned::start(&mut command)
            .unwrap_or_else(|error| panic!("redis-server is needed: {error}"));
        let redis = Self { _process: process, address };
        wait::until("redis answers", || redis.cli(&["ping"], b"").contains("PONG")).unwrap();
        redis
    }

    /// Makes `value` the value of `key`.
    pub fn set(&self, key: &str, value: &[u8]) {
        assert_eq!(self.cli(&["-x", "set", key], value).trim(), "OK");
    }

    /// Bytes that it has sent so far.
    pub fn bytes_sent(&self) -> u64 {
        let said = self.cli(&["info", "stats"], b"");
        let line = said.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().trim().parse().unwrap()
    }

    /// The URL of a key.
    pub fn url(&self, key: &str) -> String {
        format!("redis://{}/{key}", self.address.at())
    }

    fn cli(&self, words: &[&str], input: &[u8]) -> String {
        let mut child = Command::new("redis-cli")
            .args(["-p", &self.address.at().port().to_string()])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may have gone before it read anything, as while the server starts.
        let _ = child.stdin.take().unwrap().write_all(input);
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}
