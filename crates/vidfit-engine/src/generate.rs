//! From a request to a video: plan, reserve once, run, measure.

mod collect;

pub use collect::{KeptTensors, kept_bytes, result_bytes, state_bytes};

use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::pipeline::{self, Origin};
use crate::pixels::Pixels;
use crate::placement::Warm;
use crate::plan::Plan;
use crate::planner::{Ask, Offload, Planned, Refused, Target, replan, without_tiles};
use crate::progress::{Listener, Progress, Watch};
use crate::request::{Job, Request, Warnings};
use crate::schedule::Schedule;
use crate::state::RunState;
use collect::Collecting;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_tensor::{Arena, Context, Device, Error, Measured};

/// A job with its plan, ready to run.
#[derive(Clone, Debug)]
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
    /// What the video starts from, of its size. A run that goes on needs none.
    pub pixels: Option<&'a Pixels>,
    /// Where the run goes on from.
    pub state: Option<&'a RunState>,
    /// How to plan again if the device has less memory by now than was planned. Without it, that is
    /// an error.
    pub replan: Option<(Offload, Target)>,
}

/// A finished run.
pub struct Generated {
    /// The video: RGB, 8 bits, one buffer of `height · width · 3` bytes a frame.
    pub frames: Vec<Vec<u8>>,
    /// What was kept, if that was asked for.
    pub tensors: Option<KeptTensors>,
    /// What the run really used.
    pub measured: Measured,
    /// Time and copies of each phase, in order.
    pub phases: Vec<MeasuredPhase>,
    /// What was run: not what was prepared, if it was planned again.
    pub ran: Prepared,
}

/// What a phase took.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredPhase {
    /// Its name.
    pub name: &'static str,
    /// Its time.
    pub seconds: f64,
    /// Bytes copied to the device.
    pub uploaded_bytes: u64,
    /// Bytes copied from the device.
    pub downloaded_bytes: u64,
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
    let target = Target::of_device(device, capacity_bytes);
    prepare_for(&Ask { checkpoint, request, offload: Offload::Auto, target: &target })
}

/// As [`prepare`], for whatever is asked.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_for(ask: &Ask<'_>) -> Result<Prepared, EngineError> {
    let (_, warnings) = Job::new(ask.checkpoint, ask.request)?;
    match ask.plan()? {
        Ok(planned) => Ok(Prepared::new(planned, warnings)),
        Err(refused) => Err(refused.into()),
    }
}

impl Prepared {
    /// What was planned, with what the user should know of the request.
    pub fn new(planned: Planned, mut warnings: Warnings) -> Prepared {
        let Planned { job, schedule, plan, rejected } = planned;
        for (verb, tiling) in [("encode", job.encode_tiling), ("decode", job.tiling)] {
            let whole = rejected.iter().find(|way| way.what == without_tiles(verb));
            if let (Some(tiling), Some(whole)) = (tiling, whole) {
                let gerund = verb.trim_end_matches('e');
                warnings.push(format!(
                    "{gerund}ing in tiles of {}×{} pixels, because the whole {}; this changes the \
                     picture slightly (--vae-tiling off forbids it)",
                    tiling.width, tiling.height, whole.why
                ));
            }
        }
        Prepared { job, schedule, plan, warnings }
    }
}

impl From<Refused> for EngineError {
    fn from(refused: Refused) -> EngineError {
        EngineError::DoesNotFit {
            required_bytes: refused.required_bytes,
            available_bytes: refused.budget_bytes,
            tiled: refused.least.job.tiling.is_some(),
        }
    }
}

/// Keeps what a run could go on from. An error of it ends the run.
pub type Keep<'a> = dyn FnMut(&RunState) -> Result<(), EngineError> + 'a;

/// Plans made again before a run gives up: others take and give memory meanwhile.
const MOST_PLANS: usize = 5;

/// Reserves the planned memory, once, and runs the job in it. If the device has less than that by
/// now, the job is planned again for what there is, where `options` allow it.
///
/// # Errors
/// [`EngineError::DoesNotFit`] before anything else if the plan needs more than may be reserved;
/// [`EngineError::Interrupted`]; [`EngineError::Stopped`] if copies failed again and again;
/// [`EngineError::Run`] if the device fails or the run leaves the plan.
pub fn run(
    checkpoint: &Checkpoint,
    prepared: &Prepared,
    device: &Arc<dyn Device>,
    options: RunOptions<'_>,
) -> Result<Generated, EngineError> {
    run_keeping(checkpoint, prepared, device, options, &mut |_| Ok(()))
}

/// As [`run`], and has `keep` keep the state as soon as there is one, and after every step. The
/// arithmetic waits for it.
///
/// # Errors
/// As [`run`], and those of `keep`.
pub fn run_keeping(
    checkpoint: &Checkpoint,
    prepared: &Prepared,
    device: &Arc<dyn Device>,
    mut options: RunOptions<'_>,
    keep: &mut Keep<'_>,
) -> Result<Generated, EngineError> {
    let prepared = reserve(checkpoint, prepared, device, &mut options)?;
    let result = run_reserved(checkpoint, prepared, device, options, keep, &Warm::default());
    device.release();
    result
}

/// Reserves memory for the job as it was prepared, or as it has to be planned now.
pub(crate) fn reserve(
    checkpoint: &Checkpoint,
    prepared: &Prepared,
    device: &Arc<dyn Device>,
    options: &mut RunOptions<'_>,
) -> Result<Prepared, EngineError> {
    prepared.job.check_runnable(checkpoint)?;
    match options.state.filter(|state| state.has_begun()) {
        Some(state) => state.check_pixels(options.pixels)?,
        None => prepared.job.check_pixels(options.pixels)?,
    }
    let buffer_bytes = options.replan.as_ref().map_or(0, |(_, target)| target.buffer_bytes);
    let capacity_bytes = options.capacity_bytes;
    let available = || {
        let free = device.free_bytes().map_or(u64::MAX, |free| free.saturating_sub(buffer_bytes));
        free.min(capacity_bytes)
    };
    let mut prepared = prepared.clone();
    for plans in 0.. {
        let needed = prepared.plan.device_bytes();
        let available_bytes = available();
        let refused = if needed <= available_bytes {
            match device.reserve(prepared.plan.layout.peak_bytes) {
                Ok(()) => return Ok(prepared),
                Err(source) => EngineError::CannotReserve { source },
            }
        } else {
            let tiled = prepared.job.tiling.is_some();
            EngineError::DoesNotFit { required_bytes: needed, available_bytes, tiled }
        };
        let Some((offload, target)) = options.replan.as_ref().filter(|_| plans < MOST_PLANS) else {
            return Err(refused);
        };
        // Somebody may have taken some since it was asked for. If not, what is free is not in one
        // piece: then a little less, clearly less, or the least.
        let available_bytes = available();
        let again = |offload: Offload, budget_bytes: u64| {
            let target = Target {
                free_bytes: budget_bytes.saturating_add(target.overhead_bytes),
                limit_bytes: None,
                buffer_bytes: 0,
                // Nobody counts as free what they take.
                warm_bytes: 0,
                ..target.clone()
            };
            replan(checkpoint, &prepared.job, offload, &target, options.state)
        };
        let planned = if available_bytes < needed {
            again(*offload, available_bytes)??
        } else {
            let less = if plans == 0 { needed / 32 } else { needed / 4 };
            match again(*offload, needed - less)? {
                Err(_) if *offload == Offload::Auto => {
                    again(Offload::Sequential, available_bytes)??
                }
                other => other?,
            }
        };
        (options.listener)(Progress::PlannedAgain {
            planned_bytes: needed,
            device_bytes: planned.plan.device_bytes(),
        });
        let Planned { job, schedule, plan, .. } = planned;
        prepared = Prepared { job, schedule, plan, ..prepared };
    }
    unreachable!("the last plan is reserved or refused")
}

/// Runs a job in what was reserved for it, and does not give it back.
pub(crate) fn run_reserved(
    checkpoint: &Checkpoint,
    prepared: Prepared,
    device: &Arc<dyn Device>,
    options: RunOptions<'_>,
    keep: &mut Keep<'_>,
    warm: &Warm,
) -> Result<Generated, EngineError> {
    let Prepared { job, schedule, plan, .. } = &prepared;
    let mut arena = Arena::replay(plan.layout.clone());
    if options.poison {
        let device = device.clone();
        arena = arena.poison_with(move |offset, bytes| device.poison(offset, bytes));
    }
    let watch = Watch::new(options.stop, options.listener);
    let context = Context::new(&**device, &arena, &watch);
    let mut outputs = Collecting::new(job, plan, &watch, &**device, &options.keep_tensors, keep);
    let origin = Origin { pixels: options.pixels, state: options.state, warm: Some(warm) };
    if let Some(state) = origin.state {
        outputs.go_on_from(state);
    }
    if let Some(pixels) = origin.pixels {
        outputs.start_from(pixels);
    }
    let result = pipeline::run(&context, checkpoint, job, schedule, origin, &mut outputs);
    if let Err(source @ Error::Transfer { .. }) = result {
        return Err(EngineError::Stopped { source, state: outputs.into_state().map(Box::new) });
    }
    result?;
    device.finish()?;
    let (frames, tensors, phases) = outputs.finish();
    watch.end();
    Ok(Generated { frames, tensors, phases, measured: arena.finish()?, ran: prepared })
}
