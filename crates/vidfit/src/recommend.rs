//! `vidfit recommend`: which model for which card, every cell from a plan.

use crate::device::card;
use crate::exit::Failure;
use crate::human::{seconds, size};
use crate::model::published;
use crate::plan::on_cards;
use crate::say::{answer, note};
use serde_json::{Value, json};
use vidfit_engine::catalogue::{Gpu, all};
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::{Ask, Offload, PlanReport, Target};
use vidfit_engine::request::{Request, Start};

/// `vidfit recommend`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidfit recommend                          the cards of the guide
  vidfit recommend --gpu \"RTX 4070 Ti\"
  vidfit recommend --all-gpus --json

Each model makes its own video: 49 frames of 720×480 (2b, 5b) or 81 of 1360×768 (1.5), in 50 steps,
or as many frames as fit. Recommended is the first of 1.5-5B, 5b and 2b that makes all its frames
without decoding in tiles, keeps the card computing (waits for uploads take less than a tenth of the
time) and takes no longer than --within; if none does, the fastest that makes all its frames.")]
pub struct RecommendArgs {
    /// One card.
    #[arg(long, value_name = "NAME", value_parser = card)]
    pub gpu: Option<&'static Gpu>,
    /// All cards of the catalogue.
    #[arg(long, conflicts_with = "gpu")]
    pub all_gpus: bool,
    /// The longest that a recommended video may take, in minutes.
    #[arg(long, value_name = "MINUTES", default_value_t = 60.0)]
    pub within: f64,
    /// As one JSON array of cards.
    #[arg(long)]
    pub json: bool,
}

/// The cards of the guide.
const GUIDE: [&str; 7] =
    ["RTX 3060 12GB", "RTX 3070", "RTX 3080 10GB", "RTX 3090", "RTX 4080", "RTX 4090", "A100 40GB"];

/// The models that make videos from text alone, the one to be preferred first.
const MODELS: [Variant; 3] = [Variant::OneFive, Variant::FiveB, Variant::TwoB];

/// One model on one card.
struct Cell {
    model: Variant,
    /// Whether it makes all the frames that the model is for.
    is_whole: bool,
    report: PlanReport,
}

/// Says which model suits which card.
pub fn run(args: &RecommendArgs) -> Result<(), Failure> {
    if args.within.is_nan() || args.within <= 0.0 {
        return Err(Failure::input("--within takes minutes, more than 0"));
    }
    let cards = cards(args)?;
    let mut rows: Vec<Vec<Cell>> = cards.iter().map(|_| Vec::new()).collect();
    for model in MODELS {
        note!("planning {model}");
        let cells = on_all(model, &cards)?;
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.extend(cell));
    }
    if args.json {
        let rows = cards.iter().zip(&rows).map(|(gpu, row)| as_json(gpu, row, args.within));
        return answer(&Value::Array(rows.collect()).to_string());
    }
    answer(&table(&cards, &rows, args.within))
}

fn cards(args: &RecommendArgs) -> Result<Vec<&'static Gpu>, Failure> {
    match (args.gpu, args.all_gpus) {
        (Some(gpu), _) => Ok(vec![gpu]),
        (None, true) => Ok(all().iter().collect()),
        (None, false) => GUIDE.iter().map(|name| card(name).map_err(Failure::other)).collect(),
    }
}

/// The model's own video on each card, or as much of it as fits; nothing where not even
/// one frame does.
fn on_all(model: Variant, cards: &[&'static Gpu]) -> Result<Vec<Option<Cell>>, Failure> {
    let checkpoint: Checkpoint = published(model).checkpoint;
    let (start, dtype) = (Start::usual(model), model.published_dtype());
    let request = Request { start, dtype, ..Request::new("") };
    let targets: Vec<_> = cards.iter().map(|gpu| (*gpu, Target::of_card(gpu))).collect();
    let Some((_, first)) = targets.first().cloned() else { return Ok(Vec::new()) };
    let offload = Offload::Auto;
    let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &first };
    let found = on_cards(&ask, targets)?;
    let cells = found.iter().map(|on_card| {
        let ask = Ask { target: &on_card.target, ..ask };
        if let Ok(planned) = &on_card.answer {
            let report = PlanReport::of(&checkpoint, planned);
            return Ok(Some(Cell { model, is_whole: true, report }));
        }
        let fewer = ask.most_frames(checkpoint.transformer.config.sample_frames)?;
        Ok(fewer.map(|(_, planned)| Cell {
            model,
            is_whole: false,
            report: PlanReport::of(&checkpoint, &planned),
        }))
    });
    cells.collect()
}

/// The most of its time that a recommended job may wait for uploads.
const MOST_WAITING: f64 = 0.1;

/// The model to recommend among `cells`, which stand in the order of preference.
fn recommended(cells: &[Cell], within_minutes: f64) -> Option<&Cell> {
    let whole = || cells.iter().filter(|cell| cell.is_whole);
    let suits = |cell: &&Cell| {
        let report = &cell.report;
        let waiting: f64 = report.phases.iter().map(|phase| phase.waiting_seconds).sum();
        report.video.tile.is_none()
            && waiting < MOST_WAITING * report.seconds
            && report.seconds <= 60.0 * within_minutes
    };
    whole()
        .find(suits)
        .or_else(|| whole().min_by(|a, b| a.report.seconds.total_cmp(&b.report.seconds)))
        .or_else(|| cells.last())
}

fn as_json(gpu: &Gpu, cells: &[Cell], within: f64) -> Value {
    let recommended = recommended(cells, within);
    let models = cells.iter().map(|cell| {
        json!({
            "model": cell.model.name(),
            "frames": cell.report.video.frames,
            "all_frames": cell.is_whole,
            "strategy": cell.report.placement.strategy,
            "resident_percent": cell.report.placement.resident_percent,
            "tiled": cell.report.video.tile.is_some(),
            "peak_bytes": cell.report.peak_bytes,
            "budget_bytes": cell.report.budget_bytes,
            "seconds": cell.report.seconds,
        })
    });
    json!({
        "gpu": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "recommended": recommended.map(|cell| cell.model.name()),
        "models": models.collect::<Vec<_>>(),
    })
}

fn table(cards: &[&Gpu], rows: &[Vec<Cell>], within: f64) -> String {
    let widest = cards.iter().map(|gpu| gpu.name.len()).max().unwrap_or(0).max(4);
    let mut lines = vec![format!(
        "  {:widest$}  {:>8}  {:16}  {:>6}  {:28}  {:>9}  {:>12}",
        "card", "memory", "model", "frames", "strategy", "peak", "time"
    )];
    for (gpu, cells) in cards.iter().zip(rows) {
        let best = recommended(cells, within).map(|cell| cell.model);
        for (place, cell) in cells.iter().enumerate() {
            let (name, memory) = match place {
                0 => (gpu.name.as_str(), size(gpu.memory_bytes)),
                _ => ("", String::new()),
            };
            let mark = if best == Some(cell.model) { "*" } else { " " };
            lines.push(format!(
                "{mark} {name:widest$}  {memory:>8}  {:16}  {:>6}  {:28}  {:>9}  {:>12}",
                cell.model.name(),
                cell.report.video.frames,
                strategy(&cell.report),
                size(cell.report.peak_bytes),
                seconds(cell.report.seconds)
            ));
        }
        if cells.is_empty() {
            lines.push(format!(
                "  {:widest$}  {:>8}  nothing fits",
                gpu.name,
                size(gpu.memory_bytes)
            ));
        }
    }
    lines.push(
        "* recommended; --help says by which rule. Times are from what makers publish.".into(),
    );
    lines.join("\n")
}

fn strategy(report: &PlanReport) -> String {
    let placement = &report.placement;
    let how = match placement.strategy.as_str() {
        "streamed" => format!("{:.0} % resident", placement.resident_percent),
        other => other.to_owned(),
    };
    let tiles = if report.video.tile.is_some() { ", in tiles" } else { ", whole" };
    how + tiles
}
