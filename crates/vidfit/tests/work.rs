//! `vidfit work`: jobs of others, one after another, in one process.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use support::worker::{STEPS, Worker, ball, on_with};
use support::{checkpoint, command, files, says, stderr, vidfit};

/// The video of [`ball`], as the command line makes it undisturbed.
fn undisturbed() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let words = ball("whole", &["--threads=1", "--device=cpu", "--no-keep"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = vidfit(folder.path(), &words);
    assert!(output.status.success(), "{}", stderr(&output));
    video(folder.path(), "whole")
}

fn video(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(format!("{name}.mp4"))).unwrap()
}

#[test]
fn jobs_are_done_one_after_another_and_bad_ones_harm_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut worker = Worker::ready(folder, &[]);
    worker.order("a", &ball("a", &[]));
    worker.order("bad", &ball("bad", &["--frames=12"]));
    worker.say("{\"jobs\": 3}");
    worker.say("no JSON at all");
    worker.order("worse", &["doctor"]);
    worker.order("worst", &[""; 0]);
    worker.order("other", &ball("other", &["--device=cuda:7"]));
    worker.order(&"long".repeat(17), &ball("long", &[]));
    worker.order("b", &ball("b", &["--fps=16"]));
    worker.order("lost", &on_with("nowhere"));

    // In the order given; but what has no name that can be is refused when it is read.
    let mut ends = Vec::new();
    let events = worker.until(|event| {
        ends.extend((event["event"] == "ended").then(|| event.clone()));
        ends.len() == 8
    });
    let (refused, ends): (Vec<Value>, Vec<Value>) =
        ends.into_iter().partition(|end| end["job"].as_str().unwrap().len() > 64);
    says(refused[0]["message"].as_str().unwrap(), &["64 bytes"]);
    let told: Vec<(&str, u64)> = ends
        .iter()
        .map(|end| (end["job"].as_str().unwrap(), end["code"].as_u64().unwrap()))
        .collect();
    let expected = [("a", 0), ("bad", 2), ("worse", 2), ("worst", 2), ("other", 2), ("b", 0)];
    assert_eq!(told[..6], expected);
    assert_eq!(told[6], ("lost", 2));
    says(ends[1]["message"].as_str().unwrap(), &["9 or 17"]);
    says(ends[4]["message"].as_str().unwrap(), &["--device"]);
    assert!(ends.iter().all(|end| end["fault"].is_null()), "{ends:?}");

    // Each says what `--progress json` says, with its name.
    let of = |job: &str| -> Vec<&str> {
        let own = events.iter().filter(|event| event["job"] == job);
        own.map(|event| event["event"].as_str().unwrap()).collect()
    };
    for job in ["a", "b"] {
        let told = of(job);
        for event in ["run", "planned", "phase_began", "progress", "phase_ended", "done", "ended"] {
            assert!(told.contains(&event), "{job}: no {event} in {told:?}");
        }
        assert_eq!(told.last(), Some(&"ended"));
    }
    assert_eq!(of("bad"), ["error", "ended"]);
    assert!(of("b").contains(&"warning"), "16 frames per second are not the model's");
    assert!(events.iter().all(|event| event["job"].is_string()), "an event without a job");

    worker.close();
    assert_eq!(worker.exit_code(), Some(0));
    assert!(video(folder, "a") == undisturbed());
    assert_eq!(files(folder), ["a", "a.mp4", "b", "b.mp4", "queue"]);
}

#[test]
fn a_job_that_is_cancelled_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::ready(folder.path(), &[]);
    worker.order("a", &ball("a", &[]));
    worker.order("b", &ball("b", &[]));
    worker.order("c", &ball("c", &["--steps=2"]));
    worker.cancel("nobody");
    worker.until_step("a", 3);
    worker.cancel("b");
    let end = worker.end_of("b");
    assert_eq!(
        (&end["code"], &end["message"]),
        (&json!(130), &json!("interrupted; nothing was written"))
    );
    worker.cancel("a");
    let end = worker.end_of("a");
    assert_eq!(end["code"], 130);
    let message = end["message"].as_str().unwrap();
    says(message, &["interrupted after ", &format!(" of {STEPS} steps")]);
    // Whoever asked for it knows where it is; others need not.
    assert!(!message.contains(folder.path().to_str().unwrap()) && !message.contains("resume"));
    // What has ended is not stopped any more, and stops no other.
    worker.cancel("a");
    worker.succeeds("c");
    assert!(!folder.path().join("a.mp4").exists() && !folder.path().join("b").exists());

    worker.order("a", &on_with("a"));
    worker.succeeds("a");
    assert!(video(folder.path(), "a") == undisturbed());
}

#[test]
fn the_end_of_the_input_stops_a_job_that_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::ready(folder.path(), &[]);
    worker.order("a", &ball("a", &[]));
    worker.order("b", &ball("b", &[]));
    worker.until_step("a", 5);
    worker.close();
    assert_eq!(worker.end_of("b")["code"], 130);
    assert_eq!(worker.end_of("a")["code"], 130);
    assert_eq!(worker.exit_code(), Some(0));
    assert_eq!(files(folder.path()), ["a", "queue"]);

    let mut worker = Worker::ready(folder.path(), &[]);
    worker.order("a", &on_with("a"));
    worker.succeeds("a");
    assert!(video(folder.path(), "a") == undisturbed());
    // Once more, it is done already: nothing is written.
    let written = || folder.path().join("a.mp4").metadata().unwrap().modified().unwrap();
    let before = written();
    worker.order("again", &on_with("a"));
    let events = worker.until(|event| event["event"] == "ended");
    assert_eq!(events.last().unwrap()["code"], 0);
    assert_eq!(events[0]["event"], "done");
    assert!(written() == before);
}

#[cfg(unix)]
#[test]
fn a_signal_is_as_the_end_of_the_input() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let mut worker = Worker::ready(folder.path(), &[]);
        worker.order("a", &ball("a", &[]));
        worker.until_step("a", 2);
        let pid = worker.child.id().to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
        assert_eq!(worker.end_of("a")["code"], 130);
        assert_eq!(worker.exit_code(), Some(0));
    }
}

/// Whenever the worker is killed, what is asked for next makes the same video: `resume`, where a run
/// has its directory, else `generate`.
#[test]
fn a_job_of_a_worker_that_was_killed_goes_on_to_the_same_bytes() {
    let expected = undisturbed();
    type IsIt = fn(&Value) -> bool;
    let moments: [(&str, IsIt); 7] = [
        ("before anything", |_| true),
        ("at the beginning", |event| event["event"] == "memory"),
        ("after the text", |event| event["event"] == "phase_ended" && event["phase"] == "text"),
        ("mid-way", |event| event["phase"] == "denoise" && event["steps_done"] == 20),
        ("in the decode", |event| event["event"] == "phase_began" && event["phase"] == "decode"),
        ("while it is written", |event| {
            event["event"] == "memory" && event["when"] == "at the end"
        }),
        ("once it is done", |event| event["event"] == "done"),
    ];
    for (moment, is_it) in moments {
        let folder = tempfile::tempdir().unwrap();
        let mut worker = Worker::ready(folder.path(), &[]);
        worker.order("a", &ball("a", &["--keep"]));
        if moment != "before anything" {
            worker.until(is_it);
        }
        worker.kill();
        let runs = folder.path().join("a");
        let has_begun = runs.is_dir() && files(&runs).iter().any(|name| !name.starts_with('.'));
        assert!(has_begun || moment == "before anything", "{moment}");
        let mut worker = Worker::ready(folder.path(), &[]);
        match has_begun {
            true => worker.order("a", &on_with("a")),
            false => worker.order("a", &ball("a", &["--keep"])),
        }
        worker.succeeds("a");
        assert!(video(folder.path(), "a") == expected, "{moment}: other bytes");
        // Of what had no name yet nothing can be seen.
        let begun: Vec<String> =
            files(&runs).into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(begun.len(), 1, "{moment}: {begun:?}");
    }
}

#[test]
fn one_worker_at_a_time_has_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Worker::ready(folder.path(), &[]);
    let mut second = Worker::start(folder.path(), &[]);
    second.order("b", &ball("b", &["--steps=2"]));
    assert!(second.is_silent_for(Duration::from_millis(500)));
    // One that is not needed any more does not wait for it.
    let mut third = Worker::start(folder.path(), &[]);
    third.close();
    assert_eq!(third.exit_code(), Some(0));

    first.order("a", &ball("a", &["--steps=2"]));
    first.succeeds("a");
    assert!(second.is_silent_for(Duration::from_millis(200)));
    first.kill();
    assert_eq!(second.next(), json!({ "event": "ready" }));
    second.succeeds("b");
}

/// An orphan of a server that was killed may be done with a job when the next server asks to go on with
/// it: its run, if that is not kept, is gone by then.
#[test]
fn what_another_worker_was_done_with_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::ready(folder.path(), &[]);
    worker.order("a", &ball("a", &["--steps=3", "--no-keep"]));
    worker.succeeds("a");
    assert_eq!(files(&folder.path().join("a")), [""; 0]);
    let before = video(folder.path(), "a");
    worker.order("a", &on_with("a"));
    worker.succeeds("a");
    assert!(video(folder.path(), "a") == before);
    std::fs::remove_file(folder.path().join("a.mp4")).unwrap();
    worker.order("a", &on_with("a"));
    let end = worker.end_of("a");
    assert_eq!(end["code"], 2);
    says(end["message"].as_str().unwrap(), &["there are no runs"]);
}

/// Settings are defaults of a job's words, as they are of the command line's.
#[test]
fn settings_are_defaults_of_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, "steps = 3\nthreads = 1\n[presets.draft]\nsteps = 4\n").unwrap();
    let mut command = command(folder.path(), &["work", "--queue-dir", "queue"]);
    command.env("VIDFIT_CONFIG", &settings).env("VIDFIT_DEVICE", "cpu").env("VIDFIT_SEED", "7");
    let mut worker = Worker::of(command);
    assert_eq!(worker.next(), json!({ "event": "ready" }));
    let words = |name: &str| -> Vec<String> {
        let without = ball(name, &[]).into_iter().filter(|word| !word.starts_with("--steps"));
        without.collect()
    };
    let steps = |worker: &Worker, job: &str| {
        let events = worker.until(|event| event["job"] == job && event["event"] == "ended");
        let planned = events.iter().find(|event| event["event"] == "planned").unwrap();
        planned["steps"].as_u64().unwrap()
    };
    worker.order("a", &words("a"));
    assert_eq!(steps(&worker, "a"), 3);
    worker.order("b", &[words("b"), vec!["--preset=draft".to_owned()]].concat());
    assert_eq!(steps(&worker, "b"), 4);
    let run = support::files(&folder.path().join("a")).remove(0);
    let request = support::json_file(folder.path().join("a").join(run).join("request.json"));
    assert_eq!(request["request"]["seed"], 7);
    assert_eq!(
        (&request["machine"]["device"], &request["machine"]["threads"]),
        (&json!("cpu"), &json!(1))
    );
}

/// Weights stay from one job to the next where that is asked for, also to one that goes on, and go
/// after a while; without, nothing is held.
#[test]
fn weights_stay_between_jobs_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = checkpoint("5b");
    let words = |name: &str| {
        let model = format!("--model={}", model.display());
        let size = ["--frames=9", "--height=48", "--width=64", "--steps=30", &model];
        ball(name, &size)
    };
    let held = |worker: &Worker, job: &str, when: &str| {
        let events = worker.until(|event| event["job"] == job && event["event"] == "ended");
        let event = events.iter().find(|event| event["event"] == "memory" && event["when"] == when);
        event.unwrap()["used_bytes"].as_u64().unwrap()
    };
    let mut cold = Worker::ready(folder, &["--device", "sim:64MB"]);
    cold.order("a", &words("cold"));
    assert_eq!(held(&cold, "a", "at the end"), 0);
    drop(cold);

    let device = ["--device", "sim:64MB", "--warm", "1"];
    let mut warm = Worker::ready(folder, &device);
    warm.order("a", &words("a"));
    let bytes = held(&warm, "a", "at the end");
    assert!(bytes > 0);
    warm.order("b", &words("b"));
    assert_eq!(held(&warm, "b", "before loading"), bytes);
    warm.order("c", &words("c"));
    warm.until_step("c", 4);
    warm.cancel("c");
    assert_eq!(warm.end_of("c")["code"], 130);
    warm.order("c", &on_with("c"));
    assert_eq!(held(&warm, "c", "before loading"), bytes);
    for name in ["a", "b", "c"] {
        assert!(video(folder, name) == video(folder, "cold"), "{name}");
    }
    drop(warm);

    let mut idle = Worker::ready(folder, &[&device[..], &["--idle-unload", "1"]].concat());
    idle.order("d", &words("d"));
    assert!(held(&idle, "d", "at the end") > 0);
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(1500));
    idle.order("e", &words("e"));
    assert_eq!(held(&idle, "e", "before loading"), 0, "after {:?}", began.elapsed());
}

/// Whoever asked for a job is to know whether it can be made later, as it is.
#[test]
fn what_the_machine_has_no_room_for_is_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::ready(folder.path(), &["--device", "sim:1MB"]);
    worker.order("a", &ball("a", &[]));
    let end = worker.end_of("a");
    assert_eq!((&end["code"], &end["fault"]), (&json!(3), &json!("machine")), "{end}");
}
