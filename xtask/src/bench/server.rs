//! nginx as the origin of benches, plain and over TLS with an authority of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dfs_tests::wait;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt::Interrupt;
use crate::run::{Failure, failed, run, succeeds};

/// A running nginx; killed when this is dropped.
pub struct Server {
    child: Child,
    http: u16,
    https: u16,
    /// The certificate of the authority that signed its own.
    pub ca: PathBuf,
}

impl Server {
    /// Serves `root`, with everything it needs below `work`.
    pub fn start(root: &Path, work: &Path, interrupt: &Interrupt) -> Result<Self, Failure> {
        let (http, https) = (free_port()?, free_port()?);
        let ca = certificates(work)?;
        let configuration = work.join("nginx.conf");
        fs::write(&configuration, configured(root, work, http, https))
            .map_err(failed(&configuration))?;
        let mut nginx = Command::new("nginx");
        // Debian keeps it where an ordinary user's PATH does not go.
        let path = std::env::var("PATH").unwrap_or_default();
        nginx.env("PATH", format!("{path}:/usr/sbin")).arg("-e").arg(work.join("error.log"));
        nginx.arg("-c").arg(&configuration).process_group(0);
        nginx.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = nginx
            .spawn()
            .map_err(|error| Failure::Other(format!("nginx could not be started: {error}")))?;
        let pid = child.id();
        interrupt.on_signal(move || kill(pid));
        let server = Self { child, http, https, ca };
        let mut probe = Command::new("curl");
        probe.args(["-sf", "-o", "/dev/null", "--noproxy", "*", &server.url(Scheme::Http, "")]);
        wait::until("nginx answers", || succeeds(&mut probe))?;
        Ok(server)
    }

    /// The URL of a path.
    pub fn url(&self, scheme: Scheme, path: &str) -> String {
        match scheme {
            Scheme::Http => format!("http://127.0.0.1:{}/{path}", self.http),
            Scheme::Https => format!("https://localhost:{}/{path}", self.https),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(self.child.id());
        let _ = self.child.wait();
    }
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// In the names of rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| Ok(listener.local_addr()?.port()))
        .map_err(|error| Failure::Other(format!("no free port: {error}")))
}

fn configured(root: &Path, work: &Path, http: u16, https: u16) -> String {
    let (root, work) = (root.display(), work.display());
    // As root nginx would serve as somebody who cannot enter our directory.
    let user = if crate::prepare::is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {work}/{name};\n"))
        .concat();
    format!(
        "daemon off; {user} worker_processes 2; pid {work}/nginx.pid;\n\
         events {{ }}\n\
         http {{\n  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n{temporary}\
         \x20 autoindex on; root {root};\n\
         \x20 server {{ listen 127.0.0.1:{http}; }}\n\
         \x20 server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {work}/server.pem; \
         ssl_certificate_key {work}/server.key; }}\n}}\n"
    )
}

/// An authority and a certificate for localhost; gives the authority's.
fn certificates(work: &Path) -> Result<PathBuf, Failure> {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(work).stderr(Stdio::null());
        run(&mut command)
    };
    let names = work.join("names");
    fs::write(&names, "subjectAltName=DNS:localhost,IP:127.0.0.1\n").map_err(failed(&names))?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=bench-ca"))?;
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"))?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
         -days 2 -extfile names",
    )?;
    Ok(work.join("ca.pem"))
}
