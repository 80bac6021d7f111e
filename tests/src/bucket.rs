//! A bucket in a real store: moto, in a process of its own, that writes down every request it gets.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Failure;
use crate::process::http_get;
use crate::wait;

/// A store with one bucket, `lab`, that anybody may read; it ends with its test.
pub struct Bucket {
    child: Child,
    address: String,
    log: PathBuf,
}

/// Keys of somebody who may do everything.
pub struct Keys {
    /// Names them.
    pub id: String,
    /// Signs.
    pub secret: String,
}

/// Where `cargo xtask test` installs the server.
fn program() -> PathBuf {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_default().join("dfs/moto-5.2.1/bin/moto_server")
}

impl Bucket {
    /// Starts a store that keeps its log in `dir`.
    pub fn start(dir: &Path) -> Result<Self, Failure> {
        let failed = || Failure::of("cannot start a store");
        let free = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
        let at = free.local_addr().map_err(failed())?;
        drop(free);
        let log = dir.join("store.log");
        let stderr = File::create(&log).map_err(failed())?;
        let child = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", &at.port().to_string()])
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(Failure::of("moto is needed, `cargo xtask test` installs it"))?;
        let store = Self { child, address: at.to_string(), log };
        wait::until("the store answers", || http_get(at, "/moto-api/").is_ok())?;
        store.send(&["-X", "PUT"], "/lab")?;
        Ok(store)
    }

    /// The URL of something in the bucket.
    pub fn url(&self, key: &str) -> String {
        format!("s3://lab/{key}?endpoint={}", self.endpoint())
    }

    /// The store's own address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stores every file below `dir` under `prefix`.
    pub fn fill(&self, prefix: &str, dir: &Path) -> Result<(), Failure> {
        let failed = || Failure::of(format!("cannot read {}", dir.display()));
        for entry in fs::read_dir(dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let key = format!("{prefix}{name}");
            match path.is_dir() {
                true => self.fill(&format!("{key}/"), &path)?,
                false => self.put(&key, &path)?,
            }
        }
        Ok(())
    }

    /// Stores a file; its key is one that needs no encoding.
    pub fn put(&self, key: &str, file: &Path) -> Result<(), Failure> {
        let file = file.display().to_string();
        let named = ["-T", &file, "-H", "x-amz-acl: public-read", "-H", &signed_for("s3")];
        self.send(&named, &format!("/lab/{key}")).map(drop)
    }

    /// From now on signatures are checked; the keys of somebody who may do everything.
    pub fn lock(&self) -> Result<Keys, Failure> {
        const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        let scope = signed_for("iam");
        let call = |action: &str| {
            let form = format!("Action={action}");
            self.send(&["-H", &scope, "--data", &form], "/")
        };
        call("CreateUser&UserName=ada")?;
        let policy = format!("PolicyDocument={ALL}");
        let form = "Action=PutUserPolicy&UserName=ada&PolicyName=p";
        self.send(&["-H", &scope, "--data", form, "--data-urlencode", &policy], "/")?;
        let keys = call("CreateAccessKey&UserName=ada")?;
        let plain = ["-H", "Content-Type: text/plain", "--data", "0"];
        self.send(&plain, "/moto-api/reset-auth")?;
        let element = |name: &str| -> Result<String, Failure> {
            let rest = keys.split(&format!("<{name}>")).nth(1);
            let text = rest.and_then(|rest| rest.split('<').next());
            text.map(str::to_owned).ok_or_else(|| Failure::new(format!("no {name} in {keys}")))
        };
        Ok(Keys { id: element("AccessKeyId")?, secret: element("SecretAccessKey")? })
    }

    /// The requests so far that begin like this, as `METHOD /path`.
    pub fn requests(&self, begin: &str) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let request = |line: &str| {
            line.split_once("] \"").map(|(_, rest)| {
                rest.trim_start_matches(|c: char| !c.is_ascii_uppercase()).starts_with(begin)
            })
        };
        log.lines().filter_map(request).filter(|matches| *matches).count()
    }

    /// Uploads that were begun and have not ended.
    pub fn unfinished(&self) -> Result<usize, Failure> {
        Ok(self.send(&[], "/lab?uploads")?.matches("<UploadId>").count())
    }

    /// The names of all objects.
    pub fn keys(&self) -> Result<Vec<String>, Failure> {
        let page = self.send(&[], "/lab?list-type=2")?;
        let keys = page.split("<Key>").skip(1);
        Ok(keys.filter_map(|rest| rest.split('<').next()).map(str::to_owned).collect())
    }

    fn send(&self, arguments: &[&str], path: &str) -> Result<String, Failure> {
        let url = format!("http://{}{path}", self.address);
        let output = Command::new("curl")
            .args(["-sSf", "--noproxy", "*", "--max-time", "60"])
            .args(arguments)
            .arg(&url)
            .output()
            .map_err(Failure::of("cannot start curl"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("{url}: {}", said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What says which service is meant, before signatures are checked.
fn signed_for(service: &str) -> String {
    let scope = format!("Credential=x/20260101/us-east-1/{service}/aws4_request");
    format!("Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x")
}
