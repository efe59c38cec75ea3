//! The chunks of a PNG or WebP, each held to the file's length before a decoder believes it.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use crate::InputError;

/// One chunk: its name and the beginning of what it holds.
pub(crate) struct Chunk {
    pub(crate) name: [u8; 4],
    head: [u8; LONGEST_HEAD],
    head_bytes: usize,
}

/// Bytes of the longest header of a frame.
const LONGEST_HEAD: usize = 26;

impl Chunk {
    /// The first bytes of what it holds: all that a header has.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head[..self.head_bytes]
    }
}

/// Most chunks of a file: a frame has a few, and a large picture's pixels come in pieces of 8 kB.
pub(crate) const MAX_CHUNKS: usize = 4_000_000;

/// Shows `each` chunk of a PNG up to its end, all of which are there. `file` is at its beginning, and
/// again afterwards.
pub(crate) fn png_chunks(
    path: &Path,
    file: &mut BufReader<File>,
    each: &mut EachChunk<'_>,
) -> Result<(), InputError> {
    // Length, name, content, checksum.
    let layout = Layout { from: 8, is_length_first: true, checksum_bytes: 4 };
    let file_bytes = bytes_of(path, file)?;
    let mut last = [0; 4];
    let mut seen = |chunk: &Chunk| {
        last = chunk.name;
        each(chunk)
    };
    layout.walk(path, file, (file_bytes, u64::MAX), b"IEND", &mut seen)?;
    match &last {
        b"IEND" => Ok(()),
        _ => Err(InputError::damaged(path, "the PNG breaks off before its end")),
    }
}

/// Shows `each` chunk of a WebP, all of which are there. `file` is at its beginning, and again
/// afterwards.
pub(crate) fn webp_chunks(
    path: &Path,
    file: &mut BufReader<File>,
    each: &mut EachChunk<'_>,
) -> Result<(), InputError> {
    let mut head = [0; 12];
    file.read_exact(&mut head).map_err(|source| InputError::io("reading", path, source))?;
    let end = 8 + u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    // Name, length, content, to an even length.
    let layout = Layout { from: 12, is_length_first: false, checksum_bytes: 0 };
    let file_bytes = bytes_of(path, file)?;
    file.rewind().map_err(|source| InputError::io("reading", path, source))?;
    layout.walk(path, file, (file_bytes, end), b"    ", each)
}

/// Is shown one chunk after another. An error ends the reading.
type EachChunk<'a> = dyn FnMut(&Chunk) -> Result<(), InputError> + 'a;

fn bytes_of(path: &Path, file: &BufReader<File>) -> Result<u64, InputError> {
    let meta = file.get_ref().metadata();
    Ok(meta.map_err(|source| InputError::io("reading", path, source))?.len())
}

struct Layout {
    from: u64,
    /// Whether the length comes before the name, high byte first.
    is_length_first: bool,
    checksum_bytes: u64,
}

impl Layout {
    /// Walks through `file`, which is at its beginning, as far as the file and what it says of its
    /// own `end` go.
    fn walk<Source: Read + Seek>(
        &self,
        path: &Path,
        file: &mut BufReader<Source>,
        (file_bytes, end): (u64, u64),
        last: &[u8; 4],
        each: &mut EachChunk<'_>,
    ) -> Result<(), InputError> {
        let reading = |source| InputError::io("reading", path, source);
        let mut at = self.from;
        let mut count = 0;
        // Relative to what is buffered: from chunk to chunk it is mostly a few bytes.
        file.seek_relative(at as i64).map_err(reading)?;
        while at < end && at + 8 <= file_bytes {
            let mut words = [[0; 4]; 2];
            for word in &mut words {
                file.read_exact(word).map_err(reading)?;
            }
            let (name, length) = match self.is_length_first {
                true => (words[1], u32::from_be_bytes(words[0])),
                false => (words[0], u32::from_le_bytes(words[1])),
            };
            let padding = if self.is_length_first { 0 } else { u64::from(length % 2) };
            let next = at + 8 + u64::from(length) + self.checksum_bytes;
            if next > file_bytes {
                let shown = name.escape_ascii();
                return Err(InputError::damaged(
                    path,
                    format!("its part '{shown}' goes on beyond the end of the file"),
                ));
            }
            count += 1;
            if count > MAX_CHUNKS {
                let reason = format!("it is in more than {MAX_CHUNKS} parts, as no picture is");
                return Err(InputError::damaged(path, reason));
            }
            let head_bytes = LONGEST_HEAD.min(length as usize);
            let mut chunk = Chunk { name, head: [0; LONGEST_HEAD], head_bytes };
            file.read_exact(&mut chunk.head[..head_bytes]).map_err(reading)?;
            each(&chunk)?;
            if &name == last {
                break;
            }
            let read_to = at + 8 + head_bytes as u64;
            at = next + padding;
            file.seek_relative((at - read_to) as i64).map_err(reading)?;
        }
        if end != u64::MAX && at < end {
            return Err(InputError::damaged(path, "the WebP breaks off before its end"));
        }
        file.rewind().map_err(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, SeekFrom};

    use super::*;

    /// Counts how often it is read.
    struct Counted(Cursor<Vec<u8>>, usize);

    impl Read for Counted {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            self.0.read(bytes)
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn small_chunks_are_read_many_at_a_time() {
        let bytes = [&[0; 8][..], &[0, 0, 0, 1, b'a', b'b', b'c', b'd', 7, 0, 0, 0, 0].repeat(999)];
        let bytes = bytes.concat();
        let file_bytes = bytes.len() as u64;
        let layout = Layout { from: 8, is_length_first: true, checksum_bytes: 4 };
        let mut file = BufReader::new(Counted(Cursor::new(bytes), 0));
        let mut seen = 0;
        let mut each = |chunk: &Chunk| {
            assert_eq!((&chunk.name, chunk.head()), (b"abcd", &[7][..]));
            seen += 1;
            Ok(())
        };
        let ends = (file_bytes, u64::MAX);
        layout.walk(Path::new("a"), &mut file, ends, b"IEND", &mut each).unwrap();
        assert_eq!(seen, 999);
        assert!(file.get_ref().1 < 10, "{} reads", file.get_ref().1);
    }
}
