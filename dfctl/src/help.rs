//! Help pages as wide as the terminal that shows them.

use clap::Command;

/// The same command whose pages run on where only the source breaks their lines, as its subcommands' do.
pub fn flowing(command: Command) -> Command {
    let command = match command.get_long_about().map(|about| flowed(&about.to_string())) {
        Some(about) => command.long_about(about),
        None => command,
    };
    command.mut_subcommands(flowing)
}

/// Paragraphs are one line each; what is indented, as examples are, stays as it is.
fn flowed(text: &str) -> String {
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut flowed = String::new();
    let mut above = "";
    for line in text.lines() {
        if !flowed.is_empty() {
            flowed.push(if is_prose(above) && is_prose(line) { ' ' } else { '\n' });
        }
        flowed.push_str(line);
        above = line;
    }
    flowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_runs_on_and_examples_do_not() {
        let page = "What it does\n\nExamples:\n  one\n  two\n\nFirst,\nand second.\n\nThird.";
        let flown = "What it does\n\nExamples:\n  one\n  two\n\nFirst, and second.\n\nThird.";
        assert_eq!(flowed(page), flown);
    }
}
