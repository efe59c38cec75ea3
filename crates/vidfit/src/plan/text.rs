//! A plan as people read it.

use crate::decide::budget;
use crate::human::{frames, seconds, size};
use vidfit_engine::planner::report::{Holder, PhaseReport, Placement};
use vidfit_engine::planner::{Certainty, Offload, PlanReport};

/// The plan in words and a table; `explained` with what holds the peaks, and what was not taken.
pub fn of(report: &PlanReport, offload: Offload, explained: bool) -> String {
    let mut lines = vec![verdict(report), video(report)];
    lines.push(String::new());
    lines.push(format!("budget    {} ({})", size(report.budget_bytes), budget(report)));
    lines.push(format!("weights   {}", placement(&report.placement)));
    if report.placement.strategy == "in place" && offload != Offload::Auto {
        lines.push(format!("          --offload {offload} has no meaning on the CPU"));
    }
    lines.push(format!("RAM       {}", ram(report)));
    lines.push(format!("picture   {}", picture(report)));
    lines.push(format!("time      {}", time(report)));
    lines.push(String::new());
    lines.extend(table(&report.phases));
    if explained {
        lines.push(String::new());
        lines.extend(report.phases.iter().flat_map(holders));
        lines.push(String::new());
        lines.extend(rejected(report));
    }
    lines.join("\n")
}

fn verdict(report: &PlanReport) -> String {
    let (peak, budget) = (size(report.peak_bytes), size(report.budget_bytes));
    let (model, device) = (&report.model, &report.device);
    match report.fits {
        true => format!("{model} fits on {device}: it takes {peak} of the {budget} there are."),
        false if report.peak_bytes <= report.budget_bytes => {
            format!("{model} fits on {device}, with {peak} of {budget}, but not into the RAM.")
        }
        false => format!(
            "{model} does not fit on {device}: it takes {peak} at least, and there are {budget}."
        ),
    }
}

fn video(report: &PlanReport) -> String {
    let video = &report.video;
    format!(
        "{} of {}×{}, {} steps in {}",
        frames(video.frames),
        video.width,
        video.height,
        video.steps,
        video.dtype
    )
}

/// Where the transformer's weights are, in words.
pub fn placement(placement: &Placement) -> String {
    let slots = match placement.slots {
        1 => "one slot, each block when it is used".to_owned(),
        slots => format!("{slots} slots, copied while the blocks before compute"),
    };
    let mut words = match placement.strategy.as_str() {
        "in place" => "used where they lie, in the memory map".to_owned(),
        "none" => "all components stay on the device throughout".to_owned(),
        _ if placement.slots == 0 => "the transformer is whole on the device while it works".into(),
        _ if placement.resident_percent < 0.5 => {
            format!("the transformer streams through {slots}")
        }
        _ => format!(
            "{:.0} % of the transformer stays on the device, the rest streams through {slots}",
            placement.resident_percent
        ),
    };
    if placement.head_groups > 1 {
        words += &format!("; attention in {} groups of heads", placement.head_groups);
    }
    if placement.paged_caches > 0 {
        words += &format!("; {} of the decoder's caches wait in RAM", placement.paged_caches);
    }
    if placement.paged_encoder_caches > 0 {
        let caches = placement.paged_encoder_caches;
        words += &format!("; {caches} of the encoder's caches wait in RAM");
    }
    words
}

fn ram(report: &PlanReport) -> String {
    let of = report.ram_bytes.map_or(String::new(), |ram| format!(" of {}", size(ram)));
    format!(
        "{}{of} for the job; up to {} more serve as cache of the weights' files",
        size(report.ram_peak_bytes),
        size(report.mapped_bytes)
    )
}

fn picture(report: &PlanReport) -> String {
    match &report.changes_picture[..] {
        [] => "as it was asked for".into(),
        changes => format!("CHANGED: {}", changes.join("; ")),
    }
}

fn time(report: &PlanReport) -> String {
    let doubt = match report.certainty {
        Certainty::Measured => "",
        Certainty::Catalogue => "; it may well be a third more or less",
        Certainty::Guess => "; it may be wrong by a factor of three",
    };
    let disk = match report.streams_from_disk {
        true => "; longer, since RAM is too small to keep the weights' files cached",
        false => "",
    };
    format!("{}, {}{doubt}{disk}", seconds(report.seconds), report.certainty)
}

fn table(phases: &[PhaseReport]) -> Vec<String> {
    let row = |cells: [&str; 6]| {
        let [name, peak, time, waiting, uploads, holder] = cells;
        format!("{name:9} {peak:>9}  {time:>12}  {waiting:>12}  {uploads:>9}  {holder}")
    };
    let head = row(["phase", "needs", "time", "of it waits", "uploads", "most of the peak is"]);
    let of = |phase: &PhaseReport| {
        row([
            &phase.name,
            &size(phase.live_bytes),
            &seconds(phase.seconds),
            &seconds(phase.waiting_seconds),
            &size(phase.uploaded_bytes),
            &phase.peak_holder,
        ])
    };
    std::iter::once(head).chain(phases.iter().map(of)).collect()
}

/// Holders that are worth naming.
const MOST_HOLDERS: usize = 8;

fn holders(phase: &PhaseReport) -> Vec<String> {
    let head = format!("{}: {} at its fullest, of which", phase.name, size(phase.live_bytes));
    let of = |group: &Holder| {
        let alike = match group.count {
            1 => String::new(),
            count => format!(" and {} like it", count - 1),
        };
        format!("  {:>9}  {}{alike}", size(group.bytes), group.label)
    };
    std::iter::once(head).chain(phase.holders.iter().take(MOST_HOLDERS).map(of)).collect()
}

fn rejected(report: &PlanReport) -> Vec<String> {
    let head = match report.rejected.is_empty() {
        true => "Nothing else was considered.",
        false => "Not taken:",
    };
    let of = |rejected: &vidfit_engine::planner::Rejected| {
        format!(
            "  {}: {}, {}; {}",
            rejected.what,
            size(rejected.peak_bytes),
            seconds(rejected.seconds),
            rejected.why
        )
    };
    std::iter::once(head.to_owned()).chain(report.rejected.iter().map(of)).collect()
}
