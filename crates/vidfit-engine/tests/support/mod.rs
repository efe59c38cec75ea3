//! Fixtures, and running cases against them.
#![allow(dead_code)] // Each test file uses its part.
// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

pub mod bed;
pub mod card;
pub mod job_bed;
pub mod parity;
pub mod published;
pub mod saboteur;
pub mod sparse;
pub mod warm;

use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_cogvideox::guidance::GuidanceCurve;
use vidfit_cogvideox::scheduler::SchedulerKind;
use vidfit_cpu::CpuDevice;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, Generated, KeptTensors, RunOptions};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Planned, Target};
use vidfit_engine::request::{Job, Request, Start, TilingChoice, tiles};
use vidfit_engine::safetensors::{SafetensorsFile, StoredDtype};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::{DType, Device};

/// The folder of the fixtures. Where the tests are run without cargo, perhaps on another machine than they
/// were built on, the variable says where the crate is.
pub fn fixtures() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    here.join("../../tests/reference/fixtures")
}

/// A tensor of a fixture, widened.
pub fn tensor(file: &SafetensorsFile, name: &str) -> (Vec<usize>, Vec<f32>) {
    let info = file.info(name).unwrap();
    let bytes = file.bytes(name).unwrap();
    let half = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    let values = match info.dtype {
        StoredDtype::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        StoredDtype::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_bits(half(b)).to_f32()).collect()
        }
        StoredDtype::BF16 => {
            bytes.chunks_exact(2).map(|b| half::bf16::from_bits(half(b)).to_f32()).collect()
        }
        StoredDtype::I64 => bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32)
            .collect(),
        other => panic!("{name} is {other:?}"),
    };
    (info.shape.clone(), values)
}

/// ‖a − b‖ / ‖b‖.
pub fn distance(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b)));
    let norm = square(&mut theirs.iter().map(|&b| f64::from(b)));
    assert!(error.is_finite(), "the result is not finite");
    (error / norm).sqrt()
}

/// The largest difference.
pub fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).fold(0.0, |most, (a, b)| {
        assert!(a.is_finite(), "the result is not finite");
        most.max((a - b).abs())
    })
}

/// The reference's own distance in a half type.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct OwnDistance {
    pub prompt_embeds: f64,
    pub latents: f64,
    pub frames: f64,
}

/// A pipeline case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub checkpoint: String,
    pub prompt: String,
    pub negative_prompt: String,
    pub num_frames: usize,
    pub height: usize,
    pub width: usize,
    pub steps: usize,
    pub guidance: f64,
    pub seed: u64,
    pub scheduler: String,
    pub dynamic_cfg: bool,
    pub tiling: bool,
    pub valid_request: bool,
    #[serde(default)]
    pub start: Option<String>,
    pub strength: Option<f64>,
    /// The frames that are stored, if not all.
    pub stored_frames: Option<Vec<usize>>,
    /// Frames, height, width and channels.
    pub frames_shape: Vec<usize>,
    pub distance_bf16: Option<OwnDistance>,
    pub distance_f16: Option<OwnDistance>,
}

impl Case {
    /// Every case, in the order of their names.
    pub fn all() -> Vec<Case> {
        let mut cases: Vec<Case> = std::fs::read_dir(fixtures().join("cases"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(cases.len() >= 10, "the fixtures are missing");
        cases
    }

    /// The case called `name`.
    pub fn named(name: &str) -> Case {
        Case::all().into_iter().find(|case| case.name == name).unwrap()
    }

    /// The reference's results.
    pub fn expected(&self) -> SafetensorsFile {
        let path = fixtures().join("cases").join(format!("{}.safetensors", self.name));
        SafetensorsFile::open(path).unwrap()
    }

    /// The reference's embeddings of the prompt, which are stored once for all cases of a
    /// checkpoint.
    pub fn expected_embeds(&self) -> Vec<f32> {
        let text_encoder = |case: &Case| case.checkpoint.trim_end_matches("-i2v").to_owned();
        for case in Case::all().iter().filter(|case| text_encoder(case) == text_encoder(self)) {
            let expected = case.expected();
            let stored = [
                (&case.prompt, "prompt_embeds"),
                (&case.negative_prompt, "negative_prompt_embeds"),
            ];
            for (prompt, name) in stored {
                if *prompt == self.prompt && expected.contains(name) {
                    return tensor(&expected, name).1;
                }
            }
        }
        panic!("no case stores the embeddings of {}", self.name);
    }

    /// Of all frames those that the case stores.
    pub fn stored(&self, frames: &[f32]) -> Vec<f32> {
        let Some(stored) = &self.stored_frames else { return frames.to_vec() };
        let frame: usize = self.frames_shape[1..].iter().product();
        stored.iter().flat_map(|number| &frames[number * frame..][..frame]).copied().collect()
    }

    /// What the case starts from.
    pub fn start(&self) -> Start {
        match (self.start.as_deref(), self.strength) {
            (None, None) => Start::Text,
            (Some("image"), None) => Start::Image,
            (Some("video"), Some(strength)) => Start::Video { strength },
            other => panic!("a start from {other:?}"),
        }
    }

    /// The reference's own distance in `dtype`, where the case has it.
    pub fn own_distance(&self, dtype: DType) -> Option<OwnDistance> {
        match dtype {
            DType::F32 => None,
            DType::BF16 => self.distance_bf16,
            DType::F16 => self.distance_f16,
        }
    }

    /// The case's checkpoint.
    pub fn open(&self) -> Checkpoint {
        Checkpoint::open(&fixtures().join("checkpoints").join(&self.checkpoint)).unwrap()
    }

    /// The case as a request.
    pub fn request(&self, dtype: DType) -> Request {
        Request {
            negative_prompt: self.negative_prompt.clone(),
            start: self.start(),
            frames: Some(self.num_frames),
            height: Some(self.height),
            width: Some(self.width),
            steps: self.steps,
            guidance: self.guidance,
            dynamic_cfg: match self.dynamic_cfg {
                true => GuidanceCurve::Reference,
                false => GuidanceCurve::Constant,
            },
            seed: self.seed,
            scheduler: match self.scheduler.as_str() {
                "auto" => None,
                "ddim" => Some(SchedulerKind::Ddim),
                "dpm" => Some(SchedulerKind::Dpm),
                other => panic!("a scheduler called {other}"),
            },
            dtype,
            tiling: if self.tiling { TilingChoice::On } else { TilingChoice::Off },
            ..Request::new(self.prompt.clone())
        }
    }
}

/// Pixels for a job to start from: the fixtures' of its size, or others.
pub fn pixels_for(job: &Job) -> Option<Pixels> {
    let (frames, height, width) = (job.given_frames, job.height, job.width);
    let name = match job.start {
        Start::Text => return None,
        Start::Image => format!("image-{height}x{width}"),
        Start::Video { .. } => format!("video-{frames}x{height}x{width}"),
    };
    let bytes = match SafetensorsFile::open(fixtures().join(format!("inputs/{name}.safetensors"))) {
        Ok(file) => file.bytes("pixels").unwrap().to_vec(),
        Err(_) => (0..frames * height * width * 3).map(|n| (n * n / 7 % 253) as u8).collect(),
    };
    let frames = bytes.chunks_exact(height * width * 3).map(Arc::from).collect();
    Some(Pixels::new(height, width, frames).unwrap())
}

/// Plans and runs a request on the CPU, with poisoned memory. The plan is kept to the byte: see
/// [`vidfit_engine::generate::run`].
pub fn run(checkpoint: &Checkpoint, request: &Request, threads: usize) -> (Plan, Generated) {
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(threads).unwrap());
    run_on(checkpoint, request, device)
}

/// As [`run`], on any device.
pub fn run_on(
    checkpoint: &Checkpoint,
    request: &Request,
    device: Arc<dyn Device>,
) -> (Plan, Generated) {
    let prepared = generate::prepare(checkpoint, request, &*device, u64::MAX).unwrap();
    let generated = run_prepared(checkpoint, &prepared, device);
    (prepared.plan, generated)
}

/// Runs what was planned, in exactly the planned bytes.
pub fn run_prepared(
    checkpoint: &Checkpoint,
    prepared: &Planned,
    device: Arc<dyn Device>,
) -> Generated {
    let stop = AtomicBool::new(false);
    let pixels = pixels_for(&prepared.job);
    let options = RunOptions {
        stop: &stop,
        listener: Box::new(|_| {}),
        keep_tensors: true,
        capacity_bytes: prepared.plan.device_bytes(),
        poison: true,
        pixels: pixels.as_ref(),
        state: None,
        replan: false,
        keep: None,
    };
    generate::run(checkpoint, prepared, &device, options).unwrap()
}

/// A plan for a job that no request makes.
pub fn prepare_job(checkpoint: &Checkpoint, job: Job, device: &dyn Device) -> Planned {
    let schedule = Schedule::plain(device.profile());
    let plan = Plan::new(checkpoint, &job, &schedule, None, device.profile()).unwrap();
    let target = Target::of_device(device, u64::MAX);
    Planned::new(job, schedule, plan, Offload::Auto, &target)
}

/// What [`run`] keeps.
pub fn kept(generated: &Generated) -> &KeptTensors {
    generated.tensors.as_ref().unwrap()
}

/// The job of a request.
pub fn job(checkpoint: &Checkpoint, request: &Request) -> Job {
    let (job, _) = Job::new(checkpoint, request).unwrap();
    match request.tiling {
        TilingChoice::On => job.with_tiles(tiles(checkpoint, request).unwrap()),
        _ => job,
    }
}
