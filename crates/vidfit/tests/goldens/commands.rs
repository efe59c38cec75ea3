//! Command lines: `cases/NAME.txt`, each in one folder, one line after another, as later lines may speak
//! of what earlier ones made.

use crate::golden;
use crate::normal;
use crate::sandbox::{Sandbox, here};
use crate::shell::{Line, lines};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Begins a line of variables that hold for all that follow it.
const FOR_ALL: &str = "export ";

/// Where runs are kept: by default, and by `--runs runs`.
const RUNS: [&str; 2] = ["data/vidfit/runs", "runs"];

/// The commands that make videos.
const MAKES: [&str; 3] = ["generate ", "resume ", "decode "];

#[test]
fn plans() {
    hold("plan");
}

#[test]
fn plans_of_published_models() {
    hold("published");
}

#[test]
fn plans_that_change_the_job() {
    hold("fit");
}

#[test]
fn settings_and_presets() {
    hold("settings");
}

#[test]
fn questions() {
    hold("questions");
}

#[test]
fn refused() {
    hold("refused");
}

#[test]
fn made() {
    hold("made");
}

/// Runs all lines of a file of cases, and holds what they come to to what is expected.
fn hold(name: &str) {
    let sandbox = Sandbox::new();
    let path = here().join("cases").join(format!("{name}.txt"));
    let text = fs::read_to_string(path).unwrap();
    let mut for_all = Vec::new();
    let mut before = Seen::default();
    let mut found = Vec::new();
    for line in lines(&text) {
        if let Some(variables) = line.strip_prefix(FOR_ALL) {
            for_all = Line::read(variables).variables;
            continue;
        }
        let Line { variables, words } = Line::read(line);
        let mut command = sandbox.command(&words);
        command.envs(for_all.iter().cloned()).envs(variables);
        let output = command.output().unwrap();
        let after = Seen::now(&sandbox);
        found.push(case(&sandbox, line, &output, before.told(&sandbox, &after)));
        before = after;
    }
    golden::compare(name, &found);
}

/// What a line came to: what it said, and what it made.
pub fn case(sandbox: &Sandbox, line: &str, output: &Output, made: Map<String, Value>) -> Value {
    let (out, errors) =
        [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it)).into();
    let mut case = Map::new();
    case.insert("case".into(), line.into());
    case.insert("code".into(), output.status.code().into());
    // What a plan predicts is the same everywhere; what a run took is not.
    let is_timed = MAKES.iter().any(|command| line.contains(command));
    case.extend(said(sandbox, is_timed, &out));
    let errors = normal::lines(sandbox, is_timed, &errors);
    if !errors.is_empty() {
        case.insert("stderr".into(), errors.into());
    }
    case.extend(made);
    Value::Object(case)
}

/// Standard output: as JSON, as events, or as lines.
fn said(sandbox: &Sandbox, is_timed: bool, out: &str) -> Option<(String, Value)> {
    let out = out.trim_end();
    if out.is_empty() {
        return None;
    }
    let parsed: Result<Vec<Value>, _> = out.lines().map(serde_json::from_str).collect();
    Some(match parsed {
        Ok(values) if values.iter().all(|value| value["event"].is_string()) => {
            let events: Vec<Value> =
                values.iter().map(|value| normal::value(sandbox, value)).collect();
            ("events".into(), events.into())
        }
        Ok(values) if values.len() == 1 => ("json".into(), normal::value(sandbox, &values[0])),
        _ => ("stdout".into(), normal::lines(sandbox, is_timed, out).into()),
    })
}

/// What there is in the folders that lines write to.
#[derive(Default)]
pub struct Seen {
    /// Directories of runs.
    runs: Vec<PathBuf>,
    /// Files in `out`, by their names, with their digests.
    files: BTreeMap<String, String>,
}

impl Seen {
    pub fn now(sandbox: &Sandbox) -> Seen {
        let mut runs = Vec::new();
        for folder in RUNS {
            let entries = fs::read_dir(sandbox.path(folder)).into_iter().flatten();
            runs.extend(entries.map(|entry| entry.unwrap().path()));
        }
        runs.sort();
        let mut files = BTreeMap::new();
        add_files(&sandbox.root, &sandbox.path("out"), &mut files);
        Seen { runs, files }
    }

    /// What `after` has more, or else.
    pub fn told(&self, sandbox: &Sandbox, after: &Seen) -> Map<String, Value> {
        let mut told = Map::new();
        let new = after.runs.iter().filter(|run| !self.runs.contains(run));
        let mut requests: Vec<Value> =
            new.map(|run| json_file(&run.join("request.json"))).collect();
        // Names of runs of one second are in no order.
        requests.sort_by_key(|request| request["began_unix_ms"].as_u64());
        let requests: Vec<Value> =
            requests.iter().map(|request| normal::value(sandbox, request)).collect();
        if !requests.is_empty() {
            told.insert("requests".into(), requests.into());
        }
        let gone = self.runs.iter().filter(|run| !after.runs.contains(run)).count();
        if gone > 0 {
            told.insert("runs_gone".into(), gone.into());
        }
        let mut files = Map::new();
        for (name, digest) in &after.files {
            if self.files.get(name) == Some(digest) {
                continue;
            }
            let value = match name.ends_with(".json") {
                true => normal::value(sandbox, &json_file(&sandbox.path(name))),
                false => json!(digest),
            };
            files.insert(name.clone(), value);
        }
        if !files.is_empty() {
            told.insert("files".into(), files.into());
        }
        told
    }
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Adds the files of a folder. Of pictures in a folder of their own, their number and one digest.
fn add_files(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let is_picture = |path: &PathBuf| path.extension().is_some_and(|it| it == "png");
    if !paths.is_empty() && paths.iter().all(is_picture) {
        let frames = format!("{} pictures, {}", paths.len(), digest(&paths));
        into.insert(format!("{}/", name(folder)), frames);
        return;
    }
    for path in paths {
        match path.is_dir() {
            true => add_files(root, &path, into),
            false => _ = into.insert(name(&path), digest(std::slice::from_ref(&path))),
        }
    }
}

/// The first digits of a digest of files' contents: enough to tell that they are the same.
pub fn digest(paths: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    paths.iter().for_each(|path| hash.update(fs::read(path).unwrap()));
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
