//! What a run is asked for: all that it takes to do it again.

use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::planner::Offload;
use crate::request::{Job, Request};
use serde::{Deserialize, Serialize, Serializer};
use std::path::{Path, PathBuf};
use vidfit_cogvideox::vae::Tiling;

/// The version of `request.json`: it changes when a field changes its meaning or goes.
pub const RECORD_VERSION: u32 = 1;

/// What a run is asked for, as `request.json` holds it. Nothing of it changes once the run has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The version of the program that began the run.
    pub vidfit: String,
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// The model as the user named it.
    pub model: String,
    /// The folder that this stood for.
    #[serde(serialize_with = "readable")]
    pub model_folder: PathBuf,
    /// [`Checkpoint::identity`](crate::checkpoint::Checkpoint::identity).
    pub model_identity: String,
    /// What to make, with no size and no type left open: see [`settled`].
    pub request: Request,
    /// Denoising steps in all.
    pub steps: usize,
    /// Frames that come out.
    pub frames: usize,
    /// Their height in pixels.
    pub height: usize,
    /// Their width in pixels.
    pub width: usize,
    /// The tiles to decode in that were decided on.
    pub tiling: Option<Tiling>,
    /// The tiles to encode in that were decided on.
    pub encode_tiling: Option<Tiling>,
    /// Where the video goes, from the root.
    #[serde(serialize_with = "readable")]
    pub output: PathBuf,
    /// Whether the user named that place. If not, another will do where it is taken by now.
    pub output_is_named: bool,
    /// Frames per second.
    pub fps: f64,
    /// Quality of an MP4.
    pub crf: u32,
    /// Where intermediate results go besides, if that is wanted.
    #[serde(serialize_with = "readable_if_any")]
    pub save_tensors: Option<PathBuf>,
    /// On what it was to be run.
    pub machine: MachineRecord,
    /// Whether the directory stays once the video is there.
    pub keeps: bool,
    /// The files that the video starts from, as the user named them: none for a text alone.
    #[serde(default)]
    pub inputs: Vec<PathBuf>,
}

/// The device of a run, and what of it was allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// As the command line spells it.
    pub device: String,
    /// Threads of the CPU; 0 is one for each core.
    pub threads: usize,
    /// Device memory that may be taken.
    pub vram_budget_bytes: Option<u64>,
    /// Device memory to leave to others.
    pub buffer_bytes: Option<u64>,
    /// RAM that may be taken.
    pub ram_bytes: Option<u64>,
    /// Where weights wait.
    pub offload: Offload,
}

impl RunRecord {
    /// The very job of the run, whatever memory there is now.
    ///
    /// # Errors
    /// [`EngineError::Request`] if `checkpoint` does not make of it what it made when the run began.
    pub fn job(&self, checkpoint: &Checkpoint) -> Result<Job, EngineError> {
        let (job, _) = Job::new(checkpoint, &self.request)?;
        let RunRecord { tiling, encode_tiling, .. } = *self;
        let mut tilings = [tiling, encode_tiling].into_iter().flatten();
        if let Some(problem) = tilings.find_map(|tiling| tiling.problem(&checkpoint.vae.config)) {
            return Err(EngineError::Request(problem));
        }
        let job = Job { tiling, encode_tiling, ..job };
        job.check_runnable(checkpoint)?;
        let found = (job.steps.len(), job.frames, job.height, job.width);
        match found == (self.steps, self.frames, self.height, self.width) {
            true => Ok(job),
            false => Err(EngineError::Request(
                "the run's request is not what its model makes of it".into(),
            )),
        }
    }
}

/// The request with the sizes and the type of `job`, which it led to.
pub fn settled(request: &Request, job: &Job) -> Request {
    Request {
        frames: Some(job.asked_frames()),
        height: Some(job.height),
        width: Some(job.width),
        dtype: job.dtype,
        ..request.clone()
    }
}

/// A name that is no Unicode is kept as well as Unicode can: the video is then asked for again with
/// its place.
fn readable<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn readable_if_any<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}
