//! Runs within a budget: the same bits, never a byte more, and what is said of it.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use support::{checkpoint, files, json_file, says, small, stderr, stdout, vidfit};
use vidfit_cpu::{Faults, SimConfig, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{RunOptions, prepare, run};
use vidfit_engine::request::{Request, TilingChoice};
use vidfit_tensor::Device;

const GENERATE: [&str; 2] = ["generate", "A panda"];

/// A run in f32, decoded whole.
fn whole(folder: &Path, flags: &[&str]) -> Output {
    let same = ["--dtype", "f32", "--vae-tiling", "off"];
    small(folder, &GENERATE, &[&same[..], flags].concat())
}

/// The bytes of a file, if the run that should have written it succeeded.
fn written(output: &Output, folder: &Path, name: &str) -> Vec<u8> {
    assert!(output.status.success(), "{}", stderr(output));
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_card_makes_the_same_file_as_the_cpu_wherever_weights_wait() {
    let folder = tempfile::tempdir().unwrap();
    let cpu = whole(folder.path(), &["-o", "cpu.gif"]);
    let cpu = written(&cpu, folder.path(), "cpu.gif");
    for (offload, budget) in
        [("auto", "14000KB"), ("sequential", "14MB"), ("40%", "1GB"), ("none", "1GB")]
    {
        let flags = ["--device", "sim:1GB", "--vram-budget", budget, "--offload", offload];
        let more = ["-o", "card.gif", "--report", "r.json"];
        let output = whole(folder.path(), &[&flags[..], &more].concat());
        assert!(written(&output, folder.path(), "card.gif") == cpu, "{offload} differs");
        let report = json_file(folder.path().join("r.json"));
        assert_eq!(report["plan"]["fits"], true);
        let phases = report["phases"].as_array().unwrap();
        for phase in phases {
            assert_eq!(phase["measured_peak_bytes"], phase["planned_peak_bytes"], "{phase}");
        }
        // Every pass brings what does not stay.
        let denoise = &report["plan"]["phases"][1];
        let bytes = |key: &str| denoise[key].as_u64().unwrap();
        assert!(phases[1]["uploaded_bytes"].as_u64().unwrap() >= 2 * bytes("streamed_bytes"));
        assert_eq!(phases[1]["uploaded_bytes"].as_u64().unwrap(), bytes("uploaded_bytes"));
        assert_eq!(offload == "sequential", bytes("resident_bytes") == 0);
    }
}

/// A card of exactly the planned size runs the plan, and one a unit of alignment smaller does not.
#[test]
fn the_planned_size_is_enough_and_less_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for offload in ["sequential", "30%", "none"] {
        let flags = ["--device", "sim:1GB", "--offload", offload, "--save", "plan.json"];
        let planned = small(folder.path(), &["plan"], &flags);
        assert!(planned.status.success(), "{}", stderr(&planned));
        let plan = json_file(folder.path().join("plan.json"));
        let on = |bytes: u64| {
            let device = format!("sim:{bytes}");
            let run = ["generate", "A panda", "--plan", "plan.json", "--threads", "2"];
            let flags = ["-o", "v/", "--device", &device];
            vidfit(folder.path(), &[&run[..], &flags].concat())
        };
        let peak = plan["peak_bytes"].as_u64().unwrap();
        let enough = on(peak);
        assert!(enough.status.success(), "{offload}: {}", stderr(&enough));
        let less = on(peak - 256);
        assert_eq!(less.status.code(), Some(3), "{offload}: {}", stderr(&less));
    }
}

#[test]
fn a_refusal_comes_before_anything_and_names_what_would_fit() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--device", "sim:11MB", "--report", "r.json", "-o", "v.gif"];
    let output = whole(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(3));
    let message = stderr(&output);
    says(&message, &["needs at least 13.1 MB", "11.0 MB may be used", "--vae-tiling auto"]);
    assert!(!message.contains("VRAM Status"), "something was loaded: {message}");
    assert_eq!(files(folder.path()), ["r.json"]);
    let report = json_file(folder.path().join("r.json"));
    assert_eq!(report["outcome"], "refused");
    says(report["error"].as_str().unwrap(), &["13.1 MB"]);
    assert_eq!(report["plan"]["fits"], false);
    let decode = &report["phases"][2];
    assert!(decode["planned_peak_bytes"].as_u64().unwrap() > 11 << 20);
    assert_eq!(decode["measured_peak_bytes"], Value::Null);
    // The offer holds.
    let taken = ["--device", "sim:11MB", "-o", "v.gif", "--vae-tiling", "auto", "--dtype", "f32"];
    let output = small(folder.path(), &GENERATE, &taken);
    assert!(output.status.success(), "{}", stderr(&output));
    says(&stderr(&output), &["decoding in tiles", "--vae-tiling off forbids it"]);
}

#[test]
fn what_was_changed_to_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--device", "sim:11MB", "--fit", "--fit-order", "size", "-o", "v/"];
    let output = whole(folder.path(), &[&flags[..], &["--report", "r.json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    says(&stderr(&output), &["changed so that it fits: 96×64 pixels"]);
    let report = json_file(folder.path().join("r.json"));
    assert_eq!(report["plan"]["changes_picture"][0], "96×64 pixels");
    assert_eq!(report["plan"]["video"]["height"], 64);
    let flags = ["--frames", "fit", "--device", "sim:14MB", "-o", "w/"];
    let output = whole(folder.path(), &flags);
    assert!(output.status.success(), "{}", stderr(&output));
    let frames = std::fs::read_dir(folder.path().join("w")).unwrap().count();
    assert!(frames >= 9 && frames % 8 == 1, "{frames}");
}

#[test]
fn the_budget_binds_on_the_cpu_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = whole(folder.path(), &["-o", "v/", "--vram-budget", "9MB"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    says(&stderr(&output), &["9.0 MB allowed"]);
    let output = whole(folder.path(), &["-o", "v/", "--offload", "sequential"]);
    assert!(output.status.success());
    says(&stderr(&output), &["--offload sequential has no meaning on the CPU"]);
}

/// A plan may be for another machine; a run has the RAM of this one.
#[test]
fn a_run_does_not_take_more_ram_than_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--ram", "4000000GB", "--progress", "json", "-o", "v/"];
    let output = whole(folder.path(), &flags);
    let events = stdout(&output);
    let planned = events.lines().find(|line| line.contains("\"planned\"")).unwrap();
    let planned: Value = serde_json::from_str(planned).unwrap();
    let budget = planned["budget_bytes"].as_u64().unwrap();
    assert!(budget <= vidfit_engine::machine::ram().unwrap().total_bytes, "{budget}");
    let flags = ["--ram", "4000000GB", "--device", "cpu", "--json"];
    let plan: Value = support::json(&small(folder.path(), &["plan"], &flags));
    assert!(plan["budget_bytes"].as_u64().unwrap() > 1 << 50, "{plan}");
}

#[test]
fn every_run_tells_the_memory_before_after_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let device = ["--device", "sim:64MB", "-o", "v/"];
    let lines = stderr(&whole(folder.path(), &device));
    let statuses: Vec<&str> =
        lines.lines().filter(|line| line.starts_with("VRAM Status: ")).collect();
    let [before, loaded, end] = statuses[..] else { panic!("{lines}") };
    says(before, &["0.00GB / 0.06GB used (0%), 0.06GB available", "before loading"]);
    says(loaded, &["after loading, which took"]);
    says(end, &["used (0%)", "at the end"]);
    let lines = stderr(&whole(folder.path(), &["-o", "v/"]));
    assert_eq!(lines.lines().filter(|line| line.starts_with("RAM Status: ")).count(), 3);

    let output = whole(folder.path(), &[&device[..], &["--progress", "json"]].concat());
    let events = stdout(&output);
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let memory: Vec<&Value> = events.iter().filter(|event| event["event"] == "memory").collect();
    let used: Vec<u64> = memory.iter().map(|e| e["used_bytes"].as_u64().unwrap()).collect();
    let planned = events.iter().find(|event| event["event"] == "planned").unwrap();
    let reserved = ["peak_bytes", "scratch_bytes"].map(|key| planned[key].as_u64().unwrap());
    assert_eq!(used, [0, reserved[0] + reserved[1], 0]);
    assert!(memory[1]["load_seconds"].is_f64() && memory[0]["load_seconds"].is_null());
}

/// A run that stopped because copies failed goes on from its state to the very same video.
#[test]
fn a_stopped_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let uninterrupted = whole(folder.path(), &["-o", "one.gif", "--device", "sim:64MB"]);
    let expected = written(&uninterrupted, folder.path(), "one.gif");
    let state = folder.path().join("two.gif.resume");
    stopped_after_a_step().save(&state).unwrap();
    let flags = ["--device", "sim:64MB", "-o", "two.gif", "--resume", "two.gif.resume"];
    let output = whole(folder.path(), &[&flags[..], &["--report", "r.json"]].concat());
    assert!(written(&output, folder.path(), "two.gif") == expected);
    assert!(!state.exists(), "the state is of no use any more");
    // That of another video is of no use for this one.
    stopped_after_a_step().save(&state).unwrap();
    let output = whole(folder.path(), &[&flags[..], &["--seed", "43"]].concat());
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["two.gif.resume", "another video"]);
}

/// What is left of the small job when uploads fail after its first step.
fn stopped_after_a_step() -> vidfit_engine::state::RunState {
    let checkpoint = Checkpoint::open(&checkpoint("5b")).unwrap();
    let request = Request {
        frames: Some(17),
        height: Some(96),
        width: Some(128),
        steps: 2,
        tiling: TilingChoice::Off,
        ..Request::new("A panda")
    };
    let device = SimDevice::new(SimConfig { threads: 2, ..SimConfig::new(64 << 20) }).unwrap();
    let device = Arc::new(device);
    let prepared = prepare(&checkpoint, &request, &*device, 64 << 20).unwrap();
    let card = device.clone();
    let listener = Box::new(move |news| {
        if let vidfit_engine::progress::Progress::Advanced { steps_done: 1, .. } = news {
            card.set_faults(Faults::UploadsFrom(0));
        }
    });
    let stop = AtomicBool::new(false);
    let options = RunOptions {
        stop: &stop,
        listener,
        keep_tensors: false,
        capacity_bytes: u64::MAX,
        poison: false,
        pixels: None,
        state: None,
        replan: None,
    };
    let device: Arc<dyn Device> = device;
    match run(&checkpoint, &prepared, &device, options) {
        Err(EngineError::Stopped { state: Some(state), .. }) => *state,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was not stopped"),
    }
}
