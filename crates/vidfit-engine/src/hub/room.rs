//! Whether the disk has room for a download.

use std::path::Path;

use super::{HubError, ModelId};

/// Refuses a download that would fill the disk. `dir` must exist.
pub(super) fn check_room(id: &ModelId, dir: &Path, needed_bytes: u64) -> Result<(), HubError> {
    let free_bytes = fs4::available_space(dir).map_err(HubError::io("inspect", dir))?;
    if needed_bytes > free_bytes {
        return Err(HubError::NoRoom {
            id: id.to_string(),
            needed_bytes,
            free_bytes,
            dir: dir.to_owned(),
        });
    }
    Ok(())
}
