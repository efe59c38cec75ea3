//! Where weights are changes no bit, and the card is used as the plan says.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use support::card::{
    Bits, Extra, assert_as_planned, assert_copied_as_planned, card, heavy, run, target,
    weight_bytes, with_schedule,
};
use support::{Case, job};
use vidfit_cogvideox::transformer::TransformerSchedule;
use vidfit_cogvideox::vae::{DecodeSchedule, Tiling, decoder_passes};
use vidfit_engine::checkpoint::{Checkpoint, Component, ModelConfig, Variant};
use vidfit_engine::placement::{Rung, Streaming, ladder};
use vidfit_engine::planner::{Offload, Planned, plan, plan_least};
use vidfit_engine::request::{Job, Request, Tiles, TilingChoice};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::DType;

/// Every strategy, and shares from nothing to everything.
const STRATEGIES: [Offload; 9] = [
    Offload::Auto,
    Offload::None,
    Offload::Model,
    Offload::Sequential,
    Offload::Percent(0),
    Offload::Percent(30),
    Offload::Percent(55),
    Offload::Percent(80),
    Offload::Percent(100),
];

/// Plans `job` with a strategy for a card with room for everything.
fn planned(checkpoint: &Checkpoint, job: &Job, offload: Offload, threads: usize) -> Planned {
    let whole = (TilingChoice::Off, Tiles::both(Tiling { height: 0, width: 0 }));
    let planned = plan(checkpoint, job, whole, offload, &target(1 << 40, threads)).unwrap();
    planned.unwrap_or_else(|_| panic!("{offload} does not fit a large card"))
}

/// Runs what was planned on a card that has exactly that, and holds it to the plan.
fn run_exactly(name: &str, checkpoint: &Checkpoint, prepared: &Planned, threads: usize) -> Bits {
    let card = card(prepared.plan.device_bytes(), threads, name.len() as u64);
    let generated = run(checkpoint, prepared, &card, Extra::default())
        .unwrap_or_else(|error| panic!("{name}: {error}; {:?}", card.violations()));
    assert_as_planned(name, &prepared.plan, &generated, &card);
    assert_copied_as_planned(name, &prepared.plan, &generated, &card);
    Bits::of(&generated)
}

fn every_strategy_gives_the_same_bits(case: &str) {
    let case = Case::named(case);
    let checkpoint = case.open();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        // Two chunks of decoder and encoder, so that caches live from one to the next.
        let request = Request {
            frames: Some(17),
            height: Some(16),
            width: Some(32),
            steps: 4,
            tiling: TilingChoice::Off,
            ..case.request(dtype)
        };
        let job = job(&checkpoint, &request);
        let expected = Bits::on_cpu(&checkpoint, &job);
        for (index, offload) in STRATEGIES.into_iter().enumerate() {
            let all = [1, 2, 3];
            let threads = if dtype == DType::F32 { &all[..] } else { &all[index % 3..][..1] };
            for &threads in threads {
                let name = format!("{} {dtype} {offload}, {threads} threads", case.name);
                let prepared = planned(&checkpoint, &job, offload, threads);
                run_exactly(&name, &checkpoint, &prepared, threads).assert_same(&expected, &name);
            }
        }
    }
}

#[test]
fn every_strategy_gives_the_same_bits_with_2b() {
    every_strategy_gives_the_same_bits("2b-ddim");
}

#[test]
fn every_strategy_gives_the_same_bits_with_5b() {
    every_strategy_gives_the_same_bits("5b-dpm");
}

#[test]
fn every_strategy_gives_the_same_bits_with_1_5() {
    every_strategy_gives_the_same_bits("1.5-dpm");
}

#[test]
fn every_strategy_gives_the_same_bits_from_an_image() {
    every_strategy_gives_the_same_bits("1.5-i2v-dpm");
}

#[test]
fn every_strategy_gives_the_same_bits_from_a_video() {
    every_strategy_gives_the_same_bits("5b-v2v-dpm");
}

/// Schedules that stream: everything through one slot, through two, and all but a tenth through two,
/// with all, half and none of the decoder's caches in host memory.
fn streaming(checkpoint: &Checkpoint, dtype: DType) -> [Schedule; 3] {
    let weights = weight_bytes(checkpoint, dtype);
    let caches = checkpoint.vae.config.decoder_caches();
    let of = |slots: usize, share: u64, paged_caches: usize| {
        let streaming = |all: u64, keeps_converted| Streaming {
            resident_bytes: all * share / 100,
            slots,
            keeps_converted,
        };
        Schedule {
            text: streaming(weights[0], false),
            conditioning: Streaming::through(slots),
            denoise: streaming(weights[1], slots == 2),
            transformer: TransformerSchedule { rows: 128, head_groups: 2 },
            decode: streaming(weights[2], true),
            decoder: DecodeSchedule { paged_caches },
            ..Schedule::resident()
        }
    };
    [of(1, 0, caches), of(2, 0, caches / 2), of(2, 10, 0)]
}

/// What goes to the card through its upload queue, from the schedule alone: weights that stay once,
/// weights that are streamed in each pass, and each step's row of the modulation tables.
fn queued_bytes(checkpoint: &Checkpoint, job: &Job, schedule: &Schedule) -> u64 {
    let of = |weights, blocks: Vec<String>, streaming: Streaming, passes: usize| {
        let ladder = ladder(weights, job.dtype, &blocks).unwrap();
        let fits = |rung: &&Rung| rung.resident_bytes <= streaming.resident_bytes;
        let rung = ladder.iter().rev().find(fits).unwrap();
        rung.resident_bytes + rung.streamed_bytes * passes as u64
    };
    let (text, transformer) = (&checkpoint.text_encoder, &checkpoint.transformer);
    let (vae, config) = (&checkpoint.vae, &checkpoint.transformer.config);
    let steps = job.steps.len();
    let size = (job.latent_height, job.latent_width);
    let frames = job.latent_frames - job.padding_frames;
    let chunks = decoder_passes(&vae.config, job.tiling, frames, size);
    let once = Streaming::through(1);
    let bytes = [
        of(&text.weights, text.config.encoder_blocks(), schedule.text, 1),
        of(&transformer.weights, config.conditioning_blocks(), once, 1),
        of(&transformer.weights, config.step_blocks(), schedule.denoise, steps)
            + table_bytes(checkpoint, job),
        of(&vae.weights, vae.config.decoder_blocks(), schedule.decode, chunks),
    ];
    bytes.iter().sum()
}

/// Bytes of the modulations of all steps, which wait in host memory for their step.
fn table_bytes(checkpoint: &Checkpoint, job: &Job) -> u64 {
    let config = &checkpoint.transformer.config;
    let rows = (12 * config.num_layers + 2) * job.steps.len();
    (rows * config.inner_dim()) as u64 * job.dtype.bytes()
}

/// A model whose weights are several times the budget still runs, and each of its weights goes to
/// the card exactly as often as the schedule says.
#[test]
fn budgets_lie_well_below_the_weights() {
    let (checkpoint, nothing) = (heavy(true), heavy(false));
    for dtype in [DType::F16, DType::BF16] {
        let request = Request {
            frames: Some(17),
            height: Some(16),
            width: Some(32),
            steps: 5,
            tiling: TilingChoice::Off,
            ..Case::named("5b-dpm").request(dtype)
        };
        let job = job(&checkpoint, &request);
        let weights: u64 = weight_bytes(&nothing, dtype).iter().sum();
        let expected = Bits::on_cpu(&checkpoint, &job);
        for (index, schedule) in streaming(&nothing, dtype).into_iter().enumerate() {
            let name = format!("heavy {dtype}, schedule {index}");
            // Planned without weights, as for a card that is not here.
            let prepared = with_schedule(&nothing, &job, schedule, 1);
            let budget = prepared.plan.device_bytes();
            println!("{name}: {budget} bytes for weights of {weights}");
            assert!(budget * 2 < weights, "{name}: {budget} bytes are no limit for {weights}");

            let card = card(budget, 1, index as u64);
            let generated = run(&checkpoint, &prepared, &card, Extra::default()).unwrap();
            assert_as_planned(&name, &prepared.plan, &generated, &card);
            assert_copied_as_planned(&name, &prepared.plan, &generated, &card);
            Bits::of(&generated).assert_same(&expected, &name);

            // What was paged out to the host came back once, but for the modulation tables.
            let counters = card.counters();
            let paged = counters.downloaded_bytes - table_bytes(&nothing, &job);
            assert_eq!(paged > 0, schedule.decoder.paged_caches > 0, "{name}");
            let stated = queued_bytes(&nothing, &job, &schedule) + paged;
            assert_eq!(counters.uploaded_bytes, stated, "{name}: uploads");
        }
    }
}

/// A model of published widths, cut to a layer of T5, two of the transformer, and few words, with
/// random weights or none.
fn published(variant: Variant, has_weights: bool) -> Checkpoint {
    fn cut<C: ModelConfig>(config: C, has_weights: bool) -> Arc<Component<C>> {
        Arc::new(match has_weights {
            true => Component::with_random_weights(config, DType::BF16),
            false => Component::without_weights(config, DType::BF16),
        })
    }
    let mut checkpoint = Checkpoint::published(variant);
    let mut t5 = checkpoint.text_encoder.config.clone();
    (t5.num_layers, t5.vocab_size) = (1, 32);
    let mut transformer = variant.transformer_config();
    (transformer.num_layers, transformer.max_text_seq_length) = (2, 16);
    checkpoint.text_encoder = cut(t5, has_weights);
    checkpoint.transformer = cut(transformer, has_weights);
    checkpoint.vae = cut(variant.vae_config(), has_weights);
    checkpoint
}

/// Each component resident; and most of the transformer and all of the decoder streamed. Most of the
/// time goes into making the weights up.
#[test]
fn published_widths_give_the_same_bits() {
    let variant = Variant::TwoB;
    let (checkpoint, nothing) = (published(variant, true), published(variant, false));
    let request = Request {
        frames: Some(1),
        height: Some(32),
        width: Some(48),
        steps: 3,
        dtype: DType::BF16,
        tiling: TilingChoice::Off,
        ..Request::new("a panda")
    };
    let job = job(&checkpoint, &request);
    let expected = Bits::on_cpu(&checkpoint, &job);
    let resident = planned(&nothing, &job, Offload::Model, 2);
    let least = plan_least(&nothing, &job, Offload::Sequential, &target(1 << 40, 3)).unwrap();
    let weights = weight_bytes(&nothing, DType::BF16);
    let third = Streaming { resident_bytes: weights[1] / 3, ..Streaming::through(2) };
    let streamed = Schedule { denoise: third, ..least.schedule };
    let streamed = with_schedule(&nothing, &job, streamed, 3);
    for (what, prepared, threads) in [("resident", resident, 2), ("streamed", streamed, 3)] {
        let name = format!("{variant}, {what}");
        let (budget, weights): (u64, u64) = (prepared.plan.device_bytes(), weights.iter().sum());
        println!("{name}: {budget} bytes for weights of {weights}");
        assert!(budget < weights / 8 * 5, "{name}: {budget} bytes are no limit for {weights}");
        run_exactly(&name, &checkpoint, &prepared, threads).assert_same(&expected, &name);
    }
}
