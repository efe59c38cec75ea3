//! Whole videos on an NVIDIA card: the reference's, in exactly the planned memory, wherever the weights
//! wait.
//!
//! Where this machine has a card, every case runs on it. Without one, on Linux, some run through the real
//! driver's calls over the emulation, which executes the kernels' own source on the CPU.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

#[path = "../../vidfit-cuda/tests/bed/machine.rs"]
mod machine;
#[path = "../../vidfit-cuda/tests/memory_bed/mod.rs"]
mod memory_bed;
mod support;

use memory_bed::{Card, hold, still, taken, took};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use support::card::Bits;
use support::parity::{equals, farther};
use support::{Case, job, pixels_for, prepare_job};
use vidfit_cuda::{Cuda, CudaDevice};
use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, Generated, RunOptions};
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Planned, Target, plan_least};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::{DType, Device};

/// Set where the driver is the emulation's, which takes its time.
const IS_EMULATED: &str = "VIDFIT_TEST_EMULATED_DRIVER";

/// What is computed by the emulation: every variant, kinds of start and samplers, tiles, in f32; and some
/// in half types. A card computes everything.
const EMULATED_F32: [&str; 7] =
    ["2b-ddim", "5b-dpm", "5b-tiled", "5b-i2v-dpm", "1.5-dpm", "1.5-i2v-dpm", "2b-v2v-all"];
const EMULATED_HALF: [(DType, &str); 4] = [
    (DType::BF16, "5b-dpm"),
    (DType::BF16, "1.5-dpm"),
    (DType::F16, "2b-ddim"),
    (DType::F16, "5b-i2v-dpm"),
];

fn is_emulated() -> bool {
    std::env::var_os(IS_EMULATED).is_some()
}

/// The card, if there is one, which one test at a time has. It is let go before the turn is: the next test
/// would see memory come back.
fn card() -> Option<(MutexGuard<'static, ()>, Card)> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    machine::card().map(|card| (turn, Card::new(card)))
}

/// Runs a plan on the card in exactly the planned bytes, with what is freed poisoned. The driver's own
/// figure of what is taken is asked all the while: from the reservation to the end it does not move.
fn run(checkpoint: &Checkpoint, planned: &Planned, card: &Card) -> (Plan, Generated) {
    let generated = hold(card, |device| run_watched(checkpoint, planned, device));
    assert_eq!(generated.measured.peak_bytes, planned.plan.layout.peak_bytes);
    (planned.plan.clone(), generated)
}

/// The same; or what was seen of the card's memory that is not the plan's.
fn run_watched(
    checkpoint: &Checkpoint,
    planned: &Planned,
    card: &Arc<CudaDevice<Cuda>>,
) -> Result<Generated, String> {
    let device: Arc<dyn Device> = card.clone();
    let before = taken(card.driver());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (asked, noted) = (card.clone(), seen.clone());
    let pixels = pixels_for(&planned.job);
    let options = RunOptions {
        stop: &AtomicBool::new(false),
        listener: Box::new(move |_| noted.lock().unwrap().push(taken(asked.driver()))),
        keep_tensors: true,
        capacity_bytes: planned.plan.device_bytes(),
        poison: true,
        pixels: pixels.as_ref(),
        state: None,
        replan: false,
        keep: None,
    };
    let generated = generate::run(checkpoint, planned, &device, options).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 3, "nobody listened");
    if seen.iter().any(|bytes| bytes != &seen[0]) {
        return Err(format!("memory moves beside the arena: {seen:?} are taken"));
    }
    took(before, seen[0], planned.plan.device_bytes())?;
    still(card.driver(), before, "afterwards")?;
    Ok(generated)
}

fn run_case(case: &Case, dtype: DType, card: &Card) -> Generated {
    let checkpoint = case.open();
    let planned = prepare_job(&checkpoint, job(&checkpoint, &case.request(dtype)), &*card.device());
    run(&checkpoint, &planned, card).1
}

#[test]
fn cases_equal_the_reference_in_f32() {
    let Some((_turn, card)) = card() else { return };
    let is_chosen = |case: &Case| !is_emulated() || EMULATED_F32.contains(&&*case.name);
    let (mut failures, mut compared) = (Vec::new(), 0);
    for case in Case::all().iter().filter(|case| case.valid_request && is_chosen(case)) {
        compared += 1;
        if !equals(case, &run_case(case, DType::F32, &card)) {
            failures.push(case.name.clone());
        }
    }
    assert!(compared >= EMULATED_F32.len(), "only {compared} videos were compared");
    assert!(failures.is_empty(), "these miss the reference: {failures:?}");
}

#[test]
fn half_types_are_no_farther_from_f32_than_the_references() {
    let Some((_turn, card)) = card() else { return };
    let is_chosen =
        |dtype: DType, case: &Case| !is_emulated() || EMULATED_HALF.contains(&(dtype, &*case.name));
    let (mut misses, mut compared) = (Vec::new(), 0);
    for dtype in [DType::BF16, DType::F16] {
        for case in Case::all() {
            if case.own_distance(dtype).is_some() && is_chosen(dtype, &case) {
                compared += 1;
                misses.extend(farther(&case, dtype, &run_case(&case, dtype, &card)));
            }
        }
    }
    assert!(compared >= EMULATED_HALF.len(), "only {compared} videos were compared");
    assert!(misses.is_empty(), "{misses:#?}");
}

/// The same bits from weights that are resident, that come through two slots and through one, with the
/// work cut up and the caches paged.
#[test]
fn placement_changes_no_bit() {
    let Some((_turn, card)) = card() else { return };
    let names: &[(DType, &str)] = match is_emulated() {
        true => &[(DType::BF16, "5b-dpm")],
        false => &[
            (DType::BF16, "5b-dpm"),
            (DType::F16, "2b-ddim"),
            (DType::F32, "1.5-dpm"),
            (DType::BF16, "5b-i2v-dpm"),
        ],
    };
    for &(dtype, name) in names {
        let case = Case::named(name);
        let checkpoint = case.open();
        let job = job(&checkpoint, &case.request(dtype));
        let target = Target {
            profile: card.device().profile().clone(),
            ..Target::of_card(catalogue::find("RTX 3060 12GB").unwrap())
        };
        let least = plan_least(&checkpoint, &job, Offload::Sequential, &target).unwrap().schedule;
        let mut one_slot = least;
        (one_slot.text.slots, one_slot.denoise.slots, one_slot.decode.slots) = (1, 1, 1);
        (one_slot.transformer.rows, one_slot.decoder.paged_caches) = (17, 9);
        let mut first: Option<Bits> = None;
        let mut peaks = Vec::new();
        for schedule in [Schedule::resident(), least, one_slot] {
            let plan =
                Plan::new(&checkpoint, &job, &schedule, None, card.device().profile()).unwrap();
            let planned = Planned::new(job.clone(), schedule, plan, Offload::Auto, &target);
            let (plan, generated) = run(&checkpoint, &planned, &card);
            peaks.push(plan.device_bytes());
            let bits = Bits::of(&generated);
            first.get_or_insert_with(|| bits.clone()).assert_same(&bits, name);
        }
        println!("{dtype} {name}: the same bits in {peaks:?} bytes");
        assert!(peaks[0] > peaks[1], "{peaks:?}");
    }
}

/// Runs these tests, or one of them, on the emulation's driver, on a card on which a desktop is.
#[cfg(target_os = "linux")]
fn on_emulated_driver(only: Option<&str>, settings: &[(&str, &str)]) -> (bool, String) {
    let driver = machine::driver();
    let folders = [driver.parent().unwrap().to_owned(), memory_bed::nvml(&driver)];
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--skip", "driver_over_the_emulation"])
        .args(only)
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap())
        .env(IS_EMULATED, "1")
        // A library that this machine may have would ask that driver for more than it has.
        .env("VIDFIT_CUBLASLT", "off")
        .env("NEIGHBOURS", "30")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (ran.status.success(), said.concat())
}

#[test]
#[cfg(target_os = "linux")]
fn a_driver_over_the_emulation_makes_the_same_videos() {
    let (passed, said) = on_emulated_driver(None, &[]);
    println!("{said}");
    assert!(passed && said.contains("3 passed"), "it failed");
    assert!(!said.contains("skipped"), "it was skipped");
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_driver_over_the_emulation_takes_beside_the_arena_is_noticed() {
    let takes = [("DRIVER_TAKES", "once"), (memory_bed::FEWER_ATTEMPTS, "2")];
    let (passed, said) = on_emulated_driver(Some("placement_changes_no_bit"), &takes);
    assert!(!passed && said.contains("memory moves beside the arena"), "{said}");
}

/// As those of cards do (`vidfit-cuda/emulation/emulation.hpp`).
#[test]
#[cfg(target_os = "linux")]
fn so_does_a_driver_over_the_emulation_whose_tensor_cores_truncate() {
    for rounding in ["truncate4", "truncate8", "truncate16"] {
        let (passed, said) =
            on_emulated_driver(Some("half_types"), &[("TENSOR_ROUNDING", rounding)]);
        println!("{said}");
        assert!(passed && said.contains("1 passed"), "{rounding}");
    }
}
