//! From a request to a video: plan, reserve once, run, measure.

mod collect;
mod measured;

pub use collect::KeptTensors;
pub use measured::{ComparedPhase, RunReport};

use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::pipeline::{self, Origin};
use crate::pixels::Pixels;
use crate::placement::Warm;
use crate::planner::{Ask, Offload, Planned, Target, replan};
use crate::progress::{Listener, Progress, Watch};
use crate::request::Request;
use crate::state::RunState;
use collect::Collecting;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_tensor::{Arena, Context, Device, Error, Measured};

/// Keeps what a run could go on from. An error of it ends the run.
pub type Keep<'a> = dyn FnMut(&RunState) -> Result<(), EngineError> + 'a;

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
    /// Whether the job is planned again if the device has less memory by now than was planned. Else
    /// that is an error.
    pub replan: bool,
    /// Keeps the state as soon as there is one, and after every step. The arithmetic waits for it.
    pub keep: Option<&'a mut Keep<'a>>,
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
    /// What was run: not what was planned at first, if it was planned again.
    pub ran: Planned,
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
) -> Result<Planned, EngineError> {
    let target = Target::of_device(device, capacity_bytes);
    prepare_for(&Ask { checkpoint, request, offload: Offload::Auto, target: &target })
}

/// As [`prepare`], for whatever is asked.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_for(ask: &Ask<'_>) -> Result<Planned, EngineError> {
    let mut planned = ask.plan()??;
    planned.warn_of_tiles();
    Ok(planned)
}

/// Plans made again before a run gives up: others take and give memory meanwhile.
const MOST_PLANS: usize = 5;

/// Reserves the planned memory, once, and runs the job in it. If the device has less than that by
/// now, the job is planned again for what there is, where `options` allow it.
///
/// # Errors
/// [`EngineError::DoesNotFit`] before anything else if the plan needs more than may be reserved;
/// [`EngineError::Interrupted`]; [`EngineError::Stopped`] if copies failed again and again;
/// [`EngineError::Run`] if the device fails or the run leaves the plan; and those of
/// [`RunOptions::keep`].
pub fn run(
    checkpoint: &Checkpoint,
    planned: &Planned,
    device: &Arc<dyn Device>,
    mut options: RunOptions<'_>,
) -> Result<Generated, EngineError> {
    let reserved = reserve(checkpoint, planned, device, &mut options)?;
    let result = run_reserved(checkpoint, reserved, device, options, &Warm::default());
    device.release();
    result
}

/// Reserves memory for the job as it was planned, or as it has to be planned now.
pub(crate) fn reserve(
    checkpoint: &Checkpoint,
    planned: &Planned,
    device: &Arc<dyn Device>,
    options: &mut RunOptions<'_>,
) -> Result<Planned, EngineError> {
    planned.job.check_runnable(checkpoint)?;
    match options.state.filter(|state| state.has_begun()) {
        Some(state) => state.check_pixels(options.pixels)?,
        None => planned.job.check_pixels(options.pixels)?,
    }
    let (offload, target) = (planned.offload, planned.target.clone());
    let buffer_bytes = if options.replan { target.buffer_bytes } else { 0 };
    let capacity_bytes = options.capacity_bytes;
    let available = || {
        let free = device.free_bytes().map_or(u64::MAX, |free| free.saturating_sub(buffer_bytes));
        free.min(capacity_bytes)
    };
    let mut planned = planned.clone();
    for plans in 0.. {
        let needed = planned.plan.device_bytes();
        let available_bytes = available();
        let refused = if needed <= available_bytes {
            match device.reserve(planned.plan.layout.peak_bytes) {
                Ok(()) => return Ok(planned),
                Err(source) => EngineError::CannotReserve { source },
            }
        } else {
            let tiled = planned.job.tiling.is_some();
            EngineError::DoesNotFit { required_bytes: needed, available_bytes, tiled }
        };
        if !options.replan || plans >= MOST_PLANS {
            return Err(refused);
        }
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
            replan(checkpoint, &planned.job, offload, &target, options.state)
        };
        let other = if available_bytes < needed {
            again(offload, available_bytes)??
        } else {
            let less = if plans == 0 { needed / 32 } else { needed / 4 };
            match again(offload, needed - less)? {
                Err(_) if offload == Offload::Auto => again(Offload::Sequential, available_bytes)??,
                other => other?,
            }
        };
        (options.listener)(Progress::PlannedAgain {
            planned_bytes: needed,
            device_bytes: other.plan.device_bytes(),
        });
        planned = planned.by(other);
    }
    unreachable!("the last plan is reserved or refused")
}

/// Runs a job in what was reserved for it, and does not give it back.
pub(crate) fn run_reserved(
    checkpoint: &Checkpoint,
    planned: Planned,
    device: &Arc<dyn Device>,
    options: RunOptions<'_>,
    warm: &Warm,
) -> Result<Generated, EngineError> {
    let Planned { job, schedule, plan, .. } = &planned;
    let mut arena = Arena::replay(plan.layout.clone());
    if options.poison {
        let device = device.clone();
        arena = arena.poison_with(move |offset, bytes| device.poison(offset, bytes));
    }
    let watch = Watch::new(options.stop, options.listener);
    let context = Context::new(&**device, &arena, &watch);
    let mut keep_nothing = |_: &RunState| Ok(());
    let keep = options.keep.unwrap_or(&mut keep_nothing);
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
    Ok(Generated { frames, tensors, phases, measured: arena.finish()?, ran: planned })
}
