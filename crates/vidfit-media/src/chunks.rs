//! The chunks of a PNG or WebP, each held to the file's length before a decoder believes it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::InputError;

/// One chunk: its name and the beginning of what it holds.
pub(crate) struct Chunk {
    pub(crate) name: [u8; 4],
    /// Up to 26 bytes: the longest header of a frame.
    pub(crate) head: Vec<u8>,
}

/// Most chunks of a file: a frame has a few, and a large picture's pixels come in pieces of 8 kB.
const MAX_CHUNKS: usize = 4_000_000;

/// The chunks of a PNG up to its end, all of which are there. `file` is at its beginning, and again
/// afterwards.
pub(crate) fn png_chunks(
    path: &Path,
    file: &mut BufReader<File>,
) -> Result<Vec<Chunk>, InputError> {
    // Length, name, content, checksum.
    let layout = Layout { from: 8, is_length_first: true, checksum_bytes: 4 };
    let chunks = layout.walk(path, file, u64::MAX, b"IEND")?;
    if chunks.last().is_none_or(|chunk| &chunk.name != b"IEND") {
        return Err(InputError::damaged(path, "the PNG breaks off before its end"));
    }
    Ok(chunks)
}

/// The chunks of a WebP, all of which are there. `file` is at its beginning, and again afterwards.
pub(crate) fn webp_chunks(
    path: &Path,
    file: &mut BufReader<File>,
) -> Result<Vec<Chunk>, InputError> {
    let mut head = [0; 12];
    file.read_exact(&mut head).map_err(|source| InputError::io("reading", path, source))?;
    let end = 8 + u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    // Name, length, content, to an even length.
    let layout = Layout { from: 12, is_length_first: false, checksum_bytes: 0 };
    layout.walk(path, file, end, b"    ")
}

struct Layout {
    from: u64,
    /// Whether the length comes before the name, high byte first.
    is_length_first: bool,
    checksum_bytes: u64,
}

impl Layout {
    fn walk(
        &self,
        path: &Path,
        file: &mut BufReader<File>,
        end: u64,
        last: &[u8; 4],
    ) -> Result<Vec<Chunk>, InputError> {
        let reading = |source| InputError::io("reading", path, source);
        let file_bytes = file.get_ref().metadata().map_err(reading)?.len();
        let mut chunks = Vec::new();
        let mut at = self.from;
        file.seek(SeekFrom::Start(at)).map_err(reading)?;
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
            if next > file_bytes || chunks.len() == MAX_CHUNKS {
                let shown = name.escape_ascii();
                return Err(InputError::damaged(
                    path,
                    format!("its part '{shown}' goes on beyond the end of the file"),
                ));
            }
            let mut head = vec![0; length.min(26) as usize];
            file.read_exact(&mut head).map_err(reading)?;
            chunks.push(Chunk { name, head });
            if &name == last {
                break;
            }
            at = next + padding;
            file.seek(SeekFrom::Start(at)).map_err(reading)?;
        }
        if end != u64::MAX && at < end {
            return Err(InputError::damaged(path, "the WebP breaks off before its end"));
        }
        file.rewind().map_err(reading)?;
        Ok(chunks)
    }
}
