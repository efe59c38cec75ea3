//! Plans of the published models, without any weights.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use std::time::Instant;
use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::{Ask, Offload, PlanReport, Planned, Target, plan_least};
use vidfit_engine::request::{Job, Request, TilingChoice, tiles};

const GIB: f64 = (1u64 << 30) as f64;

fn target(limit_bytes: u64) -> Target {
    let gpu = catalogue::find("RTX 4090").unwrap();
    Target { limit_bytes: Some(limit_bytes + gpu.overhead_bytes), ..Target::of_card(gpu) }
}

fn request(variant: Variant) -> Request {
    Request { dtype: variant.published_dtype(), ..Request::new("A panda plays the guitar") }
}

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

#[test]
fn the_least_budgets_are_small() {
    for variant in Variant::ALL {
        for tiling in [TilingChoice::On, TilingChoice::Off] {
            let began = Instant::now();
            let planned = least(variant, tiling);
            println!(
                "{variant:20} {tiling:?} least {:.3} GiB, {:.2} s to plan",
                planned.plan.device_bytes() as f64 / GIB,
                began.elapsed().as_secs_f64()
            );
            for phase in &planned.plan.layout.phases {
                println!("   {} {:.3}", phase.name, phase.peak_bytes as f64 / GIB);
                for holder in phase.holders.iter().take(6) {
                    println!("       {:.3} {}", holder.bytes as f64 / GIB, holder.label);
                }
            }
        }
    }
}

#[test]
fn auto_fills_the_card() {
    let variant = Variant::FiveB;
    let checkpoint = Checkpoint::published(variant);
    let request = request(variant);
    let lowest = least(variant, TilingChoice::On).plan.device_bytes();
    for step in 0..10u64 {
        let budget = lowest + step * ((12 << 30) - lowest) / 9;
        let target = target(budget);
        let ask = Ask {
            checkpoint: &checkpoint,
            request: &request,
            offload: Offload::Auto,
            target: &target,
        };
        let began = Instant::now();
        let planned = ask.plan().unwrap().unwrap();
        let took = began.elapsed();
        let report = PlanReport::of(&checkpoint, &planned, Offload::Auto, &target);
        println!(
            "budget {:.2} used {:.3} {:.1} s, {:.1} % resident, {:?} planned in {took:.2?}",
            budget as f64 / GIB,
            report.peak_bytes as f64 / budget as f64,
            report.seconds,
            report.placement.resident_percent,
            report.placement
        );
        for phase in &report.phases {
            println!(
                "    {} {:.2} GiB {:.1} s waiting {:.1}",
                phase.name,
                phase.peak_bytes as f64 / GIB,
                phase.seconds,
                phase.waiting_seconds
            );
        }
    }
}
