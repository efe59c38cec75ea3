//! `vidfit generate`.

mod begin;
mod launch;
mod log;
pub mod output;

pub use begin::{check_all_room, name};
pub use launch::{Launch, Session, settle, written_in_words};
pub use log::announce;

use crate::args::GenerateArgs;
use crate::batch;
use crate::decide::{NoRoom, Wanted, budget};
use crate::demo;
use crate::device::{Opened, beside_results, open, slow_type};
use crate::exit::Failure;
use crate::human::size;
use crate::input::Input;
use crate::interrupt;
use crate::model::{Model, downloaded};
use crate::progress::Shown;
use begin::begin;
use output::{Output, absolute};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::RunReport;
use vidfit_engine::pipeline::Origin;
use vidfit_engine::pipelines::Pipeline;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{
    Alternative, Offload, PlanReport, Planned, Refused, SavedPlan, Target,
};
use vidfit_engine::request::{Job, Request};
use vidfit_engine::state::RunState;
use vidfit_media::check_file;

const NO_PROMPT: &str =
    "no prompt was given: say what the video shows, as in vidfit generate \"A panda\"";

/// Makes a video, or those of a file of prompts. A script that reads JSON is told of a failure there,
/// too, and so is the report.
pub fn run(args: GenerateArgs) -> Result<(), Failure> {
    let shown = Shown::from(args.progress);
    let mut plan = None;
    let result = match &args.prompts {
        Some(prompts) => batch::run(prompts, &args),
        None => make_alone(&args, shown, &mut plan),
    };
    result.inspect_err(|failure| tell_of(failure, &args, shown, plan))
}

/// Makes one video among others, on a device that is open. Of a failure are told whoever listens, and
/// the report.
///
/// # Errors
/// Whatever keeps the video from being made.
pub fn make_among_others(args: &GenerateArgs, session: &Session<'_>) -> Result<(), Failure> {
    let (shown, mut plan) = (session.shown, None);
    let announced = if takes_demo(args) { demo::announce(shown) } else { Ok(()) };
    let made = announced.and_then(|()| {
        check_report(args)?;
        make(args, session, &mut plan)
    });
    made.map(drop).inspect_err(|failure| tell_of(failure, args, shown, plan))
}

/// Tells a script, and the report, why there is no video.
fn tell_of(failure: &Failure, args: &GenerateArgs, shown: Shown, plan: Option<PlanReport>) {
    shown.failed(failure);
    let (Some(path), Ok(())) = (&args.report, check_names(args)) else { return };
    let report = RunReport::of_plan(failure.outcome(), Some(failure.message.clone()), plan);
    if let Err(error) = report.save(path) {
        shown.warn(&error.to_string());
    }
}

/// Checks, before any work, that the report can be written.
fn check_report(args: &GenerateArgs) -> Result<(), Failure> {
    check_names(args)?;
    match &args.report {
        Some(path) => check_file(path, REPORT_BYTES).map(drop).map_err(Failure::input),
        None => Ok(()),
    }
}

/// Makes one video. What is planned is left in `plan`, whatever comes after.
fn make_alone(
    args: &GenerateArgs,
    shown: Shown,
    plan: &mut Option<PlanReport>,
) -> Result<(), Failure> {
    check_report(args)?;
    let stop = interrupt::watch()?;
    let opened = open(&args.machine, shown)?;
    opened.announce(shown);
    if takes_demo(args) {
        demo::announce(shown)?;
    }
    let session = Session { shown, stop: &stop, opened: &opened, company: &Alone };
    make(args, &session, plan).map(drop)
}

/// Whether a video is made with the model that is built in because none is named.
pub fn takes_demo(args: &GenerateArgs) -> bool {
    args.job.model.is_none() && args.plan.is_none() && args.job.prompt().is_some()
}

/// Refuses to write one file over another that the same run reads or writes.
fn check_names(args: &GenerateArgs) -> Result<(), Failure> {
    let input = &args.job.input;
    let files = [
        ("the video", args.output.output.as_deref()),
        ("the report", args.report.as_deref()),
        ("the tensors", args.output.save_tensors.as_deref()),
        ("the plan", args.plan.as_deref()),
        ("the image to start from", input.image()),
        ("the video to start from", input.video()),
        ("the file of prompts", args.prompts.as_deref()),
    ];
    let named: Vec<_> = files.into_iter().filter_map(|(what, path)| Some((what, path?))).collect();
    for (index, (what, path)) in named.iter().enumerate() {
        for (other, its_path) in &named[index + 1..] {
            if absolute(path) == absolute(its_path) {
                let both = path.display();
                return Err(Failure::input(format!(
                    "{both} cannot be both {what} and {other}; name two files"
                )));
            }
        }
    }
    Ok(())
}

/// What a video has of others that are made with it.
pub trait Company {
    /// What a job goes on from, where a part of it is done already.
    fn state(&self, checkpoint: &Checkpoint, job: &Job) -> Option<RunState>;

    /// Where weights stay on the device for the next, if they may.
    ///
    /// # Errors
    /// If the model cannot be loaded so.
    fn pipeline(&self, checkpoint: &Checkpoint, job: &Job)
    -> Result<Option<Rc<Pipeline>>, Failure>;
}

/// A video by itself.
pub struct Alone;

impl Company for Alone {
    fn state(&self, _: &Checkpoint, _: &Job) -> Option<RunState> {
        None
    }

    fn pipeline(&self, _: &Checkpoint, _: &Job) -> Result<Option<Rc<Pipeline>>, Failure> {
        Ok(None)
    }
}

/// Makes a video, and says where it is. What is planned is left in `plan`, whatever comes after.
///
/// # Errors
/// Whatever keeps it from being made.
pub fn make(
    args: &GenerateArgs,
    session: &Session<'_>,
    plan: &mut Option<PlanReport>,
) -> Result<PathBuf, Failure> {
    let began = Instant::now();
    let Session { shown, stop, opened, company } = *session;
    check_names(args)?;
    // Sizes, memory and paths are checked before any work.
    let video = match &args.plan {
        None => choose(args, opened, plan)?,
        Some(path) => planned_before(args, SavedPlan::load(path)?, opened, plan)?,
    };
    let (checkpoint, job) = (&video.model.checkpoint, &video.planned.job);
    let report = video.report();
    *plan = Some(report.clone());
    let output = Output::new(&args.output, checkpoint, job)?;
    let pixels = video.input.as_ref().map(|input| input.read(checkpoint, job, stop)).transpose()?;
    job.check_pixels(pixels.as_ref())?;
    let state = company.state(checkpoint, job);
    let pipeline = company.pipeline(checkpoint, job)?;
    let planned = &video.left_after(state.as_ref())?;
    let run = begin(args, &video, &output, pixels.as_ref())?;
    planned.warnings.iter().for_each(|warning| shown.warn(warning));
    name(shown, &run);
    announce(shown, planned, &report, &output);

    let launch = Launch {
        began,
        checkpoint,
        planned,
        // A saved plan is run exactly, or not at all.
        may_replan: args.plan.is_none(),
        origin: Origin { pixels: pixels.as_ref(), state: state.as_ref(), warm: None },
        pipeline: pipeline.as_deref(),
        output: &output,
    };
    let mut written = PathBuf::new();
    let made = launch.make(session, &run).map(|(report, path)| {
        written = path;
        report
    });
    let report = settle(run, made, Some(&report), &args.keep.folder, shown)?;
    if let Some(path) = &args.report {
        report.save(path)?;
    }
    Ok(written)
}

/// The model, the device and the job that arguments ask for, before they are planned.
///
/// # Errors
/// Bad input if the model is not there, or cannot make that.
pub fn job_of(args: &GenerateArgs, opened: &Opened) -> Result<(Checkpoint, Target, Job), Failure> {
    let (mut wanted, ..) = wanted(args, opened.target(&args.machine)?, downloaded)?;
    let (job, _) = Job::new(wanted.checkpoint(), &wanted.request)?;
    Ok((wanted.models.swap_remove(0).checkpoint, wanted.target, job))
}

/// More than a report takes.
const REPORT_BYTES: u64 = 1 << 20;

/// A video that fits.
pub struct PlannedVideo {
    /// The model that makes it.
    pub model: Model,
    /// The job and its plan.
    pub planned: Planned,
    /// What to ask for to get it.
    request: Request,
    /// What it starts from besides the prompt.
    input: Option<Input>,
}

impl PlannedVideo {
    /// Its plan, for people and programs.
    pub fn report(&self) -> PlanReport {
        PlanReport::of(&self.model.checkpoint, &self.planned)
    }

    /// Checks that all that the job writes has room on the disk.
    ///
    /// # Errors
    /// Bad input if it has not.
    pub fn check_disk(&self, args: &GenerateArgs) -> Result<(), Failure> {
        let (checkpoint, job) = (&self.model.checkpoint, &self.planned.job);
        let output = Output::new(&args.output, checkpoint, job)?;
        check_all_room(&args.keep.folder.runs(), checkpoint, job, &output, args.keep.keeps()?)
    }

    /// What is left to do of the job, if it goes on from `state`.
    fn left_after(&self, state: Option<&RunState>) -> Result<Planned, Failure> {
        let mut planned = self.planned.clone();
        if state.is_some() {
            let Planned { job, schedule, target, .. } = &self.planned;
            let (checkpoint, profile) = (&self.model.checkpoint, &target.profile);
            planned.plan = Plan::timed(checkpoint, job, schedule, state, profile, &target.rates)?;
        }
        Ok(planned)
    }
}

/// What the arguments ask for, what it starts from, and whether that is shorter than it should be.
fn wanted(
    args: &GenerateArgs,
    target: Target,
    open: impl Fn(&str) -> Result<Model, Failure>,
) -> Result<(Wanted, Option<Input>, Option<String>), Failure> {
    if args.job.prompt().is_none() {
        return Err(Failure::input(NO_PROMPT));
    }
    let (change, keeps_tensors) = (Some(&args.fit), args.output.save_tensors.is_some());
    let mut wanted = Wanted::new(&args.job, &args.machine, change, target, keeps_tensors, open)?;
    // What a plan takes for granted has to be there now.
    wanted.request.start = args.job.input.start();
    let input = Input::open(&args.job.input)?;
    let shorter = match &input {
        Some(input) => {
            let Wanted { models, request, .. } = &mut wanted;
            let shorter = input.settle_frames(&models[0].checkpoint, request)?;
            let mut first = true;
            models.retain(|model| {
                std::mem::take(&mut first) || input.suffices(&model.checkpoint, request)
            });
            shorter
        }
        None => None,
    };
    Ok((wanted, input, shorter))
}

/// The job that the arguments ask for, changed as far as they allow if it has to be. If it does not
/// fit, the least plan is left in `plan`.
fn choose(
    args: &GenerateArgs,
    opened: &Opened,
    plan: &mut Option<PlanReport>,
) -> Result<PlannedVideo, Failure> {
    match chosen_on(opened.target(&args.machine)?, args, downloaded)? {
        Ok(video) => Ok(video),
        Err(too_big) => {
            let NoRoom { report, message } = too_big.wanted.no_room(&too_big.refused)?;
            *plan = Some(report);
            Err(Failure::no_room(message))
        }
    }
}

/// A job that does not fit.
pub struct TooBig {
    /// What was wanted.
    pub wanted: Wanted,
    /// The least that it would take.
    pub refused: Refused,
}

/// The job that the arguments ask for on `target`, changed as far as they allow if it has to be. `open`
/// finds models.
///
/// # Errors
/// Bad input if it cannot be made on any device.
pub fn chosen_on(
    target: Target,
    args: &GenerateArgs,
    open: impl Fn(&str) -> Result<Model, Failure>,
) -> Result<Result<PlannedVideo, Box<TooBig>>, Failure> {
    let (mut wanted, input, shorter) = wanted(args, target, open)?;
    let (job, _) = Job::new(wanted.checkpoint(), &wanted.request)?;
    job.check_runnable(wanted.checkpoint())?;
    let decided = match wanted.decide()? {
        Ok(decided) => decided,
        Err(refused) => return Ok(Err(Box::new(TooBig { wanted, refused }))),
    };
    let Alternative { what, request, model, mut planned } = decided;
    let model = wanted.models.swap_remove(model);
    let warnings = &mut planned.warnings;
    warnings.extend(shorter);
    warnings.extend(slow_type(&wanted.target, request.dtype));
    warnings.extend(wrong_speed(args.output.fps, &model.checkpoint));
    if !what.is_empty() {
        warnings.push(format!("the job was changed so that it fits: {what}"));
    }
    let offload = args.machine.offload;
    if offload != Offload::Auto && wanted.target.profile.reads_host_memory {
        warnings.push(format!(
            "--offload {offload} has no meaning on the CPU, which uses weights where they lie"
        ));
    }
    planned.warn_of_tiles();
    Ok(Ok(PlannedVideo { model, planned, request, input }))
}

/// What is wrong with a rate that is not the model's: things then move faster or slower than they do.
fn wrong_speed(fps: Option<f64>, checkpoint: &Checkpoint) -> Option<String> {
    let (fps, own) = (fps?, checkpoint.variant.fps());
    let speed = fps / own;
    (speed != 1.0).then(|| {
        format!(
            "{} was made for {own} frames per second; at {fps} everything moves {speed:.2} times as \
             fast",
            checkpoint.name()
        )
    })
}

/// The video of a saved plan, exactly, if there is room for it now. Its report is left in `plan`.
fn planned_before(
    args: &GenerateArgs,
    mut saved: SavedPlan,
    opened: &Opened,
    plan: &mut Option<PlanReport>,
) -> Result<PlannedVideo, Failure> {
    if let Some(prompt) = args.job.prompt() {
        saved.run.request.prompt = prompt.to_owned();
    }
    if saved.run.request.prompt.is_empty() {
        return Err(Failure::input(NO_PROMPT));
    }
    let model = downloaded(&saved.run.model)?;
    let checkpoint = &model.checkpoint;
    let mut planned = saved.prepare(checkpoint, &Target::of_device(&*opened.device, u64::MAX))?;
    planned.job.check_runnable(checkpoint)?;
    let keeps_tensors = args.output.save_tensors.is_some();
    let target = opened.target(&args.machine)?;
    let target = beside_results(target, checkpoint, &planned.job, keeps_tensors);
    // The times are those that it was saved with, and as certain as they were.
    planned.target = Target { certainty: saved.report.certainty, ..target };
    let report = PlanReport::of(checkpoint, &planned);
    *plan = Some(report.clone());
    check_room(&report)?;
    let (request, input) = (saved.run.request, Input::open(&args.job.input)?);
    Ok(PlannedVideo { model, planned, request, input })
}

/// Refuses a saved plan that there is no room for.
fn check_room(report: &PlanReport) -> Result<(), Failure> {
    match report.ram_bytes {
        _ if report.fits => Ok(()),
        Some(available_bytes) if report.peak_bytes <= report.budget_bytes => {
            let required_bytes = report.ram_peak_bytes;
            Err(EngineError::NotEnoughRam { required_bytes, available_bytes }.into())
        }
        _ => Err(Failure::no_room(format!(
            "the saved plan takes {} of memory; {} may be used on {} ({}). Make it again with \
             `vidfit plan --save`",
            size(report.peak_bytes),
            size(report.budget_bytes),
            report.device,
            budget(report)
        ))),
    }
}
