//! The grammar: global flags, the tree of commands, and the way from arguments to an exit code.
//!
//! No runtime exists before the arguments are understood, so that `--version` and `--help` answer at once.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use dfs_service::Extensions;
use dfs_service::config::{ServiceAddress, passing_over_empty};
use serde::Serialize;

use crate::codes::{self, Exit};
use crate::commands::Command;
use crate::completion;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::fstab;
use crate::help;
use crate::interrupt::Interrupts;
use crate::near::near;
use crate::output::{Color, Format, Output, Verbosity, printable, progress};
use crate::settings::{GivenFlags, Settings};

/// Get, look into and mount anything behind a URL; move only the bytes that are read
///
/// Examples:
///   dfctl get https://host/model.bin
///   dfctl mount https://host/dir/ /mnt/data
#[derive(Parser)]
#[command(name = "dfctl", version, verbatim_doc_comment, propagate_version = false)]
#[command(arg_required_else_help = true, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Everywhere")]
pub struct GlobalArgs {
    /// Cluster, as host:port of its manager: an agent that runs must take part in it, one that `mount` starts does, and without one
    /// the command itself is a peer of it
    #[arg(long, global = true, value_name = "ADDR", env = "DFS_CLUSTER", hide_env_values = true)]
    cluster: Option<ServiceAddress>,
    /// Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other
    /// command fails
    #[arg(long, global = true, value_name = "PATH", env = "DFS_SOCKET", hide_env_values = true)]
    socket: Option<PathBuf>,
    /// Work without any node agent
    #[arg(long, global = true, env = "DFS_SOLO", hide_env_values = true, num_args = 0..=1,
          default_missing_value = "true", require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    solo: Option<bool>,
    /// Where a process started by dfctl keeps its data; without an agent, dfctl's own goes to DIR/solo
    #[arg(long, global = true, value_name = "DIR", env = "DFS_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// Area (region) that this machine stands in, for the cluster: what dfctl starts, and what it takes itself, comes from
    /// schedulers, seeds and neighbours there
    #[arg(long, global = true, value_name = "NAME", env = "DFS_AREA", hide_env_values = true)]
    area: Option<String>,
    /// Data centre that this machine stands in
    #[arg(long, global = true, value_name = "NAME", env = "DFS_IDC", hide_env_values = true)]
    idc: Option<String>,
    /// Finer place in it, elements separated by `|`
    #[arg(long, global = true, value_name = "NAME", env = "DFS_RACK", hide_env_values = true)]
    rack: Option<String>,
    /// Shape of the result
    #[arg(long, global = true, value_enum, env = "DFS_FORMAT", hide_env_values = true)]
    format: Option<Format>,
    /// How progress is shown on stderr
    #[arg(long, global = true, value_enum, env = "DFS_PROGRESS", hide_env_values = true)]
    progress: Option<progress::Mode>,
    /// When to colour
    #[arg(long, global = true, value_enum, env = "DFS_COLOR", hide_env_values = true)]
    color: Option<Color>,
    /// Say only what failed, and print only what was asked for
    #[arg(short, long, global = true, action = ArgAction::SetTrue, conflicts_with = "verbose")]
    #[serde(skip)]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    #[serde(skip)]
    verbose: bool,
}

impl Cli {
    /// Reads a command line; also which flags of every command stand in it.
    pub fn of<W: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = W>,
    ) -> Result<(Self, GivenFlags), clap::Error> {
        let matches =
            help::flowing(passing_over_empty(Self::command())).try_get_matches_from(words)?;
        let cli = Self::from_arg_matches(&matches)?;
        let given = cli.global.given(&matches)?;
        Ok((cli, given))
    }
}

impl GlobalArgs {
    /// Those that were typed. What a variable gave is left to the loader, which knows where values come from.
    fn given(&self, matches: &ArgMatches) -> Result<GivenFlags, clap::Error> {
        let Ok(serde_json::Value::Object(mut flags)) = serde_json::to_value(self) else {
            let what = "a path in the flags is not UTF-8\n";
            return Err(clap::Error::raw(clap::error::ErrorKind::InvalidUtf8, what));
        };
        let is_typed = |key: &str| {
            let source = matches.value_source(&key.replace('-', "_"));
            source == Some(ValueSource::CommandLine)
        };
        flags.retain(|key, _| is_typed(key));
        Ok(flags)
    }

    fn verbosity(&self) -> Verbosity {
        let set = |name: &str| {
            std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
        };
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ if set("DFS_QUIET") => Verbosity::Quiet,
            _ if set("DFS_VERBOSE") => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// The tree of commands, for the generators of man pages, completions and references.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole process, with what its site compiled in.
pub fn main(extensions: Extensions) -> ExitCode {
    dfs_service::allocator::share_one_heap();
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == completion::ASKED) {
        return completion::main(words);
    }
    let words: Vec<_> = std::env::args_os().collect();
    let words = fstab::as_dfctl(&words).unwrap_or(words);
    let (cli, given) = match Cli::of(&words) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error, &words[1.min(words.len())..]),
    };
    let format = cli.global.format.unwrap_or_default();
    let verbosity = cli.global.verbosity();
    let color = cli.global.color.unwrap_or_default();
    let exit = match Settings::load(&given) {
        Ok(settings) => {
            let output = Output::of_process(settings.format, verbosity, settings.color);
            run(cli.command, settings, output, extensions)
        }
        Err(error) => {
            let output = Output::of_process(format, verbosity, color);
            match Settings::defaults() {
                Ok(defaults) if cli.command.goes_without_settings() => {
                    run(cli.command, defaults, output, extensions)
                }
                _ => report(&output, Err(error)),
            }
        }
    };
    ExitCode::from(exit as u8)
}

fn run(command: Command, settings: Settings, output: Output, extensions: Extensions) -> Exit {
    let interrupts = match Interrupts::install() {
        Ok(interrupts) => interrupts,
        Err(error) => return report(&output, Err(error)),
    };
    // Threads cost more than most commands: only an engine in this process has its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = CliError::new(&codes::UNEXPECTED, "cannot start").caused_by(&error);
            return report(&output, Err(error));
        }
    };
    for (name, meant) in misspelt(std::env::vars_os().map(|(name, _)| name)) {
        output.note(&format!("the variable {} means nothing here: {meant} does", printable(&name)));
    }
    let context = Context::new(settings, output, interrupts.token()).with_extensions(extensions);
    let result = runtime.block_on(async {
        let result = command.run(&context).await;
        context.finish().await;
        result
    });
    // What blocks in the background has nothing left to deliver.
    runtime.shutdown_background();
    // Results that were written are part of what is reported.
    let result = result.and_then(|outcome| context.output.flush().map(|()| outcome));
    let result = result.map_err(|error| match &context.settings.socket {
        Some(socket) if is_typed("--socket", &std::env::args_os().collect::<Vec<_>>()) => {
            error.of_socket(socket)
        }
        _ => error,
    });
    report(&context.output, result)
}

fn report(output: &Output, result: Result<Outcome, CliError>) -> Exit {
    match result {
        Ok(outcome) => outcome.exit(),
        Err(error) if error.code == &codes::READER_GONE => Exit::Done,
        Err(error) => {
            let error = error.or_explained();
            output.error(&error);
            error.code.exit
        }
    }
}

/// Help and version go to stdout; a mistake to stderr with its code.
fn usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let variable = |name: &str| std::env::var_os(name);
    let set = || Settings::load(&GivenFlags::new()).map(|settings| settings.format);
    let format = typed_format(words).or_else(|| set().ok()).unwrap_or_default();
    let output = Output::of_process(format, Verbosity::Normal, Color::default());
    if !error.use_stderr() {
        let written = output.help(&error.render());
        return ExitCode::from(report(&output, written.map(|()| Outcome::Done)) as u8);
    }
    let for_programs = || matches!(format, Format::Json | Format::Jsonl).then(|| mistake(error));
    let in_variable =
        not_text(error, words, variable).or_else(|| of_variable(error, words, variable));
    if let Some(error) = in_variable.or_else(for_programs) {
        return ExitCode::from(report(&output, Err(error)) as u8);
    }
    let _ = error.print();
    if error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = writeln!(io::stderr(), "{}", codes::USAGE);
    }
    ExitCode::from(Exit::Usage as u8)
}

/// The format that words ask for which cannot be understood as a whole.
fn typed_format(words: &[OsString]) -> Option<Format> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let after = |at: usize| words.get(at + 1).map(AsRef::as_ref);
    let typed = words.iter().enumerate().find_map(|(at, word)| match word.as_ref() {
        "--format" => after(at),
        word => word.strip_prefix("--format="),
    });
    <Format as clap::ValueEnum>::from_str(typed?, false).ok()
}

/// A mistake of the command line for programs: its first line, and what stands above the usage.
fn mistake(error: &clap::Error) -> CliError {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return CliError::new(&codes::USAGE, "a command is missing").hint("dfctl --help");
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what).trim_end_matches(':');
    let is_general = |line: &str| line.starts_with("Usage: ") || line.starts_with("For more");
    let details = lines.take_while(|line| !is_general(line));
    let details = details.map(|line| line.strip_prefix("tip: ").unwrap_or(line));
    let error = CliError::new(&codes::USAGE, what);
    details.fold(error, |error, line| error.because(line)).hint("dfctl --help")
}

/// A variable of a flag has a value that is no text, where all words are.
fn not_text(
    error: &clap::Error,
    words: &[OsString],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<CliError> {
    if error.kind() != clap::error::ErrorKind::InvalidUtf8
        || words.iter().any(|word| word.to_str().is_none())
    {
        return None;
    }
    let is_wrong = |name: &&String| variable(name).is_some_and(|value| value.to_str().is_none());
    let names = variables(&Cli::command());
    let name = names.iter().find(is_wrong)?;
    let what = format!("cannot use the environment variable {name}");
    let error = CliError::new(&codes::BAD_CONFIG, what).because("its value is not UTF-8");
    Some(error.hint(format!("unset {name}")))
}

/// The variables that a command and those below it take.
fn variables(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

/// Variables that nobody takes and that look like one that dfctl does; each with that one.
fn misspelt(set: impl IntoIterator<Item = OsString>) -> Vec<(String, String)> {
    let mut ours = variables(&Cli::command());
    ours.extend(["DFS_QUIET", "DFS_VERBOSE"].map(str::to_owned));
    let long = |arg: &clap::Arg| Some(format!("DFS_{}", arg.get_long()?.to_uppercase()));
    let of_agents = dfs_fuse::options::command();
    let of_agents: BTreeSet<String> =
        of_agents.get_arguments().filter_map(long).map(|name| name.replace('-', "_")).collect();
    let strange = set.into_iter().filter_map(|name| {
        let name = name.into_string().ok()?;
        let is_known = ours.contains(&name) || of_agents.contains(&name) || name.contains("__");
        let word = name.strip_prefix("DFS_").filter(|_| !is_known)?;
        let meant = near(word, ours.iter().filter_map(|name| name.strip_prefix("DFS_")));
        Some((name.clone(), format!("DFS_{}", meant.first()?)))
    });
    strange.collect()
}

/// The mistake is in a variable, where no flag among the words gave the value: who typed none would look for it in
/// vain.
fn of_variable(
    error: &clap::Error,
    words: &[OsString],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<CliError> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (flag, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let flag = flag.split([' ', '=', '[']).next()?;
    let name = format!("DFS_{}", flag.strip_prefix("--")?.to_uppercase().replace('-', "_"));
    // A value that is not taken may be one of a list.
    let has_it = |set: OsString| set.to_string_lossy().contains(&value);
    if is_typed(flag, words) || !variable(&name).is_some_and(has_it) {
        return None;
    }
    let reason = match (std::error::Error::source(error), error.get(ContextKind::ValidValue)) {
        (Some(reason), _) => reason.to_string(),
        (None, Some(ContextValue::Strings(known))) => {
            format!("'{value}' is not one of {}", known.join(", "))
        }
        (None, _) => format!("'{value}' is not a value of it"),
    };
    let what = format!("cannot use the environment variable {name}, which stands for {flag}");
    Some(CliError::new(&codes::BAD_CONFIG, what).because(reason).hint(format!("unset {name}")))
}

/// Whether a flag stands among the words, also by its letter.
fn is_typed(flag: &str, words: &[OsString]) -> bool {
    fn short(command: &clap::Command, long: &str) -> Option<char> {
        let named = command.get_arguments().find(|argument| argument.get_long() == Some(long));
        named
            .and_then(clap::Arg::get_short)
            .or_else(|| command.get_subcommands().find_map(|command| short(command, long)))
    }
    let letter = short(&Cli::command(), flag.trim_start_matches('-'));
    words.iter().map(|word| word.to_string_lossy()).any(|word| {
        let is_long =
            word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let is_short = word.starts_with('-') && !word.starts_with("--");
        is_long || (is_short && letter.is_some_and(|letter| word.contains(letter)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                let help = sub.clone().render_long_help().to_string();
                found.push((path, help));
            }
        }
    }

    #[test]
    fn the_grammar_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_word_that_can_be_given_says_what_it_does() {
        fn silent(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let shown = command.get_arguments().filter(|word| !word.is_hide_set());
            let silent = shown.filter(|word| word.get_help().is_none());
            found.extend(silent.map(|word| format!("{path} {}", word.get_id())));
            for sub in command.get_subcommands() {
                silent_below(sub, path, found);
            }
        }
        fn silent_below(sub: &clap::Command, path: &str, found: &mut Vec<String>) {
            silent(sub, &format!("{path} {}", sub.get_name()), found);
        }
        let mut found = Vec::new();
        silent(&command(), "dfctl", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_help_starts_with_two_examples_that_name_the_command() {
        let mut found = Vec::new();
        leaves(&command(), "dfctl", &mut found);
        assert!(found.len() >= 16, "{}", found.len());
        for (path, help) in found {
            let lines: Vec<_> = help.lines().collect();
            assert!(lines[0].len() <= 72 && !lines[0].ends_with('.'), "{path}: {}", lines[0]);
            assert_eq!(lines[2], "Examples:", "{path}: {help}");
            for line in &lines[3..5] {
                assert!(line.starts_with(&format!("  {path}")), "{path}: {line}");
            }
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_named_and_one_that_is_misspelt_too() {
        use std::os::unix::ffi::OsStringExt;
        let error = clap::Error::new(clap::error::ErrorKind::InvalidUtf8);
        let set = |name: &str| (name == "DFS_CLUSTER").then(|| OsString::from_vec(vec![0xff]));
        let said = not_text(&error, &["get".into()], set).unwrap();
        assert!(said.what.contains("DFS_CLUSTER") && said.code == &codes::BAD_CONFIG);
        let wrong_word = OsString::from_vec(vec![0xff]);
        assert!(not_text(&error, &[wrong_word], set).is_none(), "it may be the word");
        let found = |names: &[&str]| misspelt(names.iter().map(OsString::from));
        let meant = |name: &str, meant: &str| vec![(name.to_owned(), meant.to_owned())];
        assert_eq!(found(&["DFS_CLUSTR", "PATH"]), meant("DFS_CLUSTR", "DFS_CLUSTER"));
        assert_eq!(found(&["DFS_DATADIR"]), meant("DFS_DATADIR", "DFS_DATA_DIR"));
        let theirs =
            ["DFS_LOG", "DFS_NAME", "DFS_JOIN", "DFS_LISTEN", "DFS_CAPACITY", "DFS_MANAGER"];
        assert_eq!(found(&theirs), []);
        assert_eq!(found(&["DFS_TLS", "DFS_SEED__CAPACITY", "DFS_QUIET", "DFS_AGAINST"]), []);
    }

    #[test]
    fn every_help_is_as_wide_as_its_terminal_and_breaks_no_example() {
        fn pages(command: &clap::Command, found: &mut Vec<String>) {
            let mut narrow = command.clone().term_width(80);
            found.push(narrow.render_long_help().to_string());
            command.get_subcommands().for_each(|command| pages(command, found));
        }
        let mut found = Vec::new();
        pages(&help::flowing(command()), &mut found);
        for page in found {
            let text = page.split("\nUsage:").next().unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2) {
                let next = pair[1].split(' ').next().unwrap_or_default();
                let ends = pair[1].is_empty() || pair[1].starts_with(' ');
                let has_room = pair[0].chars().count() + 1 + next.chars().count() <= 80;
                assert!(ends || pair[0].is_empty() || !has_room, "{}\n{page}", pair[0]);
            }
            let is_example = |line: &&&str| line.starts_with("  ");
            let broken = lines.iter().filter(is_example).find(|line| !line.starts_with("  df"));
            assert!(broken.is_none(), "{}\n{page}", broken.unwrap_or(&""));
        }
    }

    #[test]
    fn a_mistake_is_told_to_programs_in_the_format_they_asked_for() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(typed_format(&words("get --bogus --format json")), Some(Format::Json));
        assert_eq!(typed_format(&words("get --format=jsonl x")), Some(Format::Jsonl));
        assert_eq!(typed_format(&words("get --format")), None);
        assert_eq!(typed_format(&words("get --format nonsense")), None);
        let told = |line| mistake(&Cli::of(words(line)).err().unwrap()).to_json()["error"].clone();
        let missing = told("dfctl get --format json");
        assert_eq!(missing["code"], "DFS-1001");
        assert!(missing["because"][0].as_str().unwrap().contains("URL"), "{missing}");
        let unknown = told("dfctl gte x");
        let says = unknown["message"].as_str().unwrap();
        assert!(says.starts_with("unrecognized subcommand"), "{unknown}");
        let invalid = told("dfctl get u --digest nonsense");
        let because = invalid["because"].as_array().unwrap();
        assert!(because.iter().all(|line| !line.as_str().unwrap().contains("--help")), "{invalid}");
        assert_eq!(told("dfctl --format json cache")["message"], "a command is missing");
    }

    #[test]
    fn every_example_parses() {
        let mut found = Vec::new();
        leaves(&command(), "dfctl", &mut found);
        for (_, help) in found {
            for line in help.lines().skip(3).take_while(|line| line.starts_with("  dfctl")) {
                let line = line.split("   ").next().unwrap_or_default();
                let words = line.split_whitespace().map(|word| word.trim_matches('\''));
                let parsed = Cli::try_parse_from(words);
                assert!(
                    parsed.is_ok(),
                    "{line}: {:?}",
                    parsed.err().map(|error| error.to_string())
                );
            }
        }
    }

    /// As a shell takes a line apart, with single quotes.
    fn words(line: &str) -> Vec<String> {
        let mut quoted = false;
        let inside = |c: char| {
            quoted ^= c == '\'';
            !quoted && c == ' '
        };
        line.split(inside).map(|word| word.replace('\'', "")).collect()
    }

    #[test]
    fn every_command_that_a_code_names_is_in_the_grammar() {
        let steps = codes::all().into_iter().flat_map(|code| code.next);
        let commands = steps.map(|step| step.command).filter(|line| line.starts_with("dfctl "));
        for line in commands.filter(|line| !line.ends_with(" COMMAND")) {
            // Where to listen is an address alone: ports have flags of their own.
            let line = line.replace("--listen ADDR", "--listen 127.0.0.1");
            let parsed = Cli::try_parse_from(words(&line.replace("ADDR", "127.0.0.1:4000")));
            let wrong = parsed.err().filter(clap::Error::use_stderr);
            assert!(
                wrong.is_none(),
                "{line}: {}",
                wrong.map(|e| e.to_string()).unwrap_or_default()
            );
        }
    }

    #[test]
    fn a_wrong_value_is_blamed_on_where_it_came_from() {
        let blamed = |line: &str, name: &'static str, value: &'static str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            // What the variable would have given.
            let flag = name.trim_start_matches("DFS_").to_lowercase().replace('_', "-");
            let given = format!("--{flag}={value}").into();
            let all = [&words[..], &[given]].concat();
            let error = Cli::of(all).err().unwrap();
            let variable = |asked: &str| (asked == name).then(|| value.into());
            of_variable(&error, &words, variable).map(|error| error.render(None))
        };
        let said = blamed("dfctl get http://h/f", "DFS_CLUSTER", "here").unwrap();
        assert!(said.contains("DFS_CLUSTER") && said.contains("DFS-1003"), "{said}");
        assert!(said.contains("here") && said.contains("unset DFS_CLUSTER"), "{said}");
        let said = blamed("dfctl get http://h/f", "DFS_COLOR", "pink").unwrap();
        assert!(said.contains("'pink' is not one of auto, always, never"), "{said}");
        let said = blamed("dfctl get http://h/f", "DFS_PRIORITY", "9").unwrap();
        assert!(said.contains("DFS_PRIORITY"), "{said}");
        assert!(is_typed("--cluster", &["get".into(), "--cluster=x".into()]));
        assert!(is_typed("--output", &["get".into(), "-fo".into(), "x".into()]));
        assert!(!is_typed("--output", &["get".into(), "--overwrite".into()]));
    }

    #[test]
    fn every_global_value_flag_has_its_variable() {
        let command = command();
        for argument in command.get_arguments().filter(|argument| argument.is_global_set()) {
            let Some(long) = argument.get_long() else { continue };
            if matches!(long, "quiet" | "verbose") {
                continue;
            }
            let expected = format!("DFS_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
        }
    }
}
