//! Whatever a card does, a run that was begun ends well or can be gone on with, and one that cannot
//! fit is refused before it begins.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::card::{Bits, Draw, Extra, assert_as_planned, config, profile, run, target};
use support::job_bed::Bed;
use vidfit_cogvideox::scheduler::SchedulerKind;
use vidfit_cpu::{Direction, Faults, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::placement::Streaming;
use vidfit_engine::planner::{Offload, Planned, Target, replan};
use vidfit_engine::progress::{Listener, Progress};
use vidfit_engine::schedule::Schedule;
use vidfit_engine::state::RunState;
use vidfit_tensor::{DType, Device};

/// Trials of each variant: 500 in all.
const TRIALS: usize = 125;

/// Counts the phases that begin.
fn counting_phases() -> (Arc<AtomicUsize>, Listener) {
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = begun.clone();
    let listener = Box::new(move |news| {
        if matches!(news, Progress::PhaseBegan { .. }) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (begun, listener)
}

/// What others take of a card: this much at the first attempt to reserve, that much at the second,
/// and so on; the last for good.
fn others(sim: &SimDevice, uses: Vec<u64>) {
    sim.use_by_others_at_reserve(move |attempt| uses[(attempt as usize - 1).min(uses.len() - 1)]);
}

/// What became of the trials.
#[derive(Debug, Default)]
struct Tally {
    as_planned: usize,
    planned_again: usize,
    refused: usize,
    gone_on: usize,
}

fn trials(bed: &Bed, seed: u64, tally: &mut Tally) {
    let folder = tempfile::tempdir().unwrap();
    for trial in 0..TRIALS {
        let mut draw = Draw(seed * 1_000_000 + trial as u64);
        let (offload, prepared, least) = &bed.strategies[draw.below(bed.strategies.len())];
        let name = format!("{} seed {seed}, trial {trial}, {offload}", bed.job.model);
        let planned = prepared.plan.device_bytes();
        let faults = match draw.below(5) {
            0 => Faults::None,
            1 => Faults::Uploads(0.1),
            2 => Faults::Uploads(0.3),
            3 => Faults::UploadsFrom(1 + draw.below(60) as u64),
            _ => {
                let doomed = draw.below(60) as u64;
                // Two in a row are survived.
                Faults::Chosen(Arc::new(move |direction, number| {
                    direction == Direction::Upload && (doomed..doomed + 2).contains(&number)
                }))
            }
        };
        let memory = planned + draw.below(3) as u64 * 4096;
        let is_transient = matches!(faults, Faults::None | Faults::Chosen(_));
        let mut config = config(memory, 1, seed ^ trial as u64);
        config.faults = faults;
        config.copy_delay = Duration::ZERO..=Duration::from_micros(draw.of(&[0, 20, 400]));
        let sim = Arc::new(SimDevice::new(config).unwrap());

        // Others may know no bounds, or leave exactly what is least, or a byte less.
        let taken = match draw.below(6) {
            0 => 0,
            1 => memory - least,
            2 => memory - least + 1,
            3 => memory - least - (memory - least).min(256),
            _ => draw.below(memory as usize * 11 / 10) as u64,
        };
        let (mut uses, mut seen) = (vec![taken], taken);
        for _ in 0..draw.below(3) {
            // Never more than was taken before: what fitted once is not taken away for ever.
            seen = (seen as f64 * (0.5 + 0.5 * draw.share())) as u64;
            uses.insert(0, seen);
        }
        if draw.once_in(3) {
            sim.set_used_by_others(uses[0]);
        }
        let (free, most_free) = (memory.saturating_sub(taken), memory.saturating_sub(uses[0]));
        others(&sim, uses);

        let (begun, listener) = counting_phases();
        let prepared = &Planned { target: target(0, 1), ..prepared.clone() };
        let extra = Extra { replan: true, listener: Some(listener), ..Extra::default() };
        let result = run(&bed.checkpoint, prepared, &sim, extra);
        assert_eq!(sim.violations(), [""; 0], "{name}");
        assert_eq!(sim.held_bytes(), 0, "{name}: held afterwards");
        let has_run = begun.load(Ordering::Relaxed) > 0;
        match result {
            Ok(generated) => {
                Bits::of(&generated).assert_same(&bed.bits, &name);
                assert_as_planned(&name, &generated.ran.plan, &generated, &sim);
                assert!(generated.ran.plan.device_bytes() <= most_free, "{name}");
                match generated.ran.plan == prepared.plan {
                    true => tally.as_planned += 1,
                    false => tally.planned_again += 1,
                }
            }
            Err(EngineError::Stopped { state, .. }) => {
                assert!(!is_transient, "{name}: two failures in a row are no reason to stop");
                assert!(has_run, "{name}");
                go_on(bed, &name, &sim, state.as_deref(), folder.path(), *offload);
                tally.gone_on += 1;
            }
            Err(EngineError::DoesNotFit { .. } | EngineError::CannotReserve { .. }) => {
                assert!(
                    free < *least,
                    "{name}: refused, although {free} bytes suffice for {least}"
                );
                assert!(!has_run, "{name}: refused after it had begun");
                assert_eq!(sim.counters().reservations, [0; 0], "{name}");
                assert_eq!(sim.counters().uploads, 0, "{name}");
                tally.refused += 1;
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

/// Goes on from `state` on the same card, which fails less and less, until the run is done.
fn go_on(
    bed: &Bed,
    name: &str,
    sim: &Arc<SimDevice>,
    state: Option<&RunState>,
    folder: &Path,
    offload: Offload,
) {
    let mut state = state.map(|state| bed.through_a_file(folder, state));
    let used = sim.memory_bytes() - sim.overhead_bytes() - sim.free_bytes();
    others(sim, vec![used]);
    for odds in [0.2, 0.1, 0.0] {
        sim.set_faults(Faults::Uploads(odds));
        let target = Target { free_bytes: sim.free_bytes(), ..target(0, 1) };
        let replanned = replan(&bed.checkpoint, &bed.job, offload, &target, state.as_ref());
        let planned = replanned.unwrap().unwrap_or_else(|refused| {
            panic!("{name}: what had run takes {} now", refused.least.plan.device_bytes())
        });
        let extra = Extra { state: state.as_ref(), ..Extra::default() };
        match run(&bed.checkpoint, &planned, sim, extra) {
            Ok(generated) => return Bits::of(&generated).assert_same(&bed.bits, name),
            Err(EngineError::Stopped { state: Some(next), .. }) => {
                let before = state.as_ref().map_or(0, |state| state.steps_done);
                assert!(next.steps_done >= before, "{name}: steps are lost");
                state = Some(bed.through_a_file(folder, &next));
            }
            Err(EngineError::Stopped { state: None, .. }) => {
                assert!(state.is_none(), "{name}: the state is lost");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    panic!("{name}: it fails without a fault");
}

fn memory_shrinks_and_uploads_fail(seed: u64, case: &str, scheduler: SchedulerKind, dtype: DType) {
    let bed = Bed::new(case, scheduler, dtype);
    let mut tally = Tally::default();
    trials(&bed, seed, &mut tally);
    println!("{tally:?}");
    // Every outcome must have been met, or the trials show little.
    let Tally { as_planned, planned_again, refused, gone_on } = tally;
    assert_eq!(as_planned + planned_again + refused + gone_on, TRIALS);
    for count in [as_planned, planned_again, refused, gone_on] {
        assert!(count >= TRIALS / 12, "{count} of {TRIALS}");
    }
}

#[test]
fn memory_shrinks_and_uploads_fail_with_2b_and_ddim() {
    memory_shrinks_and_uploads_fail(1, "2b-ddim", SchedulerKind::Ddim, DType::F32);
}

#[test]
fn memory_shrinks_and_uploads_fail_with_5b_and_dpm() {
    memory_shrinks_and_uploads_fail(2, "5b-dpm", SchedulerKind::Dpm, DType::F32);
}

#[test]
fn memory_shrinks_and_uploads_fail_in_bf16() {
    memory_shrinks_and_uploads_fail(3, "5b-dpm", SchedulerKind::Dpm, DType::BF16);
}

#[test]
fn memory_shrinks_and_uploads_fail_with_1_5_in_f16() {
    memory_shrinks_and_uploads_fail(4, "1.5-dpm", SchedulerKind::Dpm, DType::F16);
}

/// Runs `prepared` until so much news of progress has come, and then stops it.
fn interrupt(bed: &Bed, prepared: &Planned, sim: &Arc<SimDevice>, news: usize) -> bool {
    let stop = Arc::new(AtomicBool::new(false));
    let (setter, mut heard) = (stop.clone(), 0);
    let listener = Box::new(move |progress| {
        if matches!(progress, Progress::Advanced { .. }) {
            heard += 1;
            setter.fetch_or(heard == news, Ordering::Relaxed);
        }
    });
    let device: Arc<dyn Device> = sim.clone();
    let options = RunOptions {
        stop: &stop,
        listener,
        keep_tensors: true,
        capacity_bytes: u64::MAX,
        poison: true,
        pixels: None,
        state: None,
        replan: false,
        keep: None,
    };
    match generate::run(&bed.checkpoint, prepared, &device, options) {
        Err(EngineError::Interrupted) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

/// Copies are ahead of the computing when it is stopped, and nobody asks for what they bring.
#[test]
fn a_run_that_is_stopped_leaves_no_copy_under_way() {
    let bed = Bed::new("5b-dpm", SchedulerKind::Dpm, DType::F16);
    for (slots, keeps_components) in [(3, false), (2, true), (1, false)] {
        let streaming = Streaming::through(slots);
        let resident = Streaming::RESIDENT;
        let schedule = Schedule {
            text: streaming,
            conditioning: streaming,
            denoise: if slots == 1 { resident } else { streaming },
            decode: if slots == 1 { resident } else { streaming },
            keeps_components,
            ..Schedule::resident()
        };
        let prepared = bed.plan(schedule, None, &profile(1));
        let mut config = config(prepared.plan.device_bytes(), 1, slots as u64);
        config.copy_delay = Duration::from_micros(300)..=Duration::from_micros(600);
        let sim = Arc::new(SimDevice::new(config).unwrap());
        let mut stopped = 0;
        while interrupt(&bed, &prepared, &sim, 1 + 2 * stopped) {
            let name = format!("{slots} slots, stopped at {}", 1 + 2 * stopped);
            assert_eq!((sim.violations(), sim.held_bytes()), (vec![], 0), "{name}");
            stopped += 1;
        }
        assert!(stopped > 10, "{stopped} places to stop at");
        let generated = run(&bed.checkpoint, &prepared, &sim, Extra::default()).unwrap();
        Bits::of(&generated).assert_same(&bed.bits, "after many that were stopped");
    }
}
