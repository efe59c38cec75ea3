//! What a checkpoint is, also if it is broken.

use super::component::{Component, ModelConfig};
use super::published::differences;
use super::{Checkpoint, CheckpointError, Library, Place, Variant, open_scheduler, read_index};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;

/// Everything about a checkpoint that can be told without reading weights.
#[derive(Debug)]
pub struct Inspection {
    /// Where it is.
    pub place: Place,
    /// Which model it is like, if the transformer could be read.
    pub variant: Option<Variant>,
    /// Each component, by the name of its folder.
    pub components: Vec<ComponentReport>,
    /// Fields in which the configurations differ from those of the published model, which are built
    /// in; nothing if the checkpoint is not complete.
    pub differences: Option<Vec<String>>,
}

/// One component.
#[derive(Debug)]
pub struct ComponentReport {
    /// The folder's name.
    pub name: &'static str,
    /// What was found.
    pub state: ComponentState,
}

/// What was found in a component's folder.
#[derive(Debug)]
pub enum ComponentState {
    /// Weights, complete.
    Weights {
        /// Parameters.
        parameters: u64,
        /// Bytes of their elements.
        bytes: u64,
        /// Tensors.
        tensors: usize,
        /// Tensors by stored type.
        dtypes: BTreeMap<String, usize>,
        /// Names of the files.
        shards: Vec<String>,
    },
    /// A component without weights, complete.
    Present(String),
    /// Missing or broken.
    Broken(CheckpointError),
}

impl Inspection {
    /// Whether all of it can be used.
    pub fn is_complete(&self) -> bool {
        !self.components.iter().any(|c| matches!(c.state, ComponentState::Broken(_)))
    }
}

/// Looks at every component of the checkpoint in `place`.
///
/// # Errors
/// [`CheckpointError::NotACheckpoint`] or [`CheckpointError::Config`] if there is no usable
/// `model_index.json`; everything else is in the answer.
pub fn inspect(place: impl Into<Place>) -> Result<Inspection, CheckpointError> {
    let place = place.into();
    let index = read_index(&place)?;
    let transformer = Component::<TransformerConfig>::open(place.component("transformer"));
    let variant = transformer.as_ref().ok().map(|component| Variant::of(&component.config));
    let (transformer_state, transformer) = state(transformer, weights);
    let (text_encoder_state, text_encoder) =
        state(Component::<T5Config>::open(place.component("text_encoder")), weights);
    let (vae_state, vae) = state(Component::<VaeConfig>::open(place.component("vae")), weights);
    let (scheduler_state, scheduler) = state(open_scheduler(&place, &index), |scheduler| {
        ComponentState::Present(format!("{:?}", scheduler.kind))
    });
    let (tokenizer_state, tokenizer) = state(Library::default().tokenizer(&place), |tokenizer| {
        ComponentState::Present(format!("{} pieces", tokenizer.vocab_size()))
    });
    let states = [
        ("text_encoder", text_encoder_state),
        ("transformer", transformer_state),
        ("vae", vae_state),
        ("scheduler", scheduler_state),
        ("tokenizer", tokenizer_state),
    ];
    let components =
        states.into_iter().map(|(name, state)| ComponentReport { name, state }).collect();
    let whole = || {
        let (text_encoder, transformer) = (Arc::new(text_encoder?), Arc::new(transformer?));
        let vae = Arc::new(vae?);
        Checkpoint::join(&place, text_encoder, transformer, vae, scheduler?, tokenizer?).ok()
    };
    let differences = whole().map(|checkpoint| differences(&checkpoint));
    Ok(Inspection { place, variant, components, differences })
}

/// What was found, in words, and the component itself where it can be used.
fn state<T>(
    opened: Result<T, CheckpointError>,
    describe: impl FnOnce(&T) -> ComponentState,
) -> (ComponentState, Option<T>) {
    match opened {
        Ok(component) => (describe(&component), Some(component)),
        Err(error) => (ComponentState::Broken(error), None),
    }
}

fn weights<C: ModelConfig>(component: &Component<C>) -> ComponentState {
    let weights = &component.weights;
    let files = weights.files().expect("an opened component has files");
    let mut dtypes = BTreeMap::new();
    let (mut bytes, mut tensors) = (0, 0);
    for (_, info) in files.tensors() {
        *dtypes.entry(info.dtype.name().to_owned()).or_insert(0) += 1;
        bytes += info.bytes();
        tensors += 1;
    }
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let shards = files.files().iter().filter_map(|file| name(file.path())).collect();
    let parameters = weights.manifest.parameters();
    ComponentState::Weights { parameters, bytes, tensors, dtypes, shards }
}
