//! `dfctl mounts`.

use dfs_model::{ByteSize, HostKind};

use super::inside::answer;
use super::served::{Served, theirs};
use crate::backend::{MountInfo, Prefetch, PrefetchInfo, PrefetchState};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{counted, shell_quoted};

/// List what is mounted on this machine
///
/// Examples:
///   dfctl mounts
///   dfctl mounts --format json
///
/// Those of the agent that is asked; with the state dead what agents that are gone have left, which
/// `dfctl umount` takes away; and with the state silent those whose agent does not answer.
///
/// PREFETCHED is what was fetched before anybody read it, and how much of that was read since: `dfctl trace show MOUNT`
/// says by which profile.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
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
    let mut table = Table::new(&[
        ("MOUNT", Align::Left),
        ("ARTIFACT", Align::Left),
        ("LANE", Align::Left),
        ("CACHED", Align::Left),
        ("PREFETCHED", Align::Left),
        ("SOURCE/SEED/PEERS", Align::Left),
        ("STATE", Align::Left),
    ]);
    for mount in mounts {
        let cached = match mount.content {
            _ if mount.is_dead() || mount.is_silent() => "-".to_owned(),
            0 => "empty".to_owned(),
            content if mount.cache_quota.is_some_and(|quota| quota.0 < content) => {
                let quota = mount.cache_quota.unwrap_or_default();
                format!("{} of {quota} quota", ByteSize(mount.cached))
            }
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
        table.row(vec![
            mount.dir.clone(),
            mount.artifact.url.clone(),
            mount.lane.clone(),
            cached,
            prefetched(mount),
            from.join(" / "),
            mount.state.clone(),
        ]);
    }
    table.render()
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
    use super::*;

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
