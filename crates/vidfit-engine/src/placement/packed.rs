//! Weights of a block, one after another, as the device gets them: converted and laid out on the
//! host, piece by piece.

use super::{key_within, target};
use crate::checkpoint::{StoredWeights, WeightSource};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vidfit_cogvideox::weights::{BlockSpec, Form, WeightSpec};
use vidfit_tensor::{DType, HostBuffer, HostSource, Shape, Tensor};

/// Weights begin at multiples of this, as every device's arena allows.
const ALIGNMENT: u64 = 256;

/// Elements that are converted at a time.
const CONVERTED_AT_ONCE: usize = 4096;

/// Bytes that a weight takes among others on the device.
pub fn packed_bytes(weights: &StoredWeights, dtype: DType, spec: &WeightSpec) -> u64 {
    let element = target(weights, dtype, spec).bytes();
    (spec.shape.elements() as u64 * element).next_multiple_of(ALIGNMENT)
}

/// Weights to be brought together.
pub struct Packed {
    parts: Vec<Part>,
    bytes: u64,
    /// The bytes as the device gets them, once they have been made.
    kept: Option<Kept>,
    /// The convolution that is being laid out: its number among the parts, and its stored bytes,
    /// which are needed in another order than they have.
    laid_out: Mutex<(usize, Vec<u8>)>,
}

struct Kept {
    buffer: HostBuffer,
    is_made: Mutex<bool>,
}

struct Part {
    key: String,
    source: WeightSource,
    stored: DType,
    target: DType,
    form: Form,
    shape: Shape,
    first_byte: u64,
}

impl Packed {
    /// These weights of a block.
    pub fn new(
        weights: &StoredWeights,
        dtype: DType,
        block: &BlockSpec,
        specs: &[&WeightSpec],
    ) -> Packed {
        let mut bytes = 0;
        let parts = specs.iter().map(|spec| {
            let first_byte = bytes;
            bytes += packed_bytes(weights, dtype, spec);
            Part {
                key: key_within(block, spec),
                source: weights.source(spec),
                stored: weights.dtype(spec),
                target: target(weights, dtype, spec),
                form: spec.form,
                shape: spec.shape,
                first_byte,
            }
        });
        Packed { parts: parts.collect(), bytes, kept: None, laid_out: Mutex::default() }
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
        self.parts.iter().map(move |part| {
            let tensor = memory.recast(part.first_byte, part.target, part.shape);
            (part.key.clone(), tensor)
        })
    }

    /// The weights as tensors without elements, for dry runs.
    pub fn nowhere(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.parts.iter().map(|part| (part.key.clone(), Tensor::nowhere(part.target, part.shape)))
    }

    /// Makes the bytes from `first` on.
    fn make(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let end = first + piece.len() as u64;
        piece.fill(0);
        for (number, part) in self.parts.iter().enumerate() {
            let elements = part.shape.elements() as u64;
            let width = part.target.bytes();
            let part_end = part.first_byte + elements * width;
            let (from, to) = (first.max(part.first_byte), end.min(part_end));
            if from < to {
                let start = ((from - part.first_byte) / width) as usize;
                let out = &mut piece[(from - first) as usize..(to - first) as usize];
                match part.form {
                    Form::TapsFirst => part.gather(&self.laid_out(number)?.1, start, out),
                    _ => part.convert(start, out)?,
                }
            }
        }
        Ok(())
    }

    /// The stored bytes of the convolution `number`, read once for all its pieces in a row.
    fn laid_out(&self, number: usize) -> Result<MutexGuard<'_, (usize, Vec<u8>)>, String> {
        let mut held = self.laid_out.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != number || held.1.is_empty() {
            let part = &self.parts[number];
            held.1.clear();
            held.1.resize(part.shape.elements() * part.stored.bytes() as usize, 0);
            held.0 = number;
            if let Err(error) = part.source.read(0, &mut held.1) {
                held.1.clear();
                return Err(error);
            }
        }
        Ok(held)
    }

    /// Lets go of what was held for the next piece.
    fn let_go(&self) {
        *self.laid_out.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
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
pub(super) fn widen(bytes: &[u8], dtype: DType, start: usize, out: &mut [f32]) {
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
