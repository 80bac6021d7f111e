//! `dfctl cluster up`.

use std::cell::RefCell;
use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use super::join_token::{Joining, Made, make};
use super::place::{Cluster, command, log_of, running};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::launch::{Launch, private};

/// Start a cluster on this machine: manager, scheduler and seed in one
///
/// Examples:
///   dfctl cluster up
///   dfctl cluster up --listen 10.0.0.5
///   dfctl cluster up --data-dir /srv/dfs
///
/// On loopback, as usual, it is for this machine alone. On an address that others reach it has a certificate authority
/// of its own, every connection is protected by TLS with the certificates of both sides, and machines join with a token:
/// the command is printed.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Address to listen on, where other machines reach it [default: 127.0.0.1, this machine alone]
    #[arg(long, value_name = "ADDR")]
    listen: Option<IpAddr>,
    /// Address that others reach it at, where it is not the one it listens on; repeatable
    #[arg(long, value_name = "ADDR")]
    advertise: Vec<IpAddr>,
}

/// How long the token is good that is printed at the start.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let dir = private(&context.settings.cluster_dir()?)?;
    if let Some(run) = running(&dir)? {
        let cluster = Cluster::of(run, &dir).await;
        context.output.note("a cluster runs here already");
        context.output.report("cluster", &cluster, || cluster.human())?;
        return Ok(Outcome::Nothing);
    }
    let mut arguments: Vec<OsString> = vec!["all".into(), "--data-dir".into(), dir.clone().into()];
    if let Some(listen) = args.listen {
        arguments.extend(["--listen".into(), listen.to_string().into()]);
    }
    for address in args.advertise {
        arguments.extend(["--advertise".into(), address.to_string().into()]);
    }
    let launch = Launch { program: "dfs-cluster", arguments, log: log_of(&dir) };
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
    // On loopback there is none, and none is needed.
    let token = make(&dir, Joining::Node, TOKEN_TTL, 1).await.ok();
    if let Some(cluster) = &cluster {
        context.output.record("cluster", cluster, || {
            greeting(cluster, token.as_ref(), &command(context, "down"))
        })?;
    }
    Ok(Outcome::Done)
}

fn greeting(cluster: &Cluster, token: Option<&Made>, stop: &str) -> String {
    let address = cluster.run.addresses.get("grpc").cloned().unwrap_or_default();
    let (join, good) = match token {
        Some(token) => (
            token.command(),
            "\n             good for one machine, for an hour; the next: dfctl cluster join-token",
        ),
        None => (format!("dfs-fuse --cluster {address} --data-dir DIR --socket PATH"), ""),
    };
    format!(
        "{}\n\nadd a node:  {join}{good}\nuse it:      dfctl mount --cluster {address} URL DIR\nstop it:     {stop}",
        cluster.human()
    )
}
