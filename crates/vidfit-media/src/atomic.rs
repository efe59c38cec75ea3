//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use crate::MediaError;
use crate::target::Target;

/// A hidden sibling of an output file. [`commit`](Self::commit) renames it over the output;
/// dropped before that, it is removed.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    sibling: NamedTempFile,
    target: Target,
}

impl AtomicFile {
    pub(crate) fn create(target: Target) -> Result<Self, MediaError> {
        let prefix = target.sibling_prefix();
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // Temporary files are private by default; an output is as readable as any other file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let sibling = builder
            .tempfile_in(&target.folder)
            .map_err(|source| MediaError::io("creating", &target.named, source))?;
        Ok(Self { sibling, target })
    }

    #[cfg(feature = "h264")]
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Puts the file in place of the output once its bytes are safely on the disk, and returns
    /// its size in bytes.
    pub(crate) fn commit(self) -> Result<u64, MediaError> {
        let Self { sibling, target } = self;
        let failed = |source| MediaError::io("writing", &target.named, source);
        sibling.as_file().sync_all().map_err(failed)?;
        let bytes = sibling.as_file().metadata().map_err(failed)?.len();
        sibling.persist(&target.path).map_err(|error| failed(error.error))?;
        sync_folder(&target.folder);
        Ok(bytes)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sibling.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sibling.as_file_mut().flush()
    }
}

/// Makes renames in `folder` survive a power cut, where the system can. The output is in place
/// either way, so a refusal is no error.
pub(crate) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Renames with the error named after the output.
pub(crate) fn rename(from: &Path, to: &Path, named: &Path) -> Result<(), MediaError> {
    fs::rename(from, to).map_err(|source| MediaError::io("putting in place", named, source))
}
