//! `dfctl mounts`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_fuse::mount::{MountEntry, mounted_at};
use dfs_model::{ByteSize, HostKind};
use serde_json::Value;

use super::elsewhere::{not_of_this_agent, told_by};
use super::inside::answer;
use super::mount::mount_point;
use super::served::{Served, theirs};
use super::trace::mounted_on;
use super::within::stale;
use crate::backend::{
    Failure, FollowInfo, MountInfo, Prefetch, PrefetchInfo, PrefetchState, ReadsInfo, Survival,
};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::links;
use crate::output::table::{Align, Table, facts as facts_of};
use crate::output::{
    Record, Verbosity, count, counted, files, printable, quoted_path, shell_quoted, when,
};

/// List what is mounted on this machine, or show one mount in full
///
/// Examples:
///   dfctl mounts
///   dfctl mounts /mnt/data
///   dfctl mounts --format json
///   dfctl mounts --refresh /mnt/models
///
/// Those of the agent that is asked; with the state dead what agents that are gone have left, which
/// `dfctl umount` takes away; and with the state silent those whose agent does not answer. Where there are none, or with -v,
/// it is said which other agents have something mounted.
///
/// PREFETCHED is what was fetched before anybody read it, and how much of that was read since, unless the kernel reads some
/// of it by itself; `dfctl trace show MOUNT` says by which profile. FOLLOWED is there where some mount follows its target:
/// how often that is looked up, how often the mount has switched and when, and what keeps it from doing so. Of one mount it
/// is also told what its readers met: how many reads came to the agent, how many of them found something missing, and how
/// long those waited.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only this one, in full
    #[arg(value_name = "MOUNT", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Look up now what it follows, and wait until it shows that
    #[arg(long, requires = "dir")]
    refresh: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    if let (true, Some(dir)) = (args.refresh, &args.dir) {
        return refresh(dir, context).await;
    }
    // Without an agent nothing of ours is served: that is an answer, not a failure, except where one was named.
    let served = match context.running_backend() {
        Ok(Some(backend)) => answer(context, backend.mounts())
            .await?
            .map_err(|failure| CliError::backend("list", "the mounts", failure)),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let found = theirs(context).await?;
    let unserved = unserved(&found);
    if let Some(dir) = &args.dir {
        return one(context, dir, served, unserved).await;
    }
    let (mounts, failed) = match served {
        Ok(mounts) => (mounts, None),
        Err(error) if unserved.is_empty() => return Err(error),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mounts = merged(mounts, unserved);
    context.output.records("mounts", &mounts, || table(&mounts))?;
    note(context, &mounts, "--lazy ", MountInfo::is_silent);
    note(context, &mounts, "", MountInfo::is_dead);
    // Who sees their own is not told of everybody's.
    let none_served = mounts.iter().all(|mount| mount.is_dead() || mount.is_silent());
    if none_served || context.output.verbosity == Verbosity::Verbose {
        note_others(context, &mounts, &found).await;
    }
    failed.map_or(Ok(Outcome::Done), Err)
}

/// Shows one mount.
async fn one(
    context: &Context,
    dir: &Path,
    served: Result<Vec<MountInfo>, CliError>,
    unserved: Vec<MountInfo>,
) -> Result<Outcome, CliError> {
    let dir = links::places(dir).last().unwrap_or_else(|| dir.to_owned());
    let is_it = |mount: &MountInfo| Path::new(&mount.dir) == dir;
    if let Some(mount) = unserved.into_iter().find(is_it) {
        let error = if mount.is_dead() { stale(&dir) } else { silent(&dir) };
        return Err(error);
    }
    let failed = match served {
        Ok(mounts) => match mounts.into_iter().find(is_it) {
            Some(mount) => {
                context.output.record("mount", &mount, || in_full(&mount))?;
                return Ok(Outcome::Done);
            }
            None => None,
        },
        Err(error) => Some(error),
    };
    let shown = printable(&dir.display().to_string());
    let there = mounted_at(&dir).ok().flatten();
    Err(match (there.filter(MountEntry::shows_ours), failed) {
        (Some(mount), _) => {
            let typed = format!("dfctl{{}} mounts {}", quoted_path(&dir));
            not_of_this_agent(context, &dir, &mount, &typed).await
        }
        (None, Some(error)) => error,
        (None, None) => {
            CliError::new(&codes::NOT_MOUNTED, format!("nothing of dfs is mounted on {shown}"))
                .hint("dfctl mounts")
        }
    })
}

fn silent(dir: &Path) -> CliError {
    let shown = printable(&dir.display().to_string());
    CliError::new(
        &codes::AGENT_SILENT,
        format!("the agent of the mount on {shown} does not answer"),
    )
    .hint(format!("dfctl umount --lazy {}", quoted_path(dir)))
}

/// Most mounts of other agents that are asked whose they are.
const MOST_ASKED: usize = 16;

/// Says which other agents have something mounted.
async fn note_others(context: &Context, listed: &[MountInfo], found: &[(MountEntry, Served)]) {
    let is_listed = |mount: &MountEntry| listed.iter().any(|own| Path::new(&own.dir) == mount.dir);
    let others = found.iter().filter(|(mount, served)| {
        *served == Served::Live && mount.root == Path::new("/") && !is_listed(mount)
    });
    let mut by_socket: BTreeMap<Option<PathBuf>, Vec<&Path>> = BTreeMap::new();
    for (mount, _) in others.take(MOST_ASKED) {
        let socket = told_by(context, &mount.dir).await;
        // What this user may not see of the agent that was asked.
        if socket.as_ref().is_some_and(|socket| context.settings.sockets().contains(socket)) {
            continue;
        }
        by_socket.entry(socket).or_default().push(&mount.dir);
    }
    for (socket, dirs) in by_socket {
        let dir = printable(&dirs[0].display().to_string());
        let what = match dirs.len() as u64 {
            1 => format!("{dir} is a mount of another agent"),
            many => {
                let more = counted(many - 1, "more mount", "more mounts");
                format!("{dir} and {more} are another agent's")
            }
        };
        let how = match socket {
            Some(socket) => format!("`dfctl --socket {} mounts` lists it", quoted_path(&socket)),
            None => "it does not say where that listens".to_owned(),
        };
        context.output.note(&format!("{what}: {how}"));
    }
}

fn in_full(mount: &MountInfo) -> String {
    let from = |kind| ByteSize(mount.ledger.from_kind(kind));
    let reason = match mount.lane_reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let verified = if mount.verify_reads { ", verified at each read" } else { "" };
    let survives = match &mount.survival {
        Survival::Kept { holder, .. } => format!("kept by the holder, pid {holder}"),
        Survival::Independent => "it needs no agent".to_owned(),
        Survival::Dies { why: Some(why) } => format!("it dies, too: {why}"),
        Survival::Dies { why: None } => "it dies, too: no holder was asked for".to_owned(),
    };
    let mut facts = vec![
        ("mount", mount.dir.clone()),
        ("artifact", mount.artifact.url.clone()),
        ("lane", format!("{}{reason}", mount.lane)),
        ("state", mount.state.clone()),
        ("when its agent dies", survives),
        ("content", format!("{}, {}", files(mount.files), ByteSize(mount.content))),
        ("here", format!("{}{verified}", cached(mount))),
        ("prefetched", prefetched(mount)),
        (
            "came from",
            format!(
                "source {}, seed {}, peers {}, this machine's cache {}",
                ByteSize(mount.ledger.source),
                from(HostKind::Seed),
                from(HostKind::Node),
                ByteSize(mount.ledger.cache)
            ),
        ),
    ];
    if mount.follow.is_some() {
        facts.push(("followed", followed(mount.follow.as_ref())));
    }
    match &mount.reads {
        None => facts.push(("reads", "-: the kernel makes them all by itself".to_owned())),
        Some(reads) => facts.extend(met(reads)),
    }
    facts_of(&facts)
}

/// What readers met, in lines.
fn met(reads: &ReadsInfo) -> Vec<(&'static str, String)> {
    let micros = |micros| when::rough(Duration::from_micros(micros));
    let errors = counted(reads.errors, "error", "errors");
    let all = counted(reads.reads, "read", "reads");
    let mut waits = match reads.waits {
        0 => "none".to_owned(),
        waits => format!(
            "{}: half within {}, 99 % within {}, {}",
            counted(waits, "read", "reads"),
            micros(reads.wait_p50_us),
            micros(reads.wait_p99_us),
            counted(reads.stalls, "stall of a second or more", "stalls of a second or more")
        ),
    };
    if reads.waiting > 0 {
        waits.push_str(&format!("; {} now", count(reads.waiting)));
    }
    let unseen = match reads.unseen {
        true => "; those are not seen that the kernel makes by itself",
        false => "",
    };
    vec![
        ("reads", format!("{all}, {}, {errors}{unseen}", ByteSize(reads.bytes))),
        ("waited", waits),
    ]
}

/// What came of a look.
struct Refreshed {
    switched: bool,
    mount: MountInfo,
}

impl Record for Refreshed {
    fn json(&self) -> Value {
        let mut object = self.mount.json();
        object["switched"] = self.switched.into();
        object
    }

    fn name(&self) -> Vec<u8> {
        self.mount.name()
    }
}

async fn refresh(dir: &Path, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let dir = mounted_on(dir);
    let text = mount_point(&dir)?;
    let (switched, mount) = match answer(context, backend.refresh(text)).await? {
        Ok(refreshed) => refreshed,
        Err(failure) => {
            // What can be done about an origin is done at what is followed.
            let listed = answer(context, backend.mounts()).await?.unwrap_or_default();
            let followed = listed.into_iter().find(|mount| mount.dir == text);
            let url =
                followed.filter(|mount| mount.follow.is_some()).map(|mount| mount.artifact.url);
            return Err(not_refreshed(text, url.as_deref(), failure));
        }
    };
    let refreshed = Refreshed { switched, mount };
    context.output.report("refreshed", &refreshed, || {
        let Refreshed { switched, mount } = &refreshed;
        let (dir, url) = (printable(&mount.dir), printable(&mount.artifact.url));
        match switched {
            true => {
                format!(
                    "switched  {dir}   {url}   {}, {}",
                    files(mount.files),
                    ByteSize(mount.content)
                )
            }
            false => format!("unchanged  {dir}   {url}"),
        }
    })?;
    Ok(Outcome::Done)
}

fn not_refreshed(dir: &str, url: Option<&str>, failure: Failure) -> CliError {
    let hint = url.and_then(|url| CliError::backend("stat", url, failure.clone()).hint);
    let failed = CliError::backend("refresh", dir, failure);
    CliError { hint: hint.or(failed.hint.clone()), ..failed }
}

/// Says how those are taken away that are so, if any.
fn note(context: &Context, mounts: &[MountInfo], how: &str, are_so: fn(&MountInfo) -> bool) {
    let of_them = mounts.iter().filter(|mount| are_so(mount));
    let Some(first) = of_them.clone().next() else { return };
    let count = of_them.count() as u64;
    let (state, all) = match first.is_dead() {
        true => (
            counted(
                count,
                "mount is dead: its agent is gone",
                "mounts are dead: their agents are gone",
            ),
            ", or all of them: dfctl doctor --fix",
        ),
        false => (
            counted(
                count,
                "mount is silent: its agent does not answer",
                "mounts are silent: their agents do not answer",
            ),
            "",
        ),
    };
    let all = if count > 1 { all } else { "" };
    let clear = format!("dfctl umount {how}{}", shell_quoted(&first.dir));
    context.output.note(&format!("{state}; `{clear}` takes it away{all}"));
}

/// What nobody serves, as far as it can be named.
fn unserved(found: &[(MountEntry, Served)]) -> Vec<MountInfo> {
    let unserved = found.iter().filter_map(|(mount, served)| match served {
        Served::Live => None,
        Served::Dead => Some(MountInfo::dead(&mount.dir, mount.name.clone())),
        Served::Silent => Some(MountInfo::silent(&mount.dir, mount.name.clone())),
    });
    unserved.collect()
}

/// Each once: what the agent says of one that nobody serves was so once.
fn merged(mut listed: Vec<MountInfo>, unserved: Vec<MountInfo>) -> Vec<MountInfo> {
    listed.retain(|mount| unserved.iter().all(|other| other.dir != mount.dir));
    listed.extend(unserved);
    listed
}

fn table(mounts: &[MountInfo]) -> String {
    let mut columns = vec![
        ("MOUNT", Align::Left),
        ("ARTIFACT", Align::Left),
        ("LANE", Align::Left),
        ("CACHED", Align::Left),
        ("PREFETCHED", Align::Left),
        ("SOURCE/SEED/PEERS", Align::Left),
    ];
    let some_follow = mounts.iter().any(|mount| mount.follow.is_some());
    columns.extend(some_follow.then_some(("FOLLOWED", Align::Left)));
    columns.push(("STATE", Align::Left));
    let mut table = Table::new(&columns);
    for mount in mounts {
        let from = [
            mount.ledger.source,
            mount.ledger.from_kind(HostKind::Seed),
            mount.ledger.from_kind(HostKind::Node),
        ];
        let from =
            from.map(|bytes| if bytes == 0 { "-".to_owned() } else { ByteSize(bytes).to_string() });
        let mut row = vec![
            mount.dir.clone(),
            mount.artifact.url.clone(),
            mount.lane.clone(),
            cached(mount),
            prefetched(mount),
            from.join(" / "),
        ];
        row.extend(some_follow.then(|| followed(mount.follow.as_ref())));
        row.push(mount.state.clone());
        table.row(row);
    }
    table.render()
}

/// What of it is here.
fn cached(mount: &MountInfo) -> String {
    match mount.content {
        _ if mount.is_dead() || mount.is_silent() => "-".to_owned(),
        0 => "empty".to_owned(),
        content if mount.cache_quota.is_some_and(|quota| quota.0 < content) => {
            let quota = mount.cache_quota.unwrap_or_default();
            format!("{} of {quota} quota", ByteSize(mount.cached))
        }
        content if mount.cached >= content => format!("all {}", ByteSize(content)),
        content => format!("{} of {}", ByteSize(mount.cached), ByteSize(content)),
    }
}

/// How it keeps up with its target.
fn followed(follow: Option<&FollowInfo>) -> String {
    let Some(follow) = follow else { return "-".to_owned() };
    if follow.never_changes {
        return "one version".to_owned();
    }
    let every = format!("every {}", when::every(follow.every));
    let switches = match follow.switches {
        0 => String::new(),
        1 => format!(", switched {}", when::ago(follow.switched_ms)),
        switches => format!(", switched {switches} times, {}", when::ago(follow.switched_ms)),
    };
    match &follow.failed {
        Some(why) => {
            let since = when::ago(follow.failing_ms);
            format!("{every}{switches}; not since {since}: {}", printable(why))
        }
        None => format!("{every}{switches}"),
    }
}

/// How much of it was fetched before anybody read it, and whether that was worth it.
fn prefetched(mount: &MountInfo) -> String {
    let PrefetchInfo { mode, state, runs, fetched, hit, .. } = mount.prefetch;
    if mount.is_dead() || mount.is_silent() || mode == Prefetch::Trace && runs == 0 {
        return "-".to_owned();
    }
    let how = match state {
        _ if mode == Prefetch::Off => return "off".to_owned(),
        PrefetchState::Fetching => " so far",
        PrefetchState::Waiting => " so far: it waits",
        PrefetchState::Misled => ": the profile is wrong",
        PrefetchState::Idle | PrefetchState::Done => "",
    };
    match fetched {
        0 if how.is_empty() => "nothing missing".to_owned(),
        0 => format!("0 B{how}"),
        _ if !mount.all_reads_are_seen() => format!("{}{how}", ByteSize(fetched)),
        _ => format!("{}{how}, {} % read", ByteSize(fetched), hit * 100 / fetched),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::FailureClass;

    #[test]
    fn how_a_mount_keeps_up_is_said_in_a_line() {
        let mut follow = FollowInfo { every: Duration::from_secs(60), ..FollowInfo::default() };
        assert_eq!(followed(None), "-");
        assert_eq!(followed(Some(&follow)), "every 1 m");
        follow.failed = Some("the origin answered 503".to_owned());
        let said = followed(Some(&follow));
        assert!(said.contains("not since") && said.ends_with("answered 503"), "{said}");
        follow.never_changes = true;
        assert_eq!(followed(Some(&follow)), "one version");
    }

    #[test]
    fn what_can_be_done_about_an_origin_is_told_of_its_url_and_not_of_the_directory() {
        let failure = |class| Failure::new(class, "it fails");
        let error = not_refreshed("/m", Some("https://h/d/"), failure(FailureClass::Redirects));
        assert_eq!(error.what, "cannot refresh /m: it fails");
        assert_eq!(error.hint.as_deref(), Some("curl -sIL https://h/d/"));
        let refused = failure(FailureClass::NotPermitted);
        let hint = not_refreshed("/m", Some("https://h/d/"), refused).hint.unwrap();
        assert!(hint.contains("dfctl stat") && hint.contains("https://h/d/"), "{hint}");
        let error = not_refreshed("/m", None, failure(FailureClass::NotFollowing));
        assert_eq!(error.hint.as_deref(), Some("dfctl mount --follow URL DIR"));
    }

    #[test]
    fn nothing_is_said_of_reads_that_nobody_sees() {
        let mut mount = MountInfo::dead("/a".as_ref(), String::new());
        mount.state = "ready".to_owned();
        let (mode, fetched) = (Prefetch::All, 3 << 20);
        mount.prefetch = PrefetchInfo { mode, fetched, ..PrefetchInfo::default() };
        for seen in [true, false] {
            mount.reads = Some(ReadsInfo { reads: 12, unseen: !seen, ..ReadsInfo::default() });
            assert_eq!(prefetched(&mount).contains("% read"), seen);
            let json = mount.json();
            assert_eq!(json["prefetch"]["hit_bytes"].is_u64(), seen, "{json}");
            assert_eq!(json["prefetch"]["touched_bytes"].is_u64(), seen, "{json}");
            assert_eq!(json["reads"]["count"], 12, "{json}");
            assert_eq!(json["reads"]["all_seen"], seen, "{json}");
            assert_eq!(in_full(&mount).contains("not seen"), !seen);
        }
        mount.reads = None;
        let said = in_full(&mount);
        assert!(said.contains("the kernel makes them all by itself") && !said.contains("waited"));
    }

    #[test]
    fn a_mount_that_the_agent_lists_and_nobody_serves_is_listed_once() {
        let mount = |dir: &str| MountInfo {
            state: "ready".into(),
            ..MountInfo::dead(dir.as_ref(), String::new())
        };
        let dead = MountInfo::dead("/b".as_ref(), String::new());
        let silent = MountInfo::silent("/c".as_ref(), String::new());
        let all = merged(vec![mount("/a"), mount("/b")], vec![dead, silent]);
        let all: Vec<_> = all.iter().map(|mount| (&*mount.dir, &*mount.state)).collect();
        assert_eq!(all, [("/a", "ready"), ("/b", "dead"), ("/c", "silent")]);
    }
}
