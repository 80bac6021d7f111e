//! Web servers that people run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dfs_tests::process::http_get;
use dfs_tests::{Watchdog, wait};

use super::Place;

/// A server at work on a directory; it ends with its test.
pub struct Server {
    name: &'static str,
    child: Child,
    _watchdog: Watchdog,
    address: String,
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
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        let address = at.to_string();
        drop(free);
        let file = home.join("nginx.conf");
        let configuration = NGINX
            .replace("HOME", home.to_str().unwrap())
            .replace("ROOT", root.to_str().unwrap())
            .replace("ADDRESS", &address);
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        let child = command.arg("-c").arg(&file).stdout(Stdio::null()).process_group(0).spawn();
        let child = child.unwrap_or_else(|error| panic!("nginx is needed: {error}"));
        let watchdog = Watchdog::over(&child).unwrap();
        wait::until("nginx answers", || http_get(at, "/").is_ok()).unwrap();
        Self { name: "nginx", child, _watchdog: watchdog, address }
    }

    /// Python's `http.server`: no ranges, no ETags.
    pub fn python(root: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("python3 is needed: {error}"));
        let watchdog = Watchdog::over(&child).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let address = format!("127.0.0.1:{port}");
        Self { name: "python", child, _watchdog: watchdog, address }
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

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
