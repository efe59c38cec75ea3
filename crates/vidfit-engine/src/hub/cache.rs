//! Where things lie in the cache folder of one model.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::id::is_commit;
use super::link::link_blob;
use super::{HubConfig, HubError, ModelId};

/// The cache folder of one model.
pub(super) struct RepoCache {
    dir: PathBuf,
    locks_dir: PathBuf,
}

impl RepoCache {
    /// The folder of a model that need not exist yet. A model that is there under its owner's
    /// other name keeps that folder, so that it is not downloaded twice.
    pub fn for_pull(id: &ModelId, config: &HubConfig) -> Self {
        let mut folders = id.with_aliases().into_iter().map(|id| Self::of(&id, config));
        folders.find(|cache| cache.dir.is_dir()).unwrap_or_else(|| Self::of(id, config))
    }

    /// The folder of exactly this id.
    pub fn of(id: &ModelId, config: &HubConfig) -> Self {
        let folder = id.folder_name();
        Self {
            dir: config.cache_dir.join(&folder),
            locks_dir: config.cache_dir.join(".locks").join(folder),
        }
    }

    pub fn blob(&self, name: &str) -> PathBuf {
        self.dir.join("blobs").join(name)
    }

    pub fn incomplete(&self, name: &str) -> PathBuf {
        self.dir.join("blobs").join(format!("{name}.incomplete"))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub fn refs(&self) -> PathBuf {
        self.dir.join("refs")
    }

    /// The commit that a branch or tag stood for when it was last pulled.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_ascii_lowercase());
        }
        let commit = fs::read_to_string(self.refs().join(revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes the commit that a branch or tag stands for.
    pub fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.refs().join(revision);
        create_parent(&path)?;
        let temporary = unique_sibling(&path);
        fs::write(&temporary, commit)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(HubError::io("write", path))
    }

    /// Makes a file of a snapshot show a blob.
    pub fn link(&self, commit: &str, file: &str, blob: &str) -> Result<(), HubError> {
        let link = self.snapshot(commit).join(file);
        create_parent(&link)?;
        let mut target: PathBuf = file.split('/').map(|_| "..").collect();
        target.push("..");
        target.extend(["blobs", blob]);
        link_blob(&self.blob(blob), &target, &link).map_err(HubError::io("link", link))
    }

    /// The size of a file in a snapshot, if it is there and its link is not dangling.
    pub fn linked_bytes(&self, commit: &str, file: &str) -> Option<u64> {
        file_bytes(&self.snapshot(commit).join(file))
    }

    /// Opens the lock file of a blob; Python locks the same one.
    pub fn open_lock(&self, blob: &str) -> Result<File, HubError> {
        let path = self.locks_dir.join(format!("{blob}.lock"));
        create_parent(&path)?;
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(HubError::io("create", path))
    }
}

/// Tries to take a lock, which ends with the process or when the file is closed. File systems
/// without locks (some network mounts) count as locked by us: there is nothing to wait for.
pub(super) fn try_lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// The size of a file, following links; `None` if it is not there.
pub(super) fn file_bytes(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|about| about.is_file()).map(|about| about.len())
}

/// A hidden name beside `path` that no other thread or process uses, for a file that is then
/// renamed to `path`.
pub(super) fn unique_sibling(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{count}.tmp", std::process::id()))
}

pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(HubError::io("create", parent))
}
