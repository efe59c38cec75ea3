//! What a video starts from, and which checkpoint can start from it.

use super::refuse;
use crate::checkpoint::{Checkpoint, Variant};
use crate::error::EngineError;
use serde::{Deserialize, Serialize};

/// What a video starts from besides its text. The pixels themselves are handed to the run: see
/// [`crate::pixels::Pixels`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Nothing.
    #[default]
    Text,
    /// An image: the first frame. The I2V models can, and can do nothing else.
    Image,
    /// A video of as many frames. Every other model can.
    Video {
        /// How much of it is made anew: above 0, to 1.
        strength: f64,
    },
}

impl Start {
    /// What a plan takes for granted of a model if nothing is said: an image where it needs one.
    pub fn usual(variant: Variant) -> Start {
        if variant.needs_image() { Start::Image } else { Start::Text }
    }

    /// Refuses what a model cannot start from, and names the one that can.
    pub(super) fn check(self, checkpoint: &Checkpoint) -> Result<(), EngineError> {
        let (variant, name) = (checkpoint.variant, checkpoint.name());
        let other = match self {
            Start::Image => variant.from_image(),
            Start::Text | Start::Video { .. } => variant.from_text(),
        };
        let id = other.id();
        match self {
            _ if other == variant => Ok(()),
            Start::Image => refuse(format!(
                "{name} does not start from an image; {other} does. Take it with --model {id}"
            )),
            Start::Text => refuse(format!(
                "{name} starts from an image, and none was given. Give one with --image, or \
                 start from text alone with --model {id}"
            )),
            Start::Video { .. } => refuse(format!(
                "{name} starts from an image, not from a video; {other} does. Take it with \
                 --model {id}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_model_is_named() {
        let video = Start::Video { strength: 0.8 };
        for (start, variant, right) in [
            (Start::Image, Variant::TwoB, "zai-org/CogVideoX-5b-I2V"),
            (Start::Image, Variant::FiveB, "zai-org/CogVideoX-5b-I2V"),
            (Start::Image, Variant::OneFive, "zai-org/CogVideoX1.5-5B-I2V"),
            (Start::Text, Variant::FiveBI2v, "zai-org/CogVideoX-5b"),
            (Start::Text, Variant::OneFiveI2v, "zai-org/CogVideoX1.5-5B"),
            (video, Variant::FiveBI2v, "zai-org/CogVideoX-5b"),
            (video, Variant::OneFiveI2v, "zai-org/CogVideoX1.5-5B"),
        ] {
            let error = start.check(&Checkpoint::published(variant)).unwrap_err().to_string();
            assert!(error.ends_with(&format!("--model {right}")), "{error}");
            assert!(error.starts_with(variant.name()), "{error}");
        }
        for (start, variant) in [
            (Start::Text, Variant::TwoB),
            (video, Variant::TwoB),
            (video, Variant::OneFive),
            (Start::Image, Variant::FiveBI2v),
        ] {
            assert!(start.check(&Checkpoint::published(variant)).is_ok());
        }
    }

    #[test]
    fn it_is_written_in_few_words() {
        let video = Start::Video { strength: 0.4 };
        for (start, text) in [
            (Start::Text, "\"text\""),
            (Start::Image, "\"image\""),
            (video, "{\"video\":{\"strength\":0.4}}"),
        ] {
            assert_eq!(serde_json::to_string(&start).unwrap(), text);
            assert_eq!(serde_json::from_str::<Start>(text).unwrap(), start);
        }
    }
}
