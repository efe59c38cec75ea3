//! The shapes that both sides are timed on: those of `bench/reference.py`.
//!
//! The weights are random, in f16 as the 2b is published; the arithmetic is f32.

use crate::exit::Failure;
use crate::say::line;
use half::f16;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use vidfit_cogvideox::t5::{self, T5Config};
use vidfit_cogvideox::transformer::{self, Conditioning, TransformerConfig, TransformerSchedule};
use vidfit_cogvideox::vae::{self, VaeConfig};
use vidfit_cogvideox::weights::{Block, Manifest, Weights};
use vidfit_cpu::CpuDevice;
use vidfit_engine::machine::peak_ram_bytes;
use vidfit_tensor::{
    Arena, Context, DType, Device, DryDevice, Error, Shape, Tensor, Unwatched, solve,
};

/// The cases, by the names that the reference's script has for them.
pub const NAMES: [&str; 4] = [
    "transformer-2b-4-layers-1216-tokens",
    "transformer-2b-1-layer-17776-tokens",
    "t5-xxl-2-layers-226-tokens",
    "vae-decode-9-frames-240x360",
];

/// Times one case and prints a line of JSON.
pub fn run(name: &str, threads: usize, repeat: usize) -> Result<(), Failure> {
    let mut seconds = match name {
        "transformer-2b-4-layers-1216-tokens" => transformer(threads, repeat, 4, [5, 16, 22, 36]),
        "transformer-2b-1-layer-17776-tokens" => transformer(threads, repeat, 1, [13, 16, 60, 90]),
        "t5-xxl-2-layers-226-tokens" => text_encoder(threads, repeat),
        "vae-decode-9-frames-240x360" => vae_decode(threads, repeat),
        _ => return Err(Failure::input(format!("no case is called {name}: {NAMES:?}"))),
    }?;
    seconds.sort_by(f64::total_cmp);
    let report = serde_json::json!({
        "name": name,
        "seconds": seconds[seconds.len() / 2],
        "runs": seconds,
        "threads": threads,
        "peak_rss_bytes": peak_ram_bytes().unwrap_or(0),
    });
    line!("{report}");
    Ok(())
}

fn transformer(
    threads: usize,
    repeat: usize,
    num_layers: usize,
    shape: [usize; 4],
) -> Result<Vec<f64>, Error> {
    let config = TransformerConfig { num_layers, ..TransformerConfig::default() };
    let weights = RandomWeights::new(config.manifest());
    let grid = config.grid(shape[0], shape[2], shape[3]);
    let grid = grid.ok_or_else(|| Error::model("the case has no whole patches"))?;
    time(threads, repeat, &|cx| {
        let dtype = DType::F32;
        let prompt = [config.max_text_seq_length, config.text_embed_dim];
        let prompt = cx.upload("prompt", dtype, prompt, || noise(prompt[0] * prompt[1]))?;
        let latents = cx.upload("latents", dtype, shape, || noise(shape.iter().product()))?;
        let conditioning =
            Conditioning::prepare(cx, &weights, &config, dtype, grid, &[500], &[&prompt])?;
        let schedule = TransformerSchedule::default();
        transformer::predict(cx, &weights, &config, schedule, &conditioning, 0, &[&latents])
            .map(drop)
    })
}

fn text_encoder(threads: usize, repeat: usize) -> Result<Vec<f64>, Error> {
    let config = T5Config {
        d_model: 4096,
        d_kv: 64,
        d_ff: 10240,
        num_heads: 64,
        num_layers: 2,
        vocab_size: 32128,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: "gated-gelu".into(),
    };
    let weights = RandomWeights::new(config.manifest());
    let ids: Vec<usize> = (0..226).map(|n| n * 131 % 32100).collect();
    time(threads, repeat, &|cx| t5::encode(cx, &weights, &config, &[&ids], DType::F32).map(drop))
}

fn vae_decode(threads: usize, repeat: usize) -> Result<Vec<f64>, Error> {
    let config = VaeConfig::default();
    let weights = RandomWeights::new(config.decoder_manifest());
    let shape = [3, config.latent_channels, 30, 45];
    time(threads, repeat, &|cx| {
        let values = || noise(shape.iter().product());
        let latents = cx.upload("latents", DType::F32, shape, values)?;
        vae::decode(cx, &weights, &config, &latents, None, Default::default(), &mut |_| Ok(()))
    })
}

/// Plans `job`, and runs it in what was planned: once to warm up, then `repeat` times.
fn time(
    threads: usize,
    repeat: usize,
    job: &dyn Fn(&Context<'_>) -> Result<(), Error>,
) -> Result<Vec<f64>, Error> {
    let device = CpuDevice::new(threads)?;
    let arena = Arena::record(device.profile().alignment);
    let dry = DryDevice::new(device.profile().clone());
    job(&Context::new(&dry, &arena, &Unwatched))?;
    let layout = solve(&arena.into_trace()?);
    device.reserve(layout.peak_bytes)?;

    let mut seconds = Vec::new();
    for pass in 0..=repeat.max(1) {
        let arena = Arena::replay(layout.clone());
        let began = Instant::now();
        job(&Context::new(&device, &arena, &Unwatched))?;
        device.finish()?;
        if pass > 0 {
            seconds.push(began.elapsed().as_secs_f64());
        }
        arena.finish()?;
    }
    Ok(seconds)
}

/// Weights in host memory, as if mapped from a file.
struct RandomWeights {
    blocks: BTreeMap<String, Block>,
}

impl RandomWeights {
    fn new(manifest: Manifest) -> RandomWeights {
        let tensor = |shape: Shape, stored: &[usize]| {
            let fan_in: usize = stored.iter().skip(1).product();
            let scale = (fan_in as f32).sqrt().recip();
            let bytes: Vec<u8> = noise(shape.elements())
                .iter()
                .flat_map(|value| f16::from_f32(value * scale).to_le_bytes())
                .collect();
            Tensor::from_host(Arc::new(bytes), 0, DType::F16, shape)
        };
        let blocks = manifest.blocks.into_iter().map(|block| {
            // The embedding is read by rows: see `rows`.
            let weights = block.weights.iter().filter(|_| block.name != "embedding");
            let tensors = weights.map(|weight| {
                let key = weight.key[block.prefix.len()..].to_owned();
                (key, tensor(weight.shape, &weight.stored))
            });
            (block.name.clone(), Block::new(tensors.collect()))
        });
        RandomWeights { blocks: blocks.collect() }
    }
}

impl Weights for RandomWeights {
    fn block(&self, name: &str) -> Result<Block, Error> {
        let block = self.blocks.get(name).cloned();
        block.ok_or_else(|| Error::model(format!("the model has no block {name}")))
    }

    fn rows(&self, key: &str, rows: &[usize]) -> Result<Vec<f32>, Error> {
        let width = if key == "shared.weight" { 4096 } else { 64 };
        Ok(noise(rows.len() * width))
    }
}

/// Values between -1.7 and 1.7 with a variance of 1, always the same.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * 1.732).collect()
}
