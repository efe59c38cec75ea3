//! Weights that are on a device before a job begins and stay when it ends.

use super::{Adapted, Packed, alloc_bytes, find, in_place};
use crate::checkpoint::{Checkpoint, StoredWeights};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use vidfit_cogvideox::weights::{BlockSpec, Form, WeightSpec};
use vidfit_tensor::{
    Arena, Context, DType, Device, Error, Layout, Monitor, Profile, Region, Tensor, solve,
};

/// Weights of a checkpoint that are used together, and stay or go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The text encoder.
    TextEncoder,
    /// The transformer, with what all steps share.
    Transformer,
    /// The VAE's encoder.
    Encoder,
    /// The VAE's decoder.
    Decoder,
}

impl Part {
    /// All of them, in the order of their first use.
    pub const ALL: [Part; 4] = [Part::TextEncoder, Part::Encoder, Part::Transformer, Part::Decoder];

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Part::TextEncoder => "text encoder",
            Part::Transformer => "transformer",
            Part::Encoder => "VAE encoder",
            Part::Decoder => "VAE decoder",
        }
    }

    /// The part's weights in a checkpoint, and the blocks of them that it is.
    pub fn of(self, checkpoint: &Checkpoint) -> (&StoredWeights, Vec<String>) {
        let Checkpoint { text_encoder, transformer, vae, .. } = checkpoint;
        match self {
            Part::TextEncoder => (&text_encoder.weights, text_encoder.config.encoder_blocks()),
            Part::Transformer => {
                let mut blocks = transformer.config.conditioning_blocks();
                blocks.extend(transformer.config.step_blocks());
                (&transformer.weights, blocks)
            }
            Part::Encoder => (&vae.weights, vae.config.encoder_blocks()),
            Part::Decoder => (&vae.weights, vae.config.decoder_blocks()),
        }
    }
}

/// A set of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parts {
    text_encoder: bool,
    transformer: bool,
    encoder: bool,
    decoder: bool,
}

impl Parts {
    /// Whether `part` is one of them.
    pub fn has(self, part: Part) -> bool {
        match part {
            Part::TextEncoder => self.text_encoder,
            Part::Transformer => self.transformer,
            Part::Encoder => self.encoder,
            Part::Decoder => self.decoder,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Parts::default()
    }

    /// The parts, in the order of their first use.
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |&part| self.has(part))
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Parts {
        let mut all = Parts::default();
        for part in parts {
            match part {
                Part::TextEncoder => all.text_encoder = true,
                Part::Transformer => all.transformer = true,
                Part::Encoder => all.encoder = true,
                Part::Decoder => all.decoder = true,
            }
        }
        all
    }
}

/// What a job finds on its device, by part.
#[derive(Clone, Default)]
pub struct Warm {
    parts: BTreeMap<Part, Arc<WarmWeights>>,
}

impl Warm {
    /// The weights of a part, if they are there.
    pub fn get(&self, part: Part) -> Option<&WarmWeights> {
        self.parts.get(&part).map(|weights| &**weights)
    }
}

impl FromIterator<(Part, Arc<WarmWeights>)> for Warm {
    fn from_iter<I: IntoIterator<Item = (Part, Arc<WarmWeights>)>>(parts: I) -> Warm {
        Warm { parts: parts.into_iter().collect() }
    }
}

/// Weights on a device, converted and packed as a job would bring them, in a reservation of their
/// own. Dropped, they give it back.
pub struct WarmWeights {
    /// The weights that lie there, by block.
    blocks: BTreeMap<String, BTreeMap<String, Tensor>>,
    reserved: Reserved,
}

/// A warm region for as long as this lives.
struct Reserved {
    device: Arc<dyn Device>,
    region: Region,
    bytes: u64,
}

impl Reserved {
    fn new(device: &Arc<dyn Device>, bytes: u64) -> Result<Reserved, Error> {
        let region = device.reserve_warm(bytes)?;
        Ok(Reserved { device: device.clone(), region, bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.device.release_warm(self.region);
    }
}

/// Copies under way at a time: the next is read and converted while one is copied.
const COPIES_AHEAD: usize = 2;

impl WarmWeights {
    /// Reserves memory for `blocks` of `weights` as a run of `dtype` uses them, exactly what
    /// [`warm_bytes`] says, and fills it. Copies that fail are tried again.
    ///
    /// # Errors
    /// [`Error::Device`] if the memory cannot be had, [`Error::Transfer`] if a copy failed again and
    /// again, or what `monitor` says. Nothing stays reserved then.
    pub fn load(
        device: &Arc<dyn Device>,
        weights: &StoredWeights,
        dtype: DType,
        blocks: &[String],
        monitor: &dyn Monitor,
    ) -> Result<WarmWeights, Error> {
        let packed = packed(weights, dtype, blocks, device.profile())?;
        let layout = layout(&packed, device.profile())?;
        let reserved = Reserved::new(device, layout.peak_bytes)?;
        let arena = Arena::replay_in(reserved.region, layout);
        let cx = Context::new(&**device, &arena, monitor);
        let memory = alloc(&cx, &packed)?;
        let mut first_byte = 0;
        let placed = packed.into_iter().map(|(name, packed)| {
            let count = (packed.bytes() / DType::F32.bytes()) as usize;
            let room = memory.recast(first_byte, DType::F32, [count]);
            first_byte += packed.bytes();
            (name, Arc::new(packed), room)
        });
        let placed: Vec<_> = placed.collect();
        bring(&cx, &placed)?;
        let views = |(name, packed, room): (String, Arc<Packed>, Tensor)| {
            (name, packed.views(&room).collect::<BTreeMap<_, _>>())
        };
        Ok(WarmWeights { blocks: placed.into_iter().map(views).collect(), reserved })
    }

    /// Bytes that are reserved for them.
    pub fn bytes(&self) -> u64 {
        self.reserved.bytes
    }

    /// Those of a block that lie here.
    fn of(&self, block: &BlockSpec) -> Result<BTreeMap<String, Tensor>, Error> {
        let found = self.blocks.get(&block.name).cloned();
        found.ok_or_else(|| Error::model(format!("{} is not among the warm weights", block.name)))
    }
}

/// Bytes that [`WarmWeights::load`] reserves on a device with this profile: 0 if it reads all of
/// these weights where they are stored.
///
/// # Errors
/// [`Error::Model`] if there is no such block.
pub fn warm_bytes(
    weights: &StoredWeights,
    dtype: DType,
    blocks: &[String],
    profile: &Profile,
) -> Result<u64, Error> {
    let packed = packed(weights, dtype, blocks, profile)?;
    match packed.iter().any(|(_, packed)| packed.bytes() > 0) {
        true => Ok(layout(&packed, profile)?.peak_bytes),
        false => Ok(0),
    }
}

/// All weights of a block: those in place, and those that `warm` holds. A dry run has none.
pub(super) fn tensors(
    cx: &Context<'_>,
    weights: &StoredWeights,
    dtype: DType,
    block: &BlockSpec,
    warm: Option<&WarmWeights>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let (placed, brought) = split(weights, dtype, block, cx.device.profile());
    let mut tensors = in_place(weights, block, &placed);
    match warm {
        Some(warm) => tensors.extend(warm.of(block)?),
        None if cx.arena.is_recording() => {
            tensors.extend(Packed::new(weights.into(), dtype, block, &brought).nowhere());
        }
        None => {
            let what = "the plan finds weights on the device that are not there".to_owned();
            return Err(Error::Deviation { event: 0, what });
        }
    }
    Ok(tensors)
}

/// The weights of a block that are read in place, and those that are brought.
fn split<'w>(
    weights: &StoredWeights,
    dtype: DType,
    block: &'w BlockSpec,
    profile: &Profile,
) -> (Vec<&'w WeightSpec>, Vec<&'w WeightSpec>) {
    let used = block.weights.iter().filter(|weight| weight.form != Form::HostRows);
    used.partition(|spec| Adapted::from(weights).is_in_place(profile, dtype, spec))
}

/// What is brought, block by block.
fn packed(
    weights: &StoredWeights,
    dtype: DType,
    blocks: &[String],
    profile: &Profile,
) -> Result<Vec<(String, Packed)>, Error> {
    let of = |name: &String| {
        let block = find(weights, name)?;
        let (_, brought) = split(weights, dtype, block, profile);
        Ok((name.clone(), Packed::new(weights.into(), dtype, block, &brought)))
    };
    blocks.iter().map(of).collect()
}

/// Their memory, in one piece.
fn alloc(cx: &Context<'_>, packed: &[(String, Packed)]) -> Result<Tensor, Error> {
    alloc_bytes(cx, "warm weights", packed.iter().map(|(_, packed)| packed.bytes()).sum())
}

fn layout(packed: &[(String, Packed)], profile: &Profile) -> Result<Layout, Error> {
    let device = vidfit_tensor::DryDevice::new(profile.clone());
    let arena = Arena::record(profile.alignment);
    drop(alloc(&Context::new(&device, &arena, &vidfit_tensor::Unwatched), packed)?);
    Ok(solve(&arena.into_trace()?))
}

/// Copies every block to its room.
fn bring(cx: &Context<'_>, blocks: &[(String, Arc<Packed>, Tensor)]) -> Result<(), Error> {
    let born = cx.device.fence();
    let mut under_way = VecDeque::new();
    let mut ahead = blocks.iter().filter(|(_, packed, _)| packed.bytes() > 0);
    let mut bring = || -> Result<(), Error> {
        loop {
            for (_, packed, room) in ahead.by_ref().take(COPIES_AHEAD - under_way.len()) {
                let fence = cx.device.begin_upload(packed.clone(), room, &[born]);
                under_way.push_back((fence, packed, room));
            }
            cx.check()?;
            let Some((fence, packed, room)) = under_way.pop_front() else { return Ok(()) };
            cx.arrive(fence, &(packed.clone() as Arc<_>), room)?;
        }
    };
    let result = bring();
    // What is under way has to end before its memory goes.
    for (fence, ..) in under_way {
        let _ = cx.device.wait(fence);
    }
    result
}
