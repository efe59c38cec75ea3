//! `transformer/config.json`, and the weights that follow from it.

use crate::positions::{Grid, PositionError, Rope};
use crate::tokenizer::MAX_TOKENS;
use crate::weights::{LARGEST_SIZE, MOST_CHANNELS, MOST_HEAD_DIM, MOST_LAYERS, Manifest};
use serde::{Deserialize, Serialize};

/// `transformer/config.json`. Keys that older checkpoints lack take the reference's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransformerConfig {
    /// Heads of a block.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Latent channels, with those of an image condition.
    pub in_channels: usize,
    /// Latent channels.
    pub out_channels: usize,
    /// Width of the text encoder's result.
    pub text_embed_dim: usize,
    /// Width of the time embedding.
    pub time_embed_dim: usize,
    /// Width of the `ofs` sinusoid (1.5-5B-I2V).
    pub ofs_embed_dim: Option<usize>,
    /// Text tokens.
    pub max_text_seq_length: usize,
    /// Side of a patch in latent pixels.
    pub patch_size: usize,
    /// Latent frames of a patch (1.5), or none.
    pub patch_size_t: Option<usize>,
    /// Latent width the model was made for.
    pub sample_width: usize,
    /// Latent height the model was made for.
    pub sample_height: usize,
    /// Video frames the model was made for.
    pub sample_frames: usize,
    /// Video frames per latent frame.
    pub temporal_compression_ratio: usize,
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Rotary positions; otherwise sincos ones are added.
    pub use_rotary_positional_embeddings: bool,
    /// A stored table of positions is added (5b-I2V).
    pub use_learned_positional_embeddings: bool,
    /// Divides the sincos positions in space.
    pub spatial_interpolation_scale: f64,
    /// Divides the sincos positions in time.
    pub temporal_interpolation_scale: f64,
    /// Of all layer norms but those of queries and keys.
    pub norm_eps: f32,
    /// `[cos, sin]` instead of `[sin, cos]` in the time sinusoid.
    pub flip_sin_to_cos: bool,
    /// Shift of the time sinusoid's frequencies.
    pub freq_shift: f64,
    /// Must be `gelu-approximate`.
    pub activation_fn: String,
    /// Must be `silu`.
    pub timestep_activation_fn: String,
    /// Must be true: the norms have weights.
    pub norm_elementwise_affine: bool,
}

/// The defaults of the reference's constructor.
impl Default for TransformerConfig {
    fn default() -> Self {
        TransformerConfig {
            num_attention_heads: 30,
            attention_head_dim: 64,
            num_layers: 30,
            in_channels: 16,
            out_channels: 16,
            text_embed_dim: 4096,
            time_embed_dim: 512,
            ofs_embed_dim: None,
            max_text_seq_length: 226,
            patch_size: 2,
            patch_size_t: None,
            sample_width: 90,
            sample_height: 60,
            sample_frames: 49,
            temporal_compression_ratio: 4,
            attention_bias: true,
            use_rotary_positional_embeddings: false,
            use_learned_positional_embeddings: false,
            spatial_interpolation_scale: 1.875,
            temporal_interpolation_scale: 1.0,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            activation_fn: "gelu-approximate".into(),
            timestep_activation_fn: "silu".into(),
            norm_elementwise_affine: true,
        }
    }
}

pub(crate) fn block_name(layer: usize) -> String {
    format!("transformer_blocks.{layer}")
}

pub(crate) fn modulation_name(layer: usize) -> String {
    format!("transformer_blocks.{layer}.modulation")
}

impl TransformerConfig {
    /// Width of the hidden state.
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Latent frames and latent pixels on a side of a patch.
    pub fn patch(&self) -> (usize, usize) {
        (self.patch_size_t.unwrap_or(1), self.patch_size)
    }

    /// Values of an input patch.
    pub fn patch_features(&self) -> usize {
        let (pt, p) = self.patch();
        self.in_channels * pt * p * p
    }

    /// Values of an output patch.
    pub fn patch_outputs(&self) -> usize {
        let (pt, p) = self.patch();
        self.out_channels * pt * p * p
    }

    /// Rows of the learned table of positions, text included.
    pub(crate) fn learned_rows(&self) -> usize {
        self.max_text_seq_length + self.learned_grid().tokens()
    }

    /// The patches that the learned table of positions is for.
    fn learned_grid(&self) -> Grid {
        let frames = (self.sample_frames - 1) / self.temporal_compression_ratio + 1;
        let (rows, cols) = self.base_grid();
        Grid { frames, rows, cols }
    }

    /// The patches of latents `[frames, C, height, width]`, or none if they are not whole patches.
    pub fn grid(&self, frames: usize, height: usize, width: usize) -> Option<Grid> {
        let (pt, p) = self.patch();
        let whole =
            frames.is_multiple_of(pt) && height.is_multiple_of(p) && width.is_multiple_of(p);
        whole.then_some(Grid { frames: frames / pt, rows: height / p, cols: width / p })
    }

    /// Rows and columns of patches that the model was made for.
    fn base_grid(&self) -> (usize, usize) {
        (self.sample_height / self.patch_size, self.sample_width / self.patch_size)
    }

    /// Whether the model has positions for a grid.
    ///
    /// # Errors
    /// [`PositionError::TooLarge`] if not.
    pub fn check_grid(&self, grid: Grid) -> Result<(), PositionError> {
        if self.use_learned_positional_embeddings {
            // The reference refuses any other size (and counts on it for I2V).
            let (rows, cols) = self.base_grid();
            if (grid.rows, grid.cols) != (rows, cols) {
                return Err(PositionError::OtherThanLearned { grid, rows, cols });
            }
        }
        match (self.use_rotary_positional_embeddings, self.patch_size_t) {
            (true, Some(_)) => Rope::check_slice(grid, self.base_grid()),
            _ => Ok(()),
        }
    }

    /// Whether the learned table of positions is for this grid. Where only the number of frames
    /// differs, the reference falls back to sincos positions.
    pub fn has_learned_positions(&self, grid: Grid) -> bool {
        self.use_learned_positional_embeddings && grid == self.learned_grid()
    }

    /// The rotary table for a grid: 1.0 fits it into the grid it was made for, 1.5 counts.
    ///
    /// # Errors
    /// As [`Rope::linspace`] and [`Rope::slice`].
    pub fn rope(&self, grid: Grid) -> Result<Rope, PositionError> {
        let base = self.base_grid();
        match self.patch_size_t {
            None => Rope::linspace(grid, self.attention_head_dim, base),
            Some(_) => Rope::slice(grid, self.attention_head_dim, base),
        }
    }

    /// Every weight of the transformer.
    pub fn manifest(&self) -> Manifest {
        let (inner, time) = (self.inner_dim(), self.time_embed_dim);
        let mut manifest = Manifest::default();

        let block = manifest.add("time_embedding", "");
        block.linear("time_embedding.linear_1", time, inner);
        block.linear("time_embedding.linear_2", time, time);
        if let Some(ofs) = self.ofs_embed_dim {
            block.linear("ofs_embedding.linear_1", ofs, ofs);
            block.linear("ofs_embedding.linear_2", ofs, ofs);
        }
        let block = manifest.add("text_proj", "patch_embed");
        block.linear("text_proj", inner, self.text_embed_dim);
        if self.use_learned_positional_embeddings {
            let block = manifest.add("positions", "patch_embed");
            block.weight("pos_embedding", &[1, self.learned_rows(), inner]);
        }
        for layer in 0..self.num_layers {
            let block = manifest.add(&modulation_name(layer), &block_name(layer));
            block.linear("norm1.linear", 6 * inner, time);
            block.linear("norm2.linear", 6 * inner, time);
        }
        let block = manifest.add("tail.modulation", "");
        block.linear("norm_out.linear", 2 * inner, time);

        let block = manifest.add("patch_embed", "patch_embed");
        let (_, p) = self.patch();
        let features = self.patch_features();
        let proj = block.weight("proj.weight", &[inner, features]);
        if self.patch_size_t.is_none() {
            // A convolution of kernel 2 and stride 2 is a matrix product over patches.
            proj.stored = vec![inner, self.in_channels, p, p];
        }
        // There is a bias even where `patch_bias` is false: the reference's linear layer
        // ignores it.
        block.weight("proj.bias", &[inner]);

        for layer in 0..self.num_layers {
            let name = block_name(layer);
            let block = manifest.add(&name, &name);
            block.norm("norm1.norm", inner);
            for key in ["attn1.to_q", "attn1.to_k", "attn1.to_v"] {
                block.weight(&format!("{key}.weight"), &[inner, inner]);
                if self.attention_bias {
                    block.weight(&format!("{key}.bias"), &[inner]);
                }
            }
            block.norm("attn1.norm_q", self.attention_head_dim);
            block.norm("attn1.norm_k", self.attention_head_dim);
            block.linear("attn1.to_out.0", inner, inner);
            block.norm("norm2.norm", inner);
            block.linear("ff.net.0.proj", 4 * inner, inner);
            block.linear("ff.net.2", inner, 4 * inner);
        }
        let block = manifest.add("tail", "");
        block.norm("norm_final", inner);
        block.norm("norm_out.norm", inner);
        block.linear("proj_out", self.patch_outputs(), inner);
        manifest
    }

    /// The blocks that [`super::Conditioning::prepare`] asks for, in order. Besides, it asks for
    /// the learned positions, and keeps them.
    pub fn conditioning_blocks(&self) -> Vec<String> {
        let mut names = vec!["time_embedding".to_owned()];
        names.extend((0..self.num_layers).map(modulation_name));
        names.extend(["tail.modulation".to_owned(), "text_proj".to_owned()]);
        names
    }

    /// The blocks that [`super::predict`] asks for in every step, in order.
    pub fn step_blocks(&self) -> Vec<String> {
        let mut names = vec!["patch_embed".to_owned()];
        names.extend((0..self.num_layers).map(block_name));
        names.push("tail".to_owned());
        names
    }

    /// What this code does not compute, in words, if the configuration asks for it.
    pub fn unsupported(&self) -> Option<String> {
        let wrong = |field: &str, value: &str| Some(format!("{field} = {value}"));
        if self.activation_fn != "gelu-approximate" {
            return wrong("activation_fn", &self.activation_fn);
        }
        if self.timestep_activation_fn != "silu" {
            return wrong("timestep_activation_fn", &self.timestep_activation_fn);
        }
        if !self.norm_elementwise_affine {
            return wrong("norm_elementwise_affine", "false");
        }
        if !self.flip_sin_to_cos || self.freq_shift != 0.0 {
            return wrong("flip_sin_to_cos, freq_shift", "anything but true, 0");
        }
        if !self.attention_head_dim.is_multiple_of(16) || self.attention_head_dim > MOST_HEAD_DIM {
            return wrong("attention_head_dim", &self.attention_head_dim.to_string());
        }
        if self.num_layers > MOST_LAYERS {
            return wrong("num_layers", &self.num_layers.to_string());
        }
        let sizes = [
            self.num_attention_heads,
            self.attention_head_dim,
            self.num_layers,
            self.text_embed_dim,
            self.time_embed_dim,
            self.max_text_seq_length,
            self.in_channels,
            self.out_channels,
            self.patch_size,
            self.patch().0,
            self.sample_width,
            self.sample_height,
            self.sample_frames,
            self.temporal_compression_ratio,
        ];
        if sizes.contains(&0) || sizes.iter().any(|&size| size > LARGEST_SIZE) {
            return Some(format!("a size of 0 or above {LARGEST_SIZE}"));
        }
        if self.patch_features().max(self.patch_outputs()) > MOST_CHANNELS {
            return Some(format!("patches of more than {MOST_CHANNELS} values"));
        }
        let (inputs, outputs) = (self.in_channels, self.out_channels);
        if inputs != outputs && inputs != 2 * outputs {
            return Some(format!("{inputs} input channels for {outputs} output channels"));
        }
        if self.ofs_embed_dim.is_some_and(|width| width != self.time_embed_dim) {
            return Some("an ofs_embed_dim other than time_embed_dim".into());
        }
        if self.use_learned_positional_embeddings && !self.use_rotary_positional_embeddings {
            return Some("learned positions without rotary ones".into());
        }
        (self.max_text_seq_length > MAX_TOKENS)
            .then(|| format!("max_text_seq_length = {}", self.max_text_seq_length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five_b() -> TransformerConfig {
        TransformerConfig {
            num_attention_heads: 48,
            num_layers: 42,
            use_rotary_positional_embeddings: true,
            ..Default::default()
        }
    }

    /// Parameter and tensor counts of the published checkpoints.
    #[test]
    fn the_published_models_have_their_parameters() {
        let two_b = TransformerConfig::default();
        let five_b_i2v = TransformerConfig {
            in_channels: 32,
            use_learned_positional_embeddings: true,
            ..five_b()
        };
        let one_five = TransformerConfig {
            patch_size_t: Some(2),
            sample_width: 300,
            sample_height: 300,
            sample_frames: 81,
            ..five_b()
        };
        let one_five_i2v =
            TransformerConfig { in_channels: 32, ofs_embed_dim: Some(512), ..one_five.clone() };
        for (config, parameters, tensors) in [
            (two_b, 1_693_783_872, 736),
            (five_b(), 5_570_283_072, 1024),
            (five_b_i2v, 5_570_479_680 + 54_607_872, 1025),
            (one_five, 5_570_676_352, 1024),
            (one_five_i2v, 5_571_594_880, 1028),
        ] {
            let manifest = config.manifest();
            assert_eq!(manifest.parameters(), parameters);
            assert_eq!(manifest.weights().count(), tensors);
        }
    }
}
