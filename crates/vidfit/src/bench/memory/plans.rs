//! Plans of the published models on a card of the catalogue, without weights on the disk.

use crate::bench::holders::{Held, held_at_fullest};
use crate::exit::Failure;
use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::{Offload, Planned, Target, plan, plan_least};
use vidfit_engine::request::{Job, Request, Start, TilingChoice, tiles};

/// The card whose overhead and rates stand in the tables.
pub const CARD: &str = "RTX 4090";

/// A video to be planned; what is absent is the model's own.
#[derive(Clone, Copy, Default)]
pub struct Video {
    /// Frames.
    pub frames: Option<usize>,
    /// Height and width in pixels.
    pub size: Option<(usize, usize)>,
    /// Whether it is decoded in the reference's tiles.
    pub is_tiled: bool,
}

/// A published model, and the card without the limit of its memory.
pub struct Model {
    /// The model.
    pub checkpoint: Checkpoint,
    /// The card.
    pub target: Target,
}

impl Model {
    /// The published model.
    pub fn new(variant: Variant) -> Result<Model, Failure> {
        let gpu = catalogue::find(CARD).map_err(Failure::other)?;
        let target = Target { free_bytes: u64::MAX / 4, ..Target::of_card(gpu) };
        Ok(Model { checkpoint: Checkpoint::published(variant), target })
    }

    fn request(&self, video: Video) -> Request {
        Request {
            start: Start::usual(self.checkpoint.variant),
            frames: video.frames,
            height: video.size.map(|(height, _)| height),
            width: video.size.map(|(_, width)| width),
            dtype: self.checkpoint.variant.published_dtype(),
            tiling: if video.is_tiled { TilingChoice::On } else { TilingChoice::Off },
            ..Request::new("")
        }
    }

    /// The video as a job.
    pub fn job(&self, video: Video) -> Result<Job, Failure> {
        Ok(Job::new(&self.checkpoint, &self.request(video))?.0)
    }

    /// The plan that takes the least memory.
    pub fn least(&self, video: Video) -> Result<Planned, Failure> {
        let job = self.job(video)?;
        Ok(plan_least(&self.checkpoint, &job, Offload::Sequential, &self.target)?)
    }

    /// The fastest plan of a strategy, with as much memory as it likes.
    pub fn fastest(&self, video: Video, offload: Offload) -> Result<Planned, Failure> {
        let (job, request) = (self.job(video)?, self.request(video));
        let tiles = tiles(&self.checkpoint, &request)?;
        let planned = plan(&self.checkpoint, &job, (request.tiling, tiles), offload, &self.target)?;
        planned.map_err(|refused| vidfit_engine::EngineError::from(refused).into())
    }
}

/// What a phase holds in its plan. Offsets are chosen for the fullest phase of a job: in others the
/// arena may be in use higher up than it would have to be.
pub struct PhaseMemory {
    /// The highest byte of the arena in use.
    pub arena_bytes: u64,
    /// Weights at its fullest moment.
    pub weight_bytes: u64,
    /// All that it holds then, by kind.
    pub held: Vec<Held>,
}

impl PhaseMemory {
    /// Of a phase of this name.
    pub fn of(planned: &Planned, phase: &str) -> PhaseMemory {
        let layout = &planned.plan.layout;
        let peak = layout.phases.iter().find(|peak| peak.name == phase);
        let held = held_at_fullest(&layout.trace, phase);
        PhaseMemory {
            arena_bytes: peak.map_or(0, |peak| peak.peak_bytes),
            weight_bytes: held.iter().filter(|held| held.is_weights()).map(|held| held.bytes).sum(),
            held,
        }
    }

    /// All that is alive at its fullest moment.
    pub fn live_bytes(&self) -> u64 {
        self.held.iter().map(|held| held.bytes).sum()
    }

    /// The arena without the weights: activations, inputs, results, and gaps between them.
    pub fn activation_bytes(&self) -> u64 {
        self.arena_bytes - self.weight_bytes
    }

    /// What is alive at its fullest moment without the weights.
    pub fn live_activation_bytes(&self) -> u64 {
        self.live_bytes() - self.weight_bytes
    }
}

/// Bytes as the tables have them: in GB of 1024³.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / f64::from(1 << 30))
}

/// `49 × 480 × 720`.
pub fn video_of(job: &Job) -> String {
    format!("{} × {} × {}", job.frames, job.height, job.width)
}
