//! Reading and writing safetensors files.
//!
//! A file is memory-mapped and its header is checked against the file's true size before anything
//! in it is believed ([`SafetensorsFile::open`]). A component of a checkpoint is one such file or
//! several with an index ([`ShardedTensors`]). [`MappedBytes`] is a counted handle on a tensor's
//! bytes: it keeps the map alive, so weights can be used from the map wherever they lie.
//!
//! The format: eight bytes with the header's length, a JSON header naming each tensor's dtype,
//! shape and byte range, then the tensors without holes, all little-endian.

mod dtype;
mod error;
mod file;
mod header;
mod map;
mod shards;
mod strict_map;
mod write;

pub use dtype::StoredDtype;
pub use error::{HeaderFault, SafetensorsError};
pub use file::{SafetensorsFile, StoredBytes, TensorInfo};
pub use header::MAX_HEADER_BYTES;
pub use map::MappedBytes;
pub use shards::{ExtraTensor, ShardedTensors, WeightFiles, weight_files};
pub use write::{TensorToWrite, Values, write_safetensors, write_values};
