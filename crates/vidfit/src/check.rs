//! `vidfit check`.

use crate::args::{JobArgs, MachineArgs};
use crate::decide::{self, Wanted};
use crate::demo;
use crate::device::{card, planned_target};
use crate::exit::Failure;
use crate::human::{frames, grouped, size};
use crate::model::known;
use crate::say::answer;
use serde_json::{Value, json};
use vidfit_engine::catalogue::Gpu;
use vidfit_engine::planner::{PlanReport, Planned};

/// `vidfit check`.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  vidfit check --model 5b --buffer 2GB && vidfit generate \"A panda\" --model zai-org/CogVideoX-5b
  vidfit check --model 2b --gpu \"RTX 3070\" --frames 25

Exit codes: 0 there is enough, 1 there is not, 2 bad input. Required is the least that the job takes
in any way that --offload and --vae-tiling allow; vidfit plan says what the fastest way takes."
)]
pub struct CheckArgs {
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
    /// As one JSON object: `enough`, what is available and required in bytes, and the plan.
    #[arg(long, help_heading = "Reports")]
    pub json: bool,
}

/// Says in one sentence, or in JSON, whether there is enough memory.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let target = planned_target(&args.machine, args.gpu)?;
    demo::note_where_unnamed(&args.job)?;
    let wanted = Wanted::new(&args.job, &args.machine, None, target, false, known)?;
    let least = least(&wanted)?;
    let report = PlanReport::of(wanted.checkpoint(), &least);
    match args.json {
        true => answer(&as_json(&report).to_string()),
        false => answer(&sentence(&report)),
    }?;
    if report.fits { Ok(()) } else { Err(Failure::no()) }
}

fn as_json(report: &PlanReport) -> Value {
    json!({
        "enough": report.fits,
        "available_bytes": report.budget_bytes,
        "required_bytes": report.peak_bytes,
        "ram_available_bytes": report.ram_bytes,
        "ram_required_bytes": report.ram_peak_bytes,
        "plan": report,
    })
}

fn sentence(report: &PlanReport) -> String {
    let (available, required) = (report.budget_bytes, report.peak_bytes);
    let video = &report.video;
    let job =
        format!("{}, {} of {}×{}", report.model, frames(video.frames), video.width, video.height);
    let verdict = if report.fits { "enough" } else { "not enough" };
    let ram = match (report.ram_bytes, report.fits, required <= available) {
        (Some(ram), false, true) => format!(
            ", but {} of RAM are required and {} available",
            size(report.ram_peak_bytes),
            size(ram)
        ),
        _ => String::new(),
    };
    format!(
        "{verdict}: {} ({} bytes) available on {}, {} ({} bytes) required for {job}{ram}.",
        size(available),
        grouped(available),
        report.device,
        size(required),
        grouped(required),
    )
}

/// The least that the job takes: as a plan for little memory goes, in the reference's tiles; or as the
/// search finds it, which tries smaller ones as well.
fn least(wanted: &Wanted) -> Result<Planned, Failure> {
    let least = decide::least(&wanted.ask())?;
    if least.plan.device_bytes() <= wanted.target.budget_bytes() {
        return Ok(least);
    }
    Ok(match wanted.ask().plan()? {
        Ok(planned) => planned,
        Err(refused) => *refused.least,
    })
}
