//! The header of a safetensors file, checked against the file's size.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::error::HeaderFault;
use super::strict_map::StrictMap;
use super::{StoredDtype, TensorInfo};

/// The longest header accepted, in bytes; the reference implementation's limit.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The bytes before the header: its length as a little-endian u64.
pub(super) const LENGTH_BYTES: u64 = 8;

/// The header's key that holds free text rather than a tensor.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// A header that was found truthful.
pub(super) struct Header {
    /// In the order in which they lie in the file.
    pub tensors: Vec<TensorInfo>,
    pub metadata: Vec<(String, String)>,
}

/// Reads and checks the header of a file whose whole contents are `file`.
pub(super) fn read_header(file: &[u8]) -> Result<Header, HeaderFault> {
    let file_bytes = file.len() as u64;
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(HeaderFault::TooShort { file_bytes });
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(HeaderFault::HeaderTooLong { header_bytes });
    }
    if header_bytes > rest.len() as u64 {
        return Err(HeaderFault::HeaderBeyondFile { header_bytes, file_bytes });
    }
    let (text, data) = rest.split_at(header_bytes as usize);
    let text = std::str::from_utf8(text).map_err(|_| HeaderFault::NotUtf8)?;
    if !text.starts_with('{') {
        return Err(HeaderFault::NotJson("it does not begin with `{`".to_owned()));
    }
    let raw: RawHeader =
        serde_json::from_str(text).map_err(|error| HeaderFault::NotJson(error.to_string()))?;

    let data_bytes = data.len() as u64;
    let mut tensors = raw
        .tensors
        .into_iter()
        .map(|(name, tensor)| check_tensor(name, tensor, data_bytes))
        .collect::<Result<Vec<_>, _>>()?;
    check_cover(&mut tensors, data_bytes)?;
    for tensor in &mut tensors {
        tensor.range.start += LENGTH_BYTES + header_bytes;
        tensor.range.end += LENGTH_BYTES + header_bytes;
    }
    Ok(Header { tensors, metadata: raw.metadata })
}

/// One tensor by itself: dtype, shape and length. The range still counts from the header's end.
fn check_tensor(name: String, raw: RawTensor, data_bytes: u64) -> Result<TensorInfo, HeaderFault> {
    let Some(dtype) = StoredDtype::from_name(&raw.dtype) else {
        return Err(HeaderFault::UnknownDtype { tensor: name, dtype: raw.dtype });
    };
    let (begin, end) = raw.data_offsets;
    if begin > end {
        return Err(HeaderFault::BackwardRange { tensor: name, begin, end });
    }
    let Some((shape, needed_bytes)) = shape_and_bytes(&raw.shape, dtype) else {
        return Err(HeaderFault::ImpossibleShape { tensor: name, shape: raw.shape });
    };
    if end - begin != needed_bytes {
        return Err(HeaderFault::WrongLength { tensor: name, needed_bytes, bytes: end - begin });
    }
    if end > data_bytes {
        return Err(HeaderFault::BeyondFile { tensor: name, end, data_bytes });
    }
    Ok(TensorInfo { name, dtype, shape, range: begin..end })
}

/// The shape as the machine counts, and the bytes it takes; `None` if either overflows.
///
/// A zero among the dimensions does not hide an overflow of the others: whoever multiplies them in
/// another order must not overflow either.
fn shape_and_bytes(shape: &[u64], dtype: StoredDtype) -> Option<(Vec<usize>, u64)> {
    let dims = shape.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>()?;
    let mut without_zeros = shape.iter().filter(|&&n| n != 0);
    let elements = without_zeros.try_fold(1u64, |product, &n| product.checked_mul(n))?;
    let bytes = elements.checked_mul(dtype.element_bytes())?;
    usize::try_from(bytes).ok()?;
    Some((dims, if shape.contains(&0) { 0 } else { bytes }))
}

/// Sorts the tensors by place and checks that together they cover the data once, without holes.
fn check_cover(tensors: &mut [TensorInfo], data_bytes: u64) -> Result<(), HeaderFault> {
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut covered = Range { start: 0, end: 0 };
    let mut last = None;
    for (i, tensor) in tensors.iter().enumerate() {
        if tensor.range.start < covered.end {
            let first: usize = last.unwrap_or(0);
            return Err(HeaderFault::Overlap {
                first: tensors[first].name.clone(),
                second: tensor.name.clone(),
            });
        }
        if tensor.range.start > covered.end {
            return Err(HeaderFault::Hole { begin: covered.end, end: tensor.range.start });
        }
        covered.end = tensor.range.end;
        last = Some(i);
    }
    if covered.end != data_bytes {
        return Err(HeaderFault::Hole { begin: covered.end, end: data_bytes });
    }
    Ok(())
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: Vec<(String, String)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawHeaderVisitor)
    }
}

struct RawHeaderVisitor;

impl<'de> Visitor<'de> for RawHeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut header = RawHeader { tensors: Vec::new(), metadata: Vec::new() };
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            if key == METADATA_KEY {
                header.metadata = access.next_value::<StrictMap<String>>()?.0;
            } else {
                let tensor = access
                    .next_value()
                    .map_err(|error| A::Error::custom(format!("tensor `{key}`: {error}")))?;
                header.tensors.push((key, tensor));
            }
        }
        Ok(header)
    }
}
