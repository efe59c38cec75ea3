//! What the models hold besides their weights, at the published sizes: dry runs without weights.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use vidfit_cogvideox::transformer::{self, Conditioning, TransformerConfig, TransformerSchedule};
use vidfit_cogvideox::vae::{self, DecodeSchedule, EncodeSchedule, Tiling, VaeConfig};
use vidfit_cogvideox::weights::{Block, Manifest, Weights};
use vidfit_tensor::{
    Arena, Context, DType, DryDevice, Error, Event, Layout, Profile, Tensor, Unwatched, solve,
};

const DTYPE: DType = DType::BF16;

/// Weights without elements.
struct Nowhere(Manifest);

impl Weights for Nowhere {
    fn block(&self, name: &str) -> Result<Block, Error> {
        let block = self.0.block(name).ok_or_else(|| Error::model(format!("no block {name}")))?;
        let tensors = block.weights.iter().map(|weight| {
            let key = weight.key[block.prefix.len()..].to_owned();
            (key, Tensor::nowhere(DTYPE, weight.shape))
        });
        Ok(Block::new(tensors.collect::<BTreeMap<_, _>>()))
    }

    fn rows(&self, _: &str, _: &[usize]) -> Result<Vec<f32>, Error> {
        panic!("no rows are read here");
    }
}

/// The layout of `body`, run dry.
fn plan(body: impl FnOnce(&Context<'_>) -> Result<(), Error>) -> Layout {
    let profile =
        Profile { name: "dry".into(), alignment: 256, scratch_bytes: 0, reads_host_memory: false };
    let arena = Arena::record(profile.alignment);
    body(&Context::new(&DryDevice::new(profile), &arena, &Unwatched)).unwrap();
    solve(&arena.into_trace().unwrap())
}

/// The bytes that live when phase `name` begins, and the most that do in it.
fn live_bytes(layout: &Layout, name: &str) -> (u64, u64) {
    let (mut live, mut at_begin, mut most) = (0, None, 0);
    for event in &layout.trace.events {
        match event {
            Event::Birth(n) => live += layout.trace.requests[*n].bytes,
            Event::Death(n) => live -= layout.trace.requests[*n].bytes,
            Event::Phase(phase) if phase == name => at_begin = Some(live),
            Event::Phase(_) if at_begin.is_some() => break,
            _ => {}
        }
        if at_begin.is_some() {
            most = most.max(live);
        }
    }
    (at_begin.unwrap(), most)
}

// --- transformer ---

/// A step of one block for both halves of guidance: more blocks hold no more.
fn step(config: &TransformerConfig, latents: [usize; 4], schedule: TransformerSchedule) -> Layout {
    let weights = Nowhere(config.manifest());
    let grid = config.grid(latents[0], latents[2], latents[3]).unwrap();
    plan(|cx| {
        let text = [config.max_text_seq_length, config.text_embed_dim];
        let texts = [cx.alloc("text", DTYPE, text)?, cx.alloc("text", DTYPE, text)?];
        let prompts: Vec<&Tensor> = texts.iter().collect();
        let conditioning =
            Conditioning::prepare(cx, &weights, config, DTYPE, grid, &[999], &prompts)?;
        drop(texts);
        let latents = cx.alloc("latents", DTYPE, latents)?;
        cx.arena.phase("step")?;
        transformer::predict(cx, &weights, config, schedule, &conditioning, 0, &[&latents])?;
        Ok(())
    })
}

/// With a block of a model as published, its latents, and what a step of it may hold in all.
fn published() -> [(&'static str, TransformerConfig, [usize; 4], f64); 3] {
    let two_b = TransformerConfig { num_layers: 1, ..TransformerConfig::default() };
    let five_b = TransformerConfig {
        num_attention_heads: 48,
        use_rotary_positional_embeddings: true,
        ..two_b.clone()
    };
    let later = TransformerConfig {
        patch_size_t: Some(2),
        sample_width: 300,
        sample_height: 300,
        sample_frames: 81,
        ..five_b.clone()
    };
    [
        ("2b 49x480x720", two_b, [13, 16, 60, 90], 0.40),
        ("5b 49x480x720", five_b, [13, 16, 60, 90], 0.54),
        ("1.5-5B 81x768x1360", later, [22, 16, 96, 170], 1.34),
    ]
}

#[test]
fn a_step_holds_two_hidden_states_and_what_attention_needs() {
    for (name, config, latents, most_gib) in published() {
        let tokens = config.grid(latents[0], latents[2], latents[3]).unwrap().tokens();
        let row_bytes = config.inner_dim() as u64 * DTYPE.bytes();
        let hidden = (226 + tokens) as u64 * row_bytes;
        for (rows, head_groups) in [(2048, 1), (2048, 2), (2048, 6), (512, 1), (512, 6)] {
            let layout = step(&config, latents, TransformerSchedule { rows, head_groups });
            let (before, most) = live_bytes(&layout, "step");

            // A hidden state of each half; queries, keys and values; one chunk of normed rows; and
            // the modulations of a block and the tail.
            let chunk = rows as u64 * row_bytes;
            let attention = match head_groups as u64 {
                1 => 5 * hidden + chunk,
                groups => 3 * hidden + 3 * hidden / groups + chunk,
            };
            let feed_forward = 2 * hidden + 5 * chunk;
            println!(
                "{name:18} {rows:4} rows, {head_groups} groups: {:.3} GiB, {:.2} hidden states \
                 beside {:.3} GiB that all steps share",
                gib(most),
                (most - before) as f64 / hidden as f64,
                gib(before),
            );
            let expected = attention.max(feed_forward) + 14 * row_bytes;
            assert_eq!(most - before, expected, "{name} {rows} {head_groups}");
            assert!(layout.phases[0].peak_bytes <= most + most / 100, "a layout with holes");
            let groups_gib = if head_groups >= 6 { 0.75 } else { 1.0 } * most_gib;
            assert!(gib(most) <= groups_gib, "{name} {rows} {head_groups}: {} GiB", gib(most));
        }
    }
}

// --- VAE ---

/// The most bytes that the decoder's blocks hold at a time.
fn in_blocks(layout: &Layout) -> u64 {
    let requests = &layout.trace.requests;
    let is_inside = |n: usize| requests[n].label.starts_with("decoder.");
    let (mut live, mut most) = (0, 0);
    for event in &layout.trace.events {
        match *event {
            Event::Birth(n) if is_inside(n) => live += requests[n].bytes,
            Event::Death(n) if is_inside(n) => live -= requests[n].bytes,
            _ => {}
        }
        most = most.max(live);
    }
    most
}

/// The widest place is the last stage's first resnet. Its inputs have twice its outputs' channels;
/// each goes and leaves a frame of the shortcut and one of the first convolution, which reads
/// three padded frames.
#[test]
fn the_decoder_holds_one_table_of_its_largest_frames() {
    let config = VaeConfig::default();
    let weights = Nowhere(config.decoder_manifest());
    let reference = Some(Tiling::reference(&config));
    let cases = [
        ("49x480x720 whole", [13, 60, 90], None, 9, (480, 720), 2.15),
        ("49x480x720 in tiles", [13, 60, 90], reference, 9, (240, 360), 0.56),
        ("81x768x1360 whole", [22, 96, 170], None, 8, (768, 1360), 5.9),
        ("81x768x1360 in tiles", [22, 96, 170], reference, 8, (240, 360), 0.56),
    ];
    for (name, [count, h, w], tiling, frames, (height, width), most_gib) in cases {
        let decode = |paged_caches: usize| {
            plan(|cx| {
                let latents = cx.alloc("latents", DTYPE, [count, 16, h, w])?;
                cx.arena.phase("decode")?;
                let schedule = DecodeSchedule { paged_caches };
                vae::decode(cx, &weights, &config, &latents, tiling, schedule, &mut |_| Ok(()))
            })
        };
        let (resident, paged) = (decode(0), decode(config.decoder_caches()));
        let frame = (height * width * 128) as u64 * DTYPE.bytes();
        println!(
            "{name:21} {:.3} GiB, with all caches paged {:.3}: {:.2} frames in the blocks",
            gib(resident.peak_bytes),
            gib(paged.peak_bytes),
            in_blocks(&paged) as f64 / frame as f64,
        );
        let most = (2 * frames + 7) * frame;
        // Borders and modulations are small.
        assert!(in_blocks(&paged) <= most + most / 33, "{name}: {:.3}", gib(in_blocks(&paged)));
        assert!(gib(paged.peak_bytes) <= most_gib, "{name}: {:.3}", gib(paged.peak_bytes));
        assert!(resident.peak_bytes > paged.peak_bytes);
    }
}

/// The widest place is the first stage, where a resnet adds to its inputs themselves: as many
/// frames again of the first convolution, and the three padded frames that one reads.
#[test]
fn the_encoder_holds_two_tables_of_its_largest_frames() {
    let config = VaeConfig::default();
    let weights = Nowhere(config.encoder_manifest());
    let reference = Some(Tiling::reference(&config));
    let cases = [
        ("49x480x720 whole", (49, 480, 720), None, (480, 720), 3.15),
        ("49x480x720 in tiles", (49, 480, 720), reference, (240, 360), 0.80),
        ("81x768x1360 whole", (81, 768, 1360), None, (768, 1360), 9.6),
        ("81x768x1360 in tiles", (81, 768, 1360), reference, (240, 360), 0.82),
        ("1x480x720 whole", (1, 480, 720), None, (480, 720), 0.27),
        ("1x768x1360 in tiles", (1, 768, 1360), reference, (240, 360), 0.08),
    ];
    for (name, video, tiling, (height, width), most_gib) in cases {
        let encode = |paged_caches: usize| {
            plan(|cx| {
                let schedule = EncodeSchedule { paged_caches };
                let none = &mut |_, _: &mut [f32]| panic!("a dry run needs no pixels");
                vae::encode(cx, &weights, &config, DTYPE, video, none, tiling, schedule).map(drop)
            })
        };
        let (resident, paged) = (encode(0), encode(config.encoder_caches()));
        let frame = (height * width * 128) as u64 * DTYPE.bytes();
        println!(
            "{name:21} {:.3} GiB, with all caches paged {:.3}: {:.2} frames",
            gib(resident.peak_bytes),
            gib(paged.peak_bytes),
            paged.peak_bytes as f64 / frame as f64,
        );
        // Of a single frame the three that a convolution reads are one.
        let in_blocks = if video.0 == 1 { 3 * frame } else { (2 * 9 + 3) * frame };
        let size = (video.1, video.2);
        let moments = vae::latent_frames(&config, video.0) * 32 * size.0 * size.1 / 64;
        let edges = vae::kept_latent_edges(&config, tiling, video.0, size);
        let most = in_blocks + (moments + edges) as u64 * DTYPE.bytes();
        // Borders are small.
        assert!(paged.peak_bytes <= most + most / 33, "{name}: {:.3}", gib(paged.peak_bytes));
        assert!(gib(resident.peak_bytes) <= most_gib, "{name}: {:.3}", gib(resident.peak_bytes));
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
