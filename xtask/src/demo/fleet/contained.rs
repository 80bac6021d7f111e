//! An agent in a container, that mounts an image: the container is deleted while everything is read.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfs_tests::cluster::Dfctl;
use dfs_tests::process::Said;
use dfs_tests::testbed::Machine;
use dfs_tests::{Binaries, Container, Inside, Mount, Owned, wait};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use crate::run::{Failure, failed};

/// All plain files below a directory with their sums, by name.
const SUMS: &str =
    "cd \"$1\" && find . -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";

/// The container, its agent, and who keeps the mount.
pub struct Contained<'a> {
    // Dropped in this order: what is mounted, who serves it, who keeps it.
    mount: Mount,
    container: Container,
    _holder: Owned,
    _shared: Mount,
    machine: &'a Machine,
    binaries: Binaries,
    socket: PathBuf,
}

impl<'a> Contained<'a> {
    /// Starts it on `machine`, with all it has below `dir`; it joins by `token`.
    pub fn start(
        machine: &'a Machine,
        binaries: &Binaries,
        dir: &Path,
        token: &str,
        variables: &[String],
    ) -> Result<Self, Failure> {
        let shared = dir.join("shared");
        fs::create_dir_all(&shared).map_err(failed(&shared))?;
        let guard = Mount::guard(&shared);
        let bound = mount_bind(&shared, &shared)
            .and_then(|()| mount_change(&shared, MountPropagationFlags::SHARED));
        bound.map_err(|error| failed(&shared)(error.into()))?;
        let [data, root] = ["data", "root"].map(|name| shared.join(name));
        for place in [&data, &root] {
            fs::create_dir(place).map_err(failed(place))?;
        }
        fs::set_permissions(&data, Permissions::from_mode(0o700)).map_err(failed(&data))?;
        let [socket, held] = ["agent.sock", "holder.sock"].map(|name| shared.join(name));
        let mut holder = binaries.command("dfs-fuse")?;
        holder.arg("holder").arg("--socket").arg(&held);
        let log = dir.join("holder.log");
        let log = File::create(&log).map_err(failed(&log))?;
        holder.stdout(log.try_clone().map_err(failed(dir))?).stderr(log);
        let holder = Owned::start(&mut holder).map_err(failed(&held))?;
        wait::until("the holder listens", || held.exists())?;
        let paths = [&data, &socket, &held].map(|path| path.to_string_lossy().into_owned());
        let [data, heard, held] = &paths;
        let listen = machine.address().to_string();
        let ports = ["--port-pieces", "0", "--port-metrics", "0"];
        let own = ["--data-dir", data, "--socket", heard, "--holder", held];
        let part = ["--join", token, "--listen", &listen, "--name", "contained"];
        let arguments = [&own[..], &part, &ports].concat();
        let program = binaries.path("dfs-fuse")?;
        let program = program.canonicalize().map_err(failed(&program))?;
        let inside =
            Inside { program: &program, arguments: &arguments, variables, shared: &shared };
        let container = Container::new(dir, &inside)?;
        let mount = Mount::guard(&root);
        let (machine, binaries) = (machine, binaries.clone());
        let mut one =
            Self { mount, container, _holder: holder, _shared: guard, machine, binaries, socket };
        one.begin()?;
        Ok(one)
    }

    /// Runs the agent, in a new container.
    fn begin(&mut self) -> Result<(), Failure> {
        let Self { container, machine, socket, .. } = self;
        machine.inside(|| container.start())?;
        Ok(wait::until("the agent in the container listens", || socket.exists())?)
    }

    /// Has it mount `url`.
    pub fn mount(&self, url: &str) -> Result<(), Failure> {
        let mut dfctl = Dfctl::new(&self.binaries).command()?;
        dfctl.arg("--socket").arg(&self.socket).args(["mount", url]).arg(self.mount.dir());
        Said::by(&mut dfctl)?.ok()?;
        Ok(())
    }

    /// The sums of everything in the mount; once a quarter of them is there the container is deleted, and another one
    /// takes its place.
    pub fn sums(&mut self, files: usize, into: &Path) -> Result<String, Failure> {
        let output = File::create(into).map_err(failed(into))?;
        let mut summing = summing(self.mount.dir());
        let mut reader =
            Owned::start(summing.stdin(Stdio::null()).stdout(output)).map_err(failed(into))?;
        let summed = || fs::read_to_string(into).unwrap_or_default().lines().count();
        wait::until("a quarter is read", || summed() * 4 >= files)?;
        self.container.delete()?;
        fs::remove_file(&self.socket).map_err(failed(&self.socket))?;
        if reader.child.try_wait().map_err(failed(into))?.is_some() {
            return Err(Failure::Other("who read everything did not wait".to_owned()));
        }
        self.begin()?;
        let status = reader.child.wait().map_err(failed(into))?;
        if !status.success() {
            return Err(Failure::Other(format!("who read everything ended with {status}")));
        }
        fs::read_to_string(into).map_err(failed(into))
    }
}

/// The same of a directory of this machine.
pub fn sums_of(dir: &Path) -> Result<String, Failure> {
    let said = summing(dir).output().map_err(failed(dir))?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => Err(Failure::Other(String::from_utf8_lossy(&said.stderr).into_owned())),
    }
}

fn summing(dir: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", SUMS, "sums"]).arg(dir);
    shell
}
