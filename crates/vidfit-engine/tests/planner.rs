//! Plans of the published models, without any weights.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use std::time::Instant;
use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::{Ask, Offload, PlanReport, Planned, Target, plan_least};
use vidfit_engine::request::{Job, Request, Start, TilingChoice, tiles};

const GIB: f64 = (1u64 << 30) as f64;

fn target(limit_bytes: u64) -> Target {
    let gpu = catalogue::find("RTX 4090").unwrap();
    Target { limit_bytes: Some(limit_bytes + gpu.overhead_bytes), ..Target::of_card(gpu) }
}

/// The published length and size of `variant`, in its published type.
fn request(variant: Variant) -> Request {
    let (frames, height, width) = match variant.is_one_five() {
        true => (81, 768, 1360),
        false => (49, 480, 720),
    };
    Request {
        start: Start::usual(variant),
        frames: Some(frames),
        height: Some(height),
        width: Some(width),
        dtype: variant.published_dtype(),
        ..Request::new("A panda plays the guitar")
    }
}

/// The least that a job takes, decoded whole or in the reference's tiles.
fn least(variant: Variant, tiling: TilingChoice) -> Planned {
    let checkpoint = Checkpoint::published(variant);
    let request = Request { tiling, ..request(variant) };
    let (job, _) = Job::new(&checkpoint, &request).unwrap();
    let job = match tiling {
        TilingChoice::Off => job,
        _ => job.with_tiles(tiles(&checkpoint, &request).unwrap()),
    };
    plan_least(&checkpoint, &job, Offload::Auto, &target(u64::MAX / 2)).unwrap()
}

/// Peak of a phase in GiB, scratch included, and what of it are weights.
fn phase(planned: &Planned, name: &str) -> (f64, f64) {
    let phases = &planned.plan.layout.phases;
    let phase = phases.iter().find(|phase| phase.name == name).unwrap();
    let weights = phase.holders.iter().filter(|holder| holder.label.contains("weight"));
    let weights: u64 = weights.map(|holder| holder.bytes).sum();
    let peak = phase.peak_bytes + planned.plan.scratch_bytes;
    (peak as f64 / GIB, weights as f64 / GIB)
}

#[test]
fn least_budgets_in_the_references_tiles() {
    let bounds = [
        (Variant::TwoB, 1.0),
        (Variant::FiveB, 1.0),
        (Variant::FiveBI2v, 1.0),
        (Variant::OneFive, 1.75),
        (Variant::OneFiveI2v, 1.75),
    ];
    for (variant, most) in bounds {
        let planned = least(variant, TilingChoice::On);
        let needed = planned.plan.device_bytes() as f64 / GIB;
        println!("{variant}: {needed:.3} GiB, allowed are {most}");
        assert!(needed <= most, "{variant}: {needed:.3} GiB");
    }
}

#[test]
fn least_memory_of_an_untiled_decode_and_of_a_step() {
    let planned = least(Variant::FiveB, TilingChoice::Off);
    let (decode, _) = phase(&planned, "decode");
    let (denoise, weights) = phase(&planned, "denoise");
    println!("decode {decode:.3} GiB, denoise {denoise:.3} GiB, {weights:.3} of it weights");
    assert!(decode <= 3.2, "{decode:.3} GiB");
    assert!(weights > 0.0 && denoise - weights <= 0.6, "{:.3} GiB", denoise - weights);
}

#[test]
fn auto_fills_the_card_and_more_memory_is_never_slower() {
    let variant = Variant::FiveB;
    let checkpoint = Checkpoint::published(variant);
    let request = request(variant);
    let lowest = least(variant, TilingChoice::On).plan.device_bytes();
    let report = |budget: u64| {
        let target = target(budget);
        let offload = Offload::Auto;
        let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
        let planned = ask.plan().unwrap().unwrap_or_else(|_| panic!("{budget} bytes are too few"));
        PlanReport::of(&checkpoint, &planned)
    };
    // With all of it free, every weight stays.
    let all = report(u64::MAX / 2);
    assert_eq!(all.placement.resident_percent, 100.0);
    let mut before = f64::INFINITY;
    for step in 0..10 {
        let budget = lowest + step * (all.peak_bytes - lowest) / 9;
        let began = Instant::now();
        let report = report(budget);
        let used = report.peak_bytes as f64 / budget as f64;
        println!(
            "{:6.2} GiB, {:.3} of it used: {:.1} s, {:?}, planned in {:.2?}",
            budget as f64 / GIB,
            used,
            report.seconds,
            report.placement,
            began.elapsed(),
        );
        assert!(report.fits && report.peak_bytes <= budget);
        assert!(report.seconds <= before, "{} s after {before} s", report.seconds);
        let is_all = report.placement.resident_percent == 100.0;
        assert!(used >= 0.9 || is_all, "{used} of {budget} bytes are used");
        before = report.seconds;
    }
    assert!(all.seconds <= before);
}
