//! One component of a checkpoint: its configuration and its weights' files.

use super::identity::ComponentIdentity;
use super::stored::{StoredWeights, Variety};
use super::{CheckpointError, Place, missing};
use serde::Serialize;
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;
use vidfit_cogvideox::weights::Manifest;
use vidfit_tensor::DType;

/// A configuration from which the weights follow.
pub trait ModelConfig: serde::de::DeserializeOwned + Serialize + Clone + PartialEq {
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
    identity: ComponentIdentity,
}

/// The folder of a component of which only the configuration has been read.
pub struct ComponentFolder<C> {
    /// Where its files are.
    pub place: Place,
    /// `config.json`.
    pub config: C,
}

impl<C: ModelConfig> ComponentFolder<C> {
    /// Reads the configuration in `place`.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is missing or broken, or vidfit cannot compute it.
    pub fn read(place: impl Into<Place>) -> Result<ComponentFolder<C>, CheckpointError> {
        let place = place.into();
        let (path, is_there) = place.file("config.json");
        if !is_there {
            return Err(missing(C::NAME, path));
        }
        let config: C = place.json("config.json")?;
        match config.unsupported() {
            Some(what) => Err(CheckpointError::Unsupported { path, what }),
            None => Ok(ComponentFolder { place, config }),
        }
    }

    /// What tells the component from others. `None` if its weights' files cannot be found.
    pub fn identity(&self) -> Option<ComponentIdentity> {
        ComponentIdentity::of(&self.place, &self.config)
    }

    /// Whether both folders hold the same component.
    pub(super) fn is_same(&self, other: &ComponentFolder<C>) -> bool {
        self.config == other.config
            && self.identity().is_some_and(|identity| other.identity() == Some(identity))
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// [`CheckpointError`] if a file is missing or broken, or they are not the configuration's.
    pub fn open(&self) -> Result<Component<C>, CheckpointError> {
        let identity = self.identity().unwrap_or_else(ComponentIdentity::alone);
        let weights = StoredWeights::open(&self.place, C::STEM, self.config.manifest())?;
        Ok(Component { config: self.config.clone(), weights, identity })
    }
}

impl<C: ModelConfig> Component<C> {
    /// Opens the component in `place`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a file is missing or broken, or the weights are not the
    /// configuration's.
    pub fn open(place: impl Into<Place>) -> Result<Component<C>, CheckpointError> {
        ComponentFolder::read(place)?.open()
    }

    /// What tells the component from others.
    pub fn identity(&self) -> &ComponentIdentity {
        &self.identity
    }

    /// A component without weights, to plan with, as if all were stored in `dtype`.
    pub fn without_weights(config: C, dtype: DType) -> Component<C> {
        let weights = StoredWeights::nowhere(config.manifest(), dtype);
        Component { config, weights, identity: ComponentIdentity::alone() }
    }

    /// A component of random weights, to measure with, stored in `dtype`.
    pub fn with_random_weights(config: C, dtype: DType) -> Component<C> {
        Component::random(config, dtype, Variety::All)
    }

    /// The same, of which the large matrices are parts of one pool, so that nothing waits for them.
    pub fn with_pooled_weights(config: C, dtype: DType) -> Component<C> {
        Component::random(config, dtype, Variety::Pooled)
    }

    fn random(config: C, dtype: DType, variety: Variety) -> Component<C> {
        let weights = StoredWeights::random(config.manifest(), dtype, variety);
        Component { config, weights, identity: ComponentIdentity::alone() }
    }
}
