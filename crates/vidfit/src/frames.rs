//! `vidfit frames`.

use crate::args::{Frames, JobArgs, MachineArgs};
use crate::decide::{Wanted, needs};
use crate::demo;
use crate::device::{card, planned_target};
use crate::exit::Failure;
use crate::human::{frames, seconds, size};
use crate::model::known;
use crate::plan::placement;
use crate::say::answer;
use serde_json::json;
use vidfit_engine::catalogue::Gpu;
use vidfit_engine::planner::{PlanReport, Planned};
use vidfit_engine::request::{FrameCounts, Request};

/// `vidfit frames`.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  vidfit frames --model 5b --gpu \"RTX 3070\"
  vidfit frames --model 1.5 --vram-budget 6GB --vae-tiling off
  vidfit generate \"A panda\" --model zai-org/CogVideoX-5b --frames fit    asks for as many

It looks up to the number that the model was made for, or up to --frames N."
)]
pub struct FramesArgs {
    /// What to make.
    #[command(flatten)]
    pub job: JobArgs,
    /// On what.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// On a card of the catalogue, instead of what is here.
    #[arg(long, value_name = "NAME", value_parser = card, conflicts_with = "device",
          help_heading = "Machine")]
    pub gpu: Option<&'static Gpu>,
    /// As one JSON object: `frames`, and the plan of so many.
    #[arg(long, help_heading = "Reports")]
    pub json: bool,
}

/// Says the most frames that fit.
pub fn run(args: &FramesArgs) -> Result<(), Failure> {
    let target = planned_target(&args.machine, args.gpu)?;
    demo::note_where_unnamed(&args.job)?;
    let looked_for = Some(args.job.frames.unwrap_or(Frames::Fit));
    let job = JobArgs { frames: looked_for, ..args.job.clone() };
    let wanted = Wanted::new(&job, &args.machine, None, target, false, known)?;
    let asked = wanted.request.frames.filter(|&frames| frames > 0);
    let most = asked.unwrap_or(wanted.checkpoint().most_frames());
    if let Some((_, planned)) = wanted.ask().most_frames(most)? {
        return found(args, &wanted, &planned, most);
    }
    let fewest = FrameCounts::of(wanted.checkpoint(), wanted.request.start).nth(0);
    let request = Request { frames: Some(fewest), ..wanted.request.clone() };
    let fewest = Wanted { request, ..wanted };
    let refused = match fewest.ask().plan()? {
        Ok(planned) => return found(args, &fewest, &planned, most),
        Err(refused) => refused,
    };
    let report = PlanReport::of(fewest.checkpoint(), &refused.least);
    if args.json {
        print_json(0, &report)?;
    }
    Err(Failure::no_room(needs(&report)))
}

/// Says how many frames fit, of `most` that were looked for.
fn found(
    args: &FramesArgs,
    wanted: &Wanted,
    planned: &Planned,
    most: usize,
) -> Result<(), Failure> {
    let report = PlanReport::of(wanted.checkpoint(), planned);
    match args.json {
        true => print_json(planned.job.frames, &report),
        false => answer(&text(&report, most)),
    }
}

fn print_json(frames: usize, report: &PlanReport) -> Result<(), Failure> {
    answer(&json!({ "frames": frames, "plan": report }).to_string())
}

fn text(report: &PlanReport, most: usize) -> String {
    let video = &report.video;
    let all = if video.frames >= most { ", which is all that was looked for" } else { "" };
    let tiles = match video.tile {
        Some((height, width)) => format!(", decoded in tiles of {width}×{height} pixels"),
        None => String::new(),
    };
    format!(
        "{} of {}×{} with {} on {}{all}{tiles}\n{} of {}, {}; {}",
        frames(video.frames),
        video.width,
        video.height,
        report.model,
        report.device,
        size(report.peak_bytes),
        size(report.budget_bytes),
        seconds(report.seconds),
        placement(&report.placement)
    )
}
