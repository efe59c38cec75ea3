//! Runs that the present release began and others go on with: `runs/NAME/` holds the directory of one,
//! as a kill left it.

use crate::commands::{Seen, case};
use crate::golden;
use crate::sandbox::{Sandbox, here};
use crate::shell::words;
use crate::stored::{pack, parts, unpack};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What a run is asked for besides its own options.
const SMALL: &str = "--frames 9 --height 48 --width 64 --threads 1 --ram 512MB --device sim:64MB \
                     --vae-tiling off --runs runs --progress json";

/// A run, and when it is stopped.
struct Stopped {
    /// Its name here.
    name: &'static str,
    /// What it is asked for.
    asked: &'static str,
    /// When it is killed.
    moment: Moment,
}

#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// Between steps, once so many are done.
    Step(u64),
    /// After the text phase, before the first step.
    Text,
    /// Once all frames are there, before the video is.
    Frames,
}

const STOPPED: [Stopped; 5] = [
    Stopped {
        name: "text_with_lora",
        asked: "generate 'A panda plays' --model tiny-5b --lora loras/5b-peft.safetensors:0.5 \
                --steps 12 --dtype f32 --seed 7 --negative-prompt rain -o out/video/ \
                --save-tensors out/tensors.safetensors",
        moment: Moment::Step(3),
    },
    Stopped {
        name: "video",
        asked: "generate 'The same, in winter' --model tiny-5b --video clip.gif --strength 0.75 \
                --steps 16 --dtype f32 --scheduler ddim -o out/video/ \
                --save-tensors out/tensors.safetensors",
        moment: Moment::Step(3),
    },
    Stopped {
        name: "image_after_text",
        asked: "generate 'It turns' --model tiny-5b-i2v --image rgb.png --resize crop --steps 4 \
                --dtype f32 -o out/video/ --save-tensors out/tensors.safetensors",
        moment: Moment::Text,
    },
    Stopped {
        name: "bf16_dpm",
        asked: "generate 'A panda' --model tiny-5b --dtype bf16 --scheduler dpm --dynamic-cfg smooth \
                --steps 12 -o out/video/ --save-tensors out/tensors.safetensors",
        moment: Moment::Step(4),
    },
    Stopped {
        name: "frames_done",
        asked: "generate 'A panda' --model tiny-2b --steps 2 --dtype f32 --height 96 \
                --width 128 -o out/video.gif",
        moment: Moment::Frames,
    },
];

/// Another device, another place and another plan, which make the same picture.
const ELSEWHERE: &str = "--device cpu --ram 256MB --threads 1 --offload model -o out/elsewhere/ \
                         --report out/report.json";

/// Each goes on to the bytes that the release makes which began it, on one thread and on two.
#[test]
fn runs_go_on() {
    let all = |more: &str| -> Vec<Value> { STOPPED.iter().map(|it| resumed(it, more)).collect() };
    let mut found = all("--threads 1");
    for (one, two) in found.iter().zip(all("--threads 2")) {
        assert_eq!(one["files"], two["files"], "{} on two threads", one["case"]);
    }
    let mut elsewhere = resumed(&STOPPED[3], ELSEWHERE);
    elsewhere["case"] = json!(format!("{} {ELSEWHERE}", STOPPED[3].name));
    found.push(elsewhere);
    golden::compare("runs", &found);
}

/// What a run comes to that goes on with more options.
fn resumed(stopped: &Stopped, more: &str) -> Value {
    let sandbox = Sandbox::new();
    unpack(&sandbox, &folder(stopped.name), &sandbox.path("runs"));
    let line = format!("resume last --runs runs --progress json {more}");
    let before = Seen::now(&sandbox);
    let output = sandbox.command(&words(&line)).output().unwrap();
    let made = before.told(&sandbox, &Seen::now(&sandbox));
    case(&sandbox, stopped.name, &output, made)
}

fn folder(name: &str) -> PathBuf {
    here().join("runs").join(name)
}

/// Makes the directories anew, by the program as it is now: only for a release whose runs are to be
/// frozen beside those that are.
#[test]
#[ignore = "what is frozen is what an earlier release began"]
fn make_runs() {
    for stopped in &STOPPED {
        let made = (0..200).any(|_| is_stopped_in_time(stopped));
        assert!(made, "{} is not stopped in time", stopped.name);
    }
}

/// Begins a run, kills it, and keeps its directory if that was the right moment.
fn is_stopped_in_time(stopped: &Stopped) -> bool {
    let sandbox = Sandbox::new();
    let clip = "generate clip --model tiny-5b --frames 9 --height 48 --width 64 --steps 1 --ram 512MB \
                --device cpu --threads 1 --no-keep -o clip.gif";
    assert!(sandbox.command(&words(clip)).output().unwrap().status.success());
    let mut asked = words(SMALL);
    // What it says itself goes before.
    asked.splice(0..0, words(stopped.asked).into_iter().take(2));
    asked.extend(words(stopped.asked).into_iter().skip(2));
    let mut command = sandbox.command(&asked);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut saw = |is_it: &dyn Fn(&Value) -> bool| {
        events.any(|line| serde_json::from_str(&line.unwrap()).is_ok_and(|event| is_it(&event)))
    };
    match stopped.moment {
        Moment::Step(steps) => _ = saw(&|event| event["steps_done"] == steps),
        Moment::Text => _ = saw(&|event| event["phase"] == "encode"),
        Moment::Frames => {
            assert!(saw(&|event| event["phase"] == "decode"));
            let run = only(&sandbox.path("runs"));
            while child.try_wait().unwrap().is_none() && !run.join("frames").is_dir() {}
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let run = only(&sandbox.path("runs"));
    let is_there = |name: &str| run.join(name).exists();
    let video = || sandbox.path("out/video.gif").exists();
    let is_clean = !fs::read_dir(&run).unwrap().any(|entry| {
        // Half a state that nobody reads.
        entry.unwrap().file_name().to_string_lossy().starts_with('.')
    });
    let is_right = is_clean
        && match stopped.moment {
            Moment::Frames => is_there("frames") && !is_there("report.json") && !video(),
            Moment::Text => {
                is_there("state.safetensors") && !has_latents(&run.join("state.safetensors"))
            }
            Moment::Step(_) => is_there("state.safetensors") && !is_there("frames"),
        };
    if is_right {
        pack(&sandbox, &sandbox.path("runs"), &folder(stopped.name));
    }
    is_right
}

/// Whether a state is one before the first step, or after it.
fn has_latents(state: &Path) -> bool {
    let bytes = fs::read(state).unwrap();
    parts(&bytes).0["latents"]["shape"] != json!([0])
}

/// The only folder in a folder.
fn only(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = entries.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}
