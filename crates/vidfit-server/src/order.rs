//! What a client asks for.

mod field;
mod parse;

pub(crate) use parse::{Limits, MAX_SEED, parse};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a video starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Text alone.
    #[default]
    T2v,
    /// An image.
    I2v,
    /// A video.
    V2v,
}

/// What a client asks for; what is `None` is left to the model, the preset and the settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Order {
    /// What the video shows.
    pub prompt: String,
    /// The model's id.
    pub model: Option<String>,
    /// How long it is, in seconds; a number of frames goes before it.
    pub seconds: Option<f64>,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Frames.
    pub num_frames: Option<u32>,
    /// Frames per second.
    pub fps: Option<f64>,
    /// Denoising steps.
    pub num_inference_steps: Option<u32>,
    /// Scale of classifier-free guidance.
    pub guidance_scale: Option<f64>,
    /// The seed.
    pub seed: Option<u64>,
    /// What the video is not to show.
    pub negative_prompt: Option<String>,
    /// A LoRA: the name of one that the server offers, perhaps with `:scale`. It comes from the
    /// client, so it must never be taken for a path.
    pub lora: Option<String>,
    /// The name of a preset.
    pub preset: Option<String>,
    /// How much of the video that it starts from is made anew, 0 to 1.
    pub strength: Option<f64>,
    /// Higher goes first, −100 to 100.
    pub priority: i32,
}
