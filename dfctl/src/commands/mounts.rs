//! `dfctl mounts`.

use dfs_model::{ByteSize, HostKind};

use super::dead::{Served, theirs};
use super::inside::answer;
use crate::backend::MountInfo;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{counted, printable, shell_quoted};

/// List what is mounted on this machine
///
/// Examples:
///   dfctl mounts
///   dfctl mounts --format json
///
/// Those of the agent that is asked; and with the state dead what agents that are gone have left, which
/// `dfctl umount` takes away.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    // Without an agent nothing of ours is served: that is an answer, not a failure, except where one was named.
    let served = match context.running_backend() {
        Ok(Some(backend)) => Ok(answer(context, backend.mounts())
            .await?
            .map_err(|failure| CliError::backend("list", "the mounts", failure))?),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let dead = dead_mounts(context).await?;
    let (mut mounts, failed) = match served {
        Ok(mounts) => (mounts, None),
        Err(error) if dead.is_empty() => return Err(error),
        Err(error) => (Vec::new(), Some(error)),
    };
    let clear = dead.first().map(|mount| format!("dfctl umount {}", shell_quoted(&mount.dir)));
    let count = dead.len() as u64;
    mounts.extend(dead);
    context.output.records("mounts", &mounts, || table(&mounts))?;
    if let Some(clear) = clear {
        let dead = counted(
            count,
            "mount is dead: its agent is gone",
            "mounts are dead: their agents are gone",
        );
        let all = if count > 1 { ", or all of them: dfctl doctor --fix" } else { "" };
        context.output.note(&format!("{dead}; `{clear}` takes it away{all}"));
    }
    failed.map_or(Ok(Outcome::Done), Err)
}

/// What agents that are gone have left, as far as it can be named.
async fn dead_mounts(context: &Context) -> Result<Vec<MountInfo>, CliError> {
    let theirs = theirs(context).await?.into_iter();
    let dead = theirs.filter(|(_, served)| *served == Served::Dead);
    Ok(dead.map(|(mount, _)| MountInfo::dead(&mount.dir, mount.name)).collect())
}

fn table(mounts: &[MountInfo]) -> String {
    let mut table = Table::new(&[
        ("MOUNT", Align::Left),
        ("ARTIFACT", Align::Left),
        ("LANE", Align::Left),
        ("CACHED", Align::Left),
        ("SOURCE/SEED/PEERS", Align::Left),
        ("STATE", Align::Left),
    ]);
    for mount in mounts {
        let cached = match mount.content {
            _ if mount.is_dead() => "-".to_owned(),
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
        table.row(vec![
            printable(&mount.dir),
            printable(&mount.artifact.url),
            printable(&mount.lane),
            cached,
            from.join(" / "),
            printable(&mount.state),
        ]);
    }
    table.render()
}
