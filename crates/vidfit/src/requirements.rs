//! `vidfit requirements`: the guide's tables, from plans.

use crate::device::card;
use crate::exit::Failure;
use crate::human::size;
use crate::model::published;
use crate::say::answer;
use serde_json::json;
use vidfit_engine::catalogue::Gpu;
use vidfit_engine::checkpoint::Variant;
use vidfit_engine::planner::{Ask, Offload, PlanReport, Planned, Target, plan_least};
use vidfit_engine::request::{Job, Request, Start, TilingChoice, tiles};

/// `vidfit requirements`.
#[derive(clap::Args)]
#[command(after_help = "\
Nothing on: all components on the device throughout (--offload none), decoded whole. Everything on:
everything streamed (--offload sequential), decoded in tiles of the reference's size. Each model makes
its own video: 49 frames of 720×480, or 81 of 1360×768 for 1.5, in the type that it was published in.")]
pub struct RequirementsArgs {
    /// The card whose driver's share is named beside the arena.
    #[arg(long, value_name = "NAME", value_parser = card, default_value = "RTX 3090")]
    pub gpu: &'static Gpu,
    /// As one JSON object, in bytes.
    #[arg(long)]
    pub json: bool,
}

/// A model with nothing on, and with everything on.
#[derive(serde::Serialize)]
struct Row {
    model: &'static str,
    /// `t2v` or `i2v`.
    task: &'static str,
    nothing_on: Needs,
    everything_on: Needs,
}

/// What a job takes.
#[derive(serde::Serialize)]
struct Needs {
    peak_bytes: u64,
    ram_bytes: u64,
    cached_bytes: u64,
}

/// The jobs of one model, of which one runs at a time.
#[derive(serde::Serialize)]
struct Composite {
    model: &'static str,
    idle_bytes: u64,
    nothing_on_bytes: u64,
    everything_on_bytes: u64,
}

/// The models of each composite row.
const COMPOSITES: [(Variant, Option<Variant>); 3] = [
    (Variant::TwoB, None),
    (Variant::FiveB, Some(Variant::FiveBI2v)),
    (Variant::OneFive, Some(Variant::OneFiveI2v)),
];

/// Prints the three tables.
pub fn run(args: &RequirementsArgs) -> Result<(), Failure> {
    // The memory there is does not matter, only what the driver takes of it.
    let target = Target { free_bytes: u64::MAX / 2, ..Target::of_card(args.gpu) };
    let rows = Variant::ALL.map(|variant| row(variant, &target));
    let rows = rows.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    let composites = COMPOSITES.map(|(text, image)| composite(&rows, text, image));
    if args.json {
        let (gpu, overhead_bytes) = (&args.gpu.name, target.overhead_bytes);
        let all = json!({
            "gpu": gpu,
            "overhead_bytes": overhead_bytes,
            "models": rows,
            "composites": composites,
        });
        return answer(&all.to_string());
    }
    answer(&text(&rows, &composites, args.gpu, target.overhead_bytes))
}

fn row(variant: Variant, target: &Target) -> Result<Row, Failure> {
    let checkpoint = published(variant).checkpoint;
    let (start, dtype) = (Start::usual(variant), variant.published_dtype());
    let request = Request { start, dtype, tiling: TilingChoice::Off, ..Request::new("") };
    let (job, _) = Job::new(&checkpoint, &request)?;
    let tiled = job.with_tiles(tiles(&checkpoint, &request)?);
    let needs = |planned: &Planned| Needs::of(&PlanReport::of(&checkpoint, planned));
    let ask = Ask { checkpoint: &checkpoint, request: &request, offload: Offload::None, target };
    let nothing_on = ask.plan()?.unwrap_or_else(|refused| *refused.least);
    let everything_on = plan_least(&checkpoint, &tiled, Offload::Sequential, target)?;
    Ok(Row {
        model: variant.name(),
        task: if variant.needs_image() { "i2v" } else { "t2v" },
        nothing_on: needs(&nothing_on),
        everything_on: needs(&everything_on),
    })
}

impl Needs {
    fn of(report: &PlanReport) -> Needs {
        Needs {
            peak_bytes: report.peak_bytes,
            ram_bytes: report.ram_peak_bytes,
            cached_bytes: report.mapped_bytes,
        }
    }
}

/// Nothing is held while nothing runs, and jobs run one at a time: the largest of them counts.
fn composite(rows: &[Row], text: Variant, image: Option<Variant>) -> Composite {
    let of = |needs: fn(&Row) -> u64| {
        let named =
            |row: &&Row| Some(row.model) == image.map(Variant::name) || row.model == text.name();
        rows.iter().filter(named).map(needs).max().unwrap_or(0)
    };
    Composite {
        model: text.name(),
        idle_bytes: 0,
        nothing_on_bytes: of(|row| row.nothing_on.peak_bytes),
        everything_on_bytes: of(|row| row.everything_on.peak_bytes),
    }
}

fn text(rows: &[Row], composites: &[Composite], gpu: &Gpu, overhead_bytes: u64) -> String {
    let mut lines = vec![
        format!(
            "Device memory of a job. Driver, context and modules take more: {} on an {}.",
            size(overhead_bytes),
            gpu.name
        ),
        format!("{:20} {:5} {:>12} {:>14}", "model", "task", "nothing on", "everything on"),
    ];
    lines.extend(rows.iter().map(|row| {
        let Row { model, task, nothing_on, everything_on } = row;
        let (most, least) = (size(nothing_on.peak_bytes), size(everything_on.peak_bytes));
        format!("{model:20} {task:5} {most:>12} {least:>14}")
    }));
    lines.extend([
        String::new(),
        "Device memory of all tasks of a model in one program, one job at a time.".to_owned(),
        format!("{:20} {:>5} {:>12} {:>14}", "model", "idle", "nothing on", "everything on"),
    ]);
    lines.extend(composites.iter().map(|composite| {
        let (most, least) = (size(composite.nothing_on_bytes), size(composite.everything_on_bytes));
        format!("{:20} {:>5} {most:>12} {least:>14}", composite.model, "0")
    }));
    lines.extend([
        String::new(),
        "RAM of a job: what it holds, and the files that the system likes to keep cached beside it."
            .to_owned(),
        format!("{:20} {:>12} {:>14} {:>12}", "model", "nothing on", "everything on", "cache"),
    ]);
    lines.extend(rows.iter().map(|row| {
        let Row { model, nothing_on, everything_on, .. } = row;
        let (most, least) = (size(nothing_on.ram_bytes), size(everything_on.ram_bytes));
        format!("{model:20} {most:>12} {least:>14} {:>12}", size(nothing_on.cached_bytes))
    }));
    lines.join("\n")
}
