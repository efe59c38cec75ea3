//! What the tests of the command line share.
#![allow(dead_code)] // Each file of tests uses a part.
#![allow(clippy::unwrap_used)] // A test may panic.

pub mod server;
pub mod worker;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A tiny random checkpoint of this variant.
pub fn checkpoint(name: &str) -> PathBuf {
    let fixtures = "../../tests/reference/fixtures/checkpoints";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures).join(name)
}

/// The program in `folder`, with no models, settings or calibration of the user's.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("user");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vidfit"));
    command.args(arguments).current_dir(folder).env("HF_HOME", folder.join("no-cache"));
    for variable in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env(variable, &nowhere);
    }
    // Hides the machine's cards, if it has any: what is tested is the same everywhere.
    command.env("CUDA_VISIBLE_DEVICES", "");
    command.env_remove("HF_HUB_CACHE").env_remove("VIDFIT_CONFIG");
    command
}

/// Runs it.
pub fn vidfit(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// `name` of a small job with the tiny 5b, on two threads; `more` is added, and takes the place of
/// what it names.
pub fn small(folder: &Path, name: &[&str], more: &[&str]) -> Output {
    let model = checkpoint("5b");
    let mut arguments = name.to_vec();
    let job = [
        ("--model", model.to_str().unwrap()),
        ("--frames", "17"),
        ("--height", "96"),
        ("--width", "128"),
        ("--steps", "2"),
        ("--threads", "2"),
    ];
    for (flag, value) in job {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    vidfit(folder, &arguments)
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command that succeeds prints, as JSON.
pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A JSON file.
pub fn json_file(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The files of a folder, by name.
pub fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Holds a text to words that must be in it.
pub fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}
