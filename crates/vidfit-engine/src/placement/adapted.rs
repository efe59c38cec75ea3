//! Weights with what a job adds to them.

use super::Part;
use super::packed::ALIGNMENT;
use crate::checkpoint::{Checkpoint, StoredWeights};
use crate::lora::{Factors, Loras};
use crate::request::Job;
use vidfit_cogvideox::weights::{Form, WeightSpec};
use vidfit_tensor::{DType, Profile};

/// A component's weights, and the LoRAs that are added to them.
#[derive(Clone, Copy)]
pub struct Adapted<'w> {
    /// The weights.
    pub stored: &'w StoredWeights,
    /// What is added.
    pub loras: Option<&'w Loras>,
}

impl<'w> From<&'w StoredWeights> for Adapted<'w> {
    /// The weights as they are.
    fn from(stored: &'w StoredWeights) -> Adapted<'w> {
        Adapted { stored, loras: None }
    }
}

impl<'w> Adapted<'w> {
    /// The weights of a part of `checkpoint`, with what `job` adds to them.
    pub fn of(part: Part, checkpoint: &'w Checkpoint, job: &'w Job) -> Adapted<'w> {
        let (stored, _) = part.of(checkpoint);
        match part {
            Part::Transformer => Adapted { stored, loras: Some(&job.loras) },
            Part::TextEncoder | Part::Encoder | Part::Decoder => stored.into(),
        }
    }

    /// Whether nothing is added to any.
    pub fn is_plain(&self) -> bool {
        self.loras.is_none_or(Loras::is_empty)
    }

    /// What is added to a weight, in order.
    pub(super) fn added_to(&self, spec: &WeightSpec) -> &'w [Factors] {
        self.loras.map_or(&[], |loras| loras.added_to(&spec.key))
    }

    /// The type that a weight has on the device: the run's, so that it is rounded as the reference
    /// rounds it; in an f32 run its own, which widening loses nothing of. A weight that something is
    /// added to is rounded only after that: where it is not stored in the run's type, it is f32.
    pub(super) fn target(&self, dtype: DType, spec: &WeightSpec) -> DType {
        let stored = self.stored.dtype(spec);
        if !self.added_to(spec).is_empty() {
            return if stored == dtype { dtype } else { DType::F32 };
        }
        let stays = dtype == DType::F32 || (dtype == DType::F16 && spec.keep_f32);
        if stays { stored } else { dtype }
    }

    /// Bytes that a weight takes among others on the device, with the factors that come with it.
    pub(super) fn packed_bytes(&self, dtype: DType, spec: &WeightSpec) -> u64 {
        let element = self.target(dtype, spec).bytes();
        let own = (spec.shape.elements() as u64 * element).next_multiple_of(ALIGNMENT);
        let factors = self.added_to(spec).iter().flat_map(|added| [&added.a, &added.b]);
        own + factors.map(|factor| factor.bytes().next_multiple_of(ALIGNMENT)).sum::<u64>()
    }

    /// Whether a weight needs no copy at all.
    pub(super) fn is_in_place(&self, profile: &Profile, dtype: DType, spec: &WeightSpec) -> bool {
        profile.reads_host_memory
            && spec.form == Form::AsStored
            && self.added_to(spec).is_empty()
            && self.stored.dtype(spec) == self.target(dtype, spec)
            && self.stored.is_aligned(spec)
    }
}
