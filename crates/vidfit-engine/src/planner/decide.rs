//! Whether a job fits, and how.

use super::report::ram_peak_bytes;
use super::search::{Memo, Search};
use super::target::{Offload, Target};
use super::trial::Trials;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::plan::Plan;
use crate::request::{Job, TilingChoice};
use crate::schedule::Schedule;
use crate::state::RunState;
use vidfit_cogvideox::vae::{self, Tiling};

/// A job that fits, and how.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The job, with or without tiles.
    pub job: Job,
    /// How it uses memory.
    pub schedule: Schedule,
    /// Its plan.
    pub plan: Plan,
    /// What was not taken.
    pub rejected: Vec<Rejected>,
}

/// A choice that was not taken.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rejected {
    /// What it is.
    pub what: String,
    /// Device memory that it takes.
    pub peak_bytes: u64,
    /// Time that it takes.
    pub seconds: f64,
    /// Why it was not taken.
    pub why: String,
}

/// A job that does not fit: the least that it would take.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What the least demanding plan takes, on the device.
    pub least: Box<Planned>,
    /// What may be used.
    pub budget_bytes: u64,
}

/// Chunks of tiles that a video may be decoded in. The longest and largest that a published model
/// was made for has 400; each takes some hundred tensors of the plan.
const MOST_PIECES: usize = 6000;

/// More than any device has.
const MOST_BYTES: u64 = 1 << 40;

/// Plans `job` for `target`: the fastest schedule that `offload` allows within the budget. If
/// `tiling` leaves it open, decoding in tiles is the last resort: in `tiles`, then in smaller ones.
///
/// # Errors
/// Whatever keeps the job from being planned at all, and [`EngineError::NotEnoughRam`]. That it does
/// not fit the device is no error, but an answer.
pub fn plan(
    checkpoint: &Checkpoint,
    job: &Job,
    (tiling, tiles): (TilingChoice, Tiling),
    offload: Offload,
    target: &Target,
) -> Result<Result<Planned, Refused>, EngineError> {
    let budget = target.budget_bytes();
    let whole = Job { tiling: None, ..job.clone() };
    let mut ways = match tiling {
        TilingChoice::Off => vec![whole.clone()],
        TilingChoice::On => vec![whole.clone().with_tiles(tiles)],
        TilingChoice::Auto => vec![whole.clone(), whole.clone().with_tiles(tiles)],
    };
    if tiling == TilingChoice::Auto {
        ways.extend(smaller(checkpoint, tiles).map(|tiles| whole.clone().with_tiles(tiles)));
    }
    check_planable(checkpoint, &ways, budget)?;
    let mut rejected = Vec::new();
    let memo = Memo::default();
    for way in &ways {
        let trials = Trials { checkpoint, job: way, target };
        let search = Search { trials, offload, memo: &memo };
        if let Some((schedule, plan)) = search.within(budget)? {
            let planned = Planned { job: way.clone(), schedule, plan, rejected };
            check_ram(checkpoint, &planned, target)?;
            return Ok(Ok(planned));
        }
        if way.tiling.is_none() && tiling == TilingChoice::Auto {
            rejected.push(search.why_not_whole(budget)?);
        }
    }
    let smallest = ways.last().unwrap_or(&whole);
    let least = plan_least(checkpoint, smallest, offload, target)?;
    Ok(Err(Refused { least: Box::new(least), budget_bytes: budget }))
}

/// Plans `job` so that it takes as little device memory as it can, whatever the budget.
///
/// # Errors
/// Whatever keeps the job from being planned.
pub fn plan_least(
    checkpoint: &Checkpoint,
    job: &Job,
    offload: Offload,
    target: &Target,
) -> Result<Planned, EngineError> {
    let offload = if offload == Offload::Auto { Offload::Sequential } else { offload };
    let trials = Trials { checkpoint, job, target };
    let search = Search { trials, offload, memo: &Memo::default() };
    let schedule = search.least();
    let plan = search.whole(&schedule, None)?;
    Ok(Planned { job: job.clone(), schedule, plan, rejected: Vec::new() })
}

/// Plans a job again, at run time, for what memory there is now. The picture stays: tiles are those
/// of `job`.
///
/// # Errors
/// As [`plan`].
pub fn replan(
    checkpoint: &Checkpoint,
    job: &Job,
    offload: Offload,
    target: &Target,
    state: Option<&RunState>,
) -> Result<Result<Planned, Refused>, EngineError> {
    let trials = Trials { checkpoint, job, target };
    let search = Search { trials, offload, memo: &Memo::default() };
    let budget_bytes = target.budget_bytes();
    let Some((schedule, _)) = search.within(budget_bytes)? else {
        let least = plan_least(checkpoint, job, offload, target)?;
        return Ok(Err(Refused { least: Box::new(least), budget_bytes }));
    };
    let plan = search.whole(&schedule, state)?;
    let planned = Planned { job: job.clone(), schedule, plan, rejected: Vec::new() };
    check_ram(checkpoint, &planned, target)?;
    Ok(Ok(planned))
}

/// Refuses a job that is beyond all measure without planning it: the plan alone could take more
/// memory than there is.
fn check_planable(
    checkpoint: &Checkpoint,
    ways: &[Job],
    available_bytes: u64,
) -> Result<(), EngineError> {
    for job in ways {
        let frames = job.latent_frames - job.padding_frames;
        let size = (job.latent_height, job.latent_width);
        let pieces = vae::decoder_passes(&checkpoint.vae.config, job.tiling, frames, size);
        let required_bytes = job.least_bytes(checkpoint.transformer.config.inner_dim());
        let is_boundless = pieces > MOST_PIECES || required_bytes > MOST_BYTES;
        if is_boundless && required_bytes > available_bytes {
            let tiled = job.tiling.is_some();
            return Err(EngineError::DoesNotFit { required_bytes, available_bytes, tiled });
        }
        if is_boundless {
            return Err(EngineError::Request(format!(
                "{} frames of {}×{} pixels are more than vidfit plans",
                job.frames, job.width, job.height
            )));
        }
    }
    Ok(())
}

/// Refuses what the host has no memory for. On a device that is the host, the budget says it all.
fn check_ram(
    checkpoint: &Checkpoint,
    planned: &Planned,
    target: &Target,
) -> Result<(), EngineError> {
    let required_bytes = ram_peak_bytes(checkpoint, planned, target);
    match target.ram_bytes {
        Some(available_bytes) if !target.shares_ram && required_bytes > available_bytes => {
            Err(EngineError::NotEnoughRam { required_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}

/// Tiles smaller than `tiles` of about the same proportions, whose pieces meet.
fn smaller(checkpoint: &Checkpoint, tiles: Tiling) -> impl Iterator<Item = Tiling> + '_ {
    let config = &checkpoint.vae.config;
    [(2, 3), (1, 3)].into_iter().filter_map(move |(num, den)| {
        let unit = config.spatial_ratio();
        let below = |pixels: usize| (1..=pixels * num / den / unit).rev().map(move |n| n * unit);
        let fits = |height: &usize| {
            Tiling { height: *height, width: tiles.width }.problem(config).is_none()
        };
        let height = below(tiles.height).find(fits)?;
        let fits = |width: &usize| Tiling { height, width: *width }.problem(config).is_none();
        let width = below(tiles.width).find(fits)?;
        Some(Tiling { height, width })
    })
}
