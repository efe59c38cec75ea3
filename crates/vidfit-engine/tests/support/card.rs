//! Jobs on a simulated card, in exactly the memory that was planned for them.

use super::Case;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use vidfit_cpu::{CpuDevice, SimConfig, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::{Checkpoint, Component};
use vidfit_engine::generate::{self, Generated, RunOptions};
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Planned, Target};
use vidfit_engine::progress::Listener;
use vidfit_engine::request::Job;
use vidfit_engine::schedule::Schedule;
use vidfit_engine::state::RunState;
use vidfit_tensor::{DType, Device, Profile};

/// Numbers that look random and are the same in every run: splitmix64 (Steele et al. 2014).
pub struct Draw(pub u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.below(10_001) as f64 / 10_000.0
    }

    /// Nothing, everything, or some of it, rather less than more.
    pub fn part(&mut self) -> f64 {
        let some = self.share().powi(2);
        self.of(&[0.0, 1.0, some, some])
    }

    /// Whether something that happens once in `times` does.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A card of which so many bytes can be reserved. Its driver holds some besides.
pub fn config(free_bytes: u64, threads: usize, seed: u64) -> SimConfig {
    let overhead_bytes = seed % 5 * 1000;
    SimConfig {
        overhead_bytes,
        threads,
        seed,
        copy_delay: Duration::ZERO..=Duration::from_micros(20),
        piece_bytes: 64 << 10,
        ..SimConfig::new(free_bytes + overhead_bytes)
    }
}

/// The card of [`config`].
pub fn card(free_bytes: u64, threads: usize, seed: u64) -> Arc<SimDevice> {
    Arc::new(SimDevice::new(config(free_bytes, threads, seed)).unwrap())
}

/// What planning must know of such a card.
pub fn profile(threads: usize) -> Profile {
    SimDevice::profile_of(&config(0, threads, 0))
}

/// Such a card as something to plan for, with the speed of one that people have, so that choices
/// differ in time.
pub fn target(free_bytes: u64, threads: usize) -> Target {
    let gpu = catalogue::find("RTX 3060 12GB").unwrap();
    Target {
        profile: profile(threads),
        free_bytes,
        overhead_bytes: 0,
        ram_bytes: Some(1 << 30),
        ..Target::of_card(gpu)
    }
}

/// A model whose weights are many times its activations: the tiny one with more and wider layers.
/// The weights are random, or there are none.
pub fn heavy(has_weights: bool) -> Checkpoint {
    fn component<C: vidfit_engine::checkpoint::ModelConfig>(
        config: C,
        has_weights: bool,
    ) -> Arc<Component<C>> {
        Arc::new(match has_weights {
            true => Component::with_random_weights(config, DType::F16),
            false => Component::without_weights(config, DType::F16),
        })
    }
    let mut checkpoint = Case::named("5b-dpm").open();
    let mut t5 = checkpoint.text_encoder.config.clone();
    (t5.d_model, t5.d_ff, t5.num_layers, t5.num_heads) = (96, 512, 6, 4);
    let mut transformer = checkpoint.transformer.config.clone();
    transformer.text_embed_dim = t5.d_model;
    (transformer.num_layers, transformer.num_attention_heads) = (10, 4);
    let mut vae = checkpoint.vae.config.clone();
    vae.block_out_channels = vec![8, 16, 32, 64];
    checkpoint.text_encoder = component(t5, has_weights);
    checkpoint.transformer = component(transformer, has_weights);
    checkpoint.vae = component(vae, has_weights);
    checkpoint
}

/// Bytes of the weights that a job of `dtype` brings to a card, by phase, each weight once.
pub fn weight_bytes(checkpoint: &Checkpoint, dtype: DType) -> [u64; 3] {
    let of = |weights, blocks: Vec<String>| {
        let ladder = vidfit_engine::placement::ladder(weights, dtype, &blocks).unwrap();
        ladder[0].streamed_bytes
    };
    let (text, vae) = (&checkpoint.text_encoder, &checkpoint.vae);
    let transformer = &checkpoint.transformer;
    [
        of(&text.weights, text.config.encoder_blocks()),
        of(&transformer.weights, transformer.config.step_blocks()),
        of(&vae.weights, vae.config.decoder_blocks()),
    ]
}

/// As [`weight_bytes`], of the encode phase.
pub fn encoder_bytes(checkpoint: &Checkpoint, dtype: DType) -> u64 {
    let vae = &checkpoint.vae;
    let ladder =
        vidfit_engine::placement::ladder(&vae.weights, dtype, &vae.config.encoder_blocks());
    ladder.unwrap()[0].streamed_bytes
}

/// A plan with this schedule, not searched for.
pub fn with_schedule(
    checkpoint: &Checkpoint,
    job: &Job,
    schedule: Schedule,
    threads: usize,
) -> Planned {
    let plan = Plan::new(checkpoint, job, &schedule, None, &profile(threads)).unwrap();
    Planned::new(job.clone(), schedule, plan, Offload::Auto, &target(1 << 40, threads))
}

/// What [`run`] is asked besides.
#[derive(Default)]
pub struct Extra<'a> {
    pub state: Option<&'a RunState>,
    pub replan: bool,
    pub listener: Option<Listener>,
}

/// Runs a plan on a card. All that is freed is poisoned.
pub fn run(
    checkpoint: &Checkpoint,
    prepared: &Planned,
    card: &Arc<SimDevice>,
    extra: Extra<'_>,
) -> Result<Generated, EngineError> {
    let device: Arc<dyn Device> = card.clone();
    let pixels = super::pixels_for(&prepared.job);
    let options = RunOptions {
        stop: &AtomicBool::new(false),
        listener: extra.listener.unwrap_or_else(|| Box::new(|_| {})),
        keep_tensors: true,
        capacity_bytes: u64::MAX,
        poison: true,
        pixels: pixels.as_ref().filter(|_| !extra.state.is_some_and(RunState::has_begun)),
        state: extra.state,
        replan: extra.replan,
        keep: None,
    };
    generate::run(checkpoint, prepared, &device, options)
}

/// What a job comes to: the bits of latents and unrounded frames, and the frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Bits {
    pub latents: Vec<u32>,
    pub values: Vec<u32>,
    pub frames: Vec<Vec<u8>>,
}

impl Bits {
    pub fn of(generated: &Generated) -> Bits {
        let kept = generated.tensors.as_ref().unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        Bits {
            latents: bits(&kept.latents),
            values: bits(&kept.frames),
            frames: generated.frames.clone(),
        }
    }

    /// What the CPU device makes of `job`.
    pub fn on_cpu(checkpoint: &Checkpoint, job: &Job) -> Bits {
        let device = Arc::new(CpuDevice::new(2).unwrap());
        let prepared = super::prepare_job(checkpoint, job.clone(), &*device);
        Bits::of(&super::run_prepared(checkpoint, &prepared, device))
    }

    /// Fails, saying what differs first, unless both are the same.
    pub fn assert_same(&self, other: &Bits, name: &str) {
        for (what, ours, theirs) in
            [("latents", &self.latents, &other.latents), ("frames", &self.values, &other.values)]
        {
            let differ = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
            assert!(ours == theirs, "{name}: {differ} of {} {what} differ", ours.len());
        }
        assert!(self.frames == other.frames, "{name}: rounded frames differ");
    }
}

/// Holds a run and the card's own books against the plan, to the byte.
pub fn assert_as_planned(name: &str, plan: &Plan, generated: &Generated, card: &SimDevice) {
    assert_eq!(card.violations(), [""; 0], "{name}");
    let measured = &generated.measured;
    assert_eq!(measured.peak_bytes, plan.layout.peak_bytes, "{name}: peak");
    let planned: Vec<(String, u64)> =
        plan.layout.phases.iter().map(|phase| (phase.name.clone(), phase.peak_bytes)).collect();
    assert_eq!(measured.phase_peak_bytes, planned, "{name}: peaks of the phases");

    // The card knows nothing of the plan: what it was asked for, and what it used of that.
    let counters = card.counters();
    assert_eq!(counters.reservations, [plan.layout.peak_bytes], "{name}: reservations");
    assert_eq!(counters.peak_held_bytes, plan.device_bytes(), "{name}: held");
    assert_eq!(counters.held_bytes, 0, "{name}: held afterwards");
    let highest = counters.highest_byte.next_multiple_of(plan.layout.trace.alignment);
    assert_eq!(highest, plan.layout.peak_bytes, "{name}: highest byte");
}

/// Holds the copies of a run against those of its plan, phase by phase, to the byte.
pub fn assert_copied_as_planned(name: &str, plan: &Plan, generated: &Generated, card: &SimDevice) {
    let planned = plan.phases.iter().map(|phase| (&*phase.name, phase.uploaded_bytes));
    let measured = generated.phases.iter().map(|phase| (phase.name, phase.uploaded_bytes));
    assert_eq!(measured.collect::<Vec<_>>(), planned.collect::<Vec<_>>(), "{name}: uploaded");
    let counters = card.counters();
    let uploaded = counters.uploaded_bytes + counters.directly_uploaded_bytes;
    let planned: u64 = plan.phases.iter().map(|phase| phase.uploaded_bytes).sum();
    assert_eq!(uploaded, planned, "{name}: uploaded in all");
}
