//! A checkpoint of which only configurations have been read: enough to say what it is.

use super::component::ComponentFolder;
use super::{Checkpoint, CheckpointError, Library, Variant, check_fit, open_scheduler, read_index};
use std::path::{Path, PathBuf};
use vidfit_cogvideox::scheduler::SchedulerConfig;
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;

/// A checkpoint that has not been opened: its configurations fit each other; whether its weights are
/// there, and are theirs, is not known yet.
pub struct CheckpointFolder {
    /// The folder.
    pub dir: PathBuf,
    /// Which of the published models it is like.
    pub variant: Variant,
    /// `text_encoder/`.
    pub text_encoder: ComponentFolder<T5Config>,
    /// `transformer/`.
    pub transformer: ComponentFolder<TransformerConfig>,
    /// `vae/`.
    pub vae: ComponentFolder<VaeConfig>,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
}

impl CheckpointFolder {
    /// Reads the configurations in `dir`: JSON, no headers, no weights, no tokenizer.
    ///
    /// # Errors
    /// [`CheckpointError`], for the first that is missing or wrong.
    pub fn read(dir: &Path) -> Result<CheckpointFolder, CheckpointError> {
        let index = read_index(dir)?;
        let transformer = ComponentFolder::<TransformerConfig>::read(&dir.join("transformer"))?;
        let vae = ComponentFolder::<VaeConfig>::read(&dir.join("vae"))?;
        let text_encoder = ComponentFolder::<T5Config>::read(&dir.join("text_encoder"))?;
        let scheduler = open_scheduler(dir, &index)?;
        check_fit(dir, &text_encoder.config, &transformer.config, &vae.config)?;
        Ok(CheckpointFolder {
            dir: dir.to_owned(),
            variant: Variant::of(&transformer.config),
            text_encoder,
            transformer,
            vae,
            scheduler,
        })
    }

    /// Opens the checkpoint, and shares what others of `library` have open.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(&self, library: &Library) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::join(
            &self.dir,
            library.text_encoder(&self.text_encoder)?,
            library.transformer(&self.transformer)?,
            library.vae(&self.vae)?,
            self.scheduler.clone(),
            library.tokenizer(&self.dir)?,
        )
    }

    /// The names of the components that this checkpoint has in common with another: what both would
    /// open once.
    pub fn in_common(&self, other: &CheckpointFolder) -> Vec<&'static str> {
        let text_encoder = self.text_encoder.is_same(&other.text_encoder);
        let transformer = self.transformer.is_same(&other.transformer);
        let vae = self.vae.is_same(&other.vae);
        [("text_encoder", text_encoder), ("transformer", transformer), ("vae", vae)]
            .into_iter()
            .filter_map(|(name, is_same)| is_same.then_some(name))
            .collect()
    }
}
