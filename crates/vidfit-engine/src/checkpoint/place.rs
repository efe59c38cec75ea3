//! Where the files of a checkpoint are: in a folder, or in the program itself.

use super::CheckpointError;
use crate::digest::Digest;
use crate::safetensors::{SafetensorsFile, ShardedTensors};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use vidfit_cogvideox::tokenizer::Tokenizer;

/// A checkpoint that is built into the program. It is read where it lies: no file is written, and none
/// is opened.
#[derive(Debug)]
pub struct BuiltIn {
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
    digests: OnceLock<Vec<Digest>>,
}

impl BuiltIn {
    /// A checkpoint called `name`, of these files: names in the diffusers layout, such as
    /// `vae/config.json`, and contents. The weights of a component are one file. Those that are aligned
    /// as their elements are can be used in place.
    pub const fn new(
        name: &'static str,
        files: &'static [(&'static str, &'static [u8])],
    ) -> BuiltIn {
        BuiltIn { name, files, digests: OnceLock::new() }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, contents)| contents.len() as u64).sum()
    }

    /// What stands for its folder in messages and in the records of runs. It is no path from a root, so
    /// that no folder that is written in full is mistaken for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("built-in:{}", self.name))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.files.iter().position(|(known, _)| *known == name)
    }

    /// The digests of the files, which are read for it once.
    fn digests(&self) -> &[Digest] {
        let of_all = || self.files.iter().map(|(_, contents)| Digest::of(contents)).collect();
        self.digests.get_or_init(of_all)
    }
}

/// Where the files of a checkpoint, or of a component of one, are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this folder.
    Folder(PathBuf),
    /// In the program.
    Program {
        /// The checkpoint.
        model: &'static BuiltIn,
        /// What the names of the component's files begin with: nothing, or `vae/`.
        within: String,
    },
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Place {
    fn from(folder: &P) -> Place {
        Place::Folder(folder.as_ref().to_owned())
    }
}

impl From<&'static BuiltIn> for Place {
    fn from(model: &'static BuiltIn) -> Place {
        Place::Program { model, within: String::new() }
    }
}

/// A file that is built in.
pub(super) struct BuiltInFile {
    pub contents: &'static [u8],
    pub digest: Digest,
}

impl Place {
    /// The folder, or what stands for it in messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Place::Folder(dir) => dir.clone(),
            Place::Program { model, within } => match within.strip_suffix('/') {
                Some(component) => model.path().join(component),
                None => model.path(),
            },
        }
    }

    /// The checkpoint, if it is in the program.
    pub fn built_in(&self) -> Option<&'static BuiltIn> {
        match self {
            Place::Folder(_) => None,
            Place::Program { model, .. } => Some(model),
        }
    }

    /// The place of a component.
    pub(super) fn component(&self, name: &str) -> Place {
        match self {
            Place::Folder(dir) => Place::Folder(dir.join(name)),
            Place::Program { model, within } => {
                Place::Program { model, within: format!("{within}{name}/") }
            }
        }
    }

    /// The file called `name`, if that is in the program.
    pub(super) fn built_in_file(&self, name: &str) -> Option<BuiltInFile> {
        let (model, index) = self.built_in_index(name)?;
        Some(BuiltInFile { contents: model.files[index].1, digest: model.digests()[index] })
    }

    /// Its contents alone, for which nothing is digested.
    fn built_in_contents(&self, name: &str) -> Option<&'static [u8]> {
        let (model, index) = self.built_in_index(name)?;
        Some(model.files[index].1)
    }

    fn built_in_index(&self, name: &str) -> Option<(&'static BuiltIn, usize)> {
        let Place::Program { model, within } = self else { return None };
        Some((model, model.find(&format!("{within}{name}"))?))
    }

    /// What the file called `name` is called in messages, and whether it is there.
    pub(super) fn file(&self, name: &str) -> (PathBuf, bool) {
        let path = self.path().join(name);
        let is_there = match self {
            Place::Folder(_) => path.is_file(),
            Place::Program { model, within } => model.find(&format!("{within}{name}")).is_some(),
        };
        (path, is_there)
    }

    /// The text of a small file.
    pub(super) fn text(&self, name: &str) -> Result<String, CheckpointError> {
        let path = self.path().join(name);
        match self {
            Place::Folder(_) => read_text(&path),
            Place::Program { .. } => {
                let wrong = |what: &str| CheckpointError::Config { path, what: what.into() };
                match self.built_in_contents(name).map(std::str::from_utf8) {
                    Some(Ok(text)) => Ok(text.to_owned()),
                    Some(Err(_)) => Err(wrong("it is no text")),
                    None => Err(wrong("the program does not have it")),
                }
            }
        }
    }

    /// A small file as a JSON object.
    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<T, CheckpointError> {
        let wrong = |what| CheckpointError::Config { path: self.path().join(name), what };
        let value: Value =
            serde_json::from_str(&self.text(name)?).map_err(|error| wrong(error.to_string()))?;
        if !value.is_object() {
            return Err(wrong("it is not a JSON object".into()));
        }
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
    }

    /// The weights in the files whose names begin with `stem`.
    pub(super) fn weights(&self, stem: &str) -> Result<ShardedTensors, CheckpointError> {
        let dir = self.path();
        let Place::Program { .. } = self else { return Ok(ShardedTensors::open(dir, stem)?) };
        let name = weights_name(stem);
        let path = dir.join(&name);
        let Some(contents) = self.built_in_contents(&name) else {
            return Err(super::missing("weights", path));
        };
        let file = SafetensorsFile::built_in(&path, contents)?;
        Ok(ShardedTensors::of_one(&dir, file))
    }

    /// The tokenizer in the file called `name`.
    pub(super) fn tokenizer(&self, name: &str) -> Result<Tokenizer, CheckpointError> {
        let path = self.path().join(name);
        Ok(match self.built_in_contents(name) {
            Some(contents) => Tokenizer::from_bytes(contents, &path)?,
            None => Tokenizer::open(&path)?,
        })
    }
}

/// The one file of a component's weights, where they are in the program.
pub(super) fn weights_name(stem: &str) -> String {
    format!("{stem}.safetensors")
}

/// Configurations are small; a longer file is not one.
const LONGEST_CONFIG_BYTES: u64 = 1 << 20;

fn read_text(path: &Path) -> Result<String, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > LONGEST_CONFIG_BYTES {
        let what = format!("it is {bytes} bytes long");
        return Err(CheckpointError::Config { path: path.to_owned(), what });
    }
    std::fs::read_to_string(path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointFolder};

    static EMPTY: BuiltIn = BuiltIn::new("empty", &[]);
    static BARE: BuiltIn = BuiltIn::new(
        "bare",
        &[("model_index.json", b"{\"_class_name\": \"CogVideoXPipeline\"}"), ("x", b"\xff")],
    );

    #[test]
    fn a_broken_model_in_the_program_is_an_error_that_names_the_file() {
        let of = |model| Checkpoint::open(model).map(drop).unwrap_err().to_string();
        assert!(of(&EMPTY).starts_with("built-in:empty is not a checkpoint"), "{}", of(&EMPTY));
        let error = CheckpointFolder::read(&BARE).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("built-in:bare/model_index.json cannot be used"), "{error}");
        let bare = Place::from(&BARE);
        assert!(bare.text("x").unwrap_err().to_string().contains("it is no text"));
        assert!(bare.text("y").unwrap_err().to_string().contains("the program does not have it"));
        let error = bare.component("vae").weights("model").map(drop).unwrap_err().to_string();
        assert!(error.contains("built-in:bare/vae/model.safetensors is missing"), "{error}");
    }

    #[test]
    fn a_model_in_the_program_is_known_by_its_contents() {
        static ONE: BuiltIn = BuiltIn::new("m", &[("a/b", b"text")]);
        static SAME: BuiltIn = BuiltIn::new("m", &[("a/b", b"text")]);
        static OTHER: BuiltIn = BuiltIn::new("m", &[("a/b", b"Text")]);
        let digest = |model: &'static BuiltIn| {
            Place::from(model).component("a").built_in_file("b").unwrap().digest
        };
        assert_eq!(digest(&ONE), digest(&SAME));
        assert_ne!(digest(&ONE), digest(&OTHER));
        assert_eq!(ONE.bytes(), 4);
    }
}
