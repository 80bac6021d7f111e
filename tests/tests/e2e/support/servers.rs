//! Web servers that people run.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use dfs_tests::process::{FreeAddress, http_get};
use dfs_tests::{Owned, wait};

use super::Place;

/// A server at work on a directory; it ends with its test.
pub struct Server {
    name: &'static str,
    _process: Owned,
    address: String,
    _kept: Option<FreeAddress>,
}

const NGINX: &str = r#"daemon off; master_process off; pid HOME/pid; error_log HOME/error.log;
    events {}
    http {
        access_log off;
        client_body_temp_path HOME/t1; proxy_temp_path HOME/t2; fastcgi_temp_path HOME/t3;
        uwsgi_temp_path HOME/t4; scgi_temp_path HOME/t5;
        server { listen ADDRESS; root ROOT; autoindex on; }
    }"#;

impl Server {
    /// nginx, with its listings of rounded sizes.
    pub fn nginx(place: &Place, root: &Path) -> Self {
        let home = place.dir("nginx");
        let free = FreeAddress::new().unwrap();
        let address = free.at().to_string();
        let file = home.join("nginx.conf");
        let configuration = NGINX
            .replace("HOME", home.to_str().unwrap())
            .replace("ROOT", root.to_str().unwrap())
            .replace("ADDRESS", &address);
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        let process = Owned::start(command.arg("-c").arg(&file).stdout(Stdio::null()))
            .unwrap_or_else(|error| panic!("nginx is needed: {error}"));
        wait::until("nginx answers", || http_get(free.at(), "/").is_ok()).unwrap();
        Self { name: "nginx", _process: process, address, _kept: Some(free) }
    }

    /// Python's `http.server`: no ranges, no ETags.
    pub fn python(root: &Path) -> Self {
        let mut command = Command::new("python3");
        command
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process =
            Owned::start(&mut command).unwrap_or_else(|error| panic!("python3 is needed: {error}"));
        let stdout = process.child.stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let address = format!("127.0.0.1:{port}");
        Self { name: "python", _process: process, address, _kept: None }
    }

    /// Which it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The URL of its root.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
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
