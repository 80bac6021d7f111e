//! `dfctl cluster join-token`.

use std::path::Path;
use std::time::Duration;

use dfs_proto::manager::admin_client::AdminClient;
use dfs_proto::manager::{CreateJoinTokenReply, CreateJoinTokenRequest, Role};
use dfs_service::net::grpc_local_channel;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use super::place::{command, of_this_machine};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Record, when};

/// The manager's socket in its data directory.
const SOCKET: &str = "manager.sock";

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Print a token that a machine joins the cluster with
///
/// Examples:
///   dfctl cluster join-token
///   dfctl cluster join-token --role seed --ttl 10m
///   dfctl cluster join-token --data-dir /var/lib/dfs-manager
///
/// Whoever has the token can take part until it is used or expires: hand it over as you would a password. It works on
/// the machine where the manager runs, for the user that it runs as.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What joins with it
    #[arg(long, value_enum, default_value_t = Joining::Node)]
    role: Joining,
    /// How long it is good, up to 30 days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lasting)]
    ttl: Duration,
    /// How many machines may use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    uses: u32,
}

/// The longest that a token is good.
const MOST: Duration = Duration::from_secs(30 * 24 * 3600);

fn lasting(text: &str) -> Result<Duration, String> {
    let time = dfs_model::parse_duration(text).map_err(|error| error.to_string())?;
    match time.is_zero() || time > MOST {
        true => Err("a token is good for some time, and for 30 days at most".to_owned()),
        false => Ok(time),
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Joining {
    /// A node agent: dfs-fuse
    Node,
    /// A scheduler of its own: dfs-cluster scheduler
    Scheduler,
    /// A seed of its own: dfs-cluster seed
    Seed,
}

impl Joining {
    fn wire(self) -> Role {
        match self {
            Self::Node => Role::Node,
            Self::Scheduler => Role::Scheduler,
            Self::Seed => Role::Seed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Scheduler => "scheduler",
            Self::Seed => "seed",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Node => "dfs-fuse",
            Self::Scheduler => "dfs-cluster scheduler",
            Self::Seed => "dfs-cluster seed",
        }
    }
}

/// A token that was made.
pub struct Made {
    joining: Joining,
    uses: u32,
    reply: CreateJoinTokenReply,
}

impl Made {
    /// The command that uses it.
    pub fn command(&self) -> String {
        let program = self.joining.program();
        format!("{program} --data-dir DIR --listen ADDR --join {}", self.reply.token)
    }
}

impl Record for Made {
    fn json(&self) -> Value {
        json!({
            "token": self.reply.token,
            "role": self.joining.name(),
            "uses": self.uses,
            "expires_ms": self.reply.expires_ms,
            "command": self.command(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.reply.token.clone().into_bytes()
    }
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let (dir, run) = of_this_machine(context)?;
    if !run.is_some_and(|run| MANAGERS.contains(&&*run.role)) {
        return Err(no_manager(context, &dir));
    }
    let asking = make(&dir, args.role, args.ttl, args.uses);
    let made = answer(context, asking).await?.map_err(|status| refused(&status))?;
    context.output.record("join-token", &made, || made.reply.token.clone())?;
    let machines = match made.uses {
        1 => "one machine".to_owned(),
        uses => format!("{uses} machines"),
    };
    let (program, left) = (args.role.program(), when::rough(args.ttl));
    context.output.note(&format!(
        "good for {machines}, for {left}; there: {program} --data-dir DIR --listen ADDR --join JOIN-TOKEN"
    ));
    Ok(Outcome::Done)
}

/// What processes call themselves in which a manager runs.
const MANAGERS: [&str; 2] = ["all", "manager"];

/// A manager may well run here, on a directory that was not named: another cluster is not what is wanted then.
fn no_manager(context: &Context, dir: &Path) -> CliError {
    let what = format!("no manager runs on {}", dir.display());
    let error = CliError::new(&codes::CLUSTER_DOWN, what);
    match &context.settings.data_dir {
        Some(_) => error.hint(format!(
            "the --data-dir of the manager      or, if it is that and the manager is down: {}",
            command(context, "up")
        )),
        None => error.because("the manager makes tokens, and is found by its data directory").hint(
            "dfctl cluster join-token --data-dir DIR, that of the manager      or, where there is no cluster yet: \
             dfctl cluster up",
        ),
    }
}

/// Asks the manager that works on `dir` for a token.
pub async fn make(dir: &Path, joining: Joining, ttl: Duration, uses: u32) -> Result<Made, Status> {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let role = joining.wire().into();
    let mut request = Request::new(CreateJoinTokenRequest { role, ttl_ms, uses });
    request.set_timeout(ANSWER_WITHIN);
    let mut client = AdminClient::new(grpc_local_channel(&dir.join(SOCKET), None));
    let reply = client.create_join_token(request).await?.into_inner();
    Ok(Made { joining, uses, reply })
}

fn refused(status: &Status) -> CliError {
    let what = "there is no join token";
    match status.code() {
        Code::FailedPrecondition => CliError::new(&codes::NO_CERTIFICATES, what)
            .because(status.message())
            .hint("dfctl cluster down, then: dfctl cluster up --listen ADDR"),
        Code::InvalidArgument => CliError::new(&codes::USAGE, what).because(status.message()),
        _ => CliError::new(&codes::UNEXPECTED, what).because(status.message()),
    }
}
