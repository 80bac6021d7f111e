//! Logs: structured events on standard error, for people on a terminal and as JSON elsewhere.
//!
//! Standard output belongs to results, so nothing is ever logged there.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// What is logged when nothing else is asked for.
pub const DEFAULT_FILTER: &str = "info";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people when standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// One readable line, coloured on a terminal unless `NO_COLOR` is set.
    Human,
    /// One JSON object in a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::Format { format: text.to_owned() }),
        }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of `--log` cannot be read.
    #[error("cannot read the log filter '{filter}': write it as in info or info,dfs_peer=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// There is no such format.
    #[error("'{format}' is not a log format: auto, human or json")]
    Format {
        /// What was given.
        format: String,
    },
    /// Logging began before.
    #[error("logging has already begun")]
    Begun(#[from] TryInitError),
}

/// Sends what passes `filter` (directives as in `RUST_LOG`: `info,dfs_peer=debug`) to standard
/// error. Once in a process.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let directives = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(directives).with_writer(std::io::stderr);
    // A log that cannot be written must not end who writes it, as saying so on the same stream would.
    let builder = builder.log_internal_errors(false);
    if human {
        builder.with_ansi(colour).with_target(false).finish().try_init()?;
    } else {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_shown() {
        let error = init("dfs_peer=loudly", LogFormat::Json).unwrap_err();
        assert!(error.to_string().contains("dfs_peer=loudly"));
    }

    #[test]
    fn formats_are_spelled_as_in_configuration() {
        for format in [LogFormat::Auto, LogFormat::Human, LogFormat::Json] {
            let text = serde_json::to_string(&format).unwrap();
            assert_eq!(text.trim_matches('"').parse::<LogFormat>().unwrap(), format);
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
