//! What the hub says a revision consists of.

use serde::Deserialize;

use super::checksum::ChecksumKind;
use super::http::{Asked, Client, bad_answer};
use super::id::is_commit;
use super::retry::Failure;
use super::{HubError, ModelId};

/// More than any list of files needs.
const MAX_LISTING_BYTES: u64 = 64 << 20;

/// The files of a commit.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// A file as the list names it.
#[derive(Clone)]
pub(super) struct RemoteFile {
    pub name: String,
    /// Size and name of the contents, where the list says them.
    pub blob: Option<RemoteBlob>,
}

/// Contents on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteBlob {
    /// The checksum, which is the name in the cache.
    pub name: String,
    pub bytes: u64,
}

impl RemoteBlob {
    /// `None` if the name would be no safe file name.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let good = !name.is_empty() && name.len() <= 128 && name.chars().all(allowed);
        good.then(|| Self { name: name.to_owned(), bytes })
    }

    pub fn checksum(&self) -> ChecksumKind {
        ChecksumKind::of_name(&self.name)
    }
}

/// Asks for the files of the revision. Every name in the list is safe to use below a folder.
pub(super) fn fetch_listing(client: &Client<'_>, id: &ModelId) -> Result<Listing, Failure> {
    let url = client.listing_url();
    let mut answer = client.get(&url, Asked::Listing, 0)?;
    let text = answer
        .response
        .body_mut()
        .with_config()
        .limit(MAX_LISTING_BYTES)
        .read_to_vec()
        .map_err(|error| super::http::passing(&url, error.to_string(), None))?;
    let raw: RawListing = serde_json::from_slice(&text)
        .map_err(|error| bad_answer(&url, format!("the list of files does not parse: {error}")))?;
    let commit = raw.sha.to_ascii_lowercase();
    if !is_commit(&commit) {
        return Err(bad_answer(&url, format!("`{}` is not a commit", raw.sha)));
    }
    if let Some(file) = raw.siblings.iter().find(|file| !is_safe_name(&file.rfilename)) {
        return Err(Failure::Final(HubError::UnsafeName {
            id: id.to_string(),
            name: file.rfilename.clone(),
        }));
    }
    let files = raw.siblings.into_iter().map(RawFile::into_remote).collect();
    Ok(Listing { commit, files })
}

/// Asks for what the list did not say of a file; some mirrors list only names.
pub(super) fn fetch_blob_info(
    client: &Client<'_>,
    commit: &str,
    file: &str,
) -> Result<RemoteBlob, Failure> {
    let url = client.file_url(commit, file);
    let answer = client.head(&url)?;
    let (Some(etag), Some(bytes)) = (answer.etag, answer.file_bytes) else {
        return Err(bad_answer(&url, "it tells neither the file's ETag nor its size".to_owned()));
    };
    RemoteBlob::new(&etag, bytes)
        .ok_or_else(|| bad_answer(&url, format!("the ETag `{etag}` cannot be a file's name")))
}

#[derive(Deserialize)]
struct RawListing {
    sha: String,
    siblings: Vec<RawFile>,
}

#[derive(Deserialize)]
struct RawFile {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

impl RawFile {
    fn into_remote(self) -> RemoteFile {
        let blob = match self.lfs {
            // The blob id of such a file is that of the pointer in git, not of the contents.
            Some(lfs) => lfs.sha256.zip(lfs.size.or(self.size)),
            None => self.blob_id.zip(self.size),
        };
        let blob = blob.and_then(|(name, bytes)| RemoteBlob::new(&name, bytes));
        RemoteFile { name: self.rfilename, blob }
    }
}

/// A relative path of plain names, on every system.
fn is_safe_name(name: &str) -> bool {
    name.len() <= 1024
        && !name.contains(['\\', ':'])
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_names() {
        for name in ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "c:/x", "a\0b", "a\n"] {
            assert!(!is_safe_name(name), "{name:?}");
        }
        for name in ["a", "vae/config.json", ".gitattributes", "a..b", "a b/c"] {
            assert!(is_safe_name(name), "{name:?}");
        }
        for name in ["", "..", "a/b", "a.b", "a\\b"] {
            assert_eq!(RemoteBlob::new(name, 1), None, "{name:?}");
        }
    }
}
