//! A video in the making: a planned job is run, its state is kept, and its files are written.

use super::Company;
use super::log::{MemoryLog, listener};
use super::output::{Output, save_tensors};
use crate::args::RunsFolder;
use crate::device::Opened;
use crate::exit::Failure;
use crate::human::{duration, frames, size};
use crate::progress::Shown;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, Generated, Keep, RunOptions, RunReport};
use vidfit_engine::pipeline::Origin;
use vidfit_engine::pipelines::Pipeline;
use vidfit_engine::planner::{PlanReport, Planned};
use vidfit_engine::progress::Listener;
use vidfit_engine::running::{Running, RunningJob};
use vidfit_engine::runs::{FRAMES, Run, STATE};
use vidfit_engine::state::RunState;
use vidfit_media::Written;

/// Where videos are made, and who hears of it.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// How progress is shown.
    pub shown: Shown,
    /// Set when the user wants it to stop.
    pub stop: &'a AtomicBool,
    /// The device.
    pub opened: &'a Opened,
    /// What there is of other videos.
    pub company: &'a dyn Company,
}

/// A planned job, and what it takes to run it.
pub struct Launch<'a> {
    /// When the command began.
    pub began: Instant,
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// The job and its plan.
    pub planned: &'a Planned,
    /// Whether it may be planned again if there is less memory by now.
    pub may_replan: bool,
    /// What it begins with besides the text.
    pub origin: Origin<'a>,
    /// Where weights stay on the device for the next video, if they may.
    pub pipeline: Option<&'a Pipeline>,
    /// Where the video goes.
    pub output: &'a Output,
}

impl Launch<'_> {
    /// Makes the video of a run, and keeps in its directory what the run came to. Says where the video
    /// is: an unnamed one gets its name when it is written.
    ///
    /// # Errors
    /// Whatever keeps the video from being made.
    pub fn make(&self, session: &Session<'_>, run: &Run) -> Result<(RunReport, PathBuf), Failure> {
        let (output, stop) = (self.output, session.stop);
        let generated = self.generate(session, Some(run), &mut |state| run.save(state))?;
        if run.record().keeps {
            output.keep(&run.path(FRAMES), &generated.frames, stop)?;
        }
        // The video first: whatever happens to the tensors, it is not lost.
        let written = output.write(&generated.frames, stop)?;
        if let Some(path) = &output.tensors {
            save_tensors(path, &self.planned.job, &generated)?;
        }
        if run.record().keeps && written.path.is_file() {
            run.keep_video(&written.path)?;
        }
        let report = PlanReport::of(self.checkpoint, &generated.ran);
        let report = RunReport::of_done(report, &generated);
        run.end(&report)?;
        self.say_done(session.shown, &written, &generated, Some(run));
        Ok((report, written.path))
    }

    /// Makes a video of a run's latents, and leaves the run as it is.
    ///
    /// # Errors
    /// Whatever keeps the video from being made.
    pub fn make_beside(&self, session: &Session<'_>) -> Result<(), Failure> {
        let generated = self.generate(session, None, &mut |_| Ok(()))?;
        let written = self.output.write(&generated.frames, session.stop)?;
        self.say_done(session.shown, &written, &generated, None);
        Ok(())
    }

    /// Runs the job.
    fn generate(
        &self,
        session: &Session<'_>,
        run: Option<&Run>,
        keep: &mut Keep<'_>,
    ) -> Result<Generated, EngineError> {
        let Session { shown, stop, opened, .. } = *session;
        let (planned, Origin { pixels, state, .. }) = (self.planned, self.origin);
        let Opened { device, memory_bytes, .. } = opened;
        let (began, memory_bytes) = (self.began, *memory_bytes);
        let memory = MemoryLog { shown, device: device.clone(), memory_bytes, began };
        memory.tell("before loading", None);
        let running = Running::start(RunningJob {
            model: self.checkpoint.name().to_owned(),
            device: planned.target.name.clone(),
            arena_bytes: planned.plan.device_bytes(),
            output: Some(self.output.path.clone()),
        });
        let options = RunOptions {
            stop,
            listener: logged(run, listener(shown, memory.clone(), running)),
            keep_tensors: self.output.tensors.is_some(),
            capacity_bytes: planned.target.budget_bytes(),
            poison: false,
            pixels,
            state,
            replan: self.may_replan,
            keep: Some(keep),
        };
        let generated = match self.pipeline {
            None => generate::run(self.checkpoint, planned, device, options)?,
            Some(pipeline) => {
                let warm = pipeline.with_warm(planned.clone(), state)?;
                let mut generated = pipeline.run_planned(&warm, options)?.generated;
                // Reports of such runs do not tell what was not taken.
                generated.ran.rejected.clear();
                generated
            }
        };
        memory.tell("at the end", None);
        Ok(generated)
    }

    fn say_done(&self, shown: Shown, written: &Written, generated: &Generated, run: Option<&Run>) {
        let took = self.began.elapsed();
        shown.say(&written_in_words(written, took));
        shown.event(json!({
            "event": "done",
            "run": run.map(|run| run.id().as_str()),
            "output": written.path,
            "frames": written.frames,
            "bytes": written.bytes,
            "seconds": took.as_secs_f64(),
            "planned_peak_bytes": generated.ran.plan.layout.peak_bytes,
            "measured_peak_bytes": generated.measured.peak_bytes,
        }));
    }
}

/// What was written, and when.
pub fn written_in_words(written: &Written, took: std::time::Duration) -> String {
    format!(
        "{} ({}, {}) after {}",
        written.path.display(),
        frames(written.frames as usize),
        size(written.bytes),
        duration(took)
    )
}

/// Has a run's log hear what `listener` hears.
fn logged(run: Option<&Run>, mut listener: Listener) -> Listener {
    let Some(log) = run.map(|run| run.log().clone()) else { return listener };
    Box::new(move |news| {
        log.hear(&news);
        listener(news);
    })
}

/// Ends a run: drops it if it is not to be kept, or says how to go on if it did not come to its end.
///
/// # Errors
/// That of `result`, with the command that goes on from there.
pub fn settle(
    run: Run,
    result: Result<RunReport, Failure>,
    plan: Option<&PlanReport>,
    folder: &RunsFolder,
    shown: Shown,
) -> Result<RunReport, Failure> {
    let mut failure = match result {
        Ok(report) => {
            if !run.record().keeps
                && let Err(error) = run.discard()
            {
                shown.warn(&error.to_string());
            }
            return Ok(report);
        }
        Err(failure) => failure,
    };
    if failure.is_interruption() {
        failure.message = format!("interrupted {}", how_far(&run));
    }
    let outcome = failure.outcome();
    let report = RunReport::of_plan(outcome, Some(failure.message.clone()), plan.cloned());
    // On a full disk there is no room for it; that it was stopped can be told without.
    let _ = run.end(&report);
    // Whoever gave a worker its jobs knows where they are, and goes on with them himself.
    if !failure.is_final && !matches!(shown, Shown::Job(_)) {
        failure.message += &format!("\ngo on with: {}", folder.resume_command(run.id()));
    }
    Err(failure)
}

/// `after 3 of 50 steps`.
fn how_far(run: &Run) -> String {
    let steps = run.record().steps;
    match RunState::steps_done_in(&run.path(STATE)) {
        Ok(done) if done == steps => "after the last step".into(),
        Ok(done) if done > 0 => format!("after {done} of {steps} steps"),
        _ => "before the first step was done".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use vidfit_engine::planner::{Ask, Offload, SavedPlan, Target};
    use vidfit_engine::request::Request;
    use vidfit_engine::runs::{MachineRecord, RECORD_VERSION, RunRecord, Runs, Standing, settled};
    use vidfit_tensor::Error;

    /// A run that has not done anything yet.
    fn begun(folder: &Path) -> Run {
        let fixtures = "../../tests/reference/fixtures/checkpoints/2b";
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures);
        let checkpoint = Checkpoint::open(&model).unwrap();
        let request = Request { frames: Some(9), steps: 5, ..Request::new("A panda") };
        let target = Target { free_bytes: 1 << 30, ..Target::of_card(card()) };
        let offload = Offload::Sequential;
        let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
        let Ok(planned) = ask.plan().unwrap() else { panic!("it does not fit") };
        let plan = SavedPlan::of(&checkpoint, "2b", &request, &planned);
        let record = RunRecord {
            version: RECORD_VERSION,
            vidfit: "0".into(),
            began_unix_ms: 0,
            model: "2b".into(),
            model_folder: model,
            model_identity: planned.job.model.clone(),
            request: settled(&request, &planned.job),
            steps: 5,
            frames: planned.job.frames,
            height: planned.job.height,
            width: planned.job.width,
            tiling: planned.job.tiling,
            encode_tiling: planned.job.encode_tiling,
            output: folder.join("v.gif"),
            output_is_named: true,
            fps: 8.0,
            crf: 18,
            save_tensors: None,
            machine: MachineRecord {
                device: "cpu".into(),
                threads: 1,
                vram_budget_bytes: None,
                buffer_bytes: None,
                ram_bytes: None,
                offload,
            },
            keeps: false,
            inputs: vec![],
        };
        Runs::in_folder(folder).begin(&record, &plan, None).unwrap()
    }

    fn card() -> &'static vidfit_engine::catalogue::Gpu {
        vidfit_engine::catalogue::find("RTX 3060 12GB").unwrap()
    }

    #[test]
    fn a_run_that_was_not_made_says_how_to_go_on_where_that_helps() {
        let copies = || Error::Transfer { device: "sim".into(), what: "an upload failed".into() };
        let stopped = EngineError::Stopped { source: copies(), state: None };
        let nonsense = EngineError::Run(Error::model("no numbers at all"));
        for (error, code, words, goes_on) in [
            (stopped, 1, "an upload failed, more than once", true),
            (EngineError::Interrupted, 130, "after 3 of 5 steps", true),
            (nonsense, 1, "no numbers at all", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let run = begun(folder.path());
            let state = RunState { steps_done: 3, ..RunState::default() };
            run.save(&state).unwrap();
            let id = run.id().clone();
            let runs = RunsFolder { runs: Some(folder.path().to_owned()) };
            let failure = settle(run, Err(error.into()), None, &runs, Shown::Nothing).unwrap_err();
            let message = &failure.message;
            assert_eq!(failure.code, code, "{message}");
            assert!(message.contains(words), "{message}");
            let command = format!("vidfit resume {id} --runs ");
            assert_eq!(message.contains(&command), goes_on, "{message}");
            // What was asked to be dropped at the end is not dropped before.
            let looked = runs.runs().look(&id);
            assert_eq!(looked.steps_done, 3);
            assert_eq!(looked.standing == Standing::Stopped, code == 130, "{:?}", looked.standing);
        }
    }
}
