//! Moto: what it needs to be told, and how it logs.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Bucket, Keys, installed};
use crate::Failure;
use crate::process::FreeAddress;
use crate::server::Server;

/// Starts it; its log is in `dir`.
pub(super) fn start(dir: &Path) -> Result<Server, Failure> {
    let address = FreeAddress::new()?;
    let log = dir.join("store.log");
    let stderr = File::create(&log).map_err(Failure::of("cannot start a store"))?;
    let mut command = Command::new(installed("moto-5.2.1/bin/moto_server"));
    command.args(["-H", "127.0.0.1", "-p", &address.at().port().to_string()]);
    command.env("NO_COLOR", "1").stdout(Stdio::null()).stderr(stderr);
    Server::start(&mut command, address, log)
}

/// Makes it check signatures; the keys of a user who may do everything.
pub(super) fn lock(store: &Bucket) -> Result<Keys, Failure> {
    const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let scope = signed_for("iam");
    let call = |action: &str| {
        let form = format!("Action={action}");
        store.send(&["-H", &scope, "--data", &form], "/")
    };
    call("CreateUser&UserName=ada")?;
    let policy = format!("PolicyDocument={ALL}");
    let form = "Action=PutUserPolicy&UserName=ada&PolicyName=p";
    store.send(&["-H", &scope, "--data", form, "--data-urlencode", &policy], "/")?;
    let keys = call("CreateAccessKey&UserName=ada")?;
    let plain = ["-H", "Content-Type: text/plain", "--data", "0"];
    store.send(&plain, "/moto-api/reset-auth")?;
    let element = |name: &str| -> Result<String, Failure> {
        let rest = keys.split(&format!("<{name}>")).nth(1);
        let text = rest.and_then(|rest| rest.split('<').next());
        text.map(str::to_owned).ok_or_else(|| Failure::new(format!("no {name} in {keys}")))
    };
    Ok(Keys { id: element("AccessKeyId")?, secret: element("SecretAccessKey")? })
}

/// `127.0.0.1 - - [date] "GET /path HTTP/1.1" 200 -`, perhaps with colours.
pub(super) fn request(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("] \"")?;
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_uppercase());
    Some(rest.split_once(" HTTP/").map_or(rest, |(request, _)| request).to_owned())
}

/// What says which service is meant, before signatures are checked.
pub(super) fn signed_for(service: &str) -> String {
    let scope = format!("Credential=x/20260101/us-east-1/{service}/aws4_request");
    format!("Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x")
}
