//! Each model by itself equals the reference's: text encoder, transformer, VAE decoder.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use serde::Deserialize;
use std::collections::BTreeMap;
use support::bed::{compute, host};
use support::{distance, fixtures, largest_difference, tensor};
use vidfit_cogvideox::t5::{self, T5Config};
use vidfit_cogvideox::transformer::{self, Conditioning, TransformerConfig, TransformerSchedule};
use vidfit_cogvideox::vae::{self, Tiling, VaeConfig};
use vidfit_engine::checkpoint::{Component, ModelConfig};
use vidfit_engine::placement::{Placed, Streaming, Use};
use vidfit_engine::safetensors::SafetensorsFile;
use vidfit_tensor::{DType, Tensor};

fn open<C: ModelConfig>(checkpoint: &str, component: &str) -> Component<C> {
    Component::open(&fixtures().join("checkpoints").join(checkpoint).join(component)).unwrap()
}

fn index<T: serde::de::DeserializeOwned>(path: &str) -> BTreeMap<String, T> {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(path)).unwrap()).unwrap()
}

// --- transformer ---

#[derive(Deserialize)]
struct TransformerCase {
    checkpoint: String,
    distance_bf16: f64,
    distance_f16: f64,
}

/// The second of two steps, so that a run takes the right row of every table.
const STEPS: [i64; 2] = [999, 437];

/// Runs the case `name` in `dtype`; the velocities of its whole batch.
fn predict(
    name: &str,
    component: &Component<TransformerConfig>,
    dtype: DType,
    schedule: TransformerSchedule,
    resident: bool,
) -> Vec<f32> {
    let file = SafetensorsFile::open(fixtures().join(format!("transformer/{name}.safetensors")));
    let file = file.unwrap();
    let (shape, hidden) = tensor(&file, "hidden_states");
    let (text_shape, text) = tensor(&file, "encoder_hidden_states");
    assert_eq!(tensor(&file, "timestep").1[0] as i64, STEPS[1]);
    let config = &component.config;
    let [batch, frames, channels, height, width] = *shape else { panic!("{shape:?}") };
    assert_eq!(channels, config.in_channels);
    let grid = config.grid(frames, height, width).unwrap();
    let (part, plane) = (config.out_channels, height * width);
    let frame = channels * plane;

    compute(2, |cx| {
        let streaming = if resident { Streaming::RESIDENT } else { Streaming::through(2) };
        let shared = Use { blocks: config.conditioning_blocks(), passes: 1 };
        let shared = Placed::new(*cx, &component.weights, dtype, shared, streaming)?;
        let steps = Use { blocks: config.step_blocks(), passes: batch };
        let weights = Placed::new(*cx, &component.weights, dtype, steps, streaming)?;
        let prompt = |values: &[f32]| {
            let values = values.to_vec();
            cx.upload("text", dtype, [text_shape[1], text_shape[2]], || values)
        };
        let prompts: Vec<Tensor> =
            text.chunks_exact(text.len() / batch).map(prompt).collect::<Result<_, _>>()?;
        let prompts: Vec<&Tensor> = prompts.iter().collect();
        let conditioning =
            Conditioning::prepare(cx, &shared, config, dtype, grid, &STEPS, &prompts)?;
        let mut velocities = Vec::new();
        for (half, hidden) in hidden.chunks_exact(frames * frame).enumerate() {
            // Noisy latents and image latents come as two tensors.
            let latents = |first: usize| {
                let rows = hidden.chunks_exact(frame);
                let rows = rows.flat_map(|f| &f[first * plane..(first + part) * plane]);
                let values = rows.copied().collect();
                cx.upload("latents", dtype, [frames, part, height, width], || values)
            };
            let latents: Vec<Tensor> =
                (0..channels).step_by(part).map(latents).collect::<Result<_, _>>()?;
            let latents: Vec<&Tensor> = latents.iter().collect();
            let halves =
                transformer::predict(cx, &weights, config, schedule, &conditioning, 1, &latents)?;
            assert_eq!(halves.len(), batch);
            velocities.extend(host(cx, &halves[half])?);
        }
        Ok(velocities)
    })
}

#[test]
fn the_transformer_equals_the_reference_for_every_variant() {
    let mut misses = Vec::new();
    let cases = index::<TransformerCase>("transformer/index.json");
    assert_eq!(cases.len(), 6);
    for (name, case) in cases {
        let component = open::<TransformerConfig>(&case.checkpoint, "transformer");
        let path = fixtures().join(format!("transformer/{name}.safetensors"));
        let expected = tensor(&SafetensorsFile::open(path).unwrap(), "output").1;
        let bounds = [
            (DType::F32, 1e-4),
            (DType::BF16, 1.5 * case.distance_bf16),
            (DType::F16, 1.5 * case.distance_f16),
        ];
        print!("{name:16}");
        for (dtype, most) in bounds {
            let ours = predict(&name, &component, dtype, Default::default(), true);
            let ours = distance(&ours, &expected);
            print!("  {dtype} {ours:7.1e} of {most:7.1e}");
            if ours > most {
                misses.push(format!("{name} {dtype}: {ours:.2e} > {most:.2e}"));
            }
        }
        println!();
    }
    assert!(misses.is_empty(), "{misses:#?}");
}

#[test]
fn neither_placement_nor_chunks_change_a_bit_of_the_transformer() {
    for (name, checkpoint) in [("2b", "2b"), ("1.5-i2v", "1.5-i2v")] {
        let component = open::<TransformerConfig>(checkpoint, "transformer");
        let heads = component.config.num_attention_heads;
        assert!(heads > 1);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let whole = predict(name, &component, dtype, Default::default(), true);
            for rows in [1, 7, 13, 226, 2048] {
                for head_groups in (1..=heads).filter(|&groups| heads.is_multiple_of(groups)) {
                    let schedule = TransformerSchedule { rows, head_groups };
                    let cut = predict(name, &component, dtype, schedule, rows == 7);
                    // By their bits: a NaN equals nothing, and 0 equals -0.
                    let same = whole.iter().zip(&cut).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same && whole.len() == cut.len(), "{name} {dtype}, {schedule:?}");
                }
            }
        }
    }
}

// --- text encoder ---

fn encode(component: &Component<T5Config>, layers: usize, prompts: &[&[usize]]) -> Vec<Vec<f32>> {
    let config = T5Config { num_layers: layers, ..component.config.clone() };
    compute(2, |cx| {
        let usage = Use { blocks: config.encoder_blocks(), passes: 1 };
        let streaming = Streaming::through(1);
        let weights = Placed::new(*cx, &component.weights, DType::F32, usage, streaming)?;
        let embeds = t5::encode(cx, &weights, &config, prompts, DType::F32)?;
        embeds.iter().map(|embeds| host(cx, embeds)).collect()
    })
}

/// The norm that ends the encoder, on the host.
fn final_norm(component: &Component<T5Config>, hidden: &[f32]) -> Vec<f32> {
    let file = component.weights.files().unwrap().file("encoder.final_layer_norm.weight").unwrap();
    let weight = tensor(file, "encoder.final_layer_norm.weight").1;
    let eps = f64::from(component.config.layer_norm_epsilon);
    let norm = |row: &[f32]| {
        let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let scale = 1.0 / (squares / row.len() as f64 + eps).sqrt();
        let scaled = row.iter().zip(&weight).map(|(&x, &w)| f64::from(x) * scale * f64::from(w));
        scaled.map(|x| x as f32).collect::<Vec<_>>()
    };
    hidden.chunks_exact(weight.len()).flat_map(norm).collect()
}

/// Stopping after fewer layers shows the hidden state, through the last norm.
#[test]
fn the_text_encoder_equals_the_reference_after_every_layer() {
    let component = open::<T5Config>("1.5", "text_encoder");
    let file = SafetensorsFile::open(fixtures().join("t5/case.safetensors")).unwrap();
    let ids: Vec<usize> = tensor(&file, "input_ids").1.iter().map(|&id| id as usize).collect();
    assert_eq!(ids.len(), 41);
    assert_eq!(component.config.num_layers, 2);
    let expected = [
        final_norm(&component, &tensor(&file, "hidden.0").1),
        final_norm(&component, &tensor(&file, "hidden.1").1),
        tensor(&file, "output").1,
    ];
    for (layers, expected) in expected.iter().enumerate() {
        let ours = distance(&encode(&component, layers, &[&ids])[0], expected);
        println!("text encoder after {layers} layers: {ours:.1e}");
        assert!(ours <= 1e-4, "after {layers} layers: {ours:.2e}");
    }
    let backwards: Vec<usize> = ids.iter().rev().copied().collect();
    let both = encode(&component, 2, &[&backwards, &ids]);
    assert_eq!(both[1], encode(&component, 2, &[&ids])[0], "prompts must not touch each other");
    assert!(distance(&both[0], &expected[2]) > 0.1);
}

// --- VAE ---

#[derive(Deserialize)]
struct VaeCase {
    checkpoint: String,
    tiling: bool,
    latents: Vec<usize>,
    frames: Vec<usize>,
}

#[test]
fn the_decoder_equals_the_reference_whole_and_in_tiles() {
    let file = SafetensorsFile::open(fixtures().join("vae/cases.safetensors")).unwrap();
    let cases = index::<VaeCase>("vae/index.json");
    assert!(cases.len() >= 4 && cases.values().any(|case| case.tiling));
    for (name, case) in cases {
        let component = open::<VaeConfig>(&case.checkpoint, "vae");
        // The fixture's latents are divided by the factor already.
        let config = VaeConfig { scaling_factor: 1.0, ..component.config.clone() };
        let [_, channels, latent_frames, h, w] = *case.latents else { panic!("{name}") };
        let [_, colours, frames, height, width] = *case.frames else { panic!("{name}") };
        let latents = transpose(&tensor(&file, &format!("{name}.latents")).1, channels, h * w);
        let tiling = case.tiling.then(|| Tiling::reference(&config));

        let (ours, pieces) = compute(2, |cx| {
            let passes = vae::decoder_passes(&config, tiling, latent_frames, (h, w));
            let usage = Use { blocks: config.decoder_blocks(), passes };
            let streaming = Streaming::RESIDENT;
            let weights = Placed::new(*cx, &component.weights, DType::F32, usage, streaming)?;
            let shape = [latent_frames, channels, h, w];
            let latents = cx.upload("latents", DType::F32, shape, || latents.clone())?;
            let mut video = vec![f32::NAN; frames * height * width * 3];
            let mut pieces = 0;
            vae::decode(
                cx,
                &weights,
                &config,
                &latents,
                tiling,
                Default::default(),
                &mut |piece| {
                    let columns = piece.pixels.dims()[1];
                    for (row, line) in host(cx, piece.pixels)?.chunks_exact(columns * 3).enumerate()
                    {
                        let start = (piece.frame * height + piece.top + row) * width + piece.left;
                        let pixels = &mut video[start * 3..start * 3 + line.len()];
                        assert!(pixels.iter().all(|old| old.is_nan()), "a pixel is given twice");
                        pixels.copy_from_slice(line);
                    }
                    pieces += 1;
                    Ok(())
                },
            )?;
            Ok((video, pieces))
        });
        assert!(ours.iter().all(|pixel| !pixel.is_nan()), "{name}: a pixel is missing");
        assert_eq!(pieces, if case.tiling { 9 * frames } else { frames }, "{name}");

        // [3, T, H, W], of about -1..1, to [T, H, W, 3] in 0..=1.
        let theirs = tensor(&file, &format!("{name}.frames")).1;
        let plane = height * width;
        let theirs: Vec<f32> = (0..frames * plane * colours)
            .map(|i| {
                let (t, pixel, colour) = (i / (plane * 3), i / 3 % plane, i % 3);
                (theirs[(colour * frames + t) * plane + pixel] / 2.0 + 0.5).clamp(0.0, 1.0)
            })
            .collect();
        let (most, relative) = (largest_difference(&ours, &theirs), distance(&ours, &theirs));
        println!("decoder, {name:10} largest difference {most:.1e}  distance {relative:.1e}");
        assert!(most <= 2e-3 && relative <= 1e-4, "{name}: {most:.2e}, {relative:.2e}");
    }
}

/// `[channels, frames, plane]` to `[frames, channels, plane]`.
fn transpose(values: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    let frames = values.len() / channels / plane;
    let of = |t: usize, c: usize| &values[(c * frames + t) * plane..][..plane];
    (0..frames).flat_map(|t| (0..channels).flat_map(move |c| of(t, c))).copied().collect()
}
