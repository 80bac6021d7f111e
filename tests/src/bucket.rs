//! A bucket in a store: moto, which speaks versions and tokens too and lets anybody in until it is told not to, or
//! garage, which is in use as a store elsewhere and knows nobody without keys. Each is a process of its own that
//! writes down every request it gets.

mod garage;
mod moto;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::Failure;
use crate::process::http_get;
use crate::server::Server;

/// A store with one bucket, `lab`; it ends with its test.
pub struct Bucket {
    kind: Kind,
    server: Server,
    /// Once signatures are checked.
    keys: OnceLock<Keys>,
}

/// Which store it is.
enum Kind {
    Moto,
    Garage,
}

/// Makes curl sign. The bytes are left out of the signature, and the region is any: it is dfs's own signatures that
/// are to be checked.
const SIGNED: [&str; 4] =
    ["--aws-sigv4", "aws:amz:garage:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"];

/// Keys of somebody who may do everything.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Names them.
    pub id: String,
    /// Signs.
    pub secret: String,
}

impl Bucket {
    /// Starts moto, which keeps its log in `dir`: anybody may read and write.
    pub fn moto(dir: &Path) -> Result<Self, Failure> {
        let store = Self { kind: Kind::Moto, server: moto::start(dir)?, keys: OnceLock::new() };
        store.send(&["-X", "PUT"], "/lab")?;
        Ok(store)
    }

    /// Starts garage, which keeps all it has in `dir`: who has no keys may do nothing.
    pub fn garage(dir: &Path) -> Result<Self, Failure> {
        let keys = garage::keys();
        let server = garage::start(dir, &keys)?;
        Ok(Self { kind: Kind::Garage, server, keys: keys.into() })
    }

    /// The URL of something in the bucket, with the region that signatures must name.
    pub fn url(&self, key: &str) -> String {
        let region = match self.kind {
            Kind::Moto => String::new(),
            Kind::Garage => format!("&region={}", garage::REGION),
        };
        format!("s3://lab/{key}?endpoint={}{region}", self.endpoint())
    }

    /// The store's own address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address.at())
    }

    /// A URL by which anybody may read an object for an hour; made by hands that are not ours.
    pub fn presigned(&self, key: &str) -> Result<String, Failure> {
        const PRESIGN: &str = "import botocore.session, sys\n\
            endpoint, region, id, secret, key = sys.argv[1:]\n\
            client = botocore.session.get_session().create_client('s3', endpoint_url=endpoint,\
            region_name=region, aws_access_key_id=id, aws_secret_access_key=secret,\
            config=botocore.config.Config(signature_version='s3v4', s3={'addressing_style': 'path'}))\n\
            what = {'Bucket': 'lab', 'Key': key}\n\
            print(client.generate_presigned_url('get_object', Params=what), end='')";
        let region = match self.kind {
            Kind::Moto => "us-east-1",
            Kind::Garage => garage::REGION,
        };
        let keys = self.lock()?;
        let output = Command::new(installed("moto-5.2.1/bin/python"))
            .args(["-c", PRESIGN, &self.endpoint(), region, &keys.id, &keys.secret, key])
            .output()
            .map_err(Failure::of("python is needed, `cargo xtask test` installs it"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(Failure::new(String::from_utf8_lossy(&output.stderr))),
        }
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

    /// Stores a file, by hands that are not ours; its key is written as in a URL.
    pub fn put(&self, key: &str, file: &Path) -> Result<(), Failure> {
        let file = file.display();
        let user = self.keys.get().map(|keys| format!("{}:{}", keys.id, keys.secret));
        let scope = moto::signed_for("s3");
        let signed = match &user {
            Some(user) => [&SIGNED[..], &["--user", user]].concat(),
            None => vec!["-H", "x-amz-acl: public-read", "-H", &scope],
        };
        let body = ["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary"];
        let file = format!("@{file}");
        self.send(&[&signed[..], &body, &[&*file]].concat(), &format!("/lab/{key}")).map(drop)
    }

    /// From now on signatures are checked, where they were not before; the keys of somebody who may do everything.
    pub fn lock(&self) -> Result<Keys, Failure> {
        if let Some(keys) = self.keys.get() {
            return Ok(keys.clone());
        }
        let keys = moto::lock(self)?;
        Ok(self.keys.get_or_init(|| keys).clone())
    }

    /// The requests so far that begin like this, as `METHOD /path`.
    pub fn requests(&self, begin: &str) -> usize {
        self.asked().iter().filter(|request| request.starts_with(begin)).count()
    }

    /// The requests so far, as `METHOD /path`.
    pub fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.server.log).unwrap_or_default();
        let request = match self.kind {
            Kind::Moto => moto::request,
            Kind::Garage => garage::request,
        };
        log.lines().filter_map(request).collect()
    }

    /// Asks for something that is not there: only the log tells.
    pub fn ping(&self, path: &str) {
        // It is refused.
        let _ = http_get(self.server.address.at(), path);
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
        let url = format!("{}{path}", self.endpoint());
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

/// Where `cargo xtask test` installs a server.
pub fn installed(path: &str) -> PathBuf {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_default().join("dfs").join(path)
}
