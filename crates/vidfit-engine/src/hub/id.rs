//! Hub ids: `owner/name`, with `@revision` if it is not the main branch.

use std::fmt;
use std::path::{Component, Path};

use super::HubError;

/// The published checkpoints, for suggestions.
pub const KNOWN_MODELS: [&str; 5] = [
    "zai-org/CogVideoX-2b",
    "zai-org/CogVideoX-5b",
    "zai-org/CogVideoX-5b-I2V",
    "zai-org/CogVideoX1.5-5B",
    "zai-org/CogVideoX1.5-5B-I2V",
];

/// Owners that are one and the same: the publisher has renamed itself.
const SAME_OWNER: [&str; 2] = ["THUDM", "zai-org"];

/// The longest `owner/name` the hub allows.
const MAX_ID_CHARS: usize = 96;

/// A hub id that is safe to use in paths and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelId {
    owner: String,
    name: String,
    revision: Option<String>,
}

impl ModelId {
    /// Reads `owner/name` or `owner/name@revision`.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let invalid =
            |reason: &str| HubError::InvalidId { id: text.to_owned(), reason: reason.to_owned() };
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let Some((owner, name)) = id.split_once('/') else {
            return Err(invalid("there is no slash in it"));
        };
        if id.len() > MAX_ID_CHARS {
            return Err(invalid("it is longer than 96 characters"));
        }
        if !is_valid_part(owner) || !is_valid_part(name) || name.ends_with(".git") {
            return Err(invalid(
                "owner and name are letters, digits, `-`, `_` and `.`, without `--` or `..`, and \
                 neither begin nor end with `-` or `.`",
            ));
        }
        if revision.is_some_and(|revision| !is_valid_revision(revision)) {
            return Err(invalid("its revision is not the name of a branch, tag or commit"));
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    /// `owner/name`, without the revision.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The branch, tag or commit; `main` if none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// This id and then the same model under its owner's other names.
    pub(super) fn with_aliases(&self) -> Vec<ModelId> {
        let mut ids = vec![self.clone()];
        if SAME_OWNER.contains(&self.owner.as_str()) {
            for owner in SAME_OWNER.into_iter().filter(|&owner| owner != self.owner) {
                ids.push(Self { owner: owner.to_owned(), ..self.clone() });
            }
        }
        ids
    }

    /// The folder in the cache, `models--owner--name`.
    pub(super) fn folder_name(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }

    /// The id whose folder that is.
    pub(super) fn from_folder_name(folder: &str) -> Option<Self> {
        let (owner, name) = folder.strip_prefix("models--")?.split_once("--")?;
        Self::parse(&format!("{owner}/{name}")).ok()
    }

    /// The published checkpoint with the most similar name, if one is similar at all.
    pub(super) fn suggestion(&self) -> Option<&'static str> {
        let distance = |known: &str| {
            let name = known.split_once('/').map_or(known, |(_, name)| name);
            strsim::damerau_levenshtein(&name.to_lowercase(), &self.name.to_lowercase())
        };
        let given = self.repo();
        KNOWN_MODELS
            .into_iter()
            .filter(|&known| known != given)
            .map(|known| (distance(known), known))
            .filter(|&(distance, known)| distance <= known.len() / 3)
            .min()
            .map(|(_, known)| known)
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

fn is_valid_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty()
        && part.chars().all(allowed)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Branches may contain slashes (`refs/pr/1`), but no part that a path would treat specially.
fn is_valid_revision(revision: &str) -> bool {
    revision.len() <= 200
        && revision.split('/').all(|part| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
            !part.is_empty()
                && part.chars().all(allowed)
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
        })
}

/// Whether a text is a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The hub id in whose cached snapshot a path lies, for messages that say how to get it again.
pub fn id_of_cached_path(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str().unwrap_or(""),
            _ => "",
        })
        .collect();
    let folder = parts.windows(2).rev().find(|pair| pair[1] == "snapshots")?[0];
    ModelId::from_folder_name(folder).map(|id| id.repo())
}

/// The name of the blob that a path leads to, if it is a link into the cache of a model: a digest of
/// the file's contents, which was held to it when it was downloaded.
pub fn blob_of(path: &Path) -> Option<String> {
    let target = path.canonicalize().ok()?;
    let name = target.file_name()?.to_str()?;
    let blobs = target.parent()?;
    let folder = blobs.parent()?.file_name()?.to_str()?;
    // SHA-1 of small files, SHA-256 of large ones.
    let is_digest =
        matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_cached = blobs.file_name()? == "blobs" && ModelId::from_folder_name(folder).is_some();
    (is_digest && is_cached && path.file_name()? != name).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ids() {
        let id = ModelId::parse("THUDM/CogVideoX1.5-5B@refs/pr/1").unwrap();
        assert_eq!(id.repo(), "THUDM/CogVideoX1.5-5B");
        assert_eq!(id.revision(), "refs/pr/1");
        assert_eq!(id.folder_name(), "models--THUDM--CogVideoX1.5-5B");
        assert_eq!(id.with_aliases()[1].to_string(), "zai-org/CogVideoX1.5-5B@refs/pr/1");
        assert_eq!(ModelId::from_folder_name(&id.folder_name()).unwrap().repo(), id.repo());
        assert_eq!(ModelId::parse("a/b").unwrap().with_aliases().len(), 1);
    }

    #[test]
    fn bad_ids() {
        let long = format!("a/{}", "b".repeat(100));
        for id in [
            "",
            "a",
            "/",
            "a/",
            "/b",
            "../b",
            "a/..",
            "a/b/c",
            "a/b--c",
            "-a/b",
            "a/.b",
            "a/b.git",
            "a b/c",
            "a\\b/c",
            "a/b@",
            "a/b@..",
            "a/b@x/../y",
            "a/b@/x",
            "a/b@-x",
            "a/b\n",
            "ä/b",
            "a/b@x y",
            "a/b:c",
            &long,
        ] {
            assert!(ModelId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn suggestions() {
        let suggestion = |id: &str| ModelId::parse(id).unwrap().suggestion();
        assert_eq!(suggestion("THUDM/CogVideo-5b"), Some("zai-org/CogVideoX-5b"));
        assert_eq!(suggestion("me/cogvideox1.5-5b-i2v"), Some("zai-org/CogVideoX1.5-5B-I2V"));
        assert_eq!(suggestion("zai-org/CogVideox-2B"), Some("zai-org/CogVideoX-2b"));
        assert_eq!(suggestion("stabilityai/stable-diffusion-xl"), None);
    }

    #[test]
    fn ids_of_paths() {
        let path = Path::new("/c/models--a--b/snapshots/123/vae/x.safetensors");
        assert_eq!(id_of_cached_path(path).as_deref(), Some("a/b"));
        assert_eq!(id_of_cached_path(Path::new("/c/snapshots/x")), None);
        assert_eq!(id_of_cached_path(Path::new("x")), None);
    }
}
