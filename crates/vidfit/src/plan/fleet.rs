//! One job on many cards.

use super::PlanArgs;
use crate::decide::{Wanted, least};
use crate::device::{beside_results, planned_target};
use crate::exit::Failure;
use crate::human::{frames, seconds, size};
use crate::model::known;
use crate::say::{answer, note};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use vidfit_engine::EngineError;
use vidfit_engine::catalogue::Gpu;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Ask, PlanReport, Planned, Refused, Target};
use vidfit_engine::request::Job;

/// A job on a card.
pub struct OnCard {
    /// The card.
    pub gpu: &'static Gpu,
    /// What of it may be used.
    pub target: Target,
    /// The plan, or that there is none.
    pub answer: Result<Planned, Refused>,
}

impl OnCard {
    /// The plan as it is reported, or the least one.
    pub fn report(&self, ask: &Ask<'_>) -> PlanReport {
        match &self.answer {
            Ok(planned) => PlanReport::of(ask.checkpoint, planned),
            Err(refused) => PlanReport::of_refused(ask.checkpoint, refused),
        }
    }
}

/// Plans what is asked for on each of these cards; its own target is left aside. Cards with the
/// same budget share the search for a schedule, and so do those on which everything has room; the
/// time is that of each card's own rates.
///
/// # Errors
/// As planning.
pub fn on_cards(
    ask: &Ask<'_>,
    targets: Vec<(&'static Gpu, Target)>,
) -> Result<Vec<OnCard>, Failure> {
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by_key(|&place| targets[place].1.budget_bytes());
    let mut known: BTreeMap<u64, Result<Planned, Refused>> = BTreeMap::new();
    let mut found = Vec::new();
    for (done, &place) in order.iter().enumerate() {
        let (gpu, target) = &targets[place];
        progress(done, targets.len());
        let budget = target.budget_bytes();
        let below = known.range(..=budget).next_back();
        let shared = below.filter(|(of, answer)| **of == budget || needs_no_more(ask, answer));
        let answer = match shared {
            Some((_, answer)) => timed(ask.checkpoint, answer, target)?,
            None => planned_or_refused(&Ask { target, ..*ask })?,
        };
        known.entry(budget).or_insert_with(|| answer.clone());
        found.push((place, OnCard { gpu, target: target.clone(), answer }));
    }
    progress(targets.len(), targets.len());
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, on_card)| on_card).collect())
}

/// The plan for one card. One that this machine's RAM is too small for is refused, as it is where
/// the card is too small: others may need less of it.
fn planned_or_refused(ask: &Ask<'_>) -> Result<Result<Planned, Refused>, Failure> {
    match ask.plan() {
        Err(EngineError::NotEnoughRam { .. }) => Ok(Err(Refused::new(least(ask)?))),
        other => Ok(other?),
    }
}

/// Whether a larger budget would change nothing: all that works step by step or frame by frame lies
/// on the card, and nothing is cut into pieces. How long another card waits for what is streamed
/// says nothing of this one.
fn needs_no_more(ask: &Ask<'_>, answer: &Result<Planned, Refused>) -> bool {
    let Ok(planned) = answer else { return false };
    let Planned { job, schedule, .. } = planned;
    let is_tiled = job.tiling.is_some() || job.encode_tiling.is_some();
    let pages_caches = schedule.decoder.paged_caches > 0
        || (job.given_frames > 0 && schedule.encoder.paged_caches > 0);
    if is_tiled || pages_caches || schedule.transformer.head_groups > 1 {
        return false;
    }
    let report = PlanReport::of(ask.checkpoint, planned);
    let stays = |name: &str| report.phase(name).is_none_or(|phase| phase.streamed_bytes == 0);
    stays("encode") && stays("denoise") && stays("decode")
}

/// The same schedule, with the time that it takes on another card.
fn timed(
    checkpoint: &Checkpoint,
    answer: &Result<Planned, Refused>,
    target: &Target,
) -> Result<Result<Planned, Refused>, Failure> {
    let again = |planned: &Planned| -> Result<Planned, Failure> {
        let Planned { job, schedule, .. } = planned;
        let plan = Plan::timed(checkpoint, job, schedule, None, &target.profile, &target.rates)?;
        Ok(Planned { plan, target: target.clone(), ..planned.clone() })
    };
    Ok(match answer {
        Ok(planned) => Ok(again(planned)?),
        Err(Refused { least, .. }) => Err(Refused::new(again(least)?)),
    })
}

/// How far it is, for those who wait at a terminal.
fn progress(done: usize, all: usize) {
    use std::io::Write;
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K");
        if done < all {
            let _ = write!(terminal, "planned for {done} of {all} cards");
        }
        let _ = terminal.flush();
    }
}

/// `vidfit plan --all-gpus`.
pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let cards = super::cards();
    let targets = cards.into_iter().map(|gpu| {
        let target = planned_target(&args.machine, Some(gpu))?;
        Ok((gpu, target))
    });
    let targets = targets.collect::<Result<Vec<_>, Failure>>()?;
    let Some((_, first)) = targets.first() else { return Ok(()) };
    let keeps = args.output.save_tensors.is_some();
    let wanted = Wanted::new(&args.job, &args.machine, None, first.clone(), keeps, known)?;
    if wanted.fits_frames {
        return Err(Failure::input(
            "--frames fit is for one card: vidfit recommend --all-gpus says the frames for each",
        ));
    }
    let ask = wanted.ask();
    let (job, _) = Job::new(ask.checkpoint, ask.request)?;
    let beside = |(gpu, target)| (gpu, beside_results(target, ask.checkpoint, &job, keeps));
    let found = on_cards(&ask, targets.into_iter().map(beside).collect())?;
    let reports: Vec<PlanReport> = found.iter().map(|on_card| on_card.report(&ask)).collect();
    if args.json {
        let json = serde_json::to_value(&reports).map_err(Failure::other)?;
        return answer(&json.to_string());
    }
    answer(&table(&reports, &found))?;
    if reports.iter().any(|report| report.fits) {
        return Ok(());
    }
    note!("it fits on none of them");
    Err(Failure::no_room(format!("{} fits on no card of the catalogue", wanted.models[0].spelled)))
}

fn table(reports: &[PlanReport], found: &[OnCard]) -> String {
    let Some(first) = reports.first() else { return String::new() };
    let video = &first.video;
    let widest = found.iter().map(|on_card| on_card.gpu.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{}, {} of {}×{}, {} steps in {}; times from what makers publish",
        first.model,
        frames(video.frames),
        video.width,
        video.height,
        video.steps,
        video.dtype
    )];
    lines.push(format!(
        "{:widest$}  {:>8}  {:>8}  {:10}  {:>8}  {:>9}  {:>12}",
        "card", "memory", "budget", "strategy", "stays", "peak", "time"
    ));
    for (report, on_card) in reports.iter().zip(found) {
        let (strategy, time) = match report.fits {
            true => (report.placement.strategy.clone(), seconds(report.seconds)),
            false if report.peak_bytes <= report.budget_bytes => {
                ("too little RAM".into(), String::new())
            }
            false => ("does not fit".into(), String::new()),
        };
        let tiles = if report.video.tile.is_some() { "  in tiles" } else { "" };
        lines.push(format!(
            "{:widest$}  {:>8}  {:>8}  {:10}  {:>7.0}%  {:>9}  {:>12}{tiles}",
            on_card.gpu.name,
            size(on_card.gpu.memory_bytes),
            size(report.budget_bytes),
            strategy,
            report.placement.resident_percent,
            size(report.peak_bytes),
            time
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_engine::catalogue;
    use vidfit_engine::checkpoint::Variant;
    use vidfit_engine::planner::Offload;
    use vidfit_engine::request::Request;
    use vidfit_tensor::Rates;

    /// A card that never waits for what it streams says nothing of the next one.
    #[test]
    fn a_card_with_more_room_keeps_what_another_streams_for_free() {
        let checkpoint = Checkpoint::published(Variant::FiveB);
        let dtype = Variant::FiveB.published_dtype();
        let request = Request { frames: Some(9), steps: 2, dtype, ..Request::new("A panda") };
        let gpu = catalogue::find("RTX 3060 12GB").unwrap();
        let card = |free_bytes: u64, flops: f64, upload: f64| Target {
            free_bytes,
            overhead_bytes: 0,
            rates: Rates::of_card(flops, flops, 1e12, upload),
            ..Target::of_card(gpu)
        };
        // So slow that no upload is waited for; and so fast that every one is.
        let (small, large) = (card(8 << 30, 1e9, 1e12), card(40 << 30, 1e15, 1e9));
        let offload = Offload::Auto;
        let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &large };
        let found = on_cards(&ask, vec![(gpu, small), (gpu, large.clone())]).unwrap();
        let streamed = |place: usize| {
            let on_card: &OnCard = &found[place];
            on_card.report(&ask).phase("denoise").unwrap().streamed_bytes
        };
        assert!(streamed(0) > 0, "the small card has room for everything");
        let alone = ask.plan().unwrap().unwrap();
        assert_eq!(found[1].answer.as_ref().unwrap().schedule, alone.schedule);
        assert_eq!(streamed(1), 0);
    }
}
