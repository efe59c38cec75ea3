//! `vidfit bench execute`: phases of the published models, with random weights, on simulated cards
//! of just the planned size.

mod cases;
mod phase;
mod results;

use super::holders::{Held, held_at_fullest};
use crate::exit::Failure;
use crate::human::{grouped, size};
use crate::say::line;
use cases::{CASES, Case};
use phase::{Executed, Kind, Phase, PhasePlan, card_of};
use vidfit_cpu::SimDevice;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::Target;
use vidfit_engine::request::Job;
use vidfit_engine::schedule::Schedule;

/// `vidfit bench execute`.
#[derive(clap::Args)]
pub struct ExecuteArgs {
    /// Just this case.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Just the small jobs that several placements are compared by.
    #[arg(long)]
    small: bool,
    /// Threads that compute.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

/// Executes the cases, and fails if anything is not as planned.
pub fn run(args: &ExecuteArgs) -> Result<(), Failure> {
    let is_chosen = |case: &&Case| args.only.as_ref().is_none_or(|name| name == case.name);
    let chosen: Vec<&Case> = CASES.iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        let names = CASES.map(|case| case.name).join(", ");
        return Err(Failure::input(format!("there is no such case. There are: {names}")));
    }
    let mut broken = Vec::new();
    for case in chosen {
        broken.extend(execute(case, args)?);
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Failure::other(format!("this does not hold: {}", broken.join("; ")))),
    }
}

/// Executes a case and tells of it. Returns what does not hold.
fn execute(case: &Case, args: &ExecuteArgs) -> Result<Vec<String>, Failure> {
    let threads = args.threads;
    let published = Checkpoint::published(case.variant);
    let whole = case.whole_job(&published)?;
    let target = Target::of_device(&SimDevice::new(card_of(0, threads))?, u64::MAX);
    let schedule = case.schedule(&published, &whole, &target)?;
    let checkpoint = case.checkpoint();
    let job = case.job(&checkpoint)?;
    line!("{}: {}", case.name, describe(case, &checkpoint, &published));

    let mut broken = Vec::new();
    if !args.small {
        let phase =
            Phase { kind: case.kind, checkpoint: &checkpoint, job: &job, schedule: &schedule };
        broken = execute_at_size(&phase, &target, threads)?;
        tell_whole(case, &phase, (&published, &whole), &target)?;
    }
    broken.extend(compare_placements(case, &checkpoint, &schedule, &target, threads)?);
    for what in &broken {
        line!("  DOES NOT HOLD: {what}");
    }
    line!("");
    Ok(broken.into_iter().map(|what| format!("{}: {what}", case.name)).collect())
}

/// Executes a phase in what was planned. Returns what does not hold.
fn execute_at_size(
    phase: &Phase<'_>,
    target: &Target,
    threads: usize,
) -> Result<Vec<String>, Failure> {
    let plan = phase.plan(&target.profile)?;
    let refused = plan.is_refused_with_less(target.profile.alignment, threads)?;
    tell_plan(&plan);
    let executed = phase.execute(&plan, threads)?;
    tell_execution(&plan, &executed, threads);
    let mut broken = differences(&plan, &executed);
    if refused {
        line!("  refused    on a card with {} bytes less", target.profile.alignment);
    } else {
        broken.push("a card with less memory was accepted".into());
    }
    Ok(broken)
}

/// Tells what the phase takes in the whole job that the case is cut from.
fn tell_whole(
    case: &Case,
    phase: &Phase<'_>,
    (published, whole): (&Checkpoint, &Job),
    target: &Target,
) -> Result<(), Failure> {
    let plan = phase.plan(&target.profile)?;
    let layout = Plan::new(published, whole, phase.schedule, None, &target.profile)?.layout;
    let of_whole = layout.phases.iter().find(|phase| phase.name == case.kind.name());
    let whole_bytes = of_whole.map_or(0, |phase| phase.peak_bytes);
    let held = held_at_fullest(&layout.trace, case.kind.name());
    line!(
        "  whole job  {} bytes of arena in this phase, with all blocks, steps and frames{}",
        grouped(whole_bytes),
        compare((plan.arena_bytes(), &plan.held(case.kind)), (whole_bytes, &held))
    );
    Ok(())
}

fn describe(case: &Case, checkpoint: &Checkpoint, published: &Checkpoint) -> String {
    let [frames, rows, columns] = case.latents;
    let work = match case.kind {
        Kind::Denoise => {
            let config = &checkpoint.transformer.config;
            let video = config.grid(frames, rows, columns).map_or(0, |grid| grid.tokens());
            format!(
                "{} of {} blocks, {} tokens, both halves of guidance, {} steps",
                case.layers,
                published.transformer.config.num_layers,
                grouped((video + config.max_text_seq_length) as u64),
                case.steps
            )
        }
        Kind::Decode => {
            let tiles = if case.is_tiled { "the reference's tiles" } else { "one piece" };
            let caches = if case.pages_caches { "paged to the host" } else { "on the card" };
            format!(
                "the published VAE, {frames} latent frames of {rows}×{columns} in {tiles}, caches \
                 {caches}"
            )
        }
    };
    let slots = if case.slots == 1 { "one slot" } else { "two slots" };
    let dtype = case.variant.published_dtype();
    format!("{}, {work}, {dtype}, weights streamed through {slots}", case.variant)
}

fn tell_plan(plan: &PhasePlan) {
    line!(
        "  planned    {} bytes: {} of arena and {} of scratch ({})",
        grouped(plan.device_bytes()),
        grouped(plan.arena_bytes()),
        grouped(plan.device_bytes() - plan.arena_bytes()),
        size(plan.device_bytes())
    );
}

fn tell_execution(plan: &PhasePlan, executed: &Executed, threads: usize) {
    line!(
        "  measured   {} at the peak, highest byte touched {}; the card held {}",
        grouped(executed.peak_bytes),
        grouped(executed.highest_byte),
        grouped(executed.held_bytes)
    );
    line!(
        "  copied in  {} planned, {} counted; out {} planned, {} counted",
        grouped(plan.copied().uploaded_bytes),
        grouped(executed.copied.uploaded_bytes),
        grouped(plan.copied().downloaded_bytes),
        grouped(executed.copied.downloaded_bytes)
    );
    line!("  host       {} waited there for the card at most", size(executed.host_peak_bytes));
    line!(
        "  results    {} values, {} not finite, digest {}; {} violations found by the checker",
        grouped(executed.results.values as u64),
        executed.results.not_finite,
        executed.results.digest,
        executed.violations.len()
    );
    line!("  time       {:.1} s on {threads} threads", executed.seconds);
}

/// What was executed otherwise than planned.
fn differences(plan: &PhasePlan, executed: &Executed) -> Vec<String> {
    let mut broken = executed.violations.clone();
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    hold(executed.peak_bytes == plan.arena_bytes(), "the measured peak is not the planned one");
    hold(executed.highest_byte <= plan.arena_bytes(), "a byte beyond the plan was touched");
    hold(executed.held_bytes == plan.device_bytes(), "the card held something else than planned");
    hold(executed.copied == plan.copied(), "not as much was copied as planned");
    hold(executed.results.values > 0, "nothing came out");
    hold(executed.results.not_finite == 0, "not everything that came out is finite");
    broken
}

/// How much more the whole job takes than the case, and what that is.
fn compare((case_bytes, case): (u64, &[Held]), (whole_bytes, whole): (u64, &[Held])) -> String {
    let bytes_of = |held: &[Held], what: &str| {
        held.iter().find(|held| held.what == what).map_or(0, |held| held.bytes as i64)
    };
    let kinds = whole.iter().chain(case.iter().filter(|held| bytes_of(whole, &held.what) == 0));
    let mut differences: Vec<(&str, i64)> = kinds
        .map(|held| (&*held.what, bytes_of(whole, &held.what) - bytes_of(case, &held.what)))
        .collect();
    let difference = whole_bytes as i64 - case_bytes as i64;
    let known: i64 = differences.iter().map(|(_, bytes)| bytes).sum();
    differences.push(("gaps between tensors", difference - known));
    let signed =
        |bytes: i64| format!("{}{}", if bytes < 0 { "-" } else { "+" }, size(bytes.unsigned_abs()));
    let told: Vec<String> = differences
        .iter()
        .filter(|(_, bytes)| *bytes != 0)
        .map(|(what, bytes)| format!("{what} {}", signed(*bytes)))
        .collect();
    match told.is_empty() {
        true => ": just as much".into(),
        false => format!(": {} ({})", signed(difference), told.join(", ")),
    }
}

/// Executes a small job of the case's in several placements, each on a card of its planned size.
fn compare_placements(
    case: &Case,
    checkpoint: &Checkpoint,
    own: &Schedule,
    target: &Target,
    threads: usize,
) -> Result<Vec<String>, Failure> {
    let job = case.small_job(checkpoint)?;
    let (mut told, mut broken, mut first) = (Vec::new(), Vec::new(), None);
    for (name, schedule) in Case::placements(*own) {
        let phase = Phase { kind: case.kind, checkpoint, job: &job, schedule: &schedule };
        let plan = phase.plan(&target.profile)?;
        let executed = phase.execute(&plan, threads)?;
        told.push(format!("{name} {}", size(plan.arena_bytes())));
        broken.extend(differences(&plan, &executed));
        let results = first.get_or_insert_with(|| executed.results.clone());
        if *results != executed.results {
            broken.push(format!("placement {name:?} changes the bits"));
        }
    }
    let [frames, rows, columns] = case.small;
    if broken.is_empty() {
        let told = told.join(", ");
        line!("  same bits  from {frames}×{rows}×{columns} latents in three placements: {told}");
    }
    Ok(broken)
}
