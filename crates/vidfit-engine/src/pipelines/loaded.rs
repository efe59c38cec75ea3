//! A pipeline: one model for one task.

use super::choose::{PlannedJob, choose};
use super::kept::Key;
use super::{Shared, Task};
use crate::checkpoint::{Checkpoint, CheckpointFolder, Place, Variant};
use crate::error::EngineError;
use crate::generate::{self, Generated, RunOptions};
use crate::placement::{Warm, WarmWeights};
use crate::planner::{Ask, Offload, Planned, Refused, Target, replan};
use crate::request::Request;
use crate::state::RunState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use vidfit_tensor::{Error, Monitor};

/// One model, loaded for one task. Dropping it unloads it.
pub struct Pipeline {
    shared: Arc<Shared>,
    number: u64,
    task: Task,
    model: Model,
}

enum Model {
    /// Of which configurations are known, and what was opened once it was needed.
    Folder(Box<CheckpointFolder>, Mutex<Option<Arc<Checkpoint>>>),
    Open(Arc<Checkpoint>),
}

/// A job that is asked of a pipeline.
#[derive(Clone, Copy)]
pub struct JobAsk<'a> {
    /// What to make.
    pub request: &'a Request,
    /// Where weights may be.
    pub offload: Offload,
    /// The device, as if no weights were on it. What is free there now is asked of the device itself,
    /// where it knows.
    pub target: &'a Target,
    /// Where the run goes on from.
    pub state: Option<&'a RunState>,
}

/// A finished job.
pub struct Ran {
    /// What came out. The target of what was run says which weights were warm.
    pub generated: Generated,
    /// Bytes of weights that were brought to stay, before the job's first phase.
    pub loaded_bytes: u64,
    /// The time that took.
    pub load_seconds: f64,
}

impl Ran {
    /// Device memory at its fullest, as measured: the arena, the operations' scratch and all warm
    /// weights.
    pub fn peak_bytes(&self) -> u64 {
        let Planned { plan, target, .. } = &self.generated.ran;
        self.generated.measured.peak_bytes + plan.scratch_bytes + target.warm_bytes
    }
}

impl Pipeline {
    pub(super) fn of_folder(
        shared: &Arc<Shared>,
        number: u64,
        folder: CheckpointFolder,
        task: Task,
    ) -> Pipeline {
        let model = Model::Folder(Box::new(folder), Mutex::default());
        Pipeline { shared: shared.clone(), number, task, model }
    }

    pub(super) fn of_checkpoint(
        shared: &Arc<Shared>,
        number: u64,
        checkpoint: Arc<Checkpoint>,
        task: Task,
    ) -> Pipeline {
        Pipeline { shared: shared.clone(), number, task, model: Model::Open(checkpoint) }
    }

    /// What it is for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Which of the published models it is like.
    pub fn variant(&self) -> Variant {
        match &self.model {
            Model::Folder(folder, _) => folder.variant,
            Model::Open(checkpoint) => checkpoint.variant,
        }
    }

    /// Where the model's files are.
    pub fn place(&self) -> &Place {
        match &self.model {
            Model::Folder(folder, _) => &folder.place,
            Model::Open(checkpoint) => &checkpoint.place,
        }
    }

    /// The model. The first call opens it, and shares what other pipelines have open.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn checkpoint(&self) -> Result<Arc<Checkpoint>, EngineError> {
        let (folder, opened) = match &self.model {
            Model::Folder(folder, opened) => (folder, opened),
            Model::Open(checkpoint) => return Ok(checkpoint.clone()),
        };
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checkpoint) = &*opened {
            return Ok(checkpoint.clone());
        }
        let checkpoint = Arc::new(folder.open(&self.shared.library)?);
        *opened = Some(checkpoint.clone());
        Ok(checkpoint)
    }

    /// Plans a job: with weights that are on the device, or will be before it begins, as far as the
    /// settings and the memory allow it. That it does not fit is no error, but an answer.
    ///
    /// # Errors
    /// [`EngineError::Request`] if the model cannot make it, or the request is for another task; as
    /// [`Pipeline::checkpoint`].
    pub fn plan(&self, ask: &JobAsk<'_>) -> Result<Result<PlannedJob, Refused>, EngineError> {
        let checkpoint = self.checkpoint()?;
        let task = Task::of(ask.request.start);
        if task != self.task {
            return Err(EngineError::Request(format!(
                "this pipeline is for {}, and the request is for {task}",
                self.task
            )));
        }
        let JobAsk { request, offload, state, target } = *ask;
        let ask = Ask { checkpoint: &checkpoint, request, offload, target: &self.now(target) };
        match from_state(&ask, state)? {
            Ok(planned) => self.with_warm(planned, state).map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// Plans a job that was planned without any warm weights, with them. Nothing of the picture
    /// changes.
    ///
    /// # Errors
    /// As [`Pipeline::checkpoint`], and whatever keeps the job from being planned.
    pub fn with_warm(
        &self,
        planned: Planned,
        state: Option<&RunState>,
    ) -> Result<PlannedJob, EngineError> {
        let (checkpoint, shared) = (self.checkpoint()?, &self.shared);
        let cold = Planned { target: self.now(&planned.target), ..planned };
        choose(&checkpoint, cold, state, shared.settings.pipelines, |own, most, room| {
            shared.kept().staying(self.number, own, most, room)
        })
    }

    /// The device as if no weights were on it, with what is free now where it knows.
    fn now(&self, target: &Target) -> Target {
        let shared = &self.shared;
        let free_bytes = shared.device.free_bytes().map(|free| {
            // As it will be when the job that runs now is done.
            let held = shared.kept().bytes() + shared.arena_bytes.load(Ordering::Relaxed);
            free.saturating_add(held).saturating_add(target.overhead_bytes)
        });
        Target { free_bytes: free_bytes.unwrap_or(target.free_bytes), ..target.clone() }
    }

    /// Plans a job and runs it, see [`Pipeline::run_planned`].
    ///
    /// # Errors
    /// As [`Pipeline::plan`] and [`Pipeline::run_planned`]; [`EngineError::DoesNotFit`].
    pub fn run(&self, ask: &JobAsk<'_>, options: RunOptions<'_>) -> Result<Ran, EngineError> {
        let planned = self.plan(&JobAsk { state: options.state, ..*ask })??;
        self.run_planned(&planned, options)
    }

    /// Runs what was planned: lets go of weights that are not to stay, brings those that are missing,
    /// reserves the arena, and runs the job. If the device has less memory by now, all weights go,
    /// and the job is run without, planned again if need be.
    ///
    /// `options.capacity_bytes` bounds the arena and the warm weights together; `options.replan` is
    /// not heeded.
    ///
    /// # Errors
    /// As [`generate::run`]; [`EngineError::Stopped`] if weights could not be brought.
    pub fn run_planned(
        &self,
        planned: &PlannedJob,
        mut options: RunOptions<'_>,
    ) -> Result<Ran, EngineError> {
        let checkpoint = self.checkpoint()?;
        let _turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let warmed = self.warm_up(&checkpoint, planned, options.stop);
        let mut warmed = warmed.inspect_err(|_| self.shared.kept().drop_unused())?;
        let load_seconds = began.elapsed().as_secs_f64();
        let device = &self.shared.device;

        let capacity_bytes = options.capacity_bytes;
        let mut reserve = |warmed: &Warmed| {
            let warm_bytes = self.shared.kept().bytes();
            options.capacity_bytes = capacity_bytes.saturating_sub(warm_bytes);
            // With warm weights, the way out is to do without them.
            options.replan = warm_bytes == 0;
            let planned = if warmed.is_cold { &planned.cold } else { &planned.planned };
            generate::reserve(&checkpoint, planned, device, &mut options)
        };
        let reserved = match reserve(&warmed) {
            Err(EngineError::DoesNotFit { .. } | EngineError::CannotReserve { .. })
                if self.shared.kept().bytes() > 0 =>
            {
                warmed = Warmed { is_cold: true, ..Warmed::default() };
                self.shared.kept().forget_all();
                reserve(&warmed)
            }
            other => other,
        };
        let warm_bytes = self.shared.kept().bytes();
        let result = reserved.and_then(|mut reserved| {
            reserved.target.warm_bytes = warm_bytes;
            self.shared.arena_bytes.store(reserved.plan.device_bytes(), Ordering::Relaxed);
            let warm = warmed.warm(planned);
            generate::run_reserved(&checkpoint, reserved, device, options, &warm)
        });
        device.release();
        self.shared.arena_bytes.store(0, Ordering::Relaxed);
        self.shared.kept().used(self.number, &warmed.weights, Instant::now(), false);
        Ok(Ran { generated: result?, loaded_bytes: warmed.loaded_bytes, load_seconds })
    }

    /// Makes room, and brings the weights that are planned to be there. If the device has no memory
    /// for them, all go.
    fn warm_up(
        &self,
        checkpoint: &Checkpoint,
        planned: &PlannedJob,
        stop: &AtomicBool,
    ) -> Result<Warmed, EngineError> {
        let device = &self.shared.device;
        self.shared.kept().make_room(self.number, &planned.keys(), &planned.staying);
        let mut warmed = Warmed::default();
        for (part, key) in &planned.own {
            let there = self.shared.kept().get(key);
            let weights = match there {
                Some(weights) => weights,
                None => {
                    let (stored, blocks) = part.of(checkpoint);
                    let dtype = planned.planned.job.dtype;
                    match WarmWeights::load(device, stored, dtype, &blocks, &Stop(stop)) {
                        Ok(weights) => {
                            warmed.loaded_bytes += weights.bytes();
                            Arc::new(weights)
                        }
                        Err(Error::Device { .. }) => {
                            self.shared.kept().forget_all();
                            return Ok(Warmed { is_cold: true, ..Warmed::default() });
                        }
                        Err(source @ Error::Transfer { .. }) => {
                            return Err(EngineError::Stopped { source, state: None });
                        }
                        Err(other) => return Err(other.into()),
                    }
                }
            };
            warmed.weights.push((key.clone(), weights));
        }
        self.shared.kept().used(self.number, &warmed.weights, Instant::now(), true);
        Ok(warmed)
    }

    /// The names of the components that both have.
    pub(super) fn in_common(&self, other: &Pipeline) -> Vec<&'static str> {
        match (&self.model, &other.model) {
            (Model::Folder(ours, _), Model::Folder(theirs, _)) => ours.in_common(theirs),
            _ => Vec::new(),
        }
    }

    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.kept().forget(self.number);
    }
}

/// Plans what is asked for, from where `state` left off.
fn from_state(
    ask: &Ask<'_>,
    state: Option<&RunState>,
) -> Result<Result<Planned, Refused>, EngineError> {
    let whole = match ask.plan()? {
        Ok(planned) if state.is_some() => planned,
        other => return Ok(other),
    };
    let rest = replan(ask.checkpoint, &whole.job, ask.offload, ask.target, state)?;
    Ok(rest.map(|rest| whole.by(rest)))
}

/// What a job has on the device when it begins.
#[derive(Default)]
struct Warmed {
    weights: Vec<(Key, Arc<WarmWeights>)>,
    loaded_bytes: u64,
    /// Whether there is nothing, although something was planned.
    is_cold: bool,
}

impl Warmed {
    fn warm(&self, planned: &PlannedJob) -> Warm {
        let weights = self.weights.iter().map(|(_, weights)| weights.clone());
        planned.own.iter().map(|(part, _)| *part).zip(weights).collect()
    }
}

/// Stops when told to, and counts nothing.
struct Stop<'a>(&'a AtomicBool);

impl Monitor for Stop<'_> {
    fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    fn unit_done(&self) -> Result<(), Error> {
        self.check()
    }
}
