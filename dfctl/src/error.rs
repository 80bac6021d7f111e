//! What a command ends with when it fails: what failed on what, why, what to do next, and a stable code.
//!
//! The one place where failures of backends and of the file system become codes, and the one that prints them.

use std::error::Error;
use std::io;
use std::path::Path;

use dfs_service::process::Fault;
use serde_json::json;

use crate::backend::{Failure, FailureClass};
use crate::codes::{self, Code, Exit};
use crate::output::{printable, quoted_path, shell_quoted};
use crate::part::Tampered;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Done,
    /// There was nothing to do.
    Nothing,
}

impl Outcome {
    /// What the process ends with.
    pub fn exit(self) -> Exit {
        match self {
            Self::Done => Exit::Done,
            Self::Nothing => Exit::Nothing,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub struct CliError {
    /// The kind of failure.
    pub code: &'static Code,
    /// One line: what failed on what.
    pub what: String,
    /// The causes, outermost first.
    pub because: Vec<String>,
    /// The exact next command, or what to do.
    pub hint: Option<String>,
}

impl CliError {
    /// A failure of this kind.
    pub fn new(code: &'static Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), because: Vec::new(), hint: None }
    }

    /// Adds a cause.
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.because.push(cause.into());
        self
    }

    /// Adds an error and what it stems from.
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Many errors repeat the text of their source.
            if !self.because.last().is_some_and(|above| above.contains(&text)) {
                self.because.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Whether a cause names this path already.
    pub fn names(&self, path: &Path) -> bool {
        let path = path.display().to_string();
        self.because.iter().any(|cause| cause.contains(&path))
    }

    /// Says what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With no better way out, where to read on; not of those whose line says all there is to say.
    pub fn or_explained(self) -> Self {
        let is_plain = [&codes::USAGE, &codes::INTERRUPTED, &codes::PARTLY].contains(&self.code);
        if self.hint.is_some() || is_plain {
            return self;
        }
        let explain = format!("dfctl explain {}", self.code);
        self.hint(explain)
    }

    /// The output at `path` could not be written.
    pub fn output(action: &str, path: &Path, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => &codes::NO_SPACE,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                &codes::OUTPUT_DENIED
            }
            _ if error.get_ref().is_some_and(|inner| inner.is::<Tampered>()) => {
                &codes::PART_CORRUPT
            }
            _ => &codes::OUTPUT_FAILED,
        };
        let failed =
            Self::new(code, format!("cannot {action} {}", path.display())).caused_by(error);
        match failed.code {
            code if code == &codes::NO_SPACE => failed.hint(MAKE_ROOM),
            code if code == &codes::PART_CORRUPT => failed.hint("the same command again"),
            _ => failed,
        }
    }

    /// `what` failed for `fault`, as a process of dfs ends or this one without an agent.
    pub fn start(what: impl Into<String>, fault: Fault) -> Self {
        let code = match fault {
            Fault::NotPermitted => &codes::DATA_DENIED,
            Fault::NoSpace => &codes::CACHE_FULL,
            Fault::NotLetIn => &codes::JOIN_REFUSED,
            Fault::Unreached => &codes::JOIN_UNREACHED,
            Fault::Usage | Fault::Other => &codes::START_FAILED,
        };
        let error = Self::new(code, what);
        match fault {
            Fault::NotPermitted => {
                error.hint("the same command with --data-dir DIR, a directory of yours")
            }
            Fault::NoSpace => error
                .hint("make room there, or the same command with --data-dir DIR on another disk"),
            Fault::NotLetIn => error.hint("dfctl cluster join-token, where the manager runs"),
            Fault::Unreached | Fault::Usage | Fault::Other => error,
        }
    }

    /// `action` on `subject` failed in the backend; `action` reads as in "cannot {action}".
    pub fn backend(action: &str, subject: &str, failure: Failure) -> Self {
        let code = code_of(failure.class);
        let hint = literal_mark(action, subject, &failure)
            .or_else(|| hint_of_registry(failure.class, subject))
            .or_else(|| hint_for(failure.class, action, subject));
        // Many messages name the subject themselves: once is enough.
        let what = match failure.message.contains(subject) {
            true => failure.message,
            false => format!("cannot {action} {subject}: {}", failure.message),
        };
        Self { code, what, because: failure.because, hint }
    }

    /// The same for a command that named the agent's socket: what it is told to type asks that agent too.
    pub fn of_socket(mut self, socket: &Path) -> Self {
        const ASKING: [&str; 13] = [
            "mount", "mounts", "umount", "get", "cat", "ls", "stat", "preheat", "sync", "cache",
            "task", "trace", "doctor",
        ];
        let socket = quoted_path(socket);
        let tell = |text: &String| {
            let text = format!("{text} ");
            let told = ASKING.iter().fold(text, |text, command| {
                let named = format!("dfctl --socket {socket} {command} ");
                text.replace(&format!("dfctl {command} "), &named)
            });
            told.trim_end().to_owned()
        };
        self.what = tell(&self.what);
        self.because.iter_mut().for_each(|cause| *cause = tell(cause));
        self.hint = self.hint.as_ref().map(tell);
        self
    }

    /// For people, over several lines; `width` is the terminal's, where there is one.
    pub fn render(&self, width: Option<usize>) -> String {
        let what = printable(&self.what);
        let code = self.code.to_string();
        let used = "error: ".len() + what.chars().count();
        let gap = width.map_or(2, |width| width.saturating_sub(used + code.len()).max(2));
        let mut text = format!("error: {what}{:gap$}{code}\n", "");
        for cause in &self.because {
            text.push_str(&format!("  because  {}\n", printable(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  try      {}\n", printable(hint)));
        }
        text
    }

    /// For programs: `{"error": {code, exit, message, because, try}}`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({"error": {
            "code": self.code.to_string(),
            "exit": self.code.exit as u8,
            "message": self.what,
            "because": self.because,
            "try": self.hint,
        }})
    }
}

/// What to do about what may have passed.
const AGAIN: &str = "the same command again";

/// What to do about what only a cluster does.
const IN_A_CLUSTER: &str =
    "the same command with --cluster ADDR, or with --socket PATH of an agent in one";

/// What to do about an output whose disk is full.
const MAKE_ROOM: &str = "make room there, or the same command with -o PATH on another disk";

/// The code of each class of backend failure.
fn code_of(class: FailureClass) -> &'static Code {
    match class {
        FailureClass::NotFound | FailureClass::NoPath => &codes::NOT_FOUND,
        FailureClass::Unauthenticated => &codes::UNAUTHENTICATED,
        FailureClass::NotPermitted => &codes::NOT_PERMITTED,
        FailureClass::AgentRefused => &codes::AGENT_REFUSED,
        FailureClass::SourceFailed => &codes::SOURCE_FAILED,
        FailureClass::Redirects => &codes::REDIRECTS,
        FailureClass::BadAnswer => &codes::BAD_ANSWER,
        FailureClass::Declined => &codes::DECLINED,
        FailureClass::BrokenArchive => &codes::BROKEN_ARCHIVE,
        FailureClass::NoCluster => &codes::NO_CLUSTER,
        FailureClass::NoSeedSpace => &codes::SEED_FULL,
        FailureClass::TimedOut => &codes::TIMED_OUT,
        FailureClass::OriginChanged => &codes::ORIGIN_CHANGED,
        FailureClass::Corrupt => &codes::CORRUPT,
        FailureClass::NoSpace | FailureClass::NoOwnSpace => &codes::CACHE_FULL,
        FailureClass::OutputFull => &codes::NO_SPACE,
        FailureClass::Limit | FailureClass::TooLarge => &codes::BUSY,
        FailureClass::Unsupported => &codes::UNSUPPORTED,
        FailureClass::IsTree => &codes::IS_TREE,
        FailureClass::NotTree => &codes::NOT_TREE,
        FailureClass::BadRequest => &codes::USAGE,
        FailureClass::BadRange => &codes::BAD_RANGE,
        FailureClass::NotMounted => &codes::NOT_MOUNTED,
        FailureClass::MountDir => &codes::MOUNT_DIR,
        FailureClass::MountBusy | FailureClass::MountCarries => &codes::MOUNT_BUSY,
        FailureClass::MountCovered => &codes::MOUNT_COVERED,
        FailureClass::MountFailed => &codes::MOUNT_FAILED,
        FailureClass::NotFollowing => &codes::NOT_FOLLOWING,
        FailureClass::NoTask => &codes::NO_TASK,
        FailureClass::NotHandedOver => &codes::NOT_REPLACED,
        FailureClass::BadProfile => &codes::BAD_PROFILE,
        FailureClass::TaskInUse | FailureClass::TaskPinned | FailureClass::TaskKept => {
            &codes::TASK_IN_USE
        }
        FailureClass::PinTooLarge => &codes::PIN_TOO_LARGE,
        FailureClass::CacheFailed => &codes::CACHE_FAILED,
        FailureClass::AgentLost => &codes::AGENT_LOST,
        FailureClass::AgentSilent => &codes::AGENT_SILENT,
        FailureClass::AgentProtocol => &codes::AGENT_PROTOCOL,
        FailureClass::NoSolo => &codes::NO_SOLO,
        FailureClass::Internal => &codes::UNEXPECTED,
    }
}

fn hint_for(class: FailureClass, action: &str, subject: &str) -> Option<String> {
    let quoted = shell_quoted(subject);
    match class {
        FailureClass::NotFound | FailureClass::NoPath => {
            parent_of(subject).map(|parent| format!("dfctl ls {}", shell_quoted(&parent)))
        }
        FailureClass::Unauthenticated | FailureClass::NotPermitted => {
            Some(with_credentials(action, subject))
        }
        FailureClass::Redirects => Some(format!("curl -sIL {}", shell_quoted(artifact(subject)))),
        FailureClass::BadAnswer => {
            Some(format!("curl -sv -r 0-99 -o /dev/null {}", shell_quoted(artifact(subject))))
        }
        // What it has to say of it stands in what it answers.
        FailureClass::Declined => {
            Some(format!("curl -sv -r 0-99 {}", shell_quoted(artifact(subject))))
        }
        FailureClass::BrokenArchive => {
            let archive = shell_quoted(artifact(subject));
            Some(format!("a whole copy at the origin; what is there is got by: dfctl get {archive}"))
        }
        FailureClass::IsTree => {
            Some(format!("dfctl ls {quoted}      or all of it: dfctl get -r {quoted}"))
        }
        FailureClass::NotTree => Some(format!("dfctl stat {quoted}")),
        FailureClass::TooLarge => Some(format!("a part of it, as it is found by: dfctl ls {quoted}")),
        FailureClass::OriginChanged
        | FailureClass::SourceFailed
        | FailureClass::TimedOut
        | FailureClass::AgentLost => Some(AGAIN.to_owned()),
        FailureClass::Limit => Some(format!("{AGAIN}; where it fails again: dfctl doctor")),
        FailureClass::AgentProtocol => Some("dfctl version".to_owned()),
        FailureClass::NotMounted => Some("dfctl mounts".to_owned()),
        FailureClass::NoTask => Some("dfctl task ls".to_owned()),
        FailureClass::TaskPinned => Some("the same command with --unpin".to_owned()),
        FailureClass::TaskKept | FailureClass::PinTooLarge => Some("dfctl cache ls --pins".to_owned()),
        FailureClass::MountCovered => Some(format!("umount {quoted}")),
        FailureClass::NotHandedOver => {
            Some("dfctl umount DIR      then end the agent, and start it again without --holder off".to_owned())
        }
        FailureClass::MountBusy => Some(format!("dfctl umount --lazy {quoted}")),
        FailureClass::MountCarries => Some(carries(&quoted)),
        FailureClass::NotFollowing => Some("dfctl mount --follow URL DIR".to_owned()),
        FailureClass::NoSolo => Some("the same command without --solo".to_owned()),
        FailureClass::Corrupt => Some("dfctl cache verify".to_owned()),
        FailureClass::NoSpace => Some(
            "dfctl cache gc      or make room on its disk, unmount what nobody reads, give it a larger --capacity"
                .to_owned(),
        ),
        FailureClass::NoOwnSpace => Some(
            "make room there, or the same command with --data-dir DIR on another disk".to_owned(),
        ),
        FailureClass::OutputFull => Some(MAKE_ROOM.to_owned()),
        FailureClass::CacheFailed | FailureClass::AgentSilent => Some("dfctl doctor".to_owned()),
        FailureClass::NoCluster => Some(IN_A_CLUSTER.to_owned()),
        FailureClass::NoSeedSpace => {
            Some("a larger seed.capacity in the configuration of the cluster, or its --data-dir on another disk".to_owned())
        }
        FailureClass::BadProfile => Some(
            "dfctl trace export -o FILE MOUNT      on a machine that has mounted the same version writes another one"
                .to_owned(),
        ),
        FailureClass::MountDir
        | FailureClass::TaskInUse
        | FailureClass::AgentRefused
        | FailureClass::BadRequest
        | FailureClass::BadRange
        | FailureClass::Unsupported
        | FailureClass::MountFailed
        | FailureClass::Internal => None,
    }
}

/// What to do about a mount in which another one stands.
pub fn carries(dir: &str) -> String {
    format!("findmnt -R {dir}      shows what is mounted in it")
}

/// What is named, without the path inside.
fn artifact(subject: &str) -> &str {
    subject.rsplit_once('!').map_or(subject, |(artifact, _)| artifact)
}

/// The command that was run, and what follows the URL.
fn command_of(action: &str) -> (&str, &str) {
    match action {
        "get" => ("get", ""),
        "read" => ("cat", ""),
        "list" => ("ls", ""),
        "mount" => ("mount", " DIR"),
        _ => ("stat", ""),
    }
}

/// Where there is nothing of the name before the `!`, the `!` may belong to the name.
fn literal_mark(action: &str, subject: &str, failure: &Failure) -> Option<String> {
    let (artifact, path) = subject.rsplit_once('!')?;
    if failure.class != FailureClass::NotFound {
        return None;
    }
    let (command, rest) = command_of(action);
    let literal = shell_quoted(&format!("{artifact}%21{path}"));
    Some(format!("where the ! is part of the name: dfctl {command} {literal}{rest}"))
}

/// The command that was run, as somebody whom the origin may know; for a file of this machine, whose it is.
fn with_credentials(action: &str, subject: &str) -> String {
    if let Some(path) = artifact(subject).strip_prefix("file://") {
        let file = subject.rsplit_once('!').map_or("", |(_, inner)| inner);
        let below = if path.ends_with('/') { file } else { "" };
        return format!("ls -ld {}", shell_quoted(&format!("{path}{below}")));
    }
    let (command, rest) = command_of(action);
    let credentials = match subject.starts_with("s3://") {
        true => "--profile NAME",
        false => "-H 'Authorization: …'",
    };
    format!("dfctl {command} {credentials} {}{rest}", shell_quoted(subject))
}

/// What is done by what speaks to registries, about something in one.
fn hint_of_registry(class: FailureClass, subject: &str) -> Option<String> {
    let named = artifact(subject).strip_prefix("oci://")?;
    let named = named.split('?').next().unwrap_or(named);
    let (registry, _) = named.split_once('/')?;
    match class {
        FailureClass::Unauthenticated | FailureClass::NotPermitted => {
            Some(format!("docker login {}", shell_quoted(registry)))
        }
        FailureClass::NotFound => {
            let untagged = named.split('@').next().unwrap_or(named);
            let tag = untagged.rfind(':').filter(|at| !untagged[*at..].contains('/'));
            let repository = format!("docker://{}", &untagged[..tag.unwrap_or(untagged.len())]);
            Some(format!("skopeo list-tags {}", shell_quoted(&repository)))
        }
        FailureClass::Redirects | FailureClass::BadAnswer | FailureClass::Declined => {
            Some(format!("skopeo inspect {}", shell_quoted(&format!("docker://{named}"))))
        }
        _ => None,
    }
}

/// The directory that holds what `subject` names, where that is one level up.
fn parent_of(subject: &str) -> Option<String> {
    if let Some((artifact, path)) = subject.rsplit_once('!') {
        return Some(match path.rsplit_once('/') {
            Some((parent, _)) => format!("{artifact}!{parent}"),
            None => artifact.to_owned(),
        });
    }
    let (scheme, rest) = subject.split_once("://")?;
    let (parent, last) = rest.trim_end_matches('/').rsplit_once('/')?;
    (!last.is_empty()).then(|| format!("{scheme}://{parent}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let failure = Failure::new(FailureClass::NotFound, "the origin answered 404")
            .because("asked https://h/a/b twice");
        let error = CliError::backend("read", "https://h/a/b", failure);
        assert_eq!(
            error.render(None),
            "error: cannot read https://h/a/b: the origin answered 404  DFS-2101\n  \
             because  asked https://h/a/b twice\n  \
             try      dfctl ls https://h/a/\n"
        );
        let first = error.render(Some(80));
        assert_eq!(first.lines().next().map(|line| line.chars().count()), Some(80));
        assert_eq!(error.to_json()["error"]["exit"], 3);
    }

    #[test]
    fn who_is_not_known_is_told_how_to_run_the_same_command_as_somebody() {
        let hint = |action: &str, subject: &str| {
            let failure = Failure::new(FailureClass::Unauthenticated, "no");
            CliError::backend(action, subject, failure).hint.unwrap()
        };
        assert_eq!(hint("get", "https://h/f"), "dfctl get -H 'Authorization: …' https://h/f");
        assert_eq!(
            hint("mount", "https://h/d/"),
            "dfctl mount -H 'Authorization: …' https://h/d/ DIR"
        );
        assert_eq!(hint("list", "s3://b/p/"), "dfctl ls --profile NAME s3://b/p/");
        assert_eq!(hint("mount", "oci://h:5000/a/b:1!etc"), "docker login h:5000");
        assert_eq!(hint("look at", "https://h/f"), "dfctl stat -H 'Authorization: …' https://h/f");
    }

    #[test]
    fn who_asks_for_a_tag_that_is_not_there_is_shown_how_to_see_those_that_are() {
        let digest = format!("oci://h:5000/a@sha256:{}", "0".repeat(64));
        for (subject, listed) in
            [("oci://h:5000/a:1", "h:5000/a"), ("oci://h/a/b", "h/a/b"), (&digest, "h:5000/a")]
        {
            let failure = Failure::new(FailureClass::NotFound, "not found");
            let hint = CliError::backend("read", subject, failure).hint.unwrap();
            assert_eq!(hint, format!("skopeo list-tags docker://{listed}"));
        }
    }

    #[test]
    fn what_a_registry_says_is_looked_at_by_what_speaks_to_registries() {
        for subject in ["oci://h:5000/a:1!etc", "oci://h:5000/a:1"] {
            let failure = Failure::new(FailureClass::BadAnswer, "layer 1 unpacks to another");
            let hint = CliError::backend("mount", subject, failure).hint.unwrap();
            assert_eq!(hint, "skopeo inspect docker://h:5000/a:1");
        }
    }

    #[test]
    fn what_asking_again_does_not_mend_has_a_step_of_its_own() {
        let hint = |class, action: &str, subject: &str, message: &str| {
            CliError::backend(action, subject, Failure::new(class, message)).hint.unwrap()
        };
        let (archive, inside) = ("https://h/a.tgz", "https://h/a.tgz!d/f");
        assert_eq!(
            hint(FailureClass::Redirects, "read", archive, "x"),
            "curl -sIL https://h/a.tgz"
        );
        assert!(hint(FailureClass::BadAnswer, "get", inside, "x").ends_with(" https://h/a.tgz"));
        let broken = hint(FailureClass::BrokenArchive, "list", inside, "x");
        assert!(broken.ends_with("dfctl get https://h/a.tgz") && !broken.contains("again"));
        let mine = |subject| hint(FailureClass::NotPermitted, "get", subject, "x");
        assert_eq!(mine("file:///home/a/f"), "ls -ld /home/a/f");
        assert_eq!(mine("file:///home/a/!d/f"), "ls -ld /home/a/d/f");
        assert_eq!(mine("file:///home/a.tar!d/f"), "ls -ld /home/a.tar");
    }

    #[test]
    fn a_mark_that_may_be_part_of_the_name_is_told_how_to_be_written() {
        let hint = |class, message: &str| {
            let failure = Failure::new(class, message);
            CliError::backend("read", "https://h/what!now", failure).hint.unwrap()
        };
        let literal = "where the ! is part of the name: dfctl cat https://h/what%21now";
        assert_eq!(hint(FailureClass::NotFound, "cannot stat https://h/what: not found"), literal);
        let inside = hint(FailureClass::NoPath, "there is no such name in the tree");
        assert_eq!(inside, "dfctl ls https://h/what");
    }

    #[test]
    fn what_is_to_be_typed_asks_the_agent_that_was_asked() {
        let error = CliError::new(&codes::NOT_MOUNTED, "unmount it first: dfctl umount /m")
            .hint("dfctl mounts")
            .of_socket(Path::new("/run/my agent.sock"));
        assert_eq!(error.what, "unmount it first: dfctl --socket '/run/my agent.sock' umount /m");
        assert_eq!(error.hint.unwrap(), "dfctl --socket '/run/my agent.sock' mounts");
        let error = CliError::new(&codes::NOT_MOUNTED, "x").hint("dfctl explain DFS-5103");
        let error = error.of_socket(Path::new("/s"));
        assert_eq!(error.hint.unwrap(), "dfctl explain DFS-5103", "it asks nobody");
    }

    #[test]
    fn a_hint_leads_to_the_directory_above() {
        assert_eq!(parent_of("https://h/a"), Some("https://h/".into()));
        assert_eq!(parent_of("https://h"), None);
        assert_eq!(parent_of("https://h/a.tar!d/f"), Some("https://h/a.tar!d".into()));
        assert_eq!(parent_of("https://h/a.tar!f"), Some("https://h/a.tar".into()));
    }

    #[test]
    fn a_full_disk_and_a_closed_door_have_codes_of_their_own() {
        let code = |kind| CliError::output("write", Path::new("x"), &io::Error::from(kind)).code;
        assert_eq!(code(io::ErrorKind::StorageFull).exit, Exit::NoSpace);
        assert_eq!(code(io::ErrorKind::PermissionDenied).exit, Exit::NotPermitted);
        assert_eq!(code(io::ErrorKind::NotADirectory).exit, Exit::Other);
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        let error = CliError::new(&codes::UNEXPECTED, "bad \u{1b}[2Jname\n");
        assert!(!error.render(None).trim_end().contains(['\u{1b}', '\n']), "{error:?}");
    }
}
