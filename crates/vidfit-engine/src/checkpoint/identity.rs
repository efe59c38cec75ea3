//! What tells files and components apart, whatever path leads to them, so that what is used twice is
//! opened once.

use super::Place;
use super::component::ModelConfig;
use super::place::{BuiltInFile, weights_name};
use crate::digest::Digest;
use crate::hub::blob_of;
use crate::safetensors::weight_files;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A file, until it is written to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    called: Called,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Called {
    /// A blob of a hub's cache, called by a digest of its contents. Two caches may have the same.
    Blob(String),
    /// Any other file: links to one are the same.
    File { file: Number, modified: Option<SystemTime> },
    /// A file that is built into the program, by a digest of its contents.
    BuiltIn(Digest),
}

/// The device and the number of a file on it.
#[cfg(unix)]
type Number = (u64, u64);

/// Elsewhere, where a file has no number: the path, without links.
#[cfg(not(unix))]
type Number = std::path::PathBuf;

impl FileIdentity {
    /// The identity of the file at `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> std::io::Result<FileIdentity> {
        let about = std::fs::metadata(path)?;
        let called = match blob_of(path) {
            Some(blob) => Called::Blob(blob),
            None => Called::File { file: number(path, &about)?, modified: about.modified().ok() },
        };
        Ok(FileIdentity { called, bytes: about.len() })
    }

    /// The identity of a file that is built into the program.
    pub(super) fn built_in(file: &BuiltInFile) -> FileIdentity {
        let bytes = file.contents.len() as u64;
        FileIdentity { called: Called::BuiltIn(file.digest), bytes }
    }
}

#[cfg(unix)]
fn number(_: &Path, about: &std::fs::Metadata) -> std::io::Result<Number> {
    use std::os::unix::fs::MetadataExt;
    Ok((about.dev(), about.ino()))
}

#[cfg(not(unix))]
fn number(path: &Path, _: &std::fs::Metadata) -> std::io::Result<Number> {
    path.canonicalize()
}

/// The digest of the index of a component's shards, if there is one, and the shards.
fn in_folder(dir: &Path, stem: &str) -> Option<(Option<String>, Arc<[FileIdentity]>)> {
    let files = weight_files(dir, stem).ok()?;
    let index = match &files.index {
        Some(path) => Some(Digest::of(&std::fs::read(path).ok()?).to_string()),
        None => None,
    };
    let shards = files.shards.iter().map(|path| FileIdentity::of(path).ok());
    Some((index, shards.collect::<Option<_>>()?))
}

/// A component: components of one identity have the same configuration and the same weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ComponentIdentity(Identity);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Files {
        /// What was understood of `config.json`: published models with the same text encoder say in
        /// theirs from which folder it once came, which is no difference.
        config: String,
        /// Of the index of the shards.
        index: Option<String>,
        shards: Arc<[FileIdentity]>,
    },
    /// A component without files.
    Alone(u64),
}

impl ComponentIdentity {
    /// The identity of the component in `place` whose configuration is `config`. `None` if its files
    /// cannot be found, which opening it says better. Reads no headers, and no weights of files.
    pub(super) fn of<C: ModelConfig>(place: &Place, config: &C) -> Option<ComponentIdentity> {
        let (index, shards) = match place {
            Place::Folder(dir) => in_folder(dir, C::STEM)?,
            Place::Program { .. } => {
                let file = place.built_in_file(&weights_name(C::STEM))?;
                (None, [FileIdentity::built_in(&file)].into())
            }
        };
        let config = serde_json::to_string(config).ok()?;
        Some(ComponentIdentity(Identity::Files { config, index, shards }))
    }

    /// An identity that nothing else has.
    pub(super) fn alone() -> ComponentIdentity {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ComponentIdentity(Identity::Alone(NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}
