//! The plan of a job: its own code, run dry.

use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::request::Job;
use crate::schedule::Schedule;
use crate::state::RunState;
use crate::text_to_video::{self, Outputs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vidfit_cogvideox::vae::Piece;
use vidfit_tensor::{
    Arena, Context, DryDevice, Error, Layout, Monitor, Profile, Tally, Tensor, Unwatched, solve,
};

/// Where every tensor of a job will be, and how much there is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The arena.
    pub layout: Arc<Layout>,
    /// Memory that the device's operations need besides, in bytes.
    pub scratch_bytes: u64,
    /// The work of each phase.
    pub phases: Vec<PhaseWork>,
}

/// The work of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseWork {
    /// `text`, `denoise` or `decode`.
    pub name: String,
    /// Multiplications and additions.
    pub flops: f64,
    /// Units of work that a run reports.
    pub units: u64,
}

impl Plan {
    /// Runs `job` dry for a device with this profile, from where `state` left off. Reads
    /// configurations and headers, no weights.
    ///
    /// # Errors
    /// As the job itself.
    pub fn new(
        checkpoint: &Checkpoint,
        job: &Job,
        schedule: &Schedule,
        state: Option<&RunState>,
        profile: &Profile,
    ) -> Result<Plan, EngineError> {
        let device = DryDevice::new(profile.clone());
        let arena = Arena::record(profile.alignment);
        let monitor: &dyn Monitor = &Unwatched;
        let context = Context::new(&device, &arena, monitor);
        let mut outputs = Counting { device: &device, marks: Vec::new() };
        text_to_video::run(&context, checkpoint, job, schedule, state, &mut outputs)?;
        outputs.marks.push(device.tally());

        let mut phases = Vec::new();
        let mut before = Tally::default();
        for (name, after) in ["text", "denoise", "decode"].into_iter().zip(outputs.marks) {
            phases.push(PhaseWork {
                name: name.to_owned(),
                flops: after.flops - before.flops,
                units: after.units - before.units,
            });
            before = after;
        }
        let layout = Arc::new(solve(&arena.into_trace()?));
        Ok(Plan { layout, scratch_bytes: profile.scratch_bytes, phases })
    }

    /// The bytes to reserve: the arena and the device's scratch.
    pub fn device_bytes(&self) -> u64 {
        self.layout.peak_bytes + self.scratch_bytes
    }
}

/// Notes what had been counted when each phase ended.
struct Counting<'a> {
    device: &'a DryDevice,
    marks: Vec<Tally>,
}

impl Outputs for Counting<'_> {
    fn prompt_embeds(&mut self, _: &Context<'_>, _: &[Tensor]) -> Result<(), Error> {
        self.marks.push(self.device.tally());
        Ok(())
    }

    fn step_done(
        &mut self,
        _: &Context<'_>,
        _: usize,
        _: &Tensor,
        _: Option<&Tensor>,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn latents(&mut self, _: &Context<'_>, _: &Tensor) -> Result<(), Error> {
        self.marks.push(self.device.tally());
        Ok(())
    }

    fn piece(&mut self, _: &Context<'_>, _: Piece<'_>) -> Result<(), Error> {
        Ok(())
    }
}
