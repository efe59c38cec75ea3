//! One safetensors file.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::HeaderFault;
use super::header::read_header;
use super::map::{Contents, MappedBytes, map_file};
use super::{SafetensorsError, StoredDtype};
use crate::hub::id_of_cached_path;

/// A tensor as the header describes it, already checked against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, such as `transformer_blocks.0.attn1.to_q.weight`.
    pub name: String,
    /// The element type on disk.
    pub dtype: StoredDtype,
    /// The shape, outermost dimension first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where its bytes lie, counted from the beginning of the file.
    pub range: Range<u64>,
}

impl TensorInfo {
    /// How many elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }

    /// How many bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// A memory-mapped safetensors file with a checked header, or one that is built into the program.
pub struct SafetensorsFile {
    path: Arc<Path>,
    read_from: ReadFrom,
    contents: Contents,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    metadata: Vec<(String, String)>,
}

impl SafetensorsFile {
    /// Maps a file and checks its header. The tensors themselves are not read: that takes no time
    /// and no memory, whatever the size of the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SafetensorsError> {
        let path = path.as_ref();
        let io_error =
            |action| move |source| SafetensorsError::Io { action, path: path.to_owned(), source };
        // Asked before it is opened: opening a pipe would wait for somebody to write to it.
        let about = std::fs::metadata(path).map_err(io_error("open"))?;
        if !about.is_file() {
            return Err(SafetensorsError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(io_error("open"))?;
        let about = file.metadata().map_err(io_error("inspect"))?;
        let invalid = |fault| SafetensorsError::Invalid {
            path: path.to_owned(),
            fault,
            pull_id: id_of_cached_path(path),
        };
        // An empty file cannot be mapped on every system.
        if about.len() < super::header::LENGTH_BYTES {
            return Err(invalid(HeaderFault::TooShort { file_bytes: about.len() }));
        }
        let contents = map_file(&file).map_err(io_error("map"))?;
        Self::of(path, ReadFrom::File(Arc::new(file)), contents).map_err(invalid)
    }

    /// Checks the header of a file that is built into the program; `path` is for messages.
    pub fn built_in(path: &Path, bytes: &'static [u8]) -> Result<Self, SafetensorsError> {
        let invalid =
            |fault| SafetensorsError::Invalid { path: path.to_owned(), fault, pull_id: None };
        Self::of(path, ReadFrom::Program(bytes), Contents::BuiltIn(bytes)).map_err(invalid)
    }

    fn of(path: &Path, read_from: ReadFrom, contents: Contents) -> Result<Self, HeaderFault> {
        let header = read_header(&contents)?;
        let by_name =
            header.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Ok(Self {
            path: Arc::from(path),
            read_from,
            contents,
            tensors: header.tensors,
            by_name,
            metadata: header.metadata,
        })
    }

    /// The tensors, in the order in which they lie in the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// What the header says about a tensor.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, SafetensorsError> {
        match self.by_name.get(name) {
            Some(&i) => Ok(&self.tensors[i]),
            None => Err(SafetensorsError::NoSuchTensor {
                tensor: name.to_owned(),
                path: self.path.to_path_buf(),
            }),
        }
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The bytes of a tensor. They need not be aligned for its element type.
    pub fn bytes(&self, name: &str) -> Result<&[u8], SafetensorsError> {
        Ok(&self.contents[place_in_file(self.info(name)?)])
    }

    /// The bytes of a tensor as a handle that outlives this value.
    pub fn mapped(&self, name: &str) -> Result<MappedBytes, SafetensorsError> {
        Ok(MappedBytes::new(self.contents.clone(), place_in_file(self.info(name)?)))
    }

    /// The bytes of a tensor, to be read from the file piece by piece.
    pub fn stored(&self, name: &str) -> Result<StoredBytes, SafetensorsError> {
        let range = self.info(name)?.range.clone();
        Ok(StoredBytes { read_from: self.read_from.clone(), path: self.path.clone(), range })
    }

    /// The strings under `__metadata__`.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.contents.len() as u64
    }
}

/// Where bytes are read piece by piece.
#[derive(Clone)]
enum ReadFrom {
    File(Arc<File>),
    Program(&'static [u8]),
}

/// Bytes of a tensor in a file. They are read, not mapped: a file that has shrunk or a disk that has
/// gone is an error then, where a map would end the program.
#[derive(Clone)]
pub struct StoredBytes {
    read_from: ReadFrom,
    path: Arc<Path>,
    range: Range<u64>,
}

impl StoredBytes {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads as many bytes as `out` holds, from `first` on.
    ///
    /// # Errors
    /// What the system says, in words.
    pub fn read(&self, first: u64, out: &mut [u8]) -> Result<(), String> {
        let end = first + out.len() as u64;
        if end > self.range.end - self.range.start {
            return Err(format!("bytes up to {end} of a tensor in {}", self.path.display()));
        }
        let first = self.range.start + first;
        match &self.read_from {
            ReadFrom::File(file) => read_at(file, first, out)
                .map_err(|error| format!("cannot read {}: {error}", self.path.display())),
            ReadFrom::Program(bytes) => {
                out.copy_from_slice(&bytes[first as usize..][..out.len()]);
                Ok(())
            }
        }
    }
}

/// Reads at a place in a file, whatever other threads read meanwhile.
fn read_at(file: &File, first: u64, out: &mut [u8]) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, out, first);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < out.len() {
            let at = first + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut out[done..], at)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        return Ok(());
    }
    #[cfg(not(any(unix, windows)))]
    {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(first))?;
        file.read_exact(out)
    }
}

/// The header check has made sure that the range lies in the file, whose length is a `usize`.
fn place_in_file(tensor: &TensorInfo) -> Range<usize> {
    tensor.range.start as usize..tensor.range.end as usize
}

impl std::fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SafetensorsFile")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
