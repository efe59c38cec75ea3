//! `vidfit generate`.

mod begin;
mod log;
mod making;
pub mod output;

pub use begin::{check_all_room, name};
pub use log::announce;
pub use making::{Making, Unmade, settle, written_in_words};

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
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::Prepared;
use vidfit_engine::pipelines::Pipeline;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, PlanReport, Planned, Refused, RunReport, SavedPlan, Target};
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
pub fn make_among_others(
    args: &GenerateArgs,
    shown: Shown,
    on: (&AtomicBool, &Opened),
    company: &dyn Company,
) -> Result<(), Failure> {
    let mut plan = None;
    let announced = if takes_demo(args) { demo::announce(shown) } else { Ok(()) };
    let made = announced.and_then(|()| {
        check_report(args)?;
        make(args, shown, &mut plan, on, company)
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
    make(args, shown, plan, (&stop, &opened), &Alone).map(drop)
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

/// A video that was made.
pub struct Made {
    /// Where it is.
    pub output: PathBuf,
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

/// Makes a video. What is planned is left in `plan`, whatever comes after.
///
/// # Errors
/// Whatever keeps it from being made.
pub fn make(
    args: &GenerateArgs,
    shown: Shown,
    plan: &mut Option<PlanReport>,
    (stop, opened): (&AtomicBool, &Opened),
    company: &dyn Company,
) -> Result<Made, Failure> {
    let began = Instant::now();
    check_names(args)?;
    // Sizes, memory and paths are checked before any work.
    let chosen = match &args.plan {
        None => choose(args, opened, plan)?,
        Some(path) => chosen_before(args, SavedPlan::load(path)?, opened, plan)?,
    };
    let checkpoint = &chosen.model.checkpoint;
    *plan = Some(chosen.report.clone());
    let output = Output::new(&args.output, checkpoint, &chosen.prepared.job)?;
    let input = chosen.input.as_ref();
    let read = |input: &Input| input.read(checkpoint, &chosen.prepared.job, stop);
    let pixels = input.map(read).transpose()?;
    chosen.prepared.job.check_pixels(pixels.as_ref())?;
    let state = company.state(checkpoint, &chosen.prepared.job);
    let pipeline = company.pipeline(checkpoint, &chosen.prepared.job)?;
    let prepared = &chosen.rest(state.as_ref())?;
    let run = begin(args, &chosen, &output, pixels.as_ref())?;
    prepared.warnings.iter().for_each(|warning| shown.warn(warning));
    name(shown, &run);
    announce(shown, prepared, &chosen.report, &output);

    let making = Making {
        shown,
        stop,
        began,
        checkpoint,
        prepared,
        report: &chosen.report,
        target: &chosen.target,
        offload: chosen.offload,
        may_replan: chosen.may_replan,
        opened,
        output: &output,
        save_tensors: args.output.save_tensors.as_deref(),
        pixels: pixels.as_ref(),
        state: state.as_ref(),
        pipeline: pipeline.as_deref(),
    };
    let mut written = PathBuf::new();
    let made = making.make(&run).map(|(report, path)| {
        written = path;
        report
    });
    let report = settle(run, made, Some(&chosen.report), &args.keep.folder, shown)?;
    if let Some(path) = &args.report {
        report.save(path)?;
    }
    Ok(Made { output: written })
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

/// A job that is to be run.
pub struct Chosen {
    /// The model that makes it.
    pub model: Model,
    /// It, its plan, and what the user should know.
    pub prepared: Prepared,
    /// Its plan, for people and programs.
    pub report: PlanReport,
    /// What to ask for to get it.
    request: Request,
    target: Target,
    /// Where weights may wait.
    offload: Offload,
    /// Whether it may be planned again at run time.
    may_replan: bool,
    /// What it starts from besides the prompt.
    input: Option<Input>,
}

impl Chosen {
    /// Checks that all that the job writes has room on the disk.
    ///
    /// # Errors
    /// Bad input if it has not.
    pub fn check_disk(&self, args: &GenerateArgs) -> Result<(), Failure> {
        let (checkpoint, job) = (&self.model.checkpoint, &self.prepared.job);
        let output = Output::new(&args.output, checkpoint, job)?;
        let (runs, tensors) = (args.keep.folder.runs(), args.output.save_tensors.as_deref());
        check_all_room(&runs, checkpoint, job, &output, tensors, args.keep.keeps()?)
    }

    /// What there is to do of the job, if it goes on from `state`.
    fn rest(&self, state: Option<&RunState>) -> Result<Prepared, Failure> {
        let mut prepared = self.prepared.clone();
        if state.is_some() {
            let (checkpoint, Prepared { job, schedule, .. }) = (&self.model.checkpoint, &prepared);
            let Target { profile, rates, .. } = &self.target;
            prepared.plan = Plan::timed(checkpoint, job, schedule, state, profile, rates)?;
        }
        Ok(prepared)
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
) -> Result<Chosen, Failure> {
    match chosen_on(opened.target(&args.machine)?, args, downloaded)? {
        Ok(chosen) => Ok(chosen),
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
) -> Result<Result<Chosen, Box<TooBig>>, Failure> {
    let (mut wanted, input, shorter) = wanted(args, target, open)?;
    let (job, _) = Job::new(wanted.checkpoint(), &wanted.request)?;
    job.check_runnable(wanted.checkpoint())?;
    let decided = match wanted.decide()? {
        Ok(decided) => decided,
        Err(refused) => return Ok(Err(Box::new(TooBig { wanted, refused }))),
    };
    let report = wanted.report(&decided);
    let model = wanted.models.swap_remove(decided.model);
    let (_, mut warnings) = Job::new(&model.checkpoint, &decided.request)?;
    warnings.extend(shorter);
    warnings.extend(slow_type(&wanted.target, decided.request.dtype));
    warnings.extend(wrong_speed(args.output.fps, &model.checkpoint));
    if let Some(what) = &decided.changed {
        warnings.push(format!("the job was changed so that it fits: {what}"));
    }
    let offload = args.machine.offload;
    if offload != Offload::Auto && wanted.target.profile.reads_host_memory {
        warnings.push(format!(
            "--offload {offload} has no meaning on the CPU, which uses weights where they lie"
        ));
    }
    let request = decided.request;
    let prepared = Prepared::new(decided.planned, warnings);
    let target = wanted.target;
    Ok(Ok(Chosen { model, prepared, report, request, target, offload, may_replan: true, input }))
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

/// The job of a saved plan, exactly, if there is room for it now. Its report is left in `plan`.
fn chosen_before(
    args: &GenerateArgs,
    mut saved: SavedPlan,
    opened: &Opened,
    plan: &mut Option<PlanReport>,
) -> Result<Chosen, Failure> {
    if let Some(prompt) = args.job.prompt() {
        saved.run.request.prompt = prompt.to_owned();
    }
    if saved.run.request.prompt.is_empty() {
        return Err(Failure::input(NO_PROMPT));
    }
    let model = downloaded(&saved.run.model)?;
    let checkpoint = &model.checkpoint;
    let prepared = saved.prepare(checkpoint, opened.device.profile())?;
    prepared.job.check_runnable(checkpoint)?;
    let keeps_tensors = args.output.save_tensors.is_some();
    let target = opened.target(&args.machine)?;
    let target = beside_results(target, checkpoint, &prepared.job, keeps_tensors);
    let report = report_now(&saved, checkpoint, &prepared, &target);
    *plan = Some(report.clone());
    check_room(&report)?;
    let (request, offload) = (saved.run.request, saved.run.offload);
    let input = Input::open(&args.job.input)?;
    Ok(Chosen { model, prepared, report, request, target, offload, may_replan: false, input })
}

/// What a saved plan takes, of what there is now. Its times are those that it was saved with.
fn report_now(
    saved: &SavedPlan,
    checkpoint: &Checkpoint,
    prepared: &Prepared,
    target: &Target,
) -> PlanReport {
    let SavedPlan { report: before, run } = saved;
    let Prepared { job, schedule, plan, .. } = prepared.clone();
    let planned = Planned { job, schedule, plan, rejected: before.rejected.clone() };
    PlanReport {
        changes_picture: before.changes_picture.clone(),
        certainty: before.certainty,
        ..PlanReport::of(checkpoint, &planned, run.offload, target)
    }
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
