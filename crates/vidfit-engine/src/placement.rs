//! Where weights are while a component works.
//!
//! A weight is used from the memory map where the device reads host memory and the stored type
//! and layout will do. Otherwise it is converted on the host, piece by piece, into planned memory.

use crate::checkpoint::WeightFiles;
use half::slice::HalfFloatSliceExt;
use std::collections::BTreeMap;
use vidfit_cogvideox::weights::{Block, Form, WeightSpec, Weights};
use vidfit_tensor::{Context, DType, Error, Tensor};

/// Elements that are converted at a time: the staging buffer is at most 4 MiB.
pub const STAGING_ELEMENTS: usize = 1 << 20;

/// A component's weights for the time that it works. Blocks named as resident are brought at
/// once and stay; others are brought when asked for and go when dropped.
pub struct Placed<'a> {
    cx: Context<'a>,
    files: &'a WeightFiles,
    dtype: DType,
    resident: BTreeMap<String, Block>,
}

impl<'a> Placed<'a> {
    /// Brings the blocks that `is_resident` names. `dtype` is the type of the run.
    ///
    /// # Errors
    /// As [`vidfit_tensor::Arena::alloc`].
    pub fn new(
        cx: Context<'a>,
        files: &'a WeightFiles,
        dtype: DType,
        is_resident: impl Fn(&str) -> bool,
    ) -> Result<Placed<'a>, Error> {
        let mut placed = Placed { cx, files, dtype, resident: BTreeMap::new() };
        for block in &files.manifest.blocks {
            if is_resident(&block.name) {
                let brought = placed.bring_block(&block.name)?;
                placed.resident.insert(block.name.clone(), brought);
            }
        }
        Ok(placed)
    }

    fn bring_block(&self, name: &str) -> Result<Block, Error> {
        let spec = self.files.manifest.block(name);
        let spec = spec.ok_or_else(|| Error::model(format!("the model has no block {name}")))?;
        let mut tensors = BTreeMap::new();
        for weight in spec.weights.iter().filter(|weight| weight.form != Form::HostRows) {
            let key = weight.key[spec.prefix.len()..].to_owned();
            tensors.insert(key, self.bring(weight)?);
        }
        Ok(Block::new(tensors))
    }

    fn bring(&self, spec: &WeightSpec) -> Result<Tensor, Error> {
        let (stored, target) = (self.files.dtype(spec), self.target(spec));
        let reads_host = self.cx.device.profile().reads_host_memory;
        if reads_host
            && spec.form == Form::AsStored
            && stored == target
            && let Some(tensor) = self.files.in_place(spec)
        {
            return Ok(tensor);
        }
        let tensor = self.cx.alloc(&spec.key, target, spec.shape)?;
        if !self.cx.arena.is_recording() {
            let bytes = self.files.bytes(spec);
            match spec.form {
                Form::TapsFirst => self.upload_taps(bytes.as_slice(), stored, &tensor),
                _ => self.upload_pieces(bytes.as_slice(), stored, &tensor),
            }
        }
        Ok(tensor)
    }

    /// The type that a weight has on the device: the run's, so that it is rounded as the
    /// reference rounds it; in an f32 run its own, which widening loses nothing of.
    fn target(&self, spec: &WeightSpec) -> DType {
        let stays = self.dtype == DType::F32 || (self.dtype == DType::F16 && spec.keep_f32);
        if stays { self.files.dtype(spec) } else { self.dtype }
    }

    fn upload_pieces(&self, bytes: &[u8], stored: DType, tensor: &Tensor) {
        let elements = tensor.shape().elements();
        let flat = tensor.reshape([elements]);
        let mut staging = vec![0.0; elements.min(STAGING_ELEMENTS)];
        for start in (0..elements).step_by(STAGING_ELEMENTS) {
            let end = (start + STAGING_ELEMENTS).min(elements);
            let staging = &mut staging[..end - start];
            widen(bytes, stored, start, staging);
            self.cx.device.upload(staging, &mut flat.slice(start..end));
        }
    }

    /// `[out, in, taps]` to `[taps, in, out]`, a tap at a time.
    fn upload_taps(&self, bytes: &[u8], stored: DType, tensor: &Tensor) {
        let [taps, inputs, outputs] = *tensor.dims() else {
            panic!("a convolution is [taps, in, out], not {tensor:?}");
        };
        let rows = (STAGING_ELEMENTS / outputs).clamp(1, inputs);
        let mut staging = vec![0.0; rows * outputs];
        for tap in 0..taps {
            let matrix = tensor.at(tap);
            for first in (0..inputs).step_by(rows) {
                let count = rows.min(inputs - first);
                for row in 0..count {
                    for output in 0..outputs {
                        let index = (output * inputs + first + row) * taps + tap;
                        staging[row * outputs + output] = element(bytes, stored, index);
                    }
                }
                let mut part = matrix.slice(first..first + count);
                self.cx.device.upload(&staging[..count * outputs], &mut part);
            }
        }
    }
}

impl Weights for Placed<'_> {
    fn block(&self, name: &str) -> Result<Block, Error> {
        match self.resident.get(name) {
            Some(block) => Ok(block.clone()),
            None => self.bring_block(name),
        }
    }

    fn rows(&self, key: &str, rows: &[usize]) -> Result<Vec<f32>, Error> {
        let spec = self.files.spec(key);
        let spec = spec.ok_or_else(|| Error::model(format!("the model has no weight {key}")))?;
        let (width, stored) = (spec.shape.columns(), self.files.dtype(spec));
        let bytes = self.files.bytes(spec);
        let mut values = vec![0.0; rows.len() * width];
        for (out, &row) in values.chunks_exact_mut(width).zip(rows) {
            if row >= spec.shape.rows() {
                return Err(Error::model(format!("{key} has no row {row}")));
            }
            widen(bytes.as_slice(), stored, row * width, out);
        }
        Ok(values)
    }
}

/// Element `index` of stored bytes, widened.
fn element(bytes: &[u8], dtype: DType, index: usize) -> f32 {
    let mut one = [0.0];
    widen(bytes, dtype, index, &mut one);
    one[0]
}

/// Elements from `start` on, widened. The bytes need not be aligned.
fn widen(bytes: &[u8], dtype: DType, start: usize, out: &mut [f32]) {
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
            let mut lanes = [half::f16::ZERO; LANES];
            for (out, bytes) in out.chunks_mut(LANES).zip(bytes.chunks(2 * LANES)) {
                let lanes = &mut lanes[..out.len()];
                for (lane, bytes) in lanes.iter_mut().zip(bytes.chunks_exact(2)) {
                    *lane = half::f16::from_le_bytes([bytes[0], bytes[1]]);
                }
                lanes.convert_to_f32_slice(out);
            }
        }
    }
}
