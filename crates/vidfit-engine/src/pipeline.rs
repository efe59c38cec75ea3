//! The three pipelines, as `CogVideoXPipeline`, `CogVideoXImageToVideoPipeline` and
//! `CogVideoXVideoToVideoPipeline` in diffusers: text, encode where there are pixels to start from,
//! denoise, decode. The same code makes the plan, in a dry run, and the video.

mod components;
mod denoise;
mod encode;
mod noise;

pub use components::ComponentWeights;
pub use denoise::{Given, Reached, denoise};
pub use encode::encode;
pub use noise::Noise;

use crate::checkpoint::Checkpoint;
use crate::pixels::Pixels;
use crate::placement::{Placed, Warm};
use crate::request::Job;
use crate::schedule::Schedule;
use crate::state::RunState;
use vidfit_cogvideox::{t5, vae};
use vidfit_tensor::{Context, Error, Tensor};

/// What a run gives away while it goes. Whoever does not want something does nothing with it.
pub trait Outputs {
    /// The prompts' embeddings, `[tokens, width]` each. The text phase is over.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn prompt_embeds(&mut self, _cx: &Context<'_>, _embeds: &[Tensor]) -> Result<(), Error> {
        Ok(())
    }

    /// The encode phase is over, in a job that has one.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn encoded(&mut self, _cx: &Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The denoise phase begins with this, and with these latents of an image, `[F, C, h, w]`. A run
    /// that goes on from a state has been told before.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn begun(
        &mut self,
        _cx: &Context<'_>,
        _reached: &Reached<'_>,
        _image: Option<&Tensor>,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// A step is done.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn step_done(&mut self, _cx: &Context<'_>, _reached: &Reached<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// The denoised latents, `[F, C, h, w]`, padding frames included. The denoise phase is over.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn latents(&mut self, _cx: &Context<'_>, _latents: &Tensor) -> Result<(), Error> {
        Ok(())
    }

    /// A finished part of a frame.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn piece(&mut self, _cx: &Context<'_>, _piece: vae::Piece<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// What a run begins with: pixels, a state that it goes on from, weights, or nothing.
#[derive(Clone, Copy, Default)]
pub struct Origin<'a> {
    /// What the video starts from. A dry run needs none, nor does one that goes on.
    pub pixels: Option<&'a Pixels>,
    /// Where an earlier run left off.
    pub state: Option<&'a RunState>,
    /// Weights that are on the device already. A dry run needs none.
    pub warm: Option<&'a Warm>,
}

/// Makes the video.
///
/// # Errors
/// As the model's functions and `outputs`.
pub fn run(
    cx: &Context<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
    schedule: &Schedule,
    Origin { pixels, state, warm }: Origin<'_>,
    outputs: &mut dyn Outputs,
) -> Result<(), Error> {
    cx.arena.phase("text")?;
    let weights = ComponentWeights { cx, checkpoint, job, schedule, warm };
    let begun = state.filter(|state| state.has_begun());
    // Each component comes when its phase does; or all of them now, to stay.
    let (mut text, mut encoder, mut denoiser, mut decoder) = (None, None, None, None);
    if schedule.keeps_components {
        text = Some(weights.text_encoder()?);
        if job.given_frames > 0 {
            encoder = Some(weights.encoder()?);
        }
        denoiser = Some(weights.transformer(begun)?);
        decoder = Some(weights.decoder()?);
    }
    let embeds = match state {
        Some(state) => restore_prompts(cx, checkpoint, job, state)?,
        None => {
            let placed = match &text {
                Some(_) => None,
                None => Some(weights.text_encoder()?),
            };
            let placed = text.as_ref().or(placed.as_ref()).expect("one of the two");
            encode_prompts(cx, placed, checkpoint, job)?
        }
    };
    outputs.prompt_embeds(cx, &embeds)?;

    let mut noise = Noise::new(job, begun)?;
    let mut encoded = None;
    if job.given_frames > 0 {
        cx.arena.phase("encode")?;
        if begun.is_none() {
            encoded = Some(encode(cx, &weights, encoder.as_ref(), pixels, &mut noise)?);
        }
        outputs.encoded(cx)?;
    }

    cx.arena.phase("denoise")?;
    let given = Given { embeds, encoded, noise };
    let latents = denoise(cx, &weights, denoiser.take(), begun, given, outputs)?;
    outputs.latents(cx, &latents)?;

    cx.arena.phase("decode")?;
    decode(cx, &weights, decoder.take(), &latents, outputs)?;
    drop((text, encoder));
    Ok(())
}

/// The text phase: embeddings of all halves of guidance, `[tokens, width]` each.
///
/// # Errors
/// As [`t5::encode`].
pub fn encode_prompts(
    cx: &Context<'_>,
    weights: &Placed<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
) -> Result<Vec<Tensor>, Error> {
    let prompts: Vec<&[usize]> = job.prompts.iter().map(Vec::as_slice).collect();
    t5::encode(cx, weights, &checkpoint.text_encoder.config, &prompts, job.dtype)
}

fn restore_prompts(
    cx: &Context<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
    state: &RunState,
) -> Result<Vec<Tensor>, Error> {
    let width = checkpoint.text_encoder.config.d_model;
    let mut first = 0;
    let mut restore = |prompt: &Vec<usize>| {
        let values = &state.embeds[first..][..prompt.len() * width];
        first += values.len();
        cx.upload("prompt embeddings", job.dtype, [prompt.len(), width], || values.to_vec())
    };
    job.prompts.iter().map(&mut restore).collect()
}

/// The decode phase, by itself what `run` makes of `latents`, `[F, C, h, w]`. The decoder's weights
/// are `placed` already, or are for this phase alone.
///
/// # Errors
/// As [`vae::decode`] and `outputs`.
pub fn decode<'a>(
    cx: &Context<'_>,
    weights: &ComponentWeights<'a>,
    placed: Option<Placed<'a>>,
    latents: &Tensor,
    outputs: &mut dyn Outputs,
) -> Result<(), Error> {
    let job = weights.job;
    let placed = match placed {
        Some(placed) => placed,
        None => weights.decoder()?,
    };
    let video = latents.slice(job.padding_frames..job.latent_frames);
    let config = &weights.checkpoint.vae.config;
    let schedule = weights.schedule.decoder;
    vae::decode(cx, &placed, config, &video, job.tiling, schedule, &mut |piece| {
        outputs.piece(cx, piece)
    })
}
