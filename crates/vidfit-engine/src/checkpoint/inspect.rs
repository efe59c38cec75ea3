//! What a checkpoint is, also if it is broken.

use super::component::{Component, ModelConfig};
use super::published::differences;
use super::{Checkpoint, CheckpointError, Variant, open_scheduler, open_tokenizer, read_index};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;

/// Everything about a checkpoint that can be told without reading weights.
#[derive(Debug)]
pub struct Inspection {
    /// The folder.
    pub dir: PathBuf,
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

/// Looks at every component of the checkpoint in `dir`.
///
/// # Errors
/// [`CheckpointError::NotACheckpoint`] or [`CheckpointError::Config`] if there is no usable
/// `model_index.json`; everything else is in the answer.
pub fn inspect(dir: &Path) -> Result<Inspection, CheckpointError> {
    let index = read_index(dir)?;
    let mut variant = None;
    let transformer = Component::<TransformerConfig>::open(&dir.join("transformer"));
    if let Ok(transformer) = &transformer {
        variant = Some(Variant::of(&transformer.config));
    }
    let present = |found: Result<String, CheckpointError>| match found {
        Ok(what) => ComponentState::Present(what),
        Err(error) => ComponentState::Broken(error),
    };
    let states = [
        ("text_encoder", weights(Component::<T5Config>::open(&dir.join("text_encoder")))),
        ("transformer", weights(transformer)),
        ("vae", weights(Component::<VaeConfig>::open(&dir.join("vae")))),
        ("scheduler", present(open_scheduler(dir, &index).map(|s| format!("{:?}", s.kind)))),
        ("tokenizer", present(open_tokenizer(dir).map(|t| format!("{} pieces", t.vocab_size())))),
    ];
    let components =
        states.into_iter().map(|(name, state)| ComponentReport { name, state }).collect();
    let differences = Checkpoint::open(dir).ok().map(|checkpoint| differences(&checkpoint));
    Ok(Inspection { dir: dir.to_owned(), variant, components, differences })
}

fn weights<C: ModelConfig>(opened: Result<Component<C>, CheckpointError>) -> ComponentState {
    let weights = match opened {
        Ok(component) => component.weights,
        Err(error) => return ComponentState::Broken(error),
    };
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
