//! Runs that are stopped, and go on.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{checkpoint, command, files, json, json_file, says, stderr, stdout, vidfit};
use vidfit_engine::safetensors::SafetensorsFile;

const STEPS: usize = 6;

/// `generate` of a video that takes a moment, on one thread, in the directory `runs`; `more` is added,
/// and takes the place of what it names.
fn job(more: &[&str]) -> Vec<String> {
    let model = checkpoint("5b").to_str().unwrap().to_owned();
    let steps = STEPS.to_string();
    let flags = [
        ("--model", &*model),
        ("--steps", &*steps),
        ("--frames", "9"),
        ("--height", "48"),
        ("--width", "64"),
        ("--dtype", "f32"),
        ("--threads", "1"),
        ("--vae-tiling", "off"),
        ("--runs", "runs"),
        ("--device", "sim:64MB"),
    ];
    let own = flags.into_iter().filter(|(flag, _)| !more.contains(flag));
    let words =
        ["generate", "A panda"].into_iter().chain(own.flat_map(|(flag, value)| [flag, value]));
    words.chain(more.iter().copied()).map(str::to_owned).collect()
}

/// Runs the job with more arguments.
fn generate(folder: &Path, more: &[&str]) -> Output {
    begin(folder, more).output().unwrap()
}

fn begin(folder: &Path, more: &[&str]) -> Command {
    let mut command = command(folder, &[]);
    command.args(job(more));
    command
}

fn resume(folder: &Path, more: &[&str]) -> Output {
    vidfit(folder, &[&["resume", "last", "--runs", "runs"][..], more].concat())
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// The only run in `folder`, if one has begun.
fn only_run(folder: &Path) -> Option<PathBuf> {
    let runs = folder.join("runs");
    let names = if runs.is_dir() { files(&runs) } else { vec![] };
    let begun: Vec<&String> = names.iter().filter(|name| !name.starts_with('.')).collect();
    assert!(begun.len() <= 1, "{names:?}");
    begun.first().map(|name| runs.join(name))
}

/// What a run's log says, in order.
fn events(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Numbers that look random and are the same in every run: splitmix64 (Steele et al. 2014).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }
}

/// When a process is killed.
enum Moment {
    /// After so long.
    After(Duration),
    /// As soon as the log tells of so many steps of its own, while the state of the last is written.
    InSave(u64),
}

/// Kills a process, as nothing can be done about, at that moment, if it still runs then.
fn kill(mut child: Child, folder: &Path, moment: &Moment) {
    let log = || only_run(folder).map(|run| events(&run)).unwrap_or_default();
    let steps = || log().iter().filter(|event| event["event"] == "step").count() as u64;
    let (began, before) = (Instant::now(), steps());
    while child.try_wait().unwrap().is_none() {
        let is_time = match moment {
            Moment::After(time) => began.elapsed() >= *time,
            Moment::InSave(of_its_own) => steps() >= before + of_its_own,
        };
        if is_time {
            break;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    let _ = child.kill();
    child.wait().unwrap();
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a run that is done comes to: its video, its frames and its last state, to the byte.
#[derive(PartialEq)]
struct Made {
    video: Vec<u8>,
    frames: Vec<Vec<u8>>,
    state: Vec<u8>,
}

fn made(folder: &Path) -> Made {
    let run = only_run(folder).unwrap();
    let frames = files(&run.join("frames"));
    assert_eq!(frames.len(), 9);
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    assert!(read(run.join("video.gif")) == read(folder.join("v.gif")));
    Made {
        video: read(folder.join("v.gif")),
        frames: frames.iter().map(|name| read(run.join("frames").join(name))).collect(),
        state: read(run.join("state.safetensors")),
    }
}

/// Holds the steps that a run has computed, by its log, to what kills may cost: one each.
fn assert_at_most_one_again(run: &Path, name: &str) {
    let (mut last, mut is_fresh) = (0, true);
    for event in events(run) {
        match event["event"].as_str().unwrap() {
            "resumed" => is_fresh = true,
            "step" => {
                let step = event["steps_done"].as_u64().unwrap();
                let again = is_fresh && step == last && last > 0;
                assert!(step == last + 1 || again, "{name}: step {step} after {last}");
                (last, is_fresh) = (step, false);
            }
            _ => {}
        }
    }
    assert_eq!(last, STEPS as u64, "{name}");
}

/// Devices that a run goes on with: its own, a smaller card, a larger one, none.
const DEVICES: [Option<&str>; 5] = [None, None, Some("sim:6MB"), Some("sim:1GB"), Some("cpu")];

/// `kill -9` at 50 moments, some of them while a state is written, and some of them again while the run
/// goes on: it always goes on, does at most one step again, and comes to the same bytes.
#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes() {
    const KILLS: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    succeeds(&generate(folder.path(), &["-o", "v.gif"]));
    let takes = began.elapsed();
    let expected = made(folder.path());
    let latents = |folder: &Path| {
        let state = only_run(folder).unwrap().join("state.safetensors");
        SafetensorsFile::open(state).unwrap().bytes("latents").unwrap().to_vec()
    };
    assert!(latents(folder.path()).iter().any(|&byte| byte != 0));

    let (next, half_written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (never_begun, planned_again) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = |number: usize| {
        let mut draw = Draw(number as u64);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let moment = |draw: &mut Draw| match draw.below(3) {
            0 => Moment::InSave(1 + draw.below(STEPS as u64)),
            _ => Moment::After(takes.mul_f64(draw.below(1100) as f64 / 1000.0)),
        };
        kill(spawn(begin(folder, &["-o", "v.gif"])), folder, &moment(&mut draw));
        let count = |run: &Path| {
            let is_half = files(run).iter().any(|name| name.starts_with(".state"));
            half_written.fetch_add(usize::from(is_half), Ordering::Relaxed);
        };
        let run = match only_run(folder) {
            Some(run) => run,
            None => {
                // It had no name yet: it begins anew.
                never_begun.fetch_add(1, Ordering::Relaxed);
                kill(spawn(begin(folder, &["-o", "v.gif"])), folder, &Moment::InSave(1));
                only_run(folder).unwrap()
            }
        };
        count(&run);
        while draw.below(3) == 0 {
            let again = command(folder, &["resume", "last", "--runs", "runs"]);
            kill(spawn(again), folder, &moment(&mut draw));
            count(&run);
        }
        let device = DEVICES[draw.below(DEVICES.len() as u64) as usize];
        let device: Vec<&str> = device.iter().flat_map(|device| ["--device", device]).collect();
        let output = resume(folder, &device);
        let name = format!("kill {number}, {device:?}");
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let was_again = stderr(&output).contains("planned again, with the same picture");
        planned_again.fetch_add(usize::from(was_again), Ordering::Relaxed);
        assert!(made(folder) == expected, "{name}: other bytes");
        assert_at_most_one_again(&run, &name);
        let left = files(&run);
        assert!(!left.iter().any(|file| file.starts_with('.')), "{name}: {left:?}");
        assert_eq!(
            json(&vidfit(folder, &["runs", "--runs", "runs", "--json"]))[0]["status"],
            "done"
        );
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let number @ ..KILLS = next.fetch_add(1, Ordering::Relaxed) {
                    one(number);
                }
            });
        }
    });
    println!(
        "a run takes {takes:?}; of {KILLS}, {never_begun:?} had not begun; {half_written:?} kills \
         left half a state; {planned_again:?} were planned again; all took {:?}",
        began.elapsed()
    );
    assert!(planned_again.into_inner() > 0);
}

/// A long job, which prints a line for every step, once it has done so many.
fn after_steps(folder: &Path, steps: usize, more: &[&str]) -> Child {
    let mut long = begin(folder, &[more, &["--progress", "json"]].concat());
    let mut child = long.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let is_step = format!("\"steps_done\":{steps}}}");
    let mut lines = std::io::BufRead::lines(out);
    assert!(lines.any(|line| line.unwrap().contains(&is_step)), "it ended before step {steps}");
    // What else it prints is of no interest.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Steps of a run that is to be stopped by hand.
const LONG: &str = "200";

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Ctrl-C and SIGTERM: exit code 130, the command that goes on, and the same bytes from there.
#[cfg(unix)]
#[test]
fn a_run_that_is_interrupted_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let steps = ["--steps", LONG];
    let mut commands = Vec::new();
    for (name, more) in [("-INT", &[][..]), ("-TERM", &["--no-keep"])] {
        let more = [&steps[..], &["-o", "v.gif"], more].concat();
        let child = after_steps(folder.path(), 3, &more);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{name}: {}", stderr(&output));
        let message = stderr(&output);
        says(&message, &["interrupted after ", " of 200 steps"]);
        let (_, command) = message.split_once("go on with: vidfit ").unwrap();
        commands.push(command.trim().to_owned());
        assert_eq!(files(folder.path()), ["runs"]);
    }
    let listed = json(&vidfit(folder.path(), &["runs", "--json", "--runs", "runs"]));
    for (index, command) in commands.iter().enumerate() {
        let run = &listed[index];
        assert_eq!(run["status"], "stopped", "{run}");
        assert!(run["steps_done"].as_u64().unwrap() >= 3 && run["steps"] == 200, "{run}");
        assert_eq!(run["id"], command.split(' ').nth(1).unwrap());
    }
    let id = listed[0]["id"].as_str().unwrap();
    says(&stdout(&vidfit(folder.path(), &["runs", "--runs", "runs"])), &["stopped ", "/200", id]);

    let videos: Vec<Vec<u8>> = commands
        .iter()
        .map(|command| {
            let words: Vec<&str> = command.split(' ').collect();
            succeeds(&vidfit(folder.path(), &words));
            std::fs::read(folder.path().join("v.gif")).unwrap()
        })
        .collect();
    succeeds(&generate(folder.path(), &[&steps[..], &["-o", "whole.gif", "--no-keep"]].concat()));
    let whole = std::fs::read(folder.path().join("whole.gif")).unwrap();
    assert!(videos.iter().all(|video| *video == whole), "a run that went on made another video");
    // Of the three, two were not to be kept.
    assert_eq!(files(&folder.path().join("runs")), [id]);
}

/// A run on which a process works is left alone by all others.
#[cfg(unix)]
#[test]
fn a_run_is_not_gone_on_with_twice() {
    let folder = tempfile::tempdir().unwrap();
    let child = after_steps(folder.path(), 1, &["--steps", "1000", "-o", "v.gif"]);
    let process = format!("process {}", child.id());
    for command in [&["resume", "last"][..], &["decode", "last"], &["runs", "rm", "last"]] {
        let output = vidfit(folder.path(), &[command, &["--runs", "runs"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
        says(&stderr(&output), &["is under way", &process]);
    }
    let gc = ["runs", "gc", "--older-than", "0", "--frames-after", "0", "--runs", "runs"];
    succeeds(&vidfit(folder.path(), &gc));
    let run = json(&vidfit(folder.path(), &["runs", "show", "last", "--json", "--runs", "runs"]));
    assert_eq!((&run["status"], &run["pid"]), (&"running".into(), &child.id().into()));
    signal(&child, "-INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    succeeds(&vidfit(folder.path(), &["runs", "rm", "last", "--runs", "runs"]));
    assert_eq!(files(&folder.path().join("runs")), [""; 0]);
}

/// A disk that fills up, as a limit on files stands for one: one error, and the run goes on once there
/// is room.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_a_run_that_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // 64 blocks of 512 or 1024 bytes: less than a state takes.
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    let vidfit_command = command(folder.path(), &[]);
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_vidfit")]).args(job(&["-o", "v.gif"]));
    shell.current_dir(folder.path());
    for (name, value) in vidfit_command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.matches("error: ").count(), 1, "{message}");
    says(&message, &["cannot write", "state.safetensors", "go on with: vidfit resume"]);
    let run = json(&vidfit(folder.path(), &["runs", "show", "last", "--json", "--runs", "runs"]));
    assert_eq!((&run["status"], &run["steps_done"]), (&"failed".into(), &0.into()));
    says(run["error"].as_str().unwrap(), &["state.safetensors"]);
    let left = files(&only_run(folder.path()).unwrap());
    assert!(!left.iter().any(|name| name.contains("state")), "half a state: {left:?}");
    succeeds(&resume(folder.path(), &[]));
    let whole = tempfile::tempdir().unwrap();
    succeeds(&generate(whole.path(), &["-o", "v.gif"]));
    assert!(made(folder.path()).frames == made(whole.path()).frames);
}

#[test]
fn a_run_that_is_done_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(&generate(folder.path(), &["-o", "v.gif"]));
    let before = made(folder.path());
    let output = resume(folder.path(), &[]);
    succeeds(&output);
    says(&stdout(&output), &["is done: ", "v.gif"]);
    assert!(made(folder.path()) == before);
    let again = resume(folder.path(), &["--progress", "json"]);
    let event: Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(event["event"], "done");
    // The video itself may go: a copy is left.
    std::fs::remove_file(folder.path().join("v.gif")).unwrap();
    says(&stdout(&resume(folder.path(), &[])), &["video.gif"]);
}

/// The name that a run chose by itself may be another's by the time it goes on.
#[test]
fn a_name_that_nobody_asked_for_is_not_insisted_on() {
    let folder = tempfile::tempdir().unwrap();
    kill(spawn(begin(folder.path(), &[])), folder.path(), &Moment::InSave(2));
    std::fs::write(folder.path().join("output.mp4"), "another's").unwrap();
    succeeds(&resume(folder.path(), &["--report", "r.json"]));
    assert_eq!(files(folder.path()), ["output-2.mp4", "output.mp4", "r.json", "runs"]);
    let other = std::fs::read(folder.path().join("output.mp4")).unwrap();
    assert_eq!(other, b"another's");
    let report = json_file(folder.path().join("r.json"));
    assert_eq!(report["outcome"], "done");
    assert_eq!(
        report["phases"][1]["measured_peak_bytes"],
        report["phases"][1]["planned_peak_bytes"]
    );
    let kept = only_run(folder.path()).unwrap().join("report.json");
    assert_eq!(json_file(kept), report);
}

/// Where all steps are done there is only the video to be made; where the frames are there, that takes
/// no model.
#[test]
fn only_what_is_missing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(&generate(folder.path(), &["-o", "v.gif", "--save-tensors", "t.safetensors"]));
    let before = made(folder.path());
    let tensors = std::fs::read(folder.path().join("t.safetensors")).unwrap();
    let run = only_run(folder.path()).unwrap();
    let lacking = |names: &[&str]| {
        for name in names {
            let path = run.join(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
        std::fs::remove_file(folder.path().join("v.gif")).unwrap();
        std::fs::remove_file(run.join("log.jsonl")).unwrap();
    };
    let steps = || events(&run).iter().filter(|event| event["event"] == "step").count();
    // Tensors were asked for: those take a decode, whether the frames are there or not.
    for names in [&["report.json", "video.gif", "frames"][..], &["report.json", "video.gif"]] {
        lacking(names);
        std::fs::remove_file(folder.path().join("t.safetensors")).unwrap();
        succeeds(&resume(folder.path(), &[]));
        assert!(made(folder.path()) == before);
        assert!(std::fs::read(folder.path().join("t.safetensors")).unwrap() == tensors);
        assert_eq!(steps(), 0);
    }
    // Without them, the frames are enough; not if they are not whole.
    let request = run.join("request.json");
    let mut record = json_file(request.clone());
    record["save_tensors"] = Value::Null;
    std::fs::write(&request, record.to_string()).unwrap();
    lacking(&["report.json", "video.gif", "state.safetensors"]);
    succeeds(&resume(folder.path(), &[]));
    assert!(std::fs::read(folder.path().join("v.gif")).unwrap() == before.video);
    assert!(!run.join("state.safetensors").exists(), "it was computed anew");
    lacking(&["report.json", "video.gif", "frames/frame_00003.png"]);
    succeeds(&resume(folder.path(), &[]));
    assert!(made(folder.path()) == before);
    assert_eq!(steps(), STEPS);
}

#[test]
fn a_decode_is_repeated_with_other_settings() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(&generate(folder.path(), &["-o", "v/"]));
    let decode = |more: &[&str]| {
        vidfit(folder.path(), &[&["decode", "last", "--runs", "runs"][..], more].concat())
    };
    let frame =
        |name: &str| std::fs::read(folder.path().join(name).join("frame_00004.png")).unwrap();
    let run = only_run(folder.path()).unwrap();
    let before = files(&run);
    // From the frames: the model need not be there.
    let request = run.join("request.json");
    let record = std::fs::read_to_string(&request).unwrap();
    std::fs::write(&request, record.replace("checkpoints/5b", "checkpoints/gone")).unwrap();
    for (more, name) in [
        (&["--fps", "16", "-o", "fast.gif"][..], "fast.gif"),
        (&["--crf", "40", "-o", "small.mp4"], "small.mp4"),
        (&[], "v-2"),
    ] {
        succeeds(&decode(more));
        assert!(folder.path().join(name).exists(), "{name}");
    }
    assert!(frame("v-2") == frame("v"));
    let output = decode(&["--vae-tiling", "off"]);
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["checkpoints/gone any more"]);
    std::fs::write(&request, &record).unwrap();
    // From the latents, on any device.
    succeeds(&decode(&["--vae-tiling", "off", "-o", "whole/", "--device", "cpu"]));
    assert!(frame("whole") == frame("v"));
    let tiles = ["--tile-height", "48", "--tile-width", "40"];
    succeeds(&decode(&[&tiles[..], &["-o", "tiled/"]].concat()));
    assert!(frame("tiled") != frame("v"), "tiles change the picture");
    let tiled = ["--vae-tiling", "on", "-o", "again/"];
    succeeds(&generate(folder.path(), &[&tiles[..], &tiled, &["--runs", "others"]].concat()));
    assert!(frame("tiled") == frame("again"), "a decode again is the decode of a run");
    // Nothing of that has changed the run.
    assert_eq!(files(&run), before);

    for (more, code, words) in [
        (&["--vae-tiling", "off", "--tile-height", "48"][..], 2, "no tiles"),
        (&["--tile-height", "50"], 2, "tile height of 50"),
        (&["--crf", "52"], 2, "51"),
        (&["-o", "nowhere/v.gif"], 2, "mkdir -p"),
        (&["--vae-tiling", "off", "--device", "sim:1MB"], 3, "needs at least"),
    ] {
        let output = decode(more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
        says(&stderr(&output), &[words]);
    }
    // What a clean-up has dropped cannot be decoded any more, but is still done.
    let gc = |more: &[&str]| {
        let gc = ["runs", "gc", "--runs", "runs", "--frames-after", "0"];
        stdout(&vidfit(folder.path(), &[&gc[..], more].concat()))
    };
    std::fs::rename(folder.path().join("v"), folder.path().join("moved")).unwrap();
    says(&gc(&["--dry-run"]), &["would drop frames and state of run", "would free"]);
    assert_eq!(files(&run), before);
    says(&gc(&[]), &["dropped frames and state of run", "freed"]);
    let left = files(&run);
    assert!(left.contains(&"frames".into()), "they are all there is of the video");
    assert!(!left.contains(&"state.safetensors".into()), "{left:?}");
    let output = decode(&["--vae-tiling", "off"]);
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["were dropped"]);
    succeeds(&decode(&["-o", "from-frames.gif"]));
}

/// Runs that cannot go on: one clear error each, and the run stays.
#[test]
fn what_cannot_go_on_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let none = resume(folder.path(), &[]);
    assert_eq!(none.status.code(), Some(2));
    says(&stderr(&none), &["there are no runs in runs"]);
    let begun = spawn(begin(folder.path(), &["-o", "v.gif"]));
    kill(begun, folder.path(), &Moment::InSave(3));
    let run = only_run(folder.path()).unwrap();
    let name = run.file_name().unwrap().to_str().unwrap().to_owned();
    for (wanted, words) in [("20990101", "no run in runs"), ("", "no run in runs")] {
        let output = vidfit(folder.path(), &["resume", wanted, "--runs", "runs"]);
        assert_eq!(output.status.code(), Some(2), "{wanted}");
        says(&stderr(&output), &[words, "vidfit runs"]);
    }
    let whole: Vec<(PathBuf, Vec<u8>)> = ["request.json", "state.safetensors", "plan.json"]
        .iter()
        .map(|file| (run.join(file), std::fs::read(run.join(file)).unwrap()))
        .collect();
    let text = String::from_utf8(whole[0].1.clone()).unwrap();
    let (request, state) = (&whole[0].0, &whole[1].0);
    let cases: [(&PathBuf, Vec<u8>, i32, &[&str]); 8] = [
        (request, b"{}".to_vec(), 2, &["is damaged", "request.json", "vidfit runs rm"]),
        (request, text.replacen("\"seed\": 42", "\"seed\": 43", 1).into(), 2, &["another video"]),
        (request, text.replacen("\"steps\": 6", "\"steps\": 7", 1).into(), 2, &["not what"]),
        (request, text.replacen("sim:64MB", "tpu", 1).into(), 2, &["tpu"]),
        (request, text.replacen(" 183024 ", " 183025 ", 1).into(), 2, &["were changed"]),
        (request, text.replacen("v.gif", "gone/v.gif", 1).into(), 2, &["mkdir -p"]),
        (state, whole[1].1[..5000].to_vec(), 2, &["is damaged", "state.safetensors"]),
        (state, b"text".to_vec(), 2, &["is damaged", "begin anew"]),
    ];
    for (path, bytes, code, words) in cases {
        assert!(bytes != std::fs::read(path).unwrap(), "{words:?}: nothing was changed");
        std::fs::write(path, bytes).unwrap();
        let output = resume(folder.path(), &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {message}");
        says(&message, words);
        assert_eq!(message.matches("error: ").count(), 1, "{message}");
        whole.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    let output = resume(folder.path(), &["--device", "sim:1MB"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    says(&stderr(&output), &["needs at least", "stays as it is"]);
    // A plan that is no use is made again.
    std::fs::write(run.join("plan.json"), "{}").unwrap();
    let output = resume(folder.path(), &[]);
    succeeds(&output);
    says(&stderr(&output), &["planned again, with the same picture", &name]);
    let expected = tempfile::tempdir().unwrap();
    succeeds(&generate(expected.path(), &["-o", "v.gif"]));
    assert!(made(folder.path()) == made(expected.path()));
}

/// Tiles that a run has are tiles wherever it goes on.
#[test]
fn tiles_stay_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = ["--vae-tiling", "on", "--tile-height", "48", "--tile-width", "40", "-o", "v.gif"];
    kill(spawn(begin(folder.path(), &tiles)), folder.path(), &Moment::InSave(2));
    succeeds(&resume(folder.path(), &["--device", "cpu"]));
    let expected = tempfile::tempdir().unwrap();
    succeeds(&generate(expected.path(), &tiles));
    assert!(made(folder.path()) == made(expected.path()));
    let untiled = tempfile::tempdir().unwrap();
    succeeds(&generate(untiled.path(), &["-o", "v.gif"]));
    assert!(made(folder.path()).video != made(untiled.path()).video);
}

/// A folder that cannot be is told at once, and how to do without.
#[test]
fn runs_are_kept_elsewhere_where_they_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let output = generate(folder.path(), &["-o", "v.gif", "--runs", "file/runs"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    says(&stderr(&output), &["cannot make file/runs", "--runs DIR"]);
    assert_eq!(files(folder.path()), ["file"]);
}

/// Settings say where runs are and whether they are kept, but not what a run was asked for.
#[test]
fn settings_say_where_runs_are_but_not_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let flags: Vec<String> = job(&["-o", "v.gif"]);
    let mut words: Vec<&str> = flags.iter().map(String::as_str).collect();
    let place = words.iter().position(|word| *word == "--runs").unwrap();
    words.drain(place..place + 2);
    let run = |words: &[&str], settings: &[(&str, &str)]| {
        let mut command = command(folder.path(), words);
        command.envs(settings.iter().copied()).env("VIDFIT_RUNS", "set");
        command.output().unwrap()
    };
    succeeds(&run(&[&words[..], &["--keep"]].concat(), &[("VIDFIT_KEEP", "false")]));
    succeeds(&run(&words, &[("VIDFIT_KEEP", "false")]));
    succeeds(&run(&[&words[..], &["--no-keep"]].concat(), &[]));
    assert_eq!(files(&folder.path().join("set")).len(), 1);
    let shown = json(&run(&["runs", "show", "last", "--json"], &[]));
    assert_eq!(shown["status"], "done");
    // These would make another file, or fail.
    let other = [("VIDFIT_FPS", "24"), ("VIDFIT_CRF", "40"), ("VIDFIT_DEVICE", "sim:1MB")];
    let v = std::fs::read(folder.path().join("v.gif")).unwrap();
    for more in [&[][..], &["--vae-tiling", "off"]] {
        let decode = [&["decode", "last", "-o", "again.gif"], more].concat();
        succeeds(&run(&decode, &other));
        assert!(std::fs::read(folder.path().join("again.gif")).unwrap() == v);
    }
    let one = only(&folder.path().join("set"));
    std::fs::remove_file(one.join("report.json")).unwrap();
    std::fs::remove_dir_all(one.join("frames")).unwrap();
    let resumed = run(&["resume", "last"], &other);
    succeeds(&resumed);
    assert!(!stderr(&resumed).contains("planned again"), "{}", stderr(&resumed));
    assert!(std::fs::read(folder.path().join("v.gif")).unwrap() == v);
}

/// The only thing in a folder.
fn only(folder: &Path) -> PathBuf {
    let names = files(folder);
    assert_eq!(names.len(), 1, "{names:?}");
    folder.join(&names[0])
}
