//! `vidfit resume`: a run goes on from its last step.

use crate::args::{MachineArgs, ResumeArgs};
use crate::decide::needs;
use crate::demo;
use crate::device::{Opened, beside_results, open};
use crate::exit::Failure;
use crate::generate::output::{Output, are_one_file};
use crate::generate::{
    Alone, Company, Launch, Session, announce, check_all_room, name, settle, written_in_words,
};
use crate::human::size;
use crate::interrupt;
use crate::model::Model;
use crate::progress::Shown;
use crate::say::answer;
use serde_json::json;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::RunReport;
use vidfit_engine::pipeline::Origin;
use vidfit_engine::pixels::Pixels;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, PlanReport, Planned, SavedPlan, Target, replan};
use vidfit_engine::request::Job;
use vidfit_engine::runs::{FRAMES, PLAN, Run, RunRecord};
use vidfit_engine::state::RunState;
use vidfit_media::{KeptFrames, Written};
use vidfit_tensor::Profile;

/// Goes on with a run until its video is there.
pub fn run(args: &ResumeArgs) -> Result<(), Failure> {
    let shown = Shown::from(args.progress);
    let gone_on = interrupt::watch().and_then(|stop| go_on(args, shown, &stop, None));
    gone_on.inspect_err(|failure| shown.failed(failure))
}

/// A device that is open already, on which runs go on whatever device they name.
pub struct OnDevice<'a> {
    /// It.
    pub opened: &'a Opened,
    /// What of it may be used.
    pub machine: &'a MachineArgs,
    /// What is there of other videos.
    pub company: &'a dyn Company,
}

/// Goes on with a run until its video is there: on `device`, or on the one that the run or the
/// arguments name.
///
/// # Errors
/// Whatever keeps the video from being made.
pub fn go_on(
    args: &ResumeArgs,
    shown: Shown,
    stop: &AtomicBool,
    device: Option<&OnDevice<'_>>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let runs = args.folder.runs();
    let run = runs.open(&runs.find(&args.run)?)?;
    let record = run.record().clone();
    if run.is_done() {
        return say_where(&run, args, shown);
    }
    let output = Output::of_run(&run, args.output.as_ref())?;
    let written = match kept_frames(&run, &output) {
        Some(frames) => {
            output.check(0)?;
            write_kept(&frames, &output, stop, shown)
        }
        None => Ok(None),
    };
    let report = match written.transpose() {
        Some(written) => {
            run.go_on();
            name(shown, &run);
            let plan = SavedPlan::load(&run.path(PLAN)).ok().map(|plan| plan.report);
            let made =
                written.and_then(|written| of_frames(&run, &written, plan.clone(), (shown, began)));
            settle(run, made, plan.as_ref(), &args.folder, shown)?
        }
        None => {
            let other =
                device.map_or(args.machine.clone(), |device| args.machine.on(device.machine));
            let machine = other.instead_of(&record.machine).map_err(Failure::input)?;
            let own;
            let opened = match device {
                Some(device) => device.opened,
                None => {
                    own = open(&machine, shown)?;
                    own.announce(shown);
                    &own
                }
            };
            let Model { checkpoint, .. } = &model_of(&record)?;
            let job = record.job(checkpoint)?;
            let state = run.state(&job, embeds(checkpoint, &job))?;
            let pixels = match &state {
                Some(state) if state.has_begun() => None,
                _ => given_again(&run, &job)?,
            };
            let company = device.map_or(&Alone as &dyn Company, |device| device.company);
            let pipeline = company.pipeline(checkpoint, &job)?;
            let keeps_tensors = record.save_tensors.is_some();
            let target = beside_results(opened.target(&machine)?, checkpoint, &job, keeps_tensors);
            check_all_room(&runs, checkpoint, &job, &output, record.keeps)?;
            let (planned, why_again) =
                plan(&run, checkpoint, &job, machine.offload, &target, state.as_ref())?;
            let report = PlanReport::of(checkpoint, &planned);
            run.go_on();
            name(shown, &run);
            if let Some(why) = &why_again {
                shown.say(&format!("planned again, with the same picture: {why}"));
                shown.event(json!({ "event": "planned_again", "why": why }));
                run.log().note(json!({ "event": "planned_again", "why": why }));
            }
            let done = state.as_ref().map_or(0, |state| state.steps_done);
            shown.say(&format!("going on after {done} of {} steps", record.steps));
            announce(shown, &planned, &report, &output);
            let launch = Launch {
                began,
                checkpoint,
                planned: &planned,
                may_replan: true,
                origin: Origin { pixels: pixels.as_ref(), state: state.as_ref(), warm: None },
                pipeline: pipeline.as_deref(),
                output: &output,
            };
            let session = Session { shown, stop, opened, company };
            let made = launch.make(&session, &run).map(|(report, _)| report);
            settle(run, made, Some(&report), &args.folder, shown)?
        }
    };
    if let Some(path) = &args.report {
        report.save(path)?;
    }
    Ok(())
}

/// The pixels that a run starts from and that are not encoded yet.
fn given_again(run: &Run, job: &Job) -> Result<Option<Pixels>, Failure> {
    if job.given_frames == 0 {
        return Ok(None);
    }
    match run.pixels()? {
        Some(pixels) => Ok(Some(pixels)),
        None => Err(Failure::input(format!(
            "what run {} starts from is gone. Make it anew with `vidfit generate`",
            run.id()
        ))),
    }
}

/// Says where the video of a run is that is done, and reports it once more if that is asked for.
///
/// # Errors
/// Bad input if the video is asked for at a place where it is not: nothing is left to be done here.
fn say_where(run: &Run, args: &ResumeArgs, shown: Shown) -> Result<(), Failure> {
    let output = run.record().output.clone();
    let path = if output.exists() { Some(output) } else { run.video() };
    if let Some(wanted) = &args.output {
        let is_there = [path.clone(), run.video()]
            .into_iter()
            .flatten()
            .any(|path| are_one_file(&path, wanted));
        if !is_there {
            return Err(Failure::input(format!(
                "run {id} is done, and its video is not written again. `vidfit decode {id} -o {}` \
                 does that",
                wanted.display(),
                id = run.id()
            )));
        }
    }
    if let (Some(path), Some(report)) = (&args.report, run.report()) {
        report.save(path)?;
    }
    shown.event(json!({ "event": "done", "run": run.id().as_str(), "output": path }));
    if shown.is_for_scripts() {
        return Ok(());
    }
    match path {
        Some(path) => answer(&format!("run {} is done: {}", run.id(), path.display())),
        None => answer(&format!(
            "run {id} is done, but its video is gone; `vidfit decode {id}` makes it again",
            id = run.id()
        )),
    }
}

/// The frames of a run whose video alone is missing; not if intermediate results are to be written,
/// which take another decode.
fn kept_frames(run: &Run, output: &Output) -> Option<KeptFrames> {
    let frames = KeptFrames::open(&run.path(FRAMES), &output.settings, output.frames)?;
    run.record().save_tensors.is_none().then_some(frames)
}

/// Writes the video of frames that were kept, if they can all be read.
fn write_kept(
    frames: &KeptFrames,
    output: &Output,
    stop: &AtomicBool,
    shown: Shown,
) -> Result<Option<Written>, Failure> {
    let written = output.write_kept(frames, stop)?;
    Ok(written
        .map_err(|damage| shown.warn(&format!("{damage}; the frames are made once more")))
        .ok())
}

/// Ends a run whose video was written from frames that were kept.
fn of_frames(
    run: &Run,
    written: &Written,
    plan: Option<PlanReport>,
    (shown, began): (Shown, Instant),
) -> Result<RunReport, Failure> {
    if written.path.is_file() {
        run.keep_video(&written.path)?;
    }
    let report = RunReport::of_plan("done", None, plan);
    run.end(&report)?;
    shown.say(&written_in_words(written, began.elapsed()));
    shown.event(json!({
        "event": "done",
        "run": run.id().as_str(),
        "output": written.path,
        "frames": written.frames,
        "bytes": written.bytes,
        "seconds": began.elapsed().as_secs_f64(),
    }));
    Ok(report)
}

/// The model of a run, as it was when the run began.
///
/// # Errors
/// Bad input if it is gone, or was changed.
pub fn model_of(record: &RunRecord) -> Result<Model, Failure> {
    let RunRecord { model, model_folder, model_identity, .. } = record;
    if *model_folder == demo::MODEL.path() {
        let checkpoint = Checkpoint::open(&demo::MODEL)?;
        return match checkpoint.identity() == *model_identity {
            true => Ok(Model { checkpoint, spelled: model.clone() }),
            false => Err(Failure::input(format!(
                "the run was begun with another {model} model than the one that is built into this \
                 vidfit, so it would not be the same video. Go on with the vidfit that began it \
                 ({}), or make it anew with `vidfit generate`",
                record.vidfit
            ))),
        };
    }
    if !model_folder.is_dir() {
        return Err(Failure::input(format!(
            "the run's model {model} is not in {} any more. Put it back there, or download it again",
            model_folder.display()
        )));
    }
    let checkpoint = Checkpoint::open(model_folder)?;
    if checkpoint.identity() != *model_identity {
        return Err(Failure::input(format!(
            "the files of the run's model {model} in {} have other contents, sizes or times than when \
             the run began, so it might not be the same video any more. Put them back as they were, \
             times included, or make it anew with `vidfit generate`",
            model_folder.display()
        )));
    }
    Ok(Model { checkpoint, spelled: model.clone() })
}

/// Values of the prompts' embeddings.
pub fn embeds(checkpoint: &Checkpoint, job: &Job) -> usize {
    let tokens: usize = job.prompts.iter().map(Vec::len).sum();
    tokens * checkpoint.text_encoder.config.d_model
}

/// Plans the rest of a run: as it was planned in the beginning, if there is room for that; or else anew,
/// with the reason.
fn plan(
    run: &Run,
    checkpoint: &Checkpoint,
    job: &Job,
    offload: Offload,
    target: &Target,
    state: Option<&RunState>,
) -> Result<(Planned, Option<String>), Failure> {
    let why_again = match as_before(run, checkpoint, job, offload, target, state) {
        Ok(planned) => return Ok((planned, None)),
        Err(why) => why,
    };
    match replan(checkpoint, job, offload, target, state)? {
        Ok(planned) => Ok((planned, Some(why_again))),
        Err(refused) => {
            let report = PlanReport::of_refused(checkpoint, &refused);
            Err(Failure::no_room(format!(
                "{}. The picture of a run that has begun stays as it is; go on where there is more \
                 room, or make another video",
                needs(&report)
            )))
        }
    }
}

/// The rest of a run by the plan that it began with; or, in words, why that cannot be.
fn as_before(
    run: &Run,
    checkpoint: &Checkpoint,
    job: &Job,
    offload: Offload,
    target: &Target,
    state: Option<&RunState>,
) -> Result<Planned, String> {
    let words = |error: EngineError| error.to_string();
    let saved = SavedPlan::load(&run.path(PLAN)).map_err(words)?;
    // What a device is called takes no memory.
    let same_name = Profile { name: target.profile.name.clone(), ..saved.run.profile.clone() };
    if same_name != target.profile {
        return Err(format!(
            "it was planned for {}, and {} is another kind of device",
            saved.report.device, target.name
        ));
    }
    let before = saved.prepare(checkpoint, target).map_err(words)?;
    let tiles = |job: &Job| (job.tiling, job.encode_tiling);
    if RunState::key(&before.job) != RunState::key(job) || tiles(&before.job) != tiles(job) {
        return Err("the plan that was saved is of another video".into());
    }
    let schedule = before.schedule;
    let (profile, rates) = (&target.profile, &target.rates);
    let plan = Plan::timed(checkpoint, job, &schedule, state, profile, rates).map_err(words)?;
    let planned = Planned::new(job.clone(), schedule, plan, offload, target);
    let report = PlanReport::of(checkpoint, &planned);
    match report.fits {
        true => Ok(planned),
        false => Err(format!(
            "the plan takes {} of memory and {} of RAM, and {} of memory may be used now",
            size(report.peak_bytes),
            size(report.ram_peak_bytes),
            size(report.budget_bytes)
        )),
    }
}
