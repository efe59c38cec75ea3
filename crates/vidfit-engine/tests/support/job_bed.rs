//! A small job that is run again and again on cards that fail.

use super::card::{Bits, target};
use super::{Case, job};
use std::path::Path;
use vidfit_cogvideox::scheduler::SchedulerKind;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Planned, Target, plan_least, replan};
use vidfit_engine::request::{Job, Request, TilingChoice};
use vidfit_engine::schedule::Schedule;
use vidfit_engine::state::RunState;
use vidfit_tensor::{DType, Profile};

/// A job that takes milliseconds, and what it comes to.
pub struct Bed {
    pub checkpoint: Checkpoint,
    pub request: Request,
    pub job: Job,
    pub bits: Bits,
    /// Plans for a card without limit, by strategy, and the least of each.
    pub strategies: Vec<(Offload, Planned, u64)>,
}

impl Bed {
    pub fn new(case: &str, scheduler: SchedulerKind, dtype: DType) -> Bed {
        let case = Case::named(case);
        let checkpoint = case.open();
        let request = Request {
            frames: Some(9),
            height: Some(16),
            width: Some(16),
            steps: 4,
            scheduler: Some(scheduler),
            tiling: TilingChoice::Off,
            ..case.request(dtype)
        };
        let job = job(&checkpoint, &request);
        let bits = Bits::on_cpu(&checkpoint, &job);
        let large = target(1 << 40, 1);
        let offloads = [
            Offload::Auto,
            Offload::Auto,
            Offload::Model,
            Offload::Sequential,
            Offload::Percent(40),
        ];
        let strategies = offloads.map(|offload| {
            let planned = replan(&checkpoint, &job, offload, &large, None).unwrap();
            let planned = planned.unwrap_or_else(|_| panic!("{offload} does not fit"));
            let least = plan_least(&checkpoint, &job, offload, &large).unwrap();
            (offload, planned, least.plan.device_bytes())
        });
        Bed { checkpoint, request, job, bits, strategies: strategies.to_vec() }
    }

    /// A plan with this schedule for what is left of the job after `state`.
    pub fn plan(&self, schedule: Schedule, state: Option<&RunState>, profile: &Profile) -> Planned {
        let plan = Plan::new(&self.checkpoint, &self.job, &schedule, state, profile).unwrap();
        let target = Target { profile: profile.clone(), ..target(1 << 40, 1) };
        Planned::new(self.job.clone(), schedule, plan, Offload::Auto, &target)
    }

    /// Values of the prompts' embeddings.
    pub fn embeds(&self) -> usize {
        let tokens: usize = self.job.prompts.iter().map(Vec::len).sum();
        tokens * self.checkpoint.text_encoder.config.d_model
    }

    /// Writes `state` to a file, and reads it again.
    pub fn through_a_file(&self, folder: &Path, state: &RunState) -> RunState {
        let path = folder.join("state.safetensors");
        state.save(&path).unwrap();
        let loaded = RunState::load(&path, &self.job, self.embeds()).unwrap();
        assert!(loaded == *state, "a state is not what was saved");
        loaded
    }
}
