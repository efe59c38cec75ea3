//! Downloading a model into the cache.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::blob::{WantedFile, fetch_blob};
use super::cache::{RepoCache, file_bytes};
use super::http::Client;
use super::listing::{RemoteBlob, RemoteFile, fetch_blob_info, fetch_listing};
use super::meter::Meter;
use super::retry::{interruptible, with_patience};
use super::room::check_room;
use super::select::{MODEL_INDEX, components_of, select};
use super::{HubConfig, HubError, ModelId, PullEvent};

/// Downloads a model, given as `owner/name[@revision]`, into the cache and returns the folder of
/// its snapshot. What the cache already has is not downloaded again, and what an earlier,
/// interrupted call left is continued.
///
/// Only the files of a diffusers pipeline are taken. Each is checked against the hub's checksum
/// before it gets its name, and the branch is noted only when all are here, so
/// [`resolve`](super::resolve) never finds half a model that this function made.
///
/// Setting `cancel` ends the call within a moment with [`HubError::Cancelled`].
pub fn pull(
    id: &str,
    config: &HubConfig,
    progress: &mut dyn FnMut(PullEvent),
    cancel: &AtomicBool,
) -> Result<PathBuf, HubError> {
    let id = ModelId::parse(id)?;
    if config.offline {
        return Err(HubError::Offline { id: id.to_string() });
    }
    let client = Client::new(config, &id)?;
    let cache = RepoCache::for_pull(&id, config);
    let mut meter = Meter::new(progress);
    let pull = Pull { id: &id, config, client: &client, cache: &cache, cancel };
    interruptible(cancel, client.interrupter(), || pull.run(&mut meter))
}

struct Pull<'a> {
    id: &'a ModelId,
    config: &'a HubConfig,
    client: &'a Client<'a>,
    cache: &'a RepoCache,
    cancel: &'a AtomicBool,
}

/// A file of the model and its contents.
struct PlannedFile {
    name: String,
    blob: RemoteBlob,
}

impl Pull<'_> {
    fn run(&self, meter: &mut Meter<'_>) -> Result<PathBuf, HubError> {
        let listing =
            with_patience(self.config, self.cancel, meter, || fetch_listing(self.client, self.id))?;
        let commit = &listing.commit;
        let components = self.fetch_components(commit, &listing.files, meter)?;
        let names = listing.files.iter().map(|file| file.name.as_str());
        let selected = select(names, components.as_ref());
        if !selected.iter().any(|name| name == MODEL_INDEX || name.ends_with(".safetensors")) {
            return Err(HubError::NothingToPull { id: self.id.to_string() });
        }
        let mut files = Vec::new();
        for file in listing.files.iter().filter(|file| selected.contains(&file.name)) {
            let blob = self.blob_of(commit, file, meter)?;
            files.push(PlannedFile { name: file.name.clone(), blob });
        }
        let missing = self.plan(commit, &files, meter)?;
        for file in missing {
            self.fetch(commit, file, meter)?;
        }
        self.cache.write_ref(self.id.revision(), commit)?;
        Ok(self.cache.snapshot(commit))
    }

    /// The components that the pipeline's index names: it is downloaded before the rest is chosen.
    fn fetch_components(
        &self,
        commit: &str,
        files: &[RemoteFile],
        meter: &mut Meter<'_>,
    ) -> Result<Option<HashSet<String>>, HubError> {
        let Some(index) = files.iter().find(|file| file.name == MODEL_INDEX) else {
            return Ok(None);
        };
        let blob = self.blob_of(commit, index, meter)?;
        if self.cache.linked_bytes(commit, MODEL_INDEX) != Some(blob.bytes) {
            let file = PlannedFile { name: index.name.clone(), blob };
            // Progress begins with the plan, which counts this file as cached.
            let mut only_trouble = |event| {
                if matches!(event, PullEvent::Retrying { .. } | PullEvent::Waiting { .. }) {
                    meter.event(event);
                }
            };
            self.fetch(commit, &file, &mut Meter::new(&mut only_trouble))?;
        }
        let path = self.cache.snapshot(commit).join(MODEL_INDEX);
        let text = fs::read(&path).map_err(HubError::io("read", path))?;
        Ok(components_of(&text))
    }

    fn blob_of(
        &self,
        commit: &str,
        file: &RemoteFile,
        meter: &mut Meter<'_>,
    ) -> Result<RemoteBlob, HubError> {
        match &file.blob {
            Some(blob) => Ok(blob.clone()),
            None => with_patience(self.config, self.cancel, meter, || {
                fetch_blob_info(self.client, commit, &file.name)
            }),
        }
    }

    /// Says what there is to do, checks that the disk has room for it, and returns the files that
    /// are not yet in the snapshot.
    fn plan<'f>(
        &self,
        commit: &str,
        files: &'f [PlannedFile],
        meter: &mut Meter<'_>,
    ) -> Result<Vec<&'f PlannedFile>, HubError> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        let (mut total_bytes, mut linked_bytes, mut cached_bytes) = (0u64, 0u64, 0u64);
        let mut needed_bytes = 0u64;
        for file in files {
            let bytes = file.blob.bytes;
            total_bytes = total_bytes.saturating_add(bytes);
            if self.cache.linked_bytes(commit, &file.name) == Some(bytes) {
                linked_bytes = linked_bytes.saturating_add(bytes);
                cached_bytes = cached_bytes.saturating_add(bytes);
                continue;
            }
            missing.push(file);
            // Two files of the same contents are one blob.
            let is_here = !seen.insert(file.blob.name.as_str())
                || file_bytes(&self.cache.blob(&file.blob.name)) == Some(bytes);
            let partial = file_bytes(&self.cache.incomplete(&file.blob.name)).unwrap_or(0);
            let here = if is_here { bytes } else { partial.min(bytes) };
            cached_bytes = cached_bytes.saturating_add(here);
            needed_bytes = needed_bytes.saturating_add(bytes - here);
        }
        fs::create_dir_all(&self.config.cache_dir)
            .map_err(HubError::io("create", &self.config.cache_dir))?;
        check_room(self.id, &self.config.cache_dir, needed_bytes)?;
        meter.plan(total_bytes, linked_bytes);
        meter.event(PullEvent::Planned {
            commit: commit.to_owned(),
            files: files.len(),
            total_bytes,
            cached_bytes,
        });
        Ok(missing)
    }

    fn fetch(
        &self,
        commit: &str,
        file: &PlannedFile,
        meter: &mut Meter<'_>,
    ) -> Result<(), HubError> {
        let url = self.client.file_url(commit, &file.name);
        let wanted = WantedFile { name: &file.name, url, blob: &file.blob };
        fetch_blob(&wanted, self.cache, self.client, self.config, self.cancel, meter)?;
        self.cache.link(commit, &file.name, &file.blob.name)
    }
}
