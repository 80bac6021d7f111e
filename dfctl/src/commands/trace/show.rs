//! `dfctl trace show`.

use dfs_model::ByteSize;

use super::{Whose, told};
use crate::backend::Profile;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{count, files, printable_name, when};

/// Show what readers of a mount touched first
///
/// Examples:
///   dfctl trace show /mnt/tool
///   dfctl trace show -n 100 'https://host/tool.tar.gz!bin'
///
/// It is what the next mount of the same fetches ahead of its readers. Reads are recorded as long as something is mounted. All mounts of the same version that overlap in time are one run;
/// of each range of 64 KiB it is known in which of the last eight runs it was touched, and when. What less than half of
/// them touched is fetched last, what none touched is forgotten. A file is listed by the first of it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    whose: Whose,
    /// Name so many files, at most 10000
    #[arg(
        short = 'n',
        long,
        default_value_t = 20,
        value_name = "NUMBER",
        env = "DFS_LINES",
        hide_env_values = true
    )]
    lines: u32,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let (backend, traced) = args.whose.find(context).await?;
    let asked = answer(context, backend.trace(&traced, args.lines)).await?;
    let profile =
        asked.map_err(|failure| CliError::backend("look at", &args.whose.whose, failure))?;
    context.output.record("trace", &profile, || human(&profile))?;
    Ok(Outcome::Done)
}

fn human(profile: &Profile) -> String {
    let head = told("profile", profile);
    if profile.runs == 0 {
        return head;
    }
    let written = match profile.written_ms {
        0 => "not written down yet".to_owned(),
        at => format!("written {}", when::ago(at)),
    };
    let mut table = Table::new(&[
        ("AHEAD", Align::Right),
        ("OF", Align::Right),
        ("RUNS", Align::Right),
        ("FILE", Align::Left),
    ]);
    for file in &profile.first {
        table.row(vec![
            ByteSize(file.bytes).to_string(),
            ByteSize(file.length).to_string(),
            format!("{} of {}", count(file.touched.into()), file.runs),
            printable_name(&file.path),
        ]);
    }
    let more = match profile.files.saturating_sub(profile.first.len() as u64) {
        0 => String::new(),
        more => format!("\n… and {} more", files(more)),
    };
    format!("{head}, {written}\n{}{more}", table.render())
}
