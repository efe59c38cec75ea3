//! Room on the disks, asked for before anything is written.

use super::RunsError;
use std::path::{Path, PathBuf};

/// Refuses what the disks have no room for: `wanted` are places, which need not be there yet, and the
/// bytes that will be written to each. What goes to one disk is added up.
///
/// # Errors
/// [`RunsError::NoRoom`]. A disk that does not say how large it is has room.
pub fn check_room(wanted: &[(&Path, u64)]) -> Result<(), RunsError> {
    let mut disks: Vec<(Disk, PathBuf, u64)> = Vec::new();
    for (place, bytes) in wanted {
        let Some(folder) = existing(place) else { continue };
        let disk = disk_of(&folder);
        match disks.iter_mut().find(|(known, ..)| *known == disk) {
            Some((.., needed)) => *needed = needed.saturating_add(*bytes),
            None => disks.push((disk, folder, *bytes)),
        }
    }
    for (_, folder, needed_bytes) in disks {
        match fs4::statvfs(&folder) {
            Ok(stats) if stats.total_space() > 0 && stats.available_space() < needed_bytes => {
                let free_bytes = stats.available_space();
                return Err(RunsError::NoRoom { folder, needed_bytes, free_bytes });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether two places, which need not be there yet, are on one disk.
pub fn are_on_one_disk(one: &Path, other: &Path) -> bool {
    let disk = |place| existing(place).map(|folder| disk_of(&folder));
    disk(one) == disk(other)
}

/// The deepest folder on the way to `place` that is there.
fn existing(place: &Path) -> Option<PathBuf> {
    let place = std::path::absolute(place).ok()?;
    place.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned)
}

#[cfg(unix)]
type Disk = Option<u64>;

#[cfg(unix)]
fn disk_of(folder: &Path) -> Disk {
    use std::os::unix::fs::MetadataExt;
    folder.metadata().ok().map(|folder| folder.dev())
}

/// Elsewhere the drive's letter, or the share.
#[cfg(not(unix))]
type Disk = Option<std::ffi::OsString>;

#[cfg(not(unix))]
fn disk_of(folder: &Path) -> Disk {
    folder.components().next().map(|first| first.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_one_disk_is_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let free = fs4::statvfs(folder.path()).unwrap().available_space();
        let (one, other) = (folder.path().join("not/there/yet"), folder.path().join("x"));
        check_room(&[(&one, 1 << 10), (&other, 1 << 10)]).unwrap();
        // Others write meanwhile: far from the edge.
        let most = free / 3 * 2;
        check_room(&[(&one, most)]).unwrap();
        let error = check_room(&[(&one, most), (&other, most)]).unwrap_err();
        assert!(
            matches!(&error, RunsError::NoRoom { needed_bytes, .. } if *needed_bytes == 2 * most),
            "{error}"
        );
        assert!(error.to_string().contains("--runs DIR"), "{error}");
        assert!(check_room(&[(&one, u64::MAX), (&other, u64::MAX)]).is_err());
    }
}
