//! Lines for people and scripts. A reader that has gone away does not end a run: unlike the
//! standard macros, these do not panic when nobody listens.

/// A line on standard output.
macro_rules! line {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

/// A line on standard error.
macro_rules! note {
    ($($arg:tt)*) => {
        $crate::say::put_note(format_args!($($arg)*))
    };
}

pub(crate) use {line, note};

use crate::exit::Failure;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use vidfit_server::Level;

/// Whether what goes to standard error is a log.
static IS_LOG: AtomicBool = AtomicBool::new(false);

/// Makes every line on standard error one of the log, which must have been set up, from here on.
pub fn log_notes() {
    IS_LOG.store(true, Ordering::Relaxed);
}

/// What [`note!`] does.
pub fn put_note(text: Arguments<'_>) {
    if !IS_LOG.load(Ordering::Relaxed) {
        let _ = writeln!(std::io::stderr(), "{text}");
        return;
    }
    let text = text.to_string();
    let text = text.trim();
    let (level, text) = match text.split_once(": ") {
        Some(("error", text)) => (Level::Error, text),
        Some(("warning", text)) => (Level::Warning, text),
        _ => (Level::Info, text),
    };
    vidfit_server::say(level, text);
}

/// Prints the answer that a command is for. Nobody listening any more is fine; a full disk is not.
pub fn answer(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot print the answer: {error}")))
        }
        _ => Ok(()),
    }
}
