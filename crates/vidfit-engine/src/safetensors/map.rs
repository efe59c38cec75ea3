//! Memory maps: the one place of this module that depends on the operating system.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

/// Maps a whole file for reading.
///
/// The bytes of a map change or vanish when another program writes to or shortens the file while
/// it is mapped; on Linux, touching a vanished page ends the program. Checkpoints are replaced by
/// renaming, never written in place, by this program and by Python's, so a mapped file stays what
/// it was.
pub(super) fn map_file(file: &File) -> io::Result<Arc<Mmap>> {
    // SAFETY: the map is read-only and private to this process; see above for what another
    // program could do to the file, which the length checks of the caller cannot prevent.
    let map = unsafe { Mmap::map(file)? };
    Ok(Arc::new(map))
}

/// A part of a mapped file, which keeps the map alive. Cloning it is cheap.
#[derive(Clone)]
pub struct MappedBytes {
    map: Arc<Mmap>,
    start: usize,
    len: usize,
}

impl MappedBytes {
    /// A part of a map; `range` must lie inside it.
    pub(super) fn new(map: Arc<Mmap>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= map.len(), "a range beyond its map");
        Self { map, start: range.start, len: range.end - range.start }
    }

    /// The bytes. They need not be aligned for any type wider than a byte.
    pub fn as_slice(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where in the file the bytes begin.
    pub fn start(&self) -> usize {
        self.start
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
