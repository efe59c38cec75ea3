//! The text-to-video pipeline, as `CogVideoXPipeline.__call__` in diffusers: text, denoise,
//! decode. The same code makes the plan, in a dry run, and the video.

use crate::checkpoint::Checkpoint;
use crate::placement::{Placed, Use};
use crate::request::Job;
use crate::schedule::Schedule;
use crate::state::RunState;
use vidfit_cogvideox::noise::Generator;
use vidfit_cogvideox::scheduler::{Step, Update};
use vidfit_cogvideox::transformer::{self, Conditioning};
use vidfit_cogvideox::{t5, vae};
use vidfit_tensor::{Context, DType, Error, RECORDED_PASSES, Tensor};

/// What a run gives away while it goes. Whoever does not want something does nothing with it.
pub trait Outputs {
    /// The prompts' embeddings, `[tokens, width]` each.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn prompt_embeds(&mut self, _cx: &Context<'_>, _embeds: &[Tensor]) -> Result<(), Error> {
        Ok(())
    }

    /// Step number `_step`, counted from 0, is done, and left these latents and DPM's estimate.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn step_done(
        &mut self,
        _cx: &Context<'_>,
        _step: usize,
        _latents: &Tensor,
        _previous: Option<&Tensor>,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// The denoised latents, `[F, C, h, w]`, padding frames included.
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

/// Makes the video; from where `state` left off, if there is one.
///
/// # Errors
/// As the model's functions and `outputs`.
pub fn run(
    cx: &Context<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
    schedule: &Schedule,
    state: Option<&RunState>,
    outputs: &mut dyn Outputs,
) -> Result<(), Error> {
    cx.arena.phase("text")?;
    let weights = ComponentWeights { cx, checkpoint, job, schedule };
    // Each component comes when its phase does; or all of them now, to stay.
    let (mut text, mut denoiser, mut decoder) = (None, None, None);
    if schedule.keeps_components {
        text = Some(weights.text_encoder()?);
        denoiser = Some(weights.transformer(state)?);
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

    cx.arena.phase("denoise")?;
    let latents = denoise(cx, &weights, denoiser.take(), state, embeds, outputs)?;
    outputs.latents(cx, &latents)?;

    cx.arena.phase("decode")?;
    decode(cx, &weights, decoder.take(), &latents, outputs)?;
    drop(text);
    Ok(())
}

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
}

impl<'a> ComponentWeights<'a> {
    /// The text encoder's. Each layer is used once.
    ///
    /// # Errors
    /// As [`Placed::new`].
    pub fn text_encoder(&self) -> Result<Placed<'a>, Error> {
        let component = &self.checkpoint.text_encoder;
        let usage = Use { blocks: component.config.encoder_blocks(), passes: 1 };
        Placed::new(*self.cx, &component.weights, self.job.dtype, usage, self.schedule.text)
    }

    /// What all steps share.
    fn conditioning(&self) -> Result<Placed<'a>, Error> {
        let component = &self.checkpoint.transformer;
        let usage = Use { blocks: component.config.conditioning_blocks(), passes: 1 };
        let streaming = self.schedule.conditioning;
        Placed::new(*self.cx, &component.weights, self.job.dtype, usage, streaming)
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
        Placed::new(*self.cx, &component.weights, self.job.dtype, usage, self.schedule.denoise)
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
        Placed::new(*self.cx, &component.weights, job.dtype, usage, self.schedule.decode)
    }
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

/// The denoise phase, by itself what `run` makes of the prompts' embeddings: `[F, C, h, w]`. The
/// transformer's weights are `placed` already, or are for this phase alone.
///
/// # Errors
/// As the model's functions and `outputs`.
pub fn denoise<'a>(
    cx: &Context<'_>,
    weights: &ComponentWeights<'a>,
    placed: Option<Placed<'a>>,
    state: Option<&RunState>,
    embeds: Vec<Tensor>,
    outputs: &mut dyn Outputs,
) -> Result<Tensor, Error> {
    let (job, config) = (weights.job, &weights.checkpoint.transformer.config);
    let shape = [job.latent_frames, job.channels, job.latent_height, job.latent_width];
    let mut noise = Noise { generator: Generator::seed(job.seed), dtype: job.dtype };
    let mut latents = match state {
        None => cx.upload("latents", job.dtype, shape, || noise.draw(shape))?,
        Some(state) => {
            noise.skip(job.latent_elements());
            cx.upload("latents", job.dtype, shape, || state.latents.clone())?
        }
    };
    let done = state.map_or(0, |state| state.steps_done);
    let steps = &job.steps[done..];
    if steps.is_empty() {
        return Ok(latents);
    }
    job.steps[..done].iter().for_each(|step| noise.skip_draws_of(step, job.latent_elements()));

    let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep).collect();
    let prompts: Vec<&Tensor> = embeds.iter().collect();
    let shared = weights.conditioning()?;
    let conditioning =
        Conditioning::prepare(cx, &shared, config, job.dtype, job.grid, &timesteps, &prompts)?;
    drop((shared, embeds));
    let image = match job.image_channels {
        0 => None,
        channels => {
            Some(cx.alloc("image latents", job.dtype, [shape[0], channels, shape[2], shape[3]])?)
        }
    };
    let placed = match placed {
        Some(placed) => placed,
        None => weights.transformer(state)?,
    };

    // DPM looks back one step; its estimate stays f32 as in the reference.
    let looks_back = steps.iter().any(|step| matches!(step.update, Update::Dpm(_)));
    let previous = state.filter(|state| !state.previous.is_empty());
    let mut before = match (looks_back, previous) {
        (false, _) => None,
        (true, None) => Some(cx.alloc("previous clean estimate", DType::F32, shape)?),
        (true, Some(state)) => {
            let values = || state.previous.clone();
            Some(cx.upload("previous clean estimate", DType::F32, shape, values)?)
        }
    };
    cx.repeat(steps.len(), |index| {
        let step = &steps[index];
        let inputs: Vec<&Tensor> = std::iter::once(&latents).chain(&image).collect();
        let transformer = weights.schedule.transformer;
        let halves =
            transformer::predict(cx, &placed, config, transformer, &conditioning, index, &inputs)?;
        let mut velocity = cx.alloc("velocity", DType::F32, shape)?;
        match &halves[..] {
            [unconditional, conditional] => {
                let scale = job.guidance.at(done + index, step.timestep, job.steps.len());
                cx.device.guide(unconditional, conditional, scale, &mut velocity);
            }
            [only] => cx.device.cast(only, &mut velocity),
            _ => return Err(Error::model("guidance has one or two halves")),
        }
        drop(halves);
        advance(cx, step, &mut noise, velocity, &mut latents, &mut before)?;
        outputs.step_done(cx, done + index, &latents, before.as_ref())
    })?;
    Ok(latents)
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

/// One step of the scheduler: from the velocity to the next latents.
fn advance(
    cx: &Context<'_>,
    step: &Step,
    noise: &mut Noise,
    velocity: Tensor,
    latents: &mut Tensor,
    before: &mut Option<Tensor>,
) -> Result<(), Error> {
    let shape = latents.shape();
    let mut clean = cx.alloc("clean estimate", DType::F32, shape)?;
    let terms = [(step.sqrt_alpha, &*latents), (-step.sqrt_beta, &velocity)];
    cx.device.combine(&terms, &mut clean);
    drop(velocity);

    let now = latents.clone();
    match (&step.update, before) {
        (Update::Ddim(ddim), _) => {
            cx.device.combine(&[(ddim.a, &now), (ddim.b, &clean)], latents);
        }
        (Update::Dpm(dpm), Some(before)) => {
            for _ in 1..dpm.draws {
                noise.skip(shape.elements());
            }
            let random = cx.upload("noise", now.dtype(), shape, || noise.draw(shape))?;
            match dpm.second_order {
                None => {
                    let terms = [(dpm.m1, &now), (-dpm.m2, &clean), (dpm.sigma, &random)];
                    cx.device.combine(&terms, latents);
                }
                Some(weights) => {
                    let terms = [
                        (dpm.m1, &now),
                        (-dpm.m2 * weights.now, &clean),
                        (dpm.m2 * weights.old, &*before),
                        (dpm.sigma, &random),
                    ];
                    cx.device.combine(&terms, latents);
                }
            }
            drop(random);
            cx.device.cast(&clean, before);
        }
        (Update::Dpm(_), None) => return Err(Error::model("DPM needs its previous estimate")),
    }
    Ok(())
}

/// The noise of a run, in the order and type that the reference draws it.
struct Noise {
    generator: Generator,
    dtype: DType,
}

impl Noise {
    fn draw(&mut self, shape: impl Into<vidfit_tensor::Shape>) -> Vec<f32> {
        let elements = shape.into().elements();
        match self.dtype {
            DType::F32 => {
                let mut values = vec![0.0; elements];
                self.generator.fill_normal_f32(&mut values);
                values
            }
            DType::F16 => {
                let mut values = vec![half::f16::ZERO; elements];
                self.generator.fill_normal_f16(&mut values);
                values.iter().map(|value| value.to_f32()).collect()
            }
            DType::BF16 => {
                let mut values = vec![half::bf16::ZERO; elements];
                self.generator.fill_normal_bf16(&mut values);
                values.iter().map(|value| value.to_f32()).collect()
            }
        }
    }

    /// Passes over what a step that is done has drawn.
    fn skip_draws_of(&mut self, step: &Step, elements: usize) {
        if let Update::Dpm(dpm) = &step.update {
            (0..dpm.draws).for_each(|_| self.skip(elements));
        }
    }

    fn skip(&mut self, elements: usize) {
        self.generator.skip_normal(elements, self.dtype != DType::F32);
    }
}
