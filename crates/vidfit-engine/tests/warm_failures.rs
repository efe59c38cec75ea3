//! Whatever happens to a job with weights that stay, or to the card, nothing is left that should not
//! be, and what is made is the same.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::card::{Bits, Extra, card, config, heavy};
use support::warm::{Bed, LARGE, TEXT, bytes_of, expected, keeps, options, parts, request};
use vidfit_cpu::{Direction, Faults, SimConfig, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::generate::RunOptions;
use vidfit_engine::pipelines::{JobAsk, WarmSettings};
use vidfit_engine::placement::Part;
use vidfit_engine::planner::{Offload, PlanReport};
use vidfit_engine::request::Request;
use vidfit_tensor::Error;

/// Others take memory when weights are to be brought, or when the arena is reserved: the job runs
/// without warm weights, and comes to the same.
#[test]
fn a_job_without_room_for_what_is_kept_runs_without() {
    let checkpoint = Arc::new(heavy(true));
    let bits = expected(&checkpoint, &request());
    let all = bytes_of(&checkpoint, TEXT);
    let roomy = Bed::new(LARGE, keeps(1));
    let warm = roomy.plan(&roomy.adopt(&checkpoint), &request());
    let free_bytes = warm.device_bytes() + (1 << 20);
    // Attempts to reserve: three parts, and the arena.
    for attempt in 1..=4 {
        let sim = card(free_bytes, 1, attempt);
        let mut bed = Bed::on(sim.clone(), keeps(1));
        let pipeline = bed.adopt(&checkpoint);
        sim.use_by_others_at_reserve(move |now| if now >= attempt { all / 2 } else { 0 });
        let ran = bed.try_run(&pipeline, &request()).unwrap();
        assert_eq!(
            (ran.generated.ran.target.warm_bytes, ran.loaded_bytes),
            (0, 0),
            "attempt {attempt}"
        );
        assert_eq!((sim.held_bytes(), sim.violations()), (0, vec![]));
        Bits::of(&ran.generated).assert_same(&bits, "without");
        assert!(PlanReport::of(&checkpoint, &ran.generated.ran).warm_bytes == 0);

        // When they are gone, it is kept again.
        sim.use_by_others_at_reserve(|_| 0);
        sim.set_used_by_others(0);
        bed.peak_bytes = sim.counters().peak_held_bytes;
        let (planned, _) = bed.run(&pipeline, &request());
        assert_eq!(parts(&planned), TEXT);
    }
    // What was kept goes as well, where the next job does not fit beside it.
    let sim = card(free_bytes, 1, 9);
    let mut bed = Bed::on(sim.clone(), keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    bed.run(&pipeline, &request());
    let planned = bed.plan(&pipeline, &request());
    assert_eq!(parts(&planned), TEXT);
    sim.set_used_by_others(all / 2);
    let ran = pipeline.run_planned(&planned, options(&AtomicBool::new(false), None)).unwrap();
    assert_eq!((ran.generated.ran.target.warm_bytes, sim.held_bytes()), (0, 0));
    Bits::of(&ran.generated).assert_same(&bits, "after all");
}

#[test]
fn copies_that_fail_while_weights_are_brought_are_tried_again() {
    let checkpoint = Arc::new(heavy(true));
    let faults = Faults::Uploads(0.1);
    let sim = Arc::new(SimDevice::new(SimConfig { faults, ..config(LARGE, 1, 5) }).unwrap());
    let bed = Bed::on(sim.clone(), keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    let ran = bed.try_run(&pipeline, &request()).unwrap();
    Bits::of(&ran.generated).assert_same(&expected(&checkpoint, &request()), "tried again");
    assert!(ran.loaded_bytes > 0 && sim.violations().is_empty());
    let brought: u64 = ran.generated.ran.plan.phases.iter().map(|p| p.uploaded_bytes).sum();
    let counters = sim.counters();
    let counted = counters.uploaded_bytes + counters.directly_uploaded_bytes;
    assert!(counted > brought + ran.loaded_bytes, "nothing failed");
}

#[test]
fn weights_that_cannot_be_brought_leave_nothing() {
    let checkpoint = Arc::new(heavy(true));
    let blocks: u64 = TEXT.iter().map(|part| part.of(&checkpoint).1.len() as u64).sum();
    for first in [1, 2, 9, blocks] {
        let sim = card(LARGE, 1, first);
        sim.set_faults(Faults::UploadsFrom(first));
        let mut bed = Bed::on(sim.clone(), keeps(1));
        let pipeline = bed.adopt(&checkpoint);
        let Err(error) = bed.try_run(&pipeline, &request()) else { panic!("it was brought") };
        let EngineError::Stopped { source: Error::Transfer { .. }, state: None } = error else {
            panic!("{error}");
        };
        assert_eq!((sim.held_bytes(), bed.owner.warm_bytes()), (0, 0), "from {first} on");
        assert_eq!(sim.violations(), [""; 0]);
        sim.set_faults(Faults::None);
        bed.peak_bytes = sim.counters().peak_held_bytes;
        let (_, ran) = bed.run(&pipeline, &request());
        Bits::of(&ran.generated).assert_same(&expected(&checkpoint, &request()), "at last");
    }
}

#[test]
fn a_job_that_fails_or_is_stopped_leaves_what_is_kept() {
    let checkpoint = Arc::new(heavy(true));
    let all = bytes_of(&checkpoint, TEXT);
    let mut bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    let planned = bed.plan(&pipeline, &request());
    // Before anything was brought.
    let error = pipeline.run_planned(&planned, options(&AtomicBool::new(true), None)).map(drop);
    assert!(matches!(error, Err(EngineError::Interrupted)));
    assert_eq!(bed.sim.held_bytes(), 0);
    bed.run(&pipeline, &request());
    let error = pipeline.run_planned(&planned, options(&AtomicBool::new(true), None)).map(drop);
    assert!(matches!(error, Err(EngineError::Interrupted)));
    bed.sim.set_faults(Faults::UploadsFrom(1));
    let error = pipeline.run_planned(&planned, options(&AtomicBool::new(false), None)).map(drop);
    assert!(matches!(error, Err(EngineError::Stopped { .. })));
    bed.sim.set_faults(Faults::None);
    assert_eq!((bed.sim.held_bytes(), bed.owner.warm_bytes()), (all, all));
    let (_, ran) = bed.run(&pipeline, &request());
    assert_eq!(ran.loaded_bytes, 0);
    Bits::of(&ran.generated).assert_same(&expected(&checkpoint, &request()), "afterwards");
}

/// A plan that finds weights on the device does not run where they are not.
#[test]
fn a_plan_with_warm_weights_does_not_run_without() {
    let checkpoint = Arc::new(heavy(true));
    let bed = Bed::new(LARGE, keeps(1));
    let planned = bed.plan(&bed.adopt(&checkpoint), &request()).planned;
    let run = support::card::run(&checkpoint, &planned, &bed.sim, Extra::default());
    let error = run.map(drop).unwrap_err().to_string();
    assert!(error.contains("weights on the device that are not there"), "{error}");
    // Nor is it read from a file.
    let heads = checkpoint.transformer.config.num_attention_heads;
    let problem = planned.schedule.problem(heads).unwrap();
    assert_eq!(problem, "weights that are on the device before the job");
}

/// A run that was stopped goes on with the weights that it needs, which are not the text encoder's.
#[test]
fn a_run_goes_on_with_warm_weights() {
    let checkpoint = Arc::new(heavy(true));
    let request = Request { steps: 6, ..request() };
    let bits = expected(&checkpoint, &request);
    let mut bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    bed.run(&pipeline, &request);
    let loaded = bed.sim.counters().uploads;
    // Each step brings its row of the modulation tables; one of them fails for good.
    bed.run(&pipeline, &request);
    let each = bed.sim.counters().uploads - loaded;
    let first = bed.sim.counters().uploads + each - 4;
    let faults = move |direction, number| direction == Direction::Upload && number >= first;
    bed.sim.set_faults(Faults::Chosen(Arc::new(faults)));
    let Err(EngineError::Stopped { state: Some(state), .. }) = bed.try_run(&pipeline, &request)
    else {
        panic!("it came to its end");
    };
    assert!((1..6).contains(&state.steps_done), "{} steps", state.steps_done);

    for again in [Bed::new(LARGE, keeps(1)), Bed::new(LARGE, keeps(0))] {
        let pipeline = again.adopt(&checkpoint);
        let ask = JobAsk {
            request: &request,
            offload: Offload::Auto,
            target: &again.target,
            state: None,
        };
        let stop = AtomicBool::new(false);
        let options = RunOptions { state: Some(&state), ..options(&stop, None) };
        let ran = pipeline.run(&ask, options).unwrap();
        Bits::of(&ran.generated).assert_same(&bits, "gone on");
        let own = ran.generated.ran.target.warm.iter().collect::<Vec<_>>();
        let bytes = bytes_of(&checkpoint, own.iter().copied());
        assert_eq!((again.sim.held_bytes(), ran.loaded_bytes), (bytes, bytes));
        assert!(own.is_empty() || own == [Part::Transformer, Part::Decoder], "{own:?}");
        assert_eq!(again.sim.violations(), [""; 0]);
    }
}

/// Jobs of two threads take turns, and one that is planned meanwhile does not count the arena of
/// the other as taken.
#[test]
fn jobs_take_turns() {
    let models = [Arc::new(heavy(true)), Arc::new(heavy(true))];
    let bed = Bed::new(LARGE, keeps(1));
    let pipelines = [bed.adopt(&models[0]), bed.adopt(&models[1])];
    let bits = expected(&models[0], &request());
    std::thread::scope(|scope| {
        for pipeline in &pipelines {
            let (bed, bits) = (&bed, &bits);
            scope.spawn(move || {
                for _ in 0..3 {
                    let ran = bed.try_run(pipeline, &request()).unwrap();
                    Bits::of(&ran.generated).assert_same(bits, "in turn");
                }
            });
        }
    });
    assert_eq!(bed.sim.violations(), [""; 0]);
    assert_eq!(bed.sim.held_bytes(), bytes_of(&models[0], TEXT));
}

#[test]
fn what_a_running_job_uses_is_not_idle() {
    let checkpoint = Arc::new(heavy(true));
    let after = Duration::from_secs(600);
    let mut bed = Bed::new(LARGE, WarmSettings { pipelines: 1, idle_unload: Some(after) });
    let pipeline = bed.adopt(&checkpoint);
    let planned = bed.plan(&pipeline, &request());
    let (owner, held) = (bed.owner.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = held.clone();
    let listener = Box::new(move |_| {
        owner.unload_idle(Instant::now() + 2 * after);
        seen.lock().unwrap().push(owner.warm_bytes());
    });
    let stop = AtomicBool::new(false);
    let options = RunOptions { listener, ..options(&stop, None) };
    pipeline.run_planned(&planned, options).unwrap();
    let all = bytes_of(&checkpoint, TEXT);
    assert!(held.lock().unwrap().len() > 3 && held.lock().unwrap().iter().all(|&held| held == all));
    // It counts from the job's end.
    bed.peak_bytes = bed.sim.counters().peak_held_bytes;
    assert_eq!(bed.run(&pipeline, &request()).1.loaded_bytes, 0);
    assert_eq!(bed.owner.unload_idle(Instant::now() + after), None);
    assert_eq!(bed.sim.held_bytes(), 0);
}
