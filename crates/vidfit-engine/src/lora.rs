//! LoRAs of a job: their files, held against the model, and their factors, read when they are
//! needed.

use crate::error::EngineError;
use crate::placement::widen;
use crate::safetensors::{SafetensorsFile, StoredBytes, StoredDtype};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use vidfit_cogvideox::lora::{Adaptation, Listing, LoraError, adapt};
use vidfit_cogvideox::weights::Manifest;
use vidfit_tensor::{DType, Shape};

/// A LoRA that a user wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraChoice {
    /// Its file; or a folder with one, as diffusers saves it.
    pub path: PathBuf,
    /// How strongly it counts, on top of what the file says; 1 is as it was made.
    pub scale: f64,
    /// Whether tensors that the model has no place for are left out instead of being an error.
    pub is_lenient: bool,
}

/// What diffusers calls the file in a folder.
pub const FILE_NAME: &str = "pytorch_lora_weights.safetensors";

/// Beyond any scale that leaves a picture.
const STRONGEST: f64 = 1000.0;

/// Values that are looked at at a time.
const LOOKED_AT: usize = 16_384;

/// The LoRAs of a job, each held against its model.
#[derive(Default)]
pub struct Loras {
    /// By the key of the weight, in the order in which the LoRAs were given.
    added: BTreeMap<String, Vec<Factors>>,
    identity: String,
}

/// What a LoRA adds to one weight: `factor · b · a`.
pub struct Factors {
    /// `[rank, inputs]`.
    pub a: Factor,
    /// `[outputs, rank]`.
    pub b: Factor,
    /// The user's scale times alpha over the rank.
    pub factor: f32,
}

/// One factor, where it is stored.
pub struct Factor {
    /// Its shape, as a matrix.
    pub shape: Shape,
    /// Its type.
    pub dtype: DType,
    /// Its bytes.
    pub stored: StoredBytes,
    name: String,
}

impl Factor {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.shape.elements() as u64 * self.dtype.bytes()
    }
}

/// A LoRA's file, opened.
pub struct LoraFile {
    file: SafetensorsFile,
}

impl LoraFile {
    /// Opens the file, or that in the folder, and checks its header.
    ///
    /// # Errors
    /// [`EngineError::Request`] if it is none.
    pub fn open(path: &Path) -> Result<LoraFile, EngineError> {
        let inside = path.join(FILE_NAME);
        let path = if path.is_dir() { inside.as_path() } else { path };
        let file = SafetensorsFile::open(path);
        Ok(LoraFile { file: file.map_err(|error| EngineError::Request(error.to_string()))? })
    }

    /// What it does to the transformer whose weights these are.
    ///
    /// # Errors
    /// As [`adapt`].
    pub fn adapt(&self, manifest: &Manifest, is_lenient: bool) -> Result<Adaptation, LoraError> {
        let scalar = |name: &str| self.scalar(name);
        let metadata = self.file.metadata().iter().find(|(key, _)| key == "lora_adapter_metadata");
        let tensors = self.file.tensors();
        let listing = Listing {
            tensors: tensors.map(|info| (info.name.as_str(), &info.shape[..])).collect(),
            metadata: metadata.map(|(_, text)| text.as_str()),
            scalar: &scalar,
        };
        adapt(manifest, &listing, is_lenient)
    }

    /// The value of a tensor of one element.
    fn scalar(&self, name: &str) -> Option<f64> {
        let info = self.file.info(name).ok()?;
        if info.elements() != 1 {
            return None;
        }
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..info.dtype.element_bytes() as usize];
        self.file.stored(name).ok()?.read(0, bytes).ok()?;
        match (info.dtype, &*bytes) {
            (StoredDtype::F64, bytes) => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
            (StoredDtype::I64, bytes) => Some(i64::from_le_bytes(bytes.try_into().ok()?) as f64),
            (other, bytes) => {
                let mut value = [0.0];
                widen(bytes, other.as_float()?, 0, &mut value);
                Some(f64::from(value[0]))
            }
        }
    }

    /// Path, length and time of the file: what changes when it does.
    fn identity(&self) -> String {
        let path = self.file.path();
        let changed = std::fs::metadata(path).and_then(|about| about.modified()).ok();
        let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        format!("{} {} {nanoseconds}", path.display(), self.file.file_bytes())
    }

    fn refuse(&self, why: impl std::fmt::Display) -> EngineError {
        EngineError::Request(format!("{} cannot be used: {why}", self.file.path().display()))
    }

    fn factor(&self, name: &str, shape: [usize; 2]) -> Result<Factor, EngineError> {
        let (info, stored) = (self.file.info(name)?, self.file.stored(name)?);
        let Some(dtype) = info.dtype.as_float() else {
            let why = format!("{name} has the type {}; vidfit reads F32, F16 and BF16", info.dtype);
            return Err(self.refuse(why));
        };
        Ok(Factor { shape: Shape::from(shape), dtype, stored, name: name.to_owned() })
    }
}

impl Loras {
    /// Opens the files of `choices` and holds them against the transformer whose weights `manifest`
    /// names. Reads headers, and alphas; no factor. A scale of 0 adds nothing at all.
    ///
    /// # Errors
    /// [`EngineError::Request`] if one is no LoRA of this model.
    pub fn open(
        choices: &[LoraChoice],
        manifest: &Manifest,
        warnings: &mut Vec<String>,
    ) -> Result<Loras, EngineError> {
        let mut loras = Loras::default();
        for LoraChoice { path, scale, is_lenient } in choices {
            let file = LoraFile::open(path)?;
            if !(-STRONGEST..=STRONGEST).contains(scale) {
                return Err(file.refuse(format!(
                    "a scale of {scale} makes no sense: 1 is as it was made, and {STRONGEST} the most"
                )));
            }
            let found = file.adapt(manifest, *is_lenient).map_err(|error| file.refuse(error))?;
            let named = |warning| format!("{}: {warning}", path.display());
            warnings.extend(found.warnings.into_iter().map(named));
            for update in found.updates {
                let factor = (scale * update.factor) as f32;
                if !factor.is_finite() {
                    return Err(file.refuse(format!("its alpha for {} is too large", update.key)));
                }
                let weight = manifest.weights().find(|spec| spec.key == update.key);
                let shape = weight.expect("it was held against the manifest").shape;
                let a = file.factor(&update.a, [update.rank, shape.columns()])?;
                let b = file.factor(&update.b, [shape.rows(), update.rank])?;
                if factor != 0.0 {
                    loras.added.entry(update.key).or_default().push(Factors { a, b, factor });
                }
            }
            loras.identity += &format!(" + {scale} of {}", file.identity());
        }
        Ok(loras)
    }

    /// Whether nothing is added to any weight.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    /// What is added to the weight called `key`, in order.
    pub fn added_to(&self, key: &str) -> &[Factors] {
        self.added.get(key).map_or(&[], Vec::as_slice)
    }

    /// What tells these LoRAs from others and from themselves before a change, in one line: scales,
    /// and paths, lengths and times of the files. Empty without any.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Looks at every value of every factor.
    ///
    /// # Errors
    /// [`EngineError::Request`] if one is no finite number, or cannot be read.
    pub fn check_values(&self) -> Result<(), EngineError> {
        let factors = self.added.values().flatten().flat_map(|added| [&added.a, &added.b]);
        let (mut bytes, mut values) = (vec![0; 4 * LOOKED_AT], vec![0.0; LOOKED_AT]);
        for Factor { shape, dtype, stored, name } in factors {
            let (elements, width) = (shape.elements(), dtype.bytes() as usize);
            for first in (0..elements).step_by(LOOKED_AT) {
                let values = &mut values[..LOOKED_AT.min(elements - first)];
                let bytes = &mut bytes[..values.len() * width];
                let read = stored.read((first * width) as u64, bytes);
                read.map_err(EngineError::Request)?;
                widen(bytes, *dtype, 0, values);
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(EngineError::Request(format!(
                        "{name} in {} holds values that are no finite numbers: the LoRA is damaged, \
                         or its training failed",
                        stored.path().display()
                    )));
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Loras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Loras").field(&self.identity).finish()
    }
}
