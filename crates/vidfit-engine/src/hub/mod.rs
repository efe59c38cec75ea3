//! Models by their hub id: finding them in the local cache and downloading them into it.
//!
//! The cache has the layout of Python's `huggingface_hub`, so either program finds what the other
//! downloaded:
//!
//! ```text
//! <cache>/models--owner--name/blobs/<checksum>             the contents
//!                            /snapshots/<commit>/vae/...   links to them, by file name
//!                            /refs/main                    the commit a branch or tag stands for
//!        /.locks/models--owner--name/<checksum>.lock       who is downloading what
//! ```
//!
//! [`resolve`] turns what a user calls a model into a folder, [`pull`] downloads, [`list_local`]
//! says what is there. What they need to know about the surroundings is a [`HubConfig`].

mod blob;
mod cache;
mod checksum;
mod config;
mod error;
mod http;
mod id;
mod link;
mod listing;
mod local;
mod meter;
mod pull;
mod resolve;
mod retry;
mod room;
mod select;

pub use config::{DEFAULT_ENDPOINT, HubConfig};
pub use error::HubError;
pub use id::{KNOWN_MODELS, ModelId, blob_of, id_of_cached_path};
pub use local::{LocalModel, list_local};
pub use meter::{PullEvent, PullProgress};
pub use pull::pull;
pub use resolve::{ModelLocation, ModelSource, resolve};
