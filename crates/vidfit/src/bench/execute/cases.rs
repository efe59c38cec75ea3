//! The cases: phases of the published models, at their real widths, cut to what a CPU computes in
//! minutes.

use super::phase::Kind;
use vidfit_cogvideox::transformer::TransformerSchedule;
use vidfit_cogvideox::vae::{DecodeSchedule, Tiling};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::placement::Streaming;
use vidfit_engine::planner::{Offload, Target, plan_least};
use vidfit_engine::request::{Job, Request, Start, Tiles};
use vidfit_engine::schedule::Schedule;

/// A phase to be executed.
pub struct Case {
    /// What `--only` calls it.
    pub name: &'static str,
    /// The phase.
    pub kind: Kind,
    /// The model whose widths it has.
    pub variant: Variant,
    /// Transformer blocks.
    pub layers: usize,
    /// Steps of the scheduler.
    pub steps: usize,
    /// Latent frames, rows and columns.
    pub latents: [usize; 3],
    /// Whether it decodes in the reference's tiles.
    pub is_tiled: bool,
    /// Whether the decoder's caches wait in host memory between chunks.
    pub pages_caches: bool,
    /// Slots that the weights come through.
    pub slots: usize,
    /// Latent frames, rows and columns for comparing placements bit by bit.
    pub small: [usize; 3],
}

/// All cases. An odd number of latent frames goes through the decoder as three and then two at a
/// time.
pub const CASES: [Case; 5] = [
    Case {
        name: "denoise-2b",
        kind: Kind::Denoise,
        variant: Variant::TwoB,
        layers: 3,
        steps: 2,
        latents: [13, 60, 90],
        is_tiled: false,
        pages_caches: false,
        slots: 2,
        small: [3, 16, 24],
    },
    Case {
        name: "denoise-5b",
        kind: Kind::Denoise,
        variant: Variant::FiveB,
        layers: 1,
        steps: 2,
        latents: [13, 60, 90],
        is_tiled: false,
        pages_caches: false,
        slots: 2,
        small: [3, 16, 24],
    },
    // One tile of the reference's size and the beginnings of its three neighbours, so that there
    // are seams in both directions.
    Case {
        name: "decode-tile",
        kind: Kind::Decode,
        variant: Variant::TwoB,
        layers: 1,
        steps: 1,
        latents: [7, 33, 45],
        is_tiled: true,
        pages_caches: false,
        slots: 2,
        small: [5, 7, 6],
    },
    Case {
        name: "decode-tile-paged",
        kind: Kind::Decode,
        variant: Variant::FiveB,
        layers: 1,
        steps: 1,
        latents: [5, 30, 45],
        is_tiled: true,
        pages_caches: true,
        slots: 1,
        small: [5, 7, 6],
    },
    Case {
        name: "decode-untiled",
        kind: Kind::Decode,
        variant: Variant::FiveB,
        layers: 1,
        steps: 1,
        latents: [5, 60, 90],
        is_tiled: false,
        pages_caches: true,
        slots: 1,
        small: [5, 7, 6],
    },
];

/// Tiles for comparing placements: small ones whose pieces meet.
const SMALL_TILES: Tiling = Tiling { height: 48, width: 40 };

impl Case {
    /// The model, cut to the case's blocks, with random weights.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::random(self.variant, 1, self.layers, self.variant.published_dtype())
    }

    /// The case as a job.
    pub fn job(&self, checkpoint: &Checkpoint) -> Result<Job, EngineError> {
        self.job_of(checkpoint, self.latents, Tiling::reference(&checkpoint.vae.config))
    }

    /// The case as a small job.
    pub fn small_job(&self, checkpoint: &Checkpoint) -> Result<Job, EngineError> {
        self.job_of(checkpoint, self.small, SMALL_TILES)
    }

    fn job_of(
        &self,
        checkpoint: &Checkpoint,
        [frames, rows, columns]: [usize; 3],
        tiles: Tiling,
    ) -> Result<Job, EngineError> {
        let (vae, dtype) = (&checkpoint.vae.config, self.variant.published_dtype());
        let start = Start::usual(self.variant);
        let request = Request { start, steps: self.steps, dtype, ..Request::new("") };
        match self.kind {
            Kind::Denoise => {
                let request = Request {
                    frames: Some((frames - 1) * vae.temporal_compression_ratio + 1),
                    height: Some(rows * vae.spatial_ratio()),
                    width: Some(columns * vae.spatial_ratio()),
                    ..request
                };
                Ok(Job::new(checkpoint, &request)?.0)
            }
            // Only the latents matter to the decoder, and these need not be whole patches.
            Kind::Decode => Ok(Job {
                latent_frames: frames,
                latent_height: rows,
                latent_width: columns,
                tiling: self.is_tiled.then_some(tiles),
                ..Job::new(checkpoint, &request)?.0
            }),
        }
    }

    /// The job that the case is cut from: the published model's own, with all blocks, steps and
    /// frames.
    pub fn whole_job(&self, published: &Checkpoint) -> Result<Job, EngineError> {
        let dtype = self.variant.published_dtype();
        let start = Start::usual(self.variant);
        let (job, _) = Job::new(published, &Request { start, dtype, ..Request::new("") })?;
        Ok(match self.is_tiled {
            true => job.with_tiles(Tiles::both(Tiling::reference(&published.vae.config))),
            false => job,
        })
    }

    /// The schedule: the whole job's for the least memory, but for what the case says.
    pub fn schedule(
        &self,
        published: &Checkpoint,
        whole: &Job,
        target: &Target,
    ) -> Result<Schedule, EngineError> {
        let least = plan_least(published, whole, Offload::Sequential, target)?.schedule;
        let slots = self.slots;
        Ok(Schedule {
            denoise: Streaming { slots, ..least.denoise },
            decode: Streaming { slots, ..least.decode },
            decoder: match self.pages_caches {
                true => least.decoder,
                false => DecodeSchedule { paged_caches: 0 },
            },
            ..least
        })
    }

    /// Ways to place the same work, of which the last is the case's own.
    pub fn placements(own: Schedule) -> [(&'static str, Schedule); 3] {
        let through_one = Schedule {
            denoise: Streaming { slots: 1, ..own.denoise },
            decode: Streaming { slots: 1, ..own.decode },
            transformer: TransformerSchedule { rows: 100, head_groups: 2 },
            decoder: DecodeSchedule { paged_caches: 9 },
            ..own
        };
        [("all resident", Schedule::resident()), ("one slot", through_one), ("its own", own)]
    }
}
