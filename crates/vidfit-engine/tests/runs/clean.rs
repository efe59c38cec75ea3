//! What is taken away of runs, and what is not.

use crate::place::{Place, age, files};
use std::fs;
use std::time::{Duration, SystemTime};
use vidfit_engine::runs::{CleanRules, Dropped, RunsError, Standing};

#[test]
fn what_is_not_of_the_run_is_not_taken_away() {
    let place = Place::new();
    let (id, folder) = place.done();
    fs::write(folder.join("thesis.txt"), "mine").unwrap();
    let error = place.runs.remove(&id).unwrap_err();
    assert!(matches!(&error, RunsError::ForeignFiles { found, .. } if found == "thesis.txt"));
    assert_eq!(files(&folder), ["thesis.txt"]);
    assert!(place.record.output.exists(), "the video itself");
    fs::remove_file(folder.join("thesis.txt")).unwrap();
    place.runs.remove(&id).unwrap();
    assert!(!folder.exists());
    assert!(matches!(place.runs.remove(&id), Err(RunsError::Unknown { .. })));
}

#[test]
fn what_is_old_is_dropped_as_the_rules_say() {
    let place = Place::new();
    let day = Duration::from_secs(86_400);
    let rules = CleanRules {
        now: SystemTime::now(),
        drop_frames_after: 30 * day,
        drop_runs_after: None,
        keep_last: 0,
        is_dry: false,
    };
    let (done, done_folder) = place.done();
    let run = place.begin();
    run.save(&place.state(1)).unwrap();
    let (stopped, stopped_folder) = (run.id().clone(), run.folder().to_owned());
    drop(run);
    fs::write(stopped_folder.join(".state.safetensors.9-0.tmp"), [0; 77]).unwrap();
    let never_begun = place.runs.folder().join(".20200101-000000-abc.part");
    fs::create_dir(&never_begun).unwrap();
    fs::write(never_begun.join("request.json"), "{}").unwrap();

    // Nothing is old yet but the leftover of a process that is gone.
    let cleaned = place.runs.clean(&rules).unwrap();
    assert_eq!(cleaned.dropped, [(Some(stopped.clone()), Dropped::Leftovers, 77)]);
    for path in [&done_folder, &stopped_folder, &never_begun] {
        age(path, 40);
    }
    // A dry run says what a real one does.
    let dry = place.runs.clean(&CleanRules { is_dry: true, ..rules.clone() }).unwrap();
    let kept = ["lock", "log.jsonl", "plan.json", "report.json", "request.json", "video.gif"];
    assert_eq!(files(&done_folder).len(), kept.len() + 2);
    let cleaned = place.runs.clean(&rules).unwrap();
    assert_eq!(cleaned.dropped, dry.dropped);
    let state_bytes = fs::metadata(stopped_folder.join("state.safetensors")).unwrap().len();
    assert_eq!(
        cleaned.dropped,
        [(Some(done.clone()), Dropped::Frames, state_bytes + 1000), (None, Dropped::Leftovers, 2)]
    );
    assert_eq!(cleaned.bytes(), state_bytes + 1002);
    assert_eq!(files(&done_folder), kept);
    assert_eq!(place.standing(&done), Standing::Done, "it is no less done");
    assert_eq!(place.runs.look(&stopped).steps_done, 1, "what can go on is left alone");
    assert!(!never_begun.exists());

    // Whole runs only if that is asked for, and never the newest that are to be kept.
    let whole = CleanRules { drop_runs_after: Some(35 * day), ..rules };
    age(&done_folder, 40);
    let spared = place.runs.clean(&CleanRules { keep_last: 2, ..whole.clone() }).unwrap();
    assert_eq!(spared.dropped, []);
    let cleaned = place.runs.clean(&whole).unwrap();
    assert_eq!(cleaned.dropped.len(), 2);
    assert_eq!((cleaned.failed.len(), place.runs.list().unwrap().len()), (0, 0));
    assert!(place.record.output.exists(), "the video stays where it was written");
}

/// A folder in the place of a video is the video only with all of its frames.
#[test]
fn frames_stay_unless_the_video_has_them() {
    let mut place = Place::new();
    place.record.output = place.folder.path().join("video");
    let run = place.begin();
    let (id, kept) = (run.id().clone(), run.path("frames"));
    let name = |number: usize| format!("frame_{number:05}.png");
    for folder in [&kept, &place.record.output] {
        fs::create_dir(folder).unwrap();
        (0..3).for_each(|number| fs::write(folder.join(name(number)), [0; 10]).unwrap());
    }
    run.end(&place.report("done")).unwrap();
    drop(run);
    let rules = CleanRules {
        now: SystemTime::now() + Duration::from_secs(10),
        drop_frames_after: Duration::ZERO,
        drop_runs_after: None,
        keep_last: 0,
        is_dry: false,
    };
    let frame = place.record.output.join(name(1));
    fs::write(&frame, [0; 9]).unwrap();
    assert_eq!(place.runs.clean(&rules).unwrap().dropped, [], "one is cut short");
    fs::remove_file(&frame).unwrap();
    assert_eq!(place.runs.clean(&rules).unwrap().dropped, [], "one is gone");
    fs::write(&frame, [0; 10]).unwrap();
    assert_eq!(place.runs.clean(&rules).unwrap().dropped, [(Some(id), Dropped::Frames, 30)]);
    assert!(!kept.exists());
}

/// Frames that are the video itself are not needless.
#[test]
fn the_only_copy_of_a_video_is_not_dropped() {
    let place = Place::new();
    let (_, folder) = place.done();
    fs::remove_file(folder.join("video.gif")).unwrap();
    age(&folder, 40);
    let rules = CleanRules {
        now: SystemTime::now(),
        drop_frames_after: Duration::ZERO,
        drop_runs_after: None,
        keep_last: 0,
        is_dry: false,
    };
    place.runs.clean(&rules).unwrap();
    assert!(folder.join("frames").is_dir() && !folder.join("state.safetensors").exists());
}
