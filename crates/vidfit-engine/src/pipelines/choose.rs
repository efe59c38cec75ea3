//! Which weights a job finds on the device, and leaves there.

use super::kept::Key;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::placement::{Part, Parts, warm_bytes};
use crate::planner::{Offload, Planned, Target, replan};
use crate::state::RunState;

/// A plan with warm weights may take this share longer than one without: the next job is spared
/// bringing them.
const LONGER: f64 = 1.03;

/// A job that is planned twice: with the weights that it finds on the device, and without.
pub struct PlannedJob {
    /// With warm weights, which are no part of the plan's bytes: its target says which they are, and
    /// what all of them take.
    pub planned: Planned,
    /// Without any: run if there is less memory by then, and to be saved with a run, which may go on
    /// where nothing is warm.
    pub cold: Planned,
    /// Its weights that are there when it begins.
    pub(super) own: Vec<(Part, Key)>,
    /// The other pipelines whose weights stay.
    pub(super) staying: Vec<u64>,
}

impl PlannedJob {
    /// Device memory at its fullest: the arena, the operations' scratch and all warm weights.
    pub fn device_bytes(&self) -> u64 {
        self.planned.plan.device_bytes() + self.planned.target.warm_bytes
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
    cold: Planned,
    state: Option<&RunState>,
    pipelines: usize,
    staying: impl FnOnce(&[Key], usize, u64) -> (Vec<u64>, u64),
) -> Result<PlannedJob, EngineError> {
    let may = matches!(cold.offload, Offload::Auto | Offload::None | Offload::Model);
    let warm = match pipelines > 0 && may {
        true => first_that_fits(checkpoint, &cold, state)?,
        false => None,
    };
    let mut planned = warm.unwrap_or_else(|| cold.clone());

    let key = |part| (part, Key::of(checkpoint, part, planned.job.dtype));
    let target = &planned.target;
    let own: Vec<(Part, Key)> = target.warm.iter().map(key).collect();
    let keys: Vec<Key> = own.iter().map(|(_, key)| key.clone()).collect();
    let others = if own.is_empty() { pipelines } else { pipelines - 1 };
    let taken = target.reserved_bytes(&planned.plan.layout, planned.plan.scratch_bytes);
    let (staying, bytes) = staying(&keys, others, target.budget_bytes().saturating_sub(taken));
    planned.target.warm_bytes += bytes;
    Ok(PlannedJob { planned, cold, own, staying })
}

/// The first set of parts with which the job fits as it is, and is not much slower.
fn first_that_fits(
    checkpoint: &Checkpoint,
    cold: &Planned,
    state: Option<&RunState>,
) -> Result<Option<Planned>, EngineError> {
    let Planned { job, target, offload, .. } = cold;
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
                return Ok(Some(Planned { target, ..cold.clone().by(planned) }));
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
