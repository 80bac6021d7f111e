//! The programs and their trees of commands.

use clap::Command;

/// A program of ours.
pub struct Program {
    /// Its tree of commands, built.
    pub command: Command,
    /// The section of the manual that it belongs to.
    pub section: &'static str,
}

/// All of them, laid out at one width wherever this runs.
pub fn programs() -> Vec<Program> {
    let of = |command: Command, section| {
        let mut command = command.disable_help_subcommand(true).term_width(96);
        command.build();
        Program { command, section }
    };
    vec![
        of(dfctl::cli::command(), "1"),
        of(dfs_fuse::options::command(), "8"),
        of(dfs_cluster::options::command(), "8"),
    ]
}

/// Every command below this one, itself first, depth first.
pub fn all(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    std::iter::once(command).chain(below.flat_map(all)).collect()
}
