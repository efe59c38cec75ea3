//! How far the host may be ahead of the card.

use crate::driver::{Driver, Event, Queue};
use std::collections::VecDeque;

/// Units of work that may be asked for and not done: enough for the card to find its next kernel, few
/// enough that progress is shown as it is, and that a run which the user stops has stopped soon.
const UNITS_AHEAD: usize = 2;

/// Launches between two marks.
const LAUNCHES_A_MARK: usize = 128;

/// Marks that may be asked for and not passed. A queue of the driver has room for about a thousand
/// launches, and who asks for more is held up in the driver, where copies to the card ask as well.
const MARKS_AHEAD: usize = 4;

/// What is behind the work that is not known to be done.
#[derive(Default)]
pub(crate) struct Pace {
    units: VecDeque<Event>,
    marks: VecDeque<Event>,
    launches: usize,
}

impl Pace {
    /// A unit was asked for: waits until the card is close behind.
    ///
    /// # Errors
    /// What failed before it.
    pub fn keep(&mut self, driver: &dyn Driver) -> Result<(), String> {
        advance(&mut self.units, UNITS_AHEAD, driver)
    }

    /// A kernel was asked for: now and then, waits until there is room for more.
    ///
    /// # Errors
    /// What failed before it.
    pub fn launched(&mut self, driver: &dyn Driver) -> Result<(), String> {
        self.launches += 1;
        match self.launches.is_multiple_of(LAUNCHES_A_MARK) {
            true => advance(&mut self.marks, MARKS_AHEAD, driver),
            false => Ok(()),
        }
    }

    /// Everything is done.
    pub fn settle(&mut self, driver: &dyn Driver) {
        self.units.drain(..).chain(self.marks.drain(..)).for_each(|event| driver.forget(event));
    }
}

/// Adds a point, and waits until no more than `ahead` are not passed.
fn advance(points: &mut VecDeque<Event>, ahead: usize, driver: &dyn Driver) -> Result<(), String> {
    let point = driver.record(Queue::Computing)?;
    points.push_back(point);
    // On Windows, asking is what hands the card what was asked of it so far.
    driver.is_passed(point)?;
    while points.len() > ahead {
        let Some(event) = points.pop_front() else { break };
        let waited = driver.wait_for(event);
        driver.forget(event);
        waited?;
    }
    Ok(())
}
