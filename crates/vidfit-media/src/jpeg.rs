//! What comes before and after the pixels of a JPEG (ITU-T T.81, annex B).

use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::InputError;

/// All that a JPEG says before its first scan.
#[derive(Debug)]
pub(crate) struct JpegHead {
    /// The bytes themselves, of which a decoder can tell everything but the pixels.
    pub(crate) bytes: Vec<u8>,
    /// What a decoder has to keep until the last scan, in bytes a pixel: the coefficients of a
    /// progressive one.
    pub(crate) kept_bytes_per_pixel: u64,
}

/// Most bytes of a header: profiles and previews take some megabytes.
const MAX_HEAD_BYTES: usize = 64 << 20;

const END: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const PROGRESSIVE_FRAME: u8 = 0xc2;

/// Reads up to the first scan of `file`, which is at its beginning.
pub(crate) fn jpeg_head(path: &Path, file: &mut impl BufRead) -> Result<JpegHead, InputError> {
    let reading = |source| InputError::io("reading", path, source);
    let mut head = JpegHead { bytes: Vec::new(), kept_bytes_per_pixel: 0 };
    append(file, 2, &mut head.bytes).map_err(reading)?;
    loop {
        let marker = next_marker(file, &mut head.bytes).map_err(reading)?;
        match marker {
            // Restarts, starts, and a marker of no meaning: nothing belongs to them.
            0x01 | 0xd0..=0xd8 => continue,
            END => return Err(InputError::damaged(path, "it has no pixels")),
            _ => {}
        }
        let begins = head.bytes.len();
        append(file, 2, &mut head.bytes).map_err(reading)?;
        let length = u16::from_be_bytes([head.bytes[begins], head.bytes[begins + 1]]);
        let Some(rest) = length.checked_sub(2) else {
            return Err(InputError::damaged(path, "a part of its header has a wrong length"));
        };
        append(file, u64::from(rest), &mut head.bytes).map_err(reading)?;
        if marker == PROGRESSIVE_FRAME {
            // Length, precision, two sides; then how many components, of 16 bits each.
            let components = head.bytes.get(begins + 7).copied().unwrap_or_default();
            head.kept_bytes_per_pixel = 2 * u64::from(components);
        }
        if marker == START_OF_SCAN {
            return Ok(head);
        }
        if head.bytes.len() > MAX_HEAD_BYTES {
            return Err(InputError::damaged(path, "its header is longer than any picture's"));
        }
    }
}

/// Which marker comes next, after whatever is in between. Decoders are as lenient.
fn next_marker(file: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<u8> {
    let mut is_marked = false;
    loop {
        append(file, 1, bytes)?;
        match bytes.last().copied() {
            Some(0xff) => is_marked = true,
            Some(0) | None => {}
            Some(marker) if is_marked => return Ok(marker),
            Some(_) => {}
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn append(file: &mut impl BufRead, count: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    match file.take(count).read_to_end(bytes)? as u64 == count {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether the marker that ends a JPEG follows its last scan. The decoder would fill a lost rest
/// with grey. Thumbnails in the header have such a marker, too, but come before the scans.
pub(crate) fn has_its_end(jpeg: &mut impl BufRead) -> io::Result<bool> {
    let (mut before, mut has_ended) = (0, false);
    loop {
        let piece = jpeg.fill_buf()?;
        if piece.is_empty() {
            return Ok(has_ended);
        }
        for &byte in piece {
            match (before, byte) {
                (0xff, END) => has_ended = true,
                (0xff, START_OF_SCAN) => has_ended = false,
                _ => {}
            }
            before = byte;
        }
        let count = piece.len();
        jpeg.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_ends_with_the_beginning_of_the_first_scan() {
        // A comment, fill bytes, a progressive frame of three components, and a scan.
        let header = [
            &[0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xda, 0xff, 0xff, 0xc2, 0, 8][..],
            &[8, 0, 16, 0, 16, 3, 0xff, 0xda, 0, 3, 1],
        ]
        .concat();
        let whole = [&header[..], &[1, 2, 3, 0xff, 0xd9]].concat();
        let head = jpeg_head(Path::new("a.jpg"), &mut &whole[..]).unwrap();
        assert_eq!((head.bytes, head.kept_bytes_per_pixel), (header.clone(), 6));
        assert!(has_its_end(&mut &whole[..]).unwrap());
        assert!(!has_its_end(&mut &whole[..whole.len() - 1]).unwrap());
        for end in 2..header.len() {
            let error = jpeg_head(Path::new("a.jpg"), &mut &header[..end]).unwrap_err();
            assert!(matches!(error, InputError::Damaged { .. }), "{end}: {error}");
        }
    }

    #[test]
    fn a_header_without_end_is_not_read_to_its_end() {
        for rest in [&[0xff, 0xe1, 0xff, 0xff][..], &[7], &[0xff]] {
            let mut endless = io::BufReader::new(Endless(rest, 0));
            assert!(jpeg_head(Path::new("a.jpg"), &mut endless).is_err());
        }
    }

    /// The first marker, and then the same bytes for ever, behind which a part is empty.
    struct Endless(&'static [u8], usize);

    impl Read for Endless {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            for byte in &mut *bytes {
                *byte = match self.1 {
                    0 => 0xff,
                    1 => 0xd8,
                    // Each part has as many bytes as it says, with the next marker behind it.
                    at => match (at - 2) % 0x1_0001 {
                        place if place < self.0.len() || self.0.len() == 1 => {
                            self.0[place % self.0.len()]
                        }
                        _ => 0,
                    },
                };
                self.1 += 1;
            }
            Ok(bytes.len())
        }
    }
}
