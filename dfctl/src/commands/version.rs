//! `dfctl version`.

use serde_json::{Value, json};

use super::inside::status;
use crate::backend::AgentStatus;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::Record;

/// Say which dfctl this is, and which node agent answers
///
/// Examples:
///   dfctl version
///   dfctl version --format json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

struct Versions {
    agent: Option<AgentStatus>,
}

impl Record for Versions {
    fn json(&self) -> Value {
        json!({
            "dfctl": env!("CARGO_PKG_VERSION"),
            "agent": self.agent.as_ref().map(Record::json),
        })
    }

    fn name(&self) -> Vec<u8> {
        env!("CARGO_PKG_VERSION").into()
    }
}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let agent = match context.answering_backend()? {
        Some(backend) => Some(status(context, &*backend).await?),
        None => None,
    };
    let versions = Versions { agent };
    context.output.record("version", &versions, || {
        let own = format!("dfctl  {}", env!("CARGO_PKG_VERSION"));
        match &versions.agent {
            Some(agent) => {
                format!("{own}\nagent  {}  pid {}  {}", agent.version, agent.pid, agent.data_dir)
            }
            None => format!("{own}\nagent  none answers"),
        }
    })?;
    Ok(Outcome::Done)
}
