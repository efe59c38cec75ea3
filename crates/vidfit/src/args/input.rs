//! What a video starts from.

use clap::ValueEnum;
use std::path::PathBuf;
use vidfit_engine::checkpoint::Variant;
use vidfit_engine::request::Start;
use vidfit_media::Resize;

/// What the video starts from besides the prompt.
#[derive(clap::Args, Clone)]
pub struct InputArgs {
    /// Start from this image: PNG, JPEG or WebP. The I2V models do, and need one.
    #[arg(long, value_name = "FILE", conflicts_with = "video", help_heading = "Input")]
    pub image: Option<PathBuf>,
    /// Start from this video, with every model that needs no image: MP4, GIF, a folder of frames, or
    /// whatever a system's ffmpeg reads.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub video: Option<PathBuf>,
    /// How much of the video is made anew: above 0, to 1. So much of the steps is done.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, help_heading = "Input")]
    pub strength: f64,
    /// What becomes of an image or a video in another proportion than the video's.
    #[arg(long, value_enum, default_value_t = Resizing::Stretch, help_heading = "Input")]
    pub resize: Resizing,
    /// Height of a tile in pixels, where an image or a video is encoded in tiles [default: half of
    /// what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Memory")]
    pub encode_tile_height: Option<usize>,
    /// Width of a tile in pixels, where an image or a video is encoded in tiles [default: half of
    /// what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Memory")]
    pub encode_tile_width: Option<usize>,
}

/// `--resize`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resizing {
    /// Stretched to fit, as the reference does.
    Stretch,
    /// The middle, as large as it can be.
    Crop,
    /// The whole, with black beside it.
    Pad,
}

impl From<Resizing> for Resize {
    fn from(choice: Resizing) -> Self {
        match choice {
            Resizing::Stretch => Resize::Stretch,
            Resizing::Crop => Resize::Crop,
            Resizing::Pad => Resize::Pad,
        }
    }
}

impl InputArgs {
    /// What the video starts from.
    pub fn start(&self) -> Start {
        match (&self.image, &self.video) {
            (Some(_), _) => Start::Image,
            (None, Some(_)) => Start::Video { strength: self.strength },
            (None, None) => Start::Text,
        }
    }

    /// What a plan takes it to start from: an image where none is given and the model needs one.
    pub fn start_of_plan(&self, variant: Variant) -> Start {
        match self.start() {
            Start::Text => Start::usual(variant),
            given => given,
        }
    }
}
