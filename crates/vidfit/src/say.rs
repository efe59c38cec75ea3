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
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

pub(crate) use {line, note};

use crate::exit::Failure;
use std::io::Write;

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
