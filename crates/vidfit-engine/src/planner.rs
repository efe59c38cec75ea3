//! From a job and a device to the fastest schedule that fits.
//!
//! Everything here is found by running the job's own code dry, see [`crate::plan`]. Phases follow
//! one another in one arena, so each is searched by itself and the whole is then planned once more
//! and held to the budget.
//!
//! - [`target`]: what is planned for. `trial`: one phase, run dry. `search`: the choices. `ways`:
//!   with tiles or without. `decide`: whether it fits, and how.
//! - [`report`]: the answer, as people and programs read it. [`saved`]: the answer in a file, to be
//!   executed exactly. [`measured`]: the answer beside what was. [`ladder`]: what would fit instead.

mod decide;
pub mod ladder;
pub mod measured;
pub mod report;
pub mod saved;
mod search;
pub mod target;
mod trial;
mod ways;

pub use decide::{Planned, Refused, Rejected, plan, plan_least, replan};
pub use ladder::{Alternative, Ask, Step, fit, nearest};
pub use measured::RunReport;
pub use report::PlanReport;
pub use saved::SavedPlan;
pub use target::{Certainty, Offload, Target};
pub(crate) use ways::without_tiles;
