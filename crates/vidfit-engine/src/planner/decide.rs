//! Whether a job fits, and how.

use super::planned::Planned;
use super::report::ram_peak_bytes;
use super::search::{Found, LeastOfPhases, Memo, Search};
use super::target::{Offload, Target};
use super::trial::Trials;
use super::ways::{TooLarge, Way, Ways};
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::plan::Plan;
use crate::request::{Job, Tiles, TilingChoice};
use crate::state::RunState;
use vidfit_cogvideox::vae;

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
    /// What the least plan takes of that.
    pub required_bytes: u64,
}

impl Refused {
    /// A refusal of a job that takes at least `least`.
    pub fn new(least: Planned) -> Refused {
        let Planned { plan: Plan { layout, scratch_bytes, .. }, target, .. } = &least;
        Refused {
            required_bytes: target.reserved_bytes(layout, *scratch_bytes),
            budget_bytes: target.budget_bytes(),
            least: Box::new(least),
        }
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

/// Chunks of tiles that a video may be decoded in. The longest and largest that a published model
/// was made for has 400; each takes some hundred tensors of the plan.
const MOST_PIECES: usize = 6000;

/// More than any device has.
const MOST_BYTES: u64 = 1 << 40;

/// Plans `job` for `target`: the fastest schedule that `offload` allows within the budget. If
/// `tiling` leaves it open, tiles are the last resort, of encoding and decoding each by itself: of
/// the sizes of `tiles`, then smaller ones.
///
/// # Errors
/// Whatever keeps the job from being planned at all, and [`EngineError::NotEnoughRam`]. That it does
/// not fit the device is no error, but an answer.
pub fn plan(
    checkpoint: &Checkpoint,
    job: &Job,
    (tiling, tiles): (TilingChoice, Tiles),
    offload: Offload,
    target: &Target,
) -> Result<Result<Planned, Refused>, EngineError> {
    let ways = Ways::new(checkpoint, job, tiling, tiles);
    if let Some(planned) = first_that_fits(checkpoint, &ways, offload, target)? {
        return Ok(Ok(planned));
    }
    // The smallest tiles, unless it is another phase that larger ones do not fit for.
    let least = least_of_each(checkpoint, &ways, offload, target)?;
    let besides = least.iter().map(|least| least.besides).max().unwrap_or(0);
    let way =
        ways.first_in_tiles(|way| least[way].encode <= besides, |way| least[way].decode <= besides);
    Ok(Err(Refused::new(plan_least(checkpoint, &ways.job(way), offload, target)?)))
}

/// The first of `ways` that fits, and its fastest schedule.
pub(super) fn first_that_fits(
    checkpoint: &Checkpoint,
    ways: &Ways,
    offload: Offload,
    target: &Target,
) -> Result<Option<Planned>, EngineError> {
    let budget = target.budget_bytes();
    let jobs: Vec<Job> = ways.each().map(|way| ways.job(way)).collect();
    check_planable(checkpoint, &jobs, budget)?;
    let (mut rejected, mut not_enough_ram) = (Vec::new(), None);
    let memo = Memo::default();
    let mut next = Some(Way::default());
    while let Some(way) = next {
        let job = ways.job(way);
        let trials = Trials { checkpoint, job: &job, target };
        let search = Search { trials, offload, memo: &memo, spares_ram: false, state: None };
        let least = search.least_of_phases()?;
        // What a phase takes by itself and in the whole differs by the layout alone.
        let may = |bytes: u64| bytes / 16 * 15 <= budget;
        if !may(least.besides) {
            break;
        }
        let mut too_large = TooLarge { encode: !may(least.encode), decode: !may(least.decode) };
        if !too_large.any() {
            match search.within(budget)? {
                Found::Fits(schedule, plan) => {
                    let planned = Planned::new(job.clone(), schedule, plan, offload, target);
                    let planned = Planned { rejected: rejected.clone(), ..planned };
                    match within_ram(checkpoint, planned, &search)? {
                        Ok(planned) => return Ok(Some(planned)),
                        Err(shortage) => not_enough_ram = Some(shortage),
                    }
                    too_large.decode = true;
                }
                Found::Nothing(phases) => too_large = phases,
            }
        }
        rejected.extend(ways.rejected(way, too_large, |verb| search.why_not_whole(verb, budget))?);
        next = ways.next(way, too_large);
    }
    match not_enough_ram {
        Some(shortage) => Err(shortage),
        None => Ok(None),
    }
}

/// The plan, if host memory has room for it; or one that spares host memory, if that has.
fn within_ram(
    checkpoint: &Checkpoint,
    planned: Planned,
    search: &Search<'_>,
) -> Result<Result<Planned, EngineError>, EngineError> {
    let Err(shortage) = check_ram(checkpoint, &planned) else { return Ok(Ok(planned)) };
    let memo = &Memo::default();
    let sparing = Search { spares_ram: true, memo, ..*search };
    if let Found::Fits(schedule, plan) = sparing.within(planned.target.budget_bytes())? {
        let planned = Planned { schedule, plan, ..planned };
        if check_ram(checkpoint, &planned).is_ok() {
            return Ok(Ok(planned));
        }
    }
    Ok(Err(shortage))
}

/// What each of `ways` takes at least, phase by phase, in the order of [`Ways::each`].
fn least_of_each(
    checkpoint: &Checkpoint,
    ways: &Ways,
    offload: Offload,
    target: &Target,
) -> Result<Vec<LeastOfPhases>, EngineError> {
    let least = |way: Way| {
        let trials = Trials { checkpoint, job: &ways.job(way), target };
        Ok(Search { trials, offload, memo: &Memo::default(), spares_ram: false, state: None }
            .least_of_phases()?)
    };
    ways.each().map(least).collect()
}

/// Plans `job` so that it takes as little device memory as it can, whatever the budget.
///
/// # Errors
/// Whatever keeps the job from being planned: that it is beyond all measure, too.
pub fn plan_least(
    checkpoint: &Checkpoint,
    job: &Job,
    offload: Offload,
    target: &Target,
) -> Result<Planned, EngineError> {
    check_planable(checkpoint, std::slice::from_ref(job), target.budget_bytes())?;
    let least = if offload == Offload::Auto { Offload::Sequential } else { offload };
    let trials = Trials { checkpoint, job, target };
    let search =
        Search { trials, offload: least, memo: &Memo::default(), spares_ram: false, state: None };
    let schedule = search.least()?;
    let plan = search.whole(&schedule)?;
    Ok(Planned::new(job.clone(), schedule, plan, offload, target))
}

/// Whether some schedule of one of `ways` may fit: what its phases take at least, each by itself, is
/// not clearly beyond the budget. Much faster than a plan.
pub(super) fn may_fit(
    checkpoint: &Checkpoint,
    ways: &Ways,
    offload: Offload,
    target: &Target,
) -> Result<bool, EngineError> {
    let budget = target.budget_bytes();
    let least = least_of_each(checkpoint, ways, offload, target)?;
    let least_of = |phase: fn(&LeastOfPhases) -> u64| least.iter().map(phase).min().unwrap_or(0);
    let phases = [
        least_of(|least| least.besides),
        least_of(|least| least.encode),
        least_of(|least| least.decode),
    ];
    Ok(phases.into_iter().all(|bytes| bytes / 16 * 15 <= budget))
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
    check_planable(checkpoint, std::slice::from_ref(job), target.budget_bytes())?;
    let trials = Trials { checkpoint, job, target };
    let search = Search { trials, offload, memo: &Memo::default(), spares_ram: false, state };
    let budget_bytes = target.budget_bytes();
    let Found::Fits(schedule, plan) = search.within(budget_bytes)? else {
        return Ok(Err(Refused::new(plan_least(checkpoint, job, offload, target)?)));
    };
    let planned = Planned::new(job.clone(), schedule, plan, offload, target);
    check_ram(checkpoint, &planned)?;
    Ok(Ok(planned))
}

/// Refuses a job that is beyond all measure without planning it: the plan alone could take more
/// memory than there is.
pub(super) fn check_planable(
    checkpoint: &Checkpoint,
    ways: &[Job],
    available_bytes: u64,
) -> Result<(), EngineError> {
    for job in ways {
        let frames = job.latent_frames - job.padding_frames;
        let size = (job.latent_height, job.latent_width);
        let (config, given) = (&checkpoint.vae.config, job.given_frames);
        let decoded = vae::decoder_passes(config, job.tiling, frames, size);
        let size = (job.height, job.width);
        let encoded = match given {
            0 => 0,
            _ => vae::encoder_passes(config, job.encode_tiling, given, size),
        };
        let pieces = decoded + encoded;
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
fn check_ram(checkpoint: &Checkpoint, planned: &Planned) -> Result<(), EngineError> {
    let required_bytes = ram_peak_bytes(checkpoint, planned);
    let target = &planned.target;
    match target.ram_bytes {
        Some(available_bytes) if !target.shares_ram && required_bytes > available_bytes => {
            Err(EngineError::NotEnoughRam { required_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}
