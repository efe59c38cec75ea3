//! A run that a card stopped goes on from its state, on that card or another, to the same bits; and
//! a plan that is to be run exactly is run so or not at all.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::card::{Bits, Draw, Extra, card, profile, run};
use support::job_bed::Bed;
use vidfit_cogvideox::scheduler::SchedulerKind;
use vidfit_cpu::{CpuDevice, Direction, Faults, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::progress::{Listener, Progress};
use vidfit_engine::request::{Job, Request, Start, tiles};
use vidfit_engine::schedule::Schedule;
use vidfit_engine::state::RunState;
use vidfit_tensor::{DType, Device};

/// Runs the job on a card whose uploads all fail from the moment that `is_time` says so, and gives
/// what the run leaves behind.
fn stopped(
    bed: &Bed,
    mut is_time: impl FnMut(&Progress) -> bool + Send + 'static,
) -> Option<RunState> {
    let prepared = bed.plan(Schedule::resident(), None, &profile(1));
    let sim = card(prepared.plan.device_bytes(), 1, 0);
    let is_broken = Arc::new(AtomicBool::new(false));
    let fails = is_broken.clone();
    sim.set_faults(Faults::Chosen(Arc::new(move |direction, _| {
        direction == Direction::Upload && fails.load(Ordering::Relaxed)
    })));
    let listener = Box::new(move |news: Progress| {
        if is_time(&news) {
            is_broken.store(true, Ordering::Relaxed);
        }
    });
    let extra = Extra { listener: Some(listener), ..Extra::default() };
    match run(&bed.checkpoint, &prepared, &sim, extra) {
        Err(error @ EngineError::Stopped { .. }) => {
            let words = error.to_string();
            assert_eq!((sim.held_bytes(), sim.violations()), (0, vec![]), "{words}");
            let EngineError::Stopped { state, .. } = error else { unreachable!() };
            let said = match &state {
                Some(state) if state.steps_done == 0 => "before the first step is not lost".into(),
                Some(state) => format!("The first {} steps are not lost", state.steps_done),
                None => "Nothing was lost".into(),
            };
            assert!(words.contains("simulated failure") && words.contains(&said), "{words}");
            state.map(|state| *state)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a card without uploads has made a video"),
    }
}

fn begins(phase: &'static str) -> impl FnMut(&Progress) -> bool + Send {
    move |news| matches!(news, Progress::PhaseBegan { phase: now, .. } if *now == phase)
}

fn has_done(steps: usize) -> impl FnMut(&Progress) -> bool + Send {
    move |news| {
        let Progress::Advanced { phase, steps_done, .. } = news else { return false };
        *phase == "denoise" && *steps_done == steps
    }
}

/// What is left of the job, on the CPU.
fn on_cpu(bed: &Bed, state: &RunState) -> Bits {
    let cpu = Arc::new(CpuDevice::new(2).unwrap());
    let prepared = bed.plan(Schedule::in_place(), Some(state), cpu.profile());
    let device: Arc<dyn Device> = cpu;
    // Once they are encoded, they are not needed again.
    let pixels = if state.has_begun() { None } else { support::pixels_for(&bed.job) };
    let options = RunOptions {
        stop: &AtomicBool::new(false),
        listener: Box::new(|_| {}),
        keep_tensors: true,
        capacity_bytes: prepared.plan.device_bytes(),
        poison: true,
        pixels: pixels.as_ref(),
        state: Some(state),
        replan: false,
        keep: None,
    };
    Bits::of(&generate::run(&bed.checkpoint, &prepared, &device, options).unwrap())
}

/// What is left of the job, on a card, with this schedule.
fn on_card(bed: &Bed, state: &RunState, schedule: Schedule) -> Bits {
    let prepared = bed.plan(schedule, Some(state), &profile(2));
    let sim = card(prepared.plan.device_bytes(), 2, 1);
    let extra = Extra { state: Some(state), ..Extra::default() };
    let generated = run(&bed.checkpoint, &prepared, &sim, extra).unwrap();
    assert_eq!(sim.violations(), [""; 0]);
    Bits::of(&generated)
}

fn beds() -> [Bed; 5] {
    [
        Bed::new("2b-ddim", SchedulerKind::Ddim, DType::F32),
        Bed::new("5b-dpm", SchedulerKind::Dpm, DType::F32),
        Bed::new("1.5-dpm", SchedulerKind::Dpm, DType::BF16),
        Bed::new("1.5-i2v-dpm", SchedulerKind::Dpm, DType::F16),
        Bed::new("5b-v2v-dpm", SchedulerKind::Dpm, DType::BF16),
    ]
}

#[test]
fn a_run_goes_on_after_any_step_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for bed in beds() {
        let steps = bed.job.steps.len();
        for done in 0..=steps {
            let name =
                format!("{} {}, after {done} of {steps} steps", bed.job.model, bed.job.dtype);
            let state = match done {
                0 => stopped(&bed, begins("denoise")),
                _ if done == steps => stopped(&bed, begins("decode")),
                _ => stopped(&bed, has_done(done)),
            };
            let state = state.unwrap_or_else(|| panic!("{name}: no state"));
            assert_eq!(state.steps_done, done, "{name}");
            let state = bed.through_a_file(folder.path(), &state);
            on_cpu(&bed, &state).assert_same(&bed.bits, &name);
            for (_, prepared, _) in &bed.strategies {
                on_card(&bed, &state, prepared.schedule).assert_same(&bed.bits, &name);
            }
            let everything = Schedule { keeps_components: true, ..Schedule::resident() };
            on_card(&bed, &state, everything).assert_same(&bed.bits, &name);
        }
    }
}

/// Before the text phase is over, there is nothing to go on from; after it, and after the encode
/// phase, neither has to be done again.
#[test]
fn each_phase_before_the_steps_is_done_once() {
    let bed = Bed::new("5b-v2v-dpm", SchedulerKind::Dpm, DType::F16);
    assert!(stopped(&bed, begins("text")).is_none());
    let folder = tempfile::tempdir().unwrap();
    for (phase, done) in [("encode", 1), ("denoise", 2)] {
        let state = stopped(&bed, begins(phase)).unwrap();
        assert_eq!(state.has_begun(), phase == "denoise");
        let state = bed.through_a_file(folder.path(), &state);
        let plan = &bed.plan(Schedule::resident(), Some(&state), &profile(1)).plan;
        for (index, work) in plan.phases.iter().enumerate() {
            assert_eq!((work.flops, work.units) == (0.0, 0), index < done, "{}", work.name);
        }
        on_cpu(&bed, &state).assert_same(&bed.bits, phase);
        on_card(&bed, &state, Schedule::resident()).assert_same(&bed.bits, phase);
    }
}

#[test]
fn a_run_does_not_go_on_with_other_pixels() {
    let bed = Bed::new("5b-v2v-dpm", SchedulerKind::Dpm, DType::F32);
    let state = stopped(&bed, has_done(1)).unwrap();
    let pixels = support::pixels_for(&bed.job).unwrap();
    assert!(state.check_pixels(None).is_ok());
    assert!(state.check_pixels(Some(&pixels)).is_ok());
    let (height, width) = (bed.job.height, bed.job.width);
    let black = vec![vec![0; height * width * 3].into(); pixels.count()];
    let error = state.check_pixels(Some(&Pixels::new(height, width, black).unwrap()));
    assert!(error.unwrap_err().to_string().contains("another image or video"));
}

/// What reading `path` as a state of `job` is answered with.
fn answer(bed: &Bed, job: &Job, path: &std::path::Path) -> String {
    match RunState::load(path, job, bed.embeds()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("a state was taken that should have been refused"),
    }
}

#[test]
fn a_state_of_another_job_is_refused() {
    let bed = Bed::new("5b-dpm", SchedulerKind::Dpm, DType::F32);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    stopped(&bed, has_done(2)).unwrap().save(&path).unwrap();
    type Change = fn(&mut Request);
    let changes: [(&str, Change); 9] = [
        ("prompt", |r| r.prompt.push_str(" at night")),
        ("negative prompt", |r| r.negative_prompt.push_str("fog")),
        ("frames", |r| r.frames = Some(17)),
        ("height", |r| r.height = Some(32)),
        ("steps", |r| r.steps += 1),
        ("guidance", |r| r.guidance += 0.5),
        ("seed", |r| r.seed += 1),
        ("scheduler", |r| r.scheduler = Some(SchedulerKind::Ddim)),
        ("type", |r| r.dtype = DType::BF16),
    ];
    for (what, change) in changes {
        let mut request = bed.request.clone();
        change(&mut request);
        let (other, _) = Job::new(&bed.checkpoint, &request).unwrap();
        let words = answer(&bed, &other, &path);
        assert!(words.contains("it belongs to another video"), "another {what}: {words}");
        assert!(words.contains(&path.display().to_string()), "another {what}: {words}");
    }
    let folder = tempfile::tempdir().unwrap();
    let video = Bed::new("5b-v2v-dpm", SchedulerKind::Dpm, DType::F32);
    let its_path = folder.path().join("state.safetensors");
    stopped(&video, has_done(2)).unwrap().save(&its_path).unwrap();
    for start in [Start::Text, Start::Video { strength: 0.6 }] {
        let (other, _) =
            Job::new(&video.checkpoint, &Request { start, ..video.request.clone() }).unwrap();
        let words = answer(&video, &other, &its_path);
        assert!(words.contains("it belongs to another video"), "{start:?}: {words}");
    }
    let other: Checkpoint = support::Case::named("2b-dpm-negative").open();
    let (job, _) = Job::new(&other, &bed.request).unwrap();
    let words = answer(&bed, &job, &path);
    assert!(words.contains("it belongs to another video"), "another model: {words}");
    // Tiles do not matter: a decode can be repeated with others.
    let tiles = tiles(&bed.checkpoint, &bed.request).unwrap();
    assert!(RunState::load(&path, &bed.job.clone().with_tiles(tiles), bed.embeds()).is_ok());
}

#[test]
fn a_damaged_state_is_refused() {
    let bed = Bed::new("1.5-i2v-dpm", SchedulerKind::Dpm, DType::F32);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let state = stopped(&bed, has_done(2)).unwrap();
    state.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut draw = Draw(5);
    let random = std::iter::repeat_with(|| draw.below(whole.len())).take(40);
    for length in [0, 1, 7, 8, 9, whole.len() / 2, whole.len() - 1].into_iter().chain(random) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let words = answer(&bed, &bed.job, &path);
        assert!(words.contains(&path.display().to_string()), "{length} bytes: {words}");
    }
    type Damage = fn(&mut RunState);
    let damages: [(&str, Damage); 11] = [
        ("embeddings", |s| s.embeds.truncate(s.embeds.len() - 1)),
        ("latents", |s| s.latents.truncate(s.latents.len() - 1)),
        ("last estimate", |s| s.previous.truncate(s.previous.len() - 1)),
        ("no last estimate", |s| s.previous.clear()),
        ("steps", |s| s.steps_done = 5),
        ("no steps, but an estimate", |s| s.steps_done = 0),
        ("image", |s| s.image.truncate(s.image.len() - 1)),
        ("no image", |s| s.image.clear()),
        ("no pixels", |s| s.pixels.clear()),
        ("generator", |s| s.generator.words.truncate(600)),
        ("generator's place", |s| s.generator.used = 1000),
    ];
    for (what, damage) in damages {
        let mut damaged = state.clone();
        damage(&mut damaged);
        damaged.save(&path).unwrap();
        let words = answer(&bed, &bed.job, &path);
        assert!(words.contains("it is damaged"), "{what}: {words}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(answer(&bed, &bed.job, &path).contains(&path.display().to_string()));
}

/// Fails if anything is heard.
fn silence() -> Listener {
    Box::new(|news| panic!("something has run or was planned: {news:?}"))
}

#[test]
fn an_exact_plan_is_refused_and_never_replaced() {
    let bed = Bed::new("5b-dpm", SchedulerKind::Dpm, DType::F32);
    for (offload, prepared, _) in &bed.strategies {
        let needed = prepared.plan.device_bytes();
        let refused = |sim: &Arc<SimDevice>| {
            let extra = Extra { listener: Some(silence()), ..Extra::default() };
            let Err(error) = run(&bed.checkpoint, prepared, sim, extra) else {
                panic!("{offload}: it ran in less than was planned");
            };
            assert_eq!(sim.counters().reservations, [0; 0], "{offload}");
            assert_eq!((sim.held_bytes(), sim.counters().uploads), (0, 0), "{offload}");
            error
        };
        // Gone before anybody asks, and gone between the question and the reservation.
        let sim = card(needed, 1, 3);
        sim.set_used_by_others(1);
        let error = refused(&sim);
        assert!(
            matches!(&error, EngineError::DoesNotFit { required_bytes, available_bytes, .. }
                if *required_bytes == needed && *available_bytes == needed - 1),
            "{offload}: {error}"
        );
        let sim = card(needed, 1, 4);
        sim.use_by_others_at_reserve(|_| 256);
        let error = refused(&sim);
        assert!(matches!(error, EngineError::CannotReserve { .. }), "{offload}: {error}");
        // And with what it needs it runs as it was planned.
        sim.use_by_others_at_reserve(|_| 0);
        sim.set_used_by_others(0);
        let generated = run(&bed.checkpoint, prepared, &sim, Extra::default()).unwrap();
        assert_eq!(generated.ran.plan, prepared.plan, "{offload}");
        Bits::of(&generated).assert_same(&bed.bits, &offload.to_string());
    }
}
