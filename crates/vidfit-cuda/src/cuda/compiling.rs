//! The driver compiles the kernels when it meets them for the first time, which takes a while: who waits is
//! told meanwhile.

use super::cache::KernelCache;
use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Kernels that were compiled before are ready well within this.
const MOMENT: Duration = Duration::from_secs(1);

/// What takes so long, in words.
#[derive(Clone, Debug)]
pub struct Compiling {
    /// The card's name.
    pub card: String,
    /// Where the driver keeps what it compiles, if it can.
    pub cache: KernelCache,
}

impl fmt::Display for Compiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compiling { card, cache } = self;
        write!(f, "the driver is compiling the kernels for {card}, which takes 5 to 30 seconds; ")?;
        match (&cache.problem, &cache.folder) {
            (None, Some(folder)) => {
                write!(f, "it keeps them in {} for the next time", folder.display())
            }
            (Some(problem), _) => write!(f, "it will do so at every start: {problem}"),
            (None, None) => write!(f, "it may do so at every start"),
        }
    }
}

/// Does what may have the driver compile; if that takes longer than a moment, `tell` is called while it goes
/// on.
pub(super) fn telling_if_slow<T>(work: impl FnOnce() -> T, tell: impl FnOnce() + Send) -> T {
    let (working, timer) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let wait = move || {
            // A disconnected channel says that the work is done.
            if timer.recv_timeout(MOMENT) == Err(RecvTimeoutError::Timeout) {
                tell();
            }
        };
        // If there can be no thread, nobody is told: no reason not to go on.
        let _ = thread::Builder::new().name("compiling".into()).spawn_scoped(scope, wait);
        // Dropped also by a panic, so that the timer ends.
        let _working = working;
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn who_waits_is_told_meanwhile_and_nobody_else() {
        let told = AtomicBool::new(false);
        let tell = || told.store(true, Ordering::SeqCst);
        assert_eq!(telling_if_slow(|| 1, tell), 1);
        assert!(!told.load(Ordering::SeqCst));
        let is_told_before_it_ends = || {
            (0..1000).any(|_| {
                thread::sleep(Duration::from_millis(10));
                told.load(Ordering::SeqCst)
            })
        };
        assert!(telling_if_slow(is_told_before_it_ends, tell));
    }

    #[test]
    fn it_is_said_where_the_kernels_stay_or_why_they_do_not() {
        let cache = KernelCache { folder: Some("/home/me/.nv".into()), problem: None };
        let mut compiling = Compiling { card: "T4".into(), cache };
        let said = compiling.to_string();
        assert!(said.contains("for T4") && said.contains("in /home/me/.nv for the next time"));
        compiling.cache.problem = Some("it is off".into());
        assert!(compiling.to_string().ends_with("at every start: it is off"));
    }
}
