//! `dfctl runtime install`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use dfs_fuse::web::RegistryHost;
use dfs_service::net::is_mirror;
use serde_json::{Value, json};

use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::Record as Reported;
use crate::output::quoted_path;
use crate::runtime::{
    DROP_INS, Place, PlaceError, PlanError, Record, Runtime, Told, Written, unified,
};

/// Where records are.
const RECORDS: &str = "/var/lib/dfs/runtimes";

/// Tell a container runtime to pull through the node agent's mirror
///
/// Examples:
///   dfctl runtime install containerd
///   dfctl runtime install podman --registry quay.io --dry-run
///   dfctl runtime install docker --undo
///
/// The registry itself stays what is asked last: without the agent, pulls go there.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Which one
    #[arg(value_enum)]
    runtime: Runtime,
    /// Where the mirror listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4050")]
    mirror: SocketAddr,
    /// Registry to pull from through it, for podman and cri-o; repeatable
    #[arg(long, value_name = "HOST[:PORT]", default_values = ["docker.io", "quay.io", "ghcr.io", "registry.k8s.io"])]
    registry: Vec<RegistryHost>,
    /// Only show what would be changed
    #[arg(long)]
    dry_run: bool,
    /// Take back what was written
    #[arg(long)]
    undo: bool,
    /// Directory that stands for the machine's root
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What was done.
struct Done {
    runtime: Runtime,
    root: PathBuf,
    changed: Vec<PathBuf>,
    undo: bool,
}

impl Reported for Done {
    fn json(&self) -> Value {
        json!({
            "runtime": self.runtime.name(),
            "undone": self.undo,
            "files": self.changed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.runtime.name().into()
    }
}

impl Done {
    fn line(&self) -> String {
        let word = if self.undo { "undone" } else { "installed" };
        let files: Vec<_> = self.changed.iter().map(|path| quoted_path(path)).collect();
        let is_this_machine = self.root.as_os_str() == "/";
        let notice = self.runtime.notice().filter(|_| is_this_machine);
        let notice = notice.map_or(String::new(), |notice| format!("\nnow run  {notice}"));
        format!("{word}  {}   {}{notice}", self.runtime.name(), files.join(" "))
    }
}

/// What is to be changed, and what is then recorded.
struct Plan {
    /// Texts as they are and as they are to be, in the order in which they are written.
    edits: Vec<Edit>,
    record: Option<Record>,
}

struct Edit {
    path: String,
    before: Option<String>,
    after: Option<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let place = Place::below(&args.root).map_err(|error| of_place(&error))?;
    let kept = format!("{RECORDS}/{}.json", args.runtime.name());
    // Who only looks leaves nothing behind.
    let lock = if args.dry_run {
        None
    } else {
        Some(place.lock(RECORDS).map_err(|error| of_place(&error))?)
    };
    let known = known(&place, &kept)?;
    let plan = match args.undo {
        true => undoing(&place, known.as_ref())?,
        false => installing(&args, &place, known.as_ref())?,
    };
    let is_recorded = plan.record == known;
    if plan.edits.is_empty() && is_recorded {
        context.output.note(match args.undo {
            true => "nothing was written for it",
            false => "it pulls through the mirror already",
        });
        return Ok(Outcome::Nothing);
    }
    if args.dry_run {
        for edit in &plan.edits {
            let path = place.shown(&edit.path).display().to_string();
            let shown = unified(&path, edit.before.as_deref(), edit.after.as_deref());
            context.output.bytes(shown.as_bytes())?;
        }
        return Ok(Outcome::Done);
    }
    if !args.undo {
        answers(args.mirror).await?;
    }
    let changed = plan.edits.iter().map(|edit| place.shown(&edit.path)).collect();
    written(&place, &kept, plan, known.as_ref()).map_err(|error| of_place(&error))?;
    drop(lock);
    let done = Done { runtime: args.runtime, root: args.root, changed, undo: args.undo };
    context.output.report("runtime", &done, || done.line())?;
    Ok(Outcome::Done)
}

/// What was written for the runtime before.
fn known(place: &Place, kept: &str) -> Result<Option<Record>, CliError> {
    let Some(text) = place.read(kept).map_err(|error| of_place(&error))? else { return Ok(None) };
    let record = Record::read(&text).ok_or_else(|| {
        let shown = place.shown(kept).display().to_string();
        CliError::new(
            &codes::RUNTIME_UNFIT,
            format!("{shown} is no record that this dfctl can read"),
        )
    })?;
    Ok(Some(record))
}

/// The files as they are without what was written.
fn undoing(place: &Place, known: Option<&Record>) -> Result<Plan, CliError> {
    let mut edits = Vec::new();
    for written in known.iter().flat_map(|record| record.files.iter().rev()) {
        let before = place.read(&written.path).map_err(|error| of_place(&error))?;
        let after = undone(written, before.as_deref())?;
        if before != after {
            edits.push(Edit { path: written.path.clone(), before, after });
        }
    }
    Ok(Plan { edits, record: None })
}

fn undone(written: &Written, now: Option<&str>) -> Result<Option<String>, CliError> {
    written.undone(now).map_err(|error| {
        CliError::new(&codes::RUNTIME_EDITED, "cannot take back what was written").caused_by(&error)
    })
}

/// The files with the mirror in them; what was written before is taken back first, so that it is there once.
fn installing(args: &Args, place: &Place, known: Option<&Record>) -> Result<Plan, CliError> {
    let taken_back = undoing(place, known)?;
    let mut base: BTreeMap<String, Option<String>> = BTreeMap::new();
    for edit in taken_back.edits {
        base.insert(edit.path, edit.after);
    }
    let mut text = |path: &str| match base.get(path) {
        Some(text) => Ok(text.clone()),
        None => place.read(path),
    };
    let registries = args.registry.iter().map(ToString::to_string).collect();
    let told = Told { mirror: args.mirror, registries };
    let listed = place.list(DROP_INS, ".conf").map_err(|error| of_place(&error))?;
    let planned = args.runtime.plan(&told, &mut text, &listed);
    let planned = planned.map_err(|error| of_plan(args, &error))?;
    let mut plan = Plan { edits: Vec::new(), record: None };
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    for (path, after) in planned {
        let before = text(&path).map_err(|error| of_place(&error))?;
        let now = place.read(&path).map_err(|error| of_place(&error))?;
        dirs.extend(place.missing_dirs(&path).map_err(|error| of_place(&error))?);
        if now.as_ref() != Some(&after) {
            plan.edits.push(Edit { path: path.clone(), before: now, after: Some(after.clone()) });
        }
        files.push(Written { path, before, after });
    }
    // What is not written any more.
    for (path, after) in base {
        let before = place.read(&path).map_err(|error| of_place(&error))?;
        if files.iter().all(|file| file.path != path) && before != after {
            plan.edits.push(Edit { path, before, after });
        }
    }
    let made = known.iter().flat_map(|record| record.dirs.iter().cloned());
    dirs = made.chain(dirs).collect();
    dirs.dedup();
    let is_written = !files.is_empty();
    plan.record = is_written.then(|| Record::new(args.mirror, files, dirs));
    Ok(plan)
}

/// Nothing is told of a mirror that is not there.
async fn answers(mirror: SocketAddr) -> Result<(), CliError> {
    let what = format!("no registry mirror answers at {mirror}");
    let hint = format!("dfs-fuse --mirror-listen {mirror}, then the same command again");
    match is_mirror(mirror).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let because = "something else listens there";
            Err(CliError::new(&codes::MIRROR_NOT_READY, what).because(because).hint(hint))
        }
        Err(error) => {
            Err(CliError::new(&codes::MIRROR_NOT_READY, what).caused_by(&error).hint(hint))
        }
    }
}

/// Writes all of it. The record is there before the first file is changed, and goes after the last.
fn written(
    place: &Place,
    kept: &str,
    plan: Plan,
    known: Option<&Record>,
) -> Result<(), PlaceError> {
    if let Some(record) = &plan.record {
        place.write(kept, Some(&record.text()), 0o600)?;
    }
    for edit in &plan.edits {
        place.write(&edit.path, edit.after.as_deref(), 0o644)?;
    }
    if plan.record.is_none() {
        place.remove_empty(known.map_or(&[], |record| &record.dirs));
        place.write(kept, None, 0o600)?;
    }
    Ok(())
}

fn of_place(error: &PlaceError) -> CliError {
    match error {
        PlaceError::Io { action, path, source } => CliError::output(action, path, source),
        PlaceError::Outside { .. } | PlaceError::Strange { .. } => {
            CliError::new(&codes::RUNTIME_UNFIT, error.to_string())
        }
    }
}

fn of_plan(args: &Args, error: &PlanError) -> CliError {
    match error {
        PlanError::Place(error) => of_place(error),
        PlanError::Unfit(unfit) => {
            let what = format!("cannot tell {} of the mirror", args.runtime.name());
            CliError::new(&codes::RUNTIME_UNFIT, what).caused_by(unfit)
        }
    }
}
