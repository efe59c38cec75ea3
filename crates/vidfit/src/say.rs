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
