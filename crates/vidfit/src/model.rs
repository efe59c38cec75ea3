//! From what a user calls a model to a checkpoint.

use crate::demo;
use crate::exit::Failure;
use crate::generate::output::absolute;
use std::path::{Path, PathBuf};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::{Checkpoint, Place, Variant};
use vidfit_engine::hub::{HubConfig, HubError, resolve};

/// A model to plan with.
pub struct Model {
    /// What is known of it.
    pub checkpoint: Checkpoint,
    /// What to call it on a command line.
    pub spelled: String,
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
    Model { checkpoint: Checkpoint::published(variant), spelled: variant.id() }
}

/// The smaller published models that make videos from text alone, largest first. None is smaller than
/// the one that is built in.
pub fn smaller_than(checkpoint: &Checkpoint) -> Vec<Variant> {
    let by_size = [Variant::OneFive, Variant::FiveB, Variant::TwoB];
    let above = match checkpoint.variant {
        _ if checkpoint.place.built_in().is_some() => by_size.len(),
        Variant::OneFive | Variant::OneFiveI2v => 1,
        Variant::FiveB | Variant::FiveBI2v => 2,
        Variant::TwoB => 3,
    };
    by_size[above..].to_vec()
}

/// The folder of a checkpoint, from the root, or what stands for it where the program is that.
pub fn folder(checkpoint: &Checkpoint) -> PathBuf {
    match &checkpoint.place {
        Place::Folder(dir) => absolute(dir),
        Place::Program { .. } => checkpoint.place.path(),
    }
}

/// The place of the model of this name, and what to call it on a command line.
///
/// # Errors
/// If it is not on this machine.
pub fn place(name: &str) -> Result<(Place, String), HubError> {
    // Whatever folders there are: one of that name is ./demo.
    if name == demo::NAME {
        return Ok((Place::from(&demo::MODEL), name.to_owned()));
    }
    let config = HubConfig::from_env();
    let (location, spelled) = match (resolve(name, &config), Variant::named(name)) {
        // A short name is that of the published model.
        (Err(HubError::NotAModel { .. }), Some(variant)) => {
            (resolve(&variant.id(), &config)?, variant.id())
        }
        (found, _) => (found?, name.to_owned()),
    };
    Ok((Place::Folder(location.dir), spelled))
}

fn open(name: &str) -> Result<Model, EngineError> {
    let (place, spelled) = place(name)?;
    Ok(Model { checkpoint: Checkpoint::open(place)?, spelled })
}
