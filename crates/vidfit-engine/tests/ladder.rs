//! What would fit instead of what does not.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::{Ask, Offload, Step, Target, fit, nearest};
use vidfit_engine::request::{Request, TilingChoice};

const MIB: u64 = 1 << 20;

fn target(budget_bytes: u64) -> Target {
    let gpu = catalogue::find("RTX 4090").unwrap();
    Target { limit_bytes: Some(budget_bytes + gpu.overhead_bytes), ..Target::of_card(gpu) }
}

fn request(variant: Variant) -> Request {
    Request { dtype: variant.published_dtype(), ..Request::new("A panda plays the guitar") }
}

#[test]
fn the_nearest_that_fit_are_named_and_fit() {
    let (five, two) = (Checkpoint::published(Variant::FiveB), Checkpoint::published(Variant::TwoB));
    let request = request(Variant::FiveB);
    let target = target(500 * MIB);
    let ask = Ask { checkpoint: &five, request: &request, offload: Offload::Auto, target: &target };
    assert!(ask.plan().unwrap().is_err());
    let found = nearest(ask, &[&five, &two]).unwrap();
    let words: Vec<&str> = found.iter().map(|other| other.what.as_str()).collect();
    assert!(words.len() >= 2, "{words:?}");
    assert!(words[0].ends_with("frames") && words[1].ends_with("pixels"), "{words:?}");
    for other in &found {
        assert!(other.planned.plan.device_bytes() <= target.budget_bytes(), "{}", other.what);
    }
    // Fewer frames than were asked for, and as many as fit: the next count does not.
    let frames = found[0].planned.job.frames;
    let more = Request { frames: Some(frames + five.frame_step()), ..request.clone() };
    assert!(frames < 49 && Ask { request: &more, ..ask }.plan().unwrap().is_err(), "{frames}");
}

#[test]
fn the_ladder_takes_the_first_step_of_the_users_order() {
    let (five, two) = (Checkpoint::published(Variant::FiveB), Checkpoint::published(Variant::TwoB));
    let models = [&five, &two];
    let request = Request { tiling: TilingChoice::Off, ..request(Variant::FiveB) };
    let plan = |budget: u64, order: &[Step]| {
        let target = target(budget);
        let ask =
            Ask { checkpoint: &five, request: &request, offload: Offload::Auto, target: &target };
        fit(ask, order, &models).unwrap()
    };
    let tiles = plan(1024 * MIB, &Step::ORDER).unwrap();
    assert_eq!(tiles.what, "tiles");
    assert!(tiles.planned.job.tiling.is_some() && tiles.planned.job.frames == 49);

    let size = plan(1024 * MIB, &[Step::Size]).unwrap();
    assert!(size.planned.job.width < 720 && size.planned.job.tiling.is_none(), "{}", size.what);

    // Tiles have their turn like everything else.
    let frames_first = plan(1400 * MIB, &[Step::Size, Step::Tiling]).unwrap();
    assert!(frames_first.planned.job.tiling.is_none(), "{}", frames_first.what);
    assert!(frames_first.what.ends_with("pixels"), "{}", frames_first.what);

    // Smaller than any single change makes it: changes on top of one another, or nothing.
    let both = plan(480 * MIB, &[Step::Tiling, Step::Frames, Step::Size]).unwrap();
    assert!(both.planned.plan.device_bytes() <= 480 * MIB, "{}", both.what);
    assert!(plan(16 * MIB, &Step::ORDER).is_none());
}
