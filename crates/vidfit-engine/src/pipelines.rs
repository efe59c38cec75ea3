//! Pipelines that are loaded once and used again: nothing is opened twice, and what a user lets stay
//! on the device between jobs is there for the next.
//!
//! - [`Pipelines`] owns a device. [`Pipeline`] is one model for one task: loading it reads
//!   configurations; weights are opened when it is first used.
//! - Components are shared by identity, see [`Library`]: in RAM, and on the device.
//! - `choose`: which weights a job finds on the device and leaves there. `kept`: those that are
//!   there, and who used them last.
//!
//! Without [`WarmSettings::pipelines`] nothing stays: between jobs the device holds 0 bytes.

mod choose;
mod kept;
mod loaded;
mod task;

pub use choose::PlannedJob;
pub use loaded::{JobAsk, Pipeline, Ran};
pub use task::Task;

use crate::checkpoint::{Checkpoint, CheckpointFolder, Library, Place};
use crate::error::EngineError;
use kept::Kept;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vidfit_tensor::Device;

/// What stays on the device between jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmSettings {
    /// Of how many pipelines weights stay. Those of the pipeline that was used least recently go
    /// first.
    pub pipelines: usize,
    /// After how long without a job a pipeline's weights go; never, where there is none.
    pub idle_unload: Option<Duration>,
}

/// Loaded pipelines on one device. Cloning makes another handle on the same.
#[derive(Clone)]
pub struct Pipelines {
    shared: Arc<Shared>,
}

/// What pipelines of one owner share.
struct Shared {
    device: Arc<dyn Device>,
    settings: WarmSettings,
    library: Library,
    kept: Mutex<Kept>,
    /// Held by the job that runs: a device has one arena.
    turn: Mutex<()>,
    /// What that job has reserved, scratch included.
    arena_bytes: AtomicU64,
    loaded: AtomicU64,
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipelines {
    /// An owner of pipelines on `device`, which nobody else uses.
    pub fn new(device: Arc<dyn Device>, settings: WarmSettings) -> Pipelines {
        let shared = Shared {
            device,
            settings,
            library: Library::default(),
            kept: Mutex::default(),
            turn: Mutex::default(),
            arena_bytes: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
        };
        Pipelines { shared: Arc::new(shared) }
    }

    /// Loads the model in `model`, a folder or the program, for a task. Only configurations are
    /// read: that weights are missing or broken is noticed when they are first used.
    ///
    /// # Errors
    /// [`EngineError::Checkpoint`] if a configuration is missing or wrong; [`EngineError::Request`]
    /// if the model is for other tasks, naming one that is for this.
    pub fn load_pipeline(
        &self,
        model: impl Into<Place>,
        task: Task,
    ) -> Result<Pipeline, EngineError> {
        let folder = CheckpointFolder::read(model)?;
        task.check(folder.variant)?;
        Ok(Pipeline::of_folder(&self.shared, self.next(), folder, task))
    }

    /// As [`load_pipeline`](Self::load_pipeline), for a model that is to share components with
    /// `base`. What is the same in both is opened once; what differs is the model's own.
    ///
    /// # Errors
    /// As [`load_pipeline`](Self::load_pipeline), and [`EngineError::Request`] if nothing is the
    /// same, or `base` is loaded elsewhere.
    pub fn load_shared_pipeline(
        &self,
        model: impl Into<Place>,
        task: Task,
        base: &Pipeline,
    ) -> Result<Pipeline, EngineError> {
        let pipeline = self.load_pipeline(model, task)?;
        let refuse = |why: &str| {
            let (ours, theirs) = (pipeline.place().path(), base.place().path());
            let (ours, theirs) = (ours.display(), theirs.display());
            EngineError::Request(format!("{ours} shares nothing with {theirs}: {why}"))
        };
        if !base.is_of(&self.shared) {
            return Err(refuse("that is loaded for another device"));
        }
        match pipeline.in_common(base).is_empty() {
            true => Err(refuse("none of their components have the same files. Load it by itself")),
            false => Ok(pipeline),
        }
    }

    /// A pipeline over a checkpoint that is open already, such as one without files.
    ///
    /// # Errors
    /// [`EngineError::Request`] as [`load_pipeline`](Self::load_pipeline).
    pub fn adopt(&self, checkpoint: Arc<Checkpoint>, task: Task) -> Result<Pipeline, EngineError> {
        task.check(checkpoint.variant)?;
        Ok(Pipeline::of_checkpoint(&self.shared, self.next(), checkpoint, task))
    }

    /// Lets go of a pipeline, its files, and what of it is on the device and nobody else's. Dropping
    /// it does the same.
    pub fn unload(&self, pipeline: Pipeline) {
        drop(pipeline);
    }

    /// Lets the weights go that nobody has used for as long as the settings say, counted to `now`.
    /// To be called now and then: nothing goes by itself. Says when to call it next, if anything is
    /// left.
    pub fn unload_idle(&self, now: Instant) -> Option<Instant> {
        let after = self.shared.settings.idle_unload?;
        let mut kept = self.shared.kept();
        kept.forget_idle(now, after);
        kept.least_recently_used().map(|used| used + after)
    }

    /// Bytes of the device that weights hold between jobs.
    pub fn warm_bytes(&self) -> u64 {
        self.shared.kept().bytes()
    }

    /// The components that are open.
    pub fn library(&self) -> &Library {
        &self.shared.library
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.shared.device
    }

    fn next(&self) -> u64 {
        self.shared.loaded.fetch_add(1, Ordering::Relaxed)
    }
}
