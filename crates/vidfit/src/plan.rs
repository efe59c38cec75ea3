//! `vidfit plan`.

mod alternatives;
mod fleet;
mod text;

pub use fleet::on_cards;
pub use text::placement;

use crate::args::{FitArgs, JobArgs, MachineArgs, OutputArgs};
use crate::decide::{NoRoom, Wanted};
use crate::demo;
use crate::device::{DeviceChoice, card, planned_target, slow_type};
use crate::exit::Failure;
use crate::model::{Model, known};
use crate::say::{answer, note};
use std::path::PathBuf;
use vidfit_engine::catalogue::{self, Gpu};
use vidfit_engine::planner::{Alternative, PlanReport, SavedPlan};

/// `vidfit plan`.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  vidfit plan --model 5b --gpu \"RTX 3060 12GB\"       on a card that one need not have
  vidfit plan --model 5b --vram-budget 8GB            on this machine, in no more than 8 GB
  vidfit plan --model 2b --gpu \"RTX 3070\" --frames fit --explain
  vidfit plan --model zai-org/CogVideoX-2b --device sim:2GB --save plan.json
  vidfit plan --model 1.5 --all-gpus                  a line for every card of the catalogue

Takes every argument of `vidfit generate`; the prompt may be left away. Without --gpu and --device
it plans for the NVIDIA card of this machine, or for its CPU if there is none; without --model, for
the demo model that is built in. Nothing is loaded, and a published model need not be downloaded.
Exit code 3 if the job does not fit."
)]
pub struct PlanArgs {
    /// What to make.
    #[command(flatten)]
    pub job: JobArgs,
    /// Where it would go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// On what.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// What may change.
    #[command(flatten)]
    pub fit: FitArgs,

    /// Plan for a card of the catalogue; `vidfit gpus` lists them.
    #[arg(long, value_name = "NAME", value_parser = card, conflicts_with = "device",
          help_heading = "Machine")]
    pub gpu: Option<&'static Gpu>,
    /// Plan for every card of the catalogue.
    #[arg(long, conflicts_with_all = ["gpu", "device", "save", "explain", "fit", "fallback_model"],
          help_heading = "Machine")]
    pub all_gpus: bool,
    /// Say what holds each peak, and what the other strategies would take.
    #[arg(long, help_heading = "Reports")]
    pub explain: bool,
    /// Write the plan to a file that `vidfit generate --plan` runs exactly.
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub save: Option<PathBuf>,
    /// As one JSON object, in bytes and seconds; an array with --all-gpus.
    #[arg(long, help_heading = "Reports")]
    pub json: bool,
}

/// Plans a job and says what it takes.
pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let target = planned_target(&args.machine, args.gpu)?;
    demo::note_where_unnamed(&args.job)?;
    if args.all_gpus {
        return fleet::run(args);
    }
    let (change, keeps_tensors) = (Some(&args.fit), args.output.save_tensors.is_some());
    let wanted = Wanted::new(&args.job, &args.machine, change, target, keeps_tensors, known)?;
    if !wanted.checkpoint().has_weights() {
        note!(
            "{} is not on this machine; planned from its published configuration",
            wanted.models[0].spelled
        );
    }
    if wanted.target.shares_ram && args.machine.device == DeviceChoice::Auto {
        note!(
            "no NVIDIA card can be used here (vidfit doctor says why), so this is for the CPU; \
             --gpu NAME plans for a card"
        );
    }
    if let Some(what) = slow_type(&wanted.target, wanted.request.dtype) {
        note!("{what}");
    }
    match wanted.decide()? {
        Ok(decided) => fits(args, &wanted, &decided),
        Err(refused) => {
            let NoRoom { report, message } = wanted.no_room(&refused)?;
            print(args, &report, &wanted)?;
            Err(Failure::no_room(message))
        }
    }
}

fn fits(args: &PlanArgs, wanted: &Wanted, decided: &Alternative) -> Result<(), Failure> {
    let model = &wanted.models[decided.model];
    let mut report = PlanReport::of(&model.checkpoint, &decided.planned);
    if args.explain {
        report.rejected.extend(alternatives::of(wanted, decided)?);
    }
    print(args, &report, wanted)?;
    if let Some(path) = &args.save {
        let Model { checkpoint, spelled } = model;
        let plan = SavedPlan::of(checkpoint, spelled, &decided.request, &decided.planned);
        SavedPlan { report, ..plan }.save(path)?;
        note!("saved as {}; vidfit generate --plan runs exactly this", path.display());
    }
    Ok(())
}

fn print(args: &PlanArgs, report: &PlanReport, wanted: &Wanted) -> Result<(), Failure> {
    if args.json {
        let json = serde_json::to_value(report).map_err(Failure::other)?;
        return answer(&json.to_string());
    }
    answer(&text::of(report, wanted.offload, args.explain))
}

/// All cards of the catalogue.
fn cards() -> Vec<&'static Gpu> {
    catalogue::all().iter().collect()
}
