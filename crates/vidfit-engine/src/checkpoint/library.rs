//! Opened components, each once: pipelines over one checkpoint, and checkpoints with the same text
//! encoder or VAE, share a memory map and a tokenizer.

use super::component::{Component, ComponentFolder, ModelConfig};
use super::identity::{ComponentIdentity, FileIdentity};
use super::{CheckpointError, Place, missing};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::tokenizer::Tokenizer;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;

/// Components that are in use somewhere. It keeps none of them open itself: the last user closes
/// what he used.
#[derive(Default)]
pub struct Library {
    text_encoders: Shelf<ComponentIdentity, Component<T5Config>>,
    transformers: Shelf<ComponentIdentity, Component<TransformerConfig>>,
    vaes: Shelf<ComponentIdentity, Component<VaeConfig>>,
    tokenizers: Shelf<FileIdentity, Tokenizer>,
}

/// What is open, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Text encoders.
    pub text_encoders: usize,
    /// Transformers.
    pub transformers: usize,
    /// VAEs.
    pub vaes: usize,
    /// Tokenizers.
    pub tokenizers: usize,
    /// Bytes of all files that are mapped.
    pub mapped_bytes: u64,
}

impl Library {
    /// What is open now.
    pub fn opened(&self) -> Opened {
        fn mapped<C>(components: &[Arc<Component<C>>]) -> u64 {
            let files = components.iter().filter_map(|component| component.weights.files());
            files.map(|files| files.file_bytes()).sum()
        }
        let (text_encoders, transformers) = (self.text_encoders.all(), self.transformers.all());
        let (vaes, tokenizers) = (self.vaes.all(), self.tokenizers.all());
        Opened {
            text_encoders: text_encoders.len(),
            transformers: transformers.len(),
            vaes: vaes.len(),
            tokenizers: tokenizers.len(),
            mapped_bytes: mapped(&text_encoders) + mapped(&transformers) + mapped(&vaes),
        }
    }

    pub(super) fn text_encoder(
        &self,
        folder: &ComponentFolder<T5Config>,
    ) -> Result<Arc<Component<T5Config>>, CheckpointError> {
        open(&self.text_encoders, folder)
    }

    pub(super) fn transformer(
        &self,
        folder: &ComponentFolder<TransformerConfig>,
    ) -> Result<Arc<Component<TransformerConfig>>, CheckpointError> {
        open(&self.transformers, folder)
    }

    pub(super) fn vae(
        &self,
        folder: &ComponentFolder<VaeConfig>,
    ) -> Result<Arc<Component<VaeConfig>>, CheckpointError> {
        open(&self.vaes, folder)
    }

    /// The tokenizer of the checkpoint in `place`.
    pub(super) fn tokenizer(&self, place: &Place) -> Result<Arc<Tokenizer>, CheckpointError> {
        let (place, name) = (place.component("tokenizer"), "spiece.model");
        let (path, is_there) = place.file(name);
        if !is_there {
            return Err(missing("the tokenizer", path));
        }
        let identity = match place.built_in_file(name) {
            Some(file) => Some(FileIdentity::built_in(&file)),
            None => FileIdentity::of(&path).ok(),
        };
        self.tokenizers.get(identity, || place.tokenizer(name))
    }
}

fn open<C: ModelConfig>(
    shelf: &Shelf<ComponentIdentity, Component<C>>,
    folder: &ComponentFolder<C>,
) -> Result<Arc<Component<C>>, CheckpointError> {
    shelf.get(folder.identity(), || folder.open())
}

/// What is in use of one kind.
struct Shelf<K, T> {
    opened: Mutex<HashMap<K, Weak<T>>>,
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Shelf<K, T> {
        Shelf { opened: Mutex::default() }
    }
}

impl<K: Eq + Hash, T> Shelf<K, T> {
    /// What has this identity, or is opened now. What has none is nobody else's.
    fn get(
        &self,
        identity: Option<K>,
        open: impl FnOnce() -> Result<T, CheckpointError>,
    ) -> Result<Arc<T>, CheckpointError> {
        let Some(identity) = identity else { return open().map(Arc::new) };
        // Locked while it is opened: two who come at once are to share it, too.
        let mut opened = self.lock();
        if let Some(found) = opened.get(&identity).and_then(Weak::upgrade) {
            return Ok(found);
        }
        opened.retain(|_, weak| weak.strong_count() > 0);
        let new = Arc::new(open()?);
        opened.insert(identity, Arc::downgrade(&new));
        Ok(new)
    }

    fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Weak<T>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
