//! The directories of runs: names, locks, how runs stand, damage, and what is taken away.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};
use support::Case;
use support::card::{Bits, card, target};
use vidfit_cogvideox::noise::Generator;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{Prepared, RunOptions, run_keeping};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::planner::{Offload, PlanReport, Planned, RunReport, SavedPlan, replan};
use vidfit_engine::request::{Job, Request, TilingChoice};
use vidfit_engine::runs::{
    CleanRules, Dropped, MachineRecord, RECORD_VERSION, Run, RunId, RunRecord, Runs, RunsError,
    Standing, settled,
};
use vidfit_engine::state::RunState;
use vidfit_tensor::{DType, Device};

/// A small job, and a folder for its runs.
struct Place {
    folder: tempfile::TempDir,
    runs: Runs,
    checkpoint: Checkpoint,
    prepared: Prepared,
    record: RunRecord,
    plan: SavedPlan,
}

const STEPS: usize = 4;

impl Place {
    fn new() -> Place {
        let case = Case::named("5b-dpm");
        let checkpoint = case.open();
        let request = Request {
            frames: Some(9),
            height: Some(16),
            width: Some(16),
            steps: STEPS,
            tiling: TilingChoice::Off,
            ..case.request(DType::F32)
        };
        let (job, _) = Job::new(&checkpoint, &request).unwrap();
        let (offload, large) = (Offload::Auto, target(1 << 30, 1));
        let planned = replan(&checkpoint, &job, offload, &large, None).unwrap();
        let planned = planned.unwrap_or_else(|_| panic!("it does not fit"));
        let plan = SavedPlan::of(&checkpoint, "tiny", &request, &planned, offload, &large);
        let folder = tempfile::tempdir().unwrap();
        let record = RunRecord {
            version: RECORD_VERSION,
            vidfit: "0".into(),
            began_unix_ms: 1,
            model: "tiny".into(),
            model_folder: checkpoint.dir.clone(),
            model_identity: job.model.clone(),
            request: settled(&request, &job),
            steps: STEPS,
            frames: job.frames,
            height: job.height,
            width: job.width,
            tiling: job.tiling,
            encode_tiling: job.encode_tiling,
            output: folder.path().join("video.gif"),
            output_is_named: true,
            fps: 8.0,
            crf: 18,
            save_tensors: None,
            machine: MachineRecord {
                device: "cpu".into(),
                threads: 1,
                vram_budget_bytes: None,
                buffer_bytes: None,
                ram_bytes: None,
                offload,
            },
            keeps: true,
            inputs: vec![],
        };
        let prepared = Prepared::new(planned, vec![]);
        let runs = Runs::in_folder(folder.path().join("runs"));
        Place { folder, runs, checkpoint, prepared, record, plan }
    }

    fn begin(&self) -> Run {
        self.runs.begin(&self.record, &self.plan, None).unwrap()
    }

    fn embeds(&self) -> usize {
        let tokens: usize = self.prepared.job.prompts.iter().map(Vec::len).sum();
        tokens * self.checkpoint.text_encoder.config.d_model
    }

    /// A state after so many steps, of no particular numbers.
    fn state(&self, steps_done: usize) -> RunState {
        let job = &self.prepared.job;
        let latents = vec![0.5; job.latent_elements()];
        RunState {
            job: RunState::key(job),
            steps_done,
            embeds: vec![0.25; self.embeds()],
            previous: if steps_done > 0 { latents.clone() } else { vec![] },
            latents,
            generator: Generator::seed(job.seed).state(),
            ..RunState::default()
        }
    }

    fn standing(&self, id: &RunId) -> Standing {
        self.runs.look(id).standing
    }

    fn report(&self, outcome: &str) -> RunReport {
        RunReport::of_plan(outcome, Some("so it is".into()), None)
    }

    /// A run that has come to its end, with its name.
    fn done(&self) -> (RunId, PathBuf) {
        let run = self.begin();
        run.save(&self.state(STEPS)).unwrap();
        fs::create_dir(run.path("frames")).unwrap();
        fs::write(run.path("frames/frame_00000.png"), [0; 1000]).unwrap();
        fs::write(&self.record.output, [1; 500]).unwrap();
        run.keep_video(&self.record.output).unwrap();
        run.end(&self.report("done")).unwrap();
        (run.id().clone(), run.folder().to_owned())
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes a file or a folder look as if nothing had been written to it for so many days.
fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| age(&entry.unwrap().path(), days));
    }
    fs::File::open(path).unwrap().set_modified(then).unwrap();
}

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

/// A change to a run's directory, what it is then told to be damaged by, and whether it can still be
/// opened.
type Damage = (&'static str, fn(&Path), &'static str, bool);

const DAMAGES: [Damage; 11] = [
    ("no request", |run| fs::remove_file(run.join("request.json")).unwrap(), "missing", false),
    ("an empty request", |run| fs::write(run.join("request.json"), "").unwrap(), "request", false),
    ("garbage", |run| fs::write(run.join("request.json"), [0xff; 99]).unwrap(), "request", false),
    (
        "half a request",
        |run| {
            let text = fs::read(run.join("request.json")).unwrap();
            fs::write(run.join("request.json"), &text[..text.len() / 2]).unwrap();
        },
        "request",
        false,
    ),
    (
        "another version",
        |run| {
            let text = fs::read_to_string(run.join("request.json")).unwrap();
            let text = text.replacen("\"version\": 1", "\"version\": 7", 1);
            fs::write(run.join("request.json"), text).unwrap();
        },
        "version is 7",
        false,
    ),
    (
        "another request",
        |run| fs::write(run.join("request.json"), "{\"version\": 1, \"prompt\": 5}").unwrap(),
        "request",
        false,
    ),
    (
        "a folder for a request",
        |run| {
            fs::remove_file(run.join("request.json")).unwrap();
            fs::create_dir(run.join("request.json")).unwrap();
        },
        "no small file",
        false,
    ),
    (
        "a state that was cut",
        |run| {
            let bytes = fs::read(run.join("state.safetensors")).unwrap();
            fs::write(run.join("state.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
        },
        "state.safetensors",
        true,
    ),
    (
        "an empty state",
        |run| fs::write(run.join("state.safetensors"), "").unwrap(),
        "state.safetensors",
        true,
    ),
    (
        "a folder for a state",
        |run| {
            fs::remove_file(run.join("state.safetensors")).unwrap();
            fs::create_dir(run.join("state.safetensors")).unwrap();
        },
        "state.safetensors",
        true,
    ),
    (
        "a file for a run",
        |run| {
            fs::remove_dir_all(run).unwrap();
            fs::write(run, "text").unwrap();
        },
        "no folder",
        false,
    ),
];

#[test]
fn damage_is_told_and_can_be_taken_away() {
    let place = Place::new();
    let (job, embeds) = (&place.prepared.job, place.embeds());
    for (what, damage, words, opens) in DAMAGES {
        let run = place.begin();
        let (id, folder) = (run.id().clone(), run.folder().to_owned());
        run.save(&place.state(2)).unwrap();
        drop(run);
        damage(&folder);
        let Standing::Damaged(why) = place.standing(&id) else {
            panic!("{what}: {:?}", place.standing(&id));
        };
        assert!(why.contains(words), "{what}: {why}");
        let error = match (place.runs.open(&id), opens) {
            (Ok(run), true) => run.state(job, embeds).unwrap_err(),
            (Err(error), false) => error,
            (other, _) => panic!("{what}: {other:?}"),
        };
        assert!(matches!(error, RunsError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains(&format!("vidfit runs rm {id}")), "{what}: {error}");
        place.runs.remove(&id).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!folder.exists(), "{what}");
    }
    assert_eq!(place.runs.list().unwrap().len(), 0);
    assert_eq!(files(place.runs.folder()), [""; 0]);
}

/// What else may be wrong does not keep a run from being listed.
#[test]
fn strange_reports_and_logs_do_no_harm() {
    let place = Place::new();
    let run = place.begin();
    let (id, folder) = (run.id().clone(), run.folder().to_owned());
    drop(run);
    for text in ["", "{", "[]", "{\"outcome\": 7}", "null"] {
        fs::write(folder.join("report.json"), text).unwrap();
        assert_eq!(place.standing(&id), Standing::Stopped, "{text}");
        assert!(!place.runs.open(&id).unwrap().is_done());
    }
    fs::write(folder.join("report.json"), json!({ "outcome": "strange" }).to_string()).unwrap();
    assert_eq!(place.standing(&id), Standing::Stopped);
    fs::write(folder.join("log.jsonl"), [0xff; 10]).unwrap();
    fs::write(folder.join("lock"), "no number").unwrap();
    drop(place.runs.open(&id).unwrap());
}

#[test]
fn what_is_not_of_the_run_is_not_taken_away() {
    let place = Place::new();
    let (id, folder) = place.done();
    fs::write(folder.join("thesis.txt"), "mine").unwrap();
    let error = place.runs.remove(&id).unwrap_err();
    assert!(matches!(&error, RunsError::ForeignFiles { found, .. } if found == "thesis.txt"));
    assert_eq!(files(&folder), ["thesis.txt"]);
    assert!(place.record.output.exists(), "the video itself");
    fs::remove_file(folder.join("thesis.txt")).unwrap();
    place.runs.remove(&id).unwrap();
    assert!(!folder.exists());
    assert!(matches!(place.runs.remove(&id), Err(RunsError::Unknown { .. })));
}

#[test]
fn what_is_old_is_dropped_as_the_rules_say() {
    let place = Place::new();
    let day = Duration::from_secs(86_400);
    let rules = CleanRules {
        now: SystemTime::now(),
        drop_frames_after: 30 * day,
        drop_runs_after: None,
        keep_last: 0,
        is_dry: false,
    };
    let (done, done_folder) = place.done();
    let run = place.begin();
    run.save(&place.state(1)).unwrap();
    let (stopped, stopped_folder) = (run.id().clone(), run.folder().to_owned());
    drop(run);
    fs::write(stopped_folder.join(".state.safetensors.9-0.tmp"), [0; 77]).unwrap();
    let never_begun = place.runs.folder().join(".20200101-000000-abc.part");
    fs::create_dir(&never_begun).unwrap();
    fs::write(never_begun.join("request.json"), "{}").unwrap();

    // Nothing is old yet but the leftover of a process that is gone.
    let cleaned = place.runs.clean(&rules).unwrap();
    assert_eq!(cleaned.dropped, [(Some(stopped.clone()), Dropped::Leftovers, 77)]);
    for path in [&done_folder, &stopped_folder, &never_begun] {
        age(path, 40);
    }
    // A dry run says what a real one does.
    let dry = place.runs.clean(&CleanRules { is_dry: true, ..rules.clone() }).unwrap();
    let kept = ["lock", "log.jsonl", "plan.json", "report.json", "request.json", "video.gif"];
    assert_eq!(files(&done_folder).len(), kept.len() + 2);
    let cleaned = place.runs.clean(&rules).unwrap();
    assert_eq!(cleaned.dropped, dry.dropped);
    let state_bytes = fs::metadata(stopped_folder.join("state.safetensors")).unwrap().len();
    assert_eq!(
        cleaned.dropped,
        [(Some(done.clone()), Dropped::Frames, state_bytes + 1000), (None, Dropped::Leftovers, 2)]
    );
    assert_eq!(cleaned.bytes(), state_bytes + 1002);
    assert_eq!(files(&done_folder), kept);
    assert_eq!(place.standing(&done), Standing::Done, "it is no less done");
    assert_eq!(place.runs.look(&stopped).steps_done, 1, "what can go on is left alone");
    assert!(!never_begun.exists());

    // Whole runs only if that is asked for, and never the newest that are to be kept.
    let whole = CleanRules { drop_runs_after: Some(35 * day), ..rules };
    age(&done_folder, 40);
    let spared = place.runs.clean(&CleanRules { keep_last: 2, ..whole.clone() }).unwrap();
    assert_eq!(spared.dropped, []);
    let cleaned = place.runs.clean(&whole).unwrap();
    assert_eq!(cleaned.dropped.len(), 2);
    assert_eq!((cleaned.failed.len(), place.runs.list().unwrap().len()), (0, 0));
    assert!(place.record.output.exists(), "the video stays where it was written");
}

/// Frames that are the video itself are not needless.
#[test]
fn the_only_copy_of_a_video_is_not_dropped() {
    let place = Place::new();
    let (_, folder) = place.done();
    fs::remove_file(folder.join("video.gif")).unwrap();
    age(&folder, 40);
    let rules = CleanRules {
        now: SystemTime::now(),
        drop_frames_after: Duration::ZERO,
        drop_runs_after: None,
        keep_last: 0,
        is_dry: false,
    };
    place.runs.clean(&rules).unwrap();
    assert!(folder.join("frames").is_dir() && !folder.join("state.safetensors").exists());
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
            Ok(Ok(Planned { job, schedule, plan, .. })) => {
                Prepared { job, schedule, plan, warnings: vec![] }
            }
            _ => panic!("it does not fit"),
        };
        let device: Arc<dyn Device> = sim.clone();
        let options = RunOptions {
            stop: &AtomicBool::new(false),
            listener: Box::new(|_| {}),
            keep_tensors: true,
            capacity_bytes: u64::MAX,
            poison: true,
            pixels: None,
            state,
            replan: None,
        };
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
        let result = run_keeping(&place.checkpoint, &prepared, &device, options, &mut keep);
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
    let report = PlanReport::of(
        &place.checkpoint,
        &Planned {
            job: decoded.ran.job.clone(),
            schedule: decoded.ran.schedule,
            plan: decoded.ran.plan.clone(),
            rejected: vec![],
        },
        Offload::Auto,
        &target(1 << 30, 1),
    );
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
