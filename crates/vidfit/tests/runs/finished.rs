//! Runs that are done, or lack only their video.

use crate::jobs::{
    Moment, STEPS, after_steps, begin, events, generate, kill, made, only_run, resume, spawn,
    succeeds,
};
use crate::support::{files, json_file, says, stderr, stdout, vidfit};
use serde_json::Value;

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

/// What is asked of a run that is done is written, or it is said what writes it.
#[test]
fn a_run_that_is_done_does_not_pass_over_what_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(&generate(folder.path(), &["-o", "v.gif", "--report", "first.json"]));
    let other = resume(folder.path(), &["-o", "other.mp4"]);
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    says(&stderr(&other), &["is done", "vidfit decode ", "-o other.mp4"]);
    succeeds(&resume(folder.path(), &["-o", "v.gif", "--report", "again.json"]));
    let report = |name: &str| json_file(folder.path().join(name));
    assert_eq!(report("first.json"), report("again.json"));
    assert_eq!(files(folder.path()), ["again.json", "first.json", "runs", "v.gif"]);
}

/// A frame that cannot be read any more is made of the latents.
#[test]
fn a_damaged_frame_is_decoded_again() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(&generate(folder.path(), &["-o", "v.gif"]));
    let before = made(folder.path());
    let run = only_run(folder.path()).unwrap();
    let damage = || {
        let frame = run.join("frames/frame_00005.png");
        let mut whole = std::fs::read(&frame).unwrap();
        let middle = whole.len() / 2;
        whole[middle..][..8].fill(0xff);
        std::fs::write(&frame, &whole).unwrap();
    };
    damage();
    let decode = ["decode", "last", "--runs", "runs", "-o", "again.gif"];
    let output = vidfit(folder.path(), &decode);
    succeeds(&output);
    says(&stderr(&output), &["frame_00005.png", "decoded once more"]);
    assert!(std::fs::read(folder.path().join("again.gif")).unwrap() == before.video);
    std::fs::remove_file(run.join("report.json")).unwrap();
    std::fs::remove_file(folder.path().join("v.gif")).unwrap();
    let output = resume(folder.path(), &[]);
    succeeds(&output);
    says(&stderr(&output), &["frame_00005.png"]);
    assert!(made(folder.path()) == before);
}

/// A name that nobody asked for is looked for when the video is written, and is then the run's.
#[test]
fn a_name_that_is_taken_meanwhile_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let child = after_steps(folder.path(), 2, &["--steps", "40"]);
    std::fs::write(folder.path().join("output.mp4"), "another's").unwrap();
    succeeds(&child.wait_with_output().unwrap());
    let names = ["output-2.mp4", "output.mp4", "runs"];
    assert_eq!(files(folder.path()), names);
    assert!(std::fs::read(folder.path().join("output.mp4")).unwrap() == b"another's");
    // As after a crash before it was said that the run is done.
    let run = only_run(folder.path()).unwrap();
    std::fs::remove_file(run.join("report.json")).unwrap();
    succeeds(&resume(folder.path(), &[]));
    assert_eq!(files(folder.path()), names);
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
