//! One component of a checkpoint: its configuration and its weights' files.

use super::{CheckpointError, missing, read_json};
use crate::safetensors::{MappedBytes, ShardedTensors, StoredDtype};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;
use vidfit_cogvideox::weights::{Manifest, WeightSpec};
use vidfit_tensor::{DType, HostBytes, Tensor};

/// A configuration from which the weights follow.
pub trait ModelConfig: serde::de::DeserializeOwned {
    /// What the component is called in messages.
    const NAME: &'static str;
    /// How the names of its files begin.
    const STEM: &'static str;

    /// Every weight in the files.
    fn manifest(&self) -> Manifest;

    /// What cannot be computed, in words.
    fn unsupported(&self) -> Option<String>;
}

impl ModelConfig for T5Config {
    const NAME: &'static str = "the text encoder";
    const STEM: &'static str = "model";

    fn manifest(&self) -> Manifest {
        T5Config::manifest(self)
    }

    fn unsupported(&self) -> Option<String> {
        T5Config::unsupported(self)
    }
}

impl ModelConfig for TransformerConfig {
    const NAME: &'static str = "the transformer";
    const STEM: &'static str = "diffusion_pytorch_model";

    fn manifest(&self) -> Manifest {
        TransformerConfig::manifest(self)
    }

    fn unsupported(&self) -> Option<String> {
        TransformerConfig::unsupported(self)
    }
}

impl ModelConfig for VaeConfig {
    const NAME: &'static str = "the VAE";
    const STEM: &'static str = "diffusion_pytorch_model";

    fn manifest(&self) -> Manifest {
        let mut manifest = self.encoder_manifest();
        manifest.blocks.extend(self.decoder_manifest().blocks);
        manifest
    }

    fn unsupported(&self) -> Option<String> {
        VaeConfig::unsupported(self)
    }
}

/// A component: what it is, and where its weights are.
pub struct Component<C> {
    /// `config.json`.
    pub config: C,
    /// The weights.
    pub weights: WeightFiles,
}

/// The weights of a component, checked against its manifest but not read.
pub struct WeightFiles {
    /// Every weight.
    pub manifest: Manifest,
    /// The files.
    pub tensors: ShardedTensors,
}

/// Under this name some files hold the T5 embedding, which is one matrix with two names.
const EMBEDDING_NAMES: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];

impl<C: ModelConfig> Component<C> {
    /// Opens the component in `dir`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a file is missing or broken, or the weights are not the
    /// configuration's.
    pub fn open(dir: &Path) -> Result<Component<C>, CheckpointError> {
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(missing(C::NAME, path));
        }
        let config: C = read_json(&path)?;
        if let Some(what) = config.unsupported() {
            return Err(CheckpointError::Unsupported { path, what });
        }
        let manifest = config.manifest();
        let tensors = ShardedTensors::open(dir, C::STEM)?;
        let weights = WeightFiles { manifest, tensors };
        weights.check(dir)?;
        Ok(Component { config, weights })
    }
}

impl WeightFiles {
    /// What `key` is called in the files.
    fn stored_name<'a>(&self, key: &'a str) -> &'a str {
        let other = EMBEDDING_NAMES[1];
        if key == EMBEDDING_NAMES[0] && !self.tensors.contains(key) { other } else { key }
    }

    fn check(&self, dir: &Path) -> Result<(), CheckpointError> {
        let mut known = HashSet::new();
        let mut absent = Vec::new();
        for spec in self.manifest.weights() {
            let name = self.stored_name(&spec.key);
            known.insert(name);
            if !self.tensors.contains(name) {
                absent.push(spec.key.clone());
                continue;
            }
            let info = self.tensors.info(name)?;
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
            if float_type(info.dtype).is_none() {
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
        let mut unknown: Vec<&str> = self
            .tensors
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

    /// The type that a weight is stored in.
    pub fn dtype(&self, spec: &WeightSpec) -> DType {
        let info = self.tensors.info(self.stored_name(&spec.key));
        info.ok().and_then(|info| float_type(info.dtype)).expect("checked when it was opened")
    }

    /// The bytes of a weight, in the map.
    pub fn bytes(&self, spec: &WeightSpec) -> MappedBytes {
        let bytes = self.tensors.mapped(self.stored_name(&spec.key));
        bytes.expect("checked when it was opened")
    }

    /// The weight as a tensor over the map, if its elements are aligned there.
    pub fn in_place(&self, spec: &WeightSpec) -> Option<Tensor> {
        let (bytes, dtype) = (self.bytes(spec), self.dtype(spec));
        let aligned = bytes.start().is_multiple_of(dtype.bytes() as usize);
        aligned.then(|| Tensor::from_host(Arc::new(bytes), 0, dtype, spec.shape))
    }

    /// The spec of the weight `key`.
    pub fn spec(&self, key: &str) -> Option<&WeightSpec> {
        self.manifest.weights().find(|spec| spec.key == key)
    }
}

impl HostBytes for MappedBytes {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}

fn float_type(stored: StoredDtype) -> Option<DType> {
    match stored {
        StoredDtype::F32 => Some(DType::F32),
        StoredDtype::F16 => Some(DType::F16),
        StoredDtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
