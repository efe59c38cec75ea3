//! A plan on its way to a run.

use super::decide::Rejected;
use super::report::changes_picture;
use super::target::{Offload, Target};
use super::ways::without_tiles;
use crate::plan::Plan;
use crate::request::{Job, Warnings};
use crate::schedule::Schedule;

/// A job with its plan, ready to run, and what is to be told of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The job, with or without tiles.
    pub job: Job,
    /// How it uses memory.
    pub schedule: Schedule,
    /// Its plan.
    pub plan: Plan,
    /// Where weights may be, as it was asked for.
    pub offload: Offload,
    /// What it is planned for.
    pub target: Target,
    /// What the user should know.
    pub warnings: Warnings,
    /// What changes its picture, in words.
    pub changes_picture: Vec<String>,
    /// What was not taken.
    pub rejected: Vec<Rejected>,
}

impl Planned {
    /// A plan that was not chosen over any other.
    pub fn new(
        job: Job,
        schedule: Schedule,
        plan: Plan,
        offload: Offload,
        target: &Target,
    ) -> Planned {
        Planned {
            changes_picture: changes_picture(&job),
            job,
            schedule,
            plan,
            offload,
            target: target.clone(),
            warnings: Warnings::new(),
            rejected: Vec::new(),
        }
    }

    /// The same job by another plan.
    pub(crate) fn by(self, other: Planned) -> Planned {
        Planned { job: other.job, schedule: other.schedule, plan: other.plan, ..self }
    }

    /// Adds to the warnings that it is cut into tiles, where the whole did not fit.
    pub fn warn_of_tiles(&mut self) {
        for (verb, tiling) in [("encode", self.job.encode_tiling), ("decode", self.job.tiling)] {
            let whole = self.rejected.iter().find(|way| way.what == without_tiles(verb));
            if let (Some(tiling), Some(whole)) = (tiling, whole) {
                let gerund = verb.trim_end_matches('e');
                self.warnings.push(format!(
                    "{gerund}ing in tiles of {}×{} pixels, because the whole {}; this changes the \
                     picture slightly (--vae-tiling off forbids it)",
                    tiling.width, tiling.height, whole.why
                ));
            }
        }
    }
}
