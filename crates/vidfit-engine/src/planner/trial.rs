//! One phase of a job, run dry by itself: what a choice comes to in memory and time.

use super::target::Target;
use crate::checkpoint::Checkpoint;
use crate::plan::Silent;
use crate::request::Job;
use crate::schedule::Schedule;
use crate::text_to_video::{self, ComponentWeights};
use vidfit_tensor::{Arena, Context, DryDevice, Error, Monitor, Unwatched, solve};

/// What a phase takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trial {
    /// What it takes of the budget.
    pub device_bytes: u64,
    /// Its time.
    pub seconds: f64,
}

/// Runs phases of a job dry.
#[derive(Clone, Copy)]
pub(super) struct Trials<'a> {
    pub checkpoint: &'a Checkpoint,
    pub job: &'a Job,
    pub target: &'a Target,
}

impl Trials<'_> {
    /// The text phase.
    pub fn text(&self, schedule: &Schedule) -> Result<Trial, Error> {
        self.run(self.job, schedule, |cx, weights| {
            let placed = weights.text_encoder()?;
            text_to_video::encode_prompts(cx, &placed, self.checkpoint, self.job).map(drop)
        })
    }

    /// The denoise phase, which begins with the prompts' embeddings.
    pub fn denoise(&self, schedule: &Schedule) -> Result<Trial, Error> {
        self.run(self.job, schedule, |cx, weights| {
            let width = self.checkpoint.text_encoder.config.d_model;
            let embeds =
                self.job.prompts.iter().map(|prompt| {
                    cx.alloc("prompt embeddings", self.job.dtype, [prompt.len(), width])
                });
            let embeds = embeds.collect::<Result<_, Error>>()?;
            text_to_video::denoise(cx, weights, None, None, embeds, &mut Silent).map(drop)
        })
    }

    /// The decode phase, which begins with the latents. Every tile and all chunks but the first and
    /// the last are alike, so one tile of three chunks stands for all; the time is that of all.
    pub fn decode(&self, schedule: &Schedule) -> Result<Trial, Error> {
        let part = self.one_tile();
        let trial = self.run(&part, schedule, |cx, weights| {
            let shape = [part.latent_frames, part.channels, part.latent_height, part.latent_width];
            let latents = cx.alloc("latents", part.dtype, shape)?;
            let _edges = cx.alloc("edges of tiles", part.dtype, [self.kept_edges()])?;
            text_to_video::decode(cx, weights, None, &latents, &mut Silent)
        })?;
        let share = self.decoded_elements(self.job) / self.decoded_elements(&part);
        Ok(Trial { seconds: trial.seconds * share, ..trial })
    }

    /// The job cut to one tile of three chunks.
    fn one_tile(&self) -> Job {
        let mut part = self.job.clone();
        let frames = part.latent_frames - part.padding_frames;
        part.padding_frames = 0;
        part.latent_frames = frames.min(6 + frames % 2);
        if let Some(tiling) = part.tiling {
            let ratio = self.checkpoint.vae.config.spatial_ratio();
            part.latent_height = part.latent_height.min(tiling.height / ratio);
            part.latent_width = part.latent_width.min(tiling.width / ratio);
        }
        part
    }

    /// Values that the whole job keeps of finished tiles, and one tile by itself does not.
    fn kept_edges(&self) -> usize {
        let job = self.job;
        let size = (job.latent_height, job.latent_width);
        let frames = job.latent_frames - job.padding_frames;
        let config = &self.checkpoint.vae.config;
        vidfit_cogvideox::vae::kept_edges(config, job.tiling, frames, size)
    }

    /// Latent pixels that go through the decoder, overlaps of tiles counted as often as decoded.
    fn decoded_elements(&self, job: &Job) -> f64 {
        let config = &self.checkpoint.vae.config;
        let size = (job.latent_height, job.latent_width);
        let frames = job.latent_frames - job.padding_frames;
        vidfit_cogvideox::vae::decoded_pixels(config, job.tiling, size) as f64 * frames as f64
    }

    fn run(
        &self,
        job: &Job,
        schedule: &Schedule,
        phase: impl FnOnce(&Context<'_>, &ComponentWeights<'_>) -> Result<(), Error>,
    ) -> Result<Trial, Error> {
        let profile = &self.target.profile;
        let device = DryDevice::with_rates(profile.clone(), self.target.rates);
        let arena = Arena::record(profile.alignment);
        let monitor: &dyn Monitor = &Unwatched;
        let cx = Context::new(&device, &arena, monitor);
        arena.phase("phase")?;
        let weights = ComponentWeights { cx: &cx, checkpoint: self.checkpoint, job, schedule };
        phase(&cx, &weights)?;
        let layout = solve(&arena.into_trace()?);
        Ok(Trial {
            device_bytes: self.target.reserved_bytes(&layout, profile.scratch_bytes),
            seconds: device.tally().seconds,
        })
    }
}
