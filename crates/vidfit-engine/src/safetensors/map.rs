//! The contents of files, as slices: memory maps, which are the one place of this module that depends
//! on the operating system, and what is built into the program.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::Mmap;

/// Maps a whole file for reading.
///
/// The bytes of a map change or vanish when another program writes to or shortens the file while
/// it is mapped; on Linux, touching a vanished page ends the program. Checkpoints are replaced by
/// renaming, never written in place, by this program and by Python's, so a mapped file stays what
/// it was.
pub(super) fn map_file(file: &File) -> io::Result<Contents> {
    // SAFETY: the map is read-only and private to this process; see above for what another
    // program could do to the file, which the length checks of the caller cannot prevent.
    let map = unsafe { Mmap::map(file)? };
    Ok(Contents::Map(Arc::new(map)))
}

/// The contents of a whole file. Cloning it is cheap.
#[derive(Clone)]
pub(super) enum Contents {
    /// Of a file on a disk.
    Map(Arc<Mmap>),
    /// Of one that is built into the program.
    BuiltIn(&'static [u8]),
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Contents::Map(map) => map,
            Contents::BuiltIn(bytes) => bytes,
        }
    }
}

/// A part of a file's contents, which keeps the map of it alive. Cloning it is cheap.
#[derive(Clone)]
pub struct MappedBytes {
    contents: Contents,
    start: usize,
    len: usize,
}

impl MappedBytes {
    /// A part of a file; `range` must lie inside it.
    pub(super) fn new(contents: Contents, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= contents.len(), "a range beyond its file");
        Self { contents, start: range.start, len: range.end - range.start }
    }

    /// The bytes. They need not be aligned for any type wider than a byte.
    pub fn as_slice(&self) -> &[u8] {
        &self.contents[self.start..self.start + self.len]
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for MappedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedBytes({}..{})", self.start, self.start + self.len)
    }
}
