//! `vae/config.json`, and the weights that follow from it.

use crate::weights::{BlockSpec, LARGEST_SIZE, MOST_CHANNELS, MOST_LAYERS, Manifest};
use serde::{Deserialize, Serialize};

/// `vae/config.json`. Missing keys take the reference's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a picture.
    pub out_channels: usize,
    /// Channels of a latent frame.
    pub latent_channels: usize,
    /// Channels of each resolution, highest first.
    pub block_out_channels: Vec<usize>,
    /// Resnets of an encoder block; the decoder's have one more.
    pub layers_per_block: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Of the encoder's norms.
    pub norm_eps: f32,
    /// Must be `silu`.
    pub act_fn: String,
    /// Video frames per latent frame.
    pub temporal_compression_ratio: usize,
    /// Height whose half is the tile.
    pub sample_height: usize,
    /// Width whose half is the tile.
    pub sample_width: usize,
    /// Latents are divided by this before they are decoded.
    pub scaling_factor: f64,
    /// Whether image latents are divided by the factor, too (1.5).
    pub invert_scale_latents: bool,
    /// Must be false.
    pub use_quant_conv: bool,
    /// Must be false.
    pub use_post_quant_conv: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        VaeConfig {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 16,
            block_out_channels: vec![128, 256, 256, 512],
            layers_per_block: 3,
            norm_num_groups: 32,
            norm_eps: 1e-6,
            act_fn: "silu".into(),
            temporal_compression_ratio: 4,
            sample_height: 480,
            sample_width: 720,
            scaling_factor: 1.15258426,
            invert_scale_latents: false,
            use_quant_conv: false,
            use_post_quant_conv: false,
        }
    }
}

/// One stage of the decoder: resnets, then perhaps an enlargement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpBlock {
    pub name: String,
    pub resnets: usize,
    pub input: usize,
    pub output: usize,
    pub upsamples: bool,
    /// Whether the enlargement doubles time as well.
    pub doubles_time: bool,
}

/// One stage of the encoder: resnets, then perhaps a reduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DownBlock {
    pub name: String,
    pub resnets: usize,
    pub input: usize,
    pub output: usize,
    pub downsamples: bool,
    /// Whether the reduction halves time as well.
    pub halves_time: bool,
}

impl VaeConfig {
    /// How much smaller latents are than pictures, on each side.
    pub fn spatial_ratio(&self) -> usize {
        1 << (self.block_out_channels.len().max(1) - 1)
    }

    /// Stages that change the length in time.
    fn temporal_levels(&self) -> usize {
        self.temporal_compression_ratio.max(1).ilog2() as usize
    }

    /// What latents that describe a video are multiplied by before they are denoised.
    pub fn video_factor(&self) -> f64 {
        self.scaling_factor
    }

    /// What latents of a picture that a video begins with are multiplied by: the reciprocal where
    /// the model was trained so (`invert_scale_latents`, 1.5).
    pub fn image_factor(&self) -> f64 {
        match self.invert_scale_latents {
            true => 1.0 / self.scaling_factor,
            false => self.scaling_factor,
        }
    }

    /// Channels where the decoder begins and the encoder ends.
    pub(super) fn widest(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or(0)
    }

    pub(super) fn up_blocks(&self) -> Vec<UpBlock> {
        let widths: Vec<usize> = self.block_out_channels.iter().rev().copied().collect();
        let mut input = self.widest();
        let blocks = widths.iter().enumerate().map(|(index, &output)| {
            let block = UpBlock {
                name: format!("decoder.up_blocks.{index}"),
                resnets: self.layers_per_block + 1,
                input,
                output,
                upsamples: index + 1 < widths.len(),
                doubles_time: index < self.temporal_levels(),
            };
            input = output;
            block
        });
        blocks.collect()
    }

    /// The decoder's weights.
    pub fn decoder_manifest(&self) -> Manifest {
        let mut manifest = Manifest::default();
        let z = self.latent_channels;
        let cube = [3, 3, 3];

        let block = manifest.add("decoder.conv_in", "decoder");
        block.conv("conv_in.conv", self.widest(), z, &cube);
        for index in 0..2 {
            let name = format!("decoder.mid_block.resnets.{index}");
            let block = manifest.add(&name, &name);
            resnet(block, self.widest(), self.widest(), Some(z));
        }
        for up in self.up_blocks() {
            for index in 0..up.resnets {
                let name = format!("{}.resnets.{index}", up.name);
                let block = manifest.add(&name, &name);
                let input = if index == 0 { up.input } else { up.output };
                resnet(block, input, up.output, Some(z));
            }
            if up.upsamples {
                let name = format!("{}.upsamplers.0", up.name);
                let block = manifest.add(&name, &name);
                block.conv("conv", up.output, up.output, &[3, 3]);
            }
        }
        let block = manifest.add("decoder.tail", "decoder");
        let last = self.block_out_channels.first().copied().unwrap_or(0);
        group_norm(block, "norm_out", last, Some(z));
        block.conv("conv_out.conv", self.out_channels, last, &cube);
        manifest
    }

    /// The blocks that decoding asks for in every chunk of every tile, in order.
    pub fn decoder_blocks(&self) -> Vec<String> {
        self.decoder_manifest().blocks.into_iter().map(|block| block.name).collect()
    }

    /// Causal convolutions of the decoder that remember frames from one chunk to the next.
    pub fn decoder_caches(&self) -> usize {
        let resnets: usize = self.up_blocks().iter().map(|up| up.resnets).sum();
        2 * (2 + resnets) + 2
    }

    /// Channels where the encoder begins.
    pub(super) fn narrowest(&self) -> usize {
        self.block_out_channels.first().copied().unwrap_or(0)
    }

    pub(super) fn down_blocks(&self) -> Vec<DownBlock> {
        let mut input = self.narrowest();
        let blocks = self.block_out_channels.iter().enumerate().map(|(index, &output)| {
            let block = DownBlock {
                name: format!("encoder.down_blocks.{index}"),
                resnets: self.layers_per_block,
                input,
                output,
                downsamples: index + 1 < self.block_out_channels.len(),
                halves_time: index < self.temporal_levels(),
            };
            input = output;
            block
        });
        blocks.collect()
    }

    /// The encoder's weights.
    pub fn encoder_manifest(&self) -> Manifest {
        let mut manifest = Manifest::default();
        let cube = [3, 3, 3];

        let block = manifest.add("encoder.conv_in", "encoder");
        block.conv("conv_in.conv", self.narrowest(), self.in_channels, &cube);
        for down in self.down_blocks() {
            for index in 0..down.resnets {
                let name = format!("{}.resnets.{index}", down.name);
                let block = manifest.add(&name, &name);
                let input = if index == 0 { down.input } else { down.output };
                resnet(block, input, down.output, None);
            }
            if down.downsamples {
                let name = format!("{}.downsamplers.0", down.name);
                let block = manifest.add(&name, &name);
                block.conv("conv", down.output, down.output, &[3, 3]);
            }
        }
        for index in 0..2 {
            let name = format!("encoder.mid_block.resnets.{index}");
            let block = manifest.add(&name, &name);
            resnet(block, self.widest(), self.widest(), None);
        }
        let block = manifest.add("encoder.tail", "encoder");
        group_norm(block, "norm_out", self.widest(), None);
        block.conv("conv_out.conv", 2 * self.latent_channels, self.widest(), &cube);
        manifest
    }

    /// The blocks that encoding asks for in every chunk of every tile, in order.
    pub fn encoder_blocks(&self) -> Vec<String> {
        self.encoder_manifest().blocks.into_iter().map(|block| block.name).collect()
    }

    /// Causal convolutions of the encoder that remember frames from one chunk to the next.
    pub fn encoder_caches(&self) -> usize {
        let resnets: usize = self.down_blocks().iter().map(|down| down.resnets).sum();
        2 * (2 + resnets) + 2
    }

    /// What this code does not compute, in words, if the configuration asks for it.
    pub fn unsupported(&self) -> Option<String> {
        if self.act_fn != "silu" {
            return Some(format!("act_fn = {}", self.act_fn));
        }
        if self.use_quant_conv || self.use_post_quant_conv {
            return Some("use_quant_conv or use_post_quant_conv = true".into());
        }
        if self.block_out_channels.is_empty() || self.norm_num_groups == 0 {
            return Some("no channels".into());
        }
        let sizes = [
            self.in_channels,
            self.out_channels,
            self.latent_channels,
            self.layers_per_block,
            self.sample_height,
            self.sample_width,
        ];
        if sizes.contains(&0) || sizes.iter().any(|&size| size > LARGEST_SIZE) {
            return Some(format!("a size of 0 or above {LARGEST_SIZE}"));
        }
        let mut channels = self.block_out_channels.iter().chain(&sizes[..3]);
        if channels.any(|&c| c > MOST_CHANNELS) || self.block_out_channels.len() > 8 {
            return Some(format!("more than {MOST_CHANNELS} channels or 8 resolutions"));
        }
        if self.layers_per_block > MOST_LAYERS {
            return Some(format!("layers_per_block = {}", self.layers_per_block));
        }
        if let Some(channels) = sizes[..2].iter().find(|&&channels| channels != 3) {
            return Some(format!("pictures of {channels} channels"));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Some(format!("norm_eps = {}", self.norm_eps));
        }
        if !self.temporal_compression_ratio.is_power_of_two() || !self.scaling_factor.is_normal() {
            return Some("a compression ratio or scaling factor that makes no sense".into());
        }
        if self.temporal_levels() >= self.block_out_channels.len() {
            return Some("a temporal_compression_ratio beyond its stages".into());
        }
        let odd =
            self.block_out_channels.iter().find(|&&c| c == 0 || c % self.norm_num_groups != 0);
        odd.map(|c| format!("{c} channels in {} groups", self.norm_num_groups))
    }
}

/// The weights of a resnet; in the decoder its norms are modulated by the latents (`z` channels).
fn resnet(block: &mut BlockSpec, input: usize, output: usize, z: Option<usize>) {
    group_norm(block, "norm1", input, z);
    block.conv("conv1.conv", output, input, &[3, 3, 3]);
    group_norm(block, "norm2", output, z);
    block.conv("conv2.conv", output, output, &[3, 3, 3]);
    if input != output {
        block.conv("conv_shortcut", output, input, &[1, 1, 1]);
    }
}

fn group_norm(block: &mut BlockSpec, key: &str, channels: usize, z: Option<usize>) {
    match z {
        None => {
            block.norm(key, channels);
        }
        Some(z) => {
            block.norm(&format!("{key}.norm_layer"), channels);
            block.conv(&format!("{key}.conv_y.conv"), channels, z, &[1, 1, 1]);
            block.conv(&format!("{key}.conv_b.conv"), channels, z, &[1, 1, 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vae_has_its_parameters() {
        let config = VaeConfig::default();
        let (encoder, decoder) = (config.encoder_manifest(), config.decoder_manifest());
        assert_eq!(encoder.parameters(), 92_215_456);
        assert_eq!(decoder.parameters(), 123_368_451);
        assert_eq!(encoder.weights().count() + decoder.weights().count(), 436);
        assert_eq!(config.spatial_ratio(), 8);
        assert_eq!((config.encoder_caches(), config.decoder_caches()), (30, 38));
    }
}
