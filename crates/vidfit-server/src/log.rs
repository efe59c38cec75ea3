//! Logs.

use tracing_subscriber::EnvFilter;

/// Sends logs to standard error: as lines for people, or as one JSON object a line. What is logged,
/// `VIDFIT_LOG` says, such as `debug` or `info,vidfit_server::access=debug`, which adds every request with its
/// answer; `info` where it says nothing.
///
/// Tokens, prompts and files are never logged. Where logs are set up already, nothing changes.
pub fn log(json: bool) {
    let filter = EnvFilter::try_from_env("VIDFIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error says that someone else has set up logs.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
}

/// How much something matters that the program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It goes on as it should.
    Info,
    /// It goes on, but not as it should.
    Warning,
    /// It does not go on.
    Error,
}

/// Logs something that the program says for itself.
pub fn say(level: Level, text: &str) {
    match level {
        Level::Info => tracing::info!(target: "vidfit", "{text}"),
        Level::Warning => tracing::warn!(target: "vidfit", "{text}"),
        Level::Error => tracing::error!(target: "vidfit", "{text}"),
    }
}
