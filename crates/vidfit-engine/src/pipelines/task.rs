//! What a pipeline is for.

use crate::checkpoint::Variant;
use crate::error::EngineError;
use crate::request::Start;
use serde::{Deserialize, Serialize};

/// What a video is made from besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Nothing.
    TextToVideo,
    /// An image.
    ImageToVideo,
    /// A video.
    VideoToVideo,
}

impl Task {
    /// The task of a request that starts so.
    pub fn of(start: Start) -> Task {
        match start {
            Start::Text => Task::TextToVideo,
            Start::Image => Task::ImageToVideo,
            Start::Video { .. } => Task::VideoToVideo,
        }
    }

    /// Refuses a model that is for other tasks, and names one that is for this.
    pub(super) fn check(self, variant: Variant) -> Result<(), EngineError> {
        let other = match self {
            Task::ImageToVideo => variant.from_image(),
            Task::TextToVideo | Task::VideoToVideo => variant.from_text(),
        };
        if other == variant {
            return Ok(());
        }
        Err(EngineError::Request(format!(
            "{variant} is not for {self}; {other} is. Load {} instead",
            other.id()
        )))
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Task::TextToVideo => "text to video",
            Task::ImageToVideo => "image to video",
            Task::VideoToVideo => "video to video",
        })
    }
}
