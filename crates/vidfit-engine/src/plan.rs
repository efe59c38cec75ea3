//! The plan of a job: its own code, run dry.

use crate::checkpoint::Checkpoint;
use crate::digest::Digest;
use crate::error::EngineError;
use crate::pipeline::{self, Origin, Outputs, Reached};
use crate::request::Job;
use crate::schedule::Schedule;
use crate::state::RunState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vidfit_cogvideox::vae::Piece;
use vidfit_tensor::{
    Arena, Context, DryDevice, Error, Layout, Monitor, Profile, Rates, Tally, Tensor, Unwatched,
    solve,
};

/// The phases of jobs, in order. `encode` is that of jobs with pixels to start from: see
/// [`Job::phases`].
pub const PHASES: [&str; 4] = ["text", "encode", "denoise", "decode"];

/// Those of jobs that start from text alone.
const PHASES_OF_TEXT: [&str; 3] = ["text", "denoise", "decode"];

impl Job {
    /// The job's phases, in order.
    pub fn phases(&self) -> &'static [&'static str] {
        if self.given_frames > 0 { &PHASES } else { &PHASES_OF_TEXT }
    }
}

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
    /// One of [`PHASES`].
    pub name: String,
    /// Multiplications and additions.
    pub flops: f64,
    /// Units of work that a run reports.
    pub units: u64,
    /// Its time, by the rates that it was planned with.
    pub seconds: f64,
    /// Of that, the time that the arithmetic waits for copies.
    pub waiting_seconds: f64,
    /// Bytes copied to the device.
    pub uploaded_bytes: u64,
    /// Bytes copied from the device.
    pub downloaded_bytes: u64,
}

impl Plan {
    /// Runs `job` dry for a device with this profile, from where `state` left off. Reads
    /// configurations and headers, no weights. Its times are zero.
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
        Plan::timed(checkpoint, job, schedule, state, profile, &Rates::default())
    }

    /// As [`Plan::new`], with times by `rates`.
    ///
    /// # Errors
    /// As the job itself.
    pub fn timed(
        checkpoint: &Checkpoint,
        job: &Job,
        schedule: &Schedule,
        state: Option<&RunState>,
        profile: &Profile,
        rates: &Rates,
    ) -> Result<Plan, EngineError> {
        let device = DryDevice::with_rates(profile.clone(), *rates);
        let arena = Arena::record(profile.alignment);
        let monitor: &dyn Monitor = &Unwatched;
        let context = Context::new(&device, &arena, monitor);
        let mut outputs = Counting { device: &device, marks: Vec::new() };
        let origin = Origin { state, ..Origin::default() };
        pipeline::run(&context, checkpoint, job, schedule, origin, &mut outputs)?;
        outputs.marks.push(device.tally());

        let mut phases = Vec::new();
        let mut before = Tally::default();
        for (name, after) in job.phases().iter().zip(outputs.marks) {
            phases.push(PhaseWork {
                name: (*name).to_owned(),
                flops: after.flops - before.flops,
                units: after.units - before.units,
                seconds: after.seconds - before.seconds,
                waiting_seconds: after.waiting_seconds - before.waiting_seconds,
                uploaded_bytes: after.uploaded_bytes - before.uploaded_bytes,
                downloaded_bytes: after.downloaded_bytes - before.downloaded_bytes,
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

    /// The time of all phases.
    pub fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// A number that differs where any tensor has another size, life or place, so that a saved plan
    /// can be held to what is planned anew.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        let mut add = |value: u64| digest.add(&value.to_le_bytes());
        for (request, &offset) in self.layout.trace.requests.iter().zip(&self.layout.offsets) {
            add(request.bytes);
            add(offset);
        }
        for (birth, death) in self.layout.trace.lifetimes() {
            add(birth as u64);
            add(death as u64);
        }
        digest
    }
}

/// Results that nobody wants.
pub(crate) struct Silent;

impl Outputs for Silent {}

/// Asks for what a run asks for, and notes what had been counted when each phase ended.
struct Counting<'a> {
    device: &'a DryDevice,
    marks: Vec<Tally>,
}

impl Outputs for Counting<'_> {
    fn prompt_embeds(&mut self, cx: &Context<'_>, embeds: &[Tensor]) -> Result<(), Error> {
        embeds.iter().try_for_each(|embeds| cx.device.download(embeds, &mut []))?;
        self.marks.push(self.device.tally());
        Ok(())
    }

    fn encoded(&mut self, _: &Context<'_>) -> Result<(), Error> {
        self.marks.push(self.device.tally());
        Ok(())
    }

    fn begun(
        &mut self,
        cx: &Context<'_>,
        reached: &Reached<'_>,
        image: Option<&Tensor>,
    ) -> Result<(), Error> {
        cx.device.download(reached.latents, &mut [])?;
        image.map_or(Ok(()), |image| cx.device.download(&image.slice(0..1), &mut []))
    }

    fn step_done(&mut self, cx: &Context<'_>, reached: &Reached<'_>) -> Result<(), Error> {
        let mut kept = std::iter::once(reached.latents).chain(reached.previous);
        kept.try_for_each(|tensor| cx.device.download(tensor, &mut []))
    }

    fn latents(&mut self, _: &Context<'_>, _: &Tensor) -> Result<(), Error> {
        self.marks.push(self.device.tally());
        Ok(())
    }

    fn piece(&mut self, cx: &Context<'_>, piece: Piece<'_>) -> Result<(), Error> {
        cx.device.download(piece.pixels, &mut [])
    }
}
