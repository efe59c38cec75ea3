//! One phase of a job by itself: planned, and executed on a simulated card of just that size.

use super::results::Results;
use crate::bench::holders::{Held, held_at_fullest};
use crate::bench::noise::noise;
use std::sync::Arc;
use std::time::Instant;
use vidfit_cpu::{SimConfig, SimDevice};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pipeline::{self, ComponentWeights, Given, Noise, Outputs};
use vidfit_engine::request::Job;
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::{
    Arena, Context, Copied, Device, DryDevice, Error, Layout, Profile, Unwatched, solve,
};

/// Which phase of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All steps, from embeddings of noise.
    Denoise,
    /// All chunks of all tiles, from latents of noise.
    Decode,
}

impl Kind {
    /// The name that the phase has in plans.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Denoise => "denoise",
            Kind::Decode => "decode",
        }
    }
}

/// A phase of a job, with a schedule.
#[derive(Clone, Copy)]
pub struct Phase<'a> {
    /// Which one.
    pub kind: Kind,
    /// With these weights.
    pub checkpoint: &'a Checkpoint,
    /// Of this job.
    pub job: &'a Job,
    /// In this way.
    pub schedule: &'a Schedule,
}

/// The plan of a phase.
pub struct PhasePlan {
    layout: Arc<Layout>,
    scratch_bytes: u64,
    copied: Copied,
}

/// What a phase took when it was executed.
pub struct Executed {
    /// The highest byte of the arena that was in use by the arena's books.
    pub peak_bytes: u64,
    /// The highest byte of the arena that an operation or a copy touched.
    pub highest_byte: u64,
    /// The most that the card held, scratch included.
    pub held_bytes: u64,
    /// What was copied.
    pub copied: Copied,
    /// The most that waited in host memory.
    pub host_peak_bytes: u64,
    /// The time.
    pub seconds: f64,
    /// What the checker found.
    pub violations: Vec<String>,
    /// What came out.
    pub results: Results,
}

impl PhasePlan {
    /// The arena, in bytes.
    pub fn arena_bytes(&self) -> u64 {
        self.layout.peak_bytes
    }

    /// What is reserved: the arena and the device's scratch, in bytes.
    pub fn device_bytes(&self) -> u64 {
        self.layout.peak_bytes + self.scratch_bytes
    }

    /// What will be copied.
    pub fn copied(&self) -> Copied {
        self.copied
    }

    /// The tensors at the fullest moment.
    pub fn held(&self, kind: Kind) -> Vec<Held> {
        held_at_fullest(&self.layout.trace, kind.name())
    }

    /// Whether a card that has `missing_bytes` less than planned refuses the reservation.
    pub fn is_refused_with_less(&self, missing_bytes: u64, threads: usize) -> Result<bool, Error> {
        let card = SimDevice::new(card_of(self.device_bytes() - missing_bytes, threads))?;
        Ok(card.reserve(self.arena_bytes()).is_err())
    }
}

impl Phase<'_> {
    /// Runs the phase dry.
    pub fn plan(&self, profile: &Profile) -> Result<PhasePlan, Error> {
        let device = DryDevice::new(profile.clone());
        let arena = Arena::record(profile.alignment);
        self.run(&Context::new(&device, &arena, &Unwatched), &mut Results::default())?;
        Ok(PhasePlan {
            layout: Arc::new(solve(&arena.into_trace()?)),
            scratch_bytes: profile.scratch_bytes,
            copied: device.copied(),
        })
    }

    /// Runs the phase in what was planned, on a card that has that much memory and no byte more,
    /// with freed memory poisoned and every access checked.
    pub fn execute(&self, plan: &PhasePlan, threads: usize) -> Result<Executed, Error> {
        let card = Arc::new(SimDevice::new(card_of(plan.device_bytes(), threads))?);
        card.reserve(plan.arena_bytes())?;
        let poisoner = card.clone();
        let arena = Arena::replay(plan.layout.clone())
            .poison_with(move |offset, bytes| poisoner.poison(offset, bytes));
        let mut results = Results::default();
        let began = Instant::now();
        let ran = self.run(&Context::new(&*card, &arena, &Unwatched), &mut results);
        let ended = ran.and_then(|()| card.finish());
        let violations = card.violations();
        if violations.is_empty() {
            ended?;
        }
        let counters = card.counters();
        let measured = arena.finish()?;
        Ok(Executed {
            peak_bytes: measured.peak_bytes,
            highest_byte: counters.highest_byte,
            held_bytes: counters.peak_held_bytes,
            copied: card.copied(),
            host_peak_bytes: measured.host_peak_bytes,
            seconds: began.elapsed().as_secs_f64(),
            violations,
            results,
        })
    }

    /// The phase's own code, with noise for what the phases before it would have left.
    fn run(&self, cx: &Context<'_>, results: &mut Results) -> Result<(), Error> {
        let Phase { kind, checkpoint, job, schedule } = *self;
        cx.arena.phase(kind.name())?;
        let weights = ComponentWeights { cx, checkpoint, job, schedule, warm: None };
        match kind {
            Kind::Denoise => {
                let width = checkpoint.text_encoder.config.d_model;
                let embeds = job.prompts.iter().enumerate().map(|(half, prompt)| {
                    let values = || noise(prompt.len() * width, half as u32);
                    cx.upload("prompt embeddings", job.dtype, [prompt.len(), width], values)
                });
                let embeds = embeds.collect::<Result<_, Error>>()?;
                let noise = Noise::new(job, None)?;
                let given = Given { embeds, encoded: None, noise };
                let latents = pipeline::denoise(cx, &weights, None, None, given, results)?;
                results.latents(cx, &latents)
            }
            Kind::Decode => {
                let shape = [job.latent_frames, job.channels, job.latent_height, job.latent_width];
                let values = || noise(job.latent_elements(), 0);
                let latents = cx.upload("latents", job.dtype, shape, values)?;
                pipeline::decode(cx, &weights, None, &latents, results)
            }
        }
    }
}

/// A simulated card with so much memory.
pub fn card_of(memory_bytes: u64, threads: usize) -> SimConfig {
    SimConfig { threads, ..SimConfig::new(memory_bytes) }
}
