//! From a request to a video: plan, reserve once, run, measure.

use crate::checkpoint::Checkpoint;
use crate::error::{EngineError, gigabytes};
use crate::plan::{PHASES, Plan};
use crate::progress::{Listener, Watch};
use crate::request::{Job, Request, TilingChoice, Warnings, tiles};
use crate::schedule::Schedule;
use crate::state::RunState;
use crate::text_to_video::{self, Outputs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_cogvideox::scheduler::Update;
use vidfit_cogvideox::vae::Piece;
use vidfit_tensor::{Arena, Context, Device, Error, Measured, Tensor};

/// A job with its plan, ready to run.
pub struct Prepared {
    /// The job.
    pub job: Job,
    /// How it uses memory.
    pub schedule: Schedule,
    /// Its plan.
    pub plan: Plan,
    /// What the user should know.
    pub warnings: Warnings,
}

/// What a run is allowed and asked besides making the video.
pub struct RunOptions<'a> {
    /// Set to stop the run at the next unit of work.
    pub stop: &'a AtomicBool,
    /// Hears of its progress.
    pub listener: Listener,
    /// Whether embeddings, latents and unrounded frames are kept for the caller.
    pub keep_tensors: bool,
    /// The most device memory that may be reserved, in bytes.
    pub capacity_bytes: u64,
    /// Whether freed and fresh memory is filled with garbage. For tests; slow.
    pub poison: bool,
    /// Where the run goes on from.
    pub state: Option<&'a RunState>,
}

/// A finished run.
pub struct Generated {
    /// The video: RGB, 8 bits, one buffer of `height · width · 3` bytes a frame.
    pub frames: Vec<Vec<u8>>,
    /// What was kept, if that was asked for.
    pub tensors: Option<KeptTensors>,
    /// What the run really used.
    pub measured: Measured,
}

/// Intermediate results, widened to f32.
#[derive(Clone, Debug, Default)]
pub struct KeptTensors {
    /// `[1, tokens, width]`.
    pub prompt_embeds: Vec<f32>,
    /// `[1, F, C, h, w]`, after the last step, padding frames included.
    pub latents: Vec<f32>,
    /// `[F, H, W, 3]` in 0..=1, before rounding.
    pub frames: Vec<f32>,
}

/// Bytes of host memory that a run holds for its results: the rounded frames, one piece of a frame
/// in f32, what it could go on from, and what is kept.
pub fn result_bytes(checkpoint: &Checkpoint, job: &Job, keep_tensors: bool) -> u64 {
    let frame = (job.height * job.width * 3) as u64;
    let frames = job.frames as u64;
    // Written as bytes, they are there twice.
    let kept = if keep_tensors { 2 * kept_bytes(checkpoint, job) } else { 0 };
    frames * frame + 4 * frame + state_bytes(checkpoint, job) + kept
}

/// Bytes of [`RunState`].
fn state_bytes(checkpoint: &Checkpoint, job: &Job) -> u64 {
    let tokens: usize = job.prompts.iter().map(Vec::len).sum();
    let embeds = tokens * checkpoint.text_encoder.config.d_model;
    4 * (embeds + 2 * job.latent_elements()) as u64
}

/// Bytes of [`KeptTensors`].
pub fn kept_bytes(checkpoint: &Checkpoint, job: &Job) -> u64 {
    let embeds = job.prompts.last().map_or(0, Vec::len) * checkpoint.text_encoder.config.d_model;
    let latents = job.latent_frames * job.channels * job.latent_height * job.latent_width;
    let frames = job.frames * job.height * job.width * 3;
    4 * (embeds + latents + frames) as u64
}

/// Refuses a job that is too large for any plan, without planning it.
fn check_least(checkpoint: &Checkpoint, job: &Job, capacity_bytes: u64) -> Result<(), EngineError> {
    let least_bytes = job.least_bytes(checkpoint.transformer.config.inner_dim());
    match least_bytes > capacity_bytes {
        true => Err(does_not_fit(least_bytes, capacity_bytes, true)),
        false => Ok(()),
    }
}

/// Holds a request against a checkpoint and plans it for `device`, within `capacity_bytes` of its
/// memory. Decodes in tiles if that is left to the plan and nothing else fits.
///
/// # Errors
/// [`EngineError::Request`] if it cannot be done, [`EngineError::DoesNotFit`] if it does not fit.
pub fn prepare(
    checkpoint: &Checkpoint,
    request: &Request,
    device: &dyn Device,
    capacity_bytes: u64,
) -> Result<Prepared, EngineError> {
    let (job, warnings) = Job::new(checkpoint, request)?;
    plan_job(checkpoint, request, job, warnings, device, capacity_bytes)
}

/// The second half of [`prepare`], for a job that has been made of `request` already.
///
/// # Errors
/// As [`prepare`].
pub fn plan_job(
    checkpoint: &Checkpoint,
    request: &Request,
    job: Job,
    mut warnings: Warnings,
    device: &dyn Device,
    capacity_bytes: u64,
) -> Result<Prepared, EngineError> {
    check_least(checkpoint, &job, capacity_bytes)?;
    let schedule = Schedule::plain(device.profile());
    let plan = Plan::new(checkpoint, &job, &schedule, None, device.profile())?;
    if plan.device_bytes() <= capacity_bytes {
        return Ok(Prepared { job, schedule, plan, warnings });
    }
    let whole_bytes = plan.device_bytes();
    if request.tiling == TilingChoice::Auto {
        let job = job.with_tiles(tiles(checkpoint, request)?);
        let plan = Plan::new(checkpoint, &job, &schedule, None, device.profile())?;
        if plan.device_bytes() <= capacity_bytes {
            warnings.push(format!(
                "decoding in tiles, because the whole takes {:.1} GB and {:.1} GB may be used; \
                 this changes the picture slightly (--vae-tiling off forbids it)",
                gigabytes(whole_bytes),
                gigabytes(capacity_bytes)
            ));
            return Ok(Prepared { job, schedule, plan, warnings });
        }
        return Err(does_not_fit(plan.device_bytes(), capacity_bytes, true));
    }
    Err(does_not_fit(whole_bytes, capacity_bytes, job.tiling.is_some()))
}

fn does_not_fit(required_bytes: u64, available_bytes: u64, tiled: bool) -> EngineError {
    EngineError::DoesNotFit { required_bytes, available_bytes, tiled }
}

/// Reserves the planned memory, once, and runs the job in it.
///
/// # Errors
/// [`EngineError::DoesNotFit`] before anything else if the plan needs more than may be reserved;
/// [`EngineError::Interrupted`]; [`EngineError::Run`] if the device fails or the run leaves the
/// plan.
pub fn run(
    checkpoint: &Checkpoint,
    prepared: &Prepared,
    device: &Arc<dyn Device>,
    options: RunOptions<'_>,
) -> Result<Generated, EngineError> {
    let (job, plan) = (&prepared.job, &prepared.plan);
    if plan.device_bytes() > options.capacity_bytes {
        let tiled = job.tiling.is_some();
        return Err(does_not_fit(plan.device_bytes(), options.capacity_bytes, tiled));
    }
    device
        .reserve(plan.layout.peak_bytes)
        .map_err(|source| EngineError::CannotReserve { source })?;
    let result = run_reserved(checkpoint, prepared, device, options);
    device.release();
    result
}

fn run_reserved(
    checkpoint: &Checkpoint,
    prepared: &Prepared,
    device: &Arc<dyn Device>,
    options: RunOptions<'_>,
) -> Result<Generated, EngineError> {
    let Prepared { job, schedule, plan, .. } = prepared;
    let mut arena = Arena::replay(plan.layout.clone());
    if options.poison {
        let device = device.clone();
        arena = arena.poison_with(move |offset, bytes| device.poison(offset, bytes));
    }
    let watch = Watch::new(options.stop, options.listener);
    let context = Context::new(&**device, &arena, &watch);
    let frame_bytes = job.height * job.width * 3;
    let mut outputs = Collecting {
        job,
        plan,
        watch: &watch,
        frames: vec![vec![0; frame_bytes]; job.frames],
        tensors: options.keep_tensors.then(KeptTensors::default),
        piece: Vec::new(),
        state: options.state.cloned().unwrap_or_default(),
    };
    outputs.begin_phase(0);
    let result =
        text_to_video::run(&context, checkpoint, job, schedule, options.state, &mut outputs);
    if let Err(source @ Error::Transfer { .. }) = result {
        let state = (outputs.state.steps_done > 0).then(|| Box::new(outputs.state));
        return Err(EngineError::Stopped { source, state });
    }
    result?;
    device.finish()?;
    watch.end();
    let Collecting { frames, tensors, .. } = outputs;
    Ok(Generated { frames, tensors, measured: arena.finish()? })
}

/// Brings a run's results to the host. Its buffers: the rounded frames; one piece of a frame in
/// f32; what the run could go on from; and, if they are kept, embeddings, latents and unrounded
/// frames.
struct Collecting<'a> {
    job: &'a Job,
    plan: &'a Plan,
    watch: &'a Watch<'a>,
    frames: Vec<Vec<u8>>,
    tensors: Option<KeptTensors>,
    piece: Vec<f32>,
    /// What the run could go on from.
    state: RunState,
}

const NOT_NUMBERS: &str = "the video came out as no numbers at all (NaN): the weights are damaged, \
     the guidance is far too strong, or f16 is too narrow for this model (try --dtype f32 or bf16)";

impl Collecting<'_> {
    fn begin_phase(&self, phase: usize) {
        let steps = (phase == 1).then_some(self.job.steps.len());
        self.watch.begin(PHASES[phase], self.plan.phases[phase].units, steps);
    }
}

fn fetch(cx: &Context<'_>, tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; tensor.shape().elements()];
    cx.device.download(tensor, &mut values)?;
    Ok(values)
}

impl Outputs for Collecting<'_> {
    fn prompt_embeds(&mut self, cx: &Context<'_>, embeds: &[Tensor]) -> Result<(), Error> {
        self.state.job = RunState::key(self.job);
        let elements = embeds.iter().map(|embeds| embeds.shape().elements());
        self.state.embeds = vec![0.0; elements.clone().sum()];
        let mut rest = &mut self.state.embeds[..];
        for (embeds, elements) in embeds.iter().zip(elements) {
            let (values, after) = rest.split_at_mut(elements);
            cx.device.download(embeds, values)?;
            rest = after;
        }
        self.state.latents.resize(self.job.latent_elements(), 0.0);
        if self.job.steps.iter().any(|step| matches!(step.update, Update::Dpm(_))) {
            self.state.previous.resize(self.job.latent_elements(), 0.0);
        }
        if let (Some(kept), Some(embeds)) = (&mut self.tensors, embeds.last()) {
            kept.prompt_embeds = fetch(cx, embeds)?;
        }
        cx.device.finish()?;
        self.begin_phase(1);
        Ok(())
    }

    fn step_done(
        &mut self,
        cx: &Context<'_>,
        step: usize,
        latents: &Tensor,
        previous: Option<&Tensor>,
    ) -> Result<(), Error> {
        let state = &mut self.state;
        cx.device.download(latents, &mut state.latents)?;
        if let Some(previous) = previous {
            cx.device.download(previous, &mut state.previous)?;
        }
        state.steps_done = step + 1;
        self.watch.steps_done(step + 1);
        Ok(())
    }

    fn latents(&mut self, cx: &Context<'_>, latents: &Tensor) -> Result<(), Error> {
        if let Some(kept) = &mut self.tensors {
            kept.latents = fetch(cx, latents)?;
            kept.frames = vec![0.0; self.job.frames * self.job.height * self.job.width * 3];
        }
        cx.device.finish()?;
        self.begin_phase(2);
        Ok(())
    }

    fn piece(&mut self, cx: &Context<'_>, piece: Piece<'_>) -> Result<(), Error> {
        let (rows, columns) = (piece.pixels.dims()[0], piece.pixels.dims()[1]);
        self.piece.resize(rows * columns * 3, 0.0);
        cx.device.download(piece.pixels, &mut self.piece)?;
        let stride = self.job.width * 3;
        for (row, line) in self.piece.chunks_exact(columns * 3).enumerate() {
            let start = (piece.top + row) * stride + piece.left * 3;
            let pixels = &mut self.frames[piece.frame][start..start + line.len()];
            if line.iter().any(|value| value.is_nan()) {
                return Err(Error::model(NOT_NUMBERS));
            }
            for (pixel, &value) in pixels.iter_mut().zip(line) {
                *pixel = (value * 255.0).round_ties_even() as u8;
            }
            if let Some(kept) = &mut self.tensors {
                let start = piece.frame * self.job.height * stride + start;
                kept.frames[start..start + line.len()].copy_from_slice(line);
            }
        }
        Ok(())
    }
}
