//! Ctrl-C: the first asks the run to stop where that is safe, the second ends the process.

use crate::exit::Failure;
use crate::say::note;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag at the first Ctrl-C, SIGTERM or SIGHUP.
pub fn watch() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note!("\nstopping; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(Failure::other)?;
    Ok(stop)
}
