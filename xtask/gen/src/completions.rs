//! Scripts by which shells complete our commands: of `dfctl` its own, of the others clap's.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use clap_complete::{Generator, Shell, generate};

use crate::commands::Program;

/// The scripts of a program.
pub fn scripts(program: &Program) -> Vec<(PathBuf, Vec<u8>)> {
    let (name, dir) = (program.command.get_name().to_owned(), Path::new("completions"));
    if name == "dfctl" {
        let own = dfctl::completion::Shell::value_variants().iter();
        return own.map(|own| (dir.join(own.file_name()), own.script().into())).collect();
    }
    let script = |shell: Shell| {
        let mut script = Vec::new();
        generate(shell, &mut program.command.clone(), name.as_str(), &mut script);
        (dir.join(shell.file_name(&name)), script)
    };
    [Shell::Bash, Shell::Zsh, Shell::Fish].map(script).into()
}
