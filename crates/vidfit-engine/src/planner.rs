//! From a job and a device to the fastest schedule that fits.
//!
//! Everything here is found by running the job's own code dry, see [`crate::plan`]. Phases follow
//! one another in one arena, so each is searched by itself and the whole is then planned once more
//! and held to the budget.
//!
//! - [`target`]: what is planned for. `trial`: one phase, run dry. `search`: the choices. `ways`:
//!   with tiles or without. `decide`: whether it fits, and how. `planned`: the answer.
//! - [`report`]: the answer, as people and programs read it. [`saved`]: the answer in a file, to be
//!   executed exactly. [`ladder`]: what would fit instead.

mod decide;
pub mod ladder;
mod planned;
pub mod report;
pub mod saved;
mod search;
pub mod target;
mod trial;
mod ways;

pub use decide::{Refused, Rejected, plan, plan_least, replan};
pub use ladder::{Alternative, Ask, Step, fit, nearest};
pub use planned::Planned;
pub use report::PlanReport;
pub use saved::SavedPlan;
pub use target::{Certainty, Offload, Target};
