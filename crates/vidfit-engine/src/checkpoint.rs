//! Checkpoints in the published diffusers layout.
//!
//! Opening one reads configurations and headers, and holds every tensor to what the configuration
//! asks for: nothing missing, nothing unknown, right shapes and types. No weight is read.

mod component;
mod folder;
mod identity;
mod inspect;
mod library;
mod place;
mod published;
mod stored;
mod variant;

pub use component::{Component, ComponentFolder, ModelConfig};
pub use folder::CheckpointFolder;
pub use identity::{ComponentIdentity, FileIdentity};
pub use inspect::{ComponentReport, ComponentState, Inspection, inspect};
pub use library::{Library, Opened};
pub use place::{BuiltIn, Place};
pub use published::differences;
pub use stored::{StoredWeights, WeightSource};
pub use variant::Variant;

use crate::digest::Digest;
use crate::safetensors::SafetensorsError;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use vidfit_cogvideox::scheduler::{SchedulerConfig, SchedulerError, SchedulerKind};
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::tokenizer::{Tokenizer, TokenizerError};
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The fields are what the messages say they are.
pub enum CheckpointError {
    #[error(
        "{} is not a checkpoint: it has no model_index.json. Give the folder that holds \
         transformer/, vae/ and text_encoder/, or a model id",
        dir.display()
    )]
    NotACheckpoint { dir: PathBuf },
    #[error(
        "the checkpoint lacks {what} ({} is missing). Get it with `vidfit models pull {id}`",
        path.display()
    )]
    Missing { what: &'static str, path: PathBuf, id: String },
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{} cannot be used: {what}. If it was edited or damaged, download the model again",
        path.display()
    )]
    Config { path: PathBuf, what: String },
    #[error("{} asks for {what}, which vidfit does not compute", path.display())]
    Unsupported { path: PathBuf, what: String },
    #[error(
        "{} lacks {count} of the weights that its configuration asks for, such as {key}",
        dir.display()
    )]
    MissingWeights { dir: PathBuf, key: String, count: usize },
    #[error(
        "{} has {count} weights that its configuration knows nothing of, such as {key}: is \
         config.json from another model?",
        dir.display()
    )]
    UnknownWeights { dir: PathBuf, key: String, count: usize },
    #[error("{key} in {} has the shape {found:?}; its configuration asks for {expected:?}", dir.display())]
    WrongShape { dir: PathBuf, key: String, found: Vec<u64>, expected: Vec<usize> },
    #[error("{key} in {} has the type {found}; vidfit reads F32, F16 and BF16", dir.display())]
    WrongType { dir: PathBuf, key: String, found: String },
    #[error(transparent)]
    Weights(#[from] SafetensorsError),
    #[error("{}: {source}", path.display())]
    Scheduler { path: PathBuf, source: SchedulerError },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A whole checkpoint. Its components may be others' as well: a clone has the same ones.
#[derive(Clone)]
pub struct Checkpoint {
    /// Where its files are.
    pub place: Place,
    /// Which of the published models it is like.
    pub variant: Variant,
    /// `text_encoder/`.
    pub text_encoder: Arc<Component<T5Config>>,
    /// `transformer/`.
    pub transformer: Arc<Component<TransformerConfig>>,
    /// `vae/`.
    pub vae: Arc<Component<VaeConfig>>,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
    /// `tokenizer/spiece.model`; absent where there are no files.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

impl Checkpoint {
    /// Opens and checks a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`], for the first thing that is missing or wrong.
    pub fn open(place: impl Into<Place>) -> Result<Checkpoint, CheckpointError> {
        CheckpointFolder::read(place)?.open(&Library::default())
    }

    /// Joins the components that were opened in `place`, and holds them to each other.
    fn join(
        place: &Place,
        text_encoder: Arc<Component<T5Config>>,
        transformer: Arc<Component<TransformerConfig>>,
        vae: Arc<Component<VaeConfig>>,
        scheduler: SchedulerConfig,
        tokenizer: Arc<Tokenizer>,
    ) -> Result<Checkpoint, CheckpointError> {
        check_fit(place, &text_encoder.config, &transformer.config, &vae.config)?;
        let (pieces, rows) = (tokenizer.vocab_size(), text_encoder.config.vocab_size);
        if pieces > rows {
            let path = place.path().join("text_encoder/config.json");
            let what = format!("a vocabulary of {rows}; the tokenizer has {pieces} pieces");
            return Err(CheckpointError::Config { path, what });
        }
        Ok(Checkpoint {
            variant: Variant::of(&transformer.config),
            scheduler,
            tokenizer: Some(tokenizer),
            place: place.clone(),
            text_encoder,
            transformer,
            vae,
        })
    }
}

impl Checkpoint {
    /// What to call it: one in the program by its own name, others by the published one they are like.
    pub fn name(&self) -> &'static str {
        self.place.built_in().map_or(self.variant.name(), BuiltIn::name)
    }

    /// The most frames that it was made for.
    pub fn most_frames(&self) -> usize {
        let frames = self.transformer.config.sample_frames;
        match self.place {
            Place::Folder(_) => frames.max(self.variant.most_frames()),
            Place::Program { .. } => frames,
        }
    }

    /// What tells this checkpoint from others and from itself before a change: its folder, a digest of
    /// its configurations, and names, lengths and times of its files, or digests of their contents.
    pub fn identity(&self) -> String {
        let dir = self.place.path();
        let dir = match self.place {
            Place::Folder(_) => dir.canonicalize().unwrap_or(dir),
            Place::Program { .. } => dir,
        };
        let Checkpoint { text_encoder, transformer, vae, scheduler, .. } = self;
        let mut configurations = Digest::default();
        let (text, decoder) = (&text_encoder.config, &vae.config);
        configurations.add(format!("{text:?} {:?} {decoder:?}", transformer.config).as_bytes());
        configurations.add(format!("{scheduler:?}").as_bytes());
        let weights = [&text_encoder.weights, &transformer.weights, &vae.weights];
        let identities = weights.map(StoredWeights::identity);
        format!("{} {configurations} {}", dir.display(), identities.join(" "))
    }

    /// Videos have a multiple of so many frames, and one.
    pub fn frame_step(&self) -> usize {
        2 * self.vae.config.temporal_compression_ratio
    }

    /// Height and width are multiples of so many pixels.
    pub fn size_unit(&self) -> usize {
        self.vae.config.spatial_ratio() * self.transformer.config.patch_size
    }

    /// Whether there are weights to run with.
    pub fn has_weights(&self) -> bool {
        !self.transformer.weights.is_nowhere()
    }
}

/// Holds the components' configurations to each other.
fn check_fit(
    place: &Place,
    text_encoder: &T5Config,
    transformer: &TransformerConfig,
    vae: &VaeConfig,
) -> Result<(), CheckpointError> {
    let path = place.path().join("transformer/config.json");
    let (wide, narrow) = (text_encoder.d_model, transformer.text_embed_dim);
    if wide != narrow {
        let what = format!("text of width {narrow}; this text encoder makes {wide}");
        return Err(CheckpointError::Config { path, what });
    }
    let latent = (vae.latent_channels, transformer.out_channels);
    if latent.0 != latent.1 {
        let what = format!("{} latent channels; this VAE has {}", latent.1, latent.0);
        return Err(CheckpointError::Config { path, what });
    }
    let ratios = (transformer.temporal_compression_ratio, vae.temporal_compression_ratio);
    if ratios.0 != ratios.1 {
        let what = format!("{} frames in a latent one; this VAE makes {}", ratios.0, ratios.1);
        return Err(CheckpointError::Config { path, what });
    }
    Ok(())
}

/// `model_index.json`, as far as it can be wrong.
fn read_index(place: &Place) -> Result<Value, CheckpointError> {
    let (path, is_there) = place.file("model_index.json");
    if !is_there {
        return Err(CheckpointError::NotACheckpoint { dir: place.path() });
    }
    let index: Value = place.json("model_index.json")?;
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("");
    if !class.starts_with("CogVideoX") {
        let what = format!("a pipeline of class {class:?}; vidfit runs CogVideoX pipelines");
        return Err(CheckpointError::Config { path, what });
    }
    for (component, known) in COMPONENT_CLASSES {
        let class = component_class(&index, component);
        if !class.is_some_and(|class| known.contains(&class)) {
            let class = class.unwrap_or("nothing");
            let what = format!("{class} as its {component}; vidfit runs {}", known.join(" or "));
            return Err(CheckpointError::Config { path, what });
        }
    }
    Ok(index)
}

/// The components whose classes must be these. The scheduler's class chooses the scheduler.
const COMPONENT_CLASSES: [(&str, &[&str]); 4] = [
    ("text_encoder", &["T5EncoderModel"]),
    ("tokenizer", &["T5Tokenizer", "T5TokenizerFast"]),
    ("transformer", &["CogVideoXTransformer3DModel"]),
    ("vae", &["AutoencoderKLCogVideoX"]),
];

/// The class of a component: the index has `[library, class]`.
fn component_class<'a>(index: &'a Value, component: &str) -> Option<&'a str> {
    index.get(component)?.get(1)?.as_str()
}

/// The scheduler's configuration. Its class is the one that the index names, as in the reference:
/// the class in the configuration is only who wrote it.
fn open_scheduler(place: &Place, index: &Value) -> Result<SchedulerConfig, CheckpointError> {
    let place = place.component("scheduler");
    let (path, is_there) = place.file("scheduler_config.json");
    if !is_there {
        return Err(missing("the scheduler's configuration", path));
    }
    let text = place.text("scheduler_config.json")?;
    let class = component_class(index, "scheduler").unwrap_or("nothing");
    let config = SchedulerKind::of_class(class)
        .and_then(|kind| Ok(SchedulerConfig { kind, ..SchedulerConfig::from_json(&text)? }));
    config.map_err(|source| CheckpointError::Scheduler { path, source })
}

fn missing(what: &'static str, path: PathBuf) -> CheckpointError {
    let id = crate::hub::id_of_cached_path(&path).unwrap_or_else(|| "OWNER/NAME".into());
    CheckpointError::Missing { what, path, id }
}
