//! A certificate authority as an operator makes one, with `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::process::Said;

use super::{Expected, Place};

/// See the module.
pub struct Authority {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// One of this name.
    pub fn new(place: &Place, name: &str) -> Self {
        let made = Self::at(&place.dir(name), "authority");
        let mut command = openssl(&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
        command.args(["-subj", &format!("/O=Tests/CN={name}")]);
        command.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.certificate);
        Said::by(&mut command).unwrap().done();
        made
    }

    /// A certificate that it signs for names as `openssl` writes them: `DNS:h.test,IP:127.0.0.1`.
    pub fn sign(&self, place: &Place, names: &str) -> Self {
        let signed = Self::at(self.certificate.parent().unwrap(), "signed");
        let mut command = openssl(&["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=origin"]);
        command.args(["-addext", &format!("subjectAltName={names}")]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.arg("-CA").arg(&self.certificate).arg("-CAkey").arg(&self.key);
        command.arg("-keyout").arg(&signed.key).arg("-out").arg(&signed.certificate);
        Said::by(command.current_dir(place.root())).unwrap().done();
        signed
    }

    fn at(dir: &Path, name: &str) -> Self {
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        Self { certificate: file("pem"), key: file("key") }
    }
}

fn openssl(words: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(words);
    command
}
