//! Programs that know nothing of dfs and ask by a proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::Registry;
use dfs_tests::process::{FreeAddress, Said};

use super::access::own_address;
use super::{PROXY, Proxy, looks_into, rules, solo, text};
use crate::support::authority::Authority;
use crate::support::images::{Layout, Packing, here, sha256};
use crate::support::podman;
use crate::support::servers::Server;
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place};

/// A wheel with some bytes in it, as small as a wheel can be.
fn wheel(place: &Place, site: &Path) -> PathBuf {
    let tree = place.dir("wheel");
    put(&tree.join("plain/__init__.py"), b"VALUE = 7\n");
    put(&tree.join("plain/data.bin"), &noise(4, 2_000_000));
    let info = tree.join("plain-1.0.dist-info");
    put(&info.join("METADATA"), b"Metadata-Version: 2.1\nName: plain\nVersion: 1.0\n");
    put(&info.join("WHEEL"), b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n");
    put(&info.join("RECORD"), b"");
    let wheel = site.join("files/plain-1.0-py3-none-any.whl");
    fs::create_dir_all(wheel.parent().unwrap()).unwrap();
    let mut command = Command::new("zip");
    command.args(["-q", "-r"]).arg(&wheel).arg(".").current_dir(&tree);
    Said::by(&mut command).unwrap().done();
    let digest = sha256(&fs::read(&wheel).unwrap()).replace(':', "=");
    let link = format!("<a href=\"/files/plain-1.0-py3-none-any.whl#{digest}\">plain</a>\n");
    put(&site.join("simple/plain/index.html"), link.as_bytes());
    wheel
}

#[test]
fn pip_downloads_a_wheel() {
    let place = Place::new();
    let site = place.dir("site");
    let wheel = wheel(&place, &site);
    let server = Server::nginx(&place, &site);
    let agent = solo(&place, "[[rule]]\nurl = '\\.whl$'\naction = 'swarm'\n");
    let proxy = Proxy { agent: &agent, place: &place };
    for name in ["first", "second"] {
        let mut command = Command::new("pip3");
        command.args(["download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]);
        command.args(["--quiet", "--trusted-host", "127.0.0.1", "--proxy", &proxy.url()]);
        command.args(["--index-url", &format!("{}simple/", server.url())]);
        command.arg("--dest").arg(place.path(name)).arg("plain");
        command.env("PIP_CONFIG_FILE", "/dev/null").env_remove("no_proxy").env_remove("NO_PROXY");
        Said::by(&mut command).unwrap().done();
        let got = fs::read(place.path(name).join(wheel.file_name().unwrap())).unwrap();
        assert!(got == fs::read(&wheel).unwrap());
    }
    let length = fs::metadata(&wheel).unwrap().len();
    assert_eq!(server.sent("GET", ".whl").iter().sum::<u64>(), length);
    assert_eq!((proxy.answers("task"), proxy.given("task")), (2, 2 * length));
    assert!(proxy.answers("direct") >= 2, "pages are the origin's");
}

/// A repository with one package, as `deb [trusted=yes] URL ./` has it.
fn repository(place: &Place, site: &Path) -> PathBuf {
    let tree = place.dir("package");
    put(&tree.join("usr/share/plain/data.bin"), &noise(5, 2_000_000));
    let control = "Package: plain\nVersion: 1.0\nArchitecture: all\nMaintainer: Tests <t@e.test>\n\
                   Description: some bytes\n";
    put(&tree.join("DEBIAN/control"), control.as_bytes());
    let package = site.join("plain_1.0_all.deb");
    let mut command = Command::new("dpkg-deb");
    command.args(["--build", "--root-owner-group"]).arg(&tree).arg(&package);
    Said::by(&mut command).unwrap().done();
    let bytes = fs::read(&package).unwrap();
    let entry = format!(
        "{control}Filename: ./plain_1.0_all.deb\nSize: {}\nSHA256: {}\n",
        bytes.len(),
        sha256(&bytes).trim_start_matches("sha256:")
    );
    // In one paragraph a description comes last or has no empty line behind it.
    put(&site.join("Packages"), entry.as_bytes());
    package
}

#[test]
fn apt_updates_and_downloads_a_package() {
    let place = Place::new();
    place.open_to_others();
    let site = place.dir("site");
    let package = repository(&place, &site);
    let server = Server::nginx(&place, &site);
    let agent = solo(&place, "[[rule]]\nurl = '\\.deb$'\naction = 'swarm'\n");
    let proxy = Proxy { agent: &agent, place: &place };
    for name in ["first", "second"] {
        let root = place.dir(name);
        for dir in ["state/lists/partial", "cache/archives/partial", "etc", "down"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        put(
            &root.join("etc/sources.list"),
            format!("deb [trusted=yes] {} ./\n", server.url()).as_bytes(),
        );
        put(&root.join("state/status"), b"");
        let apt = |words: &[&str]| {
            let mut command = Command::new("apt-get");
            let set = |name: &str, path: &str| format!("{name}={}", root.join(path).display());
            for option in [
                set("Dir::State", "state"),
                set("Dir::State::status", "state/status"),
                set("Dir::Cache", "cache"),
                set("Dir::Etc", "etc"),
                "APT::Sandbox::User=root".to_owned(),
                format!("Acquire::http::Proxy={}", proxy.url()),
            ] {
                command.args(["-o", &option]);
            }
            command.arg("-q").args(words).current_dir(root.join("down"));
            Said::by(&mut command).unwrap().done()
        };
        apt(&["update"]);
        apt(&["download", "plain"]);
        let got = fs::read(root.join("down").join(package.file_name().unwrap())).unwrap();
        assert!(got == fs::read(&package).unwrap());
    }
    let length = fs::metadata(&package).unwrap().len();
    assert_eq!(server.sent("GET", ".deb").iter().sum::<u64>(), length);
    assert_eq!((proxy.answers("task"), proxy.given("task")), (2, 2 * length));
}

/// What the first layer has that podman unpacked.
fn large_of_podman(dir: &Path) -> Vec<u8> {
    let unpacked = fs::read_dir(dir.join("root/vfs/dir")).unwrap().next().unwrap().unwrap();
    fs::read(unpacked.path().join("large")).unwrap()
}

fn blobs_sent(registry: &Registry) -> u64 {
    [200, 206].iter().flat_map(|status| registry.sent(*status, "/blobs/")).sum()
}

#[test]
fn skopeo_and_podman_pull_an_image_by_the_blobs_that_a_mount_has_too() {
    let place = Place::new();
    let own = own_address();
    let origins = Authority::new(&place, "origins");
    let operator = Authority::new(&place, "operator");
    let signed = origins.sign(&place, &format!("IP:{own}"));
    let address = FreeAddress::on(own.parse().unwrap()).unwrap();
    let certificate = (&*signed.certificate, &*signed.key);
    let registry = Registry::start_secured(address, place.root(), certificate).unwrap();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("large"), &noise(3, 3_000_000));
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    registry.push(layout.dir(), "team/app:1").unwrap();
    let pushed = registry.requests_but_by("dfs/", "GET", "/blobs/");
    let file = rules(
        &place,
        &format!(
            "intercept = ['{0}']\n\n[[rule]]\nurl = '^https://{0}/v2/'\naction = 'registry'\n",
            registry.address()
        ),
    );
    let more = [&["--proxy-rules", text(&file)][..], &looks_into(&operator, &origins)].concat();
    let agent = Agent::solo_with(&place, "agent", &[PROXY, &more].concat());
    let proxy = Proxy { agent: &agent, place: &place };
    let trusted = place.dir("trusted");
    fs::copy(&operator.certificate, trusted.join("operator.crt")).unwrap();
    let by_proxy = |command: &mut Command| {
        command.env("HTTPS_PROXY", proxy.url()).env_remove("NO_PROXY").env_remove("no_proxy");
        Said::by(command).unwrap().done();
    };
    for name in ["first", "second"] {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--preserve-digests"]);
        command.arg("--src-cert-dir").arg(&trusted);
        command.arg(format!("docker://{}/team/app:1", registry.address()));
        command.arg(format!("oci:{}:latest", place.path(name).display()));
        by_proxy(&mut command);
        let digest = layout.layer_digest(0);
        let blob = place.path(name).join("blobs").join(digest.replace(':', "/"));
        assert_eq!(sha256(&fs::read(blob).unwrap()), digest);
    }
    let answered = proxy.answers("mirror");
    assert!(answered >= 4, "{answered}");
    let dir = place.dir("podman");
    let mut command = podman::pull(&dir);
    command.arg("--quiet").arg("--cert-dir").arg(&trusted);
    by_proxy(command.arg(format!("{}/team/app:1", registry.address())));
    assert_eq!(large_of_podman(&dir), noise(3, 3_000_000));
    assert!(proxy.answers("mirror") >= answered + 2, "{}", proxy.answers("mirror"));
    let others = registry.requests_but_by("dfs/", "GET", "/blobs/");
    assert_eq!(others, pushed, "all of it came by us");
    assert!(proxy.answers("direct") >= 2, "whether it is a registry, that one says");
    let layer = layout.layer_bytes(0);
    let given = agent.metric("dfs_node_mirror_given_bytes_total{from=\"task\"}");
    assert!(given > 3 * layer, "{given}");
    let sent = blobs_sent(&registry);
    let dir = agent.mount(&registry.url("team/app:1"), place.path("mount"));
    assert_eq!(fs::read(dir.join("large")).unwrap(), noise(3, 3_000_000));
    let after = blobs_sent(&registry);
    assert!(after - sent < layer / 2, "the layer came once: {sent} {after}");
}
