//! The denoise phase: from noise, and what it starts from, to clean latents.

use super::noise::Noise;
use super::{ComponentWeights, Outputs};
use crate::placement::Placed;
use crate::request::{Job, Start};
use crate::state::RunState;
use vidfit_cogvideox::noise::Generator;
use vidfit_cogvideox::scheduler::{Step, Update};
use vidfit_cogvideox::transformer::{self, Conditioning};
use vidfit_tensor::{Context, DType, Error, Tensor};

/// What the denoise phase begins with.
pub struct Given {
    /// The prompts' embeddings, `[tokens, width]` each.
    pub embeds: Vec<Tensor>,
    /// What [`super::encode`] made of the pixels, `[F, C, h, w]`; none without pixels, or where a
    /// state has it.
    pub encoded: Option<Tensor>,
    /// The noise, from where the phases before left it.
    pub noise: Noise,
}

/// How far the denoising has come: all that changes from step to step.
pub struct Reached<'a> {
    /// Steps that are done.
    pub steps_done: usize,
    /// `[F, C, h, w]`, padding frames included.
    pub latents: &'a Tensor,
    /// DPM's estimate of the clean latents, once there is one.
    pub previous: Option<&'a Tensor>,
    /// What draws the noise of the steps that are left.
    pub generator: &'a Generator,
}

/// The denoise phase, by itself what [`super::run`] makes of what it is given: `[F, C, h, w]`. The
/// transformer's weights are `placed` already, or are for this phase alone.
///
/// # Errors
/// As the model's functions and `outputs`.
pub fn denoise<'a>(
    cx: &Context<'_>,
    weights: &ComponentWeights<'a>,
    placed: Option<Placed<'a>>,
    state: Option<&RunState>,
    given: Given,
    outputs: &mut dyn Outputs,
) -> Result<Tensor, Error> {
    let (job, config) = (weights.job, &weights.checkpoint.transformer.config);
    let Given { embeds, encoded, mut noise } = given;
    let encoded = match state {
        Some(state) => restore_image(cx, job, state)?,
        None => encoded,
    };
    let (mut latents, image) = match state {
        Some(state) => {
            let latents = cx.upload("latents", job.dtype, shape(job), || state.latents.clone())?;
            (latents, encoded.map(|encoded| pad_image(cx, job, &encoded)).transpose()?)
        }
        None => {
            let image = match (job.start, &encoded) {
                (Start::Image, Some(encoded)) => Some(pad_image(cx, job, encoded)?),
                _ => None,
            };
            let latents = first_latents(cx, job, encoded, &mut noise)?;
            let generator = noise.generator();
            let reached = Reached { steps_done: 0, latents: &latents, previous: None, generator };
            outputs.begun(cx, &reached, image.as_ref())?;
            (latents, image)
        }
    };
    let done = state.map_or(0, |state| state.steps_done);
    let steps = &job.steps[done..];
    if steps.is_empty() {
        return Ok(latents);
    }

    let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep).collect();
    let prompts: Vec<&Tensor> = embeds.iter().collect();
    let shared = weights.conditioning()?;
    let conditioning =
        Conditioning::prepare(cx, &shared, config, job.dtype, job.grid, &timesteps, &prompts)?;
    drop((shared, embeds));
    let placed = match placed {
        Some(placed) => placed,
        None => weights.transformer(state)?,
    };

    // DPM looks back one step; its estimate stays f32 as in the reference.
    let looks_back = steps.iter().any(|step| matches!(step.update, Update::Dpm(_)));
    let previous = state.filter(|state| !state.previous.is_empty());
    let mut before = match (looks_back, previous) {
        (false, _) => None,
        (true, None) => Some(cx.alloc("previous clean estimate", DType::F32, shape(job))?),
        (true, Some(state)) => {
            let values = || state.previous.clone();
            Some(cx.upload("previous clean estimate", DType::F32, shape(job), values)?)
        }
    };
    cx.repeat(steps.len(), |index| {
        let step = &steps[index];
        let inputs: Vec<&Tensor> = std::iter::once(&latents).chain(&image).collect();
        let transformer = weights.schedule.transformer;
        let halves =
            transformer::predict(cx, &placed, config, transformer, &conditioning, index, &inputs)?;
        let mut velocity = cx.alloc("velocity", DType::F32, shape(job))?;
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
        let (steps_done, generator) = (done + index + 1, noise.generator());
        let previous = before.as_ref();
        outputs.step_done(cx, &Reached { steps_done, latents: &latents, previous, generator })
    })?;
    Ok(latents)
}

/// The shape of the latents.
fn shape(job: &Job) -> [usize; 4] {
    [job.latent_frames, job.channels, job.latent_height, job.latent_width]
}

/// The latents that the first step begins with: noise, or a video noised with it to the first
/// timestep (`add_noise`).
fn first_latents(
    cx: &Context<'_>,
    job: &Job,
    encoded: Option<Tensor>,
    noise: &mut Noise,
) -> Result<Tensor, Error> {
    let shape = shape(job);
    let mut latents = cx.upload("latents", job.dtype, shape, || noise.draw(shape))?;
    if let (Some(noising), Some(video)) = (job.noising, &encoded) {
        let noise = latents.clone();
        let (video_factor, noise_factor) = (noising.sqrt_alpha, noising.sqrt_one_minus_alpha);
        let terms = [(f64::from(video_factor), video), (f64::from(noise_factor), &noise)];
        cx.device.combine(&terms, &mut latents);
    }
    Ok(latents)
}

/// The image's latents in front, and nothing behind: of as many frames as the video. A frame that
/// fills up the last patch stands in front as well, so the image is in that, as in the reference.
fn pad_image(cx: &Context<'_>, job: &Job, image: &Tensor) -> Result<Tensor, Error> {
    let zeros = || vec![0.0; job.latent_elements()];
    let padded = cx.upload("image latents", job.dtype, shape(job), zeros)?;
    cx.device.cast(image, &mut padded.slice(0..1));
    Ok(padded)
}

/// The image's latents as `state` has them, `[1, C, h, w]`, if there are any.
fn restore_image(cx: &Context<'_>, job: &Job, state: &RunState) -> Result<Option<Tensor>, Error> {
    if job.start != Start::Image {
        return Ok(None);
    }
    let shape = [1, job.channels, job.latent_height, job.latent_width];
    cx.upload("encoded latents", job.dtype, shape, || state.image.clone()).map(Some)
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
            let draw = || {
                (1..dpm.draws).for_each(|_| noise.skip(shape.elements()));
                noise.draw(shape)
            };
            let random = cx.upload("noise", now.dtype(), shape, draw)?;
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
