//! How far the host may be ahead of the card.

use crate::driver::{Driver, Event, Queue};
use std::collections::VecDeque;

/// Units of work that may be asked for and not done: enough for the card to find its next kernel, few
/// enough that progress is shown as it is, and that a run which the user stops has stopped soon.
const UNITS_AHEAD: usize = 2;

/// Behind the units that are not known to be done.
#[derive(Default)]
pub(crate) struct Pace(VecDeque<Event>);

impl Pace {
    /// A unit was asked for: waits until the card is close behind.
    ///
    /// # Errors
    /// What failed before it.
    pub fn keep(&mut self, driver: &dyn Driver) -> Result<(), String> {
        self.0.push_back(driver.record(Queue::Computing)?);
        while self.0.len() > UNITS_AHEAD {
            let Some(event) = self.0.pop_front() else { break };
            let waited = driver.wait_for(event);
            driver.forget(event);
            waited?;
        }
        Ok(())
    }

    /// Everything is done.
    pub fn settle(&mut self, driver: &dyn Driver) {
        self.0.drain(..).for_each(|event| driver.forget(event));
    }
}
