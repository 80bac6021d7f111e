//! The JSON shape of every result, version 1, and the writer of lists in every format.
//!
//! Sizes are bytes, durations milliseconds, times ISO 8601 in UTC. Fields may be added within a version; none
//! is renamed or removed. Names that are not UTF-8 are shown with replacement characters, and their bytes
//! follow in a field `…_hex`.

use dfs_model::TaskInfo;
use serde_json::{Value, json};

use super::{Format, Output, Verbosity, when};
use crate::backend::{
    AgentStatus, Artifact, Away, CachedEntry, CachedTask, Collected, Entry, EntryKind, FollowInfo,
    Ledger, MountInfo, PinnedTree, Prefetch, PrefetchInfo, PrefetchState, Profile, ReadsInfo,
    Survival, TracedFile, Verified, View,
};
use crate::error::CliError;

/// A result that has a JSON shape and a name.
pub trait Record {
    /// Its fields, an object.
    fn json(&self) -> Value;
    /// What `--format name` prints.
    fn name(&self) -> Vec<u8>;
}

impl<R: Record + ?Sized> Record for &R {
    fn json(&self) -> Value {
        (**self).json()
    }

    fn name(&self) -> Vec<u8> {
        (**self).name()
    }
}

impl Output {
    /// Writes one result in the format asked for.
    pub fn record(
        &self,
        kind: &str,
        record: &dyn Record,
        human: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Human => self.line(&human()),
            Format::Name => self.bytes(&record.name()).and_then(|()| self.bytes(b"\n")),
            Format::Json => self.line(&format!("{:#}", document(kind, record.json()))),
            Format::Jsonl => self.line(&document(kind, record.json()).to_string()),
        }
    }

    /// Writes what a command did that was asked for its effect: for people not with `-q`.
    pub fn report(
        &self,
        kind: &str,
        record: &dyn Record,
        human: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.format == Format::Human && self.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        self.record(kind, record, human)
    }

    /// Writes a list of what a command did that was asked for its effect: for people not with `-q`.
    pub fn report_all<R: Record>(
        &self,
        kind: &'static str,
        records: &[R],
        human: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.format == Format::Human && self.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        self.records(kind, records, human)
    }

    /// Writes a list at once; `human` makes the table.
    pub fn records<R: Record>(
        &self,
        kind: &'static str,
        records: &[R],
        human: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.format == Format::Human {
            return self.line(&human());
        }
        let mut items = Items::new(self, kind);
        records.iter().try_for_each(|record| items.push(record))?;
        items.finish()
    }
}

fn document(kind: &str, fields: Value) -> Value {
    let mut document = json!({"version": 1, "kind": kind});
    if let (Value::Object(document), Value::Object(fields)) = (&mut document, fields) {
        document.extend(fields);
    }
    document
}

/// Writes a list piece by piece, for programs: `{"version": 1, "kind": …, "items": […]}`, or one object a line.
pub struct Items<'a> {
    output: &'a Output,
    kind: &'static str,
    written: u64,
}

impl<'a> Items<'a> {
    /// An empty list of this kind.
    pub fn new(output: &'a Output, kind: &'static str) -> Self {
        Self { output, kind, written: 0 }
    }

    /// Adds one.
    pub fn push(&mut self, record: &dyn Record) -> Result<(), CliError> {
        self.written += 1;
        match self.output.format {
            Format::Jsonl => self.output.line(&record.json().to_string()),
            Format::Name => self.output.name(&record.name()),
            Format::Json if self.written == 1 => {
                self.head()?;
                self.output.bytes(format!("\n    {}", record.json()).as_bytes())
            }
            Format::Json => self.output.bytes(format!(",\n    {}", record.json()).as_bytes()),
            Format::Human => Ok(()),
        }
    }

    /// Ends the list.
    pub fn finish(self) -> Result<(), CliError> {
        if self.output.format != Format::Json {
            return Ok(());
        }
        if self.written == 0 {
            self.head()?;
            return self.output.line("]\n}");
        }
        self.output.line("\n  ]\n}")
    }

    fn head(&self) -> Result<(), CliError> {
        let head = format!("{{\n  \"version\": 1,\n  \"kind\": \"{}\",\n  \"items\": [", self.kind);
        self.output.bytes(head.as_bytes())
    }
}

impl EntryKind {
    /// In JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Other => "other",
        }
    }
}

fn named(object: &mut Value, key: &str, bytes: &[u8]) {
    object[key] = String::from_utf8_lossy(bytes).into();
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        object[format!("{key}_hex")] = hex.into();
    }
}

/// The shape of a task inside other records.
pub fn task_json(task: &TaskInfo) -> Value {
    let validator = &task.key.validator;
    json!({
        "id": task.id.to_string(),
        "url": task.place().to_string(),
        "name": task.place.as_ref().map(|_| task.key.url.to_string()),
        "kind": task.key.kind,
        "domain": task.key.domain,
        "length": task.length,
        "piece_length": piece_bytes(task),
        "ranges": task.ranges,
        "unpinned": is_unpinned(task),
        "validator": {
            "etag": validator.etag,
            "modified": validator.modified,
            "version": validator.version,
        },
    })
}

/// Bytes in a piece of this task.
pub fn piece_bytes(task: &TaskInfo) -> u64 {
    dfs_model::GROUP_BYTES << task.piece_level.min(16)
}

/// Whether nothing but the length pins this version.
pub fn is_unpinned(task: &TaskInfo) -> bool {
    task.key.validator.strength() == dfs_model::ValidatorStrength::None
}

/// The shape of a ledger inside other records; docs/json.md says what the numbers mean.
pub fn ledger_json(ledger: &Ledger) -> Value {
    let parents: Vec<_> = ledger
        .parents
        .iter()
        .map(|parent| {
            json!({
                "name": parent.name,
                "host": parent.host_id.map(|id| id.to_string()),
                "kind": parent.kind,
                "bytes": parent.bytes,
            })
        })
        .collect();
    json!({
        "cache": ledger.cache,
        "source": ledger.source,
        "source_requests": ledger.source_requests,
        "parents": parents,
        "wire": ledger.on_the_wire(),
        "total": ledger.total(),
    })
}

impl Record for Artifact {
    fn json(&self) -> Value {
        let view = if self.view == View::Tree { "tree" } else { "file" };
        json!({
            "url": self.url,
            "view": view,
            "files": self.files,
            "bytes": self.bytes,
            "index": self.index.as_ref().map(task_json),
            "tasks": self.tasks.iter().map(task_json).collect::<Vec<_>>(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.clone().into_bytes()
    }
}

impl Record for Entry {
    fn json(&self) -> Value {
        let mut object = json!({
            "type": self.kind.word(),
            "length": self.length,
            "mode": format!("{:04o}", self.mode & 0o7777),
            "modified": when::iso(self.mtime.0),
            "uid": self.uid,
            "gid": self.gid,
        });
        named(&mut object, "path", &self.path);
        if self.kind == EntryKind::Symlink {
            named(&mut object, "target", &self.link_target);
        }
        object
    }

    fn name(&self) -> Vec<u8> {
        self.path.clone()
    }
}

impl Record for MountInfo {
    fn json(&self) -> Value {
        json!({
            "dir": self.dir,
            "url": self.artifact.url,
            "lane": self.lane,
            "lane_reason": self.lane_reason,
            "state": self.state,
            "files": self.files,
            "cached_bytes": self.cached,
            "content_bytes": self.content,
            "index_bytes": self.index_bytes,
            "left_out": self.left_out,
            "survival": survival_json(&self.survival),
            "prefetch": prefetch_json(&self.prefetch, self.all_reads_are_seen()),
            "away": self.away.as_ref().map(away_json),
            "reads": self.reads.as_ref().map(reads_json),
            "cache_quota_bytes": self.cache_quota.map(|quota| quota.0),
            "verify_reads": self.verify_reads,
            "follow": self.follow.as_ref().map(follow_json),
            "ledger": ledger_json(&self.ledger),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.dir.clone().into_bytes()
    }
}

fn away_json(away: &Away) -> Value {
    json!({ "since_unix_ms": away.since_unix_ms, "why": away.why })
}

fn reads_json(reads: &ReadsInfo) -> Value {
    let millis = |micros: u64| (reads.waits > 0).then(|| micros as f64 / 1000.0);
    json!({
        "all_seen": !reads.unseen,
        "count": reads.reads,
        "bytes": reads.bytes,
        "errors": reads.errors,
        "waits": reads.waits,
        "stalls": reads.stalls,
        "waiting": reads.waiting,
        "wait_p50_ms": millis(reads.wait_p50_us),
        "wait_p99_ms": millis(reads.wait_p99_us),
    })
}

fn follow_json(follow: &FollowInfo) -> Value {
    let at = |ms: u64| (ms > 0).then(|| when::iso(i64::try_from(ms / 1000).unwrap_or(i64::MAX)));
    json!({
        "every_seconds": follow.every.as_secs_f64(),
        "switches": follow.switches,
        "switched_at": at(follow.switched_ms),
        "looked_at": at(follow.looked_ms),
        "failed": follow.failed,
        "failing_since": at(follow.failing_ms),
        "earlier_versions": follow.earlier,
        "never_changes": follow.never_changes,
    })
}

fn prefetch_json(prefetch: &PrefetchInfo, reads_are_seen: bool) -> Value {
    let mode = match prefetch.mode {
        Prefetch::Off => "off",
        Prefetch::Trace => "trace",
        Prefetch::All => "all",
    };
    let state = match prefetch.state {
        PrefetchState::Idle => "idle",
        PrefetchState::Fetching => "fetching",
        PrefetchState::Waiting => "waiting",
        PrefetchState::Done => "done",
        PrefetchState::Misled => "misled",
    };
    let rate = |of: u64| (reads_are_seen && of > 0).then(|| prefetch.hit as f64 / of as f64);
    json!({
        "mode": mode,
        "state": state,
        "waiting_for": (!prefetch.waiting_for.is_empty()).then_some(&prefetch.waiting_for),
        "runs": prefetch.runs,
        "profile_bytes": prefetch.known,
        "touched_bytes": reads_are_seen.then_some(prefetch.touched),
        "fetched_bytes": prefetch.fetched,
        "hit_bytes": reads_are_seen.then_some(prefetch.hit),
        "hit_rate": rate(prefetch.fetched),
        "coverage": rate(prefetch.touched),
    })
}

impl Record for Profile {
    fn json(&self) -> Value {
        let written = i64::try_from(self.written_ms / 1000).unwrap_or(i64::MAX);
        let file = |file: &TracedFile| {
            let mut object = json!({
                "length": file.length,
                "profile_bytes": file.bytes,
                "touched": file.touched,
                "of_runs": file.runs,
            });
            named(&mut object, "path", &file.path);
            object
        };
        json!({
            "url": self.url,
            "dir": self.dir,
            "runs": self.runs,
            "profile_bytes": self.bytes,
            "files": self.files,
            "written": (self.written_ms > 0).then(|| when::iso(written)),
            "first": self.first.iter().map(file).collect::<Vec<_>>(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.clone().into_bytes()
    }
}

fn survival_json(survival: &Survival) -> Value {
    match survival {
        Survival::Kept { holder, resends } => json!({ "kept_by": holder, "resends": resends }),
        Survival::Independent => json!({ "kept_by": null, "independent": true }),
        Survival::Dies { why } => {
            let why = why.as_deref().unwrap_or("no holder was asked for");
            json!({ "kept_by": null, "why": why })
        }
    }
}

/// Milliseconds since 1970 as a time; nothing of none.
fn read_at(millis: u64) -> Option<String> {
    (millis > 0).then(|| when::iso(i64::try_from(millis / 1000).unwrap_or(i64::MAX)))
}

impl Record for CachedEntry {
    fn json(&self) -> Value {
        let mut object = json!({
            "type": self.kind.word(),
            "files": self.files,
            "bytes": self.bytes,
            "cached_bytes": self.cached,
            "pinned": self.pinned,
            "last_read": read_at(self.last_read_ms),
        });
        named(&mut object, "path", &self.name);
        object
    }

    fn name(&self) -> Vec<u8> {
        self.name.clone()
    }
}

impl Record for PinnedTree {
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "files": self.files,
            "bytes": self.bytes,
            "cached_bytes": self.cached,
            "state": self.state.word(),
            "why": (!self.why.is_empty()).then_some(&self.why),
            "since": read_at(self.since_ms),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.clone().into_bytes()
    }
}

impl Record for CachedTask {
    fn json(&self) -> Value {
        json!({
            "task": task_json(&self.task),
            "cached_bytes": self.cached,
            "disk_bytes": self.disk,
            "complete": self.complete,
            "in_use": self.in_use,
            "pinned": self.pinned,
            "fetching": self.fetching,
            "last_read": read_at(self.last_read_ms),
            "parents": self.parents,
            "ledger": ledger_json(&self.ledger),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.task.id.to_string().into_bytes()
    }
}

impl Record for AgentStatus {
    fn json(&self) -> Value {
        json!({
            "version": self.version,
            "pid": self.pid,
            "host": self.host_id.map(|id| id.to_string()),
            "data_dir": self.data_dir,
            "used_bytes": self.used,
            "capacity_bytes": self.capacity,
            "cache_medium": self.medium,
            "cache_dir": self.cache_dir,
            "cluster": self.cluster,
            "cluster_connected": self.cluster_connected,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.version.clone().into_bytes()
    }
}

impl Record for Collected {
    fn json(&self) -> Value {
        json!({
            "removed": self.tasks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "freed_bytes": self.freed,
            "used_bytes": self.used,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").into_bytes()
    }
}

impl Record for Verified {
    fn json(&self) -> Value {
        json!({
            "task": self.task.map(|id| id.to_string()),
            "groups_checked": self.groups_checked,
            "groups_bad": self.groups_bad,
            "bad_groups": self.bad_groups,
            "groups_repaired": self.groups_repaired,
            "why_not": (!self.why_not.is_empty()).then_some(&self.why_not),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.task.map(|id| id.to_string()).unwrap_or_default().into_bytes()
    }
}
