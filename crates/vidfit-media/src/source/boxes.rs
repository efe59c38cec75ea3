//! The boxes of an MP4 (ISO/IEC 14496-12), each held to the box around it before it is believed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::InputError;

/// Largest index (`moov`) that is read, in bytes. A million frames take 44 MB if each has an entry of
/// its own in all six tables, and usually much less; the rest is for the sound beside them.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// A box within bytes that are in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boxed<'a> {
    pub(super) name: [u8; 4],
    pub(super) body: Body<'a>,
}

/// What a box holds: read front to back, and never beyond the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) bytes: &'a [u8],
}

/// Why an index cannot be used; the caller names the file.
pub(super) type BoxError = String;

impl<'a> Body<'a> {
    /// The boxes that this one consists of, up to the first that is wrong.
    pub(super) fn boxes(self) -> impl Iterator<Item = Result<Boxed<'a>, BoxError>> + use<'a> {
        let mut rest = self;
        std::iter::from_fn(move || {
            // Some writers end a container with four zero bytes.
            if rest.bytes.len() < 8 {
                return None;
            }
            let next = rest.next_box();
            if next.is_err() {
                rest.bytes = &[];
            }
            Some(next)
        })
    }

    fn next_box(&mut self) -> Result<Boxed<'a>, BoxError> {
        let length = u64::from(self.u32()?);
        let name = self.take_array()?;
        let body_bytes = match length {
            0 => self.bytes.len() as u64,
            1 => self.u64()?.checked_sub(16).ok_or_else(|| wrong_length(name))?,
            _ => length.checked_sub(8).ok_or_else(|| wrong_length(name))?,
        };
        if body_bytes > self.bytes.len() as u64 {
            return Err(wrong_length(name));
        }
        Ok(Boxed { name, body: self.take(body_bytes as usize)? })
    }

    /// The first box of that name. All of them have to be sound.
    pub(super) fn find(self, name: &[u8; 4]) -> Result<Option<Body<'a>>, BoxError> {
        let mut found = None;
        for boxed in self.boxes() {
            let boxed = boxed?;
            if &boxed.name == name {
                found = found.or(Some(boxed.body));
            }
        }
        Ok(found)
    }

    /// The first box of that name, which must be there.
    pub(super) fn expect(self, name: &[u8; 4]) -> Result<Body<'a>, BoxError> {
        self.find(name)?.ok_or_else(|| format!("its index has no '{}'", name.escape_ascii()))
    }

    pub(super) fn take(&mut self, count: usize) -> Result<Body<'a>, BoxError> {
        let (taken, rest) =
            self.bytes.split_at_checked(count).ok_or("a part of its index breaks off")?;
        self.bytes = rest;
        Ok(Body { bytes: taken })
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], BoxError> {
        let taken = self.take(N)?;
        taken.bytes.try_into().map_err(|_| "a part of its index breaks off".into())
    }

    pub(super) fn u8(&mut self) -> Result<u8, BoxError> {
        Ok(u8::from_be_bytes(self.take_array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, BoxError> {
        Ok(u16::from_be_bytes(self.take_array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, BoxError> {
        Ok(u32::from_be_bytes(self.take_array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, BoxError> {
        Ok(u64::from_be_bytes(self.take_array()?))
    }

    /// A number of 8 bytes in version 1 of a box, of 4 in version 0.
    pub(super) fn sized(&mut self, version: u8) -> Result<u64, BoxError> {
        if version == 1 { self.u64() } else { Ok(u64::from(self.u32()?)) }
    }

    /// The version of a box that begins with one, and its flags' 3 bytes behind it.
    pub(super) fn version(&mut self) -> Result<u8, BoxError> {
        Ok(self.take(4)?.bytes[0])
    }

    /// The entries of a table of `entry_bytes` each, which begins with their count. They are there,
    /// and take no memory of their own.
    pub(super) fn table(
        &mut self,
        entry_bytes: usize,
    ) -> Result<impl ExactSizeIterator<Item = Body<'a>> + use<'a>, BoxError> {
        let count = self.u32()? as usize;
        let bytes = count.checked_mul(entry_bytes).ok_or("a table of its index is too long")?;
        let rows = self.take(bytes)?;
        Ok(rows.bytes.chunks_exact(entry_bytes).map(|bytes| Body { bytes }))
    }
}

fn wrong_length(name: [u8; 4]) -> BoxError {
    format!("the part '{}' of its index has a wrong length", name.escape_ascii())
}

/// The body of the file's `moov`. The frames' own bytes are passed over, but must be there.
pub(super) fn read_index(path: &Path, file: &mut File) -> Result<Vec<u8>, InputError> {
    let reading = |source| InputError::io("reading", path, source);
    let file_bytes = file.metadata().map_err(reading)?.len();
    let mut at = 0u64;
    let mut index = None;
    while at + 8 <= file_bytes {
        let mut head = [0; 16];
        file.seek(SeekFrom::Start(at)).map_err(reading)?;
        let head_bytes = if file_bytes - at >= 16 { 16 } else { 8 };
        file.read_exact(&mut head[..head_bytes]).map_err(reading)?;
        let mut fields = Body { bytes: &head };
        let damaged = |reason: BoxError| InputError::damaged(path, reason);
        let short = fields.u32().map_err(damaged)?;
        let name = fields.take_array::<4>().map_err(damaged)?;
        let (length, own_bytes) = match short {
            0 => (file_bytes - at, 8),
            1 => (fields.u64().map_err(damaged)?, 16),
            length => (u64::from(length), 8),
        };
        if length < own_bytes || length > file_bytes - at {
            let shown = name.escape_ascii();
            let there = file_bytes - at;
            return Err(damaged(format!(
                "its part '{shown}' should have {length} bytes, but the file ends after {there}"
            )));
        }
        if &name == b"moov" && index.is_none() {
            let body_bytes = length - own_bytes;
            if body_bytes > MAX_INDEX_BYTES {
                return Err(damaged(format!(
                    "its index claims {body_bytes} bytes, and none needs more than {MAX_INDEX_BYTES}"
                )));
            }
            file.seek(SeekFrom::Start(at + own_bytes)).map_err(reading)?;
            let mut body = vec![0; body_bytes as usize];
            file.read_exact(&mut body).map_err(reading)?;
            index = Some(body);
        }
        at += length;
    }
    index.ok_or_else(|| {
        InputError::damaged(
            path,
            "it has no index ('moov'), as if it had not been written to its end",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_box_is_an_error_wherever_it_stands() {
        let sound = b"\0\0\0\x09free!".to_vec();
        let wrong = b"\0\0\0\x09skip".to_vec();
        let bytes = [sound.clone(), wrong].concat();
        let body = Body { bytes: &bytes };
        assert_eq!(body.boxes().count(), 2);
        assert!(body.find(b"free").is_err_and(|reason| reason.contains("'skip'")));
        assert_eq!(Body { bytes: &sound }.expect(b"free").unwrap().bytes, b"!");
    }

    #[test]
    fn an_index_beyond_any_video_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let bytes = MAX_INDEX_BYTES + 16;
        // A hole, so that it takes no room on the disk.
        let head = [&(bytes as u32).to_be_bytes()[..], b"moov"].concat();
        std::fs::write(&path, head).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(bytes).unwrap();
        let error = read_index(&path, &mut File::open(&path).unwrap()).unwrap_err().to_string();
        assert!(error.contains("its index claims") && error.contains("a.mp4"), "{error}");
    }
}
