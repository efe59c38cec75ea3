//! Weights that stay on the device from one video to the next, where the user lets them.

use crate::device::Opened;
use crate::exit::Failure;
use crate::model::folder;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pipelines::{Pipeline, Pipelines, Task, WarmSettings};
use vidfit_engine::request::Job;
use vidfit_engine::settings::Settings;

/// What the settings let stay.
///
/// # Errors
/// Bad input if they are wrong.
pub fn settings() -> Result<WarmSettings, Failure> {
    let settings = Settings::load()?;
    let pipelines = settings.read("warm_pipelines")?.unwrap_or(0);
    let idle_unload = settings.read("idle_unload_seconds")?.map(Duration::from_secs);
    Ok(WarmSettings { pipelines, idle_unload })
}

/// The pipelines on a device whose weights may stay.
pub struct Warm {
    pipelines: Pipelines,
    /// By the folder of the model and the task.
    loaded: RefCell<BTreeMap<(PathBuf, String), Loaded>>,
}

/// A pipeline, and what its model was when it was loaded.
struct Loaded {
    identity: String,
    pipeline: Rc<Pipeline>,
}

impl Warm {
    /// None, if nothing is to stay.
    pub fn on(opened: &mut Opened, settings: WarmSettings) -> Option<Warm> {
        if settings.pipelines == 0 {
            return None;
        }
        let pipelines = Pipelines::new(opened.device.clone(), settings);
        opened.pipelines = Some(pipelines.clone());
        Some(Warm { pipelines, loaded: RefCell::default() })
    }

    /// The pipeline for a job.
    ///
    /// # Errors
    /// If the model cannot be loaded so.
    pub fn pipeline(&self, checkpoint: &Checkpoint, job: &Job) -> Result<Rc<Pipeline>, Failure> {
        let task = Task::of(job.start);
        let mut loaded = self.loaded.borrow_mut();
        let (key, identity) = ((folder(checkpoint), task.to_string()), checkpoint.identity());
        match loaded.get(&key) {
            Some(loaded) if loaded.identity == identity => return Ok(loaded.pipeline.clone()),
            _ => {}
        }
        let pipeline = self.pipelines.load_pipeline(checkpoint.place.clone(), task)?;
        let pipeline = Rc::new(pipeline);
        loaded.insert(key, Loaded { identity, pipeline: pipeline.clone() });
        Ok(pipeline)
    }

    /// Lets weights go that nobody has used for as long as the settings say, and says when to ask
    /// again, if any are left.
    pub fn unload_idle(&self, now: Instant) -> Option<Instant> {
        self.pipelines.unload_idle(now)
    }
}
