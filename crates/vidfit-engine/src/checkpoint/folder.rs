//! A checkpoint of which only configurations have been read: enough to say what it is.

use super::component::ComponentFolder;
use super::{
    Checkpoint, CheckpointError, Library, Place, Variant, check_fit, open_scheduler, read_index,
};
use vidfit_cogvideox::scheduler::SchedulerConfig;
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;

/// A checkpoint that has not been opened: its configurations fit each other; whether its weights are
/// there, and are theirs, is not known yet.
pub struct CheckpointFolder {
    /// Where its files are.
    pub place: Place,
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
    /// Reads the configurations in `place`: JSON, no headers, no weights, no tokenizer.
    ///
    /// # Errors
    /// [`CheckpointError`], for the first that is missing or wrong.
    pub fn read(place: impl Into<Place>) -> Result<CheckpointFolder, CheckpointError> {
        let place = place.into();
        let index = read_index(&place)?;
        let transformer =
            ComponentFolder::<TransformerConfig>::read(place.component("transformer"))?;
        let vae = ComponentFolder::<VaeConfig>::read(place.component("vae"))?;
        let text_encoder = ComponentFolder::<T5Config>::read(place.component("text_encoder"))?;
        let scheduler = open_scheduler(&place, &index)?;
        check_fit(&place, &text_encoder.config, &transformer.config, &vae.config)?;
        Ok(CheckpointFolder {
            variant: Variant::of(&transformer.config),
            place,
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
            &self.place,
            library.text_encoder(&self.text_encoder)?,
            library.transformer(&self.transformer)?,
            library.vae(&self.vae)?,
            self.scheduler.clone(),
            library.tokenizer(&self.place)?,
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
