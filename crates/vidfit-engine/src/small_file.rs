//! Files that are small if they are what they should be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Requests, reports and plans are small; a longer file is none of them.
const LONGEST_BYTES: u64 = 16 << 20;

/// The text of a small file.
///
/// # Errors
/// Whatever the system says; and that it is no small file, if it is long, or no file at all: a pipe
/// is not waited for, and a device not read to its end.
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    let file = open_regular(path)?;
    let mut text = String::new();
    // It may grow while it is read.
    match file.take(LONGEST_BYTES + 1).read_to_string(&mut text)? as u64 {
        ..=LONGEST_BYTES => Ok(text),
        _ => Err(not_small()),
    }
}

/// Opens a file to read it, if it is one.
///
/// # Errors
/// As [`read_small`].
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // Asked before it is opened: opening a pipe would wait for somebody to write to it.
    match path.metadata()?.is_file() {
        true => File::open(path),
        false => Err(not_small()),
    }
}

fn not_small() -> io::Error {
    io::Error::other("it is no small file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read_small(&path).unwrap(), "text");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(LONGEST_BYTES + 1).unwrap();
        for not_small in [&*path, folder.path(), Path::new("/dev/zero")] {
            assert!(read_small(not_small).is_err(), "{}", not_small.display());
        }
    }
}
