//! `dfctl trace export`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Whose, told};
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::quoted_path;
use crate::part::draft_name;
use crate::replace::replace;

/// Write what is known of the readers of a mount to a file
///
/// Examples:
///   dfctl trace export -o tool.dfstrace /mnt/tool
///   dfctl trace export -o data.dfstrace https://host/data/
///
/// It is for another machine: `dfctl trace apply` takes it there. The file tells which ranges of the one version are touched, in which order; no names, no bytes, no URL.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    whose: Whose,
    /// Where to; - is the standard output
    #[arg(short, long, value_name = "PATH|-", value_hint = clap::ValueHint::FilePath, env = "DFS_OUTPUT", hide_env_values = true)]
    output: PathBuf,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let (backend, traced) = args.whose.find(context).await?;
    let asked = answer(context, backend.trace(&traced, 0)).await?;
    let profile =
        asked.map_err(|failure| CliError::backend("look at", &args.whose.whose, failure))?;
    if profile.runs == 0 {
        context
            .output
            .note("nothing was read yet of what a profile could tell: nothing is written");
        return Ok(Outcome::Nothing);
    }
    if args.output == Path::new("-") {
        context.output.bytes(&profile.file)?;
        return Ok(Outcome::Done);
    }
    let (output, file) = (args.output.clone(), profile.file.clone());
    let writing = tokio::task::spawn_blocking(move || put(&output, &file));
    let written = answer(context, writing).await?;
    written.unwrap_or_else(|error| Err(error.into())).map_err(|error| {
        let what = format!("cannot write {}", quoted_path(&args.output));
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => &codes::OUTPUT_DENIED,
            io::ErrorKind::StorageFull => &codes::NO_SPACE,
            _ => &codes::OUTPUT_FAILED,
        };
        CliError::new(code, what).caused_by(&error)
    })?;
    context.output.report("trace", &profile, || told("exported", &profile))?;
    Ok(Outcome::Done)
}

/// Names of drafts that are tried.
const DRAFTS: usize = 8;

/// Puts a file in place of the one before, whole or not at all. What is no file, such as a pipe, is written to.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let there = fs::metadata(path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return fs::write(path, bytes);
    }
    // What a link leads to.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    for _ in 0..DRAFTS {
        // A profile tells what is read, and of whom: no more than another file.
        match replace(&path, &path.with_file_name(draft_name(&name)), 0o666, bytes) {
            // Of another's, in a container with the same number, or left by one that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => name.push(".1"),
            replaced => return replaced,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_profile_is_replaced_as_a_whole_where_a_link_leads_and_keeps_its_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("profile"), dir.path().join("link"));
        put(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        put(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_has_the_name_of_its_draft_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile");
        put(&path, b"old").unwrap();
        let theirs = dir.path().join(draft_name("profile".as_ref()));
        fs::write(&theirs, "theirs").unwrap();
        put(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        for number in 1..DRAFTS {
            let name = format!("profile{}", ".1".repeat(number));
            fs::write(dir.path().join(draft_name(name.as_ref())), "theirs").unwrap();
        }
        assert!(put(&path, b"newer").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_is_no_file_is_written_to() {
        assert_eq!(
            put(Path::new("/dev/full"), b"x").unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        put(Path::new("/dev/null"), b"x").unwrap();
    }
}
