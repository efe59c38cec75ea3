//! What can be wrong with a safetensors file or a folder of them.

use std::io;
use std::path::PathBuf;

/// Why a safetensors file or component could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The operating system refused to open, map, read or write something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "map".
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a folder, a pipe or another thing that is not a file.
    #[error("{} is not a file; give the path of a .safetensors file", path.display())]
    NotAFile {
        /// The path given.
        path: PathBuf,
    },
    /// The file is not a whole and truthful safetensors file.
    #[error(
        "{} is not a valid safetensors file: {fault}. It is truncated or damaged: delete it and \
         download it again{}",
        path.display(),
        pull_hint(pull_id)
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        fault: HeaderFault,
        /// The hub id to download it again, when the path lies in the hub's cache.
        pull_id: Option<String>,
    },
    /// A component's folder holds neither an index nor a single file.
    #[error(
        "no weights in {}: neither {index_name} nor {single_name} is there (nor their fp16 or bf16 \
         variants). Get the missing files with `vidfit models pull {}`",
        dir.display(),
        pull_id.as_deref().unwrap_or("OWNER/NAME")
    )]
    NoWeights {
        /// The component's folder.
        dir: PathBuf,
        /// The index file looked for.
        index_name: String,
        /// The single file looked for.
        single_name: String,
        /// The hub id to pull, when the path lies in the hub's cache.
        pull_id: Option<String>,
    },
    /// A shard that the index names is not there.
    #[error(
        "the shard {shard} is missing: {} names it, but there is no {}. Get it with \
         `vidfit models pull {}`",
        index.display(),
        path.display(),
        pull_id.as_deref().unwrap_or("OWNER/NAME")
    )]
    MissingShard {
        /// The shard's file name.
        shard: String,
        /// Where it should be.
        path: PathBuf,
        /// The index that names it.
        index: PathBuf,
        /// The hub id to pull, when the path lies in the hub's cache.
        pull_id: Option<String>,
    },
    /// The index is not JSON of the expected form.
    #[error(
        "{} is not a valid index of shards: {reason}. Delete it and download it again{}",
        path.display(),
        pull_hint(pull_id)
    )]
    InvalidIndex {
        /// The index file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
        /// The hub id to pull, when the path lies in the hub's cache.
        pull_id: Option<String>,
    },
    /// The index says a tensor is in a shard that does not hold it.
    #[error(
        "{} says that tensor `{tensor}` is in {shard}, but it is not there; index and shards do \
         not belong together. Download the component again{}",
        index.display(),
        pull_hint(pull_id)
    )]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The shard's file name.
        shard: String,
        /// The index.
        index: PathBuf,
        /// The hub id to pull, when the path lies in the hub's cache.
        pull_id: Option<String>,
    },
    /// Nothing of that name is in the file.
    #[error("{} has no tensor `{tensor}`", path.display())]
    NoSuchTensor {
        /// The name asked for.
        tensor: String,
        /// The file or folder.
        path: PathBuf,
    },
    /// What was to be written contradicts itself.
    #[error("cannot write tensor `{tensor}` to {}: {reason}", path.display())]
    CannotWrite {
        /// The tensor.
        tensor: String,
        /// The file to write.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
}

fn pull_hint(pull_id: &Option<String>) -> String {
    match pull_id {
        Some(id) => format!(" with `vidfit models pull {id}`"),
        None => String::new(),
    }
}

/// What is wrong in a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Not even the header's length fits.
    #[error("it has {file_bytes} bytes, fewer than the 8 of the header's length")]
    TooShort {
        /// The file's size.
        file_bytes: u64,
    },
    /// The header's length is more than any real header has.
    #[error(
        "it states a header of {header_bytes} bytes, more than the {} allowed",
        super::MAX_HEADER_BYTES
    )]
    HeaderTooLong {
        /// The length stated.
        header_bytes: u64,
    },
    /// The header reaches beyond the end of the file.
    #[error("it states a header of {header_bytes} bytes, but has only {file_bytes} bytes in all")]
    HeaderBeyondFile {
        /// The length stated.
        header_bytes: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// The header is not UTF-8.
    #[error("its header is not UTF-8 text")]
    NotUtf8,
    /// The header is not JSON of the right form.
    #[error("its header does not parse: {0}")]
    NotJson(String),
    /// A dtype nobody knows.
    #[error("tensor `{tensor}` has the unknown dtype `{dtype}`")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The dtype's name.
        dtype: String,
    },
    /// A shape with more elements than a machine can count.
    #[error("tensor `{tensor}` has the impossible shape {shape:?}")]
    ImpossibleShape {
        /// The tensor.
        tensor: String,
        /// The shape.
        shape: Vec<u64>,
    },
    /// A range that ends before it begins.
    #[error("tensor `{tensor}` ends (at {end}) before it begins (at {begin})")]
    BackwardRange {
        /// The tensor.
        tensor: String,
        /// Where it begins, from the end of the header.
        begin: u64,
        /// Where it ends.
        end: u64,
    },
    /// A range beyond the end of the file.
    #[error("tensor `{tensor}` ends at byte {end} of the data, but the file has only {data_bytes}")]
    BeyondFile {
        /// The tensor.
        tensor: String,
        /// Where it ends, from the end of the header.
        end: u64,
        /// Bytes after the header.
        data_bytes: u64,
    },
    /// Range and shape disagree.
    #[error("tensor `{tensor}` needs {needed_bytes} bytes by its shape and dtype, but has {bytes}")]
    WrongLength {
        /// The tensor.
        tensor: String,
        /// Bytes by shape and dtype.
        needed_bytes: u64,
        /// Bytes by the range.
        bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
    },
    /// Bytes that belong to no tensor.
    #[error("bytes {begin} to {end} of the data belong to no tensor")]
    Hole {
        /// Where the hole begins, from the end of the header.
        begin: u64,
        /// Where it ends.
        end: u64,
    },
}
