//! The directories of runs: names, locks, how runs stand, damage, and what is taken away.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod clean;
mod damage;
mod place;
#[path = "../support/mod.rs"]
mod support;

use place::{Place, STEPS, files};
use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};
use support::card::{Bits, card, target};
use vidfit_engine::EngineError;
use vidfit_engine::generate::{self, RunOptions, RunReport};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::planner::{Offload, PlanReport, SavedPlan, replan};
use vidfit_engine::request::Request;
use vidfit_engine::runs::{CleanRules, RunId, RunRecord, RunsError, Standing};
use vidfit_engine::state::RunState;
use vidfit_tensor::Device;

#[test]
fn runs_never_share_a_name() {
    let place = Place::new();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let begin = || {
            let ids = (0..40).map(|_| place.begin().id().to_string());
            ids.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 320);
    assert_eq!(place.runs.list().unwrap().len(), 320);
    assert!(place.runs.list().unwrap().iter().all(|run| run.standing == Standing::Stopped));
    let mut sorted = ids;
    sorted.sort();
    assert_eq!(files(place.runs.folder()), sorted, "something else was left");
}

#[test]
fn a_run_is_meant_by_its_name_the_beginning_of_it_or_as_the_last() {
    let place = Place::new();
    let find = |wanted: &str| place.runs.find(wanted);
    assert!(matches!(find("last"), Err(RunsError::NoRuns { .. })));
    assert!(matches!(find("2026"), Err(RunsError::Unknown { .. })));
    let names = ["20250101-000000-aaa", "20260101-000000-bbb", "20260101-000000-bcc"];
    for name in names {
        fs::create_dir_all(place.runs.folder().join(name)).unwrap();
    }
    // None of these is a run.
    fs::create_dir(place.runs.folder().join("mine")).unwrap();
    fs::create_dir(place.runs.folder().join(".20270101-000000-zzz.part")).unwrap();
    fs::write(place.runs.folder().join("notes.txt"), "").unwrap();
    assert_eq!(find("2025").unwrap().as_str(), names[0]);
    assert_eq!(find(names[2]).unwrap().as_str(), names[2]);
    assert_eq!(find("20260101-000000-bb").unwrap().as_str(), names[1]);
    assert_eq!(find("last").unwrap().as_str(), names[2]);
    for wanted in ["2026", "2"] {
        let error = find(wanted).unwrap_err();
        assert!(matches!(&error, RunsError::Ambiguous { .. }), "{error}");
        assert!(error.to_string().contains(" or 20260101-000000-bcc"), "{error}");
    }
    for wanted in ["", "mine", "..", ".", "zzz", "20270101"] {
        assert!(matches!(find(wanted), Err(RunsError::Unknown { .. })), "{wanted}");
    }
    assert_eq!(place.runs.list().unwrap().len(), 3);
}

#[test]
fn one_process_works_on_a_run() {
    let place = Place::new();
    let run = place.begin();
    let id = run.id().clone();
    let me = std::process::id();
    assert_eq!(place.standing(&id), Standing::Running { pid: Some(me) });
    let busy = |result: Result<(), RunsError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, RunsError::Busy { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {me}")), "{error}");
    };
    busy(place.runs.open(&id).map(drop));
    busy(place.runs.remove(&id).map(drop));
    let all = CleanRules {
        now: SystemTime::now() + Duration::from_secs(1_000_000),
        drop_frames_after: Duration::ZERO,
        drop_runs_after: Some(Duration::ZERO),
        keep_last: 0,
        is_dry: false,
    };
    assert_eq!(place.runs.clean(&all).unwrap().dropped, []);
    drop(run);
    assert_eq!(place.standing(&id), Standing::Stopped);
    // Who only looks does not keep others from working.
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| (0..200).for_each(|_| drop(place.runs.look(&id))));
        (0..20).for_each(|_| drop(place.runs.open(&id).unwrap()));
        looking.join().unwrap();
    });
}

/// Whoever sees a new run by its name finds it taken.
#[test]
fn a_new_run_is_never_without_its_lock() {
    const RUNS: usize = 100;
    let place = Place::new();
    fs::create_dir(place.runs.folder()).unwrap();
    let (seen, next) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let place = &place;
        scope.spawn(move || {
            for _ in 0..RUNS {
                let run = place.begin();
                // Held until it was looked at.
                next.recv().unwrap();
                run.discard().unwrap();
            }
        });
        let mut last = None;
        for _ in 0..RUNS {
            let id = loop {
                let mut names = files(place.runs.folder()).into_iter();
                let id = names.find_map(|name| RunId::parse(&name));
                if let Some(id) = id.filter(|id| Some(id) != last.as_ref()) {
                    break id;
                }
            };
            let standing = place.standing(&id);
            last = Some(id);
            seen.send(()).unwrap();
            assert!(matches!(standing, Standing::Running { .. }), "{standing:?}");
        }
    });
}

#[test]
fn how_a_run_stands_follows_from_what_is_there() {
    let place = Place::new();
    let run = place.begin();
    let id = run.id().clone();
    assert_eq!(files(run.folder()), ["lock", "log.jsonl", "plan.json", "request.json"]);
    assert_eq!(run.record(), &place.record);
    assert_eq!(SavedPlan::load(&run.path("plan.json")).unwrap().report, place.plan.report);
    let (job, embeds) = (&place.prepared.job, place.embeds());
    assert_eq!(run.state(job, embeds).unwrap(), None);
    for steps in 0..=STEPS {
        run.save(&place.state(steps)).unwrap();
        assert_eq!(run.state(job, embeds).unwrap().unwrap(), place.state(steps));
        let looked = place.runs.look(&id);
        assert_eq!((looked.steps_done, looked.is_denoised()), (steps, steps == STEPS));
        assert!(matches!(looked.standing, Standing::Running { .. }));
    }
    drop(run);
    assert_eq!(place.standing(&id), Standing::Stopped);
    let run = place.runs.open(&id).unwrap();
    run.end(&place.report("interrupted")).unwrap();
    drop(run);
    assert_eq!(place.standing(&id), Standing::Stopped);
    let run = place.runs.open(&id).unwrap();
    run.end(&place.report("failed")).unwrap();
    drop(run);
    assert_eq!(place.standing(&id), Standing::Failed("so it is".into()));
    // Whoever goes on takes away that report, and what was left half written.
    let run = place.runs.open(&id).unwrap();
    fs::write(run.path(".state.safetensors.1-0.tmp"), "half").unwrap();
    fs::create_dir(run.path(".frames.x.part")).unwrap();
    run.go_on();
    assert_eq!(
        files(run.folder()),
        ["lock", "log.jsonl", "plan.json", "request.json", "state.safetensors"]
    );
    assert!(!run.is_done());
    run.end(&place.report("done")).unwrap();
    assert!(run.is_done());
    drop(run);
    assert_eq!(place.standing(&id), Standing::Done);
}

/// What a video starts from is kept until the state has it.
#[test]
fn the_input_stays_until_it_is_encoded() {
    let place = Place::new();
    let frame = |first: u8| Arc::from(vec![first; 16 * 16 * 3]);
    let pixels = Pixels::new(16, 16, vec![frame(1), frame(2)]).unwrap();
    let run = place.runs.begin(&place.record, &place.plan, Some(&pixels)).unwrap();
    let id = run.id().clone();
    drop(run);
    let run = place.runs.open(&id).unwrap();
    run.go_on();
    assert_eq!(run.pixels().unwrap().as_ref(), Some(&pixels));
    let input = run.path("input/pixels.safetensors");
    let whole = fs::read(&input).unwrap();
    fs::write(&input, &whole[..whole.len() - 1]).unwrap();
    let error = run.pixels().unwrap_err();
    assert!(matches!(error, RunsError::Damaged { .. }), "{error}");
    fs::write(&input, whole).unwrap();
    run.save(&RunState::of_text(&place.prepared.job, vec![0.25; place.embeds()])).unwrap();
    assert_eq!(run.pixels().unwrap().as_ref(), Some(&pixels), "only the text is encoded");
    run.save(&place.state(0)).unwrap();
    assert_eq!(run.pixels().unwrap(), None);
    assert!(!run.path("input").exists());
    drop(run);
    place.runs.remove(&id).unwrap();
}

/// The state is kept after every step; where it cannot be, the run ends, and goes on from the last
/// that was.
#[test]
fn a_run_whose_state_cannot_be_kept_stops_at_the_last_that_was() {
    let place = Place::new();
    let expected = Bits::on_cpu(&place.checkpoint, &place.prepared.job);
    let run = place.begin();
    let go = |state: Option<&RunState>, most: usize| {
        let sim = card(place.prepared.plan.device_bytes(), 1, 0);
        let prepared = match replan(
            &place.checkpoint,
            &place.prepared.job,
            Offload::Auto,
            &target(1 << 30, 1),
            state,
        ) {
            Ok(Ok(planned)) => planned,
            _ => panic!("it does not fit"),
        };
        let device: Arc<dyn Device> = sim.clone();
        let mut kept = Vec::new();
        let mut keep = |state: &RunState| {
            if state.steps_done > most {
                let path = run.path("state.safetensors");
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(EngineError::File { action: "write", path, source });
            }
            kept.push(state.steps_done);
            run.save(state)
        };
        let options = RunOptions {
            stop: &AtomicBool::new(false),
            listener: Box::new(|_| {}),
            keep_tensors: true,
            capacity_bytes: u64::MAX,
            poison: true,
            pixels: None,
            state,
            replan: false,
            keep: Some(&mut keep),
        };
        let result = generate::run(&place.checkpoint, &prepared, &device, options);
        assert_eq!((sim.held_bytes(), sim.violations()), (0, vec![]));
        (result, kept)
    };
    let (result, kept) = go(None, 2);
    let error = result.err().unwrap();
    assert!(matches!(&error, EngineError::File { action: "write", .. }), "{error:?}");
    assert!(error.to_string().contains("state.safetensors"), "{error}");
    // After the text, before the first step, and after each.
    assert_eq!(kept, [0, 0, 1, 2]);
    let state = run.state(&place.prepared.job, place.embeds()).unwrap().unwrap();
    assert_eq!(state.steps_done, 2);
    let (result, kept) = go(Some(&state), STEPS);
    Bits::of(&result.unwrap()).assert_same(&expected, "gone on");
    assert_eq!(kept, [3, 4]);
    // All steps are done: only the decode is left, and planned for.
    let state = run.state(&place.prepared.job, place.embeds()).unwrap().unwrap();
    let (result, kept) = go(Some(&state), STEPS);
    let decoded = result.unwrap();
    Bits::of(&decoded).assert_same(&expected, "decoded again");
    assert_eq!(kept, [0; 0]);
    let peaks = &decoded.measured.phase_peak_bytes;
    let whole = &place.prepared.plan.layout;
    assert!(peaks[1].1 < whole.phases[1].peak_bytes, "nothing is left to be denoised: {peaks:?}");
    let report = PlanReport::of(&place.checkpoint, &decoded.ran);
    run.end(&RunReport::of_done(report, &decoded)).unwrap();
    assert!(run.is_done());
    run.discard().unwrap();
    assert_eq!(files(place.folder.path()), ["runs"]);
    assert_eq!(place.runs.list().unwrap().len(), 0);
}

/// A request is read to the very number that was written, or the run would be another.
#[test]
fn requests_come_back_to_the_very_number() {
    let place = Place::new();
    for guidance in [0.1 + 0.2, 6.123_456_789_012_345, 1.0 / 3.0, 7.0 - f64::EPSILON] {
        let request = Request { guidance, ..place.record.request.clone() };
        let record = RunRecord { request, fps: guidance, ..place.record.clone() };
        let run = place.runs.begin(&record, &place.plan, None).unwrap();
        let id = run.id().clone();
        drop(run);
        assert_eq!(place.runs.open(&id).unwrap().record(), &record);
    }
}
