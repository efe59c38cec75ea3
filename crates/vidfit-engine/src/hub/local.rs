//! What is in the cache.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use super::cache::RepoCache;
use super::id::is_commit;
use super::{HubConfig, HubError, ModelId};

/// A snapshot of a diffusers model in the local cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// `owner/name`.
    pub id: String,
    /// The branches and tags that stand for this snapshot, sorted; often just `main`.
    pub revisions: Vec<String>,
    /// The commit.
    pub commit: String,
    /// The folder in diffusers layout.
    pub dir: PathBuf,
    /// The sizes of its files together.
    pub bytes: u64,
    /// The pipeline's class as `model_index.json` names it.
    pub pipeline_class: Option<String>,
}

/// The diffusers models in the local cache, sorted by id and commit. A cache that does not exist
/// is an empty one.
pub fn list_local(config: &HubConfig) -> Result<Vec<LocalModel>, HubError> {
    let mut models = Vec::new();
    if !config.cache_dir.exists() {
        return Ok(models);
    }
    for folder in entries(&config.cache_dir)? {
        let folder_name = folder.file_name();
        let Some(id) = folder_name.to_str().and_then(ModelId::from_folder_name) else { continue };
        let cache = RepoCache::of(&id, config);
        let snapshots = folder.path().join("snapshots");
        if !snapshots.is_dir() {
            continue;
        }
        let refs = read_refs(&cache.refs());
        for snapshot in entries(&snapshots)? {
            let dir = snapshot.path();
            let commit = snapshot.file_name().to_string_lossy().into_owned();
            let index = dir.join("model_index.json");
            if !is_commit(&commit) || !index.is_file() {
                continue;
            }
            let mut revisions: Vec<String> = refs
                .iter()
                .filter(|(_, target)| *target == commit)
                .map(|(name, _)| name.clone())
                .collect();
            revisions.sort();
            models.push(LocalModel {
                id: id.repo(),
                revisions,
                bytes: folder_bytes(&dir)?,
                pipeline_class: pipeline_class(&index),
                commit,
                dir,
            });
        }
    }
    models.sort_by(|a, b| (&a.id, &a.commit).cmp(&(&b.id, &b.commit)));
    Ok(models)
}

fn entries(dir: &Path) -> Result<Vec<DirEntry>, HubError> {
    fs::read_dir(dir).and_then(|entries| entries.collect()).map_err(HubError::io("list", dir))
}

/// Branches and tags with their commits; names may contain slashes. What cannot be read is not a
/// reason to list nothing.
fn read_refs(dir: &Path) -> Vec<(String, String)> {
    let mut refs = Vec::new();
    for entry in entries(dir).unwrap_or_default() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue; // A temporary file.
        }
        if entry.path().is_dir() {
            let below = read_refs(&entry.path());
            refs.extend(below.into_iter().map(|(rest, commit)| (format!("{name}/{rest}"), commit)));
        } else if let Ok(commit) = fs::read_to_string(entry.path()) {
            refs.push((name, commit.trim().to_owned()));
        }
    }
    refs
}

/// Follows links to files, which is what a snapshot consists of, but not to folders.
fn folder_bytes(dir: &Path) -> Result<u64, HubError> {
    let mut bytes = 0;
    for entry in entries(dir)? {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            bytes += folder_bytes(&path)?;
        } else {
            bytes += super::cache::file_bytes(&path).unwrap_or(0);
        }
    }
    Ok(bytes)
}

fn pipeline_class(index: &Path) -> Option<String> {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(index).ok()?).ok()?;
    Some(index.get("_class_name")?.as_str()?.to_owned())
}
