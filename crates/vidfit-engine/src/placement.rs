//! Where weights are while a component works.
//!
//! A device that reads host memory uses a weight from the memory map where the stored type and
//! layout will do. Everything else is *brought*: read, converted and packed on the host, and copied
//! to the device beside the computing; what LoRAs add to a weight comes with it, and is added there
//! ([`Adapted`]). What a phase can afford stays there (it is *resident*); the
//! rest of each block is *streamed*: it comes through a ring of slots, each time that the block is
//! used. Model code asks for a block and cannot tell the difference.

mod adapted;
mod packed;
mod ring;
mod share;
mod warm;

pub use adapted::Adapted;
pub(crate) use packed::LAID_OUT_AT_ONCE;
pub use packed::Packed;
pub use share::{Rung, Share, Split};
pub use warm::{Part, Parts, Warm, WarmWeights, warm_bytes};

use crate::checkpoint::StoredWeights;
pub(crate) use packed::widen;
use ring::Ring;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use vidfit_cogvideox::weights::{Block, BlockSpec, Form, WeightSpec, Weights};
use vidfit_tensor::{Context, DType, Error, Fence, Tensor};

/// How a phase's weights are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Streaming {
    /// Bytes of weights that may stay on the device for the whole phase.
    pub resident_bytes: u64,
    /// Slots of the ring that the others come through: with two or more, the next block is copied
    /// while this one is used.
    pub slots: usize,
    /// Whether streamed weights that need conversion are kept converted in host memory.
    pub keeps_converted: bool,
}

impl Streaming {
    /// Everything stays.
    pub const RESIDENT: Streaming =
        Streaming { resident_bytes: u64::MAX, slots: 1, keeps_converted: false };

    /// Nothing stays.
    pub fn through(slots: usize) -> Streaming {
        Streaming { resident_bytes: 0, slots, keeps_converted: false }
    }
}

/// In which order a phase uses blocks.
#[derive(Clone, Debug)]
pub struct Use {
    /// The blocks of one pass, in order.
    pub blocks: Vec<String>,
    /// How often all of them are used, one pass after the other.
    pub passes: usize,
}

/// A component's weights for the time that it works.
pub struct Placed<'a> {
    cx: Context<'a>,
    weights: Adapted<'a>,
    dtype: DType,
    /// In the order of the usage.
    resident: Vec<Resident>,
    places: BTreeMap<String, usize>,
    /// Passed when all memory here may be written.
    born: Fence,
    ring: RefCell<Ring<'a>>,
}

/// What of a block is on the device throughout.
struct Resident {
    tensors: BTreeMap<String, Tensor>,
    /// The copy that brings it, until somebody has waited for it.
    coming: RefCell<Option<Coming>>,
}

/// A copy to be made, or under way.
struct Coming {
    source: Arc<Packed>,
    memory: Tensor,
    fence: Option<Fence>,
}

/// Blocks whose resident weights are copied ahead of their first use, so that what is streamed for
/// the first blocks need not wait for what stays of the last.
const BLOCKS_AHEAD: usize = 3;

impl<'a> Placed<'a> {
    /// Reserves the memory of resident weights and of the ring's slots, and begins to fill both.
    /// `dtype` is the type of the run.
    ///
    /// # Errors
    /// As [`vidfit_tensor::Arena::alloc`].
    pub fn new(
        cx: Context<'a>,
        weights: impl Into<Adapted<'a>>,
        dtype: DType,
        usage: Use,
        streaming: Streaming,
    ) -> Result<Placed<'a>, Error> {
        let weights = weights.into();
        let profile = cx.device.profile();
        let is_in_place = |spec: &WeightSpec| weights.is_in_place(profile, dtype, spec);
        let specs = usage.blocks.iter().map(|name| find(weights.stored, name));
        let specs = specs.collect::<Result<Vec<_>, Error>>()?;
        let bytes = |spec: &WeightSpec| weights.packed_bytes(dtype, spec);
        let share = Share::new(&specs, &bytes, &is_in_place, streaming.resident_bytes);

        let mut resident = Vec::new();
        for (spec, split) in specs.iter().zip(&share.splits) {
            let mut tensors = in_place(weights.stored, spec, &split.in_place);
            let mut coming = None;
            if !split.resident.is_empty() {
                let packed = Packed::new(weights, dtype, spec, &split.resident);
                let label = format!("{} weights", spec.name);
                let memory = alloc_bytes(&cx, &label, packed.bytes())?;
                tensors.extend(packed.views(&memory));
                coming = Some(Coming { source: Arc::new(packed), memory, fence: None });
            }
            resident.push(Resident { tensors, coming: RefCell::new(coming) });
        }
        let places = specs.iter().enumerate().map(|(place, spec)| (spec.name.clone(), place));
        let places = places.collect();
        let born = cx.device.fence();
        let streamed = specs.iter().zip(&share.splits).map(|(spec, split)| {
            let packed = Packed::new(weights, dtype, spec, &split.streamed);
            (spec.name.clone(), packed)
        });
        let ring = Ring::new(cx, streamed.collect(), usage.passes, streaming)?;
        // Begun last, when nothing fails any more: whoever drops this waits for it.
        bring_ahead(&cx, &resident, 0, born);
        Ok(Placed { cx, weights, dtype, resident, places, born, ring: RefCell::new(ring) })
    }

    /// For weights that are on the device already: nothing is reserved, nothing brought. `warm` holds
    /// them; a dry run has none.
    ///
    /// # Errors
    /// [`Error::Deviation`] or [`Error::Model`] if they are not there.
    pub fn warm(
        cx: Context<'a>,
        weights: &'a StoredWeights,
        dtype: DType,
        usage: Use,
        warm: Option<&WarmWeights>,
    ) -> Result<Placed<'a>, Error> {
        let specs = usage.blocks.iter().map(|name| find(weights, name));
        let specs = specs.collect::<Result<Vec<_>, Error>>()?;
        let resident = specs.iter().map(|spec| {
            let tensors = warm::tensors(&cx, weights, dtype, spec, warm)?;
            Ok(Resident { tensors, coming: RefCell::new(None) })
        });
        let resident = resident.collect::<Result<Vec<_>, Error>>()?;
        let places = specs.iter().enumerate().map(|(place, spec)| (spec.name.clone(), place));
        let places = places.collect();
        let nothing =
            |spec: &&BlockSpec| (spec.name.clone(), Packed::new(weights.into(), dtype, spec, &[]));
        let blocks = specs.iter().map(nothing).collect();
        let ring = Ring::new(cx, blocks, usage.passes, Streaming::through(1))?;
        let born = cx.device.fence();
        let weights = weights.into();
        Ok(Placed { cx, weights, dtype, resident, places, born, ring: RefCell::new(ring) })
    }

    /// A block that is no part of the usage: in place, or whole in memory of its own, which lives
    /// as long as a handle on it.
    fn bring_whole(&self, name: &str) -> Result<Block, Error> {
        let spec = find(self.weights.stored, name)?;
        let profile = self.cx.device.profile();
        let is_in_place = |spec: &&WeightSpec| self.weights.is_in_place(profile, self.dtype, spec);
        let used = spec.weights.iter().filter(|weight| weight.form != Form::HostRows);
        let (placed, brought): (Vec<&WeightSpec>, Vec<&WeightSpec>) = used.partition(is_in_place);
        let mut tensors = in_place(self.weights.stored, spec, &placed);
        if !brought.is_empty() {
            let packed = Packed::new(self.weights, self.dtype, spec, &brought);
            let memory = alloc_bytes(&self.cx, &format!("{name} weights"), packed.bytes())?;
            tensors.extend(packed.views(&memory));
            let packed = Arc::new(packed);
            self.cx.copy_in(&(packed.clone() as Arc<_>), &memory)?;
            packed.add_factors(self.cx.device, &memory);
        }
        Ok(Block::new(tensors))
    }
}

impl Weights for Placed<'_> {
    fn block(&self, name: &str) -> Result<Block, Error> {
        let Some(&place) = self.places.get(name) else { return self.bring_whole(name) };
        bring_ahead(&self.cx, &self.resident, place, self.born);
        let resident = &self.resident[place];
        if let Some(Coming { source, memory, fence: Some(fence) }) = resident.coming.take() {
            self.cx.arrive(fence, &(source.clone() as Arc<_>), &memory)?;
            source.add_factors(self.cx.device, &memory);
        }
        let mut tensors = resident.tensors.clone();
        tensors.extend(self.ring.borrow_mut().next(name)?);
        Ok(Block::new(tensors))
    }

    fn rows(&self, key: &str, rows: &[usize]) -> Result<Vec<f32>, Error> {
        let weights = self.weights.stored;
        let spec = weights.spec(key);
        let spec = spec.ok_or_else(|| Error::model(format!("the model has no weight {key}")))?;
        let (width, stored) = (spec.shape.columns(), weights.dtype(spec));
        let source = weights.source(spec);
        let mut bytes = vec![0; width * stored.bytes() as usize];
        let mut values = vec![0.0; rows.len() * width];
        for (out, &row) in values.chunks_exact_mut(width).zip(rows) {
            if row >= spec.shape.rows() {
                return Err(Error::model(format!("{key} has no row {row}")));
            }
            source.read((row * bytes.len()) as u64, &mut bytes).map_err(Error::model)?;
            widen(&bytes, stored, 0, out);
        }
        Ok(values)
    }
}

impl Drop for Placed<'_> {
    /// A run that ends early may leave copies under way to memory that is about to be used anew.
    fn drop(&mut self) {
        for resident in &self.resident {
            if let Some(Coming { fence: Some(fence), .. }) = resident.coming.take() {
                let _ = self.cx.device.wait(fence);
            }
        }
    }
}

/// What every allowance of resident bytes comes to, for weights used in these blocks on a device
/// that reads no host memory.
///
/// # Errors
/// [`Error::Model`] if there is no such block.
pub fn ladder<'w>(
    weights: impl Into<Adapted<'w>>,
    dtype: DType,
    blocks: &[String],
) -> Result<Vec<Rung>, Error> {
    let weights = weights.into();
    let specs = blocks.iter().map(|name| find(weights.stored, name));
    let specs = specs.collect::<Result<Vec<_>, Error>>()?;
    Ok(Share::ladder(&specs, &|spec| weights.packed_bytes(dtype, spec), &|_| false))
}

/// Begins to copy what stays of the block at `place` and of those after it, as far as nobody has.
fn bring_ahead(cx: &Context<'_>, resident: &[Resident], place: usize, born: Fence) {
    for resident in resident.iter().skip(place).take(BLOCKS_AHEAD) {
        if let Some(coming) = &mut *resident.coming.borrow_mut() {
            let Coming { source, memory, fence } = coming;
            fence.get_or_insert_with(|| cx.device.begin_upload(source.clone(), memory, &[born]));
        }
    }
}

fn in_place(
    weights: &StoredWeights,
    block: &BlockSpec,
    specs: &[&WeightSpec],
) -> BTreeMap<String, Tensor> {
    let tensor = |spec: &&WeightSpec| (key_within(block, spec), weights.in_place(spec));
    specs.iter().map(tensor).collect()
}

/// A weight's key within its block.
fn key_within(block: &BlockSpec, spec: &WeightSpec) -> String {
    spec.key[block.prefix.len()..].to_owned()
}

fn find<'w>(weights: &'w StoredWeights, name: &str) -> Result<&'w BlockSpec, Error> {
    let spec = weights.manifest.block(name);
    spec.ok_or_else(|| Error::model(format!("the model has no block {name}")))
}

/// Memory for so many bytes, a multiple of four.
fn alloc_bytes(cx: &Context<'_>, label: &str, bytes: u64) -> Result<Tensor, Error> {
    cx.alloc(label, DType::F32, [(bytes / DType::F32.bytes()) as usize])
}
