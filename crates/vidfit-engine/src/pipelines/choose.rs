//! Which weights a job finds on the device, and leaves there.

use super::kept::Key;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::generate::Prepared;
use crate::placement::{Part, Parts, warm_bytes};
use crate::planner::{Ask, Offload, PlanReport, Planned, Refused, Target, replan};
use crate::request::{Job, Warnings};
use crate::state::RunState;

/// A plan with warm weights may take this share longer than one without: the next job is spared
/// bringing them.
const LONGER: f64 = 1.03;

/// A job that fits without any warm weights, and how that was decided.
#[derive(Clone)]
pub struct Decided {
    /// The job and its plan.
    pub planned: Planned,
    /// What the user should know.
    pub warnings: Warnings,
    /// The strategy.
    pub offload: Offload,
    /// What it is planned for, as if no weights were on it.
    pub target: Target,
}

impl Decided {
    /// Plans what is asked for, from where `state` left off.
    ///
    /// # Errors
    /// As [`Ask::plan`].
    pub fn on(
        ask: &Ask<'_>,
        state: Option<&RunState>,
    ) -> Result<Result<Decided, Refused>, EngineError> {
        let Ask { checkpoint, request, offload, target } = *ask;
        let (_, warnings) = Job::new(checkpoint, request)?;
        let whole = match ask.plan()? {
            Ok(planned) => planned,
            Err(refused) => return Ok(Err(refused)),
        };
        let planned = match state {
            None => whole,
            Some(_) => match replan(checkpoint, &whole.job, offload, target, state)? {
                Ok(planned) => Planned { rejected: whole.rejected, ..planned },
                Err(refused) => return Ok(Err(refused)),
            },
        };
        Ok(Ok(Decided { planned, warnings, offload, target: target.clone() }))
    }

    pub(super) fn prepared(&self) -> Prepared {
        Prepared::new(self.planned.clone(), self.warnings.clone())
    }
}

/// A job that fits, and the weights that it finds on the device.
pub struct PlannedJob {
    /// The job and its plan, warm weights not included.
    pub planned: Planned,
    /// What it is planned for: also says which weights are warm, and what all warm weights take.
    pub target: Target,
    /// The job without any warm weights: run if there is less memory by then, and to be saved with a
    /// run, which may go on where nothing is warm.
    pub cold: Decided,
    /// Its weights that are there when it begins.
    pub(super) own: Vec<(Part, Key)>,
    /// The other pipelines whose weights stay.
    pub(super) staying: Vec<u64>,
}

impl PlannedJob {
    /// Device memory at its fullest: the arena, the operations' scratch and all warm weights.
    pub fn device_bytes(&self) -> u64 {
        self.planned.plan.device_bytes() + self.target.warm_bytes
    }

    /// The report of it.
    pub fn report(&self, checkpoint: &Checkpoint) -> PlanReport {
        PlanReport::of(checkpoint, &self.planned, self.cold.offload, &self.target)
    }

    pub(super) fn prepared(&self) -> Prepared {
        Prepared::new(self.planned.clone(), self.cold.warnings.clone())
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.own.iter().map(|(_, key)| key.clone()).collect()
    }
}

/// Plans a job for a device that keeps weights of so many pipelines, in the first of these ways that
/// fits and is not slower: with all its weights warm, with those of the transformer and the VAE, of
/// the transformer, of the VAE, with none. Others' weights stay as far as there is room besides:
/// `staying` says which do beside these of the job, of so many pipelines, in so many bytes.
///
/// What is kept changes no picture: tiles are those of the job without warm weights.
pub(super) fn choose(
    checkpoint: &Checkpoint,
    cold: Decided,
    state: Option<&RunState>,
    pipelines: usize,
    staying: impl FnOnce(&[Key], usize, u64) -> (Vec<u64>, u64),
) -> Result<PlannedJob, EngineError> {
    let may = matches!(cold.offload, Offload::Auto | Offload::None | Offload::Model);
    let warm = match pipelines > 0 && may {
        true => first_that_fits(checkpoint, &cold, state)?,
        false => None,
    };
    let (planned, target) = warm.unwrap_or_else(|| (cold.planned.clone(), cold.target.clone()));

    let key = |part| (part, Key::of(checkpoint, part, planned.job.dtype));
    let own: Vec<(Part, Key)> = target.warm.iter().map(key).collect();
    let keys: Vec<Key> = own.iter().map(|(_, key)| key.clone()).collect();
    let others = if own.is_empty() { pipelines } else { pipelines - 1 };
    let taken = target.reserved_bytes(&planned.plan.layout, planned.plan.scratch_bytes);
    let (staying, bytes) = staying(&keys, others, target.budget_bytes().saturating_sub(taken));
    let target = Target { warm_bytes: target.warm_bytes + bytes, ..target };
    Ok(PlannedJob { planned, target, cold, own, staying })
}

/// The first set of parts with which the job fits as it is, and is not much slower.
fn first_that_fits(
    checkpoint: &Checkpoint,
    Decided { planned: cold, offload, target, .. }: &Decided,
    state: Option<&RunState>,
) -> Result<Option<(Planned, Target)>, EngineError> {
    let job = &cold.job;
    let bytes_of = |part: Part| -> Result<(Part, u64), EngineError> {
        let (weights, blocks) = part.of(checkpoint);
        Ok((part, warm_bytes(weights, job.dtype, &blocks, &target.profile)?))
    };
    // A run that goes on is done with the text, and once it has begun, with what it starts from.
    let is_used = |part: &Part| match part {
        Part::TextEncoder => state.is_none(),
        Part::Encoder => job.given_frames > 0 && !state.is_some_and(RunState::has_begun),
        // What LoRAs change is no other job's.
        Part::Transformer => job.loras.is_empty(),
        Part::Decoder => true,
    };
    let used = Part::ALL.into_iter().filter(is_used);
    let sizes = used.map(bytes_of).collect::<Result<Vec<_>, _>>()?;
    let least_bytes = job.least_bytes(checkpoint.transformer.config.inner_dim());
    let mut tried = Parts::default();
    for candidate in CANDIDATES {
        let chosen = sizes.iter().filter(|(part, bytes)| candidate.contains(part) && *bytes > 0);
        let warm: Parts = chosen.clone().map(|(part, _)| *part).collect();
        let target =
            Target { warm, warm_bytes: chosen.map(|(_, bytes)| bytes).sum(), ..target.clone() };
        if warm.is_empty() || warm == tried || least_bytes > target.budget_bytes() {
            continue;
        }
        tried = warm;
        match replan(checkpoint, job, *offload, &target, state) {
            Ok(Ok(planned)) if planned.plan.seconds() <= cold.plan.seconds() * LONGER => {
                let planned = Planned { rejected: cold.rejected.clone(), ..planned };
                return Ok(Some((planned, target)));
            }
            Ok(_) | Err(EngineError::NotEnoughRam { .. } | EngineError::DoesNotFit { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

/// What may stay, what is worth most first.
const CANDIDATES: [&[Part]; 4] = [
    &Part::ALL,
    &[Part::Transformer, Part::Encoder, Part::Decoder],
    &[Part::Transformer],
    &[Part::Encoder, Part::Decoder],
];
