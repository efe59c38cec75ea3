//! Files made of a fuzzer's bytes.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder that vanishes with it.
pub struct Kept(TempDir);

impl Kept {
    /// An empty one.
    pub fn new() -> Kept {
        Kept(tempfile::tempdir().expect("a folder for temporary files"))
    }

    /// The folder.
    #[allow(dead_code)] // Some targets need files alone.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A file that may be a safetensors file. The first byte says whether the others are all of it,
    /// or its header's text, up to a zero, and its data, with the right length before them: a fuzzer
    /// that had to guess the length would never come further.
    #[allow(dead_code)] // Some targets need other files.
    pub fn safetensors(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("model.safetensors");
        let whole = match bytes.split_first() {
            Some((kind, rest)) if kind % 8 != 0 => {
                let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
                let (text, data) = rest.split_at(end);
                let length = (text.len() as u64).to_le_bytes();
                [&length[..], text, data.get(1..).unwrap_or_default()].concat()
            }
            Some((_, rest)) => rest.to_vec(),
            None => Vec::new(),
        };
        std::fs::write(&path, whole).expect("a file in the folder");
        path
    }
}
