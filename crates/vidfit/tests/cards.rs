//! What the program says of a card and of its driver, which is the emulation's (`vidfit-cuda/emulation`).
#![cfg(all(target_os = "linux", feature = "cuda"))]
#![allow(clippy::unwrap_used)] // A test may panic.

#[path = "../../vidfit-cuda/tests/bed/machine.rs"]
mod machine;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program with this folder as the user's own, on the emulation's card.
fn vidfit(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vidfit"));
    command
        .args(arguments)
        .envs(
            ["HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|name| (name, home)),
        )
        .env("LD_LIBRARY_PATH", machine::driver().parent().unwrap())
        .env("VIDFIT_CUBLASLT", "off");
    for name in ["CUDA_CACHE_DISABLE", "CUDA_CACHE_PATH", "CUDA_CACHE_MAXSIZE"] {
        command.env_remove(name);
    }
    command
}

fn texts(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

const COMPILES: &str = "the driver is compiling the kernels for Emulated card";

#[test]
fn doctor_opens_the_card_and_says_while_it_is_compiled_for() {
    let home = tempfile::tempdir().unwrap();
    let output = vidfit(home.path(), &["doctor"]).env("COMPILER_MS", "2000").output().unwrap();
    let [answer, notes] = texts(&output);
    assert!(notes.contains(COMPILES), "{answer}{notes}");
    let folder = home.path().join(".nv/ComputeCache");
    assert!(notes.contains(&format!("it keeps them in {}", folder.display())), "{notes}");
    for words in [
        "the driver compiles them once, and keeps them in",
        "two blocks of 9 kernels find room on a multiprocessor",
        "computes on cuda:0 (Emulated card)",
    ] {
        assert!(answer.contains(words), "{words} in {answer}");
    }
    // Kernels that are ready are not talked about.
    let output = vidfit(home.path(), &["doctor", "--json"]).output().unwrap();
    let [answer, notes] = texts(&output);
    assert_eq!(notes, "");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["kernel_cache"], json!({ "folder": folder, "problem": null }));
    assert_eq!(answer["cards"][0]["opened"]["Ok"]["packed"][0]["held"], 2);
}

#[test]
fn doctor_says_why_kernels_are_compiled_at_every_start() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below_a_file = file.join("cache");
    let said = |name: &str, value: &Path| {
        let output = vidfit(home.path(), &["doctor", "--quick"]).env(name, value).output().unwrap();
        let [answer, _] = texts(&output);
        let row = answer.lines().find(|line| line.starts_with("kernels")).unwrap_or_default();
        row.to_owned()
    };
    for (name, value, expected) in [
        (
            "CUDA_CACHE_DISABLE",
            Path::new("1"),
            "at every start, for 5 to 30 seconds: its cache is off",
        ),
        ("CUDA_CACHE_MAXSIZE", Path::new("1000000"), "CUDA_CACHE_MAXSIZE=1000000 is too small"),
        ("CUDA_CACHE_PATH", &below_a_file, "cannot be written to"),
        ("HOME", &below_a_file, "set CUDA_CACHE_PATH to a folder that can"),
        ("HOME", Path::new(""), "there is no folder for its cache (HOME is not set)"),
        ("CUDA_CACHE_PATH", home.path(), "the driver compiles them once, and keeps them in"),
    ] {
        let row = said(name, value);
        assert!(row.contains(expected), "{name}={}: {expected} in {row}", value.display());
    }
}

/// A job that fails once the card is open.
const WORDS: [&str; 5] = ["generate", "a ball", "--model", "/nowhere", "--no-keep"];

#[test]
fn scripts_and_servers_hear_it_too() {
    let home = tempfile::tempdir().unwrap();
    let events = |output: &Output| -> Vec<Value> {
        let [lines, _] = texts(output);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let words = [&WORDS[..], &["--device", "cuda:0", "--progress", "json"]].concat();
    let output = vidfit(home.path(), &words).env("COMPILER_MS", "2000").output().unwrap();
    let told = &events(&output)[0];
    assert_eq!((&told["event"], &told["card"]), (&json!("compiling"), &json!("Emulated card")));
    assert!(told["message"].as_str().unwrap().starts_with(COMPILES), "{told}");

    let queue = home.path().join("queue");
    let words = ["work", "--device", "cuda:0", "--queue-dir", queue.to_str().unwrap()];
    let mut worker = vidfit(home.path(), &words)
        .env("COMPILER_MS", "2000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = worker.stdin.take().unwrap();
    writeln!(input, "{}", json!({ "job": "one", "words": WORDS })).unwrap();
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let told = events.find(|event| event["event"] == "compiling").unwrap();
    assert!(events.any(|event| event["event"] == "ended"));
    // It ends with its input.
    drop(input);
    let output = worker.wait_with_output().unwrap();
    assert_eq!(told["job"], "one");
    // What is said on standard error is in the server's log.
    assert!(texts(&output)[1].contains(COMPILES), "{:?}", texts(&output));
}
