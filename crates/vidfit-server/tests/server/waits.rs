//! Jobs that the machine cannot make for a while: none of them is lost.

use crate::running::{Running, start, start_in, start_with, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

/// Waits until a job has to wait for the machine, and says how it stands then.
fn put_off(server: &Running, id: &str) -> Value {
    let mut last = Value::Null;
    wait_until("it is put off", || {
        last = server.video(id);
        assert_ne!(last["status"], "failed", "{last}");
        last["waiting"].is_string() && last["status"] == "queued"
    });
    last
}

#[test]
fn a_disk_that_fills_under_a_job_only_delays_it() {
    let server = start();
    let id = server.order("full");
    let video = put_off(&server, &id);
    assert_eq!(video["waiting"], "cannot write state: No space left on device");
    assert!(video["error"].is_null() && video["position"] == 1, "{video}");
    // What can be made is made meanwhile.
    let other = server.order("other");
    assert!(server.wait(&other, "completed")["waiting"].is_null());
    assert_eq!(server.steps(&id), [0, 1]);
    // Nor does a server that is started again give it up.
    let server = start_in(server.stop(), |_| {});
    put_off(&server, &id);
    std::fs::write(server.job(&id).join("room"), "").unwrap();
    let video = server.wait(&id, "completed");
    assert!(video["waiting"].is_null(), "{video}");
    assert_eq!(server.steps(&id), [0, 1, 2, 3]);
}

#[test]
fn what_does_not_fit_for_a_while_is_tried_again() {
    let server = start();
    let id = server.order("no room");
    assert_eq!(put_off(&server, &id)["waiting"], "3 GB are needed, 2 GB are free");
    server.wait(&id, "completed");
    // Nothing of that is a crash.
    assert_eq!(server.metric("vidfit_worker_crashes_total"), Some(0.0));
}

#[test]
fn a_model_that_is_away_is_waited_for() {
    let server = start();
    let id = server.order("away");
    let video = put_off(&server, &id);
    assert_eq!(video["waiting"], "the model in x is not here now");
    assert!(video["started_at"].is_null(), "{video}");
    server.wait(&server.order("other"), "completed");
    let server = start_in(server.stop(), |_| {});
    put_off(&server, &id);
    std::fs::write(server.job(&id).join("here"), "").unwrap();
    server.wait(&id, "completed");
}

#[test]
fn a_model_that_goes_away_under_a_job_is_waited_for() {
    let server = start();
    let id = server.order("vanish");
    assert_eq!(put_off(&server, &id)["waiting"], "the model in x is not here now");
    std::fs::write(server.job(&id).join("here"), "").unwrap();
    server.wait(&id, "completed");
}

#[test]
fn a_job_that_is_put_off_can_be_cancelled_and_pauses_grow() {
    let server = start_with(|config| {
        config.retry_pause = Duration::from_secs(3600);
        config.max_retry_pause = Duration::from_secs(3600);
    });
    let [a, b] = ["away", "full"].map(|prompt| server.order(prompt));
    put_off(&server, &a);
    put_off(&server, &b);
    // Nothing is held meanwhile, and nobody turns in circles.
    wait_until("the worker has ended", || server.metric("vidfit_worker_processes") == Some(0.0));
    assert_eq!(server.metric("vidfit_jobs_put_off"), Some(2.0));
    let cancelled = server.post(&format!("/v1/videos/{a}/cancel"), &json!({})).json();
    assert_eq!((&cancelled["status"], &cancelled["waiting"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(server.delete(&format!("/v1/videos/{b}")).status, 200);
    wait_until("its files are gone", || !server.job(&b).exists());
    server.wait(&server.order("other"), "completed");
    assert_eq!(server.metric("vidfit_jobs_put_off"), Some(0.0));
}

#[test]
fn what_the_disk_has_no_room_for_is_not_accepted() {
    let server = start();
    let refused = server.post("/v1/videos", &json!({ "prompt": "no disk" }));
    assert_eq!((refused.status, refused.code().as_str()), (503, "disk_full"));
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("9 GB are needed in q"), "{}", refused.text());
    assert_eq!(server.get("/v1/videos").json()["data"], json!([]));
}
