//! The world in which the guide is followed: a machine of its own, as far as a shell can tell.
//!
//! Namespaces of network, mounts and processes: the usual ports are free, `http://files.example/` is a web server of what
//! lies in `/srv/www`, `localhost:5000` a registry,
//! the home directory is `/home/ada`, and whatever is left running or mounted ends with the session.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use dfs_tests::Registry;
use dfs_tests::registry::Guard;

use super::page::Said;
use crate::support::images::{Layout, Packing, here};
use crate::support::trees::{noise, put};
use crate::support::{OTHERS_AWAY, Place, binary};

/// What makes the world, and then runs the files `0`, `1`, … of the session in one shell.
const WORLD: &str = r#"
ip link set lo up
for place in /run /home /mnt /srv /var/lib; do mount -t tmpfs -o mode=0755 guide "$place"; done
mkdir /home/ada /srv/www /srv/machine
mount --bind "$SESSION/site" /srv/www
printf '127.0.0.1 localhost files.example\n' > "$SESSION/hosts"
mount --bind "$SESSION/hosts" /etc/hosts
nginx -c "$SESSION/nginx.conf"
docker-registry serve "$SESSION/registry.yml" > "$SESSION/registry.log" 2>&1 &
curl --silent --fail --retry 100 --retry-connrefused --retry-delay 1 --output /dev/null http://localhost:5000/v2/
cd /home/ada
session=$SESSION
exec env -i HOME=/home/ada PATH="$PROGRAMS:$PATH" TERM=dumb LANG=C.UTF-8 bash -c '
    code=0
    for ((step = 0; step < $2; step++)); do
        command=$(< "$1/$step")
        (exit "$code")
        eval "$command" > "$1/$step.said" 2>&1
        code=$?
        echo "$code" > "$1/$step.code"
    done
' session "$session" "$STEPS"
"#;

const NGINX: &str = r"
pid SESSION/nginx.pid; error_log SESSION/nginx.log; events {}
http {
    access_log off;
    client_body_temp_path SESSION/t1; proxy_temp_path SESSION/t2; fastcgi_temp_path SESSION/t3;
    uwsgi_temp_path SESSION/t4; scgi_temp_path SESSION/t5;
    server {
        listen 127.0.0.1:80; root SESSION/site; autoindex on;
        location /private/ { return 403; }
    }
}";

pub struct World {
    place: Place,
}

impl World {
    pub fn new() -> Self {
        let place = Place::new();
        place.open_to_others();
        site(&place.dir("site"));
        let here = place.root().to_str().unwrap();
        fs::write(place.path("nginx.conf"), NGINX.replace("SESSION", here)).unwrap();
        let settings = images(&place);
        fs::write(place.path("registry.yml"), settings).unwrap();
        Self { place }
    }

    /// Runs the commands in one shell; what each said.
    pub fn run(&self, commands: &[String]) -> Vec<Said> {
        for (number, command) in commands.iter().enumerate() {
            fs::write(self.place.path(&number.to_string()), command).unwrap();
        }
        let world =
            format!("set -eu\nmount --make-rprivate /\nown=/nowhere\n{OTHERS_AWAY}\n{WORLD}");
        let programs = binary("dfctl").parent().unwrap().to_owned();
        let output = Command::new("timeout")
            .args(["--kill-after=5", "120", "unshare", "--net", "--mount", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "bash", "-c", &world])
            .env("SESSION", self.place.root())
            .env("PROGRAMS", programs)
            .env("STEPS", commands.len().to_string())
            .output()
            .unwrap();
        let said = (0..commands.len()).map(|step| said(self.place.root(), step)).collect();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let complete = |said: &Option<Vec<Said>>| said.is_some();
        Some(said).filter(complete).flatten().unwrap_or_else(|| panic!("it broke off: {errors}"))
    }
}

fn said(session: &Path, step: usize) -> Option<Said> {
    let text = fs::read_to_string(session.join(format!("{step}.said"))).ok()?;
    let code = fs::read_to_string(session.join(format!("{step}.code"))).ok()?;
    Some(Said { text, code: code.trim().parse().ok()? })
}

/// Fills a registry; the settings of one with the same in it at `localhost:5000`.
fn images(place: &Place) -> String {
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let mut app = Layout::new(place.path("app"));
    let (base, over) = (place.dir("base"), place.dir("over"));
    put(&base.join("bin/greet"), b"#!/bin/sh\necho hello from the base\n");
    put(&base.join("etc/app.conf"), b"level = 1\n");
    put(&base.join("share/words"), &noise(2, 9_000_000));
    fs::set_permissions(base.join("bin/greet"), fs::Permissions::from_mode(0o755)).unwrap();
    put(&over.join("bin/greet"), b"#!/bin/sh\necho hello from the second layer\n");
    fs::set_permissions(over.join("bin/greet"), fs::Permissions::from_mode(0o755)).unwrap();
    put(&over.join("etc/.wh.app.conf"), b"");
    app.layer(&base, Packing::Gzip).layer(&over, Packing::Gzip);
    app.name(app.image(here()));
    registry.push(app.dir(), "team/app:1").unwrap();
    let model = Layout::new(place.path("model"));
    let files =
        [("config.json", b"{\"layers\": 2}".to_vec()), ("weights.bin", noise(4, 3_000_000))];
    model.name(model.artifact("application/vnd.example.model", &files));
    registry.push(model.dir(), "models/small:1").unwrap();
    registry.settings().replace(&registry.address(), "127.0.0.1:5000")
}

/// What `http://files.example/` serves.
fn site(root: &Path) {
    put(&root.join("models/tiny.safetensors"), &noise(1, 12_345_678));
    for day in 1..=30 {
        let rows: String = (0..2000).map(|row| format!("{day},{row},{}\n", row * day)).collect();
        put(&root.join(format!("data/2026-11/{day:02}.csv")), rows.as_bytes());
    }
    put(&root.join("data/README"), b"One file for each day.\n");
    put(&root.join("private/key"), b"secret\n");
    let tool = root.join("tool");
    put(&tool.join("bin/tool"), b"#!/bin/sh\necho tool 1.4\n");
    put(&tool.join("share/doc.txt"), b"How to use it.\n");
    let made = Command::new("sh")
        .args(["-c", "chmod 755 tool/bin/tool && tar -czf tool-1.4.tar.gz tool && rm -r tool"])
        .current_dir(root)
        .status();
    assert!(made.unwrap().success());
}
