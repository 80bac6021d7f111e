//! Manual pages: one for each command.

use std::io;
use std::path::{Path, PathBuf};

use clap_mangen::Man;

use crate::commands::{Program, all};

/// The pages of a program.
pub fn pages(program: &Program) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut pages = Vec::new();
    // Commands of a program have no version of their own.
    let version = program.command.get_version().unwrap_or_default();
    let source = format!("{} {version}", program.command.get_name());
    for command in all(&program.command) {
        let man = Man::new(command.clone()).section(program.section).manual("dfs");
        let man = man.source(source.clone());
        let mut page = Vec::new();
        man.render(&mut page)?;
        pages.push((Path::new("man").join(man.get_filename()), page));
    }
    Ok(pages)
}
