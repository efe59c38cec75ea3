//! What the models hold besides their weights, at the published sizes: dry runs without weights.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use vidfit_cogvideox::transformer::{self, Conditioning, TransformerConfig, TransformerSchedule};
use vidfit_cogvideox::vae::{self, Tiling, VaeConfig};
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

#[test]
fn a_step_holds_two_hidden_states_and_what_the_heads_need() {
    let two_b = TransformerConfig { num_layers: 1, ..TransformerConfig::default() };
    let five_b = TransformerConfig {
        num_attention_heads: 48,
        use_rotary_positional_embeddings: true,
        ..two_b.clone()
    };
    let longer = TransformerConfig {
        patch_size_t: Some(2),
        sample_width: 300,
        sample_height: 300,
        sample_frames: 81,
        ..five_b.clone()
    };
    let cases = [
        ("2b, 49 frames", &two_b, [13, 16, 60, 90]),
        ("5b, 49 frames", &five_b, [13, 16, 60, 90]),
        ("1.5-5B, 81 frames", &longer, [22, 16, 96, 170]),
    ];
    for (name, config, latents) in cases {
        for (rows, head_groups) in
            [(2048, 1), (2048, 2), (2048, 3), (2048, 6), (512, 1), (512, 6), (512, 15), (512, 16)]
        {
            if config.num_attention_heads % head_groups != 0 {
                continue;
            }
            let layout = step(config, latents, TransformerSchedule { rows, head_groups });
            let (before, most) = live_bytes(&layout, "step");
            let tokens = config.grid(latents[0], latents[2], latents[3]).unwrap().tokens();
            let hidden = ((tokens + 226) * config.inner_dim() * 2) as u64;
            println!(
                "{name} {rows} {head_groups}: {:.3} GiB, peak {:.3}, {:.3} hidden  {:?}",
                (most) as f64 / (1u64 << 30) as f64,
                layout.phases[0].peak_bytes as f64 / (1u64 << 30) as f64,
                (most - before) as f64 / hidden as f64,
                before,
            );
        }
    }
}

// --- VAE ---

#[test]
fn decode() {
    let config = VaeConfig::default();
    let weights = Nowhere(config.decoder_manifest());
    let cases = [
        ("untiled 13x60x90", [13, 60, 90], None),
        ("tiled 13x60x90", [13, 60, 90], Some(Tiling::reference(&config))),
        ("untiled 22x96x170", [22, 96, 170], None),
        ("tiled 22x96x170", [22, 96, 170], Some(Tiling::reference(&config))),
    ];
    for (name, [f, h, w], tiling) in cases {
        let layout = plan(|cx| {
            let latents = cx.alloc("latents", DTYPE, [f, 16, h, w])?;
            cx.arena.phase("decode")?;
            vae::decode(cx, &weights, &config, &latents, tiling, &mut |_| Ok(()))
        });
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        println!(
            "{name}: peak {:.3} live {:.3}",
            gib(layout.peak_bytes),
            gib(layout.most_live_bytes)
        );
        for phase in &layout.phases {
            for holder in &phase.holders {
                println!("   {:40} {:.4}", holder.label, gib(holder.bytes));
            }
        }
    }
}
