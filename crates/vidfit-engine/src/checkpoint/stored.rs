//! The weights of a component: in files, checked but not read; or nowhere, to plan without them;
//! or random, to measure without them.

use super::place::weights_name;
use super::{CheckpointError, Place};
use crate::digest::Digest;
use crate::safetensors::{MappedBytes, SafetensorsFile, ShardedTensors, StoredBytes};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use vidfit_cogvideox::weights::{Form, Manifest, WeightSpec};
use vidfit_tensor::{DType, HostBytes, Tensor};

/// The weights of a component.
pub struct StoredWeights {
    /// Every weight.
    pub manifest: Manifest,
    store: Store,
    /// Of the contents, where they are in the program.
    digest: Option<Digest>,
}

enum Store {
    Files(ShardedTensors),
    Nowhere(DType),
    Random(DType, Variety),
}

/// Whether a tensor's random weights are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variety {
    /// All of them.
    All,
    /// Those of large matrices are parts of one pool: for measuring how fast a card is, which else would wait
    /// for them to be made. They are read from RAM, as those of a file are that was read before.
    Pooled,
}

/// Bytes of the pool: more than what processors keep close by.
const POOL_BYTES: usize = 512 << 20;

/// Matrices of fewer elements have weights of their own.
const LEAST_POOLED: usize = 1 << 20;

/// Under this name some files hold the T5 embedding, which is one matrix with two names.
const EMBEDDING_NAMES: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];

impl StoredWeights {
    /// The weights in the files of `place` whose names begin with `stem`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a file is broken, or the weights are not those of `manifest`.
    pub(super) fn open(
        place: &Place,
        stem: &str,
        manifest: Manifest,
    ) -> Result<StoredWeights, CheckpointError> {
        let files = place.weights(stem)?;
        check(&manifest, &files, &place.path())?;
        let digest = place.built_in_file(&weights_name(stem)).map(|file| file.digest);
        Ok(StoredWeights { manifest, store: Store::Files(files), digest })
    }

    pub(super) fn nowhere(manifest: Manifest, dtype: DType) -> StoredWeights {
        StoredWeights { manifest, store: Store::Nowhere(dtype), digest: None }
    }

    pub(super) fn random(manifest: Manifest, dtype: DType, variety: Variety) -> StoredWeights {
        StoredWeights { manifest, store: Store::Random(dtype, variety), digest: None }
    }

    /// The files, if there are any.
    pub fn files(&self) -> Option<&ShardedTensors> {
        match &self.store {
            Store::Files(files) => Some(files),
            _ => None,
        }
    }

    /// Whether there are no weights behind the names.
    pub fn is_nowhere(&self) -> bool {
        matches!(self.store, Store::Nowhere(_))
    }

    /// Names, lengths and times of the files, or their digests where the hub's cache or the program
    /// has them, in one line: what changes when they do.
    pub fn identity(&self) -> String {
        if let Some(digest) = self.digest {
            return digest.to_string();
        }
        let files = self.files().map_or(&[][..], |files| files.files());
        let of = |file: &SafetensorsFile| {
            // Whichever of several caches it was opened in.
            if let Some(blob) = crate::hub::blob_of(file.path()) {
                return blob;
            }
            let changed = std::fs::metadata(file.path()).and_then(|about| about.modified()).ok();
            let since = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let nanoseconds = since.map_or(0, |since| since.as_nanos());
            let name = file.path().file_name().unwrap_or_default().to_string_lossy();
            format!("{name} {} {nanoseconds}", file.file_bytes())
        };
        files.iter().map(of).collect::<Vec<_>>().join(" ")
    }

    /// The type that a weight is stored in.
    pub fn dtype(&self, spec: &WeightSpec) -> DType {
        match &self.store {
            Store::Files(files) => {
                let info = files.info(stored_name(files, &spec.key));
                info.ok().and_then(|info| info.dtype.as_float()).expect("checked when opened")
            }
            Store::Nowhere(dtype) | Store::Random(dtype, _) => *dtype,
        }
    }

    /// Bytes that a weight takes where it is stored.
    pub fn stored_bytes(&self, spec: &WeightSpec) -> u64 {
        spec.shape.elements() as u64 * self.dtype(spec).bytes()
    }

    /// Bytes of all weights where they are stored.
    pub fn all_bytes(&self) -> u64 {
        self.manifest.weights().map(|spec| self.stored_bytes(spec)).sum()
    }

    /// The bytes of a weight, as stored, to be read piece by piece.
    pub fn source(&self, spec: &WeightSpec) -> WeightSource {
        match &self.store {
            Store::Files(files) => {
                let stored = files.stored(stored_name(files, &spec.key));
                WeightSource::File(stored.expect("checked when opened"))
            }
            Store::Nowhere(_) => WeightSource::Nowhere,
            Store::Random(dtype, variety) => WeightSource::Random(RandomBytes {
                spec: spec.clone(),
                dtype: *dtype,
                variety: *variety,
                bytes: OnceLock::new(),
            }),
        }
    }

    /// The bytes of a weight, as stored; none for a plan's weights, which are nowhere.
    fn bytes(&self, spec: &WeightSpec) -> Arc<dyn HostBytes> {
        match &self.store {
            Store::Files(files) => {
                let bytes = files.mapped(stored_name(files, &spec.key));
                Arc::new(bytes.expect("checked when opened"))
            }
            Store::Nowhere(_) => Arc::new(Vec::new()),
            Store::Random(dtype, variety) => {
                let mut bytes = vec![0; self.stored_bytes(spec) as usize];
                match pooled(spec, *dtype, *variety) {
                    Some((pool, place)) => repeat(pool, place, &mut bytes),
                    None => bytes = random_bytes(spec, *dtype),
                }
                Arc::new(bytes)
            }
        }
    }

    /// Whether the elements of a weight are aligned where they are stored, so that they can be
    /// used there.
    pub fn is_aligned(&self, spec: &WeightSpec) -> bool {
        match &self.store {
            Store::Files(files) => {
                let bytes = files.mapped(stored_name(files, &spec.key));
                let width = self.dtype(spec).bytes() as usize;
                bytes.is_ok_and(|bytes| bytes.as_slice().as_ptr().addr().is_multiple_of(width))
            }
            Store::Nowhere(_) => true,
            Store::Random(..) => false,
        }
    }

    /// The weight as a tensor over host memory. It must be aligned there.
    pub fn in_place(&self, spec: &WeightSpec) -> Tensor {
        let dtype = self.dtype(spec);
        match &self.store {
            Store::Nowhere(_) => Tensor::nowhere(dtype, spec.shape),
            _ => Tensor::from_host(self.bytes(spec), 0, dtype, spec.shape),
        }
    }

    /// The spec of the weight `key`.
    pub fn spec(&self, key: &str) -> Option<&WeightSpec> {
        self.manifest.weights().find(|spec| spec.key == key)
    }
}

/// Where the bytes of a weight are read.
pub enum WeightSource {
    /// In a file.
    File(StoredBytes),
    /// Made up when they are first read.
    Random(RandomBytes),
    /// Nowhere: in a plan.
    Nowhere,
}

/// A weight that is made up, see [`StoredWeights`].
pub struct RandomBytes {
    spec: WeightSpec,
    dtype: DType,
    variety: Variety,
    /// Its own, if it has any.
    bytes: OnceLock<Vec<u8>>,
}

impl WeightSource {
    /// Reads as many bytes as `out` holds, from `first` on.
    ///
    /// # Errors
    /// What happened, in words.
    pub fn read(&self, first: u64, out: &mut [u8]) -> Result<(), String> {
        match self {
            WeightSource::File(stored) => stored.read(first, out),
            WeightSource::Random(random) => {
                let RandomBytes { spec, dtype, variety, bytes } = random;
                match pooled(spec, *dtype, *variety) {
                    Some((pool, place)) => repeat(pool, place + first, out),
                    None => {
                        let bytes = bytes.get_or_init(|| random_bytes(spec, *dtype));
                        out.copy_from_slice(&bytes[first as usize..][..out.len()]);
                    }
                }
                Ok(())
            }
            WeightSource::Nowhere => Err("there are no weights".into()),
        }
    }
}

impl HostBytes for MappedBytes {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}

/// What `key` is called in the files.
fn stored_name<'a>(files: &ShardedTensors, key: &'a str) -> &'a str {
    let other = EMBEDDING_NAMES[1];
    if key == EMBEDDING_NAMES[0] && !files.contains(key) { other } else { key }
}

/// Holds every tensor to the manifest: nothing missing, nothing unknown, right shapes and types.
fn check(manifest: &Manifest, files: &ShardedTensors, dir: &Path) -> Result<(), CheckpointError> {
    let mut known = HashSet::new();
    let mut absent = Vec::new();
    for spec in manifest.weights() {
        let name = stored_name(files, &spec.key);
        known.insert(name);
        if !files.contains(name) {
            absent.push(spec.key.clone());
            continue;
        }
        let info = files.info(name)?;
        let found: Vec<u64> = info.shape.iter().map(|&length| length as u64).collect();
        let expected: Vec<u64> = spec.stored.iter().map(|&length| length as u64).collect();
        if found != expected {
            return Err(CheckpointError::WrongShape {
                dir: dir.to_owned(),
                key: spec.key.clone(),
                found,
                expected: spec.stored.clone(),
            });
        }
        if info.dtype.as_float().is_none() {
            return Err(CheckpointError::WrongType {
                dir: dir.to_owned(),
                key: spec.key.clone(),
                found: info.dtype.name().to_owned(),
            });
        }
    }
    if let Some(key) = absent.first() {
        let (key, count) = (key.clone(), absent.len());
        return Err(CheckpointError::MissingWeights { dir: dir.to_owned(), key, count });
    }
    known.extend(EMBEDDING_NAMES);
    let mut unknown: Vec<&str> = files
        .tensors()
        .map(|(_, info)| info.name.as_str())
        .filter(|name| !known.contains(name))
        .collect();
    unknown.sort_unstable();
    if let Some(&key) = unknown.first() {
        let (key, count) = (key.to_owned(), unknown.len());
        return Err(CheckpointError::UnknownWeights { dir: dir.to_owned(), key, count });
    }
    Ok(())
}

/// The pool, and where in it the weights of a tensor begin, if they are there.
fn pooled(spec: &WeightSpec, dtype: DType, variety: Variety) -> Option<(&'static [u8], u64)> {
    static POOLS: [OnceLock<Vec<u8>>; 3] = [const { OnceLock::new() }; 3];
    if variety == Variety::All || spec.stored.len() < 2 || spec.shape.elements() < LEAST_POOLED {
        return None;
    }
    let number = match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    };
    let elements = POOL_BYTES / dtype.bytes() as usize;
    // With the variance that a matrix of some thousand inputs has.
    let pool = POOLS[number].get_or_init(|| values_of(1, 1.732 / 64.0, elements, dtype));
    Some((pool, u64::from(seed_of(&spec.key)) * dtype.bytes() % POOL_BYTES as u64))
}

/// What is at `first` and behind it where `bytes` stand again and again.
fn repeat(bytes: &[u8], first: u64, mut out: &mut [u8]) {
    let mut at = (first % bytes.len().max(1) as u64) as usize;
    while !out.is_empty() {
        let count = out.len().min(bytes.len() - at);
        let (now, rest) = out.split_at_mut(count);
        now.copy_from_slice(&bytes[at..][..count]);
        (out, at) = (rest, 0);
    }
}

/// Values with a variance of one over the number of inputs, always the same for a weight, so that
/// what goes through a layer keeps its size.
fn random_bytes(spec: &WeightSpec, dtype: DType) -> Vec<u8> {
    let inputs: usize = spec.stored.iter().skip(1).product();
    let is_table = spec.form == Form::HostRows || spec.stored.len() < 2;
    let scale = if is_table { 0.5 } else { (inputs as f32).sqrt().recip() * 1.732 };
    values_of(seed_of(&spec.key), scale, spec.shape.elements(), dtype)
}

fn seed_of(key: &str) -> u32 {
    key.bytes()
        .fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Values from `-scale` to `scale`.
fn values_of(seed: u32, scale: f32, elements: usize, dtype: DType) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    // In large pieces, so that even a build for tests spends its time in few loops.
    let width = dtype.bytes() as usize;
    let mut bytes = vec![0; elements * width];
    let (mut values, mut bits) = ([0.0_f32; 4096], [0_u16; 4096]);
    for out in bytes.chunks_mut(values.len() * width) {
        let count = out.len() / width;
        let (values, bits) = (&mut values[..count], &mut bits[..count]);
        values.iter_mut().for_each(|value| *value = next());
        match dtype {
            DType::F32 => {
                for (out, value) in out.chunks_exact_mut(4).zip(values) {
                    out.copy_from_slice(&value.to_le_bytes());
                }
                continue;
            }
            DType::F16 => bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values),
            DType::BF16 => bits.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(values),
        }
        for (out, bits) in out.chunks_exact_mut(2).zip(bits) {
            out.copy_from_slice(&bits.to_le_bytes());
        }
    }
    bytes
}
