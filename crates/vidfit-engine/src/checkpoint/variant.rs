//! The five published models, and what follows from which one a checkpoint is.

use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_tensor::DType;

/// Which of the published models a checkpoint is like. Decided by the transformer's configuration,
/// so that fine-tuned and tiny models are recognised as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// CogVideoX-2b.
    TwoB,
    /// CogVideoX-5b.
    FiveB,
    /// CogVideoX-5b-I2V.
    FiveBI2v,
    /// CogVideoX1.5-5B.
    OneFive,
    /// CogVideoX1.5-5B-I2V.
    OneFiveI2v,
}

impl Variant {
    /// The variant of a transformer.
    pub fn of(config: &TransformerConfig) -> Variant {
        let image = config.in_channels > config.out_channels;
        match (config.patch_size_t.is_some(), image) {
            (true, true) => Variant::OneFiveI2v,
            (true, false) => Variant::OneFive,
            (false, true) => Variant::FiveBI2v,
            (false, false) if config.use_rotary_positional_embeddings => Variant::FiveB,
            (false, false) => Variant::TwoB,
        }
    }

    /// The published name.
    pub fn name(self) -> &'static str {
        match self {
            Variant::TwoB => "CogVideoX-2b",
            Variant::FiveB => "CogVideoX-5b",
            Variant::FiveBI2v => "CogVideoX-5b-I2V",
            Variant::OneFive => "CogVideoX1.5-5B",
            Variant::OneFiveI2v => "CogVideoX1.5-5B-I2V",
        }
    }

    /// Whether it is of the 1.5 generation.
    pub fn is_one_five(self) -> bool {
        matches!(self, Variant::OneFive | Variant::OneFiveI2v)
    }

    /// Whether it needs an image to start from.
    pub fn needs_image(self) -> bool {
        matches!(self, Variant::FiveBI2v | Variant::OneFiveI2v)
    }

    /// The model of its family that starts from an image; 2b has none, and 5b's takes its place.
    pub fn from_image(self) -> Variant {
        if self.is_one_five() { Variant::OneFiveI2v } else { Variant::FiveBI2v }
    }

    /// The model of its family that starts from text alone, or from a video.
    pub fn from_text(self) -> Variant {
        match self {
            Variant::FiveBI2v => Variant::FiveB,
            Variant::OneFiveI2v => Variant::OneFive,
            other => other,
        }
    }

    /// Frames per second that the model was trained on.
    pub fn fps(self) -> f64 {
        if self.is_one_five() { 16.0 } else { 8.0 }
    }

    /// The type that the publishers ran it in.
    pub fn published_dtype(self) -> DType {
        if self == Variant::TwoB { DType::F16 } else { DType::BF16 }
    }

    /// The most frames that the publishers vouch for.
    pub fn most_frames(self) -> usize {
        if self.is_one_five() { 161 } else { 49 }
    }

    /// Width and height where the configuration does not say them usefully: 1.5 names a square
    /// that no card can hold, but was made for this.
    pub fn published_size(self) -> Option<(usize, usize)> {
        self.is_one_five().then_some((1360, 768))
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
