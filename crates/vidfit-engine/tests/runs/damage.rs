//! Directories of runs that are not what they should be.

use crate::place::{Place, files};
use serde_json::json;
use std::fs;
use std::path::Path;
use vidfit_engine::planner::SavedPlan;
use vidfit_engine::runs::{RunsError, Standing};

/// A change to a run's directory, what it is then told to be damaged by, and whether it can still be
/// opened.
type Damage = (&'static str, fn(&Path), &'static str, bool);

const DAMAGES: [Damage; 11] = [
    ("no request", |run| fs::remove_file(run.join("request.json")).unwrap(), "missing", false),
    ("an empty request", |run| fs::write(run.join("request.json"), "").unwrap(), "request", false),
    ("garbage", |run| fs::write(run.join("request.json"), [0xff; 99]).unwrap(), "request", false),
    (
        "half a request",
        |run| {
            let text = fs::read(run.join("request.json")).unwrap();
            fs::write(run.join("request.json"), &text[..text.len() / 2]).unwrap();
        },
        "request",
        false,
    ),
    (
        "another version",
        |run| {
            let text = fs::read_to_string(run.join("request.json")).unwrap();
            let text = text.replacen("\"version\": 1", "\"version\": 7", 1);
            fs::write(run.join("request.json"), text).unwrap();
        },
        "version is 7",
        false,
    ),
    (
        "another request",
        |run| fs::write(run.join("request.json"), "{\"version\": 1, \"prompt\": 5}").unwrap(),
        "request",
        false,
    ),
    (
        "a folder for a request",
        |run| {
            fs::remove_file(run.join("request.json")).unwrap();
            fs::create_dir(run.join("request.json")).unwrap();
        },
        "no small file",
        false,
    ),
    (
        "a state that was cut",
        |run| {
            let bytes = fs::read(run.join("state.safetensors")).unwrap();
            fs::write(run.join("state.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
        },
        "state.safetensors",
        true,
    ),
    (
        "an empty state",
        |run| fs::write(run.join("state.safetensors"), "").unwrap(),
        "state.safetensors",
        true,
    ),
    (
        "a folder for a state",
        |run| {
            fs::remove_file(run.join("state.safetensors")).unwrap();
            fs::create_dir(run.join("state.safetensors")).unwrap();
        },
        "state.safetensors",
        true,
    ),
    (
        "a file for a run",
        |run| {
            fs::remove_dir_all(run).unwrap();
            fs::write(run, "text").unwrap();
        },
        "no folder",
        false,
    ),
];

#[test]
fn damage_is_told_and_can_be_taken_away() {
    let place = Place::new();
    let (job, embeds) = (&place.prepared.job, place.embeds());
    for (what, damage, words, opens) in DAMAGES {
        let run = place.begin();
        let (id, folder) = (run.id().clone(), run.folder().to_owned());
        run.save(&place.state(2)).unwrap();
        drop(run);
        damage(&folder);
        let Standing::Damaged(why) = place.standing(&id) else {
            panic!("{what}: {:?}", place.standing(&id));
        };
        assert!(why.contains(words), "{what}: {why}");
        let error = match (place.runs.open(&id), opens) {
            (Ok(run), true) => run.state(job, embeds).unwrap_err(),
            (Err(error), false) => error,
            (other, _) => panic!("{what}: {other:?}"),
        };
        assert!(matches!(error, RunsError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains(&format!("vidfit runs rm {id}")), "{what}: {error}");
        place.runs.remove(&id).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!folder.exists(), "{what}");
    }
    assert_eq!(place.runs.list().unwrap().len(), 0);
    assert_eq!(files(place.runs.folder()), [""; 0]);
}

/// What else may be wrong does not keep a run from being listed.
#[test]
fn strange_reports_and_logs_do_no_harm() {
    let place = Place::new();
    let run = place.begin();
    let (id, folder) = (run.id().clone(), run.folder().to_owned());
    drop(run);
    for text in ["", "{", "[]", "{\"outcome\": 7}", "null"] {
        fs::write(folder.join("report.json"), text).unwrap();
        assert_eq!(place.standing(&id), Standing::Stopped, "{text}");
        assert!(!place.runs.open(&id).unwrap().is_done());
    }
    fs::write(folder.join("report.json"), json!({ "outcome": "strange" }).to_string()).unwrap();
    assert_eq!(place.standing(&id), Standing::Stopped);
    fs::write(folder.join("log.jsonl"), [0xff; 10]).unwrap();
    fs::write(folder.join("lock"), "no number").unwrap();
    drop(place.runs.open(&id).unwrap());
}

/// A pipe in the place of a file is not waited for.
#[cfg(target_os = "linux")]
#[test]
fn pipes_are_not_waited_for() {
    let (send, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let place = Place::new();
        for name in ["lock", "request.json", "plan.json", "report.json", "log.jsonl"] {
            let run = place.begin();
            let (id, path) = (run.id().clone(), run.path(name));
            drop(run);
            let _ = fs::remove_file(&path);
            // A child would hold the locks of the other tests' runs until it is another program.
            let (cwd, mode) = (rustix::fs::CWD, rustix::fs::Mode::from(0o600));
            rustix::fs::mknodat(cwd, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            let looked = place.runs.look(&id);
            let is_damaged = matches!(looked.standing, Standing::Damaged(_));
            assert_eq!(is_damaged, name == "request.json", "{name}: {:?}", looked.standing);
            assert_eq!(
                SavedPlan::load(&looked.folder.join("plan.json")).is_err(),
                name == "plan.json"
            );
            let opens = !["request.json", "log.jsonl"].contains(&name);
            assert_eq!(place.runs.open(&id).is_ok(), opens, "{name}");
            place.runs.remove(&id).unwrap();
        }
        send.send(()).unwrap();
    });
    done.recv_timeout(std::time::Duration::from_secs(60)).expect("no pipe is waited for");
}
