//! From what a user calls a model to a checkpoint.

use crate::exit::Failure;
use std::path::Path;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::hub::{HubConfig, HubError, resolve};

/// A model to plan with.
pub struct Model {
    /// What is known of it.
    pub checkpoint: Checkpoint,
    /// What to call it on a command line.
    pub spelled: String,
    /// Whether it is known by its published configuration alone.
    pub is_built_in: bool,
}

/// The model of this name, with its weights.
///
/// # Errors
/// Bad input if it is not on this machine, or broken.
pub fn downloaded(name: &str) -> Result<Model, Failure> {
    open(name).map_err(Failure::from)
}

/// The model of this name to plan with: as it is on this machine, or as it was published.
///
/// # Errors
/// Bad input if it is neither.
pub fn known(name: &str) -> Result<Model, Failure> {
    let absent = match open(name) {
        Ok(model) => return Ok(model),
        Err(error) => error,
    };
    // A folder that is there and broken, or not where it was looked for, is not to be mistaken for
    // what it is named after.
    let is_a_name = match name.rsplit_once('/') {
        None => true,
        Some((owner, _)) => PUBLISHERS.contains(&owner),
    };
    match Variant::named(name) {
        Some(variant) if is_a_name && !Path::new(name).exists() => Ok(published(variant)),
        _ => Err(absent.into()),
    }
}

/// Under whose names the models are published.
const PUBLISHERS: [&str; 2] = ["zai-org", "THUDM"];

/// A published model, without its files.
pub fn published(variant: Variant) -> Model {
    Model { checkpoint: Checkpoint::published(variant), spelled: variant.id(), is_built_in: true }
}

/// The smaller published models that make videos from text alone, largest first.
pub fn smaller_than(variant: Variant) -> Vec<Variant> {
    let by_size = [Variant::OneFive, Variant::FiveB, Variant::TwoB];
    let above = match variant {
        Variant::OneFive | Variant::OneFiveI2v => 1,
        Variant::FiveB | Variant::FiveBI2v => 2,
        Variant::TwoB => 3,
    };
    by_size[above..].to_vec()
}

/// What to say where no model was named.
pub fn names() -> String {
    let names: Vec<String> = Variant::ALL.into_iter().map(|variant| variant.id()).collect();
    format!(
        "no model was given. Name one with --model: a folder in the diffusers layout, or one of {} \
         (2b, 5b and 1.5 for short), which need not be downloaded for this",
        names.join(", ")
    )
}

fn open(name: &str) -> Result<Model, EngineError> {
    let config = HubConfig::from_env();
    let (location, spelled) = match (resolve(name, &config), Variant::named(name)) {
        // A short name is that of the published model.
        (Err(HubError::NotAModel { .. }), Some(variant)) => {
            (resolve(&variant.id(), &config)?, variant.id())
        }
        (found, _) => (found?, name.to_owned()),
    };
    let checkpoint = Checkpoint::open(&location.dir)?;
    Ok(Model { checkpoint, spelled, is_built_in: false })
}
