//! What a video starts from.

use clap::ValueEnum;
use std::path::{Path, PathBuf};
use vidfit_engine::checkpoint::Variant;
use vidfit_engine::request::Start;
use vidfit_media::Resize;

/// What the video starts from besides the prompt.
#[derive(clap::Args, Clone)]
pub struct InputArgs {
    /// Start from this image: PNG, JPEG or WebP. The I2V models do, and need one.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub image: Option<PathBuf>,
    /// Start from this video, with every model that needs no image: MP4, GIF, a folder of frames, or
    /// whatever a system's ffmpeg reads.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub video: Option<PathBuf>,
    /// The reference's spelling: t2v, i2v or v2v.
    #[arg(
        long = "generate_type",
        alias = "generate-type",
        value_enum,
        value_name = "TYPE",
        hide = true
    )]
    pub generate_type: Option<GenerateType>,
    /// The reference's spelling of --image or --video, as the type says.
    #[arg(
        long = "image_or_video_path",
        alias = "image-or-video-path",
        value_name = "FILE",
        conflicts_with_all = ["image", "video"],
        hide = true
    )]
    pub image_or_video_path: Option<PathBuf>,
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

/// `--generate_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GenerateType {
    /// From text alone.
    T2v,
    /// From an image.
    I2v,
    /// From a video.
    V2v,
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
    /// The image to start from, however it was named.
    pub fn image(&self) -> Option<&Path> {
        self.image.as_deref().or(self.of_type(GenerateType::I2v))
    }

    /// The video to start from, however it was named.
    pub fn video(&self) -> Option<&Path> {
        self.video.as_deref().or(self.of_type(GenerateType::V2v))
    }

    fn of_type(&self, wanted: GenerateType) -> Option<&Path> {
        self.image_or_video_path.as_deref().filter(|_| self.generate_type == Some(wanted))
    }

    /// Why the type that is named does not go with what is given, if it does not.
    pub fn problem(&self) -> Option<&'static str> {
        use GenerateType::{I2v, T2v, V2v};
        let is_given = self.image().is_some() || self.video().is_some();
        if self.image().is_some() && self.video().is_some() {
            return Some(
                "a video starts from an image or from a video, not from both: give --image alone with \
                 CogVideoX-5b-I2V or CogVideoX1.5-5B-I2V, or --video alone with CogVideoX-2b, \
                 CogVideoX-5b or CogVideoX1.5-5B",
            );
        }
        match (self.generate_type, self.image_or_video_path.is_some()) {
            (None, true) => Some(
                "--image_or_video_path needs --generate_type i2v or v2v; or say --image FILE or \
                 --video FILE",
            ),
            (Some(T2v), _) if is_given || self.image_or_video_path.is_some() => Some(
                "--generate_type t2v starts from text alone; leave the image or video away, or say \
                 i2v or v2v",
            ),
            (Some(I2v), _) if self.image().is_none() => {
                Some("--generate_type i2v needs an image: --image FILE")
            }
            (Some(V2v), _) if self.video().is_none() => {
                Some("--generate_type v2v needs a video: --video FILE")
            }
            _ => None,
        }
    }

    /// What the video starts from.
    pub fn start(&self) -> Start {
        match (self.image(), self.video()) {
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
