//! `dfctl mounts`.

use std::path::{Path, PathBuf};

use dfs_model::{ByteSize, HostKind};
use serde_json::Value;

use super::inside::answer;
use super::mount::mount_point;
use super::served::{Served, theirs};
use super::trace::mounted_on;
use crate::backend::{FollowInfo, MountInfo, Prefetch, PrefetchInfo, PrefetchState};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{Record, counted, files, printable, shell_quoted, when};

/// List what is mounted on this machine
///
/// Examples:
///   dfctl mounts
///   dfctl mounts --format json
///   dfctl mounts --refresh /mnt/models
///
/// Those of the agent that is asked; with the state dead what agents that are gone have left, which
/// `dfctl umount` takes away; and with the state silent those whose agent does not answer.
///
/// PREFETCHED is what was fetched before anybody read it, and how much of that was read since: `dfctl trace show MOUNT`
/// says by which profile. FOLLOWED is there where some mount follows its target: how often that is looked up, how often
/// the mount has switched and when, and what keeps it from doing so.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Look up now what the mount there follows, and wait until it shows that
    #[arg(long, value_name = "MOUNT", value_hint = clap::ValueHint::DirPath, env = "DFS_REFRESH", hide_env_values = true)]
    refresh: Option<PathBuf>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    if let Some(dir) = args.refresh {
        return refresh(&dir, context).await;
    }
    // Without an agent nothing of ours is served: that is an answer, not a failure, except where one was named.
    let served = match context.running_backend() {
        Ok(Some(backend)) => answer(context, backend.mounts())
            .await?
            .map_err(|failure| CliError::backend("list", "the mounts", failure)),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let unserved = unserved(context).await?;
    let (mounts, failed) = match served {
        Ok(mounts) => (mounts, None),
        Err(error) if unserved.is_empty() => return Err(error),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mounts = merged(mounts, unserved);
    context.output.records("mounts", &mounts, || table(&mounts))?;
    note(context, &mounts, "--lazy ", MountInfo::is_silent);
    note(context, &mounts, "", MountInfo::is_dead);
    failed.map_or(Ok(Outcome::Done), Err)
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
    let failed = |failure| CliError::backend("refresh", text, failure);
    let (switched, mount) = answer(context, backend.refresh(text)).await?.map_err(failed)?;
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
async fn unserved(context: &Context) -> Result<Vec<MountInfo>, CliError> {
    let theirs = theirs(context).await?.into_iter();
    let unserved = theirs.filter_map(|(mount, served)| match served {
        Served::Live => None,
        Served::Dead => Some(MountInfo::dead(&mount.dir, mount.name)),
        Served::Silent => Some(MountInfo::silent(&mount.dir, mount.name)),
    });
    Ok(unserved.collect())
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
        let cached = match mount.content {
            _ if mount.is_dead() || mount.is_silent() => "-".to_owned(),
            0 => "empty".to_owned(),
            content if mount.cached >= content => format!("all {}", ByteSize(content)),
            content => format!("{} of {}", ByteSize(mount.cached), ByteSize(content)),
        };
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
            cached,
            prefetched(mount),
            from.join(" / "),
        ];
        row.extend(some_follow.then(|| followed(mount.follow.as_ref())));
        row.push(mount.state.clone());
        table.row(row);
    }
    table.render()
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
        _ => format!("{}{how}, {} % read", ByteSize(fetched), hit * 100 / fetched),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
