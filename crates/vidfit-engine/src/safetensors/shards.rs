//! A component's weights: one safetensors file, or several with an index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::StoredBytes;
use super::map::MappedBytes;
use super::strict_map::StrictMap;
use super::{SafetensorsError, SafetensorsFile, TensorInfo};
use crate::hub::id_of_cached_path;

/// Where the weights are looked for, in this order: the plain files first, and a variant only
/// where those are missing. The type of each tensor stands in the headers, whatever the name says.
const VARIANTS: [Option<&str>; 3] = [None, Some("fp16"), Some("bf16")];

/// All tensors of a component, wherever its shards hold them.
#[derive(Debug)]
pub struct ShardedTensors {
    dir: PathBuf,
    files: Vec<SafetensorsFile>,
    file_of: HashMap<String, usize>,
    extra: Vec<ExtraTensor>,
}

/// A tensor that lies in a shard although the index does not name it, or names another shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraTensor {
    /// The tensor.
    pub name: String,
    /// The shard that holds it.
    pub file: PathBuf,
}

impl ShardedTensors {
    /// Opens the weights in `dir` whose names begin with `stem`, which is
    /// `diffusion_pytorch_model` for a transformer or VAE and `model` for a text encoder.
    ///
    /// If `<stem>.safetensors.index.json` is there, it says which shards there are, and every one
    /// must be there and hold what the index says. Otherwise `<stem>.safetensors` is the only
    /// file. If both are missing, the same is tried for the variants `fp16` and `bf16`
    /// (`<stem>.fp16.safetensors`, `<stem>.safetensors.index.fp16.json`).
    pub fn open(dir: impl AsRef<Path>, stem: &str) -> Result<Self, SafetensorsError> {
        let dir = dir.as_ref();
        match find(dir, stem)? {
            Entry::Index(index) => Self::open_indexed(dir, &index),
            Entry::Single(single) => Self::open_single(dir, &single),
        }
    }

    fn open_single(dir: &Path, path: &Path) -> Result<Self, SafetensorsError> {
        Ok(Self::of_one(dir, SafetensorsFile::open(path)?))
    }

    /// The weights of a component that are one file; `dir` is for messages.
    pub(crate) fn of_one(dir: &Path, file: SafetensorsFile) -> Self {
        let file_of = file.tensors().map(|tensor| (tensor.name.clone(), 0)).collect();
        Self { dir: dir.to_owned(), files: vec![file], file_of, extra: Vec::new() }
    }

    fn open_indexed(dir: &Path, index: &Path) -> Result<Self, SafetensorsError> {
        let weight_map = read_index(index)?;
        let shards: BTreeMap<&str, usize> = {
            let mut names: Vec<&str> = weight_map.iter().map(|(_, shard)| shard.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            names.into_iter().zip(0..).collect()
        };
        let mut files = Vec::new();
        for &shard in shards.keys() {
            let path = dir.join(shard);
            if !path.exists() {
                return Err(SafetensorsError::MissingShard {
                    shard: shard.to_owned(),
                    index: index.to_owned(),
                    pull_id: id_of_cached_path(&path),
                    path,
                });
            }
            files.push(SafetensorsFile::open(path)?);
        }

        let mut file_of = HashMap::new();
        for (tensor, shard) in &weight_map {
            let i = shards[shard.as_str()];
            if !files[i].contains(tensor) {
                return Err(SafetensorsError::NotInShard {
                    tensor: tensor.clone(),
                    shard: shard.clone(),
                    index: index.to_owned(),
                    pull_id: id_of_cached_path(index),
                });
            }
            file_of.insert(tensor.clone(), i);
        }
        let mut extra = Vec::new();
        for (i, file) in files.iter().enumerate() {
            for tensor in file.tensors() {
                if file_of.get(&tensor.name) != Some(&i) {
                    extra.push(ExtraTensor {
                        name: tensor.name.clone(),
                        file: file.path().to_owned(),
                    });
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), files, file_of, extra })
    }

    /// Every tensor with the file that holds it, file by file in the order in which they lie
    /// there. What [`extra`](Self::extra) reports is not among them.
    pub fn tensors(&self) -> impl Iterator<Item = (&SafetensorsFile, &TensorInfo)> {
        self.files.iter().enumerate().flat_map(move |(i, file)| {
            file.tensors()
                .filter(move |tensor| self.file_of.get(&tensor.name) == Some(&i))
                .map(move |tensor| (file, tensor))
        })
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.file_of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.file_of.is_empty()
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.file_of.contains_key(name)
    }

    /// The file that holds a tensor.
    pub fn file(&self, name: &str) -> Result<&SafetensorsFile, SafetensorsError> {
        match self.file_of.get(name) {
            Some(&i) => Ok(&self.files[i]),
            None => Err(SafetensorsError::NoSuchTensor {
                tensor: name.to_owned(),
                path: self.dir.clone(),
            }),
        }
    }

    /// What the header says about a tensor.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, SafetensorsError> {
        self.file(name)?.info(name)
    }

    /// The bytes of a tensor. They need not be aligned for its element type.
    pub fn bytes(&self, name: &str) -> Result<&[u8], SafetensorsError> {
        self.file(name)?.bytes(name)
    }

    /// The bytes of a tensor as a handle that outlives this value.
    pub fn mapped(&self, name: &str) -> Result<MappedBytes, SafetensorsError> {
        self.file(name)?.mapped(name)
    }

    /// The bytes of a tensor, to be read piece by piece.
    pub fn stored(&self, name: &str) -> Result<StoredBytes, SafetensorsError> {
        self.file(name)?.stored(name)
    }

    /// The shards, sorted by name.
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// The bytes of all shards together.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(SafetensorsFile::file_bytes).sum()
    }

    /// Tensors in the shards that the index does not place there.
    pub fn extra(&self) -> &[ExtraTensor] {
        &self.extra
    }

    /// The component's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The files that hold a component's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFiles {
    /// What says which shards there are, if something does.
    pub index: Option<PathBuf>,
    /// The shards, sorted by name. They need not be there.
    pub shards: Vec<PathBuf>,
}

/// The files that [`ShardedTensors::open`] opens. Reads the index and nothing else.
pub fn weight_files(dir: &Path, stem: &str) -> Result<WeightFiles, SafetensorsError> {
    match find(dir, stem)? {
        Entry::Single(single) => Ok(WeightFiles { index: None, shards: vec![single] }),
        Entry::Index(index) => {
            let shards = read_index(&index)?.into_iter().map(|(_, shard)| dir.join(shard));
            let mut shards: Vec<PathBuf> = shards.collect();
            shards.sort_unstable();
            shards.dedup();
            Ok(WeightFiles { index: Some(index), shards })
        }
    }
}

/// What a component's weights are found by.
enum Entry {
    Index(PathBuf),
    Single(PathBuf),
}

/// See [`ShardedTensors::open`].
fn find(dir: &Path, stem: &str) -> Result<Entry, SafetensorsError> {
    for variant in VARIANTS {
        let index = dir.join(index_name(stem, variant));
        if index.is_file() {
            return Ok(Entry::Index(index));
        }
        let single = dir.join(single_name(stem, variant));
        if single.exists() {
            return Ok(Entry::Single(single));
        }
    }
    Err(SafetensorsError::NoWeights {
        dir: dir.to_owned(),
        index_name: index_name(stem, None),
        single_name: single_name(stem, None),
        pull_id: id_of_cached_path(dir),
    })
}

/// Diffusers puts a variant between the stem and the extension.
fn single_name(stem: &str, variant: Option<&str>) -> String {
    match variant {
        None => format!("{stem}.safetensors"),
        Some(variant) => format!("{stem}.{variant}.safetensors"),
    }
}

/// Diffusers puts a variant before the last extension of an index.
fn index_name(stem: &str, variant: Option<&str>) -> String {
    match variant {
        None => format!("{stem}.safetensors.index.json"),
        Some(variant) => format!("{stem}.safetensors.index.{variant}.json"),
    }
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: StrictMap<String>,
}

/// Tensor and shard of every entry; the shards' names are plain file names.
fn read_index(path: &Path) -> Result<Vec<(String, String)>, SafetensorsError> {
    let text = fs::read(path).map_err(|source| SafetensorsError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let invalid = |reason| SafetensorsError::InvalidIndex {
        path: path.to_owned(),
        reason,
        pull_id: id_of_cached_path(path),
    };
    let index: RawIndex =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let entries = index.weight_map.0;
    if entries.is_empty() {
        return Err(invalid("its weight_map is empty".to_owned()));
    }
    let names: HashSet<&str> = entries.iter().map(|(_, shard)| shard.as_str()).collect();
    if let Some(name) = names.into_iter().find(|name| !is_plain_file_name(name)) {
        return Err(invalid(format!("`{name}` is not the name of a shard in the same folder")));
    }
    Ok(entries)
}

/// No separators of any system, no drive letters or streams, not a folder's own name.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control)
}
