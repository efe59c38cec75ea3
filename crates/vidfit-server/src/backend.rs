//! What the server needs of the rest of the program.

use crate::media;
use crate::order::{Order, Task};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use utoipa::ToSchema;

/// The rest of the program, as the server sees it.
///
/// All methods may block: the server calls them where that is no harm, and never more than a few at
/// a time. None of their messages needs to hide paths; the server takes folders out of everything
/// that it tells clients.
pub trait Backend: Send + Sync + 'static {
    /// The models that an order can name, the default first.
    fn models(&self) -> Vec<Model>;

    /// The devices, with what is free now. This must not open them.
    fn gpus(&self) -> Vec<Gpu>;

    /// The presets that an order can name.
    fn presets(&self) -> Vec<Preset>;

    /// Decides everything that an order leaves open, or refuses it. What is accepted here should run.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] for what cannot be made, or does not fit; of the code `disk_full`, if there is no
    /// room on the disk for it now.
    fn settle(&self, order: &Order, reference: Option<&Reference>) -> Result<Settled, Refusal>;

    /// What `vidfit plan --json` prints for the order, were it for `task`; also for a job that does
    /// not fit (`"fits": false`).
    ///
    /// # Errors
    ///
    /// A [`Refusal`] for what cannot be made at all.
    fn plan(&self, order: &Order, task: Task) -> Result<Value, Refusal>;

    /// What to do next for a job: asked before its first start, after every crash, and after the
    /// server was started again.
    ///
    /// The job's folder, which is there, tells: if its run is done and [`Work::video`] is there,
    /// [`Next::Done`]; if there is a run directory, the words of `resume`; else those of `generate`.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] ends the job as failed: something is wrong with the order itself.
    fn next(&self, work: &Work<'_>) -> Result<Next, Refusal>;

    /// What the job's run says it took, once it is done.
    fn report(&self, work: &Work<'_>) -> Option<Report>;

    /// The worker process: `vidfit work --queue-dir DIR` and the machine's options. The server sets
    /// its standard streams.
    fn worker(&self, queue_dir: &Path) -> Command;

    /// Looks at an upload, which has been told to be a picture or a video by its first bytes, and
    /// decodes what is needed to believe it.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says what is wrong with it.
    fn look(&self, path: &Path, kind: ReferenceKind) -> Result<Reference, Refusal> {
        media::look(path, kind)
    }

    /// Makes a PNG of the video's first frame. `to` appears whole or not at all.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says why not.
    fn thumbnail(&self, video: &Path, to: &Path) -> Result<(), Refusal> {
        media::thumbnail(video, to)
    }

    /// Makes a GIF of the video. `to` appears whole or not at all.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says why not.
    fn gif(&self, video: &Path, to: &Path) -> Result<(), Refusal> {
        media::gif(video, to)
    }
}

/// Why something is not done, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs, such as `does_not_fit` or `unknown_model`.
    pub code: String,
    /// The field of the order that it is about.
    pub param: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal that is about no field in particular.
    pub fn new(code: &str, message: impl std::fmt::Display) -> Refusal {
        Refusal { code: code.to_owned(), param: None, message: message.to_string() }
    }

    /// The same, about `param`.
    #[must_use]
    pub fn about(self, param: &str) -> Refusal {
        Refusal { param: Some(param.to_owned()), ..self }
    }
}

/// What an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// A picture.
    Image,
    /// A video.
    Video,
}

/// What a job starts from, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Where it is now.
    pub path: PathBuf,
    /// What it is.
    pub kind: ReferenceKind,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames; 1 for a picture.
    pub frames: usize,
}

/// An order with everything decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// What the video starts from.
    pub task: Task,
    /// The model's id.
    pub model: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames.
    pub num_frames: u32,
    /// Frames per second.
    pub fps: f64,
    /// Denoising steps.
    pub num_inference_steps: u32,
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// The seed.
    pub seed: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The plan (`PlanReport`), where one was made.
    pub plan: Option<Value>,
}

/// A job that the backend is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The job's id.
    pub id: &'a str,
    /// What was ordered.
    pub order: &'a Order,
    /// What was decided when it was accepted.
    pub settled: &'a Settled,
    /// What it starts from.
    pub reference: Option<&'a Reference>,
    /// The job's own folder.
    pub folder: &'a Path,
}

impl Work<'_> {
    /// Where the run's directory goes (`--runs`).
    pub fn runs(&self) -> PathBuf {
        self.folder.join("runs")
    }

    /// Where the video goes (`--output`).
    pub fn video(&self) -> PathBuf {
        self.folder.join("video.mp4")
    }
}

/// What to do next for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: its video is there.
    Done,
    /// This command line, without the program's name.
    Words(Vec<String>),
    /// Nothing now, though nothing is wrong with the order: why, and it is asked for again later.
    Wait(String),
}

/// What a job took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Device memory that was planned, in bytes.
    pub planned_peak_bytes: Option<u64>,
    /// Device memory that was in use at the most, in bytes.
    pub measured_peak_bytes: Option<u64>,
    /// Seconds of each phase.
    pub seconds: BTreeMap<String, f64>,
}

/// A model that an order can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// The id.
    pub id: String,
    /// When it came to be, in seconds since 1970.
    pub created: u64,
    /// Whose it is.
    pub owned_by: String,
    /// What its videos can start from.
    pub tasks: Vec<Task>,
    /// Pixels that it makes where an order says nothing.
    pub width: u32,
    /// Pixels that it makes where an order says nothing.
    pub height: u32,
    /// Frames that it makes where an order says nothing.
    pub num_frames: u32,
    /// Frames per second.
    pub fps: f64,
    /// Steps that it takes where an order says nothing.
    pub num_inference_steps: u32,
    /// Guidance that it takes where an order says nothing.
    pub guidance_scale: f64,
    /// Whether its files are on this machine.
    pub available: bool,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gpu {
    /// As options name it: `cuda:0`, `cpu`, `sim:8GB`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether jobs run on it.
    pub used: bool,
    /// All of its memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What is free of it now.
    pub free_bytes: Option<u64>,
    /// What jobs may take of it.
    pub budget_bytes: Option<u64>,
}

/// A preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Denoising steps, where it says so.
    pub num_inference_steps: Option<u32>,
    /// Guidance, where it says so.
    pub guidance_scale: Option<f64>,
}
