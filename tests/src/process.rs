//! Our programs as processes: started in a group of their own with their output in a file, ready
//! when they have announced themselves, and killed, whole group, when nobody owns them any more —
//! or this process is gone.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::wait::{self, PATIENCE};
use crate::{Failure, Watchdog};

/// How much of a log a failure shows.
const LOG_LINES: usize = 12;

/// Where our programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
    variables: Vec<(OsString, OsString)>,
}

impl Binaries {
    /// Those in `dir`.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        // What is started runs in a directory of its own.
        Self { dir: std::path::absolute(&dir).unwrap_or(dir), variables: Vec::new() }
    }

    /// The same with a variable for each of them.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.variables.push((key.into(), value.into()));
        self
    }

    /// Those of the profile that this program was built with: beside it, or above its `deps`.
    pub fn beside_this_one() -> Result<Self, Failure> {
        let own = env::current_exe().map_err(Failure::of("this program has no path"))?;
        let mut dir = own.parent().unwrap_or(Path::new("/")).to_owned();
        if dir.ends_with("deps") {
            dir.pop();
        }
        Ok(Self::in_dir(dir))
    }

    /// The path of a program.
    ///
    /// # Errors
    /// It has not been built.
    pub fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
        let why = "build it first: cargo build --workspace --bins";
        Err(Failure::new(format!("there is no {}; {why}", path.display())))
    }

    /// A program to run, without the settings of this process's environment.
    pub fn command(&self, name: &str) -> Result<Command, Failure> {
        let mut command = Command::new(self.path(name)?);
        for (key, _) in env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"DFS_") {
                command.env_remove(key);
            }
        }
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        // An agent that a test kills stays dead, unless the test is about that.
        command.env("DFS_HOLDER", "off");
        command.envs(self.variables.iter().map(|(key, value)| (key, value)));
        // Whoever looks for a fault wants more than is logged usually.
        if let Some(filter) = env::var_os("E2E_LOG") {
            command.env("DFS_LOG", filter);
        }
        Ok(command)
    }
}

/// How to start a resident program.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its arguments, `--data-dir` among them.
    pub arguments: Vec<OsString>,
    /// Its environment beside ours.
    pub environment: Vec<(OsString, OsString)>,
    /// Its data directory, where it announces itself.
    pub data_dir: PathBuf,
    /// Where its output is appended.
    pub log: PathBuf,
}

/// A resident program at work.
#[derive(Debug)]
pub struct Process {
    binaries: Binaries,
    program: Program,
    child: Child,
    watchdog: Option<Watchdog>,
    ended: Option<ExitStatus>,
    announced: Option<Value>,
}

impl Process {
    /// Starts it, and does not wait until it is ready.
    pub fn spawn(binaries: &Binaries, program: Program) -> Result<Self, Failure> {
        let child = launch(binaries, &program)?;
        let binaries = binaries.clone();
        let mut process =
            Self { binaries, program, child, watchdog: None, ended: None, announced: None };
        process.watchdog = Some(Watchdog::over(&process.child)?);
        Ok(process)
    }

    /// Starts it and waits until it has announced itself.
    pub fn start(binaries: &Binaries, program: Program) -> Result<Self, Failure> {
        let mut process = Self::spawn(binaries, program)?;
        process.wait_ready()?;
        Ok(process)
    }

    /// Waits until it has announced itself in its `run.json`.
    pub fn wait_ready(&mut self) -> Result<(), Failure> {
        let what = format!("{} is ready", self.program.name);
        let found = wait::find(&what, PATIENCE, || match self.has_ended() {
            Some(status) => Some(Err(status)),
            None => self.announcement().map(Ok),
        });
        let failed = |reason: String| Failure::new(format!("{reason}\n{}", self.log_end()));
        match found {
            Ok(Ok(announced)) => {
                self.announced = Some(announced);
                Ok(())
            }
            Ok(Err(status)) => Err(failed(format!("{} ended: {status}", self.program.name))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// What this very process has announced; `None` when it has not (yet).
    fn announcement(&self) -> Option<Value> {
        let text = fs::read(self.program.data_dir.join("run.json")).ok()?;
        let info: Value = serde_json::from_slice(&text).ok()?;
        (info["pid"].as_u64() == Some(self.pid().into())).then_some(info)
    }

    /// Where it serves `service`: `grpc`, `pieces`, `metrics`, ….
    pub fn address(&self, service: &str) -> Result<SocketAddr, Failure> {
        let text = self.announced.as_ref().and_then(|info| info["addresses"][service].as_str());
        text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            Failure::new(format!("{} announces no address of {service}", self.program.name))
        })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        if self.ended.is_some() {
            // Its number may be another's from now on.
            self.watchdog = None;
        }
        self.ended
    }

    /// Waits until it ends by itself.
    pub fn wait_ended(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let what = format!("{} ends", self.program.name);
        wait::find(&what, limit, || self.has_ended())
            .map_err(|error| Failure::new(format!("{error}\n{}", self.log_end())))
    }

    /// SIGKILL, as a crash would; everything it started goes too.
    pub fn kill(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.watchdog = None;
        self.signal_group(Signal::KILL);
        self.ended = self.child.wait().ok();
    }

    /// SIGTERM; waits until it has ended.
    pub fn terminate(&mut self) -> Result<ExitStatus, Failure> {
        if let Some(ended) = self.has_ended() {
            return Ok(ended);
        }
        self.signal(Signal::TERM);
        self.wait_ended(PATIENCE)
    }

    /// SIGSTOP: it is there and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it again with the same arguments, killing it first if it runs; waits until it is
    /// ready.
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.kill();
        self.announced = None;
        self.child = launch(&self.binaries, &self.program)?;
        self.ended = None;
        self.watchdog = Some(Watchdog::over(&self.child)?);
        self.wait_ready()
    }

    /// How it was started; changes take effect at the next [`Self::restart`].
    pub fn program_mut(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Makes a restart use the ports that these services have now.
    pub fn keep_ports(&mut self, services: &[&str]) -> Result<(), Failure> {
        for service in services {
            let port = self.address(service)?.port();
            let flag = OsString::from(format!("--port-{service}"));
            let arguments = &mut self.program.arguments;
            let place = arguments.iter().position(|argument| *argument == flag);
            if let Some(value) = place.and_then(|place| arguments.get_mut(place + 1)) {
                *value = port.to_string().into();
            }
        }
        Ok(())
    }

    /// All it has written so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.program.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.program.log
    }

    /// The sum of a metric over its labels, as the process exposes it now.
    pub fn metric(&self, name: &str) -> Result<f64, Failure> {
        let unknown = |error| Failure::new(format!("{}: {error}", self.program.name));
        metric_at(self.address("metrics")?, name).map_err(unknown)
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("  its log {} ends:\n  | {}", self.program.log.display(), shown.join("\n  | "))
    }

    fn signal(&self, signal: Signal) {
        if let (None, Some(pid)) = (self.ended, raw(&self.child)) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(pid) = raw(&self.child) {
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // What it started may be left even if it ended by itself.
        self.signal_group(Signal::KILL);
    }
}

fn raw(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

fn launch(binaries: &Binaries, program: &Program) -> Result<Child, Failure> {
    let failed = || Failure::of(format!("cannot start {}", program.name));
    let log = OpenOptions::new().create(true).append(true).open(&program.log).map_err(failed())?;
    let other = log.try_clone().map_err(failed())?;
    let mut command = binaries.command(&program.name)?;
    let environment = program.environment.iter().map(|(key, value)| (key, value));
    command.args(&program.arguments).envs(environment).current_dir("/").process_group(0);
    command.stdout(other).stderr(log).spawn().map_err(failed())
}

/// Whether something called `PREFIX-PID-…` was made by a process that is gone.
pub fn is_left_over(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    let maker: Option<u32> = rest.and_then(|rest| rest.split('-').next()?.parse().ok());
    maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// An address of this machine that stays free while this lives: nobody is given it who asks for any port, and no
/// connection leaves from it. Nobody listens there but who is told to, and sets `SO_REUSEADDR`, as servers do.
#[derive(Debug)]
pub struct FreeAddress {
    at: SocketAddr,
    /// Is bound and never listens.
    _socket: OwnedFd,
}

impl FreeAddress {
    /// Some address.
    pub fn new() -> Result<Self, Failure> {
        Self::on(Ipv4Addr::LOCALHOST)
    }

    /// Some port of this address of the machine.
    pub fn on(ip: Ipv4Addr) -> Result<Self, Failure> {
        let failed = || Failure::of("cannot find a free port");
        let bound = || {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddr::from((ip, 0)))?;
            Ok::<_, Errno>((SocketAddr::try_from(getsockname(&socket)?)?, socket))
        };
        let (at, socket) = bound().map_err(std::io::Error::from).map_err(failed())?;
        Ok(Self { at, _socket: socket })
    }

    /// The address.
    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

/// Whether anybody listens at an address.
#[expect(clippy::disallowed_methods, reason = "only whether it listens is asked")]
pub fn listens(at: SocketAddr) -> bool {
    TcpStream::connect(at).is_ok()
}

/// The sum of a metric over its labels, as whoever listens at `address` exposes it now.
pub fn metric_at(address: SocketAddr, name: &str) -> Result<f64, Failure> {
    let page = http_get(address, "/metrics")?;
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
        .collect();
    if values.is_empty() {
        return Err(Failure::new(format!("there is no metric {name}")));
    }
    Ok(values.iter().sum())
}

/// The body of a small page of a process of ours.
pub fn http_get(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let url = format!("http://{address}{path}");
    let output = Command::new("curl")
        .args(["-sSf", "--noproxy", "*", "--max-time", "10", &url])
        .output()
        .map_err(Failure::of("cannot start curl"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("cannot get {url}: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How a command that was run to its end ended, with all it said.
#[derive(Debug)]
pub struct Said {
    /// As it was typed.
    pub line: String,
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, as text.
    pub stderr: String,
}

impl Said {
    /// Runs `command` to its end.
    pub fn by(command: &mut Command) -> Result<Self, Failure> {
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let words = std::iter::once(program).chain(command.get_args());
        let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let output = command.output().map_err(Failure::of(format!("cannot run {line}")))?;
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Ok(Self {
            line,
            code: output.status.code().unwrap_or_else(signal),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Fails, with what it said, unless it exited with 0.
    pub fn ok(self) -> Result<Self, Failure> {
        if self.code == 0 {
            return Ok(self);
        }
        let (line, code, stderr) = (&self.line, self.code, self.stderr.trim());
        Err(Failure::new(format!("`{line}` exited with {code}\n{stderr}")))
    }

    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.stdout)
            .map_err(|error| Failure::new(format!("`{}` printed no JSON: {error}", self.line)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_tells_whether_its_maker_is_gone() {
        let of = |pid: u32| is_left_over(&format!("dfs-tb-{pid}-0-node1"), "dfs-tb");
        assert!(!of(std::process::id()));
        assert!(of(u32::MAX));
        assert!(!is_left_over("dfs-tb-x-0-node1", "dfs-tb"));
        assert!(!is_left_over("dfs-4294967295-0", "dfs-tb"));
    }

    #[test]
    fn an_address_that_is_kept_free_is_whose_it_is_given_to() {
        let free = FreeAddress::new().unwrap();
        assert!(!listens(free.at()));
        // More than there are ports for who asks for any.
        for _ in 0..40_000 {
            let any = TcpListener::bind("127.0.0.1:0").unwrap();
            assert_ne!(any.local_addr().unwrap(), free.at());
        }
        let given = TcpListener::bind(free.at()).unwrap();
        assert!(listens(free.at()));
        drop(given);
        assert!(!listens(free.at()));
    }
}
