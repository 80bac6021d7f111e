//! Scripts by which shells complete our commands.

use std::path::{Path, PathBuf};

use clap_complete::{Generator, Shell, generate};

use crate::commands::Program;

/// The scripts of a program.
pub fn scripts(program: &Program) -> Vec<(PathBuf, Vec<u8>)> {
    let name = program.command.get_name().to_owned();
    let script = |shell: Shell| {
        let mut script = Vec::new();
        generate(shell, &mut program.command.clone(), name.as_str(), &mut script);
        (Path::new("completions").join(shell.file_name(&name)), script)
    };
    [Shell::Bash, Shell::Zsh, Shell::Fish].map(script).into()
}
