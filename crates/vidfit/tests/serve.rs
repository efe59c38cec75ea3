//! `vidfit serve`, over HTTP, from an order to its video.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use support::server::Server;
use support::worker::{STEPS, ball};
use support::{files, says, stderr, vidfit};

/// The video of [`Server::order`], as the command line makes it.
fn undisturbed() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let words = ball("whole", &["--threads=1", "--device=cpu", "--no-keep"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = vidfit(folder.path(), &words);
    assert!(output.status.success(), "{}", stderr(&output));
    std::fs::read(folder.path().join("whole.mp4")).unwrap()
}

/// Whether a worker has the lock of the queue.
fn has_worker(folder: &Path) -> bool {
    let lock = std::fs::File::open(folder.join("queue/worker.lock")).unwrap();
    lock.try_lock_shared().is_err()
}

#[test]
fn an_order_becomes_the_video_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let id = server.order(&json!({ "seed": "42", "seconds": "2" }));
    let path = format!("/v1/videos/{id}");
    let events: Vec<(String, Value)> = server.events(&format!("{path}/events")).collect();
    let (name, last) = events.last().unwrap();
    assert_eq!((name.as_str(), &last["status"]), ("video", &json!("completed")));
    let steps: Vec<u64> = events.iter().filter_map(|(_, video)| video["step"].as_u64()).collect();
    assert!(steps.iter().any(|step| (1..60).contains(step)), "no steps in between: {steps:?}");
    assert!(steps.is_sorted(), "{steps:?}");

    let video = server.completed(&id);
    assert_eq!(&video, last);
    let expected = [
        ("object", json!("video")),
        ("model", json!("demo")),
        ("task", json!("t2v")),
        ("progress", json!(100)),
        ("size", json!("64x64")),
        ("num_frames", json!(17)),
        ("fps", json!(8.0)),
        ("num_inference_steps", json!(60)),
        ("guidance_scale", json!(2.5)),
        ("seed", json!(42)),
        ("error", Value::Null),
        ("position", Value::Null),
    ];
    for (field, value) in expected {
        assert_eq!(video[field], value, "{field} in {video}");
    }
    assert_eq!(video["plan"]["fits"], true);
    let report = &video["report"];
    assert_eq!(report["planned_peak_bytes"], report["measured_peak_bytes"]);
    assert!(report["seconds"]["denoise"].as_f64().unwrap() > 0.0, "{report}");
    assert!(!video.to_string().contains(folder.path().to_str().unwrap()), "a path: {video}");

    assert!(server.content(&id) == undisturbed());
    let thumbnail = server.get(&format!("{path}/content?variant=thumbnail"));
    assert!(thumbnail.status == 200 && thumbnail.body.starts_with(b"\x89PNG"));
    // Idle, nothing is held: there is no worker.
    let began = Instant::now();
    while has_worker(folder.path()) {
        assert!(began.elapsed() < Duration::from_secs(20), "the worker stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nor is anything of the run, which the video and the report outlive.
    let jobs = folder.path().join("queue/jobs").join(&id);
    let runs = jobs.join("runs");
    assert!(!runs.exists() || files(&runs).is_empty(), "{:?}", files(&runs));
    assert_eq!(server.delete(&path).ok()["deleted"], true);
    assert!(!jobs.exists());
    assert_eq!(server.get(&path).status, 404);
}

#[test]
fn a_video_can_be_made_of_another_and_of_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let model = support::checkpoint("5b-i2v");
    let models = format!("demo,{}", model.display());
    let server = Server::start(folder.path(), &["--models", &models]);
    let first = server.order(&json!({ "num_inference_steps": 4 }));
    server.completed(&first);
    let clip = server.content(&first);
    let fields = [("prompt", "a blue star"), ("num_inference_steps", "6"), ("strength", "0.5")];
    let video = server.post_file("/v1/videos", &fields, ("input_reference", &clip)).ok();
    assert_eq!((&video["task"], &video["strength"]), (&json!("v2v"), &json!(0.5)));
    let id = video["id"].as_str().unwrap();
    server.completed(id);
    assert!(server.content(id) != clip);

    let image = server.get(&format!("/v1/videos/{id}/content?variant=thumbnail")).body;
    let fields = [("prompt", "it turns"), ("num_inference_steps", "2"), ("size", "64x48")];
    let fields = [&fields[..], &[("num_frames", "9")]].concat();
    let video = server.post_file("/v1/videos", &fields, ("input_reference", &image)).ok();
    // The only model here that starts from an image.
    assert_eq!((&video["task"], &video["model"]), (&json!("i2v"), &json!("5b-i2v")));
    server.completed(video["id"].as_str().unwrap());
    let noise = [("input_reference", &b"no picture at all"[..])][0];
    assert!(server.post_file("/v1/videos", &fields, noise).status / 100 == 4);
}

#[test]
fn videos_are_cancelled_whether_they_wait_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let long = json!({ "num_inference_steps": 400 });
    let (first, second) = (server.order(&long), server.order(&long));
    let third = server.order(&json!({ "num_inference_steps": 2 }));
    server.until_step(&first, 2);
    assert_eq!(server.video(&second)["status"], "queued");
    for id in [&second, &first] {
        server.post(&format!("/v1/videos/{id}/cancel"), &json!({})).ok();
        server.until(id, |video| video["status"] == "cancelled");
    }
    server.completed(&third);
    assert_eq!(server.get(&format!("/v1/videos/{first}/content")).status, 409);
    let list = server.get("/v1/videos?status=cancelled").ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
}

/// Whatever ends the server, the job under way and the one that waits are made, once each, and to the
/// same bytes.
#[test]
fn a_server_that_is_killed_goes_on_with_its_jobs() {
    let expected = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let (first, second) = (server.order(&json!({})), server.order(&json!({})));
    for step in [1, 4] {
        server.until_step(&first, step);
        server.kill();
        server = Server::start(folder.path(), &[]);
    }
    #[cfg(unix)]
    {
        server.until_step(&first, 8);
        let pid = server.child.id().to_string();
        assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        assert!(!has_worker(folder.path()), "its worker stays");
        server = Server::start(folder.path(), &[]);
    }
    for id in [&first, &second] {
        let video = server.completed(id);
        assert_eq!(video["num_inference_steps"].to_string(), STEPS);
        assert!(server.content(id) == expected, "another video");
    }
    let list = server.get("/v1/videos").ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    // Of what is completed, nothing is made again.
    let file = folder.path().join("queue/jobs").join(&first).join("video.mp4");
    let written = || file.metadata().unwrap().modified().unwrap();
    let before = written();
    server.kill();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.video(&first)["status"], "completed");
    let third = server.order(&json!({ "num_inference_steps": 1 }));
    server.completed(&third);
    assert!(written() == before);
}

/// `kill -9` of the server at twelve moments, whatever its worker does then: every job is made, and to
/// the same bytes.
#[test]
fn a_queue_survives_kills_at_any_moment() {
    const STEPS: u32 = 12;
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let began = Instant::now();
    let order = json!({ "num_inference_steps": STEPS });
    let first = server.order(&order);
    server.completed(&first);
    let takes = began.elapsed();
    let expected = server.content(&first);
    let ids: Vec<String> = (0..6).map(|_| server.order(&order)).collect();
    for kill in 0..12 {
        // From at once to longer than a job takes, in no order.
        std::thread::sleep(takes.mul_f64(f64::from(kill * 5 % 12) / 8.0));
        server.kill();
        server = Server::start(folder.path(), &[]);
    }
    for id in &ids {
        server.completed(id);
        assert!(server.content(id) == expected, "another video");
    }
    let list = server.get("/v1/videos?limit=100").ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 1 + ids.len());
}

/// A worker that is killed under a job is started again, and goes on with it.
#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_is_killed_harms_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let id = server.order(&json!({}));
    server.until_step(&id, 3);
    // The number of a process's parent comes second behind its name.
    let parent = |pid: &str| -> Option<String> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned())
    };
    let is_worker = |pid: &String| parent(pid) == Some(server.child.id().to_string());
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut processes = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let worker = processes.find(is_worker).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &worker]).status().unwrap().success());
    server.until(&id, |video| video["status"] == "queued");
    server.completed(&id);
    assert!(server.content(&id) == undisturbed());
}

/// A LoRA is named, and counts, as on the command line.
#[test]
fn a_lora_of_the_servers_folder_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let model = support::checkpoint("5b");
    let loras = support::checkpoint("").join("../loras");
    let (model, loras) = (model.to_str().unwrap(), loras.to_str().unwrap());
    let server = Server::start(folder.path(), &["--models", model, "--loras", loras]);
    let size = json!({ "size": "64x48", "num_frames": 9, "num_inference_steps": 3, "seed": 7 });
    let with = |lora: Value| {
        let mut order = size.clone();
        (order["model"], order["lora"]) = (json!("5b"), lora);
        let id = server.order(&order);
        server.completed(&id);
        server.content(&id)
    };
    let lora = format!("--lora={loras}/5b-peft.safetensors:0.5");
    let words = [
        "--prompt=a red ball moving right",
        &format!("--model={model}"),
        "--frames=9",
        "--height=48",
        "--width=64",
        "--steps=3",
        "--seed=7",
        "--threads=1",
        "--device=cpu",
        "--no-keep",
        "--output=v.mp4",
        &lora,
    ];
    let output = vidfit(folder.path(), &[&["generate"][..], &words].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = std::fs::read(folder.path().join("v.mp4")).unwrap();
    assert!(with(json!("5b-peft:0.5")) == expected);
    assert!(with(Value::Null) != expected);
    let outside = json!({ "prompt": "x", "lora": "../loras/5b-peft.safetensors" });
    let error = server.post("/v1/videos", &outside).error(400);
    assert_eq!(error["param"], "lora");
}

#[test]
fn others_need_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--address", "0.0.0.0:0"]);
    let line = server.says();
    let token = line.strip_prefix("token: ").unwrap().to_owned();
    assert!(token.len() >= 43, "{token}");
    assert_eq!(server.get("/healthz").status, 200);
    for wrong in [None, Some("wrong"), Some(&token[..token.len() - 1])] {
        server.token = wrong.map(str::to_owned);
        assert_eq!(server.get("/v1/models").status, 401, "{wrong:?}");
        assert_eq!(server.post("/v1/videos", &json!({ "prompt": "x" })).status, 401, "{wrong:?}");
    }
    server.token = Some(token);
    assert_eq!(server.get("/v1/models").ok()["data"][0]["id"], "demo");

    let mut command = support::command(folder.path(), &["serve", "--queue-dir", "other"]);
    command.args(["--address", "127.0.0.1:0", "--device", "cpu"]);
    command.env("VIDFIT_TOKEN", "a-token-of-mine-0123456789");
    let mut server = Server::of(command);
    assert_eq!(server.get("/v1/models").status, 401);
    server.token = Some("a-token-of-mine-0123456789".into());
    server.get("/v1/models").ok();
}

#[test]
fn plans_and_what_there_is_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--device", "sim:64MB", "--tasks", "t2v", "--models", "demo,zai-org/CogVideoX-5b"];
    let server = Server::start(folder.path(), &more);
    let plan = |body: Value| server.post("/v1/plan", &body);
    let fits = plan(json!({ "model": "demo" })).ok();
    assert_eq!((&fits["fits"], &fits["device"]), (&json!(true), &json!("sim:64MB")));
    let too_big = plan(json!({ "model": "zai-org/CogVideoX-5b" })).ok();
    assert_eq!(too_big["fits"], false);
    let error = plan(json!({ "num_frames": 12 })).error(400);
    assert_eq!(error["param"], "num_frames");
    says(error["message"].as_str().unwrap(), &["9 or 17"]);
    assert_eq!(plan(json!({ "task": "v2v" })).status, 400);
    let error = plan(json!({ "model": "sora-2" })).error(400);
    assert_eq!(error["param"], "model");

    // That needs no files.
    let published = plan(json!({ "model": "5b-I2V", "task": "t2v" })).error(400);
    assert_eq!(published["code"], "unknown_model");
    assert_eq!(plan(json!({ "model": "2b" })).ok()["available"], false);

    let one = server.get("/v1/models/zai-org/CogVideoX-5b").ok();
    assert_eq!(one["available"], false);
    let models = server.get("/v1/models").ok();
    assert_eq!(models["data"][0]["tasks"], json!(["t2v"]));
    assert_eq!(models["data"][1]["available"], false);
    let gpus = server.get("/v1/gpus").ok();
    assert!(gpus.to_string().contains("\"sim:64MB\""), "{gpus}");
    assert!(server.get("/v1/presets").ok().to_string().contains("balanced"));
    let order = json!({ "prompt": "x", "model": "zai-org/CogVideoX-5b" });
    let error = server.post("/v1/videos", &order).error(400);
    says(error["message"].as_str().unwrap(), &["vidfit models pull zai-org/CogVideoX-5b"]);
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (words, expected) in [
        (&["--device", "cuda:7"][..], "cuda:7"),
        (&["--loras", "nowhere"], "nowhere"),
        (&["--token", "short", "--address", "127.0.0.1:0"], "16 characters"),
        (&["--models", "demo", "--tasks", "i2v"], "--tasks"),
        (&["--address", "192.0.2.1:80", "--device", "cpu"], "192.0.2.1:80"),
        (&["--tasks", "x2v"], "x2v"),
    ] {
        let output = vidfit(folder.path(), &[&["serve", "--queue-dir", "queue"], words].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", stderr(&output));
        says(&stderr(&output), &[expected]);
    }
}

/// Whoever reads the log as JSON finds nothing else, whatever happens.
#[cfg(unix)]
#[test]
fn a_log_of_json_is_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let json = |log: &str| -> Vec<Value> {
        let read =
            |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
        log.lines().map(read).collect()
    };
    let words = ["serve", "--queue-dir", "queue", "--log", "json", "--device", "cpu"];
    let run = |more: &[&str]| support::command(folder.path(), &[&words[..], more].concat());
    let failed = run(&["--loras", "nowhere"]).output().unwrap();
    let log = json(&stderr(&failed));
    let last = log.last().unwrap();
    assert_eq!((failed.status.code(), &last["level"]), (Some(2), &json!("ERROR")), "{last}");

    let mut command = run(&["--address", "127.0.0.1:0", "--models", "demo,nowhere"]);
    command.env("VIDFIT_LOG", "info,vidfit_server::access=debug");
    let log = folder.path().join("log");
    command.stderr(std::fs::File::create(&log).unwrap()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    let address = line.trim().split_once("http://").unwrap().1;
    let answer = ureq::get(format!("http://{address}/v1/videos?limit=3")).call().unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let log = json(&std::fs::read_to_string(log).unwrap());
    let has = |level: &str, words: &str| {
        let is_it = |line: &Value| line["level"] == level && line.to_string().contains(words);
        assert!(log.iter().any(is_it), "no {words} in {log:?}");
    };
    has("WARN", "is not offered");
    has("INFO", "stopping");
    has("DEBUG", "\"path\":\"/v1/videos\"");
    has("DEBUG", "\"bytes\":");
    assert!(!log.iter().any(|line| line.to_string().contains("limit=3")));
}
