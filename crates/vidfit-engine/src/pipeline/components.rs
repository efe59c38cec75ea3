//! The weights of each component, placed for the time that it works.

use crate::checkpoint::Checkpoint;
use crate::placement::{Adapted, Part, Placed, Streaming, Use, Warm};
use crate::request::Job;
use crate::schedule::Schedule;
use crate::state::RunState;
use vidfit_cogvideox::vae;
use vidfit_tensor::{Context, Error, RECORDED_PASSES};

/// Where each component's weights are.
pub struct ComponentWeights<'a> {
    /// Where they are brought.
    pub cx: &'a Context<'a>,
    /// What they are.
    pub checkpoint: &'a Checkpoint,
    /// What they are for.
    pub job: &'a Job,
    /// What of them stays, and what is streamed.
    pub schedule: &'a Schedule,
    /// What of them is on the device already. A dry run has none.
    pub warm: Option<&'a Warm>,
}

impl<'a> ComponentWeights<'a> {
    /// The text encoder's. Each layer is used once.
    ///
    /// # Errors
    /// As [`Placed::new`].
    pub fn text_encoder(&self) -> Result<Placed<'a>, Error> {
        let component = &self.checkpoint.text_encoder;
        let usage = Use { blocks: component.config.encoder_blocks(), passes: 1 };
        self.place(Part::TextEncoder, usage, self.schedule.text)
    }

    /// What all steps share.
    pub(super) fn conditioning(&self) -> Result<Placed<'a>, Error> {
        let component = &self.checkpoint.transformer;
        let usage = Use { blocks: component.config.conditioning_blocks(), passes: 1 };
        self.place(Part::Transformer, usage, self.schedule.conditioning)
    }

    /// The transformer's. Each block is used once in every step that is left. A dry run makes fewer
    /// of them, and brings nothing for those that it does not make.
    ///
    /// # Errors
    /// As [`Placed::new`].
    pub fn transformer(&self, state: Option<&RunState>) -> Result<Placed<'a>, Error> {
        let component = &self.checkpoint.transformer;
        let left = self.job.steps.len() - state.map_or(0, |state| state.steps_done);
        let passes = if self.cx.arena.is_recording() { left.min(RECORDED_PASSES) } else { left };
        let usage = Use { blocks: component.config.step_blocks(), passes };
        self.place(Part::Transformer, usage, self.schedule.denoise)
    }

    /// The encoder's. Each block is used once in every chunk of every tile.
    ///
    /// # Errors
    /// As [`Placed::new`].
    pub fn encoder(&self) -> Result<Placed<'a>, Error> {
        let (component, job) = (&self.checkpoint.vae, self.job);
        let size = (job.height, job.width);
        let config = &component.config;
        let passes = vae::encoder_passes(config, job.encode_tiling, job.given_frames, size);
        let usage = Use { blocks: config.encoder_blocks(), passes };
        self.place(Part::Encoder, usage, self.schedule.encode)
    }

    /// The decoder's. Each block is used once in every chunk of every tile.
    ///
    /// # Errors
    /// As [`Placed::new`].
    pub fn decoder(&self) -> Result<Placed<'a>, Error> {
        let (component, job) = (&self.checkpoint.vae, self.job);
        let size = (job.latent_height, job.latent_width);
        let frames = job.latent_frames - job.padding_frames;
        let passes = vae::decoder_passes(&component.config, job.tiling, frames, size);
        let usage = Use { blocks: component.config.decoder_blocks(), passes };
        self.place(Part::Decoder, usage, self.schedule.decode)
    }

    /// Weights of a part, brought as `streaming` says, unless they are there.
    fn place(&self, part: Part, usage: Use, streaming: Streaming) -> Result<Placed<'a>, Error> {
        let (cx, dtype) = (*self.cx, self.job.dtype);
        let weights = Adapted::of(part, self.checkpoint, self.job);
        if self.schedule.warm.has(part) {
            let there = self.warm.and_then(|warm| warm.get(part));
            // What is added to weights is added for one job.
            if !weights.is_plain() {
                let what = "the plan finds weights on the device that LoRAs change".to_owned();
                return Err(Error::Deviation { event: 0, what });
            }
            return Placed::warm(cx, weights.stored, dtype, usage, there);
        }
        Placed::new(cx, weights, dtype, usage, streaming)
    }
}
