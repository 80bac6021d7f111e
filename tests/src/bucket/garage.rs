//! Garage: one node, one bucket, one pair of keys, all of which it makes itself at its start.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Keys, installed};
use crate::Failure;
use crate::process::FreeAddress;
use crate::server::Server;

/// Not the one that is taken where nothing is said.
pub(super) const REGION: &str = "garage";

/// Any that have its form.
pub(super) fn keys() -> Keys {
    Keys { id: format!("GK{}", "1a".repeat(12)), secret: "2b".repeat(32) }
}

/// Starts it; everything it has is in `dir`.
pub(super) fn start(dir: &Path, keys: &Keys) -> Result<Server, Failure> {
    let failed = || Failure::of("cannot start a store");
    let address = FreeAddress::new()?;
    let home = dir.join("garage");
    fs::create_dir_all(&home).map_err(failed())?;
    let file = home.join("garage.toml");
    fs::write(&file, settings(&home, address.at())).map_err(failed())?;
    let log = home.join("log");
    let output = File::create(&log).map_err(failed())?;
    let mut command = Command::new(installed("garage-2.5.0/bin/garage"));
    command.arg("-c").arg(&file).args(["server", "--single-node", "--default-bucket"]);
    command.env("GARAGE_DEFAULT_BUCKET", "lab");
    command.env("GARAGE_DEFAULT_ACCESS_KEY", &keys.id);
    command.env("GARAGE_DEFAULT_SECRET_KEY", &keys.secret);
    command.env("RUST_LOG", "warn,garage_api_common=info").env("NO_COLOR", "1");
    command.stdout(Stdio::null()).stderr(output);
    Server::start(&mut command, address, log)
}

/// Nobody but the bucket's users ever calls: other nodes are not expected.
fn settings(home: &Path, address: SocketAddr) -> String {
    let home = home.display();
    let secret = "3c".repeat(32);
    format!(
        r#"
metadata_dir = "{home}/metadata"
data_dir = "{home}/data"
db_engine = "sqlite"
replication_factor = 1
compression_level = "none"
rpc_bind_addr = "127.0.0.1:0"
rpc_public_addr = "127.0.0.1:0"
rpc_secret = "{secret}"

[s3_api]
s3_region = "{REGION}"
api_bind_addr = "{address}"
"#
    )
}

/// `date INFO garage_api_common::generic_server: 127.0.0.1:1 (key GK1) GET /path`; with the name of the keys where
/// there are any.
pub(super) fn request(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("generic_server: ")?;
    let mut words = rest.rsplitn(3, ' ');
    let (path, method) = (words.next()?, words.next()?);
    let is_request = path.starts_with('/')
        && matches!(method, "GET" | "HEAD" | "PUT" | "POST" | "DELETE")
        && !rest.starts_with("error ");
    is_request.then(|| format!("{method} {path}"))
}
