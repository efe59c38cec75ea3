//! The command line as a user meets it: exit codes, messages, files.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{checkpoint, command, files, json_file, stderr, vidfit};
use vidfit_engine::safetensors::{SafetensorsFile, StoredDtype};

/// `generate` of a small video with the tiny 5b.
fn generate(folder: &Path, more: &[&str]) -> Output {
    let model = checkpoint("5b");
    let mut arguments = vec!["generate", "A panda", "--model", model.to_str().unwrap()];
    let small = [("--frames", "9"), ("--height", "32"), ("--width", "48"), ("--steps", "2")];
    for (flag, value) in small {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    vidfit(folder, &arguments)
}

#[test]
fn a_video_and_its_tensors_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["-o", "v.mp4", "--save-tensors", "v.safetensors", "--progress", "json"];
    let output = generate(folder.path(), &flags);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(files(folder.path()), ["v.mp4", "v.safetensors"]);

    let events: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |event: &str| events.iter().filter(|e| e["event"] == event).collect::<Vec<_>>();
    assert_eq!(of("phase_ended").len(), 3);
    assert!(of("progress").iter().any(|e| e["phase"] == "denoise" && e["steps_done"] == 2));
    assert!(of("progress").iter().all(|e| e["fraction"].as_f64().unwrap() <= 1.0));
    let done = events.last().unwrap();
    assert_eq!(done["event"], "done");
    assert_eq!(done["frames"], 9);
    assert_eq!(done["planned_peak_bytes"], done["measured_peak_bytes"]);
    assert_eq!(of("planned")[0]["peak_bytes"], done["measured_peak_bytes"]);

    let tensors = SafetensorsFile::open(folder.path().join("v.safetensors")).unwrap();
    let info = |name: &str| {
        let info = tensors.info(name).unwrap();
        (info.dtype, info.shape.clone())
    };
    assert_eq!(info("input_ids"), (StoredDtype::I64, vec![1, 226]));
    assert_eq!(info("prompt_embeds"), (StoredDtype::F32, vec![1, 226, 32]));
    assert_eq!(info("latents"), (StoredDtype::F32, vec![1, 3, 16, 4, 6]));
    assert_eq!(info("frames"), (StoredDtype::F32, vec![9, 32, 48, 3]));
}

#[test]
fn the_spellings_of_the_demo_work() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("5b");
    let arguments = "generate --num_frames 9 --height 32 --width 48 --num_inference_steps 2 \
                     --guidance_scale 7 --output_path out.gif --dtype bfloat16 --prompt Panda \
                     --model_path";
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    arguments.push(model.to_str().unwrap());
    let output = vidfit(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(files(folder.path()), ["out.gif"]);
}

#[test]
fn the_same_seed_makes_the_same_frames_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    for (threads, name) in [("1", "one/"), ("2", "two/"), ("3", "three/")] {
        let output = generate(folder.path(), &["-o", name, "--threads", threads]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(generate(folder.path(), &["-o", "other/", "--seed", "43"]).status.success());
    let frame =
        |name: &str| std::fs::read(folder.path().join(name).join("frame_00004.png")).unwrap();
    assert_eq!(frame("one"), frame("two"));
    assert_eq!(frame("one"), frame("three"));
    assert_ne!(frame("one"), frame("other"));
}

#[test]
fn an_unnamed_output_takes_a_free_name() {
    let folder = tempfile::tempdir().unwrap();
    assert!(generate(folder.path(), &[]).status.success());
    assert!(generate(folder.path(), &[]).status.success());
    assert_eq!(files(folder.path()), ["output-2.mp4", "output.mp4"]);
}

/// Arguments that end in exit code 2, with a message that has all of the words.
#[test]
fn bad_input_ends_before_any_work_and_names_the_remedy() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--frames", "10"], &["10 frames", "9 or 17"]),
        (&["--frames", "0"], &["0 frames", "1"]),
        (&["--height", "50"], &["height of 50", "48 or 64"]),
        (&["--width", "0"], &["width of 0", "nearest: 16"]),
        (&["--width", "99999999"], &["width of 99999999", "at most 16384"]),
        (&["--steps", "0"], &["steps"]),
        (&["--steps", "1001"], &["1000"]),
        (&["--guidance", "nan"], &["guidance"]),
        (&["--guidance=-3"], &["guidance"]),
        (&["--fps", "0"], &["240"]),
        (&["--crf", "52"], &["51"]),
        (&["-o", "video.avi"], &[".avi", ".mp4", ".gif"]),
        (&["-o", "nowhere/video.mp4"], &["nowhere", "mkdir -p"]),
        (&["--save-tensors", "nowhere/t.safetensors"], &["nowhere", "mkdir -p"]),
        (&["--tile-height", "50", "--vae-tiling", "on"], &["tile height of 50", "48"]),
        (&["-o", "v.mp4", "--save-tensors", "./v.mp4"], &["v.mp4", "two files"]),
        (&["--scheduler", "euler"], &["euler", "ddim", "dpm"]),
        (&["--threads", "100000"], &["100000", "cores"]),
        (&["--guidance", "1e308"], &["guidance", "1000"]),
        (&["--frames", "4105"], &["at most 4097"]),
        (&["-o", "/dev/null/"], &["/dev/null"]),
        (&["--save-tensors", "/dev/null"], &["/dev/null", "device"]),
        (&["--device", "tpu"], &["tpu", "cpu"]),
    ];
    for (arguments, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let output = generate(folder.path(), arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        for word in *words {
            assert!(message.contains(word), "{arguments:?}: no {word:?} in {message}");
        }
        assert_eq!(files(folder.path()), [""; 0], "{arguments:?} left a file");
    }
}

#[test]
fn a_missing_prompt_or_model_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["generate"][..], &["no prompt"][..]),
        (&["generate", "x", "--model", "zai-org/CogVideoX-2b"], &["models pull zai-org"]),
        (&["generate", "x", "--model", ".."], &["model_index.json"]),
        (&["inspect", "."], &["model_index.json"]),
        (&["generate", "x", "--prompt", "y"], &["--prompt"]),
    ] {
        let output = vidfit(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = stderr(&output);
        assert!(words.iter().all(|word| message.contains(word)), "{arguments:?}: {message}");
    }
}

#[test]
fn inspect_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    // A transformer by itself.
    let model = folder.path().join("model");
    std::fs::create_dir_all(model.join("transformer")).unwrap();
    let whole = checkpoint("5b-i2v");
    for name in files(&whole.join("transformer")) {
        let part = Path::new("transformer").join(name);
        std::fs::copy(whole.join(&part), model.join(&part)).unwrap();
    }
    std::fs::copy(whole.join("model_index.json"), model.join("model_index.json")).unwrap();
    let output = vidfit(folder.path(), &["inspect", model.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("CogVideoX-5b-I2V"), "{text}");
    assert!(text.contains("text_encoder/config.json"), "{text}");
}

#[test]
fn inspect_prints_json() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("2b");
    let output = vidfit(folder.path(), &["inspect", "--json", model.to_str().unwrap()]);
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["variant"], "CogVideoX-2b");
    assert_eq!(report["complete"], true);
    assert!(report["components"]["vae"]["parameters"].as_u64().unwrap() > 1000);
}

#[test]
fn a_prompt_that_is_too_long_is_cut_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = "a long story of a panda ".repeat(60) + "UNSEEN";
    let output = generate(folder.path(), &["--negative-prompt", &prompt, "-o", "v.gif"]);
    assert!(output.status.success());
    assert!(stderr(&output).contains("UNSEEN"), "{}", stderr(&output));
}

/// A size that the model could be asked for, but no machine could hold: refused at once, with exit
/// code 3, before a plan of it is attempted.
#[test]
fn what_cannot_fit_is_refused_before_it_is_planned() {
    let folder = tempfile::tempdir().unwrap();
    let size = ["--frames", "4097", "--height", "16384", "--width", "16384"];
    let output = generate(folder.path(), &[&size[..], &["-o", "v/"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("memory"), "{}", stderr(&output));
    assert_eq!(files(folder.path()), [""; 0]);
}

/// Ctrl-C during the run: exit code 130, nothing left behind but the report that was asked for.
#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_run_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("5b");
    let mut child = command(folder.path(), &["generate", "A panda", "--frames", "33"])
        .args(["--model", model.to_str().unwrap()])
        .args(["--height", "192", "--width", "256", "--steps", "1000", "-o", "v.mp4"])
        .args(["--progress", "json", "--report", "r.json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let started = lines.any(|line| line.unwrap().contains("\"steps_done\":1"));
    assert!(started, "the run ended before its first step");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(folder.path()), ["r.json"]);
    assert_eq!(json_file(folder.path().join("r.json"))["outcome"], "interrupted");
}

/// A copy of a checkpoint that a test may damage.
fn copy_of(name: &str, folder: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => std::fs::copy(entry.path(), target).map(drop).unwrap(),
            }
        }
    }
    let to = folder.join(name);
    copy(&checkpoint(name), &to);
    to
}

/// The reference builds the classes that model_index.json names.
#[test]
fn the_index_chooses_the_scheduler_and_names_foreign_classes() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of("5b", folder.path());
    let index = model.join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let inspect = || vidfit(folder.path(), &["inspect", model.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&inspect().stdout).contains("Dpm"));
    for (from, to, code, words) in [
        ("CogVideoXDPMScheduler", "CogVideoXDDIMScheduler", 0, "Ddim"),
        ("CogVideoXDPMScheduler", "EulerDiscreteScheduler", 2, "EulerDiscreteScheduler"),
        ("CogVideoXTransformer3DModel", "WanTransformer3DModel", 2, "WanTransformer3DModel"),
        ("T5EncoderModel", "CLIPTextModel", 2, "CLIPTextModel"),
    ] {
        std::fs::write(&index, text.replace(from, to)).unwrap();
        let output = inspect();
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{to}: {all}");
        assert!(all.contains(words), "{to}: {all}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of("5b", folder.path());
    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    assert!(Command::new("mkfifo").arg(&weights).status().unwrap().success());
    let output = vidfit(folder.path(), &["generate", "x", "--model", model.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not a file"), "{}", stderr(&output));
}

/// Weights that are not numbers make no video.
#[test]
fn a_video_of_no_numbers_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of("5b", folder.path());
    let config = model.join("vae/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["scaling_factor"] = 1e-300.into();
    std::fs::write(&config, json.to_string()).unwrap();
    let size = ["--frames", "9", "--height", "32", "--width", "48", "--steps", "1", "-o", "v.gif"];
    let arguments = [&["generate", "x", "--model", model.to_str().unwrap()][..], &size].concat();
    let output = vidfit(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("NaN"), "{}", stderr(&output));
    assert!(!folder.path().join("v.gif").exists());
}
