//! Starting the other programs of dfs in the background, and knowing when they are ready.
//!
//! A started process has a process group of its own, so the terminal's Ctrl-C and hang-up are not for it; it
//! writes to a log file. One that is not ready in time is stopped again: nothing half-started stays.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use dfs_model::Location;
use dfs_service::data_dir::{DataDir, DataDirError, Holder, Places, private_dir, socket_dir};
use dfs_service::process::Fault;
use dfs_service::run_info::{RunInfo, RunState};

use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::CliError;
use crate::output::quoted_path;
use crate::reach::listens_on;

const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long an agent that was killed is given to be there again, as one of systemd's is after 100 ms: another one in its place
/// would keep it from its socket.
const RETURNS: Duration = Duration::from_secs(2);
/// How much of a log is shown when a start fails.
const LOG_LINES: usize = 6;

/// A program to start.
pub struct Launch {
    /// Its name, looked for beside dfctl and then in PATH.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// Starts a node agent for this user, and answers where it listens.
pub async fn agent(context: &Context) -> Result<PathBuf, CliError> {
    let settings = &context.settings;
    let socket = settings.own_socket();
    if is_back(&socket).await {
        return Ok(socket);
    }
    let data = private(&settings.agent_dir()?)?;
    // A place the user names is the user's affair; the agent makes its socket private in any case.
    if settings.socket.is_none()
        && let Some(parent) = socket.parent()
    {
        own_socket_dir(parent, &settings.places)?;
    }
    let mut arguments: Vec<OsString> = vec!["--data-dir".into(), data.clone().into()];
    arguments.extend(["--socket".into(), socket.clone().into(), "--exit-when-idle".into()]);
    let Location { area, idc, rack } = &context.settings.location;
    for (flag, place) in [("--area", area), ("--idc", idc), ("--rack", rack)] {
        if !place.is_empty() {
            arguments.extend([flag.into(), place.into()]);
        }
    }
    if let Some(cluster) = settings.cluster_joined() {
        arguments.extend(["--cluster".into(), cluster.to_string().into()]);
        if let Some(ip) = listens_on(context, cluster).await {
            arguments.extend(["--listen".into(), ip.to_string().into()]);
        }
    }
    let launch = Launch { program: "dfs-fuse", arguments, log: data.join("agent.log") };
    let ready = async |_pid: u32| UnixStream::connect(&socket).is_ok();
    let deadline = tokio::time::Instant::now() + READY_WITHIN;
    let started = loop {
        match launch.start(context, ready).await {
            // Whatever else keeps one from being started keeps the next one, too.
            Err(error) if error.code != &codes::START_FAILED => return Err(error),
            Err(error) => match another(context, &data, &socket, deadline).await? {
                Another::Listens => break None,
                Another::Left if tokio::time::Instant::now() < deadline => {}
                Another::Left | Another::Stays => return Err(error),
            },
            Ok(started) => break started,
        }
    };
    // Of several that were started at once one stays.
    let is_it = |pid: &u32| match DataDir::taken_by(&data) {
        Some(Holder::Process { pid: other, .. }) => other == *pid,
        Some(Holder::Unknown) | None => true,
    };
    if let Some(pid) = started.filter(is_it) {
        context
            .output
            .note(&format!("started the node agent   pid {pid}   socket {}", socket.display()));
    }
    Ok(socket)
}

/// What becomes of a process that has the data directory, so that no other could be started there.
enum Another {
    /// It was started at the same time, and listens where this one would have.
    Listens,
    /// It has ended.
    Left,
    /// It listens elsewhere, or nowhere.
    Stays,
}

/// Waits for who has a data directory, and does not say yet where it listens or does not listen there any more.
async fn another(
    context: &Context,
    data: &Path,
    socket: &Path,
    deadline: tokio::time::Instant,
) -> Result<Another, CliError> {
    loop {
        let is_taken = DataDir::taken_by(data).is_some();
        let is_elsewhere = match RunInfo::read(data) {
            Ok(RunState::Running(run)) => run.socket.is_none_or(|other| other != socket),
            _ => false,
        };
        // Looked at last: who says where it listens does so by then.
        if UnixStream::connect(socket).is_ok() {
            return Ok(Another::Listens);
        }
        if !is_taken {
            // Who has it and has not signed yet does so before long.
            answer(context, tokio::time::sleep(LOOK_EVERY)).await?;
            return Ok(Another::Left);
        }
        if is_elsewhere || tokio::time::Instant::now() >= deadline {
            return Ok(Another::Stays);
        }
        answer(context, tokio::time::sleep(LOOK_EVERY)).await?;
    }
}

/// Whether somebody answers on a socket that one left who was killed: who ends by himself takes it with him.
async fn is_back(socket: &Path) -> bool {
    let deadline = tokio::time::Instant::now() + RETURNS;
    loop {
        match UnixStream::connect(socket) {
            Ok(_) => return true,
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionRefused => return false,
            Err(_) if tokio::time::Instant::now() >= deadline => return false,
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The directory of the socket. Other users may enter the machine's one, also when it was made for an agent that
/// is root's alone: the next agent there may have a group. Who may use an agent is asked at its socket.
fn own_socket_dir(path: &Path, places: &Places) -> Result<PathBuf, CliError> {
    let made = if path == places.resident { socket_dir(path) } else { private_dir(path) };
    made.map_err(|error| refused(path, &error))
}

/// A private directory of this user.
pub fn private(path: &Path) -> Result<PathBuf, CliError> {
    private_dir(path).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &DataDirError) -> CliError {
    CliError::start(format!("cannot use {}", path.display()), error.fault()).caused_by(error)
}

/// The program `name`: beside this one, else in PATH.
pub fn find(name: &str) -> Result<PathBuf, CliError> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    if let Some(beside) = beside.filter(|path| path.is_file()) {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        CliError::new(&codes::NO_BINARY, format!("there is no program {name}"))
            .because("it is neither beside dfctl nor in PATH")
    })
}

impl Launch {
    /// Starts it and waits until `ready` says so. `None`: it ended because another one is there that is ready.
    pub async fn start(
        &self,
        context: &Context,
        ready: impl AsyncFn(u32) -> bool,
    ) -> Result<Option<u32>, CliError> {
        let (mut child, log_start) = self.spawn()?;
        let pid = child.id();
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        loop {
            if ready(pid).await {
                return Ok(Some(pid));
            }
            if let Ok(Some(status)) = child.try_wait() {
                return match ready(pid).await {
                    true => Ok(None),
                    false => Err(self.failed(&ended(status), fault_of(status), log_start)),
                };
            }
            if tokio::time::Instant::now() >= deadline {
                stop(&mut child).await;
                return Err(self.failed("it was not ready in 30 s", Fault::Other, log_start));
            }
            tokio::select! {
                () = context.interrupted.cancelled() => {
                    stop(&mut child).await;
                    return Err(CliError::new(&codes::INTERRUPTED, format!("interrupted: {} is stopped again", self.program)));
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn spawn(&self) -> Result<(Child, u64), CliError> {
        let program = find(self.program)?;
        let failed = |error: &std::io::Error| {
            let what = format!("cannot start {}", program.display());
            CliError::start(what, Fault::of(error)).caused_by(error)
        };
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log);
        let log = log.map_err(|error| failed(&error))?;
        let start = log.metadata().map(|status| status.len()).unwrap_or(0);
        let other = log.try_clone().map_err(|error| failed(&error))?;
        let child = Command::new(&program)
            .args(&self.arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(other)
            .stderr(log)
            .process_group(0)
            .spawn();
        Ok((child.map_err(|error| failed(&error))?, start))
    }

    fn failed(&self, reason: &str, fault: Fault, log_start: u64) -> CliError {
        let what = format!("cannot start {}: {reason}", self.program);
        let code = match fault {
            Fault::NotPermitted => &codes::START_DENIED,
            Fault::NoSpace => &codes::CACHE_FULL,
            Fault::NotLetIn => &codes::JOIN_REFUSED,
            Fault::Unreached => &codes::JOIN_UNREACHED,
            Fault::Usage | Fault::Other => &codes::START_FAILED,
        };
        let mut error = CliError::new(code, what);
        for line in tail(&self.log, log_start) {
            error = error.because(line);
        }
        error.hint(format!("less {}", quoted_path(&self.log)))
    }
}

/// That it ended, and with what where that says anything.
fn ended(status: ExitStatus) -> String {
    match status.success() {
        true => "it ended before anybody could ask it anything".to_owned(),
        false => format!("it ended at once: {status}"),
    }
}

/// Why it ended, by its exit code.
fn fault_of(status: ExitStatus) -> Fault {
    let faults = [Fault::Usage, Fault::NotPermitted, Fault::NoSpace, Fault::Unreached];
    let said = faults.into_iter().find(|fault| status.code() == Some(fault.exit().into()));
    said.unwrap_or(Fault::Other)
}

/// The last lines that were written since `start`.
fn tail(log: &Path, start: u64) -> Vec<String> {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(8192))))?;
        file.take(8192).read_to_end(&mut text)
    });
    if read.is_err() {
        return Vec::new();
    }
    told(&String::from_utf8_lossy(&text))
}

/// The last lines of a log as a person reads them: what went wrong, where anything did.
fn told(log: &str) -> Vec<String> {
    let lines: Vec<Line> =
        log.lines().filter(|line| !line.trim().is_empty()).map(Line::of).collect();
    let any_wrong = lines.iter().any(|line| line.is_wrong);
    let told: Vec<_> = lines.into_iter().filter(|line| line.is_wrong || !any_wrong).collect();
    told[told.len().saturating_sub(LOG_LINES)..].iter().map(|line| line.text.clone()).collect()
}

/// A line of a log.
struct Line {
    text: String,
    /// It says more than what the process was doing.
    is_wrong: bool,
}

impl Line {
    /// Of a record as programs read it, or of what the process said outside of its log: why it ended.
    fn of(line: &str) -> Self {
        let record = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line);
        let Ok(mut record) = record else {
            // The code of what failed here is said with it.
            let text = match line.rsplit_once("  DFS-") {
                Some((text, _)) => text,
                None => line,
            };
            return Self { text: text.to_owned(), is_wrong: !line.starts_with("DFS-") };
        };
        let level = record.remove("level").unwrap_or_default();
        let message = record.remove("message").unwrap_or_default();
        let mut text = message.as_str().unwrap_or_default().to_owned();
        for (key, value) in
            record.iter().filter(|(key, _)| !matches!(&key[..], "timestamp" | "target"))
        {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("   {key} {value}"));
        }
        Self { text, is_wrong: level == "WARN" || level == "ERROR" }
    }
}

/// Ends a child that was started here and is wanted no more.
async fn stop(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    for _ in 0..100 {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_log_is_told_by_what_went_wrong_in_it_and_not_as_programs_read_it() {
        let started =
            r#"{"timestamp":"t","level":"INFO","message":"started","host":"h","target":"x"}"#;
        let warned = r#"{"timestamp":"t","level":"WARN","message":"late","after":3,"target":"x"}"#;
        let ended = "dfs-fuse: cannot listen on 127.0.0.1:1 for pieces: address in use";
        assert_eq!(told(started), ["started   host h"]);
        let log = format!("{started}\n{warned}\n\n{ended}  DFS-4105\n");
        assert_eq!(told(&log), ["late   after 3", ended]);
        assert!(told("").is_empty());
    }

    #[tokio::test]
    async fn an_agent_that_was_killed_is_waited_for_and_one_that_never_was_is_not() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("agent.sock");
        assert!(!is_back(&socket).await);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let waiting = is_back(&socket);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending(), "it has left its socket");
        std::fs::remove_file(&socket).unwrap();
        let _there = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(waiting.await);
    }

    #[test]
    fn other_users_may_enter_the_machines_socket_directory_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        let dir = |name: &str| place.path().join(name);
        let places = Places {
            data: Some(dir("data")),
            runtime: dir("own"),
            resident: dir("machine"),
            config: Some(dir("config")),
        };
        let mode = |name: &str| {
            let made = own_socket_dir(&dir(name), &places).unwrap();
            std::fs::metadata(made).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode("own"), 0o700);
        assert_eq!(mode("machine") & 0o700, 0o700);
        assert_ne!(mode("machine") & 0o001, 0, "a usual umask leaves it open");
    }
}
