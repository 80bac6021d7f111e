//! The same file to the same crowd by BitTorrent: aria2, the source one of the swarm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use dfs_tests::testbed::Role;
use dfs_tests::wait;

use super::bencode::Value;
use super::load::Meter;
use super::rush::{Begun, rush};
use super::tracker::Tracker;
use super::{FILE, Field, Turn, same};
use crate::run::{Failure, failed, said};

/// The usual size for a file of some ten MiB.
const PIECE: u64 = 256 << 10;
/// Longer than the slowest link takes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A torrent and its tracker.
pub struct Torrent {
    tracker: Tracker,
    file: PathBuf,
    hook: PathBuf,
}

/// A process of the swarm; it ends when this is dropped.
struct Member {
    child: Child,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Torrent {
    /// Makes one of the file.
    pub fn make(field: &Field<'_>) -> Result<Self, Failure> {
        let control = field.testbed.first(Role::Control)?;
        let tracker = control.inside(|| Ok(Tracker::start(control.address())))??;
        let content = &field.root.join(FILE);
        let length = fs::metadata(content).map_err(failed(content))?.len();
        let info = Value::dictionary([
            ("length", Value::Integer(length)),
            ("name", Value::text(FILE)),
            ("piece length", Value::Integer(PIECE)),
            ("pieces", Value::Bytes(pieces(content)?)),
        ]);
        let announce = Value::text(&tracker.url());
        let torrent = Value::dictionary([("announce", announce), ("info", info)]);
        let (file, hook) = (field.bench.path("file.torrent"), field.bench.path("complete"));
        fs::write(&file, torrent.encode()).map_err(failed(&file))?;
        // aria2 names the first file as the third argument; what the hook leaves beside it is dated.
        fs::write(&hook, "#!/bin/sh\n: > \"${3%/*}/complete\"\n").map_err(failed(&hook))?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).map_err(failed(&hook))?;
        Ok(Self { tracker, file, hook })
    }

    fn aria2(&self, dir: &Path) -> Command {
        let mut aria2 = Command::new("aria2c");
        aria2.args(["--no-conf", "--quiet", "--seed-ratio=0.0", "--listen-port=6881"]);
        aria2.args(["--enable-dht=false", "--bt-enable-lpd=false", "--enable-peer-exchange=true"]);
        aria2.args(["--bt-max-peers=0", "--file-allocation=none", "--disk-cache=64M"]);
        aria2.arg(format!("--stop-with-process={}", std::process::id()));
        aria2.arg("-d").arg(dir).arg(&self.file);
        aria2.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        aria2
    }

    /// One run: the source seeds, everybody else comes.
    pub fn turn(&self, field: &Field<'_>) -> Result<Turn, Failure> {
        let outs = field.outs()?;
        self.tracker.forget();
        let source = field.testbed.first(Role::Origin)?;
        let mut seeding = self.aria2(field.root);
        seeding.arg("--check-integrity=true");
        let seed = source.inside(|| Ok(Member::start(&mut seeding)))??;
        wait::find("aria2 seeds", wait::PATIENCE, || {
            let seeds = self.tracker.has_a_seed().then_some(Ok(()));
            seeds.or_else(|| field.bench.interrupt.check().err().map(Err))
        })??;
        let crowd = field.testbed.all(Role::Node).zip(&outs);
        let crowd = crowd.map(|(machine, out)| {
            let mut leech = self.aria2(out);
            leech.arg("--on-bt-download-complete").arg(&self.hook);
            (machine, leech)
        });
        let crowd = crowd.collect();
        field.touch_memory();
        let (before, meter) = (source.traffic()?, Meter::start(&[seed.child.id()])?);
        let (begun, members) =
            rush(crowd, field.spread, &field.bench.interrupt, |_, leech| Member::start(leech))?;
        let times = times(field, begun, &outs)?;
        let pids: Vec<_> = members.iter().chain([&seed]).map(|member| member.child.id()).collect();
        let load = meter.stop(&pids)?;
        let sent = (source.traffic()? - before).sent;
        drop(members);
        outs.iter().try_for_each(|out| same(&field.root.join(FILE), &out.join(FILE)))?;
        Ok(Turn { times, sent, requests: None, seeds_sent: None, load })
    }
}

impl Member {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let failed = |error| Failure::Other(format!("aria2c could not be started: {error}"));
        Ok(Self { child: command.spawn().map_err(failed)? })
    }
}

/// When each had everything.
fn times(field: &Field<'_>, begun: Begun, outs: &[PathBuf]) -> Result<Vec<Duration>, Failure> {
    let done = outs.iter().map(|out| {
        let path = out.join("complete");
        let date = wait::find("aria2 has the whole file", PATIENCE, || {
            let done = fs::metadata(&path).and_then(|status| status.modified()).ok();
            done.map(Ok).or_else(|| field.bench.interrupt.check().err().map(Err))
        })??;
        Ok(since(begun.date, date))
    });
    done.collect()
}

fn since(begun: SystemTime, ended: SystemTime) -> Duration {
    ended.duration_since(begun).unwrap_or_default()
}

/// The SHA-1 of each piece, one after the other.
fn pieces(content: &Path) -> Result<Vec<u8>, Failure> {
    let mut split = Command::new("split");
    split.arg(format!("--bytes={PIECE}")).arg("--filter=sha1sum").arg(content);
    let digests = said(&mut split)?;
    let read: Option<Vec<Vec<u8>>> =
        digests.lines().map(|line| unhex(line.split(' ').next()?)).collect();
    let unread = || Failure::Other("sha1sum printed no digests".to_owned());
    read.map(|digests| digests.concat()).ok_or_else(unread)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let places = (0..text.len()).step_by(2);
    places.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_known_by_their_digests() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, vec![0; PIECE as usize + 1]).unwrap();
        let digests = pieces(&file).unwrap();
        assert_eq!(digests.len(), 40);
        // Of one zero.
        assert_eq!(digests[20..], unhex("5ba93c9db0cff93f52b521d7420e43f6eda2784f").unwrap());
        assert_eq!(unhex("0g"), None);
    }
}
