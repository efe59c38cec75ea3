//! Weights of a block, one after another, as the device gets them: converted and laid out on the
//! host, piece by piece.

use super::{Adapted, key_within};
use crate::checkpoint::WeightSource;
use crate::lora::Factor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vidfit_cogvideox::weights::{BlockSpec, Form, WeightSpec};
use vidfit_tensor::{DType, Device, HostBuffer, HostSource, LowRank, Shape, Tensor};

/// Weights begin at multiples of this, as every device's arena allows.
pub(super) const ALIGNMENT: u64 = 256;

/// Elements that are converted at a time.
const CONVERTED_AT_ONCE: usize = 4096;

/// Weights to be brought together, each followed by the factors of what is added to it.
pub struct Packed {
    parts: Vec<Part>,
    sums: Vec<Sum>,
    bytes: u64,
    /// The bytes as the device gets them, once they have been made.
    kept: Option<Kept>,
    /// Convolutions that are being laid out: each with its number among the parts, and its stored
    /// bytes, which are needed in another order than they have.
    laid_out: Mutex<Vec<(usize, Arc<Vec<u8>>)>>,
}

/// Large convolutions whose bytes are held at once at most: pieces are asked for by several threads, so
/// that one may be at the next while another is not done with the last.
pub(crate) const LAID_OUT_AT_ONCE: u64 = 2;

struct Kept {
    buffer: HostBuffer,
    is_made: Mutex<bool>,
}

/// What is added to a weight once it has arrived.
struct Sum {
    /// The number of the weight among the parts.
    weight: usize,
    /// The numbers of the factors `a` and `b`, and what their product is multiplied by.
    terms: Vec<(usize, usize, f32)>,
}

struct Part {
    /// The weight's key within its block; a factor has none.
    key: Option<String>,
    source: WeightSource,
    stored: DType,
    target: DType,
    form: Form,
    shape: Shape,
    first_byte: u64,
}

impl Packed {
    /// These weights of a block.
    pub(super) fn new(
        weights: Adapted<'_>,
        dtype: DType,
        block: &BlockSpec,
        specs: &[&WeightSpec],
    ) -> Packed {
        let (sums, laid_out) = (Vec::new(), Mutex::default());
        let parts = Vec::with_capacity(specs.len());
        let mut packed = Packed { parts, sums, bytes: 0, kept: None, laid_out };
        for spec in specs {
            let weight = packed.push(Part {
                key: Some(key_within(block, spec)),
                source: weights.stored.source(spec),
                stored: weights.stored.dtype(spec),
                target: weights.target(dtype, spec),
                form: spec.form,
                shape: spec.shape,
                first_byte: 0,
            });
            let added = weights.added_to(spec).iter();
            let terms: Vec<_> = added
                .map(|added| {
                    let a = packed.push(Part::of_factor(&added.a));
                    let b = packed.push(Part::of_factor(&added.b));
                    (a, b, added.factor)
                })
                .collect();
            if !terms.is_empty() {
                packed.sums.push(Sum { weight, terms });
            }
        }
        packed
    }

    /// Puts a part behind those there are; its number.
    fn push(&mut self, part: Part) -> usize {
        let bytes = part.shape.elements() as u64 * part.target.bytes();
        self.parts.push(Part { first_byte: self.bytes, ..part });
        self.bytes += bytes.next_multiple_of(ALIGNMENT);
        self.parts.len() - 1
    }

    /// Bytes of all of them, padding included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether any is stored otherwise than the device needs it.
    pub fn needs_conversion(&self) -> bool {
        self.parts.iter().any(|part| part.stored != part.target || part.form == Form::TapsFirst)
    }

    /// Keeps what the device gets in `buffer`, so that it is converted once.
    pub fn keep_in(&mut self, buffer: HostBuffer) {
        self.kept = Some(Kept { buffer, is_made: Mutex::new(false) });
    }

    /// The weights as tensors in `memory`, from its beginning on.
    pub fn views<'p>(&'p self, memory: &'p Tensor) -> impl Iterator<Item = (String, Tensor)> + 'p {
        let weights = self.parts.iter().filter_map(|part| Some((part.key.clone()?, part)));
        weights.map(move |(key, part)| (key, part.view(memory)))
    }

    /// Adds to the weights that have arrived in `memory` what is to be added to them: once after
    /// every arrival, however often it was tried, since each brings the weights as they are stored.
    pub fn add_factors(&self, device: &dyn Device, memory: &Tensor) {
        for Sum { weight, terms } in &self.sums {
            let view = |number: usize| self.parts[number].view(memory);
            let factors: Vec<(Tensor, Tensor, f32)> =
                terms.iter().map(|&(a, b, factor)| (view(a), view(b), factor)).collect();
            let terms: Vec<LowRank<'_>> =
                factors.iter().map(|(a, b, factor)| LowRank { a, b, factor: *factor }).collect();
            device.low_rank_add(&terms, &mut view(*weight));
        }
    }

    /// The weights as tensors without elements, for dry runs.
    pub fn nowhere(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let weights = self.parts.iter().filter_map(|part| Some((part.key.clone()?, part)));
        weights.map(|(key, part)| (key, Tensor::nowhere(part.target, part.shape)))
    }

    /// Makes the bytes from `first` on.
    fn make(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let end = first + piece.len() as u64;
        let mut made = first;
        for (number, part) in self.parts.iter().enumerate() {
            let elements = part.shape.elements() as u64;
            let width = part.target.bytes();
            let part_end = part.first_byte + elements * width;
            let (from, to) = (first.max(part.first_byte), end.min(part_end));
            if from < to {
                let start = ((from - part.first_byte) / width) as usize;
                // What lies between two parts is nothing.
                piece[(made - first) as usize..(from - first) as usize].fill(0);
                let out = &mut piece[(from - first) as usize..(to - first) as usize];
                match part.form {
                    Form::TapsFirst => part.gather(&self.laid_out(number)?, start, out),
                    _ => part.convert(start, out)?,
                }
                made = to;
            }
        }
        piece[(made - first) as usize..].fill(0);
        Ok(())
    }

    /// The stored bytes of the convolution `number`, read once for all its pieces.
    fn laid_out(&self, number: usize) -> Result<Arc<Vec<u8>>, String> {
        let mut held = self.held();
        if let Some((_, bytes)) = held.iter().find(|(held, _)| *held == number) {
            return Ok(bytes.clone());
        }
        // Pieces are asked for about in their order: nobody comes back to one that nobody is at.
        held.retain(|(_, bytes)| Arc::strong_count(bytes) > 1);
        let part = &self.parts[number];
        let mut bytes = vec![0; part.shape.elements() * part.stored.bytes() as usize];
        part.source.read(0, &mut bytes)?;
        let bytes = Arc::new(bytes);
        held.push((number, bytes.clone()));
        Ok(bytes)
    }

    /// Lets go of what was held for the next piece.
    fn let_go(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, Vec<(usize, Arc<Vec<u8>>)>> {
        self.laid_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostSource for Packed {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let Some(kept) = &self.kept else {
            let made = self.make(first, piece);
            if made.is_err() || first + piece.len() as u64 == self.bytes {
                self.let_go();
            }
            return made;
        };
        let mut is_made = kept.is_made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_made {
            let made = self.make(0, &mut kept.buffer.lock());
            self.let_go();
            made?;
            *is_made = true;
        }
        kept.buffer.read(first, piece)
    }
}

impl Part {
    /// A factor comes as it is stored.
    fn of_factor(factor: &Factor) -> Part {
        Part {
            key: None,
            source: WeightSource::File(factor.stored.clone()),
            stored: factor.dtype,
            target: factor.dtype,
            form: Form::AsStored,
            shape: factor.shape,
            first_byte: 0,
        }
    }

    /// The part as a tensor in the memory of all.
    fn view(&self, memory: &Tensor) -> Tensor {
        memory.recast(self.first_byte, self.target, self.shape)
    }

    /// Elements from `start` on, as the device gets them; `out` holds whole elements.
    fn convert(&self, start: usize, out: &mut [u8]) -> Result<(), String> {
        let stored = self.stored.bytes();
        if self.stored == self.target {
            return self.source.read(start as u64 * stored, out);
        }
        let (mut bytes, mut values) = ([0; 4 * CONVERTED_AT_ONCE], [0.0; CONVERTED_AT_ONCE]);
        let width = self.target.bytes() as usize;
        for (n, out) in out.chunks_mut(CONVERTED_AT_ONCE * width).enumerate() {
            let values = &mut values[..out.len() / width];
            let bytes = &mut bytes[..values.len() * stored as usize];
            let start = start + n * CONVERTED_AT_ONCE;
            self.source.read(start as u64 * stored, bytes)?;
            widen(bytes, self.stored, 0, values);
            narrow(values, self.target, out);
        }
        Ok(())
    }

    /// Elements from `start` on of `[taps, in, out]`, from all stored bytes, `[out, in, taps]`.
    fn gather(&self, bytes: &[u8], start: usize, out: &mut [u8]) {
        let [taps, inputs, outputs] = *self.shape.dims() else {
            panic!("a convolution is [taps, in, out], not {:?}", self.shape);
        };
        let mut values = [0.0; CONVERTED_AT_ONCE];
        let width = self.target.bytes() as usize;
        for (n, out) in out.chunks_mut(CONVERTED_AT_ONCE * width).enumerate() {
            let values = &mut values[..out.len() / width];
            let start = start + n * CONVERTED_AT_ONCE;
            for (index, value) in (start..).zip(values.iter_mut()) {
                let (output, rest) = (index % outputs, index / outputs);
                let (input, tap) = (rest % inputs, rest / inputs);
                let at = (output * inputs + input) * taps + tap;
                widen(bytes, self.stored, at, std::slice::from_mut(value));
            }
            narrow(values, self.target, out);
        }
    }
}

/// Stored elements from `start` on, widened. The bytes need not be aligned.
pub(crate) fn widen(bytes: &[u8], dtype: DType, start: usize, out: &mut [f32]) {
    let size = dtype.bytes() as usize;
    let bytes = &bytes[start * size..(start + out.len()) * size];
    match dtype {
        DType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        DType::BF16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
            }
        }
        DType::F16 => {
            const LANES: usize = 64;
            let mut lanes = [f16::ZERO; LANES];
            for (out, bytes) in out.chunks_mut(LANES).zip(bytes.chunks(2 * LANES)) {
                let lanes = &mut lanes[..out.len()];
                for (lane, bytes) in lanes.iter_mut().zip(bytes.chunks_exact(2)) {
                    *lane = f16::from_le_bytes([bytes[0], bytes[1]]);
                }
                lanes.convert_to_f32_slice(out);
            }
        }
    }
}

/// Values rounded to `dtype`, as the device holds them.
fn narrow(values: &[f32], dtype: DType, out: &mut [u8]) {
    match dtype {
        DType::F32 => {
            for (out, value) in out.chunks_exact_mut(4).zip(values) {
                out.copy_from_slice(&value.to_le_bytes());
            }
        }
        DType::F16 => {
            for (out, &value) in out.chunks_exact_mut(2).zip(values) {
                out.copy_from_slice(&f16::from_f32(value).to_le_bytes());
            }
        }
        DType::BF16 => {
            for (out, &value) in out.chunks_exact_mut(2).zip(values) {
                out.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, Variant};

    /// Pieces that four threads ask for, each as far on as it happens to be, are those of one.
    #[test]
    fn pieces_are_the_same_for_several_threads() {
        const PIECE_BYTES: usize = 1 << 16;
        let checkpoint = Checkpoint::random(Variant::TwoB, 1, 1, DType::BF16);
        let stored = &checkpoint.vae.weights;
        let is_small = |block: &&BlockSpec| {
            let convolutions = block.weights.iter().filter(|spec| spec.form == Form::TapsFirst);
            let elements: usize = convolutions.map(|spec| spec.shape.elements()).sum();
            (1 << 19..1 << 21).contains(&elements)
        };
        let block = stored.manifest.blocks.iter().find(is_small).unwrap();
        let specs: Vec<&WeightSpec> = block.weights.iter().collect();
        let packed = Packed::new(stored.into(), DType::F16, block, &specs);
        let mut whole = vec![1; packed.bytes() as usize];
        packed.read(0, &mut whole).unwrap();

        let mut pieces: Vec<Vec<u8>> =
            whole.chunks(PIECE_BYTES).map(|piece| vec![1; piece.len()]).collect();
        let next = Mutex::new(pieces.iter_mut().enumerate());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let Some((number, piece)) = next.lock().unwrap().next() else { break };
                        packed.read((number * PIECE_BYTES) as u64, piece).unwrap();
                    }
                });
            }
        });
        assert!(pieces.concat() == whole);
        assert!(packed.held().len() <= LAID_OUT_AT_ONCE as usize);
    }
}
