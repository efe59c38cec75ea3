//! From what a user calls a model to a folder.

use std::path::{Path, PathBuf};

use super::cache::RepoCache;
use super::{HubConfig, HubError, ModelId};

/// A model's folder and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLocation {
    /// The folder in diffusers layout.
    pub dir: PathBuf,
    /// How it was found.
    pub source: ModelSource,
}

/// How a model's folder was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The user gave the folder's path.
    Folder,
    /// A hub id that is in the local cache.
    Cache {
        /// The id it was found under, which may have the owner's other name.
        id: ModelId,
        /// The commit of the snapshot.
        commit: String,
    },
}

/// Finds the folder of a model, given as a path or as `owner/name[@revision]`.
///
/// An existing folder is taken as it is, also if its path looks like a hub id. A hub id is looked
/// up in the local cache only; the network is never touched.
pub fn resolve(model: &str, config: &HubConfig) -> Result<ModelLocation, HubError> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(ModelLocation { dir: path.to_owned(), source: ModelSource::Folder });
    }
    if path.exists() {
        return Err(HubError::NotAFolder { path: path.to_owned() });
    }
    let id = ModelId::parse(model).map_err(|_| HubError::NotAModel { given: model.to_owned() })?;
    for id in id.with_aliases() {
        let cache = RepoCache::of(&id, config);
        let Some(commit) = cache.commit_of(id.revision()) else { continue };
        let dir = cache.snapshot(&commit);
        if dir.is_dir() {
            return Ok(ModelLocation { dir, source: ModelSource::Cache { id, commit } });
        }
    }
    Err(HubError::NotCached { id: id.to_string(), cache_dir: config.cache_dir.clone() })
}
