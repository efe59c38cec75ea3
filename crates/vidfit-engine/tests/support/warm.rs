//! Pipelines on a simulated card that keeps weights, held to their plans.

use super::card::{Bits, card, profile, target};
use super::{Case, pixels_for};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_cpu::{Counters, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::RunOptions;
use vidfit_engine::pipelines::{JobAsk, Pipeline, Pipelines, PlannedJob, Ran, Task, WarmSettings};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::placement::{Part, warm_bytes};
use vidfit_engine::planner::{Offload, PlanReport, Target};
use vidfit_engine::request::{Request, TilingChoice};
use vidfit_tensor::DType;

/// A card with a good deal more than anything here takes.
pub const LARGE: u64 = 256 << 20;

pub fn keeps(pipelines: usize) -> WarmSettings {
    WarmSettings { pipelines, idle_unload: None }
}

/// A small job of the 5b model.
pub fn request() -> Request {
    Request {
        frames: Some(9),
        height: Some(16),
        width: Some(16),
        steps: 3,
        tiling: TilingChoice::Off,
        ..Case::named("5b-dpm").request(DType::F16)
    }
}

/// Bytes that parts of a model take on a card.
pub fn bytes_of(checkpoint: &Checkpoint, parts: impl IntoIterator<Item = Part>) -> u64 {
    let of = |part: Part| {
        let (weights, blocks) = part.of(checkpoint);
        warm_bytes(weights, DType::F16, &blocks, &profile(1)).unwrap()
    };
    parts.into_iter().map(of).sum()
}

/// What a job from text uses.
pub const TEXT: [Part; 3] = [Part::TextEncoder, Part::Transformer, Part::Decoder];

pub fn options<'a>(stop: &'a AtomicBool, pixels: Option<&'a Pixels>) -> RunOptions<'a> {
    RunOptions {
        stop,
        listener: Box::new(|_| {}),
        keep_tensors: true,
        capacity_bytes: u64::MAX,
        poison: true,
        pixels,
        state: None,
        replan: false,
        keep: None,
    }
}

/// A card, and pipelines on it that are held to their plans.
pub struct Bed {
    pub sim: Arc<SimDevice>,
    pub owner: Pipelines,
    pub target: Target,
    /// The fullest that any job so far was measured.
    pub peak_bytes: u64,
}

impl Bed {
    pub fn new(free_bytes: u64, settings: WarmSettings) -> Bed {
        Bed::on(card(free_bytes, 1, 3), settings)
    }

    pub fn on(sim: Arc<SimDevice>, settings: WarmSettings) -> Bed {
        let target = target(sim.free_bytes(), 1);
        Bed { owner: Pipelines::new(sim.clone(), settings), sim, target, peak_bytes: 0 }
    }

    pub fn adopt(&self, checkpoint: &Arc<Checkpoint>) -> Pipeline {
        self.owner.adopt(checkpoint.clone(), Task::TextToVideo).unwrap()
    }

    pub fn plan(&self, pipeline: &Pipeline, request: &Request) -> PlannedJob {
        let (offload, target) = (Offload::Auto, &self.target);
        let planned = pipeline.plan(&JobAsk { request, offload, target, state: None }).unwrap();
        planned.unwrap_or_else(|refused| panic!("does not fit: {}", EngineError::from(refused)))
    }

    pub fn try_run(&self, pipeline: &Pipeline, request: &Request) -> Result<Ran, EngineError> {
        let planned = self.plan(pipeline, request);
        let pixels = pixels_for(&planned.planned.job);
        pipeline.run_planned(&planned, options(&AtomicBool::new(false), pixels.as_ref()))
    }

    /// Runs a job, and holds it to its plan and to the card's books.
    pub fn run(&mut self, pipeline: &Pipeline, request: &Request) -> (PlannedJob, Ran) {
        let planned = self.plan(pipeline, request);
        let before = self.sim.counters();
        let pixels = pixels_for(&planned.planned.job);
        let stop = AtomicBool::new(false);
        let ran = pipeline.run_planned(&planned, options(&stop, pixels.as_ref())).unwrap();
        let after = self.sim.counters();
        assert_eq!(self.sim.violations(), [""; 0]);

        // What was planned is what was measured, and what the card held.
        assert_eq!(planned.device_bytes(), ran.peak_bytes());
        self.peak_bytes = self.peak_bytes.max(ran.peak_bytes());
        assert_eq!(after.peak_held_bytes, self.peak_bytes);
        let report = PlanReport::of(&pipeline.checkpoint().unwrap(), &planned.planned);
        assert_eq!(report.peak_bytes + report.warm_bytes, planned.device_bytes());
        assert!(report.fits && report.peak_bytes <= report.budget_bytes);
        assert!(planned.device_bytes() <= self.target.budget_bytes());

        // What the plan brings is what was brought, and besides it what came to stay.
        let phases = planned.planned.plan.phases.iter();
        let uploaded: u64 = phases.map(|phase| phase.uploaded_bytes).sum();
        let counted =
            |counters: &Counters| counters.uploaded_bytes + counters.directly_uploaded_bytes;
        assert_eq!(counted(&after) - counted(&before), uploaded + ran.loaded_bytes);
        let reserved: u64 = after.warm_reservations[before.warm_reservations.len()..].iter().sum();
        assert_eq!(reserved, ran.loaded_bytes);

        // What is left is what is kept.
        assert_eq!(self.sim.held_bytes(), self.owner.warm_bytes());
        assert_eq!(self.owner.warm_bytes(), planned.planned.target.warm_bytes);
        (planned, ran)
    }
}

/// What `request` comes to without anything kept.
pub fn expected(checkpoint: &Checkpoint, request: &Request) -> Bits {
    Bits::on_cpu(checkpoint, &super::job(checkpoint, request))
}

pub fn parts(planned: &PlannedJob) -> Vec<Part> {
    planned.planned.target.warm.iter().collect()
}
