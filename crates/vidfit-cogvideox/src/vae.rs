//! The 3-D causal VAE (`AutoencoderKLCogVideoX`; Yang et al. 2024, §2.1).
//!
//! A video tensor is a table of frames, each `[height, width, channels]`, allocated and freed
//! singly. Only what a convolution reads is padded. A convolution's cache is then two frames that
//! live longer, a frame that was doubled in time is the same frame twice, and a resnet frees its
//! input while it goes.

mod caches;
mod config;
mod decoder;
mod encoder;
mod layers;
mod seams;
mod tiling;

pub use config::VaeConfig;
pub use decoder::{DecodeSchedule, Piece, decode, decoded_pixels, decoder_passes, kept_edges};
pub use encoder::{
    EncodeSchedule, Pixels, Rectangle, encode, encoded_pixels, encoder_host_bytes, encoder_passes,
    frames_first, kept_latent_edges, latent_frames, sample,
};
pub use tiling::Tiling;
