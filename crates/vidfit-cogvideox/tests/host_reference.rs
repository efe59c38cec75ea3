//! The parts that need no device, against what the reference prints (`tests/reference/fixtures`).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::PathBuf;

use half::{bf16, f16};
use serde_json::Value;
use vidfit_cogvideox::guidance::{Guidance, GuidanceCurve};
use vidfit_cogvideox::noise::Generator;
use vidfit_cogvideox::positions::{CropRegion, Grid, Rope, Sincos};
use vidfit_cogvideox::scheduler::{
    DdimStep, DpmStep, SchedulerConfig, SchedulerKind, SecondOrder, Step, TimestepSpacing, Update,
};
use vidfit_cogvideox::tokenizer::Tokenizer;

fn fixture(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/fixtures");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run make_fixtures.py", path.display());
    path
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// The tensors of a safetensors file, as f32.
fn tensors(name: &str) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, entry)| {
            let offset = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
            let data = &data[offset(0)..offset(1)];
            let pairs = data.as_chunks::<2>().0;
            let values = match entry["dtype"].as_str().unwrap() {
                "F32" => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                "BF16" => pairs.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
                "F16" => pairs.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                other => panic!("{name} is {other}"),
            };
            (name, values)
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(|number| number.as_f64().unwrap()).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    list(value).iter().map(|number| number.as_i64().unwrap()).collect()
}

// --- noise ------------------------------------------------------------------------------------

fn draw(generator: &mut Generator, dtype: &str, len: usize) -> Vec<f32> {
    match dtype {
        "f32" => {
            let mut values = vec![0.0; len];
            generator.fill_normal_f32(&mut values);
            values
        }
        "bf16" => {
            let mut values = vec![bf16::ZERO; len];
            generator.fill_normal_bf16(&mut values);
            values.into_iter().map(bf16::to_f32).collect()
        }
        "f16" => {
            let mut values = vec![f16::ZERO; len];
            generator.fill_normal_f16(&mut values);
            values.into_iter().map(f16::to_f32).collect()
        }
        other => panic!("no type {other}"),
    }
}

#[test]
fn noise_has_the_bits_of_pytorch() {
    let (index, stored) = (json("noise.json"), tensors("noise.safetensors"));
    for case in list(&index) {
        let mut generator = Generator::seed(case["seed"].as_u64().unwrap());
        let mut skipping = generator.clone();
        for entry in list(&case["draws"]) {
            let name = entry["tensor"].as_str().unwrap();
            let dtype = entry["dtype"].as_str().unwrap();
            let len = integers(&entry["shape"]).iter().product::<i64>() as usize;
            let mut values = draw(&mut generator, dtype, len);
            if entry["stored"] == "ends32" {
                values.drain(32..len - 32);
            }
            if len >= 16 {
                assert_eq!(values, stored[name], "{name}");
            } else {
                // These come from the C library's sine and logarithm.
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= f32::EPSILON * b.abs();
                assert!(values.iter().zip(&stored[name]).all(near), "{name}: {values:?}");
            }
            skipping.skip_normal(len, dtype != "f32");
            assert_eq!(
                draw(&mut skipping.clone(), "f32", 48),
                draw(&mut generator.clone(), "f32", 48)
            );
        }
    }
}

// --- schedulers and guidance ------------------------------------------------------------------

fn config(kind: &str, snr_shift_scale: f64) -> SchedulerConfig {
    let class = match kind {
        "ddim" => "CogVideoXDDIMScheduler",
        _ => "CogVideoXDPMScheduler",
    };
    let text = format!(
        r#"{{"_class_name": "{class}", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true,
             "timestep_spacing": "trailing", "snr_shift_scale": {snr_shift_scale}}}"#
    );
    SchedulerConfig::from_json(&text).unwrap()
}

#[test]
fn the_checkpoints_configurations_are_read() {
    for (variant, kind, shift) in [
        ("2b", SchedulerKind::Ddim, 3.0),
        ("5b", SchedulerKind::Dpm, 1.0),
        ("1.5", SchedulerKind::Dpm, 1.0),
    ] {
        let file = fixture(&format!("checkpoints/{variant}/scheduler/scheduler_config.json"));
        let read = SchedulerConfig::from_json(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!((read.kind, read.snr_shift_scale), (kind, shift));
        assert_eq!(read.timestep_spacing, TimestepSpacing::Trailing);
        assert!(read.rescale_betas_zero_snr && read.set_alpha_to_one);
    }
}

#[test]
fn noise_tables_and_timesteps_are_those_of_the_reference() {
    let expected = json("schedulers.json");
    for shift in [1.0, 3.0] {
        let table = config("ddim", shift).noise_table();
        for (t, alpha) in expected["alphas_cumprod"][format!("{shift:?}")].as_object().unwrap() {
            let got = table.alpha(t.parse().unwrap());
            assert!((got - alpha.as_f64().unwrap()).abs() < 1e-14, "shift {shift}, t {t}: {got}");
        }
    }
    for (name, timestep_spacing) in [
        ("trailing", TimestepSpacing::Trailing),
        ("linspace", TimestepSpacing::Linspace),
        ("leading", TimestepSpacing::Leading),
    ] {
        let config = SchedulerConfig { timestep_spacing, ..config("ddim", 1.0) };
        for (count, timesteps) in expected["timesteps"][name].as_object().unwrap() {
            let mut got = config.timesteps(count.parse().unwrap()).unwrap();
            let mut expected = integers(timesteps);
            assert_eq!(got.len().to_string(), *count);
            if got.len() == 1000 {
                got.drain(3..997);
            }
            if expected.last() == Some(&-1) {
                // The reference's rounding error, which is left out: see `timesteps`.
                assert_eq!((name, count.as_str()), ("trailing", "61"));
                expected.pop();
            }
            assert_eq!(got, expected, "{name} {count}");
        }
    }
}

#[test]
fn dynamic_guidance_is_that_of_the_pipelines() {
    for (count, scales) in json("schedulers.json")["dynamic_guidance"].as_object().unwrap() {
        let count = count.parse().unwrap();
        let timesteps = config("dpm", 1.0).timesteps(count).unwrap();
        for (i, scale) in numbers(scales).into_iter().enumerate() {
            let got =
                Guidance { scale: 6.0, curve: GuidanceCurve::Reference }.at(i, timesteps[i], count);
            assert!((got - scale).abs() < 1e-6, "step {i} of {count}: {got} {scale}");
        }
    }
}

#[test]
fn dpm_coefficients_are_those_of_the_reference() {
    for (name, rows) in json("schedulers.json")["dpm_coefficients"].as_object().unwrap() {
        let (shift, count) = name.strip_prefix("snr").unwrap().split_once('.').unwrap();
        let steps = config("dpm", shift.parse().unwrap()).steps(count.parse().unwrap()).unwrap();
        assert_eq!(steps.len(), list(rows).len());
        for (step, row) in steps.iter().zip(list(rows)) {
            let Update::Dpm(dpm) = step.update else { panic!("{step:?}") };
            assert_eq!(step.timestep, row["t"].as_i64().unwrap());
            assert_eq!(step.prev_timestep, row["prev"].as_i64().unwrap());
            let near = |got: f64, field: &str| {
                let expected = row[field].as_f64().unwrap();
                assert!((got - expected).abs() < 1e-10, "{name} {step:?} {field} {expected}");
            };
            near(dpm.m1, "m1");
            near(dpm.m2, "m2");
            near(dpm.sigma, "sigma");
            if let Some(SecondOrder { now, old }) = dpm.second_order {
                near(now, "m3");
                near(old, "m4");
            }
        }
    }
}

/// One step in f32, as a device does it.
fn apply(
    step: &Step,
    x: &mut [f32],
    v: &[f32],
    old: &mut Option<Vec<f32>>,
    generator: &mut Generator,
) {
    let (alpha, beta) = (step.sqrt_alpha as f32, step.sqrt_beta as f32);
    let x0: Vec<f32> = x.iter().zip(v).map(|(x, v)| alpha * x - beta * v).collect();
    match step.update {
        Update::Ddim(DdimStep { a, b }) => {
            x.iter_mut().zip(&x0).for_each(|(x, x0)| *x = a as f32 * *x + b as f32 * x0);
        }
        Update::Dpm(DpmStep { m1, m2, sigma, second_order, draws }) => {
            for _ in 1..draws {
                generator.skip_normal(x.len(), false);
            }
            let noise = draw(generator, "f32", x.len());
            for (i, x) in x.iter_mut().enumerate() {
                let d = match (second_order, old.as_ref()) {
                    (Some(SecondOrder { now, old: weight }), Some(old)) => {
                        now as f32 * x0[i] - weight as f32 * old[i]
                    }
                    _ => x0[i],
                };
                *x = m1 as f32 * *x - m2 as f32 * d + sigma as f32 * noise[i];
            }
        }
    }
    *old = Some(x0);
}

#[test]
fn whole_runs_follow_the_reference() {
    let stored = tensors("schedulers.safetensors");
    let output = &stored["model_output"];
    for trace in list(&json("schedulers.json")["traces"]) {
        let name = trace["tensor"].as_str().unwrap();
        let count = trace["steps"].as_u64().unwrap() as usize;
        let kind = trace["scheduler"].as_str().unwrap();
        let steps = config(kind, trace["snr_shift_scale"].as_f64().unwrap()).steps(count).unwrap();
        let mut generator = Generator::seed(trace["seed"].as_u64().unwrap());
        let (mut x, mut old) = (stored["sample"].clone(), None);
        for (step, expected) in steps.iter().zip(stored[name].chunks(x.len())) {
            let mut v = output.clone();
            v.rotate_right(step.index % output.len());
            apply(step, &mut x, &v, &mut old, &mut generator);
            let furthest = x.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < 2e-6, "{name}, step {}: {furthest}", step.index);
        }
        assert_eq!(stored[name].len(), steps.len() * x.len(), "{name}");
    }
}

// --- positions --------------------------------------------------------------------------------

#[test]
fn rotary_tables_are_those_of_the_reference() {
    for case in list(&json("positions.json")["rotary"]) {
        let latent = integers(&case["latent"]).iter().map(|&n| n as usize).collect::<Vec<_>>();
        let mut grid = Grid { frames: latent[0], rows: latent[1] / 2, cols: latent[2] / 2 };
        let rope = if case["variant"] == "1.5" {
            grid.frames = grid.frames.div_ceil(2);
            Rope::slice(grid, 64, (150, 150)).unwrap()
        } else {
            let CropRegion { top, left, bottom, right } =
                CropRegion::fit((grid.rows, grid.cols), (30, 45));
            let expected = list(&case["crop"]).iter().flat_map(integers).collect::<Vec<_>>();
            assert_eq!([top, left, bottom, right][..], expected, "{latent:?}");
            Rope::linspace(grid, 64, (30, 45)).unwrap()
        };
        assert_eq!(grid.tokens() as u64, case["tokens"].as_u64().unwrap());
        assert_eq!(rope.cos.len(), grid.tokens() * rope.pairs);
        for probe in list(&case["probes"]) {
            let at = probe["token"].as_u64().unwrap() as usize * rope.pairs;
            for (got, expected) in [(&rope.cos, &probe["cos"]), (&rope.sin, &probe["sin"])] {
                let expected = numbers(expected);
                assert_eq!(expected.len(), rope.pairs);
                for (got, expected) in got[at..].iter().zip(expected) {
                    assert!(
                        (f64::from(*got) - expected).abs() < 1.2e-7,
                        "{latent:?} {got} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn sincos_tables_are_those_of_the_reference() {
    for case in list(&json("positions.json")["sincos"]) {
        let latent = integers(&case["latent"]).iter().map(|&n| n as usize).collect::<Vec<_>>();
        let grid = Grid { frames: latent[0], rows: latent[1] / 2, cols: latent[2] / 2 };
        let table = Sincos::new(grid, 1920, 1.875, 1.0).unwrap().table();
        assert_eq!(table.len(), grid.tokens() * 1920);
        for probe in list(&case["probes"]) {
            let row = &table[probe["token"].as_u64().unwrap() as usize * 1920..][..1920];
            for (column, expected) in
                integers(&case["columns"]).iter().zip(numbers(&probe["values"]))
            {
                let got = f64::from(row[*column as usize]);
                assert!(
                    (got - expected).abs() < 1e-7,
                    "{latent:?} column {column}: {got} {expected}"
                );
            }
        }
    }
}

// --- tokenizer --------------------------------------------------------------------------------

/// Where two generations of the reference's tokenizer disagree, either will do. transformers 5
/// normalises by grapheme and so drops combining marks it has no composed form for, and finds
/// special tokens in what normalisation has made of full-width letters; SentencePiece, and
/// transformers 4, do neither.
#[test]
fn ids_are_those_of_the_reference() {
    let index = json("tokenizer.json");
    let file = fixture(index["tokenizer"].as_str().unwrap()).join("spiece.model");
    let tokenizer = Tokenizer::open(file).unwrap();
    let max_len = index["max_length"].as_u64().unwrap() as usize;
    let (mut equal, mut disputed) = (0, 0);
    for case in list(&index["strings"]) {
        let text = case["text"].as_str().unwrap();
        let encoded = tokenizer.encode(text, max_len).unwrap();
        assert_eq!(encoded.ids.len(), max_len);
        let padded = |ids: &Value| {
            let mut ids = integers(ids);
            ids.resize(max_len, 0);
            ids
        };
        if encoded.ids == padded(&case["ids"]) {
            equal += 1;
        } else {
            assert!(case["slow_ids"].is_array(), "{text:?}: {:?}", encoded.ids);
            assert_eq!(encoded.ids, padded(&case["slow_ids"]), "{text:?}");
            disputed += 1;
        }
        assert_eq!(encoded.truncated.is_some(), encoded.prompt_tokens > max_len, "{text:?}");
    }
    assert!(equal >= 200 && disputed <= 5, "{equal} equal, {disputed} disputed");
}
