//! `vidfit generate --prompts`: many videos of one command.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Output;
use support::{checkpoint, command, files, says, small, stderr, stdout};

/// Makes the videos of these lines, on a simulated card.
fn batch(folder: &Path, lines: &str, more: &[&str]) -> Output {
    std::fs::write(folder.join("prompts.txt"), lines).unwrap();
    let words = ["--prompts", "prompts.txt", "--device", "sim:64MB", "--runs", "runs"];
    small(folder, &["generate"], &[&words[..], more].concat())
}

/// The events of a kind that a command told a script.
fn events(output: &Output, kind: &str) -> Vec<Value> {
    let events = stdout(output);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == kind).collect()
}

#[test]
fn each_line_is_the_video_that_it_would_be_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lines = "A panda plays the guitar\n\n\
                 {\"prompt\": \"A horse\", \"seed\": 7, \"steps\": 3, \"output\": \"horse.gif\"}\n\
                 {\"prompt\": \"A horse\", \"guidance\": 1}\n";
    let output = batch(folder, lines, &["-o", "panda.gif", "--progress", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // One negative prompt and two prompts, through the text encoder at once.
    let texts = events(&output, "texts");
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!((&texts[0]["prompts"], &texts[0]["passes"]), (&3.into(), &1.into()));
    assert_eq!(events(&output, "summary")[0]["made"], 3);
    let videos: Vec<String> =
        files(folder).into_iter().filter(|name| name.ends_with(".gif")).collect();
    assert_eq!(videos, ["horse.gif", "panda-1.gif", "panda-4.gif"]);

    let alone = |prompt: &str, more: &[&str]| {
        let words = [prompt, "--device", "sim:64MB", "--no-keep", "-o", "alone.gif"];
        let output = small(folder, &["generate"], &[&words[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        std::fs::read(folder.join("alone.gif")).unwrap()
    };
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(alone("A panda plays the guitar", &[]) == read("panda-1.gif"));
    assert!(alone("A horse", &["--seed", "7", "--steps", "3"]) == read("horse.gif"));
    assert!(alone("A horse", &["--guidance", "1"]) == read("panda-4.gif"));
}

#[test]
fn a_line_that_fails_does_not_keep_the_others_from_being_made() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "A panda\n{\"prompt\": \"x\", \"frames\": 12}\n{\"seed\": 7}\n\
                 {\"prompt\": \"x\", \"colour\": \"red\"}\n{\"prompt\": \"x\", \"device\": \"cpu\"}\n\
                 A horse\n";
    let output = batch(folder.path(), lines, &["-o", "v.gif"]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let words = ["2 of 6 videos", "line 2", "9 or 17", "no \"prompt\"", "--colour", "all lines"];
    says(&error, &words);
    says(&error, &["line 1    made", "line 6    made", "4 of 6 lines failed"]);
    let videos = ["v-1.gif", "v-6.gif"];
    assert!(videos.iter().all(|name| folder.path().join(name).is_file()), "{error}");
}

#[test]
fn no_video_takes_the_place_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "A panda\n{\"prompt\": \"x\", \"output\": \"v-1.gif\"}\n\
                 {\"prompt\": \"x\", \"output\": \"prompts.txt\"}\n\
                 {\"prompt\": \"x\", \"video\": \"v-4.gif\"}\n";
    let output = batch(folder.path(), lines, &["-o", "v.gif", "--no-keep"]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    says(&error, &["1 of 4 videos", "line 1 goes to", "v-1.gif already", "v-4.gif cannot be both"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("prompts.txt")).unwrap(), lines);
}

#[test]
fn a_file_without_prompts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = batch(folder.path(), "\n  \n", &[]);
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["prompts.txt", "one a line"]);
    let output = small(folder.path(), &["generate", "--prompts", "none.txt"], &[]);
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["none.txt"]);
}

#[test]
fn weights_stay_between_videos_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("prompts.txt"), "A panda\nA horse\n").unwrap();
    let model = checkpoint("5b");
    let with = |pipelines: &str, output: &str| {
        let words = ["generate", "--prompts", "prompts.txt", "--device", "sim:64MB", "--no-keep"];
        let job = ["--frames", "9", "--height", "48", "--width", "64", "--steps", "2"];
        let rest = ["--model", model.to_str().unwrap(), "-o", output, "--progress", "json"];
        let words = [&words[..], &job, &rest].concat();
        let output = command(folder, &words).env("VIDFIT_WARM_PIPELINES", pipelines).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let memory = events(&output, "memory");
        let end = memory.iter().filter(|event| event["when"] == "at the end");
        end.map(|event| event["used_bytes"].as_u64().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(with("0", "cold.gif"), [0, 0]);
    let warm = with("1", "warm.gif");
    assert!(warm[0] > 0 && warm[0] == warm[1], "{warm:?}");
    for line in [1, 2] {
        let read = |name: &str| std::fs::read(folder.join(format!("{name}-{line}.gif"))).unwrap();
        assert!(read("cold") == read("warm"), "line {line}");
    }
}
