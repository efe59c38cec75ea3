//! One component of a checkpoint: its configuration and its weights' files.

use super::stored::StoredWeights;
use super::{CheckpointError, missing, read_json};
use std::path::Path;
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;
use vidfit_cogvideox::weights::Manifest;
use vidfit_tensor::DType;

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
    pub weights: StoredWeights,
}

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
        let weights = StoredWeights::open(dir, C::STEM, config.manifest())?;
        Ok(Component { config, weights })
    }

    /// A component without weights, to plan with, as if all were stored in `dtype`.
    pub fn without_weights(config: C, dtype: DType) -> Component<C> {
        let weights = StoredWeights::nowhere(config.manifest(), dtype);
        Component { config, weights }
    }

    /// A component of random weights, to measure with, stored in `dtype`.
    pub fn with_random_weights(config: C, dtype: DType) -> Component<C> {
        let weights = StoredWeights::random(config.manifest(), dtype);
        Component { config, weights }
    }
}
