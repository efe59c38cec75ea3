//! Where jobs wait for their turn, and where they are stopped.

use crate::progress::JobName;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A command line that is to be run.
pub struct Job {
    /// What it is called.
    pub name: JobName,
    /// The command line, without the program's name.
    pub words: Vec<String>,
    /// Set when it is to stop.
    pub stop: Arc<AtomicBool>,
}

/// What there is to do.
pub enum Next {
    /// This.
    Job(Job),
    /// Nothing until now.
    Nothing,
    /// Nothing ever again.
    Closed,
}

/// The jobs that wait, and the one under way.
#[derive(Default)]
pub struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    under_way: Option<(JobName, Arc<AtomicBool>)>,
    is_closed: bool,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job comes last. Gives it back if the desk is closed.
    pub fn add(&self, job: Job) -> Option<Job> {
        let mut state = self.state();
        if state.is_closed {
            return Some(job);
        }
        state.waiting.push_back(job);
        self.changed.notify_all();
        None
    }

    /// Stops the job of this name if it is under way, or gives it back if it waits. One that has ended
    /// stays so.
    pub fn cancel(&self, name: JobName) -> Option<Job> {
        let mut state = self.state();
        match &state.under_way {
            Some((under_way, stop)) if *under_way == name => {
                stop.store(true, Ordering::Relaxed);
                None
            }
            _ => {
                let place = state.waiting.iter().position(|job| job.name == name)?;
                state.waiting.remove(place)
            }
        }
    }

    /// Stops the job under way, lets no other begin, and gives back those that wait.
    pub fn close(&self) -> VecDeque<Job> {
        let mut state = self.state();
        state.is_closed = true;
        if let Some((_, stop)) = &state.under_way {
            stop.store(true, Ordering::Relaxed);
        }
        self.changed.notify_all();
        std::mem::take(&mut state.waiting)
    }

    /// Whether nothing will begin any more.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Waits for a job, which is then under way; no longer than `until`.
    pub fn next(&self, until: Option<Instant>) -> Next {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return Next::Closed;
            }
            if let Some(job) = state.waiting.pop_front() {
                state.under_way = Some((job.name, job.stop.clone()));
                return Next::Job(job);
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => return Next::Nothing,
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The job under way has ended.
    pub fn done(&self) {
        self.state().under_way = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn job(name: &str) -> Job {
        Job { name: named(name), words: vec![], stop: Arc::default() }
    }

    fn named(name: &str) -> JobName {
        JobName::new(name).unwrap()
    }

    fn next(desk: &Desk) -> Option<String> {
        match desk.next(Some(Instant::now() + Duration::from_millis(1))) {
            Next::Job(job) => Some(job.name.as_str().to_owned()),
            Next::Nothing | Next::Closed => None,
        }
    }

    #[test]
    fn jobs_come_in_order_and_waiting_ones_can_be_taken_back() {
        let desk = Desk::default();
        for name in ["a", "b", "c"] {
            assert!(desk.add(job(name)).is_none());
        }
        assert!(desk.cancel(named("b")).is_some_and(|job| job.name == named("b")));
        assert!(desk.cancel(named("b")).is_none());
        assert_eq!(next(&desk).as_deref(), Some("a"));
        assert_eq!(next(&desk).as_deref(), Some("c"));
        assert_eq!(next(&desk), None);
    }

    #[test]
    fn what_is_under_way_is_stopped() {
        let desk = Desk::default();
        for name in ["a", "b", "c"] {
            desk.add(job(name));
        }
        let Next::Job(first) = desk.next(None) else { panic!("nothing to do") };
        assert!(desk.cancel(named("a")).is_none());
        assert!(first.stop.load(Ordering::Relaxed));
        desk.done();
        let Next::Job(second) = desk.next(None) else { panic!("nothing to do") };
        assert!(desk.cancel(named("a")).is_none());
        assert!(!second.stop.load(Ordering::Relaxed));
        let waiting = desk.close();
        assert!(second.stop.load(Ordering::Relaxed));
        assert!(waiting.len() == 1 && waiting[0].name == named("c"));
        assert!(matches!(desk.next(None), Next::Closed));
        assert!(desk.add(job("d")).is_some() && desk.is_closed());
    }
}
