//! The text-to-video pipeline, as `CogVideoXPipeline.__call__` in diffusers: text, denoise,
//! decode. The same code makes the plan, in a dry run, and the video.

use crate::checkpoint::Checkpoint;
use crate::placement::Placed;
use crate::request::Job;
use vidfit_cogvideox::noise::Generator;
use vidfit_cogvideox::scheduler::{Step, Update};
use vidfit_cogvideox::transformer::{self, Conditioning};
use vidfit_cogvideox::{t5, vae};
use vidfit_tensor::{Context, DType, Error, Tensor};

/// What a run gives away while it goes.
pub trait Outputs {
    /// The prompt's embeddings, `[tokens, width]`.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn prompt_embeds(&mut self, cx: &Context<'_>, embeds: &Tensor) -> Result<(), Error>;

    /// Step number `step`, counted from 0, is done.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn step_done(&mut self, step: usize) -> Result<(), Error>;

    /// The denoised latents, `[F, C, h, w]`, padding frames included.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn latents(&mut self, cx: &Context<'_>, latents: &Tensor) -> Result<(), Error>;

    /// A finished part of a frame.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn piece(&mut self, cx: &Context<'_>, piece: vae::Piece<'_>) -> Result<(), Error>;
}

/// Makes the video.
///
/// # Errors
/// As the model's functions and `outputs`.
pub fn run(
    cx: &Context<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
    outputs: &mut dyn Outputs,
) -> Result<(), Error> {
    cx.arena.phase("text")?;
    let embeds = encode_prompts(cx, checkpoint, job)?;
    if let Some(embeds) = embeds.last() {
        outputs.prompt_embeds(cx, embeds)?;
    }

    cx.arena.phase("denoise")?;
    let latents = denoise(cx, checkpoint, job, embeds, outputs)?;
    outputs.latents(cx, &latents)?;

    cx.arena.phase("decode")?;
    // Every chunk needs every block of the decoder.
    let is_resident = |block: &str| block.starts_with("decoder.");
    let weights = Placed::new(*cx, &checkpoint.vae.weights, job.dtype, is_resident)?;
    let video = latents.slice(job.padding_frames..job.latent_frames);
    let config = &checkpoint.vae.config;
    vae::decode(cx, &weights, config, &video, job.tiling, &mut |piece| outputs.piece(cx, piece))
}

fn encode_prompts(
    cx: &Context<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
) -> Result<Vec<Tensor>, Error> {
    // Each layer is needed once: none stays.
    let weights = Placed::new(*cx, &checkpoint.text_encoder.weights, job.dtype, |_| false)?;
    let prompts: Vec<&[usize]> = job.prompts.iter().map(Vec::as_slice).collect();
    t5::encode(cx, &weights, &checkpoint.text_encoder.config, &prompts, job.dtype)
}

fn denoise(
    cx: &Context<'_>,
    checkpoint: &Checkpoint,
    job: &Job,
    embeds: Vec<Tensor>,
    outputs: &mut dyn Outputs,
) -> Result<Tensor, Error> {
    let config = &checkpoint.transformer.config;
    let shape = [job.latent_frames, job.channels, job.latent_height, job.latent_width];
    let mut noise = Noise { generator: Generator::seed(job.seed), dtype: job.dtype };
    let mut latents = cx.upload("latents", job.dtype, shape, || noise.draw(shape))?;

    let per_step = |block: &str| {
        block == "patch_embed"
            || block == "tail"
            || (block.starts_with("transformer_blocks.") && !block.ends_with(".modulation"))
    };
    let weights = Placed::new(*cx, &checkpoint.transformer.weights, job.dtype, per_step)?;
    let timesteps: Vec<i64> = job.steps.iter().map(|step| step.timestep).collect();
    let prompts: Vec<&Tensor> = embeds.iter().collect();
    let conditioning =
        Conditioning::prepare(cx, &weights, config, job.dtype, job.grid, &timesteps, &prompts)?;
    drop(embeds);

    // DPM looks back one step; its estimate stays f32 as in the reference.
    let looks_back = job.steps.iter().any(|step| matches!(step.update, Update::Dpm(_)));
    let mut before = match looks_back {
        true => Some(cx.alloc("previous clean estimate", DType::F32, shape)?),
        false => None,
    };
    cx.repeat(job.steps.len(), |index| {
        let step = &job.steps[index];
        let halves = transformer::predict(
            cx,
            &weights,
            config,
            job.schedule,
            &conditioning,
            index,
            &[&latents],
        )?;
        let mut velocity = cx.alloc("velocity", DType::F32, shape)?;
        match &halves[..] {
            [unconditional, conditional] => {
                let scale = job.guidance.at(index, step.timestep, job.steps.len());
                cx.device.guide(unconditional, conditional, scale, &mut velocity);
            }
            [only] => cx.device.cast(only, &mut velocity),
            _ => return Err(Error::model("guidance has one or two halves")),
        }
        drop(halves);
        advance(cx, step, &mut noise, velocity, &mut latents, &mut before)?;
        outputs.step_done(index)
    })?;
    Ok(latents)
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

    fn skip(&mut self, elements: usize) {
        self.generator.skip_normal(elements, self.dtype != DType::F32);
    }
}
