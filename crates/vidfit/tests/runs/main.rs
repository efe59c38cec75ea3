//! Runs that are stopped, and go on.
#![allow(clippy::unwrap_used)] // A test may panic.

mod finished;
mod jobs;
mod kills;
#[path = "../support/mod.rs"]
mod support;

use jobs::*;
use std::path::PathBuf;
use std::process::Command;
use support::{checkpoint, command, files, json, says, stderr, stdout, vidfit};

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

/// A run of the model that is built in is killed, and goes on, wherever the program is by then; with
/// another model of that name it does not.
#[test]
fn a_run_of_the_model_that_is_built_in_goes_on() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = ["--model", "demo", "-o", "v.gif"];
    kill(spawn(begin(folder.path(), &job)), folder.path(), &Moment::InSave(3));
    let run = only_run(folder.path()).unwrap();
    let request = run.join("request.json");
    let text = std::fs::read_to_string(&request).unwrap();
    says(&text, &["\"model\": \"demo\"", "\"model_identity\": \"built-in:demo "]);
    // The last digit of a digest.
    let end = text.find("\"model_identity\"").unwrap();
    let end = end + text[end..].find("\",\n").unwrap();
    let last = if &text[end - 1..end] == "0" { "1" } else { "0" };
    std::fs::write(&request, [&text[..end - 1], last, &text[end..]].concat()).unwrap();
    let output = resume(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    says(&stderr(&output), &["another demo model", "built into this vidfit", "vidfit generate"]);

    std::fs::write(&request, text).unwrap();
    let program = folder.path().join("moved");
    std::fs::copy(env!("CARGO_BIN_EXE_vidfit"), &program).unwrap();
    let usual = command(folder.path(), &[]);
    let mut moved = Command::new(program);
    moved.args(["resume", "last", "--runs", "runs"]).current_dir(folder.path());
    moved.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    succeeds(&moved.output().unwrap());
    succeeds(&generate(whole.path(), &job));
    assert!(made(folder.path()) == made(whole.path()), "another video");
}

/// A run with LoRAs goes on, too.
#[test]
fn a_run_with_a_lora_goes_on() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lora = checkpoint("").join("../loras/5b-peft.safetensors");
    let job = ["--lora", lora.to_str().unwrap(), "-o", "v.gif"];
    kill(spawn(begin(folder.path(), &job)), folder.path(), &Moment::InSave(3));
    succeeds(&resume(folder.path(), &[]));
    succeeds(&generate(whole.path(), &job));
    assert!(made(folder.path()) == made(whole.path()), "another video");
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
        (request, text.replacen(" 183024 ", " 183025 ", 1).into(), 2, &["have other contents"]),
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
