//! One phase of a job, run dry by itself: what a choice comes to in memory and time.

use super::target::Target;
use crate::checkpoint::Checkpoint;
use crate::pipeline::{self, ComponentWeights, Given, Noise};
use crate::plan::Silent;
use crate::request::Job;
use crate::schedule::Schedule;
use vidfit_cogvideox::vae;
use vidfit_tensor::{Arena, Context, DryDevice, Error, Monitor, Tensor, Unwatched, solve};

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
            pipeline::encode_prompts(cx, &placed, self.checkpoint, self.job).map(drop)
        })
    }

    /// The encode phase, beside the prompts' embeddings. As in decoding, one tile of three chunks
    /// stands for all.
    pub fn encode(&self, schedule: &Schedule) -> Result<Trial, Error> {
        let (job, config) = (self.job, &self.checkpoint.vae.config);
        let mut part = job.clone();
        part.given_frames = job.given_frames.min(24 + job.given_frames % 8);
        if let Some(tiling) = job.encode_tiling {
            part.height = job.height.min(tiling.height);
            part.width = job.width.min(tiling.width);
        }
        let ratio = config.spatial_ratio();
        (part.latent_height, part.latent_width) = (part.height / ratio, part.width / ratio);
        let moments = |job: &Job| {
            let frames = vae::latent_frames(config, job.given_frames);
            2 * frames * job.channels * job.latent_height * job.latent_width
        };
        let size = (job.height, job.width);
        let edges = vae::kept_latent_edges(config, job.encode_tiling, job.given_frames, size);
        let trial = self.run(&part, schedule, |cx, weights| {
            let _embeds = self.embeds(cx)?;
            let _edges = cx.alloc("edges of tiles", job.dtype, [edges])?;
            let rest = moments(job) - moments(&part);
            let _moments = cx.alloc("moments of other tiles and chunks", job.dtype, [rest])?;
            let mut noise = Noise::new(&part, None)?;
            pipeline::encode(cx, weights, None, None, &mut noise).map(drop)
        })?;
        let pixels = |job: &Job| {
            let pixels = vae::encoded_pixels(config, job.encode_tiling, (job.height, job.width));
            pixels as f64 * job.given_frames as f64
        };
        Ok(Trial { seconds: trial.seconds * pixels(job) / pixels(&part), ..trial })
    }

    /// The denoise phase, which begins with the prompts' embeddings and what was encoded.
    pub fn denoise(&self, schedule: &Schedule) -> Result<Trial, Error> {
        let job = self.job;
        self.run(job, schedule, |cx, weights| {
            let embeds = self.embeds(cx)?;
            let frames = if job.given_frames == 1 { 1 } else { job.latent_frames };
            let shape = [frames, job.channels, job.latent_height, job.latent_width];
            let encoded = match job.given_frames {
                0 => None,
                _ => Some(cx.alloc("encoded latents", job.dtype, shape)?),
            };
            let given = Given { embeds, encoded, noise: Noise::new(job, None)? };
            pipeline::denoise(cx, weights, None, None, given, &mut Silent).map(drop)
        })
    }

    /// The prompts' embeddings.
    fn embeds(&self, cx: &Context<'_>) -> Result<Vec<Tensor>, Error> {
        let width = self.checkpoint.text_encoder.config.d_model;
        let prompts = self.job.prompts.iter();
        let embeds = prompts
            .map(|prompt| cx.alloc("prompt embeddings", self.job.dtype, [prompt.len(), width]));
        embeds.collect()
    }

    /// The decode phase, which begins with the latents. Every tile and all chunks but the first and
    /// the last are alike, so one tile of three chunks stands for all; the time is that of all.
    pub fn decode(&self, schedule: &Schedule) -> Result<Trial, Error> {
        let part = self.one_tile();
        let trial = self.run(&part, schedule, |cx, weights| {
            let shape = [part.latent_frames, part.channels, part.latent_height, part.latent_width];
            let latents = cx.alloc("latents", part.dtype, shape)?;
            let _edges = cx.alloc("edges of tiles", part.dtype, [self.kept_edges()])?;
            pipeline::decode(cx, weights, None, &latents, &mut Silent)
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
        vae::kept_edges(config, job.tiling, frames, size)
    }

    /// Latent pixels that go through the decoder, overlaps of tiles counted as often as decoded.
    fn decoded_elements(&self, job: &Job) -> f64 {
        let config = &self.checkpoint.vae.config;
        let size = (job.latent_height, job.latent_width);
        let frames = job.latent_frames - job.padding_frames;
        vae::decoded_pixels(config, job.tiling, size) as f64 * frames as f64
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
        let checkpoint = self.checkpoint;
        let weights = ComponentWeights { cx: &cx, checkpoint, job, schedule, warm: None };
        phase(&cx, &weights)?;
        let layout = solve(&arena.into_trace()?);
        Ok(Trial {
            device_bytes: self.target.reserved_bytes(&layout, profile.scratch_bytes),
            seconds: device.tally().seconds,
        })
    }
}
