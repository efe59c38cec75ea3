//! The shapes that both sides are timed on: those of `bench/reference.py`.
//!
//! The weights are random, in f16 as the 2b is published; the arithmetic is f32. `bench predict`
//! has sizes and types of its own.

use super::noise::noise;
use crate::exit::Failure;
use crate::say::line;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::sync::Arc;
use vidfit_cogvideox::t5::{self, T5Config};
use vidfit_cogvideox::transformer::{self, Conditioning, TransformerConfig, TransformerSchedule};
use vidfit_cogvideox::vae::{self, VaeConfig};
use vidfit_cogvideox::weights::{Block, Manifest, Weights};
use vidfit_cpu::CpuDevice;
use vidfit_engine::calibration::Machine;
use vidfit_engine::machine::{Lap, Stopwatch, peak_ram_bytes};
use vidfit_tensor::{
    Arena, Context, DType, Device, DryDevice, Error, Layout, Profile, Rates, Shape, Tally, Tensor,
    Unwatched, solve,
};

/// The cases, by the names that the reference's script has for them.
pub const NAMES: [&str; 4] = [
    "transformer-2b-4-layers-1216-tokens",
    "transformer-2b-1-layer-17776-tokens",
    "t5-xxl-2-layers-226-tokens",
    "vae-decode-9-frames-240x360",
];

/// A piece of work that can be planned and run.
pub type Work = Box<dyn Fn(&Context<'_>) -> Result<(), Error>>;

/// Times one case and prints a line of JSON.
pub fn run(name: &str, threads: usize, repeat: usize) -> Result<(), Failure> {
    let two_b = |num_layers| TransformerConfig { num_layers, ..TransformerConfig::default() };
    let f16 = DType::F16;
    let work = match name {
        "transformer-2b-4-layers-1216-tokens" => {
            transformer(two_b(4), f16, DType::F32, [5, 16, 22, 36], 1, 1)?
        }
        "transformer-2b-1-layer-17776-tokens" => {
            transformer(two_b(1), f16, DType::F32, [13, 16, 60, 90], 1, 1)?
        }
        "t5-xxl-2-layers-226-tokens" => text_encoder(),
        "vae-decode-9-frames-240x360" => vae_decode([3, 16, 30, 45]),
        _ => return Err(Failure::input(format!("no case is called {name}: {NAMES:?}"))),
    };
    let laps = time(threads, repeat, &work)?;
    let mut seconds: Vec<f64> = laps.iter().map(|lap| lap.wall_seconds).collect();
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

/// Steps of a transformer with random weights of type `stored`, computing in `dtype`, on latents of
/// this shape and as many `halves` of guidance.
pub fn transformer(
    config: TransformerConfig,
    stored: DType,
    dtype: DType,
    shape: [usize; 4],
    halves: usize,
    steps: usize,
) -> Result<Work, Error> {
    let weights = RandomWeights::new(config.manifest(), stored);
    let grid = config.grid(shape[0], shape[2], shape[3]);
    let grid = grid.ok_or_else(|| Error::model("the case has no whole patches"))?;
    Ok(Box::new(move |cx| {
        let prompt = [config.max_text_seq_length, config.text_embed_dim];
        let prompt = cx.upload("prompt", dtype, prompt, || noise(prompt[0] * prompt[1], 0))?;
        let latents = cx.upload("latents", dtype, shape, || noise(shape.iter().product(), 0))?;
        let timesteps: Vec<i64> = (0..steps as i64).map(|step| 500 - step).collect();
        let prompts = vec![&prompt; halves];
        let conditioning =
            Conditioning::prepare(cx, &weights, &config, dtype, grid, &timesteps, &prompts)?;
        let schedule = TransformerSchedule::default();
        cx.repeat(steps, |step| {
            let latents = [&latents];
            transformer::predict(cx, &weights, &config, schedule, &conditioning, step, &latents)
                .map(drop)
        })
    }))
}

/// Two layers of T5 XXL.
pub fn text_encoder() -> Work {
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
    let weights = RandomWeights::new(config.manifest(), DType::F16);
    let ids: Vec<usize> = (0..226).map(|n| n * 131 % 32100).collect();
    Box::new(move |cx| t5::encode(cx, &weights, &config, &[&ids], DType::F32).map(drop))
}

/// Latents of this shape to frames.
pub fn vae_decode(shape: [usize; 4]) -> Work {
    let config = VaeConfig::default();
    let weights = RandomWeights::new(config.decoder_manifest(), DType::F16);
    Box::new(move |cx| {
        let values = || noise(shape.iter().product(), 0);
        let latents = cx.upload("latents", DType::F32, shape, values)?;
        vae::decode(cx, &weights, &config, &latents, None, Default::default(), &mut |_| Ok(()))
    })
}

/// Where the memory of `job` is, and how long it will take.
pub fn plan(profile: &Profile, rates: Rates, job: &Work) -> Result<(Layout, Tally), Error> {
    let arena = Arena::record(profile.alignment);
    let dry = DryDevice::with_rates(profile.clone(), rates);
    job(&Context::new(&dry, &arena, &Unwatched))?;
    dry.finish()?;
    Ok((solve(&arena.into_trace()?), dry.tally()))
}

/// Plans `job`, and runs it in what was planned: once to warm up, then `repeat` times.
pub fn time(threads: usize, repeat: usize, job: &Work) -> Result<Vec<Lap>, Error> {
    let threads = Machine::this(threads).threads;
    let device = CpuDevice::new(threads)?;
    let (layout, _) = plan(device.profile(), Rates::default(), job)?;
    device.reserve(layout.peak_bytes)?;

    let mut laps = Vec::new();
    for pass in 0..=repeat.max(1) {
        let arena = Arena::replay(layout.clone());
        let watch = Stopwatch::start();
        job(&Context::new(&device, &arena, &Unwatched))?;
        device.finish()?;
        let lap = watch.stop(threads);
        if pass > 0 {
            laps.push(lap);
        }
        arena.finish()?;
    }
    Ok(laps)
}

/// Weights in host memory, as if mapped from a file.
struct RandomWeights {
    blocks: BTreeMap<String, Block>,
}

impl RandomWeights {
    fn new(manifest: Manifest, stored: DType) -> RandomWeights {
        let tensor = |shape: Shape, lengths: &[usize]| {
            let fan_in: usize = lengths.iter().skip(1).product();
            let scale = (fan_in as f32).sqrt().recip();
            let half_bits = |value: f32| match stored {
                DType::BF16 => bf16::from_f32(value).to_bits(),
                _ => f16::from_f32(value).to_bits(),
            };
            let bytes: Vec<u8> = noise(shape.elements(), 0)
                .iter()
                .flat_map(|value| half_bits(value * scale).to_le_bytes())
                .collect();
            let stored = if stored == DType::BF16 { stored } else { DType::F16 };
            Tensor::from_host(Arc::new(bytes), 0, stored, shape)
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
        Ok(noise(rows.len() * width, 0))
    }
}
