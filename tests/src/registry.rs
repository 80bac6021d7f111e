//! A container registry as it is in use elsewhere: distribution's, filled by skopeo.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::process::FreeAddress;
use crate::server::Server;

/// Who may read where a login is wanted, and the password.
pub const LOGIN: (&str, &str) = ("ada", "hunter2");

/// The line of a password file for [`LOGIN`]: bcrypt, which is the only kind that the registry reads.
const HTPASSWD: &str = "ada:$2y$04$Z0Oj9jAvN5asG1efPDsTCOEB8F7.8KwOqtZvwye14DaaA7zFa/W0i\n";

/// Whom a registry lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anybody.
    Nobody,
    /// [`LOGIN`] alone.
    Password,
}

/// A registry; it ends with its test.
pub struct Registry {
    server: Server,
    guard: Guard,
    settings: String,
}

impl Registry {
    /// Starts one that keeps all it has in `dir`.
    pub fn start(dir: &Path, guard: Guard) -> Result<Self, Failure> {
        Self::start_at(FreeAddress::new()?, dir, guard, "")
    }

    /// The same at an address, protected by a certificate and its key.
    pub fn start_secured(
        address: FreeAddress,
        dir: &Path,
        (certificate, key): (&Path, &Path),
    ) -> Result<Self, Failure> {
        let (certificate, key) = (certificate.display(), key.display());
        let tls = format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
        Self::start_at(address, dir, Guard::Nobody, &tls)
    }

    fn start_at(
        address: FreeAddress,
        dir: &Path,
        guard: Guard,
        tls: &str,
    ) -> Result<Self, Failure> {
        let failed = || Failure::of("cannot start a registry");
        let home = dir.join("registry");
        fs::create_dir_all(&home).map_err(failed())?;
        let users = home.join("users");
        fs::write(&users, HTPASSWD).map_err(failed())?;
        let auth = match guard {
            Guard::Nobody => String::new(),
            Guard::Password => {
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display())
            }
        };
        let settings = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {}\n  secret: test\n{tls}{auth}",
            home.join("data").display(),
            address.at(),
        );
        let file = home.join("settings.yml");
        fs::write(&file, &settings).map_err(failed())?;
        let log = home.join("log");
        let output = File::create(&log).map_err(failed())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(failed())?).stderr(output);
        // It looks at the environment for settings.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok(Self { server: Server::start(&mut command, address, log)?, guard, settings })
    }

    /// What it was started with.
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.server.address.at().to_string()
    }

    /// The URL of `reference`, a repository with what of it is meant.
    pub fn url(&self, reference: &str) -> String {
        format!("oci://{}/{reference}", self.address())
    }

    /// Puts the image of an `oci:` layout there, bit for bit; by hands that are not ours.
    pub fn push(&self, layout: &Path, reference: &str) -> Result<(), Failure> {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--all", "--preserve-digests", "--insecure-policy"]);
        command.arg("--dest-tls-verify=false");
        if self.guard == Guard::Password {
            command.arg(format!("--dest-creds={}:{}", LOGIN.0, LOGIN.1));
        }
        command.arg(format!("oci:{}", layout.display()));
        command.arg(format!("docker://{}/{reference}", self.address()));
        said(&mut command).map(drop)
    }

    /// Puts the image of an `oci:` layout there, its layers packed anew in this way.
    pub fn push_packed(
        &self,
        layout: &Path,
        reference: &str,
        packing: &str,
    ) -> Result<(), Failure> {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        command.args(["--dest-compress-format", packing]);
        command.arg(format!("oci:{}", layout.display()));
        command.arg(format!("docker://{}/{reference}", self.address()));
        said(&mut command).map(drop)
    }

    /// Puts what an `oci:` layout has there as docker has it, all of it or the image for this machine alone.
    pub fn push_as_docker(
        &self,
        layout: &Path,
        reference: &str,
        whole: bool,
    ) -> Result<(), Failure> {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        command.args(["--format", "v2s2"]).args(whole.then_some("--all"));
        command.arg(format!("oci:{}", layout.display()));
        command.arg(format!("docker://{}/{reference}", self.address()));
        said(&mut command).map(drop)
    }

    /// Copies what it has by skopeo to a place as skopeo names it.
    pub fn copy(&self, reference: &str, to: &str) -> Result<(), Failure> {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        if self.guard == Guard::Password {
            command.arg(format!("--src-creds={}:{}", LOGIN.0, LOGIN.1));
        }
        command.arg(format!("docker://{}/{reference}", self.address())).arg(to);
        said(&mut command).map(drop)
    }

    /// What a name stands for, as it is there.
    pub fn inspect(&self, reference: &str) -> Result<String, Failure> {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--raw", "--tls-verify=false"]);
        if self.guard == Guard::Password {
            command.arg(format!("--creds={}:{}", LOGIN.0, LOGIN.1));
        }
        command.arg(format!("docker://{}/{reference}", self.address()));
        said(&mut command)
    }

    /// Bytes that it sent of what has `part` in its path, in each answer of this status.
    pub fn sent(&self, status: u16, part: &str) -> Vec<u64> {
        let log = fs::read_to_string(&self.server.log).unwrap_or_default();
        // Of the line of an answer: the request in quotes, its status, its bytes.
        let sent = |line: &str| {
            let mut quoted = line.split('"').skip(1);
            quoted.next().filter(|asked| asked.starts_with("GET") && asked.contains(part))?;
            let mut numbers = quoted.next()?.split_whitespace();
            numbers.next().filter(|said| *said == status.to_string())?;
            numbers.next()?.parse::<u64>().ok()
        };
        log.lines().filter_map(sent).collect()
    }

    /// How often it was asked for something by this method whose path has `part` in it.
    pub fn requests(&self, method: &str, part: &str) -> usize {
        self.requests_by("", method, part)
    }

    /// The same of who calls itself something that has `agent` in it.
    pub fn requests_by(&self, agent: &str, method: &str, part: &str) -> usize {
        self.requests_of(|name| name.contains(agent), method, part)
    }

    /// The same of everybody else.
    pub fn requests_but_by(&self, agent: &str, method: &str, part: &str) -> usize {
        self.requests_of(|name| !name.contains(agent), method, part)
    }

    fn requests_of(&self, is_who: impl Fn(&str) -> bool, method: &str, part: &str) -> usize {
        let log = fs::read_to_string(&self.server.log).unwrap_or_default();
        let is_one = |line: &&str| {
            let mut quoted = line.split('"').skip(1).step_by(2);
            let is_asked = quoted
                .next()
                .is_some_and(|asked| asked.starts_with(method) && asked.contains(part));
            is_asked && quoted.last().is_some_and(&is_who)
        };
        log.lines().filter(is_one).count()
    }
}

/// What skopeo prints, where it comes to a good end.
fn said(skopeo: &mut Command) -> Result<String, Failure> {
    let output = skopeo.output();
    let output = output.map_err(Failure::of("skopeo is needed, `cargo xtask test` installs it"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Failure::new(String::from_utf8_lossy(&output.stderr))),
    }
}
