//! `dfctl why`.

use std::path::Path;

use super::elsewhere::socket_of;
use super::swarm::{Asked, backend, find, look};
use crate::backend::swarm::{Detail, SwarmTask};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::swarm::why::{Shown, is_named, render};
use crate::output::swarm::words;
use crate::output::{Format, Items, Verbosity, printable, quoted_path, shell_quoted};

/// Say why a task comes from whom it comes, and what it waits for
///
/// Examples:
///   dfctl why 9f2c41
///   dfctl why /mnt/data/model.bin --node rack2-node7
///
/// For each node of the swarm: where it stands, what happens next, what it took from whom, and what the scheduler decided
/// about it and why: who was granted as parent by which score, who was not and for what reason, who failed, who lied.
/// The scheduler keeps the last 256 decisions of a task; leases are counted. With -v the six scores of everybody who was
/// looked at are shown, with --format json all there is. Times are UTC, by the scheduler's clock.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A task's id or the beginning of it, a file inside a mount, or a URL
    #[arg(value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    what: String,
    /// Only this node, by its name or the beginning of its id; all that is known of it
    #[arg(short, long, value_name = "NAME", env = "DFS_NODE", hide_env_values = true)]
    node: Option<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let asked = Asked::of(context, &args.what, "why").await?;
    if let Some(error) = asked.error() {
        let error = printable(&format!("reading {} fails: {error}", args.what));
        context.output.note(&error);
    }
    let mut tasks = match told(context, &asked, &args.what).await {
        Err(error) => return Err(of_another_agent(context, &args.what, error)),
        Ok(tasks) => tasks,
    };
    if let Some(node) = &args.node {
        keep_only(&mut tasks, node)?;
    }
    if context.output.format == Format::Human {
        let scores = context.output.verbosity == Verbosity::Verbose;
        let shown = Shown { node: args.node.as_deref(), scores };
        let pages: Vec<String> = tasks.iter().map(|task| render(task, shown)).collect();
        context.output.line(&pages.join("\n\n"))?;
        return Ok(Outcome::Done);
    }
    let mut items = Items::new(&context.output, "why");
    tasks.iter().try_for_each(|task| items.push(task))?;
    items.finish()?;
    Ok(Outcome::Done)
}

async fn told(context: &Context, asked: &Asked, what: &str) -> Result<Vec<SwarmTask>, CliError> {
    let backend = backend(context).await?;
    let mut tasks = Vec::new();
    for which in asked.which() {
        tasks.extend(look(context, &*backend, which, Detail::Evidence).await?.tasks);
    }
    find(tasks, asked, what)
}

/// What lies in the mount of another agent is known where that one takes part.
fn of_another_agent(context: &Context, what: &str, error: CliError) -> CliError {
    let is_unknown = error.code == &codes::NO_AGENT || error.code == &codes::UNKNOWN_TASK;
    let socket = Path::new(what).parent().filter(|_| is_unknown).and_then(socket_of);
    match socket.filter(|socket| !context.settings.sockets().contains(socket)) {
        None => error,
        Some(socket) => {
            let (socket, what) = (quoted_path(&socket), shell_quoted(what));
            error
                .because("another agent serves the mount that it is in")
                .hint(format!("dfctl --socket {socket} why {what}"))
        }
    }
}

/// Leaves of them what is about one node.
fn keep_only(tasks: &mut Vec<SwarmTask>, node: &str) -> Result<(), CliError> {
    let all = tasks.clone();
    for task in tasks.iter_mut() {
        task.peers.retain(|peer| is_named(peer, node));
        let peers = &task.peers;
        let is_meant = |host: &str| {
            host == node
                || host.split('#').next() == Some(node)
                || peers.iter().any(|peer| peer.name == host)
        };
        task.entries.retain(|entry| is_meant(&entry.host));
    }
    tasks.retain(|task| !task.peers.is_empty() || !task.entries.is_empty());
    if tasks.is_empty() { Err(no_such_node(node, &all)) } else { Ok(()) }
}

fn no_such_node(node: &str, tasks: &[SwarmTask]) -> CliError {
    let mut peers: Vec<_> = tasks.iter().flat_map(|task| &task.peers).collect();
    peers.sort_by_key(|peer| !words::is_still(&peer.standing));
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let like = crate::near::near(node, names.iter().copied());
    let shown = if like.is_empty() { &names[..names.len().min(8)] } else { &like[..] };
    let what = format!("no node '{}' takes part in it", printable(node));
    CliError::new(&codes::UNKNOWN_NODE, what)
        .because(format!("those who do: {}", printable(&shown.join(", "))))
        .hint("dfctl why TASK      without --node shows all")
}
