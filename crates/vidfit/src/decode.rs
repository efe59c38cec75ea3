//! `vidfit decode`: the video of a run once more, from what is kept of it.

use crate::args::DecodeArgs;
use crate::decide::needs;
use crate::device::{beside_results, open};
use crate::exit::Failure;
use crate::generate::output::{Output, free_name};
use crate::generate::{Alone, Launch, Session, announce, written_in_words};
use crate::interrupt;
use crate::progress::Shown;
use crate::resume::{embeds, model_of};
use serde_json::json;
use std::time::Instant;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pipeline::Origin;
use vidfit_engine::planner::{Offload, PlanReport, Planned, Refused, Target, replan};
use vidfit_engine::request::{Job, Request, TilingChoice, tiles};
use vidfit_engine::runs::{FRAMES, Run};
use vidfit_engine::state::RunState;
use vidfit_media::KeptFrames;

/// Makes the video of a run again, and leaves the run as it is.
pub fn run(args: &DecodeArgs) -> Result<(), Failure> {
    let shown = Shown::from(args.progress);
    decode(args, shown).inspect_err(|failure| shown.failed(failure))
}

fn decode(args: &DecodeArgs, shown: Shown) -> Result<(), Failure> {
    let stop = interrupt::watch()?;
    let began = Instant::now();
    let runs = args.folder.runs();
    let run = runs.open(&runs.find(&args.run)?)?;
    let record = run.record();
    let output = Output::of(
        args.output.clone().unwrap_or_else(|| free_name(&record.output)),
        (record.frames, record.height, record.width),
        args.fps.unwrap_or(record.fps),
        args.crf.unwrap_or(record.crf),
    )?;
    let output = Output { is_settled: args.output.is_some(), ..output };
    output.check(0)?;
    let is_same = args.vae_tiling.is_none() && args.tile_height.or(args.tile_width).is_none();
    let frames = KeptFrames::open(&run.path(FRAMES), &output.settings, output.frames);
    if let Some(frames) = frames.filter(|_| is_same) {
        match output.write_kept(&frames, &stop)? {
            Ok(written) => {
                shown.say(&written_in_words(&written, began.elapsed()));
                shown.event(json!({
                    "event": "done",
                    "output": written.path,
                    "frames": written.frames,
                    "bytes": written.bytes,
                    "seconds": began.elapsed().as_secs_f64(),
                }));
                return Ok(());
            }
            Err(damage) => shown.warn(&format!("{damage}; the video is decoded once more")),
        }
    }

    let machine = args.machine.instead_of(&record.machine).map_err(Failure::input)?;
    let opened = open(&machine, shown)?;
    opened.announce(shown);
    let checkpoint = &model_of(record)?.checkpoint;
    let job = record.job(checkpoint)?;
    let state = latents(&run, checkpoint, &job)?;
    let target = beside_results(opened.target(&machine)?, checkpoint, &job, false);
    let ways = ways(args, checkpoint, &job, &record.request)?;
    let planned = &plan(checkpoint, ways, machine.offload, &target, &state)?;
    announce(shown, planned, &PlanReport::of(checkpoint, planned), &output);
    let launch = Launch {
        began,
        checkpoint,
        planned,
        may_replan: true,
        origin: Origin { state: Some(&state), ..Origin::default() },
        pipeline: None,
        output: &output,
    };
    launch.make_beside(&Session { shown, stop: &stop, opened: &opened, company: &Alone })
}

/// The latents of a run that is denoised.
fn latents(run: &Run, checkpoint: &Checkpoint, job: &Job) -> Result<RunState, Failure> {
    let (id, steps) = (run.id(), run.record().steps);
    match run.state(job, embeds(checkpoint, job))? {
        Some(state) if state.steps_done == steps => Ok(state),
        Some(state) => Err(Failure::input(format!(
            "run {id} has done {} of {steps} steps: go on with `vidfit resume {id}` first",
            state.steps_done
        ))),
        None if run.is_done() => Err(Failure::input(format!(
            "the latents of run {id} were dropped (vidfit runs gc); only a new run makes them again"
        ))),
        None => Err(Failure::input(format!(
            "run {id} has done none of {steps} steps: go on with `vidfit resume {id}` first"
        ))),
    }
}

/// The ways to decode that the arguments allow, the best picture first.
fn ways(
    args: &DecodeArgs,
    checkpoint: &Checkpoint,
    job: &Job,
    request: &Request,
) -> Result<Vec<Job>, Failure> {
    let has_size = args.tile_height.or(args.tile_width).is_some();
    let choice = args.vae_tiling.map(TilingChoice::from);
    if choice.is_none() && !has_size {
        return Ok(vec![job.clone()]);
    }
    let (tile_height, tile_width) = (args.tile_height, args.tile_width);
    let tiles = tiles(checkpoint, &Request { tile_height, tile_width, ..request.clone() })?;
    let whole = Job { tiling: None, ..job.clone() };
    let tiled = whole.clone().with_tiles(tiles);
    Ok(match choice {
        Some(TilingChoice::Off) if has_size => {
            return Err(Failure::input("--vae-tiling off leaves no tiles to have a size"));
        }
        Some(TilingChoice::Off) => vec![whole],
        Some(TilingChoice::Auto) => vec![whole, tiled],
        // Who says how large tiles are wants some.
        Some(TilingChoice::On) | None => vec![tiled],
    })
}

/// Plans the decode by itself, in the first of `ways` that fits.
fn plan(
    checkpoint: &Checkpoint,
    ways: Vec<Job>,
    offload: Offload,
    target: &Target,
    state: &RunState,
) -> Result<Planned, Failure> {
    let mut refused: Option<Refused> = None;
    for job in ways {
        match replan(checkpoint, &job, offload, target, Some(state))? {
            Ok(planned) => return Ok(planned),
            Err(no_room) => refused = Some(no_room),
        }
    }
    let message = refused.map(|refused| needs(&PlanReport::of_refused(checkpoint, &refused)));
    Err(Failure::no_room(message.unwrap_or_default()))
}
