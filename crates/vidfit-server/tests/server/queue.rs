//! The queue: its order, its limits, and what it survives.

use crate::client::send;
use crate::running::{Killable, config, start, start_in, start_with, wait_until};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LONG: u64 = 1000;

#[test]
fn jobs_run_one_at_a_time_by_priority_then_in_order() {
    let server = start();
    let blocker = server.order_with(json!({ "prompt": "slow", "num_inference_steps": LONG }));
    server.wait_for_step(&blocker, 1);
    let order = |prompt: &str, priority: i32| {
        server.order_with(json!({ "prompt": prompt, "priority": priority }))
    };
    let (a, b, c, d) = (order("a", 0), order("b", 5), order("c", 0), order("d", -5));
    let places = |ids: [&String; 4]| ids.map(|id| server.video(id)["position"].as_u64().unwrap());
    assert_eq!(places([&a, &b, &c, &d]), [2, 1, 3, 4]);
    assert_eq!(server.metric("vidfit_queue_length"), Some(4.0));
    assert_eq!(server.metric("vidfit_jobs{status=\"in_progress\"}"), Some(1.0));
    assert_eq!(server.post(&format!("/v1/videos/{blocker}/cancel"), &json!({})).status, 200);
    let mut begun: Vec<_> = [&a, &b, &c, &d].map(|id| (server.wait(id, "completed"), id)).to_vec();
    let done =
        |id: &str| std::fs::metadata(server.job(id).join("video.mp4")).unwrap().modified().unwrap();
    begun.sort_by_key(|(_, id)| done(id));
    let ids: Vec<_> = begun.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [&b, &a, &c, &d]);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = start_with(|config| config.queue_limit = 2);
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": LONG }));
    server.wait_for_step(&running, 1);
    let waiting = server.order("one");
    server.order("two");
    let refused = server.post("/v1/videos", &json!({ "prompt": "three" }));
    assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"));
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    // The body of what will be refused is not read.
    let big = send(
        server.address,
        "POST",
        "/v1/videos",
        &[("Content-Type", "application/json"), ("Expect", "100-continue")],
        b"",
    );
    assert_eq!(big.status, 429);
    server.delete(&format!("/v1/videos/{waiting}"));
    server.order("three");
}

#[test]
fn a_key_gives_the_same_job() {
    let server = start();
    let order = |key: &str, prompt: &str| {
        server.post_with("/v1/videos", &[("Idempotency-Key", key)], &json!({ "prompt": prompt }))
    };
    let first = order("k1", "a");
    let again = order("k1", "a");
    assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]));
    let other = order("k1", "b");
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_key_reused"));
    assert_ne!(order("k2", "a").json()["id"], first.json()["id"]);
    assert_eq!(order("", "a").status, 400);
    // Many at once are one.
    let ids: Vec<_> = std::thread::scope(|scope| {
        let each = || order("k3", "c").json()["id"].clone();
        let all: Vec<_> = (0..8).map(|_| scope.spawn(each)).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // It survives, as the job does.
    let folder = server.stop();
    let server = start_in(folder, |_| {});
    let again =
        server.post_with("/v1/videos", &[("Idempotency-Key", "k1")], &json!({ "prompt": "a" }));
    assert_eq!(again.json()["id"], first.json()["id"]);
}

#[test]
fn a_stopped_server_saves_the_step_and_goes_on() {
    let server = start();
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 30 }));
    let waiting = server.order("next");
    server.wait_for_step(&running, 3);
    let folder = server.stop();
    assert!(
        std::fs::read_to_string(folder.path().join("jobs").join(&running).join("runs/steps"))
            .unwrap()
            .lines()
            .count()
            < 30
    );
    let server = start_in(folder, |_| {});
    // What has begun goes first.
    server.wait(&running, "completed");
    server.wait(&waiting, "completed");
    assert_eq!(server.steps(&running), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_killed_server_loses_nothing_and_makes_nothing_twice() {
    let folder = Arc::new(TempDir::new().unwrap());
    let mut ids = Vec::new();
    for round in 0..3 {
        let server = Killable::start(folder.clone());
        let order = json!({ "prompt": "slow", "num_inference_steps": 40 });
        ids.push(server.running.order_with(order));
        ids.push(server.running.order("quick"));
        if round == 1 {
            let doomed = server.running.order("slow, not wanted");
            server.running.delete(&format!("/v1/videos/{doomed}"));
        }
        wait_until("something runs", || {
            ids.iter().any(|id| server.running.video(id)["step"].is_u64())
        });
        server.kill();
    }
    std::fs::create_dir(folder.path().join("jobs/video_orphan")).unwrap();
    let server = start_in(folder, |_| {});
    for id in &ids {
        server.wait(id, "completed");
        let steps = server.steps(id);
        assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>());
    }
    assert_eq!(server.get("/v1/videos").json()["data"].as_array().unwrap().len(), ids.len());
    assert!(!server.folder.path().join("jobs/video_orphan").exists());
    assert_eq!(std::fs::read_dir(server.folder.path().join("jobs")).unwrap().count(), ids.len());
}

#[test]
fn a_crashed_worker_goes_on_a_few_times_and_no_more() {
    let server = start();
    let (twice, always) = (server.order("crash 2"), server.order("crash 9"));
    let after = server.order("next");
    server.wait(&twice, "completed");
    assert_eq!(server.steps(&twice), [0, 1, 2, 3]);
    let failed = server.wait(&always, "failed");
    assert_eq!(failed["error"]["code"], "worker_crashed");
    assert!(failed["error"]["message"].as_str().unwrap().contains("4 times"), "{failed}");
    server.wait(&after, "completed");
    assert_eq!(server.metric("vidfit_worker_crashes_total"), Some(6.0));
}

#[test]
fn failures_say_why_without_naming_folders() {
    let server = start();
    for (prompt, code, message) in [
        ("fail", "failed", "reading weights.bin: it is damaged"),
        ("no video", "no_video", "the job ended without a video"),
        ("impossible", "gone", "the model in x is gone"),
    ] {
        let failed = server.wait(&server.order(prompt), "failed");
        assert_eq!(
            (&failed["error"]["code"], &failed["error"]["message"]),
            (&json!(code), &json!(message))
        );
        let content = server.get(&format!("/v1/videos/{}/content", failed["id"].as_str().unwrap()));
        assert_eq!((content.status, content.code().as_str()), (409, "not_completed"));
    }
    let noisy = server.wait(&server.order("noise"), "completed");
    // Once, though it is said twice.
    assert_eq!(noisy["warnings"], json!(["the file weights.bin is old"]));
}

#[test]
fn cancelling_stops_what_waits_and_what_runs() {
    let server = start();
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": LONG }));
    let waiting = server.order("next");
    server.wait_for_step(&running, 2);
    let cancel = |id: &str| server.post(&format!("/v1/videos/{id}/cancel"), &json!({}));
    assert_eq!(cancel(&waiting).json()["status"], "cancelled");
    assert_eq!(cancel(&running).status, 200);
    let cancelled = server.wait(&running, "cancelled");
    let content = server.get(&format!("/v1/videos/{running}/content"));
    assert!(content.status == 409 && content.text().contains("it was cancelled"));
    assert!(cancelled["completed_at"].is_i64() && cancelled["error"].is_null());
    // So far it had come.
    assert!(cancelled["progress"].as_u64() > Some(0), "{cancelled}");
    assert_eq!(server.metric("vidfit_jobs_ended_total{status=\"cancelled\"}"), Some(2.0));
    assert!(server.get("/metrics").text().contains("vidfit_build_info{version=\""));
    assert!(server.steps(&running).len() < 100);
    assert!(server.steps(&waiting).is_empty());
    // Once more is no harm, and what is over stays as it is.
    assert_eq!(cancel(&running).json()["status"], "cancelled");
    let done = server.order("done");
    server.wait(&done, "completed");
    assert_eq!(cancel(&done).json()["status"], "completed");
    assert_eq!(cancel("video_0").status, 404);
}

#[test]
fn a_worker_that_does_not_listen_is_killed() {
    let server = start_with(|config| config.stop_timeout = Duration::from_millis(200));
    let deaf = server.order_with(json!({ "prompt": "slow and deaf", "num_inference_steps": LONG }));
    server.wait_for_step(&deaf, 1);
    server.post(&format!("/v1/videos/{deaf}/cancel"), &json!({}));
    server.wait(&deaf, "cancelled");
    // The end of the server does not wait for it either, and the job goes on later.
    let deaf = server.order_with(json!({ "prompt": "slow and deaf", "num_inference_steps": 60 }));
    server.wait_for_step(&deaf, 1);
    let began = Instant::now();
    let folder = server.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    let server = start_in(folder, |_| {});
    server.wait(&deaf, "completed");
}

#[test]
fn deleting_takes_the_files_too() {
    let server = start();
    let done = server.order("done");
    server.wait(&done, "completed");
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": LONG }));
    server.wait_for_step(&running, 1);
    for id in [&done, &running] {
        let answer = server.delete(&format!("/v1/videos/{id}"));
        assert_eq!(answer.json(), json!({ "id": id, "object": "video.deleted", "deleted": true }));
        assert_eq!(server.get(&format!("/v1/videos/{id}")).status, 404);
        assert_eq!(server.get(&format!("/v1/videos/{id}/content")).status, 404);
        assert_eq!(server.delete(&format!("/v1/videos/{id}")).status, 404);
        wait_until("its files are gone", || !server.job(id).exists());
    }
    assert_eq!(server.get("/v1/videos").json()["data"], json!([]));
    server.wait(&server.order("next"), "completed");
}

#[test]
fn an_idle_server_has_no_worker() {
    let server = start();
    server.wait(&server.order("a"), "completed");
    wait_until("the worker has ended", || server.metric("vidfit_worker_processes") == Some(0.0));
    assert_eq!(server.metric("vidfit_device_held_bytes"), Some(0.0));
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": LONG }));
    server.wait_for_step(&running, 1);
    assert_eq!(server.metric("vidfit_device_held_bytes"), Some(3_500_000.0));
    assert_eq!(server.get("/v1/gpus").json()["data"][0]["held_bytes"], 3_500_000);
    server.post(&format!("/v1/videos/{running}/cancel"), &json!({}));
    wait_until("the worker has ended", || server.metric("vidfit_device_held_bytes") == Some(0.0));
    assert_eq!(server.metric("vidfit_phase_seconds_sum{phase=\"denoise\"}"), Some(2.0));
    assert_eq!(server.metric("vidfit_job_peak_bytes{kind=\"measured\"}"), Some(2_900_000.0));
}

#[test]
fn a_warm_worker_stays_for_a_while() {
    let server = start_with(|config| config.idle_unload = Duration::from_millis(600));
    server.wait(&server.order("a"), "completed");
    assert_eq!(server.metric("vidfit_worker_processes"), Some(1.0));
    server.wait(&server.order("b"), "completed");
    wait_until("the worker has ended", || server.metric("vidfit_worker_processes") == Some(0.0));
}

#[test]
fn a_full_disk_refuses_orders_and_loses_none() {
    let server = start_with(|config| config.max_database_bytes = Some(96 << 10));
    let prompt = "noise ".repeat(1000);
    let mut taken = Vec::new();
    let refused = loop {
        let answer = server.post("/v1/videos", &json!({ "prompt": prompt }));
        match answer.status {
            200 => taken.push(answer.json()["id"].as_str().unwrap().to_owned()),
            _ => break answer,
        }
        assert!(taken.len() < 100);
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "disk_full"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("make room"));
    assert!(!taken.is_empty());
    let folder = server.stop();
    let server = start_in(folder, |_| {});
    for id in &taken {
        server.wait(id, "completed");
        assert_eq!(server.steps(id), [0, 1, 2, 3]);
    }
}

#[test]
fn a_queue_is_one_servers_alone() {
    let server = start();
    let second = vidfit_server::serve(
        config(server.folder.path()),
        crate::running::backend(),
        &true.into(),
        |_| {},
    );
    assert!(second.unwrap_err().to_string().contains("in use by another vidfit server"));
}

#[test]
fn servers_that_everyone_could_use_are_refused() {
    let folder = TempDir::new().unwrap();
    let refused = |change: &dyn Fn(&mut vidfit_server::Config)| {
        let mut config = config(folder.path());
        change(&mut config);
        vidfit_server::serve(config, crate::running::backend(), &true.into(), |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&|it| it.address.set_ip([0, 0, 0, 0].into())).contains("without a token"));
    assert!(refused(&|it| it.token = Some("short".into())).contains("can be guessed"));
}
