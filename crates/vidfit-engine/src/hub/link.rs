//! Links from a snapshot to its blobs: the one place that depends on what the file system can do.

use std::fs;
use std::io;
use std::path::Path;

use super::cache::unique_sibling;

/// Makes `link` show the contents of `blob`, replacing what was there at once.
///
/// `target` is the way from the link's folder to the blob. Where symbolic links are not allowed
/// (Windows without developer mode, some mounted disks) it is a hard link; where those are not
/// either, the blob itself moves there, as Python does, for a copy would take the room twice.
pub(super) fn link_blob(blob: &Path, target: &Path, link: &Path) -> io::Result<()> {
    let temporary = unique_sibling(link);
    // What a killed process of the same number may have left.
    let _ = fs::remove_file(&temporary);
    if symlink(target, &temporary).is_ok() || fs::hard_link(blob, &temporary).is_ok() {
        let renamed = fs::rename(&temporary, link);
        // Renaming one hard link onto another of the same file leaves both.
        let _ = fs::remove_file(&temporary);
        renamed
    } else {
        fs::rename(blob, link)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
