//! A plan is the memory that a run uses, to the byte, whoever made it and whatever runs it.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::saboteur::Saboteur;
use support::sparse::copy_without_weights;
use support::{Case, distance, fixtures, job, kept, largest_difference, run, run_prepared, tensor};
use vidfit_cpu::CpuDevice;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, Generated, RunOptions};
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Planned, Target};
use vidfit_engine::progress::{Listener, Progress};
use vidfit_engine::request::{Request, TilingChoice};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::{DType, Device, Error};

const PHASES: [&str; 3] = ["text", "denoise", "decode"];

/// Holds what a run used against its plan.
fn assert_as_planned(name: &str, plan: &Plan, generated: &Generated) {
    let phases = generated.ran.job.phases();
    let measured = &generated.measured;
    assert_eq!(measured.peak_bytes, plan.layout.peak_bytes, "{name}");
    let planned: Vec<(String, u64)> =
        plan.layout.phases.iter().map(|phase| (phase.name.clone(), phase.peak_bytes)).collect();
    assert_eq!(measured.phase_peak_bytes, planned, "{name}");
    assert!(
        planned.iter().map(|(name, _)| name.as_str()).eq(phases.iter().copied()),
        "{name}: {planned:?}"
    );
}

#[test]
fn every_run_uses_what_was_planned_to_the_byte() {
    println!("bytes at the peak of each phase; peak over the most bytes ever alive");
    let cases = Case::all().into_iter().filter(|case| case.valid_request);
    for (case, dtype) in cases.flat_map(|case| [(case.clone(), DType::F32), (case, DType::BF16)]) {
        if dtype == DType::BF16 && case.own_distance(DType::BF16).is_none() {
            continue;
        }
        let name = format!("{} {dtype}", case.name);
        let witness = Saboteur::new(None);
        let (plan, generated) =
            support::run_on(&case.open(), &case.request(dtype), witness.clone());
        assert_as_planned(&name, &plan, &generated);
        // What the device itself was asked for, and was given to read and write. Offsets are the
        // layout's; that any of these bytes was used does not come from the arena's bookkeeping.
        assert_eq!(witness.reserved(), [plan.layout.peak_bytes], "{name}");
        let highest = witness.highest_byte().next_multiple_of(plan.layout.trace.alignment);
        assert_eq!(highest, plan.layout.peak_bytes, "{name}");

        let waste = plan.layout.peak_bytes as f64 / plan.layout.most_live_bytes as f64;
        let peaks: Vec<u64> = plan.layout.phases.iter().map(|phase| phase.peak_bytes).collect();
        let peaks: String = peaks.iter().map(|bytes| format!(" {bytes:>8}")).collect();
        println!("{name:42}{peaks}  {waste:.3}");
        assert!((1.0..=1.1).contains(&waste), "{name}: {waste}");
    }
}

/// The least bytes that `result` was refused for.
fn refused(result: Result<impl Sized, EngineError>, capacity: u64, is_tiled: bool) -> u64 {
    match result {
        Err(EngineError::DoesNotFit { required_bytes, available_bytes, tiled }) => {
            assert_eq!((available_bytes, tiled), (capacity, is_tiled));
            assert!(required_bytes > capacity);
            required_bytes
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{capacity} bytes are not enough"),
    }
}

#[test]
fn one_unit_less_is_refused_before_anything_runs() {
    for name in ["2b-ddim", "5b-dpm", "5b-tiled", "1.5-33-frames"] {
        let case = Case::named(name);
        let (checkpoint, request) = (case.open(), case.request(DType::F32));
        let witness = Saboteur::new(None);
        let device: Arc<dyn Device> = witness.clone();
        let plan = |capacity| generate::prepare(&checkpoint, &request, &*device, capacity);
        let least = refused(plan(0), 0, case.tiling);
        let prepared = plan(least).unwrap();
        // On the CPU, what waits in host memory is taken from the same memory.
        let host_bytes = prepared.plan.layout.trace.host_peak_bytes;
        assert_eq!(prepared.plan.device_bytes() + host_bytes, least);
        let less = least - device.profile().alignment;
        assert_eq!(refused(plan(less), less, case.tiling), least);

        let (least, less) = (least - host_bytes, less - host_bytes);
        let options = RunOptions {
            stop: &AtomicBool::new(false),
            listener: Box::new(|news| panic!("something has run: {news:?}")),
            keep_tensors: false,
            capacity_bytes: less,
            poison: false,
            pixels: None,
            state: None,
            replan: false,
            keep: None,
        };
        let result = generate::run(&checkpoint, &prepared, &device, options);
        assert_eq!(refused(result, less, case.tiling), least);
        assert!(witness.reserved().is_empty(), "memory was reserved for {name}");
    }
}

#[test]
fn tiles_are_taken_only_where_the_whole_does_not_fit() {
    let case = Case::named("5b-tiled");
    let checkpoint = case.open();
    let device = CpuDevice::new(2).unwrap();
    let mut request = case.request(DType::F32);
    (request.height, request.width) = (Some(160), Some(160));
    let plan = |tiling, capacity| {
        let request = Request { tiling, ..request.clone() };
        generate::prepare(&checkpoint, &request, &device, capacity)
    };
    let unit = device.profile().alignment;
    let whole_least = refused(plan(TilingChoice::Off, 0), 0, false);
    let whole = plan(TilingChoice::Auto, whole_least).unwrap();
    assert!(whole.job.tiling.is_none() && !whole.warnings.iter().any(|w| w.contains("tiles")));
    // Layouts differ by a few units in a hundred: clearly less than the least.
    let less = whole_least / 8 * 7 / unit * unit;
    let tiled = plan(TilingChoice::Auto, less).unwrap();
    assert!(tiled.job.tiling.is_some() && tiled.warnings.iter().any(|w| w.contains("tiles")));
    assert!(tiled.plan.device_bytes() <= less);
    refused(plan(TilingChoice::Off, less), less, false);
    let least = refused(plan(TilingChoice::Auto, 0), 0, true);
    assert!(plan(TilingChoice::Auto, least).is_ok());
    let less = least / 8 * 7 / unit * unit;
    refused(plan(TilingChoice::Auto, less), less, true);
}

/// Where a child of [`a_plan_made_in_another_process_without_weights_is_run`] finds its
/// checkpoint and leaves its plan.
const FOLDER_OF_CHILD: &str = "VIDFIT_TEST_PLAN_FOLDER";
const CHILD: &str = "plans_for_another_process";
const CASE_OF_CHILD: &str = "5b-tiled";

#[test]
fn plans_for_another_process() {
    let Some(folder) = std::env::var_os(FOLDER_OF_CHILD) else {
        println!("skipped: this is the part of another test that runs in a process of its own");
        return;
    };
    let folder = Path::new(&folder);
    let checkpoint = Checkpoint::open(&folder.join("checkpoint")).unwrap();
    let job = job(&checkpoint, &Case::named(CASE_OF_CHILD).request(DType::F32));
    let plan = Plan::new(&checkpoint, &job, &Schedule::in_place(), None, &CpuDevice::profile_of(2))
        .unwrap();
    std::fs::write(folder.join("plan.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
}

#[test]
fn a_plan_made_in_another_process_without_weights_is_run() {
    let case = Case::named(CASE_OF_CHILD);
    let folder = tempfile::tempdir().unwrap();
    let from = fixtures().join("checkpoints").join(&case.checkpoint);
    copy_without_weights(&from, &folder.path().join("checkpoint"));
    let empty = Checkpoint::open(&folder.path().join("checkpoint")).unwrap();
    let names = empty.vae.weights.manifest.weights().map(|weight| &weight.key);
    for name in names {
        assert!(
            empty.vae.weights.files().unwrap().bytes(name).unwrap().iter().all(|&byte| byte == 0)
        );
    }

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture"])
        .env(FOLDER_OF_CHILD, folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let plan = std::fs::read_to_string(folder.path().join("plan.json")).unwrap();
    let plan: Plan = serde_json::from_str(&plan).unwrap();

    let checkpoint = case.open();
    let job = job(&checkpoint, &case.request(DType::F32));
    let device = Arc::new(CpuDevice::new(2).unwrap());
    let target = Target::of_device(&*device, u64::MAX);
    let prepared = Planned::new(job, Schedule::in_place(), plan, Offload::Auto, &target);
    let generated = run_prepared(&checkpoint, &prepared, device);
    assert_as_planned(&case.name, &prepared.plan, &generated);
    let expected = case.expected();
    let latents = distance(&kept(&generated).latents, &tensor(&expected, "latents").1);
    let frames = largest_difference(&kept(&generated).frames, &tensor(&expected, "frames").1);
    assert!(latents <= 1e-4 && frames <= 2e-3, "{latents:.1e}, {frames:.1e}");
}

#[test]
fn a_plan_for_another_job_is_refused() {
    let case = Case::named("5b-dpm");
    let checkpoint = case.open();
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(2).unwrap());
    let request = case.request(DType::F32);
    let others = [
        ("steps", {
            let mut r = request.clone();
            r.steps += 1;
            r
        }),
        ("width", {
            let mut r = request.clone();
            r.width = Some(64);
            r
        }),
        ("frames", {
            let mut r = request.clone();
            r.frames = Some(17);
            r
        }),
        ("type", {
            let mut r = request.clone();
            r.dtype = DType::BF16;
            r
        }),
        ("guidance", {
            let mut r = request.clone();
            r.guidance = 1.0;
            r
        }),
        ("scheduler", Case::named("5b-ddim-no-guidance").request(DType::F32)),
    ];
    for (what, other) in others {
        let plan = generate::prepare(&checkpoint, &other, &*device, u64::MAX).unwrap().plan;
        let (job, target) = (job(&checkpoint, &request), Target::of_device(&*device, u64::MAX));
        let prepared = Planned::new(job, Schedule::in_place(), plan, Offload::Auto, &target);
        let stop = AtomicBool::new(false);
        let result =
            generate::run(&checkpoint, &prepared, &device, options(&stop, Box::new(|_| {})));
        match result {
            Err(EngineError::Run(Error::Deviation { .. })) => {}
            Err(other) => panic!("another {what}: {other}"),
            Ok(_) => panic!("another {what}: it ran"),
        }
    }
    // The words of a prompt are not part of a plan.
    let mut other = request.clone();
    other.prompt = "Waves.".into();
    let plan = generate::prepare(&checkpoint, &other, &*device, u64::MAX).unwrap().plan;
    assert_eq!(plan, generate::prepare(&checkpoint, &request, &*device, u64::MAX).unwrap().plan);
}

fn options(stop: &AtomicBool, listener: Listener) -> RunOptions<'_> {
    RunOptions {
        stop,
        listener,
        keep_tensors: true,
        capacity_bytes: u64::MAX,
        poison: true,
        pixels: None,
        state: None,
        replan: false,
        keep: None,
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for (name, dtype) in ["2b-ddim", "5b-dpm", "5b-tiled", "1.5-tiled-dynamic"]
        .into_iter()
        .flat_map(|name| [(name, DType::F32), (name, DType::BF16), (name, DType::F16)])
    {
        let case = Case::named(name);
        let (checkpoint, request) = (case.open(), case.request(dtype));
        let (_, one) = run(&checkpoint, &request, 1);
        for threads in [2, 3] {
            let (_, more) = run(&checkpoint, &request, threads);
            let (one, more) = (kept(&one), kept(&more));
            assert!(one.prompt_embeds == more.prompt_embeds, "{name} {dtype}, {threads} threads");
            assert!(one.latents == more.latents, "{name} {dtype}, {threads} threads: latents");
            assert!(one.frames == more.frames, "{name} {dtype}, {threads} threads: frames");
        }
    }
}

#[test]
fn a_run_stops_in_any_phase_and_leaves_the_device_free() {
    let case = Case::named("5b-dpm");
    let checkpoint = case.open();
    let witness = Saboteur::new(None);
    let device: Arc<dyn Device> = witness.clone();
    let prepared =
        generate::prepare(&checkpoint, &case.request(DType::F32), &*device, u64::MAX).unwrap();
    for phase in PHASES {
        let stop = Arc::new(AtomicBool::new(false));
        let (setter, heard) = (stop.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let news = heard.clone();
        let listener = Box::new(move |progress: Progress| {
            let mut news = news.lock().unwrap();
            if setter.load(Ordering::Relaxed) {
                news.push(progress);
            } else if matches!(progress, Progress::Advanced { phase: now, .. } if now == phase) {
                setter.store(true, Ordering::Relaxed);
            }
        });
        let result = generate::run(&checkpoint, &prepared, &device, options(&stop, listener));
        assert!(matches!(result, Err(EngineError::Interrupted)), "stopped in {phase}");
        assert!(stop.load(Ordering::Relaxed));
        assert_eq!(*heard.lock().unwrap(), [], "{phase} went on after it was stopped");
    }
    let generated = run_prepared(&checkpoint, &prepared, device);
    assert_eq!(witness.reserved(), vec![prepared.plan.layout.peak_bytes; PHASES.len() + 1]);
    let latents = distance(&kept(&generated).latents, &tensor(&case.expected(), "latents").1);
    assert!(latents <= 1e-4, "{latents:.1e}");
}
