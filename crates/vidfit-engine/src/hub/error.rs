//! Why a model could not be found or downloaded.

use std::io;
use std::path::PathBuf;

/// Why a model could not be found or downloaded.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Not of the form of a hub id.
    #[error("`{id}` is not a hub id: {reason}. A hub id is OWNER/NAME, as in zai-org/CogVideoX-2b")]
    InvalidId {
        /// What was given.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a folder nor a hub id.
    #[error(
        "`{given}` is neither an existing folder nor a hub id. A model is the path of a diffusers \
         folder (the one with model_index.json in it), or OWNER/NAME, as in zai-org/CogVideoX-2b"
    )]
    NotAModel {
        /// What was given.
        given: String,
    },
    /// A file where a folder is wanted.
    #[error(
        "{} is a file; a model is a diffusers folder: give the one with model_index.json in it",
        path.display()
    )]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// A hub id whose snapshot is not in the cache.
    #[error(
        "{id} is not in the local cache ({}), and there is no folder of that name. Download it \
         with `vidfit models pull {id}`",
        cache_dir.display()
    )]
    NotCached {
        /// The id, with its revision if one was given.
        id: String,
        /// The cache that was searched.
        cache_dir: PathBuf,
    },
    /// The network is forbidden.
    #[error("cannot download {id}: HF_HUB_OFFLINE is set. Unset it to allow downloads")]
    Offline {
        /// The id.
        id: String,
    },
    /// The configured endpoint, proxy or certificate file is unusable.
    #[error("cannot reach the hub: {reason}")]
    BadConfig {
        /// What is wrong and what to change.
        reason: String,
    },
    /// The hub refuses this user.
    #[error("the hub refuses access to {id}: {}", access_hint(id, endpoint, *token_sent))]
    NoAccess {
        /// The id.
        id: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// The hub does not know the model.
    #[error(
        "there is no model {id} on {endpoint}, or it is private{}. Check the spelling; for a \
         private model set HF_TOKEN",
        suggestion.map(|id| format!(" (did you mean {id}?)")).unwrap_or_default()
    )]
    NoSuchModel {
        /// The id.
        id: String,
        /// The hub.
        endpoint: String,
        /// A published model of a similar name.
        suggestion: Option<&'static str>,
    },
    /// The model exists, but not that branch, tag or commit.
    #[error("{id} has no branch, tag or commit `{revision}`; leave out `@{revision}` for `main`")]
    NoSuchRevision {
        /// `owner/name`.
        id: String,
        /// The revision asked for.
        revision: String,
    },
    /// The repository holds nothing that a diffusers pipeline needs.
    #[error(
        "{id} holds no diffusers pipeline (no model_index.json, no safetensors weights). Choose a \
         repository in diffusers layout, such as zai-org/CogVideoX-2b"
    )]
    NothingToPull {
        /// The id.
        id: String,
    },
    /// The server names a file that would land outside the cache.
    #[error(
        "{id} names the file `{name}`, which would land outside its folder; nothing was \
         downloaded. Do not trust this repository or endpoint"
    )]
    UnsafeName {
        /// The id.
        id: String,
        /// The name as the server gave it.
        name: String,
    },
    /// The network or the server failed, also after several tries.
    #[error(
        "download failed: {reason} ({url}). What has arrived is kept: the same command goes on \
         from there"
    )]
    Network {
        /// What was asked for.
        url: String,
        /// What happened, last.
        reason: String,
    },
    /// The server's answer makes no sense.
    #[error("the hub's answer makes no sense: {reason} ({url}). Is HF_ENDPOINT right?")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The content is not what the hub says it is, twice.
    #[error(
        "{file} arrived damaged twice: {reason}. It was deleted; something between here and the \
         hub changes the data (a proxy, a mirror, faulty memory)"
    )]
    Damaged {
        /// The file in the repository.
        file: String,
        /// Expected and found checksum or size.
        reason: String,
    },
    /// The disk is too small.
    #[error(
        "no room for {id}: {:.1} GB still to download, but only {:.1} GB free in {}. Free some \
         space, or set HF_HOME to a folder on a larger disk",
        gigabytes(*needed_bytes),
        gigabytes(*free_bytes),
        dir.display()
    )]
    NoRoom {
        /// The id.
        id: String,
        /// Bytes still to download.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
        /// The cache.
        dir: PathBuf,
    },
    /// The operating system refused something in the cache.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The caller's flag was set.
    #[error("cancelled. What has arrived is kept: the same command goes on from there")]
    Cancelled,
}

impl HubError {
    /// Makes an [`Io`](Self::Io) out of a system error, for `map_err`.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn access_hint(id: &str, endpoint: &str, token_sent: bool) -> String {
    let token = if token_sent {
        "HF_TOKEN is set, but this account may not read it"
    } else {
        "it may be gated or private, and HF_TOKEN is not set"
    };
    let repo = id.split('@').next().unwrap_or(id);
    format!(
        "{token}. Accept the licence on {endpoint}/{repo} and set HF_TOKEN to a token of that \
         account"
    )
}

/// As card and disk vendors' tools show them: 2^30 bytes.
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
