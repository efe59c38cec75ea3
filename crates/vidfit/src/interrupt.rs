//! Ctrl-C: the first asks the run to stop where that is safe, the second ends the process.

use crate::exit::Failure;
use crate::say::note;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag at the first Ctrl-C, SIGTERM or SIGHUP.
pub fn watch() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    at_first(move || flag.store(true, Ordering::Relaxed))?;
    Ok(stop)
}

/// Has `stop` called at the first Ctrl-C, SIGTERM or SIGHUP. To be said once in a process.
pub fn at_first(mut stop: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let mut is_second = false;
    let handler = move || {
        if std::mem::replace(&mut is_second, true) {
            std::process::exit(130);
        }
        stop();
        note!("\nstopping; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(Failure::other)
}
