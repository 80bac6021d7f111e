//! `dfctl mounts`.

use dfs_model::{ByteSize, HostKind};

use super::inside::answer;
use crate::backend::MountInfo;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::printable;
use crate::output::table::{Align, Table};

/// List what is mounted on this machine
///
/// Examples:
///   dfctl mounts
///   dfctl mounts --format json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    // Without an agent nothing of ours can be mounted: that is an answer, not a failure.
    let mounts = match context.running_backend()? {
        Some(backend) => answer(context, backend.mounts())
            .await?
            .map_err(|failure| CliError::backend("list", "the mounts", failure))?,
        None => Vec::new(),
    };
    context.output.records("mounts", &mounts, || table(&mounts))?;
    Ok(Outcome::Done)
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
