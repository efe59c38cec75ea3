//! Which failures may pass, and how long to wait for that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::meter::Meter;
use super::{HubConfig, HubError, PullEvent};

/// The longest wait that doubling arrives at.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How often a wait looks at the flag that cancels it.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// Why a request failed.
pub(super) enum Failure {
    /// Trying again will not help.
    Final(HubError),
    /// Trying again may help.
    Passing {
        url: String,
        reason: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Counts failures in a row and waits between them.
pub(super) struct Patience<'a> {
    config: &'a HubConfig,
    cancel: &'a AtomicBool,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub fn new(config: &'a HubConfig, cancel: &'a AtomicBool) -> Self {
        Self { config, cancel, failures: 0 }
    }

    /// Something was gained since the last failure: the count starts anew.
    pub fn gained(&mut self) {
        self.failures = 0;
    }

    /// Waits after a failure, or returns the error if it is final or has come too often.
    pub fn wait(&mut self, failure: Failure, meter: &mut Meter<'_>) -> Result<(), HubError> {
        check_cancelled(self.cancel)?;
        let (url, reason, retry_after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { url, reason, retry_after } => (url, reason, retry_after),
        };
        self.failures += 1;
        if self.failures >= self.config.max_failures {
            return Err(HubError::Network { url, reason });
        }
        let backoff = self.config.first_backoff.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = match retry_after {
            Some(wait) => wait.min(self.config.retry_after_cap),
            None => backoff.min(MAX_BACKOFF),
        };
        meter.event(PullEvent::Retrying { reason, wait });
        sleep(wait, self.cancel)
    }
}

/// Runs a request until it succeeds or fails for good.
pub(super) fn with_patience<T>(
    config: &HubConfig,
    cancel: &AtomicBool,
    meter: &mut Meter<'_>,
    mut request: impl FnMut() -> Result<T, Failure>,
) -> Result<T, HubError> {
    let mut patience = Patience::new(config, cancel);
    loop {
        check_cancelled(cancel)?;
        match request() {
            Ok(answer) => return Ok(answer),
            Err(failure) => patience.wait(failure, meter)?,
        }
    }
}

/// Sleeps unless the flag is set.
pub(super) fn sleep(duration: Duration, cancel: &AtomicBool) -> Result<(), HubError> {
    let end = Instant::now() + duration;
    loop {
        check_cancelled(cancel)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(CANCEL_INTERVAL));
    }
}

pub(super) fn check_cancelled(cancel: &AtomicBool) -> Result<(), HubError> {
    if cancel.load(Ordering::Relaxed) { Err(HubError::Cancelled) } else { Ok(()) }
}

/// Runs `work` while watching the flag; when it is set, `interrupt` is called, so that `work` does
/// not sit in a read until its timeout.
pub(super) fn interruptible<T>(
    cancel: &AtomicBool,
    interrupt: impl FnOnce() + Send,
    work: impl FnOnce() -> T,
) -> T {
    /// Ends the watch also when `work` panics; a scope waits for its threads.
    struct EndOnDrop<'a>(&'a AtomicBool, thread::Thread);
    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
            self.1.unpark();
        }
    }

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                if cancel.load(Ordering::Relaxed) {
                    interrupt();
                    return;
                }
                thread::park_timeout(CANCEL_INTERVAL);
            }
        });
        let _end = EndOnDrop(&ended, watch.thread().clone());
        work()
    })
}
