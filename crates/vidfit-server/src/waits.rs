//! Jobs that the machine cannot make now, though nothing is wrong with them: why, and when each is
//! tried again.
//!
//! This is not kept on the disk: a server that starts tries every job, and finds out anew.

use crate::state::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The jobs that are put off.
#[derive(Default)]
pub(crate) struct Waits(Mutex<HashMap<String, Wait>>);

/// A job that is put off.
struct Wait {
    /// In words for clients.
    why: String,
    tries: u32,
    until: Instant,
}

impl Waits {
    /// Puts a job off, for `first` and then twice as long each time, up to `most`: for how long.
    pub(crate) fn put_off(
        &self,
        id: &str,
        why: String,
        first: Duration,
        most: Duration,
    ) -> Duration {
        let mut waits = lock(&self.0);
        let tries = waits.get(id).map_or(0, |wait| wait.tries + 1);
        let pause = first.saturating_mul(1 << tries.min(16)).min(most);
        waits.insert(id.to_owned(), Wait { why, tries, until: Instant::now() + pause });
        pause
    }

    /// Why a job waits.
    pub(crate) fn why(&self, id: &str) -> Option<String> {
        lock(&self.0).get(id).map(|wait| wait.why.clone())
    }

    /// Whether a job may be tried now.
    pub(crate) fn is_due(&self, id: &str) -> bool {
        lock(&self.0).get(id).is_none_or(|wait| wait.until <= Instant::now())
    }

    /// When the next job may be tried that is put off.
    pub(crate) fn next(&self) -> Option<Instant> {
        lock(&self.0).values().map(|wait| wait.until).min()
    }

    /// How many are put off.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Forgets all jobs but these.
    pub(crate) fn keep_only(&self, ids: &[String]) {
        let mut waits = lock(&self.0);
        if !waits.is_empty() {
            waits.retain(|id, _| ids.contains(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let waits = Waits::default();
        let seconds = Duration::from_secs;
        let put_off = || waits.put_off("a", "no room".into(), seconds(5), seconds(60));
        assert_eq!([(); 6].map(|()| put_off()), [5, 10, 20, 40, 60, 60].map(seconds));
        assert!((0..100).all(|_| put_off() == seconds(60)));
        assert!(!waits.is_due("a") && waits.is_due("b"));
        assert_eq!(waits.why("a").as_deref(), Some("no room"));
        waits.keep_only(&["b".into()]);
        assert!(waits.is_due("a") && waits.next().is_none());
        assert_eq!(waits.put_off("a", String::new(), seconds(5), seconds(60)), seconds(5));
    }
}
