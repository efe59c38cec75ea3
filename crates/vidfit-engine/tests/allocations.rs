//! Outside the arena a run allocates a few named host buffers and nothing else. A global allocator
//! counts; the arena itself is a memory map and so not counted.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

#[path = "support/counter.rs"]
mod counter;
mod support;

use counter::{LIVE, peaks_of_phases};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use support::Case;
use support::saboteur::Saboteur;
use vidfit_cogvideox::scheduler::{SchedulerKind, Update};
use vidfit_cogvideox::vae::{Tiling, encoder_host_bytes};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::request::{Job, TilingChoice};
use vidfit_tensor::{DType, Device};

/// Bytes of an f32 on the host.
const F32: usize = 4;

/// What may be allocated besides: handles on tensors, names of weights, lists of frames.
const BOOKKEEPING_BYTES: usize = 112 << 10;

/// A host buffer by its name, in bytes.
type Buffer = (&'static str, usize);

/// The buffers of a run in each phase: those that stay, and those of which one exists at a time.
struct Buffers {
    phase: &'static str,
    staying: Vec<Buffer>,
    passing: Vec<Buffer>,
}

fn buffers(checkpoint: &Checkpoint, job: &Job) -> Vec<Buffers> {
    let (t5, transformer) = (&checkpoint.text_encoder.config, &checkpoint.transformer.config);
    let vae = &checkpoint.vae.config;
    let half_run = job.dtype != DType::F32;
    let frames = ("rounded frames", job.frames * job.height * job.width * 3);
    let embeds = job.prompts.len() * job.prompts[0].len() * t5.d_model * F32;
    let embeds = ("embeddings to go on from", embeds);
    let latents = job.latent_frames * job.channels * job.latent_height * job.latent_width;
    let state = ("latents and last estimate to go on from", 2 * latents * F32);
    let element = job.dtype.bytes() as usize;
    let rows = job.steps.len() * (12 * transformer.num_layers + 2);
    let tables = ("modulation tables", rows * transformer.inner_dim() * element);

    let tokens = job.prompts[0].len();
    let distances = (2 * tokens - 1) * t5.num_heads;
    let text = Buffers {
        phase: "text",
        staying: vec![frames],
        passing: vec![
            embeds,
            ("rows of the embedding", tokens * t5.d_model * F32),
            ("position bias, by distance and by head", 2 * distances * F32),
        ],
    };

    let halves = if half_run { latents * 2 } else { 0 };
    let piece = |tiling: Option<Tiling>| {
        tiling.map_or((job.height, job.width), |tiles| (tiles.height, tiles.width))
    };
    // An image is one latent frame.
    let encoded = if job.given_frames == 1 { latents / job.latent_frames } else { latents };
    let size = (job.height, job.width);
    let pixels = encoder_host_bytes(vae, job.encode_tiling, size) as usize;
    let encode = Buffers {
        phase: "encode",
        staying: vec![frames, embeds],
        passing: vec![
            ("a piece of a frame, and the same padded", pixels),
            ("a draw, as it is drawn and frame by frame", 2 * encoded * F32),
        ],
    };

    let angles = job.grid.tokens() * transformer.attention_head_dim / 2;
    let denoise = Buffers {
        phase: "denoise",
        staying: vec![frames, embeds, state, tables],
        passing: vec![
            ("one draw of noise", latents * F32 + halves),
            ("sinusoids of all steps", job.steps.len() * transformer.inner_dim() * F32),
            match transformer.use_rotary_positional_embeddings {
                true => ("rotary cosines and sines", 2 * angles * F32),
                false => ("sincos positions", job.grid.tokens() * transformer.inner_dim() * F32),
            },
        ],
    };

    let (height, width) = piece(job.tiling);
    assert_eq!(vae.out_channels, 3);
    let decode = Buffers {
        phase: "decode",
        staying: vec![frames, embeds, state],
        passing: vec![("a piece of a frame", height * width * 3 * F32)],
    };
    let all = [text, encode, denoise, decode];
    all.into_iter().filter(|buffers| job.phases().contains(&buffers.phase)).collect()
}

/// One test only, so that nothing else allocates meanwhile.
#[test]
fn a_run_allocates_its_named_buffers_and_no_more() {
    for (name, dtype, tiling) in [
        ("5b-dpm", DType::F32, TilingChoice::Off),
        ("2b-ddim", DType::BF16, TilingChoice::Off),
        ("1.5-dpm", DType::F16, TilingChoice::On),
        ("5b-v2v-dpm", DType::BF16, TilingChoice::Off),
        ("1.5-i2v-dpm", DType::F32, TilingChoice::On),
    ] {
        check(name, dtype, tiling);
    }
}

fn check(name: &str, dtype: DType, tiling: TilingChoice) {
    let case = Case::named(name);
    let checkpoint = case.open();
    let mut request = case.request(dtype);
    (request.frames, request.height, request.width) = (Some(49), Some(128), Some(144));
    (request.steps, request.tiling) = (3, tiling);
    request.scheduler = Some(SchedulerKind::Dpm);
    let witness = Saboteur::new(None);
    let device: Arc<dyn Device> = witness.clone();
    let prepared = generate::prepare(&checkpoint, &request, &*device, u64::MAX).unwrap();
    assert!(prepared.job.steps.iter().all(|step| matches!(step.update, Update::Dpm(_))));

    let stated = buffers(&checkpoint, &prepared.job);
    let pixels = support::pixels_for(&prepared.job);

    let (listener, peaks) = peaks_of_phases();
    let baseline = LIVE.load(Relaxed);
    let stop = AtomicBool::new(false);
    let options = RunOptions {
        stop: &stop,
        listener,
        keep_tensors: false,
        capacity_bytes: prepared.plan.device_bytes(),
        poison: false,
        pixels: pixels.as_ref(),
        state: None,
        replan: false,
        keep: None,
    };
    let generated = generate::run(&checkpoint, &prepared, &device, options).unwrap();
    assert_eq!(witness.reserved(), [prepared.plan.layout.peak_bytes]);
    assert!(generated.tensors.is_none());

    let peaks = peaks.lock().unwrap();
    assert_eq!(peaks.len(), stated.len());
    for (&(phase, peak), stated) in peaks.iter().zip(&stated) {
        assert_eq!(phase, stated.phase);
        let measured = peak - baseline;
        let staying: usize = stated.staying.iter().map(|(_, bytes)| bytes).sum();
        let (largest, passing) =
            stated.passing.iter().max_by_key(|(_, bytes)| *bytes).copied().unwrap();
        let named = staying + passing;
        println!(
            "{name:8} {dtype:4} {phase:8} measured {measured:9}  named {named:9}  besides {:7}  \
             (largest that passes: {largest}, {passing})",
            measured as i64 - named as i64
        );
        assert!(measured >= named, "{name} {phase}: {measured} bytes do not hold what is named");
        assert!(measured <= named + BOOKKEEPING_BYTES, "{name} {phase}: {measured} > {named}");
    }
}
