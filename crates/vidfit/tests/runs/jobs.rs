//! Small jobs that are stopped and go on, and what they come to.

use crate::support::{checkpoint, command, files, stderr, vidfit};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const STEPS: usize = 6;

/// `generate` of a video that takes a moment, on one thread, in the directory `runs`; `more` is added,
/// and takes the place of what it names.
pub fn job(more: &[&str]) -> Vec<String> {
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
pub fn generate(folder: &Path, more: &[&str]) -> Output {
    begin(folder, more).output().unwrap()
}

pub fn begin(folder: &Path, more: &[&str]) -> Command {
    let mut command = command(folder, &[]);
    command.args(job(more));
    command
}

pub fn resume(folder: &Path, more: &[&str]) -> Output {
    vidfit(folder, &[&["resume", "last", "--runs", "runs"][..], more].concat())
}

pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// The only run in `folder`, if one has begun.
pub fn only_run(folder: &Path) -> Option<PathBuf> {
    let runs = folder.join("runs");
    let names = if runs.is_dir() { files(&runs) } else { vec![] };
    let begun: Vec<&String> = names.iter().filter(|name| !name.starts_with('.')).collect();
    assert!(begun.len() <= 1, "{names:?}");
    begun.first().map(|name| runs.join(name))
}

/// What a run's log says, in order.
pub fn events(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// When a process is killed.
pub enum Moment {
    /// After so long.
    After(Duration),
    /// While a state is written, once the log tells of so many steps of its own; before the step
    /// after the next, if that is not seen.
    InSave(u64),
    /// As soon as the log tells that it has begun with a phase.
    Began(&'static str),
}

/// Kills a process, as nothing can be done about, at that moment, if it still runs then.
pub fn kill(mut child: Child, folder: &Path, moment: &Moment) {
    let log = || only_run(folder).map(|run| events(&run)).unwrap_or_default();
    let steps = || log().iter().filter(|event| event["event"] == "step").count() as u64;
    let has_begun = |phase| {
        let is_it = |event: &Value| event["event"] == "phase_began" && event["phase"] == phase;
        log().iter().any(is_it)
    };
    let (began, before) = (Instant::now(), steps());
    while child.try_wait().unwrap().is_none() {
        let is_time = match moment {
            Moment::After(time) => began.elapsed() >= *time,
            Moment::InSave(of_its_own) => match steps().saturating_sub(before + of_its_own - 1) {
                0 => false,
                1 | 2 => only_run(folder).is_some_and(|run| is_half_written(&run)),
                _ => true,
            },
            Moment::Began(phase) => has_begun(*phase),
        };
        if is_time {
            break;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    let _ = child.kill();
    child.wait().unwrap();
}

/// Whether half a state is in a run's directory.
pub fn is_half_written(run: &Path) -> bool {
    files(run).iter().any(|name| name.starts_with(".state"))
}

pub fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a run that is done comes to: its video, its frames and its last state, to the byte.
#[derive(PartialEq)]
pub struct Made {
    pub video: Vec<u8>,
    pub frames: Vec<Vec<u8>>,
    pub state: Vec<u8>,
}

pub fn made(folder: &Path) -> Made {
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

/// A long job, which prints a line for every step, once it has done so many.
pub fn after_steps(folder: &Path, steps: usize, more: &[&str]) -> Child {
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
pub const LONG: &str = "200";

#[cfg(unix)]
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// The only thing in a folder.
pub fn only(folder: &Path) -> PathBuf {
    let names = files(folder);
    assert_eq!(names.len(), 1, "{names:?}");
    folder.join(&names[0])
}
