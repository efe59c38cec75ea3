//! What a run tells those who wait for it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vidfit_tensor::{Error, Monitor};

/// News of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The device had less memory than was planned, so the job was planned again.
    PlannedAgain {
        /// What was to be reserved.
        planned_bytes: u64,
        /// What will be reserved instead.
        device_bytes: u64,
    },
    /// A phase has begun.
    PhaseBegan {
        /// `text`, `encode`, `denoise` or `decode`.
        phase: &'static str,
        /// Steps of it that are worth naming, or none.
        steps: Option<usize>,
    },
    /// Part of a phase is done.
    Advanced {
        /// The phase.
        phase: &'static str,
        /// Steps that are done.
        steps_done: usize,
        /// How much of the phase is done, from 0 to 1.
        fraction: f64,
        /// Time that the rest of the phase will take at the pace so far.
        time_left: Option<Duration>,
    },
    /// A phase is done.
    PhaseEnded {
        /// The phase.
        phase: &'static str,
        /// Time that it took.
        took: Duration,
    },
}

/// Receives [`Progress`].
pub type Listener = Box<dyn FnMut(Progress) + Send>;

/// Watches a run: counts its units, tells the listener, and stops it when asked to.
pub struct Watch<'a> {
    stop: &'a AtomicBool,
    steps_done: AtomicU64,
    state: Mutex<State>,
}

struct State {
    listener: Listener,
    phase: Option<Phase>,
}

struct Phase {
    name: &'static str,
    began: Instant,
    units: u64,
    done: u64,
}

impl<'a> Watch<'a> {
    /// A watch that stops the run once `stop` is set.
    pub fn new(stop: &'a AtomicBool, listener: Listener) -> Watch<'a> {
        let state = Mutex::new(State { listener, phase: None });
        Watch { stop, steps_done: AtomicU64::new(0), state }
    }

    /// A phase of so many units begins; the one before it ends.
    pub fn begin(&self, name: &'static str, units: u64, steps: Option<usize>) {
        self.end();
        self.steps_done.store(0, Ordering::Relaxed);
        let mut state = self.lock();
        // What an earlier run has done is not done again.
        if units > 0 {
            state.phase = Some(Phase { name, began: Instant::now(), units, done: 0 });
            (state.listener)(Progress::PhaseBegan { phase: name, steps });
        }
    }

    /// The phase ends, if one runs.
    pub fn end(&self) {
        let mut state = self.lock();
        if let Some(phase) = state.phase.take() {
            let took = phase.began.elapsed();
            (state.listener)(Progress::PhaseEnded { phase: phase.name, took });
        }
    }

    /// So many steps of the phase are done.
    pub fn steps_done(&self, steps: usize) {
        self.steps_done.store(steps as u64, Ordering::Relaxed);
        self.lock().tell(steps);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, steps_done: usize) {
        let Some(phase) = &self.phase else { return };
        let fraction = if phase.units == 0 { 0.0 } else { phase.done as f64 / phase.units as f64 };
        let took = phase.began.elapsed();
        let time_left = (phase.done > 0).then(|| {
            took.mul_f64((phase.units.saturating_sub(phase.done)) as f64 / phase.done as f64)
        });
        let news = Progress::Advanced { phase: phase.name, steps_done, fraction, time_left };
        (self.listener)(news);
    }
}

impl Monitor for Watch<'_> {
    fn check(&self) -> Result<(), Error> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    fn unit_done(&self) -> Result<(), Error> {
        self.check()?;
        let mut state = self.lock();
        if let Some(phase) = &mut state.phase {
            phase.done += 1;
        }
        state.tell(self.steps_done.load(Ordering::Relaxed) as usize);
        Ok(())
    }
}
