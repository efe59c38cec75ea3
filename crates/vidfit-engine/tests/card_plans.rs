//! Random jobs under random budgets, planned in one process without weights, and run in another on
//! a card that has exactly what was planned.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::card::{
    Bits, Draw, Extra, assert_as_planned, assert_copied_as_planned, card, encoder_bytes, heavy,
    profile, run, target, weight_bytes,
};
use support::sparse::copy_without_weights;
use support::{Case, fixtures};
use vidfit_cogvideox::scheduler::SchedulerKind;
use vidfit_cogvideox::transformer::TransformerSchedule;
use vidfit_cogvideox::vae::{DecodeSchedule, EncodeSchedule, Tiling};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::placement::Streaming;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Planned, plan_least, replan};
use vidfit_engine::request::{FrameCounts, Job, Request, Start, TilingChoice};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::DType;

/// Configurations of each model in a usual run of the tests.
const CONFIGURATIONS: usize = 20;
/// Set to another number, this draws other configurations.
const SEED: &str = "VIDFIT_TEST_SEED";
const MODELS: [&str; 6] = ["2b-ddim", "5b-dpm", "1.5-dpm", "heavy", "5b-i2v-dpm", "1.5-i2v-dpm"];

/// What is to be planned.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asked {
    start: Start,
    frames: usize,
    height: usize,
    width: usize,
    steps: usize,
    uses_dpm: bool,
    guidance: f64,
    dtype: DType,
    tile: Option<(usize, usize)>,
    encode_tile: Option<(usize, usize)>,
    threads: usize,
    how: How,
}

/// How memory is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum How {
    /// As the planner finds, within a budget: this share of the way from the least that the
    /// strategy can do with to all that it can use.
    Searched { offload: Offload, share: f64 },
    /// As drawn: shares of the weights that stay, in text, denoise, decode and encode, and the rest.
    Drawn {
        stays: [f64; 4],
        slots: [usize; 5],
        keeps_converted: [bool; 4],
        rows: usize,
        head_groups: usize,
        paged_caches: f64,
        paged_encoder_caches: f64,
        keeps_components: bool,
    },
}

/// What comes of it.
#[derive(Serialize, Deserialize)]
struct Answer {
    schedule: Schedule,
    plan: Plan,
    budget_bytes: u64,
}

/// A model, with its weights or without them.
fn open(model: &str, without_weights_in: Option<&Path>) -> Checkpoint {
    match (model, without_weights_in) {
        ("heavy", nothing) => heavy(nothing.is_none()),
        (model, None) => Case::named(model).open(),
        (_, Some(folder)) => Checkpoint::open(folder).unwrap(),
    }
}

fn draw(draw: &mut Draw, model: &str, checkpoint: &Checkpoint) -> Asked {
    let vae = &checkpoint.vae.config;
    let tile = |height, width| Tiling { height, width };
    let lengths: Vec<usize> = (2..=8).map(|n| 8 * n).collect();
    let joins = |height: usize, width: usize| tile(height, width).problem(vae).is_none();
    let tiles: Vec<(usize, usize)> = lengths
        .iter()
        .flat_map(|&height| lengths.iter().map(move |&width| (height, width)))
        .filter(|&(height, width)| joins(height, width))
        .collect();
    let is_heavy = model == "heavy";
    let how = match draw.below(2) {
        0 => How::Searched {
            offload: match draw.below(8) {
                0 => Offload::None,
                1 => Offload::Model,
                2 => Offload::Sequential,
                3 | 4 => Offload::Percent(draw.below(101) as u8),
                _ => Offload::Auto,
            },
            share: draw.part(),
        },
        _ => How::Drawn {
            stays: [(); 4].map(|()| draw.part()),
            slots: [(); 5].map(|()| 1 + draw.below(4)),
            keeps_converted: [(); 4].map(|()| draw.once_in(2)),
            rows: draw.of(&[1, 17, 100, 256, 2048]),
            head_groups: draw.of(&[1, 2]),
            paged_caches: draw.part(),
            paged_encoder_caches: draw.part(),
            keeps_components: draw.once_in(5),
        },
    };
    let start = match checkpoint.variant.needs_image() {
        true => Start::Image,
        false if draw.once_in(3) => Start::Video { strength: draw.of(&[1.0, 0.8]) },
        false => Start::Text,
    };
    let counts = FrameCounts::of(checkpoint, start);
    let config = &checkpoint.transformer.config;
    // Learned positions are for one size.
    let (height, width) = match config.use_learned_positional_embeddings {
        true => (8 * config.sample_height, 8 * config.sample_width),
        false => {
            let most = if is_heavy { 2 } else { 4 };
            (16 * (1 + draw.below(most)), 16 * (1 + draw.below(most)))
        }
    };
    Asked {
        start,
        frames: counts.nth(draw.below(if is_heavy { 3 } else { 5 })),
        height,
        width,
        steps: 2 + draw.below(4),
        uses_dpm: draw.once_in(2),
        guidance: draw.of(&[1.0, 6.0, 6.0]),
        dtype: draw.of(&[DType::F32, DType::BF16, DType::F16]),
        tile: if draw.once_in(3) { Some(draw.of(&tiles)) } else { None },
        encode_tile: if draw.once_in(3) { Some(draw.of(&tiles)) } else { None },
        threads: 1 + draw.below(3),
        how,
    }
}

impl Asked {
    fn job(&self, checkpoint: &Checkpoint) -> Job {
        let request = Request {
            start: self.start,
            frames: Some(self.frames),
            height: Some(self.height),
            width: Some(self.width),
            steps: self.steps,
            guidance: self.guidance,
            scheduler: Some(if self.uses_dpm { SchedulerKind::Dpm } else { SchedulerKind::Ddim }),
            dtype: self.dtype,
            tiling: TilingChoice::Off,
            ..Request::new("A panda plays the guitar in a forest of bamboo.")
        };
        let (job, _) = Job::new(checkpoint, &request).unwrap();
        let tiling =
            |tile: Option<(usize, usize)>| tile.map(|(height, width)| Tiling { height, width });
        // Each direction by itself, as where the planner decides.
        let encode_tiling = tiling(self.encode_tile).filter(|_| job.given_frames > 0);
        Job { tiling: tiling(self.tile), encode_tiling, ..job }
    }

    fn plan(&self, checkpoint: &Checkpoint) -> Answer {
        let job = self.job(checkpoint);
        match self.how {
            How::Searched { offload, share } => self.search(checkpoint, &job, offload, share),
            How::Drawn { .. } => {
                let schedule = self.schedule(checkpoint);
                let profile = profile(self.threads);
                let plan = Plan::new(checkpoint, &job, &schedule, None, &profile).unwrap();
                Answer { schedule, budget_bytes: plan.device_bytes(), plan }
            }
        }
    }

    fn search(&self, checkpoint: &Checkpoint, job: &Job, offload: Offload, share: f64) -> Answer {
        let large = target(1 << 40, self.threads);
        let least = plan_least(checkpoint, job, offload, &large).unwrap().plan.device_bytes();
        let Ok(most) = replan(checkpoint, job, offload, &large, None).unwrap() else {
            panic!("{self:?} does not fit a large card");
        };
        let most = most.plan.device_bytes().max(least);
        let budget_bytes = least + ((most - least) as f64 * share) as u64;
        let target = target(budget_bytes, self.threads);
        match replan(checkpoint, job, offload, &target, None).unwrap() {
            Ok(planned) => Answer { schedule: planned.schedule, plan: planned.plan, budget_bytes },
            Err(refused) => panic!(
                "{self:?} does not fit {budget_bytes} bytes, and its least are {least}: {}",
                EngineError::from(refused)
            ),
        }
    }

    fn schedule(&self, checkpoint: &Checkpoint) -> Schedule {
        let How::Drawn {
            stays,
            slots,
            keeps_converted,
            rows,
            head_groups,
            paged_caches,
            paged_encoder_caches,
            keeps_components,
        } = self.how
        else {
            panic!("{self:?} is to be searched for");
        };
        let [text, denoise, decode] = weight_bytes(checkpoint, self.dtype);
        let weights = [text, denoise, decode, encoder_bytes(checkpoint, self.dtype)];
        let streaming = |phase: usize| Streaming {
            resident_bytes: (weights[phase] as f64 * stays[phase]) as u64,
            slots: slots[phase],
            keeps_converted: keeps_converted[phase],
        };
        let config = &checkpoint.vae.config;
        let of = |caches: usize, share: f64| (caches as f64 * share) as usize;
        Schedule {
            text: streaming(0),
            conditioning: Streaming::through(slots[4]),
            denoise: streaming(1),
            transformer: TransformerSchedule { rows, head_groups },
            decode: streaming(2),
            decoder: DecodeSchedule { paged_caches: of(config.decoder_caches(), paged_caches) },
            encode: streaming(3),
            encoder: EncodeSchedule {
                paged_caches: of(config.encoder_caches(), paged_encoder_caches),
            },
            keeps_components,
            ..Schedule::resident()
        }
    }
}

/// Where a child finds its model and what it is asked, and leaves its answers.
const FOLDER_OF_CHILD: &str = "VIDFIT_TEST_CARD_FOLDER";
const CHILD: &str = "plans_for_another_process";

#[test]
fn plans_for_another_process() {
    let Some(folder) = std::env::var_os(FOLDER_OF_CHILD).map(PathBuf::from) else {
        println!("skipped: this is the part of other tests that runs in a process of its own");
        return;
    };
    let asked = std::fs::read(folder.join("asked.json")).unwrap();
    let (model, asked): (String, Vec<Asked>) = serde_json::from_slice(&asked).unwrap();
    let checkpoint = open(&model, Some(&folder.join("checkpoint")));
    let answers: Vec<Answer> = asked.iter().map(|asked| asked.plan(&checkpoint)).collect();
    std::fs::write(folder.join("answers.json"), serde_json::to_vec(&answers).unwrap()).unwrap();
}

/// Has another process plan, which has configurations and headers, but no weights.
fn plan_elsewhere(model: &str, asked: &[Asked]) -> Vec<Answer> {
    let folder = tempfile::tempdir().unwrap();
    if model != "heavy" {
        let from = fixtures().join("checkpoints").join(Case::named(model).checkpoint);
        copy_without_weights(&from, &folder.path().join("checkpoint"));
    }
    let text = serde_json::to_vec(&(model, asked)).unwrap();
    std::fs::write(folder.path().join("asked.json"), text).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture"])
        .env(FOLDER_OF_CHILD, folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let answers = std::fs::read(folder.path().join("answers.json")).unwrap();
    serde_json::from_slice(&answers).unwrap()
}

/// Runs an answer on a card that has exactly what it takes, and on one that has a unit less.
fn check(name: &str, checkpoint: &Checkpoint, asked: &Asked, answer: Answer) {
    let Answer { schedule, plan, budget_bytes } = answer;
    assert!(plan.device_bytes() <= budget_bytes, "{name}: over its budget of {budget_bytes}");
    let job = asked.job(checkpoint);
    let target = target(budget_bytes, asked.threads);
    let prepared = Planned::new(job, schedule, plan, Offload::Auto, &target);
    let needed = prepared.plan.device_bytes();

    let less = card(needed - prepared.plan.layout.trace.alignment, asked.threads, 1);
    let extra = Extra {
        listener: Some(Box::new(|news| panic!("something has run: {news:?}"))),
        ..Extra::default()
    };
    let refused = run(checkpoint, &prepared, &less, extra).err();
    assert!(matches!(refused, Some(EngineError::DoesNotFit { .. })), "{name}: {refused:?}");
    assert_eq!(less.counters().reservations, [0; 0], "{name}");

    let exact = card(needed, asked.threads, needed);
    let generated = run(checkpoint, &prepared, &exact, Extra::default())
        .unwrap_or_else(|error| panic!("{name}: {error}; {:?}", exact.violations()));
    assert_as_planned(name, &prepared.plan, &generated, &exact);
    assert_copied_as_planned(name, &prepared.plan, &generated, &exact);
    let host_bytes = prepared.plan.layout.trace.host_peak_bytes;
    assert_eq!(generated.measured.host_peak_bytes, host_bytes, "{name}: host memory");
    // Tiles are the job's, so that they are the same on any device.
    Bits::of(&generated).assert_same(&Bits::on_cpu(checkpoint, &prepared.job), name);
}

fn random_jobs_take_what_was_planned(model: &str) {
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse::<u64>().unwrap());
    let checkpoint = open(model, None);
    let mut numbers = Draw(seed ^ model.bytes().map(u64::from).sum::<u64>() << 32);
    let asked: Vec<Asked> =
        (0..CONFIGURATIONS).map(|_| draw(&mut numbers, model, &checkpoint)).collect();
    let answers = plan_elsewhere(model, &asked);
    assert_eq!(answers.len(), asked.len());
    for (number, (asked, answer)) in asked.iter().zip(answers).enumerate() {
        let name = format!("{model}, {SEED}={seed}, number {number}: {asked:?}");
        check(&name, &checkpoint, asked, answer);
    }
}

#[test]
fn random_jobs_of_2b_take_what_was_planned() {
    random_jobs_take_what_was_planned(MODELS[0]);
}

#[test]
fn random_jobs_of_5b_take_what_was_planned() {
    random_jobs_take_what_was_planned(MODELS[1]);
}

#[test]
fn random_jobs_of_1_5_take_what_was_planned() {
    random_jobs_take_what_was_planned(MODELS[2]);
}

#[test]
fn random_jobs_of_5b_i2v_take_what_was_planned() {
    random_jobs_take_what_was_planned(MODELS[4]);
}

#[test]
fn random_jobs_of_1_5_i2v_take_what_was_planned() {
    random_jobs_take_what_was_planned(MODELS[5]);
}

#[test]
fn random_jobs_of_a_heavy_model_take_what_was_planned() {
    random_jobs_take_what_was_planned(MODELS[3]);
}
