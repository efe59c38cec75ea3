//! Writing a safetensors file: whole or not at all.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::header::METADATA_KEY;
use super::{SafetensorsError, StoredDtype};
use crate::whole_file::write_whole;

/// A tensor to be written: name, element type, shape and little-endian bytes.
pub type TensorToWrite<'a> = (&'a str, StoredDtype, &'a [usize], &'a [u8]);

/// What a tensor to be written holds.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Little-endian bytes, of any type.
    Bytes(&'a [u8]),
    /// Numbers in f32, which are turned into bytes piece by piece.
    Floats(&'a [f32]),
}

impl Values<'_> {
    fn byte_count(&self) -> usize {
        match self {
            Values::Bytes(bytes) => bytes.len(),
            Values::Floats(values) => size_of_val(*values),
        }
    }

    fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Values::Bytes(bytes) => out.write_all(bytes),
            Values::Floats(values) => {
                let mut piece = Vec::with_capacity(4 * PIECE);
                values.chunks(PIECE).try_for_each(|values| {
                    piece.clear();
                    piece.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    out.write_all(&piece)
                })
            }
        }
    }
}

/// Numbers that are turned into bytes at a time.
const PIECE: usize = 1 << 16;

/// Writes tensors to a file, replacing what is there only once all is on the disk.
///
/// Widest element type first, then by name, after a header padded to a multiple of eight, as the
/// reference implementation does, so that every tensor is aligned for its type.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[TensorToWrite<'_>],
) -> Result<(), SafetensorsError> {
    let tensors = tensors
        .iter()
        .map(|&(name, dtype, shape, bytes)| (name, dtype, shape, Values::Bytes(bytes)));
    write_values(path, &tensors.collect::<Vec<_>>())
}

/// As [`write_safetensors`], of tensors whose values need not be bytes yet.
pub fn write_values(
    path: impl AsRef<Path>,
    tensors: &[(&str, StoredDtype, &[usize], Values<'_>)],
) -> Result<(), SafetensorsError> {
    let path = path.as_ref();
    let mut ordered = tensors.to_vec();
    ordered
        .sort_by(|a, b| b.1.element_bytes().cmp(&a.1.element_bytes()).then_with(|| a.0.cmp(b.0)));
    let header = make_header(path, &ordered)?;

    let written = write_whole(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, _, _, values) in &ordered {
            values.write_to(&mut out)?;
        }
        out.flush()
    });
    let path = path.to_owned();
    written.map_err(|source| SafetensorsError::Io { action: "write", path, source })
}

fn make_header(
    path: &Path,
    tensors: &[(&str, StoredDtype, &[usize], Values<'_>)],
) -> Result<Vec<u8>, SafetensorsError> {
    let mut names = HashSet::new();
    let mut entries = Map::new();
    let mut begin = 0u64;
    for &(name, dtype, shape, values) in tensors {
        let cannot = |reason: String| SafetensorsError::CannotWrite {
            tensor: name.to_owned(),
            path: path.to_owned(),
            reason,
        };
        if name == METADATA_KEY {
            return Err(cannot("the format reserves that name".to_owned()));
        }
        if !names.insert(name) {
            return Err(cannot("two tensors have that name".to_owned()));
        }
        let needed = shape
            .iter()
            .try_fold(dtype.element_bytes(), |product, &n| product.checked_mul(n as u64));
        let byte_count = values.byte_count();
        if needed != Some(byte_count as u64) {
            return Err(cannot(format!(
                "{dtype} of shape {shape:?} does not take {byte_count} bytes"
            )));
        }
        let end = begin + byte_count as u64;
        entries.insert(
            name.to_owned(),
            json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end] }),
        );
        begin = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}
