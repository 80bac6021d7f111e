//! `dfctl cluster up`.

use std::cell::RefCell;

use super::place::{Cluster, command, log_of, running};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::launch::{Launch, private};

/// Start a cluster on this machine: manager, scheduler and seed in one
///
/// Examples:
///   dfctl cluster up
///   dfctl cluster up --data-dir /srv/dfs
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let dir = private(&context.settings.cluster_dir()?)?;
    if let Some(run) = running(&dir)? {
        let cluster = Cluster::of(run, &dir).await;
        context.output.note("a cluster runs here already");
        context.output.report("cluster", &cluster, || cluster.human())?;
        return Ok(Outcome::Nothing);
    }
    let launch = Launch {
        program: "dfs-cluster",
        arguments: vec!["all".into(), "--data-dir".into(), dir.clone().into()],
        log: log_of(&dir),
    };
    let seen = RefCell::new(None);
    let ready = async |_pid: u32| {
        let Ok(Some(run)) = running(&dir) else { return false };
        let cluster = Cluster::of(run, &dir).await;
        let ready = cluster.ready;
        *seen.borrow_mut() = Some(cluster);
        ready
    };
    launch.start(context, ready).await?;
    let cluster = seen.into_inner();
    if let Some(cluster) = &cluster {
        context
            .output
            .record("cluster", cluster, || greeting(cluster, &command(context, "down")))?;
    }
    Ok(Outcome::Done)
}

fn greeting(cluster: &Cluster, stop: &str) -> String {
    let address = cluster.run.addresses.get("grpc").cloned().unwrap_or_default();
    format!(
        "{}\n\nadd a node:  dfs-fuse --cluster {address} --data-dir DIR --socket PATH\nuse it:      dfctl mount --cluster {address} URL DIR\nstop it:     {stop}",
        cluster.human()
    )
}
